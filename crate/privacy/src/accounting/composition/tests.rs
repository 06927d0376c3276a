use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};

use super::*;

const ADD_REMOVE: Adjacency = Adjacency::AddRemove;
const REPLACE_ONE: Adjacency = Adjacency::ReplaceOne;
const BOTH: [Accountant; 2] = [Accountant::Rdp, Accountant::Pld];

fn run(z: f64, rate: f64, steps: u64, adjacency: Adjacency) -> Composition {
    let step = GaussianSum::new(z, Sampling::Poisson { rate }).unwrap();
    Composition::new(adjacency).repeat(step, steps).unwrap()
}

#[test]
fn epsilon_has_the_published_values_of_sampled_training() {
    // Noise multiplier, rate, steps, δ; ε by RDP and by the loss distribution, each with five published digits. Poisson, add/remove.
    for (z, rate, steps, delta, rdp, pld) in [
        (1.1, 256.0 / 60_000.0, 14_062, 1e-5, 2.5966, 2.3817),
        (1.0, 0.01, 1_000, 1e-5, 2.1014, 1.8282),
        (4.0, 0.01, 10_000, 1e-5, 1.0355, 0.9470),
        (1.5, 0.04, 2_250, 1e-5, 7.3293, 6.7688),
        (0.6, 0.001, 2_000, 1e-5, 2.6914, 1.6661),
        (1.0, 1.0, 1, 1e-5, 4.7285, 4.3772),
        (5.0, 1.0, 100, 1e-6, 11.689, 10.997),
    ] {
        let composition = run(z, rate, steps, ADD_REMOVE);
        for (accountant, published) in [(Accountant::Rdp, rdp), (Accountant::Pld, pld)] {
            let found = composition.epsilon(accountant, delta).unwrap();
            // Four significant digits.
            let unit = 10f64.powf(f64::floor(f64::log10(published)) - 3.0);
            assert!(
                (found.epsilon - published).abs() <= 0.5 * unit,
                "{z} {rate} {steps}, {accountant:?}: {found:?}, published {published}"
            );
            assert!(found.lower <= found.upper && found.epsilon == found.upper);
        }
    }
}

/// Noise multipliers from 0.5 to 10, rates from 0.001 to 0.9 and up to 3,000 steps, each spread evenly over its magnitudes.
fn random_runs(seed: u8) -> impl Iterator<Item = (f64, f64, u64)> {
    let mut rng = ChaCha20Rng::from_seed([seed; 32]);
    std::iter::repeat_with(move || {
        let mut between = |low: f64, high: f64| {
            let share = f64::from(rng.next_u32()) / f64::from(u32::MAX);
            low * (high / low).powf(share)
        };
        (
            between(0.5, 10.0),
            between(0.001, 0.9),
            between(1.0, 3_000.0) as u64,
        )
    })
}

#[test]
fn epsilon_rises_with_steps_and_rate_and_falls_with_noise() {
    for (accountant, runs) in [(Accountant::Rdp, 60), (Accountant::Pld, 8)] {
        for (seed, adjacency) in [ADD_REMOVE, REPLACE_ONE].into_iter().enumerate() {
            let epsilon = |z, rate, steps| {
                run(z, rate, steps, adjacency)
                    .epsilon(accountant, 1e-6)
                    .unwrap()
                    .epsilon
            };
            for (z, rate, steps) in random_runs(seed as u8).take(runs) {
                let here = epsilon(z, rate, steps);
                // 5 % of change is far more than the grid's own error.
                let what = format!("{accountant:?} {adjacency:?} z {z}, q {rate}, {steps} steps");
                assert!(epsilon(z, rate, steps + steps / 10 + 1) >= here, "{what}");
                assert!(epsilon(z, (rate * 1.05).min(1.0), steps) >= here, "{what}");
                assert!(epsilon(z / 1.05, rate, steps) >= here, "{what}");
            }
        }
    }
}

#[test]
fn costs_do_not_depend_on_the_order_of_the_steps() {
    let parts: Vec<(f64, f64, u64)> = random_runs(7).take(4).collect();
    for adjacency in [ADD_REMOVE, REPLACE_ONE] {
        let composed = |order: [usize; 4]| {
            order.into_iter().fold(Composition::new(adjacency), |all, at| {
                let (z, rate, steps) = parts[at];
                let step = GaussianSum::new(z, Sampling::Poisson { rate }).unwrap();
                all.repeat(step, steps / 10 + 1).unwrap()
            })
        };
        for accountant in BOTH {
            let one = composed([0, 1, 2, 3]).epsilon(accountant, 1e-5).unwrap();
            let other = composed([2, 3, 1, 0]).epsilon(accountant, 1e-5).unwrap();
            assert!(
                (one.epsilon / other.epsilon - 1.0).abs() < 1e-9,
                "{one:?} {other:?}"
            );
        }
    }
}

