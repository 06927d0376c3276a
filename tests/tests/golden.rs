//! The golden losses of tests/vectors/v1, step by step, on the CPU.
#![cfg(not(target_arch = "wasm32"))]
#![allow(missing_docs, clippy::panic, clippy::unwrap_used, clippy::expect_used)] // tests

use pollster::block_on;
use serde_json::{Value, json};
use unsaid_engine::{Device, Model, TrainSpec, Unobserved, train};
use unsaid_tests::workloads::{BATCHES, workloads};

/// Steps of the golden losses.
const STEPS: usize = 20;

/// Each loss agrees with the one computed in f64 to 2e-5, relative: some 20 steps of rounding in f32; a rectifier or a pool that
/// goes the other way at a tie costs the most. The control is that the two optimisers' losses differ by more.
#[test]
fn losses_agree_with_the_golden_ones() {
    let golden: Value = serde_json::from_str(include_str!("../vectors/v1/losses.json")).unwrap();
    for workload in workloads() {
        let model = Model::new(&serde_json::from_value(workload.model.clone()).unwrap()).unwrap();
        let start = workload.weights(&model);
        let examples = workload.examples();
        let mut all = Vec::new();
        for (name, optimizer) in [
            ("sgd", json!({"type": "sgd", "learning_rate": workload.rate})),
            ("adam", json!({"type": "adam", "learning_rate": 0.001})),
        ] {
            let how: TrainSpec = serde_json::from_value(json!({
                "epochs": STEPS.div_ceil(BATCHES), "batch_size": workload.batch, "shuffle": false, "optimizer": optimizer
            }))
            .unwrap();
            let trained = block_on(train(
                &model,
                &start,
                &examples,
                &how,
                0,
                &Device::Cpu,
                &mut Unobserved,
            ))
            .unwrap();
            let expected: Vec<f64> =
                serde_json::from_value(golden["losses"][workload.name][name].clone()).unwrap();
            assert_eq!(expected.len(), STEPS);
            for (step, (&found, &expected)) in trained.losses.iter().zip(&expected).enumerate() {
                let error = (f64::from(found) - expected).abs() / expected;
                assert!(
                    error <= 2e-5,
                    "{} {name} step {step}: {found} {expected}: {error:e}",
                    workload.name
                );
            }
            all.push(expected);
        }
        let apart = all[0].iter().zip(&all[1]).any(|(a, b)| (a - b).abs() / b > 2e-4);
        assert!(apart, "{}: the optimisers cannot be told apart", workload.name);
    }
}
