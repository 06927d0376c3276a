//! The ledger: what this person has spent, in all tasks, and whether there is enough left for one more round.
//!
//! Pure logic: the caller stores the JSON, and makes sure that reading, debiting and writing back happen as one.

use serde::{Serialize, Serializer, ser::SerializeStruct};
use unsaid_document::{Decimal, Document, Fields, Value};

use self::cost::Curve;
use crate::{AccountingError, accounting::check_delta, bits::Bits};

mod cost;

pub use self::cost::Cost;

/// The newest version of the JSON form. A ledger that holds no curve is still written as version 1, which knew none: to a program that
/// is older, in another tab, it says all that there is to say.
const VERSION: u32 = 2;

/// Entries kept one by one. Older ones are folded into a total.
const KEPT: usize = 1_024;

/// A day, in milliseconds.
const DAY_MS: u64 = 86_400_000;

/// The longest task id.
const MAX_TASK_LEN: usize = 64;

/// Why the ledger refuses, or cannot be read.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum LedgerError {
    /// The update would cost more than is left.
    #[error(
        "the privacy budget is used up: epsilon would be {}, the limit is {}, spent is {}",
        Decimal(*would_be),
        Decimal(*limit),
        Decimal(*spent)
    )]
    Exhausted {
        /// ε after the update.
        would_be: f64,
        /// The budget's ε.
        limit: f64,
        /// ε so far.
        spent: f64,
    },
    /// As many updates were booked in the last 24 hours as the person allows.
    #[error("{limit} updates were booked in the last 24 hours, which is the most that is allowed")]
    DailyLimit {
        /// The most in 24 hours.
        limit: u32,
    },
    /// The update's id was booked before, with other bytes or on other terms.
    #[error("update {update} was booked before, with other bytes or on other terms")]
    Conflict {
        /// The update's id.
        update: String,
    },
    /// A field that is not what it should be.
    #[error("the ledger entry's {field} must be {expected}")]
    Field {
        /// The field.
        field: &'static str,
        /// What it should be.
        expected: &'static str,
    },
    /// A budget that is not one.
    #[error("not a budget: {0}")]
    Budget(#[source] AccountingError),
    /// A ledger written by a later version. It must be left alone.
    #[error("the ledger is of version {found}, but this program knows version {known}")]
    Version {
        /// The version found.
        found: u32,
        /// The version known.
        known: u32,
    },
    /// Not a ledger, or one whose parts do not fit together. It must not be taken for an empty one.
    #[error("the ledger is damaged: {0}")]
    Damaged(String),
}

/// How much the person is willing to spend. Only the person sets it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Budget {
    #[serde(serialize_with = "crate::bits::serialize")]
    epsilon: f64,
    #[serde(serialize_with = "crate::bits::serialize")]
    delta: f64,
}

impl Budget {
    /// At most `epsilon` at `delta`.
    ///
    /// # Errors
    /// [`LedgerError::Budget`] unless ε is finite and at least 0, and δ above 0 and below 1.
    pub fn new(epsilon: f64, delta: f64) -> Result<Self, LedgerError> {
        if !(epsilon.is_finite() && epsilon >= 0.0) {
            return Err(LedgerError::Budget(AccountingError::Epsilon(epsilon)));
        }
        check_delta(delta).map_err(LedgerError::Budget)?;
        Ok(Self {
            epsilon: epsilon.abs(),
            delta,
        })
    }

    /// The limit.
    pub const fn epsilon(&self) -> f64 {
        self.epsilon
    }

    /// The δ at which it holds.
    pub const fn delta(&self) -> f64 {
        self.delta
    }
}

/// One update to be paid for.
#[derive(Debug, Clone, PartialEq)]
pub struct Charge {
    /// The task, 1 to 64 bytes.
    pub task: String,
    /// The round.
    pub round: u64,
    /// The update's id: 32 lower-case hexadecimal digits.
    pub update: String,
    /// SHA-256 of the very bytes that will be sent: 64 lower-case hexadecimal digits. Retries send the same bytes.
    pub frame_sha256: String,
    /// What it costs.
    pub cost: Cost,
    /// When, in milliseconds since 1970, for the person to read, and for [`Ledger::check_day`]. What is left of the budget does not
    /// depend on it.
    pub at_ms: u64,
}

