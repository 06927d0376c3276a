use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;
use unsaid_protocol::AdaptiveClipping;

use super::*;

fn rng(seed: u8) -> ChaCha20Rng {
    ChaCha20Rng::from_seed([seed; 32])
}

fn terms(adjacency: CentralAdjacency, adaptive_clip: Option<AdaptiveClipping>) -> CentralPrivacy {
    CentralPrivacy::new(2.0, adjacency, 1e-5, adaptive_clip)
}

const ADAPTIVE: AdaptiveClipping = AdaptiveClipping {
    initial_l2: 0.5,
    quantile: 0.5,
    rate: 0.2,
    count_noise: 5.0,
};

fn central(adjacency: CentralAdjacency, adaptive: Option<AdaptiveClipping>) -> (Central, Encoding) {
    let encoding = Encoding::new(1.0, 1.0 / 1024.0, 3).unwrap();
    let central = Central::new(&terms(adjacency, adaptive), &encoding, 100).unwrap();
    (central, encoding)
}

/// Variance of the released direction's coordinates, in grid steps² of the sum, over 4,000 releases of the same sum.
fn variance(central: &Central, sum: &PartialSum, updates: f64, expected: f64, state: &State) -> f64 {
    let mut rng = rng(1);
    let (mut squares, mut count) = (0.0, 0.0);
    for _ in 0..4_000 {
        let release = central.release(sum, 50, state, &mut rng).unwrap();
        for value in release.direction {
            squares += (value * updates * 1024.0 - expected).powi(2);
            count += 1.0;
        }
    }
    squares / count
}

/// The sum of n squares of normal numbers over n has the standard deviation √(2/n): 8 of them, beyond which lies less than 10⁻¹⁴.
const OFF: f64 = 8.0 * 0.012_909_944; // √(2/12,000)

#[test]
fn a_sum_gets_the_noise_that_its_terms_name_and_is_divided_by_the_right_number() {
    for (adjacency, updates) in [
        (CentralAdjacency::AddRemove, 100.0),
        (CentralAdjacency::ReplaceOne, 50.0),
    ] {
        let (central, encoding) = central(adjacency, None);
        let mut sum = PartialSum::zero(3);
        for _ in 0..50 {
            central.add(&mut sum, &[10, 10, 10], &central.first());
        }
        let found = variance(&central, &sum, updates, 500.0, &central.first());
        let named = 4.0 * encoding.bound_squared() as f64;
        assert!((found / named - 1.0).abs() < OFF, "{found} {named}");
        // The control: with a tenth less noise this fails.
        assert!((found / (0.81 * named) - 1.0).abs() > OFF);
    }
}

#[test]
fn where_the_clip_norm_adapts_the_noise_is_in_proportion_to_it() {
    let (central, _) = central(CentralAdjacency::AddRemove, Some(ADAPTIVE));
    for clip_l2 in [0.5, 0.125] {
        let state = State {
            clip_l2,
            ..central.first()
        };
        let sum = PartialSum::zero(3 + central.extra());
        let found = variance(&central, &sum, 100.0, 0.0, &state);
        // z_Δ = (z⁻² − (2σ_b)⁻²)^(−1/2) of C.
        let multiplier_squared = 1.0 / (1.0 / 4.0 - 1.0 / 100.0);
        let named = multiplier_squared * (clip_l2 * 1024.0).powi(2);
        assert!((found / named - 1.0).abs() < OFF, "{clip_l2}: {found} {named}");
    }
}

