//! What an update gives away of a picture, with and without protection: an attacker against a small convolutional network.
#![cfg(not(target_arch = "wasm32"))]
#![allow(missing_docs, clippy::panic, clippy::unwrap_used, clippy::expect_used)] // tests

use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;
use unsaid_engine::{Examples, Model};
use unsaid_privacy::{Encoding, LocalNoise, Matching, label_from_bias, match_gradient, psnr, ssim};

const SIZE: [usize; 2] = [8, 8];
const LABEL: u32 = 3;

/// A convolution with stride 1 and no pooling, smooth activations: what leaks most (Zhu, Liu, Han 2019, section 4).
fn model() -> Model {
    let spec = serde_json::json!({
        "input": [8, 8, 1],
        "layers": [
            {"type": "conv2d", "filters": 6, "kernel": [3, 3], "padding": "same"}, {"type": "tanh"},
            {"type": "flatten"}, {"type": "dense", "units": 5},
        ],
        "loss": "softmax-cross-entropy"
    });
    Model::new(&serde_json::from_value(spec).unwrap()).unwrap()
}

/// A ring with a gap.
fn picture() -> Vec<f32> {
    let pixel = |at: usize| {
        let (x, y) = ((at % 8) as f32 - 3.5, (at / 8) as f32 - 3.5);
        let on_ring = (x.hypot(y) - 2.6).abs() < 0.9 && !(x > 1.0 && y.abs() < 1.0);
        if on_ring { 0.9 } else { 0.05 }
    };
    (0..64).map(pixel).collect()
}

struct Attacker {
    model: Model,
    weights: Vec<f32>,
}

impl Attacker {
    fn gradient(&self, x: &[f32], label: u32) -> Option<Vec<f32>> {
        let one = Examples::new(x.to_vec(), vec![label], 64, 5).ok()?;
        Some(self.model.loss_and_gradient(&self.weights, &one).ok()?.1)
    }

    /// The picture that the attacker makes of a change of the weights, and the label that they read off it.
    fn attack(&self, change: &[f32]) -> (Vec<f32>, u32) {
        let bias = self.model.layout().tensors().last().unwrap().range();
        let label = label_from_bias(&change[bias]).unwrap_or(0) as u32;
        let seen: Vec<f32> = change.iter().map(|change| -change).collect();
        let how = Matching {
            iterations: 250,
            step: 0.1,
            smoothness: 0.002,
        };
        let found = match_gradient(&seen, &[0.5; 64], SIZE, how, |x| self.gradient(x, label)).unwrap();
        (found, label)
    }
}

#[test]
fn an_optimiser_finds_the_picture_in_an_update_and_not_behind_clipping_and_noise() {
    let model = model();
    let weights = model.initial_parameters(3);
    let attacker = Attacker { model, weights };
    let truth = picture();
    // One step of gradient descent on one picture.
    let gradient = attacker.gradient(&truth, LABEL).unwrap();
    let change: Vec<f32> = gradient.iter().map(|g| -0.1 * g).collect();
    let score = |found: &[f32]| {
        let decibels = psnr(&truth, found, 1.0).unwrap();
        (decibels, ssim(&truth, found, SIZE, 1.0).unwrap())
    };
    let (found, label) = attacker.attack(&change);
    let open = score(&found);
    assert!(
        open.0 > 25.0 && open.1 > 0.9 && label == LABEL,
        "{open:?} {label}"
    );

    // Clipped and rounded, but without noise: hardly worse, since the direction stays.
    let mut rng = ChaCha20Rng::from_seed([5; 32]);
    let encoding = Encoding::new(0.01, 0.01 / 65_536.0, change.len()).unwrap();
    let encoded = encoding.encode(&change, &mut rng).unwrap();
    assert!(encoded.clipped);
    let (found, label) = attacker.attack(&encoding.decode(&encoded.coordinates));
    let clipped = score(&found);
    assert!(
        clipped.0 > 20.0 && clipped.1 > 0.8 && label == LABEL,
        "{clipped:?}"
    );

    // With noise there is nothing to see: no better than a picture of one grey.
    let grey = score(&[truth.iter().sum::<f32>() / 64.0; 64]);
    let noise = LocalNoise::new(&encoding, 1.0).unwrap();
    for _ in 0..3 {
        let mut coordinates = encoding.encode(&change, &mut rng).unwrap().coordinates;
        noise.add(&mut coordinates, &mut rng).unwrap();
        let (found, _) = attacker.attack(&encoding.decode(&coordinates));
        let noised = score(&found);
        assert!(noised.0 < grey.0 + 1.0 && noised.1 < 0.4, "{noised:?} {grey:?}");
    }
    println!("without protection {open:?}, clipped {clipped:?}, grey {grey:?}");
}
