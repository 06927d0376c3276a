//! Turns: one transaction each, which holds the task's row.

use std::{sync::Arc, time::Duration};

use futures_util::future::{try_join_all, try_join3, try_join4};
use tokio::task::AbortHandle;
use tokio_postgres::{
    Client, Row,
    error::SqlState,
    types::{ToSql, Type},
};
use unsaid_protocol::{ClientId, ContentHash, IdentityId, UpdateId};

use super::{
    MODEL, Parameter, PostgresStore, WAIT, execute, identities,
    lanes::{delete_closed, lane_sum, other_lanes},
    link::said,
    query,
    rows::{array, get, metrics, to_i64, to_u64},
};
use crate::{
    lineage::RoundRecord,
    round::{Counted, FrameDigest, Head},
    store::{
        Changes, EachLane, LaneId, Mark, News, Saved, Stage, Standing, StoreError, Turn, from_json, numbers,
    },
    strategy::Memory,
};

mod write;

/// The most bytes of one value: a `bytea` has less than 2³⁰, with all that is sent beside it.
const MOST_BYTES: u64 = (1 << 30) - (1 << 24);

/// How often a relay says in its turn that it is still there. The database waits four times as long (`link.rs`).
const PULSE: Duration = Duration::from_secs(5);

/// Ends the turns of relays that froze while a message was on its way: the database waits for the rest of it without any limit of its
/// own (from version 17 on there is one). A relay that is there gives up by itself before. Whoever only reads, as a backup does, holds a
/// lock of another mode.
const END_FROZEN: &str = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
    WHERE datname = current_database() AND usename = current_user AND pid <> pg_backend_pid() \
    AND pid IN (SELECT pid FROM pg_locks WHERE relation = 'unsaid.tasks'::regclass AND mode = 'RowShareLock' AND granted) \
    AND state <> 'idle' AND wait_event_type = 'Client' AND query_start < clock_timestamp() - interval '45 s'";

/// A task as its turn finds it.
pub(super) struct Begun {
    stage: Stage,
    head: Option<Head>,
    now_ms: u64,
    /// The transaction's number.
    transaction: i64,
}

/// A lane's row that was written in the transaction before it held the task's.
pub(super) struct Written {
    pub(super) round: i64,
    pub(super) lane: LaneId,
}

/// Locks the task's row, which is made where there is none, in the open transaction.
pub(super) async fn lock(client: &Client, task: &str) -> Result<Begun, StoreError> {
    const LOCK: &str = "SELECT version, nonce, head FROM unsaid.tasks WHERE task = $1 FOR UPDATE";
    // Another statement than the one that waits for the lock.
    const TIME: &str = "SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint, txid_current()";
    const WAITED: [SqlState; 2] = [SqlState::LOCK_NOT_AVAILABLE, SqlState::QUERY_CANCELED];
    // What a statement has that waits for nobody, as in `link.rs`.
    const GO_ON: &str = "SET LOCAL statement_timeout = '30s'";
    let named = [(&task as &(dyn ToSql + Sync), Type::TEXT)];
    let work = try_join4(
        client.batch_execute(WAIT),
        client.query_typed(LOCK, &named),
        client.batch_execute(GO_ON),
        client.query_typed(TIME, &[]),
    );
    let ((), mut rows, (), mut time) = match work.await {
        Ok(done) => done,
        Err(error) if error.code().is_some_and(|code| WAITED.contains(code)) => {
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
        transaction: get(time, 1)?,
    })
}

/// Says now and then that the relay whose turn it is is there.
pub(super) async fn pulse(client: Arc<Client>) {
    loop {
        tokio::time::sleep(PULSE).await;
        if client.batch_execute("SELECT 1").await.is_err() {
            return; // the turn is lost, as its commit will find
        }
    }
}

/// A turn: a transaction that holds the task's row.
pub(super) struct Held<'a> {
    pub(super) store: &'a PostgresStore,
    pub(super) task: &'a str,
    /// None once it was given back.
    pub(super) client: Option<Arc<Client>>,
    /// Ends the work that says every few seconds that this relay is there.
    pub(super) pulse: Option<AbortHandle>,
    pub(super) begun: Begun,
    /// What it wrote before it began.
    pub(super) written: Option<Written>,
    /// Whether a round has closed since this relay looked last, as far as it knows.
    pub(super) has_closed: bool,
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
        let [tasks, updates, check_ins, counted] = &rows[..] else {
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
                digest: FrameDigest::from_bytes(array(row, 3)?),
            })
        };
        let check_in = |row: &Row| Ok((to_u64(get(row, 0)?)?, ClientId::from_bytes(array(row, 1)?)));
        Ok(Some(Saved {
            head,
            manifest: get::<Option<String>>(row, 0)?.unwrap_or_default(),
            sum: None,
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

    async fn rounds_since(&self, since: i64) -> Result<Vec<RoundRecord>, StoreError> {
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

    fn rounds(&mut self) -> Result<Vec<RoundRecord>, StoreError> {
        self.store.link.wait(self.rounds_since(-1))
    }

    fn round(&mut self, round: u64) -> Result<Option<RoundRecord>, StoreError> {
        let sql = "SELECT metrics FROM unsaid.rounds WHERE task = $1 AND round = $2";
        let round = to_i64(round)?;
        let named: [Parameter<'_>; 2] = [(&self.task, Type::TEXT), (&round, Type::INT8)];
        let rows = self.store.link.wait(query(self.client()?, sql, &named))?;
        rows.first().map(metrics).transpose()
    }

    fn standings(&mut self, ids: &[IdentityId]) -> Result<Vec<Standing>, StoreError> {
        let standings = identities::standings(self.client()?, self.task, ids);
        self.store.link.wait(standings)
    }

    fn lane(&mut self) -> Result<Option<LaneId>, StoreError> {
        Ok(Some(getrandom::u64().map_err(StoreError::new)?))
    }

    fn other_lanes(&mut self, own: LaneId, each: &mut EachLane<'_>) -> Result<(), StoreError> {
        let Some(head) = &self.begun.head else {
            return Ok(());
        };
        let (client, link, round) = (self.client()?, &self.store.link, to_i64(head.round)?);
        for lane in link.wait(other_lanes(client, self.task, round, own))? {
            each(lane, link.wait(lane_sum(client, self.task, round, lane.id))?); // one at a time: they may be large
        }
        Ok(())
    }

    fn is_ahead(&self) -> bool {
        self.written.is_some()
    }

    fn load(&mut self) -> Result<Option<Saved>, StoreError> {
        self.has_closed = true;
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
        self.has_closed |= opened;
        let saved = saved.ok_or_else(|| StoreError("the task is gone".into()))?;
        Ok(known.then_some(News { saved, rounds }))
    }

    fn commit(mut self: Box<Self>, changes: &Changes) -> Result<Stage, StoreError> {
        self.end_pulse();
        let stage = Stage {
            version: self.begun.stage.version + 1,
            nonce: getrandom::u64().map_err(StoreError::new)?,
        };
        let written = self.store.link.wait(self.write(changes, stage));
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
        let Some(client) = self.client.take() else {
            return;
        };
        let ended = self.store.link.wait(async {
            execute(&client, "ROLLBACK").await?;
            // Whoever closed the last round could not delete a lane that was being written: this turn's, or that of a relay which is gone.
            match &self.begun.head {
                Some(head) if self.has_closed => delete_closed(&client, self.task, to_i64(head.round)?).await,
                _ => Ok(()),
            }
        });
        if ended.is_ok() {
            self.store.link.give(client);
        }
    }
}
