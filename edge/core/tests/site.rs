//! Rules of the site: files and rules applied by hand, alone (features.md M1) and beside the cloud's (M3).

#[allow(dead_code)] // each test file uses a part of it
mod world;

use tidegate_edge_core::{
    BridgeEvent, Effect, FileTrouble, Input, LocalAction, LocalAnswer, LocalRefusal, QueuesFull, ReplyId,
    RuleFile, RuleView, Setup, SiteRule,
};
use tidegate_model::code::{Code, FaultCode};
use tidegate_model::ids::{AccountId, EdgeId, RuleId, RuleName};
use tidegate_model::placement::RunState;
use tidegate_model::rule::{
    EdgeRule, Format, Limits, RenderContext, SecretRefs, Secrets, parse_on_site, render,
};
use tidegate_model::wire::{By, Counters, DesiredRun, Fault, Origin, Set, Up, Want};
use world::{RULE, World, removal, set, set_of, setup};

fn site_rule(text: &str) -> SiteRule {
    let draft = parse_on_site(text, Format::Toml).unwrap_or_else(|p| panic!("{p}"));
    let (rule, secrets) = draft.validate(&Limits::default()).unwrap_or_else(|p| panic!("{p}"));
    let secrets = secrets.apply(Secrets::default());
    SiteRule { rule, secrets }
}

fn text(name: &str, remote: &str, topic: &str) -> String {
    format!(
        "name = \"{name}\"\n[remote]\nurl = \"mqtt://broker.example\"\n{remote}[[forwards]]\ntopic = \"{topic}\"\n"
    )
}

fn good(file: &str, name: &str, topic: &str) -> RuleFile {
    RuleFile { name: file.to_owned(), content: Ok(site_rule(&text(name, "", topic))) }
}

fn with_password(file: &str, password: &str) -> RuleFile {
    let text = text("pump", &format!("username = \"u\"\npassword = \"{password}\"\n"), "pumps/#");
    RuleFile { name: file.to_owned(), content: Ok(site_rule(&text)) }
}

fn broken(file: &str) -> RuleFile {
    RuleFile { name: file.to_owned(), content: Err("line 3: it is not TOML".to_owned()) }
}

trait OnSite {
    fn files(&mut self, files: Vec<RuleFile>);
    fn again(&mut self, files: Vec<RuleFile>);
    fn rule(&self, name: &str) -> Option<RuleView>;
    fn sign(&mut self, name: &str, event: BridgeEvent);
    fn apply(&mut self, rule: &str) -> LocalAnswer;
    fn drop_rule(&mut self, name: &str, discard: bool) -> LocalAnswer;
    fn queued(&mut self, name: &str, queued: u64);
    fn troubles(&self) -> Vec<(String, Code, Option<String>)>;
}

impl OnSite for World {
    fn files(&mut self, files: Vec<RuleFile>) {
        self.effects.clear();
        self.handle(Input::RuleFiles { files, again: false });
    }

    fn again(&mut self, files: Vec<RuleFile>) {
        self.effects.clear();
        self.handle(Input::RuleFiles { files, again: true });
    }

    fn rule(&self, name: &str) -> Option<RuleView> {
        self.agent.rules().find(|rule| rule.name.as_str() == name)
    }

    fn sign(&mut self, name: &str, event: BridgeEvent) {
        let id = id(self, name);
        let order = self.last_order();
        self.handle(Input::Bridge { rule: id, order, event });
    }

    fn apply(&mut self, rule: &str) -> LocalAnswer {
        self.handle(Input::ApplyRule { rule: Box::new(site_rule(rule)), reply: ReplyId(7) });
        answer(self)
    }

    fn drop_rule(&mut self, name: &str, discard: bool) -> LocalAnswer {
        let rule = id(self, name);
        self.handle(Input::RemoveRule { rule, discard, reply: ReplyId(8) });
        answer(self)
    }

    fn queued(&mut self, name: &str, queued: u64) {
        let rule = id(self, name);
        self.handle(Input::Counters {
            rule,
            counters: Counters { queued, ..Counters::default() },
            full: QueuesFull::default(),
        });
    }

