//! Presence that a stale Last Will cannot fool (protocol.md section 5).

use crate::world::{World, edge_id};
use tidegate_model::code::Code;
use tidegate_model::ids::{SessionId, StoreId};
use tidegate_model::placement::{Action, Link, RunState};
use tidegate_model::wire::{Birth, By, Envelope, Header, Heartbeat, Ping, RunReport, Up, Will};

fn link(world: &World) -> Link {
    world.controller.edge(&edge_id()).unwrap().link
}

#[test]
fn a_late_will_of_an_older_session_is_ignored() {
    let mut world = World::placed();
    let old = world.sid;
    world.connect();
    let now = std::mem::replace(&mut world.sid, old);
    world.presence(&Up::Will(Will {}));
    assert_eq!(link(&world), Link::Online);
    world.sid = now;
    world.presence(&Up::Will(Will {}));
    assert_eq!(link(&world), Link::Offline);
    // The tombstone: a copy of its birth does not revive it.
    world.presence(&Up::Birth(Birth { boot: 7 }));
    assert_eq!(link(&world), Link::Offline);
}

#[test]
fn a_will_that_overtakes_its_birth_leaves_the_edge_offline() {
    let mut world = World::placed();
    world.sid.epoch += 1;
    world.presence(&Up::Will(Will {}));
    world.presence(&Up::Birth(Birth { boot: 7 }));
    assert_eq!(link(&world), Link::Offline);
}

#[test]
fn silence_makes_stale_then_offline_and_a_pong_revives() {
    let mut world = World::issued();
    world.down.clear();
    world.pass(151_000);
    assert_eq!(link(&world), Link::Stale);
    assert!(world.act("up", Action::IssueAgain).is_ok(), "actions treat stale as online");
    world.apply_set();
    assert_eq!(link(&world), Link::Online);
    world.pass(170_000);
    assert_eq!(link(&world), Link::Offline);
    // Its heartbeat comes after all: it is asked, and its answer revives it with its counters going on.
    world.down.clear();
    let heartbeat = Heartbeat { root: world.root(), runs: Default::default(), queued: 0 };
    world.up(&Up::Heartbeat(heartbeat));
    assert_eq!(link(&world), Link::Offline);
    let (header, ping) = world.ping().expect("it is asked");
    assert_eq!((header.sid, header.sq), (world.sid, 0));
    world.up(&Up::Pong(Ping { nonce: ping.nonce }));
    assert_eq!(link(&world), Link::Online);
    let (header, _) = world.down.last().unwrap();
    assert!(header.sq > 1, "the numbers of the session go on");
}

#[test]
fn copies_and_messages_of_the_past_change_nothing() {
    let mut world = World::issued();
    let before =
        (world.snapshot.placements.clone(), world.controller.edge(&edge_id()).unwrap().dropped_messages);
    let header = world.header(1);
    let copy = Envelope::up(header, &Up::Pong(Ping { nonce: 1 }));
    world.raw(false, &copy);
    let past = SessionId { epoch: 0, ..world.sid };
    let header = tidegate_model::wire::Header { sid: past, sq: 99, ..header };
    world.raw(false, &Envelope::up(header, &Up::Pong(Ping { nonce: 1 })));
    assert_eq!(world.snapshot.placements, before.0);
    assert_eq!(world.controller.edge(&edge_id()).unwrap().dropped_messages, before.1 + 2);
}

#[test]
fn two_databases_that_alternate_hold_all_actions_for_a_while() {
    let mut world = World::issued();
    let first = world.sid;
    world.sid = SessionId { store: StoreId(0xb), epoch: 1 };
    world.held.clear();
    world.presence(&Up::Birth(Birth { boot: 8 }));
    world.sid = first;
    world.presence(&Up::Birth(Birth { boot: 7 }));
    assert_eq!(world.act("up", Action::IssueAgain).unwrap_err().code(), Code::DuplicateEdge);
    world.pass(300_001);
    assert_ne!(world.act("up", Action::IssueAgain).unwrap_err().code(), Code::DuplicateEdge);
}

