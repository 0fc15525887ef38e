//! `tidegate dev`: controller, one gateway and a broker that plays the remote side, in one process, with a sample rule.
//!
//! Starts the same parts as on real machines, each with its own data below one directory, and talks to the controller
//! over its API as everybody does. Owns the order of starting and stopping; the sample is in `sample`, the remote side
//! in `remote`, the device in `device`.

mod device;
mod gateway;
mod remote;
mod sample;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tidegate_broker::StartError;
use tidegate_cloud::{Ready, RunError, Settings};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::args::DevArgs;
use crate::client::Client;
use crate::context::{Context, Contexts};
use crate::env::Env;
use crate::failure::{Exit, Failure};
use crate::output::Out;
use crate::{logs, signals};

/// The name of the context that is written.
const CONTEXT: &str = "dev";
/// How long each part may take to stop.
const STOP: Duration = Duration::from_millis(1_500);

/// Everything at once, until a signal or until a part ends by itself.
pub async fn dev(out: &Out, env: &Env, args: DevArgs) -> Result<Exit, Failure> {
    let addresses = [
        ("--http", args.http),
        ("--mqtt", args.mqtt),
        ("--edge-mqtt", args.edge_mqtt),
        ("--remote-mqtt", args.remote_mqtt),
    ];
    check_addresses(&addresses)?;
    let dir = args.data_dir.clone().or_else(|| env.dev_dir.clone()).ok_or_else(|| {
        Failure::Usage(
            "there is no place for the data: neither XDG_DATA_HOME nor HOME is set; pass --data-dir DIR"
                .into(),
        )
    })?;
    let dir = std::path::absolute(&dir).unwrap_or(dir);
    let _written = logs::start(env.log.as_deref().unwrap_or("warn"), tidegate_cloud::LogFormat::Text);
    tidegate_broker::raise_open_files();
    let stop = CancellationToken::new();
    signals::cancel_on_signal(stop.clone());
    tokio::select! {
        ended = Box::pin(run(out, env, &args, &dir, &stop)) => ended,
        // A signal while the parts are still starting: nothing was promised yet.
        () = async { stop.cancelled().await; tokio::time::sleep(STOP).await } => Ok(Exit::Done),
    }
}

async fn run(
    out: &Out,
    env: &Env,
    args: &DevArgs,
    dir: &Path,
    stop: &CancellationToken,
) -> Result<Exit, Failure> {
    // The controller first: its lock on the data directory keeps a second `dev` away from all of it.
    let mut controller = Controller::start(args, dir).await?;
    let remote = remote::start(args.remote_mqtt, &dir.join("remote"), out.clone()).await?;
    let client = Client::new(&format!("http://{}", controller.ready.http), controller.token()?)?;
    let credential = sample::edge(&client, dir).await?;
    let cloud = controller.ready.mqtt.expect("the controller of dev has a broker of its own");
    let mut gateway = gateway::Gateway::start(args.edge_mqtt, cloud, &credential, dir).await?;
    sample::rule(&client, dir, remote.local_addr(), out).await?;
    write_context(env, &controller.ready, out);
    banner(out, &controller.ready, gateway.local, remote.local_addr(), dir);
    let device = device::start(gateway.local);

    let ended = tokio::select! {
        () = stop.cancelled() => Ok(Exit::Done),
        why = controller.ended() => Err(Failure::Failed(why)),
        why = gateway.ended() => Err(Failure::Failed(why)),
    };
    device.abort();
    // The gateway says goodbye to a controller that still listens.
    gateway.stop().await;
    controller.stop().await;
    remote.stop().await;
    out.note("stopped; the next start goes on with the same data");
    ended
}

fn check_addresses(addresses: &[(&str, SocketAddr)]) -> Result<(), Failure> {
    for (index, (flag, address)) in addresses.iter().enumerate() {
        if !address.ip().is_loopback() {
            return Err(Failure::Usage(format!(
                "{flag} {address} is not a loopback address: the brokers of dev let in everybody. Use 127.0.0.1, and tidegate serve for a real network"
            )));
        }
        let same = addresses[..index].iter().find(|(_, other)| other == address && address.port() != 0);
        if let Some((other, _)) = same {
            return Err(Failure::Usage(format!(
                "{other} and {flag} both say {address}; give each its own port"
            )));
        }
    }
    Ok(())
}

/// What to say of a broker that did not start, with the flag that chooses its address.
fn broker_failure(who: &str, flag: &str, error: &StartError) -> Failure {
    let help = if matches!(error, StartError::Bind { .. }) {
        format!(" ({flag} ADDRESS:PORT)")
    } else {
        String::new()
    };
    Failure::Failed(format!("{who}: {error}{help}"))
}

struct Controller {
    task: JoinHandle<Result<(), RunError>>,
    stop: CancellationToken,
    ready: Ready,
}

