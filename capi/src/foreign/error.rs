//! From what a function of a backend in C returned to the errors of mux-api.

use std::io;

use libmux::{Error, ErrorKind, Origin};

use crate::abi::{mux_error, mux_origin, mux_status, mux_status_code};
use crate::status;

/// Statuses that the adapter looks for.
pub(super) struct Status;

impl Status {
    pub(super) const OK: mux_status = mux_status_code::MUX_OK as mux_status;
    pub(super) const AGAIN: mux_status = mux_status_code::MUX_AGAIN as mux_status;
}

/// The failure that `status` stands for, with what the backend said about it.
pub(super) fn failure(status: mux_status, detail: Option<&mux_error>) -> Error {
    let Some(kind) = kind_of(status) else {
        let message = format!("a function of the backend gave {status}, which is no failure it can have here");
        return Error::new(ErrorKind::Internal, Origin::Local, message);
    };
    let said = detail.map(|detail| text_of(&detail.message)).filter(|text| !text.is_empty());
    let message = said.unwrap_or_else(|| status::text(status).to_string_lossy().into_owned());
    let Some(detail) = detail else { return Error::new(kind, by_default(kind), message) };
    if detail.os_errno != 0 {
        return Error::from_io(message, io::Error::from_raw_os_error(detail.os_errno));
    }
    let origin = match detail.origin {
        by if by == mux_origin::MUX_BY_LOCAL as u32 => Origin::Local,
        by if by == mux_origin::MUX_BY_PEER as u32 => Origin::Peer,
        by if by == mux_origin::MUX_BY_TRANSPORT as u32 => Origin::Transport,
        by if by == mux_origin::MUX_BY_OS as u32 => Origin::Os,
        _ => by_default(kind),
    };
    let error = Error::new(kind, origin, message).with_detail(detail.detail).retry_safe(detail.retry_safe != 0);
    let has_code = detail.code != 0
        || matches!(kind, ErrorKind::Reset | ErrorKind::Stopped | ErrorKind::Refused | ErrorKind::Closed);
    if has_code { error.with_code(detail.code) } else { error }
}

fn by_default(kind: ErrorKind) -> Origin {
    match kind {
        ErrorKind::Reset | ErrorKind::Stopped | ErrorKind::Refused | ErrorKind::Protocol | ErrorKind::GoAway => {
            Origin::Peer
        }
        ErrorKind::Closed | ErrorKind::Idle | ErrorKind::Unreachable => Origin::Transport,
        ErrorKind::Io => Origin::Os,
        _ => Origin::Local,
    }
}

fn text_of(message: &[std::ffi::c_char]) -> String {
    let bytes: Vec<u8> = message.iter().map(|c| *c as u8).take_while(|byte| *byte != 0).collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

fn kind_of(status: mux_status) -> Option<ErrorKind> {
    use mux_status_code as code;
    const KINDS: [(mux_status_code, ErrorKind); 27] = [
        (code::MUX_TIMEDOUT, ErrorKind::TimedOut),
        (code::MUX_EINVAL, ErrorKind::InvalidInput),
        (code::MUX_ESTATE, ErrorKind::InvalidState),
        (code::MUX_EUNSUPPORTED, ErrorKind::Unsupported),
        (code::MUX_ENOMEM, ErrorKind::OutOfMemory),
        (code::MUX_ELIMIT, ErrorKind::LimitExceeded),
        (code::MUX_ENOFILE, ErrorKind::NoFile),
        (code::MUX_ETOOBIG, ErrorKind::TooBig),
        (code::MUX_EURL, ErrorKind::Url),
        (code::MUX_EDNS, ErrorKind::Dns),
        (code::MUX_EREFUSED, ErrorKind::Refused),
        (code::MUX_EUNREACH, ErrorKind::Unreachable),
        (code::MUX_EADDRINUSE, ErrorKind::AddrInUse),
        (code::MUX_EACCESS, ErrorKind::PermissionDenied),
        (code::MUX_ETLS, ErrorKind::Tls),
        (code::MUX_ECERT, ErrorKind::Certificate),
        (code::MUX_EALPN, ErrorKind::Alpn),
        (code::MUX_ERESET, ErrorKind::Reset),
        (code::MUX_ESTOPPED, ErrorKind::Stopped),
        (code::MUX_EFINISHED, ErrorKind::Finished),
        (code::MUX_ECLOSED, ErrorKind::Closed),
        (code::MUX_EGOAWAY, ErrorKind::GoAway),
        (code::MUX_EIDLE, ErrorKind::Idle),
        (code::MUX_EPROTO, ErrorKind::Protocol),
        (code::MUX_EOS, ErrorKind::Io),
        (code::MUX_EINTERNAL, ErrorKind::Internal),
        (code::MUX_EHANDLE, ErrorKind::InvalidInput),
    ];
    KINDS.iter().find(|(code, _)| *code as mux_status == status).map(|(_, kind)| *kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_failure_is_a_bug_of_the_backend() {
        assert_eq!(failure(1, None).kind(), ErrorKind::Internal);
        assert_eq!(failure(-1, None).kind(), ErrorKind::Internal);
        assert_eq!(failure(-64, None).origin(), Origin::Peer);
    }
}
