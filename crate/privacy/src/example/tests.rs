use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};

use super::*;
use crate::accounting::{GaussianSum, RdpCurve, Sampling};
use crate::statistics::{FALSE_ALARM, chi_square_p};
use crate::{Adjacency, Encoding, LocalNoise};

fn rng(seed: u8) -> ChaCha20Rng {
    ChaCha20Rng::from_seed([seed; 32])
}

/// Lots of `steps` steps over `examples`, each as what it holds of every example.
fn lots(steps: usize, examples: usize, mut draw: impl FnMut(&mut Vec<u32>)) -> Vec<Vec<bool>> {
    let mut lot = Vec::new();
    let mut step = || {
        lot.clear();
        draw(&mut lot);
        assert!(lot.is_sorted_by(|a, b| a < b), "nobody is in a lot twice");
        let mut is_in = vec![false; examples];
        for &index in &lot {
            is_in[index as usize] = true;
        }
        is_in
    };
    (0..steps).map(|_| step()).collect()
}

/// Four p-values: of how many were drawn in all, of how often each example was, of how large lots were, and of how often neighbours were
/// drawn together. Each is of a sum of squared standardised counts, which are nearly normal at these sizes.
fn sampling_p(lots: &[Vec<bool>], rate: f64) -> [f64; 4] {
    let (steps, examples) = (lots.len() as f64, lots[0].len());
    let squares = |counts: &mut dyn Iterator<Item = usize>, trials: f64, p: f64| {
        let standardised = |count: usize| (count as f64 - trials * p).powi(2) / (trials * p * (1.0 - p));
        let squared: Vec<f64> = counts.map(standardised).collect();
        let p = chi_square_p(squared.iter().sum(), squared.len());
        // Too regular is as bad as too irregular.
        p.min(1.0 - p)
    };
    let drawn = |index: usize| lots.iter().filter(|lot| lot[index]).count();
    let size = |lot: &Vec<bool>| lot.iter().filter(|is_in| **is_in).count();
    let both = |index: usize| lots.iter().filter(|lot| lot[index] && lot[index + 1]).count();
    let (n, all) = (examples as f64, lots.iter().map(size).sum());
    [
        squares(&mut std::iter::once(all), steps * n, rate),
        squares(&mut (0..examples).map(drawn), steps, rate),
        squares(&mut lots.iter().map(size), n, rate),
        squares(&mut (0..examples).step_by(2).map(both), steps, rate * rate),
    ]
}

/// Each p-value is below [`FALSE_ALARM`] with about that probability, at 2,000 steps of 400 examples.
#[test]
fn every_example_is_in_a_lot_by_a_coin_of_its_own() {
    const STEPS: usize = 2_000;
    const EXAMPLES: usize = 400;
    for (seed, rate) in [0.5, 0.2, 0.1].into_iter().enumerate() {
        let noise = ExampleNoise::new(1.0, rate, 10).unwrap();
        let mut rng = rng(seed as u8);
        let poisson = lots(STEPS, EXAMPLES, |lot| noise.lot(EXAMPLES as u32, lot, &mut rng));
        let p = sampling_p(&poisson, rate);
        assert!(p.iter().all(|p| *p > FALSE_ALARM), "{rate}: {p:?}");

        // Controls. A rate that is off by 5 % is noticed by how many were drawn.
        let off = ExampleNoise::new(1.0, 1.05 * rate, 10).unwrap();
        let off = lots(STEPS, EXAMPLES, |lot| off.lot(EXAMPLES as u32, lot, &mut rng));
        assert!(sampling_p(&off, rate)[0] < FALSE_ALARM, "{rate}");
        // Lots of a fixed size, by their size.
        let fixed = lots(STEPS, EXAMPLES, |lot| {
            let mut all: Vec<u32> = (0..EXAMPLES as u32).collect();
            for at in 0..EXAMPLES - 1 {
                let other = at + (rng.next_u64() % (EXAMPLES - at) as u64) as usize;
                all.swap(at, other);
            }
            lot.extend(&all[..(EXAMPLES as f64 * rate) as usize]);
            lot.sort_unstable();
        });
        assert!(sampling_p(&fixed, rate)[2] < FALSE_ALARM, "{rate}");
        // One coin for two neighbours, by how often they are together.
        let paired = lots(STEPS, EXAMPLES, |lot| {
            let mut half = Vec::new();
            noise.lot(EXAMPLES as u32 / 2, &mut half, &mut rng);
            lot.extend(half.iter().flat_map(|index| [2 * index, 2 * index + 1]));
        });
        assert!(sampling_p(&paired, rate)[3] < FALSE_ALARM, "{rate}");
    }
}

