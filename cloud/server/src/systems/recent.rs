//! Commands that were carried out lately, so that a copy (QoS 1, or a sender that heard no answer) is answered again and
//! not carried out again. Pure: `now` is an argument.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use tidegate_model::wire::{Ack, Command, Tid};

/// Commands that are remembered at the most; then the oldest is forgotten.
const MAX_RECENT: usize = 1_024;
/// How long a command is remembered.
const REMEMBERED: Duration = Duration::from_secs(300);

/// The last command of each `tid`, and its answer.
#[derive(Debug, Default)]
pub(super) struct Recent {
    by_tid: BTreeMap<Tid, (Command, Ack)>,
    by_age: VecDeque<(Instant, Tid)>,
}

impl Recent {
    /// The answer that this command got; `None`: it is a new one. The same `tid` with another command is a new one.
    pub(super) fn answer(&mut self, now: Instant, command: &Command) -> Option<Ack> {
        while let Some((at, _)) = self.by_age.front()
            && now.duration_since(*at) >= REMEMBERED
        {
            self.forget_oldest();
        }
        self.by_tid.get(&command.tid).filter(|(known, _)| known == command).map(|(_, ack)| ack.clone())
    }

    /// Remembers a command that was carried out.
    pub(super) fn insert(&mut self, now: Instant, command: Command, ack: Ack) {
        let tid = command.tid.clone();
        if self.by_tid.insert(tid.clone(), (command, ack)).is_some() {
            self.by_age.retain(|(_, known)| *known != tid);
        }
        self.by_age.push_back((now, tid));
        if self.by_age.len() > MAX_RECENT {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        if let Some((_, tid)) = self.by_age.pop_front() {
            self.by_tid.remove(&tid);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_model::code::Code;

    fn command(tid: &str, action: &str) -> Command {
        let text = format!(
            r#"{{"tid":"{tid}","type":"datasync","action":"{action}","payload":{{"id":"a","edge":"b"}}}}"#
        );
        Command::read(text.as_bytes()).unwrap()
    }

    fn ack(command: &Command) -> Ack {
        Ack::new(command.tid.clone(), command.action(), Code::Accepted, "")
    }

    #[test]
    fn a_copy_is_known_for_a_while_and_another_command_under_the_same_tid_is_not_it() {
        let (mut recent, now) = (Recent::default(), Instant::now());
        let (start, stop) = (command("1", "start"), command("1", "stop"));
        assert_eq!(recent.answer(now, &start), None);
        recent.insert(now, start.clone(), ack(&start));
        assert_eq!(recent.answer(now, &start), Some(ack(&start)));
        assert_eq!(recent.answer(now, &stop), None);
        // Start, stop, start under one tid are three commands.
        recent.insert(now, stop.clone(), ack(&stop));
        assert_eq!(recent.answer(now, &start), None);
        assert_eq!(recent.answer(now + REMEMBERED - Duration::from_secs(1), &stop), Some(ack(&stop)));
        assert_eq!(recent.answer(now + REMEMBERED, &stop), None);
        assert!(recent.by_tid.is_empty() && recent.by_age.is_empty());
    }

    #[test]
    fn no_more_are_remembered_than_the_bound() {
        let (mut recent, now) = (Recent::default(), Instant::now());
        for n in 0..2 * MAX_RECENT {
            let command = command(&n.to_string(), "start");
            let ack = ack(&command);
            recent.insert(now, command, ack);
        }
        assert_eq!((recent.by_tid.len(), recent.by_age.len()), (MAX_RECENT, MAX_RECENT));
    }
}
