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
    Adjacency, Audit, ExampleNoise, Trials,
    accounting::{Accountant, Composition, GaussianSum, Sampling},
};

/// Canaries of a run, one token of the vocabulary each, so that each moves a weight that no other touches.
const CANARIES: u32 = 400;
/// Runs over other canaries each: what is audited is all of them, of which a canary is in one.
const RUNS: u32 = 250;
const STEPS: u32 = 16;
const RATE: f64 = 0.25;
const CLIP: f32 = 1.0;

/// What a run does otherwise than it says.
#[derive(Clone, Copy)]
struct Wrong {
    /// The part of the noise that there is.
    noise: f64,
    /// The part of everybody that is in a lot.
    rate: f64,
    /// What a gradient is clipped to.
    clip: f32,
}

const RIGHT: Wrong = Wrong {
    noise: 1.0,
    rate: RATE,
    clip: CLIP,
};

/// A generator of the test's.
struct Seeded {
    /// None adds no noise.
    noise: Option<ExampleNoise>,
    lots: ExampleNoise,
    rng: ChaCha20Rng,
}

impl Chance for Seeded {
    fn lot(&mut self, _: u32, examples: u32, lot: &mut Vec<u32>) -> Result<(), EngineError> {
        self.lots.lot(examples, lot, &mut self.rng);
        Ok(())
    }

