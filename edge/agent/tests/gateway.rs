//! The agent in this process, against real brokers on loopback: issued, running, stopped on site, started from disk.

mod site;

use rumqttc::Packet;
use site::{Controller, Device, RULE, Side, Site, beside, config, embedded, rule_text, set};
use tidegate_broker::{Message, Qos};
use tidegate_edge::control::{Answer, Request};
use tidegate_edge::settings::LocalSide;
use tidegate_edge::{Gateway, RunError};
use tidegate_model::code::Code;
use tidegate_model::placement::RunState;
use tidegate_model::wire::{By, DesiredRun, Down, Up};

async fn arrives(remote: &Side, payload: &str) {
    let topic =
        remote.log.next(payload, |topic, p| (p == payload.as_bytes()).then(|| topic.to_owned())).await;
    assert_eq!(topic, "plant/gw-7/sensors/t1");
}

/// Issued at generation 1 and running.
async fn issued(dir: &std::path::Path, controller: &mut Controller, remote: &Side) -> Site {
    issued_on(Site::start(dir, controller.side.addr()).await, controller, remote).await
}

async fn issued_on(site: Site, controller: &mut Controller, remote: &Side) -> Site {
    controller.welcome().await;
    controller.send(&Down::Set(Box::new(set(1, remote.addr(), DesiredRun::Running))), None).await;
    let received =
        controller.next("received", |_, up| if let Up::Received(r) = up { Some(r.clone()) } else { None });
    assert_eq!(received.await.rule, RULE);
    let result = controller
        .next("a result", |_, up| if let Up::Result(r) = up { Some(r.clone()) } else { None })
        .await;
    assert_eq!((result.code, result.run.state), (Code::Ok, RunState::Running), "{}", result.detail);
    site
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rule_is_issued_moves_data_both_ways_and_is_stopped_on_site() {
    both_ways_and_stopped(embedded(std::net::SocketAddr::from(([127, 0, 0, 1], 0)))).await;
}

/// Our own broker plays the one that is there already.
#[tokio::test(flavor = "multi_thread")]
async fn the_same_beside_another_broker() {
    let broker = Side::start().await;
    both_ways_and_stopped(beside(broker.addr())).await;
}

async fn both_ways_and_stopped(local: LocalSide) {
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    let (mut controller, remote) = (Controller::start().await, Side::start().await);
    let config = tidegate_edge::AgentConfig { local, ..config(dir.path(), controller.side.addr()) };
    let site = issued_on(Site::with(config).await, &mut controller, &remote).await;

    let mut device = Device::connect(site.local).await;
    device.publish("sensors/t1", "21.5").await;
    arrives(&remote, "21.5").await;
    let command = Message::new("commands/gw-7/valve", "open", Qos::AtLeastOnce);
    remote.broker.publish(command, 0).await.expect("the remote broker takes it");
    let packet = device.until("a command", |packet| matches!(packet, Packet::Publish(_))).await;
    assert!(matches!(packet, Packet::Publish(p) if p.topic == "commands/gw-7/valve" && p.payload == "open"));

    site.until("both counted", |rule| (rule.counters.forwarded, rule.counters.received) == (1, 1)).await;

    assert_eq!(site.ask(Request::Stop { rule: "camera-up".into() }).await, Answer::Done { changed: true });
    assert_eq!(site.ask(Request::Stop { rule: RULE.to_string() }).await, Answer::Done { changed: false });
    let report = controller
        .next("a report", |_, up| if let Up::Report(r) = up { Some(r.clone()) } else { None })
        .await;
    assert_eq!((report.run.state, report.run.by), (RunState::PausedManual, By::Local));
    assert_eq!((report.counters.forwarded, report.counters.received), (1, 1));
    let refused = site.ask(Request::Start { rule: "nobody".into() }).await;
    assert!(matches!(refused, Answer::Error { code: Code::UnknownRule, .. }), "{refused:?}");
    site.stop().await;
    let bye = controller.side.log.next("bye", |topic, payload| {
        (topic.ends_with("/presence") && String::from_utf8_lossy(payload).contains("\"bye\"")).then_some(())
    });
    bye.await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_run_from_disk_without_the_cloud_and_what_was_stopped_stays_stopped() {
    let dir = tempfile::tempdir().unwrap();
    let (mut controller, remote) = (Controller::start().await, Side::start().await);
    let cloud = controller.side.addr();
    issued(dir.path(), &mut controller, &remote).await.stop().await;
    controller.side.broker.stop().await;

    let site = Site::start(dir.path(), cloud).await;
    let mut device = Device::connect(site.local).await;
    device.publish("sensors/t1", "without the cloud").await;
    arrives(&remote, "without the cloud").await;
    assert_eq!(site.ask(Request::Stop { rule: "camera-up".into() }).await, Answer::Done { changed: true });
    site.stop().await;

    let site = Site::start(dir.path(), cloud).await;
    let rule = site.until("the rule", |_| true).await;
    assert_eq!((rule.run.state, rule.run_desired), (RunState::PausedManual, DesiredRun::Stopped));
    assert_eq!(site.ask(Request::Start { rule: "camera-up".into() }).await, Answer::Done { changed: true });
    let rule = site.until("running", |rule| rule.run.state == RunState::Running).await;
    assert_eq!(rule.run.by, By::Local);
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_wait_for_a_remote_broker_that_is_away_over_a_restart_of_the_agent() {
    let dir = tempfile::tempdir().unwrap();
    let (mut controller, remote) = (Controller::start().await, Side::start().await);
    let at = remote.addr();
    let site = issued(dir.path(), &mut controller, &remote).await;
    remote.broker.stop().await;
    let fault =
        controller.next("the fault", |_, up| if let Up::Report(r) = up { Some(r.run.clone()) } else { None });
    assert_eq!(fault.await.state, RunState::PausedFault);
    let mut device = Device::connect(site.local).await;
    device.publish("sensors/t1", "kept").await;
    site.stop().await;

    let remote = Side::at(at).await;
    let site = Site::start(dir.path(), controller.side.addr()).await;
    arrives(&remote, "kept").await;
    controller.welcome().await;
    let running = controller.next("recovery", |_, up| {
        let reported = matches!(up, Up::Report(r) if r.run.state == RunState::Running);
        let listed =
            matches!(up, Up::Inventory(i) if i.rules.iter().any(|r| r.run.state == RunState::Running));
        (reported || listed).then_some(())
    });
    running.await;
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn m1_data_flows_from_a_rule_file_without_a_controller_and_is_counted_for_monitors() {
    let dir = tempfile::tempdir().unwrap();
    let rules = dir.path().join("rules");
    std::fs::create_dir(&rules).unwrap();
    let remote = Side::start().await;
    std::fs::write(rules.join("camera.toml"), rule_text(remote.addr())).unwrap();
    let alone = tidegate_edge::AgentConfig {
        controller: None,
        rules_dir: Some(rules.clone()),
        metrics: Some(std::net::SocketAddr::from(([127, 0, 0, 1], 0))),
        ..config(&dir.path().join("data"), remote.addr())
    };
    let site = Site::with(alone.clone()).await;
    site.until("running", |rule| rule.run.state == RunState::Running).await;
    let mut device = Device::connect(site.local).await;
    device.publish("sensors/t1", "21.5").await;
    arrives(&remote, "21.5").await;
    remote.broker.publish(Message::new("commands/gw-7/valve", "open", Qos::AtLeastOnce), 0).await.unwrap();
    device.until("a command", |packet| matches!(packet, Packet::Publish(_))).await;
    site.until("both counted", |rule| (rule.counters.forwarded, rule.counters.received) == (1, 1)).await;
    let text = site.metrics().await;
    for line in [
        "tidegate_edge_build_info{version=\"0.1.0\"} 1",
        "tidegate_edge_rule_running{rule=\"camera-up\"} 1",
        "tidegate_edge_bridge_connected{rule=\"camera-up\"} 1",
        "tidegate_edge_rule_fault{rule=\"camera-up\"} 0",
        "tidegate_edge_messages_total{rule=\"camera-up\",direction=\"forwarded\"} 1",
        "tidegate_edge_messages_total{rule=\"camera-up\",direction=\"received\"} 1",
        "tidegate_edge_queue_messages{rule=\"camera-up\"} 0",
        "tidegate_edge_reconnects_total{rule=\"camera-up\"} 0",
        "tidegate_edge_rule_files_in_trouble 0",
        "# EOF",
    ] {
        assert!(text.lines().any(|told| told == line), "{line} in {text}");
    }

    // The remote broker goes away, a message waits, the file is removed: what waits is kept until the file is back.
    let at = remote.addr();
    remote.broker.stop().await;
    site.until("a fault", |rule| rule.run.state == RunState::PausedFault).await;
    device.publish("sensors/t1", "kept").await;
    std::fs::rename(rules.join("camera.toml"), dir.path().join("camera.toml")).unwrap();
    site.until("withdrawn", |rule| rule.withdrawn && rule.counters.queued == 1).await;
    site.stop().await;
    let remote = Side::at(at).await;
    let site = Site::with(alone).await;
    site.until("still withdrawn", |rule| rule.withdrawn).await;
    std::fs::rename(dir.path().join("camera.toml"), rules.join("camera.toml")).unwrap();
    arrives(&remote, "kept").await;
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn m3_a_rule_that_the_cloud_manages_cannot_be_changed_on_site() {
    let dir = tempfile::tempdir().unwrap();
    let (mut controller, remote) = (Controller::start().await, Side::start().await);
    let rules = dir.path().join("rules");
    std::fs::create_dir(&rules).unwrap();
    let config = tidegate_edge::AgentConfig {
        rules_dir: Some(rules.clone()),
        ..config(&dir.path().join("data"), controller.side.addr())
    };
    let site = issued_on(Site::with(config).await, &mut controller, &remote).await;
    let file = dir.path().join("camera.toml");
    std::fs::write(&file, rule_text(remote.addr())).unwrap();
    let apply = Request::apply(&tidegate_edge::read_rule(&file).unwrap());
    for request in [apply, Request::Remove { rule: "camera-up".into(), discard: true }] {
        let answer = site.ask(request).await;
        assert!(matches!(&answer, Answer::Error { code: Code::ManagedByCloud, .. }), "{answer:?}");
    }
    std::fs::rename(&file, rules.join("camera.toml")).unwrap();
    site.until_rules("the trouble", |rules| {
        rules.file_troubles.iter().any(|t| t.file == "camera.toml" && t.code == Code::ManagedByCloud)
    })
    .await;
    site.until("running as issued", |rule| rule.rule == RULE && rule.run.state == RunState::Running).await;
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_in_use_is_said_in_one_sentence() {
    let dir = tempfile::tempdir().unwrap();
    let other = Side::start().await;
    let site = Site::start(dir.path(), other.addr()).await;
    let open = |dir: &std::path::Path, listen| {
        let config = tidegate_edge::AgentConfig { local: embedded(listen), ..config(dir, other.addr()) };
        Box::pin(Gateway::open(config))
    };
    let free = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
    match open(dir.path(), free).await {
        Err(error @ RunError::Locked { .. }) => {
            assert!(error.to_string().contains(&std::process::id().to_string()), "{error}");
        }
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("two agents on one directory"),
    }
    let second = tempfile::tempdir().unwrap();
    match open(second.path(), other.addr()).await {
        Err(error @ RunError::Broker(_)) => {
            assert!(error.to_string().contains("choose another address"), "{error}")
        }
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("two brokers on one port"),
    }
    site.stop().await;
}
