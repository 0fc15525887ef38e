//! What each step does to the world, and how the world becomes calm.

use tidegate_cloud_core as cloud;
use tidegate_edge_core as edge;
use tidegate_edge_core::{LocalAction, ReplyId};
use tidegate_model::code::Code;
use tidegate_model::ids::StoreId;
use tidegate_model::placement::{Action, Role};
use tidegate_model::wire::Counters;

use crate::accent::oddity;
use crate::network::Weather;
use crate::operator::{edge_id, place, rule_name, save};
use crate::step::{Notices, Software, Step};
use crate::world::{Event, World};

impl World {
    /// Does one step.
    pub fn play(&mut self, step: Step) {
        self.note(|_| format!("-- {step}"));
        self.coverage.count(step.kind());
        self.check_states();
        match step {
            Step::Save { rule, shape, password } => {
                let id = u128::from(self.rng.number());
                self.ask(save(id, rule, shape, password));
            }
            Step::Restore { rule, back } => self.restore_version(rule, back),
            Step::Delete { rule } => {
                self.ask(cloud::Request::DeleteRule { rule: rule_name(rule), expect: cloud::Expect::Any });
            }
            Step::Place { rule, edge, line } => self.ask(place(rule, edge, line)),
            Step::Unplace { rule, edge } => {
                self.ask(cloud::Request::Unplace { rule: rule_name(rule), edge: edge_id(edge) });
            }
            Step::Act { action, rule, edge, queue } => {
                let when_offline = if queue { cloud::WhenOffline::Queue } else { cloud::WhenOffline::Refuse };
                let (rule, edge) = (rule_name(rule), edge_id(edge));
                self.ask(cloud::Request::Act { rule, edge, action, when_offline });
            }
            Step::ActEverywhere { action, rule, queue } => {
                let when_offline = if queue { cloud::WhenOffline::Queue } else { cloud::WhenOffline::Refuse };
                let targets = (0..self.script.edges).map(|edge| (rule_name(rule), edge_id(edge))).collect();
                self.ask(cloud::Request::ActOnMany { targets, action, when_offline });
            }
            Step::Confirm { edge } => self.ask(cloud::Request::ConfirmEdge { edge: edge_id(edge) }),
            Step::RemoveEdge { edge } => {
                self.ask(cloud::Request::RemoveEdge { edge: edge_id(edge), leave_running: true });
            }
            Step::CreateEdge { edge } => {
                let edge = edge_id(edge);
                self.ask(cloud::Request::CreateEdge { edge, credential: "hash".to_owned() });
            }
            Step::AskAgain => self.ask_again(),
            Step::Cut { edge, ms } => self.seats[edge].cut_until = self.time + ms,
            Step::Break { edge, notices } => self.break_connection(edge, notices),
            Step::BrokerRestarts { forgets } => self.broker_restarts(forgets),
            Step::ToCloud { edge, oddity: odd } => {
                let payload = oddity(self.last_said[edge].0.as_ref().map(|p| p.as_slice()), odd);
                self.cloud_hears(edge, false, &payload);
            }
            Step::ToEdge { edge, oddity: odd } => {
                let payload = oddity(self.last_said[edge].1.as_ref().map(|p| p.as_slice()), odd);
                if let Some(agent) = self.listener(edge) {
                    self.edge_input(agent, edge::Input::Down(payload));
                }
            }
            Step::KillEdge { edge, down_ms } => {
                if let Some(agent) = self.victim(edge) {
                    self.kill_edge(agent, Some(down_ms));
                }
            }
            Step::StopEdge { edge, down_ms } => self.planned_stop(edge, down_ms),
            Step::KillCloud { down_ms } => self.kill_cloud(down_ms),
            Step::CrashEdge { edge, after, moment } => {
                if let Some(agent) = self.victim(edge) {
                    self.agents[agent].crash = Some((after, moment));
                }
            }
            Step::CrashCloud { after, moment } => self.cloud.crash = Some((after, moment)),
            Step::Install { edge, software } => {
                if let Some(agent) = self.victim(edge) {
                    self.agents[agent].software = software;
                    self.kill_edge(agent, Some(1_000));
                }
            }
            Step::EdgeClock { edge, ahead_ms } => {
                if let Some(agent) = self.victim(edge) {
                    self.agents[agent].clock.wall_offset = ahead_ms;
                }
            }
            Step::CloudClock { ahead_ms } => self.cloud.clock.wall_offset = ahead_ms,
            Step::Wipe { edge } => {
                if let Some(agent) = self.victim(edge) {
                    self.kill_edge(agent, Some(1_000));
                    let agent = &mut self.agents[agent];
                    agent.disk = edge::Snapshot::fresh(StoreId(u128::from(agent.rng.number())));
                    agent.backup = None;
                }
            }
            Step::BackUpEdge { edge } => {
                if let Some(agent) = self.victim(edge) {
                    self.agents[agent].backup = Some(self.agents[agent].disk.clone());
                }
            }
            Step::RestoreEdge { edge } => self.restore_edge(edge),
            Step::BackUpCloud => self.cloud.backup = Some(self.cloud.disk.clone()),
            Step::RestoreCloud => self.restore_cloud(),
            Step::FillEdge { edge, ms } => {
                if let Some(agent) = self.victim(edge) {
                    self.agents[agent].full_until = self.time + ms;
                }
            }
            Step::FillCloud { ms } => self.cloud.full_until = self.time + ms,
            Step::Clone { edge } => self.clone_edge(edge),
            Step::CloneEnds { edge, original } => self.clone_ends(edge, original),
            Step::Remote { remote, is } => {
                self.remotes.set(remote, is);
                if self.agents.iter().any(|a| a.disk.rules.values().any(|r| r.candidate.is_some())) {
                    self.coverage.count("a remote broker changes during a probe");
                }
                self.probe_all();
            }
            Step::BridgeEnds { edge, nth } => self.bridge_ends(edge, nth),
            Step::Counters { edge, forwarded } => self.counters(edge, forwarded),
            Step::Local { edge, nth, start } => self.local(edge, nth, start),
        }
    }

