//! The embedded store: one redb file for all tasks of a relay, and while it runs a [journal] beside it for each that adds updates up.

use std::{
    collections::{HashMap, HashSet},
    fs::File,
    io::ErrorKind,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use redb::{
    Database, Durability, ReadTransaction, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction,
};
use unsaid_protocol::{ClientId, ContentHash, TaskId, UpdateId};

use super::{
    Changes, KEEP_MODELS, Registry, Saved, Store, StoreError,
    blocks::{SUM_BLOCK, read_block, write_block},
    bytes, from_json,
    identities::revoked_meanwhile,
    numbers, to_json,
};
use crate::{
    lineage::RoundRecord,
    round::{Counted, FrameDigest, Head},
    strategy::Memory,
};

use self::journal::{JOURNALS, Journal, Missing, Way};

mod identities;
mod journal;

/// The most bytes of the file that are kept in memory; redb's own bound is a gigabyte, which old models and sums would fill in time. What is
/// served again and again is kept elsewhere (the newest models, the rounds' figures).
const CACHE_BYTES: usize = 32 << 20;

/// The layout of the tables below. A store of a later layout is refused; one of an earlier is brought to this.
const LAYOUT: u64 = 5;

pub(super) const META: TableDefinition<&str, u64> = TableDefinition::new("meta");
const HEADS: TableDefinition<&str, &[u8]> = TableDefinition::new("heads");
const MANIFESTS: TableDefinition<&str, &str> = TableDefinition::new("manifests");
/// The open round's sum, in [blocks](super::blocks). New in layout 4: smaller than a sum in one piece, in the file's pages and in memory, whose sizes are
/// powers of two. Of an open round a journal may have a newer one, new in layout 5.
pub(super) const SUMS: TableDefinition<(&str, u32), &[u8]> = TableDefinition::new("sum-blocks");
/// Of layouts before 4: the sum in one piece, as `i32`s where all of it fits, and else as `i64`s.
pub(super) const NARROW_SUMS: TableDefinition<&str, &[u8]> = TableDefinition::new("narrow-sums");
pub(super) const WIDE_SUMS: TableDefinition<&str, &[u8]> = TableDefinition::new("sums");
/// Little-endian `i32`s of each update of the open round, where its rule needs them. New in layout 2.
pub(super) const UPDATES: TableDefinition<Entry, &[u8]> = TableDefinition::new("updates");
/// Kind, and little-endian `f32`s, of what a strategy remembers. New in layout 2.
pub(super) const MEMORIES: TableDefinition<&str, (&str, &[u8])> = TableDefinition::new("memories");
const CHECK_INS: TableDefinition<Entry, ()> = TableDefinition::new("check-ins");
/// Client id and digest of the frame, for each counted update.
const COUNTED: TableDefinition<Entry, (&[u8; 16], &[u8; 32])> = TableDefinition::new("counted");
const MODELS: TableDefinition<(&str, &[u8; 32]), &[u8]> = TableDefinition::new("models");
const ROUNDS: TableDefinition<(&str, u64), &[u8]> = TableDefinition::new("rounds");

/// Task, round, and the id of a client or an update.
type Entry = (&'static str, u64, &'static [u8; 16]);

const LEAST_ID: [u8; 16] = [0; 16];
const LEAST_HASH: [u8; 32] = [0; 32];
const GREATEST_HASH: [u8; 32] = [255; 32];

macro_rules! store_error_from {
    ($($error:ident),*) => {$(
        impl From<redb::$error> for StoreError {
            fn from(error: redb::$error) -> Self {
                Self::new(error)
            }
        }
    )*};
}

store_error_from!(
    CommitError,
    DatabaseError,
    SetDurabilityError,
    StorageError,
    TableError,
    TransactionError
);

/// A store in one file. It is opened again after a failure, so a relay recovers by itself once the disk does.
pub struct RedbStore {
    path: PathBuf,
    keep_models: u64,
    open: Mutex<Option<Arc<Open>>>,
}

/// The database while it is open, and its tasks' journals.
struct Open {
    database: Database,
    journals: Mutex<HashMap<TaskId, Arc<Mutex<Journal>>>>,
}

impl Open {
    /// The journal of a task, which is that of one path.
    fn journal(&self, path: &Path, task: &TaskId) -> Arc<Mutex<Journal>> {
        let mut journals = self.journals.lock().unwrap_or_else(PoisonError::into_inner);
        let journal = journals.entry(task.clone());
        journal
            .or_insert_with(|| Arc::new(Mutex::new(Journal::new(path, task))))
            .clone()
    }
}

impl RedbStore {
    /// Opens or makes the file and the folders above it. A new file is its owner's alone: it will hold sums without noise.
    ///
    /// # Errors
    /// [`StoreError`] where it cannot be opened, is in use by another relay, or has another layout, and where files that a relay had beside it
    /// (`PATH.TASK.0` and `.1`) are no longer there, though it was not closed since.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        Self::open_as(path, Missing::Refused)
    }

    /// Opens it as [`Self::open`] does, and gives up what files beside it held that are lost: updates that were acknowledged.
    ///
    /// # Errors
    /// [`StoreError`] as for [`Self::open`], but for those files.
    pub fn open_giving_up_journals(path: &Path) -> Result<Self, StoreError> {
        Self::open_as(path, Missing::GivenUp)
    }

    fn open_as(path: &Path, missing: Missing) -> Result<Self, StoreError> {
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            std::fs::create_dir_all(folder).map_err(StoreError::new)?;
        }
        make_private(path)?;
        let store = Self {
            // Journals are beside the file itself, whatever links lead to it.
            path: path.canonicalize().map_err(StoreError::new)?,
            keep_models: KEEP_MODELS,
            open: Mutex::new(None),
        };
        store.open_again(missing)?;
        Ok(store)
    }

    /// Keeps this many models of each task that does not say otherwise, the newest (and that one always), and deletes older ones when a round is published.
    #[must_use]
    pub const fn keeping(mut self, models: u64) -> Self {
        self.keep_models = models;
        self
    }

    fn open_again(&self, missing: Missing) -> Result<Arc<Open>, StoreError> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(open) = &*open {
            return Ok(open.clone());
        }
        let database = Database::builder()
            .set_cache_size(CACHE_BYTES)
            .create(&self.path)?;
        check_layout(&database)?;
        recover(&database, &self.path, missing)?;
        let opened = Arc::new(Open {
            database,
            journals: Mutex::default(),
        });
        *open = Some(opened.clone());
        Ok(opened)
    }

    /// Runs `work`, and drops the database where it fails: after an input/output error redb wants it opened again.
    pub(super) fn with<T>(
        &self,
        work: impl FnOnce(&Database) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.with_open(|open| work(&open.database))
    }

    fn with_open<T>(&self, work: impl FnOnce(&Open) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let open = self.open_again(Missing::Refused)?;
        let result = work(&open);
        if result.is_err() {
            *self.open.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
        result
    }

    /// Commits `changes` of a task to the database, in the way that is not the journal's.
    fn write(
        &self,
        database: &Database,
        journal: &mut Journal,
        task: &str,
        changes: &Changes,
        to: To,
    ) -> Result<Result<(), StoreError>, StoreError> {
        journal.check()?;
        let mut write = database.begin_write()?;
        write.set_durability(Durability::Immediate)?;
        if identities::one_is_revoked(&write, &changes.accounts)? {
            return Ok(Err(revoked_meanwhile())); // the database is well: nothing of it is dropped
        }
        if to != To::Beside {
            journal.fold(&write, task, changes)?;
        }
        let entry = match to {
            To::Beside => journal.beside(),
            To::Through => (journal.next_mark()?, 0),
            To::Last => journal::NONE,
        };
        apply(&write, task, changes, self.keep_models)?;
        write.open_table(JOURNALS)?.insert(task, entry)?;
        write.commit()?;
        journal.committed(entry, changes.head.as_ref());
        Ok(Ok(()))
    }
}

