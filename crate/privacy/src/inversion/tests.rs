use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;

use super::*;
use crate::{Encoding, LocalNoise};

const INPUTS: usize = 64;
const UNITS: usize = 10;
const LABEL: usize = 7;

/// An 8 × 8 picture: a ring.
fn picture() -> Vec<f32> {
    (0..INPUTS)
        .map(|at| {
            let (x, y) = ((at % 8) as f32 - 3.5, (at / 8) as f32 - 3.5);
            if (x.hypot(y) - 2.5).abs() < 0.8 { 1.0 } else { 0.1 }
        })
        .collect()
}

/// The change of a softmax regression's weights, `[INPUTS, UNITS]` and then the bias, in one step on the picture.
fn update() -> Vec<f32> {
    let x = picture();
    let rate = 0.5;
    // From weights of 0 all probabilities are 1/10.
    let error: Vec<f32> = (0..UNITS)
        .map(|unit| 0.1 - if unit == LABEL { 1.0 } else { 0.0 })
        .collect();
    let kernel = x.iter().flat_map(|x| error.iter().map(move |e| -rate * x * e));
    let bias = error.iter().map(|e| -rate * e);
    kernel.chain(bias).collect()
}

fn attack(update: &[f32]) -> Vec<f32> {
    let (kernel, bias) = update.split_at(INPUTS * UNITS);
    invert_dense(kernel, bias).unwrap()
}

#[test]
fn an_update_without_noise_gives_the_picture_and_its_label_away() {
    let update = update();
    assert!(psnr(&picture(), &attack(&update), 1.0).unwrap() > 100.0);
    assert_eq!(label_from_bias(&update[INPUTS * UNITS..]), Ok(LABEL));
    // Clipping alone hides nothing: the factor cancels, and what is left is the grid's rounding.
    let encoding = Encoding::new(0.1, 0.1 / 65_536.0, update.len()).unwrap();
    let mut rng = ChaCha20Rng::from_seed([1; 32]);
    let clipped = encoding.encode(&update, &mut rng).unwrap();
    assert!(clipped.clipped);
    let found = attack(&encoding.decode(&clipped.coordinates));
    assert!(psnr(&picture(), &found, 1.0).unwrap() > 40.0);
}

#[test]
fn all_units_together_see_through_noise_that_one_alone_does_not() {
    let update = update();
    let (kernel, bias) = update.split_at(INPUTS * UNITS);
    assert!(psnr(&picture(), &fit_dense(kernel, bias).unwrap(), 1.0).unwrap() > 100.0);
    // Weak noise: σ is a thousandth of the update's bound, and a sixtieth of the largest change of a bias.
    let encoding = Encoding::new(8.0, 8.0 / 65_536.0, update.len()).unwrap();
    let noise = LocalNoise::new(&encoding, 0.001).unwrap();
    let mut rng = ChaCha20Rng::from_seed([3; 32]);
    let mut gained = 0.0;
    for _ in 0..20 {
        let mut coordinates = encoding.encode(&update, &mut rng).unwrap().coordinates;
        noise.add(&mut coordinates, &mut rng).unwrap();
        let noised = encoding.decode(&coordinates);
        let (kernel, bias) = noised.split_at(INPUTS * UNITS);
        let [one, all] = [invert_dense(kernel, bias), fit_dense(kernel, bias)]
            .map(|found| psnr(&picture(), &found.unwrap(), 1.0).unwrap());
        assert!(all > 30.0, "{all}");
        gained += (all - one) / 20.0;
    }
    // The label's unit has 0.81 of the squares of the change, all of it 0.9: 0.46 dB.
    assert!(gained > 0.2, "{gained}");
}

#[test]
fn with_clipping_and_noise_there_is_nothing_to_see() {
    let update = update();
    let encoding = Encoding::new(1.0, 1.0 / 1024.0, update.len()).unwrap();
    let noise = LocalNoise::new(&encoding, 1.0).unwrap();
    // Of 100 attempts the best is below 12 dB, which is what a grey picture of no content gets.
    let grey = psnr(&picture(), &[0.4; INPUTS], 1.0).unwrap();
    let mut rng = ChaCha20Rng::from_seed([2; 32]);
    let mut right = 0;
    for _ in 0..100 {
        let mut coordinates = encoding.encode(&update, &mut rng).unwrap().coordinates;
        noise.add(&mut coordinates, &mut rng).unwrap();
        let noised = encoding.decode(&coordinates);
        let found = psnr(&picture(), &attack(&noised), 1.0).unwrap();
        assert!(found < 12.0 && found < grey + 4.0, "{found} {grey}");
        right += i32::from(label_from_bias(&noised[INPUTS * UNITS..]) == Ok(LABEL));
    }
    // The label is guessed in well under half of all cases.
    assert!(right < 50, "{right}");
}

