//! The running agent: does it answer, how are its rules, what waits in its queues. Where none runs, what lies on the disk.

use std::path::Path;

use tidegate_edge_core::{FileTrouble, RuleView};
use tidegate_model::code::FaultCode;
use tidegate_model::doctor::Check;
use tidegate_model::placement::RunState;

use super::{bounded, span};
use crate::control::{Answer, CallError, Request, Rules, Status, call};
use crate::rules_dir;
use crate::settings::AgentConfig;

/// A message that waits for so long, in milliseconds, is worth a word.
const WAITS_MS: u64 = 10 * 60 * 1_000;
/// Files of queues that are counted at the most.
const MAX_FILES: usize = 100_000;

/// Whether an agent runs on this data directory.
#[derive(Debug)]
pub(super) enum Running {
    /// It answers.
    Yes(Box<Status>, Rules),
    /// Nobody listens.
    No,
    /// It belongs to somebody else.
    NotAllowed(String),
    /// Somebody listens and does not answer as an agent does.
    Stuck(String),
}

impl Running {
    /// What it says of itself, if it says something.
    pub fn status(&self) -> Option<&Status> {
        match self {
            Self::Yes(status, _) => Some(status),
            Self::No | Self::NotAllowed(_) | Self::Stuck(_) => None,
        }
    }
}

/// Asks it.
pub(super) async fn ask(dir: &Path) -> Running {
    let dir = dir.to_owned();
    let asked = tokio::task::spawn_blocking(move || match call(&dir, &Request::Status)? {
        Answer::Status(status) => Ok((status, call(&dir, &Request::Rules)?)),
        other @ (Answer::Rules(_)
        | Answer::Done { .. }
        | Answer::Queue(_)
        | Answer::Messages(_)
        | Answer::Dropped(_)
        | Answer::Error { .. }) => Err(strange(&other)),
    });
    match asked.await {
        Ok(Ok((status, Answer::Rules(rules)))) => Running::Yes(status, rules),
        Ok(Ok((_, other))) => Running::Stuck(strange(&other).to_string()),
        Ok(Err(CallError::Unreachable { .. })) => Running::No,
        Ok(Err(error @ CallError::NotAllowed { .. })) => Running::NotAllowed(error.to_string()),
        Ok(Err(error @ CallError::Answer(_))) => Running::Stuck(error.to_string()),
        Err(error) => Running::Stuck(error.to_string()),
    }
}

fn strange(answer: &Answer) -> CallError {
    let why = match answer {
        Answer::Error { code, detail } => format!("{code}: {detail}"),
        Answer::Status(_)
        | Answer::Rules(_)
        | Answer::Done { .. }
        | Answer::Queue(_)
        | Answer::Messages(_)
        | Answer::Dropped(_) => "another answer".to_owned(),
    };
    CallError::Answer(std::io::Error::other(why))
}

/// The process that holds the directory, as it wrote itself down, if it lives.
pub(super) fn holder(dir: &Path) -> Option<String> {
    let text = std::fs::read_to_string(dir.join("lock")).ok()?;
    let pid: u32 = text.trim().parse().ok()?;
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    name.starts_with("tidegate").then(|| pid.to_string())
}

/// Whether an agent answers, and whether it is the one that these settings make.
pub(super) fn answers(running: &Running, holder: Option<&str>, config: &AgentConfig, dir: &Path) -> Check {
    const NAME: &str = "agent";
    let dir = dir.display();
    match (running, holder) {
        (Running::Yes(status, _), _) => {
            let own = env!("CARGO_PKG_VERSION");
            let Status { edge, version, .. } = &**status;
            if *edge != config.name {
                let why = format!(
                    "the one that runs on {dir} is the gateway {edge}, and these settings are of {}",
                    config.name
                );
                let fix = "look with the settings of the service (--config), or restart the agent";
                Check::warn(NAME, why, fix)
            } else if version != own {
                let why = format!("version {version} runs, and {own} is installed");
                Check::warn(NAME, why, "systemctl restart tidegate-edge; no message is lost by that")
            } else {
                Check::ok(NAME, format!("version {version} runs as the gateway {edge} and answers"))
            }
        }
        (Running::No, Some(pid)) | (Running::Stuck(_), Some(pid)) => {
            let why = format!("process {pid} uses {dir} and does not answer");
            let fix = "it may be starting: try again; if it lasts, read its log (journalctl -u tidegate-edge) and restart it";
            Check::bad(NAME, why, fix)
        }
        (Running::No, None) => {
            let why = format!("none runs with {dir}");
            let fix = "systemctl start tidegate-edge; journalctl -u tidegate-edge says why it ended";
            Check::warn(NAME, why, fix)
        }
        (Running::NotAllowed(why), _) => Check::bad(NAME, why, "run this as root or as the agent's user"),
        (Running::Stuck(why), None) => {
            Check::bad(NAME, why, "read the agent's log (journalctl -u tidegate-edge) and restart it")
        }
    }
}