/// Where of the database a commit goes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum To {
    /// Beside what the journal says.
    Beside,
    /// With all that the journal says.
    Through,
    /// Likewise, and no journal is left.
    Last,
}

impl Drop for RedbStore {
    /// Leaves everything in the one file. Where that fails, the journals stay for the next opening.
    fn drop(&mut self) {
        let open = self.open.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        let Some(open) = open else {
            return;
        };
        let journals = std::mem::take(&mut *open.journals.lock().unwrap_or_else(PoisonError::into_inner));
        for (task, journal) in journals {
            let mut journal = journal.lock().unwrap_or_else(PoisonError::into_inner);
            let nothing = Changes::default();
            if journal.is_there()
                && let Err(error) =
                    self.write(&open.database, &mut journal, task.as_str(), &nothing, To::Last)
            {
                tracing::warn!(%task, %error, "what its open round adds up stays in the journal");
            }
            journal.remove();
        }
    }
}

/// Makes an empty file that only its owner may read, where there is none.
fn make_private(path: &Path) -> Result<(), StoreError> {
    let mut options = File::options();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    match options.open(path) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(StoreError::new(error)),
        _ => Ok(()),
    }
}

fn check_layout(database: &Database) -> Result<(), StoreError> {
    let write = database.begin_write()?;
    {
        let mut meta = write.open_table(META)?;
        let found = meta.get("layout")?.map(|layout| layout.value());
        match found {
            Some(LAYOUT) => return Ok(()),
            Some(found) if found > LAYOUT => {
                return Err(StoreError(format!(
                    "its layout is {found}, this relay knows {LAYOUT}"
                )));
            }
            _ => meta.insert("layout", LAYOUT)?, // later layouts have tables that earlier ones lack
        };
        // Every table is made now, so that reading never meets one that is not there.
        write.open_table(HEADS)?;
        write.open_table(MANIFESTS)?;
        write.open_table(SUMS)?;
        write.open_table(UPDATES)?;
        write.open_table(MEMORIES)?;
        write.open_table(CHECK_INS)?;
        write.open_table(COUNTED)?;
        write.open_table(MODELS)?;
        write.open_table(ROUNDS)?;
        write.open_table(JOURNALS)?;
        identities::make_tables(&write)?;
    }
    cut_sums(&write)?;
    Ok(write.commit()?)
}

