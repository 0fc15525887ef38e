//! A remote broker over TLS: mosquitto, with a client certificate.

use std::time::Duration;

use tidegate_e2e::tls::{Pair, listener};
use tidegate_e2e::world::EDGE;
use tidegate_e2e::{Mosquitto, Rule, World, ports};

fn rule(world: &World, port: u16, settings: &str) -> Rule {
    let mut rule = Rule::new("camera-up", world.remote.address);
    rule.url = Some(format!("mqtts://localhost:{port}"));
    rule.more = format!("[remote.tls]\n{settings}");
    rule
}

fn pem(field: &str, text: &str) -> String {
    format!("{field} = \"\"\"\n{text}\"\"\"\n")
}

#[test]
fn messages_go_over_tls_to_a_broker_that_wants_a_client_certificate_and_nobody_sees_the_key() {
    let (broker, client, secure) = (Pair::of("localhost"), Pair::of(EDGE), ports::free());
    let mut world =
        World::with_remote(|dir| Mosquitto::with_bridge(dir, &listener(dir, secure, &broker, &client)));
    let remote = world.remote_sink();
    let ca = pem("ca", &broker.certificate);
    let full = ca.clone() + &pem("certificate", &client.certificate) + &pem("key", &client.key);
    world.run_rule(&rule(&world, secure.port(), &full));
    let device = world.device(Duration::from_millis(1));
    device.publish_on();
    remote.wait_flow(500);

    // The key is on the gateway's disk: it comes back by itself, with nothing of the cloud.
    world.agent.process.kill9();
    world.agent.start_again();
    remote.wait_flow(500);

    // Nobody is shown the key.
    let line = client.key.lines().nth(1).expect("a key has lines");
    let shown = world.controller.ok(&["rule", "get", "camera-up"]);
    assert_eq!(shown.json()["content"]["remote"]["tls"]["key_set"], true, "{shown:?}");
    let exported = world.controller.ok(&["rule", "export", "camera-up"]);
    assert!(!format!("{shown:?}{exported:?}").contains(line), "the key is shown");

    // Without the certificate the broker lets nobody in: the issue fails, and what ran goes on.
    world.controller.apply(&rule(&world, secure.port(), &ca));
    let failed = world.controller.fails(1, &["sync", "camera-up", "--edge", EDGE, "--wait"]);
    assert!(failed.stderr.contains("client certificate"), "{failed:?}");
    remote.wait_flow(500);
    // Another authority than the broker's: told as such.
    world.controller.apply(&rule(
        &world,
        secure.port(),
        &full.replace(&broker.certificate, &Pair::of("localhost").certificate),
    ));
    let failed = world.controller.fails(1, &["sync", "camera-up", "--edge", EDGE, "--wait"]);
    assert!(failed.stderr.contains("not signed by the authority in remote.tls.ca"), "{failed:?}");
    remote.wait_flow(500);
    remote.expect_all_in_order(&device.finish());
}
