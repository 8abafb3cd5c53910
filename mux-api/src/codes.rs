//! The code space shared by reset, stop, refusal and session close.
//!
//! Codes are 62 bits wide, the width QUIC gives them. An application uses its own codes unshifted; 0 to 2^32-1 are
//! carried by every backend that has codes at all. The top 256 values belong to the library.

/// The largest code any wire carries: 2^62-1.
pub const MAX: u64 = (1 << 62) - 1;

/// The largest code that every backend with [`RESET_CODE`](crate::Capabilities::RESET_CODE) carries: 2^32-1.
pub const PORTABLE_MAX: u64 = u32::MAX as u64;

/// The first of the library's own codes; applications use what is below.
pub const LIBRARY_FIRST: u64 = MAX - 255;

/// Nothing went wrong: a receiver that has read enough, a session that is no longer needed.
pub const NO_ERROR: u64 = 0;

/// The half was dropped without being finished, stopped or closed: its task ended, was cancelled or crashed.
pub const DROPPED: u64 = LIBRARY_FIRST;

/// The open was refused before anyone acted on it: the backlog or the channel limit was full. Safe to retry.
pub const REFUSED: u64 = LIBRARY_FIRST + 1;

/// The session is draining and takes no new channel. Safe to retry on another session.
pub const DRAINING: u64 = LIBRARY_FIRST + 2;

/// The peer violated the wire's rules.
pub const PROTOCOL: u64 = LIBRARY_FIRST + 3;

/// A memory budget or another limit was exhausted. Safe to retry later.
pub const LIMIT: u64 = LIBRARY_FIRST + 4;

/// The library itself failed.
pub const INTERNAL: u64 = LIBRARY_FIRST + 5;

/// What a code of the library means; `None` for an application's code.
pub fn describe(code: u64) -> Option<&'static str> {
    if !(LIBRARY_FIRST..=MAX).contains(&code) {
        return None;
    }
    Some(match code {
        DROPPED => "the other end dropped it unfinished",
        REFUSED => "refused: no room for another channel",
        DRAINING => "refused: the session is draining",
        PROTOCOL => "protocol violation",
        LIMIT => "a limit was exhausted",
        INTERNAL => "internal error",
        _ => "a library code unknown to this version",
    })
}

/// Checks a code that an application passed in.
///
/// # Errors
/// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) when it lies outside the application's space.
pub fn check(code: u64) -> crate::Result<u64> {
    if code < LIBRARY_FIRST {
        return Ok(code);
    }
    Err(crate::Error::invalid_input(format!(
        "code {code} is out of range: applications use 0 to {} (2^62-257), portably 0 to {PORTABLE_MAX} (2^32-1)",
        LIBRARY_FIRST - 1
    )))
}
