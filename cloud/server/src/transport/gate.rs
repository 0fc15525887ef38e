//! Who may connect to the controller's broker: edges with their credentials, the administrator to look, and other systems to
//! give commands.

use std::sync::Arc;

use tidegate_broker::{ConnectRequest, Decision, Gate, Permit, Refusal, Rights};
use tidegate_model::ids::EdgeId;
use tidegate_model::wire::Topics;

use crate::auth::{AdminAuth, Credentials};
use crate::run::CoreLink;

/// User name with which the administrator's token opens the broker, read only.
const ADMIN_USER: &str = "admin";
/// User name with which the same token lets another system give commands (docs/integrations.md).
const API_USER: &str = "api";

/// Lets in edges, each to its own topics, the administrator, to read, and other systems, to give commands.
pub(super) struct EdgeGate {
    pub(super) topics: Topics,
    pub(super) core: CoreLink,
    pub(super) credentials: Arc<Credentials>,
    pub(super) admin: AdminAuth,
}

impl Gate for EdgeGate {
    fn authenticate<'a>(&'a self, connect: &'a ConnectRequest) -> Decision<'a> {
        Box::pin(self.decide(connect))
    }
}

impl EdgeGate {
    async fn decide(&self, connect: &ConnectRequest) -> Result<Rights, Refusal> {
        let (Some(user), Some(password)) = (&connect.username, &connect.password) else {
            return Err(Refusal::NotAuthorized);
        };
        // Who has the id of an edge must be that edge: a client id takes over the connection of the same id.
        match self.topics.edge_of_client_id(&connect.client_id) {
            Some(edge) if edge.as_str() == user => self.edge(&edge, password.expose()).await,
            Some(_) => Err(Refusal::IdentifierRejected),
            None if user == ADMIN_USER && self.admin.accepts(password.expose()) => Ok(Rights {
                publish: Permit::Filters(Vec::new()),
                subscribe: Permit::Filters(vec![self.topics.all()]),
            }),
            None if user == API_USER && self.admin.accepts(password.expose()) => {
                if Topics::is_reserved_client_id(&connect.client_id) {
                    return Err(Refusal::IdentifierRejected);
                }
                Ok(Rights {
                    publish: Permit::Filters(self.topics.api_may_publish()),
                    subscribe: Permit::Filters(self.topics.api_may_subscribe()),
                })
            }
            None if EdgeId::new(user.as_str()).is_ok() && user != ADMIN_USER && user != API_USER => {
                Err(Refusal::IdentifierRejected)
            }
            None => Err(Refusal::BadCredentials),
        }
    }

    async fn edge(&self, edge: &EdgeId, presented: &[u8]) -> Result<Rights, Refusal> {
        let looked_up = edge.clone();
        let stored = self.core.read(move |core, _| core.credential(&looked_up).map(str::to_owned)).await;
        let Some(stored) = stored.map_err(|_| Refusal::ServerUnavailable)? else {
            return Err(Refusal::BadCredentials);
        };
        if !self.credentials.verify(edge, presented, &stored).await {
            tracing::warn!(line.kind = "wrong-credential", edge.id = %edge, "a connection with a wrong credential was refused");
            return Err(Refusal::BadCredentials);
        }
        Ok(Rights {
            publish: Permit::Filters(self.topics.edge_may_publish(edge)),
            subscribe: Permit::Filters(self.topics.edge_may_subscribe(edge)),
        })
    }
}
