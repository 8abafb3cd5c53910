//! The session as applications see it, and what it shares with its driver.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use mux_api::backend::{BoxFuture, ChannelParts, SessionOps};
use mux_api::{
    Budget, Capabilities, Error, ErrorKind, Initiator, OpenOptions, Origin, Result, SessionInfo, Stats, codes,
};
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::channel::{Channel, Origins};
use crate::halves::{parts, remember};
use crate::io::Line;
use crate::limits::Limits;
use crate::ready::{Counters, Ready};

/// What the driver, the session and its channels share.
pub(crate) struct Shared {
    pub(crate) limits: Limits,
    pub(crate) budget: Budget,
    pub(crate) ready: Arc<Ready>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) line: Arc<Line>,
    state: Mutex<SessionState>,
}

pub(crate) struct SessionState {
    pub(crate) lifecycle: Lifecycle,
    /// Why the session is over.
    pub(crate) cause: Option<Error>,
    /// The peer takes no new channels.
    pub(crate) going_away: Option<Error>,
    /// Opened by the application, and without an HTTP/2 stream yet.
    pub(crate) opens: VecDeque<Arc<Channel>>,
    /// Opens that HTTP/2 has streams for at present.
    pub(crate) opens_free: usize,
    /// Opened by the peer, and not accepted yet.
    pub(crate) backlog: VecDeque<Arc<Channel>>,
    /// What a channel of ours may send before the peer has seen it.
    pub(crate) early_credit: u64,
    /// The peer's answer is there.
    pub(crate) established: bool,
    /// The transport is released.
    pub(crate) released: bool,
    pub(crate) pings: Vec<oneshot::Sender<Duration>>,
    pub(crate) rtt: Option<Duration>,
    pub(crate) accepting: Option<Waker>,
    pub(crate) opening: Option<Waker>,
    pub(crate) can_open: Option<Waker>,
    pub(crate) ending: Option<Waker>,
    pub(crate) flushing: Option<Waker>,
    pub(crate) establishing: Option<Waker>,
}

/// What the application asked of the session's life.
#[derive(Clone, Debug)]
pub(crate) enum Lifecycle {
    Live,
    /// No new channels, either way.
    Draining,
    /// What was finished is flushed, then the end is said.
    Closing {
        code: u64,
        reason: String,
        until: Instant,
    },
    /// The end, at once.
    Aborted {
        code: u64,
    },
}

impl Shared {
    pub(crate) fn new(limits: Limits, budget: Budget, line: Arc<Line>) -> Arc<Self> {
        let state = SessionState {
            lifecycle: Lifecycle::Live,
            cause: None,
            going_away: None,
            opens: VecDeque::new(),
            opens_free: Limits::MAX_OPENS,
            backlog: VecDeque::new(),
            early_credit: 0,
            established: false,
            released: false,
            pings: Vec::new(),
            rtt: None,
            accepting: None,
            opening: None,
            can_open: None,
            ending: None,
            flushing: None,
            establishing: None,
        };
        let counters = Counters::new(limits.send_buffer);
        let ready = Arc::clone(&counters.ready);
        Arc::new(Self { limits, budget, ready, counters, line, state: Mutex::new(state) })
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, SessionState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The peer has answered: channels may be opened.
    pub(crate) fn establish(&self, early_credit: u64) {
        let mut state = self.lock();
        state.established = true;
        state.early_credit = early_credit;
        let waker = state.establishing.take();
        drop(state);
        wake(waker);
    }

    /// Lets those look again who wait to open.
    pub(crate) fn wake_openers(&self) {
        let mut state = self.lock();
        let wakers = (state.opening.take(), state.can_open.take());
        drop(state);
        wake(wakers.0);
        wake(wakers.1);
    }

    /// Hands a channel of the peer's to the application.
    pub(crate) fn offer(&self, channel: Arc<Channel>) {
        let mut state = self.lock();
        state.backlog.push_back(channel);
        let waker = state.accepting.take();
        drop(state);
        wake(waker);
    }

    /// The peer has given a channel up in both directions: unless it was accepted already, nobody shall see it.
    pub(crate) fn withdraw(&self, channel: &Arc<Channel>) {
        let mut state = self.lock();
        let Some(at) = state.backlog.iter().position(|waiting| Arc::ptr_eq(waiting, channel)) else { return };
        state.backlog.remove(at);
        drop(state);
        channel.release_all();
    }

    /// The receive window of a new channel.
    pub(crate) fn window(&self, by_peer: bool) -> u64 {
        let incoming = self.counters.incoming.load(Ordering::Relaxed);
        u64::from(self.limits.initial_window(&self.budget, incoming, by_peer))
    }

    /// The code to refuse another channel of the peer's with, if it must be refused.
    pub(crate) fn refusal(&self) -> Option<u64> {
        let state = self.lock();
        if state.cause.is_some() || !matches!(state.lifecycle, Lifecycle::Live) {
            return Some(codes::DRAINING);
        }
        let full = state.backlog.len() >= self.limits.backlog
            || self.counters.incoming.load(Ordering::Relaxed) >= self.limits.max_incoming;
        full.then_some(codes::REFUSED)
    }
}

pub(crate) fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}

