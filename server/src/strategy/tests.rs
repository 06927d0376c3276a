//! Every rule and optimiser against a computation of its own, written from the paper's definition in another way.

use proptest::prelude::{any, prop, prop_assert, prop_assert_eq, prop_assume, proptest};
use unsaid_privacy::Encoding;
use unsaid_protocol::{CentralAdjacency, CentralPrivacy, Privacy, UpdateId};

use super::*;
use crate::gather::Gathered;

mod control_variates;
mod optimizers;

fn rows(updates: &[Vec<i32>]) -> Vec<&[i32]> {
    updates.iter().map(Vec::as_slice).collect()
}

fn norm(vector: &[f64]) -> f64 {
    vector.iter().map(|x| x * x).sum::<f64>().sqrt()
}

/// `count` updates of `d` coordinates near (100, −200, 300, …), off by at most ten, and the same every time.
fn honest(count: usize, d: usize) -> Vec<Vec<i32>> {
    let off = |i: usize, j: usize| ((i * 7919 + j * 104_729) % 21) as i32 - 10;
    let centre = |j: usize| (j as i32 + 1) * if j.is_multiple_of(2) { 100 } else { -100 };
    (0..count)
        .map(|i| (0..d).map(|j| centre(j) + off(i, j)).collect())
        .collect()
}

#[test]
fn a_weighted_mean_is_by_weight() {
    let strategy = Strategy {
        aggregation: Aggregation::WeightedMean { max_weight: 600 },
        ..Strategy::default()
    };
    let mut updates = Gathered::none(&strategy.aggregation, 2);
    for (id, update) in [(1, vec![4, -8, 300]), (2, vec![2, 0, 100])] {
        updates.add(
            &strategy.aggregation,
            UpdateId::from_bytes([id; 16]),
            update,
            0,
            0.5,
        );
    }
    let next = strategy.next_model(&[1.0, 1.0], &updates, 0.5, &mut strategy.fresh(2));
    // (4·300 + 2·100)/400 and (−8·300)/400 half steps.
    assert_eq!(next, [1.0 + 1.75, 1.0 - 3.0]);
}

/// Algorithm 1 of the paper by itself: clients that pull a number to their targets, from whichever model they started.
#[test]
fn fed_buff_is_the_papers_algorithm_and_its_order_of_arrival_changes_no_bit() {
    let (grid_step, exponent, k) = (1.0 / 1024.0, 0.5, 3);
    let rule = Aggregation::FedBuff {
        max_staleness: 4,
        exponent,
    };
    let strategy = Strategy {
        aggregation: rule,
        server: ServerOptimizer::FedAvg { learning_rate: 0.5 },
    };
    let mut memory = strategy.fresh(2);
    let mut models = vec![vec![0.0_f32, 4.0]];
    for round in 0..12_usize {
        // The i-th update of each buffer starts from the model of i + round modulo 5 steps ago, where there was one.
        let arrivals: Vec<(usize, Vec<i32>)> = (0..k)
            .map(|i| {
                let staleness = ((i + round) % 5).min(round);
                let base = &models[round - staleness];
                let targets = [i as f32, -2.0 * i as f32];
                let pull = |(&w, target): (&f32, f32)| ((target - w) * 0.5 * 1024.0).round() as i32;
                (staleness, base.iter().zip(targets).map(pull).collect())
            })
            .collect();
        let gather = |order: &[usize]| {
            let mut gathered = Gathered::none(&rule, 2);
            for &at in order {
                let (staleness, update) = arrivals[at].clone();
                let id = UpdateId::from_bytes([at as u8; 16]);
                gathered.add(&rule, id, update, staleness as u32, grid_step);
            }
            gathered
        };
        let now = &models[round];
        let next = strategy.next_model(now, &gather(&[0, 1, 2]), grid_step, &mut memory);
        let other = strategy.next_model(now, &gather(&[2, 0, 1]), grid_step, &mut memory);
        assert_eq!(next, other, "round {round}");
        for (at, (&found, &before)) in next.iter().zip(now).enumerate() {
            let mut buffer = 0.0;
            for (staleness, update) in &arrivals {
                buffer += f64::from(update[at]) * grid_step / (1.0 + *staleness as f64).sqrt();
            }
            let expected = f64::from(before) + 0.5 * buffer / k as f64;
            // Rounded to f32 once; all else is a few roundings of f64.
            let tolerance = 2f64.powi(-24) * expected.abs() + 1e-12;
            assert!(
                (f64::from(found) - expected).abs() <= tolerance,
                "round {round}: {found} {expected}"
            );
        }
        models.push(next);
    }
    // Without staleness it is the mean, and an old update counts for less: 1/√5 of one that is not.
    let one = |staleness| {
        let mut gathered = Gathered::none(&rule, 1);
        gathered.add(
            &rule,
            UpdateId::from_bytes([1; 16]),
            vec![1_024],
            staleness,
            grid_step,
        );
        strategy.next_model(&[0.0], &gathered, grid_step, &mut strategy.fresh(1))[0]
    };
    assert_eq!(one(0), 0.5);
    assert!((one(4) - 0.5 / 5.0_f32.sqrt()).abs() < 1e-7);
}

