//! The receiving direction: what arrived, and how much more may.

use std::collections::VecDeque;

use bytes::{Buf, Bytes};

/// How the direction stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RecvState {
    /// More may come.
    Open,
    /// The peer finished; what waits is all there is.
    Finished,
    /// The peer abandoned it, with a code where the wire has one.
    Reset(Option<u64>),
    /// We read no more, with this code; what still arrives is discarded.
    Stopped(u64),
    /// We read no more and the peer cannot be told: what arrives is discarded and credited, so that it can finish.
    Discarding,
}

/// What a read found.
#[derive(Debug, PartialEq, Eq)]
pub enum Chunk {
    /// Bytes, in order.
    Data(Bytes),
    /// The end.
    End,
    /// Nothing yet.
    Empty,
}

#[derive(Debug)]
pub(crate) struct RecvSide {
    pub(crate) state: RecvState,
    /// The window: what may be on its way, waiting or being read together. This much is charged to the budget.
    size: u32,
    /// Bytes the peer may still send.
    granted: u32,
    /// Bytes the application has read and the peer was not told about.
    owed: u32,
    buffered: u32,
    /// Of those buffered, bytes that the reading half holds: they count as read when it says so.
    lent: u32,
    /// Bytes read by the application since the moment `mark`, which is in microseconds of the connection's clock.
    measured: u32,
    mark: u32,
    /// Slices with the epoch of their receive buffer, then what was copied.
    queue: VecDeque<(u64, Bytes)>,
    tail: Vec<u8>,
}

/// From here on a window is large.
const LARGE: u32 = 128 * 1024;

/// The epoch of what pins no receive buffer.
const COPIED: u64 = u64::MAX;

impl RecvSide {
    /// Smaller bodies are copied, so that they pin no receive buffer.
    pub(crate) const PINS_FROM: usize = 2048;

    /// Up to here a read is a copy, of which the half keeps more than was asked for.
    pub(crate) const SMALL_READ: usize = 512;

    /// What is lent at once.
    const LENT: usize = 4096;

    /// `now`: microseconds of the connection's clock, which wraps.
    pub(crate) fn new(size: u32, now: u32) -> Self {
        Self {
            measured: 0,
            mark: now,
            state: RecvState::Open,
            size,
            granted: size,
            owed: 0,
            buffered: 0,
            lent: 0,
            queue: VecDeque::new(),
            tail: Vec::new(),
        }
    }

    /// The bytes charged to the budget.
    pub(crate) fn size(&self) -> u32 {
        self.size
    }

    pub(crate) fn buffered(&self) -> u32 {
        self.buffered
    }

    /// Takes `len` bytes of the credit granted; `false` when the peer sends more than it may.
    #[must_use = "an overrun is a protocol violation"]
    pub(crate) fn receive(&mut self, len: u32) -> bool {
        match self.granted.checked_sub(len) {
            Some(granted) => {
                self.granted = granted;
                true
            }
            None => false,
        }
    }

    /// Stores a body, or a part of one, that [`receive`](Self::receive) admitted; `false` if nobody will read it.
    pub(crate) fn push(&mut self, body: Bytes, epoch: u64) -> bool {
        match self.state {
            RecvState::Open => {}
            RecvState::Discarding => {
                self.owed += body.len() as u32;
                return false;
            }
            RecvState::Finished | RecvState::Reset(_) | RecvState::Stopped(_) => return false,
        }
        self.buffered += body.len() as u32;
        if body.len() < Self::PINS_FROM {
            self.tail.extend_from_slice(&body);
            return true;
        }
        if !self.tail.is_empty() {
            self.queue.push_back((COPIED, Bytes::from(std::mem::take(&mut self.tail))));
        }
        self.queue.push_back((epoch, body));
        true
    }

    /// The next bytes, at most `most` of them, which count as read.
    pub(crate) fn take(&mut self, most: usize) -> Option<Bytes> {
        let (epoch, mut chunk) = match self.queue.pop_front() {
            Some(front) => front,
            None if self.tail.is_empty() => return None,
            None => (COPIED, Bytes::from(std::mem::take(&mut self.tail))),
        };
        let head = if chunk.len() > most { chunk.split_to(most) } else { std::mem::take(&mut chunk) };
        if !chunk.is_empty() {
            self.queue.push_front((epoch, chunk));
        } else if self.queue.is_empty() {
            self.queue = VecDeque::new();
        }
        self.count(head.len());
        Some(head)
    }

    /// Lends a copy of the next bytes, if more than `most`, which are few, wait in one piece; `None`: [`take`](Self::take)
    /// them. They count as read once they are [`returned`](Self::returned); before that nothing more may be taken.
    pub(crate) fn lend(&mut self, most: usize) -> Option<Vec<u8>> {
        let (_, front) = self.queue.front_mut()?;
        if most > Self::SMALL_READ || front.len() <= most {
            return None;
        }
        let lent = front[..front.len().min(Self::LENT)].to_vec();
        front.advance(lent.len());
        if front.is_empty() {
            self.queue.pop_front();
        }
        if self.queue.is_empty() {
            self.queue = VecDeque::new();
        }
        self.lent = lent.len() as u32;
        Some(lent)
    }

    /// So many of the bytes lent were read since the last time; `false` when what was lent is not to be read any more.
    pub(crate) fn returned(&mut self, read: usize) -> bool {
        let holds = self.lent > 0;
        let read = (read as u32).min(self.lent);
        self.lent -= read;
        self.count(read as usize);
        holds
    }

