//! What time brings: keepalive, idle ends, deadlines, the life of parked requests.

use std::future::Future;
use std::task::Context;
use std::time::Duration;

use mux_api::{Error, ErrorKind, Origin};
use tokio::time::{Instant, sleep_until};

use super::wire::Kind;
use super::{Driver, Side};
use crate::record::Outgoing;
use crate::session::Lifecycle;

/// Answers that a dead peer misses.
const MISSES: u32 = 2;

impl Driver {
    /// Does what is due and sets the timer for what comes next. `true` if there is something to send.
    pub(super) fn keep_time(&mut self, now: Instant, cx: &mut Context<'_>) -> bool {
        let mut acted = false;
        loop {
            let Some(due) = self.next_due() else {
                self.due = None;
                return acted;
            };
            if due <= now && self.ending_due().is_none() {
                self.act(now);
                acted = true;
                if self.next_due().is_some_and(|next| next <= now) {
                    // Nothing may be due for ever: the rest has its turn after this one.
                    cx.waker().wake_by_ref();
                    return true;
                }
                continue;
            }
            // A later time does not move the timer: it fires, finds nothing due, and is set again. While it runs, it need
            // not be looked at.
            if self.due.is_some_and(|armed| now < armed && armed <= due) && self.timed.will_wake(cx.waker()) {
                return acted;
            }
            self.due = Some(due);
            self.timed.clone_from(cx.waker());
            let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(due)));
            timer.as_mut().reset(due);
            if timer.as_mut().poll(cx).is_ready() {
                self.due = None;
                cx.waker().wake_by_ref();
            }
            return acted;
        }
    }

    fn next_due(&self) -> Option<Instant> {
        if let Some(until) = self.ending_due() {
            return Some(until);
        }
        let limits = &self.shared.limits;
        let keepalive = Some(limits.keepalive).filter(|every| !every.is_zero());
        let closing = self.closing.then(|| match &self.shared.lock().lifecycle {
            Lifecycle::Closing { until, .. } => Some(*until),
            _ => None,
        });
        let by_side = match &self.side {
            Side::Client(client) => client.pause,
            Side::Server(server) => server.next_expiry(),
            Side::Over => None,
        };
        [
            self.peer_closing.as_ref().map(|(_, until)| *until),
            closing.flatten(),
            by_side,
            self.winding.front().map(|(until, _)| *until),
            keepalive.filter(|_| self.control_key.is_some()).map(|every| self.ping_due(every)),
            keepalive.filter(|_| self.established).map(|every| self.last_sweep + every / 2),
            Some(limits.idle).filter(|idle| !idle.is_zero()).map(|idle| self.last_used + idle),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// When silence is probed, or proves a death.
    fn ping_due(&self, every: Duration) -> Instant {
        match self.pings.front() {
            Some(ping) => ping.sent.max(self.last_heard) + every * MISSES,
            None => self.last_heard + every,
        }
    }

    fn act(&mut self, now: Instant) {
        let limits = &self.shared.limits;
        let (keepalive, idle) = (limits.keepalive, limits.idle);
        if let Some((closed, until)) = &self.peer_closing
            && *until <= now
        {
            let closed = closed.clone();
            return self.fail(closed, false);
        }
        let closing = match &self.shared.lock().lifecycle {
            Lifecycle::Closing { code, until, .. } if *until <= now => Some(*code),
            _ => None,
        };
        if let Some(code) = closing {
            let message = "closed by this side; the linger time was over before the peer took everything";
            return self.fail(Error::new(ErrorKind::Closed, Origin::Local, message).with_code(code), true);
        }
        if !idle.is_zero() && self.last_used + idle <= now {
            let message = format!("the session was idle for {idle:?}");
            return self.fail(Error::new(ErrorKind::Idle, Origin::Local, message), true);
        }
        match &mut self.side {
            Side::Client(client) if client.pause.is_some_and(|until| until <= now) => client.end_pause(),
            _ => self.expire_slots(now),
        }
        self.drop_wound_down(now);
        if keepalive.is_zero() {
            return;
        }
        if self.control_key.is_some() && self.ping_due(keepalive) <= now {
            if self.pings.is_empty() {
                self.ping(Vec::new());
            } else {
                let message = format!("the peer did not answer for {:?}", keepalive * MISSES);
                return self.fail(Error::new(ErrorKind::Idle, Origin::Transport, message), false);
            }
        }
        if self.established && self.last_sweep + keepalive / 2 <= now {
            self.sweep(now);
        }
    }

    /// Lets go of streams that the peer has not ended in time.
    fn drop_wound_down(&mut self, now: Instant) {
        while let Some((until, key)) = self.winding.front().copied().filter(|(until, _)| *until <= now) {
            self.winding.pop_front();
            if self.wires.get(key).and_then(Option::as_ref).is_some_and(|wire| wire.until == Some(until)) {
                self.drop_wire(key);
            }
        }
    }

    /// An empty record on each stream on which nothing was sent since the last time, half a keepalive time ago: hops on
    /// the way end idle streams, the control stream as well while others are busy.
    fn sweep(&mut self, now: Instant) {
        self.last_sweep = now;
        self.shared.counters.pool.tidy();
        for (_, wire) in &mut self.wires {
            let Some(wire) = wire else { continue };
            let silent = !std::mem::replace(&mut wire.busy, false);
            let records = match &wire.kind {
                Kind::Control => true,
                Kind::Channel(channel) => !channel.raw,
                Kind::Park | Kind::Slot | Kind::Ending => false,
            };
            if silent && records && !wire.send_ended && wire.link.is_flushed() {
                let mut frame = Outgoing::new();
                frame.data(bytes::Bytes::new());
                let permit = wire.link.permit(0, false);
                wire.say(frame.with_permit(permit), false);
            }
        }
    }
}
