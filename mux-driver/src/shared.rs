//! What the driver, the session and its halves share: the connection and everybody who waits for it.

use std::collections::VecDeque;
use std::num::NonZeroU64;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, TryLockError};
use std::task::{Poll, Waker};

use mux_proto::{Connection, Event, Key, Wire};
use tokio::io::AsyncWrite;

use crate::stage::{Stage, Stages};
use crate::writer::Writer;

/// What a half sends from its caller's buffer before others that wait get their turn, in what the transport takes at once: what
/// it writes from is then still in the processor's cache, and changing tasks costs little beside it.
const TURN: usize = 4;

pub(crate) struct Shared<W> {
    state: Mutex<State<W>>,
    writer: Mutex<Writer>,
}

pub(crate) struct State<W> {
    pub(crate) conn: Connection<W>,
    /// Who waits on each half, by the channel's index.
    halves: Vec<HalfWakers>,
    pub(crate) accepting: Option<Waker>,
    pub(crate) opening: Option<Waker>,
    pub(crate) can_open: Option<Waker>,
    pub(crate) ending: Option<Waker>,
    pub(crate) establishing: Option<Waker>,
    pub(crate) flushing: Option<Waker>,
    /// Tasks that wait for a round trip.
    pub(crate) pinging: Vec<Waker>,
    /// Halves that wait until the transport has taken what was handed over.
    pub(crate) flushing_halves: Vec<Key>,
    /// Halves that send from their callers' buffers as soon as the transport takes more, or the writer is free, by
    /// urgency.
    writers: [VecDeque<Key>; 8],
    /// Who sends from its caller's buffer, and how much it has since others had their turn.
    turn: Option<(Key, usize)>,
    /// The one of `writers` that was woken and has not come yet. One at a time: more would wake other threads, to find the
    /// writer in use.
    next: Option<Key>,
    /// How often a half that was woken has come.
    pub(crate) came: u64,
    /// The driver looks after `writers` in a while.
    pub(crate) watched: bool,
    /// Where bursts of small writes are gathered.
    stages: Stages,
    /// The driver's task.
    pub(crate) driver: Waker,
    /// The driver was woken and has not had its turn yet.
    pub(crate) driver_woken: bool,
    /// Something was sent past the driver since its last turn: what follows is gathered.
    pub(crate) sent_since_turn: bool,
    /// The driver has something to say and lets the tasks it woke go first, so that their answers go out with it.
    pub(crate) waits_for_tasks: bool,
    /// The one task that it woke ends the wait, by a call that leaves it nothing more to do at once.
    pub(crate) handed_over: bool,
    /// A call ended since the driver read; a channel with something to read was accepted, which somebody will read.
    pub(crate) called: bool,
    pub(crate) accepted: bool,
    /// The transport has not taken all that was handed over; it wakes the driver when it can.
    pub(crate) blocked: bool,
    /// How often the transport had taken all that was handed over.
    pub(crate) turns: NonZeroU64,
    /// The transport is released.
    pub(crate) released: bool,
    /// The transport ended before it had taken everything handed over.
    pub(crate) lost: bool,
}

#[derive(Default)]
struct HalfWakers {
    send: Option<Waker>,
    recv: Option<Waker>,
    /// In `writers`.
    writes_next: bool,
    /// In `flushing_halves`.
    flushes: bool,
}

/// Tasks to wake once the lock is released.
#[derive(Default)]
pub(crate) struct Wakes(Vec<Waker>);

