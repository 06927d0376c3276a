//! A clip norm that follows a quantile: Andrew, Thakkar, McMahan, Ramaswamy, “Differentially Private Learning with Adaptive
//! Clipping”, NeurIPS 2021, [arXiv:1905.03871](https://arxiv.org/abs/1905.03871).

use rand_core::CryptoRng;

use super::{CentralError, variance};
use crate::{Adjacency, DiscreteGaussian, Rho};

/// The rule of Andrew and others 2021, Algorithm 1: after each round the clip norm C becomes C·exp(−η·(b̃ − γ)), where b̃ is the
/// share of updates whose norm was at most C, with noise, γ the quantile to follow, and η the rate.
///
/// The share is of the cohort that was *expected*, a public constant, as in the paper: how many came is itself about people where
/// records come and go, and a share of that number would tell it. Where more or fewer come, the share is off by as much.
///
/// Each participant tells one bit. With b ∈ {−1, +1} instead of {0, 1} a participant who comes or goes moves the sum by 1 (and one who
/// is replaced by 2); the sum of these gets discrete Gaussian noise of twice the deviation σ_b that the paper has for halves.
///
/// Sum and count together cost what one sum with the noise multiplier z does if the sum's own is z_Δ = (z⁻² − (2σ_b)⁻²)^(−1/2) (their
/// Theorem 1): see [`Self::sum_noise_multiplier`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdaptiveClip {
    quantile: f64,
    rate: f64,
    count_noise: f64,
    expected_cohort: u64,
    gaussian: DiscreteGaussian,
}

/// The clip norm of the next round, and what it was made of.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct AdaptiveClipState {
    /// The clip norm, in the model's own units.
    pub clip_l2: f64,
    /// The noised share of updates within the last clip norm: what the release told. It can be below 0 or above 1; the clip norm follows
    /// the nearest share that is neither.
    pub share: f64,
}

impl AdaptiveClip {
    /// The authors' rate: C changes by at most a factor of e^0.2 in a round, whatever the noise.
    pub const USUAL_RATE: f64 = 0.2;

    /// Follows `quantile` (0.5 is the authors' choice) at `rate`, with noise of deviation `count_noise` = σ_b on the count (the authors
    /// take a twentieth of the cohort). `expected_cohort` must be known without looking at who is there.
    ///
    /// # Errors
    /// [`CentralError::Parameter`] for a quantile outside [0, 1], a rate that is not above 0 and at most 1, or an expected cohort of
    /// nobody or more than 2³²; [`CentralError::Noise`] for a `count_noise` that is not a finite number above 0, or too large.
    pub fn new(
        quantile: f64,
        rate: f64,
        count_noise: f64,
        expected_cohort: u64,
    ) -> Result<Self, CentralError> {
        if !(0.0..=1.0).contains(&quantile) {
            return Err(CentralError::Parameter {
                field: "the quantile",
                found: quantile,
                expected: "between 0 and 1",
            });
        }
        if !(rate > 0.0 && rate <= 1.0) {
            return Err(CentralError::Parameter {
                field: "the rate",
                found: rate,
                expected: "above 0 and at most 1",
            });
        }
        if expected_cohort == 0 || expected_cohort > 1 << 32 {
            return Err(CentralError::Parameter {
                field: "the expected cohort",
                found: expected_cohort as f64,
                expected: "between 1 and 4,294,967,296",
            });
        }
        Ok(Self {
            quantile,
            rate,
            count_noise,
            expected_cohort,
            gaussian: variance(count_noise, 4.0)?,
        })
    }

    /// The clip norm after a round of `cohort` updates (which may be none), of which `within` had a norm of at most `clip_l2`.
    ///
    /// # Errors
    /// [`CentralError::Cohort`] for more within than there were, or more than 2³²; [`CentralError::Parameter`] for a clip norm that is not
    /// a finite number above 0.
    pub fn next<R: CryptoRng + ?Sized>(
        &self,
        clip_l2: f64,
        within: u64,
        cohort: u64,
        rng: &mut R,
    ) -> Result<AdaptiveClipState, CentralError> {
        if within > cohort || cohort > 1 << 32 {
            return Err(CentralError::Cohort { within, cohort });
        }
        if !(clip_l2.is_finite() && clip_l2 > 0.0) {
            return Err(CentralError::Parameter {
                field: "the clip norm",
                found: clip_l2,
                expected: "a finite number above 0",
            });
        }
        // Σ ±1 = 2·within − cohort
        let noised = 2 * within as i64 - cohort as i64 + self.gaussian.sample(rng);
        let share = f64::midpoint(noised as f64 / self.expected_cohort as f64, 1.0);
        let next = clip_l2 * (-self.rate * (share.clamp(0.0, 1.0) - self.quantile)).exp();
        Ok(AdaptiveClipState {
            // A norm that nobody can have any more would never come back.
            clip_l2: next.clamp(f64::MIN_POSITIVE, f64::MAX),
            share,
        })
    }

    /// What telling one round's noised count costs.
    pub fn rho(&self, adjacency: Adjacency) -> Rho {
        let (num, den) = self.gaussian.variance();
        Rho::of_ratio(adjacency, den as f64, num as f64)
    }

    /// The sum's noise multiplier z_Δ with which sum and count together cost what `noise_multiplier` alone does (Andrew and others
    /// 2021, Theorem 1). Rounded up.
    ///
    /// # Errors
    /// [`CentralError::NothingLeft`] unless 2σ_b is above the noise multiplier.
    pub fn sum_noise_multiplier(&self, noise_multiplier: f64) -> Result<f64, CentralError> {
        let left = noise_multiplier.powi(-2) - (2.0 * self.count_noise).powi(-2);
        if noise_multiplier > 0.0 && left.is_finite() && left > 0.0 {
            Ok(left.powf(-0.5) * (1.0 + 1e-12))
        } else {
            Err(CentralError::NothingLeft { noise_multiplier })
        }
    }
}
