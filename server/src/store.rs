//! What a relay keeps, as a port: [`Store`]. [`RedbStore`] is the embedded implementation, [`PostgresStore`] the one that several
//! relays share.
//!
//! The rule that everything else rests on: whatever a relay acknowledges, it committed before. One [`Changes`] is one
//! transaction, so a round's sum and the ids in it are never apart on disk.
//!
//! A store that several relays share keeps a sum of each of them for the open round, its **lane** ([`Turn::lane`]): nobody adds to
//! another's, and the round's sum is all of them together, which only whoever closes the round reads.
//!
//! Where the task's rule is a mean, no update is written as such: what is written is the sum of the open round. That does not
//! hide an update from whoever reads the store, or copies of it over time: the first commit to a sum may hold
//! one update, which is that update, and one sum less the one before it is what the commits between them added. A rule that needs
//! every update ([`crate::strategy::Aggregation::needs_updates`]) has them written, until the commit that closes their round.
//! With privacy mode `none` the store's reader must be trusted; with local noise, an update that is found this way is as noisy
//! as it was when its client sent it.

use unsaid_protocol::{ClientId, ContentHash, IdentityId, TaskId, UpdateId};

use crate::{
    lineage::RoundRecord,
    round::{Counted, Head, REMEMBERED_ROUNDS},
    strategy::Memory,
};

mod blocks;
mod identities;
mod postgres;
mod redb;
#[cfg(test)]
mod tests;

pub use self::{
    identities::{Account, Admission, Application, Census, Identity, Listed, Registry, Standing},
    postgres::{DatabaseError, PostgresStore},
    redb::RedbStore,
};

/// Models that are kept of each task unless a store is told otherwise: for as long as a round's updates are remembered.
const KEEP_MODELS: u64 = REMEMBERED_ROUNDS;

/// Everything that one transaction changes in one task.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Changes {
    /// The new head.
    pub head: Option<Head>,
    /// The manifest in force, as its JSON.
    pub manifest: Option<String>,
    /// The open round's sum, whole; absolute, so that writing it again changes nothing. Where the store keeps lanes, that of `lane`.
    pub sum: Option<Vec<i64>>,
    /// Where the store keeps lanes: this relay's in the open round.
    pub lane: Option<Lane>,
    /// Whether the sum that was written before the turn began ([`Store::turn_after`]) is what the lane has now. If not it goes, and `sum` takes
    /// its place.
    pub stands: bool,
    /// Updates of the open round, where its rule needs each of them: kept until the head's round is another.
    pub updates: Vec<(UpdateId, Vec<i32>)>,
    /// What the strategy remembers, as of the newest model.
    pub memory: Option<Memory>,
    /// A round whose check-ins of earlier commits are forgotten, but for those of clients that it counts.
    pub forgotten: Option<u64>,
    /// New check-ins, with their round.
    pub check_ins: Vec<(u64, ClientId)>,
    /// Updates that the sum now counts.
    pub counted: Vec<Counted>,
    /// How many models of the task are kept where a round opens; none for as many as the store keeps of every task.
    pub keep_models: Option<u64>,
    /// New models, as safetensors bytes.
    pub models: Vec<(ContentHash, Vec<u8>)>,
    /// New or changed figures of published rounds.
    pub rounds: Vec<RoundRecord>,
    /// Accounts of identities of which an update was counted, whole: absolute, so that writing one again changes nothing.
    pub accounts: Vec<(IdentityId, Account)>,
}

impl Changes {
    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// The sum of the updates that one relay has counted in a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lane {
    /// Which.
    pub id: LaneId,
    /// Updates in it.
    pub updates: u32,
}

/// Tells a lane from all others of a task: random.
pub type LaneId = u64;

/// A lane's sum before the commit that counts what it adds up.
#[derive(Debug, Clone, Copy)]
pub struct Ahead<'a> {
    /// The round that was open when it was added up.
    pub round: u64,
    /// The lane.
    pub lane: Lane,
    /// Its sum, whole.
    pub steps: &'a [i64],
}

/// Everything that a task needs to go on after a restart, but for its models.
#[derive(Debug, Clone, PartialEq)]
pub struct Saved {
    /// The head.
    pub head: Head,
    /// The manifest that was in force, as its JSON.
    pub manifest: String,
    /// The open round's sum; none where it counts nothing, and where the store keeps lanes.
    pub sum: Option<Vec<i64>>,
    /// Updates that were kept of the open round.
    pub updates: Vec<(UpdateId, Vec<i32>)>,
    /// What the strategy remembers; none before the first round.
    pub memory: Option<Memory>,
    /// Rounds and clients that checked in to them: to the open one, and where rounds are asynchronous to those before it that an
    /// update may still start from.
    pub check_ins: Vec<(u64, ClientId)>,
    /// Updates counted in the open round and in those still remembered.
    pub counted: Vec<Counted>,
}

/// The store failed. Whether the transaction was written is unknown: load again before the next one.
#[derive(Debug, thiserror::Error)]
#[error("the store failed: {0}")]
pub struct StoreError(pub String);

