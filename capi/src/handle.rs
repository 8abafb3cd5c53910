//! The handle table: from a 64-bit number to an object, without a lock and without trusting the number.
//!
//! A handle is `kind (5 bits) | generation (26) | slot (32)`, bit 63 clear. A slot's state word holds the same kind and
//! generation in its upper half, and in its lower half two flags and the number of calls that use the object (pins). A
//! lookup adds a pin first and compares then, so that what it found cannot be freed under it. Closing sets a flag; the
//! last pin to go frees. Free slots are reused in the order they became free, with the next generation; a slot that has
//! used up its generations is retired, so no handle is ever given out twice in a process.

use std::cell::UnsafeCell;
use std::collections::VecDeque;
use std::ops::Deref;
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::abi::{mux_handle, mux_status_code};
use crate::status::Fault;

/// In the lower half of the state: the object is there.
const OCCUPIED: u64 = 1 << 31;
/// In the lower half of the state: no further call may begin.
const CLOSED: u64 = 1 << 30;
const PINS: u64 = CLOSED - 1;
const GENERATION: u64 = 1 << 32;
const LAST_GENERATION: u64 = (1 << 26) - 1;
const KIND_SHIFT: u32 = 58;

/// Slots in the first chunk; each further chunk is twice as large.
const FIRST_CHUNK: u32 = 256;
const CHUNKS: usize = 24;

/// Objects of type `T` by handle.
pub(crate) struct Table<T: 'static> {
    /// Handles below this slot belong to the process that we were forked from.
    base: u32,
    chunks: [AtomicPtr<Slot<T>>; CHUNKS],
    /// Slots ever used.
    used: AtomicU32,
    free: Mutex<VecDeque<u32>>,
    live: AtomicU64,
}

struct Slot<T> {
    state: AtomicU64,
    /// Written by whoever took the slot from the free list, before OCCUPIED is set; taken by whoever cleared it.
    object: UnsafeCell<Option<T>>,
}

// SAFETY: `object` is shared only while pinned, when nobody writes it; see `Table::insert` and `Pinned::drop`.
unsafe impl<T: Send + Sync> Sync for Table<T> {}
// SAFETY: the table owns its objects.
unsafe impl<T: Send + Sync> Send for Table<T> {}

impl<T: Send + Sync> Table<T> {
    /// An empty table whose handles differ from all those of slots below `base`.
    pub(crate) fn new(base: u32) -> Self {
        Self {
            base,
            chunks: [const { AtomicPtr::new(ptr::null_mut()) }; CHUNKS],
            used: AtomicU32::new(0),
            free: Mutex::default(),
            live: AtomicU64::new(0),
        }
    }

    /// The first slot that this table never used.
    pub(crate) fn end(&self) -> u32 {
        self.base + self.used.load(Ordering::Acquire)
    }

    /// Handles that are open or still in use.
    pub(crate) fn live(&self) -> u64 {
        self.live.load(Ordering::Relaxed)
    }

    /// Stores the object that `make` makes, and gives out its handle.
    pub(crate) fn insert(&self, kind: u8, make: impl FnOnce(mux_handle) -> T) -> Result<mux_handle, Fault> {
        let index = self.take_slot()?;
        let slot = self.slot(index).ok_or(mux_status_code::MUX_EINTERNAL)?;
        let state = slot.state.load(Ordering::Acquire);
        let tag = u64::from(kind) << KIND_SHIFT;
        let handle = tag | (state & (LAST_GENERATION << 32)) | u64::from(self.base + index);
        let object = make(handle);
        // SAFETY: the slot is not OCCUPIED, so nobody reads `object`, and it left the free list, so nobody else writes.
        unsafe { *slot.object.get() = Some(object) };
        // Added, not stored: a lookup with a stale handle may hold a pin for a moment.
        slot.state.fetch_add(tag | OCCUPIED, Ordering::Release);
        self.live.fetch_add(1, Ordering::Relaxed);
        Ok(handle)
    }

    /// The object of a handle, kept alive until the result is dropped.
    pub(crate) fn pin(&'static self, handle: mux_handle) -> Result<Pinned<T>, Fault> {
        let index = handle as u32;
        if index < self.base {
            let inherited = handle >> KIND_SHIFT != 0;
            return Err(if inherited { mux_status_code::MUX_EFORKED } else { mux_status_code::MUX_EHANDLE }.into());
        }
        let index = index - self.base;
        let slot = self.slot(index).ok_or(mux_status_code::MUX_EHANDLE)?;
        let state = slot.state.fetch_add(1, Ordering::AcqRel);
        let pinned = Pinned { table: self, slot, index };
        if state >> 32 == handle >> 32 && state & (OCCUPIED | CLOSED) == OCCUPIED {
            return Ok(pinned);
        }
        // Dropping it takes the pin back, and frees if the last other pin went in between.
        Err(mux_status_code::MUX_EHANDLE.into())
    }