    fn noise(&mut self, _: u32, noise: &mut [i32]) -> Result<(), EngineError> {
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

/// One run, in which a coin decides about each canary whether it is among the examples: the weights of the canaries, and the coins.
fn canaries(claimed: f64, wrong: Wrong, rng: &mut ChaCha20Rng) -> Vec<(f32, bool)> {
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
    let expected = CANARIES / 8;
    let how = serde_json::json!({
        "epochs": 1, "batch_size": expected, "clip_examples_l2": wrong.clip, "freeze": ["layers.2"],
        "optimizer": {"type": "sgd", "learning_rate": 0.001 * f64::from(expected)}
    });
    let how: TrainSpec = serde_json::from_value(how).unwrap();
    let coins: Vec<bool> = (0..CANARIES).map(|_| rng.next_u32() & 1 == 1).collect();
    let tokens: Vec<f32> = (0..CANARIES)
        .filter(|canary| coins[*canary as usize])
        .map(|canary| canary as f32)
        .collect();
    let labels = vec![0; tokens.len()];
    let examples = Examples::new(tokens, labels, 1, 2).unwrap();
    let drawn = |multiplier| ExampleNoise::new(multiplier, wrong.rate, d).unwrap();
    let steps = PrivateSteps {
        steps_per_epoch: STEPS,
        grid_step: ExampleNoise::grid_step(CLIP),
        bound_squared: if wrong.clip > CLIP {
            1 << 48
        } else {
            drawn(claimed).bound_squared()
        },
    };
    let mut chance = Seeded {
        noise: (wrong.noise > 0.0).then(|| drawn(wrong.noise * claimed)),
        lots: drawn(claimed),
        rng: rng.clone(),
    };
    let mut observer = Unobserved;
    let training = Training::new(&model, &examples, &how);
    let training = training.run_private(&start, steps, &mut chance, &Device::Cpu, &mut observer);
    let trained = block_on(training).unwrap();
    *rng = chance.rng;
    let weights = trained.parameters[..CANARIES as usize].iter().copied();
    weights.zip(coins).collect()
}

/// All runs (Steinke, Nasr, Jagielski 2023, algorithm 1): the attacker knows the canaries, and sees the trained weights; it guesses the
/// hundredth of the coins of which it is most certain on either side.
///
/// And as independent trials, which these are: each canary moves a weight of its own, by lots and noise of its own, and its gradient does not
/// depend on the others. The attacker says of each whether it took part, by the middle of what it should have moved.
fn attack(claimed: f64, wrong: Wrong, seed: u8) -> (Audit, Trials) {
    let mut rng = ChaCha20Rng::from_seed([seed; 32]);
    // A canary that takes part moves its own weight up, since that makes its label likelier.
    let mut seen: Vec<_> = (0..RUNS)
        .flat_map(|_| canaries(claimed, wrong, &mut rng))
        .collect();
    let middle = 0.001 * CLIP * STEPS as f32 * RATE as f32 / 2.0;
    let said_in = |of: bool| {
        let all = seen.iter().filter(|(_, is_in)| *is_in == of);
        let said = all.clone().filter(|(weight, _)| *weight > middle).count() as u64;
        [said, all.count() as u64]
    };
    let trials = Trials::new(said_in(true), said_in(false)).unwrap();
    seen.sort_by(|(a, _), (b, _)| a.total_cmp(b));
    let each = seen.len() / 100;
    let out = seen[..each].iter().filter(|(_, is_in)| !is_in).count();
    let inside = seen[seen.len() - each..]
        .iter()
        .filter(|(_, is_in)| *is_in)
        .count();
    let audit = Audit::new(seen.len() as u64, 2 * each as u64, (out + inside) as u64).unwrap();
    (audit, trials)
}

#[test]
fn training_with_noise_on_gradients_passes_its_audit_and_gross_mistakes_fail_it() {
    // δ times the number of canaries must be far below the probability of failing.
    let (z, delta) = (4.0, 1e-11);
    let step = GaussianSum::new(z, Sampling::Poisson { rate: RATE }).unwrap();
    let run = Composition::new(Adjacency::AddRemove)
        .repeat(step, STEPS.into())
        .unwrap();
    let claimed = run.epsilon(Accountant::Pld, delta).unwrap().epsilon;
    // What the accountant claims at large δ, where independent trials tell most.
    let claims: Vec<(f64, f64)> = [0.2, 0.15, 0.11, 0.08, 0.05, 0.02, 0.005]
        .map(|delta| (run.epsilon(Accountant::Pld, delta).unwrap().epsilon, delta))
        .into();
    // Private training fails with probability at most 10⁻⁶, by either.
    let found = |wrong, seed| {
        let (audit, trials) = attack(z, wrong, seed);
        let refute = |(epsilon, delta): &(f64, f64)| trials.refute(*epsilon, *delta, 1.0 - 1e-6).unwrap();
        let shown = audit.epsilon_at_least(delta, 1.0 - 1e-6).unwrap();
        (shown, claims.iter().any(refute))
    };
    let (honest, refuted) = found(RIGHT, 1);
    assert!(honest <= claimed && !refuted, "{honest} {claimed} {refuted}");
    // From one run, without independence, half of the noise is not caught; in trials it is, and so is a quarter less.
    let (half, refuted) = found(Wrong { noise: 0.5, ..RIGHT }, 2);
    println!("claimed {claimed:.3}, shown {honest:.3}, with half of the noise {half:.3}");
    assert!(refuted, "half of the noise");
    assert!(
        found(Wrong { noise: 0.75, ..RIGHT }, 4).1,
        "three quarters of the noise"
    );
    // It is no blunt attack: it shows a good part of what there is.
    assert!(
        honest > 0.1 * claimed && half > 1.5 * honest,
        "{honest} {half} {claimed}"
    );
    // Positive controls: the variance where the deviation was meant; no noise, where only the lots are random; no clipping; everybody in
    // every lot.
    for (what, wrong) in [
        ("a quarter of the noise", Wrong { noise: 0.25, ..RIGHT }),
        ("no noise", Wrong { noise: 0.0, ..RIGHT }),
        ("no clipping", Wrong { clip: 1e6, ..RIGHT }),
        ("everybody in every lot", Wrong { rate: 1.0, ..RIGHT }),
    ] {
        let (shown, refuted) = found(wrong, 3);
        println!("{what}: {shown:.3}");
        assert!(shown > claimed && refuted, "{what}: {shown} {claimed} {refuted}");
    }
}
