//! What happened, in lines for the person who looks at a run that failed.

use std::collections::VecDeque;

use tidegate_cloud_core as cloud;
use tidegate_model::wire::{Envelope, Up};

use crate::TRACE_LINES;
use crate::world::World;

/// Lines of the trace that are kept, of which those are shown that concern the edge that failed.
const KEPT_LINES: usize = 20_000;

impl World {
    pub(crate) fn note(&mut self, line: impl FnOnce(&Self) -> String) {
        if self.trace.is_none() {
            return;
        }
        let line = format!("{:>9} {}", self.time, line(self));
        if let Some(trace) = &mut self.trace {
            if trace.len() == KEPT_LINES {
                trace.pop_front();
            }
            trace.push_back(line);
        }
    }

    /// A message; when the storm is over, the routine ones only fill the trace.
    pub(crate) fn note_message(&mut self, line: impl FnOnce() -> String) {
        let storm = self.storm;
        if self.trace.is_some() {
            let line = line();
            let routine = ["Heartbeat", "hello Digest", "Welcome { want: None", "Counters { forwarded: 0"];
            if storm || routine.iter().all(|word| !line.contains(word)) {
                self.note(|_| line);
            }
        }
    }
}

/// The last lines that concern the edge that the failure names, or all where it names none.
pub(crate) fn last_lines(trace: VecDeque<String>, what: &str, edges: usize) -> Vec<String> {
    let named = |text: &str, index: usize| text.contains(&format!("gw-{index}"));
    let concerned = (0..edges).find(|index| named(what, *index));
    let concerns = |line: &String| {
        concerned.is_none_or(|index| named(line, index) || (0..edges).all(|other| !named(line, other)))
    };
    let mut lines: Vec<String> = trace.into_iter().filter(concerns).collect();
    lines.split_off(lines.len().saturating_sub(TRACE_LINES))
}

pub(crate) fn up(payload: &[u8]) -> String {
    match Envelope::read_up(payload) {
        Ok((h, Up::Hello(hello))) => format!("{}:{} hello {:?}", h.sid.epoch, h.sq, hello.root),
        Ok((h, message)) => format!("{}:{} ce {} {message:?}", h.sid.epoch, h.sq, h.ce % 1_000_000),
        Err(error) => error.to_string(),
    }
}

pub(crate) fn down(payload: &[u8]) -> String {
    match Envelope::read_down(payload) {
        Ok((h, message)) => {
            let mut text = format!("{}:{} ce {} {message:?}", h.sid.epoch, h.sq, h.ce % 1_000_000);
            text.truncate(420);
            text
        }
        Err(error) => error.to_string(),
    }
}

pub(crate) fn brief(request: &cloud::Request) -> String {
    match request {
        cloud::Request::SaveRule { content, .. } => format!(
            "save {} {:?} at {} {:?}",
            content.name(),
            content.spec().start,
            content.spec().remote.url,
            content.spec().remote.username
        ),
        cloud::Request::RestoreRule { rule, .. } => format!("restore {rule}"),
        cloud::Request::DeleteRule { rule, .. } => format!("delete {rule}"),
        cloud::Request::Place { rule, edge, .. } => format!("place {rule} on {edge}"),
        cloud::Request::Unplace { rule, edge } => format!("unplace {rule} from {edge}"),
        cloud::Request::Act { rule, edge, action, when_offline } => {
            format!("{action} {rule} on {edge}, {when_offline:?}")
        }
        cloud::Request::ActOnMany { targets, action, when_offline } => {
            format!("{action} on {} placements, {when_offline:?}", targets.len())
        }
        cloud::Request::CreateEdge { edge, .. } => format!("create {edge}"),
        cloud::Request::RemoveEdge { edge, .. } => format!("remove {edge}"),
        cloud::Request::ConfirmEdge { edge } => format!("confirm {edge}"),
        cloud::Request::RemoveUnmanaged { edge, rule } => {
            format!("remove the unmanaged rule {rule} of {edge}")
        }
    }
}
