//! Status codes: from an error to its number, and from a number to its text.

use std::ffi::{CStr, c_char};
use std::fmt;

use libmux::{Error, ErrorKind, Origin};

use crate::abi::{mux_error, mux_origin, mux_status, mux_status_code};

/// Why a call did not succeed.
#[derive(Debug)]
pub(crate) enum Fault {
    /// A status that needs no words of its own.
    Plain(mux_status_code),
    /// A status and what exactly was wrong.
    Said(mux_status_code, String),
    /// A failure of the library underneath.
    Error(Error),
}

impl Fault {
    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::Said(mux_status_code::MUX_EINVAL, message.into())
    }

    pub(crate) fn status(&self) -> mux_status {
        match self {
            Self::Plain(code) | Self::Said(code, _) => *code as mux_status,
            Self::Error(error) => status_of(error) as mux_status,
        }
    }

    /// Everything a `mux_error` holds.
    pub(crate) fn detail(&self) -> mux_error {
        match self {
            Self::Error(error) => detail_of(error),
            Self::Said(code, text) => local(*code, text),
            Self::Plain(code) => {
                let text = text(*code as mux_status).to_str().unwrap_or_default();
                local(*code, text)
            }
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Error(error) => error.fmt(f),
            Self::Said(_, text) => f.write_str(text),
            Self::Plain(code) => f.write_str(&text(*code as mux_status).to_string_lossy()),
        }
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

impl From<mux_status_code> for Fault {
    fn from(code: mux_status_code) -> Self {
        Self::Plain(code)
    }
}

fn status_of(error: &Error) -> mux_status_code {
    use mux_status_code as code;
    match error.kind() {
        ErrorKind::Blocked => code::MUX_AGAIN,
        ErrorKind::TimedOut => code::MUX_TIMEDOUT,
        ErrorKind::InvalidInput => code::MUX_EINVAL,
        ErrorKind::InvalidState => code::MUX_ESTATE,
        ErrorKind::Unsupported => code::MUX_EUNSUPPORTED,
        ErrorKind::OutOfMemory => code::MUX_ENOMEM,
        ErrorKind::LimitExceeded => code::MUX_ELIMIT,
        ErrorKind::NoFile => code::MUX_ENOFILE,
        ErrorKind::TooBig => code::MUX_ETOOBIG,
        ErrorKind::Url => code::MUX_EURL,
        ErrorKind::Dns => code::MUX_EDNS,
        ErrorKind::Refused => code::MUX_EREFUSED,
        ErrorKind::Unreachable => code::MUX_EUNREACH,
        ErrorKind::AddrInUse => code::MUX_EADDRINUSE,
        ErrorKind::PermissionDenied => code::MUX_EACCESS,
        ErrorKind::Tls => code::MUX_ETLS,
        ErrorKind::Certificate => code::MUX_ECERT,
        ErrorKind::Alpn => code::MUX_EALPN,
        ErrorKind::Reset => code::MUX_ERESET,
        ErrorKind::Stopped => code::MUX_ESTOPPED,
        ErrorKind::Finished => code::MUX_EFINISHED,
        ErrorKind::Closed => code::MUX_ECLOSED,
        ErrorKind::GoAway => code::MUX_EGOAWAY,
        ErrorKind::Idle => code::MUX_EIDLE,
        ErrorKind::Protocol => code::MUX_EPROTO,
        ErrorKind::Io => code::MUX_EOS,
        // The list above is complete; a kind that a later mux-api adds has no number yet.
        _ => code::MUX_EINTERNAL,
    }
}

fn detail_of(error: &Error) -> mux_error {
    let origin = match error.origin() {
        Origin::Local => mux_origin::MUX_BY_LOCAL,
        Origin::Peer => mux_origin::MUX_BY_PEER,
        Origin::Transport => mux_origin::MUX_BY_TRANSPORT,
        Origin::Os => mux_origin::MUX_BY_OS,
    };
    mux_error {
        struct_size: size_of::<mux_error>() as u32,
        status: status_of(error) as mux_status,
        origin: origin as u32,
        os_errno: error.os_errno().unwrap_or(0),
        code: error.code().unwrap_or(0),
        detail: error.detail(),
        retry_safe: u32::from(error.is_retry_safe()),
        reserved: 0,
        message: message(error.message()),
    }
}

fn local(code: mux_status_code, text: &str) -> mux_error {
    mux_error {
        struct_size: size_of::<mux_error>() as u32,
        status: code as mux_status,
        origin: if code == mux_status_code::MUX_OK { 0 } else { mux_origin::MUX_BY_LOCAL as u32 },
        os_errno: 0,
        code: 0,
        detail: 0,
        retry_safe: 0,
        reserved: 0,
        message: message(text),
    }
}

/// What `mux_cause` reports of an object that lives.
pub(crate) fn nothing_failed() -> mux_error {
    local(mux_status_code::MUX_OK, "")
}

/// As much of `text` as fits, cut between characters.
fn message(text: &str) -> [c_char; 224] {
    let mut out = [0; 224];
    let fits = (0..out.len().min(text.len() + 1)).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    for (to, from) in out.iter_mut().zip(text.as_bytes()[..fits].iter().filter(|byte| **byte != 0)) {
        *to = *from as c_char;
    }
    out
}

/// The text of a status.
pub(crate) fn text(status: mux_status) -> &'static CStr {
    match status {
        0 => c"success",
        -1 => c"it would have to wait",
        -2 => c"timed out",
        -3 => c"interrupted by a signal",
        -4 => c"interrupted by mux_interrupt",
        -16 => c"not a live handle",
        -17 => c"a handle of another kind",
        -18 => c"invalid argument",
        -19 => c"not allowed in this state",
        -20 => c"not supported by this session or backend",
        -21 => c"the handle belongs to the parent process",
        -22 => c"a call that may wait, from within a callback",
        -32 => c"out of memory",
        -33 => c"a limit is exhausted",
        -34 => c"out of file descriptors",
        -35 => c"too big",
        -48 => c"the URL cannot be used",
        -49 => c"the name cannot be resolved",
        -50 => c"refused",
        -51 => c"unreachable",
        -52 => c"the address is in use",
        -53 => c"permission denied",
        -54 => c"the TLS handshake failed",
        -55 => c"the certificate was rejected",
        -56 => c"no application protocol in common",
        -64 => c"reset by the sender",
        -65 => c"stopped by the receiver",
        -66 => c"this direction has ended",
        -67 => c"closed",
        -68 => c"the session takes no new channels",
        -69 => c"the peer was silent for too long",
        -70 => c"the peer violated the protocol",
        -80 => c"error of the operating system",
        -81 => c"internal error",
        _ => c"unknown status",
    }
}

