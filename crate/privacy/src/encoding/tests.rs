use std::convert::Infallible;

use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng, TryCryptoRng, TryRng};

use super::*;
use crate::statistics::{FALSE_ALARM, chi_square_p};
use crate::{LocalNoise, uniform_below};

fn rng(seed: u8) -> ChaCha20Rng {
    ChaCha20Rng::from_seed([seed; 32])
}

/// From −1 to 1.
fn unit(rng: &mut ChaCha20Rng) -> f32 {
    rng.next_u32() as i32 as f32 / 2f32.powi(31)
}

/// Exact, in whole numbers wider than those of the code under test.
fn norm_squared(coordinates: &[i32]) -> u128 {
    coordinates
        .iter()
        .map(|x| u128::from(x.unsigned_abs()).pow(2))
        .sum()
}

#[test]
fn every_encoded_update_obeys_the_bound() {
    let mut rng = rng(1);
    for case in 0..4_000 {
        let dimension = [1, 2, 10, 100, 1_000][case % 5];
        let steps = [1.0, 1.5, 37.3, 1_024.0, 123_456.7, Encoding::MAX_CLIP_STEPS][case % 6];
        let grid_step = 2f64.powi(uniform_below(60, &mut rng).unwrap() as i32 - 30);
        let encoding = Encoding::new(steps * grid_step, grid_step, dimension).unwrap();
        // Far inside, at, and far outside the clip norm; spread out, or all in a few coordinates.
        let scale = 10f64.powi(uniform_below(9, &mut rng).unwrap() as i32 - 4) * steps * grid_step;
        let every = 1 + uniform_below(4, &mut rng).unwrap() as usize;
        let delta: Vec<f32> = (0..dimension)
            .map(|i| {
                if i % every == 0 {
                    unit(&mut rng) * scale as f32
                } else {
                    0.0
                }
            })
            .collect();
        let encoded = encoding.encode(&delta, &mut rng).unwrap();
        assert!(
            norm_squared(&encoded.coordinates) <= u128::from(encoding.bound_squared()),
            "case {case}"
        );
        assert_eq!(encoded.clipped, encoded.norm_before_clip > encoding.clip_l2());
        assert!(encoding.bound_steps().powi(2) >= encoding.bound_squared() as f64);
    }
}

#[test]
fn the_bound_holds_where_rounding_lengthens_most() {
    // Every coordinate half-way between two steps, at the clip norm: the mean squared norm is just below the bound.
    let dimension = 2_500;
    let encoding = Encoding::new(25.0, 1.0, dimension).unwrap();
    assert_eq!(encoding.bound_squared(), 625 + 625 + 25 + 25);
    let mut rng = rng(2);
    for _ in 0..300 {
        let encoded = encoding.encode(&vec![0.5; dimension], &mut rng).unwrap();
        assert!(norm_squared(&encoded.coordinates) <= 1_300);
    }
}

/// Words of zeros: always rounds up.
struct AlwaysUp;

impl TryRng for AlwaysUp {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok(0)
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(0)
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        bytes.fill(0);
        Ok(())
    }
}

impl TryCryptoRng for AlwaysUp {}

/// Replays words.
struct Tape(Vec<u32>);

impl TryRng for Tape {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok(self.0.remove(0))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        panic!("rounding draws 32 bits at a time")
    }

    fn try_fill_bytes(&mut self, _: &mut [u8]) -> Result<(), Infallible> {
        panic!("rounding draws 32 bits at a time")
    }
}

impl TryCryptoRng for Tape {}

#[test]
fn a_fraction_is_compared_with_64_random_bits() {
    // 1/4 + 2⁻³⁴: its first 32 places are 2³⁰, and its next 32 places 2³⁰ again.
    let fraction = 0.25 + 2f64.powi(-34);
    let (word, tie) = (1 << 30, 1 << 30);
    for (words, up) in [
        (vec![word - 1], true),
        (vec![word + 1], false),
        (vec![word, tie - 1], true),
        (vec![word, tie], false),
        (vec![word, 0], true),
        (vec![word, u32::MAX], false),
    ] {
        assert_eq!(round_up(fraction, &mut Tape(words.clone())), up, "{words:?}");
    }
    assert!(!round_up(0.0, &mut Tape(vec![0, 0])));
}

