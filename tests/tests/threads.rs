//! Training with helping threads, natively. A file of its own, since helpers stay for the whole process.
#![cfg(not(target_arch = "wasm32"))]
#![allow(missing_docs, clippy::panic, clippy::unwrap_used, clippy::expect_used)] // tests

use pollster::block_on;
use unsaid_engine::{Device, Examples, Model, TrainSpec, Trained, Unobserved, crew, train};
use unsaid_tests::noise;

/// Models whose steps are large enough to be shared out, and batches of which the last is not full.
fn problems() -> Vec<(Model, Examples)> {
    let classes = 10;
    let labels = |count: usize| (0..count).map(|at| (at * 7 % classes) as u32).collect::<Vec<_>>();
    let images = serde_json::json!({
        "input": [20, 20, 3],
        "layers": [
            {"type": "conv2d", "filters": 8, "kernel": [3, 3], "padding": "same"}, {"type": "relu"},
            {"type": "max-pool2d", "size": [2, 2]}, {"type": "group-norm", "groups": 2}, {"type": "gelu"},
            {"type": "flatten"}, {"type": "dense", "units": 120}, {"type": "relu"}, {"type": "dense", "units": classes}
        ],
        "loss": "softmax-cross-entropy"
    });
    let sequences = serde_json::json!({
        "input": [9, 40],
        "layers": [{"type": "lstm", "units": 64}, {"type": "cifg-lstm", "units": 64, "projection": 32}, {"type": "dense", "units": classes}],
        "loss": "softmax-cross-entropy"
    });
    let model = |spec| Model::new(&serde_json::from_value(spec).unwrap()).unwrap();
    vec![
        (
            model(images),
            Examples::new(noise(1, 45 * 1200), labels(45), 1200, classes).unwrap(),
        ),
        (
            model(sequences),
            Examples::sequences(noise(2, 45 * 360), labels(45 * 9), 360, 9, classes).unwrap(),
        ),
    ]
}

fn run(model: &Model, examples: &Examples, clip: Option<f32>) -> Trained {
    let how: TrainSpec = serde_json::from_value(serde_json::json!({
        "epochs": 2, "batch_size": 32, "clip_examples_l2": clip, "optimizer": {"type": "adam", "learning_rate": 0.001}
    }))
    .unwrap();
    let start = model.initial_parameters(5);
    block_on(train(
        model,
        &start,
        examples,
        &how,
        3,
        &Device::Cpu,
        &mut Unobserved,
    ))
    .unwrap()
}

/// The same number of threads gives the same bits, and another number the same losses: natively the `gemm` crate may sum in another
/// order where a product is cut, so a loss may be off by as many roundings as its longest sum has terms, over four steps.
#[test]
fn helpers_change_nothing_but_rounding() {
    assert_eq!(crew::size(), 1);
    let problems = problems();
    let clips = [None, Some(0.5)];
    let results = || -> Vec<Trained> {
        problems
            .iter()
            .flat_map(|(model, examples)| clips.map(|clip| run(model, examples, clip)))
            .collect()
    };
    let alone = results();
    for threads in [2, 3] {
        assert_eq!(crew::start(threads), threads);
        let shared = results();
        assert_eq!(shared, results(), "{threads} threads, the same bits");
        for (alone, shared) in alone.iter().zip(&shared) {
            for (a, b) in alone.losses.iter().zip(&shared.losses) {
                assert!(
                    (a - b).abs() <= 4.0 * 1200.0 * 2f32.powi(-24) * a,
                    "{threads}: {a} {b}"
                );
            }
        }
    }
    assert_eq!(crew::start(1), 3, "none is stopped");
    // Trainings at the same time share one crew, and each has the bits that it would have by itself.
    let (model, examples) = &problems[0];
    let expected = run(model, examples, None);
    std::thread::scope(|scope| {
        let trainings: Vec<_> = (0..3)
            .map(|_| scope.spawn(|| run(model, examples, None)))
            .collect();
        for training in trainings {
            assert_eq!(training.join().unwrap(), expected);
        }
    });
}
