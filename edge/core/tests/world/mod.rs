//! A gateway without a world: a core, a disk that is a value, and a controller that says what the test tells it to.
//!
//! After every input it holds what must always hold: what is on disk is what the agent has in mind, numbers on `up`
//! have no gap, no generation and no sequence falls.

#![allow(clippy::wildcard_enum_match_arm)] // an effect that a test does not ask for is of no concern to it

use std::collections::BTreeMap;

use tidegate_edge_core::{
    Agent, BridgeEvent, Effect, Input, LocalAction, LocalAnswer, Order, Policy, ReplyId, Setup, Snapshot,
};
use tidegate_model::code::FaultCode;
use tidegate_model::digest::Digest;
use tidegate_model::ids::{AccountId, EdgeId, MessageId, RuleId, SessionId, StoreId};
use tidegate_model::placement::VersionDigest;
use tidegate_model::rule::{Format, RenderContext, SecretInput, SecretRef, SecretRefs, parse, render};
use tidegate_model::time::{Monotonic, Now, Wall};
use tidegate_model::version::{Generation, RuleVersion};
use tidegate_model::wire::{
    Config, DesiredRun, Down, Envelope, Fault, Header, Hello, Report, SecretValue, Set, SetResult, Up, Want,
    Welcome,
};
use uuid::Uuid;

pub const RULE: RuleId = RuleId(Uuid::from_u128(7));

pub struct World {
    pub agent: Agent,
    pub disk: Snapshot,
    pub now: Now,
    pub sid: Option<SessionId>,
    pub ce: u64,
    pub down_sq: u64,
    pub effects: Vec<Effect>,
    pub said: Vec<(Header, Up)>,
    pub presence: Vec<(Header, Up)>,
    up_sq: (u64, u64),
    ids: u128,
}

pub fn setup(boot: u64) -> Setup {
    Setup {
        edge: EdgeId::new("gw-7").expect("the test says so"),
        account: AccountId::default_account(),
        has_controller: true,
        subscribes_locally: false,
        agent: semver::Version::new(0, 1, 0),
        features: ["bridge.v1".to_owned()].into(),
        policy: Policy::default(),
        boot,
        seed: boot,
    }
}

impl World {
    pub fn new() -> Self {
        Self::with(setup(1))
    }

    pub fn with(setup: Setup) -> Self {
        let disk = Snapshot::fresh(StoreId(1));
        Self {
            agent: Agent::restore(setup, disk.clone()),
            disk,
            now: Now { monotonic: Monotonic(1_000), wall: Wall(1_700_000_000_000) },
            sid: None,
            ce: 10,
            down_sq: 0,
            effects: Vec::new(),
            said: Vec::new(),
            presence: Vec::new(),
            up_sq: (0, 0),
            ids: 0,
        }
    }

    /// Booted, connected and welcomed; nothing said is remembered.
    pub fn welcomed() -> Self {
        let mut world = Self::new();
        world.handle(Input::Boot);
        world.connect();
        world.welcome(Want::None);
        world.forget();
        world
    }

    pub fn forget(&mut self) {
        self.said.clear();
        self.presence.clear();
        self.effects.clear();
    }

    pub fn handle(&mut self, input: Input) {
        let before = self.disk.clone();
        let output = self.agent.handle(self.now, input);
        for write in output.writes {
            self.disk.apply(write);
        }
        assert_eq!(self.disk, self.agent.snapshot(), "what the agent has in mind is what is on disk");
        assert!(self.disk.meta.session.epoch >= before.meta.session.epoch);
        assert!(self.disk.meta.highest_ce >= before.meta.highest_ce);
        for (rule, record) in &before.rules {
            let now = self.disk.rules.get(rule).map(|r| (r.generation, r.run.sequence));
            let stone = self.disk.tombstones.get(rule).map(|s| (s.generation, s.run.sequence));
            let (generation, sequence) = now.or(stone).expect("a rule becomes a tombstone, never nothing");
            assert!(generation >= record.generation && sequence >= record.run.sequence);
        }
        for effect in output.effects {
            self.perform(effect);
        }
    }

