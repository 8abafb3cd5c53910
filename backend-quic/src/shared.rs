//! What the session, its halves and its tasks share.
//!
//! Locks: a lock of ours may be held while quinn is called only if no waker that quinn wakes takes it, since quinn
//! wakes under its own. The wakers handed to quinn are [`SendWaker`](crate::side::SendWaker), [`OpenWakers`] and the
//! application's; none of them owns a stream or a connection, so that dropping one there does no harm either.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use mux_api::backend::{BoxFuture, ChannelParts};
use mux_api::{Budget, Error, ErrorKind, Origin, Role, codes};
use quinn::{Connection, ConnectionError, RecvStream, SendStream};
use tokio::sync::{Notify, oneshot};

use crate::congestion::Ending;
use crate::early::{Early, EarlyReset};
use crate::error::{connection_error, varint};
use crate::flush::FlushQueue;
use crate::places::Places;
use crate::settings::Settings;
use crate::tickets::{self, Key};
use crate::wire::Wire;

/// Resets that may wait to be said.
const MAX_RESETS: usize = 65_536;

pub(crate) struct Shared {
    pub(crate) conn: Connection,
    pub(crate) settings: Settings,
    pub(crate) wire: Wire,
    pub(crate) budget: Budget,
    state: Mutex<State>,
    pub(crate) opening: Opening,
    pub(crate) flush: FlushQueue,
    /// Streams that the peer has reset before we read their preface.
    pub(crate) early: Early,
    /// Where the ticket came from that something was sent with before the peer answered.
    pub(crate) tickets: OnceLock<Key>,
    pub(crate) places: Places,
    /// Tells the driver that `state` asks for something.
    pub(crate) command: Notify,
    /// The session takes no more writes: it is closing, or over.
    over: AtomicBool,
    /// Held while the send window is lifted.
    lifted: Mutex<()>,
    /// Bytes written by the application that quinn has not taken.
    unsent: AtomicUsize,
    pub(crate) counts: Counts,
    ending: Ending,
    /// Datagrams sent before we ended the connection: quinn does not say when the last one leaves.
    sent_before_end: AtomicU64,
}

#[derive(Default)]
pub(crate) struct Counts {
    pub(crate) open: AtomicU64,
    pub(crate) opened: AtomicU64,
    pub(crate) accepted: AtomicU64,
    pub(crate) resets_in: AtomicU64,
    pub(crate) resets_out: AtomicU64,
}

#[derive(Default)]
pub(crate) struct State {
    pub(crate) cause: Option<Error>,
    /// Our polite end was asked for: code and reason.
    pub(crate) closing: Option<(u64, String)>,
    pub(crate) draining: bool,
    /// The peer said that it takes no new channels.
    pub(crate) peer_draining: Option<Error>,
    pub(crate) backlog: VecDeque<ChannelParts>,
    /// No more channels will enter the backlog.
    pub(crate) accept_over: bool,
    /// The transport is let go.
    pub(crate) released: bool,
    /// Pings to be sent.
    pub(crate) pings: Vec<oneshot::Sender<Duration>>,
    /// Resets of streams that we opened, to be said on the control stream.
    pub(crate) resets: Vec<EarlyReset>,
    pub(crate) accepting: Option<Waker>,
    pub(crate) ending: Option<Waker>,
    pub(crate) flushing: Option<Waker>,
}

impl State {
    /// Why the session takes no more writes and gives out no more channels.
    pub(crate) fn why_over(&self) -> Error {
        self.cause.clone().unwrap_or_else(|| {
            let code = self.closing.as_ref().map_or(codes::NO_ERROR, |(code, _)| *code);
            Error::closed_locally().with_code(code)
        })
    }
}

impl Shared {
    pub(crate) fn new(conn: Connection, role: Role, wire: Wire, settings: Settings, ending: Ending) -> Self {
        let places = Places::new(settings.max_channels, Settings::beside(role));
        let budget = Budget::new(settings.budget, Some(Budget::process().clone()));
        Self {
            conn,
            settings,
            wire,
            budget,
            state: Mutex::default(),
            opening: Opening::default(),
            flush: FlushQueue::default(),
            early: Early::default(),
            tickets: OnceLock::new(),
            places,
            command: Notify::new(),
            over: AtomicBool::new(false),
            lifted: Mutex::default(),
            unsent: AtomicUsize::new(0),
            counts: Counts::default(),
            ending,
            sent_before_end: AtomicU64::new(0),
        }
    }

