//! One module per command, and what they share: which server, how to show, whether to ask.

mod act;
mod apply;
mod backup;
mod contexts;
mod diff;
mod doctor;
mod dry_run;
mod edges;
mod events;
mod files;
mod follow;
pub(crate) mod judge;
mod rules;
mod serve;
mod shell;
mod status;
mod targets;
mod transfer;
mod version;
mod wait;
mod watch;

use std::time::Duration;

use jiff::Timestamp;

use crate::args::{Cli, Command, EdgeCommand, Global, RuleCommand};
use crate::client::{Client, Tuning};
use crate::context::{Chosen, connect};
use crate::env::Env;
use crate::failure::{Exit, Failure};
use crate::output::Out;

/// How long is waited for an end, unless told otherwise.
const WAIT: Duration = Duration::from_secs(300);

/// What most commands work with.
#[derive(Clone)]
pub struct Session {
    /// The server.
    pub client: Client,
    /// Where words go.
    pub out: Out,
    /// `--yes`.
    pub yes: bool,
    /// `--timeout`.
    pub timeout: Option<Duration>,
    /// The moment at which the command began; tables count from it.
    pub now: Timestamp,
}

impl Session {
    fn open(global: &Global, env: &Env) -> Result<Self, Failure> {
        let client = connect(&chosen(global), env.config_file.as_deref())?.tuned(tuning(global));
        Ok(Self {
            client,
            out: out(global, env),
            yes: global.yes,
            timeout: global.timeout,
            now: Timestamp::now(),
        })
    }

    /// How long is waited for an end.
    fn patience(&self) -> Duration {
        self.timeout.unwrap_or(WAIT)
    }
}

fn chosen(global: &Global) -> Chosen {
    // A variable that is set to nothing says nothing.
    let said = |text: &Option<String>| text.clone().filter(|t| !t.is_empty());
    Chosen { server: said(&global.server), token: said(&global.token), context: said(&global.context) }
}

fn tuning(global: &Global) -> Tuning {
    Tuning { timeout: global.timeout, request_id: global.request_id.clone(), verbose: global.verbose }
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
        Command::Status(args) => {
            watch::watched(session, args, async |session: &Session| status::status(session).await).await
        }
        Command::Rule(RuleCommand::Import(command)) => {
            transfer::import(&out(global, env), session, &command).await
        }
        Command::Rule(RuleCommand::List(args)) => {
            watch::watched(session, args.watch, async |session: &Session| rules::list(session, &args).await)
                .await
        }
        Command::Rule(RuleCommand::Get { name, version: None, watch }) => {
            watch::watched(session, watch, async |session: &Session| rules::get(session, &name).await).await
        }
        Command::Rule(command) => rules::run(&session()?, command).await,
        Command::Edge(EdgeCommand::List(args)) => {
            watch::watched(session, args, async |session: &Session| edges::list(session).await).await
        }
        Command::Edge(EdgeCommand::Get { name, watch }) => {
            watch::watched(session, watch, async |session: &Session| edges::get(session, &name).await).await
        }
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
        Command::Doctor(args) => doctor::doctor(global, env, &args).await,
        Command::Completion { shell } => shell::completion(shell),
        Command::Man { out: dir } => shell::man(&out(global, env), &dir),
        Command::Version => version::version(global, env).await,
    }
}