#[test]
fn when_rounding_keeps_breaking_the_bound_the_update_is_rounded_towards_zero() {
    let encoding = Encoding::new(25.0, 1.0, 2_500).unwrap();
    let mut delta = vec![-0.4; 2_500];
    delta[0] = 3.7;
    delta[1] = -2.2;
    // Rounded up in magnitude all through, the squared norm would be over 2,498.
    let encoded = encoding.encode(&delta, &mut AlwaysUp).unwrap();
    assert_eq!(encoded.coordinates[..3], [3, -2, 0]);
    assert!(encoded.coordinates[2..].iter().all(|x| *x == 0));
}

#[test]
fn the_bound_is_that_of_the_paper() {
    // The first branch is less where the dimension is small beside the clip norm only for tiny vectors: (1 + 1)² < …
    for (clip, dimension, expected) in [
        (1.0_f64, 1_usize, (1.0 + 0.25 + 1.0 + 0.5_f64).min(4.0)),
        (1.0, 4, 1.0 + 1.0 + 1.0 + 1.0),
        (
            1_024.0,
            101_770,
            1_048_576.0 + 25_442.5 + 1_024.0 + 101_770_f64.sqrt() / 2.0,
        ),
        (16_777_216.0, 1, 2f64.powi(48) + 0.25 + 16_777_216.0 + 0.5),
    ] {
        let encoding = Encoding::new(clip, 1.0, dimension).unwrap();
        assert_eq!(encoding.bound_squared(), expected.ceil() as u64);
    }
}

#[test]
fn on_average_a_coordinate_is_rounded_to_itself() {
    const TIMES: u32 = 4_000;
    let dimension = 500;
    // Well inside the clip norm, where no rounding is ever turned down.
    let encoding = Encoding::new(1_000.0, 1.0, dimension).unwrap();
    let mut rng = rng(3);
    let delta: Vec<f32> = (0..dimension).map(|_| 20.0 * unit(&mut rng)).collect();
    let mut sums = vec![0_i64; dimension];
    for _ in 0..TIMES {
        let encoded = encoding.encode(&delta, &mut rng).unwrap();
        sums.iter_mut()
            .zip(&encoded.coordinates)
            .for_each(|(sum, x)| *sum += i64::from(*x));
    }
    let p = |mean: &dyn Fn(usize) -> f64| {
        let statistic = (0..dimension).map(|i| {
            let x = f64::from(delta[i]);
            let fraction = x - x.floor();
            (mean(i) - x).powi(2) / (fraction * (1.0 - fraction) / f64::from(TIMES))
        });
        chi_square_p(statistic.sum(), dimension)
    };
    let found = p(&|i| sums[i] as f64 / f64::from(TIMES));
    assert!(found > FALSE_ALARM, "{found}");
    // Positive control: rounding to the nearest step is biased for each coordinate.
    assert!(p(&|i| f64::from(delta[i]).round()) < FALSE_ALARM);
}

#[test]
fn whole_steps_are_kept_and_signs_are_symmetrical() {
    let encoding = Encoding::new(8.0, 0.25, 4).unwrap();
    let encoded = encoding.encode(&[1.0, -1.0, 0.25, -0.0], &mut rng(4)).unwrap();
    assert_eq!(encoded.coordinates, [4, -4, 1, 0]);
    assert_eq!(encoding.decode(&encoded.coordinates), [1.0, -1.0, 0.25, 0.0]);
    let delta = [0.3, 1.7, 0.01, 2.2];
    let minus = delta.map(|x: f32| -x);
    let plus = encoding.encode(&delta, &mut rng(5)).unwrap();
    let mirrored = encoding.encode(&minus, &mut rng(5)).unwrap();
    assert!(
        plus.coordinates
            .iter()
            .zip(&mirrored.coordinates)
            .all(|(a, b)| *a == -*b)
    );
}

#[test]
fn clipping_keeps_the_direction_and_brings_the_norm_to_the_limit() {
    let encoding = Encoding::new(1.0, 1e-6, 2).unwrap();
    let encoded = encoding.encode(&[300.0, -400.0], &mut rng(6)).unwrap();
    assert_eq!(encoded.norm_before_clip, 500.0);
    assert!(encoded.clipped);
    assert!((encoded.coordinates[0] - 600_000).abs() <= 1);
    assert!((encoded.coordinates[1] + 800_000).abs() <= 1);
    let kept = encoding.encode(&[0.3, -0.4], &mut rng(6)).unwrap();
    assert!(!kept.clipped);
}

