//! Sending what was gathered, and knowing what the peer has acknowledged.
//!
//! quinn looks at every unacknowledged piece in turn, so many tiny ones are slow: small writes are gathered in their
//! half, and one task per session hands them over on its next turn. The same task goes on flushing a direction whose
//! application has finished it and left.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::time::timeout_at;

use crate::shared::{Shared, lock};
use crate::side::SendSide;

/// How often directions that cannot be flushed are looked at for their linger time.
const LOOK: Duration = Duration::from_millis(500);

/// How long a large write waits for quinn at least before it is copied. On a busy link quinn goes on sooner, and nothing is.
const PATIENCE: Duration = Duration::from_millis(20);

pub(crate) struct FlushQueue {
    dirty: Mutex<Dirty>,
    finished: Mutex<Finished>,
    pub(crate) woken: Arc<Woken>,
    /// The flusher's turns so far, and one.
    turn: AtomicU64,
    /// A finished direction has got further.
    pub(crate) progress: Notify,
}

/// Directions that quinn can take more from, by their stream. It owns nothing, so that quinn may hold it.
#[derive(Default)]
pub(crate) struct Woken {
    streams: Mutex<Vec<u64>>,
    notify: Notify,
}

impl Woken {
    pub(crate) fn add(&self, stream: u64) {
        lock(&self.streams).push(stream);
        self.notify.notify_one();
    }
}

/// Directions for the flusher's next turn.
#[derive(Default)]
struct Dirty {
    sides: Vec<Arc<SendSide>>,
    /// Large writes on these wait for quinn, or did so lately.
    waiting: Vec<Arc<SendSide>>,
    /// The session is over: what is added now would never be looked at, and holds the session.
    over: bool,
}

/// Directions that were finished and may not have been acknowledged yet.
#[derive(Default)]
struct Finished {
    sides: Vec<Arc<SendSide>>,
    prune_at: usize,
    over: bool,
}

impl Finished {
    fn prune(&mut self) {
        self.sides.retain(|side| !side.look_acknowledged());
        self.prune_at = self.sides.len() * 2;
    }
}

/// So many finished directions are kept before those that were acknowledged are looked for. Each look takes quinn's lock; with
/// few kept, most of them are looked at more than once.
const PRUNE: usize = 256;

impl Default for FlushQueue {
    fn default() -> Self {
        Self {
            dirty: Mutex::default(),
            finished: Mutex::default(),
            woken: Arc::default(),
            turn: AtomicU64::new(1),
            progress: Notify::new(),
        }
    }
}

impl FlushQueue {
    /// Which turn of the flusher comes next; never 0.
    pub(crate) fn turn(&self) -> u64 {
        self.turn.load(Ordering::Relaxed)
    }

    /// Has `side` flushed on the flusher's next turn.
    pub(crate) fn add_dirty(&self, side: Arc<SendSide>) {
        let mut dirty = lock(&self.dirty);
        if !dirty.over {
            dirty.sides.push(side);
            self.woken.notify.notify_one();
        }
    }

    /// Looks after a direction on which a write waits for quinn.
    pub(crate) fn add_waiting(&self, side: Arc<SendSide>) {
        let mut dirty = lock(&self.dirty);
        if !dirty.over {
            dirty.waiting.push(side);
            if dirty.waiting.len() == 1 {
                self.woken.notify.notify_one();
            }
        }
    }

    /// Has writes copied that have waited for long.
    fn look_waiting(&self) {
        let waiting = std::mem::take(&mut lock(&self.dirty).waiting);
        let waiting = waiting.into_iter().filter(|side| side.look_waiting()).collect::<Vec<_>>();
        let mut dirty = lock(&self.dirty);
        if !dirty.over {
            dirty.waiting.extend(waiting);
        }
    }

    /// Remembers a direction until it is acknowledged. Its own lock must not be held.
    pub(crate) fn add_finished(&self, side: Arc<SendSide>) {
        let mut finished = lock(&self.finished);
        if finished.over {
            drop(finished);
            return side.let_go();
        }
        finished.sides.push(side);
        match finished.sides.len() {
            // The flusher looks after the first of them from now on.
            1 => self.woken.notify.notify_one(),
            len if len >= finished.prune_at.max(PRUNE) => finished.prune(),
            _ => {}
        }
    }

    fn has_finished(&self) -> bool {
        !lock(&self.finished).sides.is_empty()
    }

    /// Lets go of what was acknowledged, or stopped by the peer, which waits for our answer.
    fn prune(&self) {
        lock(&self.finished).prune();
    }

    /// Waits until the peer's transport has everything of every finished direction, or does not want it.
    pub(crate) async fn acknowledged(&self) {
        loop {
            let Some(side) = lock(&self.finished).sides.pop() else { return };
            loop {
                let progress = self.progress.notified();
                if !side.is_flushing() {
                    break;
                }
                progress.await;
            }
            side.acknowledged().await;
        }
    }

    /// The session is over: lets go of every direction.
    pub(crate) fn clear(&self) {
        let over = Dirty { sides: Vec::new(), waiting: Vec::new(), over: true };
        let dirty = std::mem::replace(&mut *lock(&self.dirty), over);
        let over = Finished { sides: Vec::new(), prune_at: 0, over: true };
        let finished = std::mem::replace(&mut *lock(&self.finished), over);
        for side in dirty.sides.iter().chain(&finished.sides) {
            side.let_go();
        }
        self.progress.notify_waiters();
    }
}

/// The flusher: runs until it is aborted at the session's end.
pub(crate) async fn flush_all(shared: Arc<Shared>) {
    let queue = &shared.flush;
    let mut blocked = Blocked(HashMap::new());
    let (mut look, mut patience) = (None, None);
    loop {
        let lingers = !blocked.0.is_empty() || queue.has_finished();
        look = look.filter(|_| lingers).or_else(|| lingers.then(|| Instant::now() + LOOK));
        let waits = !lock(&queue.dirty).waiting.is_empty();
        patience = patience.filter(|_| waits).or_else(|| waits.then(|| Instant::now() + PATIENCE));
        let woken = match look.into_iter().chain(patience).min() {
            None => {
                queue.woken.notify.notified().await;
                true
            }
            Some(due) => timeout_at(due.into(), queue.woken.notify.notified()).await.is_ok(),
        };
        let now = Instant::now();
        if patience.is_some_and(|due| due <= now) {
            patience = None;
            queue.look_waiting();
        }
        if look.is_some_and(|due| due <= now) {
            look = None;
            queue.prune();
            // A session that is being closed has a linger time of its own, and says so when it is over.
            if shared.state().closing.is_none() {
                blocked.0.retain(|_, side| !side.give_up_after(now));
            }
        }
        if !woken {
            continue;
        }
        // The tasks that are ready to run may have more to say.
        tokio::task::yield_now().await;
        queue.turn.fetch_add(1, Ordering::Relaxed);
        let dirty = std::mem::take(&mut lock(&queue.dirty).sides);
        let woken = std::mem::take(&mut *lock(&queue.woken.streams));
        let woken = woken.into_iter().filter_map(|stream| blocked.0.remove(&stream)).collect::<Vec<_>>();
        for side in dirty.into_iter().chain(woken) {
            if side.flush_turn().is_pending() {
                blocked.0.insert(side.stream(), side);
            }
        }
    }
}

/// Directions with bytes that quinn does not take at present. Their streams are let go with the task.
struct Blocked(HashMap<u64, Arc<SendSide>>);

impl Drop for Blocked {
    fn drop(&mut self) {
        self.0.values().for_each(|side| side.let_go());
    }
}
