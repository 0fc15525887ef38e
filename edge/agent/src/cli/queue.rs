//! `tidegate-edge queue`: of the running agent over its control socket, else of the disk.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::process::ExitCode;

use comfy_table::{Table, presets};
use tidegate_edge::control::{Answer, CallError, Request, call};
use tidegate_edge::queues::at_rest::{AtRest, AtRestError};
use tidegate_edge::queues::{Direction, Dropped, MessagePicture, Page, Picture, Selection};
use tidegate_edge_queue::QueueError;
use tidegate_model::rule::Seconds;
use tidegate_model::wire::one_line;

use super::args::{Asking, DropQueue, ExportQueue, Format, Queue, ShowQueue};
use super::{ask, exit, fail, print};

/// Most characters of a payload in a table.
const SHOWN_CHARS: usize = 60;

/// Why it did not work: the exit code, and the words.
struct Failed(u8, String);

impl From<AtRestError> for Failed {
    fn from(error: AtRestError) -> Self {
        let code = match &error {
            AtRestError::Unknown { .. } => exit::NOT_FOUND,
            AtRestError::Several { .. } => exit::USAGE,
            AtRestError::Open(QueueError::Locked { .. }) => exit::CONFLICT,
            AtRestError::Read { .. }
            | AtRestError::Open(QueueError::Io { .. })
            | AtRestError::Segment(_)
            | AtRestError::Drop(_) => exit::FAILED,
        };
        Self(code, error.to_string())
    }
}

pub fn queue(command: &Queue) -> ExitCode {
    let done = match command {
        Queue::Show(args) => show(args),
        Queue::Export(args) => export(args),
        Queue::Drop(args) => drop_messages(args),
    };
    match done {
        Ok(text) => print(&text),
        Err(Failed(code, why)) => fail(code, &why),
    }
}

/// The agent's answer; `None`: no agent runs on that directory.
fn running(data_dir: &Path, request: &Request) -> Result<Option<Answer>, Failed> {
    match call(data_dir, request) {
        Ok(Answer::Error { code, detail }) => Err(Failed(ask::exit_code(code), format!("{code}: {detail}"))),
        Ok(answer) => Ok(Some(answer)),
        Err(CallError::Unreachable { .. }) => Ok(None),
        Err(error) => Err(Failed(ask::exit_code_of_call(&error), error.to_string())),
    }
}

fn unexpected() -> Failed {
    Failed(exit::FAILED, "the agent answered something else; is it of another version?".to_owned())
}

fn show(args: &ShowQueue) -> Result<String, Failed> {
    let (rule, Asking { data_dir, output }) = (&args.one.rule, &args.one.asking);
    let request = Request::QueueShow { rule: rule.clone(), count: args.count, payload: args.payload };
    let picture = match running(data_dir, &request)? {
        Some(Answer::Queue(picture)) => picture,
        Some(_) => return Err(unexpected()),
        None => AtRest::find(data_dir, rule)?.picture(args.count, args.payload)?,
    };
    Ok(match output {
        Format::Json => json(&picture),
        Format::Table => words(&picture),
    })
}

fn export(args: &ExportQueue) -> Result<String, Failed> {
    let (rule, Asking { data_dir, output }) = (&args.one.rule, &args.one.asking);
    let written = |error: std::io::Error| Failed(exit::FAILED, format!("cannot write the messages: {error}"));
    let mut out: Box<dyn Write> = match &args.out {
        Some(path) => {
            // Payloads are nobody else's business.
            let mut options = std::fs::OpenOptions::new();
            options.create(true).truncate(true).write(true).mode(0o600);
            Box::new(std::io::BufWriter::new(options.open(path).map_err(written)?))
        }
        None => Box::new(std::io::stdout().lock()),
    };
    let mut messages = 0_u64;
    let mut each = |page: Page| -> Result<(), Failed> {
        for line in &page.lines {
            serde_json::to_writer(&mut out, line).map_err(|error| written(error.into()))?;
            out.write_all(b"\n").map_err(written)?;
            messages += 1;
        }
        Ok(())
    };
    let is_running = pages(data_dir, rule, args.direction, &mut each)?;
    if !is_running {
        AtRest::find(data_dir, rule)?.export(args.direction, each)?;
    }
    out.flush().map_err(written)?;
    Ok(match (&args.out, output) {
        (None, _) => String::new(),
        (Some(path), Format::Table) => format!("{messages} messages are in {}\n", path.display()),
        (Some(path), Format::Json) => json(&serde_json::json!({ "messages": messages, "file": path })),
    })
}

