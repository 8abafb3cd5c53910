//! The session's task: reads the transport, flushes what was queued, keeps time.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use mux_proto::Wire;
use tokio::io::AsyncRead;
use tokio::time::Sleep;

use crate::receive::{ReceiveBuffer, Received};
use crate::shared::{Gather, Shared, Wakes, fill};

/// Bytes read in one turn before other tasks get theirs.
const READ_TURN: usize = 256 * 1024;

/// Turns spent on what a peer sent before it ended the transport: more than its socket held.
const FAREWELL_TURNS: usize = 64;

/// How long a peer may take to end its direction after we ended ours and nothing waits to be sent.
const LAST_READ: Duration = Duration::from_secs(2);

pub(crate) struct Driver<W: Wire> {
    shared: Arc<Shared<W>>,
    reader: Box<dyn AsyncRead + Send + Unpin>,
    buffer: ReceiveBuffer,
    timer: Option<Pin<Box<Sleep>>>,
    /// When the timer fires.
    due: Option<Instant>,
    ending: Ending,
    /// Halves wait to send from their callers' buffers.
    watch: Option<Watch>,
    /// How often halves had come when what was queued last gave way to one.
    gave_way: Option<u64>,
    wakes: Wakes,
    /// Had something to gather: the next turn sends.
    gathered: bool,
    /// So many tasks were woken by what was read in this turn.
    woke: usize,
    /// When a turn was last handed over to the one task that was woken, and when to look whether it came.
    handed_at: Instant,
    look: Option<Instant>,
    /// So many turns are not handed over, since many tasks are at work, or one did not come back; `penalty`: how many they
    /// were for that, fewer again while tasks come.
    keeps: u32,
    penalty: u32,
    /// Held as long as the transport.
    guard: Option<Box<dyn Send>>,
}

/// When to look whether those who wait to send had their turns meanwhile.
struct Watch {
    until: Instant,
    came: u64,
}

/// How long a half that was woken to send may take to come before the next one is.
const PATIENCE: Duration = Duration::from_millis(1);

/// So many turns are not handed over to a single task after one that woke several.
const CROWD: u32 = 16;

/// How far the end of the transport has come.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ending {
    /// The session lives.
    No,
    /// All is sent; our direction is being shut down.
    ShuttingDown,
    /// We wait for the peer's end, until then, so that nothing of ours is lost to a reset by the kernel.
    LastRead { until: Instant },
    /// The transport is released.
    Done,
}

impl<W: Wire> Driver<W> {
    pub(crate) fn new(
        shared: Arc<Shared<W>>,
        reader: Box<dyn AsyncRead + Send + Unpin>,
        guard: Option<Box<dyn Send>>,
    ) -> Self {
        Self {
            shared,
            reader,
            buffer: ReceiveBuffer::default(),
            timer: None,
            due: None,
            ending: Ending::No,
            watch: None,
            gave_way: None,
            wakes: Wakes::default(),
            gathered: false,
            woke: 0,
            handed_at: now(),
            look: None,
            keeps: 0,
            penalty: 0,
            guard,
        }
    }

    /// Reads until the transport has nothing more, or the turn is over. `true`: there may be more.
    fn read(&mut self, cx: &mut Context<'_>) -> bool {
        let mut total = 0;
        while total < READ_TURN {
            let read = match self.buffer.poll_read(&mut *self.reader, cx) {
                Poll::Ready(read) => read,
                Poll::Pending => return false,
            };
            let mut state = self.shared.state();
            match read {
                Ok(Received::Data { bytes, fresh }) => {
                    total += bytes.len();
                    if let Some(size) = fresh {
                        state.conn.handle_new_buffer(size);
                    }
                    state.conn.handle_input(bytes, now());
                }
                Ok(Received::End) => state.conn.handle_eof(),
                Err(error) => {
                    state.conn.handle_transport_error(error);
                    // A transport that failed is not polled again.
                    self.ending = Ending::Done;
                }
            }
            state.collect(&mut self.wakes);
            (state.called, state.accepted) = (false, false);
            let over = state.conn.is_over();
            self.woke += self.wakes.len();
            drop(state);
            self.wakes.wake();
            if over {
                return false;
            }
        }
        true
    }

    /// A peer that ended the session makes our writes fail; what it said before is still there to be read, and tells
    /// why better than the failure does.
    fn read_farewell(&mut self, cx: &mut Context<'_>) {
        for _ in 0..FAREWELL_TURNS {
            if !self.read(cx) {
                return;
            }
        }
    }