/// Brings what journals say that were left into the database. A store that was closed is not written to.
fn recover(database: &Database, path: &Path, missing: Missing) -> Result<(), StoreError> {
    let write = database.begin_write()?;
    let (tasks, marked) = journal::recover(&write, path, missing)?;
    match marked {
        true => write.commit()?,
        false => write.abort()?,
    }
    journal::forget(path, &tasks);
    Ok(())
}

/// Brings sums of earlier layouts into blocks.
fn cut_sums(write: &WriteTransaction) -> Result<(), StoreError> {
    for (table, narrow) in [(NARROW_SUMS, true), (WIDE_SUMS, false)] {
        for entry in write.open_table(table)?.iter()? {
            let (task, sum) = entry?;
            let steps = if narrow {
                numbers(sum.value(), |entry| i64::from(i32::from_le_bytes(entry)))
            } else {
                numbers(sum.value(), i64::from_le_bytes)
            };
            write_sum(write, task.value(), &steps)?;
        }
        write.delete_table(table)?;
    }
    Ok(())
}

impl Store for RedbStore {
    fn load(&self, task: &TaskId) -> Result<Option<Saved>, StoreError> {
        self.with_open(|open| {
            let journal = open.journal(&self.path, task);
            let mut journal = journal.lock().unwrap_or_else(PoisonError::into_inner);
            if journal.is_ahead() {
                let nothing = Changes::default();
                self.write(&open.database, &mut journal, task.as_str(), &nothing, To::Through)??;
            }
            load(&open.database.begin_read()?, task.as_str())
        })
    }

    fn commit(&self, task: &TaskId, changes: &Changes) -> Result<(), StoreError> {
        self.with_open(|open| {
            let journal = open.journal(&self.path, task);
            let mut journal = journal.lock().unwrap_or_else(PoisonError::into_inner);
            let to = match journal.way(changes) {
                Way::Journal(head, sum) => return journal.append(head, sum, changes).map(Ok),
                Way::Beside => To::Beside,
                Way::Through => To::Through,
            };
            self.write(&open.database, &mut journal, task.as_str(), changes, to)
        })?
    }

    fn model(&self, task: &TaskId, model: &ContentHash) -> Result<Option<Vec<u8>>, StoreError> {
        self.with(|database| {
            let models = database.begin_read()?.open_table(MODELS)?;
            let found = models.get((task.as_str(), model.as_bytes()))?;
            Ok(found.map(|bytes| bytes.value().to_vec()))
        })
    }

