//! What a round in progress adds up, in two files beside the database.
//!
//! Most commits take updates: each writes the whole sum, the ids that are new in it, and nothing else that is large. In a database such a
//! commit costs several copies of the sum. A journal writes it once, and waits once for the disk. Its files take turns: while a record
//! is written over the one before the last, the last one stays.
//!
//! Its layout, little-endian: `UNSJ`, version `u32`, mark `u64`, number `u64`, bytes of the head `u32`, check-ins `u32`, counted updates
//! `u32`, zero `u32`, entries of the sum `u64`, the XXH3-128 of all that follows and then of all that is before it; then the head as JSON;
//! for each check-in its round `u64` and the client's id 16; for each counted update its id 16, round `u64`, client 16, digest of its frame 32;
//! and the [blocks](crate::store::blocks) of the sum. Behind a record are zeros up to the next page, and what is left of a longer one.
//!
//! A record says everything that was committed since the database had the journal's *mark*, a random number: so the newest whole record
//! with that mark is all that has to be read. Both files are there before the database has the mark, and it has none (0) again before they go:
//! one that has a mark, and not its files, was parted from them, and is refused. Whatever else changes of a task is committed to the database, together with all that the
//! journal says and another mark ([`Journal::fold`]): from then on no record counts that was written before. Check-ins alone are committed to
//! the database beside a journal that stays as it is, with the number of its last record: that record's head is older than the database's.

use std::{
    ffi::OsString,
    fs::File,
    io::ErrorKind,
    path::{Path, PathBuf},
};

use redb::{ReadableTable, TableDefinition, WriteTransaction};
use twox_hash::XxHash3_128;
use unsaid_protocol::{ClientId, DecodeError, Reader, TaskId, UpdateId};

use super::SUMS;
use crate::{
    round::{Counted, FrameDigest, Head},
    store::{
        Changes, StoreError,
        blocks::{SUM_BLOCK, write_block},
        from_json, to_json,
    },
};

mod sheet;
#[cfg(test)]
mod tests;

use self::sheet::{Sheet, set_direct};

/// Of each task: the mark of its journal, [`NO_MARK`] where it has none, and the number of the newest record whose head is older than the database's.
pub(super) const JOURNALS: TableDefinition<&str, (u64, u64)> = TableDefinition::new("journals");

/// In place of a mark: there is no journal, and files with its name say nothing.
const NO_MARK: u64 = 0;

/// The entry of a task that has no journal.
pub(super) const NONE: (u64, u64) = (NO_MARK, 0);

const MAGIC: &[u8; 4] = b"UNSJ";
const VERSION: u32 = 1;

/// Bytes before a record's digest, and before its body.
const PROLOGUE: usize = 48;
const HEADER: usize = PROLOGUE + 16;

/// Check-ins and counted updates that a record may have, each of which is written again with every record: at most 72 kB of them.
const MOST_ENTRIES: usize = 1_024;

/// The journal of one task.
pub(super) struct Journal {
    paths: [PathBuf; 2],
    /// Once they are needed; none where they cannot be made.
    files: Option<[File; 2]>,
    unavailable: bool,
    /// A record was not written as it should be: what is in the files is found out where the store is opened again.
    torn: bool,
    /// What the database has of it.
    entry: (u64, u64),
    /// The round that is open in the database; none before this process has committed to it.
    round: Option<u64>,
    /// Of the last record.
    number: u64,
    /// All that it says but the sum.
    says: Changes,
    /// Where its records are made: the last one is there until it is folded.
    sheet: Sheet,
}

/// Where a commit goes.
pub(super) enum Way<'a> {
    /// To the journal: the head, and the sum.
    Journal(&'a Head, &'a [i64]),
    /// To the database, and the journal stays as it is.
    Beside,
    /// To the database, with all that the journal says.
    Through,
}

impl Journal {
    /// Of a task whose database is at `path`. What was in its files was folded into it ([`recover`]).
    pub fn new(path: &Path, task: &TaskId) -> Self {
        Self {
            paths: paths(path, task.as_str()),
            files: None,
            unavailable: false,
            torn: false,
            entry: NONE,
            round: None,
            number: 0,
            says: Changes::default(),
            sheet: Sheet::default(),
        }
    }

