//! Logins that the controller's broker refused, for its operators: a gateway with a wrong credential is told so itself, where
//! nobody may look.
//!
//! Keeps who it said it was, why it was refused, how often and from where; never what it presented. Bounded: the newest
//! [`MAX_KEPT`], for [`KEPT_MS`]. An operator is told at once of a new one, at most one each [`TOLD_APART_MS`].

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;
use tidegate_cloud_core::{Event, EventKind};
use tidegate_model::ids::EdgeId;
use tidegate_model::time::{Monotonic, Now, Wall};

use crate::events::Events;

/// Names and reasons that are kept at the most.
const MAX_KEPT: usize = 32;
/// How long one is kept after its last try, in milliseconds.
const KEPT_MS: i64 = 3_600_000;
/// How long an event is waited for after the last one, whoever it is about, in milliseconds.
const TOLD_APART_MS: i64 = 10_000;
/// How long until an event tells again of the same one, in milliseconds.
const TOLD_AGAIN_MS: i64 = 600_000;
/// In place of a name that none of ours can be: it may be a secret in the wrong place.
const NO_NAME: &str = "(not the name of an edge)";

/// Why a login was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum RefusedWhy {
    /// The name is known, the credential is another one.
    WrongCredential,
    /// The administrator's token, or that of other systems, is another one.
    WrongToken,
    /// No edge has this name.
    UnknownEdge,
    /// It said one name as its user, and another as its client id.
    TwoNames,
    /// It presented no credential.
    NoCredential,
}

impl RefusedWhy {
    fn in_words(self) -> &'static str {
        match self {
            Self::WrongCredential => "with a wrong credential",
            Self::WrongToken => "with a wrong token",
            Self::UnknownEdge => "and no edge has this name",
            Self::TwoNames => "under a client id that belongs to another name",
            Self::NoCredential => "without a credential",
        }
    }
}

/// A login that was refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub(crate) struct RefusedLogin {
    /// The user name that was presented, where it can be the name of an edge.
    pub(crate) name: String,
    /// Why it was refused.
    pub(crate) why: RefusedWhy,
    /// How often, since it was first refused or forgotten.
    pub(crate) times: u64,
    /// When it was refused last.
    #[serde(serialize_with = "rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    pub(crate) last: Wall,
    /// From which address.
    #[schema(value_type = String)]
    pub(crate) from: IpAddr,
}

fn rfc3339<S: serde::Serializer>(at: &Wall, serializer: S) -> Result<S::Ok, S::Error> {
    match jiff::Timestamp::from_millisecond(at.0) {
        Ok(at) => serializer.collect_str(&format_args!("{at:.3}")),
        Err(_) => serializer.serialize_none(),
    }
}

/// Keeps refused logins.
pub(crate) struct RefusedLogins {
    events: Arc<Events>,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    logins: BTreeMap<(String, RefusedWhy), One>,
    /// Refusals that were noted so far: their order, also within a millisecond.
    noted: u64,
    told_at: Option<Monotonic>,
}

struct One {
    login: RefusedLogin,
    last: Monotonic,
    /// Number of the last refusal.
    number: u64,
    told_at: Option<Monotonic>,
}

impl RefusedLogins {
    pub(crate) fn new(events: Arc<Events>) -> Self {
        Self { events, kept: Mutex::default() }
    }

    /// Notes a refusal, and tells of it unless it was told lately.
    pub(crate) fn note(&self, now: Now, presented: &str, why: RefusedWhy, from: IpAddr) {
        let edge = EdgeId::new(presented).ok();
        let name = edge.as_ref().map_or(NO_NAME, EdgeId::as_str);
        tracing::warn!(line.kind = "wrong-credential", name, %from, "a login was refused: {}", why.in_words());
        let mut kept = self.lock();
        kept.forget_old(now.monotonic);
        let key = (name.to_owned(), why);
        if !kept.logins.contains_key(&key) && kept.logins.len() >= MAX_KEPT {
            let oldest = kept.logins.iter().min_by_key(|(_, one)| one.number).map(|(key, _)| key.clone());
            oldest.and_then(|key| kept.logins.remove(&key));
        }
        kept.noted += 1;
        let number = kept.noted;
        let quiet = kept.told_at.is_some_and(|at| at.plus_ms(TOLD_APART_MS) > now.monotonic);
        let new = || One {
            login: RefusedLogin { name: name.to_owned(), why, times: 0, last: now.wall, from },
            last: now.monotonic,
            number,
            told_at: None,
        };
        let one = kept.logins.entry(key).or_insert_with(new);
        one.login.times = one.login.times.saturating_add(1);
        (one.login.last, one.login.from) = (now.wall, from);
        (one.last, one.number) = (now.monotonic, number);
        let is_told = one.told_at.is_some_and(|at| at.plus_ms(TOLD_AGAIN_MS) > now.monotonic);
        if quiet || is_told {
            return;
        }
        one.told_at = Some(now.monotonic);
        kept.told_at = Some(now.monotonic);
        drop(kept);
        let text = format!("somebody at {from} tries to log in as {name} {}", why.in_words());
        // An event about an edge says that there is one.
        let edge = edge.filter(|_| why == RefusedWhy::WrongCredential);
        let kind = if edge.is_some() { EventKind::Edge } else { EventKind::Controller };
        self.events.publish(Event { kind, at: now.wall, rule: None, edge, text, was_asked_for: false });
    }

