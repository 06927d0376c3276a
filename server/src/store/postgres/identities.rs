//! Identities in the database: transactions of their own, but for what a turn reads and writes of them.

use std::{collections::HashMap, ops::ControlFlow, sync::Arc};

use tokio::sync::Semaphore;
use tokio_postgres::{Client, Row, types::Type};
use unsaid_protocol::{ContentHash, IdentityId, PublicKey, TaskId};

use super::{
    BEGIN, Parameter, PostgresStore, WAIT, commit, execute,
    link::SOON,
    place, query,
    rows::{array, get, to_i64, to_u64},
};
use crate::store::{
    Account, Admission, Application, Census, Identity, Listed, Registry, Standing, StoreError,
    identities::revoked_meanwhile,
};

/// What an identity is made of, where `$1` is a list of ids.
const NAMED: &str =
    "SELECT id, public_key, invited, enrolled_ms, revoked_ms FROM unsaid.identities WHERE id = ANY ($1)";

impl PostgresStore {
    /// Lends a connection, in one of `places`, to `work`, which ends whatever transaction it begins. Where it fails the connection is dropped, and what it
    /// had begun with it.
    fn lend<T: Send, W: Future<Output = Result<T, StoreError>> + Send>(
        &self,
        places: &Semaphore,
        work: impl FnOnce(Arc<Client>) -> W + Send,
    ) -> Result<T, StoreError> {
        self.link.wait_at_most(SOON, async {
            let _place = place(places).await?;
            let client = self.link.take_if_reachable().await?;
            let done = work(client.clone()).await?;
            self.link.give(client);
            Ok(done)
        })
    }
}

impl Registry for PostgresStore {
    fn enrol(&self, application: &Application, most_open: u64) -> Result<Admission, StoreError> {
        self.lend(&self.reading, |client| async move {
            enrol(&client, *application, most_open).await
        })
    }

    fn invite(&self, invitations: &[ContentHash]) -> Result<(), StoreError> {
        self.lend(&self.operating, |client| async move {
            invite(&client, invitations).await
        })
    }

    fn revoke(&self, id: &IdentityId, now_ms: u64) -> Result<Option<Identity>, StoreError> {
        self.lend(&self.operating, |client| async move {
            revoke(&client, id, now_ms).await
        })
    }

    fn identities(&self, after: Option<&IdentityId>, most: u32) -> Result<Vec<Listed>, StoreError> {
        self.lend(&self.operating, |client| async move {
            list(&client, after, most).await
        })
    }

    fn standings(&self, task: &TaskId, ids: &[IdentityId]) -> Result<Vec<Standing>, StoreError> {
        self.lend(&self.reading, |client| async move {
            standings(&client, task.as_str(), ids).await
        })
    }

    fn census(&self) -> Result<Census, StoreError> {
        let rows = self.read(
            SOON,
            "SELECT enrolled, revoked, invitations FROM unsaid.census",
            &[],
        )?;
        let row = rows.first().ok_or_else(missing)?;
        Ok(Census {
            enrolled: to_u64(get(row, 0)?)?,
            revoked: to_u64(get(row, 1)?)?,
            invitations: to_u64(get(row, 2)?)?,
        })
    }
}

fn missing() -> StoreError {
    StoreError("a row is missing".into())
}

/// Begins a transaction that holds the census: at any time one of these at most changes identities.
async fn begin(client: &Client) -> Result<(), StoreError> {
    execute(client, &format!("{BEGIN}; {WAIT}")).await?;
    let rows = query(client, "SELECT 1 FROM unsaid.census FOR UPDATE", &[]).await?;
    rows.first().map(drop).ok_or_else(missing)
}

/// Counts what changed, and commits.
async fn end(
    client: &Client,
    [enrolled, revoked, uninvited, invitations]: [i64; 4],
) -> Result<(), StoreError> {
    let sql = "UPDATE unsaid.census SET enrolled = enrolled + $1, revoked = revoked + $2, uninvited = uninvited + $3, \
               invitations = invitations + $4 RETURNING txid_current()";
    let changes: [Parameter<'_>; 4] = [
        (&enrolled, Type::INT8),
        (&revoked, Type::INT8),
        (&uninvited, Type::INT8),
        (&invitations, Type::INT8),
    ];
    let rows = query(client, sql, &changes).await?;
    commit(client, get(rows.first().ok_or_else(missing)?, 0)?).await
}

async fn known(client: &Client, id: &IdentityId) -> Result<Option<Identity>, StoreError> {
    let ids = [&id.as_bytes()[..]];
    let rows = query(client, NAMED, &[(&&ids[..], Type::BYTEA_ARRAY)]).await?;
    rows.first().map(identity).transpose()
}

