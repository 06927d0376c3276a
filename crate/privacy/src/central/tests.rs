//! Statistical tests have fixed seeds, and say with what probability they would fail on correct code for a random one.

use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;

use super::*;
use crate::statistics::{FALSE_ALARM, Fit};
use crate::{Adjacency, NoiseError, Rho};

fn rng(seed: u8) -> ChaCha20Rng {
    ChaCha20Rng::from_seed([seed; 32])
}

#[test]
fn the_noise_on_a_sum_is_the_discrete_gaussian_of_multiplier_times_bound() {
    let noise = CentralNoise::new(9, 1.5).unwrap(); // σ = 4.5
    let mut rng = rng(1);
    let samples: Vec<i64> = (0..100_000)
        .map(|_| {
            let mut sum = [1_000_000_i64];
            noise.add(&mut sum, &mut rng).unwrap();
            sum[0] - 1_000_000
        })
        .collect();
    let fit = |sigma: f64| {
        Fit::new(
            |x: i64| (-(x as f64 / sigma).powi(2) / 2.0).exp(),
            45.0,
            samples.len(),
        )
        .p(&samples)
    };
    assert!(fit(4.5) > FALSE_ALARM, "{}", fit(4.5));
    // Positive control: σ off by 5 %.
    assert!(fit(4.5 * 1.05) < FALSE_ALARM);
    // The cost is the ledger's for the same multiplier.
    for adjacency in [Adjacency::AddRemove, Adjacency::ReplaceOne] {
        let (found, expected) = (
            noise.rho(adjacency).get(),
            Rho::local_round(1.5, adjacency).unwrap().get(),
        );
        assert!(found <= expected && found > expected * 0.99, "{found} {expected}");
    }
}

#[test]
fn a_sum_that_overflows_is_an_error_and_tells_nothing() {
    let noise = CentralNoise::new(1 << 40, 1.0).unwrap();
    let mut sum = vec![i64::MAX; 64];
    // All 64 samples are negative with probability 2⁻⁶⁴.
    assert!(matches!(
        noise.add(&mut sum, &mut rng(2)),
        Err(CentralError::Noise(NoiseError::Saturated { .. }))
    ));
    assert!(sum.iter().all(|x| *x == 0));
}

#[test]
fn the_clip_norm_finds_the_median_and_stays_there() {
    // Norms uniform in [0, 2]: the median is 1. From far below and from far above.
    let rule = AdaptiveClip::new(0.5, AdaptiveClip::USUAL_RATE, 5.0, 200).unwrap();
    let norms: Vec<f64> = (0..200).map(|i| (f64::from(i) + 0.5) / 100.0).collect();
    let mut rng = rng(3);
    for start in [1e-3, 1e3] {
        let mut clip = start;
        let mut late = Vec::new();
        for round in 0..300 {
            let within = norms.iter().filter(|norm| **norm <= clip).count() as u64;
            clip = rule.next(clip, within, 200, &mut rng).unwrap().clip_l2;
            if round >= 200 {
                late.push(clip);
            }
        }
        // The share's noise is 10/200/2 = 2.5 %: the clip norm wanders by a few percent around 1.
        let mean = late.iter().sum::<f64>() / late.len() as f64;
        assert!((mean - 1.0).abs() < 0.1, "{start}: {mean}");
        assert!(late.iter().all(|clip| (clip - 1.0).abs() < 0.3), "{start}");
    }
    // Without noise to speak of the rule is the paper's formula, to the digit.
    let quiet = AdaptiveClip::new(0.5, 0.2, 1e-3, 40).unwrap();
    let next = quiet.next(2.0, 30, 40, &mut rng).unwrap();
    assert!((next.clip_l2 - 2.0 * (-0.2_f64 * 0.25).exp()).abs() < 1e-12 && next.share == 0.75);
}

