//! Dropping records by hand: which, and how.

use std::io;

use crate::{
    aside::{self, Aside},
    core::Core,
    error::ReadError,
    holes::{self, MAX_HOLES, Run},
    record::Record,
    scan::READ_CHUNK,
    writer::Writer,
};

/// Records looked at in one go.
const CHUNK: usize = 512;

/// What became of a drop by hand.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Removed {
    /// Records that are gone.
    pub dropped: u64,
    /// Records that were meant as well and that the reader has in its hands: on their way, or next. They stay.
    pub in_hand: u64,
    /// There are more, in more runs than a queue keeps ([`MAX_HOLES`]): they stay.
    pub has_more: bool,
}

impl Core {
    /// The runs of records that are meant; all if nothing is said. May read the whole queue.
    pub(crate) fn runs_of(&self, is_meant: Option<&dyn Fn(&Record) -> bool>) -> Result<Vec<Run>, ReadError> {
        let (mut from, end) = self.bounds();
        let Some(is_meant) = is_meant else {
            return Ok(if from < end { vec![(from, end - 1)] } else { Vec::new() });
        };
        let mut runs: Vec<Run> = Vec::new();
        let mut extends = false;
        loop {
            let found = self.look_from(from, CHUNK, READ_CHUNK as usize)?;
            let Some(last) = found.last().map(|stored| stored.offset) else { return Ok(runs) };
            for stored in found.into_iter().take_while(|stored| stored.offset < end) {
                let was_meant = std::mem::replace(&mut extends, is_meant(&stored.record));
                if !extends {
                    continue;
                }
                match runs.last_mut() {
                    // What lies between is gone already.
                    Some(run) if was_meant => run.1 = stored.offset,
                    Some(_) | None => runs.push((stored.offset, stored.offset)),
                }
            }
            // One more than may be kept shows that there are more.
            if last + 1 >= end || runs.len() > MAX_HOLES {
                return Ok(runs);
            }
            from = last + 1;
        }
    }

    /// Drops these runs, as far as the reader does not have them in its hands. On the writer's thread.
    pub(crate) fn drop_runs(&self, writer: &Writer, runs: &[Run]) -> io::Result<Removed> {
        let (removed, holes, number) = {
            let mut state = self.state();
            let removed = state.drop_runs(runs);
            state.holes_number += 1;
            (removed, state.catalog.gaps(), state.holes_number)
        };
        // A record that the reader did not see is never sent now; the file is so that a restart does not bring it back.
        writer.write_file(&holes::name(number), &holes::encode(&holes))?;
        writer.delete_file(&holes::name(number - 1))?;
        Ok(removed)
    }

    /// Drops what lies aside and is meant. On the writer's thread.
    pub(crate) fn drop_asides(
        &self,
        writer: &Writer,
        is_meant: &dyn Fn(&Aside) -> bool,
    ) -> Result<u64, ReadError> {
        let (mut from, mut dropped) = (0, 0);
        loop {
            let found = self.asides(from, 1, 0)?;
            let Some(aside) = found.into_iter().next() else { return Ok(dropped) };
            from = aside.offset + 1;
            if is_meant(&aside) {
                let segment = aside::name(aside.offset);
                writer.delete_file(&segment).map_err(|source| ReadError { segment, source })?;
                self.state().aside_dropped(aside.offset);
                dropped += 1;
            }
        }
    }
}