    /// Which gateway of an identity a step is about: turn and turn about, where there are two.
    fn victim(&self, edge: usize) -> Option<usize> {
        let holders = self.holders(edge);
        let turn = usize::try_from(self.time % 2).unwrap_or(0);
        holders.get(turn % holders.len().max(1)).copied()
    }

    fn restore_version(&mut self, rule: usize, back: usize) {
        let name = rule_name(rule);
        let Some(record) = self.cloud.disk.rules.values().find(|rule| *rule.name() == name) else { return };
        let versions = self.cloud.disk.versions.get(&record.id).map_or(&[][..], |all| all);
        let Some(from) = versions.len().checked_sub(back + 1).map(|nth| (*versions[nth]).clone()) else {
            return;
        };
        let (from, expect, note) = (Box::new(from), cloud::Expect::Any, String::new());
        self.ask(cloud::Request::RestoreRule { rule: name, from, expect, note });
    }

    fn break_connection(&mut self, edge: usize, notices: Notices) {
        let Some(session) = &self.seats[edge].session else { return };
        let (agent, conn) = (session.agent, session.conn);
        match notices {
            Notices::Edge(ms) => self.after(ms, Event::LinkLost { agent, conn }),
            Notices::Broker(ms) => self.after(ms, Event::WillDue { edge, conn }),
        }
    }

    fn planned_stop(&mut self, edge: usize, down_ms: i64) {
        let Some(agent) = self.victim(edge) else { return };
        let link = self.agents[agent].connected;
        self.edge_input(agent, edge::Input::Shutdown { reason: "planned".to_owned() });
        if let Some(link) = link {
            self.seats[edge].leave(link.conn);
        }
        self.kill_edge(agent, Some(down_ms));
    }

    /// The controller's broker forgets every session, without wills, and perhaps what it retained.
    pub(crate) fn broker_restarts(&mut self, forgets: bool) {
        self.lose_what_is_under_way();
        if forgets {
            self.controller_presence = None;
        }
        for edge in 0..self.script.edges {
            let seat = &mut self.seats[edge];
            if forgets {
                seat.retained = None;
            }
            if let Some(session) = seat.session.take() {
                let wait = self.agents[session.agent].rng.between(0, 30_000);
                self.after(wait, Event::LinkLost { agent: session.agent, conn: session.conn });
            }
        }
    }

    fn restore_edge(&mut self, edge: usize) {
        let Some(agent) = self.victim(edge) else { return };
        let Some(backup) = self.agents[agent].backup.take() else { return };
        self.coverage.count("a backup of an edge comes back");
        self.kill_edge(agent, Some(1_000));
        let agent = &mut self.agents[agent];
        self.ledger.edge_restored(&agent.id, &agent.disk, &backup);
        agent.disk = backup;
    }

    fn restore_cloud(&mut self) {
        let Some(backup) = self.cloud.backup.take() else { return };
        self.coverage.count("a backup of the controller comes back");
        self.kill_cloud(1_000);
        self.ledger.cloud_restored(&self.cloud.disk, &backup);
        self.cloud.disk = backup;
    }

    fn clone_edge(&mut self, edge: usize) {
        let &[of] = &self.holders(edge)[..] else { return };
        let copy = if of == edge { edge + self.script.edges } else { edge };
        self.coverage.count("two gateways have one identity");
        let (disk, clock) = (self.agents[of].disk.clone(), self.agents[of].clock);
        self.ledger.cloned(&self.agents[of].id);
        let agent = &mut self.agents[copy];
        agent.kill();
        (agent.exists, agent.disk, agent.clock, agent.backup) = (true, disk, clock, None);
        agent.software = Software::Ours;
        let life = agent.life;
        self.after(1_000, Event::StartEdge { agent: copy, life });
    }

