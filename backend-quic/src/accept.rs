//! Channels that the peer opens: their prefaces are read side by side, so that a lost packet delays only its own.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Waker};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use mux_api::backend::ChannelParts;
use mux_api::{Initiator, Reservation, Role, codes};
use quinn::{RecvStream, SendStream};
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::control::Control;
use crate::error::varint;
use crate::preface::{self, BadPreface, Preface};
use crate::recv::QuicRecv;
use crate::send::QuicSend;
use crate::shared::{Entry, Shared};
use crate::side::SendSide;

/// Prefaces that are read at once. More only wait until one of these is complete or late.
const PREFACES: usize = 256;

/// How long a preface may take.
const PREFACE_LIMIT: Duration = Duration::from_secs(10);

/// A stream of the peer's that nobody has taken yet. Dropped, it is reset, never ended cleanly.
struct Arriving {
    streams: Option<(SendStream, RecvStream)>,
    /// Its receive window, `None` where the budget has no room.
    held: Option<Reservation>,
}

impl Arriving {
    fn refuse(&mut self, code: u64) {
        if let Some((mut send, mut recv)) = self.streams.take() {
            // Streams that are over already need no refusal.
            let _ = send.reset(varint(code));
            let _ = recv.stop(varint(code));
        }
    }
}

impl Drop for Arriving {
    fn drop(&mut self) {
        self.refuse(codes::DROPPED);
    }
}

enum Read {
    Done(Preface, Bytes),
    /// The peer took it back, or the connection is lost.
    Gone,
    Bad(u64, String),
}

type Reading = Pin<Box<dyn Future<Output = (Arriving, Read)> + Send>>;

/// Accepts until the connection is over and everything that arrived before was looked at.
pub(crate) async fn accept_all(shared: Arc<Shared>, role: Role, control: oneshot::Sender<Control>) {
    let mut acceptor = Acceptor { shared, role, control: Some(control) };
    let mut prefaces: FuturesUnordered<Reading> = FuturesUnordered::new();
    loop {
        tokio::select! {
            accepted = acceptor.shared.conn.accept_bi(), if prefaces.len() < PREFACES => {
                let Ok(streams) = accepted else { break };
                let held = acceptor.shared.budget.reserve(u64::from(acceptor.shared.settings.window));
                let arriving = Arriving { streams: Some(streams), held };
                let mut reading: Reading = Box::pin(read(arriving, acceptor.shared.settings.max_label));
                // Nearly always the preface came with the stream.
                match reading.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                    std::task::Poll::Ready((arriving, read)) => acceptor.take(arriving, read),
                    std::task::Poll::Pending => prefaces.push(reading),
                }
            }
            Some((arriving, read)) = prefaces.next(), if !prefaces.is_empty() => acceptor.take(arriving, read),
        }
    }
    while let Some((arriving, read)) = prefaces.next().await {
        acceptor.take(arriving, read);
    }
    let mut state = acceptor.shared.state();
    state.accept_over = true;
    let waker = state.accepting.take();
    drop(state);
    waker.into_iter().for_each(Waker::wake);
}

async fn read(mut arriving: Arriving, max_label: usize) -> (Arriving, Read) {
    let read = match &mut arriving.streams {
        Some((_, recv)) => timeout(PREFACE_LIMIT, read_preface(recv, max_label))
            .await
            .unwrap_or_else(|_| Read::Bad(codes::PROTOCOL, "its preface did not arrive in time".into())),
        None => Read::Gone,
    };
    (arriving, read)
}

async fn read_preface(recv: &mut RecvStream, max_label: usize) -> Read {
    let mut input = Bytes::new();
    loop {
        match preface::decode(&mut input, max_label) {
            Ok(Some(preface)) => return Read::Done(preface, input),
            Ok(None) => {}
            Err(BadPreface::TooLong(len)) => {
                return Read::Bad(codes::LIMIT, format!("its label has {len} bytes; {max_label} are allowed"));
            }
            Err(BadPreface::Unknown(byte)) => {
                return Read::Bad(codes::PROTOCOL, format!("its first byte {byte:#04x} is unknown"));
            }
            Err(BadPreface::Urgency(urgency)) => {
                return Read::Bad(codes::PROTOCOL, format!("its urgency {urgency} is above 7"));
            }
        }
        match recv.read_chunk(preface::longest(max_label), true).await {
            Ok(Some(chunk)) if input.is_empty() => input = chunk.bytes,
            Ok(Some(chunk)) => {
                let mut joined = BytesMut::from(&input[..]);
                joined.extend_from_slice(&chunk.bytes);
                input = joined.freeze();
            }
            Ok(None) => return Read::Bad(codes::PROTOCOL, "it ended within its preface".into()),
            Err(_) => return Read::Gone,
        }
    }
}

struct Acceptor {
    shared: Arc<Shared>,
    role: Role,
    control: Option<oneshot::Sender<Control>>,
}

impl Acceptor {
    fn take(&mut self, mut arriving: Arriving, read: Read) {
        match read {
            Read::Gone => {}
            Read::Bad(code, why) => {
                tracing::debug!(peer = %self.shared.conn.remote_address(), %why, "a stream was turned away");
                arriving.refuse(code);
            }
            Read::Done(Preface::Control, rest) => self.take_control(arriving, rest),
            Read::Done(Preface::Channel { label, priority }, rest) => {
                if let Err(code) = self.may_enter() {
                    return arriving.refuse(code);
                }
                let Some(held) = arriving.held.take() else { return arriving.refuse(codes::LIMIT) };
                let Some((send, recv)) = arriving.streams.take() else { return };
                let shared = &self.shared;
                let side = SendSide::new(shared, send, Initiator::Peer);
                side.set_priority(priority);
                let entry = Entry::new(shared);
                let parts = ChannelParts {
                    id: side.stream(),
                    initiator: Initiator::Peer,
                    label,
                    send: Box::new(QuicSend::new(side, Arc::clone(&entry))),
                    recv: Box::new(QuicRecv::new(entry, shared, recv, held, Initiator::Peer, rest)),
                };
                self.deliver(parts);
            }
        }
    }

    fn may_enter(&self) -> Result<(), u64> {
        let state = self.shared.state();
        if state.closing.is_some() || state.draining {
            return Err(codes::DRAINING);
        }
        if state.backlog.len() >= self.shared.settings.backlog {
            return Err(codes::REFUSED);
        }
        Ok(())
    }

    fn deliver(&self, parts: ChannelParts) {
        self.shared.counts.accepted.fetch_add(1, Ordering::Relaxed);
        let mut state = self.shared.state();
        if state.closing.is_some() || state.released {
            drop(state);
            return drop(parts);
        }
        state.backlog.push_back(parts);
        let waker = state.accepting.take();
        drop(state);
        waker.into_iter().for_each(Waker::wake);
    }

    fn take_control(&mut self, mut arriving: Arriving, rest: Bytes) {
        if self.role == Role::Client {
            return self.shared.violated("the acceptor opened a control stream");
        }
        let (Some(control), Some((send, recv))) = (self.control.take(), arriving.streams.take()) else {
            return self.shared.violated("a second control stream");
        };
        // Nobody waits for it only when the session is over.
        let _ = control.send(Control::new(send, recv, rest));
    }
}
