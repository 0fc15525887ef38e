//! Liveness: what must hold when all faults have stopped for long enough.

use tidegate_cloud_core::{PlacementRecord, Settled, UnmanagedRule};
use tidegate_edge_core::RuleRecord;
use tidegate_model::ids::{EdgeId, MessageId};
use tidegate_model::placement::{Link, Role, RunState};
use tidegate_model::rule::EdgeRule;
use tidegate_model::wire::DesiredRun;

use crate::check::{Broken, same_run};
use crate::operator;
use crate::process::Edge;
use crate::remote::Sign;
use crate::world::World;

fn must(holds: bool, what: impl FnOnce() -> Broken) -> Result<(), Broken> {
    if holds { Ok(()) } else { Err(what()) }
}

/// Desired is reported everywhere, and both sides say the same.
///
/// # Errors
/// What is not so.
pub fn check(world: &World) -> Result<(), Broken> {
    let core = world.cloud.core.as_ref().ok_or("the controller is not there")?;
    for index in 0..world.script.edges {
        let id = operator::edge_id(index);
        let view = core.edge(&id).ok_or("an edge is not known")?;
        if world.is_gone(index) {
            must(!view.link.reachable(), || format!("{id} is gone and shown as reachable"))?;
            continue;
        }
        let edge = holder(world, &id)?;
        must(view.link == Link::Online, || format!("{id} is {}", view.link.as_str()))?;
        must(view.held.is_none(), || format!("{id} is held: {:?}", view.held))?;
        let told = view.unmanaged.ok_or_else(|| format!("{id} was not asked what nobody manages on it"))?;
        unmanaged(world, edge, &told)?;
        bridges(world, edge)?;
    }
    for record in world.cloud.disk.placements.values() {
        let what = |what: &str| format!("{} on {}: {what}", record.name, record.edge);
        let view = core.placement(&record.name, &record.edge, Role::Operator);
        if gone(world, &record.edge) {
            let waits = record.operation.as_ref().is_none_or(|o| o.queued);
            must(waits, || what("an operation waits for ever for an edge that is gone"))?;
            let honest = view.is_none_or(|v| v.last_known || v.run_state == RunState::NotRunning);
            must(honest, || what("the state of an edge that is gone is not shown as last known"))?;
            continue;
        }
        let edge = holder(world, &record.edge)?;
        must(record.operation.is_none(), || what(&format!("never settled: {:?}", record.operation)))?;
        let here = edge.disk.rules.get(&record.rule);
        if !record.present {
            must(here.is_none(), || what("it was taken off and is still there"))?;
            continue;
        }
        let view = view.ok_or_else(|| what("it is not shown"))?;
        must(!view.last_known, || what("it is shown as last known"))?;
        // Shown, and out of everybody's reach until the agent is updated.
        let beyond_mending = view.drift && !world.ledger.is_able(&world.cloud.disk, &record.edge);
        agreement(record, here, beyond_mending).map_err(|e| what(&e))?;
    }
    Ok(())
}

/// The operations in flight on edges that are online and not held: what each is, and its id.
#[must_use]
pub fn in_flight(world: &World) -> Vec<(String, MessageId)> {
    let Some(core) = &world.cloud.core else { return Vec::new() };
    let answers =
        |id: &EdgeId| !gone(world, id) && core.link(id) == Some(Link::Online) && core.held(id).is_none();
    let placements = world.cloud.disk.placements.values().filter(|record| answers(&record.edge));
    placements
        .filter_map(|record| {
            let operation = record.operation.as_ref()?;
            Some((format!("an operation on {} on {}", record.name, record.edge), operation.id))
        })
        .collect()
}

fn gone(world: &World, id: &EdgeId) -> bool {
    (0..world.script.edges).any(|index| world.is_gone(index) && operator::edge_id(index) == *id)
}

/// The one gateway that has an identity.
fn holder<'a>(world: &'a World, id: &EdgeId) -> Result<&'a Edge, Broken> {
    let mut holders = world.agents.iter().filter(|agent| agent.exists && agent.id == *id);
    match (holders.next(), holders.next()) {
        (Some(holder), None) => Ok(holder),
        (_, _) => Err(format!("not one gateway has the identity {id}")),
    }
}

/// The rules on an edge of which the cloud has no record are shown as unmanaged, as they are, and only a backup or
/// the site makes such.
fn unmanaged(world: &World, edge: &Edge, told: &[UnmanagedRule]) -> Result<(), Broken> {
    let placed = |rule| world.cloud.disk.placements.contains_key(&(rule, edge.id.clone()));
    for rule in edge.disk.rules.values().filter(|rule| !placed(rule.rule)) {
        must(rule.site.is_some() || world.ledger.may_be_unmanaged(rule.rule, &edge.id), || {
            format!("{} is on {} and nobody manages it", rule.name, edge.id)
        })?;
        let shown = told.iter().find(|told| told.rule == rule.rule).ok_or_else(|| {
            format!("{} is on {}, nobody manages it and nobody is told", rule.name, edge.id)
        })?;
        let true_to_it = shown.name.as_ref() == Some(&rule.name)
            && shown.origin == rule.origin()
            && shown.run_state == rule.run.state
            && !shown.last_known;
        must(true_to_it, || format!("{shown:?} is shown of {} on {}: {:?}", rule.name, edge.id, rule.run))?;
    }
    let there = |told: &UnmanagedRule| edge.disk.rules.contains_key(&told.rule) && !placed(told.rule);
    must(told.iter().all(there), || format!("{} is said to have unmanaged rules that it has not", edge.id))
}

