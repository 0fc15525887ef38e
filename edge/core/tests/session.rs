//! The session: birth, hello, numbers, epochs, heartbeat, inventory, reports.

#[allow(dead_code)] // each test file uses a part of it
mod world;

use tidegate_edge_core::{BridgeEvent, Effect, Input, QueuesFull};
use tidegate_model::code::FaultCode;
use tidegate_model::ids::{MessageId, RuleId};
use tidegate_model::limits::HELLO_EVERY_MS;
use tidegate_model::placement::RunState;
use tidegate_model::wire::{
    Counters, DesiredRun, Down, Envelope, Fault, Header, Inventory, Ping, Set, Up, Want, Welcome,
};
use uuid::Uuid;
use world::{RULE, World, removal, set, setup, wanted};

#[test]
fn a_session_begins_with_birth_and_hello_and_hello_is_repeated_until_welcome() {
    let mut w = World::new();
    w.handle(Input::Boot);
    w.connect();
    assert_eq!(w.presence[0].1.kind(), "birth");
    assert_eq!(w.presence[0].0.sq, 0);
    assert_eq!(w.kinds(), ["hello"]);
    w.wait(2_000);
    w.wait(4_000);
    assert_eq!(w.kinds(), ["hello"; 3]);
    w.welcome(Want::None);
    w.forget();
    w.wait(59_999);
    assert_eq!(w.kinds(), Vec::<&str>::new());
    w.wait(1);
    assert_eq!(w.kinds(), ["heartbeat"]);
    w.wait(10 * 60_000);
    assert_eq!(w.hellos().len(), 0);
    w.wait(7 * 60_000);
    assert!(!w.hellos().is_empty(), "every 15 minutes, more or less");
}

#[test]
fn a_question_of_the_controller_is_no_answer_to_a_hello() {
    let mut w = World::new();
    w.handle(Input::Boot);
    w.connect();
    // Asked by a controller that took this session for that of another gateway.
    let question = Welcome { want: Want::Inventory, heartbeat_s: 60, time: w.now.wall, epoch: 0 };
    w.down(&Down::Welcome(question.clone()), None);
    w.forget();
    w.wait(2_000);
    assert_eq!(w.kinds(), ["hello"], "who it is may not have been heard");
    w.welcome(Want::None);
    w.forget();
    w.down(&Down::Welcome(question), None);
    w.wait(10 * 60_000);
    assert_eq!(w.hellos().len(), 0);
}

#[test]
fn the_epoch_grows_before_each_connect() {
    let mut w = World::welcomed();
    let first = w.disk.meta.session;
    w.disconnect();
    w.connect();
    assert_eq!(w.disk.meta.session.epoch, first.epoch + 1);
    w.reboot(2);
    w.connect();
    assert_eq!(w.disk.meta.session.epoch, first.epoch + 2);
}

#[test]
fn an_edge_restored_from_a_backup_jumps_above_what_the_controller_saw() {
    let mut w = World::welcomed();
    let welcome = Welcome { want: Want::None, heartbeat_s: 60, time: w.now.wall, epoch: 500 };
    w.down(&Down::Welcome(welcome), None);
    assert!(w.effects.iter().any(|e| matches!(e, Effect::HangUp { .. })));
    w.connect();
    assert_eq!(w.disk.meta.session.epoch, 501);
}

#[test]
fn what_a_controller_says_aside_is_heard_outside_the_order() {
    let mut w = World::welcomed();
    let aside = |w: &mut World, message: &Down| {
        let header = Header {
            id: MessageId(Uuid::from_u128(99)),
            re: None,
            sid: w.disk.meta.session,
            sq: 0,
            ce: w.ce,
            ts: w.now.wall.0,
        };
        w.handle(Input::Down(Envelope::down(header, message).to_bytes()));
    };
    // The controller believes this session dead and asks: each time it is answered, and no number is used up.
    aside(&mut w, &Down::Ping(Ping { nonce: 5 }));
    aside(&mut w, &Down::Ping(Ping { nonce: 5 }));
    w.down(&Down::Ping(Ping { nonce: 6 }), None);
    assert_eq!(w.kinds().iter().filter(|kind| **kind == "pong").count(), 3);
    assert_eq!((w.agent.drops().repeated, w.agent.drops().gaps), (0, 0));
    // It knows a higher epoch of this store: the edge jumps above it. A lower one means nothing.
    let welcome = |w: &World, epoch| {
        Down::Welcome(Welcome { want: Want::None, heartbeat_s: 60, time: w.now.wall, epoch })
    };
    let low = welcome(&w, 0);
    aside(&mut w, &low);
    assert!(w.sid.is_some() && !w.effects.iter().any(|e| matches!(e, Effect::HangUp { .. })));
    let high = welcome(&w, 500);
    aside(&mut w, &high);
    assert!(w.effects.iter().any(|e| matches!(e, Effect::HangUp { .. })));
}

