//! Writing: one writer, one transaction, one sync.

use std::fs::File;
use std::os::unix::fs::MetadataExt as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use serde::Serialize;
use sled::Transactional as _;
use sled::transaction::{
    ConflictableTransactionError, TransactionError, TransactionalTree, UnabortableTransactionError,
};

use crate::disk::Reserve;
use crate::mark::Mark;
use crate::migrate::RawChange;
use crate::read::Reader;
use crate::seal::Seal;
use crate::{Error, META, Options, Tree, value};

/// Key of the seal in the first tree.
pub(crate) const SEAL: &[u8] = b"seal";
/// Key of the schema's number in the first tree.
pub(crate) const SCHEMA_VERSION: &[u8] = b"schema_version";

/// A change of one record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    tree: Tree,
    key: Vec<u8>,
    /// The pieces; none: the record goes.
    pieces: Vec<Vec<u8>>,
}

impl Change {
    /// Puts a record, in place of the one that is there.
    ///
    /// # Errors
    /// A sentence: the record cannot be written as JSON, or is larger than 65,535 pieces of 7 KB.
    pub fn put(tree: Tree, key: Vec<u8>, record: &impl Serialize) -> Result<Self, String> {
        let json = serde_json::to_vec(record).map_err(|e| e.to_string())?;
        let pieces = value::encode(&json).ok_or("the record is too large")?;
        Ok(Self { tree, key, pieces })
    }

    /// Removes a record; one that is not there is no error.
    #[must_use]
    pub fn remove(tree: Tree, key: Vec<u8>) -> Self {
        Self { tree, key, pieces: Vec::new() }
    }

    /// Key and new value of each piece, given how many there are.
    fn raw(&self, before: u16) -> impl Iterator<Item = (Vec<u8>, Option<&[u8]>)> {
        let after = u16::try_from(self.pieces.len()).unwrap_or(u16::MAX);
        let put = (0..).zip(&self.pieces).map(|(number, piece)| (number, Some(piece.as_slice())));
        let take = (after..before.max(after)).map(|number| (number, None));
        put.chain(take).map(|(number, value)| (value::piece_key(&self.key, number), value))
    }
}

/// An open store: its one writer.
#[derive(Debug)]
pub struct Records {
    pub(crate) dir: Arc<Path>,
    pub(crate) db: sled::Db,
    pub(crate) trees: Arc<[sled::Tree]>,
    pub(crate) file: File,
    pub(crate) seal: Seal,
    pub(crate) mark: Option<Mark>,
    pub(crate) reserve: Reserve,
}

type Tx<T> = Result<T, ConflictableTransactionError<String>>;

impl Records {
    /// What was opened in a directory.
    pub(crate) fn new(
        dir: &Path,
        db: sled::Db,
        trees: Vec<sled::Tree>,
        seal: Seal,
        options: Options,
    ) -> Result<Self, Error> {
        // What is synced is the file; sled has its own descriptor.
        let file = File::options().read(true).write(true).open(crate::db_file(dir));
        Ok(Self {
            dir: dir.into(),
            db,
            trees: trees.into(),
            file: file.map_err(|error| Error::failed("opening", dir, error))?,
            seal,
            mark: None,
            reserve: Reserve::new(options.reserve_bytes),
        })
    }

    /// What reads this store.
    #[must_use]
    pub fn reader(&self) -> Reader {
        Reader { dir: Arc::clone(&self.dir), trees: Arc::clone(&self.trees) }
    }

    /// Applies the changes in their order: all of them, durable when it returns, or none.
    ///
    /// # Errors
    /// [`Error::Failed`] or [`Error::Damaged`]. What is on disk is then known only after the store was opened again: this
    /// one must not be used any more.
    pub fn commit(&mut self, changes: &[Change]) -> Result<(), Error> {
        self.transact(|trees, seal| {
            for change in changes {
                let tree = tree_of(trees, change.tree)?;
                let before = tree.get(value::piece_key(&change.key, 0))?;
                let before = before.as_deref().map_or(0, value::pieces_of);
                change
                    .raw(before)
                    .try_for_each(|(key, value)| apply(tree, seal, change.tree, &key, value))?;
            }
            Ok(())
        })
    }

