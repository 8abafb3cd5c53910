//! The writer: the one place where bytes are handed to the transport.

use std::io::{self, IoSlice};
use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use mux_proto::Batch;
use tokio::io::AsyncWrite;

use crate::driver::now;

/// The transport's sending side and what it has not taken yet. Whoever holds it may send; the waker is always the
/// driver's, since a transport remembers only one.
pub(crate) struct Writer {
    io: Box<dyn AsyncWrite + Send + Unpin>,
    pub(crate) batch: Batch,
    pub(crate) waker: Waker,
    /// The transport failed; the driver reports it on its next turn.
    pub(crate) error: Option<io::Error>,
    pace: Pace,
}

/// About so many bytes are handed to a fast transport at once: what is handed over can no longer be overtaken, so it is no
/// more than the largest frame.
pub(crate) const BATCH: usize = 64 * 1024;

/// The least, however slow it is: headers and calls have to stay small beside what they carry.
const LEAST: usize = 2048;

/// A measurement takes at least so long, and at most: after a pause nothing is known.
const MEASURED: Range<Duration> = Duration::from_millis(20)..Duration::from_secs(1);

/// How much to hand over at once: what the transport takes in a quarter of a millisecond.
struct Pace {
    /// When the transport was full and the measurement began.
    since: Instant,
    /// Bytes it took since.
    taken: u64,
    batch: usize,
}

impl Pace {
    /// The transport is full again, so what it took meanwhile is what went on.
    fn full(&mut self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.since);
        if elapsed < MEASURED.start {
            return;
        }
        if elapsed < MEASURED.end {
            let in_250_us = (self.taken as f64 / elapsed.as_secs_f64() * 250e-6) as usize;
            // A pause of the application looks like a slow transport: it falls by halves only.
            self.batch = in_250_us.clamp((self.batch / 2).max(LEAST), BATCH);
        }
        (self.since, self.taken) = (now, 0);
    }
}

/// Slices for one system call: a batch in bodies too large to be copied has fewer.
const SLICES: usize = 64;

impl Writer {
    pub(crate) fn new(io: Box<dyn AsyncWrite + Send + Unpin>) -> Self {
        let pace = Pace { since: now(), taken: 0, batch: BATCH };
        Self { io, batch: Batch::default(), waker: Waker::noop().clone(), error: None, pace }
    }

    /// Whether a caller may send past the queue: nothing is left over and nothing failed.
    pub(crate) fn is_idle(&self) -> bool {
        self.batch.is_empty() && self.error.is_none()
    }

    /// How many bytes to hand over at once.
    pub(crate) fn most(&self) -> usize {
        self.pace.batch
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
            Poll::Ready(Ok(sent)) => {
                self.pace.taken += sent as u64;
                Poll::Ready(Ok(self.batch.advance(sent)))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => {
                self.pace.full(now());
                Poll::Pending
            }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_handed_over_at_once_follows_the_rate() {
        let mut pace = Pace { since: Instant::now(), taken: 0, batch: BATCH };
        let mut after = |millis, taken| {
            pace.taken += taken;
            pace.full(pace.since + Duration::from_millis(millis));
            pace.batch
        };
        assert_eq!(after(5, 1 << 20), BATCH, "too short to tell");
        // 100 Mbit/s: 3,125 bytes in 250 us, approached by halves.
        assert_eq!(after(1000, 0), BATCH, "after a pause nothing is known");
        assert_eq!([(); 6].map(|()| after(100, 1_250_000)), [32_768, 16_384, 8_192, 4_096, 3_125, 3_125]);
        assert_eq!([(); 2].map(|()| after(100, 1)), [LEAST, LEAST]);
        assert_eq!(after(100, 1 << 30), BATCH);
    }
}
