//! From the application: open, accept, write, read, end.

use std::io::IoSlice;

use bytes::Bytes;
use mux_api::{Error, ErrorKind, Initiator, OpenOptions, Origin, Priority, Result, codes};

use super::{Connection, Event};
use crate::channel::{Channel, Chunk, Key, RecvSide, RecvState, SendSide, SendState, State};
use crate::{Limits, Outgoing, Wire};

/// Encoded control frames above this make `open` wait: the transport does not take what was said before.
const OPEN_PAUSES_AT: usize = 64 * 1024;

impl<W: Wire> Connection<W> {
    /// Opens a channel; the caller holds both halves. `None`: not now, [`Event::CanOpen`] will follow.
    ///
    /// # Errors
    /// Labels the peer or the limits do not allow, no memory in the budget, or why the session takes no channel.
    pub fn open(&mut self, options: &OpenOptions) -> Result<Option<Key>> {
        self.may_open()?;
        if !options.label.is_empty() && !self.features.labels {
            return Err(Error::unsupported("this session's peer does not understand labels; open without one"));
        }
        if options.label.len() > self.limits.label as usize {
            let message = format!("the label has {} bytes; {} are allowed", options.label.len(), self.limits.label);
            return Err(Error::new(ErrorKind::TooBig, Origin::Local, message));
        }
        if !self.can_open() {
            return Ok(None);
        }
        let size = self.limits.initial_window(self.budget.available(), self.budget.limit());
        if !self.held.grow(u64::from(size)) {
            let message =
                format!("no memory for another channel: the budget of {} bytes is in use", self.budget.limit());
            return Err(Error::new(ErrorKind::LimitExceeded, Origin::Local, message).retry_safe(true));
        }
        let channel = Channel {
            state: State::Opening { seq: self.opens.said },
            send: SendSide::opening(self.early_window()),
            recv: RecvSide::new(size, self.micros()),
            label: Some(&options.label[..]).filter(|label| !label.is_empty()).map(Box::from),
            initiator: Initiator::Local,
            priority: options.priority,
            holders: 2,
            waiting: false,
            scheduled: false,
            owes_credit: false,
        };
        let Some(key) = self.table.insert(channel) else {
            self.release(size);
            let message = "no channel number is free";
            return Err(Error::new(ErrorKind::LimitExceeded, Origin::Local, message).retry_safe(true));
        };
        self.note_open();
        self.stats.channels_opened += 1;
        self.liveness.used = true;
        self.say(&Outgoing::Open {
            from: key.id(),
            window: size,
            max_frame: Limits::MAX_FRAME,
            label: &options.label,
            priority: options.priority,
        });
        Ok(Some(key))
    }

    /// Whether [`open`](Self::open) needs no waiting.
    pub fn can_open(&self) -> bool {
        self.may_open().is_err() || (self.control.len() < OPEN_PAUSES_AT && self.has_open_credit())
    }

    fn may_open(&self) -> Result<()> {
        if let Some(cause) = &self.cause {
            return Err(cause.clone());
        }
        if self.is_draining() {
            let error =
                Error::new(ErrorKind::GoAway, Origin::Local, "this session is draining and opens no new channel");
            return Err(error.with_code(codes::DRAINING).retry_safe(true));
        }
        self.opens.gone_away.clone().map_or(Ok(()), Err)
    }

    /// The oldest channel that waits for it; the caller holds both halves. `None`: none yet.
    ///
    /// # Errors
    /// Why the session ended, once none is left.
    pub fn accept(&mut self) -> Result<Option<Key>> {
        let Some(key) = self.backlog.pop_front() else {
            return self.cause.clone().map_or(Ok(None), Err);
        };
        if let Some(channel) = self.table.get_mut(key) {
            channel.waiting = false;
            channel.holders = 2;
            self.stats.channels_accepted += 1;
        }
        Ok(Some(key))
    }

    /// How many channels wait for [`accept`](Self::accept).
    pub fn backlog(&self) -> usize {
        self.backlog.len()
    }

