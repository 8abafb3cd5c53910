//! What a backend implements. A third party needs this module and the registry of `libmux`, nothing else.
//!
//! All methods are poll-based and take `&self` or `&mut self` without blocking. **Wakers:** each `poll_` method of a
//! [`SessionOps`] or [`ListenerOps`] remembers the waker of its latest call; a half remembers one waker for all of its
//! `poll_` methods, the latest. [`Session`] and [`Listener`] turn that one waker into
//! as many waiters as an application likes.
//!
//! **Drop:** [`SendHalf`](crate::SendHalf), [`RecvHalf`](crate::RecvHalf) and [`Session`] call `reset`,
//! `abandon` and `abort` when an application drops them early, so a backend need not guess from its own drop.

use std::future::Future;
use std::io::IoSlice;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::{
    Capabilities, Config, ConfigOption, Error, Initiator, Listener, OpenOptions, Priority, Result, Role, Session,
    SessionInfo, Stats, Url, WriteFlags,
};

/// A boxed future, for calls too rare to care about the box.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A scheme that a backend serves.
#[derive(Clone, Debug)]
pub struct Scheme {
    /// As it stands in a URL: `qmux`, `qmux+tcp`.
    pub name: &'static str,
    /// What it is, in a line.
    pub summary: &'static str,
    /// A URL to show people: `qmux://host:port`.
    pub example: &'static str,
    /// What it can do with a libmux peer.
    pub capabilities: Capabilities,
    /// Whether it runs over TLS. One that does not refuses URLs with TLS options: they would protect nothing.
    pub secure: bool,
}

/// The entry of [`Config::extra`] by which a test makes a session run out of numbers for channels soon: how many it has.
/// A backend whose wire numbers them heeds it ([`numbers`]); no URL can say it.
pub const NUMBERS: &str = "test-numbers";

/// What [`NUMBERS`] says in `config`, if anything.
pub fn numbers(config: &Config) -> Option<u32> {
    config.extra.get(NUMBERS)?.parse().ok()
}

/// Makes sessions from URLs.
#[async_trait]
pub trait Backend: Send + Sync + 'static {
    /// The schemes it serves.
    fn schemes(&self) -> &[Scheme];

    /// URL options that only this backend understands.
    fn options(&self) -> &[ConfigOption] {
        &[]
    }

    /// Connects within `config.connect_timeout` (zero: no limit). `config` has the URL's options applied.
    async fn dial(&self, url: &Url, config: &Config) -> Result<Session>;

    /// Binds. `config` has the URL's options applied.
    async fn listen(&self, url: &Url, config: &Config) -> Result<Listener>;

    /// Runs a session of `scheme` on a byte stream that the application brought, whose other end does the same in the
    /// other role. `config` as it stands: there is no URL to add options.
    ///
    /// # Errors
    /// [`Unsupported`](crate::ErrorKind::Unsupported) for a wire that does not run on a byte stream.
    async fn adopt(&self, scheme: &str, stream: ByteStream, role: Role, config: &Config) -> Result<Session> {
        let _ = (stream, role, config);
        Err(Error::unsupported(format!("a session of '{scheme}' cannot run on a byte stream of one's own")))
    }
}

/// A connected, ordered byte stream.
pub struct ByteStream {
    /// Where bytes come from.
    pub reader: Box<dyn AsyncRead + Send + Unpin>,
    /// Where bytes go. Never raises SIGPIPE.
    pub writer: Box<dyn AsyncWrite + Send + Unpin>,
    /// Our address, empty where there is none.
    pub local_addr: String,
    /// The peer's address, empty where there is none.
    pub peer_addr: String,
}

impl ByteStream {
    /// A stream without addresses.
    pub fn new(
        reader: impl AsyncRead + Send + Unpin + 'static,
        writer: impl AsyncWrite + Send + Unpin + 'static,
    ) -> Self {
        Self { reader: Box::new(reader), writer: Box::new(writer), local_addr: String::new(), peer_addr: String::new() }
    }
}

/// A bound address that yields sessions.
pub trait ListenerOps: Send + Sync + 'static {
    /// The URL to dial, with the real port.
    fn url(&self) -> &str;

    /// The next session whose handshake is complete. One bad connection is not an error of the listener.
    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<Result<Session>>;

    /// Takes certificates and limits from `config` for the sessions that come from now on.
    ///
    /// # Errors
    /// What is wrong with `config`; nothing has changed then.
    fn reload(&self, config: &Config) -> Result<()> {
        let _ = config;
        Err(Error::unsupported("this listener's settings cannot be replaced while it runs"))
    }

    /// Stops listening; sessions live on.
    fn close(&self);

    /// Ready once it has stopped listening and its address is free.
    fn poll_closed(&self, cx: &mut Context<'_>) -> Poll<()>;
}

