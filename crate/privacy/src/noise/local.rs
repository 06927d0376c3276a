//! The noise that one client adds to its own update.

use rand_core::CryptoRng;

use super::{DiscreteGaussian, NoiseError};
use crate::{Adjacency, Encoding, Rho};

/// Discrete Gaussian noise on every coordinate of an encoded update, in proportion to the bound that the update obeys.
///
/// σ = z·Δ grid steps, where z is the noise multiplier and Δ the integer bound of the [`Encoding`]. σ² is held as a fraction
/// that is never below z²Δ²: a whole number from σ = 256 on (at most one part in 65,536 above), else a multiple of a
/// power of two that is as near.
///
/// ```
/// use unsaid_privacy::{Encoding, LocalNoise};
/// let encoding = Encoding::new(1.0, 1.0 / 1024.0, 100)?;
/// let noise = LocalNoise::new(&encoding, 2.0)?;
/// assert!(noise.variance_steps() >= 4.0 * encoding.bound_squared() as f64);
/// # Ok::<(), unsaid_privacy::PrivacyError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LocalNoise {
    gaussian: DiscreteGaussian,
    bound_squared: u64,
    dimension: usize,
}

impl LocalNoise {
    /// Room that must be left beside the update, in σ. A discrete Gaussian passes 16σ on either side with probability at
    /// most 2·exp(−128) (P(X ≥ λ) ≤ exp(−λ²/2σ²), as for a continuous Gaussian: CKS, the section on utility).
    const ROOM_SIGMAS: f64 = 16.0;

    /// Noise of `noise_multiplier` times the encoding's bound.
    ///
    /// # Errors
    /// [`NoiseError::NoiseMultiplier`] for anything but a finite number above 0, [`NoiseError::TooWide`] where
    /// Δ + 16σ is beyond 32 bits, [`NoiseError::OutOfRange`] where σ is below 2⁻¹² grid steps.
    pub fn new(encoding: &Encoding, noise_multiplier: f64) -> Result<Self, NoiseError> {
        if !(noise_multiplier.is_finite() && noise_multiplier > 0.0) {
            return Err(NoiseError::NoiseMultiplier(noise_multiplier));
        }
        let bound_squared = encoding.bound_squared();
        // Each product is rounded up by hand, so that `variance` is at least z²Δ². Δ² is below 2⁵³: its conversion is exact.
        let variance = ((noise_multiplier * noise_multiplier).next_up() * bound_squared as f64).next_up();
        let sigma_steps = variance.sqrt();
        if encoding.bound_steps() + Self::ROOM_SIGMAS * sigma_steps > f64::from(i32::MAX) {
            return Err(NoiseError::TooWide { sigma_steps });
        }
        let gaussian = gaussian_of_at_least(variance)?;
        Ok(Self {
            gaussian,
            bound_squared,
            dimension: encoding.dimension(),
        })
    }

    /// σ² in grid steps², rounded to the nearest float (for people; the sampler uses the fraction).
    pub fn variance_steps(&self) -> f64 {
        let (num, den) = self.gaussian.variance();
        num as f64 / den as f64
    }

    /// σ in grid steps, for people.
    pub fn sigma_steps(&self) -> f64 {
        self.variance_steps().sqrt()
    }

    /// The sampler of one coordinate's noise.
    pub const fn gaussian(&self) -> &DiscreteGaussian {
        &self.gaussian
    }

    /// What releasing one update with this noise costs: (kΔ)²/2σ² with k = 2 for [`Adjacency::ReplaceOne`] and 1 for
    /// [`Adjacency::AddRemove`]. Never above [`Rho::local_round`] of the noise multiplier but for rounding.
    pub fn rho(&self, adjacency: Adjacency) -> Rho {
        let (num, den) = self.gaussian.variance();
        Rho::of_ratio(adjacency, self.bound_squared as f64 * den as f64, num as f64)
    }

    /// Adds a fresh sample to every coordinate of an update that was encoded by this noise's [`Encoding`].
    ///
    /// Length and norm are checked first, in exact integers: noise is never put on a vector that it is too small for. On any
    /// error all coordinates are set to 0, so that nothing half-protected can be sent by mistake.
    ///
    /// # Errors
    /// [`NoiseError::Unbounded`] where the length is another or the norm above the bound; [`NoiseError::Saturated`] where a
    /// sum leaves `i32`, which happens with probability below 2⁻¹⁵⁰ (2³² coordinates, each below 2·exp(−128)).
    pub fn add<R: CryptoRng + ?Sized>(&self, coordinates: &mut [i32], rng: &mut R) -> Result<(), NoiseError> {
        let norm_squared: u128 = coordinates
            .iter()
            .map(|x| u128::from(u64::from(x.unsigned_abs()).pow(2)))
            .sum();
        let result = if coordinates.len() != self.dimension || norm_squared > u128::from(self.bound_squared) {
            Err(NoiseError::Unbounded)
        } else {
            add_samples(&self.gaussian, coordinates, rng)
        };
        if result.is_err() {
            coordinates.fill(0);
        }
        result
    }
}

/// The discrete Gaussian of a variance that is never below `variance`, and hardly above: a whole number from σ = 256 on, else a
/// multiple of a power of two that is as near. σ is at least 1/4096.
pub(crate) fn gaussian_of_at_least(variance: f64) -> Result<DiscreteGaussian, NoiseError> {
    /// σ² from which a whole number is near enough.
    const FINE: f64 = 65_536.0;
    if variance < 1.0 / 16_777_216.0 {
        return Err(NoiseError::OutOfRange {
            reason: "noise of σ below 1/4096 protects nothing: take a finer grid or more noise",
        });
    }
    let (mut num, mut den) = (variance, 1_u64);
    while num < FINE {
        // Doubling is exact.
        num *= 2.0;
        den *= 2;
    }
    // Too large for 128 bits becomes the largest number, which is refused.
    DiscreteGaussian::with_variance(num.ceil() as u128, u128::from(den))
}

/// Adds a sample to every coordinate, up to the first sum that does not fit.
pub(crate) fn add_samples<R: CryptoRng + ?Sized>(
    gaussian: &DiscreteGaussian,
    coordinates: &mut [i32],
    rng: &mut R,
) -> Result<(), NoiseError> {
    for (index, coordinate) in coordinates.iter_mut().enumerate() {
        let noised = gaussian.sample(rng).checked_add(i64::from(*coordinate));
        *coordinate = noised
            .and_then(|value| i32::try_from(value).ok())
            .ok_or(NoiseError::Saturated { index })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