#[test]
fn a_rate_of_1_takes_everybody_and_lots_may_be_empty() {
    let mut rng = rng(7);
    let mut lot = Vec::new();
    ExampleNoise::new(1.0, 1.0, 1)
        .unwrap()
        .lot(50, &mut lot, &mut rng);
    assert_eq!(lot, (0..50).collect::<Vec<_>>());
    lot.clear();
    ExampleNoise::new(1.0, 1e-6, 1)
        .unwrap()
        .lot(50, &mut lot, &mut rng);
    assert!(lot.is_empty());
    ExampleNoise::new(1.0, 1.0, 1).unwrap().lot(0, &mut lot, &mut rng);
    assert!(lot.is_empty());
}

/// Σ(x/σ)² of n coordinates has mean n and standard deviation √(2n): beyond 5 of them with probability below 10⁻⁶.
#[test]
fn noise_has_the_variance_that_was_asked_for() {
    const N: usize = 200_000;
    let mut rng = rng(11);
    let mut spread = |multiplier: f64, asked: f64| {
        let noise = ExampleNoise::new(multiplier, 0.1, N).unwrap();
        let mut drawn = vec![0; N];
        noise.noise(&mut drawn, &mut rng).unwrap();
        let sigma = asked * ExampleNoise::CLIP_STEPS;
        let sum: f64 = drawn.iter().map(|x| (f64::from(*x) / sigma).powi(2)).sum();
        sum / N as f64
    };
    // √d/2 and the allowance are in Δ: 1 + 1/16,384 + √200,000/2¹⁹.
    let above = (1.0 + 1.0 / 16_384.0 + (N as f64).sqrt() / 2.0 / ExampleNoise::CLIP_STEPS).powi(2);
    let off = 5.0 * (2.0 / N as f64).sqrt();
    for multiplier in [0.3, 1.0, 100.0] {
        let found = spread(multiplier, multiplier);
        assert!((found / above - 1.0).abs() < off, "{multiplier}: {found} {above}");
        // The control: 2 % less noise is noticed.
        let found = spread(0.98 * multiplier, multiplier);
        assert!(found / above < 1.0 - off, "{multiplier}: {found} {above}");
    }
}

#[test]
fn sigma_is_never_below_what_was_asked_for_and_the_bound_is_what_the_module_says() {
    for dimension in [1, 15, 7_850, 1_663_370, 1 << 28] {
        let exact = 262_144.0 + 16.0 + (dimension as f64).sqrt() / 2.0;
        let bound = ExampleNoise::bound_steps(dimension);
        assert!(bound >= exact && bound < exact * (1.0 + 1e-12), "{bound} {exact}");
        for multiplier in [0.01, 0.7, 1.0, 1.1, 200.0] {
            let noise = ExampleNoise::new(multiplier, 0.1, dimension).unwrap();
            // The longest vector that may be added is no longer than what the noise is made for.
            let longest = (noise.bound_squared() as f64).sqrt();
            assert!(longest <= bound && longest > exact - 1.0, "{longest} {bound}");
            assert!(noise.bound_squared() <= 1 << 48);
            let (num, den) = noise.gaussian.variance();
            let above = num as f64 / den as f64 / (multiplier * bound).powi(2);
            assert!(
                (1.0 - 1e-15..1.0 + 2.0 / 65_536.0).contains(&above),
                "{multiplier} {dimension}: {above}"
            );
        }
    }
}

#[test]
fn senseless_terms_are_typed_errors() {
    for multiplier in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        let refused = ExampleNoise::new(multiplier, 0.1, 10);
        assert!(
            matches!(refused, Err(NoiseError::NoiseMultiplier(_))),
            "{multiplier}"
        );
    }
    for rate in [0.0, -0.1, 1.000_001, 9.9e-7, f64::NAN] {
        let refused = ExampleNoise::new(1.0, rate, 10);
        assert!(matches!(refused, Err(NoiseError::SamplingRate(_))), "{rate}");
    }
    assert!(matches!(
        ExampleNoise::new(300.0, 0.1, 10),
        Err(NoiseError::TooWide { .. })
    ));
    assert!(matches!(
        ExampleNoise::new(1e-12, 0.1, 10),
        Err(NoiseError::OutOfRange { .. })
    ));
    let noise = ExampleNoise::new(1.0, 0.1, 10).unwrap();
    assert_eq!(noise.noise(&mut [0; 9], &mut rng(1)), Err(NoiseError::Unbounded));
    assert_eq!(noise.steps_per_epoch(), 10);
    assert_eq!(ExampleNoise::new(1.0, 0.3, 10).unwrap().steps_per_epoch(), 4);
    assert_eq!(
        ExampleNoise::new(1.0, 1e-6, 10).unwrap().steps_per_epoch(),
        1_000_000
    );
    assert_eq!(ExampleNoise::grid_step(3.0), 3.0 / 262_144.0);
}

