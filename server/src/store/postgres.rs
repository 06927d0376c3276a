//! The store that several relays share: a PostgreSQL database (12 or later).
//!
//! A relay changes a task in **turns** ([`Turn`]): one transaction that locks the task's row, reads what others changed
//! since this relay last looked, writes, and tells the others (`NOTIFY`) as it commits. So at any time one relay at most changes
//! a task, and it knows all that was committed before. The sum of the open round alone is written before the lock, by each relay its own
//! part (`lanes.rs`). Nothing else is needed for relays to come and go: no leader, no lease, no
//! clock that they agree on. The lock is the transaction's, so it ends with the relay that holds it, and a relay that was taken
//! for dead while it only slept finds its transaction gone: what it commits late is refused as a whole.
//!
//! A relay that is at work in its turn (making a model may take minutes) says so every few seconds (`pulse`). One that says
//! nothing loses its turn: by the database's own limits (`link.rs`), or, where those do not reach, by whoever waits for it
//! (`END_FROZEN`).
//!
//! A database may be put back to an older state (a backup, or a replica that had not heard of the last commits). What was
//! acknowledged since then is lost, but nothing is counted twice: commits have random names ([`Stage`]), and a relay that does not
//! find the last one it saw in the task's past reads the task again.
//!
//! The database must make a commit last before it says so (a synchronous replica, where one takes over from another), and is
//! connected to directly: through a pooler that shares sessions there is no `LISTEN`.

use std::{path::Path, sync::Arc, time::Duration};

use futures_util::future::try_join;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio_postgres::{
    Client, Row, SimpleQueryMessage,
    types::{ToSql, Type},
};
use unsaid_protocol::{ContentHash, TaskId};

use super::{Ahead, Changes, KEEP_MODELS, Registry, Saved, Store, StoreError, Told, Turn};

mod identities;
mod lanes;
mod link;
mod listen;
mod rows;
mod turn;

pub use self::link::DatabaseError;
use self::{
    lanes::{bring_sums, write_lane},
    link::{Link, PATIENCE, SOON, said},
    listen::{Watchers, listen},
    rows::{get, metrics, to_i64},
    turn::{Begun, Held, Written, lock, pulse},
};
use crate::lineage::RoundRecord;

/// The layout of the tables. A database of a later one is refused; one of layout 2 or 3 is brought to this.
const LAYOUT: i64 = 4;

/// Makes the tables of layout 2.
const TABLES: &str = include_str!("postgres/layout.sql");

/// Makes what layout 3 adds to layout 2.
const IDENTITIES: &str = include_str!("postgres/identities.sql");

/// Makes what layout 4 has in place of the sums of layout 3.
const LANES: &str = include_str!("postgres/lanes.sql");

/// Held while tables are made: two relays may start at the same time. Any number that nobody else uses.
const MAKING_TABLES: i64 = 0x756e_7361_6964;

/// Connections for reading outside of turns, and how long a reader waits for one: reading must not keep turns waiting.
const READERS: usize = 4;
const READER_PATIENCE: Duration = Duration::from_secs(2);

/// A store in a PostgreSQL database. It has one connection for each task, at most four for reading, one for the operator and one for listening, and
/// connects again by itself.
pub struct PostgresStore {
    link: Link,
    watchers: Arc<Watchers>,
    keep_models: u64,
    reading: Semaphore,
    /// The operator's one place: however many read or enrol, an identity can be revoked.
    operating: Semaphore,
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
            operating: Semaphore::new(1),
        })
    }

    /// Keeps this many models of each task, as [`super::RedbStore::keeping`].
    #[must_use]
    pub const fn keeping(mut self, models: u64) -> Self {
        self.keep_models = models;
        self
    }

    fn hold<'a>(
        &'a self,
        task: &'a TaskId,
        client: Arc<Client>,
        begun: Begun,
        written: Option<Written>,
    ) -> Box<dyn Turn + 'a> {
        Box::new(Held {
            store: self,
            task: task.as_str(),
            pulse: self.link.spawn(pulse(client.clone())),
            client: Some(client),
            begun,
            written,
            has_closed: false,
        })
    }

    /// Reads rows outside of any turn, in at most so long.
    fn read(&self, most: Duration, sql: &str, parameters: &[Parameter<'_>]) -> Result<Vec<Row>, StoreError> {
        self.link.wait_at_most(most, async {
            let _place = place(&self.reading).await?;
            let client = self.link.take_if_reachable().await?;
            let rows = query(&client, sql, parameters).await?;
            self.link.give(client);
            Ok(rows)
        })
    }
}

/// A place among those who use the database outside of turns.
async fn place(places: &Semaphore) -> Result<SemaphorePermit<'_>, StoreError> {
    let place = tokio::time::timeout(READER_PATIENCE, places.acquire()).await;
    let busy = || StoreError("too many want to use the database at the same time".into());
    place.map_err(|_| busy())?.map_err(|_| busy())
}

