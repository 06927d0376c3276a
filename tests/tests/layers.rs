//! Every layer's forward, gradient and per-example norm on the CPU against a reference in f64.
#![cfg(not(target_arch = "wasm32"))]
#![allow(missing_docs, clippy::panic, clippy::unwrap_used, clippy::expect_used)] // tests

use unsaid_engine::Examples;
use unsaid_tests::{
    layers::{cases, tolerance},
    reference,
};

/// Central differences in f64 with step h = 1e-5 have an error of some 1e-16 · loss / h + h² ≈ 1e-10 of their own, so the
/// tolerance is that of rounding in f32.
#[test]
fn losses_and_gradients_agree_with_finite_differences_of_the_reference() {
    for case in cases() {
        let (model, parameters, examples) = case.problem();
        let (loss, gradient) = model.loss_and_gradient(&parameters, &examples).unwrap();
        let start: Vec<f64> = parameters.iter().map(|&p| f64::from(p)).collect();
        let expected = reference::loss(&case.spec, &start, &examples);
        assert!(
            (f64::from(loss) - expected).abs() <= 1e-5 * expected.abs().max(1.0),
            "{}: loss {loss} {expected}",
            case.name
        );
        let largest = gradient
            .iter()
            .fold(0.0f64, |max, &g| max.max(f64::from(g).abs()));
        let tolerance = tolerance(&model, case.rows) * largest.max(1e-3) + 1e-8;
        let step = 1e-5;
        let stride = (gradient.len() / 211).max(1);
        let chosen: Vec<usize> = (0..gradient.len()).step_by(stride).collect();
        let mut compared = 0;
        for &index in &chosen {
            let loss_at = |offset: f64| {
                let mut moved = start.clone();
                moved[index] += offset;
                reference::loss(&case.spec, &moved, &examples)
            };
            let (up, down) = (loss_at(step), loss_at(-step));
            // Where a unit switches inside the interval the loss has a corner, and the one-sided slopes differ.
            if ((up - expected) - (expected - down)).abs() / step > 1e-3 {
                continue;
            }
            compared += 1;
            let error = (f64::from(gradient[index]) - (up - down) / (2.0 * step)).abs();
            assert!(
                error <= tolerance,
                "{}: parameter {index}: {} {}: {error:e} > {tolerance:e}",
                case.name,
                gradient[index],
                (up - down) / (2.0 * step)
            );
        }
        assert!(
            compared * 10 >= chosen.len() * 9,
            "{}: too few parameters were compared: {compared} of {}",
            case.name,
            chosen.len()
        );
    }
}

/// Clipping by ghost norms gives what a loop over single examples gives, to 1e-5 of the largest, with a clip norm that half
/// of the examples are above.
#[test]
fn clipped_gradients_agree_with_a_loop_over_the_examples() {
    for case in cases() {
        let (model, parameters, examples) = case.problem();
        let mut single = Vec::new();
        for row in 0..examples.len() {
            let features = examples.features();
            let targets = examples.targets_per_example();
            let x = examples.x()[row * features..(row + 1) * features].to_vec();
            let y = &examples.y()[row * targets..(row + 1) * targets];
            let one = match examples.kind() {
                unsaid_engine::TargetKind::Labels { classes } => {
                    Examples::sequences(x, y.to_vec(), features, targets, classes)
                }
                _ => {
                    let values: Vec<f32> = y.iter().map(|&bits| f32::from_bits(bits)).collect();
                    Examples::with_values(x, &values, features, targets)
                }
            };
            single.push(model.loss_and_gradient(&parameters, &one.unwrap()).unwrap().1);
        }
        let norm = |g: &Vec<f32>| g.iter().map(|&v| f64::from(v) * f64::from(v)).sum::<f64>().sqrt();
        let norms: Vec<f64> = single.iter().map(norm).collect();
        let mut sorted = norms.clone();
        sorted.sort_by(f64::total_cmp);
        let clip = sorted[sorted.len() / 2] * 0.99;
        let mut expected = vec![0.0f64; parameters.len()];
        for (gradient, norm) in single.iter().zip(&norms) {
            let factor = (clip / norm).min(1.0) / examples.len() as f64;
            for (sum, &g) in expected.iter_mut().zip(gradient) {
                *sum += factor * f64::from(g);
            }
        }
        let (_, clipped, found) = model
            .loss_and_clipped_gradient(&parameters, &examples, clip as f32)
            .unwrap();
        for (found, expected) in found.iter().zip(&norms) {
            assert!(
                (found - expected).abs() <= 1e-5 * expected,
                "{}: norm {found} {expected}",
                case.name
            );
        }
        let largest = expected.iter().fold(0.0f64, |max, g| max.max(g.abs()));
        for (index, (&found, expected)) in clipped.iter().zip(&expected).enumerate() {
            let error = (f64::from(found) - expected).abs();
            assert!(
                error <= 1e-5 * largest,
                "{}: parameter {index}: {found} {expected}",
                case.name
            );
        }
    }
}
