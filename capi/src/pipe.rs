//! A bounded pipe of bytes in memory. One end is a session's transport; the other is a channel handle of the application
//! or a pump that carries the bytes on. Wakers run after the lock is released.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::{Buf, Bytes, BytesMut};
use libmux::backend::{RecvOps, SendOps};
use libmux::{Error, ErrorKind, Origin, Priority, Result, WriteFlags};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What a pipe holds before its writer has to wait.
pub(crate) const CAPACITY: usize = 256 * 1024;

#[derive(Default)]
struct State {
    bytes: BytesMut,
    /// No byte will follow.
    finished: bool,
    /// The writer gave up, with this code; what it had written is dropped.
    reset: Option<u64>,
    /// The reader is gone, with this code.
    stopped: Option<u64>,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

struct Pipe(Mutex<State>);

impl Pipe {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the state and wakes both ends.
    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.lock();
        change(&mut state);
        let wakers = [state.reader.take(), state.writer.take()];
        drop(state);
        wakers.into_iter().flatten().for_each(Waker::wake);
    }
}

/// The writing end. Dropped, it is the end of the stream.
pub(crate) struct PipeWriter(Arc<Pipe>);

/// The reading end. Dropped, the writer is told.
pub(crate) struct PipeReader(Arc<Pipe>);

/// A new pipe.
pub(crate) fn pipe() -> (PipeWriter, PipeReader) {
    let pipe = Arc::new(Pipe(Mutex::default()));
    (PipeWriter(Arc::clone(&pipe)), PipeReader(pipe))
}

