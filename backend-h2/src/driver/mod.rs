//! The task behind a connection: it alone calls h2. It drives the connection, reads every stream of the session,
//! writes what channels have queued, keeps the pool of parked requests, and sees to the end.

mod carrier;
mod client;
mod control;
mod door;
mod end;
mod growth;
mod line;
mod read;
mod server;
mod time;
mod wire;
mod write;

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::BytesMut;
use h2::client::SendRequest;
use mux_api::Error;
use slab::Slab;
use tokio::sync::oneshot;
use tokio::time::{Instant, Sleep};

use crate::channel::Channel;
use crate::headers::{self, Requests};
use crate::io::Io;
use crate::record::Outgoing;
use crate::send::SendState;
use crate::session::{Shared, wake};
pub(crate) use carrier::carry;
use client::Client;
pub(crate) use door::{Door, Entry, House, MoreEntries};
use end::Ending;
use growth::Growth;
use line::Line;
use server::Server;
use wire::{Conn, Kind, Wire};

/// Rounds of a turn before other tasks get theirs.
const ROUNDS: usize = 8;

/// What a channel may send at first when the peer's control stream does not say (docs/h2.md, section 4).
const UNTOLD_CREDIT: u64 = 64 * 1024;

pub(crate) struct Driver {
    shared: Arc<Shared>,
    conn: Conn,
    /// What the connection wakes: the driver, unless it is its turn.
    conn_waker: Waker,
    side: Side,
    /// Streams by the key of their links. An entry is empty while it is looked at.
    wires: Slab<Option<Wire>>,
    control_key: Option<usize>,
    /// Control records to be sent.
    control: BytesMut,
    look_at_control: bool,
    /// The control stream is answered.
    established: bool,
    /// What a channel may send when the peer's HEADERS for it do not say.
    usual_credit: u64,
    /// No new channels, either way: said to the peer.
    draining: bool,
    /// We have begun the polite end and turned the channels to it.
    closing: bool,
    /// We have said CLOSE.
    close_said: bool,
    /// We have said CLOSE at the abrupt end; the peer has answered it, or is gone.
    told_end: bool,
    heard_end: bool,
    /// The peer has said CLOSE: with what, and until when its last bytes are waited for.
    peer_closing: Option<(Error, Instant)>,
    /// Why the connection has ended, once it has.
    conn_lost: Option<Error>,
    ending: Ending,
    pings: VecDeque<Ping>,
    next_ping: u64,
    /// When the peer was last heard or seen to take bytes, and when a channel was last used.
    last_heard: Instant,
    heard_in_turn: bool,
    last_used: Instant,
    /// The count of traffic then.
    used: u64,
    /// When streams without traffic were last kept alive.
    last_sweep: Instant,
    started: Instant,
    /// Streams to be let go of, in order of time.
    winding: VecDeque<(Instant, usize)>,
    /// Channels with data that h2 has no room for.
    line: Line,
    growth: Growth,
    timer: Option<Pin<Box<Sleep>>>,
    /// When the timer fires, and what it wakes then.
    due: Option<Instant>,
    timed: Waker,
    keys: Vec<usize>,
    requests: Vec<wire::Incoming>,
    /// Channels whose readers or writers were woken in this turn.
    woken: usize,
    /// Channels of the peer's that came in this turn, and whether the next turn waits once more for what they are used for.
    arrived: usize,
    waits: bool,
    /// The connection, which others need longer.
    handed_over: Option<h2::server::Connection<Io, Outgoing>>,
    /// Held as long as the transport.
    guard: Option<Box<dyn Send>>,
}

/// Which end we are.
enum Side {
    Client(Box<Client>),
    Server(Box<Server>),
    /// Nothing is opened or accepted any more.
    Over,
}

/// A ping without its answer yet.
struct Ping {
    number: u64,
    sent: Instant,
    waiting: Vec<oneshot::Sender<Duration>>,
}

impl Driver {
    /// The dialing end of a session.
    pub(crate) fn client(
        shared: Arc<Shared>,
        conn: h2::client::Connection<Io, Outgoing>,
        requests: SendRequest<Outgoing>,
        make: Requests,
    ) -> Result<Self, h2::Error> {
        let side = Side::Client(Box::new(Client::new(requests, make, shared.limits.requests)));
        let mut driver = Self::new(shared, Conn::Client(conn), side, None);
        driver.open_control()?;
        Ok(driver)
    }

