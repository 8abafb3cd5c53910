//! Blocks for what the application writes, used again and again: a fresh one for every write costs its page faults.

use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};

/// Blocks of a session that nobody uses at the moment.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    free: Vec<BytesMut>,
    /// One was taken since the last [`tidy`](Pool::tidy).
    used: bool,
}

impl Pool {
    pub(crate) const BLOCK: usize = 64 * 1024;
    /// What takes less than this of a block has memory of its own size.
    pub(crate) const WORTH: usize = Self::BLOCK / 2;
    /// As many as keep a fast channel going.
    const KEPT: usize = 8;

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A copy of `data`, which fits a block.
    pub(crate) fn copy(&self, data: &[u8]) -> Bytes {
        let free = {
            let mut inner = self.lock();
            inner.used = true;
            inner.free.pop()
        };
        let mut block = free.unwrap_or_else(|| BytesMut::with_capacity(Self::BLOCK));
        block.extend_from_slice(data);
        block.freeze()
    }

    /// Takes back the memory of what was sent, unless somebody else holds it or it is no block.
    pub(crate) fn give_back(&self, sent: Bytes) {
        let Ok(mut block) = sent.try_into_mut() else { return };
        block.clear();
        if !block.try_reclaim(Self::BLOCK) || block.capacity() > 2 * Self::BLOCK {
            return;
        }
        let mut inner = self.lock();
        if inner.free.len() < Self::KEPT {
            inner.free.push(block);
        }
    }

    /// Lets go of the blocks unless some were used since the last time.
    pub(crate) fn tidy(&self) {
        let mut inner = self.lock();
        if !std::mem::take(&mut inner.used) {
            inner.free = Vec::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Buf;

    fn free(pool: &Pool) -> usize {
        pool.lock().free.len()
    }

    #[test]
    fn what_was_sent_is_used_again_and_let_go_of_when_idle() {
        let pool = Pool::default();
        let mut first = pool.copy(&[1; Pool::WORTH]);
        let at = first.as_ptr();
        first.advance(Pool::WORTH);
        pool.give_back(first);
        assert_eq!(free(&pool), 1);
        let second = pool.copy(&[2; Pool::BLOCK]);
        assert_eq!((second.as_ptr(), &second[..]), (at, &[2; Pool::BLOCK][..]));
        pool.give_back(second);
        pool.tidy();
        assert_eq!(free(&pool), 1, "used since the last time");
        pool.tidy();
        assert_eq!(free(&pool), 0);
    }

    #[test]
    fn only_whole_blocks_that_nobody_holds_are_kept() {
        let pool = Pool::default();
        let held = pool.copy(&[1; Pool::BLOCK]);
        pool.give_back(held.clone());
        pool.give_back(Bytes::from(vec![0; 4096]));
        pool.give_back(Bytes::from(vec![0; 16 * Pool::BLOCK]));
        pool.give_back(Bytes::from_static(&[0; Pool::BLOCK]));
        assert_eq!(free(&pool), 0);
        assert_eq!(held.len(), Pool::BLOCK);
        for block in [held, pool.copy(&[0; 9])].into_iter().chain((0..20).map(|_| Bytes::from(vec![0; Pool::BLOCK]))) {
            pool.give_back(block);
        }
        assert_eq!(free(&pool), Pool::KEPT);
    }
}
