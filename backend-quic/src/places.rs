//! How many channels the peer may have open (docs/quic.md, section 6.1).

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use quinn::{Connection, VarInt};

use crate::shared::lock;

/// quinn prepares a place for each stream that may come: so many are allowed at first, twice as many when half are taken.
const FIRST: u32 = 1024;

/// How long a stream that nobody holds any more may take until the peer has acknowledged its end.
const LONGEST_END: Duration = Duration::from_secs(10);

/// How many streams are allowed at first of `channels`, and of `beside` for the session itself.
pub(crate) fn first(channels: u32, beside: u32) -> VarInt {
    VarInt::from_u32(channels.min(FIRST).saturating_add(beside))
}

pub(crate) struct Places {
    channels: u32,
    beside: u32,
    /// Channels that were allowed so far.
    allowed: Mutex<u32>,
    /// Channels of the peer that an application holds.
    taken: AtomicU32,
    /// One has ended and the peer may not hear of it by itself.
    ended: AtomicBool,
}

impl Places {
    pub(crate) fn new(channels: u32, beside: u32) -> Self {
        let allowed = Mutex::new(channels.min(FIRST));
        Self { channels, beside, allowed, taken: AtomicU32::new(0), ended: AtomicBool::new(false) }
    }

    /// The peer has opened a channel.
    pub(crate) fn take(&self, conn: &Connection) {
        let taken = self.taken.fetch_add(1, Ordering::AcqRel) + 1;
        if taken < FIRST / 2 {
            return;
        }
        let mut allowed = lock(&self.allowed);
        if *allowed < self.channels && taken > *allowed / 2 {
            *allowed = allowed.saturating_mul(2).min(self.channels);
            conn.set_max_concurrent_bi_streams(VarInt::from_u32(allowed.saturating_add(self.beside)));
        }
    }

    /// The peer's channel is nobody's any more. `true`: the peer may wait for its place.
    pub(crate) fn leave(&self) -> bool {
        let taken = self.taken.fetch_sub(1, Ordering::AcqRel);
        // quinn announces free places once they are more than an eighth.
        let scarce = taken.saturating_add(self.channels / 8 + 1) >= self.channels;
        scarce && !self.ended.swap(true, Ordering::AcqRel)
    }

    /// Whether places are to be announced.
    pub(crate) fn has_ended(&self) -> bool {
        self.ended.swap(false, Ordering::AcqRel)
    }

    /// Tells the peer of every place that is free.
    fn announce(&self, conn: &Connection) {
        let allowed = lock(&self.allowed);
        // A lower limit makes quinn look again what it has to say; places that are granted stay so.
        conn.set_max_concurrent_bi_streams(VarInt::from_u32(1));
        conn.set_max_concurrent_bi_streams(VarInt::from_u32(allowed.saturating_add(self.beside)));
    }
}

/// When places are announced: a place is free only when the peer has acknowledged the end of what was there, which quinn
/// does not tell.
#[derive(Default)]
pub(crate) struct Announcing(Option<(Instant, Duration)>);

impl Announcing {
    /// A channel has ended.
    pub(crate) fn begin(&mut self, conn: &Connection) {
        self.0 = Some((Instant::now(), conn.rtt().max(Duration::from_millis(1))));
    }

    pub(crate) fn due(&self) -> Option<Instant> {
        self.0.map(|(due, _)| due)
    }

    pub(crate) fn announce(&mut self, conn: &Connection, places: &Places) {
        places.announce(conn);
        self.0 = self.0.filter(|(_, wait)| *wait < LONGEST_END).map(|(due, wait)| (due + wait, wait * 2));
    }
}
