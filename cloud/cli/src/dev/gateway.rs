//! The gateway: the same agent as on a real one.

use std::net::SocketAddr;
use std::path::Path;

use tidegate_edge::settings::{Controller, ControllerAddress, LocalAccess, LocalSide, LogFormat};
use tidegate_edge::{AgentConfig, RunError};
use tidegate_model::ids::{AccountId, EdgeId};
use tidegate_model::rule::Secret;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{STOP, sample};
use crate::failure::Failure;

/// A running agent.
pub struct Gateway {
    /// Where devices connect.
    pub local: SocketAddr,
    task: JoinHandle<Result<(), RunError>>,
    stop: CancellationToken,
}

impl Gateway {
    /// Starts it: when this returns, devices can connect.
    pub async fn start(
        listen: SocketAddr,
        controller: SocketAddr,
        credential: &Secret,
        dir: &Path,
    ) -> Result<Self, Failure> {
        let config = AgentConfig {
            name: EdgeId::new(sample::EDGE).expect("the sample's name is one"),
            account: AccountId::default_account(),
            controller: Some(Controller {
                address: ControllerAddress { host: controller.ip().to_string(), port: controller.port() },
                username: sample::EDGE.to_owned(),
                password: Some(credential.clone()),
            }),
            rules_dir: None,
            data_dir: dir.join("gateway"),
            local: LocalSide::Embedded { listen, access: LocalAccess::Anonymous },
            policy: Default::default(),
            metrics: None,
            log: "info".to_owned(),
            log_format: LogFormat::Text,
        };
        let gateway = Box::pin(tidegate_edge::Gateway::open(config)).await.map_err(|error| match &error {
            RunError::Broker(error) => {
                super::broker_failure("the gateway's local broker", "--edge-mqtt", error)
            }
            RunError::DataDir { .. }
            | RunError::Locked { .. }
            | RunError::Store(_)
            | RunError::Control { .. }
            | RunError::Metrics { .. }
            | RunError::Random(_)
            | RunError::Unhealthy(_) => Failure::Failed(format!("the gateway: {error}")),
        })?;
        let local = gateway.local_addr().expect("a gateway with an embedded broker has an address");
        let stop = CancellationToken::new();
        let task = tokio::spawn(Box::pin(gateway.run(stop.clone())));
        Ok(Self { local, task, stop })
    }

    /// Waits until it ends by itself; says why.
    pub async fn ended(&mut self) -> String {
        match (&mut self.task).await {
            Ok(Ok(())) => "the gateway ended by itself".to_owned(),
            Ok(Err(error)) => format!("the gateway ended: {error}"),
            Err(error) => format!("the gateway ended badly: {error}"),
        }
    }

    /// Stops it.
    pub async fn stop(mut self) {
        self.stop.cancel();
        if !self.task.is_finished() && tokio::time::timeout(STOP, &mut self.task).await.is_err() {
            self.task.abort();
        }
    }
}
