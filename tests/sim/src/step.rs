//! What somebody or something does to the world, as data: a run is a list of these, so that it can be cut down, told in
//! words and pasted as a scenario.
//!
//! The `Debug` form of a step is the Rust that makes it; its `Display` form is a sentence. A step that does not fit the
//! moment (a crash of a process that is down) does nothing, so that any list of steps is a valid run.

use std::fmt;

use tidegate_model::code::FaultCode;
use tidegate_model::placement::Action;

use crate::operator::Shape;
use crate::remote;

/// A step and its moment, in ms of virtual time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct At(pub i64, pub Step);

/// What to do with a rule's password.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Password {
    /// Leave it.
    Keep,
    /// One of two.
    Set(usize),
    /// None any more.
    Clear,
}

/// Which side notices first that a connection is gone, and after how many ms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Notices {
    /// The agent.
    Edge(i64),
    /// The broker, which publishes the will.
    Broker(i64),
}

/// When a process dies within a step of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// It decided, and its writes are lost.
    BeforeCommit,
    /// Its writes are on disk, and of its effects only so many are performed.
    AfterCommit(usize),
}

/// Which software an agent is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Software {
    /// This one.
    Ours,
    /// It knows no feature that a rule needs.
    Older,
    /// It knows more features and protocols, sends fields and kinds of messages that nobody here knows.
    Newer,
    /// It speaks no protocol version that the controller speaks.
    Foreign,
}

/// A message that does not belong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Oddity {
    /// Not even an envelope.
    Garbage,
    /// An envelope of another format.
    OtherFormat,
    /// A kind that nobody knows.
    UnknownKind,
    /// A known kind with a body that does not fit.
    BadBody,
}

/// One step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the sentences below say what each field is")]
pub enum Step {
    // The operator.
    Save { rule: usize, shape: Shape, password: Password },
    Restore { rule: usize, back: usize },
    Delete { rule: usize },
    Place { rule: usize, edge: usize, line: usize },
    Unplace { rule: usize, edge: usize },
    Act { action: Action, rule: usize, edge: usize, queue: bool },
    ActEverywhere { action: Action, rule: usize, queue: bool },
    Confirm { edge: usize },
    RemoveEdge { edge: usize },
    CreateEdge { edge: usize },
    AskAgain,
    // The network.
    Cut { edge: usize, ms: i64 },
    Break { edge: usize, notices: Notices },
    BrokerRestarts { forgets: bool },
    ToCloud { edge: usize, oddity: Oddity },
    ToEdge { edge: usize, oddity: Oddity },
    // Processes.
    KillEdge { edge: usize, down_ms: i64 },
    StopEdge { edge: usize, down_ms: i64 },
    KillCloud { down_ms: i64 },
    CrashEdge { edge: usize, after: u32, moment: Moment },
    CrashCloud { after: u32, moment: Moment },
    Install { edge: usize, software: Software },
    // Clocks.
    EdgeClock { edge: usize, ahead_ms: i64 },
    CloudClock { ahead_ms: i64 },
    // Disks.
    Wipe { edge: usize },
    BackUpEdge { edge: usize },
    RestoreEdge { edge: usize },
    BackUpCloud,
    RestoreCloud,
    FillEdge { edge: usize, ms: i64 },
    FillCloud { ms: i64 },
    Clone { edge: usize },
    CloneEnds { edge: usize, original: bool },
    // The site.
    Remote { remote: usize, is: remote::Weather },
    BridgeEnds { edge: usize, nth: usize },
    Counters { edge: usize, forwarded: u64 },
    Local { edge: usize, nth: usize, start: bool },
}

