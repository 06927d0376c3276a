//! Identities in the file. New in layout 3.

use std::ops::{Bound, ControlFlow};

use redb::{Durability, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction};
use unsaid_protocol::{ContentHash, IdentityId, TaskId};

use super::{META, RedbStore};
use crate::store::{
    Account, Admission, Application, Census, Identity, Listed, Registry, Standing, StoreError, from_json,
    to_json,
};

const IDENTITIES: TableDefinition<&[u8; 32], &[u8]> = TableDefinition::new("identities");
/// Hashes of invitations, and the id of the identity that used one; nothing until then.
const INVITATIONS: TableDefinition<&[u8; 32], &[u8]> = TableDefinition::new("invitations");
/// Identity and task.
const ACCOUNTS: TableDefinition<(&[u8; 32], &str), &[u8]> = TableDefinition::new("accounts");

/// How many there are, in the table `meta`.
const ENROLLED: &str = "identities enrolled";
const REVOKED: &str = "identities revoked";
const UNINVITED: &str = "identities without invitation";
const UNUSED: &str = "invitations unused";

pub(super) fn make_tables(write: &WriteTransaction) -> Result<(), StoreError> {
    write.open_table(IDENTITIES)?;
    write.open_table(INVITATIONS)?;
    write.open_table(ACCOUNTS)?;
    Ok(())
}

/// Whether one of the accounts is of an identity that was revoked.
pub(super) fn one_is_revoked(
    write: &WriteTransaction,
    accounts: &[(IdentityId, Account)],
) -> Result<bool, StoreError> {
    let identities = write.open_table(IDENTITIES)?;
    for (id, _) in accounts {
        let identity = identities.get(id.as_bytes())?;
        let identity: Option<Identity> = identity.map(|json| from_json(json.value())).transpose()?;
        if identity.is_some_and(|identity| identity.revoked_ms.is_some()) {
            return Ok(true);
        }
    }
    Ok(false)
}

pub(super) fn write_accounts(
    write: &WriteTransaction,
    task: &str,
    accounts: &[(IdentityId, Account)],
) -> Result<(), StoreError> {
    let mut table = write.open_table(ACCOUNTS)?;
    for (id, account) in accounts {
        table.insert((id.as_bytes(), task), account.to_bytes().as_slice())?;
    }
    Ok(())
}

impl RedbStore {
    /// Runs `work` in a transaction that is on the disk when this returns. Nothing is written where it fails, or returns nothing.
    fn transact<T>(
        &self,
        work: impl FnOnce(&WriteTransaction) -> Result<(T, bool), StoreError>,
    ) -> Result<T, StoreError> {
        self.with(|database| {
            let mut write = database.begin_write()?;
            write.set_durability(Durability::Immediate)?;
            let (done, changed) = work(&write)?;
            if changed {
                write.commit()?;
            } else {
                write.abort()?;
            }
            Ok(done)
        })
    }
}

/// Adds to one of the numbers in `meta`.
fn count(write: &WriteTransaction, what: &str, more: i64) -> Result<(), StoreError> {
    let mut meta = write.open_table(META)?;
    let before = meta.get(what)?.map_or(0, |number| number.value());
    meta.insert(what, before.saturating_add_signed(more))?;
    Ok(())
}

impl Registry for RedbStore {
    fn enrol(&self, application: &Application, most_open: u64) -> Result<Admission, StoreError> {
        // Read first: whoever is refused keeps nobody from writing.
        let judged = self.with(|database| {
            let read = database.begin_read()?;
            let (identities, invitations) = (read.open_table(IDENTITIES)?, read.open_table(INVITATIONS)?);
            let meta = read.open_table(META)?;
            judge(&identities, &invitations, &meta, application, most_open)
        })?;
        match judged {
            ControlFlow::Break(answer) => Ok(answer),
            ControlFlow::Continue(_) => self.transact(|write| enrol(write, application, most_open)),
        }
    }

    fn invite(&self, invitations: &[ContentHash]) -> Result<(), StoreError> {
        self.transact(|write| {
            let mut table = write.open_table(INVITATIONS)?;
            let mut added = 0;
            for hash in invitations {
                if table.get(hash.as_bytes())?.is_none() {
                    table.insert(hash.as_bytes(), &[][..])?;
                    added += 1;
                }
            }
            count(write, UNUSED, added)?;
            Ok(((), true))
        })
    }

    fn revoke(&self, id: &IdentityId, now_ms: u64) -> Result<Option<Identity>, StoreError> {
        self.transact(|write| {
            let mut table = write.open_table(IDENTITIES)?;
            let found = table.get(id.as_bytes())?.map(|json| from_json(json.value()));
            let Some(mut identity) = found.transpose()? else {
                return Ok((None, false));
            };
            let Identity { revoked_ms, .. } = &mut identity;
            let is_new = revoked_ms.is_none();
            revoked_ms.get_or_insert(now_ms);
            if is_new {
                table.insert(id.as_bytes(), to_json(&identity)?.as_slice())?;
                count(write, REVOKED, 1)?;
                count(write, UNINVITED, -i64::from(!identity.invited))?;
            }
            Ok((Some(identity), is_new))
        })
    }

