//! Watches placements until each has got where it should, has failed, or time is up. Reads the state first, then
//! again with each event of the server, and every two seconds in case that an event was lost.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;
use tidegate_model::placement::RunState;
use tokio::time::{Instant, sleep, sleep_until};

use super::Session;
use super::judge::{Verdict, judge, state_text};
use crate::api::{self, Placement};
use crate::args::Goal;
use crate::client::{ClientError, Watch, segment};
use crate::failure::Failure;
use crate::output::Out;
use crate::signals;

/// How often the state is read although no event came.
const POLL: Duration = Duration::from_secs(2);
/// Events within this time lead to one reading.
const SETTLE: Duration = Duration::from_millis(50);

/// One placement that is waited for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The rule.
    pub rule: String,
    /// The edge.
    pub edge: String,
    /// Where it should get.
    pub goal: Goal,
    /// The operation that should bring it there: when it has ended, its end counts.
    pub operation: Option<String>,
}

impl Wanted {
    /// `camera-up on gateway-1`
    pub fn shown(&self) -> String {
        format!("{} on {}", self.rule, self.edge)
    }

    /// How it stands among what the server told.
    fn verdict(&self, placements: &[Placement]) -> Verdict {
        let Some(placement) = placements.iter().find(|p| p.rule == self.rule && p.edge == self.edge) else {
            return Verdict::Failed(format!("{} is not placed on {} any more", self.rule, self.edge));
        };
        let verdict = judge(self.goal, placement);
        let under_way = placement.in_flight.as_ref().map(|flight| &flight.id);
        match (&self.operation, verdict) {
            // Its own operation has to end before an old state counts as the new one.
            (Some(own), Verdict::Reached | Verdict::Failed(_)) if under_way == Some(own) => {
                Verdict::Waiting(state_text(placement))
            }
            // It ended and the goal is not there, nor on its way: waiting longer brings nothing.
            (Some(own), Verdict::Waiting(state)) if self.goal == Goal::Issued && under_way != Some(own) => {
                match &placement.in_flight {
                    Some(_) => Verdict::Waiting(state),
                    None => Verdict::Failed(state),
                }
            }
            // The gateway carried the start out, and the remote broker is away: it runs when that is back.
            (Some(_), Verdict::Waiting(_)) if self.goal == Goal::Running && is_started(placement) => {
                Verdict::Reached
            }
            (Some(_) | None, verdict) => verdict,
        }
    }
}

/// Whether the gateway does all that it can for the rule to run.
fn is_started(placement: &Placement) -> bool {
    let told = placement.in_flight.is_none() && !placement.last_known;
    told && placement.run_state == RunState::PausedFault && placement.desired_run == "running"
}

/// What became of everything that was waited for.
#[derive(Debug, Default)]
pub struct Followed {
    /// In the order in which it was wanted.
    pub ends: Vec<(Wanted, Verdict)>,
    /// The same placements as the server told them last, for programs.
    pub placements: Vec<Value>,
    /// Time was up.
    pub timed_out: bool,
}

/// Waits. With `fail_fast` the first failure ends it, else everything comes to its own end.
///
/// # Errors
/// [`Failure::Client`] when the state cannot be read at first, unless an operation was begun already; [`Failure::Interrupted`] with `on_interrupt` after Ctrl-C.
pub async fn follow(
    session: &Session,
    wanted: Vec<Wanted>,
    timeout: Duration,
    fail_fast: bool,
    on_interrupt: &str,
) -> Result<Followed, Failure> {
    let deadline = Instant::now() + timeout;
    let mut interrupts = signals::interrupts()?;
    let rules: BTreeSet<&str> = wanted.iter().map(|w| w.rule.as_str()).collect();
    let path = match rules.first() {
        Some(rule) if rules.len() == 1 => format!("/rules/{}/placements", segment(rule)),
        Some(_) | None => "/placements".to_owned(),
    };
    let topics: Vec<String> =
        if rules.len() == 1 { rules.iter().map(|r| format!("rule/{r}")).collect() } else { vec![] };
    let mut watcher = Watcher { watch: session.client.watch(&topics).await.ok(), topics };
    let mut progress = Progress::new(&session.out, wanted.len());
    let mut last: Option<Vec<Placement>> = None;
    let mut told = Value::Null;
    let begun = wanted.iter().any(|w| w.operation.is_some());
    loop {
        match session.client.list(&path, &[]).await {
            Ok(answer) => {
                let list: api::List<Placement> = api::read(&answer)?;
                progress.show(&wanted, &list.items);
                last = Some(list.items);
                told = answer;
            }
            // The server may be restarting: what was waited for, or was begun there, goes on without us.
            Err(error @ ClientError::Unreachable { .. }) if last.is_some() || begun => progress.lost(&error),
            Err(error) => return Err(error.into()),
        }
        let verdict = |w: &Wanted| match &last {
            Some(placements) => w.verdict(placements),
            None => Verdict::Waiting("the server has not told yet how it stands".to_owned()),
        };
        let ends: Vec<(Wanted, Verdict)> = wanted.iter().map(|w| (w.clone(), verdict(w))).collect();
        let open = ends.iter().any(|(_, v)| matches!(v, Verdict::Waiting(_)));
        let failed = ends.iter().any(|(_, v)| matches!(v, Verdict::Failed(_)));
        if !open || (failed && fail_fast) {
            return Ok(Followed { ends, placements: among(&wanted, &told), timed_out: false });
        }
        if Instant::now() >= deadline {
            return Ok(Followed { ends, placements: among(&wanted, &told), timed_out: true });
        }
        tokio::select! {
            () = watcher.event() => sleep(SETTLE).await,
            () = sleep_until(deadline.min(Instant::now() + POLL)) => watcher.reopen(session).await,
            _ = interrupts.recv() => {
                drop(progress);
                return Err(Failure::Interrupted(on_interrupt.to_owned()));
            }
        }
    }
}

