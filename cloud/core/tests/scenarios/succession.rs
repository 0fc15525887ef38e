//! Two controllers on one broker, and what is left of one that went away.

use tidegate_cloud_core::Input;
use tidegate_model::code::Code;
use tidegate_model::placement::Action;
use tidegate_model::wire::ControllerPresence;

use crate::world::World;

fn other(world: &World, above: i64, alive: bool) -> ControllerPresence {
    let epoch = world.controller.epoch().saturating_add_signed(above);
    ControllerPresence { epoch, alive, ..world.controller.presence() }
}

#[test]
fn a_controller_with_a_higher_epoch_ends_what_this_one_does_and_only_a_restart_brings_it_back() {
    let mut world = World::issued();
    let events = world.events;
    world.input(Input::OtherController(other(&world, 5, true)));
    assert_eq!(world.controller.superseded_by(), Some(world.controller.epoch() + 5));
    assert_eq!(world.events, events + 1, "it says so");
    let refused = world.act("up", Action::Stop).unwrap_err();
    assert_eq!(refused.code(), Code::StaleController, "{refused}");
    assert_eq!(world.save("down", "x/#").unwrap_err().code(), Code::StaleController);
    world.connect();
    assert!(world.down.is_empty(), "nothing is sent, not even a welcome");
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