/// Version 1 knew `rho` alone; `curve` is left out where it is 0.
impl Serialize for Charge {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_struct("Charge", 7)?;
        fields.serialize_field("task", &self.task)?;
        fields.serialize_field("round", &self.round)?;
        fields.serialize_field("update", &self.update)?;
        fields.serialize_field("frame_sha256", &self.frame_sha256)?;
        self.cost.write(&mut fields)?;
        fields.serialize_field("at_ms", &self.at_ms)?;
        fields.end()
    }
}

impl Cost {
    fn write<S: SerializeStruct>(&self, fields: &mut S) -> Result<(), S::Error> {
        fields.serialize_field("rho", &self.rho)?;
        if self.is_of_updates() {
            fields.skip_field("curve")
        } else {
            fields.serialize_field("curve", &self.curve)
        }
    }

    fn read(fields: &mut Fields) -> Self {
        Self {
            rho: fields.required("rho"),
            curve: fields.optional("curve").unwrap_or(Curve::ZERO),
        }
    }
}

/// The debit is booked: the update may be sent.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Receipt {
    /// `false` where this very update had been paid for before: it may be sent again, and nothing was added.
    pub newly_debited: bool,
    /// ε spent so far, this update included.
    pub spent_epsilon: f64,
}

/// What was spent, in all tasks of one origin, and the budget.
///
/// A filter: it lets rounds pass while ε of all that it booked, [`Cost::epsilon`], is within the limit. That holds although later rounds
/// are chosen by what came of earlier ones; [`Cost`] says why.
///
/// ```
/// use unsaid_privacy::{Budget, Charge, Ledger, LedgerError, Rho};
/// let mut ledger = Ledger::new(Budget::new(4.0, 1e-5)?);
/// let charge = |digit: &str| Charge {
///     task: "digits".into(), round: 1, update: digit.repeat(32), frame_sha256: digit.repeat(64),
///     cost: Rho::new(0.2).unwrap().into(), at_ms: 0,
/// };
/// assert!(ledger.debit(charge("a"))?.newly_debited);
/// assert!(!ledger.debit(charge("a"))?.newly_debited); // a retry costs nothing
/// assert!(matches!(ledger.debit(charge("b")), Err(LedgerError::Exhausted { .. })));
/// assert_eq!(Ledger::from_json(&ledger.to_json())?, ledger);
/// # Ok::<(), LedgerError>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Ledger {
    budget: Budget,
    folded: Folded,
    entries: Vec<Charge>,
}

/// Entries that are no longer kept one by one.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Folded {
    count: u64,
    cost: Cost,
}

impl Serialize for Ledger {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let plain = self.spent().is_of_updates();
        let version = if plain { 1 } else { VERSION };
        let mut fields = serializer.serialize_struct("Ledger", 4)?;
        fields.serialize_field("version", &version)?;
        fields.serialize_field("budget", &self.budget)?;
        fields.serialize_field("folded", &self.folded)?;
        fields.serialize_field("entries", &self.entries)?;
        fields.end()
    }
}

impl Serialize for Folded {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_struct("Folded", 3)?;
        fields.serialize_field("count", &self.count)?;
        self.cost.write(&mut fields)?;
        fields.end()
    }
}

impl Ledger {
    /// Entries kept one by one, and so the reach of idempotency: an older update that is booked again is charged again, which
    /// over-counts and never under-counts.
    pub const KEPT: usize = KEPT;

    /// An empty ledger.
    pub const fn new(budget: Budget) -> Self {
        Self {
            budget,
            folded: Folded {
                count: 0,
                cost: Cost::NOTHING,
            },
            entries: Vec::new(),
        }
    }

