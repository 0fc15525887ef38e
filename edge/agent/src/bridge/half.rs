//! The two halves of a rule: the connection to the remote broker, and, where the local broker is not our own, the one to
//! it. Both are run by the same loop (`run.rs`) over the same kind of connection (`link.rs`); this is where they differ.

use std::{collections::BTreeMap, future::Future, pin::Pin, time::Instant};

use bytes::BytesMut;
use rumqttc::mqttbytes::v4::Publish;
use tidegate_model::rule::{DrainSpec, Qos};

use super::{
    dial::{Dialled, Endpoint},
    fault::LinkError,
};

/// What other wishes mean for a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// Nothing.
    None,
    /// Other filters are wanted.
    Filters,
    /// Another connection is needed.
    Connection,
}

/// One half of a rule.
pub(super) trait Half {
    /// Takes over the newest wishes while there is no connection.
    fn renew(&mut self);
    /// Ends when there are other wishes than those taken over.
    fn renewed(&self) -> Pin<Box<dyn Future<Output = ()> + Send>>;
    /// What has to be done before a connection is made.
    async fn prepare(&self) -> Result<(), LinkError>;
    /// Where to connect, as whom.
    fn endpoint(&self) -> Endpoint;
    /// A connection was made: nothing of an earlier one concerns it.
    fn connected(&mut self, dialled: &Dialled);
    /// The filters to subscribe, each with its QoS.
    fn filters(&self) -> BTreeMap<String, Qos>;
    /// How fast messages are sent on this connection at the most.
    fn limit(&self) -> Option<DrainSpec>;
    /// Everything that is wanted is subscribed.
    async fn ready(&mut self);
    /// An attempt failed, or a connection ended. Whether to try again at once, at another address.
    fn another(&mut self, error: &LinkError) -> bool;
    /// There is no connection, or none any more.
    async fn failed(&mut self, error: &LinkError);

    /// Nothing more may be read now: what was read has no room.
    fn blocked(&self) -> bool;
    /// Takes a message. Call only while not blocked.
    fn take(&mut self, publish: Publish) -> Result<(), LinkError>;
    /// Passes over a message that is too large to take, in its turn.
    fn pass_over(&mut self, id: Option<u16>);
    /// Writes the acknowledgements that are due, in the order of arrival.
    fn acknowledge(&mut self, out: &mut BytesMut) -> Result<(), LinkError>;
    /// When something of its own is overdue; an error when it is.
    fn due(&mut self, now: Instant) -> Result<Option<Instant>, LinkError>;
    /// Waits for what concerns this half beside its connection: records that became durable, room, other wishes.
    async fn wait(&mut self) -> Result<Change, LinkError>;
}
