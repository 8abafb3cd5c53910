//! The accepting side: answers requests, and opens channels on those that the client keeps parked.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::task::{Context, Poll};

use h2::server::SendResponse;
use h2::{RecvStream, SendStream};
use http::StatusCode;
use mux_api::{Error, Session, codes};
use tokio::time::Instant;

use super::door::{self, Admission, Asked, Door, Give, Mailbox};
use super::wire::{Conn, Incoming, Kind, Wire};
use super::{Driver, Side};
use crate::error;
use crate::headers::{self, Answers, Endpoint, SessionId};
use crate::limits::Limits;
use crate::record::{Outgoing, encode_pool, kind};

pub(super) struct Server {
    door: Arc<Door>,
    answers: Answers,
    /// The session's name; `None`: plain HTTP/2, whose session is its connection.
    id: Option<SessionId>,
    mailbox: Arc<Mailbox>,
    /// Takes the session, once.
    give: Option<(Give, Session)>,
    /// Parked requests, oldest first.
    slots: VecDeque<Slot>,
    /// Tokens of requests that were asked for and have not come.
    asked: BTreeSet<u64>,
    next_token: u64,
    pool: u32,
}

struct Slot {
    respond: SendResponse<Outgoing>,
    /// Its stream, on which nothing may come before the answer.
    key: usize,
    until: Instant,
}

impl Server {
    pub(super) fn is_raw(&self) -> bool {
        self.id.is_none()
    }

    /// Whether streams of the connection belong to other sessions, which would outlive this one.
    pub(super) fn carries_others(&self) -> bool {
        self.door.carries()
    }

    /// When the oldest parked request expires.
    pub(super) fn next_expiry(&self) -> Option<Instant> {
        self.slots.front().map(|slot| slot.until)
    }

    /// Turns every parked request away: a stream that is reset without an answer looks refused behind some hops.
    pub(super) fn clear(&mut self) {
        for mut slot in self.slots.drain(..) {
            // Fails only when the client has reset it.
            let _ = slot.respond.send_response(headers::expired(), true);
        }
    }

    fn offer(&mut self) {
        if let Some((give, session)) = self.give.take() {
            give(session);
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            self.door.house.forget(id);
        }
    }
}

impl Driver {
    /// The accepting end of the session that begins with `asked`. Its connection comes back at its end, if streams of other
    /// sessions are on it.
    pub(super) fn server(door: Arc<Door>, admission: Admission, conn: Conn, asked: Asked) -> Self {
        let Admission { shared, entry, session, mailbox, early } = admission;
        let server = Server {
            door,
            answers: Answers::new(shared.limits.credits()),
            id: asked.id,
            mailbox,
            give: Some((entry.give, session)),
            slots: VecDeque::new(),
            asked: BTreeSet::new(),
            next_token: 1,
            pool: Limits::POOL,
        };
        let mut driver = Self::new(shared, conn, Side::Server(Box::new(server)), Some(entry.live));
        driver.serve(asked);
        for asked in early {
            driver.serve(asked);
        }
        driver
    }

    /// Answers a request that came on the session's own connection.
    pub(super) fn on_request(&mut self, incoming: Incoming) {
        self.heard(0);
        let Side::Server(server) = &mut self.side else { return };
        let Some(asked) = server.door.sort(incoming) else { return };
        if asked.id == server.id {
            self.serve(Asked { carried: None, ..asked });
        } else {
            server.door.pass(asked);
        }
    }

    /// Answers the requests that came on other connections.
    pub(super) fn open_mailbox(&mut self) {
        let Side::Server(server) = &self.side else { return };
        for asked in server.mailbox.take() {
            self.heard(0);
            self.serve(asked);
        }
    }

    fn serve(&mut self, asked: Asked) {
        let Side::Server(server) = &mut self.side else { return };
        match asked.endpoint {
            Endpoint::Channel if asked.id.is_none() => self.on_raw(asked),
            Endpoint::Control if self.control_key.is_some() => {
                asked.refuse(StatusCode::CONFLICT, "the session has a control stream already\n");
            }
            Endpoint::Control => self.on_control(asked),
            Endpoint::Park => self.on_slot(asked),
            Endpoint::Channel => match headers::token(&asked.fields) {
                Some(token) if server.asked.remove(&token) => self.on_slot(asked),
                Some(_) => asked.refuse(StatusCode::CONFLICT, "nobody asked for that mux-token\n"),
                None => self.on_channel(asked),
            },
        }
    }

    fn on_control(&mut self, mut asked: Asked) {
        let Side::Server(server) = &mut self.side else { return };
        let Ok(send) = asked.respond.send_response(server.answers.control(), false) else { return };
        let key = self.new_wire(Kind::Control);
        self.control_key = Some(key);
        self.join(key, send, asked.body, asked.carried);
        self.establish(&asked.fields);
        let Side::Server(server) = &mut self.side else { return };
        server.offer();
    }

    /// Gives an entry its stream.
    fn join(&mut self, key: usize, send: SendStream<Outgoing>, body: RecvStream, carried: Option<Arc<()>>) {
        if let Some(wire) = self.wires[key].as_mut() {
            (wire.send, wire.recv, wire.carried) = (Some(send), Some(body), carried);
            wire.link.poke();
        }
    }