impl SessionState {
    /// Why no channel can be opened.
    fn open_error(&self) -> Option<Error> {
        if let Some(cause) = self.cause.as_ref().or(self.going_away.as_ref()) {
            return Some(cause.clone());
        }
        if matches!(self.lifecycle, Lifecycle::Live) {
            return None;
        }
        let error = Error::new(ErrorKind::GoAway, Origin::Local, "this session is draining and opens no new channel");
        Some(error.with_code(codes::DRAINING).retry_safe(true))
    }

    fn can_open(&self) -> bool {
        self.opens.len() < self.opens_free.min(Limits::MAX_OPENS)
    }
}

pub(crate) struct H2Session {
    shared: Arc<Shared>,
    info: SessionInfo,
    capabilities: Capabilities,
}

impl H2Session {
    pub(crate) fn new(shared: Arc<Shared>, info: SessionInfo, capabilities: Capabilities) -> Arc<Self> {
        Arc::new(Self { shared, info, capabilities })
    }

    /// Waits for the peer's answer.
    pub(crate) fn poll_established(&self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let mut state = self.shared.lock();
        if state.established {
            return Poll::Ready(Ok(()));
        }
        if let Some(cause) = &state.cause {
            return Poll::Ready(Err(cause.clone()));
        }
        remember(&mut state.establishing, cx.waker());
        Poll::Pending
    }

    fn ask(&self, lifecycle: Lifecycle) {
        let mut state = self.shared.lock();
        let allowed = match (&state.lifecycle, &lifecycle) {
            (Lifecycle::Aborted { .. }, _) => false,
            (_, Lifecycle::Aborted { .. }) | (Lifecycle::Live, _) => true,
            (Lifecycle::Draining, Lifecycle::Closing { .. }) => true,
            _ => false,
        };
        if !allowed || state.cause.is_some() {
            return;
        }
        state.lifecycle = lifecycle;
        drop(state);
        self.shared.wake_openers();
        self.shared.ready.poke_session();
    }

    fn check_label(&self, options: &OpenOptions) -> Result<()> {
        if !self.capabilities.contains(Capabilities::SERVER_OPEN) {
            return Err(Error::unsupported("the peer is a plain HTTP/2 client, to which no channel can be opened"));
        }
        let (len, most) = (options.label.len(), self.shared.limits.label);
        if len > most {
            let message = format!("the label has {len} bytes; {most} are allowed");
            return Err(Error::new(ErrorKind::TooBig, Origin::Local, message));
        }
        Ok(())
    }
}

impl SessionOps for H2Session {
    fn info(&self) -> &SessionInfo {
        &self.info
    }

    fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    fn poll_open(&self, cx: &mut Context<'_>, options: &OpenOptions) -> Poll<Result<ChannelParts>> {
        let shared = &self.shared;
        let mut state = shared.lock();
        if let Some(error) = state.open_error() {
            return Poll::Ready(Err(error));
        }
        self.check_label(options)?;
        if !state.can_open() {
            remember(&mut state.opening, cx.waker());
            return Poll::Pending;
        }
        let window = shared.window(false);
        let Some(held) = shared.budget.reserve(window) else {
            let limit = shared.budget.limit();
            let message = format!("no memory for another channel: the budget of {limit} bytes is in use");
            let error = Error::new(ErrorKind::LimitExceeded, Origin::Local, message);
            return Poll::Ready(Err(error.retry_safe(true)));
        };
        let origins = Origins {
            initiator: Initiator::Local,
            label: options.label.clone(),
            priority: options.priority,
            raw: false,
            opened: false,
        };
        let channel = Channel::new(origins, state.early_credit, window, held, &shared.counters);
        state.opens.push_back(Arc::clone(&channel));
        drop(state);
        shared.ready.poke_session();
        Poll::Ready(Ok(parts(&channel)))
    }

