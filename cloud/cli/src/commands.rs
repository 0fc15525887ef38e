//! One module per command, and what they share: which server, how to show, whether to ask.

mod act;
mod apply;
mod backup;
mod contexts;
mod diff;
mod dry_run;
mod edges;
mod events;
mod files;
mod follow;
mod judge;
mod rules;
mod serve;
mod status;
mod targets;
mod version;
mod wait;

use jiff::Timestamp;

use crate::args::{Cli, Command, Global};
use crate::client::Client;
use crate::context::{Chosen, connect};
use crate::env::Env;
use crate::failure::{Exit, Failure};
use crate::output::Out;

/// What most commands work with.
pub struct Session {
    /// The server.
    pub client: Client,
    /// Where words go.
    pub out: Out,
    /// `--yes`.
    pub yes: bool,
    /// The moment at which the command began; tables count from it.
    pub now: Timestamp,
}

impl Session {
    fn open(global: &Global, env: &Env) -> Result<Self, Failure> {
        let client = connect(&chosen(global), env.config_file.as_deref())?;
        Ok(Self { client, out: out(global, env), yes: global.yes, now: Timestamp::now() })
    }
}

fn chosen(global: &Global) -> Chosen {
    // A variable that is set to nothing says nothing.
    let said = |text: &Option<String>| text.clone().filter(|t| !t.is_empty());
    Chosen { server: said(&global.server), token: said(&global.token), context: said(&global.context) }
}

fn out(global: &Global, env: &Env) -> Out {
    Out::new(global.output, global.quiet, global.no_color, global.no_input, env)
}

/// Does what the command line says.
///
/// # Errors
/// [`Failure`], with the exit code.
pub async fn run(cli: Cli, env: &Env) -> Result<Exit, Failure> {
    let global = &cli.global;
    let session = || Session::open(global, env);
    match cli.command {
        Command::Status => status::status(&session()?).await,
        Command::Rule(command) => rules::run(&session()?, command).await,
        Command::Edge(command) => edges::run(&session()?, command).await,
        Command::Issue(args) => act::issue(&session()?, args).await,
        Command::Sync(args) => act::sync(&session()?, args).await,
        Command::Start(args) => act::start(&session()?, args).await,
        Command::Stop(args) => act::stop(&session()?, args).await,
        Command::Wait(args) => wait::wait(&session()?, &args).await,
        Command::Events(args) => events::events(&session()?, &args).await,
        Command::Context(command) => contexts::run(&out(global, env), global, env, command),
        Command::Serve(args) => serve::serve(&out(global, env), env, args).await,
        Command::Export(args) => backup::export(global, env, &args).await,
        Command::Import(args) => backup::import(&out(global, env), &args).await,
        Command::Dev(args) => crate::dev::dev(&out(global, env), env, args).await,
        Command::Version => version::version(global, env).await,
    }
}