#[test]
fn the_clip_norm_tells_nothing_of_the_cohort_but_the_noised_sum_and_moves_no_farther_than_the_rate() {
    // Σ ±1 is 10 in all three rounds: with the same noise, the same answer, whoever came.
    let rule = AdaptiveClip::new(0.5, 0.2, 2.0, 40).unwrap();
    let [ten, thirty, fifty] =
        [(10, 10), (20, 30), (30, 50)].map(|(within, cohort)| rule.next(1.0, within, cohort, &mut rng(7)));
    assert!(ten.is_ok() && ten == thirty && thirty == fifty);
    // Nobody came, which is a sum of 0: the share is a half, but for the noise (σ = 2·0.001, of which 0 is all but certain).
    let quiet = AdaptiveClip::new(0.5, 0.2, 1e-3, 40).unwrap();
    let empty = quiet.next(2.0, 0, 0, &mut rng(8)).unwrap();
    assert_eq!((empty.clip_l2, empty.share), (2.0, 0.5));
    // Noise of 100 cohorts: the share is far outside, and the clip norm moves by e^(η·½) at most.
    let loud = AdaptiveClip::new(0.5, 0.2, 100.0, 1).unwrap();
    let mut rng = rng(9);
    let states: Vec<AdaptiveClipState> = (0..50).map(|_| loud.next(1.0, 1, 1, &mut rng).unwrap()).collect();
    assert!(states.iter().any(|state| state.share > 2.0) && states.iter().any(|state| state.share < -1.0));
    assert!(states.iter().all(|state| state.clip_l2.ln().abs() <= 0.1 + 1e-12));
}

#[test]
fn count_and_sum_together_cost_what_the_sum_alone_would() {
    for (z, count_noise) in [(1.0, 5.0), (0.6, 0.5), (4.0, 2.1)] {
        let rule = AdaptiveClip::new(0.5, 0.2, count_noise, 100).unwrap();
        let own = rule.sum_noise_multiplier(z).unwrap();
        assert!(own > z);
        for adjacency in [Adjacency::AddRemove, Adjacency::ReplaceOne] {
            let both = Rho::local_round(own, adjacency).unwrap() + rule.rho(adjacency);
            let alone = Rho::local_round(z, adjacency).unwrap();
            // Never above but for rounding; below by what the count's variance was rounded up.
            assert!(both.get() <= alone.get() * (1.0 + 1e-9), "{both:?} {alone:?}");
            assert!(both.get() > alone.get() * 0.999, "{both:?} {alone:?}");
        }
    }
    let rule = AdaptiveClip::new(0.5, 0.2, 0.4, 8).unwrap();
    for z in [0.8, 1.0, 0.0, f64::NAN, -1.0] {
        assert!(
            matches!(
                rule.sum_noise_multiplier(z),
                Err(CentralError::NothingLeft { .. })
            ),
            "{z}"
        );
    }
}

#[test]
fn running_sums_are_the_exact_ones_plus_the_noise_of_as_many_nodes_as_the_step_has_ones() {
    // σ = 10; 2,000 coordinates of one tree are as many independent noises. A variance of 2,000 samples is off by 20 % with
    // probability below 10⁻⁸ (six standard errors of √(2/2,000)).
    let dimension = 2_000;
    let mut tree = TreeSum::new(dimension, 25, 2.0, 40).unwrap();
    let mut rng = rng(4);
    for step in 1..=40_u64 {
        let sum = tree.push(&vec![3; dimension], &mut rng).unwrap();
        let exact = 3 * step as i64;
        let variance = sum.iter().map(|x| ((x - exact) as f64).powi(2)).sum::<f64>() / dimension as f64;
        let nodes = f64::from(step.count_ones());
        assert!(
            (variance / (100.0 * nodes) - 1.0).abs() < 0.2,
            "step {step}: {variance}"
        );
        // Positive control: noise on every step would be far more.
        assert!(step < 4 || variance < 0.8 * 100.0 * step as f64);
    }
    assert_eq!(tree.steps(), 40);
    assert_eq!(
        tree.push(&vec![3; dimension], &mut rng),
        Err(CentralError::Full(40))
    );
}

#[test]
fn a_node_draws_its_noise_once() {
    // Steps 8 and 9 share the node of the first eight: their noises differ by that of one leaf, σ² = 100, where fresh ones would by 300.
    let dimension = 2_000;
    let mut tree = TreeSum::new(dimension, 25, 2.0, 16).unwrap();
    let mut rng = rng(5);
    let sums: Vec<Vec<i64>> = (0..9)
        .map(|_| tree.push(&vec![0; dimension], &mut rng).unwrap())
        .collect();
    let difference: f64 = sums[7]
        .iter()
        .zip(&sums[8])
        .map(|(a, b)| ((a - b) as f64).powi(2))
        .sum();
    let variance = difference / dimension as f64;
    assert!((variance / 100.0 - 1.0).abs() < 0.2, "{variance}");
}

