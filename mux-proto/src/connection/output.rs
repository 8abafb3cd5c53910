//! To the network: control first, then data by urgency, in turns.

use std::collections::VecDeque;

use bytes::BytesMut;

use super::opens::Address;
use super::{Connection, Event};
use crate::channel::{Channel, Key, SendState, State};
use crate::{Batch, Limits, Outgoing, Wire};

/// Channels that can send, by urgency; inside an urgency they take turns (RFC 9218 section 10, incremental).
#[derive(Debug, Default)]
pub(super) struct Schedule {
    turns: [VecDeque<Key>; 8],
    waiting: usize,
}

impl Schedule {
    fn push(&mut self, urgency: u8, key: Key) {
        self.turns[usize::from(urgency.min(7))].push_back(key);
        self.waiting += 1;
    }

    fn pop(&mut self) -> Option<Key> {
        let key = self.turns.iter_mut().find_map(VecDeque::pop_front)?;
        self.waiting -= 1;
        Some(key)
    }

    /// Whether a channel waits that is more urgent.
    fn is_outranked(&self, urgency: u8) -> bool {
        self.turns.iter().take(usize::from(urgency.min(7))).any(|queue| !queue.is_empty())
    }
}

/// Leave to send bytes straight from the caller's buffer.
#[derive(Debug)]
#[must_use = "the frame is announced: send exactly `take` bytes after what `poll_output` gave"]
pub struct Direct {
    /// How many bytes of the caller's buffer follow the header, which is already in the batch.
    pub take: usize,
}

impl<W: Wire> Connection<W> {
    /// Whether [`poll_output`](Self::poll_output) would give anything.
    pub fn has_output(&self) -> bool {
        !self.control.is_empty() || !self.credits.is_empty() || self.schedule.waiting > 0 || self.is_open_credit_due()
    }

    /// Channels that have something to send and credit for it.
    pub(super) fn sendable(&self) -> usize {
        self.schedule.waiting
    }

    /// The channel's urgency, if bytes could be sent from the caller's buffer but for the transport.
    pub fn direct_urgency(&self, key: Key) -> Option<u8> {
        let channel = self.table.get(key)?;
        let ready = channel.state.remote().is_some() && channel.send.is_ready_and_empty();
        (ready && self.cause.is_none()).then_some(channel.priority.urgency())
    }

    /// Moves what is to be sent into `batch`, until it holds about `most` bytes; no frame of data is longer.
    pub fn poll_output(&mut self, batch: &mut Batch, most: usize) {
        let before = batch.len();
        if self.cause.is_none() {
            self.encode_credits();
            self.encode_open_credit();
        }
        if !self.control.is_empty() {
            let paused = !self.can_open();
            self.answers = 0;
            batch.push_control(&mut self.control);
            if paused {
                self.events.push(Event::CanOpen);
            }
        }
        while batch.len() < most
            && let Some(key) = self.schedule.pop()
        {
            self.transmit(key, batch, u32::try_from(most).unwrap_or(u32::MAX));
        }
        if !self.control.is_empty() {
            batch.push_control(&mut self.control);
        }
        self.stats.bytes_out += (batch.len() - before) as u64;
        self.check_closing();
    }

    /// Announces a frame of at most `len` bytes that the caller sends from its own buffer right after `batch`, which
    /// [`poll_output`](Self::poll_output) has filled to at most `most`. It is the channel's turn, whatever others of its
    /// urgency have queued; what it has queued itself goes into `batch` first. `None` when something else must go first, or
    /// there is no window: then `write` buffers.
    pub fn begin_direct(&mut self, key: Key, len: usize, batch: &mut Batch, most: usize) -> Option<Direct> {
        if self.cause.is_some() || !self.control.is_empty() {
            return None;
        }
        let address = self.address(key)?;
        let channel = self.table.get_mut(key)?;
        if !matches!(channel.send.state, SendState::Open) || self.schedule.is_outranked(channel.priority.urgency()) {
            return None;
        }
        let before = batch.len();
        while channel.send.buffered() > 0 {
            let room = most.saturating_sub(batch.len()).min(self.limits.frame as usize) as u32;
            let sent = push_frame(&mut self.wire, channel, address, room, batch);
            self.floods.data_sent += sent;
            if sent == 0 {
                self.stats.bytes_out += (batch.len() - before) as u64;
                return None;
            }
        }
        let take = channel.send.spend(len, self.limits.frame);
        if take == 0 {
            self.stats.bytes_out += (batch.len() - before) as u64;
            return None;
        }
        self.liveness.used = true;
        self.wire.encode(&address.data(take), &mut batch.tail);
        self.floods.data_sent += u64::from(take);
        self.stats.bytes_out += (batch.len() - before) as u64 + u64::from(take);
        Some(Direct { take: take as usize })
    }

