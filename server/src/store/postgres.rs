//! The store that several relays share: a PostgreSQL database (12 or later).
//!
//! A relay changes a task in **turns** ([`Turn`]): one transaction that locks the task's row first, reads what others changed
//! since this relay last looked, writes, and tells the others (`NOTIFY`) as it commits. So at any time one relay at most changes
//! a task, and it knows all that was committed before. Nothing else is needed for relays to come and go: no leader, no lease, no
//! clock that they agree on. The lock is the transaction's, so it ends with the relay that holds it, and a relay that was taken
//! for dead while it only slept finds its transaction gone: what it commits late is refused as a whole.
//!
//! A relay that is at work in its turn (making a model may take minutes) says so every few seconds ([`Held::pulse`]). One that says
//! nothing loses its turn: by the database's own limits (`link.rs`), or, where those do not reach, by whoever waits for it
//! ([`END_FROZEN`]).
//!
//! A database may be put back to an older state (a backup, or a replica that had not heard of the last commits). What was
//! acknowledged since then is lost, but nothing is counted wrongly: commits have random names ([`Stage`]), and a relay that does not
//! find the last one it saw in the task's past reads the task again.
//!
//! The database must make a commit last before it says so (a synchronous replica, where one takes over from another), and is
//! connected to directly: through a pooler that shares sessions there is no `LISTEN`.

use std::{path::Path, sync::Arc, time::Duration};

use futures_util::future::{try_join_all, try_join3};
use tokio::{sync::Semaphore, task::AbortHandle};
use tokio_postgres::{
    Client, Row, SimpleQueryMessage,
    error::SqlState,
    types::{ToSql, Type},
};
use unsaid_protocol::{ClientId, ContentHash, RoundMetrics, TaskId, UpdateId};

use super::{
    Changes, KEEP_MODELS, Mark, News, Saved, Stage, Store, StoreError, Told, Turn, bytes, from_json, numbers,
    to_json,
};
use crate::{
    round::{Counted, Head},
    strategy::Memory,
};

mod link;
mod listen;

pub use self::link::DatabaseError;
use self::{
    link::{Link, said},
    listen::{CHANNEL, Watchers, listen},
};

/// The layout of the tables. A database of another one is refused.
const LAYOUT: i64 = 2;

/// Makes what is not there yet.
const TABLES: &str = include_str!("postgres/layout.sql");

/// Held while tables are made: two relays may start at the same time. Any number that nobody else uses.
const MAKING_TABLES: i64 = 0x756e_7361_6964;

/// The most bytes of one value: a `bytea` has less than 2³⁰, with all that is sent beside it.
const MOST_BYTES: u64 = (1 << 30) - (1 << 24);

/// Commits of a task whose names are kept. A relay that slept through more of them reads the task again.
const NAMED_COMMITS: i64 = 1_024;

/// Connections for reading outside of turns, and how long a reader waits for one: reading must not keep turns waiting.
const READERS: usize = 4;
const READER_PATIENCE: Duration = Duration::from_secs(2);

/// How often a relay says in its turn that it is still there. The database waits four times as long (`link.rs`).
const PULSE: Duration = Duration::from_secs(5);

/// Ends the turns of relays that froze while a message was on its way: the database waits for the rest of it without any limit of its
/// own (from version 17 on there is one). A relay that is there gives up by itself before.
const END_FROZEN: &str = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
    WHERE datname = current_database() AND usename = current_user AND pid <> pg_backend_pid() \
    AND pid IN (SELECT pid FROM pg_locks WHERE relation = 'unsaid.tasks'::regclass AND granted) \
    AND state <> 'idle' AND wait_event_type = 'Client' AND query_start < clock_timestamp() - interval '45 s'";

/// A store in a PostgreSQL database. It has one connection for each task, at most four for reading and one for listening, and
/// connects again by itself.
pub struct PostgresStore {
    link: Link,
    watchers: Arc<Watchers>,
    keep_models: u64,
    reading: Semaphore,
}