/// A static text for a status, never NULL. \[S\]
#[unsafe(no_mangle)]
pub extern "C" fn mux_status_text(status: mux_status) -> *const c_char {
    text(status).as_ptr()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_message_is_cut_between_characters() {
        let detail = Fault::invalid("ä".repeat(200)).detail();
        let bytes: Vec<u8> = detail.message.iter().map(|c| *c as u8).take_while(|b| *b != 0).collect();
        assert_eq!(bytes.len(), 222);
        assert!(String::from_utf8(bytes).is_ok());
    }

    #[test]
    fn an_error_keeps_who_code_and_retry() {
        let error = Error::new(ErrorKind::Reset, Origin::Peer, "x").with_code(7).retry_safe(true);
        let detail = Fault::Error(error).detail();
        assert_eq!((detail.status, detail.origin, detail.code, detail.retry_safe), (-64, 2, 7, 1));
    }

    #[test]
    fn every_code_has_a_text() {
        for status in [-1, -2, -3, -4].into_iter().chain(-22..=-16).chain(-35..=-32).chain(-56..=-48) {
            assert_ne!(text(status), c"unknown status", "{status}");
        }
        for status in (-70..=-64).chain(-81..=-80) {
            assert_ne!(text(status), c"unknown status", "{status}");
        }
        assert_eq!(text(1), c"unknown status");
    }
}
