//! The numbers of a connection's channels.

use slab::Slab;

use super::Channel;
use crate::LocalId;

/// Names a channel of one connection for as long as it exists; a reused number does not answer to an old key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    index: u32,
    generation: u32,
}

impl Key {
    /// The channel's number on the wire.
    pub fn id(self) -> LocalId {
        LocalId(self.index)
    }

    /// A dense index for tables that run beside the connection's: free again once the channel is.
    pub fn index(self) -> usize {
        self.index as usize
    }
}

/// Channels by number. Numbers are dense, so that a frame finds its channel in one step.
#[derive(Debug)]
pub(crate) struct Table {
    entries: Slab<(u32, Channel)>,
    generation: u32,
    numbers: usize,
}

impl Table {
    /// Numbers from 0 to below `numbers` are given out.
    pub(crate) fn new(numbers: u32) -> Self {
        Self { entries: Slab::new(), generation: 0, numbers: numbers as usize }
    }

    pub(crate) fn insert(&mut self, channel: Channel) -> Option<Key> {
        if self.entries.len() >= self.numbers {
            return None;
        }
        self.generation = self.generation.wrapping_add(1);
        let index = self.entries.insert((self.generation, channel));
        Some(Key { index: index as u32, generation: self.generation })
    }

    pub(crate) fn get(&self, key: Key) -> Option<&Channel> {
        self.entries.get(key.index()).filter(|(generation, _)| *generation == key.generation).map(|(_, ch)| ch)
    }

    pub(crate) fn get_mut(&mut self, key: Key) -> Option<&mut Channel> {
        self.entries.get_mut(key.index()).filter(|(generation, _)| *generation == key.generation).map(|(_, ch)| ch)
    }

    /// The channel that the peer addresses by `id`.
    pub(crate) fn by_id(&self, id: LocalId) -> Option<Key> {
        let (generation, _) = self.entries.get(id.0 as usize)?;
        Some(Key { index: id.0, generation: *generation })
    }

    pub(crate) fn remove(&mut self, key: Key) -> Option<Channel> {
        self.get(key)?;
        Some(self.entries.remove(key.index()).1)
    }

    pub(crate) fn keys(&self) -> Vec<Key> {
        let key =
            |(index, (generation, _)): (usize, &(u32, Channel))| Key { index: index as u32, generation: *generation };
        self.entries.iter().map(key).collect()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Channel> {
        self.entries.iter().map(|(_, (_, channel))| channel)
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }
}