#[test]
fn the_extremes_of_floats_are_encoded() {
    let encoding = Encoding::new(1.0, 1.0 / 1_024.0, 3).unwrap();
    let mut rng = rng(7);
    let huge = encoding
        .encode(&[f32::MAX, f32::MAX, -f32::MAX], &mut rng)
        .unwrap();
    assert!(norm_squared(&huge.coordinates) <= u128::from(encoding.bound_squared()));
    assert!(huge.coordinates.iter().all(|x| (591..=592).contains(&x.abs())));
    let tiny = encoding
        .encode(&[f32::from_bits(1), -f32::MIN_POSITIVE, 0.0], &mut rng)
        .unwrap();
    assert_eq!(tiny.coordinates, [0, 0, 0]);
    assert_eq!(
        encoding.encode(&[0.0; 3], &mut rng).unwrap().norm_before_clip,
        0.0
    );
}

#[test]
fn a_number_that_is_not_finite_is_named_by_its_place_and_not_its_value() {
    let encoding = Encoding::new(1.0, 0.001, 3).unwrap();
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let error = encoding.encode(&[0.5, bad, f32::NAN], &mut rng(8)).unwrap_err();
        assert_eq!(error, EncodingError::NonFinite { index: 1 });
        assert_eq!(
            error.to_string(),
            "coordinate 1 of the update is not a finite number"
        );
    }
}

#[test]
fn senseless_parameters_are_typed_errors() {
    for clip in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        assert!(
            matches!(Encoding::new(clip, 1e-3, 3), Err(EncodingError::ClipNorm(_))),
            "{clip}"
        );
    }
    for step in [
        0.0,
        -1.0,
        f64::NAN,
        f64::INFINITY,
        1.1,
        1.0 / 16_777_217.0,
        f64::MIN_POSITIVE,
    ] {
        assert!(
            matches!(Encoding::new(1.0, step, 3), Err(EncodingError::GridStep { .. })),
            "{step}"
        );
    }
    assert_eq!(Encoding::new(1.0, 0.1, 0), Err(EncodingError::Dimension(0)));
    #[cfg(target_pointer_width = "64")]
    assert!(matches!(
        Encoding::new(1.0, 0.1, 1 << 32),
        Err(EncodingError::Dimension(_))
    ));
    let encoding = Encoding::new(1.0, 0.1, 3).unwrap();
    let length = EncodingError::Length {
        found: 2,
        expected: 3,
    };
    assert_eq!(encoding.encode(&[0.0; 2], &mut rng(0)), Err(length));
}

#[test]
fn the_sum_of_many_clients_is_the_true_sum_plus_noise_of_the_stated_size() {
    const CLIENTS: usize = 30;
    let dimension = 3_000;
    let encoding = Encoding::new(1.0, 1.0 / 1_024.0, dimension).unwrap();
    let noise = LocalNoise::new(&encoding, 0.5).unwrap();
    let mut rng = rng(9);
    let (mut truth, mut sum) = (vec![0.0_f64; dimension], vec![0_i64; dimension]);
    let mut rounding = vec![0.0_f64; dimension];
    for _ in 0..CLIENTS {
        // A norm of about 0.55: not clipped.
        let delta: Vec<f32> = (0..dimension).map(|_| 0.017 * unit(&mut rng)).collect();
        let encoded = encoding.encode(&delta, &mut rng).unwrap();
        assert!(!encoded.clipped);
        let mut coordinates = encoded.coordinates;
        noise.add(&mut coordinates, &mut rng).unwrap();
        for i in 0..dimension {
            let steps = f64::from(delta[i]) * 1_024.0;
            truth[i] += steps;
            rounding[i] += (steps - steps.floor()) * (1.0 - (steps - steps.floor()));
            sum[i] += i64::from(coordinates[i]);
        }
    }
    let p = |sigma: f64| {
        let statistic = (0..dimension)
            .map(|i| (sum[i] as f64 - truth[i]).powi(2) / (CLIENTS as f64 * sigma * sigma + rounding[i]));
        chi_square_p(statistic.sum(), dimension)
    };
    let sigma = noise.sigma_steps();
    assert!((sigma / (0.5 * encoding.bound_steps()) - 1.0).abs() < 1e-4);
    // Both tails: noise that is too small must be noticed as well.
    let found = p(sigma);
    assert!(found > FALSE_ALARM && found < 1.0 - FALSE_ALARM, "{found}");
    assert!(p(sigma / 1.15) < FALSE_ALARM && p(sigma * 1.15) > 1.0 - FALSE_ALARM);
}