    /// Sends what is queued until nothing is left or the transport takes no more.
    fn flush(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let shared = Arc::clone(&self.shared);
        let mut writer = shared.writer();
        writer.waker.clone_from(cx.waker());
        loop {
            let before = writer.batch.len();
            let sent = writer.flush();
            let mut state = shared.state();
            if state.blocked && writer.batch.len() < before {
                state.conn.handle_progress();
            }
            state.blocked = sent.is_pending();
            state.waits_for_tasks = false;
            state.handed_over = false;
            if let Some(error) = writer.error.take() {
                drop(state);
                self.read_farewell(cx);
                let mut state = shared.state();
                state.conn.handle_transport_error(error);
                state.collect(&mut self.wakes);
                writer.close();
                state.lost = true;
                self.ending = Ending::Done;
                state.sent_since_turn = false;
                drop(state);
                break;
            }
            if sent.is_pending() {
                drop(state);
                drop(writer);
                self.wakes.wake();
                return Poll::Pending;
            }
            state.sent_since_turn = false;
            state.drained(&mut self.wakes);
            state.wake_next(&mut self.wakes);
            if !state.has_output() {
                state.flushed(&mut self.wakes);
                drop(state);
                break;
            }
            // What is queued goes out with what the one that was woken sends, or else on the next turn.
            if state.is_next_awaited() && self.gave_way != Some(state.came) {
                self.gave_way = Some(state.came);
                drop(state);
                cx.waker().wake_by_ref();
                break;
            }
            fill(&mut state, &mut writer, &mut self.wakes);
            drop(state);
            self.wakes.wake();
        }
        if self.ending != Ending::Done
            && let Poll::Ready(Err(error)) = writer.poll_flush_transport(cx)
        {
            writer.error = Some(error);
            cx.waker().wake_by_ref();
        }
        drop(writer);
        // Who found the writer in use since the last look.
        let mut state = shared.state();
        state.wake_next(&mut self.wakes);
        if self.watch.is_none() && state.writers_wait() {
            state.watched = true;
            self.watch = Some(Watch { until: now() + PATIENCE, came: state.came });
        }
        drop(state);
        self.wakes.wake();
        Poll::Ready(())
    }

    /// Of those who wait to send from their own buffers one is woken, and wakes the next when it sends. One that does not come
    /// must not hold up the others.
    fn watch_writers(&mut self) {
        let Some(watch) = &mut self.watch else { return };
        let mut state = self.shared.state();
        if state.blocked || !state.writers_wait() {
            state.watched = false;
            drop(state);
            self.watch = None;
            return;
        }
        let now = now();
        if watch.until > now {
            return;
        }
        if state.came == watch.came {
            state.skip_next();
            state.wake_next(&mut self.wakes);
        }
        *watch = Watch { until: now + PATIENCE, came: state.came };
        drop(state);
        self.wakes.wake();
    }

    /// Woken to send, or something to say to what was read: the tasks that are ready to run may have more to say, so they
    /// get their turn first. `more`: not all was read.
    fn gathers(&mut self, asked: bool, more: bool, cx: &mut Context<'_>) -> bool {
        if self.gathered || (!asked && self.woke == 0) {
            return false;
        }
        if self.woke > 1 {
            // Others are busy as well, and may be ready to run from before.
            self.keeps = self.keeps.max(CROWD);
        }
        let alone = self.woke == 1 && !asked && !more && self.may_hand_over();
        match self.shared.wait_for_tasks(alone) {
            Gather::No => return false,
            Gather::Turn => cx.waker().wake_by_ref(),
            Gather::HandedOver => {
                self.handed_at = now();
                self.look.get_or_insert(self.handed_at + PATIENCE);
            }
        }
        self.gathered = true;
        true
    }

    /// Whether one task that was woken may say when what is queued goes out. Waiting for a turn of ours instead would make
    /// the runtime wake a second thread, for a driver that has little to do.
    fn may_hand_over(&mut self) -> bool {
        let may = self.keeps == 0;
        self.keeps = self.keeps.saturating_sub(1);
        may
    }

    /// Looks whether the task that the turn was handed over to has come.
    fn watch_task(&mut self, cx: &mut Context<'_>) {
        self.look = None;
        let state = self.shared.state();
        if !state.handed_over || state.driver_woken {
            self.penalty /= 2;
        } else if now() < self.handed_at + PATIENCE {
            self.look = Some(self.handed_at + PATIENCE);
        } else {
            self.penalty = (self.penalty * 2).clamp(64, 4096);
            self.keeps = self.penalty;
            drop(state);
            cx.waker().wake_by_ref();
        }
    }

    /// Wakes itself when time matters.
    fn keep_time(&mut self, cx: &mut Context<'_>) {
        loop {
            self.watch_writers();
            let due = match self.ending {
                Ending::LastRead { until } => Some(until),
                _ => {
                    let deadline = self.shared.state().conn.next_deadline();
                    let watch = self.watch.as_ref().map(|watch| watch.until);
                    deadline.into_iter().chain(watch).chain(self.look).min()
                }
            };
            let Some(due) = due else {
                self.due = None;
                return;
            };
            if self.due != Some(due) {
                self.due = Some(due);
                match &mut self.timer {
                    Some(timer) => timer.as_mut().reset(due.into()),
                    None => self.timer = Some(Box::pin(tokio::time::sleep_until(due.into()))),
                }
            }
            let Some(timer) = &mut self.timer else { return };
            if timer.as_mut().poll(cx).is_pending() {
                return;
            }
            self.due = None;
            let now = now();
            if self.look == Some(due) {
                self.watch_task(cx);
                continue;
            }
            if self.watch.as_ref().is_some_and(|watch| watch.until == due) {
                continue;
            }
            self.shared.writer().batch.shrink();
            let mut state = self.shared.state();
            state.conn.handle_timeout(now);
            state.collect(&mut self.wakes);
            let (over, spent) = (state.conn.is_over(), state.conn.next_deadline().is_some_and(|next| next <= now));
            // Who found the writer in use just now waits for a turn as well.
            state.wake_next(&mut self.wakes);
            let again = state.writers_wait() || state.has_output();
            drop(state);
            self.wakes.wake();
            if again {
                cx.waker().wake_by_ref();
            }
            if over && (spent || matches!(self.ending, Ending::LastRead { until } if until <= now)) {
                self.ending = Ending::Done;
                return;
            }
        }
    }

