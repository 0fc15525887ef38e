//! A placement as it is stored. In most placements what the cloud wants, what was sent and what the edge committed are one
//! rendered rule: it is written once, and shared again when it is read.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::ser::SerializeStruct as _;
use serde::{Deserialize, Serialize, Serializer};

use tidegate_model::ids::{EdgeId, RuleId, RuleName};
use tidegate_model::version::Generation;
use tidegate_model::wire::DesiredRun;

use crate::record::{Operation, PlacementRecord, Reported, Settled, Target};

/// The field of the same record that holds this rendered rule too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Twin {
    Desired,
    Target,
}

impl Twin {
    /// Which field holds `held` too, if one does.
    fn of(held: Option<&Arc<Target>>, desired: &Arc<Target>, target: Option<&Arc<Target>>) -> Option<Self> {
        let held = held?;
        let is = |other: &Arc<Target>| Arc::ptr_eq(held, other) || held == other;
        match target {
            _ if is(desired) => Some(Self::Desired),
            Some(target) if is(target) => Some(Self::Target),
            Some(_) | None => None,
        }
    }
}

impl Serialize for PlacementRecord {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let target_is = Twin::of(self.target.as_ref(), &self.desired, None);
        let committed_is = Twin::of(self.committed.as_ref(), &self.desired, self.target.as_ref());
        let mut row = serializer.serialize_struct("PlacementRecord", 17)?;
        row.serialize_field("rule", &self.rule)?;
        row.serialize_field("name", &self.name)?;
        row.serialize_field("edge", &self.edge)?;
        row.serialize_field("vars", &self.vars)?;
        row.serialize_field("present", &self.present)?;
        row.serialize_field("generation", &self.generation)?;
        row.serialize_field("desired", &self.desired)?;
        row.serialize_field("target", &own(&self.target, target_is))?;
        row.serialize_field("target_is", &target_is)?;
        row.serialize_field("committed", &own(&self.committed, committed_is))?;
        row.serialize_field("committed_is", &committed_is)?;
        row.serialize_field("run", &self.run)?;
        row.serialize_field("restart", &self.restart)?;
        row.serialize_field("operation", &self.operation)?;
        row.serialize_field("last_issue", &self.last_issue)?;
        row.serialize_field("last_run", &self.last_run)?;
        row.serialize_field("reported", &self.reported)?;
        row.end()
    }
}

/// What is written of a rendered rule itself.
fn own(held: &Option<Arc<Target>>, twin: Option<Twin>) -> Option<&Arc<Target>> {
    held.as_ref().filter(|_| twin.is_none())
}

/// What is read; records of before the twins hold each rendered rule themselves.
#[derive(Deserialize)]
pub(crate) struct StoredPlacement {
    rule: RuleId,
    name: RuleName,
    edge: EdgeId,
    #[serde(default)]
    vars: BTreeMap<String, String>,
    present: bool,
    generation: Generation,
    desired: Arc<Target>,
    target: Option<Arc<Target>>,
    #[serde(default)]
    target_is: Option<Twin>,
    committed: Option<Arc<Target>>,
    #[serde(default)]
    committed_is: Option<Twin>,
    run: DesiredRun,
    restart: u64,
    operation: Option<Operation>,
    last_issue: Option<Settled>,
    last_run: Option<Settled>,
    reported: Option<Reported>,
}

impl From<StoredPlacement> for PlacementRecord {
    fn from(stored: StoredPlacement) -> Self {
        let desired = &stored.desired;
        let held = |twin: Option<Twin>, target: &Option<Arc<Target>>, own: Option<Arc<Target>>| match twin {
            Some(Twin::Desired) => Some(Arc::clone(desired)),
            Some(Twin::Target) => target.clone(),
            None => own,
        };
        let target = held(stored.target_is, &None, stored.target.clone());
        let committed = held(stored.committed_is, &target, stored.committed.clone());
        Self {
            rule: stored.rule,
            name: stored.name,
            edge: stored.edge,
            vars: stored.vars,
            present: stored.present,
            generation: stored.generation,
            desired: stored.desired,
            target,
            committed,
            run: stored.run,
            restart: stored.restart,
            operation: stored.operation,
            last_issue: stored.last_issue,
            last_run: stored.last_run,
            reported: stored.reported,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;
    use tidegate_model::digest::Digest;
    use tidegate_model::placement::VersionDigest;
    use tidegate_model::version::RuleVersion;

    use super::*;

    fn rendered(version: u64) -> Arc<Target> {
        let bytes = format!("{{\"rendered\":{version}}}");
        let at = VersionDigest { version: RuleVersion(version), digest: Digest::of(bytes.as_bytes()) };
        Arc::new(Target { at, bytes, secret: None })
    }

    fn record(
        desired: &Arc<Target>,
        target: Option<&Arc<Target>>,
        committed: Option<&Arc<Target>>,
    ) -> PlacementRecord {
        PlacementRecord {
            rule: RuleId(uuid::Uuid::from_u128(1)),
            name: RuleName::new("camera-up").unwrap(),
            edge: EdgeId::new("gw-1").unwrap(),
            vars: BTreeMap::new(),
            present: true,
            generation: Generation(1),
            desired: Arc::clone(desired),
            target: target.cloned(),
            committed: committed.cloned(),
            run: DesiredRun::Running,
            restart: 0,
            operation: None,
            last_issue: None,
            last_run: None,
            reported: None,
        }
    }

    #[test]
    fn a_rendered_rule_is_written_once_and_shared_when_it_is_read() {
        let (a, b, c) = (rendered(1), rendered(2), rendered(3));
        // Equal, but not shared: as a controller of before held it.
        let a_again = rendered(1);
        for (target, committed, times) in [
            (None, None, 1),
            (Some(&a), Some(&a), 1),
            (Some(&a_again), Some(&a_again), 1),
            (Some(&a), Some(&b), 2),
            (Some(&b), Some(&a), 2),
            (Some(&b), Some(&b), 2),
            (None, Some(&b), 2),
            (Some(&b), Some(&c), 3),
        ] {
            let record = record(&a, target, committed);
            let text = serde_json::to_string(&record).unwrap();
            assert_eq!(text.matches("rendered").count(), times, "{text}");
            let read: PlacementRecord = serde_json::from_str(&text).unwrap();
            assert_eq!(read, record);
            let all = [Some(&read.desired), read.target.as_ref(), read.committed.as_ref()];
            let mut places: Vec<_> = all.into_iter().flatten().map(Arc::as_ptr).collect();
            places.sort();
            places.dedup();
            assert_eq!(places.len(), times, "it is in memory as often as it was written");
        }
    }

    #[test]
    fn a_record_of_before_the_twins_is_read() {
        let (a, b) = (rendered(1), rendered(2));
        let record = record(&a, Some(&b), Some(&a));
        let mut old: Value = serde_json::to_value(&record).unwrap();
        old["committed"] = serde_json::to_value(&a).unwrap();
        let fields = old.as_object_mut().unwrap();
        assert!(fields.remove("committed_is").is_some() && fields.remove("target_is").is_some());
        assert_eq!(serde_json::from_value::<PlacementRecord>(old).unwrap(), record);
    }
}
