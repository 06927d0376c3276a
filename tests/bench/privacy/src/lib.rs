//! What `run.mjs` times: noise for one update as the client draws it, ε of a training run, and steps of private training.
//!
//! The generator is seeded with a constant, because this protects nobody.

mod training;

use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;
use unsaid_privacy::accounting::{Accountant, Composition, GaussianSum, Sampling};
use unsaid_privacy::{Adjacency, DiscreteGaussian, Encoding, LocalNoise, Skellam};

/// Clips and rounds an update of `dimension` coordinates to a grid of 1,024 steps in the clip norm, and adds noise of this multiplier. The
/// sum of the coordinates, or NaN where that failed.
#[unsafe(no_mangle)]
pub extern "C" fn update(dimension: usize, noise_multiplier: f64) -> f64 {
    let mut rng = ChaCha20Rng::from_seed([3; 32]);
    let delta = vec![0.01_f32; dimension];
    let mut protect = || {
        let encoding = Encoding::new(1.0, 1.0 / 1024.0, dimension).ok()?;
        let noise = LocalNoise::new(&encoding, noise_multiplier).ok()?;
        let mut coordinates = encoding.encode(&delta, &mut rng).ok()?.coordinates;
        noise.add(&mut coordinates, &mut rng).ok()?;
        Some(coordinates.iter().map(|x| f64::from(*x)).sum())
    };
    protect().unwrap_or(f64::NAN)
}

/// The sum of `count` samples of the discrete Gaussian of variance `num / den`, or NaN where there is none.
#[unsafe(no_mangle)]
pub extern "C" fn gaussian(num: u32, den: u32, count: usize) -> f64 {
    let mut rng = ChaCha20Rng::from_seed([4; 32]);
    DiscreteGaussian::with_variance(num.into(), den.into()).map_or(f64::NAN, |sampler| {
        (0..count).map(|_| sampler.sample(&mut rng) as f64).sum()
    })
}

/// The same of the Skellam distribution.
#[unsafe(no_mangle)]
pub extern "C" fn skellam(num: u32, den: u32, count: usize) -> f64 {
    let mut rng = ChaCha20Rng::from_seed([5; 32]);
    Skellam::with_variance(num.into(), den.into()).map_or(f64::NAN, |sampler| {
        (0..count).map(|_| sampler.sample(&mut rng) as f64).sum()
    })
}

/// ε by the loss distribution (or by Rényi orders) of Poisson-sampled steps, add/remove, or NaN where there is none.
#[unsafe(no_mangle)]
pub extern "C" fn epsilon(noise_multiplier: f64, rate: f64, steps: u32, delta: f64, rdp: bool) -> f64 {
    let accountant = if rdp { Accountant::Rdp } else { Accountant::Pld };
    GaussianSum::new(noise_multiplier, Sampling::Poisson { rate })
        .and_then(|step| Composition::new(Adjacency::AddRemove).repeat(step, steps.into()))
        .and_then(|run| run.epsilon(accountant, delta))
        .map_or(f64::NAN, |bounds| bounds.epsilon)
}
