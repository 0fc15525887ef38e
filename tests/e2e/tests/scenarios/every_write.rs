//! `kill -9` at every write: the real controller and the real agent, each killed by its own disk before and after the n-th
//! change of a file, somewhere in a whole story. Then it is started again and the story goes on to its end.
//!
//! What has to hold at the end of each story: nothing that a device saw acknowledged is lost, and its order is kept; the states
//! come to what was asked for, and are true; generations never fall; no password stands in a log.

use std::time::{Duration, Instant};

use serde_json::Value;
use tidegate_e2e::full::{is_full, points};
use tidegate_e2e::world::EDGE;
use tidegate_e2e::{Device, PATIENCE, Rule, Sink, World};
use tidegate_faults::{Dice, Fault};

const PASSWORD: &str = "pass-w0rd-of-the-story";
/// Stories of a sample per process that is killed; all with `--full`.
const SAMPLE: u64 = 4;
/// Messages that flow before the next step.
const FLOW: u64 = 20;
/// Rounds of what is random; 50 with `--full`.
const ROUNDS: u64 = 3;
const FULL_ROUNDS: u64 = 50;
/// Within this time from its beginning a story sees its random kills.
const STORY: Duration = Duration::from_secs(4);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Victim {
    Controller,
    Agent,
}

struct Story {
    world: World,
    sink: Sink,
    device: Device,
    /// Highest generation that was seen of the story's rule.
    generation: u64,
    /// Stories until now.
    number: u64,
    /// Messages that the device was asked for until now.
    sent: u64,
    /// Processes that ended by themselves, which is by their fault.
    deaths: u64,
    /// Whom to kill at which moment.
    kills: Vec<(Instant, Victim)>,
}

impl Story {
    fn new() -> Self {
        let world = World::new();
        let sink = world.remote_sink();
        let device = world.device(Duration::from_millis(2));
        Self { world, sink, device, generation: 0, number: 0, sent: 0, deaths: 0, kills: Vec::new() }
    }

    /// Starts a process again, with this fault of its disk.
    fn restart(&mut self, victim: Victim, fault: Option<Fault>) {
        let (process, faults) = match victim {
            Victim::Controller => (&mut self.world.controller.process, &self.world.controller.faults),
            Victim::Agent => (&mut self.world.agent.process, &self.world.agent.faults),
        };
        process.kill9();
        faults.set(fault);
        process.start();
        // What comes after the death is without the fault.
        faults.set(None);
    }

    /// Whoever died is started again; whose moment has come, dies.
    fn revive(&mut self) {
        let due: Vec<Victim> =
            self.kills.extract_if(.., |(at, _)| *at <= Instant::now()).map(|(_, victim)| victim).collect();
        for victim in due {
            match victim {
                Victim::Controller => self.world.controller.process.kill9(),
                Victim::Agent => self.world.agent.process.kill9(),
            }
        }
        for process in [&mut self.world.controller.process, &mut self.world.agent.process] {
            self.deaths += u64::from(process.ended().is_some());
            process.start();
        }
    }

    /// Tries commands until the placement is as wanted, whoever dies meanwhile.
    fn reach(
        &mut self,
        rule: &Rule,
        what: &str,
        commands: &[&[&str]],
        wanted: impl Fn(Option<&Value>) -> bool,
    ) {
        let deadline = Instant::now() + 2 * PATIENCE;
        loop {
            self.revive();
            for command in commands {
                // It may be refused because it was done already, or reach nobody: the placement tells.
                let _ = self.world.controller.cli(command);
            }
            let patience = Instant::now() + Duration::from_secs(10);
            while Instant::now() < patience {
                self.revive();
                let answer = self.world.controller.cli(&["rule", "get", &rule.name]);
                let known = answer.code == 0;
                let placement = known.then(|| answer.json()["placements"].as_array().cloned()).flatten();
                let placement = placement.and_then(|all| all.into_iter().find(|p| p["edge"] == EDGE));
                if let Some(placement) = &placement {
                    let generation = placement["generation"].as_u64().unwrap();
                    assert!(generation >= self.generation, "the generation fell: {placement:#}");
                    self.generation = generation;
                }
                if known && wanted(placement.as_ref()) {
                    return;
                }
                assert!(Instant::now() < deadline, "{}: not in time: {what}; {placement:#?}", rule.name);
                std::thread::sleep(Duration::from_millis(50));
            }
        }
    }

    /// More messages, from now on.
    fn publish(&mut self) {
        self.sent += FLOW;
        self.device.publish_up_to(self.sent);
    }

    /// Waits until everything that was published is acknowledged, and has arrived.
    fn arrived(&mut self) {
        let all = usize::try_from(self.sent).unwrap();
        let deadline = Instant::now() + 2 * PATIENCE;
        while self.device.acked_count() < all || self.sink.first_arrivals().len() < all {
            self.revive();
            let (acked, come) = (self.device.acked_count(), self.sink.first_arrivals().len());
            assert!(Instant::now() < deadline, "of {all} messages {acked} are acknowledged, {come} arrived");
            std::thread::sleep(Duration::from_millis(10));
        }
        assert_order(&self.sink);
    }

