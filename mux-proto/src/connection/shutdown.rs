//! The end of a session: polite, abrupt, by the peer, by the transport.

use std::time::Instant;

use mux_api::{Error, ErrorKind, Origin, codes};

use super::{Connection, Event};
use crate::channel::SendState;
use crate::{Outgoing, Wire};

/// How far the session's life has gone.
#[derive(Debug)]
pub(super) enum Lifecycle {
    /// Channels open and close.
    Live,
    /// No new channels, either way.
    Draining,
    /// What was finished is flushed, then the end is said.
    Closing { code: u64, reason: String, until: Instant },
    /// Nothing more is said; see `cause`.
    Over { until: Option<Instant> },
}

impl Lifecycle {
    pub(super) fn deadline(&self) -> Option<Instant> {
        match self {
            Self::Closing { until, .. } => Some(*until),
            Self::Over { until } => *until,
            Self::Live | Self::Draining => None,
        }
    }
}

impl<W: Wire> Connection<W> {
    pub(super) fn is_draining(&self) -> bool {
        !matches!(self.lifecycle, Lifecycle::Live)
    }

    /// Refuses new channels from now on, and opens none.
    pub fn drain(&mut self) {
        if matches!(self.lifecycle, Lifecycle::Live) {
            self.lifecycle = Lifecycle::Draining;
            self.say_going_away();
            self.events.push(Event::CanOpen);
        }
    }

    /// Begins the polite end: what was finished is sent as the peer takes it, what was not is reset; then the peer is
    /// told. After the linger time the session ends whatever is left.
    pub fn close(&mut self, code: u64, reason: &str, now: Instant) {
        if self.cause.is_some() || matches!(self.lifecycle, Lifecycle::Closing { .. }) {
            return;
        }
        let until = now + self.limits.linger;
        self.lifecycle = Lifecycle::Closing { code, reason: reason.to_owned(), until };
        for key in self.table.keys() {
            if self.table.get(key).is_some_and(|channel| matches!(channel.send.state, SendState::Open)) {
                // Only a direction that is over refuses a library code, and this one is open.
                let _ = self.reset(key, codes::DROPPED);
            }
            self.abandon(key, codes::NO_ERROR);
        }
        self.events.push(Event::CanOpen);
        self.check_closing();
    }

    /// Ends at once; what was not sent is dropped.
    pub fn abort(&mut self, code: u64) {
        let error = Error::closed_locally().with_code(code);
        self.fail(error, true);
    }

    /// The transport ended.
    pub fn handle_eof(&mut self) {
        // Peers without a session end say it this way; with channels open, nobody can call it clean.
        let idle = !self.parser.is_cut() && self.table.iter().all(|channel| channel.state.remote().is_none());
        let clean = !self.features.session && idle;
        let (origin, message) = if clean && self.is_established() {
            (Origin::Peer, "the peer closed the connection")
        } else {
            (Origin::Transport, "the connection ended without a close from the peer")
        };
        self.fail(Error::new(ErrorKind::Closed, origin, message), false);
    }

    /// The transport failed.
    pub fn handle_transport_error(&mut self, error: std::io::Error) {
        self.fail(Error::from_io("the connection failed", error), false);
    }

    /// Whether the session is over and everything about it was said: send what [`poll_output`](Self::poll_output)
    /// still gives, then end the transport.
    pub fn is_over(&self) -> bool {
        self.cause.is_some()
    }

    /// Ends the session with `cause`; the first one stays. `tell`: the peer learns of it where it understands.
    pub(super) fn fail(&mut self, cause: Error, tell: bool) {
        if self.cause.is_some() {
            return;
        }
        if tell && self.features.session {
            let code = cause.code().unwrap_or(codes::NO_ERROR);
            let reason = if cause.origin() == Origin::Peer { cause.message().to_owned() } else { String::new() };
            let reason = clip(&reason);
            self.say(&Outgoing::SessionEnd { code, reason });
        }
        self.end(cause, None);
    }

    /// In a polite end: says it once everything finished was sent.
    pub(super) fn check_closing(&mut self) {
        let Lifecycle::Closing { code, reason, until } = &self.lifecycle else { return };
        let busy = |send: &SendState| matches!(send, SendState::Finishing);
        if self.cause.is_some() || self.table.iter().any(|channel| busy(&channel.send.state)) {
            return;
        }
        let (code, reason, until) = (*code, reason.clone(), *until);
        if self.features.session {
            self.say(&Outgoing::SessionEnd { code, reason: &reason });
        }
        self.end(Error::closed_locally().with_code(code), Some(until));
    }

    pub(super) fn check_linger(&mut self, now: Instant) {
        if let Lifecycle::Closing { code, until, .. } = &self.lifecycle
            && now >= *until
        {
            let message = "closed by this side; the linger time was over before the peer took everything";
            let cause = Error::new(ErrorKind::Closed, Origin::Local, message).with_code(*code);
            self.fail(cause, true);
        }
    }

    fn end(&mut self, cause: Error, until: Option<Instant>) {
        self.cause = Some(cause);
        self.lifecycle = Lifecycle::Over { until };
        self.credits.clear();
        // An end that follows dropped data must not be sent.
        self.schedule = Default::default();
        for key in self.table.keys() {
            if let Some(channel) = self.table.get_mut(key) {
                channel.send.discard();
                // What waits stays readable; no more will come.
                let free = channel.recv.end_of_session();
                self.held.shrink(u64::from(free));
                self.events.push(Event::Readable(key));
                self.events.push(Event::Writable(key));
            }
            self.forget_if_over(key);
        }
        self.events.push(Event::Acceptable);
        self.events.push(Event::CanOpen);
        self.events.push(Event::Ended);
    }
}

/// The front of `text` that fits a reason, cut between characters.
fn clip(text: &str) -> &str {
    let mut end = text.len().min(mux_api::Config::MAX_REASON);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}
