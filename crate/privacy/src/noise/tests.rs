//! Statistical tests compare with the exact probabilities by Pearson's chi-square. Each fails on a correct sampler with
//! probability [`FALSE_ALARM`] for a random seed; the seeds are fixed, so that a run is repeatable. Positive controls (samplers
//! that are slightly wrong) must fail the very same test.

use std::convert::Infallible;

use rand_chacha::ChaCha20Rng;
use rand_core::{CryptoRng, Rng, SeedableRng, TryCryptoRng, TryRng};

use super::uniform::{below, below_wide};
use super::*;
use crate::statistics::{FALSE_ALARM, Fit, chi_square_p};

fn rng(seed: u8) -> ChaCha20Rng {
    ChaCha20Rng::from_seed([seed; 32])
}

/// Unnormalised weights of the discrete Gaussian and Laplace.
fn gaussian(sigma: f64) -> impl Fn(i64) -> f64 {
    move |x| (-(x as f64 / sigma).powi(2) / 2.0).exp()
}

fn laplace(scale: f64) -> impl Fn(i64) -> f64 {
    move |x| (-(x as f64).abs() / scale).exp()
}

const SAMPLES: usize = 300_000;

#[test]
fn the_discrete_gaussian_has_its_exact_probabilities() {
    for (seed, (num, den)) in [
        (9, 100),
        (1, 1),
        (25, 4),
        (2_500, 1),
        (1_000_000, 1),
        (1_000_000_000_000, 1),
    ]
    .into_iter()
    .enumerate()
    {
        let sigma = (num as f64 / den as f64).sqrt();
        let sampler = DiscreteGaussian::with_variance(num, den).unwrap();
        let mut rng = rng(seed as u8);
        let samples: Vec<i64> = (0..SAMPLES).map(|_| sampler.sample(&mut rng)).collect();
        let p = Fit::new(gaussian(sigma), 9.0 * sigma + 2.0, SAMPLES).p(&samples);
        assert!(p > FALSE_ALARM, "σ = {sigma}: p = {p}");
        if sigma > 500.0 {
            // The bins are wide here: the low bits must be even, too.
            let p = uniform_p(samples.iter().map(|x| x.rem_euclid(64) as usize), 64);
            assert!(p > FALSE_ALARM, "σ = {sigma}, low bits: p = {p}");
        }
    }
}

#[test]
fn the_128_bit_path_of_the_discrete_gaussian_has_the_same_probabilities() {
    // σ² = 25/4 + 2⁻⁴⁴, which no test of this size can tell from 25/4.
    let sampler = DiscreteGaussian::with_variance(25 << 42 | 1, 4 << 42).unwrap();
    let mut rng = rng(20);
    let samples: Vec<i64> = (0..SAMPLES).map(|_| sampler.sample(&mut rng)).collect();
    let p = Fit::new(gaussian(2.5), 25.0, SAMPLES).p(&samples);
    assert!(p > FALSE_ALARM, "p = {p}");
}

#[test]
fn the_exponent_of_algorithm_3_is_the_papers() {
    // No sampling test could see an error of one in a thousand here. The formula as printed, in floats, can.
    for (num, den) in [
        (9_u64, 100_u64),
        (1, 1),
        (25, 4),
        (2_500, 1),
        (1_000_003, 16),
        (1_000_000_000_000, 1),
    ] {
        let sampler = DiscreteGaussian::with_variance(num.into(), den.into()).unwrap();
        let variance = num as f64 / den as f64;
        let t = variance.sqrt().floor() + 1.0;
        for y in [0, 1, 2, 3, 10, t as u64, 2 * t as u64, 255 * t as u64] {
            let (root, den) = sampler.exponent(y);
            let expected = (y as f64 - variance / t).powi(2) / (2.0 * variance);
            let found = (root as f64).powi(2) / den as f64;
            assert!(
                (found - expected).abs() <= 1e-9 * expected.max(1e-3),
                "σ² = {variance}, y = {y}"
            );
        }
    }
}

