//! The accepting side: answers requests, and opens channels on those that the client keeps parked.

use std::collections::{BTreeSet, HashSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use bytes::Bytes;
use h2::RecvStream;
use h2::server::SendResponse;
use http::{HeaderMap, Method, Response, StatusCode};
use mux_api::{Session, codes};

use super::wire::{Incoming, Kind};
use super::{Driver, Side};
use crate::error;
use crate::headers::{self, Answers, Endpoint, SessionId};
use crate::limits::Limits;
use crate::record::{Outgoing, encode_pool, kind};

/// The sessions of a listener by their ids: a session is its id, not its connection.
#[derive(Default)]
pub(crate) struct Sessions(Mutex<HashSet<SessionId>>);

impl Sessions {
    /// `false` when another connection has it.
    fn insert(&self, id: SessionId) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(id)
    }

    fn remove(&self, id: SessionId) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
    }
}

/// Hands a session to whoever accepts; the flag says whether its peer speaks records.
pub(crate) type Offer = Box<dyn Fn(bool) -> Session + Send>;

pub(super) struct Server {
    prefix: String,
    answers: Answers,
    sessions: Arc<Sessions>,
    bound: Bound,
    /// Makes the session.
    make: Offer,
    /// Takes the session, once.
    give: Option<Box<dyn FnOnce(Session) + Send>>,
    /// Parked requests, oldest first.
    slots: VecDeque<Slot>,
    /// Tokens of requests that were asked for and have not come.
    asked: BTreeSet<u64>,
    next_token: u64,
    pool: u32,
}

/// Whose the connection is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Bound {
    Nobody,
    Session(SessionId),
    /// A plain HTTP/2 client.
    Raw,
}

struct Slot {
    respond: SendResponse<Outgoing>,
    body: RecvStream,
    until: Instant,
}

impl Server {
    pub(super) fn new(
        prefix: String,
        answers: Answers,
        sessions: Arc<Sessions>,
        make: Offer,
        give: Box<dyn FnOnce(Session) + Send>,
    ) -> Self {
        Self {
            prefix,
            answers,
            sessions,
            bound: Bound::Nobody,
            make,
            give: Some(give),
            slots: VecDeque::new(),
            asked: BTreeSet::new(),
            next_token: 1,
            pool: Limits::POOL,
        }
    }

    pub(super) fn is_bound(&self) -> bool {
        self.bound != Bound::Nobody
    }

    pub(super) fn is_raw(&self) -> bool {
        self.bound == Bound::Raw
    }

    /// When the oldest parked request expires.
    pub(super) fn next_expiry(&self) -> Option<Instant> {
        self.slots.front().map(|slot| slot.until)
    }

    /// Lets go of what does not need to end in order.
    pub(super) fn clear(&mut self) {
        self.slots.clear();
    }

    fn offer(&mut self, records: bool) {
        if let Some(give) = self.give.take() {
            give((self.make)(records));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Bound::Session(id) = self.bound {
            self.sessions.remove(id);
        }
    }
}

impl Driver {
    /// Answers a request.
    pub(super) fn on_request(&mut self, (request, respond): Incoming) {
        self.heard(0);
        let Side::Server(server) = &mut self.side else { return };
        let (head, body) = request.into_parts();
        let Some(endpoint) = Endpoint::of(head.uri.path(), &server.prefix) else {
            let text = format!("no libmux endpoint here; there are {0}/ctl, {0}/ch and {0}/park\n", server.prefix);
            return reject(respond, StatusCode::NOT_FOUND, text);
        };
        if head.method != Method::POST {
            return reject(respond, StatusCode::METHOD_NOT_ALLOWED, "libmux endpoints take POST\n".to_owned());
        }
        match (headers::session(&head.headers), endpoint) {
            (None, Endpoint::Channel) => self.on_raw(&head.headers, respond, body),
            (None, _) => reject(respond, StatusCode::BAD_REQUEST, "the header mux-session is missing\n".to_owned()),
            (Some(Err(())), _) => {
                let text = "the header mux-session is malformed: 32 hexadecimal digits are allowed\n";
                reject(respond, StatusCode::BAD_REQUEST, text.to_owned());
            }
            (Some(Ok(_)), _) if !headers::is_grpc(&head.headers) => {
                let text = "the content type of a session's requests is application/grpc\n";
                reject(respond, StatusCode::UNSUPPORTED_MEDIA_TYPE, text.to_owned());
            }
            (Some(Ok(id)), Endpoint::Control) => self.on_control(id, &head.headers, respond, body),
            (Some(Ok(id)), _) if server.bound != Bound::Session(id) => {
                let text = "this connection does not carry the control stream of that session\n";
                reject(respond, StatusCode::CONFLICT, text.to_owned());
            }
            (Some(Ok(_)), Endpoint::Park) => self.on_slot(respond, body),
            (Some(Ok(_)), Endpoint::Channel) => match headers::token(&head.headers) {
                Some(token) if server.asked.remove(&token) => self.on_slot(respond, body),
                Some(_) => reject(respond, StatusCode::CONFLICT, "nobody asked for that mux-token\n".to_owned()),
                None => self.on_channel(&head.headers, respond, body),
            },
        }
    }