/// Σ over the nodes that are ever made of (participations in it)², at most, by trying every set of steps.
fn worst_by_trial(max_steps: u64, participations: u32) -> u64 {
    let mut worst = 0;
    for chosen in 0_u64..1 << max_steps {
        if chosen.count_ones() != participations {
            continue;
        }
        let mut total = 0;
        // Node (level, place) is made when its last leaf comes.
        for level in 0..=max_steps.ilog2() {
            for place in 0..max_steps >> level {
                let leaves = (chosen >> (place << level)) & ((1 << (1 << level)) - 1);
                total += u64::from(leaves.count_ones()).pow(2);
            }
        }
        worst = worst.max(total);
    }
    worst
}

#[test]
fn the_cost_of_a_tree_is_never_below_that_of_the_worst_steps() {
    for max_steps in [1, 2, 3, 7, 8, 13, 16] {
        let tree = TreeSum::new(1, 1, 1.0, max_steps).unwrap();
        for participations in 1..=max_steps.min(5) {
            let worst = worst_by_trial(max_steps, participations as u32);
            let cost = tree.cost(participations).unwrap();
            // ρ = nodes·Δ²/2σ², with Δ = 1 and σ² at most 2·10⁻⁵ above 1, as its fraction is.
            let nodes = 2.0 * cost.rho(Adjacency::AddRemove).get();
            assert!(
                nodes >= worst as f64 * (1.0 - 2e-5),
                "{max_steps} {participations}: {nodes} {worst}"
            );
            if participations == 1 {
                assert!(
                    (nodes - worst as f64).abs() < 1e-3,
                    "{max_steps}: {nodes} {worst}"
                );
                assert_eq!(worst, u64::from(tree.height()));
            }
            let replaced = 2.0 * cost.rho(Adjacency::ReplaceOne).get();
            assert!((replaced / nodes - 4.0).abs() < 1e-9);
        }
    }
}

#[test]
fn senseless_parameters_are_typed_errors() {
    for bound in [0, (1 << 53) + 1] {
        assert_eq!(CentralNoise::new(bound, 1.0), Err(CentralError::Bound(bound)));
        assert!(matches!(
            TreeSum::new(1, bound, 1.0, 1),
            Err(CentralError::Bound(_))
        ));
    }
    for z in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        assert!(matches!(
            CentralNoise::new(1, z),
            Err(CentralError::Noise(NoiseError::NoiseMultiplier(_)))
        ));
        assert!(matches!(
            AdaptiveClip::new(0.5, 0.2, z, 8),
            Err(CentralError::Noise(_))
        ));
        assert!(matches!(TreeSum::new(1, 1, z, 1), Err(CentralError::Noise(_))));
    }
    for z in [1e300, 1e-300] {
        assert!(
            matches!(CentralNoise::new(1, z), Err(CentralError::Noise(_))),
            "{z}"
        );
    }
    for (quantile, rate) in [
        (-0.1, 0.2),
        (1.1, 0.2),
        (f64::NAN, 0.2),
        (0.5, 0.0),
        (0.5, 1.1),
        (0.5, f64::NAN),
    ] {
        assert!(matches!(
            AdaptiveClip::new(quantile, rate, 1.0, 8),
            Err(CentralError::Parameter { .. })
        ));
    }
    for expected in [0, (1 << 32) + 1] {
        assert!(matches!(
            AdaptiveClip::new(0.5, 0.2, 1.0, expected),
            Err(CentralError::Parameter { .. })
        ));
    }
    let rule = AdaptiveClip::new(0.5, 0.2, 1.0, 2).unwrap();
    let mut rng = rng(6);
    for (within, cohort) in [(1, 0), (3, 2), (1, u64::MAX)] {
        assert!(matches!(
            rule.next(1.0, within, cohort, &mut rng),
            Err(CentralError::Cohort { .. })
        ));
    }
    for clip in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        assert!(matches!(
            rule.next(clip, 1, 2, &mut rng),
            Err(CentralError::Parameter { .. })
        ));
    }
    assert!(matches!(TreeSum::new(1, 1, 1.0, 0), Err(CentralError::Full(0))));
    let mut tree = TreeSum::new(2, 1, 1.0, 4).unwrap();
    assert!(matches!(
        tree.push(&[1], &mut rng),
        Err(CentralError::Length { .. })
    ));
    for participations in [0, 5] {
        assert!(matches!(
            tree.cost(participations),
            Err(CentralError::Accounting(_))
        ));
    }
    // A step that overflows changes nothing.
    assert!(tree.push(&[i64::MAX, 0], &mut rng).is_ok() || tree.steps() == 0);
    let before = tree.steps();
    if before == 1 {
        assert!(tree.push(&[i64::MAX, 0], &mut rng).is_err());
        assert_eq!(tree.steps(), before);
    }
}