/// How the rules are.
pub(super) fn rules(rules: &[RuleView]) -> Vec<Check> {
    const NAME: &str = "rules";
    let mut lines = Vec::new();
    for rule in rules {
        let name = &rule.name;
        if let Some(fault) = &rule.run.fault {
            lines.push(Check::bad(
                NAME,
                format!("{name}: {}: {}", fault.code, fault.detail),
                mend(fault.code),
            ));
        }
        if rule.withdrawn {
            let why = format!("{name}: its file is gone, and messages wait in its queue");
            let fix = format!("put the file back, or lose them: tidegate-edge rule remove {name} --discard");
            lines.push(Check::warn(NAME, why, fix));
        }
        if let Some(code) = rule.last_code.filter(|code| !code.is_success()) {
            let why = format!("{name}: the last change failed with {code}: {}", rule.last_detail);
            let fix = match rule.running {
                Some(at) => format!(
                    "correct the rule, in the cloud or in its file; v{} goes on as it was",
                    at.version
                ),
                // It was the first one: there is nothing that could go on.
                None => "correct the rule, in the cloud or in its file; nothing of it runs here until then"
                    .to_owned(),
            };
            lines.push(Check::warn(NAME, why, fix));
        }
    }
    let more = |n| Check::bad(NAME, format!("{n} more"), "tidegate-edge rules");
    let mut lines = bounded(lines, more);
    if lines.is_empty() {
        let run = rules.iter().filter(|rule| rule.run.state == RunState::Running).count();
        let why = match rules.len() {
            0 => "none yet".to_owned(),
            all => format!("{all} here, {run} running, {} stopped", all - run),
        };
        lines.push(Check::ok(NAME, why));
    }
    lines
}

/// What to do about a fault.
fn mend(code: FaultCode) -> &'static str {
    match code {
        FaultCode::Dns => {
            "check the host name in the rule and this gateway's DNS server; it is tried again by itself"
        }
        FaultCode::Tcp => {
            "check that the remote broker runs, its address, firewall and VPN; it is tried again by itself"
        }
        FaultCode::TlsUntrusted | FaultCode::TlsName | FaultCode::TlsClientCert => {
            "check the certificates of the remote broker and of the rule"
        }
        FaultCode::Auth | FaultCode::NotAuthorized => {
            "correct user name and password in the rule, or the remote broker's access rules"
        }
        FaultCode::SubscribeRefused => {
            "correct the subscriptions of the rule, or the remote broker's access rules"
        }
        FaultCode::KeepAlive => {
            "check the link to the remote broker: it is silent; it is tried again by itself"
        }
        FaultCode::QueueFull => {
            "mend what keeps the rule from sending, or give it a larger queue (queue.max_bytes)"
        }
        FaultCode::Disk => "free space on this gateway, or replace its disk: dmesg says whether it is broken",
        FaultCode::LocalBroker => "start the local broker, or correct [local] in the settings",
        FaultCode::Config | FaultCode::Unknown => "correct the rule; the agent may be too old for it",
    }
}

/// Rule files of the site, as the running agent sees them.
pub(super) fn files(status: &Status, troubles: &[FileTrouble]) -> Vec<Check> {
    const NAME: &str = "rule files";
    let Some(dir) = &status.rules_dir else { return Vec::new() };
    if let Some(why) = &status.rules_dir_trouble {
        return vec![Check::bad(NAME, why, "check the directory and its rights; the rules stay as they are")];
    }
    let line = |trouble: &FileTrouble| {
        Check::bad(
            NAME,
            rules_dir::located(&trouble.file, &trouble.detail),
            "correct the file; it is read again by itself",
        )
    };
    let more = |n| Check::bad(NAME, format!("{n} more"), "tidegate-edge rules");
    let lines = bounded(troubles.iter().map(line).collect(), more);
    if lines.is_empty() {
        vec![Check::ok(NAME, format!("all of {} are taken up", dir.display()))]
    } else {
        lines
    }
}

