//! A controller with a scripted edge: the edge says exactly what a test makes it say.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tidegate_cloud_core::{
    Actor, Controller, EdgeRecord, Effect, Expect, How, Input, OnceRecord, Output, PlacementRecord,
    PlacementView, Rejection, Reply, ReplyTo, Request, RuleRecord, Saved, Settings, Snapshot, WhenOffline,
    Write,
};
use tidegate_model::code::Code;
use tidegate_model::digest::Digest;
use tidegate_model::ids::{EdgeId, MessageId, RuleId, RuleName, SessionId, StoreId};
use tidegate_model::placement::{Action, Role, RunState, VersionDigest};
use tidegate_model::rule::{Format, Limits, Secret, SecretInput, SecretInputs, ValidRule, parse};
use tidegate_model::time::{Monotonic, Now, Wall};
use tidegate_model::version::RuleVersion;
use tidegate_model::wire::{
    Birth, By, Config, ControllerPresence, Counters, Down, Envelope, Header, Hello, HelloLimits, Inventory,
    InventoryItem, Origin, Ping, Received, Report, RunReport, Set, SetResult, Up, Want, Welcome, Will, root,
};
use uuid::Uuid;

pub const EDGE: &str = "gw-1";

pub fn rule_name(name: &str) -> RuleName {
    RuleName::new(name).unwrap()
}

pub fn edge_id() -> EdgeId {
    EdgeId::new(EDGE).unwrap()
}

/// A valid rule; `topic` is what tells one content from another.
pub fn content(name: &str, topic: &str, extra: &str) -> ValidRule {
    let text = format!(
        "name = \"{name}\"\nmountpoint = \"plant/{{edge}}/\"\n{extra}\n[remote]\nurl = \"mqtt://broker.example\"\nusername = \"lyon\"\n[[forwards]]\ntopic = \"{topic}\"\n"
    );
    parse(&text, Format::Toml)
        .and_then(|draft| draft.validate(&Limits::default()).map(|(rule, _)| rule))
        .unwrap()
}

/// What an edge holds of one rule.
#[derive(Debug, Clone)]
pub struct Held {
    pub set: Set,
    pub running: Option<VersionDigest>,
    pub run: RunReport,
    pub origin: Origin,
}

/// The controller, its store, and one scripted edge.
pub struct World {
    pub controller: Controller,
    pub snapshot: Snapshot,
    pub now: Now,
    pub down: Vec<(Header, Down)>,
    pub warnings: Vec<String>,
    pub events: usize,
    pub presences: Vec<ControllerPresence>,
    /// Placements that the last input may have changed.
    pub changed: BTreeSet<(RuleName, EdgeId)>,
    pub sid: SessionId,
    pub boot: u64,
    pub features: BTreeSet<String>,
    pub sq: u64,
    pub ce: u64,
    pub held: BTreeMap<RuleId, Held>,
    replies: Vec<Result<Reply, Rejection>>,
    ids: u128,
}

impl World {
    pub fn new() -> Self {
        let now = Now { monotonic: Monotonic(1_000), wall: Wall(1_767_225_600_000) };
        let (controller, output) = Controller::restore(Settings::default(), Snapshot::default(), 0, now);
        let mut world = Self {
            controller,
            snapshot: Snapshot::default(),
            now,
            down: Vec::new(),
            warnings: Vec::new(),
            events: 0,
            presences: Vec::new(),
            changed: BTreeSet::new(),
            sid: SessionId { store: StoreId(0xa), epoch: 0 },
            boot: 7,
            features: BTreeSet::from(["bridge.v1".to_owned()]),
            sq: 0,
            ce: 0,
            held: BTreeMap::new(),
            replies: Vec::new(),
            ids: 0,
        };
        world.perform(output);
        world
    }

    /// With an edge and a placed rule `up`, the edge connected.
    pub fn placed() -> Self {
        let mut world = Self::new();
        world.ask(Request::CreateEdge { edge: edge_id(), credential: "$argon2".into() }).unwrap();
        world.save("up", "sensors/#").unwrap();
        world.place("up").unwrap();
        world.connect();
        world
    }

