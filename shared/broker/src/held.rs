//! The publishes of one client between their arrival and their acknowledgement, in order. What does not wait for a
//! tap leaves at once, unless something before it waits.

use crate::message::Message;
use crate::tap::TapResult;
use std::collections::VecDeque;
use std::sync::Arc;
use tokio::sync::oneshot::{self, error::TryRecvError};

/// A publish that arrived.
#[derive(Debug)]
pub(crate) struct Item {
    /// `None` for a QoS 2 duplicate that only lacks its PUBREC.
    pub message: Option<Arc<Message>>,
    /// 0 for QoS 0.
    pub packet_id: u16,
    /// The tap's answer; `None` when there is nothing to wait for.
    pub wait: Option<oneshot::Receiver<TapResult>>,
    /// False when the tap consumes the message.
    pub fan_out: bool,
}

impl Item {
    fn bytes(&self) -> usize {
        self.message.as_ref().map_or(0, |m| m.cost())
    }
}

/// The queue of them.
#[derive(Debug)]
pub(crate) struct Held {
    items: VecDeque<Item>,
    bytes: usize,
    max_items: usize,
    max_bytes: usize,
}

impl Held {
    pub fn new(max_items: usize, max_bytes: usize) -> Self {
        Self { items: VecDeque::new(), bytes: 0, max_items: max_items.max(1), max_bytes }
    }

    pub fn push(&mut self, item: Item) {
        self.bytes += item.bytes();
        self.items.push_back(item);
    }

    /// True when the client is not to be read. One message may pass the bound on bytes.
    pub fn is_full(&self) -> bool {
        self.items.len() >= self.max_items || (self.bytes >= self.max_bytes && !self.items.is_empty())
    }

    /// The oldest publish, if its tap has answered.
    pub fn try_next(&mut self) -> Option<(Item, TapResult)> {
        let result = match &mut self.items.front_mut()?.wait {
            None => TapResult::Taken,
            Some(wait) => match wait.try_recv() {
                Ok(result) => result,
                Err(TryRecvError::Closed) => TapResult::Refused,
                Err(TryRecvError::Empty) => return None,
            },
        };
        self.pop(result)
    }

    /// Waits for the tap of the oldest publish; `None` when there is none. Nothing is lost when the wait is given up.
    pub async fn next(&mut self) -> Option<(Item, TapResult)> {
        let result = match &mut self.items.front_mut()?.wait {
            None => TapResult::Taken,
            Some(wait) => wait.await.unwrap_or(TapResult::Refused),
        };
        self.pop(result)
    }

    /// The oldest publish, refused whatever its tap would say.
    pub fn give_up(&mut self) -> Option<Item> {
        self.pop(TapResult::Refused).map(|(item, _)| item)
    }

    fn pop(&mut self, result: TapResult) -> Option<(Item, TapResult)> {
        let item = self.items.pop_front()?;
        self.bytes -= item.bytes();
        Some((item, result))
    }
}