/// One placement: the cloud's view is the edge's disk, and what is wanted is there unless it failed.
fn agreement(
    record: &PlacementRecord,
    here: Option<&RuleRecord>,
    beyond_mending: bool,
) -> Result<(), Broken> {
    let Some(here) = here else {
        must(record.reported.is_none(), || "the cloud shows what is not there".to_owned())?;
        return match &record.target {
            Some(_) if !last_failed(record) => Err("it was issued and is not there".to_owned()),
            Some(_) | None => Ok(()),
        };
    };
    let reported = record.reported.as_ref().ok_or("it is there and the cloud does not show it")?;
    must((reported.generation, reported.want) == (here.generation, here.want), || {
        format!("the cloud shows generation {}, there is {}", reported.generation, here.generation)
    })?;
    must(reported.running == here.running(), || "the cloud shows another version".to_owned())?;
    must(same_run(&reported.run, &here.run), || {
        format!("the cloud shows {:?}, it is {:?}", reported.run, here.run)
    })?;
    if let (Some(last), Some(outcome)) = (last(record), &here.outcome)
        && last.generation == here.generation
    {
        must(last.code.is_success() == outcome.code.is_success(), || {
            format!("its last action is shown as {}, it ended there as {}", last.code, outcome.code)
        })?;
    }
    let known = record.committed.as_ref().map(|t| t.at);
    must(known.is_none() || known == here.running(), || {
        "the cloud keeps the bytes of another version".to_owned()
    })?;
    if let Some(target) = &record.target
        && !last_failed(record)
        && !beyond_mending
    {
        must(here.generation == record.generation, || {
            format!("it is at generation {}, wanted is {}", here.generation, record.generation)
        })?;
        must(here.running() == Some(target.at), || "it is not what is wanted".to_owned())?;
        must(here.run_desired == record.run, || {
            format!("wanted is {:?}, there it is {:?}", record.run, here.run_desired)
        })?;
    }
    Ok(())
}

fn last(record: &PlacementRecord) -> Option<&Settled> {
    [&record.last_issue, &record.last_run]
        .into_iter()
        .flatten()
        .filter(|settled| settled.generation == record.generation)
        .max_by_key(|settled| settled.at)
}

fn last_failed(record: &PlacementRecord) -> bool {
    last(record).is_some_and(|settled| !settled.code.is_success())
}

/// What an agent's disk says of its bridges is what its bridges do.
fn bridges(world: &World, edge: &Edge) -> Result<(), Broken> {
    for rule in edge.disk.rules.values() {
        let what = |what: String| format!("{} on {}: {what}", rule.name, edge.id);
        must(rule.candidate.is_none(), || what("a candidate was never judged".to_owned()))?;
        must(rule.outcome.is_some(), || what("a set was never settled".to_owned()))?;
        let bridge = edge.bridges.get(&rule.rule);
        let taken_in = edge.taken_in.get(&rule.rule);
        if rule.run_desired == DesiredRun::Stopped || rule.committed.is_none() {
            must(bridge.is_none() && taken_in.is_none(), || what("it should not run and runs".to_owned()))?;
            let quiet = matches!(rule.run.state, RunState::NotRunning | RunState::PausedManual);
            must(quiet, || what(format!("it should not run and is {}", rule.run.state)))?;
            continue;
        }
        let bridge = bridge.ok_or_else(|| what("it should run and has no bridge".to_owned()))?;
        // A change of forwards alone does not concern a bridge that runs.
        let concerned = taken_in.is_none_or(|now| {
            let change = EdgeRule::difference(&bridge.config, now);
            change.connection || change.subscriptions
        });
        must(!concerned, || what("it takes in under another rule than it runs".to_owned()))?;
        let true_state = match world.remotes.sign(&bridge.config) {
            Sign::Running => (RunState::Running, None),
            Sign::Fault(code) => (RunState::PausedFault, Some(code)),
            Sign::Nothing => continue,
        };
        let told = (rule.run.state, rule.run.fault.as_ref().map(|f| f.code));
        must(told == true_state, || what(format!("it is {true_state:?} and is told as {told:?}")))?;
    }
    for rule in edge.bridges.keys() {
        must(edge.disk.rules.contains_key(rule), || format!("a bridge of no rule on {}", edge.id))?;
    }
    Ok(())
}
