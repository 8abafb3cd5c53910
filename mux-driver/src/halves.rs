//! The halves of a channel as applications see them.

use std::io::IoSlice;
use std::num::NonZeroU64;
use std::sync::{Arc, MutexGuard, OnceLock};
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use mux_api::backend::{Burst, RecvOps, SendOps};
use mux_api::{Priority, Result, WriteFlags};
use mux_proto::{Chunk, Key, Wire};
use tokio::io::ReadBuf;

use crate::shared::{Shared, State, Wakes};
use crate::stage::Stage;

/// From here on a write goes out at once, from the caller's buffer, together with what was gathered.
const DIRECT: usize = 4096;

pub(crate) struct DrivenSend<W: Wire> {
    shared: Arc<Shared<W>>,
    key: Key,
    /// A flush is under way; the transport had taken all that was handed over so many times when it began.
    flush_since: Option<NonZeroU64>,
    /// Where small writes are gathered; made with the first burst.
    stage: OnceLock<Arc<Stage>>,
}

impl<W: Wire> DrivenSend<W> {
    pub(crate) fn new(shared: Arc<Shared<W>>, key: Key) -> Self {
        Self { shared, key, flush_since: None, stage: OnceLock::new() }
    }

    /// The state, with what this half gathered in it.
    fn state(&self) -> MutexGuard<'_, State<W>> {
        let mut state = self.shared.state();
        if self.stage.get().is_some() {
            state.shut_stage(self.key);
        }
        state
    }

    /// Ready when the transport has taken what this half handed over. What others queue meanwhile does not delay it.
    fn poll_taken(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        if self.stage.get().is_some_and(|stage| stage.took()) {
            self.flush_since = None;
        }
        let mut state = self.shared.state();
        if let (true, Some(cause)) = (state.lost, state.conn.cause()) {
            return Poll::Ready(Err(cause.clone()));
        }
        let idle = !state.blocked && self.shared.idle_writer().is_some();
        let since = *self.flush_since.get_or_insert(state.turns);
        if idle || state.released || state.turns > since {
            self.flush_since = None;
            return Poll::Ready(Ok(()));
        }
        state.wait_flush(self.key, cx.waker());
        let mut wakes = Wakes::default();
        state.wake_driver(&mut wakes);
        drop(state);
        wakes.wake();
        Poll::Pending
    }

    /// The state, for a call that does not send from the caller's buffer: if it was woken for that, others have their turn.
    fn pass_on(&self) -> MutexGuard<'_, State<W>> {
        let mut state = self.state();
        if state.has_come(self.key) {
            let mut wakes = Wakes::default();
            state.wake_next(&mut wakes);
            drop(state);
            wakes.wake();
            state = self.state();
        }
        state
    }

    /// Sends from the caller's buffer if nothing has to go first.
    fn write_direct(&mut self, cx: &mut Context<'_>, bufs: &[IoSlice<'_>], total: usize) -> Sent {
        let mut state = self.state();
        state.has_come(self.key);
        if state.blocked {
            // Waiting for the transport is cheaper than copying what it will take soon.
            return if state.wait_direct(self.key, cx.waker()) { Sent::Waiting } else { Sent::Nothing };
        }
        // As is waiting for somebody who is handing bytes over.
        let Some(mut writer) = self.shared.idle_writer() else {
            return if state.wait_direct(self.key, cx.waker()) { Sent::Waiting } else { Sent::Nothing };
        };
        let mut wakes = Wakes::default();
        let most = writer.most();
        if state.yields(self.key, most) && state.wait_direct(self.key, cx.waker()) {
            drop(state);
            self.shared.after_direct(writer, true, &mut wakes);
            wakes.wake();
            return Sent::Waiting;
        }
        state.poll_output(&mut writer);
        let direct = state.conn.begin_direct(self.key, total.min(most), &mut writer.batch, most);
        let take = direct.as_ref().map_or(0, |direct| direct.take);
        state.count_turn(self.key, take);
        // Others go first: waiting for them is cheaper than copying, too.
        let waits = direct.is_none() && state.wait_direct(self.key, cx.waker());
        state.sent_since_turn = true;
        state.collect(&mut wakes);
        if state.conn.has_output() {
            state.wake_driver(&mut wakes);
        }
        drop(state);
        let nothing = || if waits { Sent::Waiting } else { Sent::Nothing };
        if take == 0 && writer.batch.is_empty() {
            self.shared.after_direct(writer, true, &mut wakes);
            wakes.wake();
            return nothing();
        }
        let mut bodies = [IoSlice::new(&[]); 16];
        let mut left = take;
        let mut used = 0;
        for (slot, buf) in bodies.iter_mut().zip(bufs) {
            *slot = IoSlice::new(&buf[..buf.len().min(left)]);
            left -= slot.len();
            used += 1;
        }
        let sent = writer.send_direct(&bodies[..used], take);
        self.shared.after_direct(writer, sent.is_ready(), &mut wakes);
        wakes.wake();
        if take > 0 { Sent::Bytes(take) } else { nothing() }
    }

    /// As [`poll_write`](SendOps::poll_write), of at most 16 slices.
    fn write(&mut self, cx: &mut Context<'_>, bufs: &[IoSlice<'_>], flags: WriteFlags) -> Poll<Result<usize>> {
        self.flush_since = None;
        let total: usize = bufs.iter().map(|buf| buf.len()).sum();
        let (fin, gather) = (flags.contains(WriteFlags::FIN), flags.contains(WriteFlags::MORE));
        if total >= DIRECT && !gather {
            match self.write_direct(cx, bufs, total) {
                Sent::Bytes(taken) => {
                    if fin && taken == total {
                        self.finish()?;
                    }
                    return Poll::Ready(Ok(taken));
                }
                Sent::Waiting => return Poll::Pending,
                Sent::Nothing => {}
            }
        }
        let mut state = self.pass_on();
        let taken = state.conn.write(self.key, bufs)?;
        if fin && taken == total {
            state.conn.finish(self.key)?;
        } else if taken == 0 && total > 0 {
            state.wait_send(self.key, cx.waker());
            return self.shared.pend(state);
        }
        // The first of a turn is no burst, and a stage costs more than one call.
        if total < DIRECT && state.conn.send_buffered(self.key) > taken {
            state.open_stage(self.key, &self.stage);
        }
        self.shared.finish_call(state, gather);
        Poll::Ready(Ok(taken))
    }
}

