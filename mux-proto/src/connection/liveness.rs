//! Is the peer there, and is the session of use? Counted in ticks, so that no clock is read for a frame.

use std::time::{Duration, Instant};

use mux_api::{Error, ErrorKind, Initiator, Origin, codes};

use super::Connection;
use crate::channel::State;
use crate::{Limits, LocalId, Outgoing, Wire};

/// What was seen since the last tick, and when the next one is.
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
        }
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.probe.into_iter().chain(self.idle).min()
    }
}

impl<W: Wire> Connection<W> {
    /// A peer that is silent for a whole tick is probed; one that leaves `Limits::MISSES` probes unanswered for a tick
    /// each is dead.
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
                self.say(&Outgoing::Probe { from: PROBE });
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
        let unanswered = |state| state == State::Opening;
        !self.is_extended()
            && self.table.iter().any(|channel| channel.initiator == Initiator::Local && unanswered(channel.state))
    }
}

fn after(now: Instant, time: Duration) -> Option<Instant> {
    if time.is_zero() { None } else { now.checked_add(time) }
}
