//! A client that is not ours: rumqttc, as bridges use it.

mod common;
use common::*;
use rumqttc::{AsyncClient, Event, MqttOptions, Packet, QoS};
use std::time::Duration;

#[tokio::test]
async fn rumqttc_gets_a_thousand_numbered_messages_in_order_at_each_level() {
    let broker = start().await;
    for (name, qos) in [("zero", QoS::AtMostOnce), ("one", QoS::AtLeastOnce), ("two", QoS::ExactlyOnce)] {
        let mut options = MqttOptions::new(name, "127.0.0.1", broker.local_addr().port());
        options.set_keep_alive(Duration::from_secs(5)).set_inflight(50);
        let (client, mut events) = AsyncClient::new(options, 10);
        let publishing = async {
            client.subscribe(format!("{name}/#"), qos).await.unwrap();
            for n in 0..1_000u32 {
                client.publish(format!("{name}/{}", n % 7), qos, false, n.to_be_bytes()).await.unwrap();
            }
        };
        let receiving = async {
            let mut next = 0u32;
            while next < 1_000 {
                if let Event::Incoming(Packet::Publish(got)) = events.poll().await.unwrap() {
                    assert_eq!(got.payload[..], next.to_be_bytes());
                    assert_eq!(got.qos, qos);
                    next += 1;
                }
            }
        };
        within("a thousand messages", async { tokio::join!(publishing, receiving) }).await;
    }
}
