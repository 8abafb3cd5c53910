//! A moment of looking before a sleep.
//!
//! A thread that is put to sleep and woken again waits for two switches of threads, often for a processor that had gone to
//! sleep too: longer than a peer on the same machine takes to answer. So who reads after a write looks for an answer a while,
//! and gives its processor to others that can use it in between. Where answers take longer, this is tried in one sixteenth of
//! the time only, the same one in all processes, since it pays when both ends do it. One thread of a process at a time.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use super::monotonic;

/// How long to look: what a round trip takes whose threads sleep.
const LIMIT: Duration = Duration::from_micros(100);

/// Where answers take longer, looks are tried for so many milliseconds ...
const TRIAL: u128 = 4;

/// ... of so many.
const PERIOD: u128 = 64;

/// So many looks in vain end a run of answers that came in time.
const TRUST: u32 = 8;

/// A thread of this process looks at present.
static LOOKING: AtomicBool = AtomicBool::new(false);

#[derive(Default)]
pub(crate) struct Patience {
    /// Something was written since the last sleep, so an answer is likely.
    expects: AtomicBool,
    /// Looks that may still be in vain.
    trust: AtomicU32,
}

impl Patience {
    /// An answer is to be expected.
    #[inline]
    pub(crate) fn expect_answer(&self) {
        self.expects.store(true, Ordering::Relaxed);
    }

    /// Whether `word` came to differ from `seen` so soon that nobody needs to sleep.
    pub(crate) fn look(&self, word: &AtomicU32, seen: u32) -> bool {
        if !self.expects.load(Ordering::Relaxed) {
            return false;
        }
        self.expects.store(false, Ordering::Relaxed);
        let trust = self.trust.load(Ordering::Relaxed);
        let tries = trust > 0 || monotonic().as_millis() % PERIOD < TRIAL;
        if !tries || LOOKING.swap(true, Ordering::Relaxed) {
            return false;
        }
        let begin = Instant::now();
        let mut changed = false;
        while !changed && begin.elapsed() < LIMIT {
            std::thread::yield_now();
            changed = word.load(Ordering::SeqCst) != seen;
        }
        LOOKING.store(false, Ordering::Relaxed);
        self.trust.store(if changed { TRUST } else { trust.saturating_sub(1) }, Ordering::Relaxed);
        changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_expects_an_answer_looks_and_one_that_never_comes_is_given_up() {
        let (patience, word) = (Patience::default(), AtomicU32::new(1));
        assert!(!patience.look(&word, 0), "nothing was written");
        patience.trust.store(TRUST, Ordering::Relaxed);
        while patience.trust.load(Ordering::Relaxed) > 0 {
            patience.expect_answer();
            assert!(!patience.look(&word, 1), "it stays as it is");
        }
    }
}