#[test]
fn a_cloned_disk_shows_as_two_boots_in_one_epoch() {
    let mut world = World::issued();
    world.presence(&Up::Birth(Birth { boot: 99 }));
    assert_eq!(world.act("up", Action::IssueAgain).unwrap_err().code(), Code::DuplicateEdge);
}

#[test]
fn the_second_of_two_gateways_is_heard_although_the_first_used_its_numbers() {
    let mut world = World::issued();
    assert!(world.sq > 1);
    // Its birth is lost. Its hello would be taken for a copy, and so would all that it says until it has said as much.
    (world.boot, world.sq) = (99, 0);
    world.hello();
    assert_eq!(world.act("up", Action::IssueAgain).unwrap_err().code(), Code::DuplicateEdge);
    assert!(!world.down.is_empty(), "it is welcomed");
    for _ in 0..3 {
        world.pass(100_001);
        world.hello();
    }
    assert!(world.act("up", Action::IssueAgain).is_ok(), "it is the only one");
}

#[test]
fn the_second_of_two_gateways_is_noticed_by_its_first_hello_where_the_session_is_believed_dead() {
    let mut world = World::issued();
    world.disconnect();
    world.boot = 99;
    world.hello();
    assert_eq!(world.controller.held(&edge_id()), Some(Code::DuplicateEdge), "not only by its next one");
}

#[test]
fn a_session_that_was_replaced_and_stands_after_all_is_spoken_to_on_its_numbers() {
    let mut world = World::issued();
    let (first, known) = (world.sid, world.down.last().expect("a set was sent").0.sq);
    // A birth of a database that is gone, which nobody had heard before.
    world.sid = SessionId { store: StoreId(0xb), epoch: 1 };
    world.presence(&Up::Birth(Birth { boot: 8 }));
    world.sid = first;
    world.up(&Up::Pong(Ping { nonce: 1 }));
    let (header, _) = world.down.last().expect("it is asked what it holds");
    assert_eq!((header.sid, header.sq), (first, known + 1));
}

#[test]
fn a_disk_restored_to_the_epoch_that_stands_is_held_once_and_clones_as_long_as_they_alternate() {
    let mut world = World::issued();
    // The same epoch with another boot: it cannot be told yet from a cloned disk.
    world.disconnect();
    world.boot = 99;
    world.up(&Up::Pong(Ping { nonce: 1 }));
    world.hello();
    assert_eq!(world.act("up", Action::IssueAgain).unwrap_err().code(), Code::DuplicateEdge);
    for _ in 0..3 {
        world.pass(100_001);
        world.hello();
    }
    assert!(world.act("up", Action::IssueAgain).is_ok(), "it was one gateway: nothing points to a second");
    for boot in [7, 99, 7, 99] {
        world.boot = boot;
        world.hello();
        world.pass(100_001);
    }
    assert_eq!(world.act("up", Action::IssueAgain).unwrap_err().code(), Code::DuplicateEdge);
}

