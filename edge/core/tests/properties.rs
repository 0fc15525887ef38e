//! Any sequence of inputs: nothing panics, nothing falls back, and the disk alone is enough to go on.
//!
//! `World::handle` asserts after each input that the writes bring the disk to what the agent has in mind, that no
//! generation, sequence or epoch falls and that numbers on `up` have no gap.

#[allow(dead_code)] // each test file uses a part of it
mod world;

use proptest::prelude::*;
use tidegate_edge_core::{Agent, BridgeEvent, Input, LocalAction, Order, QueuesFull, ReplyId};
use tidegate_model::code::FaultCode;
use tidegate_model::version::Generation;
use tidegate_model::wire::{Counters, DesiredRun, Down, Fault, Ping, Set, Want};
use world::{RULE, World, keep, removal, rendered, set, set_of, setup, wanted};

#[derive(Debug, Clone)]
enum Step {
    Connect,
    Disconnect,
    Reboot(u64),
    Wait(i64),
    Welcome(bool),
    NewController,
    Gap,
    Bytes(u64, u8, bool),
    Keep(u64, u8, bool),
    Restart(u64, u64),
    Broken(u64),
    Remove(u64),
    Sign(u8, u64),
    Local(bool),
    Counters(u64),
    Presence,
    Garbage(Vec<u8>),
}

fn step() -> impl Strategy<Value = Step> {
    let generation = 0_u64..12;
    prop_oneof![
        3 => Just(Step::Connect),
        1 => Just(Step::Disconnect),
        1 => (1_u64..9).prop_map(Step::Reboot),
        3 => (0_i64..40_000).prop_map(Step::Wait),
        2 => any::<bool>().prop_map(Step::Welcome),
        1 => Just(Step::NewController),
        1 => Just(Step::Gap),
        4 => (generation.clone(), 0_u8..4, any::<bool>()).prop_map(|(g, f, r)| Step::Bytes(g, f, r)),
        2 => (generation.clone(), 0_u8..4, any::<bool>()).prop_map(|(g, f, r)| Step::Keep(g, f, r)),
        1 => (generation.clone(), 0_u64..3).prop_map(|(g, n)| Step::Restart(g, n)),
        1 => generation.clone().prop_map(Step::Broken),
        1 => generation.prop_map(Step::Remove),
        6 => (0_u8..6, 0_u64..3).prop_map(|(s, o)| Step::Sign(s, o)),
        1 => any::<bool>().prop_map(Step::Local),
        1 => any::<u64>().prop_map(Step::Counters),
        1 => Just(Step::Presence),
        1 => prop::collection::vec(any::<u8>(), 0..40).prop_map(Step::Garbage),
    ]
}

fn run(yes: bool) -> DesiredRun {
    if yes { DesiredRun::Running } else { DesiredRun::Stopped }
}

fn bytes(choice: u8) -> Set {
    match choice {
        0 => set(1, 1, "sensors/#", DesiredRun::Running),
        1 => set(1, 2, "other/#", DesiredRun::Running),
        2 => set_of(1, 3, rendered("client_id = \"o\"\n[[forwards]]\ntopic = \"a\""), DesiredRun::Running),
        _ => set_of(1, 4, rendered("[[subscriptions]]\ntopic = \"news/#\""), DesiredRun::Running),
    }
}

fn event(choice: u8) -> BridgeEvent {
    let fault = |code| BridgeEvent::Faulted(Fault { code, detail: "x".repeat(3_000) });
    match choice {
        0 | 1 => BridgeEvent::Running,
        2 => fault(FaultCode::Tcp),
        3 => fault(FaultCode::Auth),
        4 => fault(FaultCode::QueueFull),
        _ => BridgeEvent::Ended { detail: "it panicked".into() },
    }
}