    /// Where `changes` go.
    pub fn way<'a>(&mut self, changes: &'a Changes) -> Way<'a> {
        let Changes {
            head,
            manifest: None,
            sum,
            updates,
            memory: None,
            forgotten: None,
            check_ins,
            counted,
            models,
            rounds,
            accounts,
            // These say something only of lanes, of which this store has none, and of models.
            lane: _,
            stands: _,
            keep_models: _,
        } = changes
        else {
            return Way::Through;
        };
        let others = updates.len() + models.len() + rounds.len() + accounts.len();
        if others > 0
            || self.round.is_none()
            || head.as_ref().is_some_and(|head| Some(head.round) != self.round)
        {
            return Way::Through;
        }
        let entries = |changes: &Changes| changes.check_ins.len() + changes.counted.len();
        match (head, sum) {
            (_, None) if counted.is_empty() => Way::Beside,
            (Some(head), Some(sum))
                if entries(&self.says) + check_ins.len() + counted.len() <= MOST_ENTRIES
                    && self.entry.0 != NO_MARK =>
            {
                Way::Journal(head, sum)
            }
            _ => Way::Through,
        }
    }

    /// Whether it says something that the database does not have.
    pub const fn is_ahead(&self) -> bool {
        self.says.head.is_some()
    }

    /// Whether the database has its mark.
    pub const fn is_there(&self) -> bool {
        self.entry.0 != NO_MARK
    }

    /// Writes what it says, and `changes`, whose head and sum these are. It is on the disk when this returns.
    pub fn append(&mut self, head: &Head, sum: &[i64], changes: &Changes) -> Result<(), StoreError> {
        self.check()?;
        let number = self.number + 1;
        self.torn = true; // until it says no more than is on the disk
        self.says.head = Some(head.clone());
        self.says.check_ins.extend_from_slice(&changes.check_ins);
        self.says.counted.extend_from_slice(&changes.counted);
        let files = self.files.as_mut().ok_or_else(none)?;
        let file = &mut files[(number % 2) as usize];
        write(file, &mut self.sheet, self.entry.0, number, &self.says, sum).map_err(StoreError::new)?;
        (self.torn, self.number) = (false, number);
        Ok(())
    }

    /// # Errors
    /// [`StoreError`] where an earlier record failed.
    pub fn check(&self) -> Result<(), StoreError> {
        match self.torn {
            true => Err(StoreError("a record of its journal failed".into())),
            false => Ok(()),
        }
    }

    /// The database's entry for a commit beside the journal.
    pub const fn beside(&self) -> (u64, u64) {
        (self.entry.0, self.number)
    }

    /// Puts into a transaction what the journal says, and the database does not have, but for a sum that `changes` replace. After its
    /// commit it says nothing ([`Self::committed`]).
    pub fn fold(&self, write: &WriteTransaction, task: &str, changes: &Changes) -> Result<(), StoreError> {
        if !self.is_ahead() {
            return Ok(());
        }
        let head = changes.head.as_ref();
        let replaced = changes.sum.is_some() || head.is_some_and(|head| Some(head.round) != self.round);
        let record = match replaced {
            true => None,
            false => Some(self.last()?),
        };
        let mut says = self.says.clone();
        if self.entry.1 >= self.number {
            says.head = None; // a commit beside it has a newer one
        }
        fold(write, task, &says, record.as_ref())
    }

    /// The record that it wrote last.
    fn last(&self) -> Result<Record, StoreError> {
        parse(self.sheet.text().to_vec(), self.entry.0)?
            .filter(|record| record.number == self.number)
            .ok_or_else(|| StoreError("the journal's last record is gone".into()))
    }

    /// Another mark for the database, whose files are there. [`NO_MARK`] where none can be made, and commits go to the database; and where those
    /// of a journal that says something were removed: only after the commit others may take their names.
    pub fn next_mark(&mut self) -> Result<u64, StoreError> {
        let there = self.files.is_some() && self.paths.iter().all(|path| path.exists());
        if there {
            return new_mark();
        }
        if self.unavailable || self.is_ahead() {
            return Ok(NO_MARK);
        }
        match make(&self.paths) {
            Ok(files) => {
                self.files = Some(files);
                new_mark()
            }
            Err(error) => {
                self.unavailable = true;
                tracing::warn!(path = %self.paths[0].display(), %error, "no journal can be made; commits take longer");
                Ok(NO_MARK)
            }
        }
    }

    /// Told when a transaction of the database that had `entry` for it, and `head`, is on the disk. After a fold nothing in its files counts,
    /// and what they and the memory held of the sum goes.
    pub fn committed(&mut self, entry: (u64, u64), head: Option<&Head>) {
        if entry.0 != self.entry.0 {
            (self.number, self.says) = (0, Changes::default());
            self.sheet.clear();
            for file in self.files.iter().flatten() {
                if let Err(error) = file.set_len(0) {
                    tracing::debug!(%error, "a journal keeps what it said until it is written over");
                }
            }
        }
        if entry.0 == NO_MARK {
            self.files = None;
        }
        self.entry = entry;
        self.round = head.map(|head| head.round).or(self.round);
    }

    /// Removes its files, where the database has no mark of it.
    pub fn remove(&mut self) {
        if !self.is_there() {
            self.files = None;
            remove(&self.paths);
        }
    }
}

