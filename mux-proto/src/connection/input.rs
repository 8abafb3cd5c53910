//! From the network: bytes into frames, frames into changes of state.

use std::time::Instant;

use bytes::{Buf, Bytes, BytesMut};
use mux_api::{Error, ErrorKind, Initiator, Origin, Priority, codes};

use super::liveness::PROBE;
use super::{Connection, Event, Peer};
use crate::channel::{Channel, Key, RecvSide, RecvState, SendSide, SendState, State};
use crate::{Decoded, Incoming, Limits, LocalId, Outgoing, RemoteId, Wire};

/// Where the input stands: between frames, in a cut header, or in a body.
#[derive(Debug, Default)]
pub(super) struct Parser {
    /// The beginning of a frame that was cut.
    cut: BytesMut,
    body: Option<Body>,
    /// Any frame was seen.
    begun: bool,
}

impl Parser {
    /// Whether the input so far ends in the middle of a message.
    pub(super) fn is_cut(&self) -> bool {
        !self.cut.is_empty() || self.body.is_some()
    }
}

#[derive(Debug)]
struct Body {
    /// The channel it is for; `None` when it is skipped.
    to: Option<Key>,
    left: u32,
}

impl<W: Wire> Connection<W> {
    /// Bytes arrived by `now`. Bodies become slices of `input`, or copies where they are small.
    pub fn handle_input(&mut self, input: Bytes, now: Instant) {
        self.clock = now;
        self.stats.bytes_in += input.len() as u64;
        self.liveness.heard = true;
        if self.cause.is_some() {
            return;
        }
        let before = self.control.len();
        if let Err(error) = self.parse(input) {
            let error = if error.code().is_none() { error.with_code(codes::PROTOCOL) } else { error };
            return self.fail(error, true);
        }
        self.answers += self.control.len() - before;
        if self.answers > Limits::MAX_PENDING_ANSWERS {
            let message = "the peer keeps asking for answers and does not read them";
            self.fail(Error::new(ErrorKind::LimitExceeded, Origin::Peer, message).with_code(codes::LIMIT), true);
        }
    }

    /// The transport goes on in a new receive buffer: slow readers shall not keep the old ones alive for little.
    /// `size` is what the new one takes of memory, however little will be received into it.
    pub fn handle_new_buffer(&mut self, size: usize) {
        self.pins.renew(&mut self.table, size);
    }

    fn parse(&mut self, mut input: Bytes) -> Result<(), Error> {
        while self.cause.is_none() {
            if let Some(body) = &mut self.parser.body {
                let part = input.split_to(input.len().min(body.left as usize));
                body.left -= part.len() as u32;
                let (to, done) = (body.to, body.left == 0);
                if done {
                    self.parser.body = None;
                }
                if let (Some(key), false) = (to, part.is_empty()) {
                    self.deliver(key, part);
                }
                if !done {
                    return Ok(());
                }
            }
            if input.is_empty() {
                return Ok(());
            }
            if !self.parser.cut.is_empty() {
                if !self.parse_cut(&mut input)? {
                    return Ok(());
                }
            } else {
                match self.wire.decode(&input).map_err(violation)? {
                    Decoded::Incomplete => {
                        self.parser.cut.extend_from_slice(&input);
                        return Ok(());
                    }
                    Decoded::Frame(frame, len) => {
                        self.on_frame(frame)?;
                        input.advance(len);
                    }
                }
            }
        }
        Ok(())
    }

    /// Goes on with a frame whose beginning came earlier; `false` when it is still cut.
    fn parse_cut(&mut self, input: &mut Bytes) -> Result<bool, Error> {
        let mut cut = std::mem::take(&mut self.parser.cut);
        let had = cut.len();
        let mut more = 0;
        while more < input.len() {
            // Headers are short: a few bytes do, so most of the input is not copied.
            let next = input.len().min(more + 64.max(more));
            cut.extend_from_slice(&input[more..next]);
            more = next;
            if let Decoded::Frame(frame, len) = self.wire.decode(&cut).map_err(violation)? {
                self.on_frame(frame)?;
                input.advance(len - had);
                return Ok(true);
            }
        }
        self.parser.cut = cut;
        Ok(false)
    }

    fn deliver(&mut self, key: Key, part: Bytes) {
        let Some(channel) = self.table.get_mut(key) else { return };
        let pins = part.len() >= RecvSide::PINS_FROM;
        if channel.recv.push(part, self.pins.epoch()) {
            self.events.push(Event::Readable(key));
            if pins {
                self.pins.note(key);
            }
        } else {
            self.owe_credit(key);
        }
    }

