//! Rules that the site wrote: in files of the rules directory, or applied by hand.
//!
//! Decides what a change of them means, and makes a set of it that takes the same way as one of the cloud: candidate,
//! probe, commit or revert, queue, faults. A rule that the cloud issued is not touched from here (features.md M3).
//! Leaves to others: reading files (the shell) and carrying a set out (`sets.rs`, `apply.rs`).
//!
//! ```text
//!              file new or changed          file unreadable        file gone
//! no rule      accept                       trouble                -
//! a rule       accept, where it differs     trouble, keeps running remove; while messages wait: withdraw
//! withdrawn    accept, with its queue       trouble                stays until the file is back or it is discarded
//! ```

use std::collections::{BTreeMap, BTreeSet};

use tidegate_model::code::Code;
use tidegate_model::digest::Digest;
use tidegate_model::ids::{RuleId, RuleName};
use tidegate_model::limits::MAX_RULES_PER_EDGE;
use tidegate_model::placement::VersionDigest;
use tidegate_model::rule::{
    ClientIdClash, Login, RenderContext, Rendered, Secret, SecretRef, SecretRefs, Secrets, Start, ValidRule,
    render,
};
use tidegate_model::version::{Generation, RuleVersion};
use tidegate_model::wire::{By, Config, DesiredRun, Origin, SecretValue, Set, one_line};

use crate::agent::{Agent, Turn};
use crate::clash::{self, Wish};
use crate::io::{Effect, Keeper, LocalAnswer, LocalRefusal, ReplyId, RuleFile, SiteRule};
use crate::record::{Held, OnSite, Outcome, RuleRecord, Withdrawn};
use crate::sets::Removal;
use crate::view::FileTrouble;

/// The rules directory as it was told last.
#[derive(Debug, Clone, Default)]
pub(crate) struct Files {
    told: Vec<RuleFile>,
    pub troubles: Vec<FileTrouble>,
}

impl Agent {
    pub(crate) fn on_rule_files(&mut self, files: Vec<RuleFile>, again: bool, turn: &mut Turn) {
        self.files.told = files;
        self.sort_out_files(again, turn);
    }

    /// Brings the rules of the site to what the files say. What is so already is left alone.
    pub(crate) fn sort_out_files(&mut self, again: bool, turn: &mut Turn) {
        let told = std::mem::take(&mut self.files.told);
        let mut troubles = Vec::new();
        let mut holder: BTreeMap<&RuleName, &str> = BTreeMap::new();
        let mut unreadable: BTreeSet<&str> = BTreeSet::new();
        let mut good = Vec::new();
        for RuleFile { name: file, content } in &told {
            match content {
                Ok(site) => match holder.get(site.rule.name()) {
                    Some(first) => {
                        let name = site.rule.name().clone();
                        let why = LocalRefusal::SameName { name, file: (*first).to_owned() };
                        troubles.push(self.trouble(file, why.code(), why.to_string()));
                    }
                    None => {
                        holder.insert(site.rule.name(), file);
                        good.push((file, site));
                    }
                },
                Err(problem) => {
                    unreadable.insert(file);
                    troubles.push(self.trouble(file, Code::InvalidConfig, problem.clone()));
                }
            }
        }
        // A rule whose file cannot be read stays as it is; one that stands in another file now, too.
        let is_gone = |record: &RuleRecord| {
            let file = record.site.as_ref().and_then(|site| site.file.as_deref());
            file.is_some_and(|file| !unreadable.contains(file)) && !holder.contains_key(&record.name)
        };
        let gone: Vec<RuleId> =
            self.rules.values().filter(|rule| is_gone(&rule.record)).map(|rule| rule.record.rule).collect();
        for id in gone {
            self.withdraw(id, turn);
        }
        let clashes = self.clashes_of(&good, again);
        for (file, site) in good {
            let applied = match clashes.get(site.rule.name()) {
                Some(clash) => Err(self.same_client_id(clash, &holder)),
                None => self.apply_site(Some(file), site, again, turn).map(drop),
            };
            if let Err(why) = applied {
                troubles.push(self.trouble(file, why.code(), why.to_string()));
            }
        }
        troubles.sort_by(|a, b| a.file.cmp(&b.file));
        self.files = Files { told, troubles };
    }

