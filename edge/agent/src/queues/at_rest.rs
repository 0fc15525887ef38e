//! The queues on the disk of an agent that does not run. Shown and exported without writing anything.

use std::fs;
use std::path::{Path, PathBuf};

use tidegate_edge_queue::{DropError, Queue, QueueConfig, QueueError, ReadError, View, WhenFull};
use tidegate_model::ids::RuleId;

use super::{Direction, DirectionPicture, Dropped, Page, Picture, Selection, drop_from, page, picture};
use crate::clock;

/// File with the name of the rule, beside its queues.
const NAME: &str = "name";

/// Why queues on the disk could not be used.
#[derive(Debug, thiserror::Error)]
pub enum AtRestError {
    /// No queue bears the name or id.
    #[error("no rule '{rule}' has a queue in {}; 'tidegate-edge rules' lists the rules while the agent runs", dir.display())]
    Unknown {
        /// What was looked for.
        rule: String,
        /// Where.
        dir: PathBuf,
    },
    /// Several rules of that name have been here.
    #[error("several rules are called '{rule}': {ids}; say the id")]
    Several {
        /// The name.
        rule: String,
        /// Their ids.
        ids: String,
    },
    /// The directory cannot be read.
    #[error("cannot read {}: {source}", dir.display())]
    Read {
        /// Which.
        dir: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A queue cannot be opened.
    #[error("{0}")]
    Open(#[from] QueueError),
    /// A file of a queue cannot be read.
    #[error("{0}")]
    Segment(#[from] ReadError),
    /// Not everything was dropped.
    #[error("{0}")]
    Drop(#[from] DropError),
}

/// The queues of one rule.
#[derive(Debug, Clone)]
pub struct AtRest {
    rule: String,
    dir: PathBuf,
}

/// Keeps the name of a rule beside its queues, for those who look while no agent runs.
pub(crate) fn note_name(queues: &Path, rule: RuleId, name: &str) {
    let file = queues.join(rule.to_string()).join(NAME);
    if fs::read_to_string(&file).is_ok_and(|noted| noted == name) {
        return;
    }
    // Without it the rule has to be named by its id.
    if let Err(error) = fs::write(&file, name) {
        tracing::debug!(%error, "cannot note a rule's name beside its queues");
    }
}

/// Forgets it.
pub(crate) fn forget_name(rule_dir: &Path) {
    // What stays keeps the directory, which is told.
    let _ = fs::remove_file(rule_dir.join(NAME));
}

impl AtRest {
    /// Finds the queues of a rule, by name or id.
    ///
    /// # Errors
    /// [`AtRestError::Unknown`], [`AtRestError::Several`], [`AtRestError::Read`].
    pub fn find(data_dir: &Path, rule: &str) -> Result<Self, AtRestError> {
        let dir = crate::startup::queues_dir(data_dir);
        let read = |source| AtRestError::Read { dir: dir.clone(), source };
        let mut found: Vec<(String, PathBuf, String)> = Vec::new();
        for entry in fs::read_dir(&dir).map_err(read)? {
            let entry = entry.map_err(read)?;
            let id = entry.file_name().to_string_lossy().into_owned();
            let name = fs::read_to_string(entry.path().join(NAME)).unwrap_or_else(|_| id.clone());
            if id == rule || name == rule {
                found.push((name, entry.path(), id));
            }
        }
        match found.as_slice() {
            [(name, dir, _)] => Ok(Self { rule: name.clone(), dir: dir.clone() }),
            [] => Err(AtRestError::Unknown { rule: rule.to_owned(), dir }),
            several => {
                let ids: Vec<&str> = several.iter().map(|(_, _, id)| id.as_str()).collect();
                Err(AtRestError::Several { rule: rule.to_owned(), ids: ids.join(", ") })
            }
        }
    }

    /// What is in them; at most `count` messages of each.
    ///
    /// # Errors
    /// [`AtRestError`] when a queue is in use or cannot be read.
    pub fn picture(&self, count: usize, payload: bool) -> Result<Picture, AtRestError> {
        let directions = Direction::ALL.into_iter().map(|direction| {
            let view = View::peek(&self.dir.join(direction.folder()))?;
            Ok(picture(direction, &view, count, payload, clock::wall().0)?)
        });
        let directions: Result<Vec<DirectionPicture>, AtRestError> = directions.collect();
        Ok(Picture { rule: self.rule.clone(), directions: directions? })
    }

    /// Hands every message to `each`, page by page.
    ///
    /// # Errors
    /// [`AtRestError`], or that of `each`.
    pub fn export<E: From<AtRestError>>(
        &self,
        direction: Option<Direction>,
        mut each: impl FnMut(Page) -> Result<(), E>,
    ) -> Result<(), E> {
        for direction in
            Direction::ALL.into_iter().filter(|one| direction.is_none_or(|wanted| wanted == *one))
        {
            let view = View::peek(&self.dir.join(direction.folder())).map_err(AtRestError::Open)?;
            for aside in [true, false] {
                let mut from = Some(0);
                while let Some(offset) = from {
                    let page = page(direction, &view, aside, offset).map_err(AtRestError::Segment)?;
                    from = page.next;
                    each(page)?;
                }
            }
        }
        Ok(())
    }

    /// Drops what the selection means.
    ///
    /// # Errors
    /// [`AtRestError`]; some may be dropped.
    pub fn drop(&self, selection: &Selection) -> Result<Dropped, AtRestError> {
        // The bounds are the rule's business when it runs.
        let config = QueueConfig {
            max_bytes: u64::MAX,
            max_age: None,
            when_full: WhenFull::Block,
            ..QueueConfig::default()
        };
        let mut all = Dropped::default();
        for direction in Direction::ALL {
            if selection.direction.is_none_or(|wanted| wanted == direction) {
                let (queue, _) =
                    Queue::open(&self.dir.join(direction.folder()), config.clone(), clock::wall().0)?;
                all = all + drop_from(&queue, selection)?;
                queue.close();
            }
        }
        Ok(all)
    }
}
