//! The one module that spells the protocol's topics.

use crate::ids::{AccountId, EdgeId};

/// First levels of every topic of the protocol; rules may not touch anything below `tidegate/`.
const ROOT: &str = "tidegate/1";

/// The topics of one account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topics {
    account: AccountId,
}

/// What a topic of an edge is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EdgeTopic {
    /// Controller to edge.
    Down,
    /// Edge to controller.
    Up,
    /// Birth, bye and last will of the edge.
    Presence,
}

impl EdgeTopic {
    fn level(self) -> &'static str {
        match self {
            Self::Down => "down",
            Self::Up => "up",
            Self::Presence => "presence",
        }
    }
}

impl Topics {
    /// Topics of this account.
    #[must_use]
    pub fn new(account: AccountId) -> Self {
        Self { account }
    }

    /// The topic of one edge.
    #[must_use]
    pub fn edge(&self, edge: &EdgeId, topic: EdgeTopic) -> String {
        format!("{ROOT}/{}/{edge}/{}", self.account, topic.level())
    }

    /// Presence of the controller, with its epoch; retained.
    #[must_use]
    pub fn controller(&self) -> String {
        format!("{ROOT}/{}/controller", self.account)
    }

    /// The filter that matches every topic of the account, for an operator who looks on.
    #[must_use]
    pub fn all(&self) -> String {
        format!("{ROOT}/{}/#", self.account)
    }

    /// The filter that matches one topic kind of every edge, for a controller on a broker of its own.
    #[must_use]
    pub fn every_edge(&self, topic: EdgeTopic) -> String {
        format!("{ROOT}/{}/+/{}", self.account, topic.level())
    }

    /// Which edge and purpose a topic has; `None`: it is not an edge's topic of this account.
    #[must_use]
    pub fn parse(&self, topic: &str) -> Option<(EdgeId, EdgeTopic)> {
        let rest = topic.strip_prefix(ROOT)?.strip_prefix('/')?;
        let rest = rest.strip_prefix(self.account.as_str())?.strip_prefix('/')?;
        let (edge, level) = rest.split_once('/')?;
        let kind = match level {
            "down" => EdgeTopic::Down,
            "up" => EdgeTopic::Up,
            "presence" => EdgeTopic::Presence,
            _ => return None,
        };
        Some((EdgeId::new(edge).ok()?, kind))
    }

    /// The stable MQTT client id of an edge.
    #[must_use]
    pub fn client_id(&self, edge: &EdgeId) -> String {
        format!("tidegate.{}.{edge}", self.account)
    }

    /// The edge that this client id belongs to.
    #[must_use]
    pub fn edge_of_client_id(&self, client_id: &str) -> Option<EdgeId> {
        let rest = client_id.strip_prefix("tidegate.")?;
        let edge = rest.strip_prefix(self.account.as_str())?.strip_prefix('.')?;
        EdgeId::new(edge).ok()
    }

    /// What an edge may write: its own `up` and `presence`.
    #[must_use]
    pub fn edge_may_publish(&self, edge: &EdgeId) -> Vec<String> {
        vec![self.edge(edge, EdgeTopic::Up), self.edge(edge, EdgeTopic::Presence)]
    }

    /// What an edge may read: its own `down` and `presence`, and the controller's presence.
    #[must_use]
    pub fn edge_may_subscribe(&self, edge: &EdgeId) -> Vec<String> {
        vec![self.edge(edge, EdgeTopic::Down), self.edge(edge, EdgeTopic::Presence), self.controller()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_spelt_is_read_back() {
        let topics = Topics::new(AccountId::default_account());
        let edge = EdgeId::new("gw-7").unwrap();
        for kind in [EdgeTopic::Down, EdgeTopic::Up, EdgeTopic::Presence] {
            assert_eq!(topics.parse(&topics.edge(&edge, kind)), Some((edge.clone(), kind)));
        }
        assert_eq!(topics.edge(&edge, EdgeTopic::Down), "tidegate/1/default/gw-7/down");
        assert_eq!(topics.edge_of_client_id(&topics.client_id(&edge)), Some(edge));
        for strange in
            ["tidegate/1/default/controller", "tidegate/1/other/gw-7/up", "tidegate/1/default/gw-7/up/x", ""]
        {
            assert_eq!(topics.parse(strange), None, "{strange}");
        }
    }
}
