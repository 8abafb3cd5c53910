//! The end of a session: polite, abrupt, by the peer, by the connection (docs/h2.md, section 7).

use std::task::{Context, Poll};

use mux_api::{Error, ErrorKind, Origin, codes};
use tokio::time::Instant;

use super::wire::{Conn, Kind, Wire};
use super::{Driver, Side};
use crate::error;
use crate::limits::Limits;
use crate::record::kind;
use crate::recv::RecvState;
use crate::send::SendState;
use crate::session::{Lifecycle, wake};

/// How far the end of the connection has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// The session lives.
    No,
    /// It is over; what was said of that is being written.
    LastWords { until: Instant },
    /// The streams are gone; the connection is being shut down.
    ShuttingDown { until: Instant },
    /// The transport is released.
    Done,
}

impl Driver {
    pub(super) fn is_ending(&self) -> bool {
        self.ending != Ending::No
    }

    pub(super) fn cause(&self) -> Option<Error> {
        if self.is_ending() { self.shared.lock().cause.clone() } else { None }
    }

    /// With what the peer closes the session, if it does.
    pub(super) fn closed_by_peer(&self) -> Option<Error> {
        self.peer_closing.as_ref().map(|(error, _)| error.clone())
    }

    /// Does what the application asked of the session.
    pub(super) fn asked(&mut self) {
        if self.is_ending() {
            return;
        }
        self.send_pings();
        let lifecycle = self.shared.lock().lifecycle.clone();
        match lifecycle {
            Lifecycle::Live => {}
            Lifecycle::Draining => self.say_draining(),
            Lifecycle::Closing { .. } => {
                self.say_draining();
                self.begin_close();
            }
            Lifecycle::Aborted { code } => {
                self.fail(Error::closed_locally().with_code(code), true);
            }
        }
    }

    fn say_draining(&mut self) {
        if !std::mem::replace(&mut self.draining, true) {
            self.say(kind::GOAWAY, Some(codes::DRAINING), "");
        }
    }

    /// Turns every channel to the end: what was finished goes on, what was not is reset, nothing more is read.
    fn begin_close(&mut self) {
        if std::mem::replace(&mut self.closing, true) {
            return;
        }
        let opened: Vec<_> = self.shared.lock().opens.iter().cloned().collect();
        let wired = self.wires.iter().filter_map(|(_, wire)| match wire.as_ref().map(|wire| &wire.kind) {
            Some(Kind::Channel(channel)) => Some(channel.clone()),
            _ => None,
        });
        for channel in opened.into_iter().chain(wired) {
            let mut state = channel.lock();
            if state.send.state == SendState::Open {
                channel.discard_send(&mut state);
                state.send.state = SendState::Reset { code: codes::DROPPED, said: false };
            }
            channel.discard_recv(&mut state);
            if state.recv.state == RecvState::Open {
                state.recv.state = RecvState::Stopping(codes::NO_ERROR);
            }
            channel.settle(state);
            channel.link.poke();
        }
    }

    /// Says CLOSE once every channel is over, or ends the session once the peer that said it is through.
    pub(super) fn check_closing(&mut self) {
        if self.is_ending() || (!self.closing && self.peer_closing.is_none()) || self.close_said {
            return;
        }
        let over = |wire: &Wire| match &wire.kind {
            Kind::Channel(channel) => {
                let over = channel.lock().is_over();
                if over && !wire.link.is_flushed() {
                    wire.link.await_transport(true);
                    return wire.link.is_flushed();
                }
                over
            }
            _ => true,
        };
        let waiting = !self.shared.lock().opens.is_empty() && self.peer_closing.is_none();
        if waiting || !self.wires.iter().all(|(_, wire)| wire.as_ref().is_none_or(over)) {
            return;
        }
        if let Some(closed) = self.closed_by_peer() {
            self.say(kind::CLOSE_ACK, None, "");
            self.fail(closed, false);
        } else if self.control_key.is_some() {
            let Lifecycle::Closing { code, reason, .. } = self.shared.lock().lifecycle.clone() else { return };
            self.say(kind::CLOSE, Some(code), &reason);
            self.close_said = true;
        } else {
            self.finish_close();
        }
    }

