//! The byte stream under HTTP/2, plain or in TLS.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};

use mux_api::{Error, ErrorKind, Origin};
use mux_transport::tls;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use crate::limits::Limits;

/// Both directions in one.
pub(crate) trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// What is known of the byte stream under a connection, which h2 does not tell.
#[derive(Debug, Default)]
pub(crate) struct Line {
    /// The first failure. h2 passes on no more of it than a text, which names neither the errno nor what TLS found wrong.
    pub(crate) fault: OnceLock<Error>,
    /// Bytes were taken after none were for a while: a full, slow link lives, although no answer comes through yet. Bytes
    /// that were taken at once prove nothing: a dead link takes them too, until it is full, and then none.
    pub(crate) moved: AtomicBool,
}

/// How a server's HTTP/2 begins: the header of a SETTINGS frame.
const GREETING: usize = 9;

/// What h2 runs on.
pub(crate) struct Io {
    stream: Box<dyn Duplex>,
    /// The first bytes of a server, until there are enough to tell whether it speaks HTTP/2. h2 would call whatever else
    /// comes a frame of a wrong size.
    greeting: Option<Vec<u8>>,
    /// Our direction has ended; until then the peer's end is waited for.
    shut: Option<Instant>,
    /// The stream took nothing at the last attempt.
    full: bool,
    line: Arc<Line>,
}

impl Io {
    /// The accepting end; h2 itself knows what a client begins with.
    pub(crate) fn server(stream: impl Duplex + 'static, line: &Arc<Line>) -> Self {
        Self { stream: Box::new(stream), greeting: None, shut: None, full: false, line: Arc::clone(line) }
    }

    /// The dialing end.
    pub(crate) fn client(stream: impl Duplex + 'static, line: &Arc<Line>) -> Self {
        Self { greeting: Some(Vec::new()), ..Self::server(stream, line) }
    }

    /// Looks at the first bytes of a server; nothing read is its end.
    fn greet(&mut self, read: &[u8]) -> io::Result<()> {
        let Some(seen) = &mut self.greeting else { return Ok(()) };
        seen.extend_from_slice(&read[..read.len().min(GREETING - seen.len())]);
        // Length below 2^16, type SETTINGS, no flags, stream 0.
        let fits = |(at, byte): (usize, &u8)| matches!(at, 1 | 2) || *byte == if at == 3 { 4 } else { 0 };
        let text = if !seen.iter().enumerate().all(fits) {
            let quoted = String::from_utf8_lossy(seen).escape_debug().to_string();
            format!(
                "the listener does not speak HTTP/2: its first bytes are \"{quoted}\"; does the URL name its scheme?"
            )
        } else if read.is_empty() {
            "the listener ended the connection before it said anything; does the URL name its scheme?".to_owned()
        } else {
            if seen.len() == GREETING {
                self.greeting = None;
            }
            return Ok(());
        };
        let kind = if read.is_empty() { ErrorKind::Closed } else { ErrorKind::Protocol };
        self.line.fault.get_or_init(|| Error::new(kind, Origin::Peer, text.clone()));
        Err(io::Error::new(io::ErrorKind::InvalidData, text))
    }

    fn watch(&mut self, written: &Poll<io::Result<usize>>) {
        if written.is_pending() {
            self.full = true;
        } else if std::mem::take(&mut self.full) && matches!(written, Poll::Ready(Ok(1..))) {
            self.line.moved.store(true, Ordering::Relaxed);
        }
    }

    fn note<T>(&self, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        polled.map_err(|error| {
            let copy = io::Error::new(error.kind(), error.to_string());
            self.line.fault.get_or_init(|| tls::io_error("the connection failed", error).retry_safe(false));
            copy
        })
    }
}

impl AsyncRead for Io {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut *self.stream).poll_read(cx, buf);
        if self.greeting.is_some() && matches!(polled, Poll::Ready(Ok(()))) {
            self.greet(&buf.filled()[before..])?;
        }
        self.note(polled)
    }
}

impl AsyncWrite for Io {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut *self.stream).poll_write(cx, buf);
        self.watch(&polled);
        self.note(polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut *self.stream).poll_write_vectored(cx, bufs);
        self.watch(&polled);
        self.note(polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut *self.stream).poll_flush(cx);
        self.note(polled)
    }

    /// Ends our direction and waits for the peer's end, so that a kernel that still holds input does not reset the
    /// connection and take our last words with it. A peer that goes on sending is hung up on after a while; for a silent
    /// one, whoever calls this has a deadline.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let until = match self.shut {
            Some(until) => until,
            None => {
                ready!(Pin::new(&mut *self.stream).poll_shutdown(cx))?;
                *self.shut.insert(Instant::now() + Limits::LAST_WORDS)
            }
        };
        let mut scratch = [0; 4096];
        loop {
            let mut buf = ReadBuf::new(&mut scratch);
            match ready!(Pin::new(&mut *self.stream).poll_read(cx, &mut buf)) {
                Ok(()) if !buf.filled().is_empty() && Instant::now() < until => {}
                Ok(()) | Err(_) => return Poll::Ready(Ok(())),
            }
        }
    }
}
