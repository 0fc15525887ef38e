//! The one module that spells the protocol's topics.

use crate::ids::{AccountId, EdgeId, RuleName};

/// First levels of every topic of the protocol; rules may not touch anything below `tidegate/`.
const ROOT: &str = "tidegate/1";
/// Beginning of the client ids of edges and controllers.
const CLIENT_IDS: &str = "tidegate.";

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

    /// Where other systems tell the controller what to do.
    #[must_use]
    pub fn command(&self) -> String {
        format!("{}/command", self.controller())
    }

    /// Where the controller answers them.
    #[must_use]
    pub fn ack(&self) -> String {
        format!("{}/ack", self.controller())
    }

    /// The state of one placement, for dashboards; retained.
    #[must_use]
    pub fn state(&self, rule: &RuleName, edge: &EdgeId) -> String {
        format!("{ROOT}/{}/state/{edge}/{rule}", self.account)
    }

    /// The filter that matches the state of every placement.
    #[must_use]
    pub fn every_state(&self) -> String {
        format!("{ROOT}/{}/state/#", self.account)
    }

    /// Which placement a state topic is about; `None`: it is no state topic of this account.
    #[must_use]
    pub fn parse_state(&self, topic: &str) -> Option<(RuleName, EdgeId)> {
        let rest = self.strip_account(topic)?.strip_prefix("state/")?;
        let (edge, rule) = rest.split_once('/')?;
        Some((RuleName::new(rule).ok()?, EdgeId::new(edge).ok()?))
    }

    fn strip_account<'a>(&self, topic: &'a str) -> Option<&'a str> {
        let rest = topic.strip_prefix(ROOT)?.strip_prefix('/')?;
        rest.strip_prefix(self.account.as_str())?.strip_prefix('/')
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
        let (edge, level) = self.strip_account(topic)?.split_once('/')?;
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
        format!("{CLIENT_IDS}{}.{edge}", self.account)
    }

    /// A client id of a controller on a broker of somebody else. `part` tells its connections apart; the epoch keeps two
    /// controllers from throwing each other out.
    #[must_use]
    pub fn controller_client_id(&self, part: &str, epoch: u64) -> String {
        format!("{CLIENT_IDS}{}.controller.{part}.{epoch}", self.account)
    }

    /// Whether a client id is one that only edges and controllers may use.
    #[must_use]
    pub fn is_reserved_client_id(client_id: &str) -> bool {
        client_id.starts_with(CLIENT_IDS)
    }

    /// The edge that this client id belongs to.
    #[must_use]
    pub fn edge_of_client_id(&self, client_id: &str) -> Option<EdgeId> {
        let rest = client_id.strip_prefix(CLIENT_IDS)?;
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

    /// What another system may write that drives the controller over MQTT: commands.
    #[must_use]
    pub fn api_may_publish(&self) -> Vec<String> {
        vec![self.command()]
    }

    /// What it may read: answers, whether the controller is there, and the states.
    #[must_use]
    pub fn api_may_subscribe(&self) -> Vec<String> {
        vec![self.ack(), self.controller(), self.every_state()]
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

    #[test]
    fn a_state_topic_is_read_back_and_is_no_topic_of_an_edge() {
        let topics = Topics::new(AccountId::default_account());
        let (rule, edge) = (RuleName::new("camera-up").unwrap(), EdgeId::new("up").unwrap());
        let state = topics.state(&rule, &edge);
        assert_eq!(state, "tidegate/1/default/state/up/camera-up");
        assert_eq!(topics.parse_state(&state), Some((rule, edge)));
        assert_eq!(topics.parse(&state), None);
        for strange in ["tidegate/1/default/state/gw-7", "tidegate/1/default/state/gw-7/a/b", "state/a/b"] {
            assert_eq!(topics.parse_state(strange), None, "{strange}");
        }
        assert!(topics.api_may_publish() == ["tidegate/1/default/controller/command"]);
        assert_eq!(topics.parse(&topics.command()), None);
    }

    #[test]
    fn client_ids_of_controllers_are_reserved_and_no_edges() {
        let topics = Topics::new(AccountId::default_account());
        let id = topics.controller_client_id("reader", 17);
        assert_eq!(topics.edge_of_client_id(&id), None);
        assert!(Topics::is_reserved_client_id(&id) && !Topics::is_reserved_client_id("node-red"));
    }
}
