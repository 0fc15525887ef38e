//! What is checked on this machine: the context, the token's file, the disk.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use tidegate_cloud::{Flags, Settings, os};

use tidegate_model::doctor::{Check, Room};

use crate::args::Global;
use crate::client::Client;
use crate::context::{Contexts, connect};
use crate::env::Env;

/// Below the first a controller is close to stopping: a write that fails ends it.
const ROOM: Room = Room { little: 100 * 1024 * 1024, some: 1024 * 1024 * 1024 };

/// The context and its token; the client, if there is one.
pub(super) fn client(global: &Global, env: &Env, checks: &mut Vec<Check>) -> Option<Client> {
    let chosen = super::super::chosen(global);
    let file = env.config_file.as_deref();
    match Contexts::load(file) {
        Ok(contexts) => {
            if let Some(file) = file.filter(|file| file.exists()) {
                rights("context file", file, checks);
            }
            if let Ok(Some((name, context))) = contexts.pick(chosen.context.as_deref()) {
                checks.push(Check::ok("context", format!("{name}, server {}", context.server)));
                if let Some(file) = context.token_file.as_deref().filter(|file| file.exists()) {
                    rights("token file", file, checks);
                }
            }
        }
        Err(error) => {
            checks.push(Check::bad("context file", error.to_string(), "correct the file, or remove it"))
        }
    }
    match connect(&chosen, file) {
        Ok(client) if client.token.is_none() => {
            let fix = "tidegate context set NAME --server URL --token-file FILE, or TIDEGATE_TOKEN";
            checks.push(Check::bad("token", "there is none for this server", fix));
            Some(client)
        }
        Ok(client) => Some(client),
        Err(error) => {
            let text = error.to_string();
            let (why, fix) = text.split_once(": ").unwrap_or((&text, ""));
            checks.push(Check::bad("server", why, fix));
            None
        }
    }
}

/// Files that hold a token are for their owner only.
pub(super) fn rights(name: &'static str, file: &Path, checks: &mut Vec<Check>) {
    let shown = file.display();
    match std::fs::metadata(file).map(|found| found.permissions().mode() & 0o777) {
        Ok(mode) if mode & 0o077 != 0 => checks.push(Check::warn(
            name,
            format!("{shown} may be read by others (mode {mode:o})"),
            format!("chmod 600 {shown}"),
        )),
        Ok(_) => match std::fs::File::open(file) {
            Ok(_) => checks.push(Check::ok(name, format!("{shown}, for its owner only"))),
            Err(error) => checks.push(Check::bad(
                name,
                format!("{shown} cannot be read: {}", os::plain(&error)),
                "run as the user that owns it, or copy the token to a file of your own",
            )),
        },
        Err(error) => checks.push(Check::bad(
            name,
            format!("{shown} cannot be looked at: {}", os::plain(&error)),
            "check the path and the directory's rights",
        )),
    }
}

/// Room for a controller on this machine.
pub(super) fn disk(client: Option<&Client>, data_dir: Option<&Path>, checks: &mut Vec<Check>) {
    let dir = match data_dir {
        Some(dir) => dir.to_owned(),
        None => {
            let here = client.is_some_and(|client| {
                ["://127.", "://localhost", "://[::1]"].iter().any(|l| client.base().contains(l))
            });
            let Ok(settings) = Settings::load(None, &Flags::default()) else { return };
            if !here || !settings.data_dir.exists() {
                return;
            }
            settings.data_dir
        }
    };
    let shown = dir.display();
    let free = match rustix::fs::statvfs(&dir) {
        Ok(found) => found.f_bavail.saturating_mul(found.f_frsize),
        Err(error) => {
            let why = os::plain(&error.into());
            checks.push(Check::bad("disk", format!("{shown}: {why}"), "check --data-dir"));
            return;
        }
    };
    let fix = "free space there: a controller whose write fails stops until there is room";
    checks.push(ROOM.judge(free, &shown.to_string(), fix));
}
