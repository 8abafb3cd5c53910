//! From an HTTP/2 stream to its channel: records are read whether the application reads or not, since ends, stops and
//! credit travel among the data.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use bytes::Bytes;
use mux_api::{Error, Initiator, codes};

use super::Driver;
use super::wire::{Kind, Wire};
use crate::channel::{Channel, ChannelState};
use crate::error;
use crate::record::{Control, Incoming, kind};
use crate::recv::RecvState;
use crate::send::SendState;
use crate::session::wake;

/// How a look at a stream ended.
pub(super) enum Look {
    /// It goes on.
    Live,
    /// The channel is over and its stream too.
    Lost(Error),
}

impl Driver {
    /// Reads what has arrived on a channel's stream.
    ///
    /// # Errors
    /// What the peer violated; the session ends.
    pub(super) fn read_channel(&mut self, wire: &mut Wire, channel: &Arc<Channel>) -> Result<Look, Error> {
        if !wire.link.take_heard() {
            return Ok(Look::Live);
        }
        let waker = wire.link.waker();
        let mut cx = Context::from_waker(&waker);
        while !wire.recv_ended
            && let Some(recv) = &mut wire.recv
        {
            match recv.poll_data(&mut cx) {
                Poll::Pending => break,
                Poll::Ready(Some(Ok(bytes))) => {
                    self.heard(bytes.len());
                    if channel.raw {
                        receive_raw(channel, bytes);
                        continue;
                    }
                    wire.unreturned += bytes.len();
                    self.receive(wire, channel, bytes)?;
                }
                Poll::Ready(Some(Err(error))) => return Ok(Look::Lost(self.lost(channel, &error))),
                Poll::Ready(None) => {
                    wire.recv_ended = true;
                    if let Some(error) = ended(wire, channel) {
                        return Ok(Look::Lost(self.closed_by_peer().unwrap_or(error)));
                    }
                }
            }
        }
        Ok(Look::Live)
    }

    fn receive(&mut self, wire: &mut Wire, channel: &Arc<Channel>, mut bytes: Bytes) -> Result<(), Error> {
        let mut state = channel.lock();
        let (mut wake_recv, mut wake_send) = (false, false);
        let mut confirmed = false;
        while let Some(record) = wire.parser.next(&mut bytes).map_err(error::violation)? {
            match record {
                Incoming::Data(body) if body.is_empty() => {}
                Incoming::Data(_) if state.recv.peer_ended => {
                    return Err(error::violation("data after the end of a channel"));
                }
                Incoming::Data(body) => {
                    if !state.recv.receive(body.len()) {
                        return Err(error::violation("more data on a channel than its credit allows"));
                    }
                    channel.counters().traffic.fetch_add(body.len() as u64, Ordering::Relaxed);
                    let waiting = state.recv.push(body);
                    channel.counters().recv_buffered.fetch_add(waiting as u64, Ordering::Relaxed);
                    wake_recv = true;
                }
                Incoming::Control(control) => {
                    let refused = receive_control(channel, &mut state, &control)?;
                    wake_recv |= control.kind != kind::CREDIT;
                    wake_send = true;
                    if let Some(refused) = refused {
                        drop(state);
                        channel.fail(&refused);
                        state = channel.lock();
                    }
                }
            }
            confirmed = true;
        }
        if confirmed && !state.opened && state.cause.is_none() {
            state.opened = true;
            wake_send = true;
        }
        state.recv_budget();
        let (promised, window) = (state.recv.promised(), state.recv.window() as u64);
        let recv_waker = if wake_recv { state.recv_waker.take() } else { None };
        let send_waker = if wake_send { state.send_waker.take() } else { None };
        channel.note_over(&mut state);
        drop(state);
        if self.shared.limits.unreturned.is_none_or(|more| wire.unreturned as u64 + promised > window + more) {
            wire.return_window();
        }
        self.woken += usize::from(recv_waker.is_some() || send_waker.is_some());
        wake(recv_waker);
        wake(send_waker);
        Ok(())
    }

    /// Why a channel's stream failed, once h2 says so.
    pub(super) fn lost(&self, channel: &Channel, error: &h2::Error) -> Error {
        if let Some(closed) = self.closed_by_peer() {
            return closed;
        }
        if let Some(reason) = error.reason().filter(|_| channel.raw && error.is_reset() && error.is_remote()) {
            return error::raw_reset(reason);
        }
        let lost = error::stream(error, channel.lock().opened);
        match &self.conn_lost {
            Some(cause) if !lost.is_retry_safe() => cause.clone(),
            _ => lost,
        }
    }

    /// Reads and drops what arrives on a stream that only waits for its end; `true` once it may be let go.
    pub(super) fn read_ending(&mut self, wire: &mut Wire) -> bool {
        let waker = wire.link.waker();
        let mut cx = Context::from_waker(&waker);
        while !wire.recv_ended
            && let Some(recv) = &mut wire.recv
        {
            match recv.poll_data(&mut cx) {
                Poll::Pending => break,
                Poll::Ready(Some(Ok(bytes))) => {
                    self.heard(bytes.len());
                    let _ = recv.flow_control().release_capacity(bytes.len());
                }
                Poll::Ready(Some(Err(_))) => return true,
                Poll::Ready(None) => {
                    wire.recv_ended = true;
                    wire.end();
                }
            }
        }
        wire.recv.is_none() || wire.is_done()
    }