    /// One of two gateways with one identity goes for ever.
    fn clone_ends(&mut self, edge: usize, original: bool) {
        let &[first, second] = &self.holders(edge)[..] else { return };
        self.coverage.count("one of two gateways with one identity goes");
        let (goes, stays) = if original { (first, second) } else { (second, first) };
        self.kill_edge(goes, None);
        self.agents[goes].exists = false;
        let id = self.agents[stays].id.clone();
        self.ledger.edge_restored(&id, &self.agents[goes].disk, &self.agents[stays].disk);
    }

    fn bridge_ends(&mut self, edge: usize, nth: usize) {
        let Some(agent) = self.victim(edge) else { return };
        let bridges: Vec<_> = self.agents[agent].bridges.iter().map(|(r, b)| (*r, b.order)).collect();
        let Some((rule, order)) = bridges.get(nth % bridges.len().max(1)).copied() else { return };
        self.agents[agent].bridges.remove(&rule);
        let event = edge::BridgeEvent::Ended { detail: "it panicked".to_owned() };
        self.edge_input(agent, edge::Input::Bridge { rule, order, event });
    }

    fn counters(&mut self, edge: usize, forwarded: u64) {
        let Some(agent) = self.victim(edge) else { return };
        let rules: Vec<_> = self.agents[agent].bridges.keys().copied().collect();
        for rule in rules {
            let counters = Counters { forwarded, ..Counters::default() };
            self.edge_input(
                agent,
                edge::Input::Counters { rule, counters, full: edge::QueuesFull::default() },
            );
        }
    }

    fn local(&mut self, edge: usize, nth: usize, start: bool) {
        let Some(agent) = self.victim(edge) else { return };
        let rules: Vec<_> = self.agents[agent].disk.rules.keys().copied().collect();
        let Some(rule) = rules.get(nth % rules.len().max(1)).copied() else { return };
        let action = if start { LocalAction::Start } else { LocalAction::Stop };
        self.edge_input(agent, edge::Input::Local { rule, action, reply: ReplyId(1) });
    }

    /// Lets all faults stop: from now on only what is under way still happens.
    pub fn calm(&mut self) {
        self.note(|_| "=== the storm is over ===".to_owned());
        self.storm = false;
        self.weather = Weather::CALM;
        (self.cloud.full_until, self.cloud.crash) = (0, None);
        for seat in &mut self.seats {
            seat.cut_until = self.time;
        }
        for agent in &mut self.agents {
            (agent.full_until, agent.crash) = (0, None);
        }
        for edge in 0..self.script.edges {
            if let [_, _] = &self.holders(edge)[..] {
                self.clone_ends(edge, self.script.seed.is_multiple_of(2));
            }
        }
        let mut rng = self.rng.clone();
        self.remotes.settle(&mut rng);
        self.rng = rng;
        self.probe_all();
        self.start_cloud();
        for agent in 0..self.agents.len() {
            self.start_edge(agent);
        }
        if let Some(edge) = self.script.gone {
            for agent in self.holders(edge) {
                self.kill_edge(agent, None);
            }
        }
        self.after(1_000, Event::LookAfter);
    }

    /// Whether an identity is one whose gateway does not come back.
    #[must_use]
    pub fn is_gone(&self, edge: usize) -> bool {
        !self.storm && self.script.gone == Some(edge)
    }

    /// What only an operator can decide is decided: edges that were removed come back, those that are ahead of the
    /// controller are confirmed, and what drifts although its policy asks is issued again.
    pub(crate) fn look_after(&mut self) {
        for index in 0..self.script.edges {
            let edge = edge_id(index);
            let Some(core) = &self.cloud.core else { return };
            let Some(view) = core.edge(&edge) else {
                self.ask(cloud::Request::CreateEdge { edge, credential: "hash".to_owned() });
                continue;
            };
            if view.held.is_some_and(|held| held.code == Code::CloudBehind.as_str()) {
                self.coverage.count("an operator confirms an edge that is ahead");
                self.ask(cloud::Request::ConfirmEdge { edge });
                continue;
            }
            let filter = cloud::PlacementFilter { edge: Some(edge.clone()), ..Default::default() };
            let (views, _) = core.placements(&filter, None, usize::MAX, Role::Operator);
            let drifts = views.into_iter().filter(|view| view.drift && view.link.reachable());
            for rule in drifts.map(|view| view.rule).collect::<Vec<_>>() {
                self.coverage.count("an operator decides about a rule that drifts");
                let (action, when_offline) = (Action::IssueAgain, cloud::WhenOffline::Refuse);
                self.ask(cloud::Request::Act { rule, edge: edge.clone(), action, when_offline });
            }
        }
    }
}
