//! Small writes of a burst, gathered without the session's lock.
//!
//! A half's stage is open only while the driver will look for output before it sleeps: the driver empties open stages and
//! shuts them when they hold nothing more. So what was taken here goes out without another call. Every other call of the half
//! empties and shuts its stage first, which keeps the order. Whoever holds the state may lock a stage, never the reverse.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};

use mux_api::backend::Burst;
use mux_proto::{Connection, Key, Wire};

/// What a stage holds at most.
const MOST: usize = 16 * 1024;

/// Halves beyond these do without.
const OPEN: usize = 64;

/// Up to here a write is small.
const SMALL: usize = 1024;

/// A write holds a stage for some 20 ns: the driver tries so often before it sleeps, which only a writer that lost its
/// processor meanwhile makes it do.
const TRIES: usize = 200;

/// What a session whose stages are shut keeps.
const KEPT: usize = 4096;

#[derive(Default)]
pub(crate) struct Stage(Mutex<Staged>);

#[derive(Default)]
struct Staged {
    /// It took something since somebody asked.
    took: bool,
    /// How much more it takes; nothing while it is shut.
    room: usize,
    bytes: Vec<u8>,
}

impl Burst for Stage {
    #[inline]
    fn take(&self, bytes: &[u8]) -> bool {
        let mut staged = self.lock();
        if bytes.is_empty() || bytes.len() > staged.room.min(SMALL) {
            return false;
        }
        staged.room -= bytes.len();
        staged.took = true;
        staged.bytes.extend_from_slice(bytes);
        true
    }
}

impl Stage {
    /// Whether it took anything since the last question.
    pub(crate) fn took(&self) -> bool {
        std::mem::take(&mut self.lock().took)
    }

    #[inline]
    fn lock(&self) -> MutexGuard<'_, Staged> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// As `lock`, between two writes: who sleeps here has to be woken by the writer, which costs it more than a burst.
    fn lock_between(&self) -> MutexGuard<'_, Staged> {
        for _ in 0..TRIES {
            match self.0.try_lock() {
                Ok(staged) => return staged,
                Err(TryLockError::Poisoned(poisoned)) => return poisoned.into_inner(),
                Err(TryLockError::WouldBlock) => std::hint::spin_loop(),
            }
        }
        self.lock()
    }
}

/// The open stages of a session.
#[derive(Default)]
pub(crate) struct Stages {
    open: Vec<(Key, Arc<Stage>)>,
    /// Changes places with what a stage holds, so that nobody waits while it is emptied.
    spare: Vec<u8>,
}

impl Stages {
    pub(crate) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// From here on the half may fill its stage with `room` bytes, unless many have one. It is shut at present.
    pub(crate) fn open(&mut self, key: Key, stage: &Arc<Stage>, room: usize) {
        if self.open.len() >= OPEN {
            return;
        }
        let mut staged = stage.lock_between();
        staged.room = room.min(MOST);
        staged.bytes = std::mem::take(&mut self.spare);
        staged.bytes.reserve(KEPT);
        drop(staged);
        self.open.push((key, Arc::clone(stage)));
    }

    /// Moves what the stages hold into the connection. Those that held nothing, or something that cannot be sent at present,
    /// are shut: whatever stays open leaves something to send.
    pub(crate) fn empty<W: Wire>(&mut self, conn: &mut Connection<W>) {
        let Self { open, spare } = self;
        open.retain(|(key, stage)| {
            exchange(stage, spare);
            if !spare.is_empty() {
                let room = conn.write_accepted(*key, spare);
                spare.clear();
                if room > 0 {
                    stage.lock_between().room = room.min(MOST);
                    return true;
                }
            }
            shut(*key, stage, spare, conn);
            false
        });
        self.shrink();
    }

    /// As [`empty`](Self::empty), of one half, whose stage is shut whatever it held.
    pub(crate) fn shut<W: Wire>(&mut self, key: Key, conn: &mut Connection<W>) {
        if let Some(at) = self.open.iter().position(|(open, _)| *open == key) {
            let (_, stage) = self.open.swap_remove(at);
            shut(key, &stage, &mut self.spare, conn);
            self.shrink();
        }
    }

    /// As [`shut`](Self::shut), of all.
    pub(crate) fn shut_all<W: Wire>(&mut self, conn: &mut Connection<W>) {
        for (key, stage) in self.open.drain(..) {
            shut(key, &stage, &mut self.spare, conn);
        }
        self.shrink();
    }

    fn shrink(&mut self) {
        if self.open.is_empty() && self.spare.capacity() > KEPT {
            self.spare = Vec::new();
        }
    }
}

/// Takes what the stage holds; it stays open and has so much less room until it is given more.
fn exchange(stage: &Stage, spare: &mut Vec<u8>) {
    std::mem::swap(&mut stage.lock_between().bytes, spare);
}

fn shut<W: Wire>(key: Key, stage: &Stage, spare: &mut Vec<u8>, conn: &mut Connection<W>) {
    let mut staged = stage.lock_between();
    staged.room = 0;
    let mut bytes = std::mem::take(&mut staged.bytes);
    drop(staged);
    if !bytes.is_empty() {
        conn.write_accepted(key, &bytes);
    }
    // A stage that is shut holds no memory.
    if spare.capacity() < bytes.capacity() {
        bytes.clear();
        *spare = bytes;
    }
}