    /// Books a charge, if the budget allows it. On an error nothing has changed.
    ///
    /// # Errors
    /// [`LedgerError::Exhausted`]; [`LedgerError::Conflict`] where the id is known with another hash, task, round or
    /// cost; [`LedgerError::Field`] for a malformed charge.
    pub fn debit(&mut self, charge: Charge) -> Result<Receipt, LedgerError> {
        charge.check()?;
        if let Some(entry) = self
            .entries
            .iter()
            .rev()
            .find(|entry| entry.update == charge.update)
        {
            // The clock may differ: a retry may come later.
            return if (Charge {
                at_ms: entry.at_ms,
                ..charge.clone()
            }) == *entry
            {
                Ok(Receipt {
                    newly_debited: false,
                    spent_epsilon: self.spent_epsilon(),
                })
            } else {
                Err(LedgerError::Conflict {
                    update: charge.update,
                })
            };
        }
        let would_be = self.if_one_more(charge.cost);
        let limit = self.budget.epsilon;
        // Written so that anything but a clear "within" refuses.
        if would_be.is_nan() || would_be > limit {
            return Err(LedgerError::Exhausted {
                would_be,
                limit,
                spent: self.spent_epsilon(),
            });
        }
        self.entries.push(charge);
        if self.entries.len() > KEPT {
            for old in self.entries.drain(..self.entries.len() - KEPT) {
                self.folded = Folded {
                    count: self.folded.count.saturating_add(1),
                    cost: self.folded.cost + old.cost,
                };
            }
        }
        Ok(Receipt {
            newly_debited: true,
            spent_epsilon: would_be,
        })
    }

    /// The budget.
    pub const fn budget(&self) -> Budget {
        self.budget
    }

    /// Sets the budget, at the person's own wish. What was spent stays.
    pub const fn set_budget(&mut self, budget: Budget) {
        self.budget = budget;
    }

    /// Refuses one more update where `limit` were booked in the 24 hours up to `now_ms`. Those that the clock calls later than now
    /// count too: a clock that was set back opens nothing. A clock that was set forward by a day does, and the budget still holds.
    ///
    /// # Errors
    /// [`LedgerError::DailyLimit`].
    pub fn check_day(&self, limit: u32, now_ms: u64) -> Result<(), LedgerError> {
        let since = now_ms.saturating_sub(DAY_MS);
        let booked = self.entries.iter().filter(|entry| entry.at_ms > since).count();
        // More are not kept one by one.
        if booked < KEPT.min(limit as usize) {
            Ok(())
        } else {
            Err(LedgerError::DailyLimit { limit })
        }
    }

    /// The sum of all costs, never rounded down.
    pub fn spent(&self) -> Cost {
        self.entries
            .iter()
            .fold(self.folded.cost, |sum, entry| sum + entry.cost)
    }

    /// ε so far, at the budget's δ.
    pub fn spent_epsilon(&self) -> f64 {
        self.epsilon_of(self.spent())
    }

    /// ε after one more update of this cost. It may be sent if this is at most the budget's ε.
    pub fn if_one_more(&self, cost: impl Into<Cost>) -> f64 {
        self.epsilon_of(self.spent() + cost.into())
    }

    /// ε still to be spent, at least 0. ε does not add up: one more round costs [`Self::if_one_more`] less
    /// [`Self::spent_epsilon`].
    pub fn left_epsilon(&self) -> f64 {
        (self.budget.epsilon - self.spent_epsilon()).max(0.0)
    }

    /// Number of updates paid for.
    pub fn count(&self) -> u64 {
        self.folded.count.saturating_add(self.entries.len() as u64)
    }

    /// The newest updates paid for, oldest first, at most [`Self::KEPT`].
    pub fn entries(&self) -> &[Charge] {
        &self.entries
    }

    fn epsilon_of(&self, cost: Cost) -> f64 {
        // The budget's δ was checked when it was made; were it not, nothing would be within any limit.
        cost.epsilon(self.budget.delta).unwrap_or(f64::INFINITY)
    }

    /// The form in which it is stored.
    pub fn to_json(&self) -> String {
        #[allow(clippy::expect_used)]
        // INVARIANT: numbers are finite or saved as they are, keys are strings: nothing can fail
        serde_json::to_string(self).expect("a ledger is always valid JSON")
    }