#[test]
fn a_sigma_that_is_off_by_3_percent_is_noticed() {
    for (seed, sigma) in [0.3, 1.0, 2.5, 50.0, 1_000.0].into_iter().enumerate() {
        let wrong = (sigma * 1.03_f64).powi(2) * 10_000.0;
        let sampler = DiscreteGaussian::with_variance(wrong as u128, 10_000).unwrap();
        let mut rng = rng(30 + seed as u8);
        let samples: Vec<i64> = (0..SAMPLES).map(|_| sampler.sample(&mut rng)).collect();
        let p = Fit::new(gaussian(sigma), 9.0 * sigma + 2.0, SAMPLES).p(&samples);
        assert!(p < FALSE_ALARM, "σ = {sigma}: p = {p}");
    }
}

#[test]
fn a_rounded_continuous_gaussian_is_noticed() {
    for (seed, sigma) in [0.3, 0.5, 1.0].into_iter().enumerate() {
        let mut rng = rng(40 + seed as u8);
        let samples: Vec<i64> = (0..SAMPLES)
            .map(|_| {
                let mut uniform = || (rng.next_u64() as f64 + 0.5) / 2f64.powi(64);
                let radius = (-2.0 * uniform().ln()).sqrt();
                (sigma * radius * (std::f64::consts::TAU * uniform()).cos()).round() as i64
            })
            .collect();
        let p = Fit::new(gaussian(sigma), 9.0 * sigma + 2.0, SAMPLES).p(&samples);
        assert!(p < FALSE_ALARM, "σ = {sigma}: p = {p}");
    }
}

#[test]
fn the_discrete_laplace_has_its_exact_probabilities() {
    let scales = [
        (3, 10),
        (1, 1),
        (5, 2),
        (50, 1),
        (1_000, 1),
        (1_000_000, 1),
        (2_000_003, 2),
    ];
    for (seed, (num, den)) in scales.into_iter().enumerate() {
        let scale = num as f64 / den as f64;
        let sampler = DiscreteLaplace::with_scale(num, den).unwrap();
        let mut rng = rng(50 + seed as u8);
        let samples: Vec<i64> = (0..SAMPLES).map(|_| sampler.sample(&mut rng)).collect();
        let p = Fit::new(laplace(scale), 40.0 * scale + 2.0, SAMPLES).p(&samples);
        assert!(p > FALSE_ALARM, "scale {scale}: p = {p}");
        let p = Fit::new(laplace(scale * 1.03), 40.0 * scale + 2.0, SAMPLES).p(&samples);
        assert!(
            scale < 1.0 || p < FALSE_ALARM,
            "scale {scale}, off by 3 %, was not noticed: p = {p}"
        );
    }
}

#[test]
fn coins_of_exponential_probability_are_fair_to_it() {
    let cases: [(u128, u128); 10] = [
        (0, 1),
        (1, 1_000),
        (1, 3),
        (1, 2),
        (1, 1),
        (5, 2),
        (4, 1),
        // In 128 bits: 1/3 and 5/2.
        (1 << 100, 3 << 100),
        (5 << 90, 2 << 90),
        (u128::MAX, u128::MAX),
    ];
    for (seed, (num, den)) in cases.into_iter().enumerate() {
        let mut rng = rng(70 + seed as u8);
        let heads = (0..SAMPLES)
            .filter(|_| bernoulli_exp(num, den, &mut rng).unwrap())
            .count();
        let p = coin_p(heads, (-(num as f64) / den as f64).exp());
        assert!(p > FALSE_ALARM, "exp(−{num}/{den}): p = {p}");
    }
    // Positive control: exp(−1/2) is not 0.6, and 300,000 coins tell.
    let mut rng = rng(90);
    let heads = (0..SAMPLES)
        .filter(|_| bernoulli_exp(1, 2, &mut rng).unwrap())
        .count();
    assert!(coin_p(heads, 0.6) < FALSE_ALARM);
    // exp(−2¹²⁷) is never seen, and takes no 2¹²⁷ steps.
    assert!(!bernoulli_exp(1 << 127, 1, &mut rng).unwrap());
}

