//! Windows that grow with what the application reads, inside the budget (docs/h2.md, section 4).

use std::time::Duration;

use tokio::time::Instant;

use super::Driver;
use crate::channel::Channel;
use crate::channel::ChannelState;
use crate::limits::Limits;
use crate::session::Shared;

/// What is known of the way to the peer, and how large HTTP/2's stream windows let a window be.
pub(super) struct Growth {
    began: Instant,
    /// The shortest round trip so far, in microseconds.
    round_trip: Option<u32>,
    /// The largest window that the stream windows leave room for.
    most: u32,
    /// What a channel could have used beyond it.
    wanted: u32,
    /// A window could be measured if the round trip were known.
    pub(super) wants_ping: bool,
}

impl Growth {
    /// `most`: the largest window that the stream windows announced at first leave room for.
    pub(super) fn new(most: u32) -> Self {
        Self { began: Instant::now(), round_trip: None, most, wanted: 0, wants_ping: false }
    }

    /// A round trip took this long.
    pub(super) fn note(&mut self, trip: Duration) {
        let trip = u32::try_from(trip.as_micros()).unwrap_or(u32::MAX);
        self.round_trip = Some(self.round_trip.map_or(trip, |shortest| shortest.min(trip)));
    }

    /// Fits the window of a channel whose peer is about to be given credit: the fair share, or more for a reader that
    /// takes so much that the way to the peer and back holds half of it or more. A window at most doubles at once, and
    /// leaves half of the memory that is left to others.
    pub(super) fn fit(&mut self, shared: &Shared, channel: &Channel, state: &mut ChannelState) {
        let size = state.recv.window() as u32;
        let now = self.began.elapsed().as_micros() as u32;
        self.wants_ping |= self.round_trip.is_none();
        let measured = self.round_trip.and_then(|trip| state.recv.per_round_trip(now, trip));
        let available = shared.budget.available();
        let fair = shared.window(channel.initiator == mux_api::Initiator::Peer) as u32;
        if available < u64::from(size / 2) && size > fair {
            // A window that leaves others less than half of what it has itself makes room, step by step.
            let less = state.recv.shrink(size - fair);
            state.held.shrink(u64::from(less));
            return;
        }
        let double = size.saturating_mul(2);
        let room = size.saturating_add(u32::try_from(available / 2).unwrap_or(u32::MAX));
        let measured = measured.map_or(0, |read| read.saturating_mul(2).min(double).min(room));
        let starved = if state.recv.is_starved() { fair.saturating_mul(Limits::GROWTH).min(double) } else { 0 };
        let aim = fair.max(measured).max(starved);
        if aim > self.most {
            self.wanted = self.wanted.max(aim);
        }
        let more = aim.min(self.most).saturating_sub(size);
        if more > 0 && state.held.grow(u64::from(more)) {
            state.recv.grow(more);
        }
    }
}

impl Driver {
    /// Makes HTTP/2's stream windows larger where a channel could use it: ahead of the credit, which stays below them.
    pub(super) fn widen(&mut self) {
        if std::mem::take(&mut self.growth.wants_ping) && self.pings.is_empty() && self.control_key.is_some() {
            self.ping(Vec::new());
        }
        let wanted = std::mem::take(&mut self.growth.wanted);
        let most = wanted.checked_next_power_of_two().map_or(0, |most| most.min(Limits::MOST_WINDOW));
        // Refused while an earlier change is on its way, when the next credit asks again.
        if most > self.growth.most && self.conn.set_stream_window(Limits::stream_window_for(most)) {
            self.growth.most = most;
        }
    }
}