    fn on_control(&mut self, id: SessionId, fields: &HeaderMap, mut respond: SendResponse<Outgoing>, body: RecvStream) {
        let Side::Server(server) = &mut self.side else { return };
        if server.bound != Bound::Nobody || !server.sessions.insert(id) {
            let text = "the session has a control stream already, or the connection belongs to another one\n";
            return reject(respond, StatusCode::CONFLICT, text.to_owned());
        }
        server.bound = Bound::Session(id);
        let Ok(send) = respond.send_response(server.answers.control(), false) else { return };
        let key = self.new_wire(Kind::Control);
        self.control_key = Some(key);
        if let Some(wire) = self.wires[key].as_mut() {
            (wire.send, wire.recv) = (Some(send), Some(body));
            wire.link.poke();
        }
        self.establish(fields);
        let Side::Server(server) = &mut self.side else { return };
        server.offer(true);
    }

    /// The client opens a channel.
    fn on_channel(&mut self, fields: &HeaderMap, mut respond: SendResponse<Outgoing>, body: RecvStream) {
        match self.incoming(fields, false) {
            Ok(channel) => {
                let window = channel.lock().recv.window() as u64;
                let Side::Server(server) = &self.side else { return };
                let sent = respond.send_response(server.answers.channel(window), false);
                self.start_channel(channel, sent, body);
            }
            Err(code) => {
                let Ok(send) = respond.send_response(headers::refusal(code), true) else { return };
                self.drain_request(Some(send), body);
            }
        }
    }

    /// A plain HTTP/2 client opens a channel.
    fn on_raw(&mut self, fields: &HeaderMap, mut respond: SendResponse<Outgoing>, body: RecvStream) {
        let Side::Server(server) = &mut self.side else { return };
        match server.bound {
            Bound::Nobody => {
                server.bound = Bound::Raw;
                server.offer(false);
                self.established = true;
                self.shared.establish(0);
            }
            Bound::Raw => {}
            Bound::Session(_) => {
                let text = "this connection belongs to a session: the header mux-session is missing\n";
                return reject(respond, StatusCode::CONFLICT, text.to_owned());
            }
        }
        match self.incoming(fields, true) {
            Ok(channel) => {
                let sent = respond.send_response(headers::accepted_raw(), false);
                self.start_channel(channel, sent, body);
            }
            Err(code) => {
                let what = codes::describe(code).unwrap_or("refused");
                reject_with(respond, headers::refusal(code), format!("{what}\n"));
            }
        }
    }

    fn start_channel(
        &mut self,
        channel: Arc<crate::channel::Channel>,
        sent: Result<h2::SendStream<Outgoing>, h2::Error>,
        body: RecvStream,
    ) {
        let key = self.new_wire(Kind::Channel(Arc::clone(&channel)));
        let Some(wire) = self.wires[key].as_mut() else { return };
        match sent {
            Ok(send) => {
                (wire.send, wire.recv) = (Some(send), Some(body));
                wire.link.poke();
                self.shared.offer(channel);
            }
            Err(error) => {
                // It was reset before anyone saw it.
                channel.fail(&error::stream(&error, true));
                channel.release_all();
                self.drop_wire(key);
            }
        }
    }