#[test]
fn messages_for_other_sessions_from_old_controllers_and_copies_have_no_effect() {
    let mut w = World::welcomed();
    let ping = |w: &mut World, nonce| w.payload(&Down::Ping(Ping { nonce }), None);
    let copy = ping(&mut w, 1);
    w.handle(Input::Down(copy.clone()));
    w.handle(Input::Down(copy));
    w.ce = 9;
    let old = ping(&mut w, 2);
    w.handle(Input::Down(old));
    w.ce = 10;
    let late = ping(&mut w, 3);
    w.disconnect();
    w.connect();
    w.handle(Input::Down(late));
    w.handle(Input::Down(b"{not json".to_vec()));
    assert_eq!(w.kinds().iter().filter(|kind| **kind == "pong").count(), 1);
    let drops = w.agent.drops();
    assert_eq!((drops.repeated, drops.stale_controller, drops.stale_session, drops.unreadable), (1, 1, 1, 1));
}

#[test]
fn an_inventory_that_is_asked_for_when_a_probe_ends_tells_how_it_ended() {
    let mut w = World::welcomed();
    w.set(set(1, 1, "sensors/#", DesiredRun::Running));
    w.wait(14_999);
    w.now.monotonic = w.now.monotonic.plus_ms(1);
    w.welcome(Want::Inventory);
    let told =
        w.said.iter().find_map(|(_, m)| if let Up::Inventory(page) = m { Some(&page.rules) } else { None });
    let told = &told.expect("it was asked for")[0];
    assert_eq!((told.run.state, told.attempted.is_some()), (RunState::PausedFault, true));
}

#[test]
fn what_cannot_be_read_makes_no_edge_obey_a_higher_epoch() {
    let mut w = World::welcomed();
    let strange = |w: &mut World| {
        let ping = String::from_utf8(w.payload(&Down::Ping(Ping { nonce: 1 }), None)).unwrap();
        w.handle(Input::Down(ping.replace("\"ping\"", "\"strange\"").into_bytes()));
    };
    let epoch = w.ce;
    strange(&mut w);
    w.ce = u64::MAX;
    strange(&mut w);
    assert_eq!((w.disk.meta.highest_ce, w.agent.drops().unreadable), (epoch, 2));
    w.ce = epoch;
    w.down_sq = 1;
    w.down(&Down::Ping(Ping { nonce: 2 }), None);
    assert_eq!(w.agent.drops().gaps, 0, "what cannot be read counts in the epoch that is obeyed");
}

#[test]
fn a_new_controller_is_remembered_first_and_greeted_after_a_while() {
    let mut w = World::welcomed();
    w.ce = 11;
    w.down_sq = 0;
    w.down(&Down::Ping(Ping { nonce: 1 }), None);
    assert_eq!(w.disk.meta.highest_ce, 11);
    let (header, _) = w.said.last().unwrap();
    assert_eq!((header.ce, header.sq), (11, 1), "numbers begin anew with the epoch");
    w.wait(3_000);
    assert_eq!(w.hellos().len(), 1);
    assert_eq!(w.hellos()[0].highest_ce, 11);
}

