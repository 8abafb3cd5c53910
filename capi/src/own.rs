//! Locks that are held while functions of the application run: a call from inside such a function that needs the same
//! lock is told so, instead of waiting for itself for ever.

use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::abi::mux_status_code;
use crate::callback::this_thread;
use crate::status::Fault;

/// A mutex that knows who holds it.
#[derive(Default)]
pub(crate) struct Own<T> {
    holder: AtomicUsize,
    value: Mutex<T>,
}

impl<T> Own<T> {
    pub(crate) fn new(value: T) -> Self {
        Self { holder: AtomicUsize::new(0), value: Mutex::new(value) }
    }

    /// What `work` gives while it is locked; errors as [`lock`](Self::lock). A guard that is passed on by value costs more
    /// than the lock.
    #[inline(always)]
    pub(crate) fn with<R>(&self, work: impl FnOnce(&mut T) -> R) -> Result<R, Fault> {
        let me = this_thread();
        if self.holder.load(Ordering::Relaxed) == me {
            return Err(mux_status_code::MUX_EREENTRANT.into());
        }
        let Ok(mut value) = self.value.lock() else { return Err(mux_status_code::MUX_EINTERNAL.into()) };
        self.holder.store(me, Ordering::Relaxed);
        let _held = Held(&self.holder);
        Ok(work(&mut value))
    }

    /// MUX_EREENTRANT if this thread holds it already, MUX_EINTERNAL after a panic.
    #[inline]
    pub(crate) fn lock(&self) -> Result<Owned<'_, T>, Fault> {
        self.take(|_| Err(mux_status_code::MUX_EINTERNAL.into()))
    }

    /// As [`lock`](Self::lock), also after a panic.
    pub(crate) fn lock_anyway(&self) -> Result<Owned<'_, T>, Fault> {
        self.take(|poisoned| Ok(poisoned.into_inner()))
    }

    /// Whether this thread holds it.
    pub(crate) fn is_mine(&self) -> bool {
        // Only this thread ever stores its own number.
        self.holder.load(Ordering::Relaxed) == this_thread()
    }

    #[inline]
    fn take<'a>(
        &'a self,
        poisoned: impl FnOnce(PoisonError<MutexGuard<'a, T>>) -> Result<MutexGuard<'a, T>, Fault>,
    ) -> Result<Owned<'a, T>, Fault> {
        let me = this_thread();
        if self.holder.load(Ordering::Relaxed) == me {
            return Err(mux_status_code::MUX_EREENTRANT.into());
        }
        let value = self.value.lock().or_else(poisoned)?;
        self.holder.store(me, Ordering::Relaxed);
        Ok(Owned { _held: Held(&self.holder), value })
    }
}

pub(crate) struct Owned<'a, T> {
    /// Dropped first.
    _held: Held<'a>,
    value: MutexGuard<'a, T>,
}

/// Names the holder for as long as it lives, which is less than the mutex is locked: it never names who does not hold it.
struct Held<'a>(&'a AtomicUsize);

impl<T> Deref for Owned<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> DerefMut for Owned<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        &mut self.value
    }
}

impl Drop for Held<'_> {
    #[inline]
    fn drop(&mut self) {
        self.0.store(0, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_lock_by_the_same_thread_is_an_answer() {
        let own = Own::new(1);
        let held = own.lock().expect("free");
        assert_eq!(own.lock().err().map(|fault| fault.status()), Some(-22));
        std::thread::scope(|scope| {
            let other = scope.spawn(|| *own.lock().expect("waits"));
            drop(held);
            assert_eq!(other.join().expect("no panic"), 1);
        });
        assert!(own.lock().is_ok());
    }
}
