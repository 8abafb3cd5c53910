//! One listener, session or channel of a backend written in C: its place, its cookie, its turn.

use std::collections::HashMap;
use std::ffi::c_void;
use std::ptr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Waker};

use libmux::{Error, ErrorKind, Origin, Result};
use tokio::runtime::Handle;

use super::error::{Status, failure};
use super::{Foreign, Place};
use crate::abi::{mux_error, mux_event_bit, mux_info_key, mux_kind, mux_stats, mux_status};
use crate::callback;
use crate::own::Own;
use crate::status;
use crate::vtable::mux_backend;
use crate::world::world;

/// Who waits for what, by place in [`Wakers`].
pub(super) mod slot {
    /// Of a listener: a session, the end.
    pub(crate) const SESSION: usize = 0;
    pub(crate) const STOPPED: usize = 1;
    /// Of a session.
    pub(crate) const CONNECTED: usize = 0;
    pub(crate) const CHANNEL: usize = 1;
    pub(crate) const OPEN: usize = 2;
    pub(crate) const CAN_OPEN: usize = 3;
    pub(crate) const DRAINED: usize = 4;
    pub(crate) const DATAGRAM: usize = 5;
    pub(crate) const ENDED: usize = 6;
    pub(crate) const PING: usize = 7;
    /// Of a channel: its halves.
    pub(crate) const RECV: usize = 0;
    pub(crate) const SEND: usize = 1;
}

/// What a cookie stands for: whom `mux_backend_ready` wakes.
pub(crate) struct Wakers {
    kind: mux_kind,
    slots: Box<[Mutex<Option<Waker>>]>,
    /// The channels of a session, by cookie: its end is theirs.
    children: Mutex<HashMap<u64, Weak<Wakers>>>,
    /// Where wakers of the application are called: whoever notifies may hold locks that its functions take.
    pub(crate) runtime: Handle,
}

fn unpoisoned<T>(lock: &Mutex<T>) -> MutexGuard<'_, T> {
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Wakers {
    fn new(kind: mux_kind, runtime: Handle) -> Arc<Self> {
        let count = match kind {
            mux_kind::MUX_KIND_SESSION => 8,
            _ => 2,
        };
        let slots = (0..count).map(|_| Mutex::default()).collect();
        Arc::new(Self { kind, slots, children: Mutex::default(), runtime })
    }

    /// The events of this kind of object.
    pub(crate) fn events(&self) -> u32 {
        use mux_event_bit as ev;
        let events: &[ev] = match self.kind {
            mux_kind::MUX_KIND_LISTENER => &[ev::MUX_EV_ACCEPT],
            mux_kind::MUX_KIND_SESSION => {
                &[ev::MUX_EV_CONNECTED, ev::MUX_EV_ACCEPT, ev::MUX_EV_OPEN, ev::MUX_EV_DRAINED, ev::MUX_EV_DATAGRAM]
            }
            _ => &[ev::MUX_EV_READ, ev::MUX_EV_WRITE, ev::MUX_EV_DRAINED, ev::MUX_EV_OPENED],
        };
        events.iter().fold(ev::MUX_EV_CLOSED as u32, |all, event| all | *event as u32)
    }

    /// Something happened: whoever waits looks again.
    pub(crate) fn ready(&self, events: u32) {
        use mux_event_bit as ev;
        let is = |event: ev| events & event as u32 != 0;
        if is(ev::MUX_EV_CLOSED) {
            (0..self.slots.len()).for_each(|at| self.wake(at));
            let children: Vec<_> = unpoisoned(&self.children).values().filter_map(Weak::upgrade).collect();
            children.iter().for_each(|child| child.ready(ev::MUX_EV_CLOSED as u32));
            return;
        }
        let wake = |event: ev, at: usize| {
            if is(event) {
                self.wake(at);
            }
        };
        match self.kind {
            mux_kind::MUX_KIND_LISTENER => wake(ev::MUX_EV_ACCEPT, slot::SESSION),
            mux_kind::MUX_KIND_SESSION => {
                wake(ev::MUX_EV_CONNECTED, slot::CONNECTED);
                wake(ev::MUX_EV_ACCEPT, slot::CHANNEL);
                wake(ev::MUX_EV_OPEN, slot::OPEN);
                wake(ev::MUX_EV_OPEN, slot::CAN_OPEN);
                wake(ev::MUX_EV_DRAINED, slot::DRAINED);
                wake(ev::MUX_EV_DATAGRAM, slot::DATAGRAM);
                self.wake(slot::PING);
            }
            _ => {
                wake(ev::MUX_EV_READ, slot::RECV);
                if events & !(ev::MUX_EV_READ as u32) != 0 {
                    self.wake(slot::SEND);
                }
            }
        }
    }

    fn wake(&self, at: usize) {
        let waker = unpoisoned(&self.slots[at]).take();
        waker.into_iter().for_each(Waker::wake);
    }

    /// Whom to wake from now on. Before a function is asked: what happens while it looks is not lost.
    pub(super) fn park(&self, at: usize, cx: &Context<'_>) {
        let mut waker = unpoisoned(&self.slots[at]);
        match &mut *waker {
            Some(known) => known.clone_from(cx.waker()),
            None => *waker = Some(cx.waker().clone()),
        }
    }
}