/// What became of a write from the caller's buffer.
enum Sent {
    /// So many bytes are the transport's, or its queue's.
    Bytes(usize),
    /// The transport will say when it takes more.
    Waiting,
    /// They have to be buffered.
    Nothing,
}

impl<W: Wire> SendOps for DrivenSend<W> {
    fn poll_write(&mut self, cx: &mut Context<'_>, bufs: &[IoSlice<'_>], flags: WriteFlags) -> Poll<Result<usize>> {
        if let [buf] = bufs {
            if let Some(stage) = self.stage.get()
                && !flags.contains(WriteFlags::FIN)
                && stage.take(buf)
            {
                return Poll::Ready(Ok(buf.len()));
            }
            return self.write(cx, bufs, flags);
        }
        // More than 16 slices are taken in steps: a short write is always allowed.
        let full = || bufs.iter().filter(|buf| !buf.is_empty());
        let mut some = [IoSlice::new(&[]); 16];
        some.iter_mut().zip(full()).for_each(|(slot, buf)| *slot = IoSlice::new(buf));
        let count = full().count();
        let more = if flags.contains(WriteFlags::MORE) { WriteFlags::MORE } else { WriteFlags::NONE };
        let flags = if count > some.len() { more } else { flags };
        self.write(cx, &some[..count.min(some.len())], flags)
    }

    fn poll_write_bytes(&mut self, cx: &mut Context<'_>, data: &mut Bytes) -> Poll<Result<usize>> {
        self.flush_since = None;
        if data.len() >= DIRECT {
            match self.write_direct(cx, &[IoSlice::new(data)], data.len()) {
                Sent::Bytes(taken) => {
                    data.advance(taken);
                    return Poll::Ready(Ok(taken));
                }
                Sent::Waiting => return Poll::Pending,
                Sent::Nothing => {}
            }
        }
        let mut state = self.pass_on();
        let taken = state.conn.write_bytes(self.key, data)?;
        if taken == 0 && !data.is_empty() {
            state.wait_send(self.key, cx.waker());
            return self.shared.pend(state);
        }
        self.shared.finish_call(state, false);
        Poll::Ready(Ok(taken))
    }

    fn poll_writable(&mut self, cx: &mut Context<'_>, min: usize) -> Poll<()> {
        let mut state = self.pass_on();
        // A large write would wait, so a poll that said "writable" would make its caller spin.
        if (state.blocked || state.waits_direct(self.key)) && state.wait_direct(self.key, cx.waker()) {
            return Poll::Pending;
        }
        // Woken at half (the connection says why), so that more cannot be waited for.
        let enough = min.clamp(1, state.conn.send_limit() / 2);
        match state.conn.room(self.key) {
            Ok(room) if room < enough => {
                state.wait_send(self.key, cx.waker());
                self.shared.pend(state)
            }
            Ok(_) | Err(_) => Poll::Ready(()),
        }
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let mut state = self.state();
        let sent = match state.conn.room(self.key) {
            Ok(_) => state.conn.send_buffered(self.key) == 0,
            Err(error) => match state.conn.is_send_done(self.key) {
                Ok(done) => done,
                Err(_) => return Poll::Ready(Err(error)),
            },
        };
        if sent {
            drop(state);
            return self.poll_taken(cx);
        }
        state.wait_send(self.key, cx.waker());
        self.shared.pend(state)
    }

    fn poll_opened(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let mut state = self.state();
        if state.conn.is_opened(self.key)? {
            return Poll::Ready(Ok(()));
        }
        state.wait_send(self.key, cx.waker());
        self.shared.pend(state)
    }

    fn poll_ended(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let mut state = self.state();
        if state.conn.is_send_done(self.key)? {
            drop(state);
            return self.poll_taken(cx);
        }
        state.wait_send(self.key, cx.waker());
        self.shared.pend(state)
    }

    fn finish(&mut self) -> Result<()> {
        self.flush_since = None;
        let mut state = self.state();
        state.conn.finish(self.key)?;
        self.shared.finish_call(state, false);
        Ok(())
    }

    fn reset(&mut self, code: u64) -> Result<()> {
        let mut state = self.state();
        state.conn.reset(self.key, code)?;
        self.shared.finish_call(state, false);
        Ok(())
    }

    fn set_priority(&mut self, priority: Priority) {
        self.state().conn.set_priority(self.key, priority);
    }

    fn buffered(&self) -> usize {
        self.state().conn.send_buffered(self.key)
    }

    fn room(&self) -> usize {
        self.state().conn.room(self.key).unwrap_or(0)
    }

    fn burst(&self) -> Option<Arc<dyn Burst>> {
        self.stage.get().map(|stage| Arc::clone(stage) as _)
    }
}