    /// Sends the next frame of one channel: a body, the end, or both.
    fn transmit(&mut self, key: Key, batch: &mut Batch, most: u32) {
        let shared = if self.schedule.waiting > 0 { Limits::SHARED_FRAME } else { u32::MAX };
        let frame = self.limits.frame.min(shared).min(most);
        let limit = self.send_limit();
        let address = self.address(key);
        let Some(channel) = self.table.get_mut(key) else { return };
        channel.scheduled = false;
        self.liveness.used = true;
        let Some(address) = address.filter(|_| channel.can_transmit()) else { return };
        let was_full = channel.send.buffered();
        self.floods.data_sent += push_frame(&mut self.wire, channel, address, frame, batch);
        let left = channel.send.buffered();
        let half = limit / 2;
        // Woken at half, a writer that fills the buffer in small steps does not wake for every frame.
        if left == 0 || (was_full > half && left <= half) {
            self.events.push(Event::Writable(key));
        }
        if left == 0 && matches!(channel.send.state, SendState::Finishing) {
            self.wire.encode(&address.fin(), &mut batch.tail);
            channel.send.state = SendState::Finished;
            self.settle(key);
        } else {
            self.enqueue(key);
        }
    }

    /// Gives the channel its turn if it can use one.
    pub(super) fn enqueue(&mut self, key: Key) {
        if let Some(channel) = self.table.get_mut(key)
            && !channel.scheduled
            && channel.can_transmit()
        {
            channel.scheduled = true;
            self.schedule.push(channel.priority.urgency(), key);
        }
    }

    fn encode_credits(&mut self) {
        if self.credits.is_empty() {
            return;
        }
        let now = self.micros();
        let round_trip = self.shortest_round_trip().map(|trip| u32::try_from(trip.as_micros()).unwrap_or(u32::MAX));
        while let Some(key) = self.credits.pop() {
            let Some(channel) = self.table.get_mut(key) else { continue };
            channel.owes_credit = false;
            let State::Open { remote } = channel.state else { continue };
            if !channel.recv.is_credit_due() {
                continue;
            }
            let measured = round_trip.and_then(|trip| channel.recv.per_round_trip(now, trip));
            let available = self.budget.available();
            let size = channel.recv.size();
            let fair = self.limits.initial_window(available + u64::from(size), self.budget.limit());
            let (aim, starved) = (aim(fair, size, measured, available), channel.recv.is_starved());
            let aim =
                if starved { aim.max(fair.saturating_mul(Limits::GROWTH).min(size.saturating_mul(2))) } else { aim };
            let more = if available < u64::from(size / 2) && size > fair {
                // A window that leaves others less than half of what it has itself makes room, step by step.
                self.held.shrink(u64::from(channel.recv.shrink(size - fair)));
                0
            } else {
                aim.saturating_sub(size)
            };
            let more = if more > 0 && self.held.grow(u64::from(more)) { more } else { 0 };
            let add = channel.recv.grant(more);
            if add > 0 {
                self.wire.encode(&Outgoing::Credit { to: remote, add }, &mut self.control);
            }
        }
    }
}

/// Moves the next body of at most `most` bytes into `batch`, behind its header. Returns its length; 0 when there is none, or
/// no window.
fn push_frame<W: Wire>(wire: &mut W, channel: &mut Channel, address: Address, most: u32, batch: &mut Batch) -> u64 {
    if let Some(small) = channel.send.next_small(most) {
        // Copying costs less than another slice for the transport.
        let len = small.len();
        wire.encode(&address.data(len as u32), &mut batch.tail);
        batch.tail.extend_from_slice(small);
        channel.send.small_sent();
        return len as u64;
    }
    let body = channel.send.next_body(most);
    let len = body.len();
    if len > 0 {
        wire.encode(&address.data(len as u32), &mut batch.tail);
        batch.push(body);
    }
    len as u64
}

/// The window to aim at: the fair share, or more for a reader that takes so much that the way to the peer and back holds
/// half of a window or more. A window at most doubles at once, and leaves half of the memory that is left to others.
fn aim(fair: u32, size: u32, per_round_trip: Option<u32>, available: u64) -> u32 {
    let Some(read) = per_round_trip else { return fair };
    let room = u32::try_from(available / 2).unwrap_or(u32::MAX);
    fair.max(read.saturating_mul(2).min(size.saturating_mul(2)).min(size.saturating_add(room)))
}

impl Batch {
    /// Appends encoded control frames.
    fn push_control(&mut self, control: &mut BytesMut) {
        self.tail.extend_from_slice(control);
        if control.capacity() > 4096 {
            *control = BytesMut::new();
        } else {
            control.clear();
        }
    }
}
