//! One error type: what failed, who caused it, with which code, and whether the work may be retried.

use std::fmt;
use std::io;
use std::sync::Arc;

/// The result of every fallible operation of libmux.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What kind of failure it is; the C API has one status for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// It would have to wait; only the `try_` forms return it.
    Blocked,
    /// A deadline passed.
    TimedOut,
    /// The caller's argument is wrong: value, option, code or length.
    InvalidInput,
    /// Not allowed in the object's present state.
    InvalidState,
    /// This backend, or this peer, cannot do it; see [`Capabilities`](crate::Capabilities).
    Unsupported,
    /// Memory could not be had.
    OutOfMemory,
    /// A budget or limit is exhausted: channels, bytes, sessions.
    LimitExceeded,
    /// The process is out of file descriptors.
    NoFile,
    /// A label, reason or message exceeds its bound.
    TooBig,
    /// The URL cannot be used: unknown scheme, unknown option, malformed.
    Url,
    /// The name could not be resolved.
    Dns,
    /// Refused: by the peer's host (no listener) or by the peer (channel refused).
    Refused,
    /// The network or host cannot be reached.
    Unreachable,
    /// The address to listen on is taken.
    AddrInUse,
    /// The operating system forbids it.
    PermissionDenied,
    /// The TLS handshake failed.
    Tls,
    /// The certificate was rejected: expired, unknown issuer, wrong name, wrong pin.
    Certificate,
    /// No application protocol in common.
    Alpn,
    /// The sender abandoned this direction, with a code.
    Reset,
    /// The receiver asked to stop, with a code.
    Stopped,
    /// The direction was already finished by us.
    Finished,
    /// The session, channel or listener is closed; [`Error::origin`] says by whom.
    Closed,
    /// The session takes no new channels.
    GoAway,
    /// The peer was silent for too long.
    Idle,
    /// The peer violated the wire's rules.
    Protocol,
    /// The operating system reported an error; see [`Error::os_errno`].
    Io,
    /// A bug in libmux.
    Internal,
}

/// Who caused a failure: the first question of every bug report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Origin {
    /// Our own application or library.
    Local,
    /// The application or library at the other end.
    Peer,
    /// What lies between: a connection that broke, a timeout.
    Transport,
    /// The operating system.
    Os,
}

/// A failure, cheap to clone: the first failure of an object is kept and returned again.
#[derive(Clone)]
pub struct Error(Arc<Inner>);

#[derive(Clone)]
struct Inner {
    kind: ErrorKind,
    origin: Origin,
    code: Option<u64>,
    detail: u64,
    os_errno: Option<i32>,
    retry_safe: bool,
    message: String,
    source: Option<Arc<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// An error of `kind` caused by `origin`, with a message for people.
    pub fn new(kind: ErrorKind, origin: Origin, message: impl Into<String>) -> Self {
        Self(Arc::new(Inner {
            kind,
            origin,
            code: None,
            detail: 0,
            os_errno: None,
            retry_safe: false,
            message: message.into(),
            source: None,
        }))
    }