#[test]
fn norm_bounding_keeps_the_direction_of_coordinates_of_a_step_or_two() {
    let updates: Vec<Vec<i32>> = (0..3)
        .map(|i| (0..1_000).map(|j| (i * 31 + j * 7) % 5 - 2).collect())
        .collect();
    // They are permutations of each other, as long as each other, and are shortened to half of it.
    let length = norm(&updates[0].iter().map(|&x| f64::from(x)).collect::<Vec<_>>());
    let (grid_step, exact) = (1e-3, mean(&rows(&updates)));
    let strategy = Strategy {
        aggregation: Aggregation::NormBounding {
            bound_l2: length / 2.0 * grid_step,
        },
        ..Strategy::default()
    };
    let mut gathered = Gathered::none(&strategy.aggregation, 1_000);
    for (update, id) in updates.into_iter().zip(0..) {
        gathered.add(
            &strategy.aggregation,
            UpdateId::from_bytes([id; 16]),
            update,
            0,
            grid_step,
        );
    }
    let next = strategy.next_model(&[0.0; 1_000], &gathered, grid_step, &mut strategy.fresh(1_000));
    let found: Vec<f64> = next.iter().map(|&x| f64::from(x)).collect();
    let along: f64 = found.iter().zip(&exact).map(|(a, b)| a * b).sum();
    let (found, exact) = (norm(&found), norm(&exact));
    assert!(along / (found * exact) > 0.999, "{}", along / (found * exact));
    let expected = exact * grid_step / 2.0;
    assert!((found / expected - 1.0).abs() < 1e-3, "{found} {expected}");
}

#[test]
fn a_whole_round_of_the_greatest_coordinates_fits_a_norm_bounded_sum() {
    for extreme in [i32::MIN, i32::MAX] {
        let part = norm_bounding::shorten(&[extreme], 1e10)[0];
        let sum = i128::from(part) * crate::round::MAX_CHECK_INS as i128;
        assert!(i64::try_from(sum).is_ok(), "{extreme}");
        assert_eq!(part / i64::from(norm_bounding::PARTS), i64::from(extreme));
    }
}

