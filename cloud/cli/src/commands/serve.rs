//! `tidegate serve`.

use tidegate_cloud::{Flags, Settings, StoreKind};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::args::{ServeArgs, StoreArg};
use crate::env::Env;
use crate::failure::{Exit, Failure};
use crate::logs;
use crate::output::Out;
use crate::signals;

/// Runs the controller until a signal.
pub async fn serve(out: &Out, env: &Env, args: ServeArgs) -> Result<Exit, Failure> {
    let flags = Flags {
        http: args.http,
        mqtt: args.mqtt,
        data_dir: args.data_dir,
        store: args.store.map(|store| match store {
            StoreArg::Sled => StoreKind::Sled,
            StoreArg::Memory => StoreKind::Memory,
        }),
        allow_remote: args.allow_remote.then_some(true),
    };
    let settings =
        Settings::load(args.config.as_deref(), &flags).map_err(|error| Failure::Usage(error.to_string()))?;
    if args.print {
        out.line(settings.print().trim_end())?;
        return Ok(Exit::Done);
    }
    if args.check {
        out.note("the settings are fine");
        return Ok(Exit::Done);
    }
    logs::start(env.log.as_deref().unwrap_or("info"));
    let stop = CancellationToken::new();
    let (ready, served) = oneshot::channel::<tidegate_cloud::Ready>();
    signals::cancel_on_signal(stop.clone());
    let told = async {
        if let Ok(ready) = served.await {
            out.note(format_args!(
                "tidegate serves: API http://{}, MQTT for gateways {}. The API's token is in {}",
                ready.http,
                ready.mqtt,
                ready.admin_token_file.display()
            ));
        }
        std::future::pending::<()>().await
    };
    tokio::select! {
        ended = Box::pin(tidegate_cloud::run(settings, stop, ready)) => {
            ended.map_err(|error| Failure::Failed(error.to_string()))?;
            Ok(Exit::Done)
        }
        () = told => Ok(Exit::Done),
    }
}