fn none() -> StoreError {
    StoreError("it has no journal".into())
}

/// Another mark, which no record has.
fn new_mark() -> Result<u64, StoreError> {
    let mut mark = [0; 8];
    getrandom::fill(&mut mark).map_err(StoreError::new)?;
    Ok(u64::from_le_bytes(mark).max(1))
}

/// What is done about a database whose journal is not there, or not as it was left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Missing {
    /// It is not opened.
    Refused,
    /// What the journal said is lost.
    GivenUp,
}

/// Puts into a transaction what the journals beside the database at `path` say, and it does not have, and leaves no mark. Returns all tasks
/// that ever had one, and whether one had: once the transaction is on the disk, their files can be [removed](forget).
///
/// # Errors
/// [`StoreError`] where a journal cannot be read, or is `missing` and refused.
pub(super) fn recover(
    write: &WriteTransaction,
    path: &Path,
    missing: Missing,
) -> Result<(Vec<String>, bool), StoreError> {
    let mut entries = Vec::new();
    for entry in write.open_table(JOURNALS)?.iter()? {
        let (task, entry) = entry?;
        entries.push((task.value().to_owned(), entry.value()));
    }
    let mut marked = false;
    for (task, (mark, behind)) in &entries {
        if *mark == NO_MARK {
            continue;
        }
        let record = newest(&paths(path, task), *mark, *behind, missing)?;
        if let Some(mut record) = record {
            let (updates, number) = (record.says.counted.len(), record.number);
            if *behind >= number {
                record.says.head = None;
            }
            fold(write, task, &record.says, Some(&record))?;
            tracing::info!(%task, updates, "took over what its journal says");
        }
        let mut journals = write.open_table(JOURNALS)?;
        journals.insert(task.as_str(), NONE)?;
        marked = true;
    }
    Ok((entries.into_iter().map(|(task, _)| task).collect(), marked))
}

/// Removes the journals of tasks.
pub(super) fn forget(path: &Path, tasks: &[String]) {
    tasks.iter().for_each(|task| remove(&paths(path, task)));
}

fn fold(
    write: &WriteTransaction,
    task: &str,
    says: &Changes,
    record: Option<&Record>,
) -> Result<(), StoreError> {
    super::apply(write, task, says, u64::MAX)?;
    let mut sums = write.open_table(SUMS)?;
    for (number, block) in (0..).zip(record.iter().flat_map(|record| record.blocks())) {
        sums.insert((task, number), block)?;
    }
    Ok(())
}

fn paths(path: &Path, task: &str) -> [PathBuf; 2] {
    ["0", "1"].map(|number| {
        let mut name = OsString::from(path);
        name.push(format!(".{task}.{number}"));
        name.into()
    })
}

/// Opens the files, or makes them, their owner's alone, so that they are there after a power cut, too.
fn make(paths: &[PathBuf; 2]) -> std::io::Result<[File; 2]> {
    let open = |path: &PathBuf| {
        let mut options = File::options();
        options.read(true).write(true).create(true).truncate(false);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        options.open(path)
    };
    let files = [open(&paths[0])?, open(&paths[1])?];
    for file in &files {
        if let Err(error) = set_direct(file, true) {
            tracing::debug!(%error, "a journal is written through the cache");
        }
    }
    #[cfg(unix)]
    {
        let folder = paths[0].parent().filter(|folder| !folder.as_os_str().is_empty());
        File::open(folder.unwrap_or(Path::new(".")))?.sync_all()?;
    }
    Ok(files)
}

