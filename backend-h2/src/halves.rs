//! The halves of a channel as applications see them: they change its state and poke the driver, which alone calls h2.

use std::io::IoSlice;
use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard};
use std::task::{Context, Poll, Waker};

use bytes::{Buf, Bytes};
use mux_api::backend::{ChannelParts, RecvOps, SendOps};
use mux_api::{Error, Priority, Result, WriteFlags, codes};
use tokio::io::ReadBuf;

use crate::channel::{Channel, ChannelState};
use crate::recv::RecvState;
use crate::send::SendState;

/// What an application gets of a channel; the caller's two holds become the halves'.
pub(crate) fn parts(channel: &Arc<Channel>) -> ChannelParts {
    ChannelParts {
        id: channel.id,
        initiator: channel.initiator,
        label: channel.label.clone(),
        send: Box::new(Sender { channel: Arc::clone(channel) }),
        recv: Box::new(Receiver { channel: Arc::clone(channel), rest: Bytes::new(), unsaid: 0 }),
    }
}

struct Sender {
    channel: Arc<Channel>,
}

impl Sender {
    /// Nothing is written or finished once the session was closed.
    fn check_closing(&self) -> Result<()> {
        let closing = self.channel.counters().closing.load(Ordering::Acquire);
        if closing { Err(Error::closed_locally()) } else { Ok(()) }
    }

    /// Room for a write, or the error it would give.
    fn room(&self, state: &ChannelState) -> Result<usize> {
        match state.send_error() {
            Some(error) => Err(error),
            None => Ok(self.channel.send_limit().saturating_sub(self.channel.unsent(state))),
        }
    }

    /// Waits for room, or for the transport to take everything; `sending`: it had some before this was looked at. That is asked
    /// under the lock, without which the driver hands out no frame: what is handed out afterwards would be missed.
    fn wait(&self, state: &mut ChannelState, need: usize, waker: &Waker, sending: bool) {
        remember(&mut state.send_waker, waker);
        state.send_need = need;
        self.channel.link.await_transport(sending);
    }

    /// What a writer waits for: it is woken at half, so that it does not wake for every frame.
    fn enough(&self) -> usize {
        self.channel.send_limit() / 2
    }

    fn taken(&self, state: MutexGuard<'_, ChannelState>, bytes: usize) {
        // Counted before the driver can take them.
        self.channel.counters().send_buffered.fetch_add(bytes as u64, Ordering::Relaxed);
        self.channel.counters().traffic.fetch_add(bytes as u64, Ordering::Relaxed);
        drop(state);
        self.channel.link.poke();
    }
}

