//! Reading: any thread may, while the one writer writes.

use std::path::Path;
use std::sync::Arc;

use serde::de::DeserializeOwned;

use crate::value::{self, ValueError};
use crate::{Error, Tree};

/// Reads records. Clones share the store; it is closed when they and [`crate::Records`] are gone.
#[derive(Debug, Clone)]
pub struct Reader {
    pub(crate) dir: Arc<Path>,
    pub(crate) trees: Arc<[sled::Tree]>,
}

/// The order of a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// By ascending keys.
    Ascending,
    /// By descending keys.
    Descending,
}

impl Reader {
    fn tree(&self, tree: Tree) -> Result<&sled::Tree, Error> {
        self.trees.get(tree.0).ok_or_else(|| Error::failed("reading", &self.dir, "it has no such tree"))
    }

    fn error(&self) -> impl FnOnce(ValueError) -> Error + '_ {
        |error| error.at("reading", &self.dir)
    }

    /// One record.
    ///
    /// # Errors
    /// [`Error::Damaged`] or [`Error::Failed`].
    pub fn get<T: DeserializeOwned>(&self, tree: Tree, key: &[u8]) -> Result<Option<T>, Error> {
        let json = value::get(self.tree(tree)?, key).map_err(self.error())?;
        json.map(|json| value::parse(key, &json)).transpose().map_err(self.error())
    }

    /// Every record of a tree in the order of their keys; `key_of` says under which key a record belongs.
    ///
    /// # Errors
    /// [`Error::Damaged`], also for a record under the key of another, or [`Error::Failed`].
    pub fn all<T: DeserializeOwned>(
        &self,
        tree: Tree,
        key_of: impl Fn(&T) -> Vec<u8>,
    ) -> Result<Vec<T>, Error> {
        let mut found = Vec::new();
        self.each(tree, key_of, |record| found.push(record))?;
        Ok(found)
    }

    /// Like [`Reader::all`], one record at a time.
    ///
    /// # Errors
    /// As [`Reader::all`].
    pub fn each<T: DeserializeOwned>(
        &self,
        tree: Tree,
        key_of: impl Fn(&T) -> Vec<u8>,
        mut take: impl FnMut(T),
    ) -> Result<(), Error> {
        let read = |key: &[u8], json: Vec<u8>| {
            let record = value::parse(key, &json)?;
            if key_of(&record) != key {
                return Err(ValueError::Damaged("a record lies under the key of another".to_owned()));
            }
            take(record);
            Ok(())
        };
        value::scan(self.tree(tree)?, |_, _| {}, read).map_err(self.error())
    }

    /// At most `limit` records with `from <= key < below` (`None`: to the end).
    ///
    /// # Errors
    /// [`Error::Damaged`] or [`Error::Failed`].
    pub fn page<T: DeserializeOwned>(
        &self,
        tree: Tree,
        (from, below): (Vec<u8>, Option<Vec<u8>>),
        order: Order,
        limit: usize,
    ) -> Result<Vec<T>, Error> {
        use std::ops::Bound::{Excluded, Included, Unbounded};
        let tree_no = tree;
        let tree = self.tree(tree)?;
        let range = tree.range::<Vec<u8>, _>((Included(from), below.map_or(Unbounded, Excluded)));
        let keys: Result<Vec<Vec<u8>>, ValueError> = match order {
            Order::Ascending => value::heads(range).take(limit).collect(),
            Order::Descending => value::heads(range.rev()).take(limit).collect(),
        };
        let mut found = Vec::new();
        for key in keys.map_err(self.error())? {
            // A key that is listed has its record, unless it was removed since.
            found.extend(self.get::<T>(tree_no, &key)?);
        }
        Ok(found)
    }
}