    /// Looks at a stream of this key, which woke.
    pub(super) fn look(&mut self, key: usize, cx: &mut Context<'_>) {
        let Some(mut wire) = self.wires.get_mut(key).and_then(Option::take) else { return };
        wire.link.begin();
        if wire.is_done() && matches!(wire.kind, Kind::Channel(_)) {
            if let Kind::Channel(channel) = &wire.kind {
                super::write::settle(channel);
            }
            return self.drop_wire(key);
        }
        if wire.response.is_some() && wire.link.is_heard() {
            self.read_response(&mut wire, cx);
        }
        let keep = match &wire.kind {
            Kind::Control => {
                self.read_control(&mut wire);
                true
            }
            Kind::Park => wire.response.is_some(),
            Kind::Slot => match self.look_at_slot(&mut wire) {
                Ok(keep) => keep,
                Err(violation) => {
                    self.fail(violation, true);
                    true
                }
            },
            Kind::Ending => !self.read_ending(&mut wire),
            // The end of the session is said first; then all streams go at once.
            Kind::Channel(_) if self.is_ending() => true,
            Kind::Channel(channel) => {
                let channel = Arc::clone(channel);
                self.look_at_channel(&mut wire, &channel)
            }
        };
        if !keep {
            self.drop_wire(key);
            return;
        }
        if !matches!(wire.kind, Kind::Channel(_)) && !wire.link.is_flushed() {
            wire.link.await_transport(true);
        }
        if let (Kind::Channel(channel), Some(cause)) = (&wire.kind, self.cause()) {
            // The session may have failed during this very look.
            channel.fail(&cause);
        }
        self.wires[key] = Some(wire);
    }

    /// Reads and writes; `false` once the stream may be let go.
    fn look_at_channel(&mut self, wire: &mut Wire, channel: &Arc<Channel>) -> bool {
        match self.read_channel(wire, channel) {
            Ok(Look::Live) => {}
            Ok(Look::Lost(error)) => {
                channel.fail(&error);
                return false;
            }
            Err(violation) => {
                self.fail(violation, true);
                return true;
            }
        }
        let (failed, given_up, quiet) = {
            let state = channel.lock();
            let reset = matches!(state.recv.state, RecvState::Reset(_));
            let given_up = reset && matches!(state.send.state, SendState::Stopped { .. });
            (state.cause.is_some(), given_up, !channel.raw && super::write::is_quiet(&state))
        };
        if quiet {
            return true;
        }
        if failed {
            // Refused: what was opened for nothing ends here.
            wire.end();
            wire.kind = Kind::Ending;
            self.wind_down(wire);
            return !self.read_ending(wire);
        }
        if given_up {
            self.shared.withdraw(channel);
        }
        if channel.raw
            && let Some(recv) = &mut wire.recv
        {
            let unreturned = channel.lock().recv.take_unreturned();
            // A stream that failed meanwhile has none.
            let _ = recv.flow_control().release_capacity(unreturned);
        }
        let over = super::write::pump(wire, channel, &self.shared, &mut self.growth);
        if std::mem::take(&mut wire.held_back) && !std::mem::replace(&mut wire.in_line, true) {
            self.line.push(channel.lock().priority.urgency(), wire.link.key());
        }
        if over && wire.until.is_none() && !wire.recv_ended {
            self.wind_down(wire);
        }
        if channel.raw && over && wire.recv.is_none() && wire.send.is_none() {
            return false;
        }
        !wire.is_done()
    }
}

/// What a control record changes; `Some` when it refuses the channel.
fn receive_control(channel: &Channel, state: &mut ChannelState, control: &Control) -> Result<Option<Error>, Error> {
    match control.kind {
        kind::FIN | kind::RESET if state.recv.peer_ended => {
            return Err(error::violation("a second end of a channel"));
        }
        kind::FIN => {
            state.recv.peer_ended = true;
            if state.recv.state == RecvState::Open {
                state.recv.state = RecvState::Finished;
            }
        }
        kind::RESET => {
            let code = control.number().map_err(error::violation)?.min(codes::MAX);
            state.recv.peer_ended = true;
            channel.counters().resets_in.fetch_add(1, Ordering::Relaxed);
            let refusal = matches!(code, codes::REFUSED | codes::DRAINING | codes::LIMIT);
            if refusal && channel.initiator == Initiator::Local && !state.opened {
                return Ok(Some(error::refused(code)));
            }
            if state.recv.state == RecvState::Open {
                channel.discard_recv(state);
                state.recv.state = RecvState::Reset(code);
            }
        }
        kind::STOP => {
            let code = control.number().map_err(error::violation)?.min(codes::MAX);
            if state.cause.is_none() && matches!(state.send.state, SendState::Open | SendState::Finishing) {
                channel.discard_send(state);
                state.send.state = SendState::Stopped { code, said: false };
            }
        }
        kind::CREDIT => state.send.raise_credit(control.number().map_err(error::violation)?),
        // Kinds of later versions.
        _ => {}
    }
    Ok(None)
}

/// The body of a plain HTTP/2 client.
fn receive_raw(channel: &Channel, bytes: Bytes) {
    channel.counters().traffic.fetch_add(bytes.len() as u64, Ordering::Relaxed);
    let mut state = channel.lock();
    let waiting = state.recv.push(bytes);
    channel.counters().recv_buffered.fetch_add(waiting as u64, Ordering::Relaxed);
    let waker = state.recv_waker.take();
    drop(state);
    wake(waker);
}

/// The peer's direction of the stream has ended; the error, if that is not a proper end of the channel's.
fn ended(wire: &Wire, channel: &Channel) -> Option<Error> {
    let mut state = channel.lock();
    if !channel.raw {
        let proper = state.recv.peer_ended && wire.parser.is_between_records();
        return (!proper).then(error::truncated);
    }
    state.recv.peer_ended = true;
    if state.recv.state == RecvState::Open {
        state.recv.state = RecvState::Finished;
    }
    channel.note_over(&mut state);
    let waker = state.recv_waker.take();
    drop(state);
    wake(waker);
    None
}
