//! The Gaussian mechanism without sampling, exactly: Balle, Wang, “Improving the Gaussian Mechanism for Differential
//! Privacy: Analytical Calibration and Optimal Denoising”, ICML 2018, [arXiv:1805.06530](https://arxiv.org/abs/1805.06530).

use super::error::{check_delta, check_epsilon};
use super::special::{ln_normal_cdf, ln_sub};
use super::{Adjacency, CompositionError, GaussianSum, Sampling};

/// δ of the (continuous) Gaussian mechanism at `epsilon`, where `mu` is the sensitivity over σ (Balle, Wang 2018, Theorem 8):
/// Φ(μ/2 − ε/μ) − e^ε·Φ(−μ/2 − ε/μ).
pub(super) fn delta_at(mu: f64, epsilon: f64) -> f64 {
    if mu == 0.0 {
        return 0.0;
    }
    let (a, b) = (mu / 2.0 - epsilon / mu, -mu / 2.0 - epsilon / mu);
    let (most, least) = (ln_normal_cdf(a), epsilon + ln_normal_cdf(b));
    // Rounding can leave nothing, or less, of two terms that are nearly the same.
    if least >= most {
        0.0
    } else {
        ln_sub(most, least).exp()
    }
}

/// ε of the (continuous) Gaussian mechanism at `delta`: the exact one, found by bisection from above.
pub(super) fn epsilon_at(mu: f64, delta: f64) -> f64 {
    let fits = |epsilon: f64| delta_at(mu, epsilon) <= delta;
    if fits(0.0) {
        return 0.0;
    }
    let (mut low, mut high) = (0.0, 1.0);
    while !fits(high) {
        low = high;
        high *= 2.0;
    }
    for _ in 0..200 {
        let middle = low + (high - low) / 2.0;
        if middle <= low || middle >= high {
            break;
        }
        if fits(middle) {
            high = middle;
        } else {
            low = middle;
        }
    }
    high
}

/// ε at `delta` of `releases` releases with Gaussian noise and no sampling, exactly. Together they are one release with the noise
/// multiplier z/√releases.
///
/// For the continuous Gaussian. The discrete Gaussian has an ε of its own, which only nears this one as σ grows beyond a few
/// grid steps; the ledger books it by [`crate::Rho`], which is a bound for both.
///
/// ```
/// use unsaid_privacy::{Adjacency, accounting::analytic_epsilon};
/// let epsilon = analytic_epsilon(1.0, 1, 1e-5, Adjacency::AddRemove)?;
/// assert!((epsilon - 4.3772).abs() < 5e-5);
/// # Ok::<(), unsaid_privacy::accounting::CompositionError>(())
/// ```
///
/// # Errors
/// [`CompositionError::NoiseMultiplier`] and [`CompositionError::NoiseMultiplierRange`] as [`GaussianSum::new`],
/// [`CompositionError::Delta`], [`CompositionError::Steps`] for 0.
pub fn analytic_epsilon(
    noise_multiplier: f64,
    releases: u64,
    delta: f64,
    adjacency: Adjacency,
) -> Result<f64, CompositionError> {
    check_delta(delta)?;
    if releases == 0 {
        return Err(CompositionError::Steps(releases));
    }
    GaussianSum::new(noise_multiplier, Sampling::All)?;
    let mu = adjacency.sensitivity_factor() * (releases as f64).sqrt() / noise_multiplier;
    Ok(epsilon_at(mu, delta))
}

/// The least noise multiplier with which one release keeps (`epsilon`, `delta`): Balle, Wang 2018, Algorithm 1, by bisection.
///
/// # Errors
/// [`CompositionError::TargetEpsilon`] for an ε that is not a finite number above 0, [`CompositionError::Delta`].
pub fn analytic_noise_multiplier(
    epsilon: f64,
    delta: f64,
    adjacency: Adjacency,
) -> Result<f64, CompositionError> {
    check_epsilon(epsilon)?;
    check_delta(delta)?;
    let fits = |mu: f64| delta_at(mu, epsilon) <= delta;
    let (mut low, mut high) = (0.0_f64, 1.0_f64);
    while fits(high) && high < f64::MAX / 4.0 {
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
    let z = adjacency.sensitivity_factor() / low;
    if z.is_finite() {
        Ok(z.next_up())
    } else {
        Err(CompositionError::Unreachable)
    }
}
