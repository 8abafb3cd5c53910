//! The two halves of a channel.

use std::fmt;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::ops::BitOr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::backend::{Burst, RecvOps, SendOps};
use crate::{ErrorKind, Priority, Result, codes};

/// What goes with a write.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WriteFlags(u8);

impl WriteFlags {
    /// Nothing special.
    pub const NONE: Self = Self(0);
    /// The direction ends with the last of these bytes, if all of them are taken.
    pub const FIN: Self = Self(1);
    /// More follows at once: gather rather than send.
    pub const MORE: Self = Self(2);

    /// Whether all flags of `other` are set.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

impl BitOr for WriteFlags {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// The sending half. Dropped before [`finish`](Self::finish) or [`close`](Self::close), it resets its direction with
/// [`codes::DROPPED`]: a cancelled or crashed writer is never taken for a complete one.
///
/// Every method here wakes the task that polled last; a half belongs to one task at a time.
pub struct SendHalf {
    ops: Box<dyn SendOps>,
    /// Finished or reset: nothing is left for `drop` to tell the peer.
    ended: bool,
}

impl SendHalf {
    pub(crate) fn new(ops: Box<dyn SendOps>) -> Self {
        Self { ops, ended: false }
    }

    /// Writes some of `bufs`; returns how many bytes were taken, at least one unless all are empty.
    ///
    /// # Errors
    /// [`Stopped`](ErrorKind::Stopped) with the peer's code, [`Finished`](ErrorKind::Finished) after our own end,
    /// [`Refused`](ErrorKind::Refused) when the peer refused the channel, or why the session ended.
    pub fn poll_write(&mut self, cx: &mut Context<'_>, bufs: &[IoSlice<'_>], flags: WriteFlags) -> Poll<Result<usize>> {
        let polled = self.ops.poll_write(cx, bufs, flags);
        if flags.contains(WriteFlags::FIN)
            && let Poll::Ready(Ok(taken)) = &polled
        {
            self.ended |= *taken == bufs.iter().map(|buf| buf.len()).sum::<usize>();
        }
        polled
    }

    /// Writes some of `data`; returns how many bytes were taken.
    ///
    /// # Errors
    /// As [`poll_write`](Self::poll_write).
    ///
    /// # Cancel safety
    /// Cancel-safe: a dropped future has taken nothing.
    pub async fn write(&mut self, data: &[u8]) -> Result<usize> {
        poll_fn(|cx| self.poll_write(cx, &[IoSlice::new(data)], WriteFlags::NONE)).await
    }

    /// Writes all of `data`. When it returns, the bytes are the library's to deliver.
    ///
    /// # Errors
    /// As [`poll_write`](Self::poll_write).
    ///
    /// # Cancel safety
    /// Not cancel-safe: part of `data` may have been taken. Dropping the half afterwards resets the channel, so the
    /// peer cannot take the part for the whole.
    pub async fn write_all(&mut self, data: &[u8]) -> Result<()> {
        self.write_all_with(data, WriteFlags::NONE).await
    }

    /// Writes all of `data` with `flags`; with [`WriteFlags::FIN`] data and end travel together.
    ///
    /// # Errors
    /// As [`poll_write`](Self::poll_write).
    ///
    /// # Cancel safety
    /// As [`write_all`](Self::write_all).
    pub async fn write_all_with(&mut self, mut data: &[u8], flags: WriteFlags) -> Result<()> {
        loop {
            let taken = poll_fn(|cx| self.poll_write(cx, &[IoSlice::new(data)], flags)).await?;
            data = &data[taken..];
            if data.is_empty() {
                return Ok(());
            }
        }
    }

    /// Hands over owned bytes, without a copy where the backend can; what was taken is split off the front.
    ///
    /// # Errors
    /// As [`poll_write`](Self::poll_write).
    pub fn poll_write_bytes(&mut self, cx: &mut Context<'_>, data: &mut Bytes) -> Poll<Result<usize>> {
        self.ops.poll_write_bytes(cx, data)
    }

    /// Hands over all of `data`, without a copy where the backend can.
    ///
    /// # Errors
    /// As [`poll_write`](Self::poll_write).
    ///
    /// # Cancel safety
    /// As [`write_all`](Self::write_all).
    pub async fn write_bytes(&mut self, mut data: Bytes) -> Result<()> {
        while !data.is_empty() {
            poll_fn(|cx| self.poll_write_bytes(cx, &mut data)).await?;
        }
        Ok(())
    }

    /// Ready when at least `min` bytes (or as many as can ever be taken at once) would be accepted, or a write would
    /// fail. Takes nothing.
    pub fn poll_writable(&mut self, cx: &mut Context<'_>, min: usize) -> Poll<()> {
        self.ops.poll_writable(cx, min)
    }