impl Wakes {
    pub(crate) fn add(&mut self, waker: Option<Waker>) {
        self.0.extend(waker);
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn wake(&mut self) {
        self.0.drain(..).for_each(Waker::wake);
    }
}

/// How long the driver waits for what others have to say.
pub(crate) enum Gather {
    /// Not at all.
    No,
    /// Until its next turn: everybody who is ready to run goes first.
    Turn,
    /// Until the one task that was woken has nothing more to do at once.
    HandedOver,
}

impl<W: Wire> Shared<W> {
    pub(crate) fn new(conn: Connection<W>, io: Box<dyn AsyncWrite + Send + Unpin>) -> Self {
        let state = State {
            conn,
            halves: Vec::new(),
            accepting: None,
            opening: None,
            can_open: None,
            ending: None,
            establishing: None,
            flushing: None,
            pinging: Vec::new(),
            flushing_halves: Vec::new(),
            writers: Default::default(),
            turn: None,
            next: None,
            came: 0,
            watched: false,
            stages: Stages::default(),
            driver: Waker::noop().clone(),
            driver_woken: false,
            sent_since_turn: false,
            waits_for_tasks: false,
            handed_over: false,
            called: false,
            accepted: false,
            blocked: false,
            turns: NonZeroU64::MIN,
            released: false,
            lost: false,
        };
        Self { state: Mutex::new(state), writer: Mutex::new(Writer::new(io)) }
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State<W>> {
        self.state.lock().unwrap_or_else(|poisoned| {
            // A panic in the middle of a change: nothing of this session can be trusted any more, others are untouched.
            self.state.clear_poison();
            let mut state = poisoned.into_inner();
            state.conn.abort(mux_api::codes::INTERNAL);
            state
        })
    }

    /// Whether what there is to say waits until the tasks that were woken have had their turn. `alone`: it was one task.
    pub(crate) fn wait_for_tasks(&self, alone: bool) -> Gather {
        let mut state = self.state();
        state.waits_for_tasks = state.has_output() && !state.blocked;
        // A task that was here already would not end the wait. Who accepts several channels starts tasks that have
        // something to say as well.
        state.handed_over = state.waits_for_tasks
            && alone
            && !state.called
            && state.conn.backlog() <= 1
            // Nor would what goes into a stage.
            && state.stages.is_empty();
        match (state.waits_for_tasks, state.handed_over) {
            (false, _) => Gather::No,
            (true, false) => Gather::Turn,
            (true, true) => Gather::HandedOver,
        }
    }

    /// Ends a call of a task that has to wait: if the driver waited for it, that goes on.
    pub(crate) fn pend<T>(&self, mut state: MutexGuard<'_, State<W>>) -> Poll<T> {
        state.called = true;
        if state.handed_over {
            let mut wakes = Wakes::default();
            state.wake_driver(&mut wakes);
            drop(state);
            wakes.wake();
        }
        Poll::Pending
    }

    /// As [`finish_call`](Self::finish_call), of a read: what it leaves to say may wait for what its task does next.
    pub(crate) fn finish_read(&self, state: MutexGuard<'_, State<W>>) {
        if !state.handed_over || state.conn.has_events() {
            self.finish_call(state, true);
        }
    }

    /// Waits for the writer: only the driver may, and never while it holds the state.
    pub(crate) fn writer(&self) -> MutexGuard<'_, Writer> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The writer, if nobody uses it and nothing waits in it.
    pub(crate) fn idle_writer(&self) -> Option<MutexGuard<'_, Writer>> {
        let writer = match self.writer.try_lock() {
            Ok(writer) => writer,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        writer.is_idle().then_some(writer)
    }

    /// Ends a call of the application: sends what it queued if nothing was sent since the driver's last turn, else
    /// leaves it to the driver; then wakes whoever can go on.
    pub(crate) fn finish_call(&self, mut state: MutexGuard<'_, State<W>>, gather: bool) {
        state.called = true;
        // The usual case within a burst: nobody to wake, and nothing to send or the driver's turn comes anyway.
        let driven = (state.waits_for_tasks && (!state.handed_over || state.driver_woken))
            || state.blocked
            || (state.driver_woken && (gather || state.sent_since_turn))
            || !state.conn.has_output();
        if driven && !state.conn.has_events() {
            return;
        }
        let mut wakes = Wakes::default();
        state.collect(&mut wakes);
        if !state.conn.has_output() {
            drop(state);
            return wakes.wake();
        }
        if state.waits_for_tasks {
            if state.handed_over {
                // It goes on as soon as this task waits.
                state.wake_driver(&mut wakes);
            }
            drop(state);
            return wakes.wake();
        }
        if !gather
            && !state.sent_since_turn
            && !state.blocked
            && !state.conn.is_over()
            && let Some(mut writer) = self.idle_writer()
        {
            state.poll_output(&mut writer);
            state.sent_since_turn = true;
            state.collect(&mut wakes);
            if state.conn.has_output() {
                state.wake_driver(&mut wakes);
            }
            drop(state);
            let sent = writer.flush();
            self.after_direct(writer, sent.is_ready(), &mut wakes);
        } else {
            state.wake_driver(&mut wakes);
            drop(state);
        }
        wakes.wake();
    }

    /// After a send past the driver: what the transport did not take, or its failure, is the driver's. So are those who
    /// found the writer in use meanwhile.
    pub(crate) fn after_direct(&self, writer: MutexGuard<'_, Writer>, done: bool, wakes: &mut Wakes) {
        if !done || writer.error.is_some() {
            let mut state = self.state();
            state.blocked = !done;
            // Woken whatever `blocked` says: the transport may have taken a part, and then wakes nobody.
            let driver = state.driver.clone();
            state.driver_woken = true;
            wakes.add(Some(driver));
            return;
        }
        // Let go first: whoever begins to wait from here on finds it free.
        drop(writer);
        let mut state = self.state();
        if state.writers_wait() {
            state.wake_next(wakes);
            if !state.watched {
                state.wake_driver(wakes);
            }
        }
    }
}

impl<W: Wire> State<W> {
    /// Whether there is something to send, what was gathered beside the connection included. After `false` no stage is open.
    pub(crate) fn has_output(&mut self) -> bool {
        if !self.stages.is_empty() {
            self.stages.empty(&mut self.conn);
        }
        self.conn.has_output()
    }

