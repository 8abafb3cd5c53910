//! The dialing side: makes requests for channels, keeps some parked for the server, and reads responses.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use h2::RecvStream;
use h2::client::{ResponseFuture, SendRequest};
use http::{Request, Response, StatusCode};
use mux_api::{Error, ErrorKind, Initiator, Origin, codes};
use tokio::time::Instant;

use super::Driver;
use super::Side;
use super::wire::{Kind, Wire};
use crate::channel::{Channel, Origins};
use crate::error;
use crate::headers::{self, Requests};
use crate::limits::Limits;
use crate::record::{Outgoing, kind};

/// How long to wait before another request is parked after one failed.
const BREATHER: Duration = Duration::from_secs(1);

/// Channels the server may ask for at once beyond its pool.
const MAX_ASKED: usize = 1024;

pub(super) struct Client {
    /// `None` once no more requests are made.
    pub(super) requests: Option<SendRequest<Outgoing>>,
    pub(super) make: Requests,
    /// Requests parked at present, and how many there should be.
    parked: u32,
    pool: u32,
    /// Tokens of opens that the server asked for.
    asked: VecDeque<u64>,
    /// No request is parked before.
    pub(super) pause: Option<Instant>,
    /// Requests that can still be made: the streams of HTTP/2 have numbers, which are never used again.
    left: u32,
    /// The stream requested last: h2 replaces its waker while it waits for a free stream.
    last: Option<usize>,
    blocked: bool,
    /// Few more requests are possible: each stream that is free again counts.
    tight: bool,
    /// Something changed that may want requests.
    changed: bool,
}

impl Client {
    pub(super) fn new(requests: SendRequest<Outgoing>, make: Requests, left: u32) -> Self {
        Self {
            requests: Some(requests),
            make,
            parked: 0,
            pool: Limits::POOL,
            asked: VecDeque::new(),
            pause: None,
            left,
            last: None,
            blocked: false,
            tight: false,
            changed: true,
        }
    }

    /// Whether requests may be wanted or possible now that were not.
    pub(super) fn wants_look(&self) -> bool {
        self.changed || self.blocked || self.tight
    }

    /// The time for parking no request is over.
    pub(super) fn end_pause(&mut self) {
        self.pause = None;
        self.changed = true;
    }

    /// The server wants a request to open a channel with.
    pub(super) fn asked(&mut self, token: u64) -> Result<(), Error> {
        if self.asked.len() >= MAX_ASKED {
            return Err(error::violation(format!("more than {MAX_ASKED} opens asked for at once")));
        }
        self.asked.push_back(token);
        self.changed = true;
        Ok(())
    }

    /// The server wants so many parked requests.
    pub(super) fn set_pool(&mut self, size: u32) {
        let streams = self.streams() / 4;
        let most = u32::try_from(streams).unwrap_or(u32::MAX).min(Limits::MAX_POOL);
        self.pool = size.clamp(1, most.max(1));
        self.changed = true;
    }

    /// Requests that the server, or the proxy before it, takes at once.
    fn streams(&self) -> usize {
        self.requests.as_ref().map_or(0, SendRequest::current_max_send_streams)
    }

    /// Whether another request may be made now.
    fn is_ready(&mut self, cx: &mut Context<'_>) -> bool {
        self.requests.as_mut().is_some_and(|requests| matches!(requests.poll_ready(cx), Poll::Ready(Ok(()))))
    }

    /// Makes a request; `Err` when the connection takes none any more.
    fn request(&mut self, request: Request<()>, wire: &mut Wire) -> Result<(), h2::Error> {
        let Some(requests) = &mut self.requests else { return Ok(()) };
        let (response, send): (ResponseFuture, _) = requests.send_request(request, false)?;
        self.left = self.left.saturating_sub(1);
        (wire.response, wire.send, wire.fresh) = (Some(response), Some(send), true);
        Ok(())
    }
}

impl Driver {
    /// Opens the control stream: the first request.
    pub(super) fn open_control(&mut self) -> Result<(), h2::Error> {
        let key = self.new_wire(Kind::Control);
        self.control_key = Some(key);
        let Side::Client(client) = &mut self.side else { return Ok(()) };
        let request = client.make.control();
        let Some(wire) = self.wires[key].as_mut() else { return Ok(()) };
        client.request(request, wire)?;
        wire.link.poke();
        Ok(())
    }

