//! What happens to a message between a client and its subscriber: lost, copied, delayed, overtaken.

use std::fmt;

use crate::rng::Rng;

/// How bad it is, in thousandths and milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Weather {
    /// Messages that vanish.
    pub loss: u32,
    /// Messages that arrive twice.
    pub copies: u32,
    /// The longest delay, in ms; messages overtake each other within it.
    pub delay_ms: i64,
}

impl Weather {
    /// Nothing is lost and nothing overtakes.
    pub const CALM: Self = Self { loss: 0, copies: 0, delay_ms: 0 };

    /// One of several kinds of weather: some runs lose much and reorder nothing, some the other way round.
    pub fn any(rng: &mut Rng) -> Self {
        Self {
            loss: *rng.pick(&[0, 5, 30, 150, 300]),
            copies: *rng.pick(&[0, 10, 100, 300]),
            delay_ms: *rng.pick(&[0, 50, 1_000, 20_000, 90_000]),
        }
    }

    /// After how many milliseconds a message arrives, for each time that it arrives.
    pub fn arrivals(&self, rng: &mut Rng) -> Vec<i64> {
        if self.loss > 0 && rng.chance(self.loss) {
            return Vec::new();
        }
        let copies = 1 + usize::from(self.copies > 0 && rng.chance(self.copies));
        (0..copies).map(|_| if self.delay_ms == 0 { 5 } else { rng.delay(self.delay_ms) }).collect()
    }
}

impl fmt::Display for Weather {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { loss, copies, delay_ms } = self;
        write!(
            f,
            "loses {loss} and copies {copies} of 1,000 messages and delays them for up to {delay_ms} ms, so that they overtake each other"
        )
    }
}
