//! Messages that cost the peer little and carry nothing: so many a second, and no more.

use std::time::{Duration, Instant};

use mux_api::{Error, ErrorKind, Origin, codes};

use super::Connection;
use crate::{Limits, Wire};

/// What was counted in the present second.
#[derive(Debug)]
pub(super) struct Floods {
    since: Instant,
    count: u32,
    /// Bytes of data that were sent, ever; each pays for one credit message.
    pub(super) data_sent: u64,
    /// Credit messages received, ever.
    credits: u64,
}

impl Floods {
    pub(super) fn new(now: Instant) -> Self {
        Self { since: now, count: 0, data_sent: 0, credits: 0 }
    }
}

impl<W: Wire> Connection<W> {
    /// Counts a message that moves nothing forward.
    pub(super) fn count_idle_talk(&mut self) -> Result<(), Error> {
        let floods = &mut self.floods;
        if self.clock.saturating_duration_since(floods.since) >= Duration::from_secs(1) {
            (floods.since, floods.count) = (self.clock, 0);
        }
        floods.count += 1;
        if floods.count <= Limits::IDLE_TALK {
            return Ok(());
        }
        let message = format!("the peer sent more than {} messages a second that carry nothing", Limits::IDLE_TALK);
        Err(Error::new(ErrorKind::LimitExceeded, Origin::Peer, message).with_code(codes::LIMIT))
    }

    /// Counts a credit message: a reader that reads single bytes says one for each, and no more than were sent.
    pub(super) fn count_credit(&mut self, add: u32) -> Result<(), Error> {
        self.floods.credits += 1;
        let paid = add > 0 && self.floods.credits <= self.floods.data_sent;
        if paid { Ok(()) } else { self.count_idle_talk() }
    }
}
