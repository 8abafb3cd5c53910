//! A session: many channels over one connection, opened and accepted by either side.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;

use crate::backend::SessionOps;
use crate::{Capabilities, Channel, Config, Error, OpenOptions, Result, SessionInfo, Stats, WaitList, codes};

/// A session. Clones are handles to the same one; dropping the last handle aborts it, with every channel on it, unless
/// [`close`](Self::close) was called.
#[derive(Clone)]
pub struct Session(Arc<Handle>);

struct Handle {
    ops: Arc<dyn SessionOps>,
    accepting: Arc<WaitList>,
    opening: Arc<WaitList>,
    ending: Arc<WaitList>,
    flushing: Arc<WaitList>,
    datagrams: Arc<WaitList>,
    closing: AtomicBool,
}

impl Session {
    /// Wraps what a backend made.
    pub fn new(ops: Arc<dyn SessionOps>) -> Self {
        Self(Arc::new(Handle {
            ops,
            accepting: Arc::default(),
            opening: Arc::default(),
            ending: Arc::default(),
            flushing: Arc::default(),
            datagrams: Arc::default(),
            closing: AtomicBool::new(false),
        }))
    }

    /// The poll-based operations, for those who bring wakers of their own (language bindings, other runtimes). Each
    /// `poll_` method remembers one waker: do not mix its use with the async method of the same name.
    pub fn ops(&self) -> &Arc<dyn SessionOps> {
        &self.0.ops
    }

    /// Opens a channel without label at default priority. See [`open_with`](Self::open_with).
    ///
    /// # Errors
    /// As [`open_with`](Self::open_with).
    ///
    /// # Cancel safety
    /// Cancel-safe.
    pub async fn open(&self) -> Result<Channel> {
        self.open_with(&OpenOptions::default()).await
    }

    /// Opens a channel, which can be written at once and which the peer's `accept` sees even if nothing is written.
    /// Waits only while the peer's open credit is used up.
    ///
    /// # Errors
    /// [`Unsupported`](crate::ErrorKind::Unsupported) for a label that the session cannot carry,
    /// [`TooBig`](crate::ErrorKind::TooBig) for one that is too long, [`LimitExceeded`](crate::ErrorKind) when the
    /// memory budget has no room, or why the session ended.
    ///
    /// # Cancel safety
    /// Cancel-safe: a dropped future has opened nothing.
    pub async fn open_with(&self, options: &OpenOptions) -> Result<Channel> {
        self.0.opening.wait(|cx| self.0.ops.poll_open(cx, options)).await.map(Channel::new)
    }

    /// Opens a channel if that needs no waiting.
    ///
    /// # Errors
    /// [`Blocked`](crate::ErrorKind::Blocked) when it would have to wait, otherwise as [`open_with`](Self::open_with).
    pub fn try_open(&self, options: &OpenOptions) -> Result<Channel> {
        let waker = Waker::from(Arc::clone(&self.0.opening));
        match self.0.ops.poll_open(&mut Context::from_waker(&waker), options) {
            Poll::Ready(parts) => parts.map(Channel::new),
            Poll::Pending => Err(Error::blocked("the peer's open credit is used up")),
        }
    }

    /// Waits for the next channel that the peer opened.
    ///
    /// # Errors
    /// Why the session ended, once it has and every waiting channel was taken; later calls return it again.
    ///
    /// # Cancel safety
    /// Cancel-safe: a channel that arrives after the future is dropped goes to the next call.
    pub async fn accept(&self) -> Result<Channel> {
        self.0.accepting.wait(|cx| self.0.ops.poll_accept(cx)).await.map(Channel::new)
    }

    /// Takes a channel that the peer opened, if one waits.
    ///
    /// # Errors
    /// [`Blocked`](crate::ErrorKind::Blocked) when none waits, otherwise as [`accept`](Self::accept).
    pub fn try_accept(&self) -> Result<Channel> {
        let waker = Waker::from(Arc::clone(&self.0.accepting));
        match self.0.ops.poll_accept(&mut Context::from_waker(&waker)) {
            Poll::Ready(parts) => parts.map(Channel::new),
            Poll::Pending => Err(Error::blocked("no channel waits to be accepted")),
        }
    }

    /// What this session can do, as negotiated with this peer.
    pub fn capabilities(&self) -> Capabilities {
        self.0.ops.capabilities()
    }

