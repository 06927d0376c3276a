//! What is in the bytes that leave.

use std::rc::Rc;

use pollster::block_on;
use unsaid_engine::{Device, Examples, Unobserved, train};
use unsaid_privacy::Ledger;
use unsaid_protocol::{Manifest, UpdateFrame};

use crate::{
    cost, run,
    world::{World, manifest, noiseless},
};

/// The body of one round with one example in one step: the update is the same whatever the order, but for rounding and noise.
fn one_step(terms: Manifest) -> (Rc<World>, UpdateFrame, Vec<f32>) {
    let one_epoch = serde_json::json!({
        "epochs": 1,
        "batch_size": 1,
        "optimizer": {"type": "sgd", "learning_rate": 0.1},
    });
    let world = World::new(Manifest {
        training: one_epoch,
        ..terms
    });
    let example = (vec![0.731_921, -0.618_033_97, 1.234_567_9, 0.271_828_18], vec![2]);
    world.store.examples.replace(example.clone());
    let task = world.session().task;
    let before = task.model.initial_parameters(1);
    let examples = Examples::new(example.0, example.1, 4, 3).unwrap();
    let mut unobserved = Unobserved;
    let (model, training) = (&task.model, &task.training);
    let trained = train(
        model,
        &before,
        &examples,
        training,
        1,
        &Device::Cpu,
        &mut unobserved,
    );
    let after = block_on(trained).unwrap().parameters;
    assert_eq!(run(&world, 1).unwrap().rounds, 1);
    let frame = world.relay.state.borrow().counted[0].clone();
    let steps = 1.0 / task.manifest.update.grid_step as f32;
    let clear = after.iter().zip(&before).map(|(a, b)| (a - b) * steps).collect();
    (world, frame, clear)
}

/// The largest distance, in grid steps, between what was sent and the clear update.
fn distance(frame: &UpdateFrame, clear: &[f32]) -> f32 {
    assert_eq!(frame.coordinates.len(), clear.len());
    let far = frame.coordinates.iter().zip(clear);
    far.map(|(sent, clear)| (*sent as f32 - clear).abs())
        .fold(0.0, f32::max)
}

#[test]
fn without_noise_the_frame_is_the_clipped_update_on_the_grid() {
    let (world, frame, clear) = one_step(noiseless());
    // Rounding moves a coordinate by less than one step; the float arithmetic of the comparison adds next to nothing.
    assert!(distance(&frame, &clear) < 1.001);
    let norm_squared: u64 = frame
        .coordinates
        .iter()
        .map(|c| u64::from(c.unsigned_abs()).pow(2))
        .sum();
    assert!(norm_squared <= world.session().task.encoding.bound_squared());
}

#[test]
fn with_noise_the_clear_update_never_leaves() {
    // σ = 4 · 1028 steps: all 67 coordinates lie within 500 steps of the clear update with a probability below 10⁻⁶⁰.
    let (world, frame, clear) = one_step(manifest());
    assert!(distance(&frame, &clear) > 500.0);
    let sent = world.sent()[0];
    assert_eq!(world.store.ledger().entries()[0].frame_sha256, sent.to_string());
}

#[test]
fn the_same_data_and_model_never_give_the_same_update_twice() {
    let (_, one, _) = one_step(manifest());
    let (_, other, _) = one_step(manifest());
    assert_eq!(
        (one.round, one.model, one.client),
        (other.round, other.model, other.client)
    );
    assert_ne!(one.update, other.update);
    let same = one
        .coordinates
        .iter()
        .zip(&other.coordinates)
        .filter(|(a, b)| a == b);
    // Each of 67 is the same with a probability below 1/10,000: six are with one below 10⁻¹⁶.
    assert!(same.count() < 6);
}

#[test]
fn no_raw_example_is_in_any_body() {
    let world = World::new(manifest());
    run(&world, 3).unwrap();
    let without_noise = World::new(noiseless());
    run(&without_noise, 3).unwrap();
    let (x, _) = world.store.examples.borrow().clone();
    let bytes: Vec<u8> = x.iter().flat_map(|x| x.to_le_bytes()).collect();
    // Two numbers side by side: eight bytes that chance does not make (3 · 95 · 400 / 2⁶⁴).
    let contains = |body: &[u8]| {
        let pairs = bytes.chunks_exact(4).zip(bytes.chunks_exact(4).skip(1));
        let mut pairs = pairs.map(|(a, b)| [a, b].concat());
        pairs.any(|pair| body.windows(8).any(|window| window == pair))
    };
    assert!(
        contains(&[&[7; 13], &bytes[40..60], &[7; 3]].concat()),
        "the search finds what is there"
    );
    for world in [&world, &without_noise] {
        let bodies = world.relay.state.borrow().bodies.clone();
        assert_eq!(bodies.len(), 3);
        for body in bodies {
            assert!(!contains(&body));
            // A frame, the whole frame and nothing but the frame.
            let frame = UpdateFrame::decode(&body).unwrap();
            assert!(body.len() <= UpdateFrame::max_len(67));
            assert_eq!(frame.manifest, world.relay.state.borrow().manifest);
        }
    }
}

#[test]
fn the_ledger_adds_up_over_sessions() {
    let world = World::new(manifest());
    for _ in 0..3 {
        run(&world, 1).unwrap();
    }
    let ledger: Ledger = world.store.ledger();
    let three = cost(&manifest()).times(3);
    assert_eq!((ledger.count(), ledger.spent()), (3, three));
    let mut ids: Vec<_> = ledger
        .entries()
        .iter()
        .map(|entry| entry.update.clone())
        .collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 3);
}
