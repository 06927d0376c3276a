//! Whole trainings that take minutes, and so are run by hand, in release:
//!
//! `UNSAID_DATA=.cache/mnist cargo test --release -p unsaid-tests --test learning -- --ignored --nocapture`
#![cfg(not(target_arch = "wasm32"))]
#![allow(missing_docs, clippy::panic, clippy::unwrap_used, clippy::expect_used)] // tests

use std::{env, fs, path::PathBuf};

use pollster::block_on;
use serde_json::json;
use unsaid_engine::{Device, Examples, Model, TrainSpec, Unobserved, train};
use unsaid_protocol::Shard;

fn shards(paths: &[PathBuf]) -> Examples {
    let (mut x, mut y) = (Vec::new(), Vec::new());
    for path in paths {
        let bytes = fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let shard = Shard::decode(&bytes).unwrap();
        x.extend(shard.features_f32());
        y.extend(shard.labels.iter().map(|&label| u32::from(label)));
    }
    Examples::new(x, y, 784, 10).unwrap()
}

/// The network of McMahan et al. 2017 on all 60,000 digits at once reads at least 99 % of the test digits after three epochs.
#[test]
#[ignore = "takes minutes and needs MNIST: see the head of this file"]
fn the_mnist_cnn_reads_99_percent() {
    let folder =
        PathBuf::from(env::var_os("UNSAID_DATA").expect("UNSAID_DATA names the folder of the shards"));
    let mut paths: Vec<PathBuf> = fs::read_dir(folder.join("iid"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    let (training, held_out) = (shards(&paths), shards(&[folder.join("test.shard")]));
    assert_eq!((training.len(), held_out.len()), (60_000, 10_000));
    let spec = json!({
        "input": [28, 28, 1],
        "layers": [
            {"type": "conv2d", "filters": 32, "kernel": [5, 5], "padding": "same"}, {"type": "relu"}, {"type": "max-pool2d", "size": [2, 2]},
            {"type": "conv2d", "filters": 64, "kernel": [5, 5], "padding": "same"}, {"type": "relu"}, {"type": "max-pool2d", "size": [2, 2]},
            {"type": "flatten"}, {"type": "dense", "units": 512}, {"type": "relu"}, {"type": "dense", "units": 10}
        ],
        "loss": "softmax-cross-entropy"
    });
    let model = Model::new(&serde_json::from_value(spec).unwrap()).unwrap();
    assert_eq!(model.parameter_count(), 1_663_370);
    let how: TrainSpec = serde_json::from_value(json!({
        "epochs": 3, "batch_size": 64, "optimizer": {"type": "adam", "learning_rate": 0.001}, "schedule": {"type": "cosine"}
    }))
    .unwrap();
    let start = model.initial_parameters(1);
    let trained = block_on(train(
        &model,
        &start,
        &training,
        &how,
        2,
        &Device::Cpu,
        &mut Unobserved,
    ))
    .unwrap();
    let found = model.evaluate(&trained.parameters, &held_out).unwrap();
    println!("MNIST CNN after 3 epochs: {:.2} %", 100.0 * found.accuracy);
    assert!(found.accuracy >= 0.99, "{found:?}");
}