    /// The caller passed something that is not allowed.
    pub fn invalid_input(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::InvalidInput, Origin::Local, message)
    }

    /// The URL cannot be used.
    pub fn url(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Url, Origin::Local, message)
    }

    /// The session or backend lacks the capability.
    pub fn unsupported(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unsupported, Origin::Local, message)
    }

    /// A `try_` call found that it would have to wait.
    pub fn blocked(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Blocked, Origin::Local, message).retry_safe(true)
    }

    /// We closed it ourselves.
    pub fn closed_locally() -> Self {
        Self::new(ErrorKind::Closed, Origin::Local, "closed by this side")
    }

    /// An error of the operating system; `doing` says what was attempted.
    ///
    /// What a stream with TLS says as an [`Error`] of kind `Tls`, `Certificate` or `Alpn` stays what it is.
    pub fn from_io(doing: impl fmt::Display, error: io::Error) -> Self {
        if let Some(tls) = error.get_ref().and_then(|inner| inner.downcast_ref::<Self>())
            && matches!(tls.kind(), ErrorKind::Tls | ErrorKind::Certificate | ErrorKind::Alpn)
        {
            return tls.clone().context(doing);
        }
        let (kind, origin) = match error.kind() {
            io::ErrorKind::ConnectionRefused => (ErrorKind::Refused, Origin::Os),
            io::ErrorKind::NetworkUnreachable | io::ErrorKind::HostUnreachable => (ErrorKind::Unreachable, Origin::Os),
            io::ErrorKind::AddrInUse => (ErrorKind::AddrInUse, Origin::Os),
            io::ErrorKind::PermissionDenied => (ErrorKind::PermissionDenied, Origin::Os),
            io::ErrorKind::TimedOut => (ErrorKind::TimedOut, Origin::Transport),
            io::ErrorKind::OutOfMemory => (ErrorKind::OutOfMemory, Origin::Os),
            io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe
            // What a call on a socket says whose connection is gone already.
            | io::ErrorKind::NotConnected
            | io::ErrorKind::UnexpectedEof => (ErrorKind::Closed, Origin::Transport),
            _ if matches!(error.raw_os_error(), Some(EMFILE | ENFILE)) => (ErrorKind::NoFile, Origin::Os),
            _ => (ErrorKind::Io, Origin::Os),
        };
        let errno = error.raw_os_error();
        let mut out = Self::new(kind, origin, format!("{doing}: {error}")).with_source(error);
        Arc::make_mut(&mut out.0).os_errno = errno;
        // Nothing was sent yet when a connection could not be made.
        out.retry_safe(matches!(kind, ErrorKind::Refused | ErrorKind::Unreachable))
    }

    /// Adds the code that the peer sent, or that we sent.
    #[must_use]
    pub fn with_code(mut self, code: u64) -> Self {
        Arc::make_mut(&mut self.0).code = Some(code);
        self
    }

    /// Adds the transport's own number: a TLS alert, a QUIC or HTTP/2 error code.
    #[must_use]
    pub fn with_detail(mut self, detail: u64) -> Self {
        Arc::make_mut(&mut self.0).detail = detail;
        self
    }

    /// Says whether the peer is known not to have acted on the failed work.
    #[must_use]
    pub fn retry_safe(mut self, safe: bool) -> Self {
        Arc::make_mut(&mut self.0).retry_safe = safe;
        self
    }

    /// Adds the error underneath.
    #[must_use]
    pub fn with_source(mut self, source: impl std::error::Error + Send + Sync + 'static) -> Self {
        Arc::make_mut(&mut self.0).source = Some(Arc::new(source));
        self
    }

    /// Puts what was being done in front of the message.
    #[must_use]
    pub fn context(mut self, doing: impl fmt::Display) -> Self {
        let inner = Arc::make_mut(&mut self.0);
        inner.message = format!("{doing}: {}", inner.message);
        self
    }

    /// What kind of failure it is.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Who caused it.
    pub fn origin(&self) -> Origin {
        self.0.origin
    }

    /// The reset, stop, refusal or close code, where there is one.
    pub fn code(&self) -> Option<u64> {
        self.0.code
    }

    /// The transport's own number (TLS alert, QUIC transport error, HTTP/2 code), or 0.
    pub fn detail(&self) -> u64 {
        self.0.detail
    }

    /// The operating system's error number, where it reported one.
    pub fn os_errno(&self) -> Option<i32> {
        self.0.os_errno
    }

    /// Whether the peer is known not to have acted on the failed work, so that repeating it is safe.
    pub fn is_retry_safe(&self) -> bool {
        self.0.retry_safe
    }

    /// What went wrong, in words.
    pub fn message(&self) -> &str {
        &self.0.message
    }
}

const ENFILE: i32 = 23;
const EMFILE: i32 = 24;

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("Error");
        out.field("kind", &self.0.kind).field("origin", &self.0.origin);
        if let Some(code) = self.0.code {
            out.field("code", &code);
        }
        if let Some(errno) = self.0.os_errno {
            out.field("os_errno", &errno);
        }
        out.field("retry_safe", &self.0.retry_safe).field("message", &self.0.message).finish()
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_deref().map(|e| e as _)
    }
}

/// The nearest `io::ErrorKind`; the libmux error stays reachable as the inner error.
impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        let kind = match error.kind() {
            ErrorKind::Blocked => io::ErrorKind::WouldBlock,
            ErrorKind::TimedOut | ErrorKind::Idle => io::ErrorKind::TimedOut,
            ErrorKind::InvalidInput | ErrorKind::Url | ErrorKind::TooBig => io::ErrorKind::InvalidInput,
            ErrorKind::Unsupported => io::ErrorKind::Unsupported,
            ErrorKind::OutOfMemory => io::ErrorKind::OutOfMemory,
            ErrorKind::Refused => io::ErrorKind::ConnectionRefused,
            ErrorKind::Unreachable => io::ErrorKind::HostUnreachable,
            ErrorKind::AddrInUse => io::ErrorKind::AddrInUse,
            ErrorKind::PermissionDenied => io::ErrorKind::PermissionDenied,
            ErrorKind::Reset => io::ErrorKind::ConnectionReset,
            ErrorKind::Stopped | ErrorKind::Finished => io::ErrorKind::BrokenPipe,
            ErrorKind::Closed | ErrorKind::GoAway => io::ErrorKind::ConnectionAborted,
            ErrorKind::Protocol => io::ErrorKind::InvalidData,
            _ => io::ErrorKind::Other,
        };
        io::Error::new(kind, error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_that_is_gone_is_closed_however_the_system_says_it() {
        use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, NotConnected, UnexpectedEof};
        for gone in [BrokenPipe, ConnectionAborted, ConnectionReset, NotConnected, UnexpectedEof] {
            let error = Error::from_io("reading", gone.into());
            assert_eq!((error.kind(), error.origin()), (ErrorKind::Closed, Origin::Transport), "{error}");
        }
    }

    #[test]
    fn an_alert_that_a_stream_reports_stays_one_and_a_channels_reset_does_not() {
        let through = |kind| Error::from_io("reading", Error::new(kind, Origin::Peer, "no").with_detail(116).into());
        let error = through(ErrorKind::Certificate);
        assert_eq!((error.kind(), error.origin(), error.detail()), (ErrorKind::Certificate, Origin::Peer, 116));
        assert_eq!(error.message(), "reading: no");
        assert_eq!(
            (through(ErrorKind::Reset).kind(), through(ErrorKind::Reset).origin()),
            (ErrorKind::Closed, Origin::Transport)
        );
    }
}