/// The same where no agent runs.
pub(super) fn files_at_rest(config: &AgentConfig, dir: &Path) -> Check {
    const NAME: &str = "rule files";
    match rules_dir::check(config, dir) {
        Ok(problems) if problems.is_empty() => {
            Check::ok(NAME, format!("all of {} can be used", dir.display()))
        }
        Ok(problems) => {
            let first = problems.iter().flat_map(|problem| problem.lines()).next().unwrap_or_default();
            let why = format!("{} in trouble, the first: {first}", problems.len());
            Check::bad(NAME, why, "tidegate-edge run --check tells all of them")
        }
        Err(why) => Check::bad(NAME, why, "check the directory and its rights"),
    }
}

/// What waits in the queues, and what was given up.
pub(super) fn queues(rules: &[RuleView]) -> Vec<Check> {
    const NAME: &str = "queues";
    let mut lines = Vec::new();
    for RuleView { name, counters, run, .. } in rules {
        if counters.queued > 0 && counters.oldest_age_ms > WAITS_MS {
            let why = format!(
                "{name}: {} messages wait, the oldest for {}",
                counters.queued,
                span(counters.oldest_age_ms)
            );
            let fix = if run.state == RunState::Running {
                "the remote broker takes them more slowly than they come: look at it and at the link"
            } else {
                "they are sent when the rule runs again: see its line above"
            };
            lines.push(Check::warn(NAME, why, fix));
        }
        if run.queue_full.is_some() {
            let why = format!("{name}: QUEUE_FULL: the queue is full, and whoever sends waits");
            lines.push(Check::bad(NAME, why, mend(FaultCode::QueueFull)));
        }
        if counters.set_aside > 0 {
            let why = format!(
                "{name}: {} messages are set aside: the broker does not take them",
                counters.set_aside
            );
            let fix = format!(
                "'tidegate-edge queue show {name}' says which and why; raise the broker's limit, or drop them there with --aside"
            );
            lines.push(Check::warn(NAME, why, fix));
        }
        let lost: Vec<String> = counters
            .dropped
            .0
            .iter()
            .filter(|(_, n)| **n > 0)
            .map(|(why, n)| format!("{why}: {n}"))
            .collect();
        if !lost.is_empty() {
            let why =
                format!("{name}: messages were given up since its queue was made ({})", lost.join(", "));
            lines.push(Check::warn(NAME, why, "docs/operations.md says what each reason means; a larger queue.max_bytes or queue.max_age keeps more"));
        }
    }
    let more = |n| Check::warn(NAME, format!("{n} more"), "tidegate-edge rules");
    let mut lines = bounded(lines, more);
    if lines.is_empty() {
        let waiting: u64 = rules.iter().map(|rule| rule.counters.queued).sum();
        lines.push(Check::ok(NAME, format!("{waiting} messages wait, none for long")));
    }
    lines
}

/// What lies in the queues where no agent runs.
pub(super) fn queues_at_rest(dir: &Path) -> Check {
    let (mut bytes, mut files) = (0_u64, 0_usize);
    let mut rest = vec![dir.to_owned()];
    while let Some(dir) = rest.pop() {
        for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
            files += 1;
            if files > MAX_FILES {
                return Check::warn(
                    "queues",
                    format!("more than {MAX_FILES} files"),
                    "start the agent, which sends what waits",
                );
            }
            match entry.metadata() {
                Ok(found) if found.is_dir() => rest.push(entry.path()),
                Ok(found) => bytes += found.len(),
                // It may be gone by now.
                Err(_) => {}
            }
        }
    }
    Check::ok("queues", format!("about {} KiB lie on the disk", bytes.div_ceil(1024)))
}

#[cfg(test)]
mod tests {
    use super::super::{NAMED, told::result};
    use super::*;
    use std::collections::BTreeMap;
    use tidegate_edge_core::{Drops, LinkView};
    use tidegate_model::code::Code;
    use tidegate_model::doctor::Outcome;
    use tidegate_model::ids::{RuleId, RuleName, SessionId, StoreId};
    use tidegate_model::time::Wall;
    use tidegate_model::version::Generation;
    use tidegate_model::wire::{By, Counters, DesiredRun, Dropped, Fault, Origin, QueueFull, RunReport};

    fn config(name: &str) -> AgentConfig {
        let given = crate::settings::Flags {
            name: Some(name.to_owned()),
            controller_url: Some("mqtt://h".to_owned()),
            ..Default::default()
        };
        AgentConfig::from_process(None, &given).unwrap()
    }

