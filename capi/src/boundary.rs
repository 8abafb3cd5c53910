//! The one way in: every exported function runs its body through here. A panic becomes MUX_EINTERNAL and errno stays as
//! it was.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::abi::{mux_error, mux_status, mux_status_code};
use crate::callback::Holding;
use crate::platform;
use crate::pointer;
use crate::status::Fault;

#[cfg(panic = "abort")]
compile_error!("the C library must be built with panic = \"unwind\": a panic would otherwise end the host process");

/// Runs the body of a function that returns a count or a status.
#[inline(always)]
pub(crate) fn count(body: impl FnOnce() -> Result<i64, Fault>) -> i64 {
    guarded(body).unwrap_or_else(|fault| i64::from(fault.status()))
}

/// Runs the body of a function that returns a status.
#[inline(always)]
pub(crate) fn status(body: impl FnOnce() -> Result<(), Fault>) -> mux_status {
    match guarded(body) {
        Ok(()) => mux_status_code::MUX_OK as mux_status,
        Err(fault) => fault.status(),
    }
}

/// As [`status`], with the details of a failure written to `error`, which may be null.
///
/// # Safety
/// `error` is null or points to a `mux_error` of the size it says.
pub(crate) unsafe fn status_with(error: *mut mux_error, body: impl FnOnce() -> Result<(), Fault>) -> mux_status {
    let mut detail = None;
    let result = status(|| {
        // SAFETY: passed on from our caller.
        detail = unsafe { pointer::error(error) }?;
        body().inspect_err(|fault| {
            if let Some(detail) = &mut detail {
                detail.write(&fault.detail());
            }
        })
    });
    if result == mux_status_code::MUX_EINTERNAL as mux_status
        && let Some(detail) = &mut detail
    {
        detail.write(&Fault::from(mux_status_code::MUX_EINTERNAL).detail());
    }
    result
}

#[inline(always)]
fn guarded<T>(body: impl FnOnce() -> Result<T, Fault>) -> Result<T, Fault> {
    let errno = platform::errno();
    // What a panic leaves half done lies behind mutexes, which it poisons; a poisoned one answers MUX_EINTERNAL.
    let holding = Holding::new();
    let result = catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|_| {
        tracing::error!("a panic was caught at the C boundary");
        Err(Fault::Plain(mux_status_code::MUX_EINTERNAL))
    });
    drop(holding);
    platform::set_errno(errno);
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_a_status_and_errno_survives() {
        platform::set_errno(42);
        let result = count(|| {
            platform::set_errno(7);
            panic!("expected by this test")
        });
        assert_eq!((result, platform::errno()), (-81, 42));
    }
}