#[test]
fn sum_and_count_together_cost_what_the_terms_say() {
    for (adjacency, s) in [
        (CentralAdjacency::AddRemove, 1.0),
        (CentralAdjacency::ReplaceOne, 2.0_f64),
    ] {
        for adaptive in [None, Some(ADAPTIVE)] {
            let (central, _) = central(adjacency, adaptive);
            let mut state = central.first();
            let sum = PartialSum::zero(3 + central.extra());
            for round in 1..=5 {
                state = central.release(&sum, 50, &state, &mut rng(round)).unwrap().state;
                let named = f64::from(round) / (2.0 * 4.0);
                let off = state.spent.get() / named - 1.0;
                // σ² is up to 0.002 % above what was named.
                assert!(off.abs() < 1e-3, "{off}");
                let figures = central.figures(&state);
                let all = Rho::new(s * s * state.spent.get())
                    .unwrap()
                    .epsilon(1e-5)
                    .unwrap();
                assert!((figures.epsilon.unwrap() / all - 1.0).abs() < 1e-12);
                let resumed = central.resume(Some(&figures), None, false).unwrap();
                assert!(resumed.spent >= state.spent && resumed.clip_l2 == state.clip_l2);
                // A cost that cannot be read is never taken for nothing.
                for rho in [f64::NAN, f64::INFINITY, f64::MAX, -1.0] {
                    let damaged = unsaid_protocol::RoundPrivacy { rho, ..figures };
                    assert!(central.resume(Some(&damaged), None, false).is_err(), "{rho}");
                }
            }
        }
    }
}

#[test]
fn the_clip_norm_follows_the_median_of_the_updates_and_stays_within_its_range() {
    let (central, _) = central(CentralAdjacency::AddRemove, Some(ADAPTIVE));
    let mut state = central.first();
    for round in 0..150 {
        let mut sum = PartialSum::zero(4);
        for client in 0..100 {
            // Norms of 1 to 100 hundredths of 0.2.
            let steps = (client + 1) * 2 * 1024 / 1000;
            central.add(&mut sum, &[steps, 0, 0], &state);
        }
        state = central.release(&sum, 100, &state, &mut rng(round)).unwrap().state;
    }
    // σ_b = 5 of 100 moves its logarithm by 0.01 a round, a tenth of which is taken back: it settles with a deviation of 0.022.
    assert!((state.clip_l2 / 0.1 - 1.0).abs() < 0.1, "{}", state.clip_l2);
    // Nobody is short enough, ever: it rises to what clients clip to, and no further.
    for round in 0..150 {
        let mut sum = PartialSum::zero(4);
        for _ in 0..100 {
            central.add(&mut sum, &[5_000, 0, 0], &state);
        }
        state = central.release(&sum, 100, &state, &mut rng(round)).unwrap().state;
    }
    assert_eq!(state.clip_l2, 1.0);
}

#[test]
fn no_update_counts_for_more_than_the_clip_norm() {
    let mut state = 1_u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 33) as i32
    };
    for case in 0..2_000_u64 {
        let scale = 1 << (next().unsigned_abs() % 24);
        let coordinates: Vec<i32> = (0..50).map(|_| next() % scale).collect();
        let bound = 1 + u64::from(next().unsigned_abs()) * (1 + case);
        let (parts, within) = shorten(&coordinates, bound);
        let norm =
            |parts: &[i64]| -> u128 { parts.iter().map(|p| u128::from(p.unsigned_abs()).pow(2)).sum() };
        assert!(norm(&parts) <= bound.into());
        let whole: Vec<i64> = coordinates.iter().map(|&c| i64::from(c) * 16).collect();
        assert_eq!(within, norm(&whole) <= bound.into());
        if within {
            assert_eq!(parts, whole);
        } else {
            // Shortened, not turned, and by no more than it had to be: each coordinate to within a part.
            let share = (bound as f64 / norm(&whole) as f64).sqrt();
            for (part, whole) in parts.iter().zip(&whole) {
                assert!((*part as f64 - *whole as f64 * share).abs() <= 1.0 + 1e-6 * (*whole as f64).abs());
            }
        }
    }
}

