//! Which placements a command is about.

use super::Session;
use crate::api::{self, Placement};
use crate::client::segment;
use crate::failure::Failure;

/// The placements of a rule: those on the named edges, or all.
///
/// # Errors
/// [`Failure::NotFound`]: the rule is not placed there, or nowhere.
pub async fn of_rule(session: &Session, rule: &str, edges: &[String]) -> Result<Vec<Placement>, Failure> {
    let list = session.client.list(&format!("/rules/{}/placements", segment(rule)), &[]).await?;
    let list: api::List<Placement> = api::read(&list)?;
    choose(list.items, rule, edges)
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

fn choose(placements: Vec<Placement>, rule: &str, edges: &[String]) -> Result<Vec<Placement>, Failure> {
    let missing = edges.iter().find(|edge| !placements.iter().any(|p| p.edge == **edge));
    if let Some(edge) = missing {
        return Err(Failure::NotFound(format!(
            "rule '{rule}' is not placed on edge '{edge}'. Place it first: tidegate rule place {rule} --edge {edge}"
        )));
    }
    if placements.is_empty() {
        return Err(Failure::NotFound(format!(
            "rule '{rule}' is not placed on any edge. Place it first: tidegate rule place {rule} --edge EDGE"
        )));
    }
    Ok(placements.into_iter().filter(|p| edges.is_empty() || edges.contains(&p.edge)).collect())
}