    /// Ends the life of a handle: no further call finds it, and the object goes with the last pin.
    pub(crate) fn close(&'static self, handle: mux_handle) -> Result<Pinned<T>, Fault> {
        let pinned = self.pin(handle)?;
        if pinned.slot.state.fetch_or(CLOSED, Ordering::AcqRel) & CLOSED != 0 {
            return Err(mux_status_code::MUX_EHANDLE.into());
        }
        Ok(pinned)
    }

    /// Every open handle.
    pub(crate) fn handles(&self) -> Vec<mux_handle> {
        let used = self.used.load(Ordering::Acquire);
        (0..used)
            .filter_map(|index| {
                let state = self.slot(index)?.state.load(Ordering::Acquire);
                let open = state & (OCCUPIED | CLOSED) == OCCUPIED;
                open.then(|| (state >> 32 << 32) | u64::from(self.base + index))
            })
            .collect()
    }

    fn take_slot(&self) -> Result<u32, Fault> {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(index) = free.pop_front() {
            return Ok(index);
        }
        // Under the lock, so only one thread adds slots.
        let index = self.used.load(Ordering::Relaxed);
        let (chunk, offset) = place(index);
        if chunk >= CHUNKS || self.base.checked_add(index + 1).is_none() {
            let message = "every handle that a process can have was used".to_owned();
            return Err(Fault::Said(mux_status_code::MUX_ELIMIT, message));
        }
        if offset == 0 {
            let slots: Box<[Slot<T>]> = (0..FIRST_CHUNK << chunk).map(|_| Slot::new()).collect();
            self.chunks[chunk].store(Box::leak(slots).as_mut_ptr(), Ordering::Release);
        }
        self.used.store(index + 1, Ordering::Release);
        Ok(index)
    }

    fn slot(&self, index: u32) -> Option<&'_ Slot<T>> {
        if index >= self.used.load(Ordering::Acquire) {
            return None;
        }
        let (chunk, offset) = place(index);
        let chunk = self.chunks[chunk].load(Ordering::Acquire);
        // SAFETY: `used` counts only slots whose chunk was stored before, and chunks are never freed while the table
        // lives; `offset` is inside the chunk by `place`.
        Some(unsafe { &*chunk.add(offset as usize) })
    }
}

/// In which chunk a slot lies, and where in it.
fn place(index: u32) -> (usize, u32) {
    let index = u64::from(index) + u64::from(FIRST_CHUNK);
    let chunk = index.ilog2() - FIRST_CHUNK.ilog2();
    (chunk as usize, (index - (u64::from(FIRST_CHUNK) << chunk)) as u32)
}

impl<T> Slot<T> {
    fn new() -> Self {
        Self { state: AtomicU64::new(GENERATION), object: UnsafeCell::new(None) }
    }
}

impl<T: 'static> Drop for Table<T> {
    fn drop(&mut self) {
        for (chunk, slots) in self.chunks.iter_mut().enumerate() {
            let slots = *slots.get_mut();
            if !slots.is_null() {
                let length = (FIRST_CHUNK as usize) << chunk;
                // SAFETY: the chunk was leaked from a box of this length, and `&mut self` says that nobody uses it.
                drop(unsafe { Box::from_raw(ptr::slice_from_raw_parts_mut(slots, length)) });
            }
        }
    }
}

/// An object that cannot be freed before this is dropped.
pub(crate) struct Pinned<T: Send + Sync + 'static> {
    table: &'static Table<T>,
    slot: &'static Slot<T>,
    index: u32,
}

impl<T: Send + Sync> Deref for Pinned<T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: given out only for an OCCUPIED slot, whose object is neither written nor taken while a pin is held.
        let object = unsafe { &*self.slot.object.get() };
        object.as_ref().expect("an occupied slot has an object")
    }
}