proptest! {
    /// Half of the values are not above the median, and half are not below; what trimming leaves is what is left after the
    /// least and the greatest were taken away one at a time.
    #[test]
    fn order_statistics_are_what_their_definitions_say(
        updates in prop::collection::vec(prop::collection::vec(-1_000i32..1_000, 3), 1..12), trim in 0usize..4,
    ) {
        prop_assume!(updates.len() > 2 * trim);
        let median = order_statistics::median(&rows(&updates));
        let trimmed = order_statistics::trimmed_mean(&rows(&updates), trim);
        for at in 0..3 {
            let mut values: Vec<f64> = updates.iter().map(|update| f64::from(update[at])).collect();
            let half = values.len() as f64 / 2.0;
            prop_assert!(values.iter().filter(|&&value| value < median[at]).count() as f64 <= half);
            prop_assert!(values.iter().filter(|&&value| value > median[at]).count() as f64 <= half);
            let mirrored: Vec<Vec<i32>> = updates.iter().map(|update| update.iter().map(|x| -x).collect()).collect();
            prop_assert_eq!(order_statistics::median(&rows(&mirrored))[at], -median[at], "the middle of an even number");
            for _ in 0..trim {
                for pick in [f64::min, f64::max] {
                    let extreme = values.iter().copied().reduce(pick).unwrap();
                    values.remove(values.iter().position(|&value| value == extreme).unwrap());
                }
            }
            let expected = values.iter().sum::<f64>() / values.len() as f64;
            prop_assert!((trimmed[at] - expected).abs() < 1e-9);
        }
    }

    /// A score is the least sum of squared distances to any n − f − 2 others: by trying all of them.
    #[test]
    fn krum_takes_the_updates_of_the_least_scores(
        updates in prop::collection::vec(prop::collection::vec(-50i32..50, 2), 7), chosen in 1usize..5,
    ) {
        let (n, f) = (7usize, 2usize);
        let distance = |a: usize, b: usize| -> i64 {
            updates[a].iter().zip(&updates[b]).map(|(a, b)| i64::from(a - b).pow(2)).sum()
        };
        let score = |of: usize| {
            let subsets = (0u32..1 << n).filter(|set| set.count_ones() as usize == n - f - 2 && set & (1 << of) == 0);
            subsets.map(|set| (0..n).filter(|at| set & (1 << at) != 0).map(|at| distance(of, at)).sum::<i64>()).min().unwrap()
        };
        let mut order: Vec<usize> = (0..n).collect();
        order.sort_by_key(|&of| (score(of), of));
        let expected: Vec<f64> = (0..2)
            .map(|at| order[..chosen].iter().map(|&of| f64::from(updates[of][at])).sum::<f64>() / chosen as f64)
            .collect();
        prop_assert_eq!(krum::multi_krum(&rows(&updates), f, chosen), expected);
    }

    /// The clipped centre by loops over single numbers.
    #[test]
    fn centred_clipping_moves_the_centre_as_written(
        updates in prop::collection::vec(prop::collection::vec(-100i32..100, 3), 1..6),
        last in prop::collection::vec(-20.0f64..20.0, 3), radius in 1.0f64..100.0, iterations in 1u32..4,
    ) {
        let mut v = last.clone();
        for _ in 0..iterations {
            let mut next = v.clone();
            for update in &updates {
                let off: Vec<f64> = (0..3).map(|j| f64::from(update[j]) - v[j]).collect();
                let share = (radius / norm(&off)).min(1.0);
                (0..3).for_each(|j| next[j] += off[j] * share / updates.len() as f64);
            }
            v = next;
        }
        let found = centred_clipping::clip_around(&rows(&updates), &last, iterations, radius);
        for (found, expected) in found.iter().zip(&v) {
            prop_assert!((found - expected).abs() < 1e-9, "{found} {expected}");
        }
    }

    #[test]
    fn a_shortened_update_is_within_its_bound_and_points_the_same_way(
        update in prop::collection::vec(any::<i32>(), 4), bound in 10.0f64..1e6,
    ) {
        let exact: Vec<f64> = update.iter().map(|&x| f64::from(x)).collect();
        let length = norm(&exact);
        let part = 1.0 / f64::from(norm_bounding::PARTS);
        let short: Vec<f64> = norm_bounding::shorten(&update, bound).iter().map(|&x| x as f64 * part).collect();
        // The share and each product are rounded a few times, here and there: each by half an ε at most.
        let rounding = 8.0 * f64::EPSILON;
        prop_assert!(norm(&short) <= bound * (1.0 + rounding));
        let share = (bound / length).min(1.0);
        for (short, exact) in short.iter().zip(&exact) {
            let off = (short - exact * share).abs();
            prop_assert!(off <= part + exact.abs() * rounding, "less than one part off: {off}");
        }
    }

    /// Whatever the order of arrival, a rule that sees every update gives the same bits.
    #[test]
    fn the_order_of_arrival_changes_no_bit(
        updates in prop::collection::vec(prop::collection::vec(-1_000_000i32..1_000_000, 4), 7), pivot in 0usize..7,
    ) {
        for rule in EVERY_RULE.into_iter().filter(Aggregation::needs_updates) {
            let strategy = Strategy { aggregation: rule, ..Strategy::default() };
            let next = |order: &[usize]| -> Vec<u32> {
                let mut gathered = Gathered::none(&rule, 4);
                for &at in order {
                    gathered.add(&rule, UpdateId::from_bytes([at as u8; 16]), updates[at].clone(), 0, 1e-3);
                }
                let mut memory = strategy.fresh(4);
                let model = strategy.next_model(&[0.1; 4], &gathered, 1e-3, &mut memory);
                model.iter().chain(&memory.values).map(|x| x.to_bits()).collect()
            };
            let mut order: Vec<usize> = (0..7).collect();
            let plain = next(&order);
            order.rotate_left(pivot);
            order[pivot..].reverse();
            prop_assert_eq!(plain, next(&order), "{:?}", rule);
        }
    }
}