impl Step {
    /// The kind of the step, for the counts of what really happened.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Save { .. } => "a rule is saved",
            Self::Restore { .. } => "an old version is restored",
            Self::Delete { .. } => "a rule is deleted",
            Self::Place { .. } => "a rule is placed",
            Self::Unplace { .. } => "a rule is taken off",
            Self::Act { action, .. } => match action {
                Action::Issue => "issue",
                Action::IssueAgain => "issue again",
                Action::Sync => "sync",
                Action::Start => "start",
                Action::Stop => "stop",
            },
            Self::ActEverywhere { .. } => "one action on many edges",
            Self::Confirm { .. } => "an edge is confirmed",
            Self::RemoveEdge { .. } => "an edge is removed",
            Self::CreateEdge { .. } => "an edge is created again",
            Self::AskAgain => "a request is sent again",
            Self::Cut { .. } => "an edge is cut off",
            Self::Break { notices: Notices::Edge(_), .. } => "a connection breaks, the edge notices",
            Self::Break { notices: Notices::Broker(_), .. } => "a connection breaks, the broker notices",
            Self::BrokerRestarts { forgets: true } => "the broker restarts and forgets what it retained",
            Self::BrokerRestarts { forgets: false } => "the broker restarts",
            Self::ToCloud { oddity, .. } => match oddity {
                Oddity::Garbage => "garbage comes to the controller",
                Oddity::OtherFormat => "another envelope comes to the controller",
                Oddity::UnknownKind => "an unknown kind comes to the controller",
                Oddity::BadBody => "a bad body comes to the controller",
            },
            Self::ToEdge { oddity, .. } => match oddity {
                Oddity::Garbage => "garbage comes to an edge",
                Oddity::OtherFormat => "another envelope comes to an edge",
                Oddity::UnknownKind => "an unknown kind comes to an edge",
                Oddity::BadBody => "a bad body comes to an edge",
            },
            Self::KillEdge { .. } => "an agent is killed",
            Self::StopEdge { .. } => "an agent is stopped as planned",
            Self::KillCloud { .. } => "the controller is killed",
            Self::CrashEdge { .. } => "an agent is to crash within a step",
            Self::CrashCloud { .. } => "the controller is to crash within a step",
            Self::Install { software, .. } => match software {
                Software::Ours => "our software is installed",
                Software::Older => "older software is installed",
                Software::Newer => "newer software is installed",
                Software::Foreign => "software of another protocol is installed",
            },
            Self::EdgeClock { .. } => "an edge's clock jumps",
            Self::CloudClock { .. } => "the controller's clock jumps",
            Self::Wipe { .. } => "an edge is wiped",
            Self::BackUpEdge { .. } => "an edge is backed up",
            Self::RestoreEdge { .. } => "an edge is restored from its backup",
            Self::BackUpCloud => "the controller is backed up",
            Self::RestoreCloud => "the controller is restored from its backup",
            Self::FillEdge { .. } => "an edge's disk is full",
            Self::FillCloud { .. } => "the controller's disk is full",
            Self::Clone { .. } => "an edge is cloned",
            Self::CloneEnds { original: true, .. } => "the original of a clone goes",
            Self::CloneEnds { original: false, .. } => "a clone goes",
            Self::Remote { is, .. } => match is {
                remote::Weather::Up => "a remote broker is up",
                remote::Weather::Gone(_) => "a remote broker is gone",
                remote::Weather::Refusing(_) => "a remote broker refuses",
                remote::Weather::Silent => "a remote broker is silent",
            },
            Self::BridgeEnds { .. } => "a bridge ends by itself",
            Self::Counters { .. } => "counters are sampled",
            Self::Local { start: true, .. } => "somebody on site starts a rule",
            Self::Local { start: false, .. } => "somebody on site stops a rule",
        }
    }
}