    /// So many bytes are read.
    fn count(&mut self, len: usize) {
        let len = len as u32;
        self.buffered -= len;
        self.owed += len;
        self.measured = self.measured.saturating_add(len);
    }

    /// How much the application reads in the time of a round trip, both in microseconds; `None` before one is over.
    pub(crate) fn per_round_trip(&mut self, now: u32, round_trip: u32) -> Option<u32> {
        let elapsed = now.wrapping_sub(self.mark);
        if elapsed < round_trip.max(1) {
            return None;
        }
        let read = u64::from(std::mem::take(&mut self.measured)) * u64::from(round_trip) / u64::from(elapsed);
        self.mark = now;
        Some(u32::try_from(read).unwrap_or(u32::MAX))
    }

    /// Whether so much was read that the peer should be told: half a window, a quarter of a large one, of which more
    /// would otherwise be idle than a long way holds.
    pub(crate) fn is_credit_due(&self) -> bool {
        let part = if self.size >= LARGE { 4 } else { 2 };
        matches!(self.state, RecvState::Open | RecvState::Discarding) && self.owed > 0 && self.owed >= self.size / part
    }

    /// Whether the reader keeps up and the peer has used nearly all it was granted: it waits for our credit, not for
    /// our reader.
    pub(crate) fn is_starved(&self) -> bool {
        self.granted <= self.size / 4 && self.buffered <= self.size / 4
    }

    /// Takes up to `less` bytes off the window, at most half of what was read and not yet granted again. Returns how
    /// many.
    #[must_use = "the budget gets this much back"]
    pub(crate) fn shrink(&mut self, less: u32) -> u32 {
        let less = less.min(self.owed / 2);
        self.owed -= less;
        self.size -= less;
        less
    }

    /// Credit to announce now; `more` bytes were charged on top of the window.
    #[must_use = "the peer must be told"]
    pub(crate) fn grant(&mut self, more: u32) -> u32 {
        let add = self.owed + more;
        self.size += more;
        self.granted += add;
        self.owed = 0;
        add
    }

    /// The direction is over: no more will be granted. Returns how many bytes of budget are free again; what waits to
    /// be read stays charged.
    #[must_use = "the budget gets this much back"]
    pub(crate) fn close(&mut self, state: RecvState) -> u32 {
        self.state = state;
        if state == RecvState::Discarding {
            // Nobody will read what waits, so it counts as read: the peer gets credit for it and can go on.
            self.owed += self.buffered;
        }
        if state != RecvState::Finished {
            self.discard();
        }
        self.settle()
    }

    /// After the end, the budget holds only what waits to be read. Returns how much is free again.
    #[must_use = "the budget gets this much back"]
    pub(crate) fn settle(&mut self) -> u32 {
        if matches!(self.state, RecvState::Open | RecvState::Discarding) {
            return 0;
        }
        let free = self.size.saturating_sub(self.buffered);
        self.size -= free;
        self.owed = 0;
        free
    }

    /// The session is over: only what waits stays charged. Returns how much is free.
    #[must_use = "the budget gets this much back"]
    pub(crate) fn end_of_session(&mut self) -> u32 {
        let free = self.size.saturating_sub(self.buffered);
        self.size -= free;
        self.granted = 0;
        free
    }

    /// Bytes that wait in slices of the receive buffer of `epoch`.
    pub(crate) fn pinned(&self, epoch: u64) -> usize {
        self.queue.iter().filter(|(cut, _)| *cut == epoch).map(|(_, chunk)| chunk.len()).sum()
    }

    /// Copies the slices of the receive buffer of `epoch`, so that it can be freed.
    pub(crate) fn unpin(&mut self, epoch: u64) {
        for (cut, chunk) in &mut self.queue {
            if *cut == epoch {
                *chunk = Bytes::copy_from_slice(chunk);
                *cut = COPIED;
            }
        }
    }

    pub(crate) fn discard(&mut self) {
        self.buffered = 0;
        self.lent = 0;
        self.queue = VecDeque::new();
        self.tail = Vec::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_reads_are_lent_and_large_ones_share_the_same_bytes() {
        let mut recv = RecvSide::new(65_536, 0);
        let body: Vec<u8> = (0..9000u32).map(|at| (at % 251) as u8).collect();
        assert!(recv.push(Bytes::copy_from_slice(&body), 1));
        assert!(recv.lend(9000).is_none(), "nothing would be left: it is taken");
        assert!(recv.lend(RecvSide::SMALL_READ + 1).is_none(), "large");
        let mut got = recv.lend(64).expect("more waits");
        assert_eq!((got.len(), recv.buffered() as usize, recv.owed), (RecvSide::LENT, 9000, 0), "not read yet");
        assert!(recv.returned(1000));
        assert_eq!((recv.buffered() as usize, recv.owed), (8000, 1000));
        assert!(recv.returned(RecvSide::LENT - 1000), "all of it");
        while let Some(part) = recv.take(1000) {
            got.extend_from_slice(&part);
        }
        assert_eq!((got, recv.buffered(), recv.owed), (body, 0, 9000));
    }

    #[test]
    fn what_is_discarded_while_it_is_lent_is_not_counted_twice() {
        let mut recv = RecvSide::new(65_536, 0);
        assert!(recv.push(Bytes::from(vec![1; 3000]), 1));
        assert_eq!(recv.lend(64).map(|lent| lent.len()), Some(3000));
        assert_eq!(recv.close(RecvState::Reset(None)), 65_536, "nobody reads it, so nothing stays charged");
        assert!(!recv.returned(64), "gone");
        assert_eq!((recv.buffered(), recv.owed), (0, 0));
    }
}
