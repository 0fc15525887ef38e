//! What is subscribed at a broker on this connection, and what should be. Does no IO.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use bytes::BytesMut;
use rumqttc::mqttbytes::{
    QoS,
    v4::{SubAck, Subscribe, SubscribeFilter, SubscribeReasonCode, Unsubscribe},
};
use tidegate_edge_core::window::LAST_ID;
use tidegate_model::rule::{Qos, Route};

use super::fault::LinkError;

/// Packet ids of SUBSCRIBE and UNSUBSCRIBE, above those of the send window.
const SUBSCRIBE_ID: u16 = LAST_ID + 1;
const UNSUBSCRIBE_ID: u16 = LAST_ID + 2;

/// What these routes subscribe. Of two with the same filter the higher QoS counts.
pub(super) fn filters_of(routes: &[Route]) -> BTreeMap<String, Qos> {
    let mut filters = BTreeMap::new();
    for route in routes {
        let qos = filters.entry(route.filter.as_str().to_owned()).or_insert(route.qos);
        *qos = (*qos).max(route.qos);
    }
    filters
}

/// The subscriptions of one connection: those of one version of a rule, or of two while one of them is tried; each has at most
/// [`tidegate_model::limits::MAX_ROUTES_PER_RULE`].
#[derive(Debug, Default)]
pub(super) struct Subscriptions {
    wanted: BTreeMap<String, Qos>,
    granted: BTreeMap<String, Qos>,
    asked: Option<(Vec<(String, Qos)>, Instant)>,
}

impl Subscriptions {
    /// From now on these are wanted.
    pub fn want(&mut self, filters: BTreeMap<String, Qos>) {
        self.wanted = filters;
    }

    /// Writes what must be asked next, if nothing is being asked.
    pub fn ask(&mut self, out: &mut BytesMut, now: Instant) -> Result<(), LinkError> {
        if self.asked.is_some() || self.wanted == self.granted {
            return Ok(());
        }
        let gone: Vec<String> =
            self.granted.keys().filter(|filter| !self.wanted.contains_key(*filter)).cloned().collect();
        if !gone.is_empty() {
            self.granted.retain(|filter, _| self.wanted.contains_key(filter));
            let packet = Unsubscribe { pkid: UNSUBSCRIBE_ID, topics: gone };
            packet.write(out).map_err(|error| LinkError::malformed(&error))?;
        }
        let new: Vec<(String, Qos)> = self
            .wanted
            .iter()
            .filter(|(filter, qos)| self.granted.get(*filter) != Some(qos))
            .map(|(filter, qos)| (filter.clone(), *qos))
            .collect();
        if !new.is_empty() {
            let filters = new
                .iter()
                .map(|(filter, qos)| SubscribeFilter::new(filter.clone(), wire_qos(*qos)))
                .collect();
            let packet = Subscribe { pkid: SUBSCRIBE_ID, filters };
            packet.write(out).map_err(|error| LinkError::malformed(&error))?;
            self.asked = Some((new, now));
        }
        Ok(())
    }

    /// The broker answered. An answer to nothing is ignored.
    pub fn answered(&mut self, suback: &SubAck) -> Result<(), LinkError> {
        let Some((asked, _)) = self.asked.take() else { return Ok(()) };
        if suback.pkid != SUBSCRIBE_ID || suback.return_codes.len() != asked.len() {
            return Err(LinkError::Malformed("a SUBACK that does not fit the SUBSCRIBE".to_owned()));
        }
        let refused: Vec<String> = asked
            .iter()
            .zip(&suback.return_codes)
            .filter(|(_, code)| matches!(code, SubscribeReasonCode::Failure))
            .map(|((filter, _), _)| format!("'{filter}'"))
            .collect();
        if !refused.is_empty() {
            return Err(LinkError::SubscribeRefused { filters: refused.join(", ") });
        }
        self.granted.extend(asked);
        Ok(())
    }

    /// Everything wanted is granted.
    pub fn ready(&self) -> bool {
        self.wanted == self.granted
    }

    /// When the answer is overdue.
    pub fn due(&self, limit: Duration) -> Option<Instant> {
        self.asked.as_ref().map(|(_, at)| *at + limit)
    }
}

fn wire_qos(qos: Qos) -> QoS {
    match qos {
        Qos::AtMostOnce => QoS::AtMostOnce,
        Qos::AtLeastOnce => QoS::AtLeastOnce,
    }
}