fn identity(row: &Row) -> Result<Identity, StoreError> {
    let revoked_ms: Option<i64> = get(row, 4)?;
    Ok(Identity {
        key: PublicKey::from_bytes(array(row, 1)?),
        invited: get(row, 2)?,
        enrolled_ms: to_u64(get(row, 3)?)?,
        revoked_ms: revoked_ms.map(to_u64).transpose()?,
    })
}

/// What an application comes to, as the tables stand: an answer, or that it is to be enrolled, with what is known of its key.
async fn judge(
    client: &Client,
    application: &Application,
    most_open: u64,
) -> Result<ControlFlow<Admission, Option<Identity>>, StoreError> {
    let before = known(client, &IdentityId::of(&application.key)).await?;
    if let Some(answer) = before.and_then(|known| known.answer(application)) {
        return Ok(ControlFlow::Break(answer));
    }
    let refusal = match application.invitation {
        Some(hash) => {
            let sql = "SELECT used_by IS NOT NULL FROM unsaid.invitations WHERE hash = $1";
            let rows = query(client, sql, &[(&&hash.as_bytes()[..], Type::BYTEA)]).await?;
            match rows.first().map(|row| get(row, 0)).transpose()? {
                None => Some(Admission::NoInvitation),
                Some(true) => Some(Admission::UsedInvitation),
                Some(false) => None,
            }
        }
        None => {
            let rows = query(client, "SELECT uninvited FROM unsaid.census", &[]).await?;
            let uninvited = to_u64(get(rows.first().ok_or_else(missing)?, 0)?)?;
            (uninvited >= most_open).then_some(Admission::Full)
        }
    };
    Ok(refusal.map_or(ControlFlow::Continue(before), ControlFlow::Break))
}

