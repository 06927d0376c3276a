//! Discrete Gaussian noise on a sum.

use rand_core::CryptoRng;

use super::{CentralError, noise_of};
use crate::{Adjacency, DiscreteGaussian, Rho};

/// The Gaussian mechanism on a sum of whole numbers, each participant's vector having an L2 norm of at most Δ grid steps: discrete
/// Gaussian noise of σ = z·Δ on every coordinate (CKS 2020, Theorem 14).
///
/// Δ must be a bound that was *checked on the integers*, as [`crate::Encoding::bound_squared`] is. An aggregator that does not
/// check each update's norm itself has no bound, and no privacy to promise. Releasing the mean instead of the sum costs the same
/// under replace-one, where the number of participants is no secret; under add/remove divide by a number that does not depend on who
/// came.
///
/// ```
/// use unsaid_privacy::{Adjacency, central::{CentralError, CentralNoise}};
/// # use rand_core::SeedableRng;
/// # let mut rng = rand_chacha::ChaCha20Rng::from_seed([1; 32]);
/// let noise = CentralNoise::new(1 << 20, 1.5)?; // Δ = 1024 grid steps
/// let mut sum = vec![70_000_i64, -3, 12];
/// noise.add(&mut sum, &mut rng)?;
/// assert!((noise.rho(Adjacency::AddRemove).get() - 1.0 / 4.5).abs() < 1e-6);
/// # Ok::<(), CentralError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CentralNoise {
    gaussian: DiscreteGaussian,
    bound_squared: u64,
}

impl CentralNoise {
    /// Noise of `noise_multiplier` times √`bound_squared`.
    ///
    /// # Errors
    /// [`CentralError::Bound`], and [`CentralError::Noise`] for a noise multiplier that is not a finite number above 0, or a σ beyond
    /// the exact arithmetic of [`DiscreteGaussian`].
    pub fn new(bound_squared: u64, noise_multiplier: f64) -> Result<Self, CentralError> {
        Ok(Self {
            gaussian: noise_of(bound_squared, noise_multiplier)?,
            bound_squared,
        })
    }

    /// The sampler of one coordinate's noise.
    pub const fn gaussian(&self) -> &DiscreteGaussian {
        &self.gaussian
    }

    /// What releasing one sum costs: (kΔ)²/2σ², k = 1 for add/remove and 2 for replace-one.
    pub fn rho(&self, adjacency: Adjacency) -> Rho {
        let (num, den) = self.gaussian.variance();
        Rho::of_ratio(adjacency, self.bound_squared as f64 * den as f64, num as f64)
    }

    /// Adds a fresh sample to every coordinate of a sum. On an error all coordinates are 0.
    ///
    /// # Errors
    /// [`CentralError::Noise`] where a coordinate leaves 64 bits.
    pub fn add<R: CryptoRng + ?Sized>(&self, sum: &mut [i64], rng: &mut R) -> Result<(), CentralError> {
        for index in 0..sum.len() {
            match sum[index].checked_add(self.gaussian.sample(rng)) {
                Some(noised) => sum[index] = noised,
                None => {
                    sum.fill(0);
                    return Err(crate::NoiseError::Saturated { index }.into());
                }
            }
        }
        Ok(())
    }
}