#[test]
fn what_cannot_be_inverted_is_a_typed_error() {
    for (kernel, bias) in [
        (&[1.0, 2.0, 3.0][..], &[1.0, 1.0][..]),
        (&[], &[1.0]),
        (&[1.0], &[]),
    ] {
        for found in [invert_dense(kernel, bias), fit_dense(kernel, bias)] {
            assert!(matches!(found, Err(InversionError::Shape { .. })));
        }
    }
    for bias in [[0.0, 0.0], [f32::NAN, 0.0], [f32::INFINITY, f32::NAN]] {
        assert_eq!(invert_dense(&[1.0; 4], &bias), Err(InversionError::NoSignal));
        assert_eq!(fit_dense(&[1.0; 4], &bias), Err(InversionError::NoSignal));
    }
    assert_eq!(
        fit_dense(&[f32::NAN; 4], &[1.0; 2]),
        Err(InversionError::NoSignal)
    );
    assert_eq!(
        label_from_bias(&[-1.0, f32::NAN, 0.0]),
        Err(InversionError::NoSignal)
    );
    assert_eq!(psnr(&[1.0], &[], 1.0), Err(InversionError::Length(1, 0)));
    assert_eq!(psnr(&[1.0, 2.0], &[1.0, 2.0], 1.0), Ok(f64::INFINITY));
}

#[test]
fn structural_similarity_is_that_of_the_formula() {
    // One window of 7 × 7: a ramp, and the ramp at half its height, by hand. Means 24 and 12, variances 49·50/12 = 204.1(6) and a quarter of
    // it, covariance half of it; C₁ = 0.48², C₂ = 1.44².
    let ramp: Vec<f32> = (0..49).map(|at| at as f32).collect();
    let half: Vec<f32> = ramp.iter().map(|x| x / 2.0).collect();
    let (c1, c2, variance) = (0.48_f64.powi(2), 1.44_f64.powi(2), 49.0 * 50.0 / 12.0);
    let means = (2.0 * 24.0 * 12.0 + c1) / (24.0_f64.powi(2) + 12.0_f64.powi(2) + c1);
    let shapes = (variance + c2) / (1.25 * variance + c2);
    let found = ssim(&ramp, &half, [7, 7], 48.0).unwrap();
    assert!(
        (found - means * shapes).abs() < 1e-6,
        "{found} {}",
        means * shapes
    );
    // Symmetric, 1 for the same, negative for the opposite.
    let against: Vec<f32> = ramp.iter().map(|x| 48.0 - x).collect();
    assert_eq!(ssim(&half, &ramp, [7, 7], 48.0), Ok(found));
    assert!((ssim(&ramp, &ramp, [7, 7], 48.0).unwrap() - 1.0).abs() < 1e-12);
    assert!(ssim(&ramp, &against, [7, 7], 48.0).unwrap() < -0.9);
    for (a, b, size) in [
        (49, 48, [7, 7]),
        (49, 49, [7, 8]),
        (48, 48, [6, 8]),
        (0, 0, [0, 0]),
    ] {
        let pictures = [a, b].map(|len| vec![0.0; len]);
        assert!(matches!(
            ssim(&pictures[0], &pictures[1], size, 1.0),
            Err(InversionError::Length(_, _))
        ));
    }
}

#[test]
fn matching_finds_the_input_of_a_model_that_can_be_inverted() {
    // The gradient of a linear regression towards 0: (w·x)·x, which points where x does.
    let truth: Vec<f32> = (0..49).map(|at| if at % 3 == 0 { 0.9 } else { 0.2 }).collect();
    let gradient = |x: &[f32]| {
        let dot: f32 = x.iter().sum();
        Some(x.iter().map(|x| dot * x).collect::<Vec<_>>())
    };
    let seen = gradient(&truth).unwrap();
    let how = Matching {
        iterations: 200,
        step: 0.05,
        smoothness: 0.0,
    };
    let found = match_gradient(&seen, &[0.5; 49], [7, 7], how, gradient).unwrap();
    // Its length cannot be told, since the gradient's is not looked at.
    let scale = truth.iter().sum::<f32>() / found.iter().sum::<f32>();
    let scaled: Vec<f32> = found.iter().map(|x| x * scale).collect();
    assert!(psnr(&truth, &scaled, 1.0).unwrap() > 30.0);
    let none = match_gradient(&[0.0; 49], &[0.5; 49], [7, 7], how, gradient);
    assert_eq!(none, Err(InversionError::NoSignal));
    let short = match_gradient(&seen[1..], &[0.5; 49], [7, 7], how, gradient);
    assert_eq!(short, Err(InversionError::Length(49, 48)));
    let odd = match_gradient(&seen, &[0.5; 49], [7, 8], how, gradient);
    assert!(matches!(odd, Err(InversionError::Length(49, 56))));
}
