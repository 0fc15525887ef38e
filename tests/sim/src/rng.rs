//! The one source of chance: a SplitMix64 sequence from the seed.

/// A deterministic sequence of numbers.
#[derive(Debug, Clone)]
pub struct Rng(u64);

impl Rng {
    /// The sequence of this seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        // Neighbouring seeds must not give neighbouring runs.
        let mut rng = Self(seed ^ 0x5bd1_e995_9e37_79b9);
        rng.number();
        rng
    }

    /// A sequence of its own for one part of a world, so that what happens to one part does not change the chance of
    /// another.
    #[must_use]
    pub fn part(seed: u64, part: u64) -> Self {
        Self::new(seed.wrapping_add(part.wrapping_mul(0xd6e8_feb8_6659_fd93)))
    }

    /// Any number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// An index below `count`, which must not be 0.
    pub fn below(&mut self, count: usize) -> usize {
        usize::try_from(self.number() % count as u64).expect("it is below a usize")
    }

    /// A number from `least` to `most`, both included.
    pub fn between(&mut self, least: i64, most: i64) -> i64 {
        let span = most.abs_diff(least).saturating_add(1);
        least.saturating_add(i64::try_from(self.number() % span).unwrap_or(0))
    }

    /// True in `per_mille` of 1,000 cases.
    pub fn chance(&mut self, per_mille: u32) -> bool {
        self.number() % 1_000 < u64::from(per_mille)
    }

    /// One of these, which must not be empty.
    pub fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }

    /// A number that is small more often than large: 0 to 10 ms mostly, seldom up to `most`.
    pub fn delay(&mut self, most: i64) -> i64 {
        match self.below(10) {
            0..=6 => self.between(1, 10.min(most)),
            7 | 8 => self.between(1, (most / 10).max(1)),
            _ => self.between(1, most),
        }
    }
}
