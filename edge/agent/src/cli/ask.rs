//! Commands that ask the running agent: the question, the exit code, the words.

use std::process::ExitCode;

use comfy_table::{Table, presets};
use tidegate_edge::control::{Answer, CallError, Request, Rules, Status, call};
use tidegate_edge_core::RuleView;
use tidegate_model::code::Code;
use tidegate_model::ids::RuleName;
use tidegate_model::wire::Origin;

use super::args::{Asking, Format};
use super::{exit, fail, print};

pub fn ask(asking: &Asking, request: &Request) -> ExitCode {
    let answer = match call(&asking.data_dir, request) {
        Ok(answer) => answer,
        Err(error) => {
            return fail(exit_code_of_call(&error), &error);
        }
    };
    if let Answer::Error { code, detail } = &answer {
        return fail(exit_code(*code), &format_args!("{code}: {detail}"));
    }
    match asking.output {
        Format::Json => print(&json(&answer)),
        Format::Table => print(&words(&answer)),
    }
}

/// The exit code for an agent that could not be asked.
pub fn exit_code_of_call(error: &CallError) -> u8 {
    match error {
        CallError::Unreachable { .. } => exit::UNREACHABLE,
        CallError::NotAllowed { .. } => exit::NOT_ALLOWED,
        CallError::Answer(_) => exit::TIMED_OUT,
    }
}

/// The exit code for an agent's refusal.
pub fn exit_code(code: Code) -> u8 {
    match code.number() {
        404 => exit::NOT_FOUND,
        403 => exit::NOT_ALLOWED,
        409 => exit::CONFLICT,
        _ => exit::FAILED,
    }
}

/// The object itself; a list as `{"items": […]}`.
fn json(answer: &Answer) -> String {
    let value = match answer {
        Answer::Status(status) => serde_json::to_value(status),
        Answer::Rules(rules) => serde_json::to_value(rules),
        Answer::Done { changed } => Ok(serde_json::json!({ "changed": changed })),
        Answer::Queue(picture) => serde_json::to_value(picture),
        Answer::Messages(page) => serde_json::to_value(page),
        Answer::Dropped(dropped) => serde_json::to_value(dropped),
        Answer::Error { code, detail } => Ok(serde_json::json!({ "code": code, "detail": detail })),
    };
    let value = value.expect("answers have string keys and no failing serializer");
    format!("{value:#}\n")
}

fn words(answer: &Answer) -> String {
    match answer {
        Answer::Status(status) => status_words(status),
        Answer::Rules(rules) => rules_words(rules),
        Answer::Done { changed: true } => "done\n".to_owned(),
        Answer::Done { changed: false } => "it was so already\n".to_owned(),
        Answer::Queue(_) | Answer::Messages(_) | Answer::Dropped(_) => json(answer),
        Answer::Error { detail, .. } => format!("{detail}\n"),
    }
}

fn rules_words(rules: &Rules) -> String {
    let mut out = if rules.items.is_empty() {
        "no rules on this gateway; they are issued from the cloud, stand in the rules directory, or are applied here\n"
            .to_owned()
    } else {
        table(&rules.items)
    };
    for trouble in &rules.file_troubles {
        let what = tidegate_edge::located(&trouble.file, &trouble.detail);
        out.push_str(&format!("\n{}: {what}\n", trouble.code));
        if let Some(rule) = &trouble.keeps {
            out.push_str(&format!("  the rule '{rule}' stays as it was\n"));
        }
    }
    out
}

fn table(rules: &[RuleView]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["RULE", "FROM", "VERSION", "RUN STATE", "QUEUED", "FORWARDED", "RECEIVED", "REASON"]);
    for rule in rules {
        let version = rule.running.map_or_else(|| "-".to_owned(), |running| running.version.to_string());
        let from = match (&rule.origin, &rule.file) {
            (Origin::Cloud, _) => "cloud",
            (Origin::Local, Some(file)) => file,
            (Origin::Local, None) => "here",
        };
        table.add_row([
            rule.name.to_string(),
            from.to_owned(),
            version,
            rule.run.state.to_string(),
            rule.counters.queued.to_string(),
            rule.counters.forwarded.to_string(),
            rule.counters.received.to_string(),
            reason(rule),
        ]);
    }
    finish(table)
}

/// The text of a table: two blanks between columns, none at the end of a line.
pub fn finish(mut table: Table) -> String {
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    format!("{}\n", table.trim_fmt())
}

/// What somebody has to know beside the state: a removed file, a fault, a change that failed.
fn reason(rule: &RuleView) -> String {
    if rule.withdrawn {
        return "its file is gone, its queue is kept: put the file back, or 'rule remove --discard'"
            .to_owned();
    }
    let failed = rule.last_code.filter(|code| !code.is_success());
    let failed = failed.map(|code| format!("the last change failed with {code}: {}", rule.last_detail));
    let fault = rule.run.fault.as_ref().map(|fault| format!("{}: {}", fault.code, fault.detail));
    let full = rule.run.queue_full.map(|full| {
        let who = match (full.forwards, full.subscriptions) {
            (_, false) => "devices wait",
            (false, true) => "the remote broker waits",
            (true, true) => "devices and the remote broker wait",
        };
        format!("QUEUE_FULL: the queue is full, {who} for their acknowledgement")
    });
    let aside = (rule.counters.set_aside > 0).then(|| {
        let count = rule.counters.set_aside;
        format!(
            "{count} messages set aside that the broker does not take, see 'tidegate-edge queue show {}'",
            rule.name
        )
    });
    [fault, full, aside, failed].into_iter().flatten().collect::<Vec<_>>().join("; ")
}

/// Rules that one line names at the most.
const NAMED: usize = 5;

/// Which queues are full, as a line of the status.
fn full_queues(rules: &[RuleName]) -> Option<String> {
    let named: Vec<&str> = rules.iter().take(NAMED).map(RuleName::as_str).collect();
    let more = rules.len().saturating_sub(NAMED);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    let line = format!(
        "queue full  {}{more}: whoever sends waits; 'tidegate-edge rules' says who\n",
        named.join(", ")
    );
    (!rules.is_empty()).then_some(line)
}

fn status_words(status: &Status) -> String {
    let link = serde_json::to_value(status.link).ok();
    let link = link.as_ref().and_then(|value| value.as_str()).unwrap_or("unknown").to_owned();
    let mut out = format!("edge        {} (agent {})\n", status.edge, status.version);
    match &status.controller {
        Some(controller) => {
            out.push_str(&format!("controller  {controller} ({link})\n"));
            if let Some(why) = &status.controller_trouble {
                out.push_str(&format!("            {why}\n"));
            }
            out.push_str(&format!("session     {}\n", status.session));
        }
        None => out.push_str("controller  none, this agent runs its own rules\n"),
    }
    out.push_str(&format!("local       {}\nrules       {}\n", status.local, status.rules));
    out.extend(full_queues(&status.full_queues));
    if let Some(dir) = &status.rules_dir {
        out.push_str(&format!("rules dir   {}\n", dir.display()));
    }
    if let Some(why) = &status.rules_dir_trouble {
        out.push_str(&format!("            {why}; the rules stay as they are\n"));
    }
    if status.file_troubles > 0 {
        let count = status.file_troubles;
        out.push_str(&format!("            {count} of its files in trouble; see 'tidegate-edge rules'\n"));
    }
    out
}