#[test]
fn senseless_terms_are_typed_errors() {
    let encoding = Encoding::new(1.0, 1.0 / 1024.0, 3).unwrap();
    let with = |clip: AdaptiveClipping| {
        Central::new(&terms(CentralAdjacency::AddRemove, Some(clip)), &encoding, 100)
    };
    for (clip, field) in [
        (
            AdaptiveClipping {
                initial_l2: 0.0,
                ..ADAPTIVE
            },
            "initial_l2",
        ),
        (
            AdaptiveClipping {
                initial_l2: 1.1,
                ..ADAPTIVE
            },
            "initial_l2",
        ),
        (
            AdaptiveClipping {
                initial_l2: f64::NAN,
                ..ADAPTIVE
            },
            "initial_l2",
        ),
        (
            AdaptiveClipping {
                quantile: 1.5,
                ..ADAPTIVE
            },
            "quantile",
        ),
        (
            AdaptiveClipping {
                rate: 0.0,
                ..ADAPTIVE
            },
            "rate",
        ),
    ] {
        let error = with(clip).unwrap_err();
        assert!(error.to_string().contains(field), "{error}");
    }
    // The count's own noise would cost more than the whole round may.
    let count_noise = 1.0;
    assert!(matches!(
        with(AdaptiveClipping {
            count_noise,
            ..ADAPTIVE
        }),
        Err(CentralError::NothingLeft { .. })
    ));
    let fine = Encoding::new(1.0, 1.0 / 8_388_608.0, 3).unwrap();
    assert!(Central::new(&terms(CentralAdjacency::AddRemove, Some(ADAPTIVE)), &fine, 100).is_err());
    assert!(Central::new(&terms(CentralAdjacency::AddRemove, None), &fine, 100).is_ok());
}

fn tree(restart_every: u32, min_separation: u32, adjacency: CentralAdjacency) -> Central {
    let encoding = Encoding::new(1.0, 1.0 / 1024.0, 3).unwrap();
    let tree = TreeTerms {
        restart_every,
        min_separation,
    };
    Central::new(&terms(adjacency, None).over(tree), &encoding, 100).unwrap()
}

#[test]
fn all_rounds_of_a_tree_together_have_the_noise_of_a_few_nodes() {
    // 12,000 noises for each number of rounds; the same bound as above.
    let central = tree(64, 1, CentralAdjacency::AddRemove);
    let bound = Encoding::new(1.0, 1.0 / 1024.0, 3).unwrap().bound_squared() as f64;
    let mut rng = rng(20);
    let mut spread = [0.0; 8];
    for _ in 0..4_000 {
        let (mut state, mut told) = (central.first(), [0.0; 3]);
        for spread in &mut spread {
            let release = central
                .release(&PartialSum::from_steps(vec![500; 3]), 50, &state, &mut rng)
                .unwrap();
            for (told, step) in told.iter_mut().zip(release.direction) {
                *told += step * 100.0 * 1024.0 - 500.0;
            }
            state = release.state;
            *spread += told.iter().map(|x: &f64| x * x).sum::<f64>() / 12_000.0;
        }
    }
    for (rounds, spread) in (1_u32..).zip(spread) {
        let named = 4.0 * bound * f64::from(rounds.count_ones());
        assert!((spread / named - 1.0).abs() < OFF, "{rounds}: {spread} {named}");
        // The control: independent noise on every round would add up to as many.
        assert!(rounds < 2 || (spread / (4.0 * bound * f64::from(rounds)) - 1.0).abs() > OFF);
    }
}

