//! loom's atomics and locks with the names and the orders of the standard ones.

pub(crate) use std::sync::atomic::Ordering;
use std::sync::{LockResult, PoisonError};

pub(crate) use loom::cell::UnsafeCell;
pub(crate) use loom::sync::atomic::AtomicPtr;
use loom::sync::atomic::fence;
pub(crate) use loom::sync::{Condvar, MutexGuard};

#[derive(Debug)]
pub(crate) struct Mutex<T>(loom::sync::Mutex<T>);

impl<T> Mutex<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(loom::sync::Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> LockResult<MutexGuard<'_, T>> {
        self.0.lock().map_err(|poisoned| PoisonError::new(poisoned.into_inner()))
    }
}

impl<T: Default> Default for Mutex<T> {
    fn default() -> Self {
        Self::new(T::default())
    }
}

/// loom takes SeqCst for AcqRel and would report orders that cannot be. A fence before and after makes it what compilers make
/// of it where the machine has no better.
fn ordered<T>(order: Ordering, operation: impl FnOnce() -> T) -> T {
    if order != Ordering::SeqCst {
        return operation();
    }
    fence(Ordering::SeqCst);
    let result = operation();
    fence(Ordering::SeqCst);
    result
}

macro_rules! atomic {
    ($($name:ident, $value:ty;)*) => {$(
        #[derive(Debug, Default)]
        pub(crate) struct $name(loom::sync::atomic::$name);

        impl $name {
            pub(crate) fn new(value: $value) -> Self {
                Self(loom::sync::atomic::$name::new(value))
            }

            pub(crate) fn load(&self, order: Ordering) -> $value {
                ordered(order, || self.0.load(order))
            }

            pub(crate) fn store(&self, value: $value, order: Ordering) {
                ordered(order, || self.0.store(value, order));
            }

            pub(crate) fn swap(&self, value: $value, order: Ordering) -> $value {
                ordered(order, || self.0.swap(value, order))
            }

            pub(crate) fn compare_exchange(
                &self,
                current: $value,
                new: $value,
                success: Ordering,
                failure: Ordering,
            ) -> Result<$value, $value> {
                ordered(success, || self.0.compare_exchange(current, new, success, failure))
            }
        }
    )*};
}

atomic! { AtomicBool, bool; AtomicI32, i32; AtomicU32, u32; AtomicU64, u64; }

macro_rules! counting {
    ($($name:ident, $value:ty;)*) => {$(
        impl $name {
            pub(crate) fn fetch_add(&self, value: $value, order: Ordering) -> $value {
                ordered(order, || self.0.fetch_add(value, order))
            }

            pub(crate) fn fetch_sub(&self, value: $value, order: Ordering) -> $value {
                ordered(order, || self.0.fetch_sub(value, order))
            }

            pub(crate) fn fetch_or(&self, value: $value, order: Ordering) -> $value {
                ordered(order, || self.0.fetch_or(value, order))
            }

            pub(crate) fn fetch_update(
                &self,
                set: Ordering,
                fetch: Ordering,
                change: impl FnMut($value) -> Option<$value>,
            ) -> Result<$value, $value> {
                ordered(set, || self.0.fetch_update(set, fetch, change))
            }
        }
    )*};
}

counting! { AtomicU32, u32; AtomicU64, u64; }