impl SendOps for Sender {
    fn poll_write(&mut self, cx: &mut Context<'_>, bufs: &[IoSlice<'_>], flags: WriteFlags) -> Poll<Result<usize>> {
        let total: usize = bufs.iter().map(|buf| buf.len()).sum();
        let mut state = self.channel.lock();
        let sending = !self.channel.link.is_flushed();
        self.check_closing()?;
        let room = self.room(&state)?;
        let taken = state.send.write(bufs, room, &self.channel.counters().pool);
        if flags.contains(WriteFlags::FIN) && taken == total {
            state.send.state = SendState::Finishing;
        } else if taken == 0 && total > 0 {
            let enough = self.enough();
            self.wait(&mut state, enough, cx.waker(), sending);
            return Poll::Pending;
        }
        self.taken(state, taken);
        Poll::Ready(Ok(taken))
    }

    fn poll_write_bytes(&mut self, cx: &mut Context<'_>, data: &mut Bytes) -> Poll<Result<usize>> {
        let mut state = self.channel.lock();
        let sending = !self.channel.link.is_flushed();
        self.check_closing()?;
        let room = self.room(&state)?;
        let empty = data.is_empty();
        let taken = state.send.write_bytes(data, room);
        if taken == 0 && !empty {
            let enough = self.enough();
            self.wait(&mut state, enough, cx.waker(), sending);
            return Poll::Pending;
        }
        self.taken(state, taken);
        Poll::Ready(Ok(taken))
    }

    fn poll_writable(&mut self, cx: &mut Context<'_>, min: usize) -> Poll<()> {
        let mut state = self.channel.lock();
        let sending = !self.channel.link.is_flushed();
        let enough = min.clamp(1, self.enough());
        match self.room(&state) {
            Ok(room) if room < enough => {
                self.wait(&mut state, enough, cx.waker(), sending);
                Poll::Pending
            }
            Ok(_) | Err(_) => Poll::Ready(()),
        }
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let mut state = self.channel.lock();
        let sending = !self.channel.link.is_flushed();
        match &state.send.state {
            SendState::Stopped { code, .. } => return Poll::Ready(Err(crate::error::stopped(*code))),
            SendState::Reset { .. } => return Poll::Ready(state.send_error().map_or(Ok(()), Err)),
            _ => {}
        }
        // What was dropped when the session failed was not flushed.
        if let Some(cause) = state.cause.as_ref().filter(|_| state.send.state != SendState::Finished) {
            return Poll::Ready(Err(cause.clone()));
        }
        if self.channel.unsent(&state) == 0 && state.send.state != SendState::Finishing {
            return Poll::Ready(Ok(()));
        }
        self.wait(&mut state, self.channel.send_limit(), cx.waker(), sending);
        Poll::Pending
    }

    fn poll_opened(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let mut state = self.channel.lock();
        if state.opened {
            return Poll::Ready(Ok(()));
        }
        if let Some(cause) = &state.cause {
            return Poll::Ready(Err(cause.clone()));
        }
        // Any change wakes a waiter that needs no room.
        remember(&mut state.send_waker, cx.waker());
        state.send_need = 0;
        Poll::Pending
    }

    fn poll_ended(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let mut state = self.channel.lock();
        let sending = !self.channel.link.is_flushed();
        match (&state.send.state, &state.cause) {
            (SendState::Stopped { code, .. }, _) => return Poll::Ready(Err(crate::error::stopped(*code))),
            (SendState::Reset { .. }, _) => return Poll::Ready(state.send_error().map_or(Ok(()), Err)),
            (SendState::Finished, _) if self.channel.link.is_flushed() => return Poll::Ready(Ok(())),
            (_, Some(cause)) => return Poll::Ready(Err(cause.clone())),
            _ => {}
        }
        self.wait(&mut state, 0, cx.waker(), sending);
        Poll::Pending
    }

    fn finish(&mut self) -> Result<()> {
        let mut state = self.channel.lock();
        if let Some(error) = state.send_error() {
            return Err(error);
        }
        self.check_closing()?;
        state.send.state = SendState::Finishing;
        drop(state);
        self.channel.link.poke();
        Ok(())
    }

    fn reset(&mut self, code: u64) -> Result<()> {
        let mut state = self.channel.lock();
        let finishing = state.send.state == SendState::Finishing && state.cause.is_none();
        if let Some(error) = state.send_error().filter(|_| !finishing) {
            return Err(error);
        }
        if self.channel.raw && code < codes::LIBRARY_FIRST && code > RAW_MAX {
            return Err(Error::unsupported(format!(
                "a raw HTTP/2 stream carries reset codes from 0 to {RAW_MAX} only"
            )));
        }
        state.send.state = SendState::Reset { code, said: false };
        self.channel.discard_send(&mut state);
        self.channel.counters().resets_out.fetch_add(1, Ordering::Relaxed);
        drop(state);
        self.channel.link.poke();
        Ok(())
    }

    fn set_priority(&mut self, priority: Priority) {
        self.channel.lock().priority = priority;
        self.channel.counters().prioritised.store(true, Ordering::Relaxed);
    }

    fn buffered(&self) -> usize {
        self.channel.unsent(&self.channel.lock())
    }

    fn room(&self) -> usize {
        Self::room(self, &self.channel.lock()).unwrap_or(0)
    }
}

/// The largest code that fits beside HTTP/2's own.
const RAW_MAX: u64 = u32::MAX as u64 - 0x100;

impl Drop for Sender {
    fn drop(&mut self) {
        self.channel.lock().send_waker = None;
        self.channel.release_half();
    }
}

struct Receiver {
    channel: Arc<Channel>,
    /// What was taken and did not fit the caller's buffer; read without a lock.
    rest: Bytes,
    /// Bytes of it that were read and not yet said.
    unsaid: usize,
}

