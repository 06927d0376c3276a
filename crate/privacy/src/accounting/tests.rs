use super::*;

/// A few hundred values of ρ from 10⁻⁹ to 10⁴.
fn rhos() -> impl Iterator<Item = Rho> {
    (0..400).map(|i| Rho::new(10f64.powf(-9.0 + 13.0 * f64::from(i) / 399.0)).unwrap())
}

/// The formula of CKS 2020, Corollary 13, at one α.
fn epsilon_at(rho: f64, delta: f64, alpha: f64) -> f64 {
    rho * alpha + (1.0 / (alpha * delta)).ln() / (alpha - 1.0) + (1.0 - 1.0 / alpha).ln()
}

#[test]
fn epsilon_has_the_published_values_for_the_gaussian_mechanism() {
    // σ, steps, δ, ε; add/remove; one step costs 1/2σ². The published values are the least over the orders that the
    // programs in use try: 1.1, 1.2, …, 10.9, 11, 12, …. With those orders they come out to the last digit; the least
    // over all orders is lower, by less than the fourth digit.
    for (sigma, steps, delta, published, half_a_digit) in
        [(1.0, 1, 1e-5, 4.7285, 5e-5), (5.0, 100, 1e-6, 11.689, 5e-4)]
    {
        let step = Rho::local_round(sigma, Adjacency::AddRemove).unwrap();
        let spent: Rho = std::iter::repeat_n(step, steps).sum();
        let on_their_orders = (1..100)
            .map(|i| 1.0 + f64::from(i) / 10.0)
            .chain((11..64).map(f64::from))
            .map(|alpha| epsilon_at(spent.get(), delta, alpha))
            .fold(f64::INFINITY, f64::min);
        assert!(
            (on_their_orders - published).abs() <= half_a_digit,
            "{on_their_orders}, published {published}"
        );
        let epsilon = spent.epsilon(delta).unwrap();
        assert!(
            epsilon <= on_their_orders && epsilon > published * (1.0 - 5e-5),
            "{epsilon}"
        );
    }
}

#[test]
fn replacing_costs_four_times_as_much_as_adding_or_removing() {
    for z in [0.1, 1.0, 3.0, 1e3] {
        let replace = Rho::local_round(z, Adjacency::ReplaceOne).unwrap().get();
        let remove = Rho::local_round(z, Adjacency::AddRemove).unwrap().get();
        // Never below the true cost, and hardly above it.
        assert!(
            replace >= 2.0 / (z * z) && replace < 2.0 / (z * z) * (1.0 + 1e-14),
            "{z}"
        );
        assert!((replace / remove - 4.0).abs() < 1e-12);
    }
}

#[test]
fn epsilon_has_the_values_that_the_documentation_quotes() {
    for (z, quoted) in [
        (0.5, [25.92, 81.06, 138.55, 988.76]),
        (1.0, [10.72, 30.11, 48.75, 293.43]),
        (2.0, [4.73, 12.30, 19.05, 96.04]),
        (4.0, [2.17, 5.38, 8.08, 35.07]),
        (8.0, [1.01, 2.45, 3.62, 14.13]),
        (16.0, [0.48, 1.14, 1.67, 6.12]),
    ] {
        let round = Rho::local_round(z, Adjacency::ReplaceOne).unwrap();
        for (rounds, quoted) in [1, 5, 10, 100].into_iter().zip(quoted) {
            let epsilon = std::iter::repeat_n(round, rounds)
                .sum::<Rho>()
                .epsilon(1e-5)
                .unwrap();
            assert!(
                (epsilon - quoted).abs() <= 0.0051,
                "z = {z}, {rounds} rounds: {epsilon}, quoted {quoted}"
            );
        }
    }
}

#[test]
fn epsilon_is_the_least_over_all_orders() {
    for rho in rhos() {
        for delta in [1e-12, 1e-5, 0.1, 0.9] {
            let epsilon = rho.epsilon(delta).unwrap();
            // A fine grid of orders: none is below, and the best of them is near.
            let least = (0..20_000)
                .map(|i| {
                    epsilon_at(
                        rho.get(),
                        delta,
                        1.0 + 10f64.powf(-5.0 + 18.0 * f64::from(i) / 20_000.0),
                    )
                })
                .fold(f64::INFINITY, f64::min)
                .max(0.0);
            assert!(
                epsilon <= least + 1e-9,
                "ρ = {}, δ = {delta}: {epsilon} > {least}",
                rho.get()
            );
            assert!(
                epsilon >= least * (1.0 - 1e-4) - 1e-6,
                "ρ = {}, δ = {delta}: {epsilon} < {least}",
                rho.get()
            );
        }
    }
}

#[test]
fn epsilon_rises_with_rho_and_falls_with_delta() {
    for delta in [1e-300, 1e-12, 1e-5, 0.5] {
        let mut last = 0.0;
        for rho in rhos() {
            let epsilon = rho.epsilon(delta).unwrap();
            assert!(epsilon >= last, "{} {delta}", rho.get());
            assert!(epsilon <= rho.epsilon(delta / 2.0).unwrap());
            last = epsilon;
        }
    }
    assert_eq!(Rho::ZERO.epsilon(1e-5), Ok(0.0));
}

