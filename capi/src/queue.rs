//! The readiness queue: a list of sides that may be ready, and a descriptor that is readable while it has entries.

use std::collections::VecDeque;
use std::ffi::c_void;
use std::os::fd::AsRawFd;
use std::sync::{Arc, PoisonError};

use libmux::Error;

use crate::abi::{mux_event, mux_handle, mux_status_code, mux_wake_fn};
use crate::callback;
use crate::deadline::Deadline;
use crate::hub::{Side, Signal};
use crate::platform::{self, EventFd};
use crate::status::Fault;
use crate::sync::{AtomicBool, AtomicI32, AtomicU32, Condvar, Mutex, MutexGuard, Ordering};
use crate::world;

/// A side of an object that may be ready. A handle, not a pointer: entries of what was closed meanwhile find nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) handle: mux_handle,
    pub(crate) side: Side,
}

/// Entries that are taken from the list at once.
const BATCH: usize = 256;

#[derive(Default)]
pub(crate) struct Queue {
    list: Mutex<List>,
    /// The descriptor of `list.fd`, for [`wake`](Self::wake), which may run in a signal handler; -1 before it is made.
    raw_fd: AtomicI32,
    /// Wake-ups by the application that no `next` has answered yet.
    wakes: AtomicU32,
    /// A [`wake`](Self::wake) has written to the descriptor, perhaps after a `next` had answered it.
    woken: AtomicBool,
    signal: Signal,
    ended: AtomicBool,
    interrupted: AtomicBool,
    waker: AppWaker,
}

#[derive(Default)]
struct List {
    entries: VecDeque<Entry>,
    /// Made when first asked for: a queue that is only waited on costs no system calls.
    fd: Option<EventFd>,
    /// The application was told of `entries`: by the descriptor, or by its waker.
    raised: bool,
    released: bool,
    /// Buffers of whoever delivers.
    scratch: [Vec<Entry>; 2],
}

impl Queue {
    pub(crate) fn new() -> Self {
        Self { raw_fd: AtomicI32::new(-1), ..Self::default() }
    }

    /// The descriptor, readable if and only if `next` has something to do.
    pub(crate) fn fd(&self) -> Result<isize, Fault> {
        let mut list = self.lock();
        if let Some(fd) = &list.fd {
            return Ok(fd.as_raw_fd() as isize);
        }
        let fd = platform::event_fd().map_err(|error| Error::from_io("cannot make the queue's descriptor", error))?;
        let raw = fd.as_raw_fd();
        list.fd = Some(fd);
        self.raw_fd.store(raw, Ordering::SeqCst);
        if !list.entries.is_empty() || self.wakes.load(Ordering::SeqCst) > 0 {
            list.raised = true;
            platform::raise(raw);
        }
        Ok(raw as isize)
    }

    /// Adds a side that may have become ready. The caller sees to it that it is in the list once, and gives the queue to
    /// [`callback::announce`] when this is true.
    #[must_use = "the application's waker is to be called"]
    pub(crate) fn push(&self, entry: Entry) -> bool {
        let mut list = self.lock();
        if list.released {
            return false;
        }
        list.entries.push_back(entry);
        let announce = self.tell(&mut list);
        drop(list);
        self.signal.raise();
        announce
    }

    /// There are entries: tells the application unless it knows; whether its waker is to be called.
    fn tell(&self, list: &mut List) -> bool {
        let first = !list.raised;
        if let (true, Some(fd)) = (first, &list.fd) {
            platform::raise(fd.as_raw_fd());
            list.raised = true;
        }
        let announce = first && self.waker.is_set();
        list.raised |= announce;
        announce
    }

    /// Calls the application's waker. With no lock held.
    pub(crate) fn announce_now(&self) {
        self.waker.call();
    }

    /// Replaces the application's waker, and waits until the earlier one runs no more. Told at once of what waits already.
    pub(crate) fn set_waker(self: &Arc<Self>, function: mux_wake_fn, ctx: *mut c_void) -> Result<(), Fault> {
        callback::may_wait()?;
        self.waker.replace(function, ctx);
        let mut list = self.lock();
        let announce = function.is_some() && !list.entries.is_empty();
        list.raised |= announce;
        drop(list);
        if announce {
            callback::announce(Arc::clone(self));
        }
        Ok(())
    }

