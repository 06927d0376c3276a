//! What a turn writes before it ends.

use futures_util::future::try_join_all;
use tokio_postgres::{Client, types::Type};

use super::{
    super::{
        Parameter, identities,
        listen::CHANNEL,
        query,
        rows::{get, text, to_i64, to_i64s},
    },
    Held,
};
use crate::{
    round::Head,
    store::{Changes, Stage, StoreError, bytes},
};

/// Commits of a task whose names are kept. A relay that slept through more of them reads the task again.
const NAMED_COMMITS: i64 = 1_024;

impl Held<'_> {
    /// Writes everything in the open transaction. Returns the transaction's number.
    pub(super) async fn write(&self, changes: &Changes, stage: Stage) -> Result<i64, StoreError> {
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

    /// Check-ins, counted updates, models and figures.
    async fn write_entries(
        &self,
        client: &Client,
        changes: &Changes,
        version: i64,
    ) -> Result<(), StoreError> {
        let task = self.task;
        self.write_counted(client, changes, version).await?;
        identities::write_accounts(client, task, &changes.accounts).await?;
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
        let keep_models = changes.keep_models.unwrap_or(self.store.keep_models);
        let oldest = to_i64(head.round.saturating_sub(keep_models))?;
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
