//! The sending half of a channel.

use std::io::IoSlice;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::{Buf, Bytes};
use mux_api::backend::SendOps;
use mux_api::{Error, Initiator, Priority, Result, WriteFlags, codes};

use crate::shared::lock;
use crate::side::{GATHER, Phase, SMALL, SendSide, State};

/// A [`SendSide`] in an application's hands.
pub(crate) struct QuicSend(Arc<SendSide>);

impl QuicSend {
    pub(crate) fn new(side: Arc<SendSide>) -> Self {
        Self(side)
    }

    /// What a write that quinn takes nothing of does: it fills the buffer, or waits.
    fn hold(&self, cx: &Context<'_>, state: &mut State, bufs: &[IoSlice<'_>]) -> Poll<Result<usize>> {
        let room = self.0.room(state);
        if room == 0 {
            self.0.register(state, cx);
            return Poll::Pending;
        }
        let taken = self.0.gather(state, bufs, room);
        self.0.enlist(state);
        Poll::Ready(Ok(taken))
    }

    fn write(&self, cx: &Context<'_>, state: &mut State, bufs: &[IoSlice<'_>], more: bool) -> Poll<Result<usize>> {
        let side = &self.0;
        let total: usize = bufs.iter().map(|buf| buf.len()).sum();
        if total == 0 {
            return Poll::Ready(Ok(0));
        }
        let flush = &side.shared.flush;
        let small = total < SMALL;
        if small
            && (more || flush.is_busy())
            && state.buffered() + total <= GATHER.min(side.shared.settings.send_buffer)
        {
            side.gather(state, bufs, total);
            side.enlist(state);
            return Poll::Ready(Ok(total));
        }
        if (bufs.len() > 1 || state.buffered() > 0) && total <= GATHER.min(side.room(state)) {
            flush.set_busy();
            side.gather(state, bufs, total);
            if let Poll::Ready(Err(error)) = side.drain(state) {
                return Poll::Ready(Err(error));
            }
            if state.buffered() > 0 {
                side.enlist(state);
            }
            return Poll::Ready(Ok(total));
        }
        match side.drain(state) {
            Poll::Pending => return self.hold(cx, state, bufs),
            Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            Poll::Ready(Ok(())) => {}
        }
        flush.set_busy();
        // Where quinn takes nothing, the buffer takes over, and the flusher waits for quinn.
        let mut nobody = Context::from_waker(Waker::noop());
        let mut taken = 0;
        for buf in bufs.iter().filter(|buf| !buf.is_empty()) {
            let Some(stream) = &mut state.stream else { return Poll::Ready(Err(side.error_of(state))) };
            match Pin::new(stream).poll_write(&mut nobody, buf) {
                Poll::Ready(Ok(part)) => {
                    taken += part;
                    if part < buf.len() {
                        return Poll::Ready(Ok(taken));
                    }
                }
                Poll::Pending if taken > 0 => return Poll::Ready(Ok(taken)),
                Poll::Pending => {
                    let taken = self.hold(cx, state, bufs);
                    // The flusher may wait for this stream already, and quinn has just forgotten whom to wake.
                    return match side.drain(state) {
                        Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
                        _ => taken,
                    };
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(side.failed(state, error))),
            }
        }
        Poll::Ready(Ok(taken))
    }
}

