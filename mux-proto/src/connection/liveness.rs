//! Is the peer there, how far away is it, and is the session of use?

use std::time::{Duration, Instant};

use mux_api::{Error, ErrorKind, Initiator, Origin, codes};

use super::{Connection, Event};
use crate::channel::State;
use crate::{Limits, LocalId, Outgoing, Wire};

/// What was seen since the last tick, when the next one is, and the round trip.
#[derive(Debug)]
pub(super) struct Liveness {
    /// Bytes arrived.
    pub(super) heard: bool,
    /// Ticks in a row without.
    silent: u32,
    probe: Option<Instant>,
    /// Channels were opened, or data moved.
    pub(super) used: bool,
    idle: Option<Instant>,
    /// A ping, or a probe, that waits for its answer.
    asked: Option<Instant>,
    /// How many were answered.
    answers: u64,
    last: Option<Duration>,
    smoothed: Option<Duration>,
    shortest: Option<Duration>,
}

/// The number that probes have; no channel ever has it (docs/qmux.md, section 2.2).
pub(super) const PROBE: LocalId = LocalId(0xFFFF_FFFE);

impl Liveness {
    pub(super) fn new(limits: &Limits, now: Instant) -> Self {
        Self {
            heard: false,
            silent: 0,
            probe: after(now, limits.keepalive),
            used: false,
            idle: after(now, limits.idle),
            asked: None,
            answers: 0,
            last: None,
            smoothed: None,
            shortest: None,
        }
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.probe.into_iter().chain(self.idle).min()
    }

    /// The announcement is a probe: a plain peer answers it.
    pub(super) fn asked_since(&mut self, since: Option<Instant>) {
        self.asked = since;
    }
}

impl<W: Wire> Connection<W> {
    /// Asks the peer for an answer at once, unless it is asked already. Returns which round trip will have been
    /// measured by then; [`round_trips`](Self::round_trips) reaches it. A plain peer may take as long as its
    /// application takes to accept.
    pub fn ping(&mut self, now: Instant) -> u64 {
        if self.liveness.asked.is_none() && self.cause.is_none() {
            self.liveness.asked = Some(now);
            if self.features.session {
                self.say(&Outgoing::Ping { payload: self.liveness.answers });
            } else {
                self.say(&Outgoing::Probe { from: PROBE });
            }
        }
        self.liveness.answers + 1
    }

    /// A transport that had taken no more goes on: the peer's end of it took something, so a ping that waits behind much
    /// else is no sign of death.
    pub fn handle_progress(&mut self) {
        self.liveness.heard = true;
    }

    /// How many round trips were measured, and how long the last one took.
    pub fn round_trips(&self) -> (u64, Option<Duration>) {
        (self.liveness.answers, self.liveness.last)
    }

    /// The round trip, smoothed.
    pub(super) fn smoothed_round_trip(&self) -> Option<Duration> {
        self.liveness.smoothed
    }

    /// The shortest round trip: what the way takes without queues.
    pub(super) fn shortest_round_trip(&self) -> Option<Duration> {
        self.liveness.shortest
    }

    /// The peer answered; an answer nobody waits for is ignored, up to a bound.
    pub(super) fn on_answer(&mut self, payload: Option<u64>) -> Result<(), Error> {
        let live = &mut self.liveness;
        let Some(asked) = live.asked.filter(|_| payload.is_none_or(|payload| payload == live.answers)) else {
            return self.count_idle_talk();
        };
        live.asked = None;
        live.answers += 1;
        let took = self.clock.saturating_duration_since(asked);
        live.last = Some(took);
        live.smoothed = Some(live.smoothed.map_or(took, |smoothed| (smoothed * 7 + took) / 8));
        live.shortest = Some(live.shortest.map_or(took, |shortest| shortest.min(took)));
        self.events.push(Event::Answered);
        Ok(())
    }

    /// A peer that is silent for a whole tick is pinged; one that stays silent for `Limits::MISSES` more is dead.
    pub(super) fn check_alive(&mut self, now: Instant) {
        if self.cause.is_some() {
            return;
        }
        if self.liveness.probe.is_some_and(|due| now >= due) {
            self.liveness.probe = after(now, self.limits.keepalive);
            if std::mem::take(&mut self.liveness.heard) {
                self.liveness.silent = 0;
            } else {
                self.liveness.silent += 1;
                if self.liveness.silent > Limits::MISSES && !self.may_be_waiting_for_its_application() {
                    let message = format!("the peer was silent for {:?}", self.limits.keepalive * self.liveness.silent);
                    return self.fail(Error::new(ErrorKind::Idle, Origin::Transport, message), false);
                }
                self.ping(now);
            }
        }
        if self.liveness.idle.is_some_and(|due| now >= due) {
            self.liveness.idle = after(now, self.limits.idle);
            if !std::mem::take(&mut self.liveness.used) {
                let message = format!("the session was not used for {:?}", self.limits.idle);
                let error = Error::new(ErrorKind::Idle, Origin::Local, message).with_code(codes::NO_ERROR);
                self.fail(error, true);
            }
        }
    }

    /// A plain peer may answer nothing until its application accepts a channel.
    fn may_be_waiting_for_its_application(&self) -> bool {
        let unanswered = |state| matches!(state, State::Opening { .. });
        !self.is_extended()
            && self.table.iter().any(|channel| channel.initiator == Initiator::Local && unanswered(channel.state))
    }
}

fn after(now: Instant, time: Duration) -> Option<Instant> {
    if time.is_zero() { None } else { now.checked_add(time) }
}