async fn enrol(client: &Client, application: Application, most_open: u64) -> Result<Admission, StoreError> {
    // Without the lock first: whoever is refused keeps nobody waiting.
    if let ControlFlow::Break(answer) = judge(client, &application, most_open).await? {
        return Ok(answer);
    }
    begin(client).await?;
    let before = match judge(client, &application, most_open).await? {
        ControlFlow::Break(answer) => {
            execute(client, "ROLLBACK").await?;
            return Ok(answer);
        }
        ControlFlow::Continue(before) => before,
    };
    let id = IdentityId::of(&application.key);
    let owner = &id.as_bytes()[..];
    if let Some(hash) = application.invitation {
        let named: [Parameter<'_>; 2] = [(&&hash.as_bytes()[..], Type::BYTEA), (&owner, Type::BYTEA)];
        query(
            client,
            "UPDATE unsaid.invitations SET used_by = $2 WHERE hash = $1",
            &named,
        )
        .await?;
    }
    let new = Identity::new(&application);
    let sql = "INSERT INTO unsaid.identities (id, public_key, invited, enrolled_ms) VALUES ($1, $2, $3, $4) \
               ON CONFLICT (id) DO UPDATE SET invited = excluded.invited";
    let enrolled_ms = to_i64(new.enrolled_ms)?;
    let row: [Parameter<'_>; 4] = [
        (&owner, Type::BYTEA),
        (&&new.key.as_bytes()[..], Type::BYTEA),
        (&new.invited, Type::BOOL),
        (&enrolled_ms, Type::INT8),
    ];
    query(client, sql, &row).await?;
    let (was, invited) = (i64::from(before.is_some()), i64::from(new.invited));
    // One that came without an invitation and brings one now gives its place back.
    end(client, [1 - was, 0, (1 - invited) - was, -invited]).await?;
    Ok(Admission::New(new.enrolment()))
}

async fn invite(client: &Client, invitations: &[ContentHash]) -> Result<(), StoreError> {
    begin(client).await?;
    let sql = "INSERT INTO unsaid.invitations (hash) SELECT * FROM unnest($1) ON CONFLICT DO NOTHING RETURNING hash";
    let hashes: Vec<&[u8]> = invitations.iter().map(|hash| &hash.as_bytes()[..]).collect();
    let rows = query(client, sql, &[(&hashes, Type::BYTEA_ARRAY)]).await?;
    end(client, [0, 0, 0, to_i64(rows.len() as u64)?]).await
}

async fn revoke(client: &Client, id: &IdentityId, now_ms: u64) -> Result<Option<Identity>, StoreError> {
    begin(client).await?;
    let sql =
        "UPDATE unsaid.identities SET revoked_ms = $2 WHERE id = $1 AND revoked_ms IS NULL RETURNING id";
    let now_ms = to_i64(now_ms)?;
    let named: [Parameter<'_>; 2] = [(&&id.as_bytes()[..], Type::BYTEA), (&now_ms, Type::INT8)];
    let revoked = query(client, sql, &named).await?.len() as u64;
    let identity = known(client, id).await?;
    let uninvited = identity.is_some_and(|identity| !identity.invited);
    let revoked = to_i64(revoked)?;
    end(client, [0, revoked, -revoked * i64::from(uninvited), 0]).await?;
    Ok(identity)
}

async fn list(client: &Client, after: Option<&IdentityId>, most: u32) -> Result<Vec<Listed>, StoreError> {
    let sql = "SELECT id, public_key, invited, enrolled_ms, revoked_ms FROM unsaid.identities \
               WHERE $1 OR id > $2 ORDER BY id LIMIT $3";
    let (first, most) = (after.is_none(), i64::from(most));
    let after = after.map_or(&[][..], |id| &id.as_bytes()[..]);
    let page: [Parameter<'_>; 3] = [(&first, Type::BOOL), (&after, Type::BYTEA), (&most, Type::INT8)];
    let rows = query(client, sql, &page).await?;
    let ids: Vec<&[u8]> = rows.iter().map(|row| get(row, 0)).collect::<Result<_, _>>()?;
    let sql = "SELECT identity, task, account FROM unsaid.accounts WHERE identity = ANY ($1) ORDER BY identity, task";
    let mut accounts: HashMap<IdentityId, Vec<_>> = HashMap::new();
    for row in query(client, sql, &[(&ids, Type::BYTEA_ARRAY)]).await? {
        let task = get::<&str>(&row, 1)?.parse().map_err(StoreError::new)?;
        let account = Account::from_bytes(get(&row, 2)?)?;
        let id = IdentityId::from_bytes(array(&row, 0)?);
        accounts.entry(id).or_default().push((task, account));
    }
    let listed = rows.iter().map(|row| {
        let id = IdentityId::from_bytes(array(row, 0)?);
        Ok(Listed {
            id,
            identity: identity(row)?,
            accounts: accounts.remove(&id).unwrap_or_default(),
        })
    });
    listed.collect()
}

/// How identities stand in a task.
pub(super) async fn standings(
    client: &Client,
    task: &str,
    ids: &[IdentityId],
) -> Result<Vec<Standing>, StoreError> {
    let asked: Vec<&[u8]> = ids.iter().map(|id| &id.as_bytes()[..]).collect();
    let named: [Parameter<'_>; 2] = [(&asked, Type::BYTEA_ARRAY), (&task, Type::TEXT)];
    let mut found: HashMap<IdentityId, Standing> = HashMap::new();
    for row in query(client, NAMED, &named[..1]).await? {
        let id = IdentityId::from_bytes(array(&row, 0)?);
        found.entry(id).or_default().identity = Some(identity(&row)?);
    }
    let sql = "SELECT identity, account FROM unsaid.accounts WHERE identity = ANY ($1) AND task = $2";
    for row in query(client, sql, &named).await? {
        let id = IdentityId::from_bytes(array(&row, 0)?);
        found.entry(id).or_default().account = Account::from_bytes(get(&row, 1)?)?;
    }
    Ok(ids
        .iter()
        .map(|id| found.get(id).copied().unwrap_or_default())
        .collect())
}

/// Writes accounts in a turn's transaction, which fails where one of them is of an identity that was revoked since the turn began.
pub(super) async fn write_accounts(
    client: &Client,
    task: &str,
    accounts: &[(IdentityId, Account)],
) -> Result<(), StoreError> {
    if accounts.is_empty() {
        return Ok(());
    }
    // Until this transaction ends none of them is revoked.
    let sql = "SELECT count(revoked_ms) > 0 FROM \
               (SELECT revoked_ms FROM unsaid.identities WHERE id = ANY ($1) FOR SHARE) AS signers";
    let ids: Vec<&[u8]> = accounts.iter().map(|(id, _)| &id.as_bytes()[..]).collect();
    let rows = query(client, sql, &[(&ids, Type::BYTEA_ARRAY)]).await?;
    if rows.first().map(|row| get(row, 0)).transpose()? == Some(true) {
        return Err(revoked_meanwhile());
    }
    let sql = "INSERT INTO unsaid.accounts (task, identity, account) SELECT $1, * FROM unnest($2, $3) \
               ON CONFLICT (identity, task) DO UPDATE SET account = excluded.account";
    let written: Vec<Vec<u8>> = accounts.iter().map(|(_, account)| account.to_bytes()).collect();
    let parameters: [Parameter<'_>; 3] = [
        (&task, Type::TEXT),
        (&ids, Type::BYTEA_ARRAY),
        (&written, Type::BYTEA_ARRAY),
    ];
    query(client, sql, &parameters).await.map(drop)
}