    /// Ready when the transport has taken every byte written so far.
    ///
    /// # Errors
    /// As [`poll_write`](Self::poll_write).
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.ops.poll_flush(cx)
    }

    /// Waits until the transport has taken every byte written so far.
    ///
    /// # Errors
    /// As [`poll_write`](Self::poll_write).
    ///
    /// # Cancel safety
    /// Cancel-safe.
    pub async fn flush(&mut self) -> Result<()> {
        poll_fn(|cx| self.poll_flush(cx)).await
    }

    /// Ends this direction cleanly: the peer reads everything written, then the end. The other direction goes on.
    ///
    /// # Errors
    /// [`Finished`](ErrorKind::Finished) when it was ended before, otherwise as [`poll_write`](Self::poll_write).
    pub fn finish(&mut self) -> Result<()> {
        self.ops.finish()?;
        self.ended = true;
        Ok(())
    }

    /// Abandons this direction: unsent data is dropped and the peer's reader fails with `code`.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) for a code outside the application's space,
    /// [`Unsupported`](ErrorKind::Unsupported) for one that the session cannot carry.
    pub fn reset(&mut self, code: u64) -> Result<()> {
        self.ops.reset(codes::check(code)?)?;
        self.ended = true;
        Ok(())
    }

    /// The polite end: finishes, unless the direction has ended already.
    pub fn close(&mut self) {
        if !self.ended {
            // Refused only by a direction that is over already; then there is nothing left to say.
            let _ = self.ops.finish();
            self.ended = true;
        }
    }

    /// Ready when the peer has confirmed the channel.
    ///
    /// # Errors
    /// As [`opened`](Self::opened).
    pub fn poll_opened(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.ops.poll_opened(cx)
    }

    /// Waits until the peer has confirmed the channel; at once on a channel that was accepted.
    ///
    /// # Errors
    /// [`Refused`](ErrorKind::Refused) with the peer's code and reason, [`Unsupported`](ErrorKind::Unsupported) where
    /// the wire has no confirmation ([`OPENED`](crate::Capabilities::OPENED)), or why the session ended.
    ///
    /// # Cancel safety
    /// Cancel-safe.
    pub async fn opened(&mut self) -> Result<()> {
        poll_fn(|cx| self.poll_opened(cx)).await
    }

    /// Ready when this direction is over: see [`ended`](Self::ended).
    ///
    /// # Errors
    /// As [`ended`](Self::ended).
    pub fn poll_ended(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.ops.poll_ended(cx)
    }

    /// Waits until this direction is over: `Ok` once it was finished and the transport has taken all of it (with
    /// [`ACKED`](crate::Capabilities::ACKED): the peer's transport has it).
    ///
    /// # Errors
    /// [`Stopped`](ErrorKind::Stopped) as soon as the peer asks to stop, or why it ended otherwise.
    ///
    /// # Cancel safety
    /// Cancel-safe.
    pub async fn ended(&mut self) -> Result<()> {
        poll_fn(|cx| self.poll_ended(cx)).await
    }

    /// Changes the urgency: a hint, so a backend without priorities accepts it.
    pub fn set_priority(&mut self, priority: Priority) {
        self.ops.set_priority(priority);
    }

    /// Bytes written and not yet taken by the transport.
    pub fn buffered(&self) -> usize {
        self.ops.buffered()
    }

    /// Bytes that a write would take at present, for the curious: a wait for more is [`poll_writable`](Self::poll_writable).
    pub fn room(&self) -> usize {
        self.ops.room()
    }

    /// A way past the half for small writes of a burst, if the backend has one: what it does not take, the half is asked for.
    /// It may be `None` until the half has been used.
    pub fn burst(&self) -> Option<Arc<dyn Burst>> {
        self.ops.burst()
    }

    /// Resets with any code, the library's included; errors mean that the direction is over already.
    pub(crate) fn abandon(&mut self, code: u64) {
        if !self.ended {
            let _ = self.ops.reset(code);
            self.ended = true;
        }
    }
}

impl Drop for SendHalf {
    fn drop(&mut self) {
        self.abandon(codes::DROPPED);
    }
}

impl fmt::Debug for SendHalf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SendHalf").field("ended", &self.ended).finish_non_exhaustive()
    }
}

