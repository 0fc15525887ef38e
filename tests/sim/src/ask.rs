//! Requests of the operator, and what must hold of every request: a refusal changes nothing, a rehearsal changes nothing
//! and foretells the answer, and a request that is sent again under its key is done once.

use tidegate_cloud_core as cloud;
use tidegate_model::code::Code;
use tidegate_model::digest::Digest;
use tidegate_model::placement::Role;

use crate::trace::brief;
use crate::world::World;

/// Of 1,000 requests, so many are rehearsed before.
const REHEARSED: u32 = 200;

/// A request that may be sent again.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    request: cloud::Request,
    once: cloud::Once,
}

fn tell(_: &cloud::Reply) -> cloud::KeptAnswer {
    cloud::KeptAnswer { status: 200, headers: Vec::new(), body: "it is done".to_owned() }
}

fn shown(core: &cloud::Controller, request: &cloud::Request) -> Option<cloud::PlacementView> {
    let cloud::Request::Act { rule, edge, .. } = request else { return None };
    core.placement(rule, edge, Role::Operator)
}

impl World {
    /// Asks the controller for something, under a key of its own.
    pub fn ask(&mut self, request: cloud::Request) {
        self.asked += 1;
        let key = cloud::OnceKey::new(&format!("request-{}", self.asked)).expect("it is visible and short");
        let digest = Digest::of(&self.asked.to_be_bytes());
        let once = cloud::Once { key, request: digest, render: tell };
        let asked = Asked { request, once };
        let rehearsed = self.rng.chance(REHEARSED).then(|| self.rehearse(&asked.request)).flatten();
        self.send(&asked);
        let done = self.answer.as_ref().map(Result::is_ok);
        if let (Some(rehearsed), Some(done)) = (rehearsed, done)
            && rehearsed != done
        {
            self.fail(format!(
                "a rehearsal said {rehearsed} and then it was {done}: {}",
                brief(&asked.request)
            ));
        }
        self.last_asked = Some(asked);
    }

    /// Sends the last request again, as a caller that got no answer does.
    pub(crate) fn ask_again(&mut self) {
        let Some(asked) = self.last_asked.clone() else { return };
        // What is due now is not the request's doing.
        let _ = self.cloud_input(cloud::Input::Tick);
        let by = actor();
        let kept =
            self.cloud.core.as_ref().and_then(|core| core.kept_answer(&by, &asked.once).ok().flatten());
        let before = self.ledger.sets;
        self.send(&asked);
        if kept.is_some() && self.answer.is_some() {
            self.coverage.count("a request is sent again and was done");
            let replayed = matches!(self.answer, Some(Ok(cloud::Reply::Replayed(_))));
            if !replayed || self.ledger.sets != before {
                self.fail(format!("a request was done twice: {}", brief(&asked.request)));
            }
        }
    }

    /// What the controller says that would come of a request: whether it would be done.
    fn rehearse(&mut self, request: &cloud::Request) -> Option<bool> {
        let _ = self.cloud_input(cloud::Input::Tick);
        let now = self.cloud.clock.now(self.time);
        let core = self.cloud.core.as_mut()?;
        let before = shown(core, request);
        let how = cloud::How { once: None, dry_run: true };
        let cloud::Output { writes, effects, changed: told } = core.handle(now, input(request.clone(), how));
        let changed = shown(core, request) != before;
        self.coverage.count("a request is rehearsed");
        let [cloud::Effect::Reply { result, .. }] = &effects[..] else {
            self.fail(format!("a rehearsal had other effects than an answer: {effects:?}"));
            return None;
        };
        let done = result.is_ok();
        if changed || !writes.is_empty() || !told.is_empty() {
            self.fail("a rehearsal changed something".to_owned());
        }
        Some(done)
    }

    fn send(&mut self, asked: &Asked) {
        let removed = match &asked.request {
            cloud::Request::RemoveEdge { edge, .. } => Some((edge, self.cloud.disk.placements_on(edge))),
            cloud::Request::SaveRule { .. }
            | cloud::Request::ActOnMany { .. }
            | cloud::Request::RestoreRule { .. }
            | cloud::Request::DeleteRule { .. }
            | cloud::Request::Place { .. }
            | cloud::Request::Unplace { .. }
            | cloud::Request::Act { .. }
            | cloud::Request::CreateEdge { .. }
            | cloud::Request::ConfirmEdge { .. }
            | cloud::Request::RemoveUnmanaged { .. } => None,
        };
        let _ = self.cloud_input(cloud::Input::Tick);
        self.answer = None;
        self.note(|_| format!("operator: {}", brief(&asked.request)));
        let now = self.cloud.clock.now(self.time);
        let Some(core) = &mut self.cloud.core else { return };
        let before = shown(core, &asked.request);
        let how = cloud::How { once: Some(asked.once.clone()), dry_run: false };
        let output = core.handle(now, input(asked.request.clone(), how));
        let refused =
            output.effects.iter().any(|effect| matches!(effect, cloud::Effect::Reply { result: Err(_), .. }));
        if refused && (!output.writes.is_empty() || shown(core, &asked.request) != before) {
            self.fail("a refused request changed something".to_owned());
        }
        let _ = self.perform_cloud(output);
        if let Some((edge, before)) = removed
            && !self.cloud.disk.edges.contains_key(edge)
        {
            self.ledger.edge_removed(edge, before);
        }
        if let Some(Err(rejection)) = &self.answer {
            if rejection.code() == Code::UnsupportedField {
                self.coverage.count("a rule that needs more than the agent can is refused");
            }
            let why = rejection.to_string();
            self.note(|_| format!("  refused: {why}"));
        }
    }
}

fn actor() -> cloud::Actor {
    cloud::Actor { name: "sim".to_owned(), via: "api".to_owned() }
}

fn input(request: cloud::Request, how: cloud::How) -> cloud::Input {
    cloud::Input::Request {
        reply_to: cloud::ReplyTo(1),
        by: actor(),
        role: Role::Operator,
        request: Box::new(request),
        how,
    }
}
