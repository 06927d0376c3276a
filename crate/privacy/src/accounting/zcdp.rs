//! Zero-concentrated differential privacy (Bun, Steinke 2016): one number per release, which adds up.

use serde::Serialize;
use unsaid_document::{Field, Value};

use super::{AccountingError, Adjacency};
use crate::bits::Bits;

/// A cost in ρ-zCDP: every Rényi divergence of order α is at most ρα.
///
/// Costs add up under composition, whoever chooses the next release and however much they have seen (Bun, Steinke 2016,
/// Lemma 2.3). Sums are rounded up, so that they never under-count.
///
/// ```
/// use unsaid_privacy::{Adjacency, Rho};
/// let round = Rho::local_round(4.0, Adjacency::ReplaceOne)?; // 2/z² = 0.125
/// assert!((round.get() - 0.125).abs() < 1e-12);
/// let ten_rounds: Rho = std::iter::repeat_n(round, 10).sum();
/// let epsilon = ten_rounds.epsilon(1e-5)?;
/// assert!(epsilon > 8.0 && epsilon < 9.0);
/// # Ok::<(), unsaid_privacy::AccountingError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd, Serialize)]
#[serde(transparent)]
pub struct Rho(#[serde(serialize_with = "crate::bits::serialize")] f64);

/// As it is stored: the bits of the number.
impl Field for Rho {
    const EXPECTED: &'static str = "a cost, as 16 lower-case hexadecimal digits";
    const NONE: Self = Self::ZERO;
    fn read(value: &Value) -> Option<Self> {
        Self::new(Bits::read(value)?.0).ok()
    }
}

impl Rho {
    /// Nothing spent.
    pub const ZERO: Self = Self(0.0);

    /// A cost of `rho`.
    ///
    /// # Errors
    /// [`AccountingError::Rho`] for a negative, infinite or NaN `rho`.
    pub fn new(rho: f64) -> Result<Self, AccountingError> {
        if rho.is_finite() && rho >= 0.0 {
            Ok(Self(rho.abs())) // −0.0 becomes 0.0
        } else {
            Err(AccountingError::Rho(rho))
        }
    }

    /// The cost of one release of a vector of norm at most Δ with discrete Gaussian noise of σ ≥ z·Δ on every coordinate,
    /// z = `noise_multiplier`: s²/2σ² for sensitivity s (CKS 2020, Theorem 14: the multivariate discrete Gaussian costs no
    /// more than the continuous one), so 2/z² for [`Adjacency::ReplaceOne`] and 1/2z² for [`Adjacency::AddRemove`].
    ///
    /// # Errors
    /// [`AccountingError::NoiseMultiplier`] for anything but a finite number above 0, and [`AccountingError::Rho`] where
    /// it is so small that the cost is not a finite number.
    pub fn local_round(noise_multiplier: f64, adjacency: Adjacency) -> Result<Self, AccountingError> {
        if !(noise_multiplier.is_finite() && noise_multiplier > 0.0) {
            return Err(AccountingError::NoiseMultiplier(noise_multiplier));
        }
        let variance = (noise_multiplier * noise_multiplier).next_down();
        Self::new(Self::of_ratio(adjacency, 1.0, variance).0)
    }

    /// (kΔ)²/2σ², rounded up.
    pub(crate) fn of_ratio(adjacency: Adjacency, bound_squared: f64, variance: f64) -> Self {
        let factor = adjacency.sensitivity_factor();
        // The factor's square and half are powers of two: exact.
        Self(
            (factor * factor / 2.0 * bound_squared / variance)
                .next_up()
                .next_up(),
        )
    }

    /// ρ itself.
    pub const fn get(self) -> f64 {
        self.0
    }

    /// ε at this δ: the least over α > 1 of ρα + ln(1/(αδ))/(α − 1) + ln(1 − 1/α) (CKS 2020, Proposition 12 and Corollary
    /// 13), never below 0.
    ///
    /// The derivative in α is ρ − (ln(1/δ) − ln α)/(α − 1)², so that the best α is the one root of
    /// ρ(α − 1)² + ln α = ln(1/δ), whose left side rises from 0. Any α gives a valid ε: an error in the root can only make
    /// the answer larger. The answer is widened by a bound on the rounding errors of its own terms.
    ///
    /// # Errors
    /// [`AccountingError::Delta`] for δ outside (0, 1).
    pub fn epsilon(self, delta: f64) -> Result<f64, AccountingError> {
        check_delta(delta)?;
        let rho = self.0;
        if rho == 0.0 {
            return Ok(0.0);
        }
        if rho.is_infinite() {
            return Ok(f64::INFINITY);
        }
        let log_inverse_delta = -delta.ln();
        // x = α − 1, between 0 and where the square alone reaches ln(1/δ).
        let excess = |x: f64| rho * x * x + x.ln_1p() - log_inverse_delta;
        let (mut low, mut high) = (0.0_f64, (log_inverse_delta / rho).sqrt());
        for _ in 0..2_000 {
            let middle = low + (high - low) / 2.0;
            if middle <= low || middle >= high {
                break;
            }
            if excess(middle) < 0.0 {
                low = middle;
            } else {
                high = middle;
            }
        }
        let x = high;
        let terms = [
            rho * (1.0 + x),
            (log_inverse_delta - x.ln_1p()) / x,
            -(1.0 / x).ln_1p(),
        ];
        // A few units in the last place of each operation: 16 of them cover every term and the sum.
        let slack = 16.0 * f64::EPSILON * (terms[0] + (log_inverse_delta + x.ln_1p()) / x + terms[2].abs());
        let epsilon = terms[0] + terms[1] + terms[2] + slack;
        // NaN can only come from infinities, where nothing is known.
        Ok(if epsilon.is_nan() {
            f64::INFINITY
        } else {
            epsilon.max(0.0)
        })
    }

    /// The largest cost that stays within (`epsilon`, `delta`): the inverse of [`Self::epsilon`], from below.
    ///
    /// # Errors
    /// [`AccountingError::Epsilon`] for an ε that is negative, infinite or NaN; [`AccountingError::Delta`] for δ outside
    /// (0, 1).
    pub fn for_epsilon(epsilon: f64, delta: f64) -> Result<Self, AccountingError> {
        if !(epsilon.is_finite() && epsilon >= 0.0) {
            return Err(AccountingError::Epsilon(epsilon));
        }
        check_delta(delta)?;
        let fits = |rho: f64| Self(rho).epsilon(delta).is_ok_and(|found| found <= epsilon);
        let (mut low, mut high) = (0.0_f64, 1.0_f64);
        while high.is_finite() && fits(high) {
            low = high;
            high *= 2.0;
        }
        for _ in 0..2_000 {
            let middle = low + (high - low) / 2.0;
            if middle <= low || middle >= high {
                break;
            }
            if fits(middle) {
                low = middle;
            } else {
                high = middle;
            }
        }
        Ok(Self(low))
    }
}

pub(crate) fn check_delta(delta: f64) -> Result<(), AccountingError> {
    if delta > 0.0 && delta < 1.0 {
        Ok(())
    } else {
        Err(AccountingError::Delta(delta))
    }
}

/// The sum of two numbers of at least 0, rounded up: exact where it can be.
pub(crate) fn add_up(a: f64, b: f64) -> f64 {
    let (a, b) = (a.max(b), a.min(b));
    let sum = a + b;
    // What was lost in rounding, exactly (Dekker 1971, for a ≥ b ≥ 0). NaN, and so no loss, where the sum is infinite.
    let lost = b - (sum - a);
    if lost > 0.0 { sum.next_up() } else { sum }
}

impl std::ops::Add for Rho {
    type Output = Self;

    /// The sum, rounded up: exact where it can be.
    fn add(self, other: Self) -> Self {
        Self(add_up(self.0, other.0))
    }
}

impl std::iter::Sum for Rho {
    fn sum<I: Iterator<Item = Self>>(costs: I) -> Self {
        costs.fold(Self::ZERO, |sum, cost| sum + cost)
    }
}

impl TryFrom<f64> for Rho {
    type Error = AccountingError;

    fn try_from(rho: f64) -> Result<Self, AccountingError> {
        Self::new(rho)
    }
}

impl From<Rho> for f64 {
    fn from(rho: Rho) -> Self {
        rho.0
    }
}