    /// Whether the disk still takes what is written, and the database is still where it was opened.
    ///
    /// # Errors
    /// [`Error::Failed`].
    pub fn probe(&self) -> Result<(), Error> {
        let failed = |error: std::io::Error| Error::failed("probing", &self.dir, error);
        self.file.sync_data().map_err(failed)?;
        let (open, named) = (self.file.metadata(), std::fs::metadata(crate::db_file(&self.dir)));
        if open.map_err(failed)?.ino() == named.map_err(failed)?.ino() {
            Ok(())
        } else {
            Err(Error::failed("probing", &self.dir, "its file was exchanged for another one"))
        }
    }

    /// Applies changes of single entries, and writes the schema's number.
    pub(crate) fn migrate(&mut self, changes: &[RawChange], schema: u32) -> Result<(), Error> {
        let number = Change::put(META, SCHEMA_VERSION.to_vec(), &schema)
            .map_err(|why| Error::failed("writing", &self.dir, why))?;
        self.transact(|trees, seal| {
            for RawChange { tree, key, value } in changes {
                apply(tree_of(trees, *tree)?, seal, *tree, key, value.as_deref())?;
            }
            let meta = tree_of(trees, META)?;
            number.raw(0).try_for_each(|(key, value)| apply(meta, seal, META, &key, value))
        })
    }

    fn transact(&mut self, work: impl Fn(&[TransactionalTree], &mut Seal) -> Tx<()>) -> Result<(), Error> {
        let before = self.seal;
        // A transaction may be tried several times: everything that it counts begins anew.
        let transaction = || {
            self.trees.transaction(|trees: &Vec<TransactionalTree>| {
                let mut seal = before.next();
                work(trees, &mut seal)?;
                let sealed =
                    Change::put(META, SEAL.to_vec(), &seal).map_err(ConflictableTransactionError::Abort)?;
                for (key, value) in sealed.raw(0) {
                    tree_of(trees, META)?.insert(key, value.unwrap_or_default())?;
                }
                Ok(seal)
            })
        };
        let (dir, db) = (Arc::clone(&self.dir), &self.db);
        let failed = |error: &sled::Error| Error::from_sled("writing", &dir, error);
        let committed = catch_unwind(AssertUnwindSafe(|| {
            let seal = transaction().map_err(|error| match error {
                TransactionError::Storage(error) => failed(&error),
                TransactionError::Abort(why) => Error::failed("writing", &dir, why),
            })?;
            db.flush().map_err(|error| failed(&error))?;
            Ok(seal)
        }));
        let seal =
            committed.unwrap_or_else(|_| Err(Error::failed("writing", &dir, "the database panicked")))?;
        self.file.sync_data().map_err(|error| Error::failed("writing", &dir, error))?;
        self.seal = seal;
        if let Some(mark) = &self.mark
            && let Err(error) = mark.write(seal.commits)
        {
            tracing::warn!(store = %dir.display(), %error, "the file mark cannot be written; the records are safe");
        }
        self.reserve.keep(&self.file);
        Ok(())
    }
}

fn tree_of(trees: &[TransactionalTree], tree: Tree) -> Tx<&TransactionalTree> {
    trees.get(tree.0).ok_or_else(|| ConflictableTransactionError::Abort("there is no such tree".to_owned()))
}

/// Changes one entry, and the seal with it.
fn apply(at: &TransactionalTree, seal: &mut Seal, tree: Tree, key: &[u8], value: Option<&[u8]>) -> Tx<()> {
    let before = match value {
        Some(value) => {
            seal.add(tree.0, key, value);
            at.insert(key, value)
        }
        None => at.remove(key),
    };
    let before =
        before.map_err(|error: UnabortableTransactionError| ConflictableTransactionError::from(error))?;
    if let Some(before) = before {
        seal.take(tree.0, key, &before);
    }
    Ok(())
}
