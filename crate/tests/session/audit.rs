//! The audit of a whole session: weights that a relay made for it, lots and noise of the client's own, and the bytes that it sent.

use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};
use unsaid_privacy::{
    Adjacency, Trials,
    accounting::{Accountant, Composition, GaussianSum, Sampling},
};
use unsaid_protocol::{DataSchema, Manifest, Privacy, UpdateEncoding, UpdateFrame};

use crate::{
    run,
    world::{World, example, task},
};

/// Canaries of a session, one token of the vocabulary each, so that each moves a weight that no other touches.
const CANARIES: u32 = 400;
const SESSIONS: u32 = 150;
const STEPS: u32 = 16;
const RATE: f64 = 0.25;
/// What an example that is in a lot moves its weight by.
const MOVE: f64 = 0.1;

/// A task whose relay is the attacker: it learns a table of one number for each token, and nothing else.
fn terms(noise_multiplier: f64) -> Manifest {
    let expected = CANARIES / 8;
    Manifest {
        model: serde_json::json!({
            "input": [1],
            "layers": [{"type": "embedding", "vocabulary": CANARIES, "units": 1}, {"type": "flatten"}, {"type": "dense", "units": 2}],
            "loss": "softmax-cross-entropy",
        }),
        parameters: CANARIES + 4,
        training: serde_json::json!({
            "epochs": 4, "batch_size": expected, "freeze": ["layers.2"],
            "optimizer": {"type": "sgd", "learning_rate": MOVE * f64::from(expected)},
        }),
        data: DataSchema::Classification {
            features: 1,
            classes: 2,
        },
        update: UpdateEncoding {
            max_weight: None,
            clip_l2: 1000.0,
            grid_step: 1000.0 / 1_048_576.0,
        },
        privacy: Privacy::Example {
            clip_l2: 1.0,
            noise_multiplier,
            sampling_rate: RATE,
        },
        ..example()
    }
}

/// What the attacker says of each canary of all sessions: whether it was among the examples, by the middle of what it should have moved.
fn attack(noise_multiplier: f64, seed: u8) -> Trials {
    let mut rng = ChaCha20Rng::from_seed([seed; 32]);
    let terms = terms(noise_multiplier);
    let model = task(&terms).model;
    // The rows of the table are 0, and the frozen layer behind makes every gradient longer than its bound.
    let mut weights = vec![0.0; model.parameter_count()];
    let kernel = model.layout().tensors()[1].range();
    weights[kernel].copy_from_slice(&[4.0, -4.0]);
    let crafted = model.to_safetensors(&weights).unwrap();
    let (mut hits, mut alarms) = ([0, 0], [0, 0]);
    for _ in 0..SESSIONS {
        let world = World::new(terms.clone());
        world.relay.state.borrow_mut().serve(crafted.clone());
        let coins: Vec<bool> = (0..CANARIES).map(|_| rng.next_u32() & 1 == 1).collect();
        let tokens = (0..CANARIES).filter(|canary| coins[*canary as usize]);
        let tokens: Vec<f32> = tokens.map(|canary| canary as f32).collect();
        let labels = vec![0; tokens.len()];
        world.store.examples.replace((tokens, labels));
        assert_eq!(run(&world, 1).unwrap().rounds, 1);
        let frame = UpdateFrame::decode(&world.relay.state.borrow().bodies[0]).unwrap();
        let seen = task(&terms).encoding.decode(&frame.coordinates);
        let middle = (MOVE * f64::from(STEPS) * RATE / 2.0) as f32;
        for (change, is_in) in seen.iter().zip(coins) {
            let count = if is_in { &mut hits } else { &mut alarms };
            count[0] += u64::from(*change > middle);
            count[1] += 1;
        }
    }
    Trials::new(hits, alarms).unwrap()
}

#[test]
fn what_sessions_send_passes_its_audit_and_half_of_the_noise_fails_it() {
    let z = 4.0;
    assert_eq!(task(&terms(z)).steps_per_round(), STEPS);
    let step = GaussianSum::new(z, Sampling::Poisson { rate: RATE }).unwrap();
    let claimed = Composition::new(Adjacency::AddRemove)
        .repeat(step, STEPS.into())
        .unwrap();
    // Canaries are independent, since lots and noise are, and the weights make every gradient what it is. A client that keeps what it
    // claims fails with probability at most 10⁻⁶, whatever the platform's randomness.
    let refuted = |trials: Trials| {
        [0.2, 0.15, 0.11, 0.08, 0.05].iter().any(|&delta| {
            let epsilon = claimed.epsilon(Accountant::Pld, delta).unwrap().epsilon;
            trials.refute(epsilon, delta, 1.0 - 1e-6).unwrap()
        })
    };
    assert!(!refuted(attack(z, 1)), "what the terms say");
    for (seed, multiplier) in [(2, z / 2.0), (3, z / 4.0)] {
        assert!(refuted(attack(multiplier, seed)), "σ = {multiplier}");
    }
}