#[test]
fn what_is_printed_for_debugging_holds_no_sum() {
    let mut tree = TreeSum::new(1, 25, 1e-3, 4).unwrap();
    // The noise (σ = 0.005) is 0 but for a probability that no one will see.
    assert_eq!(tree.push(&[76_543], &mut rng(10)), Ok(vec![76_543]));
    let printed = format!("{tree:?}");
    assert!(
        printed.contains("steps: 1") && !printed.contains("76543"),
        "{printed}"
    );
}

/// A generator of its own for every node of tree `seed`.
fn of_node(seed: u8) -> impl Fn(TreeNode) -> ChaCha20Rng {
    move |node| {
        let mut rng = rng(seed);
        rng.set_stream(64 * node.end + u64::from(node.level));
        rng
    }
}

#[test]
fn what_the_steps_of_a_tree_are_told_with_adds_up_to_the_noise_of_the_nodes_that_there_are() {
    // Computed another way: the nodes of t are those of its binary digits, from the highest on, each with its own noise.
    const D: usize = 5;
    let noise = TreeNoise::new(25, 2.0).unwrap();
    let gaussian = variance(2.0, 25.0).unwrap();
    let mut all = [0_i64; D];
    for step in 1..=70_u64 {
        let mut told = [1_000_i64; D];
        noise.add(step, &mut told, of_node(9)).unwrap();
        for (all, told) in all.iter_mut().zip(told) {
            *all += told;
        }
        let mut expected = [1_000 * step as i64; D];
        let mut end = 0;
        for level in (0..8).rev().filter(|level| step >> level & 1 == 1) {
            end += 1 << level;
            let mut rng = of_node(9)(TreeNode { level, end });
            for expected in &mut expected {
                *expected += gaussian.sample(&mut rng);
            }
        }
        assert_eq!(all, expected, "step {step}");
    }
    for step in [0, TreeSum::MAX_STEPS + 1] {
        assert_eq!(
            noise.add(step, &mut [0], of_node(9)),
            Err(CentralError::Full(step))
        );
    }
    let mut sum = [i64::MAX; 64];
    assert!(matches!(
        noise.add(1, &mut sum, of_node(9)),
        Err(CentralError::Noise(_))
    ));
    assert_eq!(sum, [0; 64]);
}

#[test]
fn the_noise_of_a_tree_told_step_by_step_has_the_variance_of_its_nodes() {
    // σ = 10, 4,000 coordinates: six standard errors of the variance are 6·√(2/4,000) = 13.4 %.
    const D: usize = 4_000;
    let noise = TreeNoise::new(25, 2.0).unwrap();
    let mut all = vec![0_i64; D];
    for step in 1..=32_u64 {
        let mut told = vec![0_i64; D];
        noise.add(step, &mut told, of_node(11)).unwrap();
        for (all, told) in all.iter_mut().zip(&told) {
            *all += told;
        }
        let spread = |of: &[i64]| of.iter().map(|x| (*x as f64).powi(2)).sum::<f64>() / D as f64 / 100.0;
        let nodes = f64::from(step.count_ones());
        assert!(
            (spread(&all) / nodes - 1.0).abs() < 0.134,
            "step {step}: {}",
            spread(&all)
        );
        // A step alone: the node that ends with it, and those that it replaces.
        let alone = f64::from(step.trailing_zeros() + 1);
        assert!(
            (spread(&told) / alone - 1.0).abs() < 0.134,
            "step {step}: {}",
            spread(&told)
        );
        // The control: noise on every step would have the variance of as many steps.
        assert!(step < 3 || spread(&all) < 0.9 * step as f64);
    }
}

