//! The sending half of a channel.

use std::io::IoSlice;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use mux_api::backend::SendOps;
use mux_api::{Error, Initiator, Priority, Result, WriteFlags};

use crate::ask::write_chunk;
use crate::shared::lock;
use crate::side::{GATHER, Phase, SMALL, SendSide, State};

/// A [`SendSide`] in an application's hands.
pub(crate) struct QuicSend(Arc<SendSide>);

impl QuicSend {
    pub(crate) fn new(side: Arc<SendSide>) -> Self {
        Self(side)
    }

    /// Keeps what quinn does not take of `bufs` after `skip` bytes, as far as there is room; without any, it waits.
    fn hold(&self, cx: &Context<'_>, state: &mut State, bufs: &[IoSlice<'_>], skip: usize) -> Poll<Result<usize>> {
        let side = &self.0;
        let room = side.room(state);
        if room == 0 {
            side.register(state, cx);
            return Poll::Pending;
        }
        let taken = side.gather(state, bufs, skip, room);
        // quinn was asked without a waker.
        match side.drain(state) {
            Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            Poll::Ready(Ok(())) => {}
            Poll::Pending => side.enlist(state),
        }
        Poll::Ready(Ok(skip + taken))
    }

    fn write(
        &self,
        cx: &Context<'_>,
        state: &mut State,
        bufs: &[IoSlice<'_>],
        flags: WriteFlags,
    ) -> Poll<Result<usize>> {
        let side = &self.0;
        let total: usize = bufs.iter().map(|buf| buf.len()).sum();
        if total == 0 {
            return Poll::Ready(Ok(0));
        }
        let (more, last) = (flags.contains(WriteFlags::MORE), flags.contains(WriteFlags::FIN));
        // A large write waits for quinn in its caller's buffer, unless it was promised that it need not, or would wait for long.
        let may_hold = std::mem::take(&mut state.promised) || state.stalled || total < SMALL;
        if total < SMALL
            && !last
            && (more || side.is_busy())
            && state.buffered() + total <= GATHER.min(side.shared.settings.send_buffer)
        {
            side.gather(state, bufs, 0, total);
            side.enlist(state);
            return Poll::Ready(Ok(total));
        }
        side.set_busy();
        let gathers = bufs.len() > 1 || state.buffered() > 0;
        if gathers && total <= GATHER.min(side.room(state)) && (may_hold || !side.is_waiting(state)) {
            return self.hold(cx, state, bufs, 0);
        }
        match side.drain(state) {
            Poll::Pending if may_hold => return self.hold(cx, state, bufs, 0),
            Poll::Pending => {
                side.wait_for_held(state, cx);
                return Poll::Pending;
            }
            Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            Poll::Ready(Ok(())) => {}
        }
        let mut taken = 0;
        for buf in bufs.iter().filter(|buf| !buf.is_empty()) {
            let ask = |stream: &mut quinn::SendStream, cx: &mut Context<'_>| Pin::new(stream).poll_write(cx, buf);
            let waits = !may_hold && taken == 0;
            let asked = if waits { side.wait_for_quinn(state, cx, ask) } else { side.try_quinn(state, ask) };
            match asked {
                Poll::Ready(Ok(part)) => {
                    taken += part;
                    if part < buf.len() {
                        break;
                    }
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending if waits => return Poll::Pending,
                Poll::Pending => break,
            }
        }
        if taken < total && may_hold { self.hold(cx, state, bufs, taken) } else { Poll::Ready(Ok(taken)) }
    }
}

impl SendOps for QuicSend {
    fn poll_write(&mut self, cx: &mut Context<'_>, bufs: &[IoSlice<'_>], flags: WriteFlags) -> Poll<Result<usize>> {
        let side = &self.0;
        let mut state = lock(&side.state);
        side.check_open(&state)?;
        let written = self.write(cx, &mut state, bufs, flags)?;
        if flags.contains(WriteFlags::FIN)
            && matches!(written, Poll::Ready(taken) if taken == bufs.iter().map(|buf| buf.len()).sum::<usize>())
        {
            side.finish_locked(&mut state);
            drop(state);
            side.shared.flush.add_finished(Arc::clone(side));
        }
        written.map(Ok)
    }

    fn poll_write_bytes(&mut self, cx: &mut Context<'_>, data: &mut Bytes) -> Poll<Result<usize>> {
        let side = &self.0;
        let mut state = lock(&side.state);
        side.check_open(&state)?;
        if data.len() < 512 {
            let polled = self.write(cx, &mut state, &[IoSlice::new(data)], WriteFlags::NONE);
            if let Poll::Ready(Ok(taken)) = &polled {
                data.advance(*taken);
            }
            return polled;
        }
        let small = data.len() < SMALL;
        let may_hold = std::mem::take(&mut state.promised) || state.stalled || small;
        let gathering = small && side.is_busy() && state.buffered() + data.len() <= GATHER;
        let mut taken = 0;
        if !gathering {
            side.set_busy();
            match side.drain(&mut state) {
                Poll::Pending if may_hold => {}
                Poll::Pending => {
                    side.wait_for_held(&mut state, cx);
                    return Poll::Pending;
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Ready(Ok(())) if may_hold => {
                    if let Poll::Ready(part) = side.offer(&mut state, data)? {
                        taken = part;
                    }
                }
                Poll::Ready(Ok(())) => {
                    return side.wait_for_quinn(&mut state, cx, |stream, cx| write_chunk(stream, cx, data));
                }
            }
            if data.is_empty() {
                return Poll::Ready(Ok(taken));
            }
        }
        let rest = data.len().min(side.room(&state));
        if rest == 0 {
            if taken == 0 {
                side.register(&mut state, cx);
                return Poll::Pending;
            }
            return Poll::Ready(Ok(taken));
        }
        side.push(&mut state, data.split_to(rest));
        if !gathering && let Poll::Ready(Err(error)) = side.drain(&mut state) {
            return Poll::Ready(Err(error));
        }
        if state.buffered() > 0 {
            side.enlist(&mut state);
        }
        Poll::Ready(Ok(taken + rest))
    }

    fn poll_writable(&mut self, cx: &mut Context<'_>, min: usize) -> Poll<()> {
        let side = &self.0;
        let mut state = lock(&side.state);
        if side.check_open(&state).is_err() || matches!(side.drain(&mut state), Poll::Ready(Err(_))) {
            return Poll::Ready(());
        }
        // Before it is asked whether quinn is full, which may end meanwhile.
        side.register(&mut state, cx);
        let enough = min.clamp(1, side.shared.settings.send_buffer / 2);
        state.promised = side.room(&state) >= enough && (state.promised || state.stalled || !side.is_blocked(&state));
        if state.promised { Poll::Ready(()) } else { Poll::Pending }
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

    fn room(&self) -> usize {
        let state = lock(&self.0.state);
        if self.0.check_open(&state).is_ok() { self.0.room(&state) } else { 0 }
    }
}

impl Drop for QuicSend {
    fn drop(&mut self) {
        // A finished direction is kept until it is acknowledged; any other is abandoned, never ended cleanly.
        self.0.let_half_go();
        self.0.unregister();
        self.0.leave();
    }
}
