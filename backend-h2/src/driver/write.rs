//! From a channel to its HTTP/2 stream: records, within credit, HTTP/2's windows and what the transport has taken.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};

use super::growth::Growth;
use super::wire::Wire;
use crate::channel::{Channel, ChannelState};
use crate::error::raw_reason;
use crate::limits::Limits;
use crate::record::{FIN, HEADER, Outgoing, kind};
use crate::recv::RecvState;
use crate::send::{SendState, Terminal};
use crate::session::{Shared, wake};

/// Window that is left to control records where a body takes all there is.
const CONTROLS: usize = 3 * 14;

/// Whether a look at a channel with records finds nothing to say and nobody to wake.
pub(super) fn is_quiet(state: &ChannelState) -> bool {
    state.send_waker.is_none()
        && state.send.sendable() == 0
        && state.send.terminal().is_none()
        && !matches!(state.recv.state, RecvState::Stopping(_))
        && state.recv.due_credit().is_none()
        && !state.is_over()
}

/// Sends what the channel has to say, as far as it goes, and wakes its writer. `true` once the channel is over.
pub(super) fn pump(wire: &mut Wire, channel: &Arc<Channel>, shared: &Shared, growth: &mut Growth) -> bool {
    let mut sending = !wire.link.is_flushed();
    let blocked = if channel.raw {
        pump_raw(wire, channel, shared.limits.record);
        true
    } else {
        pump_records(wire, channel, shared, growth, &mut sending)
    };
    let (writer, over) = settle(channel);
    if blocked || writer || (over && wire.recv_ended) {
        wire.link.await_transport(sending);
    }
    over
}

/// `true` when more can be said once the transport has taken what it has.
fn pump_records(
    wire: &mut Wire,
    channel: &Arc<Channel>,
    shared: &Shared,
    growth: &mut Growth,
    sending: &mut bool,
) -> bool {
    let record = shared.limits.record;
    let (mut reserved, mut blocked) = (false, false);
    while !wire.send_ended && wire.send.is_some() {
        let mut state = channel.lock();
        let mut frame = Outgoing::new();
        if let Some(code) = state.recv.take_stop() {
            frame.control(kind::STOP, code);
        }
        let mut credit = false;
        let due = state.recv.due_credit().is_some();
        if due && wire.link.is_credit_in_flight() {
            blocked = true;
        } else if due {
            growth.fit(shared, channel, &mut state);
            if let Some(offset) = state.recv.due_credit() {
                frame.control(kind::CREDIT, offset);
                state.recv.granted(offset);
                credit = true;
            }
        }
        let body = next_body(wire, &mut state, record, Some(frame.remaining()), &mut reserved);
        let len = body.len();
        if len > 0 {
            frame.data(body);
        }
        let terminal = state.send.terminal();
        match terminal {
            Some(Terminal::Fin) => frame.fin(),
            Some(Terminal::Reset(code)) => frame.control(kind::RESET, code),
            None => {}
        }
        if terminal.is_some() {
            state.send.terminal_said();
        }
        // Once neither side has anything to say, the stream may end; the peer may be waiting for just that.
        let end = state.send.is_over() && state.recv.peer_ended;
        let more = state.send.next_len(record) > 0;
        if frame.remaining() == 0 && !end {
            blocked |= more;
            break;
        }
        let permit = wire.link.permit(len, credit);
        *sending = true;
        drop(state);
        if credit {
            // Together with the credit, so that both travel at once.
            wire.return_window();
        }
        channel.counters().bytes_out.fetch_add(frame.remaining() as u64, Ordering::Relaxed);
        if !wire.say(frame.with_permit(permit), end) {
            wire.send = None;
        }
        if !more {
            break;
        }
    }
    release_reserve(wire, reserved);
    blocked
}