/// Σ over nodes of j², at most, for steps that lie at least `separation` apart, by trying every set.
fn worst_separated(steps: u64, separation: u64) -> u64 {
    let apart = |chosen: u64| (1..separation.min(64)).all(|gap| chosen & (chosen >> gap) == 0);
    let mut worst = 0;
    for chosen in (0_u64..1 << steps).filter(|chosen| apart(*chosen)) {
        let mut total = 0;
        for level in 0..=steps.ilog2() {
            for place in 0..steps >> level {
                let leaves = (chosen >> (place << level)) & ((1 << (1 << level)) - 1);
                total += u64::from(leaves.count_ones()).pow(2);
            }
        }
        worst = worst.max(total);
    }
    worst
}

/// The nodes of a cost: ρ·2σ²/Δ² under add/remove.
fn nodes_of(steps: u64, separation: u64) -> f64 {
    let cost = TreeNoise::new(1, 1.0).unwrap().cost(steps, separation).unwrap();
    2.0 * cost.rho(Adjacency::AddRemove).get()
}

#[test]
fn the_cost_of_separated_steps_is_never_below_that_of_the_worst_and_often_it() {
    let mut exact = 0;
    for steps in [1, 2, 3, 5, 7, 8, 11, 13, 16] {
        for separation in 1..=18 {
            let worst = worst_separated(steps, separation) as f64;
            let nodes = nodes_of(steps, separation);
            // σ² is at most 2·10⁻⁵ above 1, as its fraction is.
            assert!(
                nodes >= worst * (1.0 - 2e-5),
                "{steps} {separation}: {nodes} {worst}"
            );
            assert!(nodes <= 1.5 * worst, "{steps} {separation}: {nodes} {worst}");
            // What is booked step by step is never below, however many steps there were.
            assert!(tree_share(steps, separation) * steps.div_ceil(separation) >= worst as u64);
            exact += u32::from((nodes - worst).abs() < 1e-3 * worst);
            // Exact for one participation, for steps without separation, and for powers of two.
            if separation >= steps
                || separation == 1
                || steps.is_power_of_two() && separation.is_power_of_two()
            {
                assert!(
                    (nodes - worst).abs() < 1e-3 * worst,
                    "{steps} {separation}: {nodes} {worst}"
                );
            }
        }
    }
    assert!(exact > 100, "{exact} of 162");
}

#[test]
fn the_cost_of_a_tree_grows_with_its_steps_and_falls_with_their_separation() {
    for separation in [1, 2, 3, 7, 64, 1_000] {
        for steps in 1..300 {
            assert!(nodes_of(steps, separation) <= nodes_of(steps + 1, separation) * (1.0 + 1e-12));
            assert!(nodes_of(steps, separation + 1) <= nodes_of(steps, separation) * (1.0 + 1e-12));
        }
    }
    assert!(nodes_of(0, 1) < 1e-300, "what rounding up makes of nothing");
    let noise = TreeNoise::new(1, 1.0).unwrap();
    assert!(matches!(noise.cost(1, 0), Err(CentralError::Accounting(_))));
    let beyond = TreeSum::MAX_STEPS + 1;
    assert_eq!(noise.cost(beyond, 1), Err(CentralError::Full(beyond)));
    // The largest that is allowed, at its worst, is a number.
    assert!(
        noise
            .cost(TreeSum::MAX_STEPS, 1)
            .unwrap()
            .rho(Adjacency::ReplaceOne)
            .get()
            > 1e18
    );
}

#[test]
fn the_published_epsilons_of_a_tree_are_reproduced() {
    // Kairouz and others 2021, StackOverflow, as TensorFlow Privacy's tests quote it: 1,600 rounds, one participation, δ = 10⁻⁶; z and ε. To
    // their digits by the conversion of that time, ρ + 2·√(ρ·ln(1/δ)); the one that is used here is tighter.
    for (multiplier, epsilon) in [(1.13, 19.74), (8.83, 2.04_f64)] {
        let noise = TreeNoise::new(1 << 20, multiplier).unwrap();
        let cost = noise.cost(1_600, 1_600).unwrap().rho(Adjacency::AddRemove);
        let loose = cost.get() + 2.0 * (cost.get() * 1e6_f64.ln()).sqrt();
        assert!((loose - epsilon).abs() < 0.006, "{multiplier}: {loose} {epsilon}");
        assert!(cost.epsilon(1e-6).unwrap() < epsilon);
    }
}
