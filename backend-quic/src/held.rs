//! What a channel holds while quinn takes no more of it.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::time::Instant;

use bytes::{Bytes, BytesMut};

use crate::side::{SMALL, SendSide, State};

/// Bytes that quinn has not taken: whole pieces, then the one that small writes are copied into.
#[derive(Default)]
pub(crate) struct Held {
    pub(crate) queue: VecDeque<Bytes>,
    pub(crate) tail: BytesMut,
    pub(crate) bytes: usize,
    /// When a finished direction that nobody holds is given up.
    pub(crate) until: Option<Instant>,
}

impl Held {
    pub(crate) fn close_tail(&mut self) {
        if !self.tail.is_empty() {
            let tail = std::mem::take(&mut self.tail).freeze();
            self.queue.push_back(tail);
        }
    }
}

impl SendSide {
    pub(crate) fn push(&self, state: &mut State, piece: Bytes) {
        self.shared.add_unsent(piece.len());
        let held = state.held();
        held.bytes += piece.len();
        held.close_tail();
        held.queue.push_back(piece);
    }

    /// Copies from `bufs`, but for `skip` bytes in front, at most `room` bytes; returns how many.
    pub(crate) fn gather(&self, state: &mut State, bufs: &[IoSlice<'_>], mut skip: usize, room: usize) -> usize {
        let held = state.held();
        let mut taken = 0;
        for buf in bufs {
            let skipped = skip.min(buf.len());
            skip -= skipped;
            let part = &buf[skipped..];
            let part = &part[..part.len().min(room - taken)];
            if part.len() >= SMALL {
                held.close_tail();
                held.queue.push_back(Bytes::copy_from_slice(part));
            } else {
                held.tail.extend_from_slice(part);
            }
            taken += part.len();
        }
        held.bytes += taken;
        self.shared.add_unsent(taken);
        taken
    }
}
