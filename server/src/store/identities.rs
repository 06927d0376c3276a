//! Client identities as a store keeps them, as a port: [`Registry`].
//!
//! An identity is the relay's: one key, known to all its tasks. What an identity did is kept apart for each task, as its [`Account`],
//! which is written in the very transaction that counts its update.

use serde::{Deserialize, Serialize};
use unsaid_privacy::{Cost, Rho};
use unsaid_protocol::{ContentHash, Enrolment, IdentityId, PublicKey, TaskId};

use super::StoreError;

/// A day, in milliseconds.
const DAY_MS: u64 = 86_400_000;

/// A key that asks to be known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Application {
    /// The key.
    pub key: PublicKey,
    /// The hash of its invitation; none where enrolment is open.
    pub invitation: Option<ContentHash>,
    /// When.
    pub now_ms: u64,
}

/// What became of an [`Application`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// The identity is known from now on.
    New(Enrolment),
    /// It was known before, and nothing has changed.
    Known(Enrolment),
    /// It was revoked, and stays so.
    Revoked,
    /// There is no such invitation.
    NoInvitation,
    /// Somebody else has used the invitation.
    UsedInvitation,
    /// As many were enrolled without an invitation as may be.
    Full,
}

/// An identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Its key.
    pub key: PublicKey,
    /// Whether it was invited.
    pub invited: bool,
    /// When it was enrolled, in Unix milliseconds.
    pub enrolled_ms: u64,
    /// When the operator revoked it.
    pub revoked_ms: Option<u64>,
}

impl Identity {
    /// One that was enrolled as `application` asks.
    pub const fn new(application: &Application) -> Self {
        Self {
            key: application.key,
            invited: application.invitation.is_some(),
            enrolled_ms: application.now_ms,
            revoked_ms: None,
        }
    }

    /// How it was enrolled.
    pub const fn enrolment(&self) -> Enrolment {
        if self.invited {
            Enrolment::Invitation
        } else {
            Enrolment::Open
        }
    }

    /// What one who asks again is told; none where that brings an invitation to one that had none.
    pub const fn answer(&self, application: &Application) -> Option<Admission> {
        match self.revoked_ms {
            Some(_) => Some(Admission::Revoked),
            None if self.invited || application.invitation.is_none() => {
                Some(Admission::Known(self.enrolment()))
            }
            None => None,
        }
    }
}

/// What one task counted of one identity.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Account {
    /// Updates that were counted.
    pub updates: u64,
    /// The day of the last of them, since 1970 (UTC).
    day: u64,
    /// Those of that day.
    on_day: u32,
    /// What all of them cost.
    pub cost: Cost,
}

impl Default for Account {
    fn default() -> Self {
        Self {
            updates: 0,
            day: 0,
            on_day: 0,
            cost: Cost::NOTHING,
        }
    }
}

impl Account {
    /// Bytes of the stored form.
    const LEN: usize = 8 + 8 + 4 + 8 + 8 * Cost::ORDERS.len();

    /// Updates that were counted on the day of `now_ms`. A clock that was set back to the day before finds those of the later one; if it was
    /// further ahead it was wrong, and an identity does not wait for the day that it told.
    pub const fn today(&self, now_ms: u64) -> u32 {
        if self.is_of(now_ms / DAY_MS) {
            self.on_day
        } else {
            0
        }
    }

    const fn is_of(&self, day: u64) -> bool {
        self.day == day || self.day == day.saturating_add(1)
    }

    /// Counts one more update.
    pub fn count(&mut self, cost: Cost, now_ms: u64) {
        let today = now_ms / DAY_MS;
        self.on_day = self.today(now_ms).saturating_add(1);
        self.day = if self.is_of(today) { self.day } else { today };
        self.updates = self.updates.saturating_add(1);
        self.cost = self.cost + cost;
    }

    /// The stored form: little-endian, costs as the bits of their numbers.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(Self::LEN);
        bytes.extend(self.updates.to_le_bytes());
        bytes.extend(self.day.to_le_bytes());
        bytes.extend(self.on_day.to_le_bytes());
        // A sum beyond the range of numbers is as good as the greatest of them, which can be read again.
        bytes.extend(self.cost.rho().get().min(f64::MAX).to_le_bytes());
        bytes.extend(self.cost.curve().iter().flat_map(|cost| cost.to_le_bytes()));
        bytes
    }

    /// Reads the stored form.
    ///
    /// # Errors
    /// [`StoreError`] where it is none: what was spent is never taken for nothing.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, StoreError> {
        let damaged = || StoreError("an account is damaged".into());
        if bytes.len() != Self::LEN {
            return Err(damaged());
        }
        let (updates, rest) = bytes.split_first_chunk().ok_or_else(damaged)?;
        let (day, rest) = rest.split_first_chunk().ok_or_else(damaged)?;
        let (on_day, rest) = rest.split_first_chunk().ok_or_else(damaged)?;
        let (rho, mut rest) = rest.split_first_chunk().ok_or_else(damaged)?;
        let mut curve = [0.0; Cost::ORDERS.len()];
        for cost in &mut curve {
            let (bits, after) = rest.split_first_chunk().ok_or_else(damaged)?;
            (*cost, rest) = (f64::from_le_bytes(*bits), after);
        }
        let rho = Rho::new(f64::from_le_bytes(*rho)).map_err(StoreError::new)?;
        Ok(Self {
            updates: u64::from_le_bytes(*updates),
            day: u64::from_le_bytes(*day),
            on_day: u32::from_le_bytes(*on_day),
            cost: Cost::from_parts(rho, curve).map_err(StoreError::new)?,
        })
    }
}