fn seconds(ms: i64) -> String {
    format!("{}.{:03} s", ms / 1_000, (ms % 1_000).abs())
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>12}  {}", seconds(self.0), self.1)
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Save { rule, shape, password } => {
                write!(f, "the operator saves rule-{rule}: {shape}")?;
                match password {
                    Password::Keep => Ok(()),
                    Password::Set(which) => write!(f, ", with password {which}"),
                    Password::Clear => write!(f, ", without a password"),
                }
            }
            Self::Restore { rule, back } => {
                write!(f, "the operator restores rule-{rule} as it was {back} versions ago")
            }
            Self::Delete { rule } => write!(f, "the operator deletes rule-{rule}"),
            Self::Place { rule, edge, line } => {
                write!(f, "the operator places rule-{rule} on gw-{edge} with line {line}")
            }
            Self::Unplace { rule, edge } => write!(f, "the operator takes rule-{rule} off gw-{edge}"),
            Self::Act { action, rule, edge, queue } => {
                let queue = if queue { ", queued if it is offline" } else { "" };
                write!(f, "the operator wants {action} of rule-{rule} on gw-{edge}{queue}")
            }
            Self::ActEverywhere { action, rule, queue } => {
                let queue = if queue { ", queued where it is offline" } else { "" };
                write!(f, "the operator wants {action} of rule-{rule} on every gateway{queue}")
            }
            Self::Confirm { edge } => write!(f, "the operator confirms gw-{edge}"),
            Self::RemoveEdge { edge } => {
                write!(f, "the operator removes gw-{edge} and leaves its rules running")
            }
            Self::CreateEdge { edge } => write!(f, "the operator creates gw-{edge}"),
            Self::AskAgain => f.write_str("the operator got no answer and sends the last request again"),
            Self::Cut { edge, ms } => {
                write!(f, "nothing passes between gw-{edge} and the broker for {}", seconds(ms))
            }
            Self::Break { edge, notices: Notices::Edge(ms) } => {
                write!(f, "the connection of gw-{edge} breaks; the agent notices after {}", seconds(ms))
            }
            Self::Break { edge, notices: Notices::Broker(ms) } => {
                write!(f, "the connection of gw-{edge} breaks; the broker notices after {}", seconds(ms))
            }
            Self::BrokerRestarts { forgets } => {
                let forgets = if forgets { " and what it retained" } else { "" };
                write!(f, "the broker restarts and forgets every session{forgets}")
            }
            Self::ToCloud { edge, oddity } => {
                write!(f, "in the name of gw-{edge} the controller gets {}", oddity.words())
            }
            Self::ToEdge { edge, oddity } => write!(f, "gw-{edge} gets {}", oddity.words()),
            Self::KillEdge { edge, down_ms } => {
                write!(f, "the agent of gw-{edge} is killed, for {}", seconds(down_ms))
            }
            Self::StopEdge { edge, down_ms } => {
                write!(f, "the agent of gw-{edge} is stopped as planned, for {}", seconds(down_ms))
            }
            Self::KillCloud { down_ms } => write!(f, "the controller is killed, for {}", seconds(down_ms)),
            Self::CrashEdge { edge, after, moment } => {
                write!(f, "the agent of gw-{edge} crashes in its step {after} from now, {}", moment.words())
            }
            Self::CrashCloud { after, moment } => {
                write!(f, "the controller crashes in its step {after} from now, {}", moment.words())
            }
            Self::Install { edge, software } => {
                let what = match software {
                    Software::Ours => "our software",
                    Software::Older => "software that knows no feature that a rule needs",
                    Software::Newer => "software that says more than we know",
                    Software::Foreign => "software of another protocol version",
                };
                write!(f, "gw-{edge} gets {what} and starts anew")
            }
            Self::EdgeClock { edge, ahead_ms } => {
                write!(f, "the wall clock of gw-{edge} is {} ahead from now on", seconds(ahead_ms))
            }
            Self::CloudClock { ahead_ms } => {
                write!(f, "the controller's wall clock is {} ahead from now on", seconds(ahead_ms))
            }
            Self::Wipe { edge } => write!(f, "the disk of gw-{edge} is wiped"),
            Self::BackUpEdge { edge } => write!(f, "the disk of gw-{edge} is backed up"),
            Self::RestoreEdge { edge } => write!(f, "the disk of gw-{edge} is restored from its backup"),
            Self::BackUpCloud => f.write_str("the controller's store is backed up"),
            Self::RestoreCloud => f.write_str("the controller's store is restored from its backup"),
            Self::FillEdge { edge, ms } => write!(f, "the disk of gw-{edge} is full for {}", seconds(ms)),
            Self::FillCloud { ms } => write!(f, "the controller's disk is full for {}", seconds(ms)),
            Self::Clone { edge } => {
                write!(f, "a second gateway starts with a copy of gw-{edge}'s disk and its identity")
            }
            Self::CloneEnds { edge, original } => {
                let who = if original { "first" } else { "second" };
                write!(f, "the {who} gateway of identity gw-{edge} goes for ever")
            }
            Self::Remote { remote, is } => {
                let how = match is {
                    remote::Weather::Up => "accepts whoever may come in".to_owned(),
                    remote::Weather::Gone(fault) => format!("cannot be reached ({fault})"),
                    remote::Weather::Refusing(fault) => format!("refuses everybody ({fault})"),
                    remote::Weather::Silent => "accepts connections and says nothing".to_owned(),
                };
                write!(f, "{} {how} from now on", remote::host(remote))
            }
            Self::BridgeEnds { edge, nth } => {
                write!(f, "bridge {nth} (modulo their number) of gw-{edge} ends by itself")
            }
            Self::Counters { edge, forwarded } => {
                write!(f, "the bridges of gw-{edge} have forwarded {forwarded} messages")
            }
            Self::Local { edge, nth, start } => {
                let what = if start { "starts" } else { "stops" };
                write!(f, "somebody on site {what} rule {nth} (modulo their number) of gw-{edge}")
            }
        }
    }
}

impl Oddity {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Garbage, Self::OtherFormat, Self::UnknownKind, Self::BadBody];

    fn words(self) -> &'static str {
        match self {
            Self::Garbage => "a payload that is no envelope",
            Self::OtherFormat => "an envelope of another format",
            Self::UnknownKind => "a message of a kind that nobody knows",
            Self::BadBody => "a message whose body does not fit its kind",
        }
    }
}

impl Moment {
    fn words(self) -> String {
        match self {
            Self::BeforeCommit => "before its writes are on disk".to_owned(),
            Self::AfterCommit(effects) => format!("after its writes and {effects} of its effects"),
        }
    }
}

/// The weather of a remote broker that a fault code can bring about.
pub(crate) const REMOTE_WEATHERS: [remote::Weather; 6] = [
    remote::Weather::Up,
    remote::Weather::Gone(FaultCode::Tcp),
    remote::Weather::Gone(FaultCode::Dns),
    remote::Weather::Refusing(FaultCode::Auth),
    remote::Weather::Refusing(FaultCode::SubscribeRefused),
    remote::Weather::Silent,
];
