//! What a turn writes before it ends.

use futures_util::future::{try_join, try_join_all, try_join4};
use tokio_postgres::{Client, types::Type};

use super::{
    super::{
        Parameter, commit, identities,
        lanes::{delete_closed, delete_lane, write_lane},
        listen::CHANNEL,
        query,
        rows::{text, to_i64, to_i64s},
    },
    Held,
};
use crate::{
    round::Head,
    store::{Ahead, Changes, Stage, StoreError, bytes},
};

/// Commits of a task whose names are kept. A relay that slept through more of them reads the task again.
const NAMED_COMMITS: i64 = 1_024;

impl Held<'_> {
    /// Writes everything in the open transaction, and commits it.
    pub(super) async fn write(&self, changes: &Changes, stage: Stage) -> Result<(), StoreError> {
        let head = changes
            .head
            .as_ref()
            .or(self.begun.head.as_ref())
            .ok_or_else(|| StoreError("a task begins with its head".into()))?;
        let (client, version) = (self.client()?, to_i64(stage.version)?);
        if self.has_opened(head) {
            // Before the new ones are written: an id that is forgotten may come again.
            let remembered = to_i64(head.oldest_remembered())?;
            let sql = "DELETE FROM unsaid.counted WHERE task = $1 AND round < $2";
            query(
                client,
                sql,
                &[(&self.task, Type::TEXT), (&remembered, Type::INT8)],
            )
            .await?;
        }
        identities::write_accounts(client, self.task, &changes.accounts).await?;
        // Each is one statement, and is sent without waiting for the answer to the one before it.
        let entries = try_join4(
            self.write_head(changes, head, stage),
            self.write_counted(client, changes, version),
            self.forget_check_ins(client, changes),
            self.write_check_ins(client, changes, version),
        );
        let end = try_join(
            self.notify(client, version),
            commit(client, self.begun.transaction),
        );
        if self.is_short(changes, head)? {
            // The others wait for this turn's end: all of it at once.
            try_join(entries, end).await.map(drop)
        } else {
            entries.await?;
            self.write_more(client, changes, head, version).await?;
            end.await.map(drop)
        }
    }

    /// Whether a round opens with it.
    fn has_opened(&self, head: &Head) -> bool {
        let before = self.begun.head.as_ref();
        before.is_none_or(|before| before.round != head.round)
    }

    /// Whether what was written before the turn stays: in the round that is still the open one, as the lane's sum.
    fn stands(&self, changes: &Changes, head: &Head) -> Result<bool, StoreError> {
        let Some(written) = &self.written else {
            return Ok(false);
        };
        Ok(changes.stands && written.round == to_i64(head.round)?)
    }

    /// Whether there is nothing to write but entries.
    fn is_short(&self, changes: &Changes, head: &Head) -> Result<bool, StoreError> {
        let Changes {
            sum,
            updates,
            models,
            rounds,
            ..
        } = changes;
        let is_tidy = self.written.is_none() || self.stands(changes, head)?;
        let no_values = sum.is_none() && updates.is_empty() && models.is_empty() && rounds.is_empty();
        Ok(is_tidy && no_values && !self.has_closed && !self.has_opened(head))
    }

    /// The task's row, and the commit's name.
    async fn write_head(&self, changes: &Changes, head: &Head, stage: Stage) -> Result<(), StoreError> {
        let (version, nonce) = (to_i64(stage.version)?, stage.nonce.cast_signed());
        let head = text(head)?;
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
            (&self.task, Type::TEXT),
            (&version, Type::INT8),
            (&head, Type::TEXT),
            (&changes.manifest, Type::TEXT),
            (&kind, Type::TEXT),
            (&values, Type::BYTEA),
            (&nonce, Type::INT8),
            (&NAMED_COMMITS, Type::INT8),
        ];
        query(self.client()?, sql, &parameters).await.map(drop)
    }

    async fn notify(&self, client: &Client, version: i64) -> Result<(), StoreError> {
        let message = format!("{} {version}", self.task);
        let parameters: [Parameter<'_>; 2] = [(&CHANNEL, Type::TEXT), (&message, Type::TEXT)];
        query(client, "SELECT pg_notify($1, $2)", &parameters)
            .await
            .map(drop)
    }

    async fn forget_check_ins(&self, client: &Client, changes: &Changes) -> Result<(), StoreError> {
        let Some(round) = changes.forgotten else {
            return Ok(());
        };
        let sql = "DELETE FROM unsaid.check_ins WHERE task = $1 AND round = $2 AND client NOT IN \
                   (SELECT client FROM unsaid.counted WHERE task = $1 AND round = $2)";
        let round = to_i64(round)?;
        let of_round: [Parameter<'_>; 2] = [(&self.task, Type::TEXT), (&round, Type::INT8)];
        query(client, sql, &of_round).await.map(drop)
    }

    async fn write_check_ins(
        &self,
        client: &Client,
        changes: &Changes,
        version: i64,
    ) -> Result<(), StoreError> {
        if changes.check_ins.is_empty() {
            return Ok(());
        }
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
            (&self.task, Type::TEXT),
            (&version, Type::INT8),
            (&rounds, Type::INT8_ARRAY),
            (&clients, Type::BYTEA_ARRAY),
        ];
        query(client, sql, &parameters).await.map(drop)
    }

    /// Models, figures, the lane and updates that are kept; and what is only for rounds that have closed goes.
    async fn write_more(
        &self,
        client: &Client,
        changes: &Changes,
        head: &Head,
        version: i64,
    ) -> Result<(), StoreError> {
        let (task, round) = (self.task, to_i64(head.round)?);
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
        if self.has_opened(head) {
            self.drop_old(client, changes, head).await?;
        }
        if self.has_opened(head) || self.has_closed {
            delete_closed(client, task, round).await?;
        }
        self.write_sum(client, changes, head).await?;
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
        Ok(())
    }

    /// The lane, in place of what was written before the turn and does not stand.
    async fn write_sum(&self, client: &Client, changes: &Changes, head: &Head) -> Result<(), StoreError> {
        if let Some(written) = &self.written
            && !self.stands(changes, head)?
        {
            delete_lane(client, self.task, written.round, written.lane).await?;
        }
        let Some(steps) = &changes.sum else {
            return Ok(());
        };
        let lane = changes.lane;
        let ahead = Ahead {
            round: head.round,
            lane: lane
                .ok_or_else(|| StoreError("it keeps a sum of each relay, and this one is nobody's".into()))?,
            steps,
        };
        write_lane(client, self.task, ahead).await
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
