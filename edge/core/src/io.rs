//! What goes in and what comes out: the whole contract between the core and a shell (or a simulated world).

use std::sync::Arc;

use tidegate_model::code::Code;
use tidegate_model::ids::{RuleId, RuleName, SessionId};
use tidegate_model::limits::MAX_RULES_PER_EDGE;
use tidegate_model::rule::{Change, EdgeRule, Secrets, ValidRule};
use tidegate_model::wire::{Counters, Fault, SecretValue};

use crate::record::{Meta, RuleRecord, Tombstone};

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// The process is up, its queues and its local broker can be used. Once, first.
    Boot,
    /// A deadline has passed. Deadlines are also looked at with every other input.
    Tick,
    /// CONNACK and every SUBACK of the session that [`Effect::Dial`] asked for.
    Connected {
        /// The session.
        sid: SessionId,
    },
    /// That session could not be made, or it ended.
    Disconnected {
        /// The session.
        sid: SessionId,
    },
    /// A payload on the edge's `down` topic.
    Down(Vec<u8>),
    /// A payload on the edge's own `presence` topic.
    OwnPresence(Vec<u8>),
    /// A payload on the controller's presence topic.
    ControllerPresence(Vec<u8>),
    /// A bridge says how it fares.
    Bridge {
        /// Whose bridge.
        rule: RuleId,
        /// Which order made it what it is; events of older orders are ignored.
        order: Order,
        /// What it says.
        event: BridgeEvent,
    },
    /// What a rule has moved until now.
    Counters {
        /// The rule.
        rule: RuleId,
        /// Its counters.
        counters: Counters,
        /// Whether its queues are full.
        full: QueuesFull,
    },
    /// Somebody on site starts or stops a rule.
    Local {
        /// The rule.
        rule: RuleId,
        /// What.
        action: LocalAction,
        /// Comes back with the answer.
        reply: ReplyId,
    },
    /// The rules that stand in files on site, all of them, whenever they may have changed.
    RuleFiles {
        /// Every file, by name.
        files: Vec<RuleFile>,
        /// Try again also what failed and was not changed: somebody asked for it, or the agent was just started.
        again: bool,
    },
    /// Somebody on site applies a rule that stands in no file.
    ApplyRule {
        /// What was written.
        rule: Box<SiteRule>,
        /// Comes back with the answer.
        reply: ReplyId,
    },
    /// Somebody on site removes a rule of the site.
    RemoveRule {
        /// The rule.
        rule: RuleId,
        /// Also if messages wait in its queue, which are lost then.
        discard: bool,
        /// Comes back with the answer.
        reply: ReplyId,
    },
    /// The process ends as planned: say bye, dial no more.
    Shutdown {
        /// Why, for people.
        reason: String,
    },
}

/// Numbers the orders given to bridges, so that an event of an earlier one is told apart. Grows within a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Order(pub u64);

/// What a bridge says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BridgeEvent {
    /// The remote broker accepted the connection and every subscription, after the order or after a fault.
    Running,
    /// It cannot run; it goes on trying by itself.
    Faulted(Fault),
    /// Its task ended without being told to, or panicked: the core orders it again after a pause.
    Ended {
        /// Why, for people.
        detail: String,
    },
}

/// Which queues of a rule are full and block, so that whoever sends waits for its acknowledgement.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct QueuesFull {
    /// That for what devices publish.
    pub forwards: bool,
    /// That for what the remote broker sends.
    pub subscriptions: bool,
}

/// What somebody on site may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LocalAction {
    /// Run what is here.
    Start,
    /// Pause what is here.
    Stop,
}

/// A rule as the site wrote it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SiteRule {
    /// The rule.
    pub rule: ValidRule,
    /// Its secrets, from the rule itself or from the files that it names.
    pub secrets: Secrets,
}

/// One file of the rules directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleFile {
    /// Its name within the directory, at most 255 bytes.
    pub name: String,
    /// The rule in it, or what is wrong with it, for people.
    pub content: Result<SiteRule, String>,
}

/// The shell's own number of a local request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReplyId(pub u64);

/// How a local request ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LocalAnswer {
    /// It is on disk, and ordered.
    Done,
    /// It was so already.
    Already,
    /// It is not possible.
    Refused(LocalRefusal),
}

