use super::*;
use crate::accounting::rdp::subsampled;

const ADD_REMOVE: Adjacency = Adjacency::AddRemove;
const REPLACE_ONE: Adjacency = Adjacency::ReplaceOne;

fn poisson(z: f64, rate: f64) -> GaussianSum {
    GaussianSum::new(z, Sampling::Poisson { rate }).unwrap()
}

fn subset(z: f64, rate: f64) -> GaussianSum {
    GaussianSum::new(z, Sampling::WithoutReplacement { rate }).unwrap()
}

#[test]
fn without_sampling_the_gaussian_costs_half_the_order_over_the_variance() {
    let all = GaussianSum::new(2.0, Sampling::All).unwrap();
    let orders = [1.5, 2.0, 32.0];
    let curve = RdpCurve::of_sum(&all, ADD_REMOVE, &orders).unwrap();
    let replaced = RdpCurve::of_sum(&all, REPLACE_ONE, &orders).unwrap();
    for ((order, cost), four) in orders.iter().zip(curve.values()).zip(replaced.values()) {
        assert_eq!(*cost, order / 8.0);
        assert_eq!(*four, order / 2.0);
    }
    // And so does the discrete Gaussian, which is booked by ρ.
    let rho = Rho::local_round(2.0, ADD_REMOVE).unwrap();
    let discrete = RdpCurve::of_rho(rho, &orders).unwrap();
    for (a, b) in discrete.values().iter().zip(curve.values()) {
        assert!((a / b - 1.0).abs() < 1e-12 && a >= b);
    }
}

/// A_α by its definition, an integral, for an oracle that shares nothing with the series: Simpson's rule in plain numbers.
fn moment_by_simpson(q: f64, sigma: f64, order: f64) -> f64 {
    let (low, high, parts) = (-14.0 * sigma, order + 14.0 * sigma, 200_000);
    let step = (high - low) / f64::from(parts);
    let f = |y: f64| {
        let gaussian = (-y * y / (2.0 * sigma * sigma)).exp();
        let ratio = 1.0 - q + q * ((2.0 * y - 1.0) / (2.0 * sigma * sigma)).exp();
        gaussian * ratio.powf(order)
    };
    let sum: f64 = (0..=parts)
        .map(|i| {
            let share = match i {
                0 => 1.0,
                i if i == parts => 1.0,
                i if i % 2 == 1 => 4.0,
                _ => 2.0,
            };
            share * f(low + step * f64::from(i))
        })
        .sum();
    sum * step / 3.0 / (sigma * (2.0 * std::f64::consts::PI).sqrt())
}

#[test]
fn the_sampled_gaussian_is_the_integral_that_it_is_defined_by() {
    for (q, sigma) in [(0.01, 1.0), (0.1, 0.8), (0.5, 2.0), (0.9, 1.5), (0.001, 4.0)] {
        for order in [1.1, 1.5, 2.0, 2.7, 5.0, 10.9, 16.0] {
            let expected = moment_by_simpson(q, sigma, order).ln() / (order - 1.0);
            let found = subsampled::poisson(q, sigma, order);
            // Simpson's rule leaves about 10⁻¹⁴ of A, of which the logarithm can be far smaller.
            let tolerance = 1e-6 * expected + 1e-12 / (order - 1.0);
            assert!(
                (found - expected).abs() <= tolerance,
                "q {q}, σ {sigma}, α {order}: {found}, expected {expected}"
            );
            let integral = subsampled::integral(q, sigma, order).unwrap() / (order - 1.0);
            assert!((integral - found).abs() <= 1e-8 * found + 1e-13 / (order - 1.0));
        }
    }
}

#[test]
fn series_and_integral_agree_where_the_noise_is_small() {
    for (q, sigma) in [(0.5, 0.1), (0.01, 0.2), (0.9, 0.3), (0.001, 0.5)] {
        for order in [1.1, 1.9, 2.5, 6.3, 10.9] {
            let series = subsampled::poisson(q, sigma, order);
            let integral = subsampled::integral(q, sigma, order).unwrap() / (order - 1.0);
            assert!(
                (series / integral - 1.0).abs() < 1e-6,
                "q {q}, σ {sigma}, α {order}: {series} {integral}"
            );
        }
    }
}

#[test]
fn what_is_not_a_number_costs_everything() {
    let curve = RdpCurve::from_cost(&[2.0], |_| f64::NAN).unwrap();
    assert_eq!(curve.epsilon(0.1).unwrap().0, f64::INFINITY);
}

#[test]
fn costs_too_small_to_be_seen_beside_one_are_not_lost() {
    // To second order in q a divergence is α/2 times the mean square of P/Q − 1: α·q²·(e^(1/σ²) − 1)/2, and, replaced,
    // α·q²/2·E[(e^L − e^(−L'))²] = 2α·q²·sinh(1/σ²).
    for order in [1.5, 2.0, 7.0, 10.4] {
        let (q, sigma) = (1e-9, 2.0_f64);
        let inverse = 1.0 / (sigma * sigma);
        let one = order * q * q * inverse.exp_m1() / 2.0;
        let replaced = 2.0 * order * q * q * inverse.sinh();
        for (found, expected) in [
            (subsampled::poisson(q, sigma, order), one),
            (subsampled::poisson_replace(q, sigma, order), replaced),
        ] {
            assert!(
                (found / expected - 1.0).abs() < 1e-3,
                "{order}: {found} {expected}"
            );
        }
    }
}

