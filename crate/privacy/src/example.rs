//! Privacy of single examples: the chance in training by sums of clipped gradients, and what it costs.
//!
//! The training is DP-SGD (Abadi et al., “Deep Learning with Differential Privacy”, CCS 2016,
//! [arXiv:1607.00133](https://arxiv.org/abs/1607.00133), algorithm 1). Each step takes every example of the participant with
//! probability q, by a coin of its own, sums their gradients, each of L2 norm C at most, and adds noise to the sum. What is here draws
//! the coins and the noise and counts the cost; the sums are the engine's.
//!
//! # What is noised, and why the sensitivity is Δ
//! Each example's clipped gradient is divided by the grid step γ = C/2¹⁸ and each coordinate rounded to the nearest whole number; the sum
//! of these whole numbers gets discrete Gaussian noise. Rounding makes a vector longer by √d/2 at most, and 32-bit floats by a
//! [part](ExampleNoise::ALLOWANCE) at most:
//!
//! > Δ = 2¹⁸·(1 + 2⁻¹⁴) + √d/2
//!
//! and σ = z·Δ. That each example's whole numbers are within [Δ²](ExampleNoise::bound_squared) is checked before they are added, in whole
//! numbers, and an example that is above it adds nothing: so Δ bounds what one example more or less can do, whatever floats did before.
//!
//! # Why the curve of the continuous Gaussian is exact at whole orders
//! Let Q be the discrete Gaussian around 0 in d dimensions and P that around v, a whole vector. At a whole order α the divergence of
//! (1−q)·Q + q·P from Q is that of Σₖ C(α,k)·(1−q)^(α−k)·qᵏ·E_Q[(P/Q)ᵏ], and E_Q[(P/Q)ᵏ] = e^((k²−k)‖v‖²/2σ²), because the
//! normalisers of whole shifts are equal. So it is the sum of Mironov, Talwar, Zhang, “Rényi Differential Privacy of the Sampled Gaussian
//! Mechanism”, 2019, [arXiv:1908.10530](https://arxiv.org/abs/1908.10530), section 3.3, number by number; x ↦ v − x maps Q to P and back, so
//! that their Theorem 5 (this direction is the larger one) holds, too. At orders in between nothing is claimed.

use rand_core::CryptoRng;

use crate::{
    DiscreteGaussian, NoiseError,
    accounting::{CompositionError, RdpCurve, sampled_at},
    noise::{add_samples, gaussian_of_at_least},
};

/// Who is in each step's lot, and the noise on its sum. Unit: one example of a participant; adjacency: it is there or it is not.
///
/// ```
/// use unsaid_privacy::ExampleNoise;
/// let noise = ExampleNoise::new(1.0, 0.01, 7_850)?;
/// // The Rényi divergence of order 8 of two epochs, 200 steps, is at most
/// assert!(noise.cost(8.0, 2 * noise.steps_per_epoch()) < 0.21);
/// # Ok::<(), unsaid_privacy::PrivacyError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ExampleNoise {
    gaussian: DiscreteGaussian,
    noise_multiplier: f64,
    sampling_rate: f64,
    dimension: usize,
}

impl ExampleNoise {
    /// Grid steps to the clip norm C.
    pub const CLIP_STEPS: f64 = 262_144.0;

    /// The least sampling rate.
    pub const MIN_RATE: f64 = 1e-6;

    /// What the clip norm is taken to be longer by, for what 32-bit floats do to one example's clipped gradient: one part in 2¹⁴. Were that
    /// too little, examples would be left out, and none would count for more.
    pub const ALLOWANCE: f64 = 1.0 / 16_384.0;

    /// Room that noise must leave within ±2³⁰, in σ. A discrete Gaussian passes 16σ with probability at most 2·exp(−128).
    const ROOM_SIGMAS: f64 = 16.0;

    /// The largest magnitude of a coordinate's noise: with a sum of as much it stays within 32 bits.
    const MAX_NOISE: u32 = 1 << 30;

    /// Noise of `noise_multiplier` times the sensitivity on `dimension` coordinates, and lots of every example with probability
    /// `sampling_rate`.
    ///
    /// # Errors
    /// [`NoiseError::NoiseMultiplier`] for anything but a finite number above 0, [`NoiseError::SamplingRate`] for a rate that is not
    /// between [`Self::MIN_RATE`] and 1, [`NoiseError::TooWide`] where 16σ is beyond 2³⁰ (z above about 250),
    /// [`NoiseError::OutOfRange`] where σ is below 2⁻¹² grid steps.
    pub fn new(noise_multiplier: f64, sampling_rate: f64, dimension: usize) -> Result<Self, NoiseError> {
        if !(noise_multiplier.is_finite() && noise_multiplier > 0.0) {
            return Err(NoiseError::NoiseMultiplier(noise_multiplier));
        }
        if !(Self::MIN_RATE..=1.0).contains(&sampling_rate) {
            return Err(NoiseError::SamplingRate(sampling_rate));
        }
        // Rounded up by hand at each place: σ² is never below z²Δ².
        let bound = Self::bound_steps(dimension);
        let bound_squared = (bound * bound).next_up();
        let variance = ((noise_multiplier * noise_multiplier).next_up() * bound_squared).next_up();
        let sigma_steps = variance.sqrt();
        if Self::ROOM_SIGMAS * sigma_steps > f64::from(Self::MAX_NOISE) {
            return Err(NoiseError::TooWide { sigma_steps });
        }
        Ok(Self {
            gaussian: gaussian_of_at_least(variance)?,
            noise_multiplier,
            sampling_rate,
            dimension,
        })
    }