impl PostgresStore {
    /// Connects to `postgres://user:password@host:port/database` and makes the tables that are missing, in a schema `unsaid`.
    ///
    /// The connection is encrypted, and the database's certificate checked: against `authority` (PEM) where there is one, else
    /// against the authorities that the operating system trusts. Without an `authority` it is plain where the database is on
    /// this machine, or where the address ends with `sslmode=disable`.
    ///
    /// # Errors
    /// [`DatabaseError`]
    pub fn open(address: &str, authority: Option<&Path>) -> Result<Self, DatabaseError> {
        let link = Link::new(address, authority)?;
        let client = link.take()?;
        link.wait(make_tables(&client))?;
        link.give(client);
        let watchers = Arc::<Watchers>::default();
        let (config, tls) = link.address();
        link.spawn(listen(config, tls, watchers.clone()));
        Ok(Self {
            link,
            watchers,
            keep_models: KEEP_MODELS,
            reading: Semaphore::new(READERS),
        })
    }

    /// Keeps this many models of each task, as [`super::RedbStore::keeping`].
    #[must_use]
    pub const fn keeping(mut self, models: u64) -> Self {
        self.keep_models = models;
        self
    }

    /// Reads rows outside of any turn.
    fn read(&self, sql: &str, parameters: &[Parameter<'_>]) -> Result<Vec<Row>, StoreError> {
        self.link.wait(async {
            let place = tokio::time::timeout(READER_PATIENCE, self.reading.acquire()).await;
            let _place = place.map_err(|_| StoreError("too many want to read at the same time".into()))?;
            let client = self.link.take_if_reachable().await?;
            let rows = query(&client, sql, parameters).await?;
            self.link.give(client);
            Ok(rows)
        })
    }
}

/// A value of a statement, and its type: said here, the database need not be asked for it.
type Parameter<'a> = (&'a (dyn ToSql + Sync), Type);