/// Files that are left do no harm: no record in them counts.
fn remove(paths: &[PathBuf; 2]) {
    for path in paths {
        if let Err(error) = std::fs::remove_file(path)
            && error.kind() != ErrorKind::NotFound
        {
            tracing::debug!(path = %path.display(), %error, "a journal stays, and is not needed");
        }
    }
}

/// Writes a record over the one in `file`. Until all of it is there its digest is that of another body.
fn write(
    file: &mut File,
    sheet: &mut Sheet,
    mark: u64,
    number: u64,
    says: &Changes,
    sum: &[i64],
) -> std::io::Result<()> {
    let head = to_json(&says.head).map_err(std::io::Error::other)?;
    // As much as a later record takes, but for a head that grows.
    sheet.begin(
        HEADER + 2 * head.len() + 72 * MOST_ENTRIES + sum.len().div_ceil(SUM_BLOCK) + size_of_val(sum),
    );
    let record = sheet.end();
    record.extend_from_slice(MAGIC);
    record.extend_from_slice(&VERSION.to_le_bytes());
    record.extend_from_slice(&mark.to_le_bytes());
    record.extend_from_slice(&number.to_le_bytes());
    // Each is far below 2³²: a head is bounded by the task file, the others by `MOST_ENTRIES`.
    for count in [head.len(), says.check_ins.len(), says.counted.len(), 0] {
        record.extend_from_slice(&(count as u32).to_le_bytes());
    }
    record.extend_from_slice(&(sum.len() as u64).to_le_bytes());
    record.extend_from_slice(&[0; HEADER - PROLOGUE]); // the digest, below
    record.extend_from_slice(&head);
    for (round, client) in &says.check_ins {
        record.extend_from_slice(&round.to_le_bytes());
        record.extend_from_slice(client.as_bytes());
    }
    for entry in &says.counted {
        record.extend_from_slice(entry.update.as_bytes());
        record.extend_from_slice(&entry.round.to_le_bytes());
        record.extend_from_slice(entry.client.as_bytes());
        record.extend_from_slice(entry.digest.as_bytes());
    }
    for block in sum.chunks(SUM_BLOCK) {
        write_block(block, record);
    }
    let (prologue, rest) = sheet.text_mut().split_at_mut(PROLOGUE);
    let (digest, body) = rest.split_at_mut(HEADER - PROLOGUE);
    let mut hash = XxHash3_128::new();
    hash.write(body);
    hash.write(prologue);
    digest.copy_from_slice(&hash.finish_128().to_le_bytes());
    sheet.write(file)
}

/// A whole record.
struct Record {
    number: u64,
    /// All but the sum.
    says: Changes,
    bytes: Vec<u8>,
    /// Where the sum's blocks begin, and their entries.
    sum: (usize, usize),
}

impl Record {
    /// The blocks of the sum.
    fn blocks(&self) -> impl Iterator<Item = &[u8]> {
        let (mut rest, mut left) = (&self.bytes[self.sum.0..], self.sum.1);
        std::iter::from_fn(move || {
            let width = usize::from(*rest.first()?);
            let entries = left.min(SUM_BLOCK);
            let (block, after) = rest.split_at_checked(1 + width * entries)?;
            (rest, left) = (after, left - entries);
            (entries > 0).then_some(block)
        })
    }
}

/// The newest whole record of this mark, if there is one yet.
///
/// # Errors
/// Unless that is given up: [`StoreError`] where a file is not there or cannot be read, and where the database knows of a newer one (`behind`).
fn newest(
    paths: &[PathBuf; 2],
    mark: u64,
    behind: u64,
    missing: Missing,
) -> Result<Option<Record>, StoreError> {
    let refuse = |path: &Path, why: &dyn std::fmt::Display| {
        let error = format!("its journal {}: {why}. {WHAT_TO_DO}", path.display());
        match missing {
            Missing::Refused => Err(StoreError(error)),
            Missing::GivenUp => {
                tracing::warn!("{error}: it is given up");
                Ok(())
            }
        }
    };
    let mut newest: Option<Record> = None;
    for path in paths {
        let bytes = std::fs::read(path).map_err(StoreError::new);
        let older = newest.as_ref().map_or(0, |record| record.number);
        match bytes.and_then(|bytes| parse(bytes, mark)) {
            Ok(Some(record)) if record.number > older => newest = Some(record),
            Ok(_) => {}
            Err(error) => refuse(path, &error)?,
        }
    }
    if newest.as_ref().map_or(0, |record| record.number) < behind {
        refuse(&paths[(behind % 2) as usize], &"it lacks a record")?;
    }
    Ok(newest)
}

