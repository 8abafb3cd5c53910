//! A direction that we send in: what waits for quinn, and how far its end has come.

use std::collections::VecDeque;
use std::future::Future;
use std::io::IoSlice;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use mux_api::{Error, ErrorKind, Initiator, Priority, Result, codes};
use quinn::{StoppedError, VarInt, WriteError};

use crate::error::{ended_by_peer, finished, varint};
use crate::flush::Woken;
use crate::shared::{Shared, lock};

/// Writes below this are gathered while others precede them.
pub(crate) const SMALL: usize = 4096;

/// So much is gathered at most before it is handed to quinn.
pub(crate) const GATHER: usize = 32 * 1024;

/// The waker quinn gets for a stream: it wakes the application and, when bytes wait, the flusher. It owns neither the
/// stream nor the session (see [`crate::shared`]).
pub(crate) struct SendWaker {
    pub(crate) application: Mutex<Option<Waker>>,
    stream: u64,
    /// Bytes wait for quinn.
    waiting: AtomicBool,
    woken: Arc<Woken>,
}

impl Wake for SendWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.waiting.load(Ordering::Acquire) {
            self.woken.add(self.stream);
        }
        let waker = lock(&self.application).take();
        waker.into_iter().for_each(Waker::wake);
    }
}

/// A direction that we send in. It outlives its half until what was finished is acknowledged. Whoever gives one up takes
/// the stream out first.
pub(crate) struct SendSide {
    pub(crate) shared: Arc<Shared>,
    pub(crate) waker: Arc<SendWaker>,
    pub(crate) initiator: Initiator,
    pub(crate) state: Mutex<State>,
}

pub(crate) struct State {
    pub(crate) stream: Option<quinn::SendStream>,
    /// What quinn has not taken: whole pieces, then the one that small writes are copied into.
    queue: VecDeque<Bytes>,
    tail: BytesMut,
    pub(crate) buffered: usize,
    pub(crate) phase: Phase,
    /// Known to the flusher.
    listed: bool,
    /// When a finished direction is given up.
    until: Option<Instant>,
    stopped: Option<Stopped>,
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
    pub(crate) fn new(shared: &Arc<Shared>, stream: quinn::SendStream, initiator: Initiator) -> Arc<Self> {
        let waker = SendWaker {
            application: Mutex::new(None),
            stream: stream.id().into(),
            waiting: AtomicBool::new(false),
            woken: Arc::clone(&shared.flush.woken),
        };
        let state = State {
            stream: Some(stream),
            queue: VecDeque::new(),
            tail: BytesMut::new(),
            buffered: 0,
            phase: Phase::Open,
            listed: false,
            until: None,
            stopped: None,
        };
        Arc::new(Self { shared: Arc::clone(shared), waker: Arc::new(waker), initiator, state: Mutex::new(state) })
    }

    pub(crate) fn stream(&self) -> u64 {
        self.waker.stream
    }

    /// Sends the preface: at once where quinn takes it, else as soon as it does.
    pub(crate) fn begin(self: &Arc<Self>, preface: Bytes) {
        let mut state = lock(&self.state);
        self.push(&mut state, preface);
        if self.drain(&mut state).is_pending() {
            self.enlist(&mut state);
        }
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
        drop(state);
        self.wake();
        Poll::Ready(())
    }

    /// Resets a finished direction whose linger time is over. `true`: it needs no more flushing.
    pub(crate) fn give_up_after(&self, now: Instant) -> bool {
        let due = lock(&self.state).until.is_some_and(|until| until <= now);
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
        self.poll_acknowledged(&mut Context::from_waker(Waker::noop())).is_ready()
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
    }

