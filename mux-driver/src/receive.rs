//! The receive buffer: large reads, cut into slices that share it.

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::pin::pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

/// What an idle session holds.
const SMALLEST: usize = 8 * 1024;

/// What a busy one reads at once.
const LARGEST: usize = 256 * 1024;

/// Buffers kept to be used again: memory that is fresh from the system costs more than the copy into it.
const KEPT: usize = 8;

/// Buffers in turn: while slices of some are being read, another is filled; each is used again once all of its slices are
/// gone.
#[derive(Default)]
pub(crate) struct ReceiveBuffer {
    current: BytesMut,
    others: VecDeque<BytesMut>,
    /// How much the next buffer holds: grows while reads fill it, shrinks while they do not.
    size: usize,
    /// The size of the present buffer while nothing was read into it.
    fresh: Option<usize>,
}

/// What a read gave.
pub(crate) enum Received {
    /// Bytes; `fresh` when they are the first of another buffer, with its size.
    Data { bytes: Bytes, fresh: Option<usize> },
    /// The transport ended.
    End,
}

impl ReceiveBuffer {
    pub(crate) fn poll_read(
        &mut self,
        reader: &mut (dyn AsyncRead + Send + Unpin),
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<Received>> {
        if self.current.capacity() < SMALLEST.min(self.size / 4).max(1) {
            self.renew();
        }
        let room = self.current.capacity();
        let read = pin!(reader.read_buf(&mut self.current)).poll(cx);
        match read {
            Poll::Ready(Ok(0)) => Poll::Ready(Ok(Received::End)),
            Poll::Ready(Ok(len)) => {
                if len == room {
                    self.size = (self.size * 4).min(LARGEST);
                } else if len < self.size / 8 {
                    self.size = (self.size / 2).max(SMALLEST);
                }
                let bytes = self.current.split().freeze();
                Poll::Ready(Ok(Received::Data { bytes, fresh: self.fresh.take() }))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => {
                self.shrink();
                Poll::Pending
            }
        }
    }

    /// A session that has become quiet lets go of its large buffers.
    fn shrink(&mut self) {
        if self.size == SMALLEST && self.current.capacity() > SMALLEST {
            self.current = BytesMut::new();
            self.others = VecDeque::new();
        }
    }

    fn renew(&mut self) {
        self.size = self.size.clamp(SMALLEST, LARGEST);
        // The one used last is the one that the processor still has in its cache.
        let free = (0..self.others.len()).rev().find(|at| self.others[*at].try_reclaim(self.size));
        let next = free.and_then(|at| self.others.remove(at));
        let next = next.unwrap_or_else(|| BytesMut::with_capacity(self.size));
        if self.others.len() == KEPT {
            self.others.pop_front();
        }
        self.others.push_back(std::mem::replace(&mut self.current, next));
        self.fresh = Some(self.current.capacity());
    }
}
