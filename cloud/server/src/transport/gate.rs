//! Who may connect to the controller's broker: edges with their credentials, the administrator to look, and other systems to
//! give commands.

use tidegate_broker::{ConnectRequest, Decision, Gate, Permit, Refusal, Rights};
use tidegate_model::ids::EdgeId;
use tidegate_model::wire::Topics;

use super::door::Admission;
use crate::auth::RefusedWhy;
use crate::run::CoreLink;

/// User name with which the administrator's token opens the broker, read only.
const ADMIN_USER: &str = "admin";
/// User name with which the same token lets another system give commands (docs/integrations.md).
const API_USER: &str = "api";

/// Lets in edges, each to its own topics, the administrator, to read, and other systems, to give commands.
pub(super) struct EdgeGate {
    pub(super) topics: Topics,
    pub(super) core: CoreLink,
    pub(super) admission: Admission,
}

impl Gate for EdgeGate {
    fn authenticate<'a>(&'a self, connect: &'a ConnectRequest) -> Decision<'a> {
        Box::pin(async move {
            let decided = self.decide(connect).await;
            decided.map_err(|refused| self.told(connect, refused))
        })
    }
}

/// Why a client is not let in: what it is told, and what operators are.
struct Refused {
    answer: Refusal,
    why: Option<RefusedWhy>,
}

impl Refused {
    fn because(answer: Refusal, why: RefusedWhy) -> Self {
        Self { answer, why: Some(why) }
    }
}

impl EdgeGate {
    /// Tells operators of a refusal that is not ours to mend.
    fn told(&self, connect: &ConnectRequest, refused: Refused) -> Refusal {
        if let Some(why) = refused.why {
            let name = connect.username.as_deref().unwrap_or_default();
            self.admission.refused.note(self.admission.clock.now(), name, why, connect.peer.ip());
        }
        refused.answer
    }

    async fn decide(&self, connect: &ConnectRequest) -> Result<Rights, Refused> {
        let two_names = Refused::because(Refusal::IdentifierRejected, RefusedWhy::TwoNames);
        let (Some(user), Some(password)) = (&connect.username, &connect.password) else {
            return Err(Refused::because(Refusal::NotAuthorized, RefusedWhy::NoCredential));
        };
        // Who has the id of an edge must be that edge: a client id takes over the connection of the same id.
        match self.topics.edge_of_client_id(&connect.client_id) {
            Some(edge) if edge.as_str() == user => self.edge(&edge, password.expose()).await,
            Some(_) => Err(two_names),
            None if user == ADMIN_USER && self.admission.admin.accepts(password.expose()) => Ok(Rights {
                publish: Permit::Filters(Vec::new()),
                subscribe: Permit::Filters(vec![self.topics.all()]),
            }),
            None if user == API_USER && self.admission.admin.accepts(password.expose()) => {
                if Topics::is_reserved_client_id(&connect.client_id) {
                    return Err(two_names);
                }
                Ok(Rights {
                    publish: Permit::Filters(self.topics.api_may_publish()),
                    subscribe: Permit::Filters(self.topics.api_may_subscribe()),
                })
            }
            None if EdgeId::new(user.as_str()).is_ok() && user != ADMIN_USER && user != API_USER => {
                Err(two_names)
            }
            None => Err(Refused::because(Refusal::BadCredentials, RefusedWhy::WrongToken)),
        }
    }

    async fn edge(&self, edge: &EdgeId, presented: &[u8]) -> Result<Rights, Refused> {
        let looked_up = edge.clone();
        let stored = self.core.read(move |core, _| core.credential(&looked_up).map(str::to_owned)).await;
        let stored = stored.map_err(|_| Refused { answer: Refusal::ServerUnavailable, why: None })?;
        let Some(stored) = stored else {
            return Err(Refused::because(Refusal::BadCredentials, RefusedWhy::UnknownEdge));
        };
        if !self.admission.credentials.verify(edge, presented, &stored).await {
            return Err(Refused::because(Refusal::BadCredentials, RefusedWhy::WrongCredential));
        }
        self.admission.refused.let_in(edge);
        Ok(Rights {
            publish: Permit::Filters(self.topics.edge_may_publish(edge)),
            subscribe: Permit::Filters(self.topics.edge_may_subscribe(edge)),
        })
    }
}