    /// The peer has all, and knows.
    pub(super) fn finish_close(&mut self) {
        let code = match &self.shared.lock().lifecycle {
            Lifecycle::Closing { code, .. } | Lifecycle::Aborted { code } => *code,
            Lifecycle::Live | Lifecycle::Draining => codes::NO_ERROR,
        };
        self.fail(Error::closed_locally().with_code(code), false);
    }

    /// The peer takes no new channels.
    pub(super) fn no_more_opens(&mut self, error: Error) {
        let mut state = self.shared.lock();
        state.going_away.get_or_insert(error);
        drop(state);
        self.shared.wake_openers();
    }

    /// Channels that have no stream yet will get none: nobody has seen them.
    pub(super) fn fail_opens(&mut self) {
        let mut state = self.shared.lock();
        let opens = std::mem::take(&mut state.opens);
        let error = state.going_away.clone().unwrap_or_else(Error::closed_locally);
        drop(state);
        for channel in opens {
            channel.fail(&error);
        }
        self.shared.wake_openers();
    }

    /// The peer has said CLOSE: what it sent before may still be on its way.
    pub(super) fn peer_closes(&mut self, error: Error) {
        self.no_more_opens(error.clone());
        if self.close_said {
            // Both said it at once.
            self.say(kind::CLOSE_ACK, None, "");
        }
        self.peer_closing.get_or_insert((error, Instant::now() + self.shared.limits.linger));
    }

    /// Ends the session with `cause`; the first one stays. `tell`: the peer learns of it.
    pub(super) fn fail(&mut self, cause: Error, tell: bool) {
        if self.is_ending() {
            return;
        }
        self.ending = Ending::LastWords { until: Instant::now() + Limits::LAST_WORDS };
        if tell && self.control_key.is_some() && !self.close_said {
            let reason = if cause.origin() == Origin::Peer { cause.message() } else { "" };
            self.say(kind::CLOSE, Some(cause.code().unwrap_or(codes::NO_ERROR)), clip(reason));
            // One that broke the rules is not waited for.
            self.told_end = cause.origin() != Origin::Peer;
        }
        let mut state = self.shared.lock();
        state.cause = Some(cause.clone());
        let opens = std::mem::take(&mut state.opens);
        let wakers = [
            state.accepting.take(),
            state.opening.take(),
            state.can_open.take(),
            state.establishing.take(),
            state.flushing.take(),
            state.ending.take(),
        ];
        state.pings.clear();
        drop(state);
        self.pings.clear();
        for channel in opens {
            channel.fail(&cause);
        }
        for (_, wire) in &self.wires {
            if let Some(Kind::Channel(channel)) = wire.as_ref().map(|wire| &wire.kind) {
                channel.fail(&cause);
            }
        }
        wakers.into_iter().for_each(wake);
        // The last look at the control stream sends what was said.
        self.shared.ready.poke_session();
    }

    /// What the end of the connection means for the session.
    pub(super) fn why_ended(&self, error: Option<h2::Error>) -> Error {
        match (self.closed_by_peer(), error) {
            (Some(closed), _) => closed,
            (None, Some(error)) => error::connection(error, &self.shared.line),
            (None, None) if self.is_idle_raw() => {
                Error::new(ErrorKind::Closed, Origin::Peer, "the peer closed the connection")
            }
            (None, None) => error::unannounced(),
        }
    }

    /// The connection has ended.
    pub(super) fn conn_ended(&mut self, cause: Error) {
        if self.close_said {
            // Everything was sent and the peer is gone: nothing is lost.
            self.finish_close();
        }
        self.fail(cause, false);
        self.ending = Ending::Done;
    }