    /// The rules of these files that would throw another one off its broker. What runs already goes before what is new.
    fn clashes_of(&self, files: &[(&String, &SiteRule)], again: bool) -> BTreeMap<RuleName, ClientIdClash> {
        let mut wishes: Vec<(bool, Wish)> =
            files.iter().filter_map(|(_, site)| self.wish(site, again)).collect();
        wishes.sort_by_key(|(is_so_already, _)| !is_so_already);
        let wishes: Vec<Wish> = wishes.into_iter().map(|(_, wish)| wish).collect();
        clash::refused(&self.all_but(|name| wishes.iter().any(|wish| wish.login.rule == *name)), &wishes)
    }

    /// As what a rule of the site would log in, and whether that is so already; `None`: it is refused for something else.
    fn wish(&self, site: &SiteRule, again: bool) -> Option<(bool, Wish)> {
        let record = self.rules.values().map(|rule| &rule.record).find(|r| r.name == *site.rule.name());
        let moving = record.filter(|record| !record.is_withdrawn());
        let held = moving.and_then(RuleRecord::current).and_then(login);
        if let Some(record) = record {
            let earlier = record.site.as_ref()?;
            if is_so_already(record, earlier, content_digest(site), again) {
                // Also where it is not what was written, because that had failed.
                return held.map(|login| (true, Wish { held: Some(login.clone()), login }));
            }
        }
        // As what it logs in does not depend on the names of its secrets.
        let Rendered { rule, .. } = self.render_site(&site.rule, site.secrets.refs("", 0)).ok()?;
        Some((false, Wish { login: Login::from(&rule), held }))
    }

    /// As what all other rules log in, but those whose file is gone: they move nothing.
    fn all_but(&self, left_out: impl Fn(&RuleName) -> bool) -> Vec<Login> {
        let records = self.rules.values().map(|rule| &rule.record);
        let kept = records.filter(|record| !left_out(&record.name) && !record.is_withdrawn());
        kept.filter_map(|record| record.current().and_then(login)).collect()
    }

    fn same_client_id(&self, clash: &ClientIdClash, files: &BTreeMap<&RuleName, &str>) -> LocalRefusal {
        let ClientIdClash { first: other, second: name, client_id, broker } = clash.clone();
        let record = self.rules.values().map(|rule| &rule.record).find(|record| record.name == other);
        let kept = record.and_then(|record| record.site.as_ref()).map(|site| &site.file);
        let keeper = match (files.get(&other), kept) {
            (Some(file), _) => Keeper::File((*file).to_owned()),
            (None, Some(Some(file))) => Keeper::File(file.clone()),
            (None, Some(None)) => Keeper::Hand,
            (None, None) => Keeper::Cloud,
        };
        LocalRefusal::SameClientId { name, client_id, broker, other, keeper }
    }

    /// Why a rule of the cloud would throw one of the site off its broker, if so.
    pub(crate) fn clash_with_site(&self, set: &Set) -> Option<String> {
        let Config::Bytes(bytes) = &set.config else { return None };
        let of_site = |record: &&RuleRecord| record.site.is_some() && !record.is_withdrawn();
        let records = self.rules.values().map(|rule| &rule.record).filter(of_site);
        let logins: Vec<Login> = records.filter_map(|record| record.current().and_then(login)).collect();
        if logins.is_empty() {
            return None;
        }
        let wish = Wish { login: Login::of_rendered(bytes)?, held: None };
        let clash = clash::refused(&logins, &[wish]).into_values().next()?;
        Some(self.same_client_id(&clash, &BTreeMap::new()).to_string())
    }

    fn trouble(&self, file: &str, code: Code, detail: String) -> FileTrouble {
        let is_its = |record: &&RuleRecord| {
            record.site.as_ref().is_some_and(|site| site.file.as_deref() == Some(file))
        };
        let keeps = self.rules.values().map(|rule| &rule.record).find(is_its).map(|r| r.name.clone());
        FileTrouble { file: file.to_owned(), code, detail: one_line(&detail), keeps }
    }

    pub(crate) fn on_apply_rule(&mut self, rule: &SiteRule, reply: ReplyId, turn: &mut Turn) {
        let answer = match self.apply_site(None, rule, true, turn) {
            Ok(true) => LocalAnswer::Done,
            Ok(false) => LocalAnswer::Already,
            Err(why) => LocalAnswer::Refused(why),
        };
        turn.effect(Effect::Reply { reply, answer });
    }

