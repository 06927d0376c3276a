//! Measuring how private a mechanism is at least not: Steinke, Nasr, Jagielski, “Privacy Auditing with One (1) Training Run”,
//! NeurIPS 2023, [arXiv:2305.08846](https://arxiv.org/abs/2305.08846).
//!
//! Many coins are tossed at once, each of which decides about one canary: whether it takes part, or which of two it is. An attacker sees
//! what the mechanism gave, and guesses some of the coins. Whoever guesses better than (ε, δ)-differential privacy allows has shown that
//! it does not hold. An audit can only ever find that ε is at least something; it proves no protection.

mod trials;

pub use trials::Trials;

/// What an attacker achieved.
///
/// ```
/// use unsaid_privacy::Audit;
/// // 1,000 coins, of which 200 were guessed, all rightly.
/// let audit = Audit::new(1_000, 200, 200)?;
/// // With 95 % confidence ε is at least 4, if δ is 10⁻⁵.
/// assert!(audit.epsilon_at_least(1e-5, 0.95)? > 4.0);
/// // Guessing at random shows nothing.
/// assert_eq!(Audit::new(1_000, 200, 100)?.epsilon_at_least(1e-5, 0.95)?, 0.0);
/// # Ok::<(), unsaid_privacy::AuditError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Audit {
    canaries: u64,
    guesses: u64,
    right: u64,
}

/// Why an audit makes no sense.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum AuditError {
    /// More right guesses than guesses, more guesses than canaries, none at all, or too many.
    #[error(
        "{right} right of {guesses} guesses about {canaries} canaries: there must be as many or fewer, in this order, and at most 10,000,000"
    )]
    Counts {
        /// Canaries.
        canaries: u64,
        /// Guesses.
        guesses: u64,
        /// Right ones.
        right: u64,
    },
    /// δ outside [0, 1), or a confidence outside (0, 1).
    #[error(
        "delta is {delta} and the confidence {confidence}, but they must be at least 0 and below 1, and between 0 and 1"
    )]
    Level {
        /// The δ.
        delta: f64,
        /// The confidence.
        confidence: f64,
    },
}

impl Audit {
    /// The most canaries.
    pub const MAX_CANARIES: u64 = 10_000_000;

    /// An attacker who guessed `guesses` of `canaries` independent fair coins, and `right` of them rightly. Which coins to leave out may
    /// depend on what was seen, but their number must be fixed beforehand.
    ///
    /// # Errors
    /// [`AuditError::Counts`].
    pub const fn new(canaries: u64, guesses: u64, right: u64) -> Result<Self, AuditError> {
        if right > guesses || guesses > canaries || guesses == 0 || canaries > Self::MAX_CANARIES {
            return Err(AuditError::Counts {
                canaries,
                guesses,
                right,
            });
        }
        Ok(Self {
            canaries,
            guesses,
            right,
        })
    }

    /// The probability, at most, that anyone does as well against an (`epsilon`, `delta`)-private mechanism (Steinke, Nasr, Jagielski
    /// 2023, Theorem 5.2): with B binomial of r guesses and e^ε/(e^ε + 1), v right ones, and m canaries,
    /// P(B ≥ v) + 2mδ·max over i of P(v > B ≥ v − i)/i.
    pub fn p_value(&self, epsilon: f64, delta: f64) -> f64 {
        let (r, v) = (self.guesses, self.right);
        // ln q and ln(1 − q), q = e^ε/(e^ε + 1)
        let ln_hit = -(-epsilon).exp().ln_1p();
        let ln_miss = ln_hit - epsilon;
        let mut ln_choose = 0.0;
        for i in 1..=v {
            ln_choose += ((r - v + i) as f64 / i as f64).ln();
        }
        let at_v = ln_choose + v as f64 * ln_hit + (r - v) as f64 * ln_miss;
        // P(B ≥ v), from v up; each term is the last times (r − k)/(k + 1)·q/(1 − q).
        let (mut tail, mut ln_term) = (0.0, at_v);
        for k in v..=r {
            tail += ln_term.exp();
            ln_term += ((r - k) as f64 / (k + 1) as f64).ln() + ln_hit - ln_miss;
        }
        // P(v > B ≥ v − i), from v down.
        let (mut below, mut ln_term, mut steepest) = (0.0, at_v, 0.0_f64);
        for k in (1..=v).rev() {
            ln_term += (k as f64 / (r - k + 1) as f64).ln() + ln_miss - ln_hit;
            below += ln_term.exp();
            steepest = steepest.max(below / (v - k + 1) as f64);
        }
        (tail + 2.0 * self.canaries as f64 * delta * steepest).min(1.0)
    }

    /// The ε that the mechanism has at least, if its δ is `delta`: a true (ε, δ)-private mechanism gets more than its own ε from here with
    /// probability at most 1 − `confidence`.
    ///
    /// # Errors
    /// [`AuditError::Level`].
    pub fn epsilon_at_least(&self, delta: f64, confidence: f64) -> Result<f64, AuditError> {
        if !((0.0..1.0).contains(&delta) && confidence > 0.0 && confidence < 1.0) {
            return Err(AuditError::Level { delta, confidence });
        }
        let refuted = |epsilon| self.p_value(epsilon, delta) < 1.0 - confidence;
        let (mut low, mut high) = (0.0, 64.0);
        if !refuted(low) {
            return Ok(0.0);
        }
        for _ in 0..60 {
            let middle = f64::midpoint(low, high);
            if refuted(middle) {
                low = middle;
            } else {
                high = middle;
            }
        }
        Ok(low)
    }
}

#[cfg(test)]
mod tests;
