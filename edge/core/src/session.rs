//! The session with the controller: dial, birth, hello, heartbeat, bye, and every message on `up`.

use std::collections::{BTreeMap, BTreeSet};

use tidegate_model::code::Code;
use tidegate_model::digest::Digest;
use tidegate_model::ids::{MessageId, SessionId};
use tidegate_model::limits::{INVENTORY_PAGE_RULES, MAX_ENVELOPE_BYTES, MAX_RULES_PER_EDGE};
use tidegate_model::placement::RunState;
use tidegate_model::wire::{
    self, Attempt, Birth, Bye, ControllerPresence, Envelope, Header, Heartbeat, Hello, HelloLimits,
    Inventory, InventoryItem, RunReport, Up, Welcome, Will, one_line,
};

use crate::agent::{Agent, Turn};
use crate::io::Effect;
use crate::link::{self, BirthWatch, Greeting, Link, Online};
use crate::timing::{BIRTH_PAUSE_MS, EPOCH_SPREAD_MS, HEARTBEAT_RANGE_S};

impl Agent {
    /// Arms the first CONNECT, if there is a controller.
    pub(crate) fn open_session(&mut self, turn: &Turn) {
        if self.setup.has_controller && self.link == Link::Idle {
            self.link = Link::Waiting { dial_at: turn.now.monotonic };
        }
    }

    pub(crate) fn on_connected(&mut self, sid: SessionId, turn: &mut Turn) {
        let Link::Dialing { sid: dialed } = self.link else { return };
        if dialed != sid {
            return;
        }
        let now = turn.now.monotonic;
        self.backoff.connected(now);
        let birth = self.presence(&Up::Birth(Birth { boot: self.setup.boot }), sid, turn);
        self.link = Link::Online(Box::new(Online {
            sid,
            up_sq: 0,
            down_sq: 0,
            greeting: Greeting::new(now),
            birth: BirthWatch { payload: birth.clone(), last_at: now, again_at: None },
            heartbeat: None,
        }));
        turn.effect(Effect::PublishPresence(birth));
        // The greeting is due now: `due_session` says hello within this turn.
    }

    pub(crate) fn on_disconnected(&mut self, sid: SessionId, turn: &Turn) {
        if self.link.sid() == Some(sid) {
            self.link = self.link.lost(turn.now.monotonic, &mut self.backoff, &mut self.dice);
        }
    }

    pub(crate) fn on_shutdown(&mut self, reason: String, turn: &mut Turn) {
        if let Link::Online(online) = &self.link {
            let bye = Up::Bye(Bye { reason: one_line(&reason) });
            let payload = self.presence(&bye, online.sid, turn);
            turn.effect(Effect::PublishPresence(payload));
        }
        self.link = Link::Idle;
    }

    /// Somebody wrote on our presence topic: if it is not our birth, people would read a lie there.
    pub(crate) fn on_own_presence(&mut self, payload: &[u8], turn: &Turn) {
        let now = turn.now.monotonic;
        if let Some(online) = self.link.online()
            && payload != online.birth.payload
            && online.birth.again_at.is_none()
        {
            online.birth.again_at = Some(now.max(online.birth.last_at.plus_ms(BIRTH_PAUSE_MS)));
        }
    }

    pub(crate) fn on_controller_presence(&mut self, payload: &[u8], turn: &Turn) {
        if payload.len() > MAX_ENVELOPE_BYTES {
            return;
        }
        // Not signed and retained: it may make us say hello, and nothing else.
        let Ok(presence) = serde_json::from_slice::<ControllerPresence>(payload) else { return };
        if presence.alive && presence.epoch > self.meta.highest_ce {
            self.hello_within_spread(turn);
        }
    }

    /// A new controller: hello after a random delay.
    pub(crate) fn hello_within_spread(&mut self, turn: &Turn) {
        let at = turn.now.monotonic.plus_ms(self.dice.up_to(EPOCH_SPREAD_MS));
        if let Some(online) = self.link.online() {
            online.greeting.no_later_than(at);
        }
    }

