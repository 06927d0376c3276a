use super::*;
use crate::ops::ghost;

/// What one example adds whose gradient is written.
fn counted(lot: &Lot, gradient: &[f32]) -> Vec<i32> {
    let (mut gradient, mut sums) = (gradient.to_vec(), vec![0; gradient.len()]);
    if let Some(factor) = lot.factor(ghost::squared(&gradient)) {
        let written = lot.round(&mut gradient, factor);
        if lot.admits(written, Outer::default()) {
            add(&mut sums, &gradient);
        }
    }
    sums
}

fn length_squared(whole: &[i32]) -> u64 {
    whole.iter().map(|v| u64::from(v.unsigned_abs()).pow(2)).sum()
}

#[test]
fn an_example_adds_its_clipped_gradient_rounded_to_the_grid() {
    let lot = Lot::new(1.0, 0.25, 25, 8);
    assert_eq!(
        counted(&lot, &[0.5, -0.25, 0.124, -0.126, 0.375]),
        [2, -1, 0, -1, 2]
    );
    // A norm of 5 is clipped to 1, four steps: 0.6 and 0.8 of it.
    assert_eq!(counted(&lot, &[3.0, -4.0, 0.0]), [2, -3, 0]);
    // As long as can be, and as short.
    assert_eq!(counted(&lot, &[f32::MAX, 0.0]), [4, 0]);
    assert_eq!(counted(&lot, &[-f32::MAX; 4]), [-2; 4]);
    assert_eq!(counted(&lot, &[f32::from_bits(1), 1e-30]), [0, 0]);
    let fine = Lot::new(1e-30, 1e-36, 1 << 48, 8);
    assert_eq!(counted(&fine, &[1e30, 0.0]), [1_000_000, 0]);
}

#[test]
fn an_example_that_has_no_norm_or_is_above_the_bound_adds_nothing() {
    let lot = Lot::new(1.0, 0.25, 16, 8);
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        assert_eq!(counted(&lot, &[1.0, bad, 0.0, 0.0, 0.0]), [0; 5]);
    }
    // 2² + 2² + 2² + 2² is at the bound; rounded up to as much again, 3² + 2² + 2² is above it.
    assert_eq!(counted(&lot, &[0.5; 4]), [2; 4]);
    assert_eq!(counted(&lot, &[0.63, 0.54, 0.55]), [0; 3]);
}

/// Whatever is counted is within the bound, and what a clip norm with room for rounding allows is counted.
#[test]
fn what_is_counted_is_within_the_bound_for_gradients_of_all_sizes() {
    const D: usize = 300;
    let steps = 1000.0_f64;
    let bound = steps * (1.0 + 1e-6) + (D as f64).sqrt() / 2.0;
    let lot = Lot::new(1.0, 0.001, (bound * bound) as u64, 1);
    for place in 0..1_000_i32 {
        let at = |i: usize| ((place as usize * D + i) as f32 * 1.618).sin();
        let gradient: Vec<f32> = (0..D).map(|i| at(i) * 10f32.powi(place % 61 - 30)).collect();
        let whole = counted(&lot, &gradient);
        assert!(length_squared(&whole) <= (bound * bound) as u64);
        assert_eq!(length_squared(&whole) == 0, place % 61 < 27, "{place}");
    }
}

/// Written numbers and outer ones share the bound: what is known of the latter is rounded up, and no number is no proof.
#[test]
fn written_and_outer_numbers_are_within_the_bound_together() {
    let lot = Lot::new(1.0, 0.25, 10_000, 8);
    let outer = |squared, count| Outer { squared, count };
    assert!(lot.admits(10_000.0, outer(0.0, 0)));
    assert!(!lot.admits(10_001.0, outer(0.0, 0)));
    // 80 and √16/2 are 82 steps at most, 82² = 6,724, and a little.
    assert!(lot.admits(3_275.0, outer(6_400.0, 16)));
    assert!(!lot.admits(3_276.0, outer(6_400.0, 16)));
    assert!(lot.admits(0.0, outer(99.9 * 99.9, 0)) && !lot.admits(0.0, outer(100.0 * 100.0, 0)));
    assert!(!lot.admits(0.0, outer(f64::NAN, 4)) && !lot.admits(f64::NAN, outer(1.0, 4)));
    assert!(!lot.admits(0.0, outer(f64::INFINITY, 4)));
    // A bound that half a step for each number exceeds lets nobody in.
    assert!(!Lot::new(1.0, 0.25, 3, 8).admits(0.0, outer(0.0, 16)));
}

#[test]
fn totals_are_noised_in_integers_divided_by_what_was_expected_and_begin_again() {
    let lot = Lot::new(1.0, 0.25, 1 << 48, 8);
    let mut totals = Totals::default();
    totals.resize(5);
    totals
        .room_for(127, lot.largest())
        .copy_from_slice(&[4, 0, 2_000_000_000, -2_000_000_000, 12]);
    let mut mean = [9.0; 5];
    lot.noised_cpu(&mut totals, &[0, 3, -7, 5, i32::MIN], &mut mean);
    let unit = 0.25 / 8.0;
    assert_eq!(mean[..2], [4.0 * unit, 3.0 * unit]);
    assert_eq!(mean[2], (LIMIT - 7) as f32 * unit, "cut off at 2³⁰ − 1");
    assert_eq!(mean[3], (5 - LIMIT) as f32 * unit, "cut off at 1 − 2³⁰");
    assert_eq!(mean[4], (12.0 - 2_147_483_648.0) * unit);
    // The largest noise does not make a number of the other sign of them.
    totals
        .room_for(127, lot.largest())
        .copy_from_slice(&[2_000_000_000, LIMIT, -2_000_000_000, -LIMIT, 0]);
    let most = 1 << 30;
    lot.noised_cpu(&mut totals, &[most, most, -most, -most, most], &mut mean);
    assert_eq!(
        mean,
        [2.0, 2.0, -2.0, -2.0, 1.0].map(|all| all * most as f32 * unit)
    );
    lot.noised_cpu(&mut totals, &[1; 5], &mut mean);
    assert_eq!(mean, [unit; 5], "they begin again");
}
