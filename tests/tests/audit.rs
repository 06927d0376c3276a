//! The audit of training that is private for each example: it would find out training with less noise than it says.
#![cfg(not(target_arch = "wasm32"))]
#![allow(missing_docs, clippy::panic, clippy::unwrap_used, clippy::expect_used)] // tests

use pollster::block_on;
use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};
use unsaid_engine::{
    Chance, Device, EngineError, Examples, Model, PrivateSteps, TrainSpec, Training, Unobserved,
};
use unsaid_privacy::{
    Adjacency, Audit, ExampleNoise,
    accounting::{Accountant, Composition, GaussianSum, Sampling},
};

/// Canaries, one token of the vocabulary each, so that each moves a weight that no other touches.
const CANARIES: u32 = 200_000;
const STEPS: u32 = 16;
const RATE: f64 = 0.5;
const CLIP: f32 = 1.0;

/// A generator of the test's.
struct Seeded {
    /// None adds no noise.
    noise: Option<ExampleNoise>,
    lots: ExampleNoise,
    rng: ChaCha20Rng,
}

impl Chance for Seeded {
    fn lot(&mut self, examples: u32, lot: &mut Vec<u32>) -> Result<(), EngineError> {
        self.lots.lot(examples, lot, &mut self.rng);
        Ok(())
    }

    fn noise(&mut self, noise: &mut [i32]) -> Result<(), EngineError> {
        match &self.noise {
            Some(drawn) => drawn
                .noise(noise, &mut self.rng)
                .map_err(|error| EngineError::Chance(error.to_string())),
            None => {
                noise.fill(0);
                Ok(())
            }
        }
    }
}

/// One run, in which a coin decides about each canary whether it is among the examples (Steinke, Nasr, Jagielski 2023, algorithm 1). The
/// attacker knows them all, and sees the trained weights; it guesses the hundredth of the coins of which it is most certain on either
/// side.
fn attack(multiplier: Option<f64>, claimed: f64, seed: u8) -> Audit {
    let spec = serde_json::json!({
        "input": [1],
        "layers": [{"type": "embedding", "vocabulary": CANARIES, "units": 1}, {"type": "flatten"}, {"type": "dense", "units": 2}],
        "loss": "softmax-cross-entropy"
    });
    let model = Model::new(&serde_json::from_value(spec).unwrap()).unwrap();
    let d = model.parameter_count();
    // The rows of the table are 0, and the frozen layer behind makes every gradient as long, and longer than its bound.
    let mut start = vec![0.0; d];
    let kernel = &model.layout().tensors()[1];
    start[kernel.range()].copy_from_slice(&[4.0, -4.0]);
    let how = serde_json::json!({
        "epochs": 1, "batch_size": CANARIES / 4, "clip_examples_l2": CLIP, "freeze": ["layers.2"],
        "optimizer": {"type": "sgd", "learning_rate": 0.001 * f64::from(CANARIES / 4)}
    });
    let how: TrainSpec = serde_json::from_value(how).unwrap();
    let mut rng = ChaCha20Rng::from_seed([seed; 32]);
    let coins: Vec<bool> = (0..CANARIES).map(|_| rng.next_u32() & 1 == 1).collect();
    let tokens: Vec<f32> = (0..CANARIES)
        .filter(|canary| coins[*canary as usize])
        .map(|canary| canary as f32)
        .collect();
    let labels = vec![0; tokens.len()];
    let examples = Examples::new(tokens, labels, 1, 2).unwrap();
    let mut chance = Seeded {
        noise: multiplier.map(|multiplier| ExampleNoise::new(multiplier, RATE, d).unwrap()),
        lots: ExampleNoise::new(claimed, RATE, d).unwrap(),
        rng,
    };
    let steps = PrivateSteps {
        steps_per_epoch: STEPS,
        grid_step: ExampleNoise::grid_step(CLIP),
    };
    let mut observer = Unobserved;
    let training = Training::new(&model, &examples, &how);
    let training = training.run_private(&start, steps, &mut chance, &Device::Cpu, &mut observer);
    let trained = block_on(training).unwrap();
    // A canary that takes part moves its own weight up, since that makes its label likelier.
    let mut seen: Vec<(f32, bool)> = trained.parameters[..CANARIES as usize]
        .iter()
        .copied()
        .zip(coins)
        .collect();
    seen.sort_by(|(a, _), (b, _)| a.total_cmp(b));
    let each = seen.len() / 100;
    let out = seen[..each].iter().filter(|(_, is_in)| !is_in).count();
    let inside = seen[seen.len() - each..]
        .iter()
        .filter(|(_, is_in)| *is_in)
        .count();
    Audit::new(CANARIES.into(), 2 * each as u64, (out + inside) as u64).unwrap()
}

#[test]
fn training_with_noise_on_gradients_passes_its_audit_and_too_little_noise_fails_it() {
    // δ times the number of canaries must be far below the probability of failing.
    let (z, delta) = (4.0, 1e-11);
    let step = GaussianSum::new(z, Sampling::Poisson { rate: RATE }).unwrap();
    let run = Composition::new(Adjacency::AddRemove)
        .repeat(step, STEPS.into())
        .unwrap();
    let claimed = run.epsilon(Accountant::Pld, delta).unwrap().epsilon;
    // Private training fails with probability at most 10⁻⁶.
    let found = |multiplier, seed| {
        let audit = attack(multiplier, z, seed);
        audit.epsilon_at_least(delta, 1.0 - 1e-6).unwrap()
    };
    let honest = found(Some(z), 1);
    assert!(honest <= claimed, "{honest} {claimed}");
    // It is no blunt attack: it shows a good part of what there is.
    assert!(honest > 0.1 * claimed, "{honest} {claimed}");
    // Positive controls: the variance where the deviation was meant, and no noise, where only the lots are random.
    let quarter = found(Some(z / 4.0), 2);
    assert!(quarter > claimed, "{quarter} {claimed}");
    let none = found(None, 3);
    assert!(none > claimed, "{none} {claimed}");
    println!(
        "claimed {claimed:.3}, shown {honest:.3}; with a quarter of the noise {quarter:.3}, without {none:.3}"
    );
}