#[test]
fn coins_of_rational_probability_are_fair_to_it() {
    for (seed, (num, den)) in [(1, 3), (2, 3), (5, 7), (1 << 99, 3 << 99), (3, 3 << 20)]
        .into_iter()
        .enumerate()
    {
        let mut rng = rng(100 + seed as u8);
        let heads = (0..SAMPLES)
            .filter(|_| bernoulli(num, den, &mut rng).unwrap())
            .count();
        let p = coin_p(heads, num as f64 / den as f64);
        assert!(p > FALSE_ALARM, "{num}/{den}: p = {p}");
    }
    assert!(bernoulli(7, 7, &mut rng(0)).unwrap());
    assert!(!bernoulli(0, 7, &mut rng(0)).unwrap());
}

#[test]
fn uniform_numbers_are_even_where_rejection_matters_most() {
    // A multiplication without rejection would give every third of these numbers two words and the others one.
    for (seed, n) in [3_u128 << 30, 3 << 62, 3 << 94].into_iter().enumerate() {
        let mut rng = rng(110 + seed as u8);
        let samples: Vec<u128> = (0..SAMPLES)
            .map(|_| uniform_below(n, &mut rng).unwrap())
            .collect();
        assert!(samples.iter().all(|x| *x < n));
        let p = uniform_p(samples.iter().map(|x| (x % 3) as usize), 3);
        assert!(p > FALSE_ALARM, "{n}, remainders: p = {p}");
        let p = uniform_p(samples.iter().map(|x| (x / (n / 48)) as usize), 48);
        assert!(p > FALSE_ALARM, "{n}, sizes: p = {p}");
    }
    // Positive control: the same without rejection.
    let mut rng = rng(113);
    let biased = (0..SAMPLES).map(|_| ((u64::from(rng.next_u32()) * (3 << 30)) >> 32) as usize % 3);
    assert!(uniform_p(biased, 3) < FALSE_ALARM);
}

#[test]
fn every_small_range_is_covered_and_kept() {
    let mut rng = rng(120);
    for n in 1_u64..40 {
        let mut seen = vec![false; n as usize];
        for _ in 0..40 * n {
            seen[below(n, &mut rng) as usize] = true;
        }
        // A number is missed with probability below exp(−40): 780 of them, 4 × 10⁻¹⁵.
        assert!(seen.iter().all(|seen| *seen), "{n}");
    }
    for shift in 64..128 {
        let n = (1_u128 << shift) + 1;
        assert!(below_wide(n, &mut rng) < n);
    }
}

/// Replays words, then ends the test.
struct Tape(Vec<u64>);

impl TryRng for Tape {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok(self.0.remove(0) as u32)
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(self.0.remove(0))
    }

    fn try_fill_bytes(&mut self, _: &mut [u8]) -> Result<(), Infallible> {
        panic!("samplers draw words")
    }
}

impl TryCryptoRng for Tape {}

#[test]
fn one_word_decides_a_coin_of_probability_exp_minus_one_with_the_exact_share() {
    use super::exponential::{FACTORIAL, ODD, SHARE, TRIALS, exp_minus_one};
    // The outcomes that end at an odd K, counted trial by trial: of TRIALS! joint outcomes, TRIALS!/(K−1)! reach trial K,
    // and K − 1 in K of those end there.
    let (mut reach, mut odd) = (FACTORIAL, 0);
    for k in 1..=TRIALS {
        let end = reach / k * (k - 1);
        odd += if k % 2 == 1 { end } else { 0 };
        reach -= end;
    }
    assert_eq!(reach, 1);
    assert_eq!(odd * SHARE, ODD);
    // exp(−1) lies between the shares with and without the one outcome that leads on.
    let share = |outcomes: u64| outcomes as f64 / FACTORIAL as f64;
    assert!(share(odd) <= (-1f64).exp() && (-1f64).exp() <= share(odd + 1));

    let toss = |words: &[u64]| exp_minus_one(&mut Tape(words.to_vec()));
    // The word's classes, at their borders: leads on, true, false, drawn again.
    assert!(toss(&[SHARE]));
    assert!(toss(&[SHARE + ODD - 1]));
    assert!(!toss(&[SHARE + ODD]));
    assert!(!toss(&[SHARE * FACTORIAL - 1]));
    assert!(toss(&[SHARE * FACTORIAL, u64::MAX, SHARE]));
    // Leading on: trial 16 fails at once (16 is even), or succeeds and trial 17 fails.
    assert!(!toss(&[0, u64::from(u32::MAX)]));
    assert!(toss(&[SHARE - 1, 0, u64::from(u32::MAX)]));
}

