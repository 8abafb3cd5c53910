//! A connection: bytes and time in, bytes and events out.

mod command;
mod floods;
mod input;
mod liveness;
mod opens;
mod output;
mod pins;
mod shutdown;

use std::collections::VecDeque;
use std::time::Instant;

use bytes::BytesMut;
use mux_api::{Budget, Error, Reservation, Stats};

use crate::channel::{Channel, Key, RecvState, SendState, State, Table};
use crate::{Features, Limits, Outgoing, Wire};
use floods::Floods;
use input::Parser;
use liveness::Liveness;
use opens::Opens;
pub use output::Direct;
use output::Schedule;
use pins::Pins;
use shutdown::Lifecycle;

/// One end of a session, without I/O.
///
/// Three kinds of calls, in any order; after each, drain the other two:
/// - **from the network**: [`handle_input`](Self::handle_input), [`handle_eof`](Self::handle_eof),
///   [`handle_transport_error`](Self::handle_transport_error), [`handle_timeout`](Self::handle_timeout);
/// - **from the application**: `open`, `accept`, `write`, `take`, `finish`, `reset`, `stop`, `close`, …;
/// - **out**: [`poll_event`](Self::poll_event) until `None` says whom to wake; [`poll_output`](Self::poll_output) until
///   nothing is left gives what to send; [`next_deadline`](Self::next_deadline) says when time matters next.
///
/// A peer's violation ends the session; a call for a channel that is over is an error of that channel.
#[derive(Debug)]
pub struct Connection<W> {
    wire: W,
    limits: Limits,
    budget: Budget,
    /// What the channels' windows hold of the budget.
    held: Reservation,
    table: Table,
    /// Channels of the peer's that have an entry.
    incoming: u32,
    /// Incoming channels that wait for `accept`, oldest first.
    backlog: VecDeque<Key>,
    parser: Parser,
    /// Encoded frames that are not data, in order; they go before data.
    control: BytesMut,
    /// How many bytes of it the peer provoked.
    answers: usize,
    /// Channels that owe the peer a credit message, said as late as possible so that credits add up.
    credits: Vec<Key>,
    schedule: Schedule,
    events: Vec<Event>,
    peer: Peer,
    /// We said that we understand the extension.
    announced: bool,
    features: Features,
    lifecycle: Lifecycle,
    liveness: Liveness,
    opens: Opens,
    floods: Floods,
    /// When something last arrived or was due.
    clock: Instant,
    began: Instant,
    /// Why the session is over.
    cause: Option<Error>,
    stats: Stats,
    pins: Pins,
}

/// What is known of the peer's abilities.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Peer {
    /// Our announcement is out; its answer decides, or this moment.
    Unknown { until: Instant },
    /// The base protocol only.
    Plain,
    /// The extension too.
    Extended,
}

/// Something that may let a waiting task go on. It is a hint to look again, not a promise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The peer's abilities are known: the session is up.
    Established,
    /// Data, the end or a failure waits on the channel.
    Readable(Key),
    /// The channel was confirmed, takes more data, or its sending direction is over.
    Writable(Key),
    /// A channel waits to be accepted.
    Acceptable,
    /// `open` may succeed again, or fails.
    CanOpen,
    /// A round trip was measured.
    Answered,
    /// The session is over.
    Ended,
}

impl<W: Wire> Connection<W> {
    /// A connection that announces the extension (`Some(true)`: and takes the peer's for granted), or does without
    /// it (`None`). `extension` is `Some(false)` when the peer's answer shall decide.
    pub fn new(wire: W, limits: Limits, budget: Budget, extension: Option<bool>, now: Instant) -> Self {
        let peer = match extension {
            Some(true) => Peer::Extended,
            Some(false) => Peer::Unknown { until: now + limits.hello_wait },
            None => Peer::Plain,
        };
        let features = wire.features(peer == Peer::Extended);
        let liveness = Liveness::new(&limits, now);
        // An empty reservation always fits.
        let held = budget.reserve(0).unwrap_or_else(|| unreachable!("nothing was reserved"));
        let mut this = Self {
            wire,
            budget,
            held,
            table: Table::new(limits.numbers),
            incoming: 0,
            backlog: VecDeque::new(),
            parser: Parser::default(),
            control: BytesMut::new(),
            answers: 0,
            credits: Vec::new(),
            schedule: Schedule::default(),
            events: Vec::new(),
            peer,
            announced: extension.is_some(),
            features,
            lifecycle: Lifecycle::Live,
            liveness,
            opens: Opens::default(),
            floods: Floods::new(now),
            clock: now,
            began: now,
            limits,
            cause: None,
            stats: Stats::default(),
            pins: Pins::default(),
        };
        if extension.is_some() {
            this.say(&Outgoing::Hello);
            this.liveness.asked_since(Some(now));
        }
        if !matches!(peer, Peer::Unknown { .. }) {
            this.establish(peer == Peer::Extended);
        }
        this
    }