/// Closes a cookie when it goes.
struct Cookie(u64);

impl Cookie {
    fn new(wakers: &Arc<Wakers>) -> Result<Self> {
        let cookie = world().cookies.insert(COOKIE, |_| Arc::clone(wakers));
        cookie.map(Self).map_err(|fault| failure_of(&fault.detail()))
    }
}

impl Drop for Cookie {
    fn drop(&mut self) {
        drop(world().cookies.close(self.0));
    }
}

/// The kind that cookies carry, which no handle has.
const COOKIE: u8 = 31;

fn failure_of(detail: &mux_error) -> Error {
    failure(detail.status, Some(detail))
}

/// The functions of one session are called in turn; a listener has a turn of its own.
pub(super) type Turn = Arc<Own<()>>;

pub(super) struct Object {
    pub(super) backend: &'static Foreign,
    place: Place,
    kind: mux_kind,
    turn: Turn,
    pub(super) wakers: Arc<Wakers>,
    cookie: Cookie,
    /// Freed after this one.
    parent: Option<Arc<Object>>,
}

/// What a function that makes an object gave: the object, nothing yet, or a status.
pub(super) type Made = std::result::Result<Option<Arc<Object>>, mux_status>;

impl Object {
    /// An object of a turn of its own, made by `make`, which is called in no turn.
    pub(super) fn first(
        backend: &'static Foreign,
        kind: mux_kind,
        make: impl FnOnce(&mux_backend, *mut c_void, u64, *mut *mut c_void) -> mux_status,
    ) -> Result<Made> {
        let runtime =
            Handle::try_current().map_err(|_| Error::new(ErrorKind::InvalidState, Origin::Local, NO_RUNTIME))?;
        Self::make(backend, kind, runtime, Turn::default(), None, |cookie, out| {
            callback::call(|| make(&backend.table, backend.ctx.0, cookie, out))
        })
    }

    /// An object made by a function of this one, in its turn.
    pub(super) fn next(
        self: &Arc<Self>,
        kind: mux_kind,
        make: impl FnOnce(&mux_backend, *mut c_void, u64, *mut *mut c_void) -> mux_status,
    ) -> Result<Made> {
        let of_session = matches!(kind, mux_kind::MUX_KIND_CHANNEL);
        let turn = if of_session { Arc::clone(&self.turn) } else { Turn::default() };
        let parent = of_session.then(|| Arc::clone(self));
        let runtime = self.wakers.runtime.clone();
        let guard = self.take_turn()?;
        let made = Self::make(self.backend, kind, runtime, turn, parent, |cookie, out| {
            callback::call(|| make(&self.backend.table, self.place.0, cookie, out))
        });
        drop(guard);
        made
    }

    fn make(
        backend: &'static Foreign,
        kind: mux_kind,
        runtime: Handle,
        turn: Turn,
        parent: Option<Arc<Object>>,
        make: impl FnOnce(u64, *mut *mut c_void) -> mux_status,
    ) -> Result<Made> {
        let wakers = Wakers::new(kind, runtime);
        let cookie = Cookie::new(&wakers)?;
        let mut place = ptr::null_mut();
        match make(cookie.0, &raw mut place) {
            Status::OK if place.is_null() => Err(Error::new(ErrorKind::Internal, Origin::Local, NO_OBJECT)),
            Status::OK => {
                if let Some(parent) = &parent {
                    unpoisoned(&parent.wakers.children).insert(cookie.0, Arc::downgrade(&wakers));
                }
                let object = Self { backend, place: Place(place), kind, turn, wakers, cookie, parent };
                Ok(Ok(Some(Arc::new(object))))
            }
            Status::AGAIN => Ok(Ok(None)),
            status => Ok(Err(status)),
        }
    }