/// Those of a list that were waited for.
fn among(wanted: &[Wanted], list: &Value) -> Vec<Value> {
    let is_wanted =
        |p: &&Value| wanted.iter().any(|w| p["rule"] == w.rule.as_str() && p["edge"] == w.edge.as_str());
    list["items"].as_array().into_iter().flatten().filter(is_wanted).cloned().collect()
}

struct Watcher {
    watch: Option<Watch>,
    topics: Vec<String>,
}

impl Watcher {
    /// Comes back with the next event; never, while there is no stream.
    async fn event(&mut self) {
        if let Some(watch) = &mut self.watch {
            if let Ok(Some(_)) = watch.next().await {
                return;
            }
            self.watch = None;
        }
        std::future::pending::<()>().await;
    }

    async fn reopen(&mut self, session: &Session) {
        if self.watch.is_none() {
            self.watch = session.client.watch(&self.topics).await.ok();
        }
    }
}

/// Tells on standard error how it goes: one line that is redrawn on a terminal, else one line per change.
struct Progress<'a> {
    out: &'a Out,
    bar: Option<ProgressBar>,
    said: BTreeMap<(String, String), String>,
    lost: bool,
}

impl<'a> Progress<'a> {
    fn new(out: &'a Out, all: usize) -> Self {
        let bar = out.live().then(|| {
            let style = if all > 1 {
                "{spinner} {pos}/{len} {elapsed} {wide_msg}"
            } else {
                "{spinner} {elapsed} {wide_msg}"
            };
            let bar = ProgressBar::new(all as u64);
            if let Ok(style) = ProgressStyle::with_template(style) {
                bar.set_style(style);
            }
            bar.enable_steady_tick(Duration::from_millis(120));
            bar
        });
        Self { out, bar, said: BTreeMap::new(), lost: false }
    }

    fn show(&mut self, wanted: &[Wanted], placements: &[Placement]) {
        self.lost = false;
        let done = wanted.iter().filter(|w| w.verdict(placements) == Verdict::Reached).count();
        for w in wanted {
            let Some(p) = placements.iter().find(|p| p.rule == w.rule && p.edge == w.edge) else { continue };
            let state = state_text(p);
            let key = (w.rule.clone(), w.edge.clone());
            if self.said.get(&key) == Some(&state) {
                continue;
            }
            let line = format!("{}: {state}", w.shown());
            match &self.bar {
                Some(bar) => bar.set_message(line),
                None => self.out.note(line),
            }
            self.said.insert(key, state);
        }
        if let Some(bar) = &self.bar {
            bar.set_position(done as u64);
        }
    }

    fn lost(&mut self, error: &ClientError) {
        if self.lost {
            return;
        }
        self.lost = true;
        let line = format!("still waiting: {error}");
        match &self.bar {
            Some(bar) => bar.set_message(line),
            None => self.out.note(line),
        }
    }
}

impl Drop for Progress<'_> {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
            // The line that was redrawn is gone; where things stand should stay to be read.
            if self.said.len() == 1 {
                for ((rule, edge), state) in &self.said {
                    self.out.note(format_args!("{rule} on {edge}: {state}"));
                }
            } else if !self.said.is_empty() {
                self.out.note(format_args!("{} of {} done", bar.position(), self.said.len()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::commands::judge::tests::placement;

    #[test]
    fn a_start_is_done_when_the_gateway_carried_it_out_though_the_remote_broker_is_away() {
        let fault = |code: &str| {
            json!({ "run_state": "paused_fault",
                "run_reason": { "code": code, "detail": "connection refused", "next": "" } })
        };
        let verdict = |goal: Goal, own: bool, change: serde_json::Value| {
            let operation = own.then(|| "op-1".to_owned());
            Wanted { rule: "r".into(), edge: "e".into(), goal, operation }.verdict(&[placement(change)])
        };
        assert_eq!(verdict(Goal::Running, true, fault("TCP")), Verdict::Reached);
        // Who waits for it to run goes on waiting, and a login that is refused is a failure.
        assert!(matches!(verdict(Goal::Running, false, fault("TCP")), Verdict::Waiting(_)));
        assert!(matches!(verdict(Goal::Running, true, fault("AUTH")), Verdict::Failed(_)));
        let mut under_way = fault("TCP");
        under_way["in_flight"] =
            json!({ "id": "op-1", "action": "start", "queued": false, "since": "2026-01-01T00:00:00Z" });
        assert!(matches!(verdict(Goal::Running, true, under_way), Verdict::Waiting(_)));
        let mut past = fault("TCP");
        past["last_known"] = json!(true);
        assert!(matches!(verdict(Goal::Running, true, past), Verdict::Waiting(_)));
    }
}