    /// The label, the priority and who opened it.
    pub fn describe(&self, key: Key) -> Option<(Bytes, Priority, Initiator)> {
        let channel = self.table.get(key)?;
        let label = channel.label.as_deref().map(Bytes::copy_from_slice).unwrap_or_default();
        Some((label, channel.priority, channel.initiator))
    }

    /// Copies as much of `bufs` as the channel's buffer has room for; 0 when it is full.
    ///
    /// # Errors
    /// Why the direction, or the session, is over.
    pub fn write(&mut self, key: Key, bufs: &[IoSlice<'_>]) -> Result<usize> {
        let limit = self.send_limit();
        let written = self.writable(key)?.send.write(bufs, limit);
        self.enqueue(key);
        Ok(written)
    }

    /// Queues the front of `data` without a copy; 0 when the buffer is full.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub fn write_bytes(&mut self, key: Key, data: &mut Bytes) -> Result<usize> {
        let limit = self.send_limit();
        let written = self.writable(key)?.send.write_bytes(data, limit);
        self.enqueue(key);
        Ok(written)
    }

    /// Takes bytes that the half has accepted already, so whatever the buffer holds. Returns how many more it may accept by
    /// itself: none unless these can be sent.
    pub fn write_accepted(&mut self, key: Key, bytes: &[u8]) -> usize {
        let limit = self.send_limit();
        // After an end nobody sends them, like whatever else was buffered.
        let Ok(channel) = self.writable(key) else { return 0 };
        channel.send.write(&[IoSlice::new(bytes)], usize::MAX);
        let room = limit.saturating_sub(channel.send.buffered());
        self.enqueue(key);
        if self.table.get(key).is_some_and(|channel| channel.scheduled) { room } else { 0 }
    }

