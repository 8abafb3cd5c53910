//! The handle table: from a 64-bit number to an object, without a lock and without trusting the number.
//!
//! A handle is `kind (5 bits) | generation (26) | slot (32)`, bit 63 clear. A slot's state word holds the same kind and
//! generation in its upper half, and in its lower half two flags and the number of calls that use the object (pins). A
//! lookup adds a pin first and compares then, so that what it found cannot be freed under it. Closing sets a flag; the
//! last pin to go frees. Free slots are reused in the order they became free, with the next generation; a slot that has
//! used up its generations is retired, so no handle is ever given out twice in a process.

use std::collections::VecDeque;
use std::ops::Deref;
use std::ptr;
use std::sync::PoisonError;

use crate::abi::{mux_handle, mux_status_code};
use crate::status::Fault;
use crate::sync::{AtomicPtr, AtomicU32, AtomicU64, Mutex, Ordering, UnsafeCell};

/// In the lower half of the state: the object is there.
const OCCUPIED: u64 = 1 << 31;
/// In the lower half of the state: no further call may begin.
const CLOSED: u64 = 1 << 30;
const PINS: u64 = CLOSED - 1;
const GENERATION: u64 = 1 << 32;
pub(crate) const LAST_GENERATION: u64 = (1 << 26) - 1;
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

pub(crate) struct Slot<T> {
    pub(crate) state: AtomicU64,
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
            chunks: [(); CHUNKS].map(|()| AtomicPtr::default()),
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
        slot.object.with_mut(|place| unsafe { *place = Some(object) });
        // Added, not stored: a lookup with a stale handle may hold a pin for a moment.
        slot.state.fetch_add(tag | OCCUPIED, Ordering::Release);
        self.live.fetch_add(1, Ordering::Relaxed);
        Ok(handle)
    }

    /// The object of a handle, kept alive until the result is dropped.
    #[inline(always)]
    pub(crate) fn pin(&'static self, handle: mux_handle) -> Result<Pinned<T>, Fault> {
        self.find(handle).ok_or_else(|| self.missing(handle))
    }

    #[inline(always)]
    fn find(&'static self, handle: mux_handle) -> Option<Pinned<T>> {
        let index = (handle as u32).checked_sub(self.base)?;
        let slot = self.slot(index)?;
        let state = slot.state.fetch_add(1, Ordering::AcqRel);
        let pinned = Pinned { table: self, slot, index };
        // One that is not it is dropped, which takes the pin back, and frees if the last other pin went in between.
        (state >> 32 == handle >> 32 && state & (OCCUPIED | CLOSED) == OCCUPIED).then_some(pinned)
    }

    /// Why a handle has no object.
    #[cold]
    fn missing(&self, handle: mux_handle) -> Fault {
        let inherited = (handle as u32) < self.base && handle >> KIND_SHIFT != 0;
        if inherited { mux_status_code::MUX_EFORKED } else { mux_status_code::MUX_EHANDLE }.into()
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

    #[inline(always)]
    pub(crate) fn slot(&self, index: u32) -> Option<&'_ Slot<T>> {
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
#[inline]
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
        for (chunk, slots) in self.chunks.iter().enumerate() {
            let slots = slots.load(Ordering::Acquire);
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

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: given out only for an OCCUPIED slot, whose object is neither written nor taken while a pin is held.
        let object = self.slot.object.with(|place| unsafe { &*place });
        object.as_ref().expect("an occupied slot has an object")
    }
}

impl<T: Send + Sync> Drop for Pinned<T> {
    #[inline]
    fn drop(&mut self) {
        let state = self.slot.state.fetch_sub(1, Ordering::AcqRel) - 1;
        if state & (PINS | OCCUPIED | CLOSED) == OCCUPIED | CLOSED {
            self.free(state);
        }
    }
}

impl<T: Send + Sync> Pinned<T> {
    #[cold]
    fn free(&self, state: u64) {
        // The last pin of a closed object. A stale lookup may have added one in between; then it comes here instead.
        let generation = (state >> 32) & LAST_GENERATION;
        let next = ((generation + 1) & LAST_GENERATION) << 32;
        if self.slot.state.compare_exchange(state, next, Ordering::AcqRel, Ordering::Relaxed).is_err() {
            return;
        }
        // SAFETY: the exchange made us the only one to see this slot go from OCCUPIED to free; it is not on the free
        // list yet, so nobody writes, and without OCCUPIED nobody reads.
        let object = self.slot.object.with_mut(|place| unsafe { (*place).take() });
        drop(object);
        self.table.live.fetch_sub(1, Ordering::Relaxed);
        if generation < LAST_GENERATION {
            self.table.free.lock().unwrap_or_else(PoisonError::into_inner).push_back(self.index);
        }
    }
}