/// Every page of the running agent; `false`: none runs.
fn pages(
    data_dir: &Path,
    rule: &str,
    direction: Option<Direction>,
    each: &mut dyn FnMut(Page) -> Result<(), Failed>,
) -> Result<bool, Failed> {
    for direction in Direction::ALL.into_iter().filter(|one| direction.is_none_or(|wanted| wanted == *one)) {
        for aside in [true, false] {
            let mut from = Some(0);
            while let Some(offset) = from {
                let request = Request::QueueRead { rule: rule.to_owned(), direction, aside, from: offset };
                match running(data_dir, &request)? {
                    Some(Answer::Messages(page)) => {
                        from = page.next;
                        each(page)?;
                    }
                    Some(_) => return Err(unexpected()),
                    None => return Ok(false),
                }
            }
        }
    }
    Ok(true)
}

fn drop_messages(args: &DropQueue) -> Result<String, Failed> {
    let (rule, Asking { data_dir, output }) = (&args.one.rule, &args.one.asking);
    if !args.yes {
        let why = "this gives messages up for ever; 'queue export' keeps a copy; say --yes if that is meant";
        return Err(Failed(exit::USAGE, why.to_owned()));
    }
    let before_ms = args.older_than.map(|Seconds(seconds)| {
        let age_ms = i64::try_from(seconds).unwrap_or(i64::MAX).saturating_mul(1_000);
        jiff::Timestamp::now().as_millisecond().saturating_sub(age_ms)
    });
    let selection =
        Selection { direction: args.direction, before_ms, topic: args.topic.clone(), aside: args.aside };
    let request = Request::QueueDrop { rule: rule.clone(), selection: selection.clone() };
    let dropped = match running(data_dir, &request)? {
        Some(Answer::Dropped(dropped)) => dropped,
        Some(_) => return Err(unexpected()),
        None => AtRest::find(data_dir, rule)?.drop(&selection)?,
    };
    let Dropped { dropped: count, on_their_way, has_more } = dropped;
    Ok(match output {
        Format::Json => json(&dropped),
        Format::Table => {
            let mut text = format!("{count} messages dropped\n");
            if on_their_way > 0 {
                text.push_str(&format!(
                    "{on_their_way} more stay, since they are on their way; stop the rule to drop them, too\n"
                ));
            }
            if has_more {
                text.push_str("more are meant than can be dropped one by one; drop them again later, or without --topic\n");
            }
            text
        }
    })
}

fn json(value: &impl serde::Serialize) -> String {
    let value = serde_json::to_value(value).expect("answers have string keys and no failing serializer");
    format!("{value:#}\n")
}

fn words(picture: &Picture) -> String {
    let mut out = String::new();
    for direction in &picture.directions {
        let oldest = direction.oldest_age_ms.map_or_else(|| "-".to_owned(), age);
        out.push_str(&format!(
            "{}: {} messages, {} bytes, the oldest {oldest} old; {} set aside\n",
            direction.direction.as_str(),
            direction.messages,
            direction.bytes,
            direction.set_aside
        ));
        if !direction.next.is_empty() {
            out.push_str(&messages("NEXT", &direction.next));
        }
        if !direction.aside.is_empty() {
            out.push_str(&messages("SET ASIDE", &direction.aside));
            for message in &direction.aside {
                let reason = message.reason.as_deref().unwrap_or("-");
                out.push_str(&format!("  {}: {reason}\n", message.offset));
            }
        }
    }
    out
}

fn messages(title: &str, messages: &[MessagePicture]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    let has_payload = messages.iter().any(|message| message.payload.is_some());
    let mut header = vec![title, "AGE", "BYTES", "QOS", "RETAIN", "TOPIC"];
    header.extend(has_payload.then_some("PAYLOAD"));
    table.set_header(header);
    for message in messages {
        let mut row = vec![
            message.offset.to_string(),
            message.age_ms.map_or_else(|| "-".to_owned(), age),
            message.bytes.to_string(),
            message.qos.to_string(),
            if message.retain { "yes" } else { "no" }.to_owned(),
            one_line(&message.topic),
        ];
        row.extend(message.payload.as_deref().map(payload));
        table.add_row(row);
    }
    ask::finish(table)
}

/// The beginning of a payload as far as it is text.
fn payload(base64: &str) -> String {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    let bytes = STANDARD.decode(base64).unwrap_or_default();
    one_line(&String::from_utf8_lossy(&bytes)).chars().take(SHOWN_CHARS).collect()
}

fn age(age_ms: u64) -> String {
    Seconds(age_ms / 1_000).to_string()
}
