//! The local broker: who may connect to it, and how bridges publish on it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Weak};

use sha2::{Digest as _, Sha256};
use tidegate_broker::{
    AllowAll, Broker, BrokerConfig, ConnectRequest, Decision, Event, Gate, Limits, Message, PublishError,
    Qos, Refusal, Rights, StartError, Watcher,
};
use tokio::sync::watch;

use crate::bridge::{LocalMessage, LocalSink, SinkError, SinkFuture};
use crate::intake::Intake;
use crate::settings::LocalAccess;

/// Largest packet of a device, in bytes; a bridge takes as much.
const MAX_PACKET_BYTES: usize = 1 << 20;
/// Bytes of one device's publishes that wait for a queue: well below what a queue lets wait, so that one device alone is
/// slowed down and not refused.
const MAX_UNACKED_BYTES: usize = 1 << 20;

/// Opens the local broker; the intake stands already.
pub(crate) async fn start(
    listen: SocketAddr,
    access: &LocalAccess,
    state_dir: &Path,
    intake: Arc<Intake>,
) -> Result<Broker, StartError> {
    let limits = Limits {
        max_packet_bytes: MAX_PACKET_BYTES,
        max_unacked_tap_bytes_per_client: MAX_UNACKED_BYTES,
        ..Limits::default()
    };
    let config = BrokerConfig { listen, limits, state_dir: Some(state_dir.to_owned()) };
    let gate: Arc<dyn Gate> = match access {
        LocalAccess::Anonymous => Arc::new(AllowAll),
        LocalAccess::Users(users) => {
            Arc::new(Users::new(users.iter().map(|(u, p)| (u.as_str(), p.reveal()))))
        }
    };
    Broker::start(config, gate, intake, Arc::new(Watch)).await
}

/// Names and digests of passwords.
struct Users(BTreeMap<String, [u8; 32]>);

impl Users {
    fn new<'a>(users: impl Iterator<Item = (&'a str, &'a str)>) -> Self {
        Self(users.map(|(user, password)| (user.to_owned(), Sha256::digest(password).into())).collect())
    }

    fn admits(&self, connect: &ConnectRequest) -> bool {
        let (Some(user), Some(password)) = (&connect.username, &connect.password) else { return false };
        // Digests of equal length are compared whole, so that the time tells nothing of the password.
        let given: [u8; 32] = Sha256::digest(password.expose()).into();
        let stored = self.0.get(user).copied().unwrap_or_default();
        given.iter().zip(stored).fold(0, |differs, (a, b)| differs | (a ^ b)) == 0
    }
}

impl Gate for Users {
    fn authenticate<'a>(&'a self, connect: &'a ConnectRequest) -> Decision<'a> {
        let decision = match &connect.username {
            Some(_) if self.admits(connect) => Ok(Rights::all()),
            Some(_) => Err(Refusal::BadCredentials),
            // Who names no user is told that one is needed, not that a password is wrong.
            None => Err(Refusal::NotAuthorized),
        };
        Box::pin(std::future::ready(decision))
    }
}

/// Writes down who comes and goes.
struct Watch;

impl Watcher for Watch {
    fn event(&self, event: &Event) {
        match event {
            Event::Connected { client_id, peer, .. } => {
                tracing::debug!(client.id = %client_id, %peer, "a device connected")
            }
            Event::Disconnected { client_id, reason, .. } => {
                tracing::debug!(client.id = %client_id, %reason, "a device disconnected");
            }
            Event::Subscribed { .. } => {}
            Event::Unhealthy { why } => tracing::error!(%why, "the local broker does not answer any more"),
        }
    }
}

/// The broker, once it is open. Bridges may be there before.
#[derive(Debug, Clone, Default)]
pub(crate) struct BrokerSlot(Arc<watch::Sender<Option<Weak<Broker>>>>);

impl BrokerSlot {
    /// The broker is open.
    pub fn fill(&self, broker: &Arc<Broker>) {
        self.0.send_replace(Some(Arc::downgrade(broker)));
    }

    /// The broker, once it is open; `None` when it is closed again.
    async fn open(&self) -> Option<Arc<Broker>> {
        let mut filled = self.0.subscribe();
        let broker = filled.wait_for(Option::is_some).await.ok()?;
        broker.as_ref()?.upgrade()
    }
}

/// Where one rule's messages of the remote broker go.
pub(crate) struct RuleSink {
    pub broker: BrokerSlot,
    /// What the rule publishes here, its own forwards leave out.
    pub origin: u64,
}

impl LocalSink for RuleSink {
    fn publish(&self, message: LocalMessage) -> SinkFuture<'_> {
        Box::pin(async move {
            let away = |reason: &str| SinkError::Unavailable(reason.to_owned());
            // Bridges begin before the local broker at boot: that is no fault.
            let broker = self.broker.open().await.ok_or_else(|| away("it is closed"))?;
            let qos = if message.qos == 0 { Qos::AtMostOnce } else { Qos::AtLeastOnce };
            let mut local = Message::new(message.topic, message.payload, qos);
            local.retain = message.retain;
            match broker.publish(local, self.origin).await {
                Ok(_) => Ok(()),
                Err(error @ (PublishError::Topic { .. } | PublishError::TooLarge { .. })) => {
                    Err(SinkError::Refused(error.to_string()))
                }
                Err(PublishError::Refused) => Err(away("another rule could not take it")),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_broker::Password;

    #[test]
    fn only_a_known_user_with_its_password_is_admitted() {
        let users = Users::new([("a", "secret"), ("b", "")].into_iter());
        let connect = |user: Option<&str>, password: Option<&str>| ConnectRequest {
            client_id: "c".into(),
            username: user.map(Into::into),
            password: password.map(|p| Password::new(p.as_bytes())),
            peer: "127.0.0.1:1".parse().unwrap(),
            clean_session: true,
        };
        assert!(users.admits(&connect(Some("a"), Some("secret"))));
        for (user, password) in [
            (Some("a"), Some("Secret")),
            (Some("a"), None),
            (Some("c"), Some("secret")),
            (Some("c"), Some("")),
            (None, None),
            (Some("b"), Some("x")),
        ] {
            assert!(!users.admits(&connect(user, password)), "{user:?} {password:?}");
        }
    }
}
