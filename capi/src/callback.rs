//! Calls from the library into the application. Inside one, a call that could wait is refused instead of deadlocking.
//! Wakers of queues are called with no lock held: those that are due inside a call of the application come at its end.

use std::cell::{Cell, RefCell};
use std::sync::Arc;

use crate::abi::mux_status_code;
use crate::queue::Queue;
use crate::status::Fault;

/// What a thread is doing. One place for all of it: thread-locals of a shared library are looked up by a call.
struct Here {
    /// In a function of the application.
    running: Cell<bool>,
    /// Calls of the application, one inside the other.
    depth: Cell<u32>,
    /// Whether `DUE` has something.
    due: Cell<bool>,
}

thread_local! {
    static HERE: Here = const { Here { running: Cell::new(false), depth: Cell::new(0), due: Cell::new(false) } };
    static DUE: RefCell<Vec<Arc<Queue>>> = const { RefCell::new(Vec::new()) };
}

/// A number that no other living thread has; never 0.
#[inline]
pub(crate) fn this_thread() -> usize {
    HERE.with(|here| std::ptr::from_ref(here).addr())
}

/// Runs a function of the application.
pub(crate) fn call<T>(function: impl FnOnce() -> T) -> T {
    /// Restores what was, also where the function unwinds.
    struct Restore(bool);
    impl Drop for Restore {
        fn drop(&mut self) {
            HERE.with(|here| here.running.set(self.0));
        }
    }
    let _restore = Restore(HERE.with(|here| here.running.replace(true)));
    function()
}

/// Refuses to wait inside a callback.
pub(crate) fn may_wait() -> Result<(), Fault> {
    if HERE.with(|here| here.running.get()) {
        return Err(mux_status_code::MUX_EREENTRANT.into());
    }
    Ok(())
}

/// While it lives, wakers of queues wait; the outermost one calls them when it ends.
pub(crate) struct Holding(());

impl Holding {
    #[inline]
    pub(crate) fn new() -> Self {
        HERE.with(|here| here.depth.set(here.depth.get() + 1));
        Self(())
    }

    /// What is due so far, if no call of the application is around the one that holds this, for the caller to see to.
    pub(crate) fn take(&self) -> Vec<Arc<Queue>> {
        if HERE.with(|here| here.depth.get() <= 2 && here.due.take()) { DUE.take() } else { Vec::new() }
    }
}

impl Drop for Holding {
    #[inline]
    fn drop(&mut self) {
        HERE.with(|here| {
            if here.due.get() {
                flush();
            }
            here.depth.set(here.depth.get() - 1);
        });
    }
}

/// Before a call of the application sleeps, with no lock held: calls what is due.
#[cold]
pub(crate) fn flush() {
    HERE.with(|here| {
        // What a waker makes due comes after it, not within it.
        while here.depth.get() == 1 {
            let Some(queue) = DUE.with_borrow_mut(Vec::pop) else {
                here.due.set(false);
                return;
            };
            here.depth.set(2);
            queue.announce_now();
            here.depth.set(1);
        }
    });
}

/// Calls a queue's waker, or notes it if a lock may be held.
pub(crate) fn announce(queue: Arc<Queue>) {
    if HERE.with(|here| here.depth.get() == 0) {
        return queue.announce_now();
    }
    DUE.with_borrow_mut(|due| due.push(queue));
    HERE.with(|here| here.due.set(true));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_callback_may_not_wait() {
        assert!(may_wait().is_ok());
        call(|| {
            assert!(may_wait().is_err());
            call(|| ());
            assert!(may_wait().is_err(), "still in the outer one");
        });
        assert!(may_wait().is_ok());
    }
}