    fn status(edge: &str, version: &str) -> Status {
        Status {
            edge: tidegate_model::ids::EdgeId::new(edge).unwrap(),
            version: version.to_owned(),
            link: LinkView::Welcomed,
            session: SessionId { store: StoreId(1), epoch: 1 },
            controller: None,
            controller_trouble: None,
            controller_epoch: 0,
            clock_skew_ms: None,
            local: "127.0.0.1:1883".to_owned(),
            rules: 0,
            full_queues: Vec::new(),
            drops: Drops::default(),
            rules_dir: Some("/rules".into()),
            rules_dir_trouble: None,
            file_troubles: 0,
        }
    }

    fn rule(name: &str, state: RunState) -> RuleView {
        RuleView {
            rule: RuleId(uuid::Uuid::nil()),
            name: RuleName::new(name).unwrap(),
            generation: Generation(1),
            running: None,
            candidate: None,
            run_desired: DesiredRun::Running,
            run: RunReport {
                sequence: 1,
                state,
                fault: None,
                by: By::Agent,
                since: Wall(0),
                flapping: None,
                queue_full: None,
            },
            last_code: Some(Code::Ok),
            last_detail: String::new(),
            counters: Counters::default(),
            origin: Origin::Local,
            file: None,
            withdrawn: false,
        }
    }

    fn results(checks: &[Check]) -> Vec<Outcome> {
        checks.iter().map(result).collect()
    }

    #[test]
    fn an_agent_answers_or_it_is_told_why_not() {
        let dir = Path::new("/data");
        let own = env!("CARGO_PKG_VERSION");
        let yes = |edge, version| {
            Running::Yes(Box::new(status(edge, version)), Rules { items: vec![], file_troubles: vec![] })
        };
        let why = || "why".to_owned();
        for (running, holder, expected, words) in [
            (yes("gw-7", own), Some("7"), Outcome::Ok, "runs as the gateway gw-7"),
            (yes("gw-7", "0.0.1"), Some("7"), Outcome::Warn, "version 0.0.1 runs"),
            (yes("gw-8", own), Some("7"), Outcome::Warn, "is the gateway gw-8"),
            (Running::No, None, Outcome::Warn, "none runs with /data"),
            (Running::No, Some("7"), Outcome::Bad, "process 7 uses /data"),
            (Running::Stuck(why()), Some("7"), Outcome::Bad, "process 7 uses /data"),
            (Running::Stuck(why()), None, Outcome::Bad, "why"),
            (Running::NotAllowed(why()), Some("7"), Outcome::Bad, "why"),
        ] {
            let check = answers(&running, holder, &config("gw-7"), dir);
            assert_eq!(result(&check), expected, "{running:?}");
            assert!(check.why.contains(words), "{check:?}");
        }
    }