async fn query(client: &Client, sql: &str, parameters: &[Parameter<'_>]) -> Result<Vec<Row>, StoreError> {
    client.query_typed(sql, parameters).await.map_err(said)
}

async fn execute(client: &Client, sql: &str) -> Result<(), StoreError> {
    client.batch_execute(sql).await.map_err(said)
}

/// Whatever the database's own defaults are: each statement of a turn sees what was committed before it.
const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE";

async fn make_tables(client: &Client) -> Result<(), StoreError> {
    execute(client, BEGIN).await?;
    query(
        client,
        "SELECT pg_advisory_xact_lock($1)",
        &[(&MAKING_TABLES, Type::INT8)],
    )
    .await?;
    let found = query(client, "SELECT to_regclass('unsaid.meta') IS NOT NULL", &[]).await?;
    if found.first().map(|row| get(row, 0)).transpose()? != Some(true) {
        execute(client, TABLES).await?;
        let sql = "INSERT INTO unsaid.meta (layout) VALUES ($1)";
        query(client, sql, &[(&LAYOUT, Type::INT8)]).await?;
    }
    let found = query(client, "SELECT layout FROM unsaid.meta", &[]).await?;
    match found.first().map(|row| get::<i64>(row, 0)).transpose()? {
        Some(LAYOUT) => execute(client, "COMMIT").await,
        Some(found) => Err(StoreError(format!(
            "its layout is {found}, this relay knows {LAYOUT}"
        ))),
        None => Err(StoreError(
            "it has tables of another kind in its schema unsaid".into(),
        )),
    }
}

const MODEL: &str = "SELECT bytes FROM unsaid.models WHERE task = $1 AND hash = $2";

impl Store for PostgresStore {
    fn load(&self, task: &TaskId) -> Result<Option<Saved>, StoreError> {
        self.turn(task)?.load()
    }

    fn commit(&self, task: &TaskId, changes: &Changes) -> Result<(), StoreError> {
        self.turn(task)?.commit(changes).map(drop)
    }

    fn model(&self, task: &TaskId, model: &ContentHash) -> Result<Option<Vec<u8>>, StoreError> {
        let hash = &model.as_bytes()[..];
        let rows = self.read(MODEL, &[(&task.as_str(), Type::TEXT), (&hash, Type::BYTEA)])?;
        rows.first().map(|row| get(row, 0)).transpose()
    }

    fn rounds(&self, task: &TaskId) -> Result<Vec<RoundMetrics>, StoreError> {
        let sql = "SELECT metrics FROM unsaid.rounds WHERE task = $1 ORDER BY round";
        let rows = self.read(sql, &[(&task.as_str(), Type::TEXT)])?;
        rows.iter().map(metrics).collect()
    }

    fn turn<'a>(&'a self, task: &'a TaskId) -> Result<Box<dyn Turn + 'a>, StoreError> {
        let client = self.link.take()?;
        let begun = self.link.wait(begin(&client, task.as_str()))?;
        let pulse = self.link.spawn(pulse(client.clone()));
        Ok(Box::new(Held {
            store: self,
            task: task.as_str(),
            client: Some(client),
            pulse,
            begun,
        }))
    }

    fn watch(&self, task: &TaskId, told: Told) {
        self.watchers.add(task, told);
    }
}

/// A task as its turn finds it.
struct Begun {
    stage: Stage,
    head: Option<Head>,
    now_ms: u64,
}

/// Begins a transaction and locks the task's row, which is made where there is none.
async fn begin(client: &Client, task: &str) -> Result<Begun, StoreError> {
    const LOCK: &str = "SELECT version, nonce, head FROM unsaid.tasks WHERE task = $1 FOR UPDATE";
    // Another statement than the one that waits for the lock.
    const TIME: &str = "SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint";
    let named = [(&task as &(dyn ToSql + Sync), Type::TEXT)];
    let work = try_join3(
        client.batch_execute(BEGIN),
        client.query_typed(LOCK, &named),
        client.query_typed(TIME, &[]),
    );
    let ((), mut rows, mut time) = match work.await {
        Ok(done) => done,
        Err(error) if error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) => {
            execute(client, "ROLLBACK").await?;
            let ended = query(client, END_FROZEN, &[]).await?.len();
            if ended > 0 {
                tracing::warn!(task, ended, "ended the turn of a relay that is frozen");
            }
            return Err(said(error));
        }
        Err(error) => return Err(said(error)),
    };
    if rows.is_empty() {
        let sql = "INSERT INTO unsaid.tasks (task, version, nonce) VALUES ($1, 0, 0) ON CONFLICT DO NOTHING";
        query(client, sql, &named).await?;
        rows = query(client, LOCK, &named).await?;
        time = query(client, TIME, &[]).await?;
    }
    let (Some(row), Some(time)) = (rows.first(), time.first()) else {
        return Err(StoreError("a row is missing".into()));
    };
    let head: Option<String> = get(row, 2)?;
    Ok(Begun {
        stage: Stage {
            version: to_u64(get(row, 0)?)?,
            nonce: get::<i64>(row, 1)?.cast_unsigned(),
        },
        head: head.map(|json| from_json(json.as_bytes())).transpose()?,
        now_ms: to_u64(get(time, 0)?)?,
    })
}

/// Says now and then that the relay whose turn it is is there.
async fn pulse(client: Arc<Client>) {
    loop {
        tokio::time::sleep(PULSE).await;
        if client.batch_execute("SELECT 1").await.is_err() {
            return; // the turn is lost, as its commit will find
        }
    }
}

/// A turn: a transaction that holds the task's row.
struct Held<'a> {
    store: &'a PostgresStore,
    task: &'a str,
    /// None once it was given back.
    client: Option<Arc<Client>>,
    /// Ends the work that says every few seconds that this relay is there.
    pulse: Option<AbortHandle>,
    begun: Begun,
}