    /// With the rule issued and running.
    pub fn issued() -> Self {
        let mut world = Self::placed();
        world.act("up", Action::Issue).unwrap();
        world.apply_set();
        world
    }

    pub fn perform(&mut self, output: Output) {
        self.changed = output.changed;
        for write in output.writes {
            write_to(&mut self.snapshot, write);
        }
        for effect in output.effects {
            match effect {
                Effect::Publish { payload, .. } => {
                    let (header, message) = Envelope::read_down(&payload).unwrap();
                    if header.ce > self.ce {
                        // Both sides count anew within a new epoch.
                        (self.ce, self.sq) = (header.ce, 0);
                    }
                    self.down.push((header, message));
                }
                Effect::Reply { result, .. } => self.replies.push(result.map(|r| *r).map_err(|r| *r)),
                Effect::Notify(_) => self.events += 1,
                Effect::Warn { what, .. } => self.warnings.push(what),
                Effect::PublishPresence(presence) => self.presences.push(presence),
                Effect::Settled { .. } | Effect::Disconnect(_) => {}
            }
        }
    }

    pub fn input(&mut self, input: Input) {
        let output = self.controller.handle(self.now, input);
        self.perform(output);
    }

    /// Lets time pass, deadline by deadline.
    pub fn pass(&mut self, ms: i64) {
        let until = self.now.monotonic.plus_ms(ms);
        while let Some(due) = self.controller.next_deadline().filter(|due| due.at <= until) {
            let step = (due.at.0 - self.now.monotonic.0).max(0);
            self.now.wall = self.now.wall.plus_ms(step);
            self.now.monotonic = self.now.monotonic.max(due.at);
            self.input(Input::Tick);
        }
        self.now.wall = self.now.wall.plus_ms(until.0 - self.now.monotonic.0);
        self.now.monotonic = until;
    }

    /// A crash: only what was written is left.
    pub fn restart(&mut self) {
        let (controller, output) =
            Controller::restore(Settings::default(), self.snapshot.clone(), 0, self.now);
        self.controller = controller;
        self.perform(output);
    }

    pub fn ask(&mut self, request: Request) -> Result<Reply, Rejection> {
        self.ask_how(request, How::default())
    }

    pub fn ask_how(&mut self, request: Request, how: How) -> Result<Reply, Rejection> {
        let by = Actor { name: "test".into(), via: "api".into() };
        self.replies.clear();
        self.input(Input::Request {
            reply_to: ReplyTo(1),
            by,
            role: Role::Operator,
            request: Box::new(request),
            how,
        });
        assert_eq!(self.replies.len(), 1, "every request is answered once");
        self.replies.remove(0)
    }

    pub fn save_with(
        &mut self,
        content: ValidRule,
        secrets: SecretInputs,
        expect: Expect,
    ) -> Result<(Saved, RuleVersion), Rejection> {
        self.ids += 1;
        let id = RuleId(Uuid::from_u128(self.ids));
        let request =
            Request::SaveRule { id, content: Box::new(content), secrets, expect, note: String::new() };
        match self.ask(request)? {
            Reply::Rule { rule, saved } => Ok((saved, rule.version)),
            other => panic!("a save was answered with {other:?}"),
        }
    }

    pub fn save(&mut self, name: &str, topic: &str) -> Result<(Saved, RuleVersion), Rejection> {
        self.save_with(content(name, topic, ""), SecretInputs::default(), Expect::Any)
    }

    pub fn save_secret(&mut self, name: &str, password: &str) -> Result<(Saved, RuleVersion), Rejection> {
        let password = SecretInput::Set(Secret::new(password));
        let secrets = SecretInputs { password, ..SecretInputs::default() };
        self.save_with(content(name, "sensors/#", ""), secrets, Expect::Any)
    }

    pub fn place(&mut self, rule: &str) -> Result<Reply, Rejection> {
        self.ask(Request::Place { rule: rule_name(rule), edge: edge_id(), vars: BTreeMap::new() })
    }

    pub fn act(&mut self, rule: &str, action: Action) -> Result<Reply, Rejection> {
        self.act_offline(rule, action, WhenOffline::Refuse)
    }

    pub fn act_offline(
        &mut self,
        rule: &str,
        action: Action,
        when_offline: WhenOffline,
    ) -> Result<Reply, Rejection> {
        self.ask(Request::Act { rule: rule_name(rule), edge: edge_id(), action, when_offline })
    }