/// Why a local request is not possible.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LocalRefusal {
    /// No such rule.
    #[error("no such rule is on this edge")]
    UnknownRule,
    /// The rule is known, and nothing of it was ever accepted.
    #[error("nothing of the rule is on this edge yet; issue it from the cloud")]
    NothingHere,
    /// The rule was issued by the cloud.
    #[error(
        "the rule '{name}' is managed by the cloud; change it there, or take another name for the rule of this site"
    )]
    ManagedByCloud {
        /// The rule.
        name: RuleName,
    },
    /// The rule stands in a file of the rules directory.
    #[error("the rule '{name}' is kept in the file {file}; change or remove the file")]
    KeptInFile {
        /// The rule.
        name: RuleName,
        /// The file.
        file: String,
    },
    /// Another file has a rule of this name.
    #[error("the file {file} holds a rule '{name}' already; give one of them another name")]
    SameName {
        /// The rule.
        name: RuleName,
        /// The first of the files, by name.
        file: String,
    },
    /// Another rule of this edge logs in at the same broker with the same client id.
    #[error(
        "the rule '{name}' uses the client id '{client_id}' at {broker}, and so does the rule '{other}' {keeper}: the broker would disconnect the older one, in a loop; give one of them another remote.client_id"
    )]
    SameClientId {
        /// The rule.
        name: RuleName,
        /// The client id that both use.
        client_id: String,
        /// `host:port` of the broker.
        broker: String,
        /// The rule that has it.
        other: RuleName,
        /// Where that one is kept.
        keeper: Keeper,
    },
    /// The file of the rule is gone.
    #[error("the file {file} of the rule '{name}' is gone; put it back, or remove the rule")]
    Withdrawn {
        /// The rule.
        name: RuleName,
        /// The file.
        file: String,
    },
    /// Messages of the rule wait, and would be lost.
    #[error(
        "{queued} messages wait in the queue of the rule '{name}'; let them be sent first, or say --discard to lose them"
    )]
    QueueNotEmpty {
        /// The rule.
        name: RuleName,
        /// How many.
        queued: u64,
    },
    /// The edge is full.
    #[error("this edge holds {MAX_RULES_PER_EDGE} rules, the most that it keeps")]
    TooManyRules,
    /// The rule makes no sense on this edge.
    #[error("the rule '{name}' cannot be used on this edge: {problems}")]
    Invalid {
        /// The rule.
        name: RuleName,
        /// Every problem, for people.
        problems: String,
    },
}

/// Where a rule is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Keeper {
    /// In this file of the rules directory.
    File(String),
    /// In the agent's store: it was applied by hand.
    Hand,
    /// In the cloud.
    Cloud,
}

impl std::fmt::Display for Keeper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(file) => write!(f, "of the file {file}"),
            Self::Hand => f.write_str("that was applied by hand"),
            Self::Cloud => f.write_str("of the cloud"),
        }
    }
}

impl LocalRefusal {
    /// The same for programs.
    #[must_use]
    pub fn code(&self) -> Code {
        match self {
            Self::UnknownRule | Self::NothingHere => Code::UnknownRule,
            Self::ManagedByCloud { .. } => Code::ManagedByCloud,
            Self::KeptInFile { .. } | Self::SameName { .. } => Code::Conflict,
            Self::Withdrawn { .. } | Self::QueueNotEmpty { .. } => Code::NotAllowed,
            Self::TooManyRules => Code::PolicyDenied,
            Self::SameClientId { .. } | Self::Invalid { .. } => Code::InvalidConfig,
        }
    }
}

/// What follows from an input: first the writes, then the effects.
#[must_use]
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Output {
    /// One atomic batch, in order. Nothing else happens if it cannot be committed: the process ends.
    pub writes: Vec<Write>,
    /// Performed in order once the writes are on disk.
    pub effects: Vec<Effect>,
}

/// One change of what is on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    /// Replaces the store's own record.
    Meta(Meta),
    /// Replaces or adds a rule.
    Rule(Box<RuleRecord>),
    /// Removes a rule.
    ForgetRule(RuleId),
    /// Replaces or adds a tombstone.
    Tombstone(Tombstone),
    /// Removes a tombstone.
    ForgetTombstone(RuleId),
}

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Connect to the controller's broker and subscribe; answered by [`Input::Connected`] or [`Input::Disconnected`].
    Dial {
        /// The session, already on disk.
        sid: SessionId,
        /// Payload of the last will on `presence`, retained.
        will: Vec<u8>,
    },
    /// End this session; the core counts it as ended and waits for no answer.
    HangUp {
        /// The session.
        sid: SessionId,
    },
    /// Publish on `up`, QoS 1.
    PublishUp(Vec<u8>),
    /// Publish on `presence`, QoS 1, retained.
    PublishPresence(Vec<u8>),
    /// Take what devices publish under this rule's forwards into the rule's queue from now on, whether or not the bridge is connected.
    TakeIn {
        /// The rule.
        rule: RuleId,
        /// Its forwards and its queue.
        config: Arc<EdgeRule>,
    },
    /// Take in nothing for this rule any more; what is in its queue stays.
    TakeInNothing {
        /// The rule.
        rule: RuleId,
    },
    /// Run a bridge from scratch, in place of one that may be there.
    StartBridge {
        /// The rule.
        rule: RuleId,
        /// Number of this order.
        order: Order,
        /// What to run.
        config: Arc<EdgeRule>,
        /// Values of the secrets that it names.
        secrets: Vec<SecretValue>,
    },
    /// Change a bridge that is there, disturbing it no more than `change` says. Where it is not there after all: start it.
    ReconfigureBridge {
        /// The rule.
        rule: RuleId,
        /// Number of this order.
        order: Order,
        /// What to run.
        config: Arc<EdgeRule>,
        /// Values of the secrets that it names.
        secrets: Vec<SecretValue>,
        /// What differs from before.
        change: Change,
    },
    /// End a bridge; its queue stays on disk.
    StopBridge {
        /// The rule.
        rule: RuleId,
    },
    /// Delete the queue of a removed rule, with all that is in it.
    DestroyQueue {
        /// The rule.
        rule: RuleId,
    },
    /// Answer a local request.
    Reply {
        /// Which.
        reply: ReplyId,
        /// How it ended.
        answer: LocalAnswer,
    },
}