/// Why a commit fails that would count for an identity which was revoked after its turn had begun. The turn is done again.
pub(super) fn revoked_meanwhile() -> StoreError {
    StoreError("an identity was revoked meanwhile".into())
}

/// How an identity stands in a task, as of a turn.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Standing {
    /// The identity; none where it is not enrolled.
    pub identity: Option<Identity>,
    /// What the task counted of it.
    pub account: Account,
}

/// An identity as the operator sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct Listed {
    /// Its id.
    pub id: IdentityId,
    /// What is known of it.
    pub identity: Identity,
    /// What each task counted of it.
    pub accounts: Vec<(TaskId, Account)>,
}

/// How many there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Census {
    /// Identities that were enrolled, with those that were revoked since.
    pub enrolled: u64,
    /// Those that were revoked.
    pub revoked: u64,
    /// Invitations that nobody has used.
    pub invitations: u64,
}

/// Where identities are kept. Calls block; each is a transaction of its own, which is on the disk when it returns.
pub trait Registry {
    /// Enrols a key, where its invitation is good, or where there is room for one without: `most_open` of them at most, without those
    /// that were revoked. A key that is known stays what it is, and becomes invited where it brings an invitation. Only what changes
    /// something waits for others that do.
    ///
    /// # Errors
    /// [`StoreError`]; it may or may not have been enrolled, and asking again tells.
    fn enrol(&self, application: &Application, most_open: u64) -> Result<Admission, StoreError>;

    /// Adds invitations, by their hashes.
    ///
    /// # Errors
    /// [`StoreError`]; they may or may not have been added.
    fn invite(&self, invitations: &[ContentHash]) -> Result<(), StoreError>;

    /// Revokes an identity, for good: once this returns nothing more of it is counted, in the turns that are under way neither. Returns what is known of it;
    /// none where there is no such identity.
    ///
    /// # Errors
    /// [`StoreError`]
    fn revoke(&self, id: &IdentityId, now_ms: u64) -> Result<Option<Identity>, StoreError>;

    /// At most `most` identities whose ids come after `after`, in the order of their ids.
    ///
    /// # Errors
    /// [`StoreError`]
    fn identities(&self, after: Option<&IdentityId>, most: u32) -> Result<Vec<Listed>, StoreError>;

    /// How identities stand in a task, in the order in which they are asked for.
    ///
    /// # Errors
    /// [`StoreError`]
    fn standings(&self, task: &TaskId, ids: &[IdentityId]) -> Result<Vec<Standing>, StoreError>;

    /// How many there are.
    ///
    /// # Errors
    /// [`StoreError`]
    fn census(&self) -> Result<Census, StoreError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cost() -> Cost {
        Cost::from(Rho::new(0.3).unwrap()) + Cost::of_examples(|order| 1e-3 * order)
    }

    #[test]
    fn an_account_is_read_bit_by_bit_as_it_was_written_or_not_at_all() {
        let mut account = Account::default();
        for at in 0..3 {
            account.count(cost(), at);
        }
        let bytes = account.to_bytes();
        assert_eq!(bytes.len(), Account::LEN);
        assert_eq!(Account::from_bytes(&bytes).unwrap(), account);
        assert_eq!(
            Account::from_bytes(&Account::default().to_bytes()).unwrap(),
            Account::default()
        );
        assert!(Account::from_bytes(&bytes[1..]).is_err());
        assert!(Account::from_bytes(&[]).is_err());
        for at in [20, 28, 36] {
            for wrong in [f64::NAN, -1.0, f64::NEG_INFINITY] {
                let mut damaged = bytes.clone();
                damaged[at..at + 8].copy_from_slice(&wrong.to_le_bytes());
                assert!(Account::from_bytes(&damaged).is_err(), "{wrong} at {at}");
            }
        }
    }

    #[test]
    fn a_day_begins_anew_and_a_clock_that_is_set_back_opens_nothing() {
        let mut account = Account::default();
        account.count(cost(), DAY_MS - 1);
        account.count(cost(), DAY_MS - 1);
        assert_eq!((account.today(DAY_MS - 1), account.today(DAY_MS)), (2, 0));
        account.count(cost(), DAY_MS);
        assert_eq!(account.today(DAY_MS), 1);
        assert_eq!(account.today(0), 1);
        account.count(cost(), 0);
        assert_eq!((account.today(DAY_MS), account.updates), (2, 4));
        assert_eq!(account.cost, (0..4).fold(Cost::NOTHING, |sum, _| sum + cost()));
    }

    #[test]
    fn a_clock_that_told_a_day_far_ahead_locks_nobody_out_until_then() {
        let mut account = Account::default();
        account.count(cost(), 1_000 * DAY_MS);
        assert_eq!(account.today(999 * DAY_MS), 1, "the day before opens nothing");
        assert_eq!(account.today(3 * DAY_MS), 0);
        account.count(cost(), 3 * DAY_MS);
        assert_eq!((account.today(3 * DAY_MS), account.today(4 * DAY_MS)), (1, 0));
    }
}
