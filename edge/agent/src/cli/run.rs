//! `tidegate-edge run`: settings, log, signals, and the agent until it ends.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use tidegate_edge::Gateway;
use tidegate_edge::settings::AgentConfig;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::args::Run;
use super::{exit, fail, logs, print, service};

/// How long the service manager waits for the rule files to be read again.
const RELOAD: Duration = Duration::from_secs(10);

pub fn run(args: &Run) -> ExitCode {
    let settings = match AgentConfig::from_process(args.given.config.as_deref(), &args.given.flags()) {
        Ok(settings) => settings,
        Err(error) => return fail(exit::USAGE, &error),
    };
    if args.print {
        return print(&settings.describe());
    }
    if args.check {
        return check(&settings);
    }
    let _written = logs::start(&settings.log, settings.log_format);
    tidegate_broker::raise_open_files();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(exit::FAILED, &format!("starting the runtime: {error}")),
    };
    match runtime.block_on(Box::pin(work(settings))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(exit::FAILED, &error),
    }
}

/// Settings were read already; what is left are the rule files.
fn check(settings: &AgentConfig) -> ExitCode {
    let Some(dir) = &settings.rules_dir else { return print("the settings can be used\n") };
    match tidegate_edge::check_rules(settings, dir) {
        Ok(problems) if problems.is_empty() => print("the settings and the rule files can be used\n"),
        Ok(problems) => {
            let dir = dir.display();
            fail(exit::USAGE, &format!("rule files in {dir} cannot be used:\n{}", problems.join("\n")))
        }
        Err(why) => fail(exit::USAGE, &why),
    }
}

async fn work(settings: AgentConfig) -> anyhow::Result<()> {
    let stop = CancellationToken::new();
    stop_on_signal(&stop)?;
    let reload = on_hangup()?;
    let gateway = Box::pin(Gateway::open(settings)).await?;
    let status = format!("devices connect to {}", gateway.local_side());
    service::ready(&status);
    let (alive, again) = (gateway.pulse(), gateway.reload());
    let pings = tokio::spawn(service::keep_alive(alive));
    let reloads = tokio::spawn(async move {
        loop {
            reload.notified().await;
            service::reloading();
            if let Some(again) = &again {
                tracing::info!("told to read the rule files again");
                let waited = tokio::time::timeout(RELOAD, again.now()).await;
                if waited.is_err() {
                    tracing::warn!("the rule files were not read within {} s", RELOAD.as_secs());
                }
            }
            service::ready(&status);
        }
    });
    let told = stop.clone();
    let goodbye = tokio::spawn(async move {
        told.cancelled().await;
        service::stopping();
    });
    let ended = Box::pin(gateway.run(stop)).await;
    for task in [pings, reloads, goodbye] {
        task.abort();
    }
    Ok(ended?)
}

/// SIGINT and SIGTERM stop the agent.
fn stop_on_signal(stop: &CancellationToken) -> anyhow::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let stop = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        tracing::info!("told to stop");
        stop.cancel();
    });
    Ok(())
}

/// SIGHUP reads the rule files again.
fn on_hangup() -> anyhow::Result<Arc<Notify>> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut hangup = signal(SignalKind::hangup())?;
    let told = Arc::new(Notify::new());
    let notify = Arc::clone(&told);
    tokio::spawn(async move {
        while hangup.recv().await.is_some() {
            notify.notify_one();
        }
    });
    Ok(told)
}
