//! A device on the gateway: connects to its local broker as any device does, and publishes a reading each second.

use std::net::SocketAddr;
use std::time::Duration;

use rumqttc::{AsyncClient, EventLoop, MqttOptions, QoS};
use tokio::task::JoinHandle;

/// What it publishes on.
const TOPIC: &str = "sensors/temperature";
const EVERY: Duration = Duration::from_secs(1);

/// Starts it; it goes on until it is aborted.
pub fn start(broker: SocketAddr) -> JoinHandle<()> {
    let mut options = MqttOptions::new("tidegate-dev-thermometer", broker.ip().to_string(), broker.port());
    options.set_keep_alive(Duration::from_secs(20)).set_clean_session(true);
    let (client, events) = AsyncClient::new(options, 16);
    tokio::spawn(async move {
        tokio::join!(poll(events), publish(client));
    })
}

async fn poll(mut events: EventLoop) {
    loop {
        if events.poll().await.is_err() {
            // The client itself does not pause between attempts.
            tokio::time::sleep(EVERY).await;
        }
    }
}

async fn publish(client: AsyncClient) {
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    for number in 0_u32.. {
        ticks.tick().await;
        // A slow day: between 18 and 24 degrees within ten minutes.
        let celsius = 21.0 + 3.0 * (f64::from(number % 600) * std::f64::consts::TAU / 600.0).sin();
        let payload = format!("{{\"reading\":{number},\"celsius\":{celsius:.1}}}");
        // Without a connection a reading is as good as the next one.
        let _ = client.try_publish(TOPIC, QoS::AtLeastOnce, false, payload);
    }
}