impl<T: Send + Sync> Drop for Pinned<T> {
    fn drop(&mut self) {
        let state = self.slot.state.fetch_sub(1, Ordering::AcqRel) - 1;
        if state & (PINS | OCCUPIED | CLOSED) != OCCUPIED | CLOSED {
            return;
        }
        // The last pin of a closed object. A stale lookup may have added one in between; then it comes here instead.
        let generation = (state >> 32) & LAST_GENERATION;
        let next = ((generation + 1) & LAST_GENERATION) << 32;
        if self.slot.state.compare_exchange(state, next, Ordering::AcqRel, Ordering::Relaxed).is_err() {
            return;
        }
        // SAFETY: the exchange made us the only one to see this slot go from OCCUPIED to free; it is not on the free
        // list yet, so nobody writes, and without OCCUPIED nobody reads.
        let object = unsafe { (*self.slot.object.get()).take() };
        drop(object);
        self.table.live.fetch_sub(1, Ordering::Relaxed);
        if generation < LAST_GENERATION {
            self.table.free.lock().unwrap_or_else(PoisonError::into_inner).push_back(self.index);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;

    fn table<T: Send + Sync>(base: u32) -> &'static Table<T> {
        Box::leak(Box::new(Table::new(base)))
    }

    fn code<T>(result: Result<T, Fault>) -> i32 {
        result.map_or_else(|fault| fault.status(), |_| 0)
    }

    #[test]
    fn a_closed_handle_is_dead_and_stays_dead_when_its_slot_is_reused() {
        let table = table(0);
        let first = table.insert(5, |_| "first").expect("room");
        assert_eq!(*table.pin(first).expect("live"), "first");
        drop(table.close(first).expect("live"));
        assert_eq!(code(table.close(first)), -16);
        let second = table.insert(5, |_| "second").expect("room");
        assert_eq!(first as u32, second as u32, "the slot is reused");
        assert_eq!(code(table.pin(first)), -16);
        assert_eq!(*table.pin(second).expect("live"), "second");
        assert_eq!(table.live(), 1);
    }

    #[test]
    fn the_object_goes_with_the_last_pin() {
        let table = table(0);
        let object = Arc::new(());
        let handle = table.insert(1, |_| Arc::clone(&object)).expect("room");
        let pinned = table.pin(handle).expect("live");
        drop(table.close(handle).expect("live"));
        assert_eq!(Arc::strong_count(&object), 2);
        assert_eq!(code(table.pin(handle)), -16);
        drop(pinned);
        assert_eq!(Arc::strong_count(&object), 1);
    }

    #[test]
    fn slots_are_reused_in_the_order_they_became_free() {
        let table = table(0);
        let handles: Vec<_> = (0..600).map(|n| table.insert(2, |_| n).expect("room")).collect();
        assert!(handles.iter().enumerate().all(|(n, handle)| *table.pin(*handle).expect("live") == n));
        for handle in [handles[7], handles[3], handles[500]] {
            drop(table.close(handle).expect("live"));
        }
        let again: Vec<_> = (0..3).map(|n| table.insert(2, |_| n).expect("room") as u32).collect();
        assert_eq!(again, [7, 3, 500]);
    }

    #[test]
    fn a_slot_without_generations_left_is_retired() {
        let table = table(0);
        let handle = table.insert(1, |_| ()).expect("room");
        drop(table.close(handle).expect("live"));
        table.slot(0).expect("used").state.store(LAST_GENERATION << 32, Ordering::Relaxed);
        let last = table.insert(1, |_| ()).expect("room");
        assert_eq!(last as u32, 0);
        drop(table.close(last).expect("live"));
        assert_eq!(table.insert(1, |_| ()).expect("room") as u32, 1);
    }

    #[test]
    fn inherited_handles_are_told_from_wrong_ones() {
        let parent = table(0);
        let inherited = parent.insert(4, |_| ()).expect("room");
        let child = table(parent.end());
        let own = child.insert(4, |_| ()).expect("room");
        assert_eq!(code(child.pin(inherited)), -21);
        assert_eq!(code(child.pin(own)), 0);
        assert_eq!(code(child.pin(0)), -16);
    }

    #[test]
    fn random_numbers_are_not_handles() {
        let table = table(0);
        let handle = table.insert(3, |_| ()).expect("room");
        for wrong in [0, 1, u64::MAX, handle | 1 << 63, handle ^ 1 << 58, handle ^ 1 << 32, handle + 1] {
            assert_eq!(code(table.pin(wrong)), -16, "{wrong:x}");
        }
    }

    #[test]
    fn closing_races_free_each_object_once() {
        struct Counted(Arc<AtomicUsize>);
        impl Drop for Counted {
            fn drop(&mut self) {
                self.0.fetch_add(1, Ordering::Relaxed);
            }
        }
        const ROUNDS: usize = 500;
        let table = table::<Counted>(0);
        let freed = Arc::new(AtomicUsize::new(0));
        let current = Arc::new(AtomicU64::new(0));
        let closes = Arc::new(AtomicUsize::new(0));
        let stop = Arc::new(AtomicU64::new(0));
        let threads: Vec<_> = (0..3)
            .map(|_| {
                let (current, closes, stop) = (Arc::clone(&current), Arc::clone(&closes), Arc::clone(&stop));
                std::thread::spawn(move || {
                    while stop.load(Ordering::Relaxed) == 0 {
                        let handle = current.load(Ordering::Relaxed);
                        if let Ok(pinned) = table.pin(handle) {
                            assert!(Arc::strong_count(&pinned.0) > 0);
                        }
                        if table.close(handle).is_ok() {
                            closes.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                })
            })
            .collect();
        for _ in 0..ROUNDS {
            let handle = table.insert(5, |_| Counted(Arc::clone(&freed))).expect("room");
            current.store(handle, Ordering::Relaxed);
            while table.pin(handle).is_ok() {
                std::thread::yield_now();
            }
        }
        stop.store(1, Ordering::Relaxed);
        threads.into_iter().for_each(|thread| thread.join().expect("no panic"));
        assert_eq!((closes.load(Ordering::Relaxed), freed.load(Ordering::Relaxed)), (ROUNDS, ROUNDS));
        assert_eq!(table.live(), 0);
    }
}