impl Receiver {
    /// Says how much was read, once the chunk is used up; the peer may get credit for it.
    fn say_read(&mut self) {
        if !self.rest.is_empty() || self.unsaid == 0 {
            return;
        }
        self.rest = Bytes::new();
        let unsaid = std::mem::take(&mut self.unsaid);
        let mut state = self.channel.lock();
        let counted = state.recv.consume(unsaid);
        state.recv_budget();
        let due = state.recv.due_credit().is_some() || (self.channel.raw && state.recv.has_unreturned());
        drop(state);
        self.channel.counters().recv_buffered.fetch_sub(counted as u64, Ordering::Relaxed);
        if due {
            self.channel.link.poke();
        }
    }

    /// Makes the next chunk the rest; `Ok(false)` at the end.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<Result<bool>> {
        let mut state = self.channel.lock();
        if let Some(chunk) = state.recv.take() {
            self.rest = chunk;
            return Poll::Ready(Ok(true));
        }
        if state.recv_end()? {
            return Poll::Ready(Ok(false));
        }
        remember(&mut state.recv_waker, cx.waker());
        Poll::Pending
    }

    fn end(&mut self, code: u64) {
        self.rest = Bytes::new();
        self.unsaid = 0;
        let mut state = self.channel.lock();
        self.channel.discard_recv(&mut state);
        if state.recv.state == RecvState::Open && state.cause.is_none() {
            state.recv.state = RecvState::Stopping(code);
        }
        state.recv_budget();
        drop(state);
        self.channel.link.poke();
    }
}

impl RecvOps for Receiver {
    fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<Result<usize>> {
        let before = buf.filled().len();
        while buf.remaining() > 0 {
            if self.rest.is_empty() {
                match self.poll_fill(cx) {
                    Poll::Ready(Ok(true)) => {}
                    // What was copied counts first; the end or the error is seen by the next call.
                    _ if buf.filled().len() > before => break,
                    Poll::Ready(Ok(false)) => return Poll::Ready(Ok(0)),
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                    Poll::Pending => return Poll::Pending,
                }
            }
            let len = self.rest.len().min(buf.remaining());
            buf.put_slice(&self.rest[..len]);
            self.rest.advance(len);
            self.unsaid += len;
            self.say_read();
        }
        Poll::Ready(Ok(buf.filled().len() - before))
    }

    fn poll_read_bytes(&mut self, cx: &mut Context<'_>, max: usize) -> Poll<Result<Option<Bytes>>> {
        if self.rest.is_empty() {
            match self.poll_fill(cx) {
                Poll::Ready(Ok(true)) => {}
                Poll::Ready(Ok(false)) => return Poll::Ready(Ok(None)),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            }
        }
        let head = self.rest.split_to(self.rest.len().min(max));
        self.unsaid += head.len();
        self.say_read();
        Poll::Ready(Ok(Some(head)))
    }

    fn poll_readable(&mut self, cx: &mut Context<'_>, min: usize) -> Poll<()> {
        let mut state = self.channel.lock();
        let enough = min.clamp(1, (state.recv.window() / 2).max(1));
        let waiting = state.recv.buffered().saturating_sub(self.unsaid);
        if waiting >= enough || !matches!(state.recv_end(), Ok(false)) {
            return Poll::Ready(());
        }
        remember(&mut state.recv_waker, cx.waker());
        Poll::Pending
    }

    fn stop(&mut self, code: u64) -> Result<()> {
        if self.channel.raw {
            return Err(Error::unsupported("a raw HTTP/2 stream cannot be asked to stop"));
        }
        self.end(code);
        Ok(())
    }

    fn abandon(&mut self, code: u64) {
        self.end(code);
    }

    fn buffered(&self) -> usize {
        self.channel.lock().recv.buffered().saturating_sub(self.unsaid)
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.channel.lock().recv_waker = None;
        self.channel.release_half();
    }
}

/// Keeps `waker`, without a clone when it is the one already kept.
pub(crate) fn remember(slot: &mut Option<Waker>, waker: &Waker) {
    match slot {
        Some(kept) => kept.clone_from(waker),
        None => *slot = Some(waker.clone()),
    }
}
