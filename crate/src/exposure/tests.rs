use pollster::block_on;
use serde_json::{Value, json};

use super::*;
use crate::task::tests::{NO_FLOORS, read, terms};

const FEATURES: usize = 64;
const LABEL: u32 = 7;

/// A 64-16-10 network for 8 × 8 pictures, on a fine grid.
fn task(privacy: Value, change: impl Fn(&mut Value)) -> Task {
    let mut terms = terms();
    terms["model"] = json!({
        "input": [FEATURES],
        "layers": [{"type": "dense", "units": 16}, {"type": "relu"}, {"type": "dense", "units": 10}],
        "loss": "softmax-cross-entropy",
    });
    terms["parameters"] = (65 * 16 + 17 * 10).into();
    terms["data"] = json!({"kind": "classification", "features": FEATURES, "classes": 10});
    terms["training"]["epochs"] = 3.into();
    terms["update"] = json!({"clip_l2": 0.25, "grid_step": 0.25 / 65_536.0});
    terms["privacy"] = privacy;
    change(&mut terms);
    read(&terms, &NO_FLOORS).unwrap()
}

/// A ring.
fn picture() -> Vec<f32> {
    let pixel = |at: usize| {
        let (x, y) = ((at % 8) as f32 - 3.5, (at / 8) as f32 - 3.5);
        if (x.hypot(y) - 2.5).abs() < 0.8 { 1.0 } else { 0.0 }
    };
    (0..FEATURES).map(pixel).collect()
}

fn seen(task: &Task) -> Vec<Exposure> {
    let weights = task.model.initial_parameters(3);
    block_on(exposure(
        task,
        &weights,
        &picture(),
        LABEL,
        &mut Random::default(),
    ))
    .unwrap()
}

/// What a picture of one grey gets: the best that knows nothing.
fn grey() -> f64 {
    let x = picture();
    let mean = x.iter().sum::<f32>() / FEATURES as f32;
    psnr(&x, &[mean; FEATURES], 1.0).unwrap()
}

#[test]
fn an_update_without_noise_gives_its_one_example_away_clipped_or_not() {
    let task = task(json!({"mode": "none"}), |_| {});
    let seen = seen(&task);
    let behind: Vec<Protection> = seen.iter().map(|row| row.protection).collect();
    assert_eq!(behind, [Protection::None, Protection::Clip]);
    for row in &seen {
        // Several steps on one example only add to the other factor. What is left is the grid, at 2⁻¹⁸.
        assert!(
            row.psnr > 40.0 && row.ssim.is_some_and(|ssim| ssim > 0.95),
            "{row:?}"
        );
        assert_eq!(row.label, Some(LABEL as usize));
        assert_eq!(row.clipped, row.protection == Protection::Clip);
        assert_eq!(row.found.as_ref().map(Vec::len), Some(FEATURES));
        let coordinates = task.encoding.dimension();
        assert!(row.frame_bytes > UpdateFrame::HEADER_LEN + coordinates, "{row:?}");
    }
}

#[test]
fn behind_the_tasks_noise_there_is_nothing_to_see_in_any_mode() {
    for privacy in [
        json!({"mode": "local", "noise_multiplier": 1.0}),
        json!({"mode": "central", "unit": "update", "trust": "relay", "mechanism": "discrete-gaussian", "noise_multiplier": 1.0, "adjacency": "add-remove", "delta": 1e-5}),
        json!({"mode": "example", "clip_l2": 0.5, "noise_multiplier": 2.0, "sampling_rate": 0.3}),
    ] {
        let task = task(privacy, |_| {});
        for _ in 0..10 {
            let [open, clip, noise] = &seen(&task)[..] else {
                panic!("three rows");
            };
            assert_eq!(noise.protection, Protection::Noise);
            // The control: the same attack, before the noise.
            assert!(
                open.psnr > 40.0 && clip.psnr > 40.0,
                "{} {}",
                open.psnr,
                clip.psnr
            );
            assert!(noise.psnr < grey() + 3.0, "{} {}", noise.psnr, grey());
            assert!(noise.ssim.is_none_or(|ssim| ssim < 0.5), "{:?}", noise.ssim);
        }
    }
}

#[test]
fn weak_noise_hides_as_little_as_it_is() {
    let task = task(json!({"mode": "local", "noise_multiplier": 0.001}), |_| {});
    let last = seen(&task).pop().unwrap();
    assert!(
        last.protection == Protection::Noise && last.psnr > 20.0,
        "{last:?}"
    );
}

#[test]
fn what_the_attack_cannot_read_is_said() {
    let mut others = Vec::new();
    let conv = json!({"type": "conv2d", "filters": 2, "kernel": [3, 3], "padding": "same"});
    for (input, layers, parameters) in [
        (
            json!([FEATURES]),
            json!([{"type": "relu"}, {"type": "dense", "units": 10}]),
            650,
        ),
        (
            json!([8, 8, 1]),
            json!([conv, {"type": "flatten"}, {"type": "dense", "units": 10}]),
            1_310,
        ),
    ] {
        others.push(task(json!({"mode": "none"}), |terms| {
            terms["model"]["input"] = input.clone();
            terms["model"]["layers"] = layers.clone();
            terms["parameters"] = parameters.into();
        }));
    }
    for task in &others {
        let weights = task.model.initial_parameters(3);
        let refused = block_on(exposure(
            task,
            &weights,
            &picture(),
            LABEL,
            &mut Random::default(),
        ));
        assert!(
            matches!(&refused, Err(ClientError::BadOptions(why)) if why.contains("dense first layer")),
            "{refused:?}"
        );
    }
    let task = task(json!({"mode": "none"}), |_| {});
    let weights = task.model.initial_parameters(3);
    for (x, label) in [
        (vec![0.5; 63], LABEL),
        (picture(), 10),
        (vec![f32::NAN; FEATURES], LABEL),
    ] {
        let refused = block_on(exposure(&task, &weights, &x, label, &mut Random::default()));
        assert!(matches!(refused, Err(ClientError::BadData(_))), "{refused:?}");
    }
    let refused = block_on(exposure(
        &task,
        &weights[1..],
        &picture(),
        LABEL,
        &mut Random::default(),
    ));
    assert!(refused.is_err());
}

#[test]
fn a_model_that_is_sure_already_gives_nothing_away() {
    let task = task(json!({"mode": "none"}), |_| {});
    let mut weights = task.model.initial_parameters(3);
    let bias = task.model.layout().tensors().last().unwrap().range();
    weights[bias][LABEL as usize] = 1e4;
    let seen = block_on(exposure(
        &task,
        &weights,
        &picture(),
        LABEL,
        &mut Random::default(),
    ))
    .unwrap();
    for row in &seen {
        assert_eq!((&row.found, row.label, row.psnr), (&None, None, 0.0));
    }
}