pub(super) const EVERY_RULE: [Aggregation; 11] = [
    Aggregation::Mean {},
    Aggregation::WeightedMean { max_weight: 600 },
    Aggregation::NormBounding { bound_l2: 1.0 },
    Aggregation::Scaffold {
        population: NonZeroU32::MAX,
    },
    Aggregation::FedBuff {
        max_staleness: 4,
        exponent: 0.5,
    },
    Aggregation::CoordinateMedian {},
    Aggregation::TrimmedMean { trim: 2 },
    Aggregation::Krum { byzantine: 2 },
    Aggregation::MultiKrum {
        byzantine: 2,
        chosen: 4,
    },
    Aggregation::GeometricMedian {
        iterations: 16,
        smoothing: 1e-6,
    },
    Aggregation::CentredClipping {
        radius_l2: 1.0,
        iterations: 1,
    },
];

/// The point of the least sum of distances, by a search that halves its step: no formula in common with Weiszfeld's.
fn search(updates: &[Vec<i32>]) -> [f64; 2] {
    let cost = |x: f64, y: f64| -> f64 {
        updates
            .iter()
            .map(|u| (f64::from(u[0]) - x).hypot(f64::from(u[1]) - y))
            .sum()
    };
    let (mut x, mut y, mut step) = (0.0, 0.0, 4_096.0);
    while step > 1e-7 {
        let around = [(step, 0.0), (-step, 0.0), (0.0, step), (0.0, -step)];
        match around
            .into_iter()
            .find(|(dx, dy)| cost(x + dx, y + dy) < cost(x, y))
        {
            Some((dx, dy)) => (x, y) = (x + dx, y + dy),
            None => step /= 2.0,
        }
    }
    [x, y]
}

#[test]
fn the_geometric_median_has_the_least_sum_of_distances() {
    for updates in [
        vec![vec![0, 0], vec![4_000, 0], vec![1_000, 3_000]],
        vec![
            vec![-900, 50],
            vec![800, 70],
            vec![10, 990],
            vec![40, -700],
            vec![300, 300],
        ],
    ] {
        let found = geometric_median::smoothed_weiszfeld(&rows(&updates), 500, 1e-9);
        let expected = search(&updates);
        let off = (found[0] - expected[0]).hypot(found[1] - expected[1]);
        assert!(off < 1e-2, "{found:?} {expected:?}");
    }
    // Fermat's point of an equilateral triangle is its centre.
    let triangle = vec![vec![0, 0], vec![2_000_000, 0], vec![1_000_000, 1_732_051]];
    let found = geometric_median::smoothed_weiszfeld(&rows(&triangle), 16, 1e-6);
    assert!(
        (found[0] - 1e6).abs() < 1.0 && (found[1] - 577_350.3).abs() < 1.0,
        "{found:?}"
    );
}

/// How far a rule's direction is from the honest mean, in the honest updates' own spread (the greatest distance of one of them
/// from their mean).
fn error(rule: Aggregation, honest: &[Vec<i32>], malicious: &[Vec<i32>]) -> f64 {
    let all = [honest, malicious].concat();
    let centre = mean(&rows(honest));
    let found = match rule {
        Aggregation::Mean {} => mean(&rows(&all)),
        Aggregation::NormBounding { bound_l2 } => {
            let mut gathered = Gathered::none(&rule, centre.len());
            for (row, id) in all.into_iter().zip(0..) {
                gathered.add(&rule, UpdateId::from_bytes([id; 16]), row, 0, 1.0);
            }
            let strategy = Strategy {
                aggregation: Aggregation::NormBounding { bound_l2 },
                ..Strategy::default()
            };
            let mut memory = strategy.fresh(centre.len());
            let next = strategy.next_model(&vec![0.0; centre.len()], &gathered, 1.0, &mut memory);
            next.into_iter().map(f64::from).collect()
        }
        rule => robust(rule, &rows(&all), &centre, 1.0),
    };
    let off = |row: &[i32]| squared_distance(row, &centre).sqrt();
    let spread = honest.iter().map(|row| off(row)).fold(0.0, f64::max);
    squared_distance(&found, &centre).sqrt() / spread
}

