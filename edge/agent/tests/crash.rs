//! `kill -9` while messages flow: what a device was told to be safe arrives, in order.

#[allow(dead_code)] // each test file uses a part of it
mod site;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rumqttc::{AsyncClient, Event, EventLoop, MqttOptions, Outgoing, Packet, QoS};
use site::{Controller, Side, set};
use tidegate_edge::control::{self, Answer, Request};
use tidegate_model::placement::RunState;
use tidegate_model::wire::{DesiredRun, Down, Up};

const DEADLINE: Duration = Duration::from_secs(20);

/// The real binary. Killed, not stopped, when it is dropped.
struct Agent {
    child: Child,
    local: SocketAddr,
}

impl Drop for Agent {
    fn drop(&mut self) {
        // SIGKILL; it may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn ask(data: &Path, request: Request) -> Option<Answer> {
    let data = data.to_owned();
    tokio::task::spawn_blocking(move || control::call(&data, &request).ok())
        .await
        .expect("the call does not panic")
}

async fn start(settings: &Path, data: &Path) -> Agent {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate-edge"));
    let child =
        command.arg("run").arg("--config").arg(settings).stderr(Stdio::null()).spawn().expect("it runs");
    let mut agent = Agent { child, local: SocketAddr::from(([127, 0, 0, 1], 0)) };
    let answers = async {
        loop {
            if let Some(Answer::Status(status)) = ask(data, Request::Status).await {
                return status.local.parse().expect("an embedded broker has an address");
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    agent.local = tokio::time::timeout(DEADLINE, answers).await.expect("the agent answers in time");
    agent
}

/// Publishes numbers, one PUBACK after the other, until the broker is gone or `until` is reached. Returns the first number
/// that was not acknowledged.
async fn publish(at: SocketAddr, from: u32, until: u32, acknowledged: &mut BTreeSet<u32>) -> u32 {
    let mut options = MqttOptions::new("device", at.ip().to_string(), at.port());
    options.set_keep_alive(Duration::from_secs(20));
    let (client, mut eventloop): (AsyncClient, EventLoop) = AsyncClient::new(options, 8);
    let mut number = from;
    let mut is_sent = false;
    while number < until {
        match eventloop.poll().await {
            Ok(Event::Incoming(Packet::ConnAck(_))) => {}
            Ok(Event::Outgoing(Outgoing::Publish(_))) => is_sent = true,
            Ok(Event::Incoming(Packet::PubAck(_))) if is_sent => {
                acknowledged.insert(number);
                number += 1;
                is_sent = false;
            }
            Ok(Event::Incoming(_) | Event::Outgoing(_)) => continue,
            Err(_) => return number,
        }
        if !is_sent && number < until {
            let sent = client.try_publish("sensors/n", QoS::AtLeastOnce, false, number.to_string());
            if sent.is_err() {
                return number;
            }
        }
    }
    number
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_arrives_in_order_through_kill_9() {
    let dir = tempfile::tempdir().unwrap();
    let (mut controller, remote) = (Controller::start().await, Side::start().await);
    let data = dir.path().join("data");
    let settings = dir.path().join("agent.toml");
    let text = format!(
        "name = \"gw-7\"\ndata_dir = \"{}\"\n[controller]\nurl = \"mqtt://{}\"\n[local]\nlisten = \"127.0.0.1:0\"\n",
        data.display(),
        controller.side.addr()
    );
    std::fs::write(&settings, text).unwrap();
    let mut agent = start(&settings, &data).await;
    controller.welcome().await;
    controller.send(&Down::Set(Box::new(set(1, remote.addr(), DesiredRun::Running))), None).await;
    let result =
        controller.next("a result", |_, up| if let Up::Result(r) = up { Some(r.clone()) } else { None });
    assert_eq!(result.await.run.state, RunState::Running);

    let mut acknowledged = BTreeSet::new();
    let mut next = 0;
    for round in 1..=4_u64 {
        let local = agent.local;
        let flow = publish(local, next, u32::MAX, &mut acknowledged);
        tokio::pin!(flow);
        // While messages flow, at another moment each time.
        tokio::select! {
            first = &mut flow => panic!("the device was closed at {first}"),
            () = tokio::time::sleep(Duration::from_millis(40 * round)) => drop(agent),
        }
        next = tokio::time::timeout(DEADLINE, flow).await.expect("the device notices");
        agent = start(&settings, &data).await;
    }
    next = publish(agent.local, next, next + 10, &mut acknowledged).await;
    assert!(acknowledged.len() > 14, "messages flowed: {}", acknowledged.len());

    let last = next - 1;
    let mut first_arrivals: Vec<u32> = Vec::new();
    while first_arrivals.last() != Some(&last) {
        let number = remote.log.next("the next number", |topic, payload| {
            let text = std::str::from_utf8(payload).ok().filter(|_| topic == "plant/gw-7/sensors/n")?;
            text.parse::<u32>().ok()
        });
        let number = number.await;
        if !first_arrivals.contains(&number) {
            first_arrivals.push(number);
        }
    }
    assert!(first_arrivals.is_sorted(), "order is kept: {first_arrivals:?}");
    let arrived: BTreeSet<u32> = first_arrivals.into_iter().collect();
    let lost: Vec<&u32> = acknowledged.difference(&arrived).collect();
    assert!(lost.is_empty(), "acknowledged and lost: {lost:?}");
}