/// A live session.
pub trait SessionOps: Send + Sync + 'static {
    /// Facts fixed by the handshake.
    fn info(&self) -> &SessionInfo;

    /// Where the peer is now, where that can change; `None`: where it was at the handshake.
    fn peer_addr(&self) -> Option<String> {
        None
    }

    /// What was negotiated.
    fn capabilities(&self) -> Capabilities;

    /// Opens a channel and announces it to the peer; pending only while the peer's open credit is used up.
    fn poll_open(&self, cx: &mut Context<'_>, options: &OpenOptions) -> Poll<Result<ChannelParts>>;

    /// Ready when `poll_open` would be. Takes nothing.
    fn poll_can_open(&self, cx: &mut Context<'_>) -> Poll<()>;

    /// The next channel that the peer opened; an error once the session has ended and its backlog is empty.
    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<Result<ChannelParts>>;

    /// Ready when every byte written on any channel was taken by the transport.
    fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<Result<()>>;

    /// Measures the round trip to the peer's library.
    fn ping(&self) -> BoxFuture<'_, Result<Duration>> {
        Box::pin(async { Err(Error::unsupported("this session cannot ping")) })
    }

    /// The largest datagram that can be sent now; `None` where there are none.
    fn max_datagram(&self) -> Option<usize> {
        None
    }

    /// Sends one datagram, or drops an older one that still waits to be sent.
    fn send_datagram(&self, data: Bytes) -> Result<()> {
        let _ = data;
        Err(Error::unsupported("this session has no datagrams"))
    }

    /// The next datagram.
    fn poll_datagram(&self, cx: &mut Context<'_>) -> Poll<Result<Bytes>> {
        let _ = cx;
        Poll::Ready(Err(Error::unsupported("this session has no datagrams")))
    }

    /// Refuses new channels from now on, retry-safe, and lets the old ones finish.
    fn drain(&self);

    /// Begins the polite end: finished channels are flushed, then the peer is told `code` and `reason`.
    fn close(&self, code: u64, reason: &str);

    /// Ends at once.
    fn abort(&self, code: u64);

    /// Ready when the session has ended and its transport is released; the cause.
    fn poll_closed(&self, cx: &mut Context<'_>) -> Poll<Error>;

    /// Why it ended; `None` while it lives.
    fn cause(&self) -> Option<Error>;

    /// Counters.
    fn stats(&self) -> Stats;
}

/// A channel as a backend hands it out.
pub struct ChannelParts {
    /// Unique among the session's live channels.
    pub id: u64,
    /// Who opened it.
    pub initiator: Initiator,
    /// Its label, empty without one.
    pub label: Bytes,
    /// The sending half.
    pub send: Box<dyn SendOps>,
    /// The receiving half.
    pub recv: Box<dyn RecvOps>,
}

/// The sending half of a channel; what each method means to the application stands at [`SendHalf`](crate::SendHalf).
pub trait SendOps: Send + 'static {
    /// Takes some of `bufs`. With [`WriteFlags::FIN`] the direction ends if all was taken, also when all is nothing.
    fn poll_write(&mut self, cx: &mut Context<'_>, bufs: &[IoSlice<'_>], flags: WriteFlags) -> Poll<Result<usize>>;

    /// Takes some of `data` without a copy, where the wire allows.
    fn poll_write_bytes(&mut self, cx: &mut Context<'_>, data: &mut Bytes) -> Poll<Result<usize>> {
        let polled = self.poll_write(cx, &[IoSlice::new(data)], WriteFlags::NONE);
        if let Poll::Ready(Ok(taken)) = &polled {
            data.advance(*taken);
        }
        polled
    }

    /// Ready when `min` bytes, or all that can ever be taken at once, would be accepted, or a write would fail.
    fn poll_writable(&mut self, cx: &mut Context<'_>, min: usize) -> Poll<()>;

    /// Ready when the transport has taken every byte.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>>;

    /// Ready when the peer has confirmed the channel.
    fn poll_opened(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>>;

    /// Ready when the direction is over.
    fn poll_ended(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>>;

    /// Ends the direction after what was written.
    fn finish(&mut self) -> Result<()>;

    /// Abandons the direction. Any code: the application's were checked. A library code that the wire cannot carry is
    /// reduced to what it can say, never refused.
    fn reset(&mut self, code: u64) -> Result<()>;

    /// Changes the urgency, if the wire cares.
    fn set_priority(&mut self, priority: Priority);

    /// Bytes not yet taken by the transport.
    fn buffered(&self) -> usize;

    /// Bytes that a write would take at present; 0 where that is not known.
    fn room(&self) -> usize {
        0
    }

    /// A way past the half for small writes, where the backend gathers them; it may be `None` until the half has been used.
    fn burst(&self) -> Option<Arc<dyn Burst>> {
        None
    }
}

/// Gathers the small writes of one half while it sends anyway, from any thread and without waiting. The half and this may be
/// used in turns; the order is that of the calls.
pub trait Burst: Send + Sync + 'static {
    /// Takes all of `bytes`, which go out without another call, or none of them: then the half says why, or what to wait for.
    fn take(&self, bytes: &[u8]) -> bool;
}

/// The receiving half of a channel; what each method means to the application stands at [`RecvHalf`](crate::RecvHalf).
pub trait RecvOps: Send + 'static {
    /// Copies what is there into `buf`, which has room; 0 is the end.
    fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<Result<usize>>;

    /// The next bytes, at most `max`, which is not 0; `None` is the end.
    fn poll_read_bytes(&mut self, cx: &mut Context<'_>, max: usize) -> Poll<Result<Option<Bytes>>>;

    /// Ready when `min` bytes, or all that the window holds, wait, or a read would end or fail.
    fn poll_readable(&mut self, cx: &mut Context<'_>, min: usize) -> Poll<()>;

    /// Tells the peer that we read no more.
    ///
    /// # Errors
    /// [`Unsupported`](crate::ErrorKind::Unsupported) where the wire cannot; nothing has changed then.
    fn stop(&mut self, code: u64) -> Result<()>;

    /// As `stop`, but always possible: where the peer cannot be told, what it sends is discarded.
    fn abandon(&mut self, code: u64);

    /// Bytes that wait to be read.
    fn buffered(&self) -> usize;
}
