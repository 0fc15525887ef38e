//! The half towards the remote broker: what the rule subscribes there goes to the incoming queue. It says how the rule
//! fares, for both halves: first the remote broker's word, then the local one's.

use std::{collections::BTreeMap, future::Future, pin::Pin, sync::Arc, time::Instant};

use bytes::BytesMut;
use rumqttc::mqttbytes::v4::Publish;
use tidegate_edge_core::{BridgeEvent, Order};
use tidegate_edge_queue::Queue;
use tidegate_model::{
    code::FaultCode,
    ids::RuleId,
    rule::{DrainSpec, EdgeRule, Qos},
    wire::Fault,
};
use tokio::{
    sync::{mpsc, watch},
    time::Duration,
};
use tokio_util::sync::CancellationToken;

use super::{
    Notice, Task, Timing,
    addresses::Addresses,
    counters::Tally,
    dial::{Dialled, Endpoint},
    fault::{LinkError, fault},
    half::{Change, Half},
    incoming::Incoming,
    queue_config,
    route::Way,
    subscriptions::filters_of,
    tls::TlsSetup,
};

/// How the local side fares, as the other half of "running".
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LocalState {
    /// Not known yet.
    NotYet,
    /// Everything is subscribed that this order, and all before it, ask for.
    Up(Order),
    /// It does not work.
    Trouble(Fault),
}

/// The half towards the remote broker.
pub(super) struct Remote {
    pub tasks: watch::Receiver<Task>,
    pub task: Task,
    pub reporter: Reporter,
    pub local: watch::Receiver<LocalState>,
    pub incoming: Incoming,
    pub addresses: Addresses,
    pub timing: Timing,
    pub tally: Arc<Tally>,
}

impl Half for Remote {
    fn renew(&mut self) {
        let new = self.tasks.borrow_and_update().clone();
        if new.rule.remote != self.task.rule.remote || new.secrets != self.task.secrets {
            self.addresses = Addresses::default();
        }
        self.task = new;
        self.reporter.tasked(&self.task);
    }

    fn renewed(&self) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let mut tasks = self.tasks.clone();
        Box::pin(async move {
            if tasks.changed().await.is_err() {
                // The bridge is being dropped, which cancels everything.
                std::future::pending::<()>().await;
            }
        })
    }

    async fn prepare(&self) -> Result<(), LinkError> {
        Ok(())
    }

    fn endpoint(&self) -> Endpoint {
        let remote = &self.task.rule.remote;
        Endpoint {
            way: self.way(self.addresses.at()),
            client_id: remote.client_id.clone(),
            username: remote.username.clone(),
            password: self.task.secrets.password.clone(),
            keep_alive: Duration::from_secs(remote.keep_alive.0),
            clean_session: remote.clean_session,
            as_bridge: false,
        }
    }

    fn connected(&mut self, _dialled: &Dialled) {
        Tally::add(&self.tally.connections, 1);
        self.incoming.connected();
        self.addresses.connected(self.way(0), self.timing.look_for_first, self.timing.connect);
        if self.addresses.at() > 0 {
            tracing::info!(
                line.kind = "remote-broker", rule.id = %self.reporter.rule, rule.name = %self.task.rule.name,
                address = %self.way(self.addresses.at()).address, "connected to another address of the remote broker"
            );
        }
    }

    fn filters(&self) -> BTreeMap<String, Qos> {
        filters_of(&self.task.rule.subscriptions)
    }

    fn limit(&self) -> Option<DrainSpec> {
        self.task.rule.queue.drain
    }

    async fn ready(&mut self) {
        let local = self.local.borrow_and_update().clone();
        let event = match local {
            LocalState::Trouble(fault) => BridgeEvent::Faulted(fault),
            LocalState::Up(_) | LocalState::NotYet if self.reporter.disk_faulted() => {
                BridgeEvent::Faulted(disk_fault(""))
            }
            LocalState::Up(order) if order >= self.reporter.order => BridgeEvent::Running,
            LocalState::Up(_) | LocalState::NotYet => return,
        };
        self.reporter.say(event).await;
    }

    fn another(&mut self, error: &LinkError) -> bool {
        let count = self.task.rule.remote.addresses().count();
        let address = &self.way(self.addresses.at()).address;
        tracing::debug!(rule.id = %self.reporter.rule, %address, %error, "not connected");
        self.addresses.another(error.fault(), count)
    }

    async fn failed(&mut self, error: &LinkError) {
        self.tally.error(&error.to_string());
        let mut fault = self.addresses.fault(error.fault());
        // While the remote broker is away devices are held up by the disk alone; a refused login or rule is told all the same.
        if self.reporter.disk_faulted() && fault.code.as_parameter_error().is_none() {
            fault = disk_fault(&format!("; besides: {}: {}", fault.code, fault.detail));
        }
        self.reporter.say(BridgeEvent::Faulted(fault)).await;
    }

    fn blocked(&self) -> bool {
        self.incoming.blocked()
    }

    fn take(&mut self, publish: Publish) -> Result<(), LinkError> {
        self.incoming.take(publish, &self.task.rule)
    }

    fn pass_over(&mut self, id: Option<u16>) {
        self.incoming.pass_over(id);
    }

    fn acknowledge(&mut self, out: &mut BytesMut) -> Result<(), LinkError> {
        self.incoming.acknowledge(out)
    }

    fn due(&mut self, _now: Instant) -> Result<Option<Instant>, LinkError> {
        Ok(None)
    }

    async fn wait(&mut self) -> Result<Change, LinkError> {
        let space = self.incoming.space();
        tokio::select! {
            kept = self.incoming.kept() => self.incoming.settle(kept)?,
            () = space.notified() => self.incoming.unpark(&self.task.rule)?,
            Ok(()) = self.tasks.changed() => return Ok(self.retask()),
            Ok(()) = self.local.changed() => {}
            () = self.addresses.back() => {
                tracing::info!(
                    line.kind = "remote-broker", rule.id = %self.reporter.rule, rule.name = %self.task.rule.name,
                    "the first address of the remote broker answers again; back to it"
                );
                return Ok(Change::Connection);
            }
        }
        Ok(Change::None)
    }
}