const WHAT_TO_DO: &str =
    "Put both of its files back beside the store, or give up what they say (--give-up-journals)";

/// A record; none where these bytes are not a whole one, or have another mark.
fn parse(bytes: Vec<u8>, mark: u64) -> Result<Option<Record>, StoreError> {
    let Ok(Some(places)) = places(&bytes, mark) else {
        return match is_of_another_version(&bytes, mark) {
            Ok(true) => Err(StoreError("it is of another version".into())),
            _ => Ok(None),
        };
    };
    let mut says = Changes {
        head: from_json(&bytes[places.head.clone()])?,
        ..Changes::default()
    };
    let mut reader = Reader::new(&bytes[places.head.end..places.sum]);
    let mut read = || -> Result<(), DecodeError> {
        for _ in 0..places.check_ins {
            let round = reader.u64("round")?;
            let client = ClientId::from_bytes(reader.array("client")?);
            says.check_ins.push((round, client));
        }
        for _ in 0..places.counted {
            says.counted.push(Counted {
                update: UpdateId::from_bytes(reader.array("update")?),
                round: reader.u64("round")?,
                client: ClientId::from_bytes(reader.array("client")?),
                digest: FrameDigest::from_bytes(reader.array("digest")?),
            });
        }
        Ok(())
    };
    read().map_err(StoreError::new)?;
    Ok(Some(Record {
        number: places.number,
        says,
        sum: (places.sum, places.entries),
        bytes,
    }))
}

/// Whether this is a record of this mark that another relay wrote. (A record that is torn has the version of all others.)
fn is_of_another_version(bytes: &[u8], mark: u64) -> Result<bool, DecodeError> {
    let mut reader = Reader::new(bytes);
    let is_other = reader.bytes(4, "magic")? == MAGIC && reader.u32("version")? != VERSION;
    Ok(is_other && reader.u64("mark")? == mark)
}

/// Where the parts of a record are.
struct Places {
    number: u64,
    head: std::ops::Range<usize>,
    check_ins: u32,
    counted: u32,
    sum: usize,
    entries: usize,
}

/// Of a record; none where it has another mark, or its digest is not its own. What is longer than a record is of one before it.
fn places(bytes: &[u8], mark: u64) -> Result<Option<Places>, DecodeError> {
    let mut reader = Reader::new(bytes);
    let is_one = reader.bytes(4, "magic")? == MAGIC && reader.u32("version")? == VERSION;
    if !is_one || reader.u64("mark")? != mark {
        return Ok(None);
    }
    let number = reader.u64("number")?;
    let (head, check_ins, counted) = (
        reader.u32("head")? as usize,
        reader.u32("check-ins")?,
        reader.u32("counted")?,
    );
    reader.u32("zero")?;
    let entries = reader.u64("entries")?;
    let digest = reader.array("digest").map(u128::from_le_bytes)?;
    let length = head + 24 * check_ins as usize + 72 * counted as usize;
    reader.bytes(length, "head, check-ins and counted updates")?;
    let (mut end, mut left) = (HEADER + length, entries);
    while left > 0 {
        let of_block = left.min(SUM_BLOCK as u64);
        let width = usize::from(reader.u8("width")?);
        let block = width * of_block as usize; // at most 255 × `SUM_BLOCK`
        reader.bytes(block, "block")?;
        (end, left) = (end + 1 + block, left - of_block);
    }
    let mut hash = XxHash3_128::new();
    hash.write(&bytes[HEADER..end]);
    hash.write(&bytes[..PROLOGUE]);
    Ok((hash.finish_128() == digest).then_some(Places {
        number,
        head: HEADER..HEADER + head,
        check_ins,
        counted,
        sum: HEADER + length,
        entries: entries as usize, // as many as there are bytes for
    }))
}