    /// What is here changed without the controller: it is told soon, by a hello with another root.
    pub(crate) fn hello_soon(&mut self, turn: &Turn) {
        if let Some(online) = self.link.online() {
            online.greeting.after_gap(turn.now.monotonic);
        }
    }

    pub(crate) fn on_welcome(&mut self, header: &Header, welcome: &Welcome, turn: &mut Turn) {
        let now = turn.now.monotonic;
        self.clock_skew_ms = Some(turn.now.wall.0.saturating_sub(welcome.time.0));
        if welcome.epoch > self.meta.session.epoch {
            // This store was restored from a backup: jump above what the controller has seen, in a new session.
            self.meta.session.epoch = welcome.epoch;
            turn.touch_meta();
            self.number_above(welcome.epoch, turn);
            if let Some(sid) = self.link.sid() {
                turn.effect(Effect::HangUp { sid });
            }
            self.link = Link::Waiting { dial_at: now };
            return;
        }
        let Some(online) = self.link.online() else { return };
        let range = HEARTBEAT_RANGE_S;
        let every_ms = i64::from(welcome.heartbeat_s.clamp(*range.start(), *range.end())) * 1_000;
        online.heartbeat = Some(link::Heartbeat { every_ms, next_at: now.plus_ms(every_ms) });
        let asked = online.greeting.asked;
        online.greeting.welcomed = true;
        // A question is no answer: who we are, nobody may have heard yet.
        if header.re.is_some() {
            online.greeting.answered(now, &mut self.dice);
        }
        match welcome.want {
            wire::Want::Inventory => self.say_inventory(header.id, turn),
            // Only an answer to the hello with today's root says that nothing is missing.
            wire::Want::None
                if asked.is_some_and(|(id, root)| Some(id) == header.re && root == self.root()) =>
            {
                self.all_known();
            }
            wire::Want::None => {}
        }
        self.tell_unknown(turn);
    }

    /// What of the session is due now.
    pub(crate) fn due_session(&mut self, turn: &mut Turn) {
        let now = turn.now.monotonic;
        match &mut self.link {
            Link::Idle | Link::Dialing { .. } => {}
            Link::Waiting { dial_at } if *dial_at > now => {}
            Link::Waiting { .. } => self.dial(turn),
            Link::Online(online) => {
                if online.birth.again_at.is_some_and(|at| at <= now) {
                    online.birth.again_at = None;
                    online.birth.last_at = now;
                    turn.effects.push(Effect::PublishPresence(online.birth.payload.clone()));
                }
                let hello = online.greeting.due_at() <= now;
                let heartbeat = match &mut online.heartbeat {
                    Some(beat) if beat.next_at <= now => {
                        beat.next_at = now.plus_ms(beat.every_ms);
                        true
                    }
                    Some(_) | None => false,
                };
                if hello {
                    self.say_hello(turn);
                }
                if heartbeat {
                    self.say_heartbeat(turn);
                }
            }
        }
    }

    fn dial(&mut self, turn: &mut Turn) {
        let session = &mut self.meta.session;
        session.epoch = session.epoch.saturating_add(1);
        let sid = *session;
        turn.touch_meta();
        self.link = Link::Dialing { sid };
        let will = self.presence(&Up::Will(Will {}), sid, turn);
        turn.effect(Effect::Dial { sid, will });
    }

    fn say_hello(&mut self, turn: &mut Turn) {
        let root = self.root();
        let hello = Hello {
            agent: self.setup.agent.clone(),
            protocols: BTreeSet::from([wire::PROTOCOL]),
            features: self.setup.features.clone(),
            limits: HelloLimits {
                max_envelope_bytes: MAX_ENVELOPE_BYTES as u64,
                max_rules: MAX_RULES_PER_EDGE as u32,
            },
            boot: self.setup.boot,
            root,
            rules: u32::try_from(self.rules.len()).unwrap_or(u32::MAX),
            highest_ce: self.meta.highest_ce,
            clock: turn.now.wall,
        };
        let Some(id) = self.say(Up::Hello(hello), None, turn) else { return };
        if let Some(online) = self.link.online() {
            online.greeting.said((id, root), turn.now.monotonic);
        }
    }

