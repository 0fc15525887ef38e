//! A gateway with far more devices than usual: all of them are kept, and nobody notices the others.

use tidegate_e2e::mqtt::{Conn, Login, Packet, publish};
use tidegate_e2e::{PATIENCE, Rule, World, until};

const DEVICES: usize = 5_000;
/// What an idle device may cost the agent, in KiB, in a debug build.
const MAX_KIB_EACH: f64 = 12.0;

/// A line of a file that `/proc` has about a process.
fn proc_line(pid: u32, file: &str, begins: &str) -> String {
    let text = std::fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap();
    text.lines().find(|line| line.starts_with(begins)).unwrap().to_owned()
}

fn memory_kib(pid: u32) -> f64 {
    proc_line(pid, "status", "RssAnon").split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn next(conn: &mut Conn) -> Packet {
    conn.next(PATIENCE).unwrap().unwrap_or_else(|| panic!("nothing came for {PATIENCE:?}"))
}

#[test]
fn five_thousand_idle_devices_are_kept_and_cost_the_others_nothing() {
    let world = World::new();
    world.run_rule(&Rule::new("camera-up", world.remote.address));
    let pid = world.agent.process.pid().unwrap();
    let limits = proc_line(pid, "limits", "Max open files");
    let limits: Vec<&str> = limits.split_whitespace().skip(3).take(2).collect();
    assert_eq!(limits[0], limits[1], "the agent raised its soft limit on open files");
    let hard: usize = limits[1].parse().unwrap_or(usize::MAX);
    assert!(hard > DEVICES + 1_500, "this test needs more open files than {hard}: ulimit -Hn");

    let before = memory_kib(pid);
    let mut idle: Vec<Conn> = (0..DEVICES)
        .map(|n| Conn::open(world.agent.local, &Login::anonymous(&format!("idle-{n}"))).unwrap().unwrap())
        .collect();
    let each = (memory_kib(pid) - before) / DEVICES as f64;
    world.agent.process.note(&format!("an idle device costs {each:.1} KiB"));
    assert!(each < MAX_KIB_EACH, "an idle device costs {each:.1} KiB");

    // A device and a subscriber among them work as ever: each message is acknowledged and delivered.
    let mut to = Conn::open(world.agent.local, &Login::anonymous("to")).unwrap().unwrap();
    assert_eq!(to.subscribe("sensors/#", 1).unwrap(), 1);
    let mut from = Conn::open(world.agent.local, &Login::anonymous("from")).unwrap().unwrap();
    for (round, devices) in idle.chunks_mut(500).enumerate() {
        for device in devices.iter_mut() {
            device.ping().unwrap();
        }
        for n in 1..=20u16 {
            from.send(&publish("sensors/a", &[round as u8, n as u8], Some(n), false)).unwrap();
            assert_eq!(next(&mut from), Packet::PubAck(n));
            match next(&mut to) {
                Packet::Publish { payload, pkid, .. } => {
                    assert_eq!(payload, [round as u8, n as u8]);
                    to.ack(pkid).unwrap();
                }
                other @ (Packet::ConnAck(_) | Packet::PubAck(_) | Packet::SubAck(_) | Packet::Other(_)) => {
                    panic!("{other:?}")
                }
            }
        }
        for device in devices {
            assert_eq!(next(device), Packet::Other(13), "its keep-alive is answered");
        }
    }
    drop(idle);
    until("the files of those who left are closed", || {
        let open = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
        (open < 500).then_some(())
    });
}
