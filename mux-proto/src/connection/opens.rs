//! Opening without a round trip: how many channels each side may open, and data for channels that only their opener
//! has numbered so far.

use std::collections::VecDeque;

use mux_api::{Error, ErrorKind, Origin, codes};

use super::{Connection, Event};
use crate::channel::{Key, State};
use crate::{Limits, LocalId, Outgoing, RemoteId, Wire};

/// What both sides said about opening.
#[derive(Debug, Default)]
pub(super) struct Opens {
    /// Opens of ours, ever; the present one's number is `State::Opening`'s.
    pub(super) said: u32,
    /// Opens of ours that were not refused.
    used: u64,
    /// How many of those the peer allows, once it said so.
    granted: Option<u64>,
    /// Messages that raised it.
    raises: u64,
    /// Bytes that the peer takes on a channel before it is confirmed.
    early: u32,
    /// Opens of the peer's, ever.
    pub(super) heard: u32,
    /// How many more channels the peer may open, as far as it knows.
    remaining: u32,
    /// Channels of the peer's that are gone and that it was not told about.
    owed: u32,
    /// The peer's latest opens with what became of them, `None` for a refusal.
    recent: VecDeque<(RemoteId, Option<Key>)>,
    /// The peer takes no more.
    pub(super) gone_away: Option<Error>,
}

/// How the peer knows a channel that something is sent on.
#[derive(Clone, Copy, Debug)]
pub(super) enum Address {
    /// By its own number.
    Confirmed(RemoteId),
    /// By ours: it has not told us its own.
    Early(LocalId),
}

impl Address {
    pub(super) fn data(self, len: u32) -> Outgoing<'static> {
        match self {
            Self::Confirmed(to) => Outgoing::Data { to, len },
            Self::Early(from) => Outgoing::EarlyData { from, len },
        }
    }

    pub(super) fn fin(self) -> Outgoing<'static> {
        match self {
            Self::Confirmed(to) => Outgoing::Fin { to },
            Self::Early(from) => Outgoing::EarlyFin { from },
        }
    }
}

impl<W: Wire> Connection<W> {
    /// Whether the peer's open credit allows another channel.
    pub(super) fn has_open_credit(&self) -> bool {
        self.opens.granted.is_none_or(|granted| self.opens.used < granted)
    }

    /// The bytes that may follow an open at once.
    pub(super) fn early_window(&self) -> u32 {
        self.opens.early
    }

    /// Another open goes out.
    pub(super) fn note_open(&mut self) {
        self.opens.said = self.opens.said.wrapping_add(1);
        self.opens.used += 1;
    }

    /// The peer refused an open, which costs no credit then.
    pub(super) fn note_refused(&mut self) {
        self.opens.used = self.opens.used.saturating_sub(1);
        self.events.push(Event::CanOpen);
    }

    /// Where to send what is to go out on the channel, if it may.
    pub(super) fn address(&self, key: Key) -> Option<Address> {
        match self.table.get(key)?.state {
            State::Open { remote } => Some(Address::Confirmed(remote)),
            // The peer remembers the latest opens only.
            State::Opening { seq } if self.opens.said.wrapping_sub(seq) <= Limits::RECENT_OPENS => {
                Some(Address::Early(key.id()))
            }
            State::Opening { .. } | State::Closing | State::Closed => None,
        }
    }

    /// What is said to a peer whose announcement was seen.
    pub(super) fn greet(&mut self) {
        let channels = self.limits.max_incoming;
        self.opens.remaining = channels;
        self.say(&Outgoing::SessionLimits { channels, early: self.limits.early });
        if self.is_draining() {
            self.say_going_away();
        }
        // An announcement is no answer to ours.
        self.liveness.asked_since(None);
        self.ping(self.clock);
    }

    pub(super) fn say_going_away(&mut self) {
        if self.features.session {
            let (code, taken) = (codes::DRAINING, self.opens.heard);
            self.say(&Outgoing::GoAway { code, taken, reason: "the session takes no new channels" });
        }
    }

