//! Channels that wait for room in h2: what is urgent first, in turns otherwise.

use std::collections::VecDeque;

/// Keys of streams by the urgency of their channels.
#[derive(Debug, Default)]
pub(super) struct Line {
    by_urgency: [VecDeque<usize>; 8],
    len: usize,
}

impl Line {
    pub(super) fn push(&mut self, urgency: u8, key: usize) {
        self.by_urgency[usize::from(urgency.min(7))].push_back(key);
        self.len += 1;
    }

    pub(super) fn pop(&mut self) -> Option<usize> {
        if self.is_empty() {
            return None;
        }
        self.len -= 1;
        self.by_urgency.iter_mut().find_map(VecDeque::pop_front)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }
}
