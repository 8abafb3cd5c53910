//! A channel's own part: what waits for quinn in the direction that we send in, and how far its end has come.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use mux_api::{Error, ErrorKind, Initiator, OpenOptions, Priority, Result, codes};
use quinn::{StoppedError, VarInt, WriteError};

use crate::early::EarlyReset;
use crate::error::{ended_by_peer, finished, varint};
use crate::held::Held;
use crate::preface;
use crate::shared::{Shared, lock, remember};
use crate::waker::SendWaker;
use crate::wire::Wire;

/// Writes below this are gathered while others precede them.
pub(crate) const SMALL: usize = 4096;

/// So much is gathered at most before it is handed to quinn.
pub(crate) const GATHER: usize = 32 * 1024;

/// What the halves of a channel share, and the direction that we send in. It outlives the halves until what was finished
/// is acknowledged. Whoever gives a direction up takes the stream out first.
pub(crate) struct SendSide {
    pub(crate) shared: Arc<Shared>,
    stream: u64,
    pub(crate) initiator: Initiator,
    /// Halves that live: the channel counts for as long as there is one.
    halves: AtomicU8,
    /// Something came from the peer, so that it knows of the channel.
    heard: AtomicBool,
    /// The flusher's turn before which a write went straight to quinn, 0 once something was read: what follows before that
    /// turn is gathered, except an answer, which nobody may delay.
    wrote: AtomicU64,
    pub(crate) state: Mutex<State>,
}

pub(crate) struct State {
    pub(crate) stream: Option<quinn::SendStream>,
    pub(crate) phase: Phase,
    /// Known to the flusher.
    listed: bool,
    /// Was looked at for its acknowledgement.
    looked: bool,
    /// What quinn has not taken.
    held: Option<Box<Held>>,
    /// Made when something has to wait for the first time.
    pub(crate) waker: Option<Arc<SendWaker>>,
    rare: Option<Box<Rare>>,
    /// The application was told that it can write: what quinn does not take of the next write is copied, however large.
    pub(crate) promised: bool,
    /// quinn has taken nothing for long: the same, until it takes some.
    pub(crate) stalled: bool,
}

/// What few channels need.
#[derive(Default)]
pub(crate) struct Rare {
    stopped: Option<Stopped>,
    /// What we opened it with, unless it is nothing special.
    pub(crate) opened_with: Option<OpenOptions>,
    /// Writes that waited for quinn, so far and when they were looked at, while the flusher looks at them.
    pub(crate) waits: u64,
    pub(crate) watched: Option<u64>,
}

impl State {
    /// Bytes that wait for quinn.
    pub(crate) fn buffered(&self) -> usize {
        self.held.as_ref().map_or(0, |held| held.bytes)
    }

    pub(crate) fn held(&mut self) -> &mut Held {
        self.held.get_or_insert_default()
    }

    pub(crate) fn rare(&mut self) -> &mut Rare {
        self.rare.get_or_insert_default()
    }
}

type Stopped = Pin<Box<dyn Future<Output = Result<Option<VarInt>, StoppedError>> + Send>>;

pub(crate) enum Phase {
    Open,
    /// Finished by the application; the end follows what is queued.
    Finishing,
    /// quinn has everything, the end included.
    Finished,
    /// The peer's transport has everything.
    Acknowledged,
    /// Reset by us.
    Reset,
    Failed(Error),
}

impl SendSide {
    /// For a channel with two halves.
    pub(crate) fn new(shared: &Arc<Shared>, stream: quinn::SendStream, initiator: Initiator) -> Arc<Self> {
        shared.counts.open.fetch_add(1, Ordering::Relaxed);
        if initiator == Initiator::Peer {
            shared.places.take(&shared.conn);
        }
        let id = stream.id().into();
        let state = State {
            stream: Some(stream),
            phase: Phase::Open,
            listed: false,
            looked: false,
            held: None,
            waker: None,
            rare: None,
            promised: false,
            stalled: false,
        };
        Arc::new(Self {
            shared: Arc::clone(shared),
            stream: id,
            initiator,
            halves: AtomicU8::new(2),
            heard: AtomicBool::new(false),
            wrote: AtomicU64::new(0),
            state: Mutex::new(state),
        })
    }

    pub(crate) fn stream(&self) -> u64 {
        self.stream
    }