    /// A channel of the peer's is gone: it may open another.
    pub(super) fn note_gone(&mut self) {
        if self.features.session {
            self.opens.owed += 1;
        }
    }

    /// Whether enough channels are gone that the peer should be told: a quarter of all, sooner when it has few left.
    pub(super) fn is_open_credit_due(&self) -> bool {
        let enough = (self.limits.max_incoming / 4).min(self.opens.remaining.saturating_add(1)).max(1);
        self.opens.owed >= enough && self.cause.is_none() && !self.is_draining()
    }

    pub(super) fn encode_open_credit(&mut self) {
        if self.is_open_credit_due() {
            let add = std::mem::take(&mut self.opens.owed);
            self.opens.remaining = self.opens.remaining.saturating_add(add);
            self.say(&Outgoing::OpenCredit { add });
        }
    }

    /// An open of the peer's was answered; `None`: refused.
    pub(super) fn note_answered(&mut self, from: RemoteId, key: Option<Key>) {
        self.opens.heard = self.opens.heard.wrapping_add(1);
        if !self.features.session {
            return;
        }
        if key.is_some() {
            self.opens.remaining = self.opens.remaining.saturating_sub(1);
        }
        if self.opens.recent.len() == Limits::RECENT_OPENS as usize {
            self.opens.recent.pop_front();
        }
        self.opens.recent.push_back((from, key));
    }

    /// The channel that early data is for; `Ok(None)` when its open was refused.
    pub(super) fn early(&mut self, from: RemoteId) -> Result<Option<Key>, Error> {
        let found = self.opens.recent.iter().rev().find(|(number, _)| *number == from);
        match found {
            Some((_, key)) => Ok(key.filter(|key| self.table.get(*key).is_some())),
            None => {
                let message = format!("the peer broke the protocol: early data for {from}, which it did not just open");
                Err(Error::new(ErrorKind::Protocol, Origin::Peer, message))
            }
        }
    }

    pub(super) fn on_limits(&mut self, channels: u32, early: u32) -> Result<(), Error> {
        if self.opens.granted.is_some() {
            let message = "the peer broke the protocol: it said its limits twice";
            return Err(Error::new(ErrorKind::Protocol, Origin::Peer, message));
        }
        self.opens.granted = Some(u64::from(channels));
        self.opens.early = early.min(self.limits.send_buffer);
        Ok(())
    }

    pub(super) fn on_open_credit(&mut self, add: u32) -> Result<(), Error> {
        let opens = &mut self.opens;
        let granted = opens.granted.unwrap_or_default() + u64::from(add);
        if granted.saturating_sub(opens.used) > u64::from(u32::MAX) {
            let message = "the peer broke the protocol: open credit would exceed 2^32-1 channels";
            return Err(Error::new(ErrorKind::Protocol, Origin::Peer, message));
        }
        opens.granted = Some(granted);
        opens.raises += 1;
        let paid = add > 0 && opens.raises <= u64::from(opens.said);
        self.events.push(Event::CanOpen);
        if paid { Ok(()) } else { self.count_idle_talk() }
    }

    pub(super) fn on_going_away(&mut self, code: u64, taken: u32, reason: &str) -> Result<(), Error> {
        if taken > self.opens.said {
            let message = format!(
                "the peer broke the protocol: it went away after {taken} opens, and {} were sent",
                self.opens.said
            );
            return Err(Error::new(ErrorKind::Protocol, Origin::Peer, message));
        }
        let message = if reason.is_empty() { "the peer takes no new channels" } else { reason };
        let error = Error::new(ErrorKind::GoAway, Origin::Peer, message).with_code(code).retry_safe(true);
        self.opens.gone_away = Some(error);
        self.events.push(Event::CanOpen);
        self.count_idle_talk()
    }
}
