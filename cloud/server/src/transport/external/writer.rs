//! The connection that publishes: messages for edges, answers and states for others, and the controller's own presence with
//! its Last Will.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rumqttc::{AsyncClient, ClientError, Event, EventLoop, LastWill, Outgoing, Packet, QoS};
use tidegate_model::wire::{ControllerPresence, Topics};
use tokio::sync::{Mutex, mpsc, watch};
use tokio::time::Instant;

use super::line::{Line, explain};
use crate::transport::Publication;

/// Longest wait for the oldest PUBACK; then the connection is taken for dead, although it answers pings.
const ACK_TIMEOUT: Duration = Duration::from_secs(30);

/// What is published.
pub(super) struct Writer {
    pub(super) topics: Topics,
    /// Messages for edges; they go before the others.
    pub(super) waiting: mpsc::Receiver<Publication>,
    /// Messages for whoever may read them.
    pub(super) others: mpsc::Receiver<Publication>,
    pub(super) presence: watch::Receiver<Option<ControllerPresence>>,
    /// Whether what is said now is published.
    pub(super) writes: Arc<AtomicBool>,
}

impl Writer {
    /// Publishes until the controller stops; the last word is that it went away.
    pub(super) async fn run(mut self, line: Line) {
        // A Last Will needs a presence to be the end of.
        tokio::select! {
            () = line.stopping.cancelled() => return,
            known = self.presence.wait_for(Option::is_some) => if known.is_err() { return },
        }
        let (line, writer) = (Arc::new(line), Arc::new(Mutex::new(self)));
        line.keep(|| connection(Arc::clone(&line), Arc::clone(&writer))).await;
    }

    /// The presence as JSON; `alive`: whether it says that the controller is there.
    fn presence(&self, alive: bool) -> Vec<u8> {
        let presence =
            self.presence.borrow().clone().map(|presence| ControllerPresence { alive, ..presence });
        serde_json::to_vec(&presence).expect("a presence has string keys and no failing serializer")
    }

    async fn announce(&self, client: &AsyncClient, alive: bool) -> Result<(), ClientError> {
        client.publish(self.topics.controller(), QoS::AtLeastOnce, true, self.presence(alive)).await
    }

    /// Hands messages to the client, which may make it wait; ends with the client.
    async fn feed(&mut self, line: &Line, client: &AsyncClient) -> Result<(), ClientError> {
        // What waited for the connection before is of yesterday.
        while self.waiting.try_recv().is_ok() || self.others.try_recv().is_ok() {}
        self.presence.mark_unchanged();
        self.announce(client, true).await?;
        self.writes.store(true, Ordering::Relaxed);
        line.is_up();
        loop {
            tokio::select! {
                biased;
                () = line.stopping.cancelled() => {
                    self.announce(client, false).await?;
                    return client.disconnect().await;
                }
                Ok(()) = self.presence.changed() => self.announce(client, true).await?,
                Some(message) = self.waiting.recv() => publish(client, message).await?,
                Some(message) = self.others.recv() => publish(client, message).await?,
            }
        }
    }
}

async fn publish(client: &AsyncClient, message: Publication) -> Result<(), ClientError> {
    let Publication { topic, payload, retain } = message;
    client.publish(topic, QoS::AtLeastOnce, retain, payload).await
}

/// One connection; returns why it ended.
async fn connection(line: Arc<Line>, writer: Arc<Mutex<Writer>>) -> String {
    let mut writer = writer.lock().await;
    let topic = writer.topics.controller();
    let will = LastWill::new(topic, writer.presence(false), QoS::AtLeastOnce, true);
    let (client, mut eventloop) = line.client(Some(will));
    let connected = tokio::select! {
        () = line.stopping.cancelled() => return "the controller stops".to_owned(),
        connected = eventloop.poll() => connected,
    };
    match connected {
        Ok(Event::Incoming(Packet::ConnAck(_))) => {}
        Ok(other) => return format!("the broker began with {other:?}"),
        Err(error) => return explain(&error),
    }
    let why = {
        let fed = async {
            if let Err(error) = writer.feed(&line, &client).await {
                tracing::debug!(%error, "the client takes no messages any more");
            }
            // The connection ends, and says why.
            std::future::pending::<String>().await
        };
        tokio::select! {
            why = Box::pin(drive(eventloop)) => why,
            why = fed => why,
        }
    };
    writer.writes.store(false, Ordering::Relaxed);
    why
}

/// Polls the client until the connection ends.
async fn drive(mut eventloop: EventLoop) -> String {
    let mut unacked = 0_usize;
    let mut progress = Instant::now();
    loop {
        let event = if unacked > 0 {
            match tokio::time::timeout_at(progress + ACK_TIMEOUT, eventloop.poll()).await {
                Ok(event) => event,
                Err(_) => return "the broker acknowledges no message any more".to_owned(),
            }
        } else {
            eventloop.poll().await
        };
        match event {
            Ok(Event::Outgoing(Outgoing::Publish(_))) => {
                if unacked == 0 {
                    progress = Instant::now();
                }
                unacked += 1;
            }
            Ok(Event::Incoming(Packet::PubAck(_))) => {
                unacked = unacked.saturating_sub(1);
                progress = Instant::now();
            }
            Ok(Event::Outgoing(Outgoing::Disconnect)) => return "disconnected as planned".to_owned(),
            Ok(Event::Incoming(_) | Event::Outgoing(_)) => {}
            Err(error) => return explain(&error),
        }
    }
}
