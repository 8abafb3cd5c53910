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
    source: Source,
    /// Only while there is something, as in few of many channels.
    stash: Option<Box<Stash>>,
    /// The window, for as long as the peer may use it.
    held: Option<Reservation>,
}

enum Source {
    Live(RecvStream),
    /// Nothing more will come; what follows the stash: `Ok` is the end.
    Over(Result<()>),
}

/// Taken from quinn and not yet read: what came with the preface, then the rest.
struct Stash {
    first: Bytes,
    pieces: VecDeque<Bytes>,
    bytes: usize,
}

impl Stash {
    fn new(first: Bytes) -> Box<Self> {
        Box::new(Self { bytes: first.len(), first, pieces: VecDeque::new() })
    }

    fn push(&mut self, piece: Bytes) {
        self.bytes += piece.len();
        self.pieces.push_back(piece);
    }

    fn take(&mut self, max: usize) -> Option<Bytes> {
        let piece = if self.first.is_empty() {
            let mut piece = self.pieces.pop_front()?;
            if piece.len() > max {
                let rest = piece.split_off(max);
                self.pieces.push_front(rest);
            }
            piece
        } else {
            self.first.split_to(self.first.len().min(max))
        };
        self.bytes -= piece.len();
        Some(piece)
    }
}

impl QuicRecv {
    /// `first` came with the preface.
    pub(crate) fn new(side: Arc<SendSide>, stream: RecvStream, held: Option<Reservation>, first: Bytes) -> Self {
        let stash = (!first.is_empty()).then(|| {
            side.note_heard();
            Stash::new(first)
        });
        Self { side, source: Source::Live(stream), stash, held }
    }

    /// For a direction that the peer has reset already.
    pub(crate) fn reset(side: Arc<SendSide>, code: VarInt) -> Self {
        let mut recv = Self { side, source: Source::Over(Ok(())), stash: None, held: None };
        recv.failed(ReadError::Reset(code));
        recv
    }

    fn shared(&self) -> &Shared {
        &self.side.shared
    }

    fn stashed(&self) -> usize {
        self.stash.as_ref().map_or(0, |stash| stash.bytes)
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
        self.source = Source::Over(Err(error));
    }

    /// The end, once the stash is empty. Its window is nobody's any more.
    fn ended(&mut self) -> Result<()> {
        match &self.source {
            Source::Live(_) => Ok(()),
            Source::Over(end) => {
                self.held = None;
                end.clone()
            }
        }
    }

    /// Moves what quinn has into the stash. Ready when something was moved, or the end is known.
    fn poll_pull(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Source::Live(stream) = &mut self.source else { return Poll::Ready(()) };
        let mut pieces: [Bytes; PIECES] = Default::default();
        let read = match pin!(stream.read_chunks(&mut pieces)).poll(cx) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(read) => read,
        };
        match read {
            Ok(Some(count)) => {
                self.side.note_heard();
                let stash = self.stash.get_or_insert_with(|| Stash::new(Bytes::new()));
                pieces.into_iter().take(count).for_each(|piece| stash.push(piece));
            }
            Ok(None) => {
                self.side.note_heard();
                self.source = Source::Over(Ok(()));
            }
            Err(error) => self.failed(error),
        }
        Poll::Ready(())
    }

    fn take(&mut self, max: usize) -> Option<Bytes> {
        let stash = self.stash.as_mut()?;
        let piece = stash.take(max);
        if stash.bytes == 0 {
            self.stash = None;
        }
        piece
    }

    /// Tells the peer that nothing more will be read, unless it has nothing more to say.
    fn tell_stop(&mut self, code: u64) {
        if let Source::Live(stream) = &mut self.source {
            // Only a stream that is over cannot be stopped.
            let _ = stream.stop(varint(code));
        }
    }

    /// Reads no more.
    fn leave(&mut self, code: u64) {
        self.tell_stop(code);
        self.stash = None;
        self.source = Source::Over(Err(finished()));
        self.held = None;
    }
}

impl RecvOps for QuicRecv {
    fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<Result<usize>> {
        if self.stash.is_some() {
            let before = buf.filled().len();
            while buf.remaining() > 0
                && let Some(piece) = self.take(buf.remaining())
            {
                buf.put_slice(&piece);
            }
            return Poll::Ready(Ok(buf.filled().len() - before));
        }
        let Source::Live(stream) = &mut self.source else { return Poll::Ready(self.ended().map(|()| 0)) };
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
                self.source = Source::Over(Ok(()));
            }
            Poll::Ready(Err(error)) => self.failed(error),
        }
        Poll::Ready(self.ended().map(|()| 0))
    }

    fn poll_read_bytes(&mut self, cx: &mut Context<'_>, max: usize) -> Poll<Result<Option<Bytes>>> {
        if self.stash.is_none() && self.poll_pull(cx).is_pending() {
            return Poll::Pending;
        }
        if let Some(piece) = self.take(max) {
            return Poll::Ready(Ok(Some(piece)));
        }
        Poll::Ready(self.ended().map(|()| None))
    }

    fn poll_readable(&mut self, cx: &mut Context<'_>, min: usize) -> Poll<()> {
        let enough = min.clamp(1, self.shared().settings.window as usize);
        while self.stashed() < enough && matches!(self.source, Source::Live(_)) {
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
        self.stashed()
    }
}

impl Drop for QuicRecv {
    fn drop(&mut self) {
        self.tell_stop(codes::DROPPED);
        self.side.leave();
    }
}