    /// Moves what is to be sent into the writer's batch.
    pub(crate) fn poll_output(&mut self, writer: &mut Writer) {
        if !self.stages.is_empty() {
            self.stages.empty(&mut self.conn);
        }
        let most = writer.most();
        self.conn.poll_output(&mut writer.batch, most);
    }

    /// Lets the half gather small writes in `stage`, if the driver will look there and nobody waits for the half itself.
    pub(crate) fn open_stage(&mut self, key: Key, stage: &OnceLock<Arc<Stage>>) {
        let driven = self.driver_woken || self.blocked || (self.waits_for_tasks && !self.handed_over);
        if driven && self.conn.has_output() && self.next != Some(key) && !self.waits_direct(key) {
            let room = self.conn.room(key).unwrap_or(0);
            self.stages.open(key, stage.get_or_init(Arc::default), room);
        }
    }

    /// What the half gathered is the connection's from here on.
    pub(crate) fn shut_stage(&mut self, key: Key) {
        if !self.stages.is_empty() {
            self.stages.shut(key, &mut self.conn);
        }
    }

    /// As [`shut_stage`](Self::shut_stage), of all halves: before the session ends, or tells what is queued.
    pub(crate) fn shut_stages(&mut self) {
        self.stages.shut_all(&mut self.conn);
    }

    /// Turns the connection's events into wakers.
    pub(crate) fn collect(&mut self, wakes: &mut Wakes) {
        while let Some(event) = self.conn.poll_event() {
            match event {
                Event::Readable(key) => wakes.add(self.halves.get_mut(key.index()).and_then(|half| half.recv.take())),
                Event::Writable(key) => wakes.add(self.halves.get_mut(key.index()).and_then(|half| half.send.take())),
                Event::Acceptable => wakes.add(self.accepting.take()),
                Event::CanOpen => {
                    wakes.add(self.opening.take());
                    wakes.add(self.can_open.take());
                }
                Event::Established => wakes.add(self.establishing.take()),
                Event::Answered => wakes.0.append(&mut self.pinging),
                Event::Ended => {
                    wakes.0.append(&mut self.pinging);
                    wakes.add(self.establishing.take());
                    wakes.add(self.flushing.take());
                }
            }
        }
    }

    /// Wakes the driver once until its next turn. A blocked transport wakes it anyway.
    pub(crate) fn wake_driver(&mut self, wakes: &mut Wakes) {
        if !self.driver_woken && !self.blocked {
            self.driver_woken = true;
            wakes.add(Some(self.driver.clone()));
        }
    }

    /// Waits until the transport takes more, to send from the caller's buffer then; `false` when the bytes have to be
    /// buffered because others of the channel go first, or cannot be sent yet.
    pub(crate) fn wait_direct(&mut self, key: Key, waker: &Waker) -> bool {
        let Some(urgency) = self.conn.direct_urgency(key) else { return false };
        self.wait_send(key, waker);
        if !std::mem::replace(&mut self.slot(key).writes_next, true) {
            self.writers[usize::from(urgency)].push_back(key);
        }
        true
    }

    /// Whether the half waits to send from its caller's buffer.
    pub(crate) fn waits_direct(&self, key: Key) -> bool {
        self.halves.get(key.index()).is_some_and(|half| half.writes_next)
    }

    /// Whether halves wait to send from their callers' buffers.
    pub(crate) fn writers_wait(&self) -> bool {
        self.writers.iter().any(|queue| !queue.is_empty())
    }

