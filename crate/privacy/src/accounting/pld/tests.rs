use super::*;
use crate::accounting::analytic::delta_at;
use crate::accounting::{Sampling, analytic_epsilon};

const ADD_REMOVE: Adjacency = Adjacency::AddRemove;
const REPLACE_ONE: Adjacency = Adjacency::ReplaceOne;

fn poisson(z: f64, rate: f64) -> GaussianSum {
    GaussianSum::new(z, Sampling::Poisson { rate }).unwrap()
}

fn all(z: f64) -> GaussianSum {
    GaussianSum::new(z, Sampling::All).unwrap()
}

#[test]
fn the_bounds_enclose_the_exact_epsilon_where_there_is_one() {
    // Without sampling the composition is one Gaussian, of which Balle and Wang have the exact curve.
    for (z, steps) in [(1.0, 1), (5.0, 100), (30.0, 10_000), (0.5, 3), (200.0, 7)] {
        for adjacency in [ADD_REMOVE, REPLACE_ONE] {
            let loss = LossDistribution::of(&[(all(z), steps)], adjacency).unwrap();
            for delta in [1e-2, 1e-5, 1e-8] {
                let exact = analytic_epsilon(z, steps, delta, adjacency).unwrap();
                let (lower, upper) = loss.epsilon(delta).unwrap();
                assert!(
                    lower <= exact && exact <= upper,
                    "{z} {steps} {delta}: {lower} {exact} {upper}"
                );
                // At the least δ the bound on rounding is a few percent of it.
                let width = if delta < 1e-6 { 5e-3 } else { 1e-3 };
                assert!(
                    upper - lower <= width * exact + 1e-9,
                    "{z} {steps} {delta}: {lower} {exact} {upper}"
                );
            }
        }
    }
}

#[test]
fn one_sampled_step_has_the_delta_of_its_pair() {
    // Remove: mix(1) against N(0) is q times the Gaussian's own δ at a shifted ε (Balle, Barthe, Gaboardi 2018, Theorem 2).
    let (z, rate) = (0.9, 0.05);
    let loss = LossDistribution::of(&[(poisson(z, rate), 1)], ADD_REMOVE).unwrap();
    for epsilon in [0.01_f64, 0.1, 0.5, 1.0, 2.0] {
        let unsampled = ((epsilon.exp_m1() + rate) / rate).ln();
        let exact = rate * delta_at(1.0 / z, unsampled);
        let (lower, upper) = loss.delta(epsilon).unwrap();
        assert!(
            lower <= exact && exact <= upper,
            "{epsilon}: {lower} {exact} {upper}"
        );
        assert!(upper / lower - 1.0 < 1e-3, "{epsilon}: {lower} {upper}");
    }
}

#[test]
fn one_step_without_replacement_has_the_delta_of_its_curve() {
    let (z, rate) = (3.0, 0.1);
    let step = GaussianSum::new(z, Sampling::WithoutReplacement { rate }).unwrap();
    let loss = LossDistribution::of(&[(step, 1)], REPLACE_ONE).unwrap();
    for epsilon in [0.0_f64, 0.01, 0.05, 0.2] {
        let unsampled = ((epsilon.exp_m1() + rate) / rate).ln();
        let exact = rate * delta_at(2.0 / z, unsampled);
        let (lower, upper) = loss.delta(epsilon).unwrap();
        assert!(
            lower <= exact && exact <= upper,
            "{epsilon}: {lower} {exact} {upper}"
        );
        assert!(upper - lower < 2e-3 * upper, "{epsilon}: {lower} {upper}");
    }
}

/// δ(ε) of two sampled steps, by an integral over both outputs: shares nothing with grids and transforms.
fn two_steps(z: f64, q: f64, replace: bool, epsilon: f64) -> f64 {
    let (parts, reach) = (1_600, 9.0 * z + 1.0);
    let h = 2.0 * reach / f64::from(parts);
    let scale = 1.0 / (z * (2.0 * std::f64::consts::PI).sqrt());
    let density = |m: f64, y: f64| scale * (-(y - m).powi(2) / (2.0 * z * z)).exp();
    let points: Vec<(f64, f64)> = (0..parts)
        .map(|i| {
            let y = -reach + (f64::from(i) + 0.5) * h;
            let p = (1.0 - q) * density(0.0, y) + q * density(1.0, y);
            let other = if replace {
                q * density(-1.0, y)
            } else {
                q * density(0.0, y)
            };
            (p * h, ((1.0 - q) * density(0.0, y) + other) * h)
        })
        .collect();
    let factor = epsilon.exp();
    points
        .iter()
        .map(|(p, r)| {
            points
                .iter()
                .map(|(p2, r2)| (p * p2 - factor * r * r2).max(0.0))
                .sum::<f64>()
        })
        .sum()
}