    fn troubles(&self) -> Vec<(String, Code, Option<String>)> {
        let of = |t: &FileTrouble| (t.file.clone(), t.code, t.keeps.as_ref().map(ToString::to_string));
        self.agent.file_troubles().iter().map(of).collect()
    }
}

fn id(world: &World, name: &str) -> RuleId {
    world.agent.rule_named(name).expect("the rule is there")
}

fn answer(world: &World) -> LocalAnswer {
    let answer =
        |effect: &Effect| if let Effect::Reply { answer, .. } = effect { Some(answer.clone()) } else { None };
    world.effects.iter().rev().find_map(answer).expect("a local request is always answered")
}

fn name(name: &str) -> RuleName {
    RuleName::new(name).expect("a valid name")
}

/// No controller at all.
fn alone() -> World {
    let mut world = World::with(Setup { has_controller: false, ..setup(1) });
    world.handle(Input::Boot);
    world
}

fn running() -> World {
    let mut world = alone();
    world.files(vec![good("pump.toml", "pump", "pumps/#")]);
    world.sign("pump", BridgeEvent::Running);
    world
}

fn fault(code: FaultCode) -> BridgeEvent {
    BridgeEvent::Faulted(Fault { code, detail: "as the test says".into() })
}

#[test]
fn m1_an_agent_without_a_controller_runs_the_rules_of_its_files_and_dials_nobody() {
    let mut world = alone();
    assert_eq!(world.agent.next_deadline(), None, "nothing to dial");
    world.files(vec![good("pump.toml", "pump", "pumps/#"), good("tank.toml", "tank", "tanks/#")]);
    assert_eq!(world.bridge_effects(), ["start", "start"]);
    world.sign("tank", BridgeEvent::Running);
    let tank = world.rule("tank").unwrap();
    assert_eq!((tank.run.state, tank.run.by, tank.last_code), (RunState::Running, By::Local, Some(Code::Ok)));
    assert_eq!((tank.origin, tank.file.as_deref()), (Origin::Local, Some("tank.toml")));
    assert!(tank.running.is_some() && tank.candidate.is_none());
    world.wait(3_600_000);
    assert!(!world.effects.iter().any(|effect| matches!(effect, Effect::Dial { .. })));
    assert!(world.said.is_empty() && world.presence.is_empty());
}

#[test]
fn m1_the_same_files_again_change_nothing_and_a_changed_one_is_tried_and_reverted_when_refused() {
    let mut world = running();
    let good_version = world.rule("pump").unwrap().running;
    for again in [false, true] {
        world.effects.clear();
        world.handle(Input::RuleFiles { files: vec![good("pump.toml", "pump", "pumps/#")], again });
        assert_eq!(world.effects, [], "it is so already");
    }
    world.files(vec![with_password("pump.toml", "wrong")]);
    assert_eq!(world.bridge_effects(), ["reconfigure"]);
    world.sign("pump", fault(FaultCode::Auth));
    let pump = world.rule("pump").unwrap();
    assert_eq!((pump.running, pump.last_code), (good_version, Some(Code::RemoteAuth)));
    world.files(vec![with_password("pump.toml", "wrong")]);
    assert_eq!(world.effects, [], "what failed is not tried again by itself");
    world.again(vec![with_password("pump.toml", "wrong")]);
    assert_eq!(world.bridge_effects(), ["reconfigure"]);
    world.sign("pump", fault(FaultCode::Auth));
    world.files(vec![with_password("pump.toml", "right")]);
    world.sign("pump", BridgeEvent::Running);
    let pump = world.rule("pump").unwrap();
    assert_eq!((pump.last_code, pump.run.state), (Some(Code::Ok), RunState::Running));
    let secret = &world.disk.rules[&pump.rule].committed.as_ref().unwrap().secrets[0];
    assert_eq!(secret.value, "right");
}

