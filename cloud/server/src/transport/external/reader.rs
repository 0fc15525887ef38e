//! A connection that subscribes and never publishes: each message is acknowledged in the order of arrival, once what it
//! caused is durable.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use rumqttc::{AsyncClient, Event, EventLoop, Packet, Publish, QoS, SubscribeFilter, SubscribeReasonCode};
use tidegate_broker::TapResult;
use tokio::sync::{mpsc, oneshot};

use super::line::{Line, explain};

/// Time from CONNACK to SUBACK.
const SUBSCRIBE_TIMEOUT: Duration = Duration::from_secs(10);
/// Messages without PUBACK: MQTT has no more packet ids. A message waits here as its id alone.
const MAX_UNACKED: usize = 65_535;

/// What becomes of the messages of a reader.
pub(super) trait Inbox: Send + Sync + 'static {
    /// What is subscribed to on each connection.
    fn filters(&self) -> Vec<SubscribeFilter>;

    /// Takes a message; waits while too many wait for the loop. The receiver is told when what it caused is durable;
    /// without one there is nothing to wait for.
    fn take(&self, publish: Publish) -> impl Future<Output = Option<oneshot::Receiver<TapResult>>> + Send;
}

/// A message that waits for its acknowledgement: in MQTT only its id counts.
type Unacked = (Publish, Option<oneshot::Receiver<TapResult>>);

/// Reads until the controller stops.
pub(super) async fn run(line: Line, inbox: impl Inbox) {
    let (line, inbox) = (Arc::new(line), Arc::new(inbox));
    line.keep(|| connection(Arc::clone(&line), Arc::clone(&inbox))).await;
}

/// One connection; returns why it ended.
async fn connection(line: Arc<Line>, inbox: Arc<impl Inbox>) -> String {
    let (client, eventloop) = line.client(None);
    let (unacked, waiting) = mpsc::channel(MAX_UNACKED);
    tokio::select! {
        () = line.stopping.cancelled() => "the controller stops".to_owned(),
        why = Box::pin(drive(&line, eventloop, &client, &*inbox, unacked)) => why,
        why = acknowledge(&client, waiting) => why,
    }
}

/// Polls the client until the connection ends.
async fn drive(
    line: &Line,
    mut eventloop: EventLoop,
    client: &AsyncClient,
    inbox: &impl Inbox,
    unacked: mpsc::Sender<Unacked>,
) -> String {
    let mut subscribe_by = None;
    let mut is_subscribed = false;
    loop {
        let event = match subscribe_by {
            Some(by) if !is_subscribed => match tokio::time::timeout_at(by, eventloop.poll()).await {
                Ok(event) => event,
                Err(_) => return "the broker did not confirm the subscriptions in time".to_owned(),
            },
            Some(_) | None => eventloop.poll().await,
        };
        match event {
            Ok(Event::Incoming(Packet::ConnAck(_))) => {
                subscribe_by = Some(tokio::time::Instant::now() + SUBSCRIBE_TIMEOUT);
                // Never waits: the first request of a fresh client.
                if client.try_subscribe_many(inbox.filters()).is_err() {
                    return "the client took no subscription".to_owned();
                }
            }
            Ok(Event::Incoming(Packet::SubAck(ack))) => {
                if ack.return_codes.contains(&SubscribeReasonCode::Failure) {
                    return "the broker refused a subscription of the controller; check its access rules there".to_owned();
                }
                is_subscribed = true;
                line.is_up();
            }
            Ok(Event::Incoming(Packet::Publish(publish))) => {
                let mut id = Publish::new("", publish.qos, Vec::new());
                id.pkid = publish.pkid;
                let taken = inbox.take(publish).await;
                if id.qos != QoS::AtMostOnce && unacked.try_send((id, taken)).is_err() {
                    return "the broker sends more than MQTT allows without an acknowledgement".to_owned();
                }
            }
            Ok(Event::Incoming(_) | Event::Outgoing(_)) => {}
            Err(error) => return explain(&error),
        }
    }
}

/// Acknowledges in the order of arrival. A message that was not kept ends the connection: its sender is told nothing.
async fn acknowledge(client: &AsyncClient, mut waiting: mpsc::Receiver<Unacked>) -> String {
    while let Some((id, taken)) = waiting.recv().await {
        let result = match taken {
            Some(taken) => taken.await,
            None => Ok(TapResult::Taken),
        };
        match result {
            Ok(TapResult::Taken) => {}
            Ok(TapResult::Refused) | Err(_) => return "the controller did not take a message".to_owned(),
        }
        if client.ack(&id).await.is_err() {
            break;
        }
    }
    // The other side of the connection ended, and says why.
    std::future::pending().await
}
