//! The control stream: records about the session as a whole (docs/h2.md, section 5).

use std::task::{Context, Poll};

use mux_api::{Error, ErrorKind, Origin, codes};
use tokio::time::Instant;

use super::wire::Wire;
use super::{Driver, Ping, Side};
use crate::error;
use crate::limits::Limits;
use crate::record::{Control, Incoming, Outgoing, encode_control, kind};

/// Pings that wait for their answers; the application's beyond it share the next one.
const MAX_PINGS: usize = 8;

impl Driver {
    /// Reads the control stream.
    pub(super) fn read_control(&mut self, wire: &mut Wire) {
        let waker = wire.link.waker();
        let mut cx = Context::from_waker(&waker);
        while !wire.recv_ended
            && let Some(recv) = &mut wire.recv
        {
            match recv.poll_data(&mut cx) {
                Poll::Pending => break,
                Poll::Ready(Some(Ok(mut bytes))) => {
                    self.heard(bytes.len());
                    let _ = recv.flow_control().release_capacity(bytes.len());
                    loop {
                        let handled = match wire.parser.next(&mut bytes) {
                            Ok(None) => break,
                            Ok(Some(Incoming::Data(_))) => Ok(()),
                            Ok(Some(Incoming::Control(control))) => self.control(&control),
                            Err(what) => Err(error::violation(what)),
                        };
                        if let Err(violation) = handled {
                            self.fail(violation, true);
                            return;
                        }
                    }
                }
                Poll::Ready(Some(Err(error))) => {
                    wire.recv_ended = true;
                    self.control_lost(&format!("the control stream was lost: {error}"));
                }
                Poll::Ready(None) => {
                    wire.recv_ended = true;
                    self.control_lost("the control stream ended without a close from the peer");
                }
            }
        }
        self.send_control(wire);
    }

    /// Sends what is queued for the control stream.
    pub(super) fn send_control(&mut self, wire: &mut Wire) {
        // One frame at a time: what a peer provokes and does not take piles up here, where it is bounded.
        if !self.control.is_empty() && wire.send.is_some() && !wire.send_ended && wire.link.is_flushed() {
            let permit = wire.link.permit(0, false);
            let body = self.control.split().freeze();
            // If it fails the stream is gone, which reading it says.
            wire.say(Outgoing::raw(body).with_permit(permit), false);
        }
    }

    fn control_lost(&mut self, why: &str) {
        self.heard_end = true;
        if self.close_said {
            // Everything was sent and the peer is gone: nothing is lost.
            self.finish_close();
        } else if let Some(cause) = self.closed_by_peer().or(self.conn_lost.clone()) {
            self.fail(cause, false);
        } else {
            self.fail(error::lost(why.to_owned()), false);
        }
    }

    /// Queues a control record.
    pub(super) fn say(&mut self, kind: u8, number: Option<u64>, text: &str) {
        encode_control(&mut self.control, kind, number, text);
        self.look_at_control = true;
    }

    fn control(&mut self, control: &Control) -> Result<(), Error> {
        let number = || control.number().map_err(error::violation);
        match (control.kind, &mut self.side) {
            (kind::PING, _) => {
                let number = number()?;
                if self.control.len() > Limits::MAX_CONTROL {
                    return Err(error::violation("more pings than it takes answers for"));
                }
                self.say(kind::PONG, Some(number), "");
            }
            (kind::PONG, _) => {
                let number = number()?;
                self.pong(number);
            }
            (kind::GOAWAY, _) => {
                let (code, reason) = (number()?.min(codes::MAX), control.reason());
                let message = if reason.is_empty() { "the peer is draining the session" } else { &reason };
                let error = Error::new(ErrorKind::GoAway, Origin::Peer, message).with_code(code).retry_safe(true);
                self.no_more_opens(error);
                self.fail_opens();
            }
            (kind::CLOSE, _) => {
                let (code, reason) = (number()?.min(codes::MAX), control.reason());
                let message = match (reason.is_empty(), codes::describe(code)) {
                    (false, _) => reason,
                    (true, Some(known)) => format!("the peer ended the session: {known}"),
                    (true, None) => format!("the peer closed the session with code {code}"),
                };
                self.heard_end |= self.told_end;
                self.peer_closes(Error::new(ErrorKind::Closed, Origin::Peer, message).with_code(code));
            }
            (kind::CLOSE_ACK, _) => {
                self.heard_end = true;
                if self.close_said {
                    self.finish_close();
                }
            }
            (kind::OPEN_PLEASE, Side::Client(client)) => client.asked(number()?)?,
            (kind::POOL, Side::Client(client)) => {
                client.set_pool(control.number32().map_err(error::violation)?);
            }
            // What belongs to channels, or to later versions.
            _ => {}
        }
        Ok(())
    }

    /// Sends the pings that the application asked for.
    pub(super) fn send_pings(&mut self) {
        let asked = {
            let mut state = self.shared.lock();
            if state.pings.is_empty() || !state.established {
                return;
            }
            std::mem::take(&mut state.pings)
        };
        let waiting = self.pings.len();
        match self.pings.back_mut().filter(|_| waiting >= MAX_PINGS) {
            Some(last) => last.waiting.extend(asked),
            None => self.ping(asked),
        }
    }

    /// Sends a ping whose answer those in `waiting` want.
    pub(super) fn ping(&mut self, waiting: Vec<tokio::sync::oneshot::Sender<std::time::Duration>>) {
        self.next_ping += 1;
        self.pings.push_back(Ping { number: self.next_ping, sent: Instant::now(), waiting });
        self.say(kind::PING, Some(self.next_ping), "");
    }

    fn pong(&mut self, number: u64) {
        // Answers come in order; unknown ones mean nothing.
        if !self.pings.iter().any(|ping| ping.number == number) {
            return;
        }
        while let Some(ping) = self.pings.pop_front() {
            let rtt = ping.sent.elapsed();
            self.growth.note(rtt);
            let mut state = self.shared.lock();
            state.rtt = Some(state.rtt.map_or(rtt, |smooth| (smooth * 7 + rtt) / 8));
            drop(state);
            for waiter in ping.waiting {
                // Whoever stopped waiting does not care.
                let _ = waiter.send(rtt);
            }
            if ping.number == number {
                return;
            }
        }
    }
}