    #[tokio::test]
    async fn nobody_there_is_told_from_somebody_who_does_not_speak_our_words() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(ask(dir.path()).await, Running::No));
        let listener = std::os::unix::net::UnixListener::bind(dir.path().join("control.sock")).unwrap();
        let other = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            std::io::Write::write_all(&mut stream, b"hello\n").unwrap();
        });
        assert!(matches!(ask(dir.path()).await, Running::Stuck(_)));
        other.join().unwrap();
        // A lock whose holder is gone, or is another program by now.
        std::fs::write(dir.path().join("lock"), "1\n").unwrap();
        assert_eq!(holder(dir.path()), None);
    }

    #[test]
    fn every_fault_says_what_to_do_and_long_lists_are_cut() {
        let faulty = |code| RuleView {
            run: RunReport {
                fault: Some(Fault { code, detail: "no way".into() }),
                ..rule("a", RunState::PausedFault).run
            },
            ..rule("a", RunState::PausedFault)
        };
        let codes = [FaultCode::Dns, FaultCode::Auth, FaultCode::Disk, FaultCode::LocalBroker];
        let told = rules(&codes.map(faulty));
        assert_eq!(results(&told), [Outcome::Bad; 4]);
        assert_eq!(told[1].why, "a: AUTH: no way");
        assert_eq!(rules(&[FaultCode::Tcp; 7].map(faulty)).len(), NAMED + 1);
    }

    #[test]
    fn rules_are_counted_where_nothing_is_wrong() {
        assert_eq!(rules(&[])[0].why, "none yet");
        let told = rules(&[rule("a", RunState::Running), rule("b", RunState::PausedManual)]);
        assert_eq!(
            (results(&told), told[0].why.as_str()),
            (vec![Outcome::Ok], "2 here, 1 running, 1 stopped")
        );
        let failed = RuleView {
            last_code: Some(Code::RemoteAuth),
            last_detail: "refused".into(),
            ..rule("a", RunState::Running)
        };
        assert_eq!(results(&rules(&[failed])), [Outcome::Warn]);
        let gone = RuleView { withdrawn: true, ..rule("a", RunState::PausedManual) };
        assert!(rules(&[gone])[0].fix.contains("--discard"));
    }

    #[test]
    fn after_a_failure_it_is_said_what_goes_on() {
        use tidegate_model::placement::VersionDigest;
        let failed = |running| RuleView {
            last_code: Some(Code::RemoteAuth),
            last_detail: "the login was refused".into(),
            running,
            ..rule("a", RunState::NotRunning)
        };
        let first = rules(&[failed(None)]);
        assert_eq!(results(&first), [Outcome::Warn]);
        assert!(first[0].fix.contains("nothing of it runs here"), "{first:?}");
        let before = VersionDigest::removal(tidegate_model::version::RuleVersion(6));
        let later = rules(&[failed(Some(before))]);
        assert!(later[0].fix.ends_with("v6 goes on as it was"), "{later:?}");
    }

    #[test]
    fn rule_files_are_judged_with_and_without_an_agent() {
        let fine = status("gw-7", "1.0.0");
        assert_eq!(results(&files(&fine, &[])), [Outcome::Ok]);
        assert_eq!(files(&Status { rules_dir: None, ..fine.clone() }, &[]), []);
        let unreadable = Status { rules_dir_trouble: Some("gone".into()), ..fine.clone() };
        assert_eq!(results(&files(&unreadable, &[])), [Outcome::Bad]);
        let trouble = FileTrouble {
            file: "a.toml".into(),
            code: Code::InvalidConfig,
            detail: "line 3".into(),
            keeps: None,
        };
        assert_eq!(files(&fine, &[trouble])[0].why, "a.toml: line 3");

        let dir = tempfile::tempdir().unwrap();
        let judged = || files_at_rest(&config("gw-7"), dir.path());
        assert_eq!(result(&judged()), Outcome::Ok);
        std::fs::write(dir.path().join("a.toml"), "name = ").unwrap();
        assert!(result(&judged()) == Outcome::Bad && judged().why.contains("a.toml"), "{:?}", judged());
        assert_eq!(result(&files_at_rest(&config("gw-7"), &dir.path().join("gone"))), Outcome::Bad);
    }

    #[test]
    fn what_waits_long_or_was_given_up_is_told() {
        let queued = |queued, oldest_age_ms| RuleView {
            counters: Counters { queued, oldest_age_ms, ..Counters::default() },
            ..rule("a", RunState::Running)
        };
        assert_eq!(queues(&[queued(3, WAITS_MS)])[0].why, "3 messages wait, none for long");
        let told = queues(&[queued(3, WAITS_MS + 1)]);
        assert_eq!(
            (results(&told), told[0].why.as_str()),
            (vec![Outcome::Warn], "a: 3 messages wait, the oldest for 10 min")
        );
        let lossy = RuleView {
            counters: Counters {
                dropped: Dropped(BTreeMap::from([("full".into(), 2), ("age".into(), 0)])),
                ..Counters::default()
            },
            ..rule("a", RunState::Running)
        };
        assert!(queues(&[lossy])[0].why.ends_with("(full: 2)"));
        let aside = RuleView {
            counters: Counters { set_aside: 2, ..Counters::default() },
            ..rule("a", RunState::Running)
        };
        assert!(queues(&[aside])[0].why.starts_with("a: 2 messages are set aside"));
        let mut full = rule("a", RunState::Running);
        full.run.queue_full = Some(QueueFull { since: Wall(1), forwards: true, subscriptions: false });
        assert_eq!(results(&queues(&[full])), [Outcome::Bad]);
    }

    #[test]
    fn the_queues_of_an_agent_that_is_away_are_measured() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(queues_at_rest(&dir.path().join("none")).why, "about 0 KiB lie on the disk");
        std::fs::create_dir_all(dir.path().join("rule/out")).unwrap();
        std::fs::write(dir.path().join("rule/out/1.seg"), vec![0; 3_000]).unwrap();
        assert_eq!(queues_at_rest(dir.path()).why, "about 3 KiB lie on the disk");
    }
}