    /// The next thing to act on.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop()
    }

    /// Whether [`poll_event`](Self::poll_event) has something to tell.
    pub fn has_events(&self) -> bool {
        !self.events.is_empty()
    }

    /// Whether the peer's abilities are known.
    pub fn is_established(&self) -> bool {
        !matches!(self.peer, Peer::Unknown { .. })
    }

    /// Whether the peer announced the extension.
    pub fn is_extended(&self) -> bool {
        self.peer == Peer::Extended
    }

    /// Why the session is over; `None` while it lives.
    pub fn cause(&self) -> Option<&Error> {
        self.cause.as_ref()
    }

    /// Counters.
    pub fn stats(&self) -> Stats {
        let mut stats = self.stats;
        stats.channels_open = self.table.len() as u64;
        stats.recv_buffered = self.table.iter().map(|channel| u64::from(channel.recv.buffered())).sum();
        stats.send_buffered = self.table.iter().map(|channel| channel.send.buffered() as u64).sum();
        stats.budget_used = self.held.bytes();
        stats.rtt = self.smoothed_round_trip();
        stats
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due, if ever.
    pub fn next_deadline(&self) -> Option<Instant> {
        let ending = self.lifecycle.deadline();
        if self.cause.is_some() {
            return ending;
        }
        let hello = match self.peer {
            Peer::Unknown { until } => Some(until),
            Peer::Plain | Peer::Extended => None,
        };
        ending.into_iter().chain(hello).chain(self.liveness.deadline()).min()
    }

    /// Time has come to `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.clock = now;
        if let Peer::Unknown { until } = self.peer
            && now >= until
        {
            self.establish(false);
        }
        self.pins.look_at_all(&mut self.table);
        self.check_linger(now);
        self.check_alive(now);
    }

    fn establish(&mut self, extended: bool) {
        self.peer = if extended { Peer::Extended } else { Peer::Plain };
        self.features = self.wire.features(extended);
        self.events.push(Event::Established);
    }

    /// The clock in microseconds since some moment; it wraps.
    fn micros(&self) -> u32 {
        self.clock.saturating_duration_since(self.began).as_micros() as u32
    }

    /// Encodes a frame that is not data.
    fn say(&mut self, frame: &Outgoing<'_>) {
        self.wire.encode(frame, &mut self.control);
    }

    /// Gives `bytes` of the budget back.
    fn release(&mut self, bytes: u32) {
        self.held.shrink(u64::from(bytes));
    }

    /// Ends the receiving direction of a channel and gives its window back.
    fn close_recv(&mut self, key: Key, state: RecvState) {
        if let Some(channel) = self.table.get_mut(key) {
            let free = channel.recv.close(state);
            self.held.shrink(u64::from(free));
            self.events.push(Event::Readable(key));
        }
    }

    /// Ends the sending direction of a channel; what was not sent is dropped.
    fn close_send(&mut self, key: Key, state: SendState) {
        if let Some(channel) = self.table.get_mut(key) {
            channel.send.discard();
            channel.send.state = state;
            self.events.push(Event::Writable(key));
        }
    }

    /// Says CLOSE once both directions are over on our side, and forgets the channel once nobody needs it. `true`: its
    /// opener gave it up before anyone saw it.
    fn settle(&mut self, key: Key) -> bool {
        let Some(channel) = self.table.get_mut(key) else { return false };
        let send_over = !matches!(channel.send.state, SendState::Open | SendState::Finishing);
        let recv_over = channel.recv.state != RecvState::Open;
        if let State::Open { remote } = channel.state
            && send_over
            && recv_over
        {
            channel.state = State::Closing;
            self.wire.encode(&Outgoing::Close { to: remote }, &mut self.control);
        }
        let given_up = channel.waiting && send_over && matches!(channel.recv.state, RecvState::Reset(_));
        if given_up {
            channel.waiting = false;
            self.backlog.retain(|waiting| *waiting != key);
        }
        self.forget_if_over(key);
        given_up
    }

    fn forget_if_over(&mut self, key: Key) {
        let over = |channel: &Channel| {
            channel.holders == 0 && !channel.waiting && (channel.state == State::Closed || self.cause.is_some())
        };
        if self.table.get(key).is_some_and(over)
            && let Some(channel) = self.table.remove(key)
        {
            self.release(channel.recv.size());
            if channel.initiator == mux_api::Initiator::Peer {
                self.incoming -= 1;
                self.note_gone();
            }
        }
    }
}
