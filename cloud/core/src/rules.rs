//! Rules and their versions: save, restore, delete.

use std::sync::Arc;

use tidegate_model::ids::{RuleId, RuleName};
use tidegate_model::rule::{SecretInputs, Secrets, ValidRule};
use tidegate_model::version::RuleVersion;

use crate::controller::{Controller, Key, Turn};
use crate::io::Write;
use crate::placements::Source;
use crate::record::{Actor, RuleRecord, StoredSecrets, Target, VersionRecord};
use crate::rejection::Rejection;
use crate::request::{Expect, Reply, Saved};
use crate::shared::Shared;
use crate::view::etag;

/// A change of a rule that is about to be made.
struct Change {
    content: ValidRule,
    secret: Option<StoredSecrets>,
    secret_versions: u64,
    note: String,
    restored_from: Option<RuleVersion>,
}

impl Controller {
    #[expect(clippy::too_many_arguments, reason = "a save is who, what, with which secrets, when and why")]
    pub(crate) fn save_rule(
        &mut self,
        turn: &mut Turn,
        by: &Actor,
        id: RuleId,
        content: ValidRule,
        secrets: SecretInputs,
        expect: &Expect,
        note: String,
    ) -> Result<Reply, Rejection> {
        let name = content.name().clone();
        let known = self.rule_record(&name).cloned();
        let Some(known) = known else {
            if let Expect::Etag(_) = expect {
                return Err(Rejection::NoSuchRule(name));
            }
            return self.create_rule(turn, by, id, content, secrets, note);
        };
        check_expect(&known, expect)?;
        let stored = known.secrets();
        if content.is_unchanged(&known.content, &secrets, &stored) {
            let rule = self.rule_view(&known, None);
            return Ok(Reply::Rule { rule, saved: Saved::Unchanged });
        }
        let mut secret_versions = known.secret_versions;
        let secret = if secrets.changes(&stored) {
            secret_versions += 1;
            kept(secrets.apply(stored), secret_versions)
        } else {
            known.secret.clone()
        };
        check_secrets(&content, secret.as_ref())?;
        let change = Change { content, secret, secret_versions, note, restored_from: None };
        self.commit_change(turn, by, &known, change)
    }

    fn create_rule(
        &mut self,
        turn: &mut Turn,
        by: &Actor,
        id: RuleId,
        content: ValidRule,
        secrets: SecretInputs,
        note: String,
    ) -> Result<Reply, Rejection> {
        if self.rules.len() >= self.settings.max_rules {
            return Err(Rejection::Limit { what: "rules".to_owned(), limit: self.settings.max_rules });
        }
        let secret = kept(secrets.apply(Secrets::default()), 1);
        check_secrets(&content, secret.as_ref())?;
        let record = RuleRecord {
            id,
            version: RuleVersion::FIRST,
            content,
            secret_versions: secret.as_ref().map_or(0, |s| s.version),
            secret,
            created: turn.now.wall,
            changed: turn.now.wall,
            changed_by: by.clone(),
        };
        turn.writes.push(Write::PutRule { record: Box::new(record.clone()), expect: None });
        turn.writes.push(Write::PutVersion(Box::new(version_of(&record, note, None))));
        turn.tell_rule(record.name(), format!("{} was created by {}", record.name(), by.name));
        let rule = self.rule_view(&record, None);
        self.names.insert(record.name().clone(), id);
        self.rules.insert(id, Shared::new(record));
        Ok(Reply::Rule { rule, saved: Saved::Created })
    }

    pub(crate) fn restore_rule(
        &mut self,
        turn: &mut Turn,
        by: &Actor,
        rule: &RuleName,
        from: VersionRecord,
        expect: &Expect,
        note: String,
    ) -> Result<Reply, Rejection> {
        let known = self.rule_named(rule)?.clone();
        check_expect(&known, expect)?;
        let same_secret = from.secrets() == known.secrets();
        if from.content == known.content && same_secret {
            let rule = self.rule_view(&known, None);
            return Ok(Reply::Rule { rule, saved: Saved::Unchanged });
        }
        let change = Change {
            content: from.content,
            secret: if same_secret { known.secret.clone() } else { from.secret },
            secret_versions: known.secret_versions,
            note,
            restored_from: Some(from.version),
        };
        self.commit_change(turn, by, &known, change)
    }

