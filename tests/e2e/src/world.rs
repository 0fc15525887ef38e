//! A controller, one gateway and a remote broker, as most scenarios need them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use crate::agent::{Agent, Local};
use crate::cloud_broker::CloudBroker;
use crate::controller::Controller;
use crate::device::Device;
use crate::mosquitto::Mosquitto;
use crate::mqtt::Login;
use crate::proxy::Proxy;
use crate::rule::Rule;
use crate::sink::Sink;
use crate::wait::{PATIENCE, until};

/// The edge of every world.
pub const EDGE: &str = "gw-1";
/// Client id of the sink at the remote broker.
const REMOTE_SINK: &str = "remote-sink";

/// A controller, a gateway that is online, and a remote broker.
pub struct World {
    /// The gateway, with a local broker if it has one beside it.
    pub agent: Agent,
    /// The controller.
    pub controller: Controller,
    /// The remote broker.
    pub remote: Mosquitto,
    /// The cable from the gateway to the controller's broker.
    pub cable: Proxy,
    /// The broker of somebody else between controller and gateway; `None`: the controller's own.
    pub cloud_broker: Option<CloudBroker>,
    // Last: it is removed when everything in it has ended.
    dir: TempDir,
}

impl World {
    /// With a remote broker that takes everybody.
    #[must_use]
    pub fn new() -> Self {
        Self::with_remote(Mosquitto::open)
    }

    /// With this remote broker.
    ///
    /// # Panics
    /// When something does not start.
    #[must_use]
    pub fn with_remote(remote: impl FnOnce(&Path) -> Mosquitto) -> Self {
        Self::with(remote, Local::Embedded)
    }

    /// With this kind of local broker.
    #[must_use]
    pub fn with_local(local: Local) -> Self {
        Self::with(Mosquitto::open, local)
    }

    /// With this remote broker and this kind of local one.
    ///
    /// # Panics
    /// When something does not start.
    #[must_use]
    pub fn with(remote: impl FnOnce(&Path) -> Mosquitto, local: Local) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory can be made");
        Self::make(dir, remote, None, local)
    }

    /// With a mosquitto between the controller and the gateway, in place of the controller's own broker.
    ///
    /// # Panics
    /// When something does not start.
    #[must_use]
    pub fn external() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory can be made");
        let broker = CloudBroker::start(dir.path());
        Self::make(dir, Mosquitto::open, Some(broker), Local::Embedded)
    }

    fn make(
        dir: TempDir,
        remote: impl FnOnce(&Path) -> Mosquitto,
        cloud_broker: Option<CloudBroker>,
        local: Local,
    ) -> Self {
        let remote = remote(dir.path());
        let broker = cloud_broker.as_ref();
        let controller = Controller::on(dir.path(), broker);
        let cable = Proxy::to(controller.mqtt);
        let agent = Agent::on(dir.path(), &controller, EDGE, cable.address, broker, local);
        controller.wait_link(PATIENCE, EDGE, "online");
        Self { agent, controller, remote, cable, cloud_broker, dir }
    }

    /// The directory of this world.
    #[must_use]
    pub fn dir(&self) -> PathBuf {
        self.dir.path().to_owned()
    }

    /// Saves, places and issues a rule, and waits until it runs.
    pub fn run_rule(&self, rule: &Rule) {
        self.controller.apply_and_place(rule, EDGE);
        self.controller.ok(&["issue", &rule.name, "--edge", EDGE, "--wait", "--timeout", "90s"]);
        self.controller.wait_states(&rule.name, EDGE, "issued", "running");
    }

    /// Waits until nothing is under way for a rule and the gateway is heard, and holds what the cloud says to what the
    /// agent says: *issued* only where version and digest are on the gateway.
    ///
    /// # Panics
    /// When it does not come to rest, or the cloud claims what is not so.
    #[must_use]
    pub fn settled(&self, rule: &str) -> Value {
        let placement = self.controller.wait(rule, EDGE, "at rest", |p| {
            p["in_flight"].is_null() && p["last_known"] == false && p["link"] == "online"
        });
        self.hold_to_truth(rule, &placement);
        placement
    }

    /// Panics when a placement says *issued* and the agent has another version or other bytes. Nothing may be issued
    /// between the reading of the placement and this.
    ///
    /// # Panics
    /// When the cloud claims what is not so.
    pub fn hold_to_truth(&self, rule: &str, placement: &Value) {
        if placement["issue_state"] == "issued" {
            let running = &self.agent.rule(rule)["running"];
            assert_eq!(running["version"], placement["version"], "a false issued: {placement:#}");
            assert_eq!(running["digest"], placement["digest"], "a false issued: {placement:#}");
        }
    }

    /// A sink at the remote broker for everything under the mountpoint of this world's edge.
    #[must_use]
    pub fn remote_sink(&self) -> Sink {
        Sink::start(self.remote.address, Login::anonymous(REMOTE_SINK), &format!("plant/{EDGE}/#"))
    }

    /// Starts the remote broker again, which has forgotten its sessions, and comes back with its sink, the one that was there or a
    /// new one. The agent is held until the sink has subscribed: what it sends to a broker without subscribers is lost there.
    ///
    /// # Panics
    /// When the broker or the sink does not come back.
    #[must_use]
    pub fn remote_returns(&mut self, sink: Option<Sink>) -> Sink {
        self.agent.process.signal("STOP");
        let before = self.remote.subscriptions(REMOTE_SINK);
        self.remote.start_again();
        let sink = sink.unwrap_or_else(|| self.remote_sink());
        until("the sink is back", || (self.remote.subscriptions(REMOTE_SINK) > before).then_some(()));
        self.agent.process.signal("CONT");
        sink
    }

    /// A device at the gateway's local broker that publishes to `sensors/…`.
    #[must_use]
    pub fn device(&self, pace: Duration) -> Device {
        Device::start(self.agent.local, "device-1", pace, sensor_topic)
    }
}

impl Default for World {
    fn default() -> Self {
        Self::new()
    }
}

/// The topics of the devices: five lines, in turn.
#[must_use]
pub fn sensor_topic(number: u64) -> String {
    format!("sensors/line-{}", number % 5)
}
