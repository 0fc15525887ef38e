//! Remote brokers: what a bridge meets there, and how that changes over time.

use tidegate_model::code::FaultCode;
use tidegate_model::rule::EdgeRule;

use crate::rng::Rng;

/// Remote brokers in the world.
pub const REMOTES: usize = 3;

/// How a remote broker is now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weather {
    /// It accepts whoever has the right credentials.
    Up,
    /// It cannot be reached, with this fault.
    Gone(FaultCode),
    /// It refuses everybody, with this fault.
    Refusing(FaultCode),
    /// It accepts the connection and says nothing.
    Silent,
}

/// What a bridge finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sign {
    /// It runs.
    Running,
    /// It cannot.
    Fault(FaultCode),
    /// No answer yet.
    Nothing,
}

/// Their names.
#[must_use]
pub fn host(index: usize) -> String {
    format!("remote-{index}.example")
}

/// All remote brokers.
#[derive(Debug, Clone)]
pub struct Remotes([Weather; REMOTES]);

impl Default for Remotes {
    fn default() -> Self {
        Self([Weather::Up; REMOTES])
    }
}

impl Remotes {
    /// One of them is different from now on.
    pub fn set(&mut self, index: usize, weather: Weather) {
        self.0[index % REMOTES] = weather;
    }

    /// No more changes; one in eight stays away, and none stays silent.
    pub fn settle(&mut self, rng: &mut Rng) {
        for weather in &mut self.0 {
            *weather = if rng.chance(125) { Weather::Gone(FaultCode::Tcp) } else { Weather::Up };
        }
    }

    /// What a bridge with this configuration finds now.
    #[must_use]
    pub fn sign(&self, config: &EdgeRule) -> Sign {
        let index = (0..REMOTES).find(|index| host(*index) == config.remote.address.host);
        match index.map(|index| self.0[index]) {
            None => Sign::Fault(FaultCode::Dns),
            Some(Weather::Gone(fault) | Weather::Refusing(fault)) => Sign::Fault(fault),
            Some(Weather::Silent) => Sign::Nothing,
            Some(Weather::Up) => match config.remote.username.as_deref() {
                Some("bad-login") => Sign::Fault(FaultCode::Auth),
                Some("bad-rights") => Sign::Fault(FaultCode::NotAuthorized),
                Some(_) | None => Sign::Running,
            },
        }
    }
}