    /// A half was dropped.
    pub(crate) fn leave(&self) {
        if self.halves.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.shared.counts.open.fetch_sub(1, Ordering::Relaxed);
            if self.initiator == Initiator::Peer && self.shared.places.leave() {
                self.shared.command.notify_one();
            }
        }
    }

    /// Something came from the peer.
    pub(crate) fn note_heard(&self) {
        if !self.heard.load(Ordering::Relaxed) {
            self.heard.store(true, Ordering::Relaxed);
        }
        if self.wrote.load(Ordering::Relaxed) != 0 {
            self.wrote.store(0, Ordering::Relaxed);
        }
    }

    /// Whether a small write should wait for others.
    pub(crate) fn is_busy(&self) -> bool {
        self.wrote.load(Ordering::Relaxed) == self.shared.flush.turn()
    }

    pub(crate) fn set_busy(&self) {
        self.wrote.store(self.shared.flush.turn(), Ordering::Relaxed);
    }

    pub(crate) fn set_priority(&self, priority: Priority) {
        if let Some(stream) = &lock(&self.state).stream {
            // Only a stream that is over has no priority any more.
            let _ = stream.set_priority(i32::from(Priority::DEFAULT_URGENCY) - i32::from(priority.urgency()));
        }
    }

    /// Abandons the direction if it is not over.
    pub(crate) fn reset(&self, code: u64) -> Result<()> {
        let mut state = lock(&self.state);
        match &state.phase {
            Phase::Open | Phase::Finishing => {}
            Phase::Finished | Phase::Acknowledged | Phase::Reset => return Err(finished()),
            Phase::Failed(error) => return Err(error.clone()),
        }
        if let Some(stream) = &mut state.stream {
            // Only a stream that is over cannot be reset.
            let _ = stream.reset(varint(code));
        }
        if self.initiator == Initiator::Local && self.shared.wire == Wire::Libmux && !self.heard.load(Ordering::Relaxed)
        {
            let options = state.rare.as_mut().and_then(|rare| rare.opened_with.take());
            let preface = preface::encode(&options.unwrap_or_default());
            self.shared.say_reset_early(EarlyReset { stream: self.stream, code, preface });
        }
        self.shared.counts.resets_out.fetch_add(1, Ordering::Relaxed);
        self.end(&mut state, Phase::Reset);
        Ok(())
    }

    /// The flusher's turn. Ready when nothing is left to do.
    pub(crate) fn flush_turn(&self) -> Poll<()> {
        let mut state = lock(&self.state);
        if self.drain(&mut state).is_pending() {
            return Poll::Pending;
        }
        state.listed = false;
        let waker = state.waker.clone();
        drop(state);
        if let Some(waker) = waker {
            waker.wake_application();
        }
        Poll::Ready(())
    }

    /// Resets a finished direction whose linger time is over. `true`: it needs no more flushing.
    pub(crate) fn give_up_after(&self, now: Instant) -> bool {
        let due = lock(&self.state).held.as_ref().and_then(|held| held.until).is_some_and(|until| until <= now);
        if due {
            tracing::warn!(stream = self.stream(), "the peer took too long to read what a closed channel had to say");
            let _ = self.reset(codes::DROPPED);
        }
        due
    }

    /// Whether finished bytes still wait for quinn.
    pub(crate) fn is_flushing(&self) -> bool {
        matches!(lock(&self.state).phase, Phase::Finishing)
    }

    /// Whether a finished direction is known to have arrived, or failed.
    pub(crate) fn look_acknowledged(&self) -> bool {
        let mut state = lock(&self.state);
        if matches!(state.phase, Phase::Finished)
            && let Some(stream) = &state.stream
        {
            // The cheapest question: quinn has forgotten what is acknowledged.
            if stream.priority().is_err() {
                self.end(&mut state, Phase::Acknowledged);
                wake(state);
                return true;
            }
            if !std::mem::replace(&mut state.looked, true) {
                return false;
            }
        }
        // quinn remembers one waker: the one of an application that waits for this stays in its place.
        let waker = state.waker.clone().map_or_else(|| Waker::noop().clone(), Waker::from);
        let known = self.poll_acknowledged(&mut state, &mut Context::from_waker(&waker)).is_ready();
        if known {
            wake(state);
        }
        known
    }

    /// Waits until a finished direction has arrived, or failed.
    pub(crate) async fn acknowledged(&self) {
        let stopped = lock(&self.state).stream.as_ref().map(|stream| stream.stopped());
        if let Some(stopped) = stopped {
            let _ = stopped.await;
        }
        self.let_go();
    }

    /// The session is over: the stream is dropped, which is all that still matters.
    pub(crate) fn let_go(&self) {
        let mut state = lock(&self.state);
        let phase = match state.phase {
            Phase::Finished => Phase::Acknowledged,
            Phase::Open | Phase::Finishing => {
                let cause = self.shared.write_error().unwrap_or_else(Error::closed_locally);
                Phase::Failed(cause)
            }
            _ => return,
        };
        self.end(&mut state, phase);
        wake(state);
    }

    pub(crate) fn poll_acknowledged(&self, state: &mut State, cx: &mut Context<'_>) -> Poll<Result<()>> {
        match &state.phase {
            Phase::Acknowledged => return Poll::Ready(Ok(())),
            Phase::Reset => return Poll::Ready(Err(finished())),
            Phase::Failed(error) => return Poll::Ready(Err(error.clone())),
            Phase::Open | Phase::Finishing | Phase::Finished => {}
        }
        let Some(stream) = &state.stream else { return Poll::Ready(Err(Error::closed_locally())) };
        let stream = stream.stopped();
        let stopped = state.rare().stopped.get_or_insert_with(|| Box::pin(stream));
        let ended = match stopped.as_mut().poll(cx) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Ok(None)) => Ok(()),
            Poll::Ready(Ok(Some(code))) => Err(ended_by_peer(ErrorKind::Stopped, code, self.initiator)),
            Poll::Ready(Err(StoppedError::ConnectionLost(error))) => Err(self.shared.lost(&error)),
            Poll::Ready(Err(StoppedError::ZeroRttRejected)) => Err(self.shared.fail_early()),
        };
        let phase = ended.clone().map_or_else(Phase::Failed, |()| Phase::Acknowledged);
        self.end(state, phase);
        Poll::Ready(ended)
    }

    /// Acknowledged, for the application, which shares its waker with its other calls.
    pub(crate) fn poll_ended(&self, state: &mut State, cx: &Context<'_>) -> Poll<Result<()>> {
        // Before quinn looks: it may wake from another thread at once.
        self.register(state, cx);
        let waker = Waker::from(Arc::clone(self.waker(state)));
        self.poll_acknowledged(state, &mut Context::from_waker(&waker))
    }

    fn end(&self, state: &mut State, phase: Phase) {
        state.phase = phase;
        self.shared.sub_unsent(state.buffered());
        state.held = None;
        state.rare = None;
        // Dropping it also answers a peer that asked us to stop, and unregisters our waker.
        state.stream = None;
        if let Some(waker) = &state.waker {
            waker.waiting.store(false, Ordering::Release);
            waker.blocked.store(false, Ordering::Release);
        }
        if state.listed {
            self.shared.flush.woken.add(self.stream);
        }
        self.note_progress();
    }

    /// Tells who waits for everything finished to arrive, as only a session at its end does.
    fn note_progress(&self) {
        if self.shared.is_over() {
            self.shared.flush.progress.notify_waiters();
        }
    }

    pub(crate) fn waker<'a>(&self, state: &'a mut State) -> &'a Arc<SendWaker> {
        state.waker.get_or_insert_with(|| Arc::new(SendWaker::new(self.stream, Arc::clone(&self.shared.flush.woken))))
    }

    /// Has the application woken when quinn goes on, or the flusher has handed over what waits. The lock that `state` is
    /// behind was not released since the direction was found to be waiting.
    pub(crate) fn register(&self, state: &mut State, cx: &Context<'_>) {
        remember(&mut lock(&self.waker(state).application), cx.waker());
    }

    /// Nobody waits any more.
    pub(crate) fn unregister(&self) {
        if let Some(waker) = &lock(&self.state).waker {
            *lock(&waker.application) = None;
        }
    }

    /// Has the flusher look after what waits.
    pub(crate) fn enlist(self: &Arc<Self>, state: &mut State) {
        if !state.listed {
            state.listed = true;
            self.shared.flush.add_dirty(Arc::clone(self));
        }
    }

    pub(crate) fn room(&self, state: &State) -> usize {
        self.shared.settings.send_buffer.saturating_sub(state.buffered())
    }

    /// Hands everything queued to quinn, and the end after it. Pending: the flusher, or our waker, goes on.
    pub(crate) fn drain(&self, state: &mut State) -> Poll<Result<()>> {
        while state.buffered() > 0 {
            // Before quinn looks: it may wake us from another thread at once.
            let waker = state.waker.as_ref().map(|waker| {
                waker.waiting.store(true, Ordering::Release);
                Waker::from(Arc::clone(waker))
            });
            let (Some(stream), Some(held)) = (&mut state.stream, &mut state.held) else {
                return Poll::Ready(Err(self.error_of(state)));
            };
            held.close_tail();
            let pieces = held.queue.make_contiguous();
            let polled = pin!(stream.write_chunks(pieces))
                .poll(&mut Context::from_waker(waker.as_ref().unwrap_or(Waker::noop())));
            match polled {
                // Nobody was there to be woken: asked again.
                Poll::Pending if waker.is_none() => {
                    self.waker(state);
                }
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(written)) => {
                    held.queue.drain(..written.chunks);
                    held.bytes -= written.bytes;
                    self.shared.sub_unsent(written.bytes);
                    state.stalled = false;
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(self.failed(state, error))),
            }
        }
        state.held = None;
        if let Some(waker) = &state.waker {
            waker.waiting.store(false, Ordering::Release);
        }
        if matches!(state.phase, Phase::Finishing) {
            if let Some(stream) = &mut state.stream {
                // quinn takes the end of a direction that the peer has stopped, and never sends it.
                let mut nobody = Context::from_waker(Waker::noop());
                let asked = pin!(stream.write_chunks(&mut [])).poll(&mut nobody);
                if let Poll::Ready(Err(error)) = asked {
                    return Poll::Ready(Err(self.failed(state, error)));
                }
                // Refused only by a stream that was ended before, which ours was not.
                let _ = stream.finish();
            }
            state.phase = Phase::Finished;
            self.note_progress();
        }
        Poll::Ready(Ok(()))
    }

    pub(crate) fn failed(&self, state: &mut State, error: WriteError) -> Error {
        let error = match error {
            WriteError::Stopped(code) => ended_by_peer(ErrorKind::Stopped, code, self.initiator),
            WriteError::ConnectionLost(error) => self.shared.lost(&error),
            WriteError::ClosedStream => finished(),
            WriteError::ZeroRttRejected => self.shared.fail_early(),
        };
        self.end(state, Phase::Failed(error.clone()));
        error
    }

    pub(crate) fn error_of(&self, state: &State) -> Error {
        match &state.phase {
            Phase::Failed(error) => error.clone(),
            _ => finished(),
        }
    }

    /// Whether bytes may be written, with the lock held.
    pub(crate) fn check_open(&self, state: &State) -> Result<()> {
        match &state.phase {
            Phase::Open => self.shared.write_error().map_or(Ok(()), Err),
            _ => Err(self.error_of(state)),
        }
    }

    pub(crate) fn finish(self: &Arc<Self>) -> Result<()> {
        let mut state = lock(&self.state);
        self.check_open(&state)?;
        self.finish_locked(&mut state);
        drop(state);
        self.shared.flush.add_finished(Arc::clone(self));
        Ok(())
    }

    pub(crate) fn finish_locked(self: &Arc<Self>, state: &mut State) {
        state.phase = Phase::Finishing;
        if self.drain(state).is_pending() {
            self.enlist(state);
        }
    }

    /// The application has let go of the half: what was finished is sent for the linger time, anything else was abandoned.
    pub(crate) fn let_half_go(&self) {
        let mut state = lock(&self.state);
        match state.phase {
            Phase::Finishing => state.held().until = Instant::now().checked_add(self.shared.settings.linger),
            Phase::Open => {
                drop(state);
                let _ = self.reset(codes::DROPPED);
            }
            _ => {}
        }
    }
}

/// Wakes the application, which waits for what quinn no longer tells, once the lock is released.
fn wake(state: MutexGuard<'_, State>) {
    let waker = state.waker.clone();
    drop(state);
    if let Some(waker) = waker {
        waker.wake_application();
    }
}

impl Drop for SendSide {
    /// A stream that quinn drops is ended cleanly, which is a lie unless everything was handed over.
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner);
        if matches!(state.phase, Phase::Open | Phase::Finishing)
            && let Some(stream) = &mut state.stream
        {
            let _ = stream.reset(varint(codes::DROPPED));
        }
    }
}