    /// A plain client with no channel left ends its session by ending the connection.
    fn is_idle_raw(&self) -> bool {
        let raw = matches!(&self.side, Side::Server(server) if server.is_raw());
        raw && self.wires.iter().all(|(_, wire)| match wire.as_ref().map(|wire| &wire.kind) {
            Some(Kind::Channel(channel)) => channel.lock().is_over(),
            _ => true,
        })
    }

    /// After the session is over: brings the end of the connection on. `true` when the transport is released.
    pub(super) fn end(&mut self, now: Instant, cx: &mut Context<'_>) -> bool {
        loop {
            match self.ending {
                Ending::No => return false,
                Ending::LastWords { until } => {
                    if self.told_end && self.is_written() {
                        // The peer answers once its channels have ended.
                        self.drop_channels();
                    }
                    if !self.is_said() && now < until {
                        return false;
                    }
                    self.let_go();
                    if matches!(&self.side, Side::Server(server) if server.carries_others())
                        && let Conn::Server(conn) = std::mem::replace(&mut self.conn, Conn::Gone)
                    {
                        self.handed_over = Some(conn);
                    }
                    self.conn.shut_down();
                    self.ending = Ending::ShuttingDown { until: now + Limits::LAST_WORDS };
                }
                // Requests that still come are dropped unanswered.
                Ending::ShuttingDown { until } => match self.conn.poll(&mut Vec::new(), cx) {
                    Poll::Pending if now < until => {
                        self.due = None;
                        self.keep_time(now, cx);
                        return false;
                    }
                    Poll::Pending | Poll::Ready(_) => self.ending = Ending::Done,
                },
                Ending::Done => {
                    self.release();
                    return true;
                }
            }
        }
    }

    /// When the end must come on, whatever the peer does.
    pub(super) fn ending_due(&self) -> Option<Instant> {
        match self.ending {
            Ending::LastWords { until } | Ending::ShuttingDown { until } => Some(until),
            Ending::No | Ending::Done => None,
        }
    }

    /// Whether everything that was said on the control stream is written, and has come through if it was CLOSE: the end of
    /// a connection overtakes at some hops what was said before.
    fn is_said(&self) -> bool {
        if self.told_end && !self.heard_end {
            return false;
        }
        self.is_written()
    }

    fn is_written(&self) -> bool {
        let Some(wire) = self.control_key.and_then(|key| self.wires.get(key)).and_then(Option::as_ref) else {
            return true;
        };
        wire.send.is_none() || (self.control.is_empty() && wire.link.is_flushed())
    }

    /// Drops every stream but the control stream.
    fn drop_channels(&mut self) {
        let control = self.control_key;
        self.wires.retain(|key, _| Some(key) == control);
    }

    /// Drops every stream.
    fn let_go(&mut self) {
        self.control_key = None;
        self.wires.clear();
        self.winding.clear();
        match &mut self.side {
            Side::Client(client) => client.requests = None,
            Side::Server(server) => server.clear(),
            Side::Over => {}
        }
    }

    /// Lets go of the transport and says so.
    pub(super) fn release(&mut self) {
        self.ending = Ending::Done;
        self.let_go();
        self.side = Side::Over;
        self.conn = Conn::Gone;
        self.guard = None;
        let mut state = self.shared.lock();
        state.released = true;
        let waker = state.ending.take();
        drop(state);
        wake(waker);
    }

    /// A stream whose channel is over: the peer gets a while to end it.
    pub(super) fn wind_down(&mut self, wire: &mut Wire) {
        if wire.until.is_none() {
            let until = Instant::now() + Limits::WIND_DOWN;
            wire.until = Some(until);
            // Most end in time: their entries go as others come.
            for _ in 0..2 {
                let gone = |(until, key): &(Instant, usize)| {
                    let wire = self.wires.get(*key).map(Option::as_ref);
                    wire.is_none_or(|wire| wire.is_some_and(|wire| wire.until != Some(*until)))
                };
                if !self.winding.front().is_some_and(gone) {
                    break;
                }
                self.winding.pop_front();
            }
            self.winding.push_back((until, wire.link.key()));
        }
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
