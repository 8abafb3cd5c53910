//! The receiving half of a channel.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use bytes::Bytes;
use mux_api::backend::RecvOps;
use mux_api::{Error, ErrorKind, Reservation, Result, codes};
use quinn::{ReadError, RecvStream, VarInt};
use tokio::io::ReadBuf;

use crate::error::{ended_by_peer, finished, varint};
use crate::shared::Shared;
use crate::side::SendSide;

/// Pieces taken from quinn by one call: each is about a packet.
const PIECES: usize = 16;

pub(crate) struct QuicRecv {
    side: Arc<SendSide>,
    /// `None` once nothing more will come from it.
    stream: Option<RecvStream>,
    /// Taken from quinn and not yet read: what came with the preface, then the rest.
    first: Bytes,
    stash: VecDeque<Bytes>,
    stashed: usize,
    /// What follows the stash: `Ok` is the end.
    end: Option<Result<()>>,
    /// The window, for as long as the peer may use it.
    held: Option<Reservation>,
}

impl QuicRecv {
    /// `first` came with the preface.
    pub(crate) fn new(side: Arc<SendSide>, stream: RecvStream, held: Option<Reservation>, first: Bytes) -> Self {
        if !first.is_empty() {
            side.note_heard();
        }
        let stashed = first.len();
        Self { side, stream: Some(stream), first, stash: VecDeque::new(), stashed, end: None, held }
    }

    /// For a direction that the peer has reset already.
    pub(crate) fn reset(side: Arc<SendSide>, code: VarInt) -> Self {
        let (first, stash) = Default::default();
        let mut recv = Self { side, stream: None, first, stash, stashed: 0, end: None, held: None };
        recv.failed(ReadError::Reset(code));
        recv
    }

    fn shared(&self) -> &Shared {
        &self.side.shared
    }

    fn end_with(&mut self, end: Result<()>) {
        self.stream = None;
        self.end = Some(end);
    }

    fn failed(&mut self, error: ReadError) {
        let error = match error {
            ReadError::Reset(code) => {
                self.side.note_heard();
                self.shared().counts.resets_in.fetch_add(1, Ordering::Relaxed);
                ended_by_peer(ErrorKind::Reset, code, self.side.initiator)
            }
            ReadError::ConnectionLost(error) => self.shared().lost(&error),
            ReadError::ClosedStream => finished(),
            ReadError::ZeroRttRejected => self.shared().fail_early(),
            ReadError::IllegalOrderedRead => {
                Error::new(ErrorKind::Internal, mux_api::Origin::Local, format!("reading a QUIC stream: {error}"))
            }
        };
        self.end_with(Err(error));
    }

    /// The end, once the stash is empty. Its window is nobody's any more.
    fn ended(&mut self) -> Option<Result<()>> {
        let end = self.end.clone()?;
        self.held = None;
        Some(end)
    }

    /// Moves what quinn has into the stash. Ready when something was moved, or the end is known.
    fn poll_pull(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(stream) = &mut self.stream else { return Poll::Ready(()) };
        let mut pieces: [Bytes; PIECES] = Default::default();
        let read = match pin!(stream.read_chunks(&mut pieces)).poll(cx) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(read) => read,
        };
        match read {
            Ok(Some(count)) => {
                self.side.note_heard();
                for piece in pieces.into_iter().take(count) {
                    self.stashed += piece.len();
                    self.stash.push_back(piece);
                }
            }
            Ok(None) => {
                self.side.note_heard();
                self.end_with(Ok(()));
            }
            Err(error) => self.failed(error),
        }
        Poll::Ready(())
    }

    fn take(&mut self, max: usize) -> Option<Bytes> {
        let piece = if self.first.is_empty() {
            let mut piece = self.stash.pop_front()?;
            if piece.len() > max {
                let rest = piece.split_off(max);
                self.stash.push_front(rest);
            }
            piece
        } else {
            self.first.split_to(self.first.len().min(max))
        };
        self.stashed -= piece.len();
        Some(piece)
    }

    /// Tells the peer that nothing more will be read, unless it has nothing more to say.
    fn tell_stop(&mut self, code: u64) {
        if let Some(stream) = &mut self.stream {
            // Only a stream that is over cannot be stopped.
            let _ = stream.stop(varint(code));
        }
    }

    /// Reads no more.
    fn leave(&mut self, code: u64) {
        self.tell_stop(code);
        self.first = Bytes::new();
        self.stash = VecDeque::new();
        self.stashed = 0;
        self.end_with(Err(finished()));
        self.held = None;
    }
}

impl RecvOps for QuicRecv {
    fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<Result<usize>> {
        if self.stashed > 0 {
            let before = buf.filled().len();
            while buf.remaining() > 0
                && let Some(piece) = self.take(buf.remaining())
            {
                buf.put_slice(&piece);
            }
            return Poll::Ready(Ok(buf.filled().len() - before));
        }
        let Some(stream) = &mut self.stream else {
            return Poll::Ready(self.ended().unwrap_or_else(|| Err(finished())).map(|()| 0));
        };
        let before = buf.filled().len();
        match stream.poll_read_buf(cx, buf) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Ok(())) => {
                let read = buf.filled().len() - before;
                if read > 0 {
                    self.side.note_heard();
                    return Poll::Ready(Ok(read));
                }
                self.side.note_heard();
                self.end_with(Ok(()));
            }
            Poll::Ready(Err(error)) => self.failed(error),
        }
        Poll::Ready(self.ended().unwrap_or(Ok(())).map(|()| 0))
    }

    fn poll_read_bytes(&mut self, cx: &mut Context<'_>, max: usize) -> Poll<Result<Option<Bytes>>> {
        if self.stashed == 0 && self.poll_pull(cx).is_pending() {
            return Poll::Pending;
        }
        if let Some(piece) = self.take(max) {
            return Poll::Ready(Ok(Some(piece)));
        }
        Poll::Ready(self.ended().unwrap_or(Ok(())).map(|()| None))
    }

    fn poll_readable(&mut self, cx: &mut Context<'_>, min: usize) -> Poll<()> {
        let enough = min.clamp(1, self.shared().settings.window as usize);
        while self.stashed < enough && self.stream.is_some() {
            if self.poll_pull(cx).is_pending() {
                return Poll::Pending;
            }
        }
        Poll::Ready(())
    }

    fn stop(&mut self, code: u64) -> Result<()> {
        self.leave(code);
        Ok(())
    }

    fn abandon(&mut self, code: u64) {
        self.leave(code);
    }

    fn buffered(&self) -> usize {
        self.stashed
    }
}

impl Drop for QuicRecv {
    fn drop(&mut self) {
        self.tell_stop(codes::DROPPED);
        self.side.leave();
    }
}