    /// Reads a stored ledger, and checks that its parts fit together.
    ///
    /// A ledger that cannot be read must not be replaced by an empty one without the person's say: what was spent is spent. No
    /// check can tell a ledger that someone edited with care; it guards a person against tasks and mistakes, not against
    /// themselves.
    ///
    /// # Errors
    /// [`LedgerError::Version`] for one that a later program wrote, [`LedgerError::Budget`], [`LedgerError::Field`] and
    /// [`LedgerError::Damaged`] for anything else that is not whole.
    pub fn from_json(json: &str) -> Result<Self, LedgerError> {
        let damaged = |error: serde_json::Error| LedgerError::Damaged(error.to_string());
        // The version first, so that a later form is called that, and not damaged.
        let document: Value = serde_json::from_str(json).map_err(damaged)?;
        let version = document.get("version").and_then(Value::as_u64);
        if let Some(found) = version.and_then(|version| u32::try_from(version).ok())
            && found > VERSION
        {
            let known = VERSION;
            return Err(LedgerError::Version { found, known });
        }
        let Body {
            version,
            limits: [epsilon, delta],
            folded,
            entries,
        } = Body::read(document).map_err(LedgerError::Damaged)?;
        if version == 0 {
            return Err(LedgerError::Damaged("there is no version 0".into()));
        }
        let ledger = Self {
            budget: Budget::new(epsilon, delta)?,
            folded,
            entries,
        };
        if ledger.entries.len() > KEPT {
            return Err(LedgerError::Damaged(format!("more than {KEPT} entries")));
        }
        if (ledger.folded.count == 0 && ledger.folded.cost != Cost::NOTHING)
            || (ledger.folded.count > 0 && ledger.entries.len() != KEPT)
        {
            return Err(LedgerError::Damaged(
                "the folded total does not fit the entries".into(),
            ));
        }
        for entry in &ledger.entries {
            entry.check()?;
        }
        // Every pair, some half a million at the most: a sort would be faster, and weighs a kilobyte in wasm.
        let twice = |(index, entry): (usize, &Charge)| {
            ledger.entries[..index]
                .iter()
                .any(|earlier| earlier.update == entry.update)
        };
        if ledger.entries.iter().enumerate().any(twice) {
            return Err(LedgerError::Damaged("an update is booked twice".into()));
        }
        // There is one way to write a ledger. This finds whatever the parser passes over, such as a field that is there twice.
        if ledger.to_json() != json {
            return Err(LedgerError::Damaged(
                "it is not in the form in which it is written".into(),
            ));
        }
        Ok(ledger)
    }
}

/// A stored ledger, not looked at yet.
struct Body {
    version: u32,
    limits: [f64; 2],
    folded: Folded,
    entries: Vec<Charge>,
}

impl Document for Body {
    fn read(document: Value) -> Result<Self, String> {
        let mut fields = Fields::of(document)?;
        let mut limits = Fields::of(fields.document("budget")?)?;
        let body = Self {
            version: fields.required("version"),
            limits: ["epsilon", "delta"].map(|name| limits.required::<Bits>(name).0),
            folded: fields.nested("folded")?,
            entries: fields.nested("entries")?,
        };
        limits.finish()?;
        fields.finish().map(|()| body)
    }
}

impl Document for Folded {
    fn read(document: Value) -> Result<Self, String> {
        let mut fields = Fields::of(document)?;
        let folded = Self {
            count: fields.required("count"),
            cost: Cost::read(&mut fields),
        };
        fields.finish().map(|()| folded)
    }
}

impl Document for Charge {
    fn read(document: Value) -> Result<Self, String> {
        let mut fields = Fields::of(document)?;
        let f = &mut fields;
        let charge = Self {
            task: f.required("task"),
            round: f.required("round"),
            update: f.required("update"),
            frame_sha256: f.required("frame_sha256"),
            cost: Cost::read(f),
            at_ms: f.required("at_ms"),
        };
        fields.finish().map(|()| charge)
    }
}

impl Charge {
    fn check(&self) -> Result<(), LedgerError> {
        let hex = |text: &str, digits: usize| {
            text.len() == digits && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
        };
        let field = |field, expected| Err(LedgerError::Field { field, expected });
        if self.task.is_empty() || self.task.len() > MAX_TASK_LEN {
            return field("task", "1 to 64 bytes long");
        }
        if !hex(&self.update, 32) {
            return field("update", "32 lower-case hexadecimal digits");
        }
        if !hex(&self.frame_sha256, 64) {
            return field("frame_sha256", "64 lower-case hexadecimal digits");
        }
        if !self.cost.is_finite() {
            return field("rho", "a finite number");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