impl Remote {
    /// The way to the address of this number.
    fn way(&self, at: usize) -> Way {
        let remote = &self.task.rule.remote;
        Way {
            address: remote.addresses().nth(at).unwrap_or(&remote.address).clone(),
            proxy: remote.proxy.clone(),
            tls: remote.tls.clone().map(|tls| TlsSetup { tls, key: self.task.secrets.key.clone() }),
        }
    }

    /// Takes over a new task on a living connection.
    fn retask(&mut self) -> Change {
        let new = self.tasks.borrow_and_update().clone();
        let change = EdgeRule::difference(&self.task.rule, &new.rule);
        let needs_connection = change.connection || new.secrets != self.task.secrets;
        self.task = new;
        if needs_connection {
            self.addresses = Addresses::default();
            return Change::Connection;
        }
        self.reporter.tasked(&self.task);
        Change::Filters
    }
}

/// Says how the bridge fares, each thing once per order.
pub(super) struct Reporter {
    pub rule: RuleId,
    /// Of the task that is being done.
    pub order: Order,
    pub events: mpsc::Sender<Notice>,
    pub said: Option<(Order, BridgeEvent)>,
    pub outgoing: Queue,
    pub incoming: Queue,
    pub cancel: CancellationToken,
}

impl Reporter {
    /// A new task: its queue bounds hold from now on.
    fn tasked(&mut self, task: &Task) {
        self.order = task.order;
        let config = queue_config(&task.rule.queue);
        self.outgoing.reconfigure(config.clone());
        self.incoming.reconfigure(config);
    }

    /// The last write of a queue failed.
    fn disk_faulted(&self) -> bool {
        self.outgoing.is_faulted() || self.incoming.is_faulted()
    }

    /// Sends an event, unless it is what was said last.
    async fn say(&mut self, event: BridgeEvent) {
        let order = self.order;
        if self.said.as_ref().is_some_and(|(said, last)| *said == order && *last == event) {
            return;
        }
        self.said = Some((order, event.clone()));
        tokio::select! {
            // Nobody listens any more: the agent is going down.
            _ = self.events.send(Notice { rule: self.rule, order, event }) => {}
            () = self.cancel.cancelled() => {}
        }
    }
}

/// A queue cannot be written, and what else is wrong.
fn disk_fault(besides: &str) -> Fault {
    fault(FaultCode::Disk, &format!("the queue cannot be written; is the disk full or failing?{besides}"))
}