    pub(crate) fn on_remove_rule(&mut self, id: RuleId, discard: bool, reply: ReplyId, turn: &mut Turn) {
        let answer = match self.may_remove(id, discard) {
            Ok(()) => {
                self.remove_site(id, turn);
                LocalAnswer::Done
            }
            Err(why) => LocalAnswer::Refused(why),
        };
        turn.effect(Effect::Reply { reply, answer });
    }

    fn may_remove(&self, id: RuleId, discard: bool) -> Result<(), LocalRefusal> {
        let rule = self.rules.get(&id).ok_or(LocalRefusal::UnknownRule)?;
        let name = rule.record.name.clone();
        match &rule.record.site {
            None => return Err(LocalRefusal::ManagedByCloud { name }),
            Some(OnSite { file: Some(file), withdrawn: None, .. }) => {
                return Err(LocalRefusal::KeptInFile { name, file: file.clone() });
            }
            Some(_) => {}
        }
        let queued = rule.voice.counters.queued;
        if queued > 0 && !discard { Err(LocalRefusal::QueueNotEmpty { name, queued }) } else { Ok(()) }
    }

    /// Takes up a rule of the site; `false`: it was so already.
    fn apply_site(
        &mut self,
        file: Option<&str>,
        site: &SiteRule,
        again: bool,
        turn: &mut Turn,
    ) -> Result<bool, LocalRefusal> {
        let name = site.rule.name();
        let record = self.rules.values().map(|rule| &rule.record).find(|record| record.name == *name);
        let earlier = match record {
            None => None,
            Some(record) => match &record.site {
                None => return Err(LocalRefusal::ManagedByCloud { name: name.clone() }),
                Some(OnSite { file: Some(kept), withdrawn: None, .. }) if file.is_none() => {
                    return Err(LocalRefusal::KeptInFile { name: name.clone(), file: kept.clone() });
                }
                Some(earlier) => Some((record, earlier)),
            },
        };
        let id = record.map_or_else(|| self.site_id(name), |record| record.rule);
        if record.is_none() && self.rules.len() >= MAX_RULES_PER_EDGE {
            return Err(LocalRefusal::TooManyRules);
        }
        let content = content_digest(site);
        let on_site = OnSite { file: file.map(str::to_owned), content, withdrawn: None };
        if file.is_none()
            && let Some((_, wish)) = self.wish(site, again)
            && let Some(clash) = clash::refused(&self.all_but(|other| other == name), &[wish]).get(name)
        {
            return Err(self.same_client_id(clash, &BTreeMap::new()));
        }
        if let Some((record, earlier)) = earlier
            && is_so_already(record, earlier, content, again)
        {
            if earlier.file != on_site.file
                && let Some(rule) = self.rules.get_mut(&id)
            {
                rule.record.site = Some(on_site);
                turn.touch(id);
            }
            return Ok(false);
        }
        let generation = Generation(self.known(id).map_or(0, |known| known.generation.0) + 1);
        let refs = refs_of(id, record, &site.secrets, generation);
        let Rendered { bytes, digest, .. } = self.render_site(&site.rule, refs.clone())?;
        let run = match earlier {
            Some((_, OnSite { withdrawn: Some(before), .. })) => before.run,
            // A stop by hand outlives a change; what never got so far begins as it is written.
            Some((record, _)) if record.current().is_some() => record.run_desired,
            Some(_) | None => match site.rule.spec().start {
                Start::Auto => DesiredRun::Running,
                Start::Manual => DesiredRun::Stopped,
            },
        };
        let restart = record.map_or(0, |record| record.restart);
        let Secrets { password, key } = &site.secrets;
        let secrets = refs.password.zip(password.as_ref()).into_iter().chain(refs.key.zip(key.as_ref()));
        let secrets = secrets.map(|(SecretRef { id, version }, secret)| SecretValue {
            id,
            version,
            value: secret.reveal().to_owned(),
        });
        let mut set = Set {
            rule: id,
            name: name.clone(),
            generation,
            want: Digest::of(b""),
            target: VersionDigest { version: RuleVersion(generation.0), digest },
            present: true,
            run,
            restart,
            config: Config::Bytes(bytes),
            secrets: secrets.collect(),
        };
        set.want = set.compute_want();
        self.accept(set, None, Some(on_site), turn);
        self.hello_soon(turn);
        Ok(true)
    }

