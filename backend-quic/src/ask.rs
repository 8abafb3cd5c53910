//! How quinn is asked to take what a channel writes.
//!
//! It is asked once: its lock is what a writer and the connection's task wait for each other at. A small write is asked without a
//! waker; of what quinn takes nothing, is held and left to the flusher. A large one waits in its caller's buffer: on a busy link
//! quinn soon goes on, and a copy would cost more than the wait. Only what has waited for some time is held as well.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use mux_api::{OpenOptions, Priority, Result};
use quinn::WriteError;

use crate::preface;
use crate::shared::lock;
use crate::side::{SendSide, State};
use crate::wire::Wire;

impl SendSide {
    /// Sends the preface: at once, whatever other channels have on their way, so that channels arrive in the order of their
    /// opens; where a foreign peer's window does not allow it, as soon as it does.
    pub(crate) fn begin(self: &Arc<Self>, options: &OpenOptions) {
        if options.priority != Priority::default() {
            self.set_priority(options.priority);
        }
        let mut preface = match self.shared.wire {
            Wire::Libmux => preface::encode(options),
            Wire::Qtalk => preface::plain(),
            Wire::Raw => return,
        };
        let mut state = lock(&self.state);
        if preface.len() > 1 {
            state.rare().opened_with = Some(options.clone());
        }
        let mut offered = self.offer(&mut state, &mut preface);
        if !preface.is_empty() && !matches!(offered, Poll::Ready(Err(_))) {
            offered = self.shared.beyond_send_window(|| self.offer(&mut state, &mut preface));
        }
        // Where it fails, the first write fails too.
        if matches!(offered, Poll::Ready(Err(_))) || preface.is_empty() {
            return;
        }
        self.push(&mut state, preface);
        if self.drain(&mut state).is_pending() {
            self.enlist(&mut state);
        }
    }

    /// Whether quinn took nothing of the last write, and has not asked for more since.
    pub(crate) fn is_blocked(&self, state: &State) -> bool {
        state.waker.as_ref().is_some_and(|waker| waker.blocked.load(Ordering::Acquire))
    }

    /// Whether quinn has not taken what is held.
    pub(crate) fn is_waiting(&self, state: &State) -> bool {
        state.waker.as_ref().is_some_and(|waker| waker.waiting.load(Ordering::Acquire))
    }

    /// Asks quinn once, without waiting for it.
    pub(crate) fn try_quinn<R>(
        &self,
        state: &mut State,
        ask: impl FnOnce(&mut quinn::SendStream, &mut Context<'_>) -> Poll<Result<R, WriteError>>,
    ) -> Poll<Result<R>> {
        self.ask(state, &mut Context::from_waker(Waker::noop()), ask)
    }

    /// Asks quinn once; when it takes nothing, the application is woken when it goes on.
    pub(crate) fn wait_for_quinn<R>(
        self: &Arc<Self>,
        state: &mut State,
        cx: &Context<'_>,
        ask: impl FnOnce(&mut quinn::SendStream, &mut Context<'_>) -> Poll<Result<R, WriteError>>,
    ) -> Poll<Result<R>> {
        // Before quinn looks: it may wake from another thread at once.
        self.register(state, cx);
        let waker = Arc::clone(self.waker(state));
        waker.blocked.store(true, Ordering::Release);
        let waker = Waker::from(waker);
        let answer = self.ask(state, &mut Context::from_waker(&waker), ask);
        if answer.is_pending() {
            self.watch(state);
        }
        answer
    }

    /// Has a large write wait until what precedes it is handed over: copied behind it, bytes would never go straight to quinn
    /// again, as long as there are more.
    pub(crate) fn wait_for_held(self: &Arc<Self>, state: &mut State, cx: &Context<'_>) {
        self.register(state, cx);
        self.watch(state);
    }

    /// Has the flusher look whether a write that waits gets on.
    fn watch(self: &Arc<Self>, state: &mut State) {
        let rare = state.rare();
        rare.waits += 1;
        if rare.watched.is_none() {
            rare.watched = Some(0);
            self.shared.flush.add_waiting(Arc::clone(self));
        }
    }

    /// Has a write copied that has waited since the last look. `true`: there is more to look at.
    pub(crate) fn look_waiting(&self) -> bool {
        let mut state = lock(&self.state);
        let rare = state.rare();
        if rare.watched.replace(rare.waits) != Some(rare.waits) {
            return true;
        }
        rare.watched = None;
        state.stalled |= self.is_blocked(&state) || state.buffered() > 0;
        let waker = state.waker.clone().filter(|_| state.stalled);
        drop(state);
        if let Some(waker) = waker {
            waker.wake_application();
        }
        false
    }

    fn ask<R>(
        &self,
        state: &mut State,
        cx: &mut Context<'_>,
        ask: impl FnOnce(&mut quinn::SendStream, &mut Context<'_>) -> Poll<Result<R, WriteError>>,
    ) -> Poll<Result<R>> {
        let Some(stream) = &mut state.stream else { return Poll::Ready(Err(self.error_of(state))) };
        let Poll::Ready(answer) = ask(stream, cx) else { return Poll::Pending };
        state.stalled = false;
        if let Some(waker) = &state.waker {
            waker.blocked.store(false, Ordering::Release);
        }
        Poll::Ready(answer.map_err(|error| self.failed(state, error)))
    }

    /// Hands quinn what it takes of `data`, without a copy; returns how much.
    pub(crate) fn offer(&self, state: &mut State, data: &mut Bytes) -> Poll<Result<usize>> {
        self.try_quinn(state, |stream, cx| write_chunk(stream, cx, data))
    }
}

/// Hands quinn what it takes of `data`, which is split off its front; returns how much.
pub(crate) fn write_chunk(
    stream: &mut quinn::SendStream,
    cx: &mut Context<'_>,
    data: &mut Bytes,
) -> Poll<Result<usize, WriteError>> {
    pin!(stream.write_chunks(std::slice::from_mut(data))).poll(cx).map_ok(|written| written.bytes)
}