impl SendOps for QuicSend {
    fn poll_write(&mut self, cx: &mut Context<'_>, bufs: &[IoSlice<'_>], flags: WriteFlags) -> Poll<Result<usize>> {
        let side = Arc::clone(&self.0);
        let mut state = lock(&side.state);
        side.check_open(&state)?;
        let written = self.write(cx, &mut state, bufs, flags.contains(WriteFlags::MORE))?;
        let all = bufs.iter().map(|buf| buf.len()).sum::<usize>();
        if flags.contains(WriteFlags::FIN) && matches!(written, Poll::Ready(taken) if taken == all) {
            side.finish_locked(&mut state);
            drop(state);
            side.shared.flush.add_finished(Arc::clone(&side));
        }
        written.map(Ok)
    }

    fn poll_write_bytes(&mut self, cx: &mut Context<'_>, data: &mut Bytes) -> Poll<Result<usize>> {
        let side = Arc::clone(&self.0);
        let mut state = lock(&side.state);
        side.check_open(&state)?;
        if data.len() < 512 {
            let polled = self.write(cx, &mut state, &[IoSlice::new(data)], false);
            if let Poll::Ready(Ok(taken)) = &polled {
                data.advance(*taken);
            }
            return polled;
        }
        // What is queued already waits for quinn: asking again for every piece would be in vain.
        let waiting = state.buffered() > 0 && state.buffered() < GATHER && side.shared.flush.is_busy();
        if !waiting && let Poll::Ready(Err(error)) = side.drain(&mut state) {
            return Poll::Ready(Err(error));
        }
        let taken = data.len().min(side.room(&state));
        if taken == 0 {
            side.register(&mut state, cx);
            return Poll::Pending;
        }
        side.push(&mut state, data.split_to(taken));
        let small = taken < SMALL && side.shared.flush.is_busy() && state.buffered() < GATHER;
        if !small {
            side.shared.flush.set_busy();
            if let Poll::Ready(Err(error)) = side.drain(&mut state) {
                return Poll::Ready(Err(error));
            }
        }
        if state.buffered() > 0 {
            side.enlist(&mut state);
        }
        Poll::Ready(Ok(taken))
    }

    fn poll_writable(&mut self, cx: &mut Context<'_>, min: usize) -> Poll<()> {
        let side = &self.0;
        let mut state = lock(&side.state);
        if side.check_open(&state).is_err() || matches!(side.drain(&mut state), Poll::Ready(Err(_))) {
            return Poll::Ready(());
        }
        let enough = min.clamp(1, side.shared.settings.send_buffer / 2);
        if side.room(&state) >= enough {
            return Poll::Ready(());
        }
        side.register(&mut state, cx);
        Poll::Pending
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let side = &self.0;
        let mut state = lock(&side.state);
        match &state.phase {
            Phase::Finished | Phase::Acknowledged => Poll::Ready(Ok(())),
            Phase::Reset | Phase::Failed(_) => Poll::Ready(Err(side.error_of(&state))),
            Phase::Open | Phase::Finishing => {
                let drained = side.drain(&mut state);
                if drained.is_pending() {
                    side.register(&mut state, cx);
                }
                drained
            }
        }
    }

    fn poll_opened(&mut self, _cx: &mut Context<'_>) -> Poll<Result<()>> {
        Poll::Ready(match self.0.initiator {
            Initiator::Peer => Ok(()),
            Initiator::Local => Err(Error::unsupported("QUIC does not confirm an open; a refusal is seen as Refused")),
        })
    }

    fn poll_ended(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let side = &self.0;
        let mut state = lock(&side.state);
        if matches!(state.phase, Phase::Open | Phase::Finishing)
            && let Poll::Ready(Err(error)) = side.drain(&mut state)
        {
            return Poll::Ready(Err(error));
        }
        side.poll_ended(&mut state, cx)
    }

    fn finish(&mut self) -> Result<()> {
        self.0.finish()
    }

    fn reset(&mut self, code: u64) -> Result<()> {
        self.0.reset(code)
    }

    fn set_priority(&mut self, priority: Priority) {
        self.0.set_priority(priority);
    }

    fn buffered(&self) -> usize {
        lock(&self.0.state).buffered()
    }
}

impl Drop for QuicSend {
    fn drop(&mut self) {
        // A finished direction is kept until it is acknowledged; any other is abandoned, never ended cleanly.
        if matches!(lock(&self.0.state).phase, Phase::Open) {
            let _ = self.0.reset(codes::DROPPED);
        }
        self.0.unregister();
        self.0.leave();
    }
}