#[test]
fn a_tree_costs_what_its_nodes_do_and_begins_again_after_its_rounds() {
    for (adjacency, s) in [
        (CentralAdjacency::AddRemove, 1.0),
        (CentralAdjacency::ReplaceOne, 4.0),
    ] {
        let central = tree(4, 2, adjacency);
        let mut state = central.first();
        // Nodes of 1 to 4 rounds, two apart: 1; 1+1; 2+1; 2+2+4. The second tree costs as much again.
        for (round, nodes) in (1_u8..).zip([1.0, 2.0, 3.0, 8.0, 9.0, 10.0, 11.0, 16.0]) {
            state = central
                .release(&PartialSum::zero(3), 50, &state, &mut rng(round))
                .unwrap()
                .state;
            // A seed for each open node, and the second tree begins with another one.
            let tree = state.tree.clone().unwrap();
            assert_eq!(tree.rounds, u64::from((round - 1) % 4 + 1));
            assert!(tree.is_whole());
            let off = state.spent.get() / (nodes / 8.0) - 1.0;
            assert!(off.abs() < 1e-3, "round {round}: {off}");
            let told = central.figures(&state);
            let all = Rho::new(s * state.spent.get()).unwrap().epsilon(1e-5).unwrap();
            assert!((told.epsilon.unwrap() / all - 1.0).abs() < 1e-12);
            // Through the store: the tree goes on, and nothing is forgotten.
            let saved = serde_json::to_string(&state.tree).unwrap();
            let tree = serde_json::from_str(&saved).unwrap();
            let resumed = central.resume(Some(&told), tree, false).unwrap();
            assert!(resumed.tree == state.tree && resumed.spent >= state.spent);
            state = resumed;
        }
        // A tree that ended early stays paid for.
        state.tree = None;
        let next = central
            .release(&PartialSum::zero(3), 50, &state, &mut rng(9))
            .unwrap()
            .state;
        assert!((next.spent.get() - state.spent.get() - 1.0 / 8.0).abs() < 1e-3);
        // A task without trees has no use for one.
        let plain = Central::new(
            &terms(adjacency, None),
            &Encoding::new(1.0, 1.0 / 1024.0, 3).unwrap(),
            100,
        )
        .unwrap();
        assert_eq!(
            plain
                .resume(Some(&central.figures(&next)), next.tree, false)
                .unwrap()
                .tree,
            None
        );
    }
}

/// Closes the same round twice, as over a store that was put back: the second time by another generator, and with 1,024 steps more in each
/// coordinate of the sum.
#[test]
fn a_round_of_a_tree_that_is_closed_again_has_other_noise_in_its_own_node_and_the_same_in_those_it_replaces()
{
    let central = tree(8, 1, CentralAdjacency::AddRemove);
    let bound = Encoding::new(1.0, 1.0 / 1024.0, 3).unwrap().bound_squared() as f64;
    let close = |state: &State, sum: i64, rng: &mut ChaCha20Rng| {
        central
            .release(&PartialSum::from_steps(vec![sum; 3]), 50, state, rng)
            .unwrap()
    };
    let (mut one_rng, mut other_rng) = (rng(1), rng(2));
    let mut state = close(&central.first(), 7, &mut one_rng).state;
    for round in 2..=8_u64 {
        let (mut squares, mut state_after) = (0.0, state.clone());
        for _ in 0..4_000 {
            let one = close(&state, 7, &mut one_rng);
            let other = close(&state, 1031, &mut other_rng);
            for (one, other) in one.direction.iter().zip(&other.direction) {
                let apart: f64 = (other - one) * 100.0 * 1024.0 - 1024.0;
                squares += apart * apart / 12_000.0;
            }
            assert_ne!(one.state, other.state);
            state_after = one.state;
        }
        // Twice the variance of one node, however many are replaced: with one noise for both this would be nothing, and with other noise in
        // the replaced nodes, too, it would be one more of it for each.
        let named = 2.0 * 4.0 * bound;
        assert!(
            (squares / named - 1.0).abs() < OFF,
            "round {round}: {squares} {named}"
        );
        state = state_after;
    }
    assert!(!format!("{state:?}").contains("seed"), "{state:?}");
}

