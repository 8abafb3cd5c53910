//! The receiving direction: what arrived, and how much more may.

use std::collections::VecDeque;

use bytes::Bytes;

/// How the direction stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RecvState {
    /// More may come.
    Open,
    /// The peer finished; what waits is all there is.
    Finished,
    /// The peer abandoned it with this code.
    Reset(u64),
    /// We read no more; what still arrives is discarded. STOP with this code is still to be said.
    Stopping(u64),
    /// We read no more, and have said so.
    Stopped,
}

#[derive(Debug)]
pub(crate) struct RecvSide {
    pub(crate) state: RecvState,
    /// The peer has said how its direction ended.
    pub(crate) peer_ended: bool,
    /// The opener waits for a first record of ours: credit is said whether it is due or not, even if all has come.
    pub(crate) confirm: bool,
    /// The window: what may be on its way, waiting or being read together.
    window: u32,
    /// The offset up to which the peer may send, as it was told.
    granted: u64,
    /// Bytes received, and bytes that the application has read, ever.
    received: u64,
    consumed: u64,
    /// Bytes of a raw body that were read and whose HTTP/2 window was not returned yet.
    unreturned: usize,
    buffered: usize,
    /// What of `consumed` was read before the moment `mark`, in microseconds of the session's clock, which wraps.
    measured: u64,
    mark: u32,
    /// Slices of receive buffers, then what was copied.
    #[expect(clippy::box_collection, reason = "every channel has this field, and few a queue: a pointer is enough")]
    queue: Option<Box<VecDeque<Bytes>>>,
    tail: Vec<u8>,
}

/// Smaller bodies are copied, so that they pin no receive buffer.
const PINS_FROM: usize = 2048;

impl RecvSide {
    pub(crate) fn new(window: u32, granted: u64) -> Self {
        Self {
            state: RecvState::Open,
            peer_ended: false,
            confirm: false,
            window,
            granted,
            received: 0,
            consumed: 0,
            unreturned: 0,
            buffered: 0,
            measured: 0,
            mark: 0,
            queue: None,
            tail: Vec::new(),
        }
    }

    pub(crate) fn buffered(&self) -> usize {
        self.buffered
    }

    pub(crate) fn window(&self) -> usize {
        self.window as usize
    }

    /// Counts `len` bytes against what was granted; `false` when the peer sends more than it may.
    #[must_use = "an overrun is a protocol violation"]
    pub(crate) fn receive(&mut self, len: usize) -> bool {
        self.received += len as u64;
        self.received <= self.granted
    }

    /// Bytes that were granted and have not come.
    pub(crate) fn promised(&self) -> u64 {
        self.granted.saturating_sub(self.received)
    }

    /// Stores what arrived; returns how much of it waits to be read now.
    pub(crate) fn push(&mut self, body: Bytes) -> usize {
        let len = body.len();
        if self.state != RecvState::Open {
            self.unreturned += len;
            return 0;
        }
        self.buffered += len;
        if len < PINS_FROM {
            self.tail.extend_from_slice(&body);
            return len;
        }
        let queue = self.queue.get_or_insert_default();
        if !self.tail.is_empty() {
            queue.push_back(Bytes::from(std::mem::take(&mut self.tail)));
        }
        queue.push_back(body);
        len
    }

    /// The next bytes; they count as read once [`consume`](Self::consume) says so.
    pub(crate) fn take(&mut self) -> Option<Bytes> {
        if let Some(queue) = &mut self.queue {
            let chunk = queue.pop_front();
            if queue.is_empty() {
                self.queue = None;
            }
            return chunk;
        }
        if self.tail.is_empty() { None } else { Some(Bytes::from(std::mem::take(&mut self.tail))) }
    }

    /// The application has read `len` bytes; returns how many of them still counted as waiting.
    pub(crate) fn consume(&mut self, len: usize) -> usize {
        let len = len.min(self.buffered);
        self.buffered -= len;
        self.consumed += len as u64;
        self.unreturned += len;
        len
    }

    /// The offset to announce, if so much was read that the peer should be told: half a window.
    pub(crate) fn due_credit(&self) -> Option<u64> {
        let target = self.consumed + u64::from(self.window);
        let due = target - self.granted.min(target) >= u64::from(self.window / 2).max(1);
        (self.confirm || (due && self.state == RecvState::Open)).then_some(target)
    }

    /// How much the application reads in the time of a round trip, both in microseconds; `None` before one is over.
    pub(crate) fn per_round_trip(&mut self, now: u32, round_trip: u32) -> Option<u32> {
        let elapsed = now.wrapping_sub(self.mark);
        if elapsed < round_trip.max(1) {
            return None;
        }
        let read = self.consumed - std::mem::replace(&mut self.measured, self.consumed);
        self.mark = now;
        Some(u32::try_from(read * u64::from(round_trip) / u64::from(elapsed)).unwrap_or(u32::MAX))
    }

    /// Whether the reader keeps up and the peer has used nearly all it was granted: it waits for our credit, not for
    /// our reader.
    pub(crate) fn is_starved(&self) -> bool {
        let little = u64::from(self.window / 4);
        self.promised() <= little && self.buffered as u64 <= little
    }

    /// Makes the window larger; the budget has paid for it.
    pub(crate) fn grow(&mut self, more: u32) {
        self.window += more;
    }

    /// Takes up to `less` bytes off the window, at most half of what was read and not yet granted again. Returns how
    /// many.
    #[must_use = "the budget gets this much back"]
    pub(crate) fn shrink(&mut self, less: u32) -> u32 {
        let owed = (self.consumed + u64::from(self.window)).saturating_sub(self.granted);
        let less = u64::from(less).min(owed / 2) as u32;
        self.window -= less;
        less
    }

    /// The peer is told that it may send up to `offset`.
    pub(crate) fn granted(&mut self, offset: u64) {
        self.granted = self.granted.max(offset);
        self.confirm = false;
    }

    /// Bytes of a raw body whose HTTP/2 window is to be returned.
    pub(crate) fn take_unreturned(&mut self) -> usize {
        std::mem::take(&mut self.unreturned)
    }

    pub(crate) fn has_unreturned(&self) -> bool {
        self.unreturned > 0
    }

    /// The STOP that is still to be said, once.
    pub(crate) fn take_stop(&mut self) -> Option<u64> {
        let RecvState::Stopping(code) = self.state else { return None };
        self.state = RecvState::Stopped;
        Some(code)
    }

    /// Whether we read no more.
    pub(crate) fn is_stopped(&self) -> bool {
        matches!(self.state, RecvState::Stopping(_) | RecvState::Stopped)
    }

    /// Drops what waits; returns how much.
    pub(crate) fn discard(&mut self) -> usize {
        self.queue = None;
        self.tail = Vec::new();
        self.unreturned += self.buffered;
        std::mem::take(&mut self.buffered)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credit_is_due_at_half_a_window_and_never_exceeded() {
        let mut side = RecvSide::new(100, 20);
        assert_eq!(side.due_credit(), Some(100), "the early credit was less than the window");
        side.granted(100);
        assert_eq!(side.due_credit(), None);
        assert!(side.receive(100));
        assert_eq!(side.push(Bytes::from(vec![1; 100])), 100);
        assert_eq!(side.take().map(|chunk| chunk.len()), Some(100));
        side.consume(49);
        assert_eq!(side.due_credit(), None);
        side.consume(1);
        assert_eq!(side.due_credit(), Some(150));
        assert!(!side.receive(1));
    }
}
