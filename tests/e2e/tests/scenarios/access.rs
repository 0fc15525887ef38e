//! Who may do what at the controller's broker: each edge its own topics, nobody without a credential.

use std::time::Duration;

use tidegate_e2e::mqtt::{Conn, publish, try_login};
use tidegate_e2e::{Controller, Login, Sink, until};

fn create(controller: &Controller, edge: &str) -> Login {
    let made = controller.ok(&["edge", "create", edge, "--mqtt", &controller.mqtt.to_string()]).json();
    let credential = made["credential"].as_str().unwrap_or_else(|| panic!("no credential in {made}"));
    Login::anonymous(&format!("tidegate.default.{edge}")).with_password(edge, credential)
}

#[test]
fn an_edge_reaches_its_own_topics_only() {
    let dir = tempfile::tempdir().unwrap();
    let controller = Controller::start(dir.path());
    let (one, two) = (create(&controller, "gw-one"), create(&controller, "gw-two"));

    let mut conn = Conn::open(controller.mqtt, &one).unwrap().unwrap();
    for (filter, granted) in [
        ("tidegate/1/default/gw-one/down", true),
        ("tidegate/1/default/gw-one/presence", true),
        ("tidegate/1/default/controller", true),
        ("tidegate/1/default/gw-two/down", false),
        ("tidegate/1/default/gw-two/up", false),
        ("tidegate/1/default/gw-two/presence", false),
        ("tidegate/1/default/+/down", false),
        ("tidegate/#", false),
        ("#", false),
        ("other", false),
    ] {
        let code = conn.subscribe(filter, 1).unwrap();
        assert_eq!(code != 0x80, granted, "{filter}: SUBACK {code:#x}");
    }
    conn.bye();

    // What one edge publishes in another's name reaches nobody: not even one who may read everything.
    let token = std::fs::read_to_string(dir.path().join("cloud/admin.token")).unwrap();
    let admin = Login::anonymous("watcher").with_password("admin", token.trim());
    let watcher = Sink::start(controller.mqtt, admin, "tidegate/1/default/#");
    for topic in [
        "tidegate/1/default/gw-two/presence",
        "tidegate/1/default/gw-two/up",
        "tidegate/1/default/controller",
    ] {
        let mut forger = Conn::open(controller.mqtt, &one).unwrap().unwrap();
        forger.send(&publish(topic, b"forged", Some(1), false)).unwrap();
        // A PUBACK without effect or a closed connection: both are right.
        let _ = forger.next(Duration::from_secs(10));
    }
    let mut honest = Conn::open(controller.mqtt, &two).unwrap().unwrap();
    honest.send(&publish("tidegate/1/default/gw-two/presence", b"honest", Some(1), false)).unwrap();
    until("the honest message is seen", || watcher.arrived().into_iter().find(|a| a.payload == b"honest"));
    assert!(watcher.arrived().iter().all(|a| a.payload != b"forged"), "{:?}", watcher.arrived());
}

#[test]
fn wrong_credentials_and_anonymous_clients_are_refused_at_the_controllers_broker() {
    let dir = tempfile::tempdir().unwrap();
    let controller = Controller::start(dir.path());
    let (one, two) = (create(&controller, "gw-one"), create(&controller, "gw-two"));
    assert_eq!(try_login(controller.mqtt, &one), Ok(()));

    let (_, credential) = one.credentials.clone().unwrap();
    let id = "tidegate.default.gw-one";
    assert_eq!(try_login(controller.mqtt, &Login::anonymous(id)), Err(5), "anonymous");
    assert_eq!(try_login(controller.mqtt, &Login::anonymous("anybody")), Err(5), "anonymous");
    let wrong = Login::anonymous(id).with_password("gw-one", "wrong");
    assert_eq!(try_login(controller.mqtt, &wrong), Err(4), "wrong credential");
    let other = Login::anonymous("tidegate.default.gw-two").with_password("gw-one", &credential);
    assert!(try_login(controller.mqtt, &other).is_err(), "the id of another edge");
    let nobody = Login::anonymous("tidegate.default.gw-three").with_password("gw-three", &credential);
    assert!(try_login(controller.mqtt, &nobody).is_err(), "an edge that nobody made");

    // A removed edge is out, at once.
    let mut conn = Conn::open(controller.mqtt, &two).unwrap().unwrap();
    controller.ok(&["edge", "remove", "gw-two", "--confirm", "gw-two"]);
    assert!(try_login(controller.mqtt, &two).is_err(), "a removed edge");
    until("the connection of the removed edge ends", || conn.next(Duration::from_millis(100)).err());

    // And the API wants its token.
    let mut command = tidegate_e2e::controller::tidegate(dir.path());
    command
        .args(["status", "-o", "json", "--token", "wrong", "--server"])
        .arg(format!("http://{}", controller.http));
    let refused = tidegate_e2e::controller::run(&mut command);
    assert_eq!(refused.code, 4, "{refused:?}");
}
