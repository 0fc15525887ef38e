//! Ids and jitter from one seed that the shell brings: the core itself has no randomness.

use tidegate_model::ids::MessageId;
use tidegate_model::time::Wall;

/// A splitmix64 sequence. Good enough to spread timers and to tell messages apart; nothing secret comes from it.
#[derive(Debug, Clone)]
pub(crate) struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Any number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number from 0 to `most`, both included; 0 where `most` is negative.
    pub fn up_to(&mut self, most: i64) -> i64 {
        let span = u64::try_from(most).unwrap_or(0).saturating_add(1);
        i64::try_from(self.number() % span).unwrap_or(0)
    }

    /// A UUIDv7 for a message said now.
    pub fn message_id(&mut self, wall: Wall) -> MessageId {
        let mut random = [0; 10];
        random[..8].copy_from_slice(&self.number().to_be_bytes());
        random[8..].copy_from_slice(&self.number().to_be_bytes()[..2]);
        let ms = u64::try_from(wall.0).unwrap_or(0);
        MessageId(uuid::Builder::from_unix_timestamp_millis(ms, &random).into_uuid())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stay_in_their_range_and_ids_differ() {
        let mut dice = Dice::new(7);
        for most in [-1, 0, 1, 200, i64::MAX] {
            for _ in 0..100 {
                let n = dice.up_to(most);
                assert!(n >= 0 && n <= most.max(0));
            }
        }
        assert_ne!(dice.message_id(Wall(1)), dice.message_id(Wall(1)));
        assert_eq!(dice.message_id(Wall(1)).0.get_version_num(), 7);
    }
}