/// The exact δ of the continuous Gaussian mechanism (Balle, Wang 2018, Theorem 8): Φ(μ/2 − ε/μ) − e^ε·Φ(−μ/2 − ε/μ), with
/// μ the sensitivity in σ.
fn gaussian_delta(mu: f64, epsilon: f64) -> f64 {
    let phi = |x: f64| {
        let tail = crate::statistics::erfc(x.abs() / std::f64::consts::SQRT_2) / 2.0;
        if x < 0.0 { tail } else { 1.0 - tail }
    };
    phi(mu / 2.0 - epsilon / mu) - epsilon.exp() * phi(-mu / 2.0 - epsilon / mu)
}

#[test]
fn epsilon_is_above_the_exact_one_of_the_gaussian_and_below_the_simple_conversion() {
    // A published exact value: (σ = 1, δ = 10⁻⁵) → 4.3772.
    assert!((gaussian_delta(1.0, 4.3772) / 1e-5 - 1.0).abs() < 1e-3);
    let mut checked = 0;
    for rho in rhos().filter(|rho| (1e-4..=100.0).contains(&rho.get())) {
        let r = rho.get();
        for delta in [1e-9_f64, 1e-6, 1e-3] {
            let epsilon = rho.epsilon(delta).unwrap();
            assert!(
                gaussian_delta((2.0 * r).sqrt(), epsilon) <= delta,
                "ρ = {r}, δ = {delta}"
            );
            // Bun, Steinke 2016, Proposition 1.3.
            assert!(epsilon <= r + 2.0 * (r * (1.0 / delta).ln()).sqrt());
            checked += 1;
        }
    }
    assert!(checked > 500);
}

#[test]
fn extreme_costs_have_an_epsilon_that_claims_nothing_false() {
    for rho in [f64::MIN_POSITIVE, f64::from_bits(1), 1e-300, 1e300, f64::MAX] {
        for delta in [f64::MIN_POSITIVE, 1e-300, 0.5, 1.0 - f64::EPSILON] {
            let epsilon = Rho::new(rho).unwrap().epsilon(delta).unwrap();
            assert!(epsilon >= 0.0, "{rho} {delta}");
            assert!(rho < 1.0 || epsilon > rho * 0.999, "{rho} {delta}: {epsilon}");
        }
    }
    let most = Rho::new(f64::MAX).unwrap();
    assert_eq!((most + most).epsilon(1e-5), Ok(f64::INFINITY));
}

#[test]
fn the_largest_rho_within_an_epsilon_is_the_inverse() {
    for epsilon in [0.0, 1e-6, 0.1, 1.0, 8.0, 1e4] {
        for delta in [1e-12, 1e-5, 0.1] {
            let rho = Rho::for_epsilon(epsilon, delta).unwrap();
            assert!(rho.epsilon(delta).unwrap() <= epsilon);
            let more = Rho::new(rho.get() * (1.0 + 1e-6) + 1e-18).unwrap();
            assert!(
                more.epsilon(delta).unwrap() > epsilon || epsilon == 0.0,
                "{epsilon} {delta}"
            );
        }
    }
}

#[test]
fn a_sum_never_counts_less_than_its_parts() {
    // 0.1 is no float; a million of them, and a large number beside small ones, in both orders.
    let tenth = Rho::new(0.1).unwrap();
    let million: Rho = std::iter::repeat_n(tenth, 1_000_000).sum();
    // The exact sum of the floats, in whole multiples of 2⁻⁵⁶.
    let exact = (0.1_f64 * 2f64.powi(56)) as u128 * 1_000_000;
    assert!((million.get() * 2f64.powi(20)) as u128 >= exact >> 36);
    assert!(million.get() >= 100_000.0 && million.get() < 100_000.01);
    let (large, small) = (Rho::new(1e9).unwrap(), Rho::new(1e-12).unwrap());
    for sum in [large + small, small + large] {
        assert!(sum.get() > 1e9);
    }
    assert_eq!((tenth + Rho::ZERO).get(), 0.1);
    assert_eq!((Rho::new(0.5).unwrap() + Rho::new(0.25).unwrap()).get(), 0.75);
}

#[test]
fn senseless_values_are_typed_errors() {
    for rho in [-1.0, f64::NAN, f64::INFINITY, -f64::MIN_POSITIVE] {
        assert!(matches!(Rho::new(rho), Err(AccountingError::Rho(_))), "{rho}");
    }
    assert!(Rho::new(-0.0).unwrap().get().is_sign_positive());
    for delta in [0.0, 1.0, -0.1, 1.1, f64::NAN, f64::INFINITY] {
        assert!(
            matches!(Rho::ZERO.epsilon(delta), Err(AccountingError::Delta(_))),
            "{delta}"
        );
        assert!(
            matches!(Rho::for_epsilon(1.0, delta), Err(AccountingError::Delta(_))),
            "{delta}"
        );
    }
    for epsilon in [-1.0, f64::NAN, f64::INFINITY] {
        assert!(
            matches!(Rho::for_epsilon(epsilon, 0.1), Err(AccountingError::Epsilon(_))),
            "{epsilon}"
        );
    }
    for z in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        let refused = Rho::local_round(z, Adjacency::ReplaceOne);
        assert!(matches!(refused, Err(AccountingError::NoiseMultiplier(_))), "{z}");
    }
    assert!(matches!(
        Rho::local_round(1e-200, Adjacency::ReplaceOne),
        Err(AccountingError::Rho(_))
    ));
}