    fn has_journal(&self, task: &TaskId) -> bool {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner).clone();
        open.is_some_and(|open| {
            let journal = open.journal(&self.path, task);
            let journal = journal.lock().unwrap_or_else(PoisonError::into_inner);
            journal.is_there()
        })
    }

    fn registry(&self) -> Option<&dyn Registry> {
        Some(self)
    }

    fn rounds(&self, task: &TaskId) -> Result<Vec<RoundRecord>, StoreError> {
        self.with(|database| {
            let rounds = database.begin_read()?.open_table(ROUNDS)?;
            let entries = rounds.range((task.as_str(), 0)..=(task.as_str(), u64::MAX))?;
            entries.map(|entry| from_json(entry?.1.value())).collect()
        })
    }

    fn rounds_before(&self, task: &TaskId, before: u64, most: u16) -> Result<Vec<RoundRecord>, StoreError> {
        self.with(|database| {
            let rounds = database.begin_read()?.open_table(ROUNDS)?;
            let newest = rounds.range((task.as_str(), 0)..(task.as_str(), before))?.rev();
            let newest = newest.take(most.into());
            let mut read: Vec<RoundRecord> = newest
                .map(|entry| from_json(entry?.1.value()))
                .collect::<Result<_, _>>()?;
            read.reverse();
            Ok(read)
        })
    }
}

fn load(read: &ReadTransaction, task: &str) -> Result<Option<Saved>, StoreError> {
    let Some(head) = read.open_table(HEADS)?.get(task)? else {
        return Ok(None);
    };
    let head: Head = from_json(head.value())?;
    let manifest = read
        .open_table(MANIFESTS)?
        .get(task)?
        .map(|json| json.value().to_owned());
    let sum = read_sum(read, task)?;
    let memory = read.open_table(MEMORIES)?.get(task)?.map(|memory| Memory {
        kind: memory.value().0.to_owned(),
        values: numbers(memory.value().1, f32::from_le_bytes),
    });
    let mut updates = Vec::new();
    for entry in read
        .open_table(UPDATES)?
        .range((task, head.round, &LEAST_ID)..(task, head.round.saturating_add(1), &LEAST_ID))?
    {
        let (key, bytes) = entry?;
        let update = UpdateId::from_bytes(*key.value().2);
        updates.push((update, numbers(bytes.value(), i32::from_le_bytes)));
    }
    let mut check_ins = Vec::new();
    for entry in read
        .open_table(CHECK_INS)?
        .range((task, head.first_base(), &LEAST_ID)..(task, head.round.saturating_add(1), &LEAST_ID))?
    {
        let (key, _) = entry?;
        let (_, round, client) = key.value();
        check_ins.push((round, ClientId::from_bytes(*client)));
    }
    let mut counted = Vec::new();
    for entry in read
        .open_table(COUNTED)?
        .range((task, 0, &LEAST_ID)..(task, u64::MAX, &LEAST_ID))?
    {
        let (key, value) = entry?;
        counted.push(Counted {
            update: UpdateId::from_bytes(*key.value().2),
            round: key.value().1,
            client: ClientId::from_bytes(*value.value().0),
            digest: FrameDigest::from_bytes(*value.value().1),
        });
    }
    Ok(Some(Saved {
        head,
        manifest: manifest.unwrap_or_default(),
        sum,
        updates,
        memory,
        check_ins,
        counted,
    }))
}