    /// Never held while quinn is called.
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Whether the session takes no more writes.
    pub(crate) fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }

    /// Asks quinn to take a few bytes although as much is on its way as may be. What all channels have on their way frees room
    /// in no fair order (quinn asks those that wait from last to first): prefaces and records must not wait for it.
    pub(crate) fn beyond_send_window<R>(&self, ask: impl FnOnce() -> R) -> R {
        let _alone = lock(&self.lifted);
        self.conn.set_send_window(u64::MAX);
        let answer = ask();
        self.conn.set_send_window(self.settings.send_window());
        answer
    }

    /// Why nothing can be written any more; `None` while the session lives.
    pub(crate) fn write_error(&self) -> Option<Error> {
        self.is_over().then(|| self.state().why_over())
    }

    /// Ends the session with `cause`, unless it has one already.
    pub(crate) fn fail(&self, cause: Error) {
        let mut state = self.state();
        if state.cause.is_none() {
            state.cause = Some(cause);
        }
        let wakers = [state.accepting.take(), state.flushing.take()];
        drop(state);
        self.over.store(true, Ordering::Release);
        wakers.into_iter().flatten().for_each(Waker::wake);
        self.opening.wakers.wake_all();
    }

    /// The session's cause, which a half has met as `error` of its connection.
    pub(crate) fn lost(&self, error: &ConnectionError) -> Error {
        if let Some(error) = self.write_error() {
            return error;
        }
        self.fail(connection_error(error, true, self.wire));
        self.state().cause.clone().unwrap_or_else(Error::closed_locally)
    }

    /// Ends a session whose peer did not take what was sent before it answered: no stream of it exists there. A dial that
    /// follows must not try another ticket of the same kind.
    pub(crate) fn fail_early(&self) -> Error {
        if let Some(key) = self.tickets.get() {
            tickets::forget(key);
        }
        let message = "the peer takes no early data with this ticket (0-RTT); nothing of it was processed";
        self.fail(Error::new(ErrorKind::Refused, Origin::Peer, message).retry_safe(true));
        self.end_connection(codes::NO_ERROR, message);
        self.state().why_over()
    }

    /// Ends at once and tells the peer.
    pub(crate) fn abort(&self, cause: Error, code: u64, reason: &str) {
        self.fail(cause);
        self.drop_backlog();
        self.end_connection(code, reason);
    }

    /// Ends the connection by a packet with `code` and `reason`.
    pub(crate) fn end_connection(&self, code: u64, reason: &str) {
        if self.conn.close_reason().is_none() {
            self.sent_before_end.store(self.conn.stats().udp_tx.datagrams, Ordering::Release);
            self.ending.set();
            self.conn.close(varint(self.wire.code_to_send(code)), reason.as_bytes());
        }
    }

    /// Whether the packet that ends the connection was handed to the socket.
    pub(crate) fn has_sent_end(&self) -> bool {
        self.conn.stats().udp_tx.datagrams > self.sent_before_end.load(Ordering::Acquire)
    }

    /// Begins the polite end.
    pub(crate) fn close(&self, code: u64, reason: &str) {
        let mut state = self.state();
        if state.cause.is_none() && state.closing.is_none() {
            state.closing = Some((code, reason.to_owned()));
        }
        let waker = state.accepting.take();
        drop(state);
        self.over.store(true, Ordering::Release);
        self.drop_backlog();
        self.command.notify_one();
        waker.into_iter().for_each(Waker::wake);
        self.opening.wakers.wake_all();
    }

    /// Has the peer told of a reset that may have overtaken its stream's preface.
    pub(crate) fn say_reset_early(&self, reset: EarlyReset) {
        let mut state = self.state();
        // A peer that takes streams and reads nothing of the control stream misses what is beyond.
        if state.cause.is_none() && state.resets.len() < MAX_RESETS {
            state.resets.push(reset);
            drop(state);
            self.command.notify_one();
        }
    }

    /// No more channels will enter the backlog. The cause is known.
    pub(crate) fn end_accept(&self) {
        let mut state = self.state();
        state.accept_over = true;
        let waker = state.accepting.take();
        drop(state);
        waker.into_iter().for_each(Waker::wake);
    }

    /// Channels nobody will accept any more are reset by their drop; they also hold this object.
    fn drop_backlog(&self) {
        let backlog = std::mem::take(&mut self.state().backlog);
        drop(backlog);
    }

    pub(crate) fn add_unsent(&self, bytes: usize) {
        self.unsent.fetch_add(bytes, Ordering::AcqRel);
    }

    pub(crate) fn sub_unsent(&self, bytes: usize) {
        if bytes > 0 && self.unsent.fetch_sub(bytes, Ordering::AcqRel) == bytes {
            let waker = self.state().flushing.take();
            waker.into_iter().for_each(Waker::wake);
        }
    }

    pub(crate) fn unsent(&self) -> usize {
        self.unsent.load(Ordering::Acquire)
    }

    /// The driver has let go of the transport, or will never run again.
    pub(crate) fn release(&self) {
        let mut state = self.state();
        state.released = true;
        state.accept_over = true;
        state.pings.clear();
        state.resets = Vec::new();
        let wakers = [state.ending.take(), state.accepting.take(), state.flushing.take()];
        drop(state);
        self.flush.clear();
        wakers.into_iter().flatten().for_each(Waker::wake);
        self.opening.wakers.wake_all();
    }

    /// The session's own code for what the peer did wrong.
    pub(crate) fn violated(&self, what: &str) {
        let cause = Error::new(ErrorKind::Protocol, Origin::Peer, format!("protocol violation: {what}"));
        self.abort(cause.with_code(codes::PROTOCOL), codes::PROTOCOL, what);
    }
}