#[test]
fn the_store_has_the_seeds_of_a_trees_open_nodes_and_of_no_others() {
    let mut tree = Tree {
        seeds: Vec::new(),
        rounds: 0,
        before: 0,
    };
    // For each round the seed of the node that ends with it, by its number.
    let seed = |round: u64| {
        let mut seed = Seed::default();
        seed[..8].copy_from_slice(&round.to_le_bytes());
        seed
    };
    for round in 1..=300_u64 {
        let replaced = tree.grow(seed(round));
        let ends = (0..round.trailing_zeros()).map(|level| seed(round - (1 << level)));
        assert_eq!(replaced, ends.collect::<Vec<_>>(), "{round}");
        // The open nodes of `round` end where its binary digits, from the highest down, add up to.
        let mut end = 0;
        let open = (0..64)
            .rev()
            .filter(|digit| (round >> digit) & 1 == 1)
            .map(|digit| {
                end += 1 << digit;
                seed(end)
            });
        assert_eq!(tree.seeds, open.collect::<Vec<_>>(), "{round}");
        assert!(tree.is_whole());
    }
}

#[test]
fn a_tree_of_before_nodes_had_seeds_is_read_and_ends_and_stays_paid_for() {
    let old = format!(r#"{{"key":{:?},"rounds":3,"before":0}}"#, [7; 32]);
    let old: Tree = serde_json::from_str(&old).unwrap();
    let central = tree(8, 1, CentralAdjacency::AddRemove);
    let mut state = central.first();
    for round in 1..=3 {
        state = central
            .release(&PartialSum::zero(3), 50, &state, &mut rng(round))
            .unwrap()
            .state;
    }
    let resumed = central
        .resume(Some(&central.figures(&state)), Some(old), false)
        .unwrap();
    let next = central
        .release(&PartialSum::zero(3), 50, &resumed, &mut rng(9))
        .unwrap()
        .state;
    assert_eq!(next.tree.as_ref().map(|tree| tree.rounds), Some(1));
    // A first leaf is one node.
    assert!((next.spent.get() - state.spent.get() - 1.0 / 8.0).abs() < 1e-3);
}

#[test]
fn the_noise_of_a_trees_nodes_cancels_whatever_number_of_updates_a_round_has() {
    // Rounds of 100 and of 50 updates in turn; the model after eight rounds has the noise of one node.
    for adjacency in [CentralAdjacency::AddRemove, CentralAdjacency::ReplaceOne] {
        let central = tree(64, 1, adjacency);
        let bound = Encoding::new(1.0, 1.0 / 1024.0, 3).unwrap().bound_squared() as f64;
        let (mut rng, mut spread) = (rng(21), 0.0);
        for _ in 0..4_000 {
            let (mut state, mut told) = (central.first(), [0.0; 3]);
            for count in [100, 50].repeat(4) {
                let release = central
                    .release(&PartialSum::zero(3), count, &state, &mut rng)
                    .unwrap();
                for (told, step) in told.iter_mut().zip(release.direction) {
                    *told += step * 100.0 * 1024.0;
                }
                state = release.state;
            }
            spread += told.iter().map(|x: &f64| x * x).sum::<f64>() / 12_000.0;
        }
        let named = 4.0 * bound;
        assert!((spread / named - 1.0).abs() < OFF, "{spread} {named}");
    }
}

#[test]
fn no_epsilon_of_all_rounds_is_told_where_some_counted_updates_without_the_noise() {
    for central in [
        central(CentralAdjacency::AddRemove, None).0,
        tree(4, 1, CentralAdjacency::AddRemove),
    ] {
        let mut told = None;
        for otherwise in [false, true] {
            let state = central.resume(told.as_ref(), None, otherwise).unwrap();
            let release = central
                .release(&PartialSum::zero(3), 50, &state, &mut rng(1))
                .unwrap();
            let figures = central.figures(&release.state);
            assert_eq!(figures.epsilon.is_none(), otherwise);
            // What has the noise adds up all the same.
            assert!(figures.rho > told.map_or(0.0, |told: RoundPrivacy| told.rho));
            told = Some(figures);
        }
    }
}
