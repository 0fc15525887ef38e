//! `tidegate context`.

use serde_json::json;

use crate::args::{ContextCommand, Global};
use crate::client::Client;
use crate::context::{Context, Contexts, read_token_file};
use crate::env::Env;
use crate::failure::{Exit, Failure};
use crate::output::{Out, finish, table};

/// Lists, shows, chooses and sets contexts. Tokens are never shown.
pub fn run(out: &Out, global: &Global, env: &Env, command: ContextCommand) -> Result<Exit, Failure> {
    let file = env.config_file.as_deref();
    let mut contexts = Contexts::load(file)?;
    match command {
        ContextCommand::List => list(out, &contexts)?,
        ContextCommand::Show { name } => match contexts.pick(name.as_deref())? {
            Some((name, context)) => {
                let shown = json!({
                    "name": name,
                    "server": context.server,
                    "token_set": context.token.is_some(),
                    "token_file": context.token_file,
                });
                let text = format!(
                    "Context     {name}\nServer      {}\nToken       {}",
                    context.server,
                    token(context)
                );
                out.show(&shown, |_| Ok(text), || vec![name.to_owned()])?;
            }
            None => return Err(Failure::NotFound(format!("no context is current; {}", contexts.known()))),
        },
        ContextCommand::Use { name } => {
            contexts.pick(Some(&name))?;
            contexts.current = Some(name.clone());
            contexts.save(file)?;
            let used = json!({ "name": name, "current": true });
            out.done(&used, &name, format_args!("commands talk to context {name} from now on"))?;
        }
        ContextCommand::Set { name, token_file } => {
            let Some(server) = global.server.clone() else {
                return Err(Failure::Usage("say which server: --server http://HOST:7180".into()));
            };
            // An address that no command could use is told now, not at the next command.
            Client::new(&server, None)?;
            if let Some(file) = &token_file {
                read_token_file(file)?;
            }
            let token_file = token_file.map(|file| std::path::absolute(&file).unwrap_or(file));
            let token = global.token.clone().filter(|_| token_file.is_none());
            let kept = json!({ "name": name, "server": server, "current": true });
            contexts.contexts.insert(name.clone(), Context { server, token, token_file });
            contexts.current = Some(name.clone());
            contexts.save(file)?;
            out.done(&kept, &name, format_args!("context {name} is kept and current"))?;
        }
    }
    Ok(Exit::Done)
}

fn list(out: &Out, contexts: &Contexts) -> Result<(), Failure> {
    let items: Vec<_> = contexts
        .contexts
        .iter()
        .map(|(name, c)| json!({"name": name, "server": c.server, "current": contexts.current.as_ref() == Some(name)}))
        .collect();
    let show = |_| {
        if contexts.contexts.is_empty() {
            return Ok(contexts.known());
        }
        let mut rows = table(out, &["", "CONTEXT", "SERVER", "TOKEN"]);
        for (name, context) in &contexts.contexts {
            let current = if contexts.current.as_ref() == Some(name) { "*" } else { "" };
            rows.add_row(vec![current.to_owned(), name.clone(), context.server.clone(), token(context)]);
        }
        Ok(finish(rows))
    };
    out.show(&json!({ "items": items }), show, || contexts.contexts.keys().cloned().collect())
}

fn token(context: &Context) -> String {
    match (&context.token, &context.token_file) {
        (Some(_), _) => "set".to_owned(),
        (None, Some(file)) => format!("in {}", file.display()),
        (None, None) => "none".to_owned(),
    }
}
