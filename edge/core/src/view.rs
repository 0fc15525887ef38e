//! What the agent shows to people on site.

use serde::{Deserialize, Serialize};
use tidegate_model::code::Code;
use tidegate_model::ids::{RuleId, RuleName, SessionId};
use tidegate_model::placement::VersionDigest;
use tidegate_model::version::Generation;
use tidegate_model::wire::{Counters, DesiredRun, Origin, RunReport};

use crate::agent::Agent;
use crate::link::Link;

/// Messages of the controller that had no effect, counted since the process began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drops {
    /// Meant for another session.
    pub stale_session: u64,
    /// From a controller that was replaced.
    pub stale_controller: u64,
    /// Came twice, or late.
    pub repeated: u64,
    /// Could not be read, or of an unknown kind.
    pub unreadable: u64,
    /// Messages before which others were missing; these had their effect.
    pub gaps: u64,
}

/// Where the session with the controller stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LinkView {
    /// Not started, or shut down.
    Idle,
    /// Waiting before the next try.
    Waiting,
    /// Connecting.
    Dialing,
    /// Connected; the controller has not answered yet.
    Online,
    /// Connected, and the controller answered.
    Welcomed,
}

/// One rule as people on site see it; no secrets, no payloads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleView {
    /// The rule.
    pub rule: RuleId,
    /// Its name.
    pub name: RuleName,
    /// Highest accepted generation.
    pub generation: Generation,
    /// What is committed.
    pub running: Option<VersionDigest>,
    /// What is being tried.
    pub candidate: Option<VersionDigest>,
    /// Should it run?
    pub run_desired: DesiredRun,
    /// The run state.
    pub run: RunReport,
    /// How the last set ended; `None`: under way.
    pub last_code: Option<Code>,
    /// In words, where it failed.
    pub last_detail: String,
    /// What it moved.
    pub counters: Counters,
    /// Who wrote it.
    pub origin: Origin,
    /// The file of the rules directory that holds it.
    pub file: Option<String>,
    /// Its file is gone; it is kept because messages wait in its queue.
    pub withdrawn: bool,
}

/// A file of the rules directory that has no effect, or not all of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileTrouble {
    /// Its name within the directory.
    pub file: String,
    /// For programs.
    pub code: Code,
    /// What is wrong, for people.
    pub detail: String,
    /// The rule that this file held before and that runs on as it was.
    pub keeps: Option<RuleName>,
}

impl Agent {
    /// Every rule that should be here, by id.
    pub fn rules(&self) -> impl Iterator<Item = RuleView> {
        self.rules.values().map(|rule| {
            let record = &rule.record;
            RuleView {
                rule: record.rule,
                name: record.name.clone(),
                generation: record.generation,
                running: record.running(),
                candidate: record.candidate.as_ref().map(|c| c.held.target),
                run_desired: record.run_desired,
                run: RunReport { queue_full: rule.voice.full.map(|full| full.told), ..record.run.clone() },
                last_code: record.outcome.as_ref().map(|o| o.code),
                last_detail: record.outcome.as_ref().map(|o| o.detail.clone()).unwrap_or_default(),
                counters: rule.voice.counters.clone(),
                origin: record.origin(),
                file: record.site.as_ref().and_then(|site| site.file.clone()),
                withdrawn: record.is_withdrawn(),
            }
        })
    }

    /// The files of the rules directory that are in trouble, by name.
    #[must_use]
    pub fn file_troubles(&self) -> &[FileTrouble] {
        &self.files.troubles
    }

    /// The rule of this name, or of this id as text.
    #[must_use]
    pub fn rule_named(&self, text: &str) -> Option<RuleId> {
        let mut rules = self.rules.values();
        rules
            .find(|r| r.record.name.as_str() == text || r.record.rule.to_string() == text)
            .map(|r| r.record.rule)
    }

    /// Where the session with the controller stands.
    #[must_use]
    pub fn link(&self) -> LinkView {
        match &self.link {
            Link::Idle => LinkView::Idle,
            Link::Waiting { .. } => LinkView::Waiting,
            Link::Dialing { .. } => LinkView::Dialing,
            Link::Online(online) if online.greeting.welcomed => LinkView::Welcomed,
            Link::Online(_) => LinkView::Online,
        }
    }

    /// The last session that was tried.
    #[must_use]
    pub fn session(&self) -> SessionId {
        self.meta.session
    }

    /// Highest controller epoch that was accepted.
    #[must_use]
    pub fn highest_ce(&self) -> u64 {
        self.meta.highest_ce
    }

    /// How far this gateway's wall clock was ahead of the controller's at the last welcome, in milliseconds; `None`: no
    /// welcome came since the process began.
    #[must_use]
    pub fn clock_skew_ms(&self) -> Option<i64> {
        self.clock_skew_ms
    }

    /// Messages of the controller that had no effect.
    #[must_use]
    pub fn drops(&self) -> Drops {
        self.drops
    }
}