    fn perform(&mut self, effect: Effect) {
        match &effect {
            Effect::PublishUp(payload) => {
                let (header, message) = Envelope::read_up(payload).expect("the test says so");
                if self.up_sq.0 != header.ce {
                    self.up_sq = (header.ce, 0);
                }
                assert_eq!(Some(header.sid), self.sid);
                assert_eq!(header.sq, self.up_sq.1 + 1, "numbers on up have no gap");
                assert_eq!(header.ce, self.disk.meta.highest_ce);
                self.up_sq.1 = header.sq;
                self.said.push((header, message));
            }
            Effect::PublishPresence(payload) => {
                self.presence.push(Envelope::read_up(payload).expect("the test says so"))
            }
            Effect::Dial { sid, .. } => {
                assert_eq!(self.disk.meta.session, *sid, "the epoch is on disk before CONNECT");
                self.sid = Some(*sid);
            }
            Effect::HangUp { .. } => self.sid = None,
            _ => {}
        }
        self.effects.push(effect);
    }

    pub fn wait(&mut self, ms: i64) {
        let until = self.now.monotonic.plus_ms(ms);
        while let Some(due) = self.agent.next_deadline().filter(|due| *due <= until) {
            let step = (due.0 - self.now.monotonic.0).max(0);
            self.pass(step);
            self.handle(Input::Tick);
        }
        self.pass(until.0 - self.now.monotonic.0);
        self.handle(Input::Tick);
    }

    fn pass(&mut self, ms: i64) {
        self.now.monotonic = self.now.monotonic.plus_ms(ms);
        self.now.wall = self.now.wall.plus_ms(ms);
    }

    pub fn connect(&mut self) {
        while self.sid.is_none() {
            let due = self.agent.next_deadline().expect("an agent without a session waits to dial");
            self.pass((due.0 - self.now.monotonic.0).max(0));
            self.handle(Input::Tick);
        }
        self.up_sq = (self.disk.meta.highest_ce, 0);
        self.down_sq = 0;
        self.handle(Input::Connected { sid: self.sid.expect("the test says so") });
    }

    pub fn disconnect(&mut self) {
        if let Some(sid) = self.sid.take() {
            self.handle(Input::Disconnected { sid });
        }
    }

    /// The process dies and starts again from its disk.
    pub fn reboot(&mut self, boot: u64) {
        self.sid = None;
        self.agent = Agent::restore(setup(boot), self.disk.clone());
        self.forget();
        self.handle(Input::Boot);
    }

    pub fn payload(&mut self, message: &Down, re: Option<MessageId>) -> Vec<u8> {
        self.ids += 1;
        self.down_sq += 1;
        let header = Header {
            id: MessageId(Uuid::from_u128(self.ids)),
            re,
            sid: self.sid.unwrap_or(self.disk.meta.session),
            sq: self.down_sq,
            ce: self.ce,
            ts: self.now.wall.0,
        };
        Envelope::down(header, message).to_bytes()
    }

    pub fn down(&mut self, message: &Down, re: Option<MessageId>) {
        let payload = self.payload(message, re);
        self.handle(Input::Down(payload));
    }

    pub fn welcome(&mut self, want: Want) {
        let hello = self.said.iter().rev().find(|(_, m)| matches!(m, Up::Hello(_))).map(|(h, _)| h.id);
        let welcome = Welcome { want, heartbeat_s: 60, time: self.now.wall, epoch: 0 };
        self.down(&Down::Welcome(welcome), hello);
    }

    pub fn set(&mut self, set: Set) {
        self.down(&Down::Set(Box::new(set)), None);
    }

    /// The order that a bridge got last.
    pub fn last_order(&self) -> Order {
        let order = |effect: &Effect| match effect {
            Effect::StartBridge { order, .. } | Effect::ReconfigureBridge { order, .. } => Some(*order),
            _ => None,
        };
        self.effects.iter().rev().find_map(order).expect("a bridge was ordered")
    }

    pub fn bridge(&mut self, event: BridgeEvent) {
        let order = self.last_order();
        self.handle(Input::Bridge { rule: RULE, order, event });
    }

    pub fn fault(&mut self, code: FaultCode) {
        self.bridge(BridgeEvent::Faulted(Fault { code, detail: "as the test says".into() }));
    }

    pub fn local(&mut self, action: LocalAction) -> LocalAnswer {
        self.handle(Input::Local { rule: RULE, action, reply: ReplyId(1) });
        let answer = |effect: &Effect| {
            if let Effect::Reply { answer, .. } = effect { Some(answer.clone()) } else { None }
        };
        self.effects.iter().rev().find_map(answer).expect("a local request is always answered")
    }

    pub fn results(&self) -> Vec<SetResult> {
        self.said
            .iter()
            .filter_map(|(_, m)| if let Up::Result(r) = m { Some(r.clone()) } else { None })
            .collect()
    }