    fn on_frame(&mut self, frame: Incoming<'_>) -> Result<(), Error> {
        let first = !std::mem::replace(&mut self.parser.begun, true);
        if let Peer::Unknown { .. } = self.peer {
            self.establish(matches!(frame, Incoming::Hello));
        }
        match frame {
            // An announcement is never answered by an extended peer; a plain one takes it for a probe. One that comes
            // after we stopped waiting still counts: its sender has seen ours and uses the extension.
            Incoming::Hello if self.announced && first => {
                if !self.is_extended() {
                    self.establish(true);
                }
                self.greet();
            }
            Incoming::Hello => self.say(&Outgoing::HelloRefused),
            Incoming::HelloRefused if self.is_extended() => {
                let message = "the peer speaks the base protocol only, and ext=on demands the extension";
                return Err(Error::new(ErrorKind::Protocol, Origin::Peer, message));
            }
            Incoming::HelloRefused => self.on_answer(None)?,
            Incoming::Probe { from } => self.refuse(from, codes::REFUSED, "the largest packet is too small"),
            Incoming::Open { from, window, max_frame, label, priority } => {
                self.on_open(from, window, max_frame, label, priority);
            }
            Incoming::Confirm { to, from, window, max_frame } => self.on_confirm(to, from, window, max_frame)?,
            Incoming::Refuse { to, code, reason } => self.on_refuse(to, code, reason)?,
            Incoming::Credit { to, add } => self.on_credit(to, add)?,
            Incoming::Data { to, len } => {
                let (key, _) = self.addressed(to, "data")?;
                self.on_data(key, len)?;
            }
            Incoming::EarlyData { from, len } => match self.early(from)? {
                Some(key) => self.on_data(key, len)?,
                None if len > Limits::MAX_FRAME => return Err(refused_early(from)),
                None => self.parser.body = Some(Body { to: None, left: len }),
            },
            Incoming::Fin { to } => {
                let (key, _) = self.addressed(to, "an end")?;
                self.on_fin(key)?;
            }
            Incoming::EarlyFin { from } => {
                if let Some(key) = self.early(from)? {
                    self.on_fin(key)?;
                }
            }
            Incoming::Reset { to, code } => self.on_reset(to, code)?,
            Incoming::Stop { to, code } => self.on_stop(to, code)?,
            Incoming::Close { to } => self.on_close(to)?,
            Incoming::SessionEnd { code, reason } => {
                let message = if reason.is_empty() { "closed by the peer" } else { reason };
                self.fail(Error::new(ErrorKind::Closed, Origin::Peer, message).with_code(code), false);
            }
            Incoming::SessionLimits { channels, early } => self.on_limits(channels, early)?,
            Incoming::OpenCredit { add } => self.on_open_credit(add)?,
            Incoming::Ping { payload } => {
                self.count_idle_talk()?;
                self.say(&Outgoing::Pong { payload });
            }
            Incoming::Pong { payload } => self.on_answer(Some(payload))?,
            Incoming::GoAway { code, taken, reason } => self.on_going_away(code, taken, reason)?,
            Incoming::Skip { len } => {
                self.count_idle_talk()?;
                self.parser.body = Some(Body { to: None, left: len });
            }
        }
        Ok(())
    }

    fn on_open(&mut self, from: RemoteId, window: u32, max_frame: u32, label: &[u8], priority: Priority) {
        let taken = self.take_open(from, window, max_frame, label, priority);
        self.note_answered(from, taken.as_ref().ok().copied());
        if let Err((code, reason)) = taken {
            self.refuse(from, code, reason);
        }
    }

