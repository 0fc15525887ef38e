//! `tidegate export` and `tidegate import`: everything that a controller holds, in one file.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use serde_json::json;
use tidegate_cloud::backup::{self, Check, ExportSummary};
use tidegate_cloud::{Flags, Settings, os};

use super::Session;
use crate::args::{ExportArgs, Global, ImportArgs};
use crate::client::Call;
use crate::env::Env;
use crate::failure::{Exit, Failure};
use crate::output::Out;
use crate::output::words::count;
use crate::signals;

/// Exports a running controller over its API, or the data directory of one that does not run.
pub async fn export(global: &Global, env: &Env, args: &ExportArgs) -> Result<Exit, Failure> {
    let out = super::out(global, env);
    let mut interrupts = signals::interrupts()?;
    let target = Target::open(args.out.as_deref(), env)?;
    let (from, summary) = tokio::select! {
        done = Box::pin(fetch(global, env, args, target)) => done?,
        _ = interrupts.recv() => {
            return Err(Failure::Interrupted("the export was interrupted; nothing was kept".into()));
        }
    };
    let to = args.out.as_ref().map_or_else(String::new, |file| format!(" to {}", file.display()));
    if let Some(file) = args.out.as_ref().filter(|_| !out.for_people()) {
        let done = json!({ "from": from, "file": file, "counts": summary.counts, "sha256": summary.sha256 });
        out.done(&done, &file.display().to_string(), "")?;
    }
    out.note(format_args!("exported {from}{to}: {}", shown(&summary)));
    out.note("it holds the rules' passwords: keep it to yourself (a file is made with mode 0600)");
    Ok(Exit::Done)
}

async fn fetch(
    global: &Global,
    env: &Env,
    args: &ExportArgs,
    mut target: Target,
) -> Result<(String, ExportSummary), Failure> {
    let mut check = Check::default();
    let mut take = |chunk: &[u8]| {
        check.feed(chunk).map_err(|why| Failure::Failed(format!("what came is no export: {why}")))?;
        target.write(chunk)
    };
    let from = if let Some(dir) = &args.data_dir {
        let settings = settings(args.config.as_deref(), Some(dir))?;
        let exported = backup::export(&settings, &mut take).await;
        exported.map_err(|error| Failure::Failed(error.to_string()))??;
        dir.display().to_string()
    } else {
        let session = Session::open(global, env)?;
        let call = Call::new(reqwest::Method::GET, "/admin/export");
        let mut pieces = session.client.download(call).await?;
        while let Some(piece) = pieces.next().await? {
            take(&piece)?;
        }
        session.client.base().to_owned()
    };
    let summary =
        check.finish().map_err(|why| Failure::Failed(format!("the export did not come whole: {why}")))?;
    target.keep()?;
    Ok((from, summary))
}

/// Where an export goes. A file bears its name only once it is whole and on disk.
enum Target {
    Stdout,
    File { part: tempfile::NamedTempFile, file: PathBuf },
}

impl Target {
    fn open(file: Option<&Path>, env: &Env) -> Result<Self, Failure> {
        let Some(file) = file else {
            if env.stdout_tty {
                return Err(Failure::Usage(
                    "an export holds passwords and is not shown on a terminal: pass --out FILE, or redirect it".into(),
                ));
            }
            return Ok(Self::Stdout);
        };
        if file.exists() {
            return Err(Failure::Conflict(format!(
                "{} is there already and is not overwritten; choose another file, or remove it",
                file.display()
            )));
        }
        let dir = file.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        // The part is made with mode 0600, and is gone when this is dropped.
        let part = tempfile::Builder::new().prefix(".tidegate-export.").tempfile_in(dir);
        let part = part.map_err(|error| cannot(file, &error))?;
        Ok(Self::File { part, file: file.to_owned() })
    }

    fn write(&mut self, chunk: &[u8]) -> Result<(), Failure> {
        match self {
            Self::Stdout => Ok(std::io::stdout().lock().write_all(chunk)?),
            Self::File { part, file } => part.write_all(chunk).map_err(|error| cannot(file, &error)),
        }
    }

    fn keep(self) -> Result<(), Failure> {
        match self {
            Self::Stdout => Ok(std::io::stdout().lock().flush()?),
            Self::File { part, file } => {
                part.as_file().sync_all().map_err(|error| cannot(&file, &error))?;
                part.persist_noclobber(&file).map_err(|error| cannot(&file, &error.error))?;
                let dir = file.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
                let synced = std::fs::File::open(dir).and_then(|dir| dir.sync_all());
                synced.map_err(|error| cannot(&file, &error))
            }
        }
    }
}

fn cannot(file: &Path, error: &std::io::Error) -> Failure {
    Failure::Failed(format!("{} cannot be written: {}", file.display(), os::plain(error)))
}

/// Fills an empty data directory.
pub async fn import(out: &Out, args: &ImportArgs) -> Result<Exit, Failure> {
    let settings = settings(args.config.as_deref(), args.data_dir.as_deref())?;
    let summary = backup::import(&settings, &args.file).await;
    let summary = summary.map_err(|error| Failure::Failed(error.to_string()))?;
    if !out.for_people() {
        let (file, dir) = (&args.file, &settings.data_dir);
        let done =
            json!({ "file": file, "data_dir": dir, "counts": summary.counts, "sha256": summary.sha256 });
        out.done(&done, &settings.data_dir.display().to_string(), "")?;
    }
    let (file, dir) = (args.file.display(), settings.data_dir.display());
    out.note(format_args!("imported {file} into {dir}: {}", shown(&summary)));
    out.note(format_args!(
        "Next: tidegate serve --data-dir {dir}. Edges that went on since the export are held until each is confirmed (CLOUD_BEHIND)"
    ));
    Ok(Exit::Done)
}

fn settings(config: Option<&Path>, data_dir: Option<&Path>) -> Result<Settings, Failure> {
    let flags = Flags { data_dir: data_dir.map(Path::to_owned), ..Flags::default() };
    Settings::load(config, &flags).map_err(|error| Failure::Usage(error.to_string()))
}

fn shown(summary: &ExportSummary) -> String {
    let number = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
    let counts = &summary.counts;
    format!(
        "{}, {}, {}, {} (SHA-256 {})",
        count(number(counts.rules), "rule", "rules"),
        count(number(counts.versions), "version", "versions"),
        count(number(counts.edges), "edge", "edges"),
        count(number(counts.placements), "placement", "placements"),
        summary.sha256
    )
}