    pub fn view(&self, rule: &str) -> PlacementView {
        self.controller.placement(&rule_name(rule), &edge_id(), Role::Operator).expect("it is placed")
    }

    pub fn record(&self) -> &PlacementRecord {
        self.snapshot.placements.last().expect("something is placed")
    }

    /// The edge says something on `up`.
    pub fn up(&mut self, message: &Up) {
        self.sq += 1;
        let header = self.header(self.sq);
        self.raw(false, &Envelope::up(header, message));
    }

    pub fn header(&mut self, sq: u64) -> Header {
        self.ids += 1;
        Header {
            id: MessageId(Uuid::from_u128(self.ids)),
            re: None,
            sid: self.sid,
            sq,
            ce: self.ce,
            ts: self.now.wall.0,
        }
    }

    pub fn raw(&mut self, presence: bool, envelope: &Envelope) {
        self.input(Input::FromEdge { edge: edge_id(), presence, payload: envelope.to_bytes() });
    }

    pub fn presence(&mut self, message: &Up) {
        let header = self.header(0);
        self.raw(true, &Envelope::up(header, message));
    }

    pub fn disconnect(&mut self) {
        self.presence(&Up::Will(Will {}));
    }

    /// A new session: birth, hello, and the inventory if it is asked for.
    pub fn connect(&mut self) {
        self.sid.epoch += 1;
        self.sq = 0;
        self.presence(&Up::Birth(Birth { boot: self.boot }));
        self.hello();
    }

    pub fn hello(&mut self) {
        self.down.clear();
        let hello = Hello {
            agent: "0.1.0".parse().unwrap(),
            protocols: BTreeSet::from([1]),
            features: self.features.clone(),
            limits: HelloLimits { max_envelope_bytes: 1 << 20, max_rules: 200 },
            boot: self.boot,
            root: self.root(),
            rules: 0,
            highest_ce: self.ce,
            clock: self.now.wall,
        };
        self.up(&Up::Hello(hello));
        let wants = self.down.iter().find_map(|(_, message)| match message {
            Down::Welcome(Welcome { want, .. }) => Some(*want),
            Down::Set(_) | Down::Ping(_) => None,
        });
        if wants == Some(Want::Inventory) {
            self.inventory();
        }
    }

    pub fn root(&self) -> Digest {
        root(
            self.held
                .iter()
                .filter(|(_, h)| h.set.present)
                .map(|(rule, h)| (*rule, &h.set.want, h.running.as_ref(), h.run.transition())),
        )
    }

    pub fn inventory(&mut self) {
        let page = self.inventory_page();
        self.up(&Up::Inventory(page));
    }

    /// All that the edge holds.
    pub fn inventory_page(&self) -> Inventory {
        let rules = self
            .held
            .values()
            .map(|h| InventoryItem {
                rule: h.set.rule,
                name: Some(h.set.name.clone()),
                generation: h.set.generation,
                want: h.set.want,
                present: h.set.present,
                running: h.running,
                attempted: None,
                run: h.run.clone(),
                origin: h.origin,
            })
            .collect();
        Inventory { page: 1, pages: 1, root: self.root(), rules }
    }

    /// Whether the controller asked for the inventory.
    pub fn wants_inventory(&self) -> bool {
        self.down.iter().any(|(_, m)| matches!(m, Down::Welcome(welcome) if welcome.want == Want::Inventory))
    }

    /// The last set that was sent, if any.
    pub fn last_set(&self) -> Option<Set> {
        self.down.iter().rev().find_map(|(_, message)| match message {
            Down::Set(set) => Some((**set).clone()),
            Down::Welcome(_) | Down::Ping(_) => None,
        })
    }

    pub fn set_count(&self) -> usize {
        self.down.iter().filter(|(_, message)| matches!(message, Down::Set(_))).count()
    }

    pub fn ping(&self) -> Option<(Header, Ping)> {
        self.down.iter().rev().find_map(|(header, message)| match message {
            Down::Ping(ping) => Some((*header, ping.clone())),
            Down::Welcome(_) | Down::Set(_) => None,
        })
    }