impl<W: Wire> Drop for DrivenSend<W> {
    fn drop(&mut self) {
        let mut state = self.pass_on();
        state.forget_send(self.key);
        state.conn.release_half(self.key);
        self.shared.finish_call(state, true);
    }
}

pub(crate) struct DrivenRecv<W: Wire> {
    shared: Arc<Shared<W>>,
    key: Key,
    /// A box: an idle channel shall hold no more than a pointer for it.
    lent: Option<Box<Lent>>,
}

/// What the connection lent for small reads.
struct Lent {
    bytes: Vec<u8>,
    /// How much of it was read, and how much of that the connection knows.
    read: usize,
    told: usize,
}

impl Lent {
    fn rest(&self) -> &[u8] {
        &self.bytes[self.read..]
    }

    /// Reads from it as much as there is room for; how much that was.
    #[inline]
    fn read(&mut self, buf: &mut ReadBuf<'_>) -> usize {
        let ready = (self.bytes.len() - self.read).min(buf.remaining());
        if ready > 0 {
            buf.put_slice(&self.bytes[self.read..self.read + ready]);
            self.read += ready;
        }
        ready
    }
}

/// Tells the connection how much was read of what it lent; `true` when that may have to be said to the peer, which ends a
/// call with [`finish_call`](Shared::finish_call).
fn tell<W: Wire>(held: &mut Option<Box<Lent>>, key: Key, state: &mut State<W>) -> bool {
    let Some(lent) = held else { return false };
    let more = lent.read > lent.told;
    let holds = state.conn.returned(key, lent.read - lent.told);
    lent.told = lent.read;
    if !holds || lent.rest().is_empty() {
        *held = None;
    }
    more
}