impl AsyncWrite for SendHalf {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        SendHalf::poll_write(&mut self, cx, &[IoSlice::new(buf)], WriteFlags::NONE).map_err(Into::into)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        SendHalf::poll_flush(&mut self, cx).map_err(Into::into)
    }

    /// Finishes the direction and waits until the transport has taken all of it.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.ended
            && let Err(error) = self.finish()
            && error.kind() != ErrorKind::Finished
        {
            return Poll::Ready(Err(error.into()));
        }
        SendHalf::poll_flush(&mut self, cx).map_err(Into::into)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        SendHalf::poll_write(&mut self, cx, bufs, WriteFlags::NONE).map_err(Into::into)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }
}

/// The receiving half. Dropped before the end was read, it asks the peer to stop with [`codes::DROPPED`].
///
/// Every method here wakes the task that polled last; a half belongs to one task at a time.
pub struct RecvHalf {
    ops: Box<dyn RecvOps>,
    /// The end was read or we stopped: nothing is left for `drop` to tell the peer.
    ended: bool,
}

impl RecvHalf {
    pub(crate) fn new(ops: Box<dyn RecvOps>) -> Self {
        Self { ops, ended: false }
    }

    /// Copies what is there into `buf`; ready with 0 at the end, which stays the end, or when `buf` is full.
    ///
    /// # Errors
    /// [`Reset`](ErrorKind::Reset) with the peer's code, [`Finished`](ErrorKind::Finished) after our own
    /// [`stop`](Self::stop), or why the session ended. Bytes that arrived in order before the session's end are read
    /// first.
    pub fn poll_read_buf(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<Result<usize>> {
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(0));
        }
        let polled = self.ops.poll_read(cx, buf);
        self.ended |= matches!(&polled, Poll::Ready(Ok(0)));
        polled
    }

    /// Reads what is there, at most `buf.len()` bytes; 0 is the end, which stays the end.
    ///
    /// # Errors
    /// As [`poll_read_buf`](Self::poll_read_buf).
    ///
    /// # Cancel safety
    /// Cancel-safe: a dropped future has read nothing.
    pub async fn read(&mut self, buf: &mut [u8]) -> Result<usize> {
        let mut buf = ReadBuf::new(buf);
        poll_fn(|cx| self.poll_read_buf(cx, &mut buf)).await
    }

    /// The next bytes as they arrived, at most `max`, without a copy; `None` at the end.
    ///
    /// # Errors
    /// As [`poll_read_buf`](Self::poll_read_buf).
    pub fn poll_read_bytes(&mut self, cx: &mut Context<'_>, max: usize) -> Poll<Result<Option<Bytes>>> {
        let polled = self.ops.poll_read_bytes(cx, max);
        self.ended |= matches!(&polled, Poll::Ready(Ok(None)));
        polled
    }

    /// The next bytes as they arrived, at most `max`, without a copy; `None` at the end. They may be a slice of a
    /// larger receive buffer, which lives as long as they do: copy what is kept for long.
    ///
    /// # Errors
    /// As [`poll_read_buf`](Self::poll_read_buf).
    ///
    /// # Cancel safety
    /// Cancel-safe: a dropped future has read nothing.
    pub async fn read_bytes(&mut self, max: usize) -> Result<Option<Bytes>> {
        poll_fn(|cx| self.poll_read_bytes(cx, max)).await
    }

    /// Ready when at least `min` bytes (or as many as the window holds) wait, or the end, or a failure. Takes nothing.
    pub fn poll_readable(&mut self, cx: &mut Context<'_>, min: usize) -> Poll<()> {
        self.ops.poll_readable(cx, min)
    }

    /// Reads no more: what waits is dropped and the peer's writer fails with `code`.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) for a code outside the application's space,
    /// [`Unsupported`](ErrorKind::Unsupported) where the session cannot tell the peer
    /// ([`STOP`](crate::Capabilities::STOP)).
    pub fn stop(&mut self, code: u64) -> Result<()> {
        self.ops.stop(codes::check(code)?)?;
        self.ended = true;
        Ok(())
    }

    /// The polite end: stops reading with code 0, unless the end was read already.
    pub fn close(&mut self) {
        self.abandon(codes::NO_ERROR);
    }

    /// Bytes that wait to be read.
    pub fn buffered(&self) -> usize {
        self.ops.buffered()
    }

    /// Stops with any code, also where the peer cannot be told.
    pub(crate) fn abandon(&mut self, code: u64) {
        if !self.ended {
            self.ops.abandon(code);
            self.ended = true;
        }
    }
}

impl Drop for RecvHalf {
    fn drop(&mut self) {
        self.abandon(codes::DROPPED);
    }
}

impl fmt::Debug for RecvHalf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecvHalf").field("ended", &self.ended).finish_non_exhaustive()
    }
}

impl AsyncRead for RecvHalf {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.poll_read_buf(cx, buf).map_ok(|_| ()).map_err(Into::into)
    }
}