#[test]
fn sampling_everyone_costs_what_no_sampling_does() {
    for order in [1.3, 2.0, 9.0] {
        let near = 1.0 - 1e-12;
        let (z, distance) = (1.7_f64, 2.0);
        let plain = order / (2.0 * z * z);
        assert!((subsampled::poisson(near, z, order) / plain - 1.0).abs() < 1e-6);
        let replaced = subsampled::poisson_replace(near, z, order);
        assert!((replaced / (plain * distance * distance) - 1.0).abs() < 1e-6);
    }
}

#[test]
fn replacing_a_record_costs_more_than_adding_one_and_less_than_without_sampling() {
    for (q, sigma) in [(0.01, 1.0), (0.2, 3.0), (0.001, 0.7)] {
        for order in [1.5, 2.0, 8.0, 32.0] {
            let one = subsampled::poisson(q, sigma, order);
            let replaced = subsampled::poisson_replace(q, sigma, order);
            assert!(replaced >= one, "{q} {sigma} {order}");
            // Never above the unsampled replacement.
            assert!(replaced <= 2.0 * order / (sigma * sigma));
        }
    }
}

#[test]
fn without_replacement_the_bound_is_above_what_poisson_sampling_costs() {
    // Both sample a record with the same rate; under replace-one a fixed batch gives away more (Lebeda and others 2024).
    let orders = [2.0, 3.0, 4.5, 16.0, 64.0];
    for (z, rate) in [(2.0, 0.01), (4.0, 0.1), (1.0, 0.001)] {
        let fixed = RdpCurve::of_sum(&subset(z, rate), REPLACE_ONE, &orders).unwrap();
        let whole = GaussianSum::new(z, Sampling::All).unwrap();
        let whole = RdpCurve::of_sum(&whole, REPLACE_ONE, &orders).unwrap();
        for ((order, fixed), whole) in orders.iter().zip(fixed.values()).zip(whole.values()) {
            assert!(
                *fixed >= subsampled::poisson_replace(rate, z, *order),
                "{z} {rate} {order}"
            );
            // Small batches help: below a tenth of the whole at small orders.
            assert!(*order > 2.0 || *fixed < 0.1 * whole);
        }
    }
}

#[test]
fn the_even_moments_without_cancellation_are_the_finite_differences_of_the_paper() {
    // B(l) = Σᵢ (−1)ⁱ·C(l, i)·e^((i−1)·r(i)), where σ is small enough that its terms do not cancel: at rate 1 and order 4 the bound
    // is 1 + 6·min{…} + 4·min{4·√(B(2)·B(4)), …} + min{4·B(4), …}.
    let sigma = 1.3_f64;
    let cumulant = |j: f64| j * (j - 1.0) / (2.0 * sigma * sigma);
    let difference = |l: i32| -> f64 {
        let mut choose = 1.0;
        (0..=l)
            .map(|i| {
                let sign = if (l - i) % 2 == 0 { 1.0 } else { -1.0 };
                let term = sign * choose * cumulant(f64::from(i)).exp();
                choose *= f64::from(l - i) / f64::from(i + 1);
                term
            })
            .sum()
    };
    let simple = |j: f64| 2.0 * cumulant(j).exp();
    let second = (4.0 * cumulant(2.0).exp_m1()).min(simple(2.0));
    let third = (4.0 * (difference(2) * difference(4)).sqrt()).min(simple(3.0));
    let fourth = (4.0 * difference(4)).min(simple(4.0));
    let (rate, order) = (0.2_f64, 4.0);
    let expected =
        (1.0 + 6.0 * rate.powi(2) * second + 4.0 * rate.powi(3) * third + rate.powi(4) * fourth).ln() / 3.0;
    let found = subsampled::WithoutReplacement::new(rate, sigma, &[order]).at(order);
    assert!((found / expected - 1.0).abs() < 1e-10, "{found} {expected}");
}

/// Σ P^α·Q^(1−α) over the whole numbers, as a divergence: discrete Laplace noise of scale `t`, once around 0 and once around `distance`.
fn discrete_laplace(t: f64, distance: i64, order: f64) -> f64 {
    let zero = (
        (-1.0 / t).exp(),
        (1.0 - (-1.0 / t).exp()) / (1.0 + (-1.0 / t).exp()),
    );
    let reach = (40.0 * t) as i64 + distance + 40;
    let moment: f64 = (-reach..=reach)
        .map(|x| {
            let (from_p, from_q) = (x.abs() as f64, (x - distance).abs() as f64);
            zero.1 * zero.0.powf(order * from_p + (1.0 - order) * from_q)
        })
        .sum();
    moment.ln() / (order - 1.0)
}

