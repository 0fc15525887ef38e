//! `tidegate serve`.

use std::path::Path;

use serde_json::json;
use tidegate_cloud::{Flags, LogFormat, Settings, StoreKind};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::args::{LogFormatArg, ServeArgs, StoreArg};
use crate::env::Env;
use crate::failure::{Exit, Failure};
use crate::logs;
use crate::output::Out;
use crate::service;
use crate::signals;

/// Runs the controller until a signal.
pub async fn serve(out: &Out, env: &Env, args: ServeArgs) -> Result<Exit, Failure> {
    let flags = Flags {
        http: args.http,
        mqtt: args.mqtt,
        broker: args.broker,
        broker_password_file: args.broker_password_file,
        data_dir: args.data_dir,
        store: args.store.map(|store| match store {
            StoreArg::Sled => StoreKind::Sled,
            StoreArg::Memory => StoreKind::Memory,
        }),
        allow_remote: args.allow_remote.then_some(true),
        log_format: args.log_format.map(|format| match format {
            LogFormatArg::Text => LogFormat::Text,
            LogFormatArg::Json => LogFormat::Json,
        }),
    };
    let settings =
        Settings::load(args.config.as_deref(), &flags).map_err(|error| Failure::Usage(error.to_string()))?;
    if args.print {
        let text = settings.print();
        let fields: toml::Value = toml::from_str(&text)
            .map_err(|error| Failure::Failed(format!("the settings cannot be shown: {error}")))?;
        out.show(&json!(fields), |_| Ok(text), Vec::new)?;
        return Ok(Exit::Done);
    }
    if args.check {
        out.done(&json!({ "ok": true }), "", "the settings are fine")?;
        return Ok(Exit::Done);
    }
    let _written = logs::start(env.log.as_deref().unwrap_or("info"), settings.log_format);
    tidegate_broker::raise_open_files();
    let stop = CancellationToken::new();
    let log_format = settings.log_format;
    let (ready, served) = oneshot::channel::<tidegate_cloud::Ready>();
    signals::cancel_on_signal(stop.clone());
    let told = async {
        if let Ok(ready) = served.await {
            let greeting = format!(
                "tidegate serves: API http://{}, {} {}. {}",
                ready.http,
                if ready.mqtt.is_some() { "MQTT for gateways" } else { "over the broker" },
                ready.broker,
                where_the_token_is(ready.admin_token.is_some(), &ready.admin_token_file)
            );
            match log_format {
                LogFormat::Text => out.note(greeting),
                // Whoever reads the log reads objects only.
                LogFormat::Json => tracing::info!("{greeting}"),
            }
            service::ready(&format!("API http://{}, broker {}", ready.http, ready.broker));
            service::keep_alive(ready.alive).await;
        }
        std::future::pending::<()>().await
    };
    let asked = stop.clone();
    let goodbye = async {
        asked.cancelled().await;
        service::stopping();
        std::future::pending::<()>().await
    };
    tokio::select! {
        ended = Box::pin(tidegate_cloud::run(settings, stop, ready)) => {
            ended.map_err(|error| Failure::Failed(error.to_string()))?;
            Ok(Exit::Done)
        }
        () = told => Ok(Exit::Done),
        () = goodbye => Ok(Exit::Done),
    }
}

/// The server keeps a hash of its token, and the token itself in a file that somebody may have moved away.
fn where_the_token_is(there: bool, file: &Path) -> String {
    let file = file.display();
    if there {
        format!("The API's token is in {file}")
    } else {
        format!(
            "The API's token was taken out of {file}: use the copy you keep, or delete {file}.sha256 and start again to get a new one"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_that_is_not_there_is_not_promised() {
        let file = Path::new("/d/admin.token");
        assert_eq!(where_the_token_is(true, file), "The API's token is in /d/admin.token");
        let gone = where_the_token_is(false, file);
        assert!(gone.contains("was taken out") && gone.contains("/d/admin.token.sha256"), "{gone}");
    }
}