impl Held<'_> {
    fn end_pulse(&mut self) {
        if let Some(pulse) = self.pulse.take() {
            pulse.abort();
        }
    }

    fn client(&self) -> Result<&Client, StoreError> {
        self.client
            .as_deref()
            .ok_or_else(|| StoreError("the turn is over".into()))
    }

    /// What changed after `since`, with the strategy's memory only where that is asked for.
    async fn read(&self, since: i64, with_memory: bool) -> Result<Option<Saved>, StoreError> {
        let (client, Some(head)) = (self.client()?, self.begun.head.clone()) else {
            return Ok(None);
        };
        let first_base = to_i64(head.first_base())?;
        let (task, first_base, since) = (
            (&self.task as &(dyn ToSql + Sync), Type::TEXT),
            (&first_base as &(dyn ToSql + Sync), Type::INT8),
            (&since as &(dyn ToSql + Sync), Type::INT8),
        );
        let of_task = [task.clone()];
        let since_then = [task.clone(), since.clone()];
        let of_rounds = [task, since, first_base];
        let memory = if with_memory {
            "memory_kind, memory"
        } else {
            "NULL::text, NULL::bytea"
        };
        let manifest = format!("SELECT manifest, {memory} FROM unsaid.tasks WHERE task = $1");
        // Sent one after the other without waiting for answers.
        let rows = try_join_all([
            query(client, &manifest, &of_task),
            query(client, "SELECT steps FROM unsaid.sums WHERE task = $1", &of_task),
            query(
                client,
                "SELECT id, coordinates FROM unsaid.updates WHERE task = $1 AND version > $2 AND round >= $3",
                &of_rounds,
            ),
            query(
                client,
                "SELECT round, client FROM unsaid.check_ins WHERE task = $1 AND version > $2 AND round >= $3",
                &of_rounds,
            ),
            query(
                client,
                "SELECT id, round, client, digest FROM unsaid.counted WHERE task = $1 AND version > $2",
                &since_then,
            ),
        ])
        .await?;
        let [tasks, sums, updates, check_ins, counted] = &rows[..] else {
            return Err(StoreError("answers are missing".into()));
        };
        let row = tasks
            .first()
            .ok_or_else(|| StoreError("a row is missing".into()))?;
        let (kind, values): (Option<String>, Option<Vec<u8>>) = (get(row, 1)?, get(row, 2)?);
        let memory = kind.zip(values).map(|(kind, values)| Memory {
            kind,
            values: numbers(&values, f32::from_le_bytes),
        });
        let sum = sums.first().map(|row| get::<Vec<u8>>(row, 0)).transpose()?;
        let update = |row: &Row| {
            let coordinates: Vec<u8> = get(row, 1)?;
            let id = UpdateId::from_bytes(array(row, 0)?);
            Ok((id, numbers(&coordinates, i32::from_le_bytes)))
        };
        let counted_update = |row: &Row| {
            Ok(Counted {
                update: UpdateId::from_bytes(array(row, 0)?),
                round: to_u64(get(row, 1)?)?,
                client: ClientId::from_bytes(array(row, 2)?),
                digest: ContentHash::from_bytes(array(row, 3)?),
            })
        };
        let check_in = |row: &Row| Ok((to_u64(get(row, 0)?)?, ClientId::from_bytes(array(row, 1)?)));
        Ok(Some(Saved {
            head,
            manifest: get::<Option<String>>(row, 0)?.unwrap_or_default(),
            sum: sum.map(|bytes| numbers(&bytes, i64::from_le_bytes)),
            updates: updates.iter().map(update).collect::<Result<_, StoreError>>()?,
            memory,
            check_ins: check_ins
                .iter()
                .map(check_in)
                .collect::<Result<_, StoreError>>()?,
            counted: counted
                .iter()
                .map(counted_update)
                .collect::<Result<_, StoreError>>()?,
        }))
    }

    async fn rounds_since(&self, since: i64) -> Result<Vec<RoundMetrics>, StoreError> {
        let sql = "SELECT metrics FROM unsaid.rounds WHERE task = $1 AND version > $2 ORDER BY round";
        let parameters: [Parameter<'_>; 2] = [(&self.task, Type::TEXT), (&since, Type::INT8)];
        let rows = query(self.client()?, sql, &parameters).await?;
        rows.iter().map(metrics).collect()
    }

    /// Whether `stage` is one that the task has been at.
    async fn has_been_at(&self, stage: Stage) -> Result<bool, StoreError> {
        let sql = "SELECT nonce FROM unsaid.commits WHERE task = $1 AND version = $2";
        let version = to_i64(stage.version)?;
        let rows = query(
            self.client()?,
            sql,
            &[(&self.task, Type::TEXT), (&version, Type::INT8)],
        )
        .await?;
        let nonce = rows.first().map(|row| get::<i64>(row, 0)).transpose()?;
        Ok(nonce == Some(stage.nonce.cast_signed()))
    }

    /// Writes everything in the open transaction. Returns the transaction's number.
    async fn write(&self, changes: &Changes, stage: Stage) -> Result<i64, StoreError> {
        let (version, nonce) = (to_i64(stage.version)?, stage.nonce.cast_signed());
        let (client, task) = (self.client()?, self.task);
        let head = changes
            .head
            .as_ref()
            .or(self.begun.head.as_ref())
            .ok_or_else(|| StoreError("a task begins with its head".into()))?;
        let head_json = text(head)?;
        let (kind, values) = changes.memory.as_ref().map_or((None, None), |memory| {
            (
                Some(memory.kind.as_str()),
                Some(bytes(&memory.values, f32::to_le_bytes)),
            )
        });
        let sql = "WITH named AS (INSERT INTO unsaid.commits (task, version, nonce) VALUES ($1, $2, $7)), \
                   unnamed AS (DELETE FROM unsaid.commits WHERE task = $1 AND version <= $2 - $8) \
                   UPDATE unsaid.tasks SET version = $2, nonce = $7, head = $3, manifest = COALESCE($4, manifest), \
                   memory_kind = COALESCE($5, memory_kind), memory = COALESCE($6, memory) WHERE task = $1";
        let parameters: [Parameter<'_>; 8] = [
            (&task, Type::TEXT),
            (&version, Type::INT8),
            (&head_json, Type::TEXT),
            (&changes.manifest, Type::TEXT),
            (&kind, Type::TEXT),
            (&values, Type::BYTEA),
            (&nonce, Type::INT8),
            (&NAMED_COMMITS, Type::INT8),
        ];
        query(client, sql, &parameters).await?;
        let before = self.begun.head.as_ref();
        let opened = before.is_none_or(|before| before.round != head.round);
        if opened {
            // Before the new ones are written: an id that is forgotten may come again.
            let remembered = to_i64(head.oldest_remembered())?;
            let sql = "DELETE FROM unsaid.counted WHERE task = $1 AND round < $2";
            query(client, sql, &[(&task, Type::TEXT), (&remembered, Type::INT8)]).await?;
        }
        self.write_entries(client, changes, version).await?;
        if opened {
            self.drop_old(client, changes, head).await?;
        }
        if let Some(steps) = &changes.sum {
            let sql = "INSERT INTO unsaid.sums (task, steps) VALUES ($1, $2) \
                       ON CONFLICT (task) DO UPDATE SET steps = excluded.steps";
            let steps = bytes(steps, i64::to_le_bytes);
            query(client, sql, &[(&task, Type::TEXT), (&steps, Type::BYTEA)]).await?;
        }
        let round = to_i64(head.round)?;
        for (id, coordinates) in &changes.updates {
            let sql = "INSERT INTO unsaid.updates (task, round, id, coordinates, version) VALUES ($1, $2, $3, $4, $5)";
            let coordinates = bytes(coordinates, i32::to_le_bytes);
            let parameters: [Parameter<'_>; 5] = [
                (&task, Type::TEXT),
                (&round, Type::INT8),
                (&&id.as_bytes()[..], Type::BYTEA),
                (&coordinates, Type::BYTEA),
                (&version, Type::INT8),
            ];
            query(client, sql, &parameters).await?;
        }
        let message = format!("{task} {version}");
        let parameters: [Parameter<'_>; 2] = [(&CHANNEL, Type::TEXT), (&message, Type::TEXT)];
        let sql = "SELECT pg_notify($1, $2), txid_current()";
        let rows = query(client, sql, &parameters).await?;
        let row = rows
            .first()
            .ok_or_else(|| StoreError("a row is missing".into()))?;
        get(row, 1)
    }

    /// Commits, and makes sure of it: of a transaction that failed on the way `COMMIT` makes a rollback, and says so only in passing.
    async fn finish(&self, transaction: i64) -> Result<(), StoreError> {
        let sql = format!("COMMIT; SELECT txid_status({transaction})");
        let answers = self.client()?.simple_query(&sql).await.map_err(said)?;
        let committed = answers
            .iter()
            .any(|it| matches!(it, SimpleQueryMessage::Row(row) if row.get(0) == Some("committed")));
        if committed {
            Ok(())
        } else {
            Err(StoreError("the transaction was rolled back".into()))
        }
    }

    /// Check-ins, counted updates, models and figures.
    async fn write_entries(
        &self,
        client: &Client,
        changes: &Changes,
        version: i64,
    ) -> Result<(), StoreError> {
        let task = self.task;
        self.write_counted(client, changes, version).await?;
        if let Some(round) = changes.forgotten {
            let sql = "DELETE FROM unsaid.check_ins WHERE task = $1 AND round = $2 AND client NOT IN \
                       (SELECT client FROM unsaid.counted WHERE task = $1 AND round = $2)";
            let round = to_i64(round)?;
            query(client, sql, &[(&task, Type::TEXT), (&round, Type::INT8)]).await?;
        }
        if !changes.check_ins.is_empty() {
            // Rounds of earlier relays may have left check-ins that they had forgotten.
            let sql = "INSERT INTO unsaid.check_ins (task, version, round, client) \
                       SELECT $1, $2, * FROM unnest($3, $4) \
                       ON CONFLICT (task, round, client) DO UPDATE SET version = excluded.version";
            let rounds = to_i64s(changes.check_ins.iter().map(|(round, _)| *round))?;
            let clients: Vec<&[u8]> = changes
                .check_ins
                .iter()
                .map(|(_, it)| &it.as_bytes()[..])
                .collect();
            let parameters: [Parameter<'_>; 4] = [
                (&task, Type::TEXT),
                (&version, Type::INT8),
                (&rounds, Type::INT8_ARRAY),
                (&clients, Type::BYTEA_ARRAY),
            ];
            query(client, sql, &parameters).await?;
        }
        for (hash, model) in &changes.models {
            let sql =
                "INSERT INTO unsaid.models (task, hash, bytes) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING";
            let parameters: [Parameter<'_>; 3] = [
                (&task, Type::TEXT),
                (&&hash.as_bytes()[..], Type::BYTEA),
                (model, Type::BYTEA),
            ];
            query(client, sql, &parameters).await?;
        }
        for metrics in &changes.rounds {
            let sql = "INSERT INTO unsaid.rounds (task, round, model, metrics, version) VALUES ($1, $2, $3, $4, $5) \
                       ON CONFLICT (task, round) DO UPDATE \
                       SET model = excluded.model, metrics = excluded.metrics, version = excluded.version";
            let (round, json) = (to_i64(metrics.round)?, text(metrics)?);
            let parameters: [Parameter<'_>; 5] = [
                (&task, Type::TEXT),
                (&round, Type::INT8),
                (&&metrics.model.as_bytes()[..], Type::BYTEA),
                (&json, Type::TEXT),
                (&version, Type::INT8),
            ];
            query(client, sql, &parameters).await?;
        }
        Ok(())
    }

    async fn write_counted(
        &self,
        client: &Client,
        changes: &Changes,
        version: i64,
    ) -> Result<(), StoreError> {
        if changes.counted.is_empty() {
            return Ok(());
        }
        let sql = "INSERT INTO unsaid.counted (task, version, round, id, client, digest) \
                   SELECT $1, $2, * FROM unnest($3, $4, $5, $6)";
        let rounds = to_i64s(changes.counted.iter().map(|it| it.round))?;
        let ids: Vec<&[u8]> = changes
            .counted
            .iter()
            .map(|it| &it.update.as_bytes()[..])
            .collect();
        let clients: Vec<&[u8]> = changes
            .counted
            .iter()
            .map(|it| &it.client.as_bytes()[..])
            .collect();
        let digests: Vec<&[u8]> = changes
            .counted
            .iter()
            .map(|it| &it.digest.as_bytes()[..])
            .collect();
        let parameters: [Parameter<'_>; 6] = [
            (&self.task, Type::TEXT),
            (&version, Type::INT8),
            (&rounds, Type::INT8_ARRAY),
            (&ids, Type::BYTEA_ARRAY),
            (&clients, Type::BYTEA_ARRAY),
            (&digests, Type::BYTEA_ARRAY),
        ];
        query(client, sql, &parameters).await.map(drop)
    }

    /// Another round has opened: what was only for those before it goes.
    async fn drop_old(&self, client: &Client, changes: &Changes, head: &Head) -> Result<(), StoreError> {
        let round = to_i64(head.round)?;
        let oldest = to_i64(head.round.saturating_sub(self.store.keep_models))?;
        // The open round starts from the newest model, which is always one of those that are kept.
        let new = changes.models.iter().map(|(hash, _)| hash);
        let kept: Vec<&[u8]> = new
            .chain([&head.model])
            .map(|hash| &hash.as_bytes()[..])
            .collect();
        let of_task: [Parameter<'_>; 1] = [(&self.task, Type::TEXT)];
        let first_base = to_i64(head.first_base())?;
        let left: [Parameter<'_>; 2] = [(&self.task, Type::TEXT), (&first_base, Type::INT8)];
        let before: [Parameter<'_>; 2] = [(&self.task, Type::TEXT), (&round, Type::INT8)];
        let models: [Parameter<'_>; 4] = [
            (&self.task, Type::TEXT),
            (&oldest, Type::INT8),
            (&round, Type::INT8),
            (&kept, Type::BYTEA_ARRAY),
        ];
        try_join_all([
            query(client, "DELETE FROM unsaid.sums WHERE task = $1", &of_task),
            query(
                client,
                "DELETE FROM unsaid.updates WHERE task = $1 AND round < $2",
                &before,
            ),
            query(
                client,
                "DELETE FROM unsaid.check_ins WHERE task = $1 AND round < $2",
                &left,
            ),
            query(
                client,
                "DELETE FROM unsaid.models WHERE task = $1 AND hash <> ALL ($4) AND hash NOT IN \
                 (SELECT model FROM unsaid.rounds WHERE task = $1 AND round >= $2 AND round < $3)",
                &models,
            ),
        ])
        .await
        .map(drop)
    }
}

impl Turn for Held<'_> {
    fn stage(&self) -> Stage {
        self.begun.stage
    }

    fn now_ms(&self) -> Option<u64> {
        Some(self.begun.now_ms)
    }

    fn most_bytes(&self) -> Option<u64> {
        Some(MOST_BYTES)
    }

    fn manifest(&mut self) -> Result<Option<String>, StoreError> {
        let sql = "SELECT manifest FROM unsaid.tasks WHERE task = $1";
        let of_task: [Parameter<'_>; 1] = [(&self.task, Type::TEXT)];
        let rows = self.store.link.wait(query(self.client()?, sql, &of_task))?;
        Ok(rows.first().map(|row| get(row, 0)).transpose()?.flatten())
    }

    fn model(&mut self, model: &ContentHash) -> Result<Option<Vec<u8>>, StoreError> {
        let hash = &model.as_bytes()[..];
        let named: [Parameter<'_>; 2] = [(&self.task, Type::TEXT), (&hash, Type::BYTEA)];
        let rows = self.store.link.wait(query(self.client()?, MODEL, &named))?;
        rows.first().map(|row| get(row, 0)).transpose()
    }

    fn rounds(&mut self) -> Result<Vec<RoundMetrics>, StoreError> {
        self.store.link.wait(self.rounds_since(-1))
    }

    fn load(&mut self) -> Result<Option<Saved>, StoreError> {
        self.store.link.wait(self.read(-1, true))
    }

    fn news(&mut self, mark: Mark) -> Result<Option<News>, StoreError> {
        if mark.stage.version >= self.begun.stage.version {
            return Ok(None);
        }
        let since = to_i64(mark.stage.version)?;
        let head = self.begun.head.as_ref();
        let opened = head.is_some_and(|head| head.round != mark.round);
        let work = try_join3(
            self.has_been_at(mark.stage),
            self.read(since, opened),
            self.rounds_since(since),
        );
        let (known, saved, rounds) = self.store.link.wait(work)?;
        let saved = saved.ok_or_else(|| StoreError("the task is gone".into()))?;
        Ok(known.then_some(News { saved, rounds }))
    }

    fn commit(mut self: Box<Self>, changes: &Changes) -> Result<Stage, StoreError> {
        self.end_pulse();
        let stage = Stage {
            version: self.begun.stage.version + 1,
            nonce: getrandom::u64().map_err(StoreError::new)?,
        };
        let written = self.store.link.wait(async {
            let transaction = self.write(changes, stage).await?;
            self.finish(transaction).await
        });
        let client = self.client.take();
        written?; // otherwise the connection ends here: what it would still say is about the past
        if let Some(client) = client {
            self.store.link.give(client);
        }
        Ok(stage)
    }
}

impl Drop for Held<'_> {
    /// Ends the transaction if it was not committed. Where that fails the connection is dropped, and the transaction with it.
    fn drop(&mut self) {
        self.end_pulse();
        if let Some(client) = self.client.take()
            && self.store.link.wait(execute(&client, "ROLLBACK")).is_ok()
        {
            self.store.link.give(client);
        }
    }
}

fn get<'a, T: tokio_postgres::types::FromSql<'a>>(row: &'a Row, column: usize) -> Result<T, StoreError> {
    row.try_get(column).map_err(said)
}

fn array<const N: usize>(row: &Row, column: usize) -> Result<[u8; N], StoreError> {
    let found: &[u8] = get(row, column)?;
    found
        .try_into()
        .map_err(|_| StoreError(format!("an id has {} bytes", found.len())))
}

fn metrics(row: &Row) -> Result<RoundMetrics, StoreError> {
    from_json(get::<&str>(row, 0)?.as_bytes())
}

fn text(value: &impl serde::Serialize) -> Result<String, StoreError> {
    String::from_utf8(to_json(value)?).map_err(StoreError::new)
}

fn to_i64(number: u64) -> Result<i64, StoreError> {
    number.try_into().map_err(StoreError::new)
}

fn to_i64s(numbers: impl Iterator<Item = u64>) -> Result<Vec<i64>, StoreError> {
    numbers.map(to_i64).collect()
}

fn to_u64(number: i64) -> Result<u64, StoreError> {
    number.try_into().map_err(StoreError::new)
}
