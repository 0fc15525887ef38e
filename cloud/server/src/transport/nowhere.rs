//! A transport for tests: nobody is connected, and what was asked of it is kept.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use tidegate_model::ids::EdgeId;
use tidegate_model::wire::ControllerPresence;

use super::Transport;

/// Keeps what was asked of it.
#[derive(Clone, Default)]
pub(crate) struct Nowhere {
    pub(crate) sent: Arc<Mutex<Vec<EdgeId>>>,
    pub(crate) disconnected: Arc<Mutex<Vec<EdgeId>>>,
}

impl Transport for Nowhere {
    fn send(&self, edge: &EdgeId, _payload: Vec<u8>) {
        self.sent.lock().unwrap().push(edge.clone());
    }

    fn announce<'a>(
        &'a self,
        _presence: &'a ControllerPresence,
    ) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>> {
        Box::pin(std::future::ready(()))
    }

    fn disconnect(&self, edge: &EdgeId) {
        self.disconnected.lock().unwrap().push(edge.clone());
    }

    fn stop(self: Box<Self>) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(std::future::ready(()))
    }
}
