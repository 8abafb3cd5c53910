//! A channel: two byte streams in opposite directions, each ending on its own.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::backend::ChannelParts;
use crate::{RecvHalf, Result, SendHalf};

/// How a channel is opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct OpenOptions {
    /// Opaque bytes that the accepting side sees before any data: how one session serves many protocols. Needs
    /// [`LABEL`](crate::Capabilities::LABEL) unless empty.
    pub label: Bytes,
    /// How urgent it is beside other channels: a hint.
    pub priority: Priority,
}

impl OpenOptions {
    /// No label, default priority.
    pub fn new() -> Self {
        Self::default()
    }

    /// With a label.
    #[must_use]
    pub fn label(mut self, label: impl Into<Bytes>) -> Self {
        self.label = label.into();
        self
    }

    /// With a priority.
    #[must_use]
    pub fn priority(mut self, priority: Priority) -> Self {
        self.priority = priority;
        self
    }
}

/// Urgency and incrementality of RFC 9218.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Priority {
    urgency: u8,
    /// Whether parts are useful before the whole: such channels of one urgency take turns.
    pub incremental: bool,
}

impl Priority {
    /// Of what urgency channels are unless told: 3 (RFC 9218 section 4.1).
    pub const DEFAULT_URGENCY: u8 = 3;

    /// A priority of this urgency, 0 (first) to 7 (last).
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) above 7.
    pub fn new(urgency: u8, incremental: bool) -> Result<Self> {
        if urgency > 7 {
            let message = format!("urgency {urgency} is out of range: 0 (most urgent) to 7 are allowed");
            return Err(crate::Error::invalid_input(message));
        }
        Ok(Self { urgency, incremental })
    }

    /// 0 is served first, 7 last.
    pub fn urgency(self) -> u8 {
        self.urgency
    }
}

impl Default for Priority {
    fn default() -> Self {
        Self { urgency: Self::DEFAULT_URGENCY, incremental: true }
    }
}

/// Who opened a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Initiator {
    /// We did.
    Local,
    /// The peer did.
    Peer,
}

/// A bidirectional channel. Dropping it unfinished is aborting: the peer sees a reset, never a clean end.
pub struct Channel {
    id: u64,
    initiator: Initiator,
    label: Bytes,
    send: SendHalf,
    recv: RecvHalf,
}

impl Channel {
    /// Wraps what a backend's `poll_open` or `poll_accept` gave out.
    pub fn new(parts: ChannelParts) -> Self {
        Self {
            id: parts.id,
            initiator: parts.initiator,
            label: parts.label,
            send: SendHalf::new(parts.send),
            recv: RecvHalf::new(parts.recv),
        }
    }

    /// The number by which logs and captures know it; unique among the session's live channels.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Who opened it.
    pub fn initiator(&self) -> Initiator {
        self.initiator
    }

    /// The label it was opened with.
    pub fn label(&self) -> &Bytes {
        &self.label
    }

    /// The sending half.
    pub fn send_half(&mut self) -> &mut SendHalf {
        &mut self.send
    }

    /// The receiving half.
    pub fn recv_half(&mut self) -> &mut RecvHalf {
        &mut self.recv
    }

    /// Two halves for two tasks; neither waits for the other.
    pub fn split(self) -> (SendHalf, RecvHalf) {
        (self.send, self.recv)
    }

    /// Reads what is there, at most `buf.len()` bytes; 0 is the end. See [`RecvHalf::read`].
    ///
    /// # Errors
    /// As [`RecvHalf::read`].
    ///
    /// # Cancel safety
    /// Cancel-safe.
    pub async fn read(&mut self, buf: &mut [u8]) -> Result<usize> {
        self.recv.read(buf).await
    }

    /// Writes all of `data`. See [`SendHalf::write_all`].
    ///
    /// # Errors
    /// As [`SendHalf::write_all`].
    ///
    /// # Cancel safety
    /// Not cancel-safe: part of `data` may have been written.
    pub async fn write_all(&mut self, data: &[u8]) -> Result<()> {
        self.send.write_all(data).await
    }

    /// Ends our direction; the other goes on. See [`SendHalf::finish`].
    ///
    /// # Errors
    /// As [`SendHalf::finish`].
    pub fn finish(&mut self) -> Result<()> {
        self.send.finish()
    }

    /// Waits until the peer has confirmed the channel. See [`SendHalf::opened`].
    ///
    /// # Errors
    /// As [`SendHalf::opened`].
    ///
    /// # Cancel safety
    /// Cancel-safe.
    pub async fn opened(&mut self) -> Result<()> {
        self.send.opened().await
    }

    /// The polite end: finishes what was written and stops reading with code 0.
    pub fn close(mut self) {
        self.send.close();
        self.recv.close();
    }

    /// The end for error paths: unsent data is dropped and the peer sees `code` in both directions.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) for a code outside the application's space.
    pub fn abort(mut self, code: u64) -> Result<()> {
        let code = crate::codes::check(code)?;
        self.send.abandon(code);
        self.recv.abandon(code);
        Ok(())
    }
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Channel")
            .field("id", &self.id)
            .field("initiator", &self.initiator)
            .field("label", &self.label)
            .finish_non_exhaustive()
    }
}

impl AsyncRead for Channel {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.recv).poll_read(cx, buf)
    }
}

impl AsyncWrite for Channel {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        AsyncWrite::poll_write(Pin::new(&mut self.send), cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        AsyncWrite::poll_flush(Pin::new(&mut self.send), cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        AsyncWrite::poll_shutdown(Pin::new(&mut self.send), cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        AsyncWrite::poll_write_vectored(Pin::new(&mut self.send), cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }
}