    /// Has this queue report a side of an object when one of the events holds, now or later.
    pub(crate) fn watch(self: &Arc<Self>, object: &dyn Waitable, side: Side, events: u32, level: bool, user: u64) {
        let hub = object.hub();
        hub.watch(side, self, events, level, user);
        if object.ready(side, events) != 0 {
            hub.feed(side);
        }
        // Closed in between: nothing is reported of it any more.
        if hub.has_ended() {
            hub.unwatch(side);
        }
    }

    /// Removes an entry; its object was given to another queue.
    pub(crate) fn forget(&self, entry: Entry) {
        let mut list = self.lock();
        list.entries.retain(|other| *other != entry);
        self.settle(&mut list);
    }

    /// Makes one `next` return 0. Async-signal-safe: no lock, no allocation.
    pub(crate) fn wake(&self) {
        self.wakes.fetch_add(1, Ordering::SeqCst);
        let fd = self.raw_fd.load(Ordering::SeqCst);
        if fd >= 0 {
            platform::raise(fd);
            self.woken.store(true, Ordering::SeqCst);
        }
        self.signal.raise();
    }

    pub(crate) fn interrupt(&self) {
        self.interrupted.store(true, Ordering::SeqCst);
        self.signal.raise();
    }

    pub(crate) fn resume(&self) {
        self.interrupted.store(false, Ordering::SeqCst);
    }

    /// The handle was closed: sleepers leave.
    pub(crate) fn end(&self) {
        self.ended.store(true, Ordering::SeqCst);
        self.signal.raise();
    }

    /// No call uses the queue any more: the descriptor is closed, although records may still refer to the queue.
    pub(crate) fn release(&self) {
        let mut list = self.lock();
        self.raw_fd.store(-1, Ordering::SeqCst);
        *list = List { released: true, ..List::default() };
    }

    /// Waits for events and hands them to `emit`, at most `max`; 0 after a [`wake`](Self::wake).
    pub(crate) fn next(
        self: &Arc<Self>,
        max: usize,
        mut deadline: Deadline,
        mut emit: impl FnMut(mux_event),
    ) -> Result<i64, Fault> {
        let blocking = deadline.may_block();
        self.signal.wait(&mut deadline, || {
            if self.ended.load(Ordering::SeqCst) {
                return Err(mux_status_code::MUX_ECLOSED.into());
            }
            if blocking && self.interrupted.load(Ordering::SeqCst) {
                return Err(mux_status_code::MUX_CANCELED.into());
            }
            if self.take_wake() {
                return Ok(Some(0));
            }
            let count = self.deliver(max, &mut emit);
            Ok((count > 0).then_some(count))
        })
    }