    /// Place, issue, data, sync, stop, start, data, removal.
    fn play(&mut self) {
        self.number += 1;
        self.generation = 0;
        let mut rule = Rule::new(&format!("story-{}", self.number), self.world.remote.address);
        rule.login = Some(("story".to_owned(), PASSWORD.to_owned()));
        let name = rule.name.clone();
        let file = rule.write(&self.world.dir()).display().to_string();
        let at_rest = |issue: &'static str, run: &'static str| {
            move |p: Option<&Value>| {
                p.is_some_and(|p| {
                    p["issue_state"] == issue
                        && p["run_state"] == run
                        && p["in_flight"].is_null()
                        && p["last_known"] == false
                        && p["link"] == "online"
                })
            }
        };
        let place = ["rule", "place", &name, "--edge", EDGE];
        self.reach(&rule, "placed", &[&["rule", "apply", "-f", &file], &place], |p| p.is_some());
        let issue = ["issue", name.as_str(), "--edge", EDGE];
        let sync = ["sync", name.as_str(), "--edge", EDGE];
        self.reach(&rule, "issued", &[&issue, &sync], at_rest("issued", "running"));
        self.publish();
        self.arrived();
        rule.forwards.push(format!("story/{}/#", self.number));
        let file = rule.write(&self.world.dir()).display().to_string();
        let is_second =
            |p: Option<&Value>| p.is_some_and(|p| p["version"] == 2) && at_rest("issued", "running")(p);
        // Messages flow during the change.
        self.publish();
        self.reach(&rule, "synced", &[&["rule", "apply", "-f", &file], &sync], is_second);
        self.arrived();
        self.reach(&rule, "stopped", &[&["stop", &name, "--edge", EDGE]], at_rest("issued", "paused_manual"));
        self.reach(&rule, "started", &[&["start", &name, "--edge", EDGE]], at_rest("issued", "running"));
        self.publish();
        self.arrived();
        let placement = self.world.controller.placement(&name, EDGE);
        if let Some(placement) = placement {
            self.world.hold_to_truth(&name, &placement);
        }
        self.reach(&rule, "removed", &[&["rule", "unplace", &name, "--edge", EDGE]], |p| p.is_none());
        let log = self.world.controller.process.text() + &self.world.agent.process.text();
        assert!(!log.contains(PASSWORD), "a password is in a log");
    }
}

fn assert_order(sink: &Sink) {
    let order = sink.first_arrivals();
    if let Some(pair) = order.windows(2).find(|pair| pair[0] >= pair[1]) {
        panic!("the order is lost: {} came before {}", pair[0], pair[1]);
    }
}

fn every_write(victim: Victim) {
    let mut story = Story::new();
    let dir = match victim {
        Victim::Controller => story.world.controller.data_dir(),
        Victim::Agent => story.world.agent.data.clone(),
    };
    let counted = story.world.dir().join("changes");
    story.restart(victim, Some(Fault::count(&dir, &counted)));
    story.play();
    let all = std::fs::metadata(&counted).unwrap().len();
    assert!(all > 20, "a story changes files: {all}");
    let points = points(all, SAMPLE);
    eprintln!("{victim:?}: {all} changes of files in a story, killed at {} of them", points.len());
    let mut faults_given = 0;
    for (number, point) in points.into_iter().enumerate() {
        let (before, after) = (Fault::kill_before(&dir, point), Fault::kill_after(&dir, point));
        let faults = match (is_full(), number % 2) {
            (true, _) => vec![before, after],
            (false, 0) => vec![before],
            (false, _) => vec![after],
        };
        for fault in faults {
            eprintln!("{victim:?}: {fault:?}");
            story.restart(victim, Some(fault));
            story.play();
            faults_given += 1;
        }
    }
    // A story may have a few changes more or fewer than the one that was counted.
    assert!(
        story.deaths <= faults_given && story.deaths * 10 >= faults_given * 7,
        "{} of {faults_given} died",
        story.deaths
    );
}

#[test]
fn c07_kill_9_of_the_controller_at_every_write() {
    every_write(Victim::Controller);
}

#[test]
fn c07_kill_9_of_the_agent_at_every_write() {
    every_write(Victim::Agent);
}

/// Each round kills at three moments, of which nobody knows beforehand what happens then.
#[test]
fn c07_kill_9_of_anybody_at_any_moment() {
    let rounds = if is_full() { FULL_ROUNDS } else { ROUNDS };
    let mut story = Story::new();
    for round in 1..=rounds {
        let mut dice = Dice(round);
        let began = Instant::now();
        for _ in 0..3 {
            let victim = if dice.below(2) == 0 { Victim::Controller } else { Victim::Agent };
            let moment = STORY.mul_f64(dice.below(1_000) as f64 / 1_000.0);
            story.kills.push((began + moment, victim));
        }
        eprintln!("round {round} of {rounds}: {:?}", story.kills);
        story.play();
        story.kills.clear();
    }
}