    /// The peer's new channel, or the code and words to refuse it with.
    fn take_open(
        &mut self,
        from: RemoteId,
        window: u32,
        max_frame: u32,
        label: &[u8],
        priority: Priority,
    ) -> Result<Key, (u64, &'static str)> {
        if self.is_draining() {
            return Err((codes::DRAINING, "the session takes no new channels"));
        }
        if label.len() > self.limits.label as usize {
            return Err((codes::LIMIT, "the label is too long"));
        }
        if self.incoming >= self.limits.max_incoming {
            return Err((codes::REFUSED, "too many channels"));
        }
        if self.backlog.len() >= self.limits.backlog as usize {
            return Err((codes::REFUSED, "the accept backlog is full"));
        }
        let size = self.limits.initial_window(self.budget.available(), self.budget.limit());
        // An extended peer may have sent so much already.
        let size = if self.features.session { size.max(self.limits.early) } else { size };
        if !self.held.grow(u64::from(size)) {
            return Err((codes::LIMIT, "no memory for another channel"));
        }
        let channel = Channel {
            state: State::Open { remote: from },
            send: SendSide::new(window, max_frame),
            recv: RecvSide::new(size, self.micros()),
            label: Some(label).filter(|label| !label.is_empty()).map(Box::from),
            initiator: Initiator::Peer,
            priority,
            holders: 0,
            waiting: true,
            scheduled: false,
            owes_credit: false,
        };
        let Some(key) = self.table.insert(channel) else {
            self.release(size);
            return Err((codes::LIMIT, "no channel number is free"));
        };
        self.incoming += 1;
        self.liveness.used = true;
        self.backlog.push_back(key);
        self.say(&Outgoing::Confirm { to: from, from: key.id(), window: size, max_frame: Limits::MAX_FRAME });
        self.events.push(Event::Acceptable);
        Ok(key)
    }

    fn refuse(&mut self, to: RemoteId, code: u64, reason: &str) {
        let code = self.features.labels.then_some(code);
        self.say(&Outgoing::Refuse { to, code, reason });
    }

    fn on_confirm(&mut self, to: LocalId, from: RemoteId, window: u32, max_frame: u32) -> Result<(), Error> {
        let (key, channel) = self.addressed(to, "a confirmation")?;
        if !matches!(channel.state, State::Opening { .. }) {
            return Err(unexpected("a confirmation", to, "is open already"));
        }
        channel.state = State::Open { remote: from };
        if !channel.send.confirmed(window, max_frame.max(1)) {
            return Err(unexpected("a confirmation", to, "was promised more window before"));
        }
        // What happened before the peer's number was known is said now.
        let (reset, stop) = (channel.send.state.clone(), channel.recv.state);
        if self.features.codes {
            if let SendState::Reset(code) = reset {
                self.say(&Outgoing::Reset { to: from, code });
            }
            if let RecvState::Stopped(code) = stop {
                self.say(&Outgoing::Stop { to: from, code });
            }
        } else if matches!(reset, SendState::Reset(_)) {
            self.close_on_wire(key);
        }
        self.events.push(Event::Writable(key));
        self.enqueue(key);
        self.settle(key);
        Ok(())
    }

    fn on_refuse(&mut self, to: LocalId, code: Option<u64>, reason: &str) -> Result<(), Error> {
        if to == PROBE {
            return self.on_answer(None);
        }
        let (key, channel) = self.addressed(to, "a refusal")?;
        if !matches!(channel.state, State::Opening { .. }) {
            return Err(unexpected("a refusal", to, "is open already"));
        }
        channel.state = State::Closed;
        self.note_refused();
        let code = code.unwrap_or(codes::REFUSED);
        let message = match (reason, codes::describe(code)) {
            ("", Some(known)) => format!("the peer refused the channel: {known}"),
            ("", None) => format!("the peer refused the channel with code {code}"),
            _ => format!("the peer refused the channel: {reason}"),
        };
        let error = Error::new(ErrorKind::Refused, Origin::Peer, message).with_code(code).retry_safe(true);
        self.close_send(key, SendState::Refused(error));
        self.close_recv(key, RecvState::Reset(Some(code)));
        self.settle(key);
        Ok(())
    }

    fn on_credit(&mut self, to: LocalId, add: u32) -> Result<(), Error> {
        self.count_credit(add)?;
        let (key, channel) = self.addressed(to, "credit")?;
        match channel.state {
            State::Open { .. } if channel.send.grow(add) => self.enqueue(key),
            State::Open { .. } => return Err(unexpected("credit", to, "would exceed 2^32-1 bytes of window")),
            State::Closing => {}
            State::Opening { .. } | State::Closed => return Err(unexpected("credit", to, "is not open")),
        }
        Ok(())
    }

    /// A body of `len` bytes follows.
    fn on_data(&mut self, key: Key, len: u32) -> Result<(), Error> {
        let (to, channel) = (key.id(), channel_mut(&mut self.table, key));
        match channel.state {
            State::Opening { .. } | State::Closed => return Err(unexpected("data", to, "is not open")),
            State::Open { .. } | State::Closing => {}
        }
        if matches!(channel.recv.state, RecvState::Finished | RecvState::Reset(_)) {
            return Err(unexpected("data", to, "was ended by the peer before"));
        }
        if len > Limits::MAX_FRAME {
            return Err(unexpected("data", to, "takes no packet of that size"));
        }
        if !channel.recv.receive(len) {
            return Err(unexpected("data", to, "has not so much window left"));
        }
        if len == 0 {
            return self.count_idle_talk();
        }
        self.liveness.used = true;
        self.parser.body = Some(Body { to: Some(key), left: len });
        Ok(())
    }