#[test]
fn the_tight_accountant_is_never_above_the_quick_one() {
    for adjacency in [ADD_REMOVE, REPLACE_ONE] {
        for (z, rate, steps) in [
            (1.0, 0.01, 1_000),
            (0.5, 0.001, 10),
            (20.0, 0.5, 5_000),
            (2.0, 1.0, 7),
        ] {
            let composition = run(z, rate, steps, adjacency);
            let rdp = composition.epsilon(Accountant::Rdp, 1e-5).unwrap();
            let pld = composition.epsilon(Accountant::Pld, 1e-5).unwrap();
            assert!(pld.upper <= rdp.upper && pld.lower > 0.0, "{rdp:?} {pld:?}");
            assert_eq!(rdp.lower, pld.lower.min(rdp.upper));
        }
    }
}

#[test]
fn replacing_costs_more_than_adding_and_fixed_batches_more_than_coins() {
    let coins = run(4.0, 0.01, 1_000, REPLACE_ONE);
    let added = run(4.0, 0.01, 1_000, ADD_REMOVE);
    let step = GaussianSum::new(4.0, Sampling::WithoutReplacement { rate: 0.01 }).unwrap();
    let batches = Composition::new(REPLACE_ONE).repeat(step, 1_000).unwrap();
    for accountant in BOTH {
        let epsilon = |composition: &Composition| composition.epsilon(accountant, 1e-5).unwrap().epsilon;
        assert!(epsilon(&added) < epsilon(&coins), "{accountant:?}");
        assert!(epsilon(&coins) < epsilon(&batches), "{accountant:?}");
    }
}

#[test]
fn calibrated_noise_keeps_its_target_and_hardly_more() {
    for (accountant, adjacency, sampling, steps) in [
        (
            Accountant::Rdp,
            ADD_REMOVE,
            Sampling::Poisson { rate: 0.01 },
            1_000,
        ),
        (
            Accountant::Pld,
            ADD_REMOVE,
            Sampling::Poisson { rate: 0.01 },
            1_000,
        ),
        (Accountant::Pld, REPLACE_ONE, Sampling::All, 30),
        (
            Accountant::Rdp,
            REPLACE_ONE,
            Sampling::WithoutReplacement { rate: 0.05 },
            10,
        ),
    ] {
        let z = noise_multiplier(2.0, 1e-5, sampling, steps, adjacency, accountant).unwrap();
        let epsilon = |z| {
            let step = GaussianSum::new(z, sampling).unwrap();
            let composition = Composition::new(adjacency).repeat(step, steps).unwrap();
            composition.epsilon(accountant, 1e-5).unwrap().epsilon
        };
        assert!(
            epsilon(z) <= 2.0 && epsilon(z * 0.999) > 2.0,
            "{accountant:?} {z}"
        );
    }
    // Balle and Wang's own calibration agrees.
    let exact = crate::accounting::analytic_noise_multiplier(2.0, 1e-5, REPLACE_ONE).unwrap();
    let found = noise_multiplier(2.0, 1e-5, Sampling::All, 1, REPLACE_ONE, Accountant::Pld).unwrap();
    assert!((found / exact - 1.0).abs() < 2e-4, "{found} {exact}");
    assert!(crate::accounting::analytic_epsilon(exact, 1, 1e-5, REPLACE_ONE).unwrap() <= 2.0);
}

#[test]
fn senseless_questions_are_typed_errors() {
    for z in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        let refused = GaussianSum::new(z, Sampling::All);
        assert!(
            matches!(refused, Err(CompositionError::NoiseMultiplier(_))),
            "{z}"
        );
    }
    for z in [1e-3, 1e10] {
        let refused = GaussianSum::new(z, Sampling::All);
        assert!(
            matches!(refused, Err(CompositionError::NoiseMultiplierRange(_))),
            "{z}"
        );
    }
    for rate in [0.0, -0.1, 1.000_001, f64::NAN, f64::INFINITY, 1e-13] {
        let refused = GaussianSum::new(1.0, Sampling::Poisson { rate });
        assert!(
            matches!(refused, Err(CompositionError::SamplingRate(_))),
            "{rate}"
        );
    }
    let step = GaussianSum::new(1.0, Sampling::All).unwrap();
    for steps in [0, Composition::MAX_STEPS + 1, u64::MAX] {
        let refused = Composition::new(ADD_REMOVE).repeat(step, steps);
        assert_eq!(refused, Err(CompositionError::Steps(steps)));
    }
    let one = Composition::new(ADD_REMOVE).repeat(step, 1).unwrap();
    assert!(one.clone().repeat(step, Composition::MAX_STEPS).is_err());
    for delta in [0.0, 1.0, f64::NAN, -1e-5, 2.0] {
        for accountant in BOTH {
            let refused = one.epsilon(accountant, delta);
            assert!(matches!(refused, Err(CompositionError::Delta(_))), "{delta}");
        }
    }
    assert_eq!(
        Composition::new(ADD_REMOVE).epsilon(Accountant::Pld, 1e-5),
        Err(CompositionError::NoSteps)
    );
    let subset = GaussianSum::new(1.0, Sampling::WithoutReplacement { rate: 0.1 }).unwrap();
    assert_eq!(
        Composition::new(ADD_REMOVE).repeat(subset, 1),
        Err(CompositionError::FixedBatch)
    );
    for epsilon in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        let refused = noise_multiplier(epsilon, 1e-5, Sampling::All, 1, ADD_REMOVE, Accountant::Rdp);
        assert!(
            matches!(refused, Err(CompositionError::TargetEpsilon(_))),
            "{epsilon}"
        );
    }
    assert_eq!(
        noise_multiplier(
            1e-300,
            1e-12,
            Sampling::All,
            Composition::MAX_STEPS,
            ADD_REMOVE,
            Accountant::Rdp
        ),
        Err(CompositionError::Unreachable)
    );
}