#[test]
fn an_edge_that_was_restored_from_a_backup_is_told_the_epoch_to_jump_above() {
    let mut world = World::issued();
    world.connect();
    world.sid.epoch -= 1;
    world.sq = 0;
    world.down.clear();
    world.hello();
    let (header, message) = world.down.last().unwrap();
    assert_eq!(header.sid, world.sid);
    match message {
        tidegate_model::wire::Down::Welcome(welcome) => assert_eq!(welcome.epoch, world.sid.epoch + 1),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_gap_makes_the_controller_ask_for_the_inventory_once() {
    let mut world = World::issued();
    world.pass(10_000);
    world.down.clear();
    for _ in 0..3 {
        world.sq += 3;
        world.up(&Up::Pong(Ping { nonce: 1 }));
    }
    assert_eq!(world.down.len(), 1);
}

#[test]
fn the_answer_to_the_last_question_is_no_copy_although_a_restored_disk_counts_it_lower() {
    let mut world = World::issued();
    world.pass(10_000);
    world.down.clear();
    // A message from before the disk was restored comes late, and leaves a gap.
    world.sq += 50;
    world.up(&Up::Pong(Ping { nonce: 1 }));
    let question = world.down.last().expect("it asks for the inventory").0.id;
    world.held.clear();
    world.sq = 1;
    world.inventory();
    assert_eq!(world.set_count(), 0, "nobody asked for this one: it may be a copy");
    let aside = Header { re: Some(question), ..world.header(0) };
    let page = Up::Inventory(world.inventory_page());
    world.raw(false, &Envelope::up(aside, &page));
    assert_eq!(world.set_count(), 0, "a message outside the counting says nothing about it");
    let answer = |world: &mut World| {
        let page = Up::Inventory(world.inventory_page());
        let header = Header { re: Some(question), ..world.header(3) };
        world.raw(false, &Envelope::up(header, &page));
    };
    answer(&mut world);
    assert_eq!(world.set_count(), 1, "what is gone is issued again");
    // It counts from there on.
    world.sq = 3;
    world.apply_set();
    world.report(RunReport { sequence: 9, ..world.run(RunState::PausedManual, By::Local) });
    assert_eq!(world.view("up").run_state, RunState::PausedManual);
    let sets = world.set_count();
    answer(&mut world);
    assert_eq!(world.set_count(), sets, "once");
}

#[test]
fn nothing_that_an_edge_sends_can_break_the_controller() {
    let mut world = World::issued();
    let before = world.snapshot.placements.clone();
    let big = vec![b'x'; 600 * 1024];
    for payload in [&b""[..], b"{", b"\xff\xfe", b"[]", b"{\"v\":2}", &big] {
        for presence in [false, true] {
            let input =
                tidegate_cloud_core::Input::FromEdge { edge: edge_id(), presence, payload: payload.to_vec() };
            world.input(input);
        }
    }
    let header = world.header(50);
    let mut strange = Envelope::up(header, &Up::Pong(Ping { nonce: 1 }));
    strange.t = "from-the-future".to_owned();
    world.raw(false, &strange);
    assert_eq!(world.snapshot.placements, before);
    assert!(world.warnings.len() >= 13);
}

#[test]
fn an_echo_of_a_store_that_was_wiped_does_not_lock_out_the_one_that_stands() {
    echoes(&[0xdead]);
}

#[test]
fn nor_do_echoes_of_two_stores() {
    echoes(&[0xdead, 0xbeef]);
}

fn echoes(stores: &[u128]) {
    let mut world = World::new();
    world
        .ask(tidegate_cloud_core::Request::CreateEdge { edge: edge_id(), credential: "$argon2".into() })
        .unwrap();
    world.connect();
    let (standing, sq) = (world.sid, world.sq);
    // The hello of a store before it was under way for a while, and is the first that the cloud hears of it.
    for store in stores {
        world.sid = SessionId { store: StoreId(*store), epoch: 0 };
        world.connect();
    }
    (world.sid, world.sq) = (standing, sq);
    world.down.clear();
    let heartbeat = Heartbeat { root: world.root(), runs: Default::default(), queued: 0 };
    world.up(&Up::Heartbeat(heartbeat));
    let (header, ping) = world.ping().expect("it is asked whether it stands");
    assert_eq!((header.sid, header.sq), (standing, 0));
    world.down.clear();
    world.up(&Up::Pong(Ping { nonce: ping.nonce }));
    assert_eq!(link(&world), Link::Online);
    assert_eq!(world.down.last().map(|(header, _)| header.sid), Some(standing));
    assert!(
        world.controller.edge(&edge_id()).unwrap().held.is_some(),
        "two stores were heard of: it is looked at"
    );
}
