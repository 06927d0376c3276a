//! The terms of the tasks here, and the data.

use unsaid::task::Task;
use unsaid_privacy::ClientFloors;
use unsaid_protocol::{ContentHash, DataSchema, Manifest, Privacy, RoundPolicy, UpdateEncoding};

/// Floors that every task passes.
pub const NO_FLOORS: ClientFloors = ClientFloors {
    min_noise_multiplier: 0.0,
    max_clip_l2: 1e9,
    min_cohort: 1,
    max_rounds_per_day: u32::MAX,
    example_level: true,
    trust_relay: true,
};

/// Terms of a small task with noise: 67 parameters.
pub fn manifest() -> Manifest {
    Manifest {
        protocol: unsaid_protocol::VERSION,
        task: "flowers".parse().unwrap(),
        title: "Flowers".into(),
        description: String::new(),
        model: serde_json::json!({
            "input": [4],
            "layers": [{"type": "dense", "units": 8}, {"type": "relu"}, {"type": "dense", "units": 3}],
            "loss": "softmax-cross-entropy",
        }),
        parameters: 67,
        training: training(0.1),
        data: DataSchema::Classification {
            features: 4,
            classes: 3,
        },
        strategy: None,
        identity: None,
        control_variates: false,
        update: UpdateEncoding {
            max_weight: None,
            clip_l2: 1.0,
            grid_step: 1.0 / 1024.0,
        },
        privacy: Privacy::Local {
            noise_multiplier: 4.0,
        },
        rounds: RoundPolicy {
            min_clients: 2,
            target_clients: 4,
            deadline_ms: 60_000,
        },
    }
}

/// Two epochs in steps of eight examples.
pub fn training(learning_rate: f64) -> serde_json::Value {
    serde_json::json!({
        "epochs": 2,
        "batch_size": 8,
        "optimizer": {"type": "sgd", "learning_rate": learning_rate},
    })
}

/// The same terms without noise.
pub fn noiseless() -> Manifest {
    Manifest {
        privacy: Privacy::None,
        ..manifest()
    }
}

/// The same terms without noise, with control variates: two epochs of five steps.
pub fn control() -> Manifest {
    let mut training = training(0.1);
    training["steps_per_epoch"] = 5.into();
    let terms = noiseless();
    Manifest {
        training,
        // Far above what a correction does to an update.
        update: UpdateEncoding {
            clip_l2: 100.0,
            ..terms.update
        },
        control_variates: true,
        strategy: Some(serde_json::json!({"aggregation": {"type": "scaffold", "population": 9}})),
        ..terms
    }
}

/// The same terms with noise on gradients, that protects single examples.
pub fn example() -> Manifest {
    Manifest {
        privacy: Privacy::Example {
            clip_l2: 1.0,
            noise_multiplier: 4.0,
            sampling_rate: 0.1,
        },
        ..manifest()
    }
}

pub fn task(manifest: &Manifest) -> Task {
    let json = manifest.to_json();
    Task::new(&json, ContentHash::of(&json), &NO_FLOORS).unwrap()
}

/// Examples whose numbers are like no others.
pub(super) fn examples() -> (Vec<f32>, Vec<u32>) {
    let feature = |i: u32| (i as f32 * 0.739_085_1).sin();
    (
        (0..24 * 4).map(feature).collect(),
        (0..24).map(|i| i % 3).collect(),
    )
}
