//! Commands of other systems, on their way from the broker to who carries them out; and states that are retained there.

use rumqttc::{Publish, QoS, SubscribeFilter};
use tidegate_broker::TapResult;
use tidegate_model::wire::Topics;
use tokio::sync::{mpsc, oneshot};

use super::reader::Inbox;
use crate::systems::{FromSystem, Intake, Stray};

/// Hands on commands, and the topics of states that are found.
pub(super) struct Commands {
    pub(super) topics: Topics,
    pub(super) commands: Intake,
    pub(super) strays: mpsc::Sender<Stray>,
}

impl Inbox for Commands {
    fn filters(&self) -> Vec<SubscribeFilter> {
        // Of states only those that were retained before matter; what is published now comes back, and is dropped.
        vec![
            SubscribeFilter::new(self.topics.command(), QoS::AtLeastOnce),
            SubscribeFilter::new(self.topics.every_state(), QoS::AtMostOnce),
        ]
    }

    async fn take(&self, publish: Publish) -> Option<oneshot::Receiver<TapResult>> {
        if publish.topic != self.topics.command() {
            if publish.retain {
                // Its end is the end of the controller.
                let _ = self.strays.send(publish.topic).await;
            }
            return None;
        }
        let (taken, then) = oneshot::channel();
        let command = FromSystem::new(&publish.payload, publish.retain, taken);
        // If the controller ends, `taken` is dropped, and the command is not acknowledged.
        let _ = self.commands.send(command).await;
        Some(then)
    }
}