    fn new(shared: Arc<Shared>, conn: Conn, side: Side, guard: Option<Box<dyn Send>>) -> Self {
        let now = Instant::now();
        Self {
            line: Line::default(),
            growth: Growth::new(match side {
                Side::Client(_) => shared.limits.window,
                _ => shared.limits.accepting_most,
            }),
            conn_waker: Waker::from(Arc::clone(&shared.ready)),
            shared,
            conn,
            side,
            wires: Slab::new(),
            control_key: None,
            control: BytesMut::new(),
            look_at_control: false,
            established: false,
            usual_credit: 0,
            draining: false,
            closing: false,
            close_said: false,
            told_end: false,
            heard_end: false,
            peer_closing: None,
            conn_lost: None,
            ending: Ending::No,
            pings: VecDeque::new(),
            next_ping: 0,
            last_heard: now,
            heard_in_turn: false,
            last_used: now,
            used: 0,
            last_sweep: now,
            started: now,
            winding: VecDeque::new(),
            timer: None,
            due: None,
            timed: Waker::noop().clone(),
            keys: Vec::new(),
            requests: Vec::new(),
            woken: 0,
            arrived: 0,
            waits: false,
            handed_over: None,
            guard,
        }
    }

    /// The peer's side of the control stream is there.
    fn establish(&mut self, fields: &http::HeaderMap) {
        let credits = headers::credits(fields, UNTOLD_CREDIT);
        if matches!(self.side, Side::Client(_)) {
            self.growth.note(self.started.elapsed());
        }
        self.established = true;
        self.usual_credit = credits.window;
        self.shared.establish(credits.early);
    }

    /// An entry for a stream, linked to its channel.
    fn new_wire(&mut self, kind: Kind) -> usize {
        let entry = self.wires.vacant_entry();
        let key = entry.key();
        entry.insert(Some(Wire::new(kind, key, &self.shared.counters)));
        key
    }

    /// Forgets a stream; h2 resets it unless it has ended.
    fn drop_wire(&mut self, key: usize) {
        if self.control_key == Some(key) {
            self.control_key = None;
        }
        self.wires.try_remove(key);
    }

    /// The next channel that the application opened and has not given up meanwhile.
    fn next_open(&mut self) -> Option<Arc<Channel>> {
        loop {
            let channel = {
                let mut state = self.shared.lock();
                let channel = state.opens.pop_front()?;
                if matches!(self.side, Side::Client(_)) {
                    state.opens_free = state.opens_free.saturating_sub(1);
                }
                channel
            };
            let given_up = {
                let state = channel.lock();
                let reset = matches!(state.send.state, SendState::Reset { .. });
                state.cause.is_some() || (reset && state.recv.is_stopped())
            };
            if !given_up {
                return Some(channel);
            }
            channel.fail(&Error::closed_locally());
        }
    }

