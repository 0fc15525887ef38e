//! Two controllers on one broker, and what is left of one that went away.

use tidegate_cloud_core::{Controller, Input, Settings};
use tidegate_model::code::Code;
use tidegate_model::ids::{SessionId, StoreId};
use tidegate_model::limits::{self, EPOCH_SPREAD_MS};
use tidegate_model::placement::Action;
use tidegate_model::time::{Now, Wall};
use tidegate_model::wire::{ControllerPresence, Envelope, Header, Heartbeat, Ping, Up};

use crate::world::{World, edge_id};

fn other(world: &World, above: i64, alive: bool) -> ControllerPresence {
    let epoch = world.controller.epoch().saturating_add_signed(above);
    ControllerPresence { epoch, alive, ..world.controller.presence() }
}

#[test]
fn a_controller_with_a_higher_epoch_ends_what_this_one_does_and_only_a_restart_brings_it_back() {
    let mut world = World::issued();
    let events = world.events;
    assert!(!world.view("up").last_known);
    world.input(Input::OtherController(other(&world, 5, true)));
    assert_eq!(world.controller.superseded_by(), Some(world.controller.epoch() + 5));
    assert_eq!(world.events, events + 1, "it says so");
    let refused = world.act("up", Action::Stop).unwrap_err();
    assert_eq!(refused.code(), Code::StaleController, "{refused}");
    assert_eq!(world.save("down", "x/#").unwrap_err().code(), Code::StaleController);
    world.connect();
    assert!(world.down.is_empty(), "nothing is sent, not even a welcome");
    assert!(world.view("up").last_known, "what it shows is what it knew last");
    let summary = world.controller.summary(world.now);
    assert_eq!((summary.superseded_by, summary.indicator), (world.controller.superseded_by(), "amber"));

    // It went away: its store is the newer one, so this one does not lead by itself.
    world.input(Input::OtherController(other(&world, 5, false)));
    assert!(world.controller.superseded_by().is_some());
    world.restart();
    assert!(world.controller.superseded_by().is_none());
    world.connect();
    world.act("up", Action::Stop).unwrap();
}

#[test]
fn late_words_of_older_controllers_are_answered_with_the_own_presence_and_its_echo_is_not() {
    let mut world = World::placed();
    for (above, alive) in [(-1, true), (-1, false), (0, false)] {
        world.presences.clear();
        world.input(Input::OtherController(other(&world, above, alive)));
        assert_eq!(world.presences, [world.controller.presence()], "{above} {alive}");
        assert!(world.controller.superseded_by().is_none());
    }
    world.presences.clear();
    world.input(Input::OtherController(world.controller.presence()));
    assert!(world.presences.is_empty());
}

#[test]
fn the_last_word_of_a_controller_with_a_higher_epoch_raises_ours_above_it_and_edges_obey() {
    let mut world = World::issued();
    let gone = other(&world, 1_000_000_000_000, false);
    world.input(Input::OtherController(gone.clone()));
    assert_eq!(world.controller.epoch(), gone.epoch + 1);
    assert_eq!(world.snapshot.meta.epoch, gone.epoch + 1, "stored, so that the next start is above it too");
    world.act("up", Action::Stop).unwrap();
    let (header, _) = world.down.last().unwrap();
    assert_eq!((header.ce, header.sq), (gone.epoch + 1, 1), "numbers count anew in a new epoch");
}

/// Whether the edge is held because of the controller's epoch.
fn is_behind(world: &World) -> bool {
    let held = world.controller.edge(&edge_id()).unwrap().held;
    held.is_some_and(|held| held.code == Code::CloudBehind.as_str())
}

/// The edge says something that shows that it obeyed a controller of an epoch above this one's.
fn says_from_above(world: &mut World, sid: SessionId, above: u64, message: &Up) {
    let header = Header { sid, ce: world.controller.epoch() + above, ..world.header(9) };
    world.raw(false, &Envelope::up(header, message));
}