    /// Makes the next version, and renders it for every edge that the rule is placed on.
    fn commit_change(
        &mut self,
        turn: &mut Turn,
        by: &Actor,
        known: &RuleRecord,
        change: Change,
    ) -> Result<Reply, Rejection> {
        let version = known.version.next();
        let source =
            Source { id: known.id, version, content: &change.content, secret: change.secret.as_ref() };
        let rendered = self
            .keys_of_rule(known.id)
            .into_iter()
            .filter(|key| self.placements[key].record.present)
            .map(|key| {
                let vars = &self.placements[&key].record.vars;
                self.render_for(source, &key.1, vars).map(|desired| (key, desired))
            })
            .collect::<Result<Vec<(Key, Arc<Target>)>, Rejection>>()?;
        for (key, desired) in rendered {
            self.placement_mut(&key).record.desired = desired;
            turn.touch(&key);
        }
        let record = RuleRecord {
            version,
            content: change.content,
            secret: change.secret,
            secret_versions: change.secret_versions,
            changed: turn.now.wall,
            changed_by: by.clone(),
            ..known.clone()
        };
        turn.writes.push(Write::PutRule { record: Box::new(record.clone()), expect: Some(known.version) });
        let kept = version_of(&record, change.note, change.restored_from);
        turn.writes.push(Write::PutVersion(Box::new(kept)));
        turn.tell_rule(record.name(), format!("{} is {version} now, by {}", record.name(), by.name));
        self.rules.insert(record.id, Shared::new(record.clone()));
        let rule = self.rule_view(&record, None);
        Ok(Reply::Rule { rule, saved: Saved::Changed })
    }

    pub(crate) fn delete_rule(
        &mut self,
        turn: &mut Turn,
        by: &Actor,
        rule: &RuleName,
        expect: &Expect,
    ) -> Result<Reply, Rejection> {
        let known = self.rule_named(rule)?.clone();
        check_expect(&known, expect)?;
        for key in self.keys_of_rule(known.id) {
            let placement = self.placement_mut(&key);
            // Nothing of a deleted rule is shown any more, also where the edge still has to hear of it.
            turn.shows_anew(&placement.record);
            if placement.record.present {
                self.take_off(turn, by, &key);
            } else if placement.is_settled_removal() {
                // Only its generation was kept, and the rule's id is never used again.
                self.drop_placement(turn, &key);
            }
        }
        self.rules.remove(&known.id);
        self.names.remove(rule);
        turn.writes.push(Write::RemoveRule(known.id));
        turn.tell_rule(rule, format!("{rule} was deleted by {}", by.name));
        Ok(Reply::Deleted)
    }
}

fn check_expect(known: &RuleRecord, expect: &Expect) -> Result<(), Rejection> {
    match expect {
        Expect::Any => Ok(()),
        Expect::Absent => Err(Rejection::RuleExists(known.name().clone())),
        Expect::Etag(expected) if *expected == etag(known) => Ok(()),
        Expect::Etag(_) => Err(Rejection::VersionConflict {
            rule: known.name().clone(),
            current_etag: etag(known),
            by: known.changed_by.name.clone(),
            at: known.changed,
        }),
    }
}

fn version_of(record: &RuleRecord, note: String, restored_from: Option<RuleVersion>) -> VersionRecord {
    VersionRecord {
        rule: record.id,
        version: record.version,
        content: record.content.clone(),
        secret: record.secret.clone(),
        at: record.changed,
        by: record.changed_by.clone(),
        note,
        restored_from,
    }
}

/// Secrets as they are stored; nothing where there are none.
fn kept(secrets: Secrets, version: u64) -> Option<StoredSecrets> {
    (!secrets.is_empty()).then_some(StoredSecrets { version, secrets })
}

/// A rule is not saved without the secrets that it cannot do without.
fn check_secrets(content: &ValidRule, stored: Option<&StoredSecrets>) -> Result<(), Rejection> {
    let none = Secrets::default();
    content.has_what_it_needs(stored.map_or(&none, |stored| &stored.secrets)).map_err(Rejection::Invalid)
}