    fn render_site(&self, rule: &ValidRule, secrets: SecretRefs) -> Result<Rendered, LocalRefusal> {
        let context = RenderContext {
            account: self.setup.account.clone(),
            edge: self.setup.edge.clone(),
            vars: BTreeMap::new(),
            secrets,
        };
        render(rule, &context).map_err(|problems| LocalRefusal::Invalid {
            name: rule.name().clone(),
            problems: problems.to_string(),
        })
    }

    /// The file of a rule is gone: the rule goes too, unless messages would be lost that nobody said to lose.
    fn withdraw(&mut self, id: RuleId, turn: &mut Turn) {
        let Some(rule) = self.rules.get_mut(&id) else { return };
        if rule.voice.counters.queued == 0 {
            return self.remove_site(id, turn);
        }
        let record = &mut rule.record;
        let Some(site) = record.site.as_mut().filter(|site| site.withdrawn.is_none()) else { return };
        site.withdrawn = Some(Withdrawn { run: record.run_desired });
        if let Some(candidate) = record.candidate.take() {
            record.outcome.get_or_insert(Outcome {
                code: Code::Superseded,
                attempted: candidate.held.target,
                duration_ms: 0,
                detail: "its file was removed".to_owned(),
            });
        }
        record.run_desired = DesiredRun::Stopped;
        record.desired_by = By::Local;
        turn.touch(id);
        self.carry_out(id, false, By::Local, turn);
        self.hello_soon(turn);
    }

    fn remove_site(&mut self, id: RuleId, turn: &mut Turn) {
        let Some(rule) = self.rules.get(&id) else { return };
        let generation = Generation(rule.record.generation.0 + 1);
        let target = VersionDigest::removal(RuleVersion(generation.0));
        let (name, want) = (rule.record.name.clone(), Digest::of(b""));
        self.remove(id, Removal { name, generation, want, target, origin: Origin::Local }, turn);
        self.hello_soon(turn);
    }

    /// The same name gets the same id in this store, so that a rule that comes back goes on with its numbers. Ids of the
    /// cloud are made by time and chance (UUIDv7) and never equal one of these (UUIDv8).
    fn site_id(&self, name: &RuleName) -> RuleId {
        let digest =
            Digest::of(format!("tidegate-site-rule-1\n{}\n{name}", self.meta.session.store).as_bytes());
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&digest.as_bytes()[..16]);
        RuleId(uuid::Builder::from_custom_bytes(bytes).into_uuid())
    }
}

/// Whether nothing is to be done for what is written: it is what was written before, and nobody asks to try again what
/// failed.
fn is_so_already(record: &RuleRecord, earlier: &OnSite, content: Digest, again: bool) -> bool {
    earlier.content == content && earlier.withdrawn.is_none() && !(again && has_failed(record))
}

fn login(held: &Held) -> Option<Login> {
    Login::of_rendered(&held.bytes)
}

fn has_failed(record: &RuleRecord) -> bool {
    record.outcome.as_ref().is_some_and(|outcome| !outcome.code.is_success())
}

/// What was written, the secrets included.
fn content_digest(site: &SiteRule) -> Digest {
    let password = site.secrets.password.as_ref().map_or("", Secret::reveal);
    let mut text = format!("{}\n{password}", site.rule.content_digest());
    if let Some(key) = &site.secrets.key {
        text.push('\n');
        text.push_str(key.reveal());
    }
    Digest::of(text.as_bytes())
}

/// The names of the secrets: the one that a secret has here already, else a new version.
fn refs_of(id: RuleId, record: Option<&RuleRecord>, secrets: &Secrets, generation: Generation) -> SecretRefs {
    let held = || record.and_then(RuleRecord::current).into_iter().flat_map(|held| &held.secrets);
    let named = |secret: &Secret, new: SecretRef| match held().find(|held| held.value == secret.reveal()) {
        Some(same) => SecretRef { id: same.id.clone(), version: same.version },
        None => new,
    };
    let id = id.to_string();
    let password = |secret| named(secret, SecretRef::password(&id, generation.0));
    let key = |secret| named(secret, SecretRef::key(&id, generation.0));
    SecretRefs { password: secrets.password.as_ref().map(password), key: secrets.key.as_ref().map(key) }
}
