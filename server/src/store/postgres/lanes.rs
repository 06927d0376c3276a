//! The open round's sum, in parts: of each relay its lane.
//!
//! A relay writes its lane's row in the transaction of its turn, but before it waits for the task's row: so a large write of one relay keeps
//! no other waiting, and is there with the commit that counts what it adds up, or not at all. Rows of the open round change with such a
//! commit only, so whoever has the turn reads all of them as of one moment. Whoever closes the round deletes them, but for a row that
//! its relay is just writing: to wait for it would be to wait for one who waits for this turn. That relay will find the round closed, and
//! deletes its row itself; where it was killed meanwhile, the next round's end does.

use tokio_postgres::{Client, types::Type};

use super::{
    LANES, Parameter, execute, query,
    rows::{get, to_i64},
};
use crate::store::{
    Ahead, Lane, LaneId, StoreError,
    blocks::{pack, unpack},
    numbers,
};

/// The lane that an open round's sum of an earlier layout becomes.
const OF_BEFORE: i64 = 0;

/// Writes a lane over what it was.
pub(super) async fn write_lane(
    client: &Client,
    task: &str,
    Ahead { round, lane, steps }: Ahead<'_>,
) -> Result<(), StoreError> {
    let sql = "INSERT INTO unsaid.lanes (task, round, lane, updates, steps) VALUES ($1, $2, $3, $4, $5) \
               ON CONFLICT (task, round, lane) DO UPDATE SET updates = excluded.updates, steps = excluded.steps";
    let (round, updates, steps) = (to_i64(round)?, i64::from(lane.updates), pack(steps));
    let parameters: [Parameter<'_>; 5] = [
        (&task, Type::TEXT),
        (&round, Type::INT8),
        (&lane.id.cast_signed(), Type::INT8),
        (&updates, Type::INT8),
        (&steps, Type::BYTEA),
    ];
    query(client, sql, &parameters).await.map(drop)
}

/// Deletes a lane of the transaction's own.
pub(super) async fn delete_lane(
    client: &Client,
    task: &str,
    round: i64,
    lane: LaneId,
) -> Result<(), StoreError> {
    let sql = "DELETE FROM unsaid.lanes WHERE task = $1 AND round = $2 AND lane = $3";
    let parameters: [Parameter<'_>; 3] = [
        (&task, Type::TEXT),
        (&round, Type::INT8),
        (&lane.cast_signed(), Type::INT8),
    ];
    query(client, sql, &parameters).await.map(drop)
}

/// Deletes the lanes of rounds before `round`, but for those that are just being written.
pub(super) async fn delete_closed(client: &Client, task: &str, round: i64) -> Result<(), StoreError> {
    let sql = "DELETE FROM unsaid.lanes WHERE task = $1 AND (round, lane) IN \
               (SELECT round, lane FROM unsaid.lanes WHERE task = $1 AND round < $2 FOR UPDATE SKIP LOCKED)";
    let parameters: [Parameter<'_>; 2] = [(&task, Type::TEXT), (&round, Type::INT8)];
    query(client, sql, &parameters).await.map(drop)
}

/// The lanes of a round without one.
pub(super) async fn other_lanes(
    client: &Client,
    task: &str,
    round: i64,
    own: LaneId,
) -> Result<Vec<Lane>, StoreError> {
    let sql = "SELECT lane, updates FROM unsaid.lanes WHERE task = $1 AND round = $2 AND lane <> $3";
    let parameters: [Parameter<'_>; 3] = [
        (&task, Type::TEXT),
        (&round, Type::INT8),
        (&own.cast_signed(), Type::INT8),
    ];
    let rows = query(client, sql, &parameters).await?;
    let lane = |row| {
        Ok(Lane {
            id: get::<i64>(row, 0)?.cast_unsigned(),
            updates: get::<i64>(row, 1)?.try_into().map_err(StoreError::new)?,
        })
    };
    rows.iter().map(lane).collect()
}

/// The sum of one of them.
pub(super) async fn lane_sum(
    client: &Client,
    task: &str,
    round: i64,
    lane: LaneId,
) -> Result<Vec<i64>, StoreError> {
    let sql = "SELECT steps FROM unsaid.lanes WHERE task = $1 AND round = $2 AND lane = $3";
    let parameters: [Parameter<'_>; 3] = [
        (&task, Type::TEXT),
        (&round, Type::INT8),
        (&lane.cast_signed(), Type::INT8),
    ];
    let rows = query(client, sql, &parameters).await?;
    let row = rows.first();
    let row = row.ok_or_else(|| StoreError("a sum of the open round is missing".into()))?;
    unpack(get(row, 0)?)
}

/// Makes the table, and a lane of the sum of each open round. The table of sums goes: a relay of the layout before that runs still can
/// neither count nor close a round any more, and says so.
pub(super) async fn bring_sums(client: &Client) -> Result<(), StoreError> {
    execute(client, LANES).await?;
    // Until no turn is under way that has looked at it.
    execute(client, "LOCK unsaid.sums IN ACCESS EXCLUSIVE MODE").await?;
    let sql = "SELECT task, (head::json ->> 'round')::bigint, (SELECT count(*) FROM unsaid.counted \
               WHERE counted.task = tasks.task AND counted.round = (tasks.head::json ->> 'round')::bigint) \
               FROM unsaid.sums JOIN unsaid.tasks USING (task)";
    for row in &query(client, sql, &[]).await? {
        let (task, round, updates): (&str, i64, i64) = (get(row, 0)?, get(row, 1)?, get(row, 2)?);
        let sql = "SELECT steps FROM unsaid.sums WHERE task = $1";
        let sums = query(client, sql, &[(&task, Type::TEXT)]).await?;
        let Some(sum) = sums.first() else { continue };
        let lane = Lane {
            id: OF_BEFORE.cast_unsigned(),
            updates: updates.try_into().map_err(StoreError::new)?,
        };
        let ahead = Ahead {
            round: round.try_into().map_err(StoreError::new)?,
            lane,
            steps: &numbers(get(sum, 0)?, i64::from_le_bytes),
        };
        write_lane(client, task, ahead).await?;
    }
    execute(client, "DROP TABLE unsaid.sums").await
}