    /// The transport takes bytes and the writer is free, or will be: of those who wait to send from their own buffers, the next
    /// may try, the most urgent first. It wakes the one after it.
    pub(crate) fn wake_next(&mut self, wakes: &mut Wakes) {
        if self.next.is_none()
            && !self.blocked
            && let Some(key) = self.writers.iter_mut().find_map(VecDeque::pop_front)
        {
            self.next = Some(key);
            let half = self.slot(key);
            half.writes_next = false;
            wakes.add(half.send.take());
        }
    }

    /// Whether one was woken to send and has not come yet.
    pub(crate) fn is_next_awaited(&self) -> bool {
        self.next.is_some()
    }

    /// Gives up on the one that was woken and does not come.
    pub(crate) fn skip_next(&mut self) {
        self.next = None;
    }

    /// Whether the half was woken to send; now it is here.
    pub(crate) fn has_come(&mut self, key: Key) -> bool {
        let come = self.next == Some(key);
        if come {
            self.next = None;
            self.came += 1;
        }
        come
    }

    /// Whether the half has had its turn and leaves the transport to others that are as urgent, or more. `most`: what the
    /// transport takes at once.
    pub(crate) fn yields(&mut self, key: Key, most: usize) -> bool {
        let Some((holder, sent)) = self.turn else { return false };
        let over = holder == key && sent >= most * TURN;
        let urgency = self.conn.direct_urgency(key).map_or(0, usize::from);
        let yields = over && self.writers.iter().take(urgency + 1).any(|queue| !queue.is_empty());
        if over {
            self.turn = None;
        }
        yields
    }

    /// The half sends so much from its caller's buffer.
    pub(crate) fn count_turn(&mut self, key: Key, sent: usize) {
        match &mut self.turn {
            Some((holder, total)) if *holder == key => *total += sent,
            turn => *turn = Some((key, sent)),
        }
    }

    /// Nothing is queued on any channel: who waits for that looks again.
    pub(crate) fn flushed(&mut self, wakes: &mut Wakes) {
        wakes.add(self.flushing.take());
    }

    /// The transport has taken everything handed over, though more may be queued: the halves that wait look again.
    pub(crate) fn drained(&mut self, wakes: &mut Wakes) {
        self.turns = self.turns.saturating_add(1);
        while let Some(key) = self.flushing_halves.pop() {
            let half = self.slot(key);
            half.flushes = false;
            wakes.add(half.send.take());
        }
    }

    pub(crate) fn wait_send(&mut self, key: Key, waker: &Waker) {
        remember(&mut self.slot(key).send, waker);
    }

    /// Waits until the transport has taken what was handed over.
    pub(crate) fn wait_flush(&mut self, key: Key, waker: &Waker) {
        self.wait_send(key, waker);
        if !std::mem::replace(&mut self.slot(key).flushes, true) {
            self.flushing_halves.push(key);
        }
    }

    pub(crate) fn wait_recv(&mut self, key: Key, waker: &Waker) {
        remember(&mut self.slot(key).recv, waker);
    }

    /// Forgets who waited on a half that is gone: its number may be another channel's next.
    pub(crate) fn forget_send(&mut self, key: Key) {
        let half = self.slot(key);
        half.send = None;
        if std::mem::take(&mut half.flushes) {
            self.flushing_halves.retain(|waiting| *waiting != key);
        }
        let half = self.slot(key);
        if std::mem::take(&mut half.writes_next) {
            self.writers.iter_mut().for_each(|queue| queue.retain(|waiting| *waiting != key));
        }
    }

    /// As [`forget_send`](Self::forget_send).
    pub(crate) fn forget_recv(&mut self, key: Key) {
        self.slot(key).recv = None;
    }

    fn slot(&mut self, key: Key) -> &mut HalfWakers {
        let index = key.index();
        if index >= self.halves.len() {
            self.halves.resize_with(index + 1, HalfWakers::default);
        }
        &mut self.halves[index]
    }
}

/// Keeps `waker`, without a clone when it is the one already kept.
pub(crate) fn remember(slot: &mut Option<Waker>, waker: &Waker) {
    match slot {
        Some(kept) => kept.clone_from(waker),
        None => *slot = Some(waker.clone()),
    }
}

/// Moves what is queued into the writer, for the driver's turn.
pub(crate) fn fill<W: Wire>(state: &mut State<W>, writer: &mut Writer, wakes: &mut Wakes) {
    state.poll_output(writer);
    state.collect(wakes);
}