    fn poll_can_open(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.shared.lock();
        if state.can_open() || state.open_error().is_some() {
            return Poll::Ready(());
        }
        remember(&mut state.can_open, cx.waker());
        Poll::Pending
    }

    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<Result<ChannelParts>> {
        let mut state = self.shared.lock();
        if let Some(channel) = state.backlog.pop_front() {
            self.shared.counters.accepted.fetch_add(1, Ordering::Relaxed);
            return Poll::Ready(Ok(parts(&channel)));
        }
        if let Some(cause) = &state.cause {
            return Poll::Ready(Err(cause.clone()));
        }
        remember(&mut state.accepting, cx.waker());
        Poll::Pending
    }

    fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let mut state = self.shared.lock();
        if let Some(cause) = &state.cause {
            return Poll::Ready(Err(cause.clone()));
        }
        remember(&mut state.flushing, cx.waker());
        self.shared.counters.flushing.store(true, Ordering::SeqCst);
        // Looked at after the waker is in its place: the driver looks in the opposite order.
        // It stays there: others may wait behind the same waker.
        if state.opens.is_empty() && self.shared.counters.send_buffered.load(Ordering::Acquire) == 0 {
            return Poll::Ready(Ok(()));
        }
        Poll::Pending
    }

    fn ping(&self) -> BoxFuture<'_, Result<Duration>> {
        Box::pin(async {
            if !self.capabilities.contains(Capabilities::SERVER_OPEN) {
                return Err(Error::unsupported("a plain HTTP/2 client cannot be pinged"));
            }
            let (answer, waiting) = oneshot::channel();
            {
                let mut state = self.shared.lock();
                if let Some(cause) = &state.cause {
                    return Err(cause.clone());
                }
                state.pings.retain(|ping| !ping.is_closed());
                state.pings.push(answer);
            }
            self.shared.ready.poke_session();
            waiting.await.map_err(|_| self.cause().unwrap_or_else(Error::closed_locally))
        })
    }

    fn drain(&self) {
        self.ask(Lifecycle::Draining);
    }

    fn close(&self, code: u64, reason: &str) {
        let until = Instant::now() + self.shared.limits.linger;
        // Said before the driver has its turn: an end that comes after this must not make half of it look whole.
        self.shared.counters.closing.store(true, Ordering::Release);
        self.ask(Lifecycle::Closing { code, reason: reason.to_owned(), until });
    }

    fn abort(&self, code: u64) {
        self.ask(Lifecycle::Aborted { code });
    }

    fn poll_closed(&self, cx: &mut Context<'_>) -> Poll<Error> {
        let mut state = self.shared.lock();
        match &state.cause {
            Some(cause) if state.released => Poll::Ready(cause.clone()),
            _ => {
                remember(&mut state.ending, cx.waker());
                Poll::Pending
            }
        }
    }

    fn cause(&self) -> Option<Error> {
        self.shared.lock().cause.clone()
    }

    fn stats(&self) -> Stats {
        let counters = &self.shared.counters;
        let mut stats = Stats::default();
        stats.channels_open = counters.open.load(Ordering::Relaxed);
        stats.channels_opened = counters.opened.load(Ordering::Relaxed);
        stats.channels_accepted = counters.accepted.load(Ordering::Relaxed);
        stats.bytes_in = counters.bytes_in.load(Ordering::Relaxed);
        stats.bytes_out = counters.bytes_out.load(Ordering::Relaxed);
        stats.resets_in = counters.resets_in.load(Ordering::Relaxed);
        stats.resets_out = counters.resets_out.load(Ordering::Relaxed);
        stats.recv_buffered = counters.recv_buffered.load(Ordering::Relaxed);
        stats.send_buffered = counters.send_buffered.load(Ordering::Relaxed);
        stats.budget_used = self.shared.budget.used();
        stats.rtt = self.shared.lock().rtt;
        stats
    }
}

impl Drop for H2Session {
    /// Channels that nobody accepted are nobody's now.
    fn drop(&mut self) {
        let waiting = std::mem::take(&mut self.shared.lock().backlog);
        for channel in waiting {
            channel.release_all();
        }
    }
}