    pub fn reports(&self) -> Vec<Report> {
        self.said
            .iter()
            .filter_map(|(_, m)| if let Up::Report(r) = m { Some(r.clone()) } else { None })
            .collect()
    }

    pub fn hellos(&self) -> Vec<Hello> {
        self.said
            .iter()
            .filter_map(|(_, m)| if let Up::Hello(h) = m { Some(h.clone()) } else { None })
            .collect()
    }

    pub fn kinds(&self) -> Vec<&'static str> {
        self.said.iter().map(|(_, m)| m.kind()).collect()
    }

    /// Names of the effects on bridges, queues and intake.
    pub fn bridge_effects(&self) -> Vec<&'static str> {
        let name = |effect: &Effect| match effect {
            Effect::StartBridge { .. } => Some("start"),
            Effect::ReconfigureBridge { .. } => Some("reconfigure"),
            Effect::StopBridge { .. } => Some("stop"),
            Effect::DestroyQueue { .. } => Some("destroy"),
            Effect::TakeIn { .. } => Some("take in"),
            Effect::TakeInNothing { .. } => Some("take in nothing"),
            _ => None,
        };
        self.effects.iter().filter_map(name).collect()
    }

    /// Issued at generation 1, running.
    pub fn running() -> Self {
        let mut world = Self::welcomed();
        world.set(set(1, 1, "sensors/#", DesiredRun::Running));
        world.bridge(BridgeEvent::Running);
        world.forget_but_order();
        world
    }

    pub fn forget_but_order(&mut self) {
        let order = self
            .effects
            .iter()
            .rev()
            .find(|e| matches!(e, Effect::StartBridge { .. } | Effect::ReconfigureBridge { .. }));
        let keep = order.cloned();
        self.forget();
        self.effects.extend(keep);
    }
}

pub fn rendered(extra: &str) -> String {
    let text = format!(
        "name = \"camera-up\"\nmountpoint = \"plant/{{edge}}/\"\n[remote]\nurl = \"mqtt://broker.example\"\n{extra}\n"
    );
    render_text(&text, None)
}

pub fn render_text(text: &str, password: Option<SecretRef>) -> String {
    let draft = parse(text, Format::Toml).unwrap_or_else(|p| panic!("{p}"));
    let (rule, input) =
        draft.validate(&tidegate_model::rule::Limits::default()).unwrap_or_else(|p| panic!("{p}"));
    assert_eq!(matches!(input.password, SecretInput::Set(_)), password.is_some());
    let context = RenderContext {
        account: AccountId::default_account(),
        edge: EdgeId::new("gw-7").expect("the test says so"),
        vars: BTreeMap::new(),
        secrets: SecretRefs { password, key: None },
    };
    render(&rule, &context).unwrap_or_else(|p| panic!("{p}")).bytes
}

pub fn forwards(filter: &str) -> String {
    rendered(&format!(
        "[[forwards]]\ntopic = \"{filter}\"\n[[subscriptions]]\ntopic = \"commands/{{edge}}/#\""
    ))
}

/// A set that forwards `filter`, with its bytes.
pub fn set(generation: u64, version: u64, filter: &str, run: DesiredRun) -> Set {
    set_of(generation, version, forwards(filter), run)
}

pub fn set_of(generation: u64, version: u64, bytes: String, run: DesiredRun) -> Set {
    let target = VersionDigest { version: RuleVersion(version), digest: Digest::of(bytes.as_bytes()) };
    let set = Set {
        rule: RULE,
        name: tidegate_model::ids::RuleName::new("camera-up").expect("the test says so"),
        generation: Generation(generation),
        want: Digest::of(b""),
        target,
        present: true,
        run,
        restart: 0,
        config: Config::Bytes(bytes),
        secrets: Vec::new(),
    };
    wanted(set)
}

pub fn keep(generation: u64, version: u64, filter: &str, run: DesiredRun) -> Set {
    Set { config: Config::Keep, ..set(generation, version, filter, run) }
}

pub fn removal(generation: u64) -> Set {
    let target = VersionDigest::removal(RuleVersion(1));
    wanted(Set {
        present: false,
        target,
        config: Config::Keep,
        ..set(generation, 1, "a", DesiredRun::Stopped)
    })
}

/// The set with the `want` that fits it.
pub fn wanted(set: Set) -> Set {
    Set { want: set.compute_want(), ..set }
}

pub fn secret(version: u64) -> SecretValue {
    SecretValue { id: "s1".into(), version, value: "hunter2".into() }
}