    /// The edge applies the last set that it got, and says so.
    pub fn apply_set(&mut self) -> Set {
        let set = self.last_set().expect("a set was sent");
        let state = match (set.present, set.run) {
            (true, tidegate_model::wire::DesiredRun::Running) => RunState::Running,
            (true, tidegate_model::wire::DesiredRun::Stopped) => RunState::PausedManual,
            (false, _) => RunState::NotRunning,
        };
        self.up(&Up::Received(Received { rule: set.rule, generation: set.generation }));
        self.answer(&set, Code::Ok, set.present.then_some(set.target), state, "")
    }

    pub fn answer(
        &mut self,
        set: &Set,
        code: Code,
        running: Option<VersionDigest>,
        state: RunState,
        detail: &str,
    ) -> Set {
        let sequence = self.held.get(&set.rule).map_or(0, |h| h.run.sequence) + 1;
        let run = RunReport {
            sequence,
            state,
            fault: None,
            by: By::Cloud,
            since: self.now.wall,
            flapping: None,
            queue_full: None,
        };
        self.answer_with(set, code, running, run, detail)
    }

    pub fn answer_with(
        &mut self,
        set: &Set,
        code: Code,
        running: Option<VersionDigest>,
        run: RunReport,
        detail: &str,
    ) -> Set {
        assert!(
            set.config != Config::Keep || !set.present || running.is_some(),
            "keep needs something to keep"
        );
        let held = Held { set: set.clone(), running, run: run.clone(), origin: Origin::Cloud };
        self.held.insert(set.rule, held);
        self.up(&Up::Result(SetResult {
            rule: set.rule,
            generation: set.generation,
            answers: set.generation,
            code,
            attempted: Some(set.target),
            running,
            want: set.want,
            run,
            duration_ms: 5,
            detail: detail.to_owned(),
        }));
        set.clone()
    }

    pub fn report(&mut self, run: RunReport) {
        let rule = *self.held.keys().next().expect("the edge holds a rule");
        self.held.get_mut(&rule).unwrap().run = run.clone();
        self.up(&Up::Report(Report { rule, run, counters: Counters::default(), skipped: 0 }));
    }

    pub fn run(&self, state: RunState, by: By) -> RunReport {
        let sequence = self.held.values().next().map_or(0, |h| h.run.sequence) + 1;
        RunReport { sequence, state, fault: None, by, since: self.now.wall, flapping: None, queue_full: None }
    }
}

fn write_to(snapshot: &mut Snapshot, write: Write) {
    match write {
        Write::PutMeta(meta) => {
            assert!(meta.epoch > snapshot.meta.epoch);
            snapshot.meta = meta;
        }
        Write::PutRule { record, expect } => {
            let known = snapshot.rules.iter().find(|r| r.id == record.id).map(|r| r.version);
            assert_eq!(known, expect, "the precondition of a rule's write holds");
            put(&mut snapshot.rules, *record, |a: &RuleRecord, b| a.id == b.id);
        }
        Write::PutVersion(_) => {}
        Write::RemoveRule(id) => snapshot.rules.retain(|r| r.id != id),
        Write::PutEdge(record) => {
            put(&mut snapshot.edges, Arc::unwrap_or_clone(record), |a: &EdgeRecord, b| a.id == b.id)
        }
        Write::RemoveEdge(id) => snapshot.edges.retain(|e| e.id != id),
        Write::PutPlacement(record) => {
            put(&mut snapshot.placements, Arc::unwrap_or_clone(record), |a: &PlacementRecord, b| {
                (a.rule, &a.edge) == (b.rule, &b.edge)
            });
        }
        Write::RemovePlacement { rule, edge } => {
            snapshot.placements.retain(|p| (p.rule, &p.edge) != (rule, &edge));
        }
        Write::PutAnswer(record) => put(&mut snapshot.answers, *record, |a: &OnceRecord, b| a.id == b.id),
        Write::RemoveAnswer(id) => snapshot.answers.retain(|a| a.id != id),
    }
}

fn put<T>(list: &mut Vec<T>, item: T, same: impl Fn(&T, &T) -> bool) {
    list.retain(|known| !same(known, &item));
    list.push(item);
}