    /// Makes the requests that are wanted: channels, what the server asked for, the pool.
    pub(super) fn make_requests(&mut self, cx: &mut Context<'_>) {
        if !self.established {
            return;
        }
        let mut blocked = false;
        loop {
            let Side::Client(client) = &mut self.side else { return };
            let opens = !self.shared.lock().opens.is_empty();
            let may_park = client.parked < client.pool && client.pause.is_none() && !self.draining;
            if !opens && client.asked.is_empty() && !may_park {
                break;
            }
            if client.left == 0 {
                self.numbers_used_up();
                break;
            }
            if self.wires.len() >= client.streams() || !client.is_ready(cx) {
                blocked = true;
                break;
            }
            if opens {
                self.request_channel();
            } else {
                let token = client.asked.pop_front();
                self.request_slot(token);
            }
        }
        let Side::Client(client) = &mut self.side else { return };
        client.changed = false;
        let was = std::mem::replace(&mut client.blocked, blocked);
        if was
            && !blocked
            && let Some(wire) = client.last.and_then(|key| self.wires.get(key)).and_then(Option::as_ref)
        {
            wire.link.poke();
        }
        let free = if blocked { 0 } else { client.streams().saturating_sub(self.wires.len()) };
        client.tight = free < Limits::MAX_OPENS;
        let mut state = self.shared.lock();
        state.opens_free = free;
        let wakers = if free == 0 { (None, None) } else { (state.opening.take(), state.can_open.take()) };
        drop(state);
        crate::session::wake(wakers.0);
        crate::session::wake(wakers.1);
    }

    /// No request can be made any more: neither end opens channels from now on, and those that exist go on.
    fn numbers_used_up(&mut self) {
        let message = "the numbers of HTTP/2 streams are used up: open the channel on another session";
        let error = Error::new(ErrorKind::GoAway, Origin::Local, message);
        self.no_more_opens(error.with_code(codes::DRAINING).retry_safe(true));
        self.fail_opens();
        let Side::Client(client) = &mut self.side else { return };
        client.asked.clear();
        client.pool = 0;
        if !std::mem::replace(&mut self.draining, true) {
            self.say(kind::GOAWAY, Some(codes::DRAINING), "the numbers of HTTP/2 streams are used up");
        }
    }

    fn request_channel(&mut self) {
        let Some(channel) = self.next_open() else { return };
        let (window, priority) = {
            let state = channel.lock();
            (state.recv.window() as u64, state.priority)
        };
        let Side::Client(client) = &mut self.side else { return };
        let mut request = client.make.channel(window);
        headers::describe(request.headers_mut(), &channel.label, priority);
        self.send_request(request, Kind::Channel(channel));
    }

    fn request_slot(&mut self, token: Option<u64>) {
        let Side::Client(client) = &mut self.side else { return };
        let request = client.make.slot(token);
        if token.is_none() {
            client.parked += 1;
        }
        let key = self.send_request(request, Kind::Park);
        if token.is_some()
            && let Some(wire) = key.and_then(|key| self.wires[key].as_mut())
        {
            wire.asked = true;
        }
    }

    fn send_request(&mut self, request: Request<()>, kind: Kind) -> Option<usize> {
        let key = self.new_wire(kind);
        let Side::Client(client) = &mut self.side else { return None };
        let mut wire = self.wires[key].take()?;
        match client.request(request, &mut wire) {
            Ok(()) => {
                client.last = Some(key);
                wire.link.poke();
                self.wires[key] = Some(wire);
                Some(key)
            }
            Err(error) => {
                // The connection takes no more streams: what was not sent was not seen.
                let error = error::stream(&error, false);
                match &wire.kind {
                    Kind::Channel(channel) => channel.fail(&error),
                    _ => self.slot_failed(false),
                }
                self.drop_wire(key);
                None
            }
        }
    }

    /// A parked request is gone without a channel; `expired`: in good order.
    fn slot_failed(&mut self, expired: bool) {
        if let Side::Client(client) = &mut self.side {
            client.parked = client.parked.saturating_sub(1);
            client.changed = true;
            if !expired {
                client.pause = Some(Instant::now() + BREATHER);
            }
        }
    }

