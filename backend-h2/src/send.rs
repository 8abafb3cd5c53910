//! The sending direction: what the application wrote, and how much of it the peer is ready for.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Buf, Bytes};

use crate::pool::Pool;

/// How the direction stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SendState {
    /// The application may write.
    Open,
    /// It has finished; data or the end itself is still to be said.
    Finishing,
    /// The end is said.
    Finished,
    /// We abandoned it with this code, and perhaps said so.
    Reset { code: u64, said: bool },
    /// The peer reads no more; answered by a reset with its code.
    Stopped { code: u64, said: bool },
}

/// What ends the direction on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Terminal {
    Fin,
    Reset(u64),
}

#[derive(Debug)]
pub(crate) struct SendSide {
    pub(crate) state: SendState,
    /// The offset up to which the peer lets us send.
    credit: u64,
    /// Bytes handed to h2 so far.
    sent: u64,
    /// Written and not yet handed over: whole buffers, then what was gathered. Small writes, which most channels have
    /// only, need no queue.
    #[expect(clippy::box_collection, reason = "every channel has this field, and few a queue: a pointer is enough")]
    queue: Option<Box<VecDeque<Bytes>>>,
    gathered: Vec<u8>,
    queued: usize,
}

/// From here on a buffer of the caller's is queued as it is instead of gathered with its neighbours.
const LARGE: usize = 4096;

impl SendSide {
    pub(crate) fn new(credit: u64) -> Self {
        Self { state: SendState::Open, credit, sent: 0, queue: None, gathered: Vec::new(), queued: 0 }
    }

    pub(crate) fn queued(&self) -> usize {
        self.queued
    }

    /// Raises the credit to this offset; repeats and old news change nothing.
    pub(crate) fn raise_credit(&mut self, offset: u64) {
        self.credit = self.credit.max(offset);
    }

    /// Whether nothing more will be sent but what is said already.
    pub(crate) fn is_over(&self) -> bool {
        match self.state {
            SendState::Open | SendState::Finishing => false,
            SendState::Finished => true,
            SendState::Reset { said, .. } | SendState::Stopped { said, .. } => said,
        }
    }

    /// Copies as much of `bufs` as there is room for, what is large into blocks of `pool`.
    pub(crate) fn write(&mut self, bufs: &[IoSlice<'_>], mut room: usize, pool: &Pool) -> usize {
        let before = room;
        for buf in bufs {
            let take = &buf[..buf.len().min(room)];
            room -= take.len();
            for part in take.chunks(Pool::BLOCK) {
                if part.len() >= Pool::WORTH {
                    self.seal();
                    self.push(pool.copy(part));
                    continue;
                }
                if self.gathered.len() + part.len() > Pool::BLOCK {
                    self.seal();
                }
                self.gathered.extend_from_slice(part);
            }
            if room == 0 {
                break;
            }
        }
        self.queued += before - room;
        before - room
    }

    /// Queues the front of `data` without a copy, as much as there is room for.
    pub(crate) fn write_bytes(&mut self, data: &mut Bytes, room: usize) -> usize {
        let take = data.len().min(room);
        if take >= LARGE {
            self.seal();
            self.push(data.split_to(take));
        } else {
            self.gathered.extend_from_slice(&data[..take]);
            data.advance(take);
        }
        self.queued += take;
        take
    }

    /// How much could be sent if the transport took it.
    pub(crate) fn sendable(&self) -> usize {
        match self.state {
            SendState::Open | SendState::Finishing => {
                self.queued.min(usize::try_from(self.credit.saturating_sub(self.sent)).unwrap_or(usize::MAX))
            }
            _ => 0,
        }
    }

    /// The size of the next body, at most `most`.
    pub(crate) fn next_len(&self, most: usize) -> usize {
        self.front().map_or(self.gathered.len(), Bytes::len).min(self.sendable()).min(most)
    }

    /// Takes a body of exactly `len` bytes, which [`next_len`](Self::next_len) gave or more.
    pub(crate) fn next_body(&mut self, len: usize) -> Bytes {
        let body = if self.front().is_none() && self.gathered.len() <= len {
            Bytes::from(std::mem::take(&mut self.gathered))
        } else {
            if self.front().is_none() {
                self.seal();
            }
            let Some(queue) = &mut self.queue else { return Bytes::new() };
            let Some(front) = queue.front_mut() else { return Bytes::new() };
            if front.len() <= len { queue.pop_front().unwrap_or_default() } else { front.split_to(len) }
        };
        self.sent += body.len() as u64;
        self.queued -= body.len();
        if self.queued == 0 {
            self.release();
        }
        body
    }

    /// Whether FIN follows a body of this length.
    pub(crate) fn ends_after(&self, len: usize) -> bool {
        self.state == SendState::Finishing && self.queued == len
    }

    /// What ends the direction, once it is its turn to be said.
    pub(crate) fn terminal(&self) -> Option<Terminal> {
        match self.state {
            SendState::Finishing if self.queued == 0 => Some(Terminal::Fin),
            SendState::Reset { code, said: false } | SendState::Stopped { code, said: false } => {
                Some(Terminal::Reset(code))
            }
            _ => None,
        }
    }

    /// What [`terminal`](Self::terminal) gave was said.
    pub(crate) fn terminal_said(&mut self) {
        match &mut self.state {
            SendState::Finishing => self.state = SendState::Finished,
            SendState::Reset { said, .. } | SendState::Stopped { said, .. } => *said = true,
            SendState::Open | SendState::Finished => {}
        }
    }

    /// Drops what was not sent; returns how much.
    pub(crate) fn discard(&mut self) -> usize {
        self.release();
        std::mem::take(&mut self.queued)
    }

    /// Gives the memory back: an idle channel holds no buffer.
    fn release(&mut self) {
        self.queue = None;
        self.gathered = Vec::new();
    }

    fn front(&self) -> Option<&Bytes> {
        self.queue.as_ref()?.front()
    }

    fn push(&mut self, body: Bytes) {
        self.queue.get_or_insert_default().push_back(body);
    }

    /// What comes next follows what was gathered.
    fn seal(&mut self) {
        if !self.gathered.is_empty() {
            let gathered = Bytes::from(std::mem::take(&mut self.gathered));
            self.push(gathered);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_writes_become_one_body_within_the_credit() {
        let mut side = SendSide::new(10);
        for _ in 0..6 {
            assert_eq!(side.write(&[IoSlice::new(b"abc")], 100, &Pool::default()), 3);
        }
        assert_eq!((side.queued(), side.sendable(), side.next_len(100)), (18, 10, 10));
        assert_eq!(&side.next_body(10)[..], b"abcabcabca");
        assert_eq!(side.sendable(), 0);
        side.raise_credit(5);
        assert_eq!(side.sendable(), 0, "old credit changes nothing");
        side.raise_credit(1000);
        side.state = SendState::Finishing;
        assert_eq!(side.terminal(), None, "data first");
        assert_eq!(side.next_body(side.next_len(100)).len(), 8);
        assert_eq!(side.terminal(), Some(Terminal::Fin));
        side.terminal_said();
        assert!(side.is_over());
    }
}