impl Controller {
    async fn start(args: &DevArgs, dir: &Path) -> Result<Self, Failure> {
        let mut settings = Settings::with_data_dir(dir.join("controller"));
        settings.http = args.http;
        settings.mqtt = args.mqtt;
        let stop = CancellationToken::new();
        let (ready, serves) = oneshot::channel();
        let mut task = tokio::spawn(Box::pin(tidegate_cloud::run(settings, stop.clone(), ready)));
        tokio::select! {
            Ok(ready) = serves => Ok(Self { task, stop, ready }),
            ended = &mut task => Err(match ended {
                Ok(Err(RunError::Broker(error))) => broker_failure("the controller's broker", "--mqtt", &error),
                Ok(Err(error)) => Failure::Failed(error.to_string()),
                Ok(Ok(())) => Failure::Failed("the controller ended before it served".into()),
                Err(error) => Failure::Failed(format!("the controller ended badly: {error}")),
            }),
        }
    }

    fn token(&self) -> Result<Option<String>, Failure> {
        match &self.ready.admin_token {
            Some(token) => Ok(Some(token.reveal().to_owned())),
            None => Err(Failure::Failed(format!(
                "{} does not hold the controller's token any more; put it back, or start anew with another --data-dir",
                self.ready.admin_token_file.display()
            ))),
        }
    }

    async fn ended(&mut self) -> String {
        match (&mut self.task).await {
            Ok(Ok(())) => "the controller ended by itself".to_owned(),
            Ok(Err(error)) => format!("the controller ended: {error}"),
            Err(error) => format!("the controller ended badly: {error}"),
        }
    }

    async fn stop(mut self) {
        self.stop.cancel();
        if !self.task.is_finished() && tokio::time::timeout(STOP, &mut self.task).await.is_err() {
            self.task.abort();
        }
    }
}

/// Writes the context `dev`, and makes it the current one if there is none. A home that cannot be written is no reason
/// not to run.
fn write_context(env: &Env, ready: &Ready, out: &Out) {
    let server = format!("http://{}", ready.http);
    let file = env.config_file.as_deref();
    let written = Contexts::load(file).and_then(|mut contexts| {
        let token_file: Option<PathBuf> = Some(ready.admin_token_file.clone());
        contexts
            .contexts
            .insert(CONTEXT.to_owned(), Context { server: server.clone(), token: None, token_file });
        contexts.current.get_or_insert_with(|| CONTEXT.to_owned());
        contexts.save(file).map(|()| contexts.current.as_deref() == Some(CONTEXT))
    });
    match written {
        Ok(true) => {}
        Ok(false) => out.note(format_args!(
            "note: another context is current; commands find this one with --context {CONTEXT} (tidegate context use {CONTEXT})"
        )),
        Err(failure) => out.note(format_args!(
            "note: the context was not written ({failure}); pass --server {server} and TIDEGATE_TOKEN=\"$(cat {})\"",
            ready.admin_token_file.display()
        )),
    }
}

fn banner(out: &Out, ready: &Ready, local: SocketAddr, remote: SocketAddr, dir: &Path) {
    out.note(format_args!(
        "\
tidegate dev runs: a controller, the gateway {edge} and a remote broker. Ctrl-C stops it.

  API                     http://{http}
  controller's broker     {mqtt}
  gateway's local broker  {local}   devices publish here, anonymous
  remote broker           {remote}   messages arrive here, anonymous
  data                    {dir}

The sample rule '{rule}' forwards sensors/# under plant/{edge}/. In another terminal:

  tidegate status
  tidegate rule get {rule}
  tidegate stop {rule} --edge {edge} --yes       and start it again: tidegate start {rule} --edge {edge}
  mosquitto_sub -p {remote_port} -t 'plant/#' -v
  mosquitto_pub -p {local_port} -q 1 -t sensors/door -m open

Arriving at the remote broker:",
        edge = sample::EDGE,
        rule = sample::RULE,
        http = ready.http,
        mqtt = ready.broker,
        dir = dir.display(),
        remote_port = remote.port(),
        local_port = local.port(),
    ));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dev_stays_on_loopback_and_gives_each_part_its_own_port() {
        let at = |text: &str| text.parse::<SocketAddr>().unwrap();
        let remote = check_addresses(&[("--http", at("0.0.0.0:1"))]).unwrap_err().to_string();
        assert!(remote.contains("--http") && remote.contains("loopback"), "{remote}");
        let twice =
            check_addresses(&[("--http", at("127.0.0.1:1")), ("--mqtt", at("127.0.0.1:1"))]).unwrap_err();
        assert!(twice.to_string().contains("--mqtt"), "{twice}");
        assert!(check_addresses(&[("--http", at("127.0.0.1:0")), ("--mqtt", at("127.0.0.1:0"))]).is_ok());
    }
}