    /// Room in the channel's buffer.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub fn room(&mut self, key: Key) -> Result<usize> {
        let limit = self.send_limit();
        Ok(limit.saturating_sub(self.writable(key)?.send.buffered()))
    }

    /// How much a channel may buffer: while many have something to send, less each, so that what waits for the
    /// transport stays small enough for the processor's cache.
    pub fn send_limit(&self) -> usize {
        let most = self.limits.send_buffer as usize;
        if self.sendable() <= 1 {
            // The usual case costs no division.
            return Limits::SHARED_SEND_BUFFER.clamp(most.min(Limits::LEAST_SEND_BUFFER), most);
        }
        (Limits::SHARED_SEND_BUFFER / self.sendable()).clamp(most.min(Limits::LEAST_SEND_BUFFER), most)
    }

    /// Bytes written on the channel and not yet handed over.
    pub fn send_buffered(&self, key: Key) -> usize {
        self.table.get(key).map_or(0, |channel| channel.send.buffered())
    }

    /// Whether the end, or data before it, is still to be sent, and why the direction failed if it did.
    ///
    /// # Errors
    /// Stopped, reset, refused, or why the session is over before the end was sent.
    pub fn is_send_done(&self, key: Key) -> Result<bool> {
        let channel = self.table.get(key).ok_or_else(|| self.gone())?;
        match &channel.send.state {
            SendState::Finished => Ok(true),
            SendState::Open | SendState::Finishing => self.cause.clone().map_or(Ok(false), Err),
            _ => Err(self.send_error(channel)),
        }
    }

    /// Whether the peer has confirmed the channel.
    ///
    /// # Errors
    /// The refusal, or why the session is over.
    pub fn is_opened(&self, key: Key) -> Result<bool> {
        let channel = self.table.get(key).ok_or_else(|| self.gone())?;
        match (&channel.send.state, channel.state) {
            (SendState::Refused(error), _) => Err(error.clone()),
            (_, State::Opening { .. }) => self.cause.clone().map_or(Ok(false), Err),
            _ => Ok(true),
        }
    }

    /// Ends the sending direction after what was written.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub fn finish(&mut self, key: Key) -> Result<()> {
        self.writable(key)?.send.state = SendState::Finishing;
        self.enqueue(key);
        Ok(())
    }

    /// Abandons the sending direction. A peer without codes sees the channel closed.
    ///
    /// # Errors
    /// [`Unsupported`](ErrorKind::Unsupported) for an application's code other than 0 that the peer cannot be told;
    /// otherwise why the direction was over already.
    pub fn reset(&mut self, key: Key, code: u64) -> Result<()> {
        let codes = self.features.codes;
        let channel = self.table.get(key).ok_or_else(|| self.gone())?;
        match &channel.send.state {
            SendState::Open | SendState::Finishing if self.cause.is_none() => {}
            _ => return Err(self.send_error(channel)),
        }
        if !codes && code != codes::NO_ERROR && code < codes::LIBRARY_FIRST {
            return Err(Error::unsupported("this session's peer does not understand reset codes; use code 0"));
        }
        let remote = channel.state.remote();
        self.stats.resets_out += 1;
        self.close_send(key, SendState::Reset(code));
        match remote {
            Some(to) if codes => self.say(&Outgoing::Reset { to, code }),
            Some(_) => self.close_on_wire(key),
            None => {}
        }
        self.settle(key);
        Ok(())
    }

    /// Reads no more, and tells the peer.
    ///
    /// # Errors
    /// [`Unsupported`](ErrorKind::Unsupported) where the peer cannot be told; nothing has changed then.
    pub fn stop(&mut self, key: Key, code: u64) -> Result<()> {
        if !self.features.codes {
            return Err(Error::unsupported("this session's peer does not understand stop"));
        }
        self.abandon(key, code);
        Ok(())
    }

    /// Reads no more; the peer is told where it understands.
    pub fn abandon(&mut self, key: Key, code: u64) {
        let Some(channel) = self.table.get(key) else { return };
        if channel.recv.state == RecvState::Open && self.cause.is_none() {
            let remote = channel.state.remote();
            if self.features.codes {
                self.close_recv(key, RecvState::Stopped(code));
                if let Some(to) = remote {
                    self.say(&Outgoing::Stop { to, code });
                }
            } else {
                self.close_recv(key, RecvState::Discarding);
                self.owe_credit(key);
            }
        } else {
            // Nobody will read what waits; after that, the peer's end must not look like the end of what was read.
            let state = match channel.recv.state {
                RecvState::Finished if channel.recv.buffered() > 0 => RecvState::Stopped(code),
                state => state,
            };
            if let Some(channel) = self.table.get_mut(key) {
                channel.recv.discard();
                let free = channel.recv.close(state);
                self.release(free);
            }
        }
        self.settle(key);
    }

    /// The next bytes, at most `most` of them.
    ///
    /// # Errors
    /// Reset with the peer's code, stopped by ourselves, or why the session is over.
    pub fn take(&mut self, key: Key, most: usize) -> Result<Chunk> {
        let Some(channel) = self.table.get_mut(key) else { return Err(self.gone()) };
        if let Some(data) = channel.recv.take(most) {
            self.after_read(key);
            return Ok(Chunk::Data(data));
        }
        let channel = self.table.get(key).ok_or_else(|| self.gone())?;
        self.recv_end(channel)
    }

    /// Lends the half a copy of the next bytes, so that it serves small reads, of at most `most`, without asking; `None`:
    /// [`take`](Self::take) them. What was lent comes before whatever is taken, and counts as read once it is
    /// [`returned`](Self::returned).
    pub fn lend(&mut self, key: Key, most: usize) -> Option<Vec<u8>> {
        self.table.get_mut(key)?.recv.lend(most)
    }

    /// So many bytes of what was lent were read since the last time; `false` when the rest is not to be read any more.
    pub fn returned(&mut self, key: Key, read: usize) -> bool {
        let holds = self.table.get_mut(key).is_some_and(|channel| channel.recv.returned(read));
        self.after_read(key);
        holds
    }

    /// Whether at least `min` bytes, or as many as the window holds, wait, or a read would end or fail.
    pub fn is_readable(&self, key: Key, min: usize) -> bool {
        let Some(channel) = self.table.get(key) else { return true };
        let enough = min.clamp(1, (channel.recv.size() / 2).max(1) as usize);
        channel.recv.buffered() as usize >= enough || !matches!(self.recv_end(channel), Ok(Chunk::Empty))
    }

    /// Bytes that wait to be read.
    pub fn recv_buffered(&self, key: Key) -> usize {
        self.table.get(key).map_or(0, |channel| channel.recv.buffered() as usize)
    }

    /// What an empty receiving direction means.
    fn recv_end(&self, channel: &Channel) -> Result<Chunk> {
        match (channel.recv.state, &channel.send.state) {
            (_, SendState::Refused(error)) => Err(error.clone()),
            (RecvState::Finished, _) => Ok(Chunk::End),
            (RecvState::Reset(Some(code)), _) => {
                let message = match codes::describe(code) {
                    Some(known) => format!("the peer reset the channel: {known}"),
                    None => format!("the peer reset the channel with code {code}"),
                };
                Err(Error::new(ErrorKind::Reset, Origin::Peer, message).with_code(code))
            }
            (RecvState::Reset(None), _) => {
                Err(Error::new(ErrorKind::Reset, Origin::Peer, "the peer closed the channel without finishing it"))
            }
            (RecvState::Stopped(_) | RecvState::Discarding, _) => {
                Err(Error::new(ErrorKind::Finished, Origin::Local, "this side stopped reading the channel"))
            }
            (RecvState::Open, _) => self.cause.clone().map_or(Ok(Chunk::Empty), Err),
        }
    }

    /// Changes the urgency of what is still to be sent.
    pub fn set_priority(&mut self, key: Key, priority: Priority) {
        if let Some(channel) = self.table.get_mut(key) {
            channel.priority = priority;
        }
    }

    /// The application let go of one half.
    pub fn release_half(&mut self, key: Key) {
        if let Some(channel) = self.table.get_mut(key) {
            channel.holders = channel.holders.saturating_sub(1);
            self.forget_if_over(key);
        }
    }

    fn writable(&mut self, key: Key) -> Result<&mut Channel> {
        let over = self.cause.is_some();
        let channel = self.table.get(key).ok_or_else(|| self.gone())?;
        if over || !matches!(channel.send.state, SendState::Open) {
            return Err(self.send_error(channel));
        }
        self.table.get_mut(key).ok_or_else(Error::closed_locally)
    }

    fn send_error(&self, channel: &Channel) -> Error {
        let finished = |message| Error::new(ErrorKind::Finished, Origin::Local, message);
        match &channel.send.state {
            SendState::Stopped(Some(code)) => {
                let message = match codes::describe(*code) {
                    Some(known) => format!("the peer stopped reading: {known}"),
                    None => format!("the peer stopped reading with code {code}"),
                };
                Error::new(ErrorKind::Stopped, Origin::Peer, message).with_code(*code)
            }
            SendState::Stopped(None) => Error::new(ErrorKind::Stopped, Origin::Peer, "the peer closed the channel"),
            SendState::Refused(error) => error.clone(),
            SendState::Finished => finished("this side finished the channel before"),
            SendState::Reset(_) => finished("this side reset the channel before"),
            SendState::Finishing if self.cause.is_none() => finished("this side finished the channel before"),
            SendState::Open | SendState::Finishing => self.gone(),
        }
    }

    fn gone(&self) -> Error {
        self.cause.clone().unwrap_or_else(Error::closed_locally)
    }

    /// After a read: gives budget back past the end, or owes the peer credit.
    fn after_read(&mut self, key: Key) {
        let Some(channel) = self.table.get_mut(key) else { return };
        let free = channel.recv.settle();
        if free > 0 {
            self.release(free);
        } else {
            self.owe_credit(key);
        }
    }

    /// Queues a credit message if one is due; it is encoded as late as possible.
    pub(super) fn owe_credit(&mut self, key: Key) {
        if let Some(channel) = self.table.get_mut(key)
            && channel.recv.is_credit_due()
            && !channel.owes_credit
            && matches!(channel.state, State::Open { .. })
            && self.cause.is_none()
        {
            channel.owes_credit = true;
            self.credits.push(key);
        }
    }

    /// CLOSE without an end: all that a peer without codes can be told.
    pub(super) fn close_on_wire(&mut self, key: Key) {
        if let Some(channel) = self.table.get_mut(key)
            && let State::Open { remote } = channel.state
        {
            channel.state = State::Closing;
            self.say(&Outgoing::Close { to: remote });
            self.events.push(Event::Readable(key));
        }
    }
}
