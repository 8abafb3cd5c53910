//! What wakes: each object that can be waited for has a hub with two sides. A backend's wake-up of a side wakes the
//! threads that sleep on it and feeds its watch record to the queue that watches it.

use std::sync::{Arc, PoisonError};
use std::task::{Wake, Waker};

use crate::abi::{mux_handle, mux_status_code};
use crate::callback;
use crate::deadline::Deadline;
use crate::platform::{self, Patience, Slept};
use crate::queue::{Entry, Queue};
use crate::status::Fault;
use crate::sync::{AtomicBool, AtomicU32, AtomicU64, Mutex, MutexGuard, Ordering};

/// The two sides of an object that are waited for apart, so that a reader and a writer can use different queues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// Accepting, reading.
    Recv = 0,
    /// Connecting, opening, writing.
    Send = 1,
}

pub(crate) const SIDES: [Side; 2] = [Side::Recv, Side::Send];

/// An event counter that threads sleep on.
#[derive(Default)]
pub(crate) struct Signal {
    count: AtomicU32,
    sleepers: AtomicU32,
    patience: Patience,
}

impl Signal {
    /// Wakes every sleeper. Async-signal-safe.
    pub(crate) fn raise(&self) {
        self.count.fetch_add(1, Ordering::SeqCst);
        if self.sleepers.load(Ordering::SeqCst) > 0 {
            platform::wake_all(&self.count);
        }
    }

    /// Calls `attempt` until it gives something, and sleeps in between. What happens after `attempt` has looked ends
    /// the sleep, even if it happens before the sleep begins.
    #[inline(always)]
    pub(crate) fn wait<T>(
        &self,
        deadline: &mut Deadline,
        mut attempt: impl FnMut() -> Result<Option<T>, Fault>,
    ) -> Result<T, Fault> {
        loop {
            let seen = self.count.load(Ordering::SeqCst);
            if let Some(result) = attempt()? {
                return Ok(result);
            }
            self.sleep(seen, deadline)?;
        }
    }

    /// Sleeps unless the count is no longer `seen`.
    #[inline(never)]
    fn sleep(&self, seen: u32, deadline: &mut Deadline) -> Result<(), Fault> {
        let limit = deadline.remaining()?;
        callback::flush();
        if self.patience.look(&self.count, seen) {
            return Ok(());
        }
        self.sleepers.fetch_add(1, Ordering::SeqCst);
        let slept = platform::sleep(&self.count, seen, limit);
        self.sleepers.fetch_sub(1, Ordering::SeqCst);
        if slept == Slept::Interrupted {
            return Err(mux_status_code::MUX_EINTR.into());
        }
        Ok(())
    }
}

/// What all threads and queues that wait for an object share with the backend's wakers.
#[derive(Default)]
pub(crate) struct Hub {
    handle: AtomicU64,
    ended: AtomicBool,
    interrupted: AtomicBool,
    sides: [Signal; 2],
    /// For `mux_wait`, which waits for both sides.
    any: Signal,
    records: [Record; 2],
    /// The receive side is over: whether the object is depends on the send side alone, so its wake-ups count for both.
    relay: AtomicBool,
}

/// A watch: which queue is told about a side.
#[derive(Default)]
struct Record {
    /// Readable without the lock, so that a wake-up of an unwatched side costs one load.
    armed: AtomicBool,
    watch: Mutex<Watch>,
}

#[derive(Default)]
struct Watch {
    /// Stays set when the watch is disarmed, for as long as an entry may be in its list.
    queue: Option<Arc<Queue>>,
    /// An entry is in the list of `queue`.
    queued: bool,
    armed: bool,
    level: bool,
    events: u32,
    user: u64,
}

impl Hub {
    pub(crate) fn set_handle(&self, handle: mux_handle) {
        self.handle.store(handle, Ordering::Relaxed);
    }

    pub(crate) fn handle(&self) -> mux_handle {
        self.handle.load(Ordering::Relaxed)
    }

    /// A waker for what a backend reports of one side.
    pub(crate) fn waker(self: &Arc<Self>, side: Side) -> Waker {
        struct OfSide(Arc<Hub>, Side);
        impl Wake for OfSide {
            fn wake(self: Arc<Self>) {
                self.0.wake(self.1);
            }

            fn wake_by_ref(self: &Arc<Self>) {
                self.0.wake(self.1);
            }
        }
        Waker::from(Arc::new(OfSide(Arc::clone(self), side)))
    }

    pub(crate) fn wake(&self, side: Side) {
        self.sides[side as usize].raise();
        self.any.raise();
        self.feed(side);
        if side == Side::Send && self.relay.load(Ordering::SeqCst) {
            self.feed(Side::Recv);
        }
    }

    pub(crate) fn wake_all(&self) {
        SIDES.iter().for_each(|side| self.wake(*side));
    }

    /// From now on what happens to the send side is news for the receive side too.
    pub(crate) fn relay_send_to_recv(&self) {
        self.relay.store(true, Ordering::SeqCst);
    }