impl PipeWriter {
    pub(crate) fn poll_write(&mut self, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<Result<usize>> {
        let mut state = self.0.lock();
        state.writable()?;
        let mut room = CAPACITY.saturating_sub(state.bytes.len());
        if room == 0 && bufs.iter().any(|buf| !buf.is_empty()) {
            state.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let mut taken = 0;
        for buf in bufs {
            let part = &buf[..room.min(buf.len())];
            state.bytes.extend_from_slice(part);
            room -= part.len();
            taken += part.len();
        }
        let reader = state.reader.take();
        drop(state);
        reader.into_iter().for_each(Waker::wake);
        Poll::Ready(Ok(taken))
    }

    pub(crate) fn end(&mut self) {
        self.0.change(|state| state.finished = true);
    }

    pub(crate) fn give_up(&mut self, code: u64) {
        self.0.change(|state| {
            if !state.finished && state.reset.is_none() {
                state.reset = Some(code);
                state.bytes.clear();
            }
        });
    }

    /// Ready once the reader is gone.
    pub(crate) fn poll_abandoned(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.0.lock();
        if state.stopped.is_some() {
            return Poll::Ready(());
        }
        state.writer = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl State {
    fn writable(&self) -> Result<()> {
        let over = |kind, text: &str| Err(Error::new(kind, Origin::Local, text));
        match self.stopped {
            Some(code) => {
                Err(Error::new(ErrorKind::Stopped, Origin::Peer, "the other end of the wire is gone").with_code(code))
            }
            None if self.finished => over(ErrorKind::Finished, "this direction of the wire was ended"),
            None if self.reset.is_some() => over(ErrorKind::Finished, "this direction of the wire was abandoned"),
            None => Ok(()),
        }
    }

    /// Whether something can be read now: bytes, or the end (`None`); `Err` after a reset or our own stop.
    fn readable(&self) -> Result<Option<bool>> {
        if let Some(code) = self.reset {
            return Err(Error::new(ErrorKind::Reset, Origin::Peer, "the wire was abandoned").with_code(code));
        }
        if self.stopped.is_some() {
            return Err(Error::new(ErrorKind::Finished, Origin::Local, "this direction of the wire was stopped"));
        }
        Ok(match (self.bytes.is_empty(), self.finished) {
            (false, _) => Some(true),
            (true, true) => None,
            (true, false) => Some(false),
        })
    }
}

impl Drop for PipeWriter {
    fn drop(&mut self) {
        self.end();
    }
}

impl PipeReader {
    /// The next bytes, at most `max`; `None` at the end.
    pub(crate) fn poll_bytes(&mut self, cx: &mut Context<'_>, max: usize) -> Poll<Result<Option<Bytes>>> {
        let mut state = self.0.lock();
        match state.readable()? {
            None => Poll::Ready(Ok(None)),
            Some(false) => {
                state.reader = Some(cx.waker().clone());
                Poll::Pending
            }
            Some(true) => {
                let part = max.min(state.bytes.len());
                let bytes = state.bytes.split_to(part).freeze();
                let writer = state.writer.take();
                drop(state);
                writer.into_iter().for_each(Waker::wake);
                Poll::Ready(Ok(Some(bytes)))
            }
        }
    }

    /// Ready once no byte will follow those that wait.
    pub(crate) fn poll_finished(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.0.lock();
        if state.finished || state.reset.is_some() {
            return Poll::Ready(());
        }
        state.reader = Some(cx.waker().clone());
        Poll::Pending
    }

    fn leave(&mut self, code: u64) {
        self.0.change(|state| {
            state.stopped.get_or_insert(code);
            state.bytes.clear();
        });
    }
}

impl Drop for PipeReader {
    fn drop(&mut self) {
        self.leave(0);
    }
}

impl AsyncWrite for PipeWriter {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        PipeWriter::poll_write(&mut self, cx, &[IoSlice::new(buf)]).map_err(Into::into)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        PipeWriter::poll_write(&mut self, cx, bufs).map_err(Into::into)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.end();
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for PipeReader {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let polled = std::task::ready!(self.poll_bytes(cx, buf.remaining()))?;
        buf.put_slice(&polled.unwrap_or_default());
        Poll::Ready(Ok(()))
    }
}

/// The sending half of a wire channel.
impl SendOps for PipeWriter {
    fn poll_write(&mut self, cx: &mut Context<'_>, bufs: &[IoSlice<'_>], flags: WriteFlags) -> Poll<Result<usize>> {
        let taken = std::task::ready!(PipeWriter::poll_write(self, cx, bufs))?;
        if flags.contains(WriteFlags::FIN) && taken == bufs.iter().map(|buf| buf.len()).sum::<usize>() {
            self.end();
        }
        Poll::Ready(Ok(taken))
    }

    fn poll_writable(&mut self, cx: &mut Context<'_>, min: usize) -> Poll<()> {
        let mut state = self.0.lock();
        if state.writable().is_err() || CAPACITY - state.bytes.len() >= min.min(CAPACITY) {
            return Poll::Ready(());
        }
        state.writer = Some(cx.waker().clone());
        Poll::Pending
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let mut state = self.0.lock();
        if state.bytes.is_empty() || state.stopped.is_some() {
            return Poll::Ready(Ok(()));
        }
        state.writer = Some(cx.waker().clone());
        Poll::Pending
    }

    fn poll_opened(&mut self, _: &mut Context<'_>) -> Poll<Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_ended(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let mut state = self.0.lock();
        if let Some(code) = state.stopped {
            let error = Error::new(ErrorKind::Stopped, Origin::Peer, "the other end of the wire is gone");
            return Poll::Ready(if state.finished && state.bytes.is_empty() {
                Ok(())
            } else {
                Err(error.with_code(code))
            });
        }
        if (state.finished && state.bytes.is_empty()) || state.reset.is_some() {
            return Poll::Ready(Ok(()));
        }
        state.writer = Some(cx.waker().clone());
        Poll::Pending
    }

    fn finish(&mut self) -> Result<()> {
        self.0.lock().writable()?;
        self.end();
        Ok(())
    }

    fn reset(&mut self, code: u64) -> Result<()> {
        self.give_up(code);
        Ok(())
    }

    fn set_priority(&mut self, _: Priority) {}

    fn buffered(&self) -> usize {
        self.0.lock().bytes.len()
    }
}

/// The receiving half of a wire channel.
impl RecvOps for PipeReader {
    fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<Result<usize>> {
        let bytes = std::task::ready!(self.poll_bytes(cx, buf.remaining()))?.unwrap_or_default();
        buf.put_slice(&bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_read_bytes(&mut self, cx: &mut Context<'_>, max: usize) -> Poll<Result<Option<Bytes>>> {
        self.poll_bytes(cx, max)
    }

    fn poll_readable(&mut self, cx: &mut Context<'_>, min: usize) -> Poll<()> {
        let mut state = self.0.lock();
        if !matches!(state.readable(), Ok(Some(_))) || state.bytes.remaining() >= min.clamp(1, CAPACITY) {
            return Poll::Ready(());
        }
        state.reader = Some(cx.waker().clone());
        Poll::Pending
    }

    fn stop(&mut self, code: u64) -> Result<()> {
        self.leave(code);
        Ok(())
    }

    fn abandon(&mut self, code: u64) {
        self.leave(code);
    }

    fn buffered(&self) -> usize {
        self.0.lock().bytes.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now<T>(poll: Poll<T>) -> Option<T> {
        match poll {
            Poll::Ready(value) => Some(value),
            Poll::Pending => None,
        }
    }

    #[test]
    fn what_is_written_is_read_up_to_the_end() {
        let (mut writer, mut reader) = pipe();
        let mut cx = Context::from_waker(Waker::noop());
        let big = vec![7; CAPACITY + 5];
        let taken =
            now(PipeWriter::poll_write(&mut writer, &mut cx, &[IoSlice::new(&big)])).expect("room").expect("open");
        assert_eq!(taken, CAPACITY, "bounded");
        assert!(PipeWriter::poll_write(&mut writer, &mut cx, &[IoSlice::new(&big)]).is_pending());
        let part = now(reader.poll_bytes(&mut cx, 100)).expect("there").expect("open").expect("bytes");
        assert_eq!(part.len(), 100);
        drop(writer);
        let mut rest = 0;
        while let Some(bytes) = now(reader.poll_bytes(&mut cx, 1 << 20)).expect("there").expect("open") {
            rest += bytes.len();
        }
        assert_eq!(rest, CAPACITY - 100);
    }

    #[test]
    fn a_reader_that_leaves_ends_the_writer_and_a_reset_is_no_end() {
        let (mut writer, reader) = pipe();
        let mut cx = Context::from_waker(Waker::noop());
        drop(reader);
        let error = now(PipeWriter::poll_write(&mut writer, &mut cx, &[IoSlice::new(b"x")])).expect("at once");
        assert_eq!(error.expect_err("nobody reads").kind(), ErrorKind::Stopped);
        let (mut writer, mut reader) = pipe();
        writer.give_up(9);
        drop(writer);
        let error = now(reader.poll_bytes(&mut cx, 1)).expect("at once").expect_err("no end");
        assert_eq!((error.kind(), error.code()), (ErrorKind::Reset, Some(9)));
    }
}
