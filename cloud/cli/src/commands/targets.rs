//! Which placements a command is about.

use super::Session;
use crate::api::{self, Placement};
use crate::client::segment;
use crate::failure::Failure;

/// The placements of a rule: those on the named edges, or all.
///
/// # Errors
/// [`Failure::NotFound`]: the rule is not placed there, or nowhere; [`Failure::Client`], also when an edge is not known.
pub async fn of_rule(session: &Session, rule: &str, edges: &[String]) -> Result<Vec<Placement>, Failure> {
    let list = session.client.list(&format!("/rules/{}/placements", segment(rule)), &[]).await?;
    let list: api::List<Placement> = api::read(&list)?;
    let is_on = |edge: &String| list.items.iter().any(|placement| placement.edge == *edge);
    if let Some(edge) = edges.iter().find(|edge| !is_on(edge)) {
        // An edge that is not there is another mistake than one without the rule.
        session.client.get(format!("/edges/{}", segment(edge))).await?;
        return Err(Failure::NotFound(format!(
            "rule '{rule}' is not placed on edge '{edge}'\n  Next: tidegate rule get {rule} shows where it is, tidegate rule place {rule} --edge {edge} places it"
        )));
    }
    if list.items.is_empty() {
        return Err(Failure::NotFound(format!(
            "rule '{rule}' is not placed on any edge\n  Next: tidegate rule place {rule} --edge EDGE"
        )));
    }
    Ok(list.items.into_iter().filter(|p| edges.is_empty() || edges.contains(&p.edge)).collect())
}

/// One placement.
///
/// # Errors
/// As [`of_rule`].
pub async fn one(session: &Session, rule: &str, edge: &str) -> Result<Placement, Failure> {
    let found = of_rule(session, rule, &[edge.to_owned()]).await?.pop();
    found.ok_or_else(|| Failure::NotFound(format!("rule '{rule}' is not placed on edge '{edge}'")))
}

/// All placements, or those on the named edges.
///
/// # Errors
/// [`Failure::Client`], also when an edge is not known.
pub async fn on_edges(session: &Session, edges: &[String]) -> Result<Vec<Placement>, Failure> {
    if edges.is_empty() {
        let list: api::List<Placement> = api::read(&session.client.list("/placements", &[]).await?)?;
        return Ok(list.items);
    }
    let mut all = Vec::new();
    for edge in edges {
        // An edge without rules has an empty list; one that is not there should be told.
        session.client.get(format!("/edges/{}", segment(edge))).await?;
        let list: api::List<Placement> =
            api::read(&session.client.list("/placements", &[("edge", edge)]).await?)?;
        all.extend(list.items);
    }
    Ok(all)
}