#[test]
fn the_cost_is_that_of_the_accountants_at_whole_orders_and_nothing_is_claimed_between_them() {
    let orders = [2.0, 3.0, 5.0, 20.0, 72.0, 512.0];
    for (rate, multiplier) in [(1.0, 1.5), (0.5, 0.7), (0.01, 1.1), (1e-4, 4.0)] {
        let noise = ExampleNoise::new(multiplier, rate, 100).unwrap();
        let step = GaussianSum::new(multiplier, Sampling::Poisson { rate }).unwrap();
        let curve = RdpCurve::of_sum(&step, Adjacency::AddRemove, &orders)
            .unwrap()
            .times(300);
        for (order, expected) in orders.into_iter().zip(curve.values()) {
            let found = noise.cost(order, 300);
            assert!(
                (found / expected - 1.0).abs() < 1e-12,
                "{rate} {multiplier} {order}: {found} {expected}"
            );
        }
        for order in [1.0, 1.5, 2.5, f64::NAN, f64::INFINITY] {
            assert_eq!(noise.cost(order, 1), f64::INFINITY);
        }
        assert_eq!(noise.cost(3.0, 0), 0.0);
    }
}

/// The claim of the module, by adding up the discrete distributions themselves, with so little noise that the grid is coarse: at whole
/// orders the divergence of one sampled shift is what the continuous Gaussian's sum says, and the other direction is not larger.
#[test]
fn a_sampled_discrete_gaussian_costs_at_whole_orders_what_the_continuous_one_does() {
    for (sigma, shift) in [(0.8, 1_i32), (1.5, 2), (3.0, 3)] {
        let reach = 200;
        // In logarithms, since what matters most to a high order is where weights underflow.
        let ln_weight = |x: i32, at: i32| -(f64::from(x - at) / sigma).powi(2) / 2.0;
        let ln_total = (-reach..=reach).map(|x| ln_weight(x, 0).exp()).sum::<f64>().ln();
        let ln_add = |a: f64, b: f64| a.max(b) + (-(a - b).abs()).exp().ln_1p();
        for rate in [0.05_f64, 0.4, 1.0] {
            for order in [2, 3, 8] {
                let divergence = |towards: bool| {
                    let term = |x: i32| {
                        let q = ln_weight(x, 0) - ln_total;
                        let shifted = ln_weight(x, shift) - ln_total;
                        let mix = ln_add((1.0 - rate).ln() + q, rate.ln() + shifted);
                        let (p, q) = if towards { (mix, q) } else { (q, mix) };
                        (f64::from(order) * p + f64::from(1 - order) * q).exp()
                    };
                    (-reach..=reach).map(term).sum::<f64>().ln() / f64::from(order - 1)
                };
                let claimed = sampled_at(rate, sigma / f64::from(shift), order.into());
                let found = divergence(true);
                assert!(
                    (found / claimed - 1.0).abs() < 1e-9,
                    "{sigma} {rate} {order}: {found} {claimed}"
                );
                assert!(
                    divergence(false) <= claimed * (1.0 + 1e-9),
                    "{sigma} {rate} {order}"
                );
            }
        }
    }
}

/// What example-level noise buys: the same multiplier protects less, and costs the model far less, than noise on a whole update.
#[test]
fn noise_on_a_sum_of_examples_is_less_than_noise_on_an_update_of_the_same_bound() {
    let (dimension, clip) = (7_850, 1.0);
    let encoding = Encoding::new(clip, 1.0 / 4096.0, dimension).unwrap();
    let local = LocalNoise::new(&encoding, 1.0).unwrap().sigma_steps() * encoding.grid_step();
    let example = ExampleNoise::new(1.0, 0.1, dimension).unwrap();
    // Of a mean over 60 examples.
    let of_mean = example.sigma_steps() * f64::from(ExampleNoise::grid_step(clip as f32)) / 60.0;
    assert!(of_mean < local / 50.0, "{of_mean} {local}");
}