#[test]
fn robust_rules_stay_with_the_honest_and_the_mean_does_not() {
    let honest = honest(8, 20);
    let flipped: Vec<Vec<i32>> = honest[..2]
        .iter()
        .map(|row| row.iter().map(|x| -x * 10).collect())
        .collect();
    let boosted: Vec<Vec<i32>> = honest[..2]
        .iter()
        .map(|row| row.iter().map(|x| x * 1_000).collect())
        .collect();
    let length = norm(&mean(&rows(&honest)));
    for malicious in [flipped, boosted] {
        assert!(
            error(Aggregation::Mean {}, &honest, &malicious) > 300.0,
            "the control: the mean is drawn away"
        );
        for rule in EVERY_RULE {
            let (rule, most) = match rule {
                Aggregation::Mean {}
                | Aggregation::WeightedMean { .. }
                | Aggregation::Scaffold { .. }
                | Aggregation::FedBuff { .. } => continue,
                // Two of ten that are turned round take 0.4 of the length away, which is 72 of these spreads.
                Aggregation::NormBounding { .. } => (Aggregation::NormBounding { bound_l2: length }, 75.0),
                Aggregation::CentredClipping { .. } => {
                    let (radius_l2, iterations) = (100.0, 1);
                    (
                        Aggregation::CentredClipping {
                            radius_l2,
                            iterations,
                        },
                        1.0,
                    )
                }
                rule => (rule, 1.0),
            };
            let off = error(rule, &honest, &malicious);
            assert!(off <= most, "{rule:?}: {off}");
        }
    }
}

/// The table of [`compose`], as it is written there.
#[test]
fn the_table_of_what_goes_together_is_kept() {
    let encoding = Encoding::new(1.0, 1.0 / 1024.0, 100).unwrap();
    let local = Privacy::Local {
        noise_multiplier: 1.0,
    };
    let example = Privacy::Example {
        clip_l2: 1.0,
        noise_multiplier: 1.0,
        sampling_rate: 0.1,
    };
    // √(Δ² + 100·Δ²) ≈ 10 Δ, and Δ is a little above 1: 10.1 is below, 11 above.
    let table = [
        ("mean", Ok(())),
        ("weighted-mean", Err("without noise")),
        ("norm-bounding", Err("every update would be cut")),
        ("scaffold", Err("never forgets it")),
        ("fed-buff", Ok(())),
        ("coordinate-median", Ok(())),
        ("trimmed-mean", Ok(())),
        ("krum", Err("those of the noise")),
        ("multi-krum", Err("those of the noise")),
        ("geometric-median", Ok(())),
        ("centred-clipping", Err("every update would be cut")),
    ];
    for (rule, (name, expected)) in EVERY_RULE.into_iter().zip(table) {
        assert_eq!(rule.name(), name);
        assert_eq!(compose::check(&rule, &Privacy::None, &encoding), Ok(()), "{name}");
        let with_example = compose::check(&rule, &example, &encoding);
        assert_eq!(
            with_example.is_ok(),
            name != "weighted-mean",
            "{name}: {with_example:?}"
        );
        match (compose::check(&rule, &local, &encoding), expected) {
            (Ok(()), Ok(())) => {}
            (Err(error), Err(reason)) => assert!(error.message.contains(reason), "{error}"),
            (found, expected) => panic!("{name}: {found:?}, the table says {expected:?}"),
        }
    }
    let central = CentralPrivacy::new(1.0, CentralAdjacency::AddRemove, 1e-5, None);
    for rule in EVERY_RULE {
        let found = compose::check(&rule, &Privacy::Central(central), &encoding);
        match rule {
            Aggregation::Mean {} => assert_eq!(found, Ok(())),
            _ => assert!(
                found.unwrap_err().message.contains("privacy mode \"central\": "),
                "{rule:?}"
            ),
        }
    }
    for (bound, fits) in [(10.0, false), (11.0, true)] {
        for rule in [
            Aggregation::NormBounding { bound_l2: bound },
            Aggregation::CentredClipping {
                radius_l2: bound,
                iterations: 1,
            },
        ] {
            assert_eq!(compose::check(&rule, &local, &encoding).is_ok(), fits, "{rule:?}");
        }
    }
}