    /// Answers one wake-up. First, so that no stream of events can starve it.
    fn take_wake(&self) -> bool {
        let taken = self.wakes.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |wakes| wakes.checked_sub(1)).is_ok();
        if taken {
            let list = &mut *self.lock();
            if let Some(fd) = &list.fd {
                // Whoever polls for edges stops at a short count, so what is left is announced by a new edge.
                platform::lower(fd);
                list.raised = false;
                if !list.entries.is_empty() || self.wakes.load(Ordering::SeqCst) > 0 {
                    platform::raise(fd.as_raw_fd());
                    list.raised = true;
                }
            }
        }
        taken
    }

    fn deliver(self: &Arc<Self>, max: usize, emit: &mut impl FnMut(mux_event)) -> i64 {
        let mut count = 0;
        let mut put_back = 0;
        let mut list = self.lock();
        let [mut batch, mut again] = std::mem::take(&mut list.scratch);
        // Level watches go back to the tail: looking at more than what is there now could go on for ever.
        let mut looks = list.entries.len();
        while looks > 0 && (count as usize) < max {
            // No more than can be reported: what is taken from the list is seen to.
            let wanted = looks.min(max - count as usize).min(BATCH).min(list.entries.len());
            batch.extend(list.entries.drain(..wanted));
            drop(list);
            // Of what another thread has taken meanwhile, that one sees to.
            looks = if batch.is_empty() { 0 } else { looks - batch.len() };
            for entry in batch.drain(..) {
                if let Some((event, level)) = self.evaluate(entry) {
                    emit(event);
                    count += 1;
                    if level {
                        again.push(entry);
                    }
                }
            }
            put_back += again.len();
            list = self.lock();
            if !list.released {
                list.entries.extend(again.iter());
            }
            again.clear();
        }
        list.scratch = [batch, again];
        self.settle(&mut list);
        // Another thread may have found the list empty in between, and said so.
        let mut announce = put_back > 0 && !list.entries.is_empty() && self.tell(&mut list);
        // What came while we looked found the descriptor raised already. Whoever polls for edges stops at a short count,
        // so it is announced by an edge of its own.
        if (count as usize) < max && list.entries.len() > put_back {
            if let Some(fd) = &list.fd {
                platform::raise(fd.as_raw_fd());
            }
            announce |= self.waker.is_set();
        }
        drop(list);
        if put_back > 0 {
            self.signal.raise();
        }
        if announce {
            callback::announce(Arc::clone(self));
        }
        count
    }

    /// Looks whether what an entry says is still so: the event, and whether its watch stays.
    fn evaluate(&self, entry: Entry) -> Option<(mux_event, bool)> {
        let object = world::pin(entry.handle).ok()?;
        let object = object.waitable()?;
        let wanted = object.hub().begin_delivery(entry.side, self)?;
        let events = object.ready(entry.side, wanted);
        if events == 0 {
            return None;
        }
        let (user, level) = object.hub().finish_delivery(entry.side, self, wanted)?;
        Some((mux_event { user, h: entry.handle, events, reserved: [0; 3] }, level))
    }

    /// Makes the descriptor unreadable once the list is empty. A wake-up that comes in between is seen by the second
    /// look, or writes after it.
    fn settle(&self, list: &mut List) {
        if !list.entries.is_empty() {
            return;
        }
        let woken = self.woken.load(Ordering::SeqCst) && self.woken.swap(false, Ordering::SeqCst);
        if !list.raised && !woken {
            return;
        }
        list.raised = false;
        if let Some(fd) = &list.fd {
            platform::lower(fd);
            if self.wakes.load(Ordering::SeqCst) > 0 {
                platform::raise(fd.as_raw_fd());
                list.raised = true;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, List> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A function of the application that is told when the list becomes non-empty.
#[derive(Default)]
struct AppWaker {
    /// Readable without the lock, so that queues without one pay a load.
    set: AtomicBool,
    state: Mutex<AppWakerState>,
    idle: Condvar,
}

#[derive(Default)]
struct AppWakerState {
    function: mux_wake_fn,
    /// As a number: it is the application's, and only its function looks at it.
    ctx: usize,
    /// Calls that run at this moment; they do not wait for each other.
    active: u32,
}

impl AppWaker {
    fn is_set(&self) -> bool {
        self.set.load(Ordering::SeqCst)
    }

    fn lock(&self) -> MutexGuard<'_, AppWakerState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn replace(&self, function: mux_wake_fn, ctx: *mut c_void) {
        let mut state = self.lock();
        state.function = function;
        state.ctx = ctx.expose_provenance();
        self.set.store(function.is_some(), Ordering::SeqCst);
        while state.active > 0 {
            state = self.idle.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn call(&self) {
        let mut state = self.lock();
        let Some(function) = state.function else { return };
        let ctx = state.ctx;
        state.active += 1;
        drop(state);
        // SAFETY: by the contract of mux_queue_set_waker it may be called from any thread until it is replaced, which
        // waits for this call.
        callback::call(|| unsafe { function(std::ptr::with_exposed_provenance_mut(ctx)) });
        self.lock().active -= 1;
        self.idle.notify_all();
    }
}

/// What `mux_wait` and queues ask of an object.
pub(crate) trait Waitable {
    fn hub(&self) -> &crate::hub::Hub;

    /// The events that exist here, per side. An event outside of both is an argument mistake.
    fn sides(&self) -> [u32; 2];

    /// Whether an event that exists can be had here.
    ///
    /// # Errors
    /// MUX_EUNSUPPORTED, or why that cannot be said yet.
    fn check(&self, _events: u32) -> Result<(), Fault> {
        Ok(())
    }

    /// Which of the `wanted` events of a side hold now, and MUX_EV_CLOSED if the object has ended. What does not hold
    /// wakes the hub once it does.
    fn ready(&self, side: Side, wanted: u32) -> u32;
}
