//! `tidegate version`.

use crate::args::Global;
use crate::context::connect;
use crate::env::Env;
use crate::failure::{Exit, Failure};

/// Shows the version of this program, and whether the chosen server can be reached.
pub async fn version(global: &Global, env: &Env) -> Result<Exit, Failure> {
    let out = super::out(global, env);
    let version = env!("CARGO_PKG_VERSION");
    let names = || vec![version.to_owned()];
    out.show(&serde_json::json!({ "version": version }), |_| Ok(format!("tidegate {version}")), names)?;
    // Without a server this command has nothing more to say, and that is no failure.
    if let Ok(client) = connect(&super::chosen(global), env.config_file.as_deref()) {
        match client.get("/summary").await {
            Ok(_) => out.note(format_args!("server {} answers", client.base())),
            Err(error) => out.note(format_args!("server {}: {error}", client.base())),
        }
    }
    Ok(Exit::Done)
}