    /// A polite end waits for the transport to take what is left. Meanwhile nobody reads the session's input any more,
    /// but a peer that is blocked sending it would never take ours.
    fn discard_input(&mut self, cx: &mut Context<'_>) {
        match self.buffer.poll_read(&mut *self.reader, cx) {
            Poll::Ready(Ok(Received::Data { .. })) => cx.waker().wake_by_ref(),
            Poll::Ready(Ok(Received::End)) | Poll::Pending => {}
            Poll::Ready(Err(_)) => self.ending = Ending::Done,
        }
    }

    /// After the session is over: ends the transport without losing what was sent. Ready when it is released.
    fn end(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            match self.ending {
                Ending::No => self.ending = Ending::ShuttingDown,
                Ending::ShuttingDown => {
                    let shut = self.shared.writer().poll_shutdown(cx);
                    match shut {
                        Poll::Pending => return Poll::Pending,
                        Poll::Ready(Ok(())) => self.ending = Ending::LastRead { until: now() + LAST_READ },
                        Poll::Ready(Err(_)) => self.ending = Ending::Done,
                    }
                }
                Ending::LastRead { .. } => match self.buffer.poll_read(&mut *self.reader, cx) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Ok(Received::Data { .. })) => {
                        // In a polite end, a peer that still sends has not seen our end, and may not have all that
                        // went before it: closing now would make the kernel throw that away.
                        if let Some(linger) = self.shared.state().conn.next_deadline() {
                            self.ending = Ending::LastRead { until: (now() + LAST_READ).min(linger) };
                        }
                        // A peer that goes on sending gets one read a turn.
                        cx.waker().wake_by_ref();
                        return Poll::Pending;
                    }
                    Poll::Ready(Ok(Received::End) | Err(_)) => self.ending = Ending::Done,
                },
                Ending::Done => {
                    self.release();
                    return Poll::Ready(());
                }
            }
        }
    }

    /// Lets go of the transport and says so.
    fn release(&mut self) {
        self.reader = Box::new(tokio::io::empty());
        let lost = self.shared.writer().close();
        self.guard = None;
        let mut state = self.shared.state();
        state.shut_stages();
        state.lost |= lost;
        state.released = true;
        let waker = state.ending.take();
        self.wakes.add(waker);
        state.drained(&mut self.wakes);
        state.flushed(&mut self.wakes);
        drop(state);
        self.wakes.wake();
    }
}

impl<W: Wire> Future for Driver<W> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        let (over, asked) = {
            let mut state = this.shared.state();
            state.driver.clone_from(cx.waker());
            (state.conn.is_over(), std::mem::take(&mut state.driver_woken))
        };
        this.woke = 0;
        let more = !over && this.ending == Ending::No && this.read(cx);
        if !over && this.gathers(asked, more, cx) {
            this.keep_time(cx);
            return Poll::Pending;
        }
        this.gathered = false;
        let sent = this.flush(cx);
        this.keep_time(cx);
        let (over, may_wait, output) = {
            let state = this.shared.state();
            (state.conn.is_over(), state.conn.next_deadline().is_some(), state.conn.has_output())
        };
        // The application ended the session after the flush: its goodbye goes out before the transport ends.
        if over && output && sent.is_ready() && this.ending == Ending::No {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        // Only a polite end waits for the transport to take what is left.
        if over && sent.is_pending() && may_wait && this.ending == Ending::No {
            this.discard_input(cx);
        }
        if over && (sent.is_ready() || !may_wait || this.ending == Ending::Done) {
            while this.end(cx).is_pending() {
                // The end has a deadline of its own: a peer that never closes must not keep the transport.
                this.keep_time(cx);
                if this.ending != Ending::Done {
                    return Poll::Pending;
                }
            }
            return Poll::Ready(());
        }
        if more {
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }
}

impl<W: Wire> Drop for Driver<W> {
    /// The runtime was shut down, or the task ended: nobody may wait for it any longer.
    fn drop(&mut self) {
        let mut state = self.shared.state();
        state.conn.handle_transport_error(std::io::Error::other("the runtime that drove the session was shut down"));
        state.collect(&mut self.wakes);
        drop(state);
        self.release();
    }
}

/// The runtime's clock, which tests may have paused: the timer runs by it too.
pub(crate) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

const _: () = assert!(crate::writer::BATCH <= READ_TURN);
