//! Memory budgets: a session's inside the process's.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

/// A bound on memory that a peer may make us hold, charged when credit is granted.
///
/// A budget may have a parent: what is reserved counts against both. Clones share the same account.
#[derive(Clone, Debug)]
pub struct Budget(Arc<Account>);

#[derive(Debug)]
struct Account {
    limit: AtomicU64,
    used: AtomicU64,
    parent: Option<Budget>,
}

impl Budget {
    /// The process's limit until [`set_limit`](Self::set_limit) is called: 1 GiB.
    pub const DEFAULT_PROCESS: u64 = 1 << 30;

    /// A budget of `limit` bytes inside `parent`.
    pub fn new(limit: u64, parent: Option<Budget>) -> Self {
        Self(Arc::new(Account { limit: AtomicU64::new(limit), used: AtomicU64::new(0), parent }))
    }

    /// The budget of the whole process.
    pub fn process() -> &'static Budget {
        static PROCESS: OnceLock<Budget> = OnceLock::new();
        PROCESS.get_or_init(|| Budget::new(Self::DEFAULT_PROCESS, None))
    }

    /// Changes the limit; what is reserved already stays reserved.
    pub fn set_limit(&self, limit: u64) {
        self.0.limit.store(limit, Ordering::Relaxed);
    }

    /// The limit in bytes.
    pub fn limit(&self) -> u64 {
        self.0.limit.load(Ordering::Relaxed)
    }

    /// The bytes reserved at present.
    pub fn used(&self) -> u64 {
        self.0.used.load(Ordering::Relaxed)
    }

    /// The bytes that can still be reserved here and in every parent.
    pub fn available(&self) -> u64 {
        let own = self.limit().saturating_sub(self.used());
        self.0.parent.as_ref().map_or(own, |p| own.min(p.available()))
    }

    /// Reserves `bytes`, or nothing when the limit here or in a parent would be exceeded. Zero always fits.
    #[must_use = "an empty reservation means that the memory may not be taken"]
    pub fn reserve(&self, bytes: u64) -> Option<Reservation> {
        self.charge(bytes).then(|| Reservation { budget: self.clone(), bytes })
    }

    fn charge(&self, bytes: u64) -> bool {
        let limit = self.limit();
        let charged = self.0.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
            used.checked_add(bytes).filter(|sum| bytes == 0 || *sum <= limit)
        });
        if charged.is_err() {
            return false;
        }
        if self.0.parent.as_ref().is_none_or(|p| p.charge(bytes)) {
            return true;
        }
        self.0.used.fetch_sub(bytes, Ordering::Relaxed);
        false
    }

    fn release(&self, bytes: u64) {
        self.0.used.fetch_sub(bytes, Ordering::Relaxed);
        if let Some(parent) = &self.0.parent {
            parent.release(bytes);
        }
    }
}

/// Bytes held against a [`Budget`], given back when dropped.
#[derive(Debug)]
#[must_use = "dropping a reservation gives it back"]
pub struct Reservation {
    budget: Budget,
    bytes: u64,
}

impl Reservation {
    /// How much is held.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Reserves `more` on top; `false` leaves it as it was.
    #[must_use = "false means that the memory may not be taken"]
    pub fn grow(&mut self, more: u64) -> bool {
        let charged = self.budget.charge(more);
        if charged {
            self.bytes += more;
        }
        charged
    }

    /// Gives back part of it, at most what is held.
    pub fn shrink(&mut self, less: u64) {
        let less = less.min(self.bytes);
        self.bytes -= less;
        self.budget.release(less);
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.budget.release(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_against_every_parent_and_comes_back() {
        let process = Budget::new(100, None);
        let a = Budget::new(80, Some(process.clone()));
        let b = Budget::new(80, Some(process.clone()));
        let held = a.reserve(70).expect("fits");
        assert!(b.reserve(40).is_none(), "the parent has 30 left");
        assert_eq!(b.used(), 0, "a failed reservation leaves nothing behind");
        assert_eq!(b.available(), 30);
        drop(held);
        assert_eq!((a.used(), process.used()), (0, 0));
    }

    #[test]
    fn grows_and_shrinks_inside_the_limit() {
        let budget = Budget::new(10, None);
        let mut held = budget.reserve(4).expect("fits");
        assert!(held.grow(6));
        assert!(!held.grow(1));
        held.shrink(100);
        assert_eq!((held.bytes(), budget.used()), (0, 0));
    }

    #[test]
    fn nothing_can_be_reserved_even_above_a_limit_that_was_lowered() {
        let budget = Budget::new(10, None);
        let _held = budget.reserve(10).expect("fits");
        budget.set_limit(5);
        assert!(budget.reserve(0).is_some());
        assert!(budget.reserve(1).is_none());
    }

    #[test]
    fn a_sum_above_u64_is_refused() {
        let budget = Budget::new(u64::MAX, None);
        let _held = budget.reserve(u64::MAX).expect("fits");
        assert!(budget.reserve(1).is_none());
    }
}