    /// Forgets what was refused to who is let in now.
    pub(crate) fn let_in(&self, name: &EdgeId) {
        self.lock().logins.retain(|(refused, _), _| refused != name.as_str());
    }

    /// What was refused lately, the newest first.
    pub(crate) fn view(&self, now: Now) -> Vec<RefusedLogin> {
        let mut kept = self.lock();
        kept.forget_old(now.monotonic);
        let mut shown: Vec<&One> = kept.logins.values().collect();
        shown.sort_by_key(|one| std::cmp::Reverse(one.number));
        shown.into_iter().map(|one| one.login.clone()).collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Kept> {
        // Nothing that holds the lock can leave the map half changed.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn forget_old(&mut self, now: Monotonic) {
        self.logins.retain(|_, one| one.last.plus_ms(KEPT_MS) > now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: i64) -> Now {
        Now { monotonic: Monotonic(ms), wall: Wall(ms) }
    }

    fn from() -> IpAddr {
        "10.0.0.5".parse().unwrap()
    }

    fn texts(events: &Events) -> Vec<String> {
        events.watch(Some("1-0")).missed.iter().map(|e| e.event.text.clone()).collect()
    }

    #[test]
    fn tries_are_counted_and_told_once_until_they_stop_or_are_let_in() {
        let events = Arc::new(Events::new(1));
        let refused = RefusedLogins::new(Arc::clone(&events));
        for second in 0..120 {
            refused.note(at(second * 1_000), "gw-7", RefusedWhy::WrongCredential, from());
        }
        let told = "somebody at 10.0.0.5 tries to log in as gw-7 with a wrong credential";
        assert_eq!(texts(&events), [told]);
        let shown = refused.view(at(120_000));
        assert_eq!((shown.len(), shown[0].times, shown[0].last), (1, 120, Wall(119_000)));
        // Ten minutes later it is told again, an hour after the last try it is forgotten.
        refused.note(at(TOLD_AGAIN_MS), "gw-7", RefusedWhy::WrongCredential, from());
        assert_eq!(texts(&events), [told, told]);
        assert!(refused.view(at(TOLD_AGAIN_MS + KEPT_MS)).is_empty());
        refused.note(at(9_000_000), "gw-7", RefusedWhy::WrongCredential, from());
        refused.let_in(&EdgeId::new("gw-7").unwrap());
        assert!(refused.view(at(9_000_000)).is_empty());
    }

    #[test]
    fn who_tries_many_names_floods_nothing() {
        let events = Arc::new(Events::new(1));
        let refused = RefusedLogins::new(Arc::clone(&events));
        for n in 0..10_000_i64 {
            refused.note(at(n), &format!("gw-{n}"), RefusedWhy::UnknownEdge, from());
        }
        let shown = refused.view(at(10_000));
        assert_eq!((shown.len(), shown[0].name.as_str()), (MAX_KEPT, "gw-9999"));
        assert_eq!(texts(&events).len(), 1);
    }

    #[test]
    fn what_is_no_name_is_not_shown() {
        let events = Arc::new(Events::new(1));
        let refused = RefusedLogins::new(Arc::clone(&events));
        refused.note(at(0), "tge_S3cr3t", RefusedWhy::TwoNames, from());
        refused.note(at(20_000), "a\nb", RefusedWhy::NoCredential, from());
        let shown = format!("{:?} {:?}", refused.view(at(20_000)), texts(&events));
        assert!(shown.contains(NO_NAME) && !shown.contains("S3cr3t") && !shown.contains("a\\nb"), "{shown}");
    }
}
