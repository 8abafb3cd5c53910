//! Slices of receive buffers that wait unread keep whole buffers alive; here it is seen to that they are worth it.

use std::collections::VecDeque;

use crate::channel::{Key, Table};

/// Receive buffers by the order in which the transport used them.
#[derive(Debug, Default)]
pub(super) struct Pins {
    /// The one in use.
    current: Option<Buffer>,
    /// The one before it: its slices are fresh and mostly about to be read.
    last: Option<Buffer>,
    /// Older ones that were worth keeping when last looked at; looked at again in turn.
    held: VecDeque<Buffer>,
    /// What those take beyond what waited in them, which nothing is charged for.
    idle: usize,
    epoch: u64,
}

#[derive(Debug)]
struct Buffer {
    epoch: u64,
    /// What it takes of memory.
    size: usize,
    /// Channels that hold slices of it; some more than once.
    keys: Vec<Key>,
    /// Its part of what the held ones take for nothing.
    idle: usize,
}

/// A buffer stays while at least this part of it waits to be read.
const WORTH: usize = 4;

/// What all that stay may take beyond what waits in them: four large buffers.
const IDLE: usize = 1 << 20;

/// Older buffers looked at for each new one: more than one, so that they become fewer.
const LOOKS: usize = 2;

impl Pins {
    pub(super) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// A channel holds a slice of the buffer in use.
    pub(super) fn note(&mut self, key: Key) {
        // Before the first buffer was announced, nothing is known of what a slice keeps.
        let Some(buffer) = &mut self.current else { return };
        if buffer.keys.last() != Some(&key) {
            buffer.keys.push(key);
        }
    }

    /// The transport goes on in a new buffer. Buffers that are hardly used any more are let go: what is unread in
    /// them is copied.
    pub(super) fn renew(&mut self, table: &mut Table, size: usize) {
        for _ in 0..LOOKS.min(self.held.len()) {
            if let Some(buffer) = self.held.pop_front() {
                self.look(buffer, table);
            }
        }
        if let Some(buffer) = self.last.take() {
            self.look(buffer, table);
        }
        self.last = self.current.take();
        self.epoch += 1;
        self.current = Some(Buffer { epoch: self.epoch, size, keys: Vec::new(), idle: 0 });
    }

    /// Looks at all that stay: while little arrives, it is here that they are let go.
    pub(super) fn look_at_all(&mut self, table: &mut Table) {
        for buffer in std::mem::take(&mut self.held) {
            self.look(buffer, table);
        }
    }

    fn look(&mut self, mut buffer: Buffer, table: &mut Table) {
        self.idle -= std::mem::take(&mut buffer.idle);
        buffer.keys.sort_unstable();
        buffer.keys.dedup();
        let epoch = buffer.epoch;
        buffer.keys.retain(|key| table.get(*key).is_some_and(|channel| channel.recv.pinned(epoch) > 0));
        let unread: usize =
            buffer.keys.iter().filter_map(|key| table.get(*key)).map(|channel| channel.recv.pinned(epoch)).sum();
        if unread == 0 {
            return;
        }
        let idle = buffer.size.saturating_sub(unread);
        if unread >= buffer.size / WORTH && self.idle + idle <= IDLE {
            self.idle += idle;
            buffer.idle = idle;
            return self.held.push_back(buffer);
        }
        for key in buffer.keys {
            if let Some(channel) = table.get_mut(key) {
                channel.recv.unpin(epoch);
            }
        }
    }
}