    /// The handle was closed: sleepers leave, and no queue reports it any more.
    pub(crate) fn end(&self) {
        self.ended.store(true, Ordering::SeqCst);
        for side in SIDES {
            self.unwatch(side);
        }
        self.wake_all();
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::SeqCst)
    }

    pub(crate) fn interrupt(&self) {
        self.interrupted.store(true, Ordering::SeqCst);
        self.wake_all();
    }

    pub(crate) fn resume(&self) {
        self.interrupted.store(false, Ordering::SeqCst);
    }

    /// Something was sent: a reader may expect an answer.
    #[inline]
    pub(crate) fn expect_answer(&self) {
        self.sides[Side::Recv as usize].patience.expect_answer();
    }

    /// Waits for one side, or for both with `None`.
    #[inline(always)]
    pub(crate) fn wait<T>(
        &self,
        side: Option<Side>,
        mut deadline: Deadline,
        mut attempt: impl FnMut() -> Result<Option<T>, Fault>,
    ) -> Result<T, Fault> {
        let signal = side.map_or(&self.any, |side| &self.sides[side as usize]);
        let blocking = deadline.may_block();
        signal.wait(&mut deadline, || {
            if self.has_ended() {
                return Err(mux_status_code::MUX_ECLOSED.into());
            }
            if blocking && self.interrupted.load(Ordering::SeqCst) {
                return Err(mux_status_code::MUX_CANCELED.into());
            }
            attempt()
        })
    }

    /// Makes `queue` the one that is told about `side`. The caller evaluates the condition afterwards and calls
    /// [`feed`](Self::feed) if it holds: a wake-up from here on is not lost.
    pub(crate) fn watch(&self, side: Side, queue: &Arc<Queue>, events: u32, level: bool, user: u64) {
        let record = &self.records[side as usize];
        let mut watch = record.lock();
        if let Some(before) = &watch.queue
            && !Arc::ptr_eq(before, queue)
        {
            if watch.queued {
                before.forget(Entry { handle: self.handle(), side });
            }
            watch.queued = false;
        }
        *watch = Watch { queue: Some(Arc::clone(queue)), queued: watch.queued, armed: true, level, events, user };
        record.armed.store(true, Ordering::SeqCst);
    }

    /// Disarms the watch of a side.
    pub(crate) fn unwatch(&self, side: Side) {
        let record = &self.records[side as usize];
        record.disarm(&mut record.lock());
    }

    /// Disarms the watches that `queue` has on this object.
    pub(crate) fn unwatch_from(&self, queue: &Queue) {
        for record in &self.records {
            let mut watch = record.lock();
            if watch.is_of(queue) {
                record.disarm(&mut watch);
            }
        }
    }

    /// Puts a watched side on its queue's list, where it is evaluated when the application asks.
    pub(crate) fn feed(&self, side: Side) {
        let record = &self.records[side as usize];
        if !record.armed.load(Ordering::SeqCst) {
            return;
        }
        let mut guard = record.lock();
        let watch = &mut *guard;
        if let (true, false, Some(queue)) = (watch.armed, watch.queued, &watch.queue) {
            let announce = queue.push(Entry { handle: self.handle(), side }).then(|| Arc::clone(queue));
            watch.queued = true;
            drop(guard);
            if let Some(queue) = announce {
                callback::announce(queue);
            }
        }
    }

    /// An entry left the list of `queue`: the events to evaluate, unless the watch has ended meanwhile. Wake-ups from
    /// here on make a new entry.
    pub(crate) fn begin_delivery(&self, side: Side, queue: &Queue) -> Option<u32> {
        let mut watch = self.records[side as usize].lock();
        if !watch.is_of(queue) {
            return None;
        }
        watch.queued = false;
        if !watch.armed {
            watch.queue = None;
            return None;
        }
        Some(watch.events)
    }

    /// The condition holds: disarms a one-shot watch, and gives its user data and whether the caller is to put the entry back
    /// at the tail, which a level one needs; `None` when the watch was changed meanwhile, by which it was evaluated anew.
    pub(crate) fn finish_delivery(&self, side: Side, queue: &Queue, events: u32) -> Option<(u64, bool)> {
        let record = &self.records[side as usize];
        let mut watch = record.lock();
        if !watch.is_of(queue) || !watch.armed || watch.events != events {
            return None;
        }
        if watch.level {
            let again = !watch.queued;
            watch.queued = true;
            return Some((watch.user, again));
        }
        watch.armed = false;
        record.armed.store(false, Ordering::SeqCst);
        Some((watch.user, false))
    }
}

impl Record {
    fn lock(&self) -> MutexGuard<'_, Watch> {
        self.watch.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn disarm(&self, watch: &mut Watch) {
        self.armed.store(false, Ordering::SeqCst);
        watch.armed = false;
        if !watch.queued {
            watch.queue = None;
        }
    }
}

impl Watch {
    fn is_of(&self, queue: &Queue) -> bool {
        self.queue.as_deref().is_some_and(|mine| std::ptr::eq(mine, queue))
    }
}
