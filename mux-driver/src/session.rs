//! The session as applications see it.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use mux_api::backend::{BoxFuture, ChannelParts, SessionOps};
use mux_api::{Capabilities, Error, Initiator, OpenOptions, Result, SessionInfo, Stats};
use mux_proto::{Key, Wire};

use crate::driver::now;
use crate::halves::{DrivenRecv, DrivenSend};
use crate::shared::{Shared, State, Wakes, remember};

pub(crate) struct DrivenSession<W: Wire> {
    shared: Arc<Shared<W>>,
    info: SessionInfo,
    capabilities: fn(bool) -> Capabilities,
}

impl<W: Wire> DrivenSession<W> {
    pub(crate) fn new(shared: Arc<Shared<W>>, info: SessionInfo, capabilities: fn(bool) -> Capabilities) -> Self {
        Self { shared, info, capabilities }
    }

    /// Waits until the peer's abilities are known.
    pub(crate) async fn established(&self) -> Result<()> {
        poll_fn(|cx| {
            let mut state = self.shared.state();
            if let Some(cause) = state.conn.cause() {
                return Poll::Ready(Err(cause.clone()));
            }
            if state.conn.is_established() {
                return Poll::Ready(Ok(()));
            }
            remember(&mut state.establishing, cx.waker());
            Poll::Pending
        })
        .await
    }

    fn parts(&self, key: Key, state: &State<W>) -> ChannelParts {
        let (label, _, initiator) =
            state.conn.describe(key).unwrap_or_else(|| (Default::default(), Default::default(), Initiator::Peer));
        ChannelParts {
            id: u64::from(key.id().0),
            initiator,
            label,
            send: Box::new(DrivenSend::new(Arc::clone(&self.shared), key)),
            recv: Box::new(DrivenRecv::new(Arc::clone(&self.shared), key)),
        }
    }

    /// Ends a call that the driver must act on at once: it may have to end the transport.
    fn hand_to_driver(&self, mut state: std::sync::MutexGuard<'_, State<W>>) {
        let mut wakes = Wakes::default();
        state.collect(&mut wakes);
        state.driver_woken = true;
        let driver = state.driver.clone();
        wakes.add(Some(driver));
        drop(state);
        wakes.wake();
    }
}

impl<W: Wire> SessionOps for DrivenSession<W> {
    fn info(&self) -> &SessionInfo {
        &self.info
    }

    fn capabilities(&self) -> Capabilities {
        (self.capabilities)(self.shared.state().conn.is_extended())
    }

    fn poll_open(&self, cx: &mut Context<'_>, options: &OpenOptions) -> Poll<Result<ChannelParts>> {
        let mut state = self.shared.state();
        match state.conn.open(options) {
            Ok(Some(key)) => {
                let parts = self.parts(key, &state);
                // What is written at once goes out together with the open.
                self.shared.finish_call(state, true);
                Poll::Ready(Ok(parts))
            }
            Ok(None) => {
                remember(&mut state.opening, cx.waker());
                Poll::Pending
            }
            Err(error) => Poll::Ready(Err(error)),
        }
    }

    fn poll_can_open(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.shared.state();
        if state.conn.can_open() {
            return Poll::Ready(());
        }
        remember(&mut state.can_open, cx.waker());
        Poll::Pending
    }

    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<Result<ChannelParts>> {
        let mut state = self.shared.state();
        match state.conn.accept() {
            Ok(Some(key)) => {
                state.accepted |= state.conn.recv_buffered(key) > 0;
                Poll::Ready(Ok(self.parts(key, &state)))
            }
            Ok(None) => {
                remember(&mut state.accepting, cx.waker());
                if state.accepted { Poll::Pending } else { self.shared.pend(state) }
            }
            Err(error) => Poll::Ready(Err(error)),
        }
    }

    fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let mut state = self.shared.state();
        if let Some(cause) = state.conn.cause() {
            return Poll::Ready(Err(cause.clone()));
        }
        state.shut_stages();
        let queued = state.blocked || state.conn.has_output() || state.conn.stats().send_buffered > 0;
        if !queued && self.shared.idle_writer().is_some() {
            return Poll::Ready(Ok(()));
        }
        remember(&mut state.flushing, cx.waker());
        let mut wakes = Wakes::default();
        if !queued || state.handed_over {
            // Somebody is handing the last of it over right now; the driver says when that is done.
            state.wake_driver(&mut wakes);
        }
        drop(state);
        wakes.wake();
        Poll::Pending
    }

    fn ping(&self) -> BoxFuture<'_, Result<Duration>> {
        let mut awaited = None;
        Box::pin(poll_fn(move |cx| {
            let mut state = self.shared.state();
            if let Some(cause) = state.conn.cause() {
                return Poll::Ready(Err(cause.clone()));
            }
            let Some(awaited) = awaited else {
                awaited = Some(state.conn.ping(now()));
                state.pinging.push(cx.waker().clone());
                self.shared.finish_call(state, false);
                return Poll::Pending;
            };
            match state.conn.round_trips() {
                (answered, Some(took)) if answered >= awaited => Poll::Ready(Ok(took)),
                _ => {
                    state.pinging.push(cx.waker().clone());
                    Poll::Pending
                }
            }
        }))
    }

    fn drain(&self) {
        let mut state = self.shared.state();
        state.conn.drain();
        self.hand_to_driver(state);
    }

    fn close(&self, code: u64, reason: &str) {
        let mut state = self.shared.state();
        state.shut_stages();
        state.conn.close(code, reason, now());
        self.hand_to_driver(state);
    }

    fn abort(&self, code: u64) {
        let mut state = self.shared.state();
        state.shut_stages();
        state.conn.abort(code);
        self.hand_to_driver(state);
    }

    fn poll_closed(&self, cx: &mut Context<'_>) -> Poll<Error> {
        let mut state = self.shared.state();
        match state.conn.cause() {
            Some(cause) if state.released => Poll::Ready(cause.clone()),
            _ => {
                remember(&mut state.ending, cx.waker());
                Poll::Pending
            }
        }
    }

    fn cause(&self) -> Option<Error> {
        self.shared.state().conn.cause().cloned()
    }

    fn stats(&self) -> Stats {
        let mut state = self.shared.state();
        state.shut_stages();
        state.conn.stats()
    }
}