#[test]
fn m1_a_broken_file_keeps_its_rule_and_is_reported() {
    let mut world = running();
    world.files(vec![broken("pump.toml"), broken("zoo.toml")]);
    assert_eq!(world.effects, []);
    let expected = [
        ("pump.toml".to_owned(), Code::InvalidConfig, Some("pump".to_owned())),
        ("zoo.toml".to_owned(), Code::InvalidConfig, None),
    ];
    assert_eq!(world.troubles(), expected);
    assert_eq!(world.rule("pump").unwrap().run.state, RunState::Running);
    world.reboot_alone();
    world.again(vec![broken("pump.toml")]);
    assert!(world.rule("pump").is_some(), "also over a restart");
    world.files(vec![good("pump.toml", "pump", "pumps/#")]);
    assert_eq!(world.troubles(), []);
}

#[test]
fn m1_two_files_with_one_name_are_told_and_the_first_counts() {
    let mut world = alone();
    world.files(vec![good("a.toml", "pump", "a/#"), good("b.toml", "pump", "b/#")]);
    assert_eq!(world.troubles(), [("b.toml".to_owned(), Code::Conflict, None)]);
    assert_eq!(world.rule("pump").unwrap().file.as_deref(), Some("a.toml"));
    world.effects.clear();
    world.files(vec![good("c.toml", "pump", "a/#")]);
    assert_eq!(world.effects, [], "a file that is only renamed disturbs nothing");
    assert_eq!(world.rule("pump").unwrap().file.as_deref(), Some("c.toml"));
}

fn with_client_id(file: &str, name: &str, client_id: &str) -> RuleFile {
    let text = text(name, &format!("client_id = \"{client_id}\"\n"), "a/#");
    RuleFile { name: file.to_owned(), content: Ok(site_rule(&text)) }
}

fn client_id(world: &World, name: &str) -> Option<String> {
    let record = world.disk.rules.get(&world.agent.rule_named(name)?)?;
    let rule = EdgeRule::from_rendered(&record.current()?.bytes).expect("it was accepted");
    Some(rule.remote.client_id)
}

#[test]
fn m1_two_files_with_one_client_id_at_one_broker_are_told_and_the_first_counts() {
    let mut world = alone();
    world.files(vec![with_client_id("a.toml", "one", "x"), with_client_id("b.toml", "two", "x")]);
    assert_eq!(world.troubles(), [("b.toml".to_owned(), Code::InvalidConfig, None)]);
    assert!(world.rule("one").is_some() && world.rule("two").is_none());
    let told = &world.agent.file_troubles()[0];
    assert_eq!(
        (told.file.as_str(), told.detail.as_str()),
        (
            "b.toml",
            "the rule 'two' uses the client id 'x' at broker.example:1883, and so does the rule 'one' of the file \
             a.toml: the broker would disconnect the older one, in a loop; give one of them another remote.client_id"
        )
    );
    // What runs goes before a new file, whatever its name, also over a restart.
    world.files(vec![with_client_id("0.toml", "two", "x"), with_client_id("a.toml", "one", "x")]);
    assert_eq!(world.troubles(), [("0.toml".to_owned(), Code::InvalidConfig, None)]);
    world.reboot_alone();
    world.again(vec![with_client_id("0.toml", "two", "x"), with_client_id("a.toml", "one", "x")]);
    assert_eq!(world.troubles(), [("0.toml".to_owned(), Code::InvalidConfig, None)]);
    // Another id, and both run.
    world.files(vec![with_client_id("0.toml", "two", "y"), with_client_id("a.toml", "one", "x")]);
    assert_eq!(world.troubles(), []);
    assert_eq!(client_id(&world, "two").as_deref(), Some("y"));
    // A change into a clash is refused, and the rule runs on as it was.
    world.files(vec![with_client_id("0.toml", "two", "x"), with_client_id("a.toml", "one", "x")]);
    assert_eq!(world.troubles(), [("0.toml".to_owned(), Code::InvalidConfig, Some("two".to_owned()))]);
    assert_eq!(client_id(&world, "two").as_deref(), Some("y"));
    // Two files may exchange their ids, since the directory is looked at as a whole.
    world.files(vec![with_client_id("0.toml", "two", "x"), with_client_id("a.toml", "one", "y")]);
    assert_eq!(world.troubles(), []);
    assert_eq!(
        (client_id(&world, "one").as_deref(), client_id(&world, "two").as_deref()),
        (Some("y"), Some("x"))
    );
    // Without the other file there is nothing to clash with.
    world.files(vec![with_client_id("0.toml", "two", "y")]);
    assert_eq!((world.troubles(), client_id(&world, "two").as_deref()), (vec![], Some("y")));
}

