//! `tidegate version`.

use serde_json::json;

use crate::args::Global;
use crate::context::connect;
use crate::env::Env;
use crate::failure::{Exit, Failure};

/// Shows the version of this program, and that of the chosen server, if it can be reached.
pub async fn version(global: &Global, env: &Env) -> Result<Exit, Failure> {
    let out = super::out(global, env);
    let version = env!("CARGO_PKG_VERSION");
    let mut shown = json!({ "version": version });
    // Without a server this command has nothing more to say, and that is no failure.
    let mut server = None;
    if let Ok(client) = connect(&super::chosen(global), env.config_file.as_deref()) {
        let url = client.base();
        // What the API says of itself: it is told to everybody.
        let (told, text) = match client.get("/openapi.json").await {
            Ok(answer) => {
                let runs = answer.body["info"]["version"].as_str().unwrap_or("unknown");
                (json!({ "url": url, "version": runs }), format!("server {url} runs tidegate {runs}"))
            }
            Err(error) => (json!({ "url": url, "version": null }), format!("server {url}: {error}")),
        };
        shown["server"] = told;
        server = Some(text);
    }
    let names = || vec![version.to_owned()];
    out.show(&shown, |_| Ok(format!("tidegate {version}")), names)?;
    if let Some(server) = server {
        out.note(server);
    }
    Ok(Exit::Done)
}