#[test]
fn the_extremes_of_the_range_give_numbers_or_typed_errors() {
    for z in [
        GaussianSum::MIN_NOISE_MULTIPLIER,
        0.05,
        1e4,
        GaussianSum::MAX_NOISE_MULTIPLIER,
    ] {
        for rate in [GaussianSum::MIN_RATE, 1e-4, 0.999, 1.0] {
            for steps in [1, 100_000, Composition::MAX_STEPS] {
                for adjacency in [ADD_REMOVE, REPLACE_ONE] {
                    let composition = run(z, rate, steps, adjacency);
                    let rdp = composition.rdp(&[1.5, 2.0, 16.0]).unwrap();
                    assert!(rdp.values().iter().all(|value| *value >= 0.0));
                    if let Ok((epsilon, _)) = rdp.epsilon(1e-5) {
                        assert!(epsilon >= 0.0, "{z} {rate} {steps}");
                    }
                }
            }
        }
    }
    // The loss distribution takes longer: a few corners.
    for (z, rate, steps) in [
        (0.01, 1e-12, 1),
        (1e9, 0.999, 1_000),
        (0.05, 0.5, 1_000),
        (0.01, 0.5, 10),
    ] {
        match run(z, rate, steps, ADD_REMOVE).epsilon(Accountant::Pld, 1e-5) {
            Ok(found) => assert!(found.lower <= found.upper && found.upper.is_finite(), "{found:?}"),
            Err(CompositionError::DeltaTooSmall { .. } | CompositionError::Overflow) => {}
            Err(other) => panic!("{z} {rate} {steps}: {other}"),
        }
    }
}

#[test]
fn no_lower_bound_is_claimed_where_no_inputs_are_known_to_attain_it() {
    let rate = 0.1;
    let bounds = |sampling| {
        let one = GaussianSum::new(2.0, sampling).unwrap();
        let all = GaussianSum::new(4.0, Sampling::All).unwrap();
        let run = Composition::new(Adjacency::ReplaceOne).repeat(one, 20).unwrap();
        let run = run.repeat(all, 1).unwrap();
        [Accountant::Pld, Accountant::Rdp].map(|accountant| run.epsilon(accountant, 1e-5).unwrap().lower)
    };
    assert_eq!(bounds(Sampling::WithoutReplacement { rate }), [0.0, 0.0]);
    assert!(
        bounds(Sampling::Poisson { rate })
            .iter()
            .all(|lower| *lower > 0.1)
    );
}

#[test]
fn next_to_no_noise_is_a_typed_error_and_not_an_endless_computation() {
    let all = GaussianSum::new(0.01, Sampling::All).unwrap();
    let coins = GaussianSum::new(1.0, Sampling::Poisson { rate: 0.1 }).unwrap();
    let run = Composition::new(ADD_REMOVE).repeat(all, 1_000_000).unwrap();
    let run = run.repeat(coins, 1).unwrap();
    assert!(matches!(run.loss(), Err(CompositionError::Overflow)));
    assert_eq!(
        run.epsilon(Accountant::Pld, 1e-5),
        Err(CompositionError::Overflow)
    );
    for counts in [[u64::MAX, 1], [Composition::MAX_STEPS, 1]] {
        let parts = counts.map(|count| (coins, count));
        assert!(matches!(
            LossDistribution::of(&parts, ADD_REMOVE),
            Err(CompositionError::Steps(_))
        ));
    }
    for multiplier in [1e-200, 0.009, 1e10] {
        assert_eq!(
            crate::accounting::analytic_epsilon(multiplier, 1, 1e-5, ADD_REMOVE),
            Err(CompositionError::NoiseMultiplierRange(multiplier))
        );
    }
}