#[test]
fn m1_a_rule_by_hand_and_a_broken_file_keep_their_client_ids() {
    let mut world = alone();
    world.files(vec![with_client_id("a.toml", "one", "x")]);
    let hand = |name: &str, id: &str| text(name, &format!("client_id = \"{id}\"\n"), "b/#");
    let refused = world.apply(&hand("two", "x"));
    let LocalAnswer::Refused(why @ LocalRefusal::SameClientId { .. }) = refused else {
        panic!("{refused:?}")
    };
    assert!(why.to_string().contains("'one' of the file a.toml"), "{why}");
    assert_eq!(world.apply(&hand("two", "y")), LocalAnswer::Done);
    assert_eq!(world.apply(&hand("two", "y")), LocalAnswer::Already, "it does not clash with itself");
    world.files(vec![
        broken("a.toml"),
        with_client_id("b.toml", "three", "x"),
        with_client_id("c.toml", "four", "y"),
    ]);
    let why: Vec<&str> = world.agent.file_troubles().iter().map(|t| t.detail.as_str()).collect();
    assert!(why[1].contains("'one' of the file a.toml"), "{why:?}");
    assert!(why[2].contains("'two' that was applied by hand"), "{why:?}");
    // A rule whose file is gone moves nothing, and is in nobody's way.
    world.queued("one", 3);
    world.files(vec![with_client_id("b.toml", "three", "x")]);
    assert!(world.rule("one").unwrap().withdrawn);
    assert_eq!(world.troubles(), []);
    // Its file comes back: now it is the later one, and stays as it is.
    world.files(vec![with_client_id("a.toml", "one", "x"), with_client_id("b.toml", "three", "x")]);
    assert_eq!(world.troubles(), [("a.toml".to_owned(), Code::InvalidConfig, Some("one".to_owned()))]);
    assert!(world.rule("one").unwrap().withdrawn);
}

#[test]
fn m3_a_rule_of_the_cloud_and_one_of_the_site_do_not_use_one_client_id() {
    let bytes = |name: &str, client_id: &str| {
        let rule = site_rule(&text(name, &format!("client_id = \"{client_id}\"\n"), "a/#")).rule;
        let context = RenderContext {
            account: AccountId::default_account(),
            edge: EdgeId::new("gw-7").expect("a valid name"),
            vars: Default::default(),
            secrets: SecretRefs::default(),
        };
        render(&rule, &context).expect("it fits").bytes
    };
    let mut world = World::welcomed();
    world.files(vec![with_client_id("a.toml", "one", "x")]);
    let issued = Set { name: name("cloud"), ..set_of(1, 1, bytes("cloud", "x"), DesiredRun::Running) };
    world.set(Set { want: issued.compute_want(), ..issued });
    let refused = world.results().pop().expect("it is answered");
    assert_eq!(refused.code, Code::InvalidConfig);
    assert!(refused.detail.contains("'one' of the file a.toml"), "{}", refused.detail);
    assert!(world.rule("cloud").is_none());
    let issued = Set { name: name("cloud"), ..set_of(2, 2, bytes("cloud", "y"), DesiredRun::Running) };
    world.set(Set { want: issued.compute_want(), ..issued });
    assert_eq!(client_id(&world, "cloud").as_deref(), Some("y"));
    world.files(vec![with_client_id("a.toml", "one", "y")]);
    assert_eq!(world.troubles(), [("a.toml".to_owned(), Code::InvalidConfig, Some("one".to_owned()))]);
    assert!(world.agent.file_troubles()[0].detail.contains("'cloud' of the cloud"));
    // The cloud gives the id up: the file is looked at again.
    let issued = Set { name: name("cloud"), ..set_of(3, 3, bytes("cloud", "z"), DesiredRun::Running) };
    world.set(Set { want: issued.compute_want(), ..issued });
    assert_eq!(world.troubles(), []);
    assert_eq!(client_id(&world, "one").as_deref(), Some("y"));
}

