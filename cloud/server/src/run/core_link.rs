//! The way into the loop: two bounded channels, one for what edges say and one for what people want.

use tidegate_broker::TapResult;
use tidegate_cloud_core::{Actor, Controller, How, Rejection, Reply, Request};
use tidegate_model::ids::EdgeId;
use tidegate_model::placement::Role;
use tidegate_model::time::Now;
use tidegate_model::wire::ControllerPresence;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};

/// Requests and reads that wait for the loop at the most; callers beyond it wait.
const MAX_WAITING_CALLS: usize = 1_024;
/// Messages of edges that wait for the loop at the most; those beyond it are refused, and sent again by their edge.
pub(crate) const MAX_WAITING_MESSAGES: usize = 8_192;

/// The loop ended: the process is going down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the controller is stopping")]
pub(crate) struct Stopped;

/// How a request ended.
pub(crate) type Answer = Result<Box<Reply>, Box<Rejection>>;
type Look = Box<dyn FnOnce(&Controller, Now) + Send>;

/// Something for the loop.
pub(crate) enum Call {
    /// A change.
    Request { by: Actor, role: Role, request: Box<Request>, how: How, answer: oneshot::Sender<Answer> },
    /// The presence of a controller was seen on the broker.
    OtherController(ControllerPresence),
    /// A look; done when everything before it is durable.
    Read(Look),
}

/// A message of an edge.
pub(crate) struct FromEdge {
    pub(crate) edge: EdgeId,
    pub(crate) presence: bool,
    pub(crate) payload: Vec<u8>,
    /// Told once what the message changed is durable.
    pub(crate) taken: oneshot::Sender<TapResult>,
    /// Its share of the bytes that may wait.
    pub(crate) _bytes: OwnedSemaphorePermit,
}

/// A sender into the loop.
#[derive(Clone)]
pub(crate) struct CoreLink {
    calls: mpsc::Sender<Call>,
    messages: mpsc::Sender<FromEdge>,
}

/// The loop's end of the channels.
pub(crate) struct Inbox {
    pub(crate) calls: mpsc::Receiver<Call>,
    pub(crate) messages: mpsc::Receiver<FromEdge>,
}

pub(crate) fn channel() -> (CoreLink, Inbox) {
    let (calls, calls_out) = mpsc::channel(MAX_WAITING_CALLS);
    let (messages, messages_out) = mpsc::channel(MAX_WAITING_MESSAGES);
    (CoreLink { calls, messages }, Inbox { calls: calls_out, messages: messages_out })
}

impl CoreLink {
    /// Asks for a change, in this way; returns when it is durable, or refused.
    pub(crate) async fn request(
        &self,
        by: Actor,
        role: Role,
        request: Request,
        how: How,
    ) -> Result<Answer, Stopped> {
        let (answer, answered) = oneshot::channel();
        let call = Call::Request { by, role, request: Box::new(request), how, answer };
        self.calls.send(call).await.map_err(|_| Stopped)?;
        answered.await.map_err(|_| Stopped)
    }

    /// How many calls and how many messages wait for the loop.
    pub(crate) fn waiting(&self) -> (usize, usize) {
        (MAX_WAITING_CALLS - self.calls.capacity(), MAX_WAITING_MESSAGES - self.messages.capacity())
    }

    /// Looks at the controller's state.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Controller, Now) -> T + Send + 'static,
    ) -> Result<T, Stopped> {
        let (seen, result) = oneshot::channel();
        // A caller that went away has no use for what was seen.
        let look: Look = Box::new(move |controller, now| drop(seen.send(look(controller, now))));
        self.calls.send(Call::Read(look)).await.map_err(|_| Stopped)?;
        result.await.map_err(|_| Stopped)
    }

    /// Tells of a presence on the controller's topic.
    pub(crate) async fn other_controller(&self, presence: ControllerPresence) -> Result<(), Stopped> {
        self.calls.send(Call::OtherController(presence)).await.map_err(|_| Stopped)
    }

    /// Hands over a message of an edge; waits while too many wait.
    pub(crate) async fn hand_over(&self, message: FromEdge) -> Result<(), Stopped> {
        self.messages.send(message).await.map_err(|_| Stopped)
    }

    /// Hands over a message of an edge without waiting; gives it back when too many wait.
    pub(crate) fn offer(&self, message: FromEdge) -> Result<(), FromEdge> {
        self.messages.try_send(message).map_err(|error| match error {
            mpsc::error::TrySendError::Full(message) | mpsc::error::TrySendError::Closed(message) => message,
        })
    }
}