#[test]
fn the_controllers_presence_makes_an_edge_say_hello_once_it_is_newer() {
    let mut w = World::welcomed();
    w.handle(Input::ControllerPresence(br#"{"epoch":10,"version":"0.1.0"}"#.to_vec()));
    w.handle(Input::ControllerPresence(b"what".to_vec()));
    w.wait(3_000);
    assert_eq!(w.hellos().len(), 0);
    w.handle(Input::ControllerPresence(br#"{"epoch":11,"version":"0.1.0"}"#.to_vec()));
    w.wait(1_900);
    w.wait(1_100);
    assert!(!w.hellos().is_empty());
    assert_eq!(w.disk.meta.highest_ce, 10, "only a message of its session proves an epoch");
}

#[test]
fn gaps_make_an_edge_say_hello_at_most_once_in_five_seconds() {
    let mut w = World::welcomed();
    w.wait(10_000);
    for _ in 0..5 {
        w.down_sq += 3;
        w.down(&Down::Ping(Ping { nonce: 1 }), None);
        w.welcome(Want::None);
    }
    assert_eq!(w.hellos().len(), 1);
    w.wait(4_999);
    assert_eq!(w.hellos().len(), 1);
    w.wait(1);
    assert_eq!(w.hellos().len(), 2);
}

#[test]
fn somebody_elses_presence_is_answered_with_the_birth() {
    let mut w = World::welcomed();
    let birth = |w: &World| {
        w.effects
            .iter()
            .filter_map(|e| if let Effect::PublishPresence(p) = e { Some(p.clone()) } else { None })
            .next_back()
    };
    w.handle(Input::OwnPresence(b"a will of yesterday".to_vec()));
    w.wait(1_000);
    let own = birth(&w).expect("the birth was published again");
    w.forget();
    w.handle(Input::OwnPresence(own));
    w.wait(5_000);
    assert_eq!(birth(&w), None);
}

#[test]
fn a_planned_end_says_bye() {
    let mut w = World::welcomed();
    w.handle(Input::Shutdown { reason: "update".into() });
    assert_eq!(w.presence.last().unwrap().1.kind(), "bye");
    assert_eq!(w.agent.next_deadline(), None);
}

#[test]
fn what_happened_while_away_is_told_after_the_welcome_newest_only() {
    let mut w = World::running();
    w.disconnect();
    w.fault(FaultCode::Tcp);
    w.bridge(BridgeEvent::Running);
    w.fault(FaultCode::Dns);
    assert_eq!(w.said, []);
    w.connect();
    assert_eq!(w.reports(), [], "nobody listens before the welcome");
    w.welcome(Want::Inventory);
    let reports = w.reports();
    assert_eq!(reports.len(), 1);
    assert_eq!(
        (reports[0].run.state, reports[0].run.sequence, reports[0].skipped),
        (RunState::PausedFault, 4, 2)
    );
    assert!(w.disk.rules[&RULE].told == 4);
}

#[test]
fn equal_roots_mean_that_nothing_has_to_be_told_again() {
    let mut w = World::running();
    w.disconnect();
    w.connect();
    w.welcome(Want::None);
    assert_eq!(w.reports(), []);
}

#[test]
fn a_flapping_rule_is_told_with_a_count_and_never_too_often() {
    let mut w = World::running();
    for _ in 0..20 {
        w.fault(FaultCode::Tcp);
        w.bridge(BridgeEvent::Running);
        w.wait(100);
    }
    let told = w.reports();
    assert!(told.len() <= 7, "{}", told.len());
    w.fault(FaultCode::Tcp);
    w.wait(10_000);
    let last = w.reports().pop().unwrap();
    assert_eq!(last.run.state, RunState::PausedFault);
    assert_eq!(last.run.sequence, w.disk.rules[&RULE].run.sequence, "the final state is always told");
    assert!(last.run.flapping.is_some_and(|n| n > 30), "{:?}", last.run.flapping);
    let skipped: u64 = w.reports().iter().map(|r| r.skipped + 1).sum();
    assert_eq!(skipped, last.run.sequence - 1, "every transition is told or counted");
    // It calms down, and that is told as well; a session that begins before is told that it flaps.
    w.disconnect();
    w.connect();
    w.welcome(Want::None);
    assert!(w.reports().last().unwrap().run.flapping.is_some());
    w.wait(60_000);
    let calm = w.reports().pop().unwrap().run;
    assert_eq!((calm.flapping, calm.transition()), (None, last.run.transition()));
    w.forget();
    w.wait(60_000);
    assert_eq!(w.reports(), []);
}

#[test]
fn another_reason_for_the_same_fault_is_told_but_not_all_the_time() {
    let mut w = World::running();
    let fault = |w: &mut World, detail: &str| {
        w.bridge(BridgeEvent::Faulted(Fault { code: FaultCode::Tcp, detail: detail.into() }));
    };
    let told = |w: &World| {
        let reports = w.reports();
        let details =
            reports.into_iter().map(|report| (report.run.sequence, report.run.fault.unwrap().detail));
        details.collect::<Vec<_>>()
    };
    fault(&mut w, "connection refused");
    fault(&mut w, "connection refused");
    for attempt in 0..90 {
        w.wait(100);
        fault(&mut w, &format!("no route to host, attempt {attempt}"));
    }
    assert_eq!(told(&w), [(2, "connection refused".to_owned())]);
    w.wait(1_000);
    assert_eq!(told(&w).last(), Some(&(2, "no route to host, attempt 89".to_owned())), "no transition");
    assert_eq!(told(&w).len(), 2);
    w.wait(60_000);
    assert_eq!(told(&w).len(), 2, "nothing else to tell");
}

#[test]
fn changed_counters_of_a_running_rule_are_told_every_30_s() {
    let mut w = World::running();
    let counters = |forwarded| Counters { forwarded, ..Counters::default() };
    w.handle(Input::Counters { rule: RULE, counters: counters(5), full: QueuesFull::default() });
    w.wait(30_000);
    assert_eq!(w.reports().len(), 1);
    assert_eq!((w.reports()[0].counters.forwarded, w.reports()[0].run.sequence), (5, 1));
    w.wait(60_000);
    assert_eq!(w.reports().len(), 1, "nothing moved, nothing to tell");
}

#[test]
fn a_full_queue_is_told_at_once_beside_any_run_state_and_again_in_a_new_session() {
    let full = |is_full| Input::Counters {
        rule: RULE,
        counters: Counters::default(),
        full: QueuesFull { forwards: is_full, subscriptions: false },
    };
    let told = |w: &World| w.reports().last().and_then(|report| report.run.queue_full).map(|full| full.since);
    let mut w = World::running();
    let since = w.now.wall;
    w.handle(full(true));
    assert_eq!((w.reports().len(), told(&w)), (1, Some(since)), "it does not wait for the counters' time");
    assert_eq!(w.reports()[0].run.state, RunState::Running, "it is no transition");
    assert_eq!(w.reports()[0].run.sequence, 1);
    w.wait(5_000);
    w.handle(full(true));
    w.wait(5_000);
    w.handle(full(false));
    assert_eq!(w.reports().len(), 1, "the same again is no news");
    // A fault beside it is told with it.
    w.fault(FaultCode::Tcp);
    let last = w.reports().pop().unwrap();
    assert_eq!(
        (last.run.state, last.run.queue_full.map(|full| full.since)),
        (RunState::PausedFault, Some(since))
    );
    // A controller that begins a session with us hears of it again, since it forgot it with the last one.
    w.disconnect();
    w.connect();
    w.welcome(Want::None);
    assert_eq!(told(&w), Some(since));
    w.forget();
    w.wait(30_000);
    w.handle(full(false));
    assert_eq!(
        (w.reports().len(), told(&w)),
        (1, None),
        "room again is told as well, though the rule is paused"
    );
    assert!(w.disk.rules[&RULE].run.queue_full.is_none(), "it is not kept");
}

#[test]
fn an_inventory_has_pages_and_names_tombstones() {
    let pages = |w: &World| -> Vec<Inventory> {
        w.said
            .iter()
            .filter_map(|(_, m)| if let Up::Inventory(i) = m { Some(i.clone()) } else { None })
            .collect()
    };
    let mut w = World::welcomed();
    w.welcome(Want::Inventory);
    assert_eq!(pages(&w).len(), 1);
    assert_eq!((pages(&w)[0].pages, pages(&w)[0].rules.len()), (1, 0));
    w.forget();
    for n in 0..60 {
        let rule = RuleId(Uuid::from_u128(100 + n));
        w.set(wanted(Set { rule, ..set(1, 1, "a", DesiredRun::Stopped) }));
    }
    w.set(removal(1));
    w.forget();
    w.welcome(Want::Inventory);
    let pages = pages(&w);
    assert_eq!(
        pages.iter().map(|p| (p.page, p.pages, p.rules.len())).collect::<Vec<_>>(),
        [(1, 2, 50), (2, 2, 11)]
    );
    let stones: Vec<_> = pages.iter().flat_map(|p| &p.rules).filter(|item| !item.present).collect();
    assert_eq!(stones.len(), 1);
    assert_eq!(stones[0].rule, RULE);
    w.handle(Input::Tick);
    w.wait(16 * 60_000 * 2);
    assert!(w.hellos().iter().all(|h| h.root == pages[0].root && h.rules == 60));
}

#[test]
fn more_rules_than_an_edge_keeps_are_refused() {
    let mut w = World::welcomed();
    for n in 0..201_u128 {
        let rule = RuleId(Uuid::from_u128(1_000 + n));
        w.set(wanted(Set { rule, ..set(1, 1, "a", DesiredRun::Stopped) }));
    }
    assert_eq!(w.disk.rules.len(), 200);
    assert!(w.results().last().unwrap().detail.contains("200"));
}

#[test]
fn m10_the_routine_hello_comes_every_fifteen_minutes_give_or_take_a_fifth() {
    let mut gaps = Vec::new();
    for seed in 1..20 {
        let mut world = World::with(setup(seed));
        world.handle(Input::Boot);
        world.connect();
        for _ in 0..3 {
            world.welcome(Want::None);
            world.said.clear();
            let since = world.now.monotonic.0;
            while world.hellos().is_empty() {
                world.wait(1_000);
            }
            gaps.push(world.now.monotonic.0 - since);
        }
    }
    let (least, most) = (gaps.iter().min().unwrap(), gaps.iter().max().unwrap());
    assert!(*least >= HELLO_EVERY_MS * 4 / 5 && *most <= HELLO_EVERY_MS * 6 / 5 + 1_000, "{least} {most}");
    assert!(most - least > HELLO_EVERY_MS / 10, "a fleet does not say it at once: {least} {most}");
}