#[test]
fn m1_a_removed_file_removes_its_rule_but_never_a_queue_in_which_messages_wait() {
    let mut world = running();
    world.files(vec![]);
    assert_eq!(world.bridge_effects(), ["take in nothing", "stop", "destroy"]);
    assert!(world.rule("pump").is_none());

    let mut world = running();
    world.queued("pump", 3);
    world.files(vec![]);
    assert_eq!(world.bridge_effects(), ["take in nothing", "stop"], "the queue stays");
    let pump = world.rule("pump").unwrap();
    assert!(pump.withdrawn && pump.run.state == RunState::PausedManual);
    let start = Input::Local { rule: pump.rule, action: LocalAction::Start, reply: ReplyId(1) };
    world.handle(start);
    let file = "pump.toml".to_owned();
    assert_eq!(answer(&world), LocalAnswer::Refused(LocalRefusal::Withdrawn { name: name("pump"), file }));
    world.reboot_alone();
    world.queued("pump", 3);
    world.files(vec![]);
    assert_eq!(world.bridge_effects(), Vec::<&str>::new());
    // The file comes back: on with its queue, and it runs as before.
    world.files(vec![good("pump.toml", "pump", "pumps/#")]);
    assert_eq!(world.bridge_effects(), ["take in", "start"]);
    assert!(!world.rule("pump").unwrap().withdrawn);
    world.sign("pump", BridgeEvent::Running);

    world.files(vec![]);
    let why = LocalRefusal::QueueNotEmpty { name: name("pump"), queued: 3 };
    assert_eq!(world.drop_rule("pump", false), LocalAnswer::Refused(why));
    world.effects.clear();
    assert_eq!(world.drop_rule("pump", true), LocalAnswer::Done);
    assert_eq!(world.bridge_effects(), ["take in nothing", "stop", "destroy"]);
}

#[test]
fn m1_a_removed_candidate_does_not_come_back_by_itself() {
    let mut world = running();
    world.queued("pump", 1);
    world.files(vec![good("pump.toml", "pump", "other/#")]);
    world.files(vec![]);
    let pump = world.rule("pump").unwrap();
    assert!(pump.withdrawn && pump.candidate.is_none());
    world.files(vec![good("pump.toml", "pump", "other/#")]);
    world.sign("pump", BridgeEvent::Running);
    assert_eq!(world.rule("pump").unwrap().last_code, Some(Code::Ok));
}

#[test]
fn m1_a_stop_on_site_outlives_restarts_and_changes_of_the_file() {
    let mut world = running();
    let rule = id(&world, "pump");
    world.handle(Input::Local { rule, action: LocalAction::Stop, reply: ReplyId(1) });
    world.reboot_alone();
    world.again(vec![good("pump.toml", "pump", "pumps/#")]);
    world.files(vec![good("pump.toml", "pump", "others/#")]);
    assert!(!world.bridge_effects().contains(&"start"));
    let pump = world.rule("pump").unwrap();
    assert_eq!((pump.run.state, pump.run_desired), (RunState::PausedManual, DesiredRun::Stopped));
    world.handle(Input::Local { rule, action: LocalAction::Start, reply: ReplyId(2) });
    world.reboot_alone();
    assert_eq!(world.bridge_effects(), ["take in", "start"]);
}

#[test]
fn m1_the_policy_of_the_site_holds_for_its_own_files_too() {
    let policy =
        tidegate_edge_core::Policy { hosts: Some(vec!["other.example".into()]), ..Default::default() };
    let mut world = World::with(Setup { has_controller: false, policy, ..setup(1) });
    world.handle(Input::Boot);
    world.files(vec![good("pump.toml", "pump", "pumps/#")]);
    assert_eq!(world.rule("pump").unwrap().last_code, Some(Code::PolicyDenied));
    assert_eq!(world.bridge_effects(), Vec::<&str>::new());
}

