//! `tidegate-edge doctor`: what can be wrong with a gateway, from its settings to the controller. Each line says how it is,
//! why, and what to do. Nothing is changed, and a running agent is not disturbed.
//!
//! Each module looks at one thing (`look_…`, `ask`) and judges what was found in pure functions. This file says in which
//! order, and what is left out because something else did not work.

mod agent;
mod clock;
mod cloud;
mod local;
mod place;

use std::path::Path;

use tidegate_model::doctor::Check;

use crate::settings::{AgentConfig, Flags, InvalidSettings, Problem};
use agent::Running;

/// Lines of one kind that are told one by one at the most.
const NAMED: usize = 5;

/// Looks at everything that these settings name. Takes half a minute at the most.
pub async fn examine(file: Option<&Path>, flags: &Flags) -> Vec<Check> {
    let mut checks = Vec::new();
    let config = match AgentConfig::from_process(file, flags) {
        Ok(config) => config,
        Err(problems) => return settings_are_wrong(file, &problems),
    };
    let from = file
        .map_or_else(|| "the environment and the command line".to_owned(), |file| file.display().to_string());
    checks.push(Check::ok("settings", format!("{from}: they can be used, for the gateway {}", config.name)));
    let secrets = AgentConfig::secret_files(file, flags);
    checks.extend(place::secrets(&secrets.iter().map(|file| place::look_at_file(file)).collect::<Vec<_>>()));
    let dir = &config.data_dir;
    checks.extend(place::directory(&place::look(dir)));
    checks.extend(place::room(dir));
    let running = agent::ask(dir).await;
    checks.push(agent::answers(&running, agent::holder(dir).as_deref(), &config, dir));
    checks.push(clock::judge(&clock::look(dir, running.status())));
    checks.extend(local::side(&config, &running).await);
    checks.extend(cloud::controller(&config, &running).await);
    match &running {
        Running::Yes(status, rules) => {
            checks.extend(agent::rules(&rules.items));
            checks.extend(agent::files(status, &rules.file_troubles));
            checks.extend(agent::queues(&rules.items));
        }
        Running::No | Running::NotAllowed(_) | Running::Stuck(_) => {
            checks.push(Check::skipped("rules", "only a running agent tells of them"));
            checks.extend(config.rules_dir.as_deref().map(|rules| agent::files_at_rest(&config, rules)));
            checks.push(agent::queues_at_rest(&dir.join("queues")));
        }
    }
    checks
}

fn settings_are_wrong(file: Option<&Path>, InvalidSettings(problems): &InvalidSettings) -> Vec<Check> {
    let fix = match file {
        Some(_) => "correct the file; tidegate-edge run --check looks at it again",
        None => "name the file that the service uses: --config FILE (systemctl cat tidegate-edge shows it)",
    };
    let line = |Problem { place, what }: &Problem| Check::bad("settings", format!("{place}: {what}"), fix);
    let rest = Check::skipped("everything else", "without settings nobody knows where to look");
    problems.iter().map(line).chain([rest]).collect()
}

/// At most [`NAMED`] of these lines, and one that counts the others.
fn bounded(mut lines: Vec<Check>, more: impl FnOnce(usize) -> Check) -> Vec<Check> {
    let left_out = lines.len().saturating_sub(NAMED);
    if left_out > 0 {
        lines.truncate(NAMED);
        lines.push(more(left_out));
    }
    lines
}

/// A time span in one unit, for people.
fn span(ms: u64) -> String {
    let (seconds, minute, hour, day) = (ms / 1_000, 60, 3_600, 86_400);
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / minute),
        7_200..172_800 => format!("{} h", seconds / hour),
        172_800.. => format!("{} days", seconds / day),
    }
}

/// What is asked of the lines in tests.
#[cfg(test)]
mod told {
    use tidegate_model::doctor::{Check, Outcome};

    /// How a line came out; who complains says what to do.
    #[track_caller]
    pub fn result(check: &Check) -> Outcome {
        assert_eq!(check.fix.is_empty(), !check.is_trouble(), "{check:?}");
        check.result
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_model::doctor::Outcome;

    #[test]
    fn wrong_settings_are_told_one_by_one_and_nothing_else_is_looked_at() {
        let problem = |place: &str| Problem { place: place.to_owned(), what: "it is missing".to_owned() };
        let wrong = InvalidSettings(vec![problem("name"), problem("controller.url")]);
        let lines = settings_are_wrong(None, &wrong);
        let results: Vec<Outcome> = lines.iter().map(told::result).collect();
        assert_eq!(results, [Outcome::Bad, Outcome::Bad, Outcome::Skipped]);
        assert_eq!(lines[1].why, "controller.url: it is missing");
        assert!(lines[0].fix.contains("--config"), "{}", lines[0].fix);
        assert!(settings_are_wrong(Some(Path::new("a.toml")), &wrong)[0].fix.contains("--check"));
    }

    #[test]
    fn long_lists_are_cut_and_counted() {
        let lines = |n: usize| (0..n).map(|_| Check::bad("rules", "x", "y")).collect::<Vec<_>>();
        let more = |n: usize| Check::bad("rules", format!("{n} more"), "y");
        assert_eq!(bounded(lines(NAMED), more).len(), NAMED);
        let cut = bounded(lines(NAMED + 2), more);
        assert_eq!((cut.len(), cut[NAMED].why.as_str()), (NAMED + 1, "2 more"));
    }

    #[test]
    fn spans_are_told_in_one_unit() {
        let spans =
            [(0, "0 s"), (119_999, "119 s"), (120_000, "2 min"), (7_200_000, "2 h"), (172_800_000, "2 days")];
        for (ms, told) in spans {
            assert_eq!(span(ms), told);
        }
    }
}
