//! The writer: the one place where bytes are handed to the transport.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use mux_proto::Batch;
use tokio::io::AsyncWrite;

/// The transport's sending side and what it has not taken yet. Whoever holds it may send; the waker is always the
/// driver's, since a transport remembers only one.
pub(crate) struct Writer {
    io: Box<dyn AsyncWrite + Send + Unpin>,
    pub(crate) batch: Batch,
    pub(crate) waker: Waker,
    /// The transport failed; the driver reports it on its next turn.
    pub(crate) error: Option<io::Error>,
}

/// Slices for one system call: a batch in bodies too large to be copied has fewer.
const SLICES: usize = 64;

impl Writer {
    pub(crate) fn new(io: Box<dyn AsyncWrite + Send + Unpin>) -> Self {
        Self { io, batch: Batch::default(), waker: Waker::noop().clone(), error: None }
    }

    /// Whether a caller may send past the queue: nothing is left over and nothing failed.
    pub(crate) fn is_idle(&self) -> bool {
        self.batch.is_empty() && self.error.is_none()
    }

    /// Sends the batch until it is empty or the transport takes no more.
    pub(crate) fn flush(&mut self) -> Poll<()> {
        while !self.batch.is_empty() && self.error.is_none() {
            match self.send(&[]) {
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => self.error = Some(error),
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(())
    }

    /// Sends the batch and then `bodies`, `take` bytes of them, by one call; what is left over is copied into the
    /// batch. Ready when nothing is left.
    pub(crate) fn send_direct(&mut self, bodies: &[IoSlice<'_>], take: usize) -> Poll<()> {
        let sent = match self.send(bodies) {
            Poll::Ready(Ok(sent)) => sent,
            Poll::Ready(Err(error)) => {
                self.error = Some(error);
                return Poll::Ready(());
            }
            Poll::Pending => 0,
        };
        let mut skip = sent;
        let mut left = take;
        for body in bodies {
            let body = &body[..body.len().min(left)];
            left -= body.len();
            let skipped = skip.min(body.len());
            skip -= skipped;
            self.batch.push_copy(&body[skipped..]);
        }
        if self.batch.is_empty() { Poll::Ready(()) } else { Poll::Pending }
    }

    /// One call; returns how many bytes of `more` were taken.
    fn send(&mut self, more: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let mut slices = [IoSlice::new(&[]); SLICES];
        let used = self.batch.slices(&mut slices);
        // Bodies may follow only when all of the batch goes before them.
        let mut end = used;
        if used == self.batch.parts() {
            for (slot, body) in slices[used..].iter_mut().zip(more) {
                *slot = IoSlice::new(body);
                end += 1;
            }
        }
        let mut cx = Context::from_waker(&self.waker);
        match Pin::new(&mut *self.io).poll_write_vectored(&mut cx, &slices[..end]) {
            Poll::Ready(Ok(0)) => Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
            Poll::Ready(Ok(sent)) => Poll::Ready(Ok(self.batch.advance(sent))),
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => Poll::Pending,
        }
    }

    /// Lets the transport send what it gathered itself.
    pub(crate) fn poll_flush_transport(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.io).poll_flush(cx)
    }

    /// Ends our direction of the transport.
    pub(crate) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.io).poll_shutdown(cx)
    }

    /// Lets go of the transport; `true` when it had not taken everything.
    pub(crate) fn close(&mut self) -> bool {
        let lost = !self.batch.is_empty();
        self.io = Box::new(tokio::io::sink());
        self.batch = Batch::default();
        self.error = Some(io::ErrorKind::NotConnected.into());
        lost
    }
}
