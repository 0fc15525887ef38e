//! The instruments themselves: a device and a sink around mosquitto, over a cable that fails.

use std::time::Duration;

use tidegate_e2e::mqtt::{Conn, publish};
use tidegate_e2e::proxy::Cable;
use tidegate_e2e::{Device, Login, Mosquitto, Proxy, Sink};

#[test]
fn a_device_resends_in_order_what_no_puback_came_for_and_a_sink_tells_copies_apart() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Mosquitto::open(dir.path());
    let cable = Proxy::to(broker.address);
    let sink = Sink::start(broker.address, Login::anonymous("sink"), "numbers/#");
    let device = Device::start(cable.address, "device", Duration::ZERO, |n| format!("numbers/{}", n % 3));
    device.publish_on();
    for state in [Cable::Cut, Cable::BlackHole, Cable::Cut] {
        device.wait_flow(300);
        cable.set(state);
        cable.set(Cable::Whole);
    }
    device.wait_flow(300);
    let acked = device.finish();
    assert!(acked.len() >= 1_200 && device.connections() >= 2);
    sink.expect_all_in_order(&acked);
    assert!(sink.arrived().iter().all(|a| a.topic == format!("numbers/{}", a.number() % 3)));
    assert_eq!(broker.connects("sink").len(), 1);
}

#[test]
#[should_panic(expected = "the order is lost: 3 came before 2")]
fn a_sink_sees_a_lost_order() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Mosquitto::open(dir.path());
    let sink = Sink::start(broker.address, Login::anonymous("sink"), "numbers/#");
    let mut conn = Conn::open(broker.address, &Login::anonymous("device")).unwrap().unwrap();
    for number in ["1", "3", "2", "3"] {
        conn.send(&publish("numbers/1", number.as_bytes(), Some(1), false)).unwrap();
        assert!(conn.next(Duration::from_secs(10)).unwrap().is_some());
    }
    sink.expect_all_in_order(&[1, 2, 3]);
}
