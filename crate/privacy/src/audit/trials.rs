//! Many independent trials instead of one run: Nasr, Hayes, Steinke, Balle, Tramèr, Jagielski, Carlini, Terzis, “Tight Auditing of
//! Differentially Private Machine Learning”, USENIX Security 2023, [arXiv:2302.07956](https://arxiv.org/abs/2302.07956).

use super::AuditError;

/// What an attacker achieved in trials that are independent of each other: each is a mechanism on one of two inputs that it should make hard
/// to tell apart, by a fair coin or not, and the attacker says which, by a rule that was fixed beforehand.
///
/// Where trials are independent this shows far more than [`super::Audit`] does, and needs no small δ: it is held against the whole curve of
/// what a mechanism claims.
///
/// ```
/// use unsaid_privacy::Trials;
/// // The one input: 700 of 1,000 recognised; the other: 100 of 1,000 taken for it.
/// let trials = Trials::new([700, 1_000], [100, 1_000])?;
/// assert!(trials.refute(1.0, 0.05, 0.999)?); // 0.7 is more than e·0.1 + 0.05
/// assert!(!trials.refute(2.0, 0.05, 0.999)?);
/// # Ok::<(), unsaid_privacy::AuditError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trials {
    /// Said to be the one input, of so many that were.
    hits: [u64; 2],
    /// Said to be the one input, of so many that were the other.
    false_alarms: [u64; 2],
}

impl Trials {
    /// `hits` of the trials on one input were said to be of it, and `false_alarms` of those on the other; each with the number of trials.
    ///
    /// # Errors
    /// [`AuditError::Counts`] for more than there were, no trials, or above [`super::Audit::MAX_CANARIES`].
    pub const fn new(hits: [u64; 2], false_alarms: [u64; 2]) -> Result<Self, AuditError> {
        let [found, trials] = if hits[0] > hits[1] || hits[1] == 0 || hits[1] > super::Audit::MAX_CANARIES {
            hits
        } else if false_alarms[0] > false_alarms[1]
            || false_alarms[1] == 0
            || false_alarms[1] > super::Audit::MAX_CANARIES
        {
            false_alarms
        } else {
            return Ok(Self { hits, false_alarms });
        };
        Err(AuditError::Counts {
            canaries: trials,
            guesses: trials,
            right: found,
        })
    }

    /// Whether a mechanism that made these is not (`epsilon`, `delta`)-private: P(hit) > e^ε·P(false alarm) + δ, or the same with the inputs
    /// exchanged, for all probabilities within their confidence intervals (Clopper, Pearson 1934), each at half of what `confidence` leaves.
    /// One pair of intervals does for any number of (ε, δ): a mechanism that keeps all of them is refuted at any with a probability of at most
    /// 1 − `confidence`.
    ///
    /// # Errors
    /// [`AuditError::Level`].
    pub fn refute(&self, epsilon: f64, delta: f64, confidence: f64) -> Result<bool, AuditError> {
        if !((0.0..1.0).contains(&delta) && confidence > 0.0 && confidence < 1.0) {
            return Err(AuditError::Level { delta, confidence });
        }
        let level = (1.0 - confidence) / 2.0;
        let least = |[found, trials]: [u64; 2]| at_least(found, trials, level);
        let not = |[found, trials]: [u64; 2]| [trials - found, trials];
        let (hit, no_alarm) = (least(self.hits), least(not(self.false_alarms)));
        let (alarm, miss) = (1.0 - no_alarm, 1.0 - hit);
        Ok(hit > epsilon.exp() * alarm + delta || no_alarm > epsilon.exp() * miss + delta)
    }
}

/// The least probability of which `found` or more of `trials` are no rarer than `level`.
fn at_least(found: u64, trials: u64, level: f64) -> f64 {
    if found == 0 {
        return 0.0;
    }
    let ln_choose: f64 = (1..=found)
        .map(|i| ((trials - found + i) as f64 / i as f64).ln())
        .sum();
    // P(B ≥ found), from there up.
    let tail = |p: f64| {
        let (hit, miss) = (p.ln(), (-p).ln_1p());
        let mut ln_term = ln_choose + found as f64 * hit + (trials - found) as f64 * miss;
        let mut tail = 0.0;
        for k in found..=trials {
            tail += ln_term.exp();
            ln_term += ((trials - k) as f64 / (k + 1) as f64).ln() + hit - miss;
        }
        tail
    };
    let (mut low, mut high) = (0.0, found as f64 / trials as f64);
    for _ in 0..50 {
        let middle = f64::midpoint(low, high);
        if tail(middle) < level {
            low = middle;
        } else {
            high = middle;
        }
    }
    low
}