    pub(crate) fn poll_acknowledged(&self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let mut state = lock(&self.state);
        match &state.phase {
            Phase::Acknowledged => return Poll::Ready(Ok(())),
            Phase::Reset => return Poll::Ready(Err(finished())),
            Phase::Failed(error) => return Poll::Ready(Err(error.clone())),
            Phase::Open | Phase::Finishing | Phase::Finished => {}
        }
        let Some(stream) = &state.stream else { return Poll::Ready(Err(Error::closed_locally())) };
        let stream = stream.stopped();
        let stopped = state.stopped.get_or_insert_with(|| Box::pin(stream));
        let ended = match stopped.as_mut().poll(cx) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Ok(None)) => Ok(()),
            Poll::Ready(Ok(Some(code))) => Err(ended_by_peer(ErrorKind::Stopped, code, self.initiator)),
            Poll::Ready(Err(StoppedError::ConnectionLost(error))) => Err(self.shared.lost(&error)),
            Poll::Ready(Err(StoppedError::ZeroRttRejected)) => Err(Error::closed_locally()),
        };
        let phase = ended.clone().map_or_else(Phase::Failed, |()| Phase::Acknowledged);
        self.end(&mut state, phase);
        Poll::Ready(ended)
    }

    fn end(&self, state: &mut State, phase: Phase) {
        state.phase = phase;
        state.queue = VecDeque::new();
        state.tail = BytesMut::new();
        self.shared.sub_unsent(std::mem::take(&mut state.buffered));
        state.until = None;
        state.stopped = None;
        // Dropping it also answers a peer that asked us to stop, and unregisters our waker.
        state.stream = None;
        self.waker.waiting.store(false, Ordering::Release);
        if state.listed {
            self.waker.woken.add(self.waker.stream);
        }
        self.shared.flush.progress.notify_waiters();
    }

    fn wake(&self) {
        let waker = lock(&self.waker.application).take();
        waker.into_iter().for_each(Waker::wake);
    }

    pub(crate) fn push(&self, state: &mut State, piece: Bytes) {
        self.shared.add_unsent(piece.len());
        state.buffered += piece.len();
        if !state.tail.is_empty() {
            let tail = std::mem::take(&mut state.tail).freeze();
            state.queue.push_back(tail);
        }
        state.queue.push_back(piece);
    }

    /// Copies from `bufs` at most `room` bytes; returns how many.
    pub(crate) fn gather(&self, state: &mut State, bufs: &[IoSlice<'_>], room: usize) -> usize {
        let mut taken = 0;
        for buf in bufs {
            let part = &buf[..buf.len().min(room - taken)];
            if part.len() >= SMALL {
                self.push(state, Bytes::copy_from_slice(part));
            } else {
                state.tail.extend_from_slice(part);
                state.buffered += part.len();
                self.shared.add_unsent(part.len());
            }
            taken += part.len();
        }
        taken
    }

    /// Has the flusher look after what waits.
    pub(crate) fn enlist(self: &Arc<Self>, state: &mut State) {
        if !state.listed {
            state.listed = true;
            self.shared.flush.add_dirty(Arc::clone(self));
        }
    }

    pub(crate) fn room(&self, state: &State) -> usize {
        self.shared.settings.send_buffer.saturating_sub(state.buffered)
    }

    /// Hands everything queued to quinn, and the end after it. Pending: our waker is called when quinn takes more.
    pub(crate) fn drain(&self, state: &mut State) -> Poll<Result<()>> {
        while state.buffered > 0 {
            if !state.tail.is_empty() {
                let tail = std::mem::take(&mut state.tail).freeze();
                state.queue.push_back(tail);
            }
            let Some(stream) = &mut state.stream else { return Poll::Ready(Err(self.error_of(state))) };
            // Before quinn looks: it may wake us from another thread at once.
            self.waker.waiting.store(true, Ordering::Release);
            let waker = Waker::from(Arc::clone(&self.waker));
            let pieces = state.queue.make_contiguous();
            let polled = pin!(stream.write_chunks(pieces)).poll(&mut Context::from_waker(&waker));
            match polled {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(written)) => {
                    state.queue.drain(..written.chunks);
                    state.buffered -= written.bytes;
                    self.shared.sub_unsent(written.bytes);
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(self.failed(state, error))),
            }
        }
        self.waker.waiting.store(false, Ordering::Release);
        if matches!(state.phase, Phase::Finishing) {
            if let Some(stream) = &mut state.stream {
                // Refused only by a stream that was ended before, which ours was not.
                let _ = stream.finish();
            }
            state.phase = Phase::Finished;
            state.until = None;
            self.shared.flush.progress.notify_waiters();
        }
        Poll::Ready(Ok(()))
    }

    pub(crate) fn failed(&self, state: &mut State, error: WriteError) -> Error {
        let error = match error {
            WriteError::Stopped(code) => ended_by_peer(ErrorKind::Stopped, code, self.initiator),
            WriteError::ConnectionLost(error) => self.shared.lost(&error),
            WriteError::ClosedStream => finished(),
            WriteError::ZeroRttRejected => Error::closed_locally(),
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
            state.until = Instant::now().checked_add(self.shared.settings.linger);
            self.enlist(state);
        }
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
