//! `tidegate status`.

use super::Session;
use crate::api::{self, Placement, Summary};
use crate::failure::{Exit, Failure};
use crate::output::edges;
use tidegate_model::placement::{IssueState, RunState};

/// Problems that are shown at the most.
const WORST: usize = 5;

/// Shows the totals and the worst problems.
pub async fn status(session: &Session) -> Result<Exit, Failure> {
    let summary = session.client.get("/summary").await?.body;
    let shown: Summary = api::read(&summary)?;
    let placements: api::List<Placement> = api::read(&session.client.list("/placements", &[]).await?)?;
    let mut troubled: Vec<Placement> = placements.items.into_iter().filter(|p| trouble(p) > 0).collect();
    troubled.sort_by_key(|p| std::cmp::Reverse(trouble(p)));
    troubled.truncate(WORST);
    let server = session.client.base();
    session.out.show(
        &summary,
        |_| Ok(edges::status(&session.out, session.now, server, &shown, &troubled)),
        || vec![shown.indicator.clone()],
    )?;
    Ok(Exit::Done)
}

/// How bad it is; 0: nothing is wrong.
fn trouble(placement: &Placement) -> u8 {
    match (placement.issue_state, placement.run_state) {
        (IssueState::Failed, _) => 4,
        (_, RunState::PausedFault) => 3,
        _ if placement.drift || placement.queue_full.is_some() => 2,
        _ if placement.in_flight.is_some() => 1,
        (IssueState::UpdatesNotIssued | IssueState::NotIssued, _) => 1,
        (IssueState::Issued, RunState::Running | RunState::NotRunning | RunState::PausedManual) => 0,
    }
}