    /// Δ in grid steps, rounded up: 2¹⁸·(1 + [`Self::ALLOWANCE`]) + √d/2.
    fn bound_steps(dimension: usize) -> f64 {
        // The first product is exact, and so is half of a number.
        (Self::CLIP_STEPS * (1.0 + Self::ALLOWANCE) + (dimension as f64).sqrt().next_up() / 2.0).next_up()
    }

    /// What the squares of the whole numbers that one example adds to a sum must not add up to more than: Δ², rounded down.
    pub fn bound_squared(&self) -> u64 {
        let bound = Self::bound_steps(self.dimension);
        // Below 2⁴⁸ for as many parameters as there can be.
        (bound * bound).next_down() as u64
    }

    /// The grid step for gradients that are clipped to `clip_l2`: exact, since 2¹⁸ is a power of two.
    pub fn grid_step(clip_l2: f32) -> f32 {
        clip_l2 / Self::CLIP_STEPS as f32
    }

    /// σ over Δ, as asked for.
    pub const fn noise_multiplier(&self) -> f64 {
        self.noise_multiplier
    }

    /// The probability with which an example is in a lot.
    pub const fn sampling_rate(&self) -> f64 {
        self.sampling_rate
    }

    /// σ in grid steps, for people.
    pub fn sigma_steps(&self) -> f64 {
        let (num, den) = self.gaussian.variance();
        (num as f64 / den as f64).sqrt()
    }

    /// Steps in which an example is expected once: ⌈1/q⌉. How many examples there are has no part in it, since that is not public.
    pub fn steps_per_epoch(&self) -> u32 {
        (1.0 / self.sampling_rate).ceil() as u32
    }

    /// Adds to `lot` those of `0..examples` that are in a step's lot, each by a coin of its own. Its probability is q to within 2⁻⁶⁴, and
    /// never above.
    pub fn lot<R: CryptoRng + ?Sized>(&self, examples: u32, lot: &mut Vec<u32>, rng: &mut R) {
        // The product with a power of two is exact, and rounded down.
        let threshold = (self.sampling_rate * 18_446_744_073_709_551_616.0) as u128;
        lot.extend((0..examples).filter(|_| u128::from(rng.next_u64()) < threshold));
    }

    /// Overwrites `noise` with a step's noise, in whole grid steps within ±2³⁰.
    ///
    /// # Errors
    /// [`NoiseError::Unbounded`] where there are not as many coordinates as this noise is made for; [`NoiseError::Saturated`] for noise
    /// beyond ±2³⁰, which comes with probability below 2⁻¹⁵⁰.
    pub fn noise<R: CryptoRng + ?Sized>(&self, noise: &mut [i32], rng: &mut R) -> Result<(), NoiseError> {
        if noise.len() != self.dimension {
            return Err(NoiseError::Unbounded);
        }
        // One loop with noise on updates: the sampler is large, and every copy of it would be downloaded.
        noise.fill(0);
        add_samples(&self.gaussian, noise, rng)?;
        match noise
            .iter()
            .position(|drawn| drawn.unsigned_abs() > Self::MAX_NOISE)
        {
            Some(index) => Err(NoiseError::Saturated { index }),
            None => Ok(()),
        }
    }

    /// What `steps` steps cost at a whole `order` of at least 2: the Rényi divergence between all that they give, with one example and
    /// without it, is at most this.
    pub fn cost(&self, order: f64, steps: u32) -> f64 {
        f64::from(steps) * sampled_at(self.sampling_rate, self.noise_multiplier, order)
    }

    /// What `steps` steps cost, as a curve over whole orders from 2 to 64, 128, 256, 512 and 1,024.
    ///
    /// # Errors
    /// None: the orders are in range.
    pub fn curve(&self, steps: u32) -> Result<RdpCurve, CompositionError> {
        let whole = (2..=64).chain([128, 256, 512, 1024]);
        let orders: Vec<f64> = whole.map(f64::from).collect();
        RdpCurve::from_cost(&orders, |order| self.cost(order, steps))
    }
}

#[cfg(test)]
mod tests;