#[test]
fn senseless_parameters_are_typed_errors() {
    let mut rng = rng(0);
    assert_eq!(uniform_below(0, &mut rng), Err(NoiseError::EmptyRange));
    assert_eq!(bernoulli(1, 0, &mut rng), Err(NoiseError::ZeroDenominator));
    assert_eq!(bernoulli(2, 1, &mut rng), Err(NoiseError::ProbabilityAboveOne));
    assert_eq!(bernoulli_exp(1, 0, &mut rng), Err(NoiseError::ZeroDenominator));
    assert_eq!(DiscreteGaussian::with_variance(0, 1), Err(NoiseError::ZeroScale));
    assert_eq!(
        DiscreteGaussian::with_variance(1, 0),
        Err(NoiseError::ZeroDenominator)
    );
    assert_eq!(
        DiscreteLaplace::with_scale(1, 0),
        Err(NoiseError::ZeroDenominator)
    );
    for (num, den) in [
        (1 << 55, 1),
        (u128::MAX, 1),
        (1, u128::MAX),
        (u128::MAX, u128::MAX - 1),
        (1, 1 << 56),
    ] {
        let refused = DiscreteGaussian::with_variance(num, den);
        assert!(
            matches!(refused, Err(NoiseError::OutOfRange { .. })),
            "{num}/{den}: {refused:?}"
        );
    }
    for (num, den) in [((1 << 42) + 1, 1), (u128::MAX, 1), (1, u128::MAX)] {
        let refused = DiscreteLaplace::with_scale(num, den);
        assert!(
            matches!(refused, Err(NoiseError::OutOfRange { .. })),
            "{num}/{den}: {refused:?}"
        );
    }
}

#[test]
fn the_whole_range_of_scales_is_sampled_without_overflow() {
    let mut rng = rng(130);
    let most = (1_u128 << 27) * ((1 << 27) + 1);
    for (num, den) in [
        (1, 1 << 55),
        (1, 1),
        (most, 1),
        ((1 << 55) - 1, 1 << 55),
        (36_000_000_000_000_001, 36_000),
    ] {
        let sampler = DiscreteGaussian::with_variance(num, den).unwrap();
        let sigma = (num as f64 / den as f64).sqrt();
        for _ in 0..2_000 {
            // 10σ + 1 is passed with probability below 2·exp(−50).
            assert!(sampler.sample(&mut rng).unsigned_abs() as f64 <= 10.0 * sigma + 1.0);
        }
    }
    for (num, den) in [(1 << 42, 1), (1, u64::MAX.into()), (1 << 42, u64::MAX.into())] {
        let sampler = DiscreteLaplace::with_scale(num, den).unwrap();
        for _ in 0..2_000 {
            sampler.sample(&mut rng);
        }
    }
}

#[test]
fn a_random_source_behind_a_pointer_serves_as_well() {
    let sampler = DiscreteGaussian::with_variance(100, 1).unwrap();
    let mut direct = rng(1);
    let mut boxed: Box<dyn CryptoRng> = Box::new(rng(1));
    assert_eq!(sampler.sample(&mut direct), sampler.sample(&mut *boxed));
}

fn uniform_p(samples: impl Iterator<Item = usize>, cells: usize) -> f64 {
    let mut counts = vec![0_u32; cells];
    samples.for_each(|cell| counts[cell] += 1);
    let expected = counts.iter().sum::<u32>() as f64 / cells as f64;
    let statistic = counts
        .iter()
        .map(|count| (f64::from(*count) - expected).powi(2) / expected)
        .sum();
    chi_square_p(statistic, cells - 1)
}

fn coin_p(heads: usize, probability: f64) -> f64 {
    let n = SAMPLES as f64;
    if probability == 1.0 {
        return if heads == SAMPLES { 1.0 } else { 0.0 };
    }
    let statistic = (heads as f64 - n * probability).powi(2) / (n * probability * (1.0 - probability));
    chi_square_p(statistic, 1)
}