#[test]
fn laplace_is_the_discrete_ones_divergence_and_never_below_any() {
    // Bun, Steinke 2016, Proposition 3.3, at a = 1, worked out by hand.
    for (order, expected) in [(1.5, 0.6273), (2.0, 0.7353), (4.0, 0.8959)] {
        let found = RdpCurve::of_laplace(1.0, ADD_REMOVE, &[order]).unwrap().values()[0];
        assert!((found - expected).abs() < 5e-5, "{order}: {found}");
    }
    for t in [0.1, 0.3, 1.0, 5.0] {
        for order in [1.01, 1.1, 1.5, 2.0, 10.0, 60.0] {
            let found = RdpCurve::of_laplace(t, ADD_REMOVE, &[order]).unwrap().values()[0];
            // Never above pure ε = 1/t, nor above α/(2t²) (Bun, Steinke 2016, Proposition 3.3).
            assert!(found <= 1.0 / t && found <= order / (2.0 * t * t) * (1.0 + 1e-9));
            // Exact at distance 1 (but for the rounding of a sum of e^(αx)), and a bound at 3 of three times the scale.
            let exact = discrete_laplace(t, 1, order);
            assert!((found / exact - 1.0).abs() < 1e-9, "{t} {order}: {found} {exact}");
            let wider = discrete_laplace(3.0 * t, 3, order);
            assert!(wider <= found * (1.0 + 1e-9), "{t} {order}: {found} {wider}");
            // And for continuous noise: ln(α/(2α−1)·e^((α−1)/t) + (α−1)/(2α−1)·e^(−α/t)) / (α − 1) (Mironov 2017, Proposition 6), to
            // which the discrete one would be too much.
            let continuous = ((order / (2.0 * order - 1.0)) * ((order - 1.0) / t).exp()
                + ((order - 1.0) / (2.0 * order - 1.0)) * (-order / t).exp())
            .ln()
                / (order - 1.0);
            assert!(continuous < found, "{t} {order}: {found} {continuous}");
        }
    }
    // Where e^(αa) overflows it is pure ε, and where the cost is tiny α/(2t²): the next term is a share of (αa)² of it.
    let extreme = RdpCurve::of_laplace(1e-3, ADD_REMOVE, &[1.000_1, 2.0, 4_096.0]).unwrap();
    assert!(extreme.values().iter().all(|cost| *cost <= 1_000.0));
    assert!(extreme.values()[1] > 999.99 && extreme.values()[2] > 999.99);
    for order in [1.1, 60.0] {
        let tiny = RdpCurve::of_laplace(1e8, ADD_REMOVE, &[order]).unwrap().values()[0];
        assert!((tiny / (order / 2e16) - 1.0).abs() < 1e-9, "{order}: {tiny}");
    }
    let replaced = RdpCurve::of_laplace(2.0, REPLACE_ONE, &[3.0]).unwrap();
    assert_eq!(replaced, RdpCurve::of_laplace(1.0, ADD_REMOVE, &[3.0]).unwrap());
}

#[test]
fn curves_add_up_in_any_order() {
    let orders = usual_orders();
    let of = |step: GaussianSum| RdpCurve::of_sum(&step, ADD_REMOVE, &orders).unwrap();
    let (a, b) = (of(poisson(1.0, 0.01)), of(poisson(2.0, 0.3)));
    assert_eq!(a.clone().plus(&b), b.clone().plus(&a));
    let other = RdpCurve::nothing(&[2.0]).unwrap();
    assert_eq!(a.plus(&other), Err(CompositionError::OrdersDiffer));
}

#[test]
fn the_conversion_is_the_papers_and_nothing_costs_nothing() {
    let curve = RdpCurve::from_cost(&[8.0], |_| 0.5).unwrap();
    let (epsilon, order) = curve.epsilon(1e-5).unwrap();
    assert_eq!(order, 8.0);
    let expected = 0.5 + (7.0_f64 / 8.0).ln() - (8e-5_f64).ln() / 7.0;
    assert!((epsilon - expected).abs() < 1e-14);
    let nothing = RdpCurve::nothing(&usual_orders()).unwrap();
    assert_eq!(nothing.epsilon(1e-9).unwrap().0, 0.0);
}

#[test]
fn senseless_curves_are_typed_errors() {
    for order in [1.0, 0.5, f64::NAN, f64::INFINITY, 5_000.0] {
        assert!(matches!(
            RdpCurve::nothing(&[order]),
            Err(CompositionError::Order(_))
        ));
    }
    assert!(matches!(RdpCurve::nothing(&[]), Err(CompositionError::Order(_))));
    assert_eq!(
        RdpCurve::of_sum(&subset(1.0, 0.1), ADD_REMOVE, &[2.0]),
        Err(CompositionError::FixedBatch)
    );
    for scale in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        assert!(matches!(
            RdpCurve::of_laplace(scale, ADD_REMOVE, &[2.0]),
            Err(CompositionError::LaplaceScale(_))
        ));
    }
    let curve = RdpCurve::nothing(&[2.0]).unwrap();
    assert_eq!(curve.epsilon(0.0), Err(CompositionError::Delta(0.0)));
}