    fn say_heartbeat(&mut self, turn: &mut Turn) {
        let mut runs: BTreeMap<RunState, u32> = BTreeMap::new();
        for rule in self.rules.values() {
            *runs.entry(rule.record.run.state).or_default() += 1;
        }
        let queued = self.rules.values().map(|rule| rule.voice.counters.queued).sum();
        self.say(Up::Heartbeat(Heartbeat { root: self.root(), runs, queued }), None, turn);
    }

    fn say_inventory(&mut self, re: MessageId, turn: &mut Turn) {
        let mut items = Vec::new();
        let ids: Vec<_> = self.rules.keys().copied().collect();
        for id in ids {
            let run = self.run_report(id, turn);
            if let Some(rule) = self.rules.get(&id) {
                items.push(item_of(&rule.record, run));
            }
        }
        items.extend(self.tombstones.values().map(|stone| InventoryItem {
            rule: stone.rule,
            name: Some(stone.name.clone()),
            generation: stone.generation,
            want: stone.want,
            present: false,
            running: None,
            attempted: Some(Attempt {
                generation: stone.generation,
                target: None,
                code: Code::Ok,
                detail: String::new(),
            }),
            run: stone.run.clone(),
            origin: stone.origin,
        }));
        let root = self.root();
        let pages = items.len().div_ceil(INVENTORY_PAGE_RULES).max(1);
        let pages_told = u32::try_from(pages).unwrap_or(u32::MAX);
        let mut items = items.into_iter();
        for page in 1..=pages_told {
            let rules = items.by_ref().take(INVENTORY_PAGE_RULES).collect();
            self.say(Up::Inventory(Inventory { page, pages: pages_told, root, rules }), Some(re), turn);
        }
    }

    /// Digest over all that is here and should be.
    pub(crate) fn root(&self) -> Digest {
        let running: Vec<_> = self.rules.values().map(|r| (r, r.record.running())).collect();
        wire::root(
            running
                .iter()
                .map(|(r, v)| (r.record.rule, &r.record.want, v.as_ref(), r.record.run.transition())),
        )
    }

    pub(crate) fn is_welcomed(&self) -> bool {
        match &self.link {
            Link::Online(online) => online.greeting.welcomed,
            Link::Idle | Link::Waiting { .. } | Link::Dialing { .. } => false,
        }
    }

    /// Publishes a message on `up`; `None`: there is no session, and what it would say is on disk.
    pub(crate) fn say(&mut self, message: Up, re: Option<MessageId>, turn: &mut Turn) -> Option<MessageId> {
        let id = self.dice.message_id(turn.now.wall);
        let ce = self.meta.highest_ce;
        let online = self.link.online()?;
        online.up_sq += 1;
        let header = Header { id, re, sid: online.sid, sq: online.up_sq, ce, ts: turn.now.wall.0 };
        turn.effect(Effect::PublishUp(Envelope::up(header, &message).to_bytes()));
        Some(id)
    }

    /// A payload for the presence topic; it carries number 0.
    fn presence(&mut self, message: &Up, sid: SessionId, turn: &Turn) -> Vec<u8> {
        let id = self.dice.message_id(turn.now.wall);
        let header = Header { id, re: None, sid, sq: 0, ce: self.meta.highest_ce, ts: turn.now.wall.0 };
        Envelope::up(header, message).to_bytes()
    }
}

fn item_of(record: &crate::record::RuleRecord, run: RunReport) -> InventoryItem {
    InventoryItem {
        rule: record.rule,
        name: Some(record.name.clone()),
        generation: record.generation,
        want: record.want,
        present: true,
        running: record.running(),
        attempted: record.outcome.as_ref().map(|outcome| Attempt {
            generation: record.generation,
            target: Some(outcome.attempted),
            code: outcome.code,
            detail: outcome.detail.clone(),
        }),
        run,
        origin: record.origin(),
    }
}
