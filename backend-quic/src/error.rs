//! quinn's errors in the words of the contract (docs/quic.md, section 7).

use mux_api::{Error, ErrorKind, Initiator, Origin, codes};
use mux_transport::tls;
use quinn::{ConnectionError, TransportErrorCode, VarInt};

use crate::wire::Wire;

/// Why a connection could not be made, or ended.
pub(crate) fn connection_error(error: &ConnectionError, established: bool, wire: Wire) -> Error {
    let source = error.clone();
    let mapped = match error {
        ConnectionError::VersionMismatch => {
            Error::new(ErrorKind::Protocol, Origin::Peer, "the peer speaks no version of QUIC that we do")
        }
        ConnectionError::TransportError(error) => transport_error(error.code, &error.reason, Origin::Local),
        ConnectionError::ConnectionClosed(close) => {
            transport_error(close.error_code, &String::from_utf8_lossy(&close.reason), Origin::Peer)
        }
        ConnectionError::ApplicationClosed(close) => {
            closed_by_peer(wire.code_received(close.error_code.into_inner()), &String::from_utf8_lossy(&close.reason))
        }
        ConnectionError::Reset => Error::new(
            ErrorKind::Closed,
            Origin::Transport,
            "the peer no longer knows this session: it was restarted, or its state was lost",
        ),
        ConnectionError::TimedOut if established => {
            Error::new(ErrorKind::Idle, Origin::Transport, "the peer was silent for too long")
        }
        ConnectionError::TimedOut => Error::new(ErrorKind::TimedOut, Origin::Transport, "no answer").retry_safe(true),
        ConnectionError::LocallyClosed => Error::closed_locally(),
        ConnectionError::CidsExhausted => {
            Error::new(ErrorKind::LimitExceeded, Origin::Transport, "QUIC ran out of connection ids")
        }
    };
    mapped.with_source(source)
}

/// The peer's library or application ended the session.
pub(crate) fn closed_by_peer(code: u64, reason: &str) -> Error {
    let message = match (reason, codes::describe(code)) {
        ("", Some(known)) => format!("the peer ended the session: {known}"),
        ("", None) => "the peer closed the session".to_owned(),
        _ => reason.to_owned(),
    };
    let kind = if code == codes::PROTOCOL { ErrorKind::Protocol } else { ErrorKind::Closed };
    let safe = matches!(code, codes::REFUSED | codes::DRAINING);
    Error::new(kind, Origin::Peer, message).with_code(code).retry_safe(safe)
}

fn transport_error(code: TransportErrorCode, reason: &str, origin: Origin) -> Error {
    let number = u64::from(code);
    if let Ok(alert) = u8::try_from(number.wrapping_sub(0x100)) {
        return tls::handshake_error(alert, origin, if origin == Origin::Local { reason } else { "" });
    }
    if code == TransportErrorCode::CONNECTION_REFUSED {
        let message = "the peer takes no new connections";
        return Error::new(ErrorKind::Refused, Origin::Peer, message).with_detail(number).retry_safe(true);
    }
    let colon = if reason.is_empty() { "" } else { ": " };
    // What we found wrong is the peer's doing; what the peer found wrong may be ours.
    let message = match origin {
        Origin::Peer => format!("the peer ended the connection ({code}){colon}{reason}"),
        _ => format!("the peer broke the rules of QUIC ({code}){colon}{reason}"),
    };
    Error::new(ErrorKind::Protocol, Origin::Peer, message).with_detail(number)
}

/// The peer's reset of a direction, or its wish that we stop ours.
pub(crate) fn ended_by_peer(kind: ErrorKind, code: VarInt, initiator: Initiator) -> Error {
    let code = code.into_inner();
    let refused = |kind| {
        let why = codes::describe(code).unwrap_or("refused");
        Error::new(kind, Origin::Peer, format!("the peer refused the channel: {why}")).with_code(code).retry_safe(true)
    };
    if initiator == Initiator::Local && matches!(code, codes::REFUSED | codes::DRAINING | codes::LIMIT) {
        return refused(ErrorKind::Refused);
    }
    let verb = if kind == ErrorKind::Reset { "reset this direction" } else { "asked to stop" };
    let message = match codes::describe(code) {
        Some(known) => format!("the peer {verb}: {known}"),
        None => format!("the peer {verb} with code {code}"),
    };
    Error::new(kind, Origin::Peer, message).with_code(code)
}

/// The direction is over by our own doing.
pub(crate) fn finished() -> Error {
    Error::new(ErrorKind::Finished, Origin::Local, "this direction was ended by this side")
}

/// Codes above 62 bits do not pass the contract's checks; what does is carried whole.
pub(crate) fn varint(code: u64) -> VarInt {
    VarInt::from_u64(code).unwrap_or(VarInt::MAX)
}