impl StoreError {
    fn new(error: impl std::fmt::Display) -> Self {
        Self(error.to_string())
    }
}

/// Where tasks are kept. Calls block.
pub trait Store: Send + Sync + 'static {
    /// The state of a task; none for one that was never here.
    ///
    /// # Errors
    /// [`StoreError`]
    fn load(&self, task: &TaskId) -> Result<Option<Saved>, StoreError>;

    /// Writes all of `changes` or nothing, and returns once they would survive a power cut. Sums and updates of
    /// rounds before the head's are dropped, check-ins to rounds before [`Head::first_base`], and counted updates that are no longer remembered. Old models may be dropped; never the
    /// head's.
    ///
    /// # Errors
    /// [`StoreError`]; the changes may or may not have been written.
    fn commit(&self, task: &TaskId, changes: &Changes) -> Result<(), StoreError>;

    /// A model of a task, as safetensors bytes; none where it never was, or is no longer kept.
    ///
    /// # Errors
    /// [`StoreError`]
    fn model(&self, task: &TaskId, model: &ContentHash) -> Result<Option<Vec<u8>>, StoreError>;

    /// The figures of every published round, from round 0.
    ///
    /// # Errors
    /// [`StoreError`]
    fn rounds(&self, task: &TaskId) -> Result<Vec<RoundRecord>, StoreError>;

    /// The figures of the last published rounds that have a number below `before`, oldest first: `most` of them, where there are so many.
    ///
    /// # Errors
    /// [`StoreError`]
    fn rounds_before(&self, task: &TaskId, before: u64, most: u16) -> Result<Vec<RoundRecord>, StoreError>;

    /// Begins a turn on a task: until it is committed or dropped, nobody else changes the task. A store that one relay has for
    /// itself has nobody else, and need not say anything here.
    ///
    /// # Errors
    /// [`StoreError`]
    fn turn<'a>(&'a self, task: &'a TaskId) -> Result<Box<dyn Turn + 'a>, StoreError> {
        Ok(Box::new(Alone { store: self, task }))
    }

    /// As [`Self::turn`], of a relay that has a lane: its sum is written first, while others may have their turns, and is there with this
    /// turn's commit or not at all. What it counts is decided in the turn: see [`Changes::stands`].
    ///
    /// # Errors
    /// [`StoreError`]
    fn turn_after<'a>(
        &'a self,
        task: &'a TaskId,
        _ahead: Ahead<'_>,
    ) -> Result<Box<dyn Turn + 'a>, StoreError> {
        self.turn(task)
    }

    /// Whether a commit that takes a task's updates to a sum, and nothing else, is one record of a journal.
    fn has_journal(&self, _task: &TaskId) -> bool {
        false
    }

    /// Where identities are kept; none where this store keeps none.
    fn registry(&self) -> Option<&dyn Registry> {
        None
    }

    /// Has `told` called after every commit to a task by anyone, with the version that it made; with the greatest one where
    /// commits may have been missed. Never called by a store that one relay has for itself.
    fn watch(&self, _task: &TaskId, _told: Told) {}
}

/// Is told a version.
pub type Told = Box<dyn Fn(u64) + Send + Sync>;

/// Where a task stands: after which commit. Every commit makes the next version, and a nonce by which it is told from every other
/// commit of that version: a database that was put back to an older state and went on from there counts the same versions again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stage {
    /// Counts commits.
    pub version: u64,
    /// Random.
    pub nonce: u64,
}

/// A hold on one task, see [`Store::turn`].
pub trait Turn {
    /// Where the task stands. It stays the same where there is nobody else.
    fn stage(&self) -> Stage;

    /// The time by the clock that all who share the store go by, in Unix milliseconds, as of the turn's beginning; none where
    /// there is nobody else.
    fn now_ms(&self) -> Option<u64> {
        None
    }

    /// The most bytes that one value may have (a model, a sum, one kept update, what a strategy remembers); none for any number.
    fn most_bytes(&self) -> Option<u64> {
        None
    }

    /// The manifest in force, as its JSON; none where there is nobody else who could have changed it.
    ///
    /// # Errors
    /// [`StoreError`]
    fn manifest(&mut self) -> Result<Option<String>, StoreError> {
        Ok(None)
    }

    /// As [`Store::model`], of the turn's task.
    ///
    /// # Errors
    /// [`StoreError`]
    fn model(&mut self, model: &ContentHash) -> Result<Option<Vec<u8>>, StoreError>;

    /// As [`Store::rounds`], of the turn's task.
    ///
    /// # Errors
    /// [`StoreError`]
    fn rounds(&mut self) -> Result<Vec<RoundRecord>, StoreError>;

    /// A published round of the turn's task; none where there is no such round.
    ///
    /// # Errors
    /// [`StoreError`]
    fn round(&mut self, round: u64) -> Result<Option<RoundRecord>, StoreError>;