    fn identities(&self, after: Option<&IdentityId>, most: u32) -> Result<Vec<Listed>, StoreError> {
        self.with(|database| {
            let read = database.begin_read()?;
            let (identities, accounts) = (read.open_table(IDENTITIES)?, read.open_table(ACCOUNTS)?);
            let after = after.map_or(Bound::Unbounded, |id| Bound::Excluded(id.as_bytes()));
            let mut listed = Vec::new();
            for entry in identities
                .range::<&[u8; 32]>((after, Bound::Unbounded))?
                .take(most as usize)
            {
                let (key, json) = entry?;
                let id = *key.value();
                let mut of_tasks = Vec::new();
                for entry in accounts.range((&id, "")..)? {
                    let (key, account) = entry?;
                    let (owner, task) = key.value();
                    if *owner != id {
                        break;
                    }
                    let task = task.parse().map_err(StoreError::new)?;
                    of_tasks.push((task, Account::from_bytes(account.value())?));
                }
                listed.push(Listed {
                    id: IdentityId::from_bytes(id),
                    identity: from_json(json.value())?,
                    accounts: of_tasks,
                });
            }
            Ok(listed)
        })
    }

    fn standings(&self, task: &TaskId, ids: &[IdentityId]) -> Result<Vec<Standing>, StoreError> {
        self.with(|database| {
            let read = database.begin_read()?;
            let (identities, accounts) = (read.open_table(IDENTITIES)?, read.open_table(ACCOUNTS)?);
            let standing = |id: &IdentityId| {
                let identity = identities.get(id.as_bytes())?;
                let account = accounts.get((id.as_bytes(), task.as_str()))?;
                Ok(Standing {
                    identity: identity.map(|json| from_json(json.value())).transpose()?,
                    account: match account {
                        Some(bytes) => Account::from_bytes(bytes.value())?,
                        None => Account::default(),
                    },
                })
            };
            ids.iter().map(standing).collect()
        })
    }

    fn census(&self) -> Result<Census, StoreError> {
        self.with(|database| {
            let meta = database.begin_read()?.open_table(META)?;
            let number = |what| Ok::<_, StoreError>(meta.get(what)?.map_or(0, |number| number.value()));
            Ok(Census {
                enrolled: number(ENROLLED)?,
                revoked: number(REVOKED)?,
                invitations: number(UNUSED)?,
            })
        })
    }
}

/// What an application comes to, as the tables stand: an answer, or that it is to be enrolled, with what is known of its key.
fn judge(
    identities: &impl ReadableTable<&'static [u8; 32], &'static [u8]>,
    invitations: &impl ReadableTable<&'static [u8; 32], &'static [u8]>,
    meta: &impl ReadableTable<&'static str, u64>,
    application: &Application,
    most_open: u64,
) -> Result<ControlFlow<Admission, Option<Identity>>, StoreError> {
    let before = identities.get(IdentityId::of(&application.key).as_bytes())?;
    let before: Option<Identity> = before.map(|json| from_json(json.value())).transpose()?;
    if let Some(answer) = before.and_then(|known| known.answer(application)) {
        return Ok(ControlFlow::Break(answer));
    }
    let refusal = match application.invitation {
        Some(hash) => match invitations.get(hash.as_bytes())? {
            None => Some(Admission::NoInvitation),
            Some(by) => (!by.value().is_empty()).then_some(Admission::UsedInvitation),
        },
        None => {
            let uninvited = meta.get(UNINVITED)?.map_or(0, |it| it.value());
            (uninvited >= most_open).then_some(Admission::Full)
        }
    };
    Ok(refusal.map_or(ControlFlow::Continue(before), ControlFlow::Break))
}

fn enrol(
    write: &WriteTransaction,
    application: &Application,
    most_open: u64,
) -> Result<(Admission, bool), StoreError> {
    let id = IdentityId::of(&application.key);
    let mut table = write.open_table(IDENTITIES)?;
    let mut invitations = write.open_table(INVITATIONS)?;
    let meta = write.open_table(META)?;
    let before = match judge(&table, &invitations, &meta, application, most_open)? {
        ControlFlow::Break(answer) => return Ok((answer, false)),
        ControlFlow::Continue(before) => before,
    };
    drop(meta);
    let mut new = Identity::new(application);
    if let Some(hash) = application.invitation {
        invitations.insert(hash.as_bytes(), &id.as_bytes()[..])?;
        count(write, UNUSED, -1)?;
    } else {
        count(write, UNINVITED, 1)?;
    }
    match before {
        // One that came without an invitation and brings one now gives its place back.
        Some(before) => {
            new.enrolled_ms = before.enrolled_ms;
            count(write, UNINVITED, -1)?;
        }
        None => count(write, ENROLLED, 1)?,
    }
    table.insert(id.as_bytes(), to_json(&new)?.as_slice())?;
    Ok((Admission::New(new.enrolment()), true))
}