#[test]
fn any_message_of_an_edge_that_obeyed_a_higher_epoch_holds_it_and_a_confirmation_rises_above_the_highest() {
    let heartbeat =
        |world: &World| Up::Heartbeat(Heartbeat { root: world.root(), runs: Default::default(), queued: 0 });
    // Of the session that stands, and of one that was passed.
    for past in [0, 1] {
        let mut world = World::issued();
        let sid = SessionId { epoch: world.sid.epoch - past, ..world.sid };
        let message = heartbeat(&world);
        says_from_above(&mut world, sid, 40, &message);
        assert!(is_behind(&world), "{past}");
        assert_eq!(world.act("up", Action::IssueAgain).unwrap_err().code(), Code::CloudBehind);
        // One that was under way since before says less.
        says_from_above(&mut world, sid, 7, &Up::Pong(Ping { nonce: 1 }));
        let before = world.controller.epoch();
        world.ask(tidegate_cloud_core::Request::ConfirmEdge { edge: edge_id() }).unwrap();
        assert!(world.controller.epoch() > before + 40);
        assert!(!is_behind(&world));
        assert_eq!(world.snapshot.meta.epoch, world.controller.epoch());
    }

    // An echo of a database that is not the one that stands says nothing of it.
    let mut world = World::issued();
    let echo = SessionId { store: StoreId(0xb), epoch: 3 };
    let message = heartbeat(&world);
    says_from_above(&mut world, echo, 40, &message);
    assert!(!is_behind(&world));
}

#[test]
fn the_first_hello_of_another_database_that_obeyed_a_higher_epoch_holds_the_edge() {
    let mut world = World::issued();
    world.sid = SessionId { store: StoreId(0xb), epoch: 1 };
    (world.ce, world.sq) = (world.controller.epoch() + 40, 0);
    world.held.clear();
    world.hello();
    assert!(is_behind(&world));
}

#[test]
fn how_an_action_ended_that_was_given_up_while_the_edge_was_held_is_asked_for() {
    let mut world = World::issued();
    world.save("up", "other/#").unwrap();
    world.act("up", Action::Sync).unwrap();
    let set = world.last_set().unwrap();
    let (message, sid) = (Up::Pong(Ping { nonce: 1 }), world.sid);
    says_from_above(&mut world, sid, 40, &message);
    world.pass(limits::RECEIVED_TIMEOUT_MS + 1);
    let given_up = |world: &World| world.record().last_issue.as_ref().map(|last| last.code);
    assert_eq!(given_up(&world), Some(Code::CloudBehind));

    // The edge had accepted it, and says so while it is still at it.
    world.held.values_mut().for_each(|held| held.set = set.clone());
    world.connect();
    assert_eq!(world.record().reported.as_ref().map(|r| r.generation), Some(set.generation));
    assert_eq!(given_up(&world), Some(Code::CloudBehind));
    // Its result was lost. Both sides agree on what it holds; how that ended is not known here.
    world.connect();
    assert!(world.wants_inventory());
}

#[test]
fn processes_that_start_from_copies_of_one_store_with_a_clock_that_is_behind_have_epochs_of_their_own() {
    let world = World::issued();
    let behind = Now { wall: Wall(1_000), ..world.now };
    let ahead = Now { wall: world.now.wall.plus_ms(60_000), ..world.now };
    let start =
        |chance, now| Controller::restore(Settings::default(), world.snapshot.clone(), chance, now).0.epoch();
    let stored = world.snapshot.meta.epoch;
    assert!(start(0, behind) > stored);
    assert_ne!(start(4_711, behind), start(815, behind));
    assert!(start(u64::MAX, behind) <= stored + EPOCH_SPREAD_MS, "it does not run far ahead of the clock");
    assert_eq!(start(4_711, ahead), start(815, ahead), "a clock that goes on is number enough");
}
