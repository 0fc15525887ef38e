//! What somebody on this machine asks the loop: answered at once, or handed to the core.

use tidegate_edge_core::{Input, LocalAnswer, LocalRefusal, ReplyId};
use tidegate_model::ids::RuleName;
use tokio::sync::oneshot;

use crate::control::{Ask, Queues, Reply, Rules, Status};
use crate::queues::Direction;
use crate::run::Gateway;

impl Gateway {
    pub(crate) fn on_ask(&mut self, ask: Ask) -> Vec<Input> {
        match ask {
            Ask::Status(reply) => {
                // Whoever asked may be gone, here and below.
                let _ = reply.send(Reply::Status(Box::new(self.status())));
                Vec::new()
            }
            Ask::Rules(reply) => {
                let _ = reply.send(Reply::Rules(self.rules()));
                Vec::new()
            }
            Ask::Act { rule, action, reply } => match self.agent.rule_named(&rule) {
                Some(rule) => self.decided(reply, |reply| Input::Local { rule, action, reply }),
                None => unknown(reply),
            },
            Ask::Queues { rule, reply } => {
                let _ = reply.send(self.queues_of(&rule));
                Vec::new()
            }
            Ask::Apply { rule, reply } => self.decided(reply, |reply| Input::ApplyRule { rule, reply }),
            Ask::Remove { rule, discard, reply } => match self.agent.rule_named(&rule) {
                Some(rule) => self.decided(reply, |reply| Input::RemoveRule { rule, discard, reply }),
                None => unknown(reply),
            },
        }
    }

    /// Hands a request to the core, which answers it.
    fn decided(&mut self, reply: oneshot::Sender<Reply>, input: impl FnOnce(ReplyId) -> Input) -> Vec<Input> {
        self.last_reply += 1;
        let number = ReplyId(self.last_reply);
        self.replies.insert(number, reply);
        // Counters first: what waits in a queue decides whether its rule may be removed.
        self.sample().into_iter().chain([input(number)]).collect()
    }

    fn status(&self) -> Status {
        Status {
            edge: self.config.name.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            link: self.agent.link(),
            session: self.agent.session(),
            controller: self.config.controller.as_ref().map(|controller| controller.address.to_string()),
            controller_trouble: self.last_reason.clone(),
            controller_epoch: self.agent.highest_ce(),
            clock_skew_ms: self.agent.clock_skew_ms(),
            local: self.local_side(),
            rules: self.agent.rules().count(),
            full_queues: self.full_queues(),
            drops: self.agent.drops(),
            rules_dir: self.config.rules_dir.clone(),
            rules_dir_trouble: self.rules_dir_trouble.clone(),
            file_troubles: self.agent.file_troubles().len(),
        }
    }

    /// The rules whose queue is full, by name.
    fn full_queues(&self) -> Vec<RuleName> {
        let full = self.agent.rules().filter(|rule| rule.run.queue_full.is_some());
        let mut names: Vec<_> = full.map(|rule| rule.name).collect();
        names.sort();
        names
    }

    /// The queues of a rule, by name or id; `None`: there is no such rule.
    fn queues_of(&self, rule: &str) -> Option<Queues> {
        let id = self.agent.rule_named(rule)?;
        let name = self.agent.rules().find(|view| view.rule == id)?.name.to_string();
        let queues = self.bridges.queues(id).map_or_else(Vec::new, |(outgoing, incoming)| {
            vec![(Direction::Forwards, outgoing), (Direction::Subscriptions, incoming)]
        });
        Some(Queues { name, queues })
    }

    fn rules(&self) -> Rules {
        let mut items: Vec<_> = self.agent.rules().collect();
        items.sort_by(|a, b| a.name.cmp(&b.name));
        for view in &mut items {
            if let Some(counters) = self.bridges.counters_of(view.rule) {
                view.counters = counters;
            }
        }
        Rules { items, file_troubles: self.agent.file_troubles().to_vec() }
    }
}

fn unknown(reply: oneshot::Sender<Reply>) -> Vec<Input> {
    let _ = reply.send(Reply::Acted(LocalAnswer::Refused(LocalRefusal::UnknownRule)));
    Vec::new()
}