    /// A request is done with; what still arrives on it is dropped until the client ends it.
    fn drain_request(&mut self, send: Option<h2::SendStream<Outgoing>>, body: RecvStream) {
        let key = self.new_wire(Kind::Ending);
        let Some(mut wire) = self.wires[key].take() else { return };
        (wire.send, wire.recv, wire.send_ended) = (send, Some(body), true);
        wire.link.poke();
        self.wind_down(&mut wire);
        self.wires[key] = Some(wire);
    }

    /// The client parks a request, or sends one that was asked for.
    fn on_slot(&mut self, mut respond: SendResponse<Outgoing>, body: RecvStream) {
        let Side::Server(server) = &mut self.side else { return };
        if server.slots.len() >= 2 * Limits::MAX_POOL as usize {
            if let Ok(send) = respond.send_response(headers::expired(), true) {
                self.drain_request(Some(send), body);
            }
            return;
        }
        // Up to a fifth sooner, so that they do not all expire at once.
        let jitter = Limits::SLOT_LIFE / 5 * (server.next_token as u32 % 8 + server.slots.len() as u32 % 8) / 16;
        server.slots.push_back(Slot { respond, body, until: Instant::now() + Limits::SLOT_LIFE - jitter });
        self.serve_opens();
    }

    /// Opens channels on parked requests; asks for more when there are too few.
    pub(super) fn serve_opens(&mut self) {
        loop {
            let Side::Server(server) = &mut self.side else { return };
            let waiting = self.shared.lock().opens.len();
            if waiting == 0 {
                break;
            }
            let Some(slot) = server.slots.pop_front() else {
                if server.asked.is_empty() && server.pool < Limits::MAX_POOL {
                    server.pool *= 2;
                    encode_pool(&mut self.control, server.pool);
                }
                while server.asked.len() < waiting {
                    let token = server.next_token;
                    server.next_token += 1;
                    server.asked.insert(token);
                    crate::record::encode_control(&mut self.control, kind::OPEN_PLEASE, Some(token), "");
                    self.look_at_control = true;
                }
                break;
            };
            let Some(channel) = self.next_open() else {
                let Side::Server(server) = &mut self.side else { return };
                server.slots.push_front(slot);
                continue;
            };
            self.open_on(slot, channel);
        }
        self.shared.wake_openers();
    }

    fn open_on(&mut self, mut slot: Slot, channel: Arc<crate::channel::Channel>) {
        let (window, priority) = {
            let state = channel.lock();
            (state.recv.window() as u64, state.priority)
        };
        let Side::Server(server) = &self.side else { return };
        let mut response = server.answers.channel(window);
        headers::describe(response.headers_mut(), &channel.label, priority);
        match slot.respond.send_response(response, false) {
            Ok(send) => {
                let key = self.new_wire(Kind::Channel(channel));
                if let Some(wire) = self.wires[key].as_mut() {
                    (wire.send, wire.recv) = (Some(send), Some(slot.body));
                    wire.link.poke();
                }
            }
            // The client withdrew it: the channel waits for the next.
            Err(_) => self.shared.lock().opens.push_front(channel),
        }
    }

    /// Turns parked requests away that have waited long enough.
    pub(super) fn expire_slots(&mut self, now: Instant) {
        loop {
            let Side::Server(server) = &mut self.side else { return };
            if server.next_expiry().is_none_or(|until| until > now) {
                return;
            }
            let Some(mut slot) = server.slots.pop_front() else { return };
            if let Ok(send) = slot.respond.send_response(headers::expired(), true) {
                self.drain_request(Some(send), slot.body);
            }
        }
    }
}

fn reject(respond: SendResponse<Outgoing>, status: StatusCode, text: String) {
    reject_with(respond, headers::rejection(status), text);
}

/// Answers and lets go; h2 tells the client that the rest of its request is not wanted.
fn reject_with(mut respond: SendResponse<Outgoing>, response: Response<()>, text: String) {
    if let Ok(mut send) = respond.send_response(response, false) {
        // Fails only when the client has reset it.
        let _ = send.send_data(Outgoing::raw(Bytes::from(text)), true);
    }
}
