//! What HTTP/2 says, in the words of the contract (docs/h2.md, section 8).

use h2::Reason;
use http::{HeaderMap, StatusCode};
use mux_api::{Error, ErrorKind, Origin, codes};

use crate::headers;
use crate::io::Line;

/// A code of the application in raw mode, where resets have 32 bits and HTTP/2 keeps the low values.
const RAW_BASE: u64 = 0x100;

/// The code that resets a raw stream.
pub(crate) fn raw_reason(code: u64) -> Reason {
    match u32::try_from(code + RAW_BASE) {
        Ok(wire) if code > 0 => Reason::from(wire),
        _ => Reason::CANCEL,
    }
}

/// What a reset of a raw stream means.
pub(crate) fn raw_reset(reason: Reason) -> Error {
    let wire = u64::from(u32::from(reason));
    match wire.checked_sub(RAW_BASE) {
        Some(code) => reset(code).with_detail(wire),
        None if reason == Reason::CANCEL => reset(codes::NO_ERROR).with_detail(wire),
        None => lost(format!("the peer reset the stream: {reason}")).with_detail(wire),
    }
}

/// The peer abandoned its direction with this code.
pub(crate) fn reset(code: u64) -> Error {
    let message = match codes::describe(code) {
        Some(known) => format!("the peer reset the channel: {known}"),
        None => format!("the peer reset the channel with code {code}"),
    };
    Error::new(ErrorKind::Reset, Origin::Peer, message).with_code(code)
}

/// The peer reads no more, and said why with this code.
pub(crate) fn stopped(code: u64) -> Error {
    let message = match codes::describe(code) {
        Some(known) => format!("the peer stopped reading: {known}"),
        None => format!("the peer stopped reading with code {code}"),
    };
    Error::new(ErrorKind::Stopped, Origin::Peer, message).with_code(code)
}

/// The peer did not take the channel.
pub(crate) fn refused(code: u64) -> Error {
    let message = match codes::describe(code) {
        Some(known) => format!("the peer refused the channel: {known}"),
        None => format!("the peer refused the channel with code {code}"),
    };
    Error::new(ErrorKind::Refused, Origin::Peer, message).with_code(code).retry_safe(true)
}

/// A stream that ended without saying so in a record.
pub(crate) fn lost(message: String) -> Error {
    Error::new(ErrorKind::Closed, Origin::Transport, message)
}

/// The stream ended where more had to come.
pub(crate) fn truncated() -> Error {
    lost("the stream ended without the end of the channel: what was read is incomplete".to_owned())
}

/// The peer broke the rules.
pub(crate) fn violation(what: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Protocol, Origin::Peer, format!("the peer violated the protocol: {what}"))
        .with_code(codes::PROTOCOL)
}

/// A stream failed. `answered`: its response had come, so that the peer may have acted on it.
pub(crate) fn stream(error: &h2::Error, answered: bool) -> Error {
    let reason = error.reason();
    let detail = reason.map_or(0, |reason| u64::from(u32::from(reason)));
    let untouched = error.is_remote()
        && (error.is_reset() && reason == Some(Reason::REFUSED_STREAM)
            || error.is_go_away() && reason == Some(Reason::NO_ERROR));
    if untouched && !answered {
        let message = format!("the peer refused the stream: {error}");
        return Error::new(ErrorKind::Refused, Origin::Peer, message).with_detail(detail).retry_safe(true);
    }
    lost(format!("the stream was lost: {error}")).with_detail(detail)
}

/// The connection failed; `line` knows what the byte stream under it said.
pub(crate) fn connection(error: h2::Error, line: &Line) -> Error {
    let detail = error.reason().map_or(0, |reason| u64::from(u32::from(reason)));
    let local = error.is_library() || !error.is_remote();
    if error.is_io() {
        return match (line.fault.get(), error.into_io()) {
            (Some(fault), _) => fault.clone(),
            (None, Some(io)) => Error::from_io("the connection failed", io).retry_safe(false),
            (None, None) => unannounced(),
        };
    }
    if local {
        return violation(format!("HTTP/2 error {error}")).with_detail(detail);
    }
    Error::new(ErrorKind::Closed, Origin::Peer, format!("the peer ended the connection: {error}")).with_detail(detail)
}

/// The connection ended where the session had not.
pub(crate) fn unannounced() -> Error {
    Error::new(ErrorKind::Closed, Origin::Transport, "the connection ended without a close from the peer")
}

/// A request was answered by something else than acceptance.
pub(crate) fn status(status: StatusCode, fields: &HeaderMap) -> Error {
    let refusal = headers::refused(fields);
    let code = u64::from(status.as_u16());
    let protocol = |message: String| Error::new(ErrorKind::Protocol, Origin::Peer, message).with_detail(code);
    match (status, refusal) {
        (StatusCode::SERVICE_UNAVAILABLE, Some(refusal)) => refused(refusal),
        (StatusCode::TOO_MANY_REQUESTS, _) => {
            let message = "the server refused the request: too many (429)";
            Error::new(ErrorKind::Refused, Origin::Peer, message).with_detail(code).retry_safe(true)
        }
        (StatusCode::NOT_FOUND | StatusCode::UNSUPPORTED_MEDIA_TYPE | StatusCode::METHOD_NOT_ALLOWED, _) => {
            protocol(format!("the server has no libmux endpoint at this path ({status}); check the URL's path"))
        }
        (StatusCode::MISDIRECTED_REQUEST, _) => {
            protocol("the server has another name (421); check the URL's host or its option authority".to_owned())
        }
        (StatusCode::CONFLICT, _) => protocol(
            "the server does not know the session (409): requests of one session reached different servers".to_owned(),
        ),
        (StatusCode::BAD_GATEWAY | StatusCode::GATEWAY_TIMEOUT | StatusCode::SERVICE_UNAVAILABLE, _) => {
            lost(format!("a proxy on the way failed ({status})")).with_detail(code)
        }
        _ => protocol(format!("the server answered {status}; 200 was expected")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn raw_codes_come_back() {
        for code in [0, 1, 7, 0xffff_feff] {
            assert_eq!(raw_reset(raw_reason(code)).code(), Some(code));
        }
        assert_eq!(raw_reason(u64::from(u32::MAX)), Reason::CANCEL, "what does not fit is still a reset");
        assert_eq!(raw_reset(Reason::INTERNAL_ERROR).kind(), ErrorKind::Closed);
    }
}