    /// The peer was heard.
    fn heard(&mut self, bytes: usize) {
        self.heard_in_turn = true;
        self.shared.counters.bytes_in.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Looks at the streams that woke; `true` if the application asked something of the session.
    fn look_around(&mut self, cx: &mut Context<'_>) -> bool {
        let mut keys = std::mem::take(&mut self.keys);
        let asked = self.shared.ready.take(&mut keys);
        if keys.len() > 1 && self.shared.counters.prioritised.load(Ordering::Relaxed) {
            self.sort_by_urgency(&mut keys);
        }
        for key in keys.drain(..) {
            self.look(key, cx);
        }
        self.keys = keys;
        asked
    }

    /// The first half of a round: what woke, and what the application asked.
    fn gather(&mut self, cx: &mut Context<'_>) {
        let asked = self.look_around(cx);
        while self.shared.counters.has_room()
            && let Some(key) = self.line.pop()
        {
            if let Some(wire) = self.wires.get_mut(key).and_then(Option::as_mut)
                && std::mem::take(&mut wire.in_line)
            {
                self.look(key, cx);
            }
        }
        if asked {
            self.asked();
            self.open_mailbox();
        }
        let opens = match &self.side {
            Side::Client(client) => asked || client.wants_look(),
            Side::Server(_) => asked,
            Side::Over => false,
        };
        if opens && !self.is_ending() {
            match &self.side {
                Side::Client(_) => self.make_requests(cx),
                _ => self.serve_opens(),
            }
            // What was written to them goes out together with what opens them.
            if self.look_around(cx) {
                self.shared.ready.poke_session();
            }
        }
        self.check_closing();
        if std::mem::take(&mut self.look_at_control)
            && let Some(key) = self.control_key
        {
            self.look(key, cx);
        }
        self.widen();
    }

    /// The second half of a round: the connection. `true` if there may be more.
    fn drive_on(&mut self, cx: &mut Context<'_>) -> bool {
        self.drive(cx);
        if !self.line.is_empty() {
            self.shared.counters.await_room();
        }
        self.shared.ready.has_work() || self.look_at_control
    }

    /// Reads and writes the connection, then answers the requests that came: h2 writes before it hands out each of them,
    /// so that answers given in between would be written one by one.
    fn drive(&mut self, cx: &mut Context<'_>) {
        if !self.shared.ready.take_conn() || matches!(self.conn, Conn::Gone | Conn::Elsewhere) {
            return;
        }
        let mut requests = std::mem::take(&mut self.requests);
        let polled = self.conn.poll(&mut requests, cx);
        for request in requests.drain(..) {
            if !self.is_ending() {
                self.on_request(request);
            }
        }
        self.requests = requests;
        if let Poll::Ready(error) = polled {
            let cause = self.why_ended(error);
            self.conn_lost = Some(cause.clone());
            // What arrived before the end is read before the end is told.
            self.read_all(cx);
            self.conn_ended(cause);
        }
    }

    /// Looks at every stream.
    fn read_all(&mut self, cx: &mut Context<'_>) {
        let keys: Vec<usize> = self.wires.iter().map(|(key, _)| key).collect();
        for key in keys {
            if let Some(wire) = self.wires.get(key).and_then(Option::as_ref) {
                wire.link.hear();
            }
            self.look(key, cx);
        }
    }

    /// Channels of higher urgency get their records to h2 first.
    fn sort_by_urgency(&self, keys: &mut [usize]) {
        let urgency = |key: &usize| match self.wires.get(*key).and_then(Option::as_ref).map(|wire| &wire.kind) {
            Some(Kind::Channel(channel)) => channel.lock().priority.urgency() + 1,
            _ => 0,
        };
        keys.sort_by_cached_key(urgency);
    }
}

impl Future for Driver {
    /// The connection, where streams of other sessions are on it.
    type Output = Option<h2::server::Connection<Io, Outgoing>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        this.shared.ready.begin_turn(cx.waker());
        let conn_waker = this.conn_waker.clone();
        let mut conn_cx = Context::from_waker(&conn_waker);
        let mut more = true;
        let waits = std::mem::take(&mut this.waits);
        for round in 0..ROUNDS {
            this.gather(&mut conn_cx);
            if (round > 0 && this.is_crowd()) || (round == 0 && waits) {
                // What is to be written goes out together with what they write.
                break;
            }
            more = this.drive_on(&mut conn_cx);
            if !more {
                break;
            }
        }
        let now = Instant::now();
        if std::mem::take(&mut this.heard_in_turn) | this.shared.line.moved.swap(false, Ordering::Relaxed) {
            this.last_heard = now;
        }
        let used = this.shared.counters.traffic.load(Ordering::Relaxed);
        if std::mem::replace(&mut this.used, used) != used {
            this.last_used = now;
        }
        more |= this.keep_time(now, cx);
        let done = this.end(now, cx);
        this.flushed();
        let more = this.shared.ready.end_turn() || more;
        if done {
            return Poll::Ready(this.handed_over.take());
        }
        // Where several tasks were woken, the next turn comes after theirs: the first of them to write would otherwise have
        // the driver run before the others, and each answer would be a system call of its own.
        let crowd = this.is_crowd();
        // Whoever accepts several channels hands them to others, whose turns come after the first of ours.
        this.waits = std::mem::take(&mut this.arrived) > 1;
        this.woken = 0;
        if more || crowd {
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }
}

impl Driver {
    /// Whether several tasks have something to do because of this turn.
    fn is_crowd(&self) -> bool {
        self.woken > 1 || self.arrived > 1
    }

    /// Wakes those who wait until the transport has taken everything.
    fn flushed(&mut self) {
        if !self.shared.counters.flushing.load(Ordering::SeqCst) {
            return;
        }
        let mut state = self.shared.lock();
        let clear = state.opens.is_empty() && self.shared.counters.send_buffered.load(Ordering::Acquire) == 0;
        if state.cause.is_some() || clear {
            self.shared.counters.flushing.store(false, Ordering::SeqCst);
            let waker = state.flushing.take();
            drop(state);
            wake(waker);
        }
    }
}

impl Drop for Driver {
    /// The runtime was shut down, or the task ended: nobody may wait for it any longer.
    fn drop(&mut self) {
        self.fail(crate::error::lost("the runtime that drove the session was shut down".to_owned()), false);
        self.release();
    }
}
