//! Logs in at a broker, asks for subscriptions, and leaves: to see whether it would work. Nothing is published, and nothing
//! is left behind.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::BytesMut;
use rumqttc::mqttbytes::v4::{Disconnect, Packet};
use tidegate_model::rule::{Qos, Secret};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::{Instant, timeout_at};

use super::dial::{Dialled, Endpoint, dial};
use super::fault::LinkError;
use super::frame::{Frame, Frames};
use super::route::Way;
use super::subscriptions::Subscriptions;

/// Whom to visit, and as whom.
#[derive(Debug)]
pub(crate) struct Visit {
    /// Name or address of the broker.
    pub host: String,
    /// Its TCP port.
    pub port: u16,
    /// Client id. One that is connected already loses its connection.
    pub client_id: String,
    /// User name; `None`: an anonymous login.
    pub username: Option<String>,
    /// Its password.
    pub password: Option<Secret>,
    /// Topic filters to ask for.
    pub filters: Vec<String>,
}

/// What did not work, in words that hold no secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NotWelcome {
    /// The broker cannot be reached, or does not let us in.
    Login(String),
    /// It lets us in, and refuses a subscription or does not answer it.
    Subscriptions(String),
}

impl Visit {
    /// Visits, within `limit` from CONNECT to the last SUBACK.
    ///
    /// # Errors
    /// [`NotWelcome`]: how far it came, and why no further.
    pub(crate) async fn pay(self, limit: Duration) -> Result<(), NotWelcome> {
        let until = Instant::now() + limit;
        let endpoint = Endpoint {
            way: Way::plain(self.host, self.port),
            client_id: self.client_id,
            username: self.username,
            password: self.password,
            keep_alive: limit,
            clean_session: true,
            as_bridge: false,
        };
        let dialled = dial(&endpoint, limit).await.map_err(|error| NotWelcome::Login(error.to_string()))?;
        let filters = self.filters.into_iter().map(|filter| (filter, Qos::AtLeastOnce)).collect();
        let asked = timeout_at(until, subscribe(dialled, filters)).await;
        let silent = |_| LinkError::SubscribeSilent { after: limit };
        asked.map_err(silent).flatten().map_err(|error| NotWelcome::Subscriptions(error.to_string()))
    }
}

/// Asks for these, waits for the answer and says goodbye.
async fn subscribe(dialled: Dialled, filters: BTreeMap<String, Qos>) -> Result<(), LinkError> {
    let Dialled { mut stream, mut buf, .. } = dialled;
    let (mut wanted, mut frames, mut out) = (Subscriptions::default(), Frames::default(), BytesMut::new());
    wanted.want(filters);
    wanted.ask(&mut out, std::time::Instant::now())?;
    stream.write_all(&out).await?;
    stream.flush().await?;
    while !wanted.ready() {
        match frames.next(&mut buf)? {
            Some(Frame::Packet(Packet::SubAck(suback))) => wanted.answered(&suback)?,
            // What is retained there may come first; it is for the agent.
            Some(Frame::Packet(_) | Frame::Oversized(_)) => {}
            None => {
                if stream.read_buf(&mut buf).await? == 0 {
                    return Err(LinkError::Closed);
                }
            }
        }
    }
    out.clear();
    Disconnect.write(&mut out).map_err(|error| LinkError::malformed(&error))?;
    stream.write_all(&out).await?;
    stream.flush().await?;
    Ok(())
}
