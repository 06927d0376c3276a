//! What a round costs, as the ledger adds it up: a bound on the Rényi divergence at each order of a fixed list.

use serde::{Serialize, Serializer, ser::SerializeSeq};
use unsaid_document::{Field, Value};

use crate::{
    AccountingError, Rho,
    accounting::{add_up, check_delta},
    bits::Bits,
};

/// What rounds cost: at every order α of [`Self::ORDERS`] the Rényi divergence between what is sent on any two adjacent inputs is at
/// most ρα plus the curve there. Noise on a whole update costs ρ alone; training with noise on sums over examples costs a curve.
///
/// Costs add up order by order, rounded up. A sum protects what the weakest of its parts does: one update in place of any other where
/// all of them are [`Self::is_of_updates`], else one example that is there or is not. (What bounds the former bounds the latter.)
///
/// # ε of rounds that are chosen as one goes
/// What a later round costs may depend on what came of earlier ones: the relay writes the tasks, and the person chooses among them.
/// At one order fixed in advance nothing more has to be paid for that: whatever is chosen, if the costs never add up to more than B, all
/// of it together has a divergence of at most B (Feldman, Zrnic, “Individual Privacy Accounting via a Rényi Filter”, NeurIPS 2021,
/// [arXiv:2008.11193](https://arxiv.org/abs/2008.11193)). Which of *several* orders is the one that holds in the end is itself chosen as
/// one goes, and the best of them is not free: δ is shared out among them. [`Self::epsilon`] is the least ε at any candidate, each at its
/// own share of δ: 7/8 for costs that are ρ alone (which one order decides, the best one for the limit), and 1/64 for each order of the list.
/// PRIVACY.md has the proof.
///
/// ```
/// use unsaid_privacy::{Adjacency, Cost, Rho};
/// let noised = Cost::from(Rho::local_round(8.0, Adjacency::ReplaceOne)?);
/// let trained = Cost::of_examples(|order| 0.01 * order * order);
/// let both = noised + trained.times(2);
/// assert!(noised.is_of_updates() && !both.is_of_updates());
/// assert!(both.epsilon(1e-5)? > noised.epsilon(1e-5)?);
/// # Ok::<(), unsaid_privacy::AccountingError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cost {
    pub(super) rho: Rho,
    pub(super) curve: Curve,
}

/// The part of a cost that is no multiple of α.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Curve([f64; Cost::ORDERS.len()]);

impl Cost {
    /// Nothing spent.
    pub const NOTHING: Self = Self {
        rho: Rho::ZERO,
        curve: Curve::ZERO,
    };

    /// The orders, all whole: there the cost of sampled sums is a finite sum (Mironov, Talwar, Zhang 2019, section 3.3). They are part of
    /// the stored form. Between two neighbours the best order is missed by so little that ε rises by a few percent.
    pub const ORDERS: [f64; 8] = [2.0, 3.0, 5.0, 8.0, 12.0, 20.0, 36.0, 72.0];

    /// The share of δ for costs that are ρ alone.
    pub const SHARE_OF_RHO: f64 = 0.875;

    /// The share of δ for each order of the list.
    pub const SHARE_OF_ORDER: f64 = 0.015625;

    /// The cost of a round that protects each of the participant's examples: `curve` bounds the Rényi divergence of an order between
    /// what is sent with any one example and without it. What is no number costs everything.
    pub fn of_examples(curve: impl Fn(f64) -> f64) -> Self {
        // Wider by far more than such sums of exponentials lose in rounding.
        let safe = |order| match curve(order) {
            cost if cost.is_nan() => f64::INFINITY,
            cost => cost.max(0.0) * (1.0 + 1e-12),
        };
        Self {
            rho: Rho::ZERO,
            curve: Curve(Self::ORDERS.map(safe)),
        }
    }

