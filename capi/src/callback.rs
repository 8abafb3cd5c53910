//! Calls from the library into the application: each is made with no lock held, and a call that could wait is refused
//! inside it instead of deadlocking.

use std::cell::Cell;

use crate::abi::mux_status_code;
use crate::status::Fault;

thread_local! {
    static RUNNING: Cell<bool> = const { Cell::new(false) };
}

/// Runs a function of the application.
pub(crate) fn call<T>(function: impl FnOnce() -> T) -> T {
    /// Restores what was, also where the function unwinds.
    struct Restore(bool);
    impl Drop for Restore {
        fn drop(&mut self) {
            RUNNING.set(self.0);
        }
    }
    let _restore = Restore(RUNNING.replace(true));
    function()
}

/// Refuses to wait inside a callback.
pub(crate) fn may_wait() -> Result<(), Fault> {
    if RUNNING.get() {
        return Err(mux_status_code::MUX_EREENTRANT.into());
    }
    Ok(())
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