#[test]
fn rules_by_hand_are_kept_in_the_store_and_a_file_goes_before_them() {
    let mut world = alone();
    let pump = text("pump", "", "pumps/#");
    assert_eq!(world.apply(&pump), LocalAnswer::Done);
    world.sign("pump", BridgeEvent::Running);
    assert_eq!(world.apply(&pump), LocalAnswer::Already);
    world.reboot_alone();
    world.files(vec![]);
    assert!(world.rule("pump").is_some(), "an empty directory is no removal of what stands in no file");
    world.files(vec![good("pump.toml", "pump", "pumps/#")]);
    assert_eq!(world.rule("pump").unwrap().file.as_deref(), Some("pump.toml"));
    let kept = || LocalRefusal::KeptInFile { name: name("pump"), file: "pump.toml".into() };
    assert_eq!(world.apply(&pump), LocalAnswer::Refused(kept()));
    assert_eq!(world.drop_rule("pump", true), LocalAnswer::Refused(kept()));
    assert_eq!(kept().code(), Code::Conflict);
}

#[test]
fn m3_what_the_cloud_manages_is_not_changed_from_here() {
    let mut world = World::running();
    let before = world.disk.clone();
    let why = || LocalRefusal::ManagedByCloud { name: name("camera-up") };
    assert_eq!((why().code(), why().code().number()), (Code::ManagedByCloud, 403));
    assert_eq!(world.apply(&text("camera-up", "", "a/#")), LocalAnswer::Refused(why()));
    assert_eq!(world.drop_rule("camera-up", true), LocalAnswer::Refused(why()));
    world.files(vec![good("camera.toml", "camera-up", "a/#")]);
    assert_eq!(world.troubles(), [("camera.toml".to_owned(), Code::ManagedByCloud, None)]);
    assert_eq!(world.disk, before, "nothing was changed");
    assert_eq!(world.bridge_effects(), Vec::<&str>::new());
    // When the cloud gives the name up, the file that waited for it counts.
    world.set(removal(2));
    let camera = world.rule("camera-up").unwrap();
    assert_eq!((camera.origin, camera.file.as_deref()), (Origin::Local, Some("camera.toml")));
    assert_ne!(camera.rule, RULE, "it is another rule");
    assert_eq!(world.troubles(), []);
}

#[test]
fn m3_the_cloud_does_not_take_over_a_rule_of_the_site_either() {
    let mut world = World::welcomed();
    world.files(vec![good("camera.toml", "camera-up", "a/#")]);
    world.sign("camera-up", BridgeEvent::Running);
    world.forget();
    world.set(set(1, 1, "sensors/#", DesiredRun::Running));
    let result = &world.results()[0];
    assert_eq!((result.code, result.running), (Code::PolicyDenied, None));
    assert!(result.detail.contains("camera.toml"), "{}", result.detail);
    assert_eq!(world.disk.rules.len(), 1);
    world.files(vec![]);
    world.set(set(2, 1, "sensors/#", DesiredRun::Running));
    assert_eq!(world.rule("camera-up").unwrap().origin, Origin::Cloud);
}

#[test]
fn a_rule_of_the_site_is_told_to_the_cloud_as_its_own() {
    let mut world = World::welcomed();
    world.files(vec![good("pump.toml", "pump", "pumps/#")]);
    world.sign("pump", BridgeEvent::Running);
    assert!(world.results().is_empty(), "nobody asked for it, so nobody is answered");
    assert_eq!(world.reports().last().unwrap().run.state, RunState::Running);
    let hellos = world.hellos().len();
    world.wait(6_000);
    assert_eq!(world.hellos().len(), hellos + 1, "another root is told soon");
    world.welcome(Want::Inventory);
    let told = world.said.iter().rev().find_map(|(_, up)| {
        if let Up::Inventory(inventory) = up { Some(inventory.rules.clone()) } else { None }
    });
    let told = told.expect("an inventory");
    assert_eq!(
        (told[0].origin, told[0].present, told[0].name.clone()),
        (Origin::Local, true, Some(name("pump")))
    );
}

trait Reboot {
    fn reboot_alone(&mut self);
}

impl Reboot for World {
    fn reboot_alone(&mut self) {
        let setup = Setup { has_controller: false, ..setup(2) };
        self.sid = None;
        self.agent = tidegate_edge_core::Agent::restore(setup, self.disk.clone());
        self.forget();
        self.handle(Input::Boot);
    }
}
