//! A small generator, the same everywhere, so that a seed replays.

/// Numbers that look random, from a seed.
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// Below `bound`, which is not 0.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.next() >> 33) as usize % bound
    }

    pub(crate) fn chance(&mut self, one_in: usize) -> bool {
        self.below(one_in) == 0
    }

    /// A length from 1 to `most`, mostly small, sometimes large.
    pub(crate) fn size(&mut self, most: usize) -> usize {
        let bound = [10, 300, 5_000, 70_000, 300_000][self.below(5)];
        1 + self.below(bound.min(most))
    }
}

/// Byte `at` of the data that scenarios send: a loss, a repeat or a swap shows.
pub(crate) fn pattern(at: usize) -> u8 {
    ((at as u32).wrapping_mul(0x9E37_79B1) >> 11) as u8
}

/// `len` bytes of the pattern from `at` on.
pub(crate) fn patterned(at: usize, len: usize) -> Vec<u8> {
    (at..at + len).map(pattern).collect()
}