#[test]
fn two_steps_are_the_double_integral() {
    for (adjacency, replace) in [(ADD_REMOVE, false), (REPLACE_ONE, true)] {
        let (z, rate) = (1.2, 0.2);
        let loss = LossDistribution::of(&[(poisson(z, rate), 2)], adjacency).unwrap();
        for epsilon in [0.1, 0.5, 1.0] {
            let expected = two_steps(z, rate, replace, epsilon);
            let (lower, upper) = loss.delta(epsilon).unwrap();
            // The midpoint rule's own error at kinks of the integrand is some 10⁻⁴ of the value.
            assert!(
                lower <= expected * 1.001 && expected <= upper * 1.001,
                "{epsilon}: {lower} {expected} {upper}"
            );
            assert!(upper / lower - 1.0 < 3e-3, "{lower} {upper}");
        }
    }
}

#[test]
fn a_coarser_grid_is_worse_on_both_sides_and_never_crosses() {
    let pair = &Pair::of_step(&poisson(1.0, 0.1), ADD_REMOVE)[0];
    let delta_at = |step: f64, side| {
        let grid = OnGrid::of_pair(pair, step, side);
        let total: f64 = grid.mass.iter().sum();
        assert!((total - 1.0).abs() < 1e-10, "{step}: {total}");
        let composed = Composed {
            step: grid.step,
            first: grid.first,
            mass: grid.mass,
            extra: 0.0,
        };
        composed.delta(0.3, side)
    };
    let fine = (
        delta_at(1e-4, Side::Optimistic),
        delta_at(1e-4, Side::Pessimistic),
    );
    let coarse = (
        delta_at(0.07, Side::Optimistic),
        delta_at(0.07, Side::Pessimistic),
    );
    assert!(coarse.0 < fine.0 && fine.0 <= fine.1 && fine.1 < coarse.1);
    assert!(fine.1 / fine.0 - 1.0 < 1e-5);
}

#[test]
fn composition_does_not_depend_on_the_order() {
    let (a, b) = (poisson(1.0, 0.02), poisson(2.0, 0.1));
    for adjacency in [ADD_REMOVE, REPLACE_ONE] {
        let one = LossDistribution::of(&[(a, 100), (b, 30), (all(20.0), 2)], adjacency).unwrap();
        let other = LossDistribution::of(&[(all(20.0), 2), (b, 30), (a, 100)], adjacency).unwrap();
        let (x, y) = (one.epsilon(1e-5).unwrap(), other.epsilon(1e-5).unwrap());
        assert!((x.1 - y.1).abs() < 1e-9 * x.1, "{x:?} {y:?}");
        assert!((x.1 - x.0) < 1e-2 * x.1, "{x:?}");
    }
    // Split up, the same steps cost the same.
    let whole = LossDistribution::of(&[(a, 100)], ADD_REMOVE).unwrap();
    let split = LossDistribution::of(&[(a, 60), (a, 40)], ADD_REMOVE).unwrap();
    let (x, y) = (whole.epsilon(1e-5).unwrap().1, split.epsilon(1e-5).unwrap().1);
    assert!((x - y).abs() < 2e-4 * x, "{x} {y}");
}

#[test]
fn a_delta_below_the_rounding_is_a_typed_error() {
    let loss = LossDistribution::of(&[(poisson(1.0, 0.01), 1_000)], ADD_REMOVE).unwrap();
    assert!(loss.epsilon(1e-9).is_ok());
    assert!(matches!(
        loss.epsilon(1e-16),
        Err(CompositionError::DeltaTooSmall { .. })
    ));
    for delta in [0.0, 1.0, f64::NAN, -1.0] {
        assert!(matches!(loss.epsilon(delta), Err(CompositionError::Delta(_))));
    }
    for epsilon in [-1.0, f64::NAN, f64::INFINITY] {
        assert!(matches!(loss.delta(epsilon), Err(CompositionError::Epsilon(_))));
    }
    assert!(matches!(
        LossDistribution::of(&[], ADD_REMOVE),
        Err(CompositionError::NoSteps)
    ));
}