    /// Looks whether the response to a request has come.
    pub(super) fn read_response(&mut self, wire: &mut Wire, cx: &mut Context<'_>) {
        let waker = wire.link.waker();
        let Some(response) = &mut wire.response else { return };
        let Poll::Ready(response) = Pin::new(response).poll(&mut Context::from_waker(&waker)) else { return };
        wire.response = None;
        self.heard(0);
        match response {
            Ok(response) => self.on_response(wire, response, cx),
            Err(error) => match &wire.kind {
                Kind::Control => {
                    let cause = self.conn_lost.clone().unwrap_or_else(|| error::stream(&error, false));
                    self.fail(cause, false);
                }
                Kind::Channel(channel) => {
                    let error = self.lost(channel, &error);
                    channel.fail(&error);
                }
                Kind::Park if !wire.asked => self.slot_failed(false),
                Kind::Park | Kind::Slot | Kind::Ending => {}
            },
        }
    }

    fn on_response(&mut self, wire: &mut Wire, response: Response<RecvStream>, cx: &mut Context<'_>) {
        let (head, body) = response.into_parts();
        wire.recv = Some(body);
        let accepted = head.status == StatusCode::OK && headers::is_grpc(&head.headers);
        let refusal = || {
            if head.status == StatusCode::OK {
                error::status(StatusCode::UNSUPPORTED_MEDIA_TYPE, &head.headers)
            } else {
                error::status(head.status, &head.headers)
            }
        };
        match &wire.kind {
            Kind::Control if accepted => {
                self.establish(&head.headers);
                if let Side::Client(client) = &mut self.side {
                    client.changed = true;
                }
            }
            Kind::Control => self.fail(refusal(), false),
            Kind::Channel(channel) if accepted => {
                let mut state = channel.lock();
                state.send.raise_credit(headers::credit(&head.headers, self.usual_credit));
                state.opened = true;
                let waker = state.send_waker.take();
                drop(state);
                crate::session::wake(waker);
            }
            Kind::Channel(channel) => {
                channel.fail(&refusal());
                // What comes with it is a page for people, not records.
                wire.end();
                wire.kind = Kind::Ending;
                self.wind_down(wire);
            }
            Kind::Park if accepted => self.accept_slot(wire, &head.headers, cx),
            Kind::Park => {
                if !wire.asked {
                    self.slot_failed(head.status == StatusCode::NO_CONTENT);
                }
                if head.status != StatusCode::NO_CONTENT {
                    tracing::debug!(status = %head.status, "a parked request was turned away");
                }
                wire.end();
                wire.kind = Kind::Ending;
                self.wind_down(wire);
            }
            Kind::Slot | Kind::Ending => {}
        }
    }

    /// The server opens a channel on a parked request.
    fn accept_slot(&mut self, wire: &mut Wire, fields: &http::HeaderMap, cx: &mut Context<'_>) {
        if !wire.asked {
            if let Side::Client(client) = &mut self.side {
                client.parked = client.parked.saturating_sub(1);
            }
            // Replenished before the channel is handed out.
            self.make_requests(cx);
        }
        match self.incoming(fields, false) {
            Ok(channel) => {
                channel.lock().recv.confirm = true;
                wire.become_channel(Arc::clone(&channel));
                self.shared.offer(channel);
            }
            Err(code) => {
                let mut frame = Outgoing::new();
                frame.control(kind::RESET, code);
                frame.control(kind::STOP, code);
                let permit = wire.link.permit(0, false);
                wire.say(frame.with_permit(permit), true);
                wire.kind = Kind::Ending;
                self.wind_down(wire);
            }
        }
    }

    /// A channel of the peer's, with its window charged; `Err` with the code to refuse it by. Its early credit is
    /// announced already.
    pub(super) fn incoming(&mut self, fields: &http::HeaderMap, raw: bool) -> Result<Arc<Channel>, u64> {
        let shared = &self.shared;
        if let Some(code) = shared.refusal() {
            return Err(code);
        }
        let label = headers::label(fields).map_err(|_| codes::PROTOCOL)?;
        if label.len() > shared.limits.label {
            return Err(codes::LIMIT);
        }
        let window = shared.window(true);
        let held = shared.budget.reserve(if raw { u64::from(shared.limits.accepting_stream_window()) } else { window });
        let held = held.ok_or(codes::LIMIT)?;
        let granted = if matches!(self.side, Side::Client(_)) { u64::from(shared.limits.early) } else { window };
        let credit = if raw { u64::MAX } else { headers::credit(fields, self.usual_credit) };
        let priority = headers::priority(fields);
        let origins = Origins { initiator: Initiator::Peer, label, priority, raw, opened: true };
        Ok(Channel::new(origins, credit, granted, held, &shared.counters))
    }
}
