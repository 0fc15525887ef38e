//! The state of the session with the controller: where it stands, when it speaks next.
//!
//! ```text
//! Idle --boot--> Waiting --deadline--> Dialing --connected--> Online
//!                   ^                     |                      |
//!                   +---- disconnected ---+----------------------+      any --shutdown--> Idle
//! ```
//!
//! Knows no messages: `session.rs` says them, `down.rs` reads them.

use tidegate_model::digest::Digest;
use tidegate_model::ids::{MessageId, SessionId};
use tidegate_model::limits::{HELLO_EVERY_MS, HELLO_PAUSE_MS};
use tidegate_model::time::Monotonic;

use crate::backoff::Backoff;
use crate::dice::Dice;
use crate::timing::{HELLO_RETRY_MAX_MS, HELLO_RETRY_MS};

/// Where the session stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Link {
    /// Not booted yet, or shut down.
    Idle,
    /// The next CONNECT waits.
    Waiting {
        /// When to try again.
        dial_at: Monotonic,
    },
    /// CONNECT is under way.
    Dialing {
        /// The session.
        sid: SessionId,
    },
    /// Subscribed: messages flow.
    Online(Box<Online>),
}

/// What is known of a session that stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Online {
    pub sid: SessionId,
    /// Number of the last message on `up`, per controller epoch.
    pub up_sq: u64,
    /// Number of the last message on `down`, per controller epoch.
    pub down_sq: u64,
    pub greeting: Greeting,
    pub birth: BirthWatch,
    pub heartbeat: Option<Heartbeat>,
}

/// When to say hello, and whether somebody answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Greeting {
    /// The last hello and the root that it told, while it is not answered.
    pub asked: Option<(MessageId, Digest)>,
    /// Somebody answered in this session: reports are told.
    pub welcomed: bool,
    /// The next one without cause, or the repetition of one that was not answered.
    again_at: Monotonic,
    /// One that has a cause which no hello has told yet.
    wanted_at: Option<Monotonic>,
    last_at: Monotonic,
    pause_ms: i64,
}

/// The birth as it was published, and when to publish it again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BirthWatch {
    pub payload: Vec<u8>,
    pub last_at: Monotonic,
    pub again_at: Option<Monotonic>,
}

/// The rhythm that the welcome asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Heartbeat {
    pub every_ms: i64,
    pub next_at: Monotonic,
}

impl Greeting {
    pub fn new(now: Monotonic) -> Self {
        Self {
            asked: None,
            welcomed: false,
            again_at: now,
            wanted_at: None,
            last_at: now,
            pause_ms: HELLO_RETRY_MS,
        }
    }

    /// A hello was said now.
    pub fn said(&mut self, hello: (MessageId, Digest), now: Monotonic) {
        self.asked = Some(hello);
        self.wanted_at = None;
        self.last_at = now;
        self.again_at = now.plus_ms(self.pause_ms);
        self.pause_ms = self.pause_ms.saturating_mul(2).min(HELLO_RETRY_MAX_MS);
    }

    /// A hello was answered: the next one is the routine one.
    pub fn answered(&mut self, now: Monotonic, dice: &mut Dice) {
        self.asked = None;
        self.pause_ms = HELLO_RETRY_MS;
        let fifth = HELLO_EVERY_MS / 5;
        self.again_at = now.plus_ms(HELLO_EVERY_MS - fifth + dice.up_to(2 * fifth));
    }

    /// Something was missed: hello as soon as the pause since the last one allows.
    pub fn after_gap(&mut self, now: Monotonic) {
        self.no_later_than(now.max(self.last_at.plus_ms(HELLO_PAUSE_MS)));
    }

    /// A hello is wanted by then.
    pub fn no_later_than(&mut self, at: Monotonic) {
        self.wanted_at = Some(self.wanted_at.map_or(at, |before| before.min(at)));
    }

    /// When the next one is due.
    pub fn due_at(&self) -> Monotonic {
        self.wanted_at.map_or(self.again_at, |wanted| wanted.min(self.again_at))
    }
}

impl Link {
    /// The session, if one stands.
    pub fn online(&mut self) -> Option<&mut Online> {
        match self {
            Self::Online(online) => Some(online),
            Self::Idle | Self::Waiting { .. } | Self::Dialing { .. } => None,
        }
    }

    /// The session that stands or is being made.
    pub fn sid(&self) -> Option<SessionId> {
        match self {
            Self::Dialing { sid } => Some(*sid),
            Self::Online(online) => Some(online.sid),
            Self::Idle | Self::Waiting { .. } => None,
        }
    }

    /// The session is gone: the state in which the next CONNECT waits for the pause that `backoff` chooses.
    pub fn lost(&self, now: Monotonic, backoff: &mut Backoff, dice: &mut Dice) -> Self {
        match self {
            Self::Idle | Self::Waiting { .. } => self.clone(),
            Self::Dialing { .. } | Self::Online(_) => {
                // A session that lasted was a good one, whether or not its last second was silent.
                backoff.heard(now);
                Self::Waiting { dial_at: now.plus_ms(backoff.failed(dice.number())) }
            }
        }
    }

    /// When something is due without any input.
    pub fn deadline(&self) -> Option<Monotonic> {
        match self {
            Self::Idle | Self::Dialing { .. } => None,
            Self::Waiting { dial_at } => Some(*dial_at),
            Self::Online(online) => {
                let heartbeat = online.heartbeat.map(|h| h.next_at);
                [Some(online.greeting.due_at()), online.birth.again_at, heartbeat].into_iter().flatten().min()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_model::ids::StoreId;

    const NOW: Monotonic = Monotonic(1_000_000);

    #[test]
    fn a_lost_session_waits_and_an_idle_one_stays_idle() {
        let (mut dice, mut backoff) = (Dice::new(1), Backoff::new());
        let sid = SessionId { store: StoreId(1), epoch: 1 };
        let waiting = Link::Dialing { sid }.lost(NOW, &mut backoff, &mut dice);
        let due = waiting.deadline().unwrap();
        assert!(due >= NOW && due <= NOW.plus_ms(200), "{waiting:?}");
        assert_eq!(waiting.lost(NOW.plus_ms(99), &mut backoff, &mut dice), waiting);
        assert_eq!(Link::Idle.lost(NOW, &mut backoff, &mut dice), Link::Idle);
    }

    #[test]
    fn a_hello_after_a_gap_keeps_the_pause_and_never_delays_one_that_is_due() {
        let mut greeting = Greeting::new(NOW);
        let mut dice = Dice::new(1);
        greeting.said((dice.message_id(tidegate_model::time::Wall(0)), Digest::of(b"")), NOW);
        assert_eq!(greeting.due_at(), NOW.plus_ms(HELLO_RETRY_MS));
        greeting.answered(NOW, &mut dice);
        let routine = greeting.due_at().0 - NOW.0;
        assert!((HELLO_EVERY_MS * 4 / 5..=HELLO_EVERY_MS * 6 / 5).contains(&routine));
        greeting.after_gap(NOW);
        // A welcome to an earlier hello does not answer for what was missed since.
        greeting.answered(NOW, &mut dice);
        assert_eq!(greeting.due_at(), NOW.plus_ms(HELLO_PAUSE_MS));
    }
}