impl<W: Wire> DrivenRecv<W> {
    pub(crate) fn new(shared: Arc<Shared<W>>, key: Key) -> Self {
        Self { shared, key, lent: None }
    }

    /// Reads behind what was lent, `before` bytes of which are in `buf`.
    fn read_on(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>, mut before: usize) -> Poll<Result<usize>> {
        let mut state = self.shared.state();
        tell(&mut self.lent, self.key, &mut state);
        if before == 0
            && let Some(bytes) = state.conn.lend(self.key, buf.remaining())
        {
            self.shared.finish_read(state);
            let lent = self.lent.insert(Box::new(Lent { bytes, read: 0, told: 0 }));
            return Poll::Ready(Ok(lent.read(buf)));
        }
        loop {
            match state.conn.take(self.key, buf.remaining()) {
                Ok(Chunk::Data(chunk)) => {
                    // Credit is the driver's to send: together with whatever else goes out on its turn. The copy is made
                    // without the lock.
                    self.shared.finish_read(state);
                    buf.put_slice(&chunk);
                    before += chunk.len();
                }
                _ if before > 0 => {
                    self.shared.finish_read(state);
                    break;
                }
                Ok(Chunk::End) => return Poll::Ready(Ok(0)),
                Ok(Chunk::Empty) => {
                    state.wait_recv(self.key, cx.waker());
                    self.shared.finish_call(state, true);
                    return Poll::Pending;
                }
                Err(error) => return Poll::Ready(Err(error)),
            }
            if buf.remaining() == 0 {
                break;
            }
            state = self.shared.state();
        }
        Poll::Ready(Ok(before))
    }
}

impl<W: Wire> RecvOps for DrivenRecv<W> {
    fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<Result<usize>> {
        let read = self.lent.as_mut().map_or(0, |lent| lent.read(buf));
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(read));
        }
        self.read_on(cx, buf, read)
    }

    fn poll_read_bytes(&mut self, cx: &mut Context<'_>, max: usize) -> Poll<Result<Option<Bytes>>> {
        if let Some(lent) = &mut self.lent
            && !lent.rest().is_empty()
        {
            let rest = lent.rest();
            let bytes = Bytes::copy_from_slice(&rest[..rest.len().min(max)]);
            lent.read += bytes.len();
            return Poll::Ready(Ok(Some(bytes)));
        }
        let mut state = self.shared.state();
        tell(&mut self.lent, self.key, &mut state);
        match state.conn.take(self.key, max)? {
            Chunk::Data(chunk) => {
                self.shared.finish_read(state);
                Poll::Ready(Ok(Some(chunk)))
            }
            Chunk::End => Poll::Ready(Ok(None)),
            Chunk::Empty => {
                state.wait_recv(self.key, cx.waker());
                self.shared.finish_call(state, true);
                Poll::Pending
            }
        }
    }

    fn poll_readable(&mut self, cx: &mut Context<'_>, min: usize) -> Poll<()> {
        let mut state = self.shared.state();
        let told = tell(&mut self.lent, self.key, &mut state);
        let readable = state.conn.is_readable(self.key, min);
        if !readable {
            state.wait_recv(self.key, cx.waker());
            self.shared.finish_call(state, true);
            return Poll::Pending;
        }
        if told {
            self.shared.finish_read(state);
        }
        Poll::Ready(())
    }

    fn stop(&mut self, code: u64) -> Result<()> {
        let mut state = self.shared.state();
        state.conn.stop(self.key, code)?;
        self.shared.finish_call(state, false);
        self.lent = None;
        Ok(())
    }

    fn abandon(&mut self, code: u64) {
        let mut state = self.shared.state();
        state.conn.abandon(self.key, code);
        self.shared.finish_call(state, false);
        self.lent = None;
    }

    fn buffered(&self) -> usize {
        let untold = self.lent.as_ref().map_or(0, |lent| lent.read - lent.told);
        self.shared.state().conn.recv_buffered(self.key).saturating_sub(untold)
    }
}

impl<W: Wire> Drop for DrivenRecv<W> {
    fn drop(&mut self) {
        let mut state = self.shared.state();
        state.forget_recv(self.key);
        state.conn.release_half(self.key);
        self.shared.finish_call(state, true);
    }
}