fn apply(
    write: &WriteTransaction,
    task: &str,
    changes: &Changes,
    keep_models: u64,
) -> Result<(), StoreError> {
    let mut counted = write.open_table(COUNTED)?;
    for entry in &changes.counted {
        let key = (task, entry.round, entry.update.as_bytes());
        counted.insert(key, (entry.client.as_bytes(), entry.digest.as_bytes()))?;
    }
    identities::write_accounts(write, task, &changes.accounts)?;
    let mut check_ins = write.open_table(CHECK_INS)?;
    if let Some(round) = changes.forgotten {
        let of_round = (task, round, &LEAST_ID)..(task, round.saturating_add(1), &LEAST_ID);
        let mut reported = HashSet::new();
        for entry in counted.range(of_round.clone())? {
            reported.insert(*entry?.1.value().0);
        }
        check_ins.retain_in(of_round, |(_, _, client), ()| reported.contains(client))?;
    }
    for (round, client) in &changes.check_ins {
        check_ins.insert((task, *round, client.as_bytes()), ())?;
    }
    let mut models = write.open_table(MODELS)?;
    for (hash, bytes) in &changes.models {
        models.insert((task, hash.as_bytes()), bytes.as_slice())?;
    }
    let mut rounds = write.open_table(ROUNDS)?;
    for metrics in &changes.rounds {
        rounds.insert((task, metrics.round), to_json(metrics)?.as_slice())?;
    }
    if let Some(manifest) = &changes.manifest {
        write.open_table(MANIFESTS)?.insert(task, manifest.as_str())?;
    }
    if let Some(Memory { kind, values }) = &changes.memory {
        let mut memories = write.open_table(MEMORIES)?;
        memories.insert(task, (kind.as_str(), bytes(values, f32::to_le_bytes).as_slice()))?;
    }
    let mut updates = write.open_table(UPDATES)?;
    if let Some(head) = &changes.head {
        let mut heads = write.open_table(HEADS)?;
        let before = heads
            .insert(task, to_json(head)?.as_slice())?
            .map(|bytes| from_json::<Head>(bytes.value()));
        let opened = match before.transpose()? {
            Some(before) => before.round != head.round,
            None => true,
        };
        if opened {
            write
                .open_table(SUMS)?
                .retain_in((task, 0)..=(task, u32::MAX), |_, _| false)?;
            updates.retain_in((task, 0, &LEAST_ID)..(task, head.round, &LEAST_ID), |_, _| false)?;
            let first_base = head.first_base();
            check_ins.retain_in((task, 0, &LEAST_ID)..(task, first_base, &LEAST_ID), |_, ()| false)?;
            let oldest = head.oldest_remembered();
            counted.retain_in((task, 0, &LEAST_ID)..(task, oldest, &LEAST_ID), |_, _| false)?;
            // The open round starts from the newest model, which is always one of those that are kept.
            let oldest = head
                .round
                .saturating_sub(changes.keep_models.unwrap_or(keep_models));
            let mut kept: HashSet<_> = changes.models.iter().map(|(hash, _)| *hash).collect();
            kept.insert(head.model);
            for entry in rounds.range((task, oldest)..(task, head.round))? {
                kept.insert(from_json::<RoundRecord>(entry?.1.value())?.model);
            }
            let all = (task, &LEAST_HASH)..=(task, &GREATEST_HASH);
            models.retain_in(all, |(_, hash), _| kept.contains(&ContentHash::from_bytes(*hash)))?;
        }
    }
    if let Some(steps) = &changes.sum {
        write_sum(write, task, steps)?;
    }
    for (update, coordinates) in &changes.updates {
        let round = changes.head.as_ref().map_or(0, |head| head.round);
        let key = (task, round, update.as_bytes());
        updates.insert(key, bytes(coordinates, i32::to_le_bytes).as_slice())?;
    }
    Ok(())
}

/// The open round's sum; none where it counts nothing.
fn read_sum(read: &ReadTransaction, task: &str) -> Result<Option<Vec<i64>>, StoreError> {
    let mut sum = None;
    for block in read.open_table(SUMS)?.range((task, 0)..=(task, u32::MAX))? {
        let block = block?.1;
        let rest = read_block(block.value(), sum.get_or_insert_with(Vec::new))?;
        if !rest.is_empty() {
            return Err(StoreError("a block of a sum is too long".into()));
        }
    }
    Ok(sum)
}

/// Writes the open round's sum over the one that was there, each block in the narrower of the two forms.
fn write_sum(write: &WriteTransaction, task: &str, steps: &[i64]) -> Result<(), StoreError> {
    let mut sums = write.open_table(SUMS)?;
    let mut bytes = Vec::with_capacity(1 + 8 * SUM_BLOCK);
    for (number, block) in (0..).zip(steps.chunks(SUM_BLOCK)) {
        bytes.clear();
        write_block(block, &mut bytes);
        sums.insert((task, number), bytes.as_slice())?;
    }
    Ok(())
}
