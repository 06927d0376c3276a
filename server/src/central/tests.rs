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
                assert!((figures.epsilon / all - 1.0).abs() < 1e-12);
                let resumed = central.resume(Some(&figures)).unwrap();
                assert!(resumed.spent >= state.spent && resumed.clip_l2 == state.clip_l2);
                // A cost that cannot be read is never taken for nothing.
                for rho in [f64::NAN, f64::INFINITY, f64::MAX, -1.0] {
                    let damaged = unsaid_protocol::RoundPrivacy { rho, ..figures };
                    assert!(central.resume(Some(&damaged)).is_err(), "{rho}");
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