/// A value of a statement, and its type: said here, the database need not be asked for it.
type Parameter<'a> = (&'a (dyn ToSql + Sync), Type);

async fn query(client: &Client, sql: &str, parameters: &[Parameter<'_>]) -> Result<Vec<Row>, StoreError> {
    client.query_typed(sql, parameters).await.map_err(said)
}

async fn execute(client: &Client, sql: &str) -> Result<(), StoreError> {
    client.batch_execute(sql).await.map_err(said)
}

/// Commits, and makes sure of it: of a transaction that failed on the way `COMMIT` makes a rollback, and says so only in passing.
/// A statement before it in the same breath that fails has it fail, too.
async fn commit(client: &Client, transaction: i64) -> Result<(), StoreError> {
    let sql = format!("COMMIT; SELECT txid_status({transaction})");
    let answers = client.simple_query(&sql).await.map_err(said)?;
    let committed = answers
        .iter()
        .any(|it| matches!(it, SimpleQueryMessage::Row(row) if row.get(0) == Some("committed")));
    if committed {
        Ok(())
    } else {
        Err(StoreError("the transaction was rolled back".into()))
    }
}

/// Whatever the database's own defaults are: each statement of a turn sees what was committed before it.
const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE";

/// For what waits for a lock in its transaction: of several that wait for one row each has its own 10 s in turn (`link.rs`), and this is what
/// they have in all. Less than [`SOON`]: whoever waits for others is told so by the database, and not taken for one that hears nothing.
const WAIT: &str = "SET LOCAL statement_timeout = '12s'";

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
        execute(client, "INSERT INTO unsaid.meta (layout) VALUES (2)").await?;
    }
    let found = query(client, "SELECT layout FROM unsaid.meta", &[]).await?;
    match found.first().map(|row| get::<i64>(row, 0)).transpose()? {
        Some(LAYOUT) => execute(client, "COMMIT").await,
        Some(before @ 2..LAYOUT) => {
            if before == 2 {
                execute(client, IDENTITIES).await?;
            }
            bring_sums(client).await?;
            query(
                client,
                "UPDATE unsaid.meta SET layout = $1",
                &[(&LAYOUT, Type::INT8)],
            )
            .await?;
            execute(client, "COMMIT").await
        }
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
        let rows = self.read(
            PATIENCE,
            MODEL,
            &[(&task.as_str(), Type::TEXT), (&hash, Type::BYTEA)],
        )?;
        rows.first().map(|row| get(row, 0)).transpose()
    }

    fn rounds(&self, task: &TaskId) -> Result<Vec<RoundRecord>, StoreError> {
        let sql = "SELECT metrics FROM unsaid.rounds WHERE task = $1 ORDER BY round";
        let rows = self.read(SOON, sql, &[(&task.as_str(), Type::TEXT)])?;
        rows.iter().map(metrics).collect()
    }

    fn rounds_before(&self, task: &TaskId, before: u64, most: u16) -> Result<Vec<RoundRecord>, StoreError> {
        let sql =
            "SELECT metrics FROM unsaid.rounds WHERE task = $1 AND round < $2 ORDER BY round DESC LIMIT $3";
        // No round that is stored has a greater number.
        let before = i64::try_from(before).unwrap_or(i64::MAX);
        let parameters: [Parameter<'_>; 3] = [
            (&task.as_str(), Type::TEXT),
            (&before, Type::INT8),
            (&i64::from(most), Type::INT8),
        ];
        let rows = self.read(SOON, sql, &parameters)?;
        rows.iter().rev().map(metrics).collect()
    }

    fn turn<'a>(&'a self, task: &'a TaskId) -> Result<Box<dyn Turn + 'a>, StoreError> {
        let client = self.link.take()?;
        let begun = async {
            let ((), begun) = try_join(execute(&client, BEGIN), lock(&client, task.as_str())).await?;
            Ok(begun)
        };
        let begun = self.link.wait_at_most(SOON, begun)?;
        Ok(self.hold(task, client, begun, None))
    }

    fn turn_after<'a>(
        &'a self,
        task: &'a TaskId,
        ahead: Ahead<'_>,
    ) -> Result<Box<dyn Turn + 'a>, StoreError> {
        let client = self.link.take()?;
        self.link.wait_at_most(SOON, execute(&client, BEGIN))?;
        self.link.wait(write_lane(&client, task.as_str(), ahead))?;
        let begun = self.link.wait_at_most(SOON, lock(&client, task.as_str()))?;
        let written = Written {
            round: to_i64(ahead.round)?,
            lane: ahead.lane.id,
        };
        Ok(self.hold(task, client, begun, Some(written)))
    }

    fn registry(&self) -> Option<&dyn Registry> {
        Some(self)
    }

    fn watch(&self, task: &TaskId, told: Told) {
        self.watchers.add(task, told);
    }
}