/// Streams being opened. quinn gives them out by a future, which is kept while it waits for the peer's credit.
#[derive(Default)]
pub(crate) struct Opening {
    pending: Mutex<Pending>,
    pub(crate) wakers: Arc<OpenWakers>,
}

type Opened = Result<(SendStream, RecvStream), ConnectionError>;

#[derive(Default)]
struct Pending {
    future: Option<BoxFuture<'static, Opened>>,
    /// A stream that was found free by a look only. The peer does not know of it yet.
    spare: Option<(SendStream, RecvStream)>,
}

impl Opening {
    /// The next free stream.
    pub(crate) fn poll_take(&self, conn: &Connection) -> Poll<Opened> {
        let mut pending = lock(&self.pending);
        match pending.spare.take() {
            Some(stream) => Poll::Ready(Ok(stream)),
            None => self.poll_next(&mut pending, conn),
        }
    }

    /// Gives back what was taken and not used.
    pub(crate) fn put_back(&self, stream: (SendStream, RecvStream)) {
        lock(&self.pending).spare = Some(stream);
    }

    /// Ready when a stream is free, or none will ever be.
    pub(crate) fn poll_look(&self, conn: &Connection) -> Poll<()> {
        let mut pending = lock(&self.pending);
        if pending.spare.is_some() {
            return Poll::Ready(());
        }
        self.poll_next(&mut pending, conn).map(|opened| pending.spare = opened.ok())
    }

    fn poll_next(&self, pending: &mut Pending, conn: &Connection) -> Poll<Opened> {
        if pending.future.is_none() {
            if let Poll::Ready(opened) = pin!(conn.open_bi()).poll(&mut Context::from_waker(Waker::noop())) {
                return Poll::Ready(opened);
            }
            let conn = conn.clone();
            pending.future = Some(Box::pin(async move { conn.open_bi().await }));
        }
        let waker = Waker::from(Arc::clone(&self.wakers));
        let Some(future) = &mut pending.future else { return Poll::Pending };
        let polled = Pin::new(future).poll(&mut Context::from_waker(&waker));
        if polled.is_ready() {
            pending.future = None;
        }
        polled
    }
}

/// Who waits to open: the two `poll_` methods of a session remember a waker each.
#[derive(Default)]
pub(crate) struct OpenWakers {
    pub(crate) open: Mutex<Option<Waker>>,
    pub(crate) can_open: Mutex<Option<Waker>>,
}

impl OpenWakers {
    pub(crate) fn wake_all(&self) {
        for slot in [&self.open, &self.can_open] {
            let waker = lock(slot).take();
            waker.into_iter().for_each(Waker::wake);
        }
    }
}

impl Wake for OpenWakers {
    fn wake(self: Arc<Self>) {
        self.wake_all();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.wake_all();
    }
}

/// A panic elsewhere leaves our short critical sections consistent.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Keeps `waker`, without a clone when it is the one already kept.
pub(crate) fn remember(slot: &mut Option<Waker>, waker: &Waker) {
    match slot {
        Some(kept) => kept.clone_from(waker),
        None => *slot = Some(waker.clone()),
    }
}