    fn on_fin(&mut self, key: Key) -> Result<(), Error> {
        let (to, channel) = (key.id(), channel_mut(&mut self.table, key));
        match (channel.state, channel.recv.state) {
            (State::Opening { .. } | State::Closed, _) => return Err(unexpected("an end", to, "is not open")),
            (_, RecvState::Finished | RecvState::Reset(_)) => {
                return Err(unexpected("an end", to, "was ended by the peer before"));
            }
            (_, RecvState::Stopped(_)) => {}
            (_, RecvState::Open | RecvState::Discarding) => self.close_recv(key, RecvState::Finished),
        }
        self.settle(key);
        Ok(())
    }

    fn on_reset(&mut self, to: LocalId, code: u64) -> Result<(), Error> {
        let (key, channel) = self.addressed(to, "a reset")?;
        match (channel.state, channel.recv.state) {
            (State::Opening { .. } | State::Closed, _) => return Err(unexpected("a reset", to, "is not open")),
            (_, RecvState::Open | RecvState::Discarding) => {
                self.stats.resets_in += 1;
                self.close_recv(key, RecvState::Reset(Some(code)));
            }
            // It crossed our own stop, or came after the end: the direction is over either way.
            (_, RecvState::Stopped(_)) => {}
            (_, RecvState::Finished | RecvState::Reset(_)) => self.count_idle_talk()?,
        }
        if self.settle(key) { self.count_idle_talk() } else { Ok(()) }
    }

    fn on_stop(&mut self, to: LocalId, code: u64) -> Result<(), Error> {
        let (key, channel) = self.addressed(to, "a stop")?;
        match channel.state {
            State::Opening { .. } | State::Closed => return Err(unexpected("a stop", to, "is not open")),
            State::Open { .. } | State::Closing => {}
        }
        match channel.send.state {
            SendState::Open | SendState::Finishing => self.close_send(key, SendState::Stopped(Some(code))),
            SendState::Stopped(_) => self.count_idle_talk()?,
            _ => {}
        }
        if self.settle(key) { self.count_idle_talk() } else { Ok(()) }
    }

    fn on_close(&mut self, to: LocalId) -> Result<(), Error> {
        let (key, channel) = self.addressed(to, "a close")?;
        let (state, recv) = (channel.state, channel.recv.state);
        let send_open = matches!(channel.send.state, SendState::Open | SendState::Finishing);
        match state {
            State::Opening { .. } | State::Closed => return Err(unexpected("a close", to, "is not open")),
            State::Open { remote } => self.say(&Outgoing::Close { to: remote }),
            State::Closing => {}
        }
        channel_mut(&mut self.table, key).state = State::Closed;
        if send_open {
            self.close_send(key, SendState::Stopped(None));
        }
        if matches!(recv, RecvState::Open | RecvState::Discarding) {
            // Peers without resets close for a normal end; with them, or after our own close, the end is not clean.
            let clean = !self.features.codes && state != State::Closing;
            self.close_recv(key, if clean { RecvState::Finished } else { RecvState::Reset(None) });
        }
        self.settle(key);
        Ok(())
    }

    fn addressed(&mut self, id: LocalId, what: &str) -> Result<(Key, &mut Channel), Error> {
        let key = self.table.by_id(id).ok_or_else(|| unexpected(what, id, "does not exist"))?;
        Ok((key, channel_mut(&mut self.table, key)))
    }
}

fn channel_mut(table: &mut crate::channel::Table, key: Key) -> &mut Channel {
    table.get_mut(key).expect("the key was looked up in the same call")
}

fn refused_early(from: RemoteId) -> Error {
    let message = format!("the peer broke the protocol: early data for {from}, which takes no packet of that size");
    Error::new(ErrorKind::Protocol, Origin::Peer, message)
}

fn violation(error: crate::WireError) -> Error {
    Error::new(ErrorKind::Protocol, Origin::Peer, format!("the peer broke the protocol: {error}"))
}

fn unexpected(what: &str, id: LocalId, why: &str) -> Error {
    Error::new(
        ErrorKind::Protocol,
        Origin::Peer,
        format!("the peer broke the protocol: {what} for channel {id}, which {why}"),
    )
}