    fn take_turn(&self) -> Result<crate::own::Owned<'_, ()>> {
        self.turn.lock_anyway().map_err(|_| Error::new(ErrorKind::InvalidState, Origin::Local, INSIDE))
    }

    /// Calls a function for this object, in its turn.
    pub(super) fn call<T>(&self, function: impl FnOnce(&mux_backend, *mut c_void) -> T) -> Result<T> {
        let _turn = self.take_turn()?;
        Ok(callback::call(|| function(&self.backend.table, self.place.0)))
    }

    /// Which of the events hold.
    pub(super) fn ready(&self, events: u32, min: usize) -> Result<u32> {
        let ready = self.call(|table, place| {
            // SAFETY: registered functions are what `mux_backend` says; `place` is live until its `_free`.
            table.ready.map(|ready| unsafe { ready(self.kind as u32, place, events, min) })
        })?;
        Ok(ready.unwrap_or(0))
    }

    /// The failure that `status` stands for; for `MUX_OK` why it ended, if it did.
    pub(super) fn why(&self, status: mux_status) -> Option<Error> {
        let mut detail = mux_error { status, ..status::nothing_failed() };
        let asked = self.call(|table, place| {
            if let Some(cause) = table.cause {
                // SAFETY: as above; `detail` is writable and outlives the call.
                unsafe { cause(self.kind as u32, place, &raw mut detail) }
            }
        });
        match asked {
            Err(error) if status != Status::OK => return Some(error),
            Err(_) => return None,
            Ok(()) => {}
        }
        // What was asked about stays what it is.
        detail.status = if status == Status::OK { detail.status } else { status };
        (detail.status != Status::OK).then(|| failure_of(&detail))
    }

    /// A fact, empty where there is none.
    pub(super) fn info(&self, key: mux_info_key) -> Vec<u8> {
        let mut room = vec![0u8; 512];
        for _ in 0..2 {
            let length = self.call(|table, place| {
                // SAFETY: as above; `room` is writable for its length.
                table.info.map(|info| unsafe {
                    info(self.kind as u32, place, key as u32, room.as_mut_ptr().cast(), room.len())
                })
            });
            match length.ok().flatten().map(usize::try_from) {
                Some(Ok(length)) if length <= room.len() => {
                    room.truncate(length);
                    return room;
                }
                // Certificates and labels can be longer; nothing sensible is longer than this.
                Some(Ok(length)) if length <= 1 << 20 => room.resize(length, 0),
                _ => break,
            }
        }
        Vec::new()
    }

    pub(super) fn text(&self, key: mux_info_key) -> String {
        String::from_utf8_lossy(&self.info(key)).into_owned()
    }

    /// Counters, zero where there are none.
    pub(super) fn stats(&self) -> mux_stats {
        let mut stats = mux_stats { struct_size: size_of::<mux_stats>() as u32, ..mux_stats::default() };
        let asked = self.call(|table, place| {
            if let Some(count) = table.stats {
                // SAFETY: as above; `stats` is writable and outlives the call.
                unsafe { count(self.kind as u32, place, &raw mut stats) }
            }
        });
        // Without a turn nothing was counted.
        drop(asked);
        stats
    }
}

const NO_RUNTIME: &str = "sessions of backends written in C need the library's runtime";
const NO_OBJECT: &str = "the backend gave MUX_OK and no object";
const INSIDE: &str = "called from within a function of the backend, for the session that the function is for";

impl Drop for Object {
    fn drop(&mut self) {
        // From here on a notification finds nothing.
        drop(std::mem::replace(&mut self.cookie, Cookie(0)));
        let parent = self.parent.take();
        let last =
            Last { backend: self.backend, place: Place(self.place.0), kind: self.kind, turn: Arc::clone(&self.turn) };
        if self.turn.is_mine() {
            // A function of the same session is running in this thread.
            let runtime = self.wakers.runtime.clone();
            runtime.spawn(async move {
                last.call();
                drop(parent);
            });
        } else {
            last.call();
        }
    }
}

/// The last call for an object.
struct Last {
    backend: &'static Foreign,
    place: Place,
    kind: mux_kind,
    turn: Turn,
}

impl Last {
    fn call(&self) {
        let _turn = self.turn.lock_anyway();
        let table = &self.backend.table;
        let free = match self.kind {
            mux_kind::MUX_KIND_LISTENER => table.listener_free,
            mux_kind::MUX_KIND_SESSION => table.session_free,
            _ => table.channel_free,
        };
        if let Some(free) = free {
            // SAFETY: the last call for a place that the backend made; nobody holds it any more.
            callback::call(|| unsafe { free(self.place.0) });
        }
    }
}