fn pump_raw(wire: &mut Wire, channel: &Arc<Channel>, record: usize) {
    let mut reserved = false;
    while !wire.send_ended {
        let mut state = channel.lock();
        if let Some(Terminal::Reset(code)) = state.send.terminal() {
            // Ends both directions: HTTP/2 has no other reset.
            state.send.terminal_said();
            end_raw_recv(channel, &mut state);
            drop(state);
            if let Some(mut send) = wire.send.take() {
                send.send_reset(raw_reason(code));
            }
            wire.recv = None;
            return;
        }
        let body = next_body(wire, &mut state, record, None, &mut reserved);
        let end = state.send.terminal() == Some(Terminal::Fin);
        if body.is_empty() && !end {
            break;
        }
        if end {
            state.send.terminal_said();
        }
        let permit = wire.link.permit(body.len(), false);
        drop(state);
        channel.counters().bytes_out.fetch_add(body.len() as u64, Ordering::Relaxed);
        if !wire.say(Outgoing::raw(body).with_permit(permit), end) {
            wire.send = None;
            break;
        }
    }
    release_reserve(wire, reserved);
    let mut state = channel.lock();
    if wire.send_ended && wire.link.is_flushed() && state.recv.is_stopped() {
        // Nobody reads what still comes; HTTP/2 says so by a reset without error.
        end_raw_recv(channel, &mut state);
        wire.recv = None;
        wire.send = None;
    }
}

fn end_raw_recv(channel: &Channel, state: &mut ChannelState) {
    if state.recv.state == RecvState::Open {
        state.recv.state = RecvState::Stopped;
        channel.discard_recv(state);
    }
    state.recv.peer_ended = true;
}

/// The next body, as far as HTTP/2 has room for it; the stream is woken when there is more. `before`: the bytes of control
/// records before its own record, `None` where it is sent as it is. `reserved`: not all window that was reserved is used.
fn next_body(
    wire: &mut Wire,
    state: &mut ChannelState,
    record: usize,
    before: Option<usize>,
    reserved: &mut bool,
) -> Bytes {
    let in_flight = wire.link.in_flight();
    let len = state.send.next_len(record);
    if len > 0 && !wire.link.has_room() {
        wire.held_back = true;
        return Bytes::new();
    }
    let Some(send) = wire.send.as_mut().filter(|_| len > 0 && in_flight < Limits::IN_FLIGHT) else {
        return Bytes::new();
    };
    if wire.fresh && len <= Limits::AT_ONCE {
        return state.send.next_body(len);
    }
    let (overhead, kept) = match before {
        Some(before) => (before + HEADER + if state.send.ends_after(len) { FIN.len() } else { 0 }, CONTROLS),
        None => (0, 0),
    };
    // Exactly what is used, so that there is nothing to give back.
    send.reserve_capacity(len + overhead);
    loop {
        let room = send.capacity().saturating_sub(overhead);
        if room >= len {
            *reserved = false;
            return state.send.next_body(len);
        }
        let room = room.saturating_sub(kept);
        match send.poll_capacity(&mut Context::from_waker(&wire.link.waker())) {
            Poll::Ready(Some(Ok(_))) => {}
            // A part goes now, rather than waiting for all.
            Poll::Pending if room > 0 => {
                *reserved = true;
                return state.send.next_body(room);
            }
            // Left reserved: the stream is woken by the window it waits for.
            Poll::Pending | Poll::Ready(None | Some(Err(_))) => {
                *reserved = false;
                return Bytes::new();
            }
        }
    }
}

/// Gives back window that was reserved and is not used: it would be taken from the connection.
fn release_reserve(wire: &mut Wire, reserved: bool) {
    let Some(send) = wire.send.as_mut().filter(|_| !wire.send_ended) else { return };
    if reserved {
        send.reserve_capacity(0);
    }
}

/// Wakes the writer if it finds what it waits for, and takes a channel that is over off the counters. Returns whether a
/// writer goes on waiting, and whether the channel is over.
pub(super) fn settle(channel: &Arc<Channel>) -> (bool, bool) {
    let mut state = channel.lock();
    channel.note_over(&mut state);
    let over = state.is_over();
    if state.send_waker.is_none() {
        return (false, over);
    }
    let room = channel.send_limit().saturating_sub(channel.unsent(&state));
    let ended = !matches!(state.send.state, SendState::Open | SendState::Finishing);
    if ended || state.cause.is_some() || room >= state.send_need {
        let waker = state.send_waker.take();
        drop(state);
        wake(waker);
        return (false, over);
    }
    (true, over)
}
