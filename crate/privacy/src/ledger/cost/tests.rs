use proptest::prelude::*;

use super::*;
use crate::{
    Adjacency,
    accounting::{GaussianSum, RdpCurve, Sampling, usual_orders},
};

const DELTA: f64 = 1e-5;

/// One sum over sampled examples with noise, add/remove.
fn step(noise_multiplier: f64, rate: f64) -> GaussianSum {
    GaussianSum::new(noise_multiplier, Sampling::Poisson { rate }).unwrap()
}

fn curve(noise_multiplier: f64, rate: f64, orders: &[f64]) -> RdpCurve {
    RdpCurve::of_sum(&step(noise_multiplier, rate), Adjacency::AddRemove, orders).unwrap()
}

fn cost(noise_multiplier: f64, rate: f64) -> Cost {
    let curve = curve(noise_multiplier, rate, &Cost::ORDERS);
    Cost::of_examples(|order| {
        let at = Cost::ORDERS.iter().position(|&other| other == order).unwrap();
        curve.values()[at]
    })
}

#[test]
fn the_shares_of_delta_add_up_to_all_of_it() {
    assert_eq!(
        Cost::SHARE_OF_RHO + Cost::SHARE_OF_ORDER * Cost::ORDERS.len() as f64,
        1.0
    );
}

#[test]
fn a_cost_is_made_again_of_its_parts_and_of_nothing_else() {
    let cost = cost(1.1, 0.01) + Rho::new(0.2).unwrap().into();
    assert_eq!(Cost::from_parts(cost.rho(), *cost.curve()), Ok(cost));
    for wrong in [f64::NAN, -1e-9, f64::NEG_INFINITY] {
        let mut curve = *cost.curve();
        curve[3] = wrong;
        assert!(Cost::from_parts(cost.rho(), curve).is_err(), "{wrong}");
    }
}

#[test]
fn noise_on_whole_updates_is_decided_by_the_best_order_at_its_share() {
    for multiplier in [0.5, 2.0, 8.0, 64.0] {
        let rho = Rho::local_round(multiplier, Adjacency::ReplaceOne).unwrap();
        let found = Cost::from(rho).epsilon(DELTA).unwrap();
        assert_eq!(found, rho.epsilon(0.875 * DELTA).unwrap());
        // What the filter costs over rounds that were all fixed in advance.
        assert!(found <= 1.012 * rho.epsilon(DELTA).unwrap(), "{multiplier}");
    }
    assert_eq!(Cost::NOTHING.epsilon(DELTA), Ok(0.0));
}

/// The same ε by the accountant that knows the curve itself, and what the short list costs beside its long one.
#[test]
fn sampled_sums_cost_what_their_curve_says() {
    for (multiplier, rate, steps, most) in [
        (1.0, 0.1, 10, 1.05),
        (1.5, 0.05, 200, 1.05),
        (0.8, 0.25, 4, 1.05),
        (2.0, 1.0, 20, 1.06),
        (4.0, 0.1, 100, 1.06),
    ] {
        let share = DELTA / 64.0;
        let short = curve(multiplier, rate, &Cost::ORDERS).times(steps);
        let long = curve(multiplier, rate, &usual_orders()).times(steps);
        let (short, long) = (short.epsilon(share).unwrap().0, long.epsilon(share).unwrap().0);
        let found = cost(multiplier, rate).times(steps).epsilon(DELTA).unwrap();
        assert!(
            (found / short - 1.0).abs() < 1e-9 && found >= short,
            "{found} {short}"
        );
        assert!(
            found <= most * long,
            "{multiplier} {rate} {steps}: {found} against {long}"
        );
    }
}

#[test]
fn a_mixture_is_never_less_than_its_parts() {
    let (noised, trained) = (
        Cost::from(Rho::local_round(6.0, Adjacency::ReplaceOne).unwrap()),
        cost(1.0, 0.1),
    );
    let both = noised + trained;
    assert!(!both.is_of_updates() && noised.is_of_updates());
    for part in [noised, trained] {
        assert!(both.epsilon(DELTA).unwrap() > part.epsilon(DELTA).unwrap());
    }
    for (at, order) in Cost::ORDERS.iter().enumerate() {
        let expected = noised.rho().get() * order + trained.curve()[at];
        let found = both.rho().get() * order + both.curve()[at];
        assert!((found / expected - 1.0).abs() < 1e-12);
    }
}

#[test]
fn what_cannot_be_computed_costs_everything() {
    let unknown = Cost::of_examples(|order| if order > 10.0 { f64::NAN } else { 0.1 });
    assert_eq!(unknown.curve()[4..], [f64::INFINITY; 4]);
    assert!(
        unknown.epsilon(DELTA).unwrap().is_finite(),
        "the other orders still count"
    );
    let nowhere = Cost::of_examples(|_| f64::INFINITY);
    assert_eq!(nowhere.epsilon(DELTA), Ok(f64::INFINITY));
    assert_eq!((nowhere + nowhere).epsilon(DELTA), Ok(f64::INFINITY));
    for delta in [0.0, 1.0, -1.0, f64::NAN] {
        assert!(matches!(
            Cost::NOTHING.epsilon(delta),
            Err(AccountingError::Delta(_))
        ));
    }
}

fn any_cost() -> impl Strategy<Value = Cost> {
    let value = || (0.0..4.0_f64).prop_map(|x| x * x);
    (value(), prop::array::uniform8(value()), any::<bool>()).prop_map(|(rho, curve, plain)| {
        let mut cost = Cost::from(Rho::new(rho).unwrap());
        if !plain {
            cost.curve = Curve(curve);
        }
        cost
    })
}

proptest! {
    #[test]
    fn composition_is_order_free(mut costs in prop::collection::vec(any_cost(), 1..20), seed in any::<u64>()) {
        let sum = |costs: &[Cost]| costs.iter().fold(Cost::NOTHING, |sum, &cost| sum + cost);
        let (first, turn) = (sum(&costs), seed as usize % costs.len());
        costs.rotate_left(turn);
        costs.reverse();
        let second = sum(&costs);
        prop_assert_eq!(first.is_of_updates(), second.is_of_updates());
        let (a, b) = (first.epsilon(DELTA).unwrap(), second.epsilon(DELTA).unwrap());
        prop_assert!((a - b).abs() <= 1e-12 * a, "{} {}", a, b);
    }

    #[test]
    fn epsilon_rises_with_every_cost_and_falls_with_delta(a in any_cost(), b in any_cost(), delta in 1e-12..0.5_f64) {
        let epsilon = a.epsilon(delta).unwrap();
        prop_assert!((a + b).epsilon(delta).unwrap() >= epsilon);
        prop_assert!(a.epsilon(delta / 2.0).unwrap() >= epsilon);
    }

    #[test]
    fn many_times_the_same_is_never_less_than_one_by_one_to_a_rounding(cost in any_cost(), count in 0_u64..200) {
        let times = cost.times(count);
        let mut exact = [0.0_f64; 9];
        let values = |cost: &Cost| -> Vec<f64> { cost.curve().iter().copied().chain([cost.rho().get()]).collect() };
        for (exact, value) in exact.iter_mut().zip(values(&cost)) {
            *exact = value * count as f64;
        }
        for (found, exact) in values(&times).into_iter().zip(exact) {
            prop_assert!(found >= exact * (1.0 - f64::EPSILON) && found <= exact * (1.0 + 1e-13), "{} {}", found, exact);
        }
    }
}