    /// As [`Registry::standings`], of the turn's task: what is read here changes in no other turn before this one ends, but that the
    /// operator may revoke an identity meanwhile: a commit that would count for it then fails.
    ///
    /// # Errors
    /// [`StoreError`], also where the store keeps no identities.
    fn standings(&mut self, ids: &[IdentityId]) -> Result<Vec<Standing>, StoreError>;

    /// Begins a lane: a relay adds up in it what it counts from now on. Whoever does not know what became of its lane begins another, and
    /// the one before it stays part of its round. None where the store keeps one sum, which [`Saved`] has.
    ///
    /// # Errors
    /// [`StoreError`]
    fn lane(&mut self) -> Result<Option<LaneId>, StoreError> {
        Ok(None)
    }

    /// Calls `each` with every other lane of the open round than `own`, and its sum.
    ///
    /// # Errors
    /// [`StoreError`]
    fn other_lanes(&mut self, _own: LaneId, _each: &mut EachLane<'_>) -> Result<(), StoreError> {
        Ok(())
    }

    /// Whether a lane's sum was written before it began.
    fn is_ahead(&self) -> bool {
        false
    }

    /// As [`Store::load`].
    ///
    /// # Errors
    /// [`StoreError`]
    fn load(&mut self) -> Result<Option<Saved>, StoreError>;

    /// What changed since `mark`. None where the task has not come to where it stands from there, or so long ago that this is no
    /// longer known: it has to be loaded again. Only asked where the stage is another.
    ///
    /// # Errors
    /// [`StoreError`]
    fn news(&mut self, mark: Mark) -> Result<Option<News>, StoreError>;

    /// As [`Store::commit`]; returns the stage that this made.
    ///
    /// # Errors
    /// [`StoreError`]; the changes may or may not have been written.
    fn commit(self: Box<Self>, changes: &Changes) -> Result<Stage, StoreError>;
}

/// Is given a lane and its sum.
pub type EachLane<'a> = dyn FnMut(Lane, Vec<i64>) + 'a;

/// How much of a task a relay knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// The stage that it has seen.
    pub stage: Stage,
    /// The round that was open then.
    pub round: u64,
}

/// What changed in a task since a [`Mark`].
#[derive(Debug, Clone, PartialEq)]
pub struct News {
    /// Head and manifest as they are; of updates, check-ins and counted updates the new ones; the strategy's memory where
    /// another round is open.
    pub saved: Saved,
    /// New or changed figures of published rounds.
    pub rounds: Vec<RoundRecord>,
}

/// The turn of a relay that has its store for itself.
struct Alone<'a, S: ?Sized> {
    store: &'a S,
    task: &'a TaskId,
}

impl<S: Store + ?Sized> Turn for Alone<'_, S> {
    fn stage(&self) -> Stage {
        Stage::default()
    }

    fn model(&mut self, model: &ContentHash) -> Result<Option<Vec<u8>>, StoreError> {
        self.store.model(self.task, model)
    }

    fn rounds(&mut self) -> Result<Vec<RoundRecord>, StoreError> {
        self.store.rounds(self.task)
    }

    fn round(&mut self, round: u64) -> Result<Option<RoundRecord>, StoreError> {
        let newest = self.store.rounds_before(self.task, round.saturating_add(1), 1)?;
        Ok(newest.into_iter().find(|record| record.round == round))
    }

    fn standings(&mut self, ids: &[IdentityId]) -> Result<Vec<Standing>, StoreError> {
        let registry = self.store.registry();
        let registry = registry.ok_or_else(|| StoreError("it keeps no identities".into()))?;
        registry.standings(self.task, ids)
    }

    fn load(&mut self) -> Result<Option<Saved>, StoreError> {
        self.store.load(self.task)
    }

    fn news(&mut self, _mark: Mark) -> Result<Option<News>, StoreError> {
        Ok(None)
    }

    fn commit(self: Box<Self>, changes: &Changes) -> Result<Stage, StoreError> {
        self.store.commit(self.task, changes)?;
        Ok(Stage::default())
    }
}

fn bytes<T: Copy, const N: usize>(numbers: &[T], to_le_bytes: impl Fn(T) -> [u8; N]) -> Vec<u8> {
    let mut bytes = vec![0; N * numbers.len()];
    let (chunks, _) = bytes.as_chunks_mut();
    for (chunk, &number) in chunks.iter_mut().zip(numbers) {
        *chunk = to_le_bytes(number);
    }
    bytes
}

fn numbers<T, const N: usize>(bytes: &[u8], from_le_bytes: impl Fn([u8; N]) -> T) -> Vec<T> {
    let (chunks, _) = bytes.as_chunks();
    chunks.iter().map(|&chunk| from_le_bytes(chunk)).collect()
}

fn to_json(value: &impl serde::Serialize) -> Result<Vec<u8>, StoreError> {
    serde_json::to_vec(value).map_err(StoreError::new)
}

fn from_json<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Result<T, StoreError> {
    serde_json::from_slice(bytes).map_err(StoreError::new)
}