    /// Who the peer is and how we are connected, as of the handshake.
    pub fn info(&self) -> &SessionInfo {
        self.0.ops.info()
    }

    /// Where the peer is now: on QUIC its address may change while the session lives.
    pub fn peer_addr(&self) -> String {
        self.0.ops.peer_addr().unwrap_or_else(|| self.info().peer_addr.clone())
    }

    /// Counters.
    pub fn stats(&self) -> Stats {
        self.0.ops.stats()
    }

    /// Measures the round trip to the peer's library.
    ///
    /// # Errors
    /// [`Unsupported`](crate::ErrorKind::Unsupported) where the wire has no ping, or why the session ended.
    ///
    /// # Cancel safety
    /// Cancel-safe.
    pub async fn ping(&self) -> Result<Duration> {
        self.0.ops.ping().await
    }

    /// Waits until the transport has taken every byte written on any channel.
    ///
    /// # Errors
    /// Why the session ended.
    ///
    /// # Cancel safety
    /// Cancel-safe.
    pub async fn flush(&self) -> Result<()> {
        self.0.flushing.wait(|cx| self.0.ops.poll_flush(cx)).await
    }

    /// The largest datagram, in bytes, that [`send_datagram`](Self::send_datagram) takes at present, which follows the
    /// path; `None` where the session has no datagrams.
    pub fn max_datagram(&self) -> Option<usize> {
        self.0.ops.max_datagram()
    }

    /// Sends a message that may be lost, and may overtake others. Never waits: where the transport is behind, the
    /// oldest unsent datagram gives way.
    ///
    /// # Errors
    /// [`Unsupported`](crate::ErrorKind::Unsupported) without [`Capabilities::DATAGRAM`],
    /// [`TooBig`](crate::ErrorKind::TooBig) beyond [`max_datagram`](Self::max_datagram), or why the session ended.
    pub fn send_datagram(&self, data: impl Into<Bytes>) -> Result<()> {
        self.0.ops.send_datagram(data.into())
    }

    /// Waits for the next datagram. One that nobody takes gives way to newer ones.
    ///
    /// # Errors
    /// [`Unsupported`](crate::ErrorKind::Unsupported) without [`Capabilities::DATAGRAM`], or why the session ended.
    ///
    /// # Cancel safety
    /// Cancel-safe: a datagram that arrives after the future is dropped goes to the next call.
    pub async fn recv_datagram(&self) -> Result<Bytes> {
        self.0.datagrams.wait(|cx| self.0.ops.poll_datagram(cx)).await
    }

    /// Refuses new channels from now on, safe to retry elsewhere, and lets the old ones finish.
    pub fn drain(&self) {
        self.0.ops.drain();
    }

    /// Begins the polite end: finished channels are flushed, unfinished ones reset, then the peer is told. Wait for
    /// [`closed`](Self::closed) before the process exits.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) for a code outside the application's space,
    /// [`TooBig`](crate::ErrorKind::TooBig) for a reason above [`Config::MAX_REASON`] bytes.
    pub fn close(&self, code: u64, reason: &str) -> Result<()> {
        let code = codes::check(code)?;
        if reason.len() > Config::MAX_REASON {
            let message = format!("the reason has {} bytes; {} are allowed", reason.len(), Config::MAX_REASON);
            return Err(Error::new(crate::ErrorKind::TooBig, crate::Origin::Local, message));
        }
        self.0.closing.store(true, Ordering::Relaxed);
        self.0.ops.close(code, reason);
        Ok(())
    }

    /// Ends at once: channels fail, unsent data is dropped.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) for a code outside the application's space.
    pub fn abort(&self, code: u64) -> Result<()> {
        self.0.ops.abort(codes::check(code)?);
        Ok(())
    }

    /// Waits until the session has ended and its transport is released; says why.
    ///
    /// # Cancel safety
    /// Cancel-safe.
    pub async fn closed(&self) -> Error {
        self.0.ending.wait(|cx| self.0.ops.poll_closed(cx)).await
    }

    /// Why the session ended: who, with which code. `None` while it lives.
    pub fn cause(&self) -> Option<Error> {
        self.0.ops.cause()
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if !self.closing.load(Ordering::Relaxed) {
            self.ops.abort(codes::DROPPED);
        }
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("info", self.info()).field("cause", &self.cause()).finish_non_exhaustive()
    }
}