    /// The client opens a channel.
    fn on_channel(&mut self, mut asked: Asked) {
        match self.incoming(&asked.fields, false) {
            Ok(channel) => {
                let window = channel.lock().recv.window() as u64;
                let Side::Server(server) = &self.side else { return };
                let sent = asked.respond.send_response(server.answers.channel(window), false);
                self.start_channel(channel, sent, asked.body, asked.carried);
            }
            Err(code) => {
                let Ok(send) = asked.respond.send_response(headers::refusal(code), true) else { return };
                self.drain_request(Some(send), asked.body, asked.carried);
            }
        }
    }

    /// A plain HTTP/2 client opens a channel.
    fn on_raw(&mut self, mut asked: Asked) {
        let Side::Server(server) = &mut self.side else { return };
        if !self.established {
            server.offer();
            self.established = true;
            self.shared.establish(0);
        }
        match self.incoming(&asked.fields, true) {
            Ok(channel) => {
                let sent = asked.respond.send_response(headers::accepted_raw(), false);
                self.start_channel(channel, sent, asked.body, asked.carried);
            }
            Err(code) => {
                let what = codes::describe(code).unwrap_or("refused");
                door::answer(asked.respond, headers::refusal(code), format!("{what}\n"));
            }
        }
    }

    fn start_channel(
        &mut self,
        channel: Arc<crate::channel::Channel>,
        sent: Result<SendStream<Outgoing>, h2::Error>,
        body: RecvStream,
        carried: Option<Arc<()>>,
    ) {
        match sent {
            Ok(send) => {
                let key = self.new_wire(Kind::Channel(Arc::clone(&channel)));
                self.join(key, send, body, carried);
                self.arrived += 1;
                self.shared.offer(channel);
            }
            Err(error) => {
                // It was reset before anyone saw it.
                channel.fail(&error::stream(&error, true));
                channel.release_all();
            }
        }
    }

    /// A request is done with; what still arrives on it is dropped until the client ends it.
    fn drain_request(&mut self, send: Option<SendStream<Outgoing>>, body: RecvStream, carried: Option<Arc<()>>) {
        let key = self.new_wire(Kind::Ending);
        let Some(mut wire) = self.wires[key].take() else { return };
        (wire.send, wire.recv, wire.send_ended, wire.carried) = (send, Some(body), true, carried);
        wire.link.poke();
        self.wind_down(&mut wire);
        self.wires[key] = Some(wire);
    }

    /// The client parks a request, or sends one that was asked for.
    fn on_slot(&mut self, mut asked: Asked) {
        let Side::Server(server) = &mut self.side else { return };
        if server.slots.len() >= 2 * Limits::MAX_POOL as usize {
            if let Ok(send) = asked.respond.send_response(headers::expired(), true) {
                self.drain_request(Some(send), asked.body, asked.carried);
            }
            return;
        }
        // Up to a fifth sooner, so that they do not all expire at once.
        let jitter = Limits::SLOT_LIFE / 5 * (server.next_token as u32 % 8 + server.slots.len() as u32 % 8) / 16;
        let key = self.new_wire(Kind::Slot);
        if let Some(wire) = self.wires[key].as_mut() {
            (wire.recv, wire.carried) = (Some(asked.body), asked.carried);
            wire.link.poke();
        }
        let Side::Server(server) = &mut self.side else { return };
        server.slots.push_back(Slot {
            respond: asked.respond,
            key,
            until: Instant::now() + Limits::SLOT_LIFE - jitter,
        });
        self.serve_opens();
    }

    /// Looks at a parked request, on which nothing may have come; `false` once the client has withdrawn it.
    ///
    /// # Errors
    /// The client sent something before the answer.
    pub(super) fn look_at_slot(&mut self, wire: &mut Wire) -> Result<bool, Error> {
        let waker = wire.link.waker();
        let Some(recv) = &mut wire.recv else { return Ok(false) };
        match recv.poll_data(&mut Context::from_waker(&waker)) {
            Poll::Pending => Ok(true),
            Poll::Ready(Some(Ok(bytes))) if bytes.is_empty() => {
                wire.link.hear();
                Ok(true)
            }
            Poll::Ready(Some(Ok(_))) => Err(error::violation("data on a parked request before its answer")),
            Poll::Ready(Some(Err(_)) | None) => {
                let Side::Server(server) = &mut self.side else { return Ok(false) };
                let at = server.slots.iter().position(|slot| slot.key == wire.link.key());
                if let Some(mut slot) = at.and_then(|at| server.slots.remove(at)) {
                    // A request that was ended, not reset, is owed an answer.
                    let _ = slot.respond.send_response(headers::expired(), true);
                }
                Ok(false)
            }
        }
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
                let Some(wire) = self.wires.get_mut(slot.key).and_then(Option::as_mut) else { return };
                wire.become_channel(channel);
                wire.send = Some(send);
                wire.link.hear();
            }
            // The client withdrew it: the channel waits for the next.
            Err(_) => {
                self.drop_wire(slot.key);
                self.shared.lock().opens.push_front(channel);
            }
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
            let sent = slot.respond.send_response(headers::expired(), true);
            let Some(mut wire) = self.wires.get_mut(slot.key).and_then(Option::take) else { continue };
            match sent {
                Ok(send) => {
                    (wire.kind, wire.send, wire.send_ended) = (Kind::Ending, Some(send), true);
                    self.wind_down(&mut wire);
                    wire.link.hear();
                    self.wires[slot.key] = Some(wire);
                }
                Err(_) => self.drop_wire(slot.key),
            }
        }
    }
}