    /// The cost of these parts, as [`Self::rho`] and [`Self::curve`] give them.
    ///
    /// # Errors
    /// [`AccountingError::Rho`] where a part of the curve is NaN or negative.
    pub fn from_parts(rho: Rho, curve: [f64; Self::ORDERS.len()]) -> Result<Self, AccountingError> {
        match curve.into_iter().find(|cost| cost.is_nan() || *cost < 0.0) {
            Some(wrong) => Err(AccountingError::Rho(wrong)),
            None => Ok(Self {
                rho,
                curve: Curve(curve),
            }),
        }
    }

    /// The cost of doing the same `count` times.
    #[must_use]
    pub fn times(self, count: u64) -> Self {
        let mut sum = Self::NOTHING;
        for digit in (0..u64::BITS - count.leading_zeros()).rev() {
            sum = sum + sum;
            if count >> digit & 1 == 1 {
                sum = sum + self;
            }
        }
        sum
    }

    /// The part that is a multiple of α.
    pub const fn rho(&self) -> Rho {
        self.rho
    }

    /// The rest, at each of [`Self::ORDERS`].
    pub const fn curve(&self) -> &[f64; Self::ORDERS.len()] {
        &self.curve.0
    }

    /// Whether it is the cost of whole updates alone, any in place of any other.
    pub fn is_of_updates(&self) -> bool {
        self.curve == Curve::ZERO
    }

    /// ε at `delta`, if this is what all rounds together cost and they were chosen as one goes. Infinite where nothing is known.
    ///
    /// # Errors
    /// [`AccountingError::Delta`] for δ outside (0, 1).
    pub fn epsilon(&self, delta: f64) -> Result<f64, AccountingError> {
        check_delta(delta)?;
        let rho = if self.is_of_updates() {
            self.rho.epsilon(Self::SHARE_OF_RHO * delta)?
        } else {
            f64::INFINITY
        };
        let ln_delta = (Self::SHARE_OF_ORDER * delta).ln();
        let at = |(order, curve): (f64, f64)| {
            let value = self.rho.get() * order + curve;
            // CKS 2020, Proposition 12, with a few units in the last place of each term.
            let terms = [
                value,
                -(ln_delta + order.ln()) / (order - 1.0),
                (-1.0 / order).ln_1p(),
            ];
            let slack = 16.0 * f64::EPSILON * (value - ln_delta + order.ln() + 1.0);
            terms[0] + terms[1] + terms[2] + slack
        };
        let orders = Self::ORDERS.into_iter().zip(self.curve.0).map(at);
        Ok(orders.fold(rho, f64::min).max(0.0))
    }

    pub(super) fn is_finite(&self) -> bool {
        self.rho.get().is_finite()
    }
}

/// Noise on a whole update.
impl From<Rho> for Cost {
    fn from(rho: Rho) -> Self {
        Self {
            rho,
            curve: Curve::ZERO,
        }
    }
}

impl std::ops::Add for Cost {
    type Output = Self;

    /// The sum, rounded up.
    fn add(self, other: Self) -> Self {
        let mut sum = self;
        sum.rho = self.rho + other.rho;
        for (sum, more) in sum.curve.0.iter_mut().zip(other.curve.0) {
            *sum = add_up(*sum, more);
        }
        sum
    }
}

impl Curve {
    pub(super) const ZERO: Self = Self([0.0; Cost::ORDERS.len()]);
}

/// As it is stored: the bits of its numbers.
impl Serialize for Curve {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_seq(None)?;
        for value in self.0 {
            list.serialize_element(&Bits(value))?;
        }
        list.end()
    }
}

impl Field for Curve {
    const EXPECTED: &'static str = "eight costs, as 16 lower-case hexadecimal digits each";
    const NONE: Self = Self::ZERO;
    fn read(value: &Value) -> Option<Self> {
        let values = value.as_array()?;
        let mut curve = Self::ZERO;
        if values.len() != curve.0.len() {
            return None;
        }
        for (cost, value) in curve.0.iter_mut().zip(values) {
            // Not NaN, not negative; an order may be too expensive to count.
            *cost = Bits::read(value)?.0;
            if !(*cost >= 0.0 && cost.is_sign_positive()) {
                return None;
            }
        }
        Some(curve)
    }
}

#[cfg(test)]
mod tests;