fn take(w: &mut World, step: Step, orders: &mut Vec<Order>) {
    match step {
        Step::Connect if w.sid.is_none() => w.connect(),
        Step::Connect => {}
        Step::Disconnect => w.disconnect(),
        Step::Reboot(boot) => {
            orders.clear();
            w.reboot(boot);
        }
        Step::Wait(ms) => w.wait(ms),
        Step::Welcome(inventory) => w.welcome(if inventory { Want::Inventory } else { Want::None }),
        Step::NewController => {
            w.ce += 1;
            w.down_sq = 0;
            w.down(&Down::Ping(Ping { nonce: 1 }), None);
        }
        Step::Gap => w.down_sq += 2,
        Step::Bytes(g, choice, r) => {
            w.set(wanted(Set { generation: Generation(g), run: run(r), ..bytes(choice) }))
        }
        Step::Keep(g, choice, r) => {
            let config = keep(1, 1, "a", DesiredRun::Running).config;
            w.set(wanted(Set { generation: Generation(g), run: run(r), config, ..bytes(choice) }));
        }
        Step::Restart(g, restart) => w.set(wanted(Set { generation: Generation(g), restart, ..bytes(0) })),
        Step::Broken(g) => w.set(set_of(g, 9, "{}".into(), DesiredRun::Running)),
        Step::Remove(g) => w.set(removal(g)),
        Step::Sign(choice, back) => {
            let at = orders.len().checked_sub(1 + back as usize);
            if let Some(order) = at.map(|at| orders[at]) {
                w.handle(Input::Bridge { rule: RULE, order, event: event(choice) });
            }
        }
        Step::Local(start) => {
            let action = if start { LocalAction::Start } else { LocalAction::Stop };
            w.handle(Input::Local { rule: RULE, action, reply: ReplyId(1) });
        }
        Step::Counters(forwarded) => {
            let counters = Counters { forwarded, ..Counters::default() };
            w.handle(Input::Counters { rule: RULE, counters, full: QueuesFull::default() });
        }
        Step::Presence => w.handle(Input::OwnPresence(b"strange".to_vec())),
        Step::Garbage(bytes) => {
            w.handle(Input::Down(bytes.clone()));
            w.handle(Input::ControllerPresence(bytes));
        }
    }
    for effect in w.effects.drain(..) {
        use tidegate_edge_core::Effect::{ReconfigureBridge, StartBridge};
        if let StartBridge { order, .. } | ReconfigureBridge { order, .. } = effect {
            orders.push(order);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn any_sequence_keeps_every_promise(steps in prop::collection::vec(step(), 1..80)) {
        let mut w = World::new();
        let mut orders = Vec::new();
        w.handle(Input::Boot);
        for step in steps {
            take(&mut w, step, &mut orders);
            for record in w.disk.rules.values() {
                // What is under way is being tried or run; what ended left no candidate.
                prop_assert!(record.outcome.is_none() || record.candidate.is_none());
                prop_assert!(record.told <= record.run.sequence);
                prop_assert!(record.outcome.as_ref().is_none_or(|o| o.detail.len() <= 1_024));
            }
        }
        // Whatever happened: the same disk makes the same agent.
        let mut left = Agent::restore(setup(3), w.disk.clone());
        let mut right = Agent::restore(setup(3), w.agent.snapshot());
        for input in [Input::Boot, Input::Tick, Input::Local { rule: RULE, action: LocalAction::Stop, reply: ReplyId(1) }] {
            prop_assert_eq!(left.handle(w.now, input.clone()), right.handle(w.now, input));
        }
    }

    #[test]
    fn a_set_under_way_ends_within_its_time(
        steps in prop::collection::vec(step(), 1..40),
        choice in 0_u8..4,
    ) {
        let mut w = World::new();
        let mut orders = Vec::new();
        w.handle(Input::Boot);
        for step in steps {
            take(&mut w, step, &mut orders);
        }
        w.disconnect();
        w.connect();
        w.set(wanted(Set { generation: Generation(100), ..bytes(choice) }));
        w.wait(15_000);
        let record = &w.disk.rules[&RULE];
        prop_assert!(record.outcome.is_some(), "silence for verify_s is an answer too");
        prop_assert_eq!(record.running(), Some(bytes(choice).target));
    }
}
