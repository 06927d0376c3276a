//! Training that is private for each example.

use unsaid_engine::{
    Chance, Control, Device, EngineError, Examples, GpuDevice, Model, Observer, PrivateSteps, Progress,
    SpecError, TargetKind, TrainSpec, Trained, Training, Unobserved,
};
use unsaid_privacy::ExampleNoise;

use crate::{layers::cases, training::problem};

/// Chance that is none: these lots and this noise, one after the other and then from the start again.
pub(crate) struct Script {
    lots: Vec<Vec<u32>>,
    noise: Vec<Vec<i32>>,
    drawn: usize,
}

impl Script {
    pub(crate) fn new(lots: &[&[u32]], noise: Vec<Vec<i32>>) -> Self {
        let lots = lots.iter().map(|lot| lot.to_vec()).collect();
        Self {
            lots,
            noise,
            drawn: 0,
        }
    }
}

impl Chance for Script {
    fn lot(&mut self, step: u32, _: u32, lot: &mut Vec<u32>) -> Result<(), EngineError> {
        assert!(lot.is_empty());
        lot.extend(&self.lots[step as usize % self.lots.len()]);
        self.drawn += 1;
        Ok(())
    }

    fn noise(&mut self, step: u32, noise: &mut [i32]) -> Result<(), EngineError> {
        if let Some(drawn) = self.noise.get(step as usize % self.noise.len().max(1)) {
            noise.copy_from_slice(drawn);
        } else {
            noise.fill(0);
        }
        Ok(())
    }
}

fn how(epochs: u32, batch: u32, clip: Option<f32>, optimizer: serde_json::Value) -> TrainSpec {
    let json = serde_json::json!({
        "epochs": epochs, "batch_size": batch, "clip_examples_l2": clip, "optimizer": optimizer
    });
    serde_json::from_value(json).unwrap()
}

/// A bound above everything.
const UNBOUNDED: u64 = 1 << 48;

const fn steps(steps_per_epoch: u32, grid_step: f32) -> PrivateSteps {
    PrivateSteps {
        steps_per_epoch,
        grid_step,
        bound_squared: UNBOUNDED,
    }
}

async fn run(
    (model, examples): (&Model, &Examples),
    spec: &TrainSpec,
    steps: PrivateSteps,
    chance: &mut dyn Chance,
    device: &Device,
) -> Result<Trained, EngineError> {
    let start = model.initial_parameters(5);
    Training::new(model, examples, spec)
        .run_private(&start, steps, chance, device, &mut Unobserved)
        .await
}

/// Some of the examples.
pub(crate) fn some_of(examples: &Examples, indices: &[usize]) -> Examples {
    let (features, targets) = (examples.features(), examples.targets_per_example());
    let x = indices
        .iter()
        .flat_map(|index| &examples.x()[index * features..][..features]);
    let y = indices
        .iter()
        .flat_map(|index| &examples.y()[index * targets..][..targets]);
    let (x, y): (Vec<f32>, Vec<u32>) = (x.copied().collect(), y.copied().collect());
    let some = match examples.kind() {
        TargetKind::Labels { classes } => Examples::sequences(x, y, features, targets, classes),
        _ => {
            let values: Vec<f32> = y.into_iter().map(f32::from_bits).collect();
            Examples::with_values(x, &values, features, targets)
        }
    };
    some.unwrap()
}

/// The sum of the gradients of the examples in `lot`, one by one, each clipped to `clip`, in f64. The first `frozen` parameters do not learn.
fn naive(
    model: &Model,
    start: &[f32],
    examples: &Examples,
    lot: &[u32],
    frozen: usize,
    clip: f64,
) -> Vec<f64> {
    let mut sum = vec![0.0; start.len()];
    for &index in lot {
        let one = some_of(examples, &[index as usize]);
        let (_, mut gradient) = model.loss_and_gradient(start, &one).unwrap();
        gradient[..frozen].fill(0.0);
        let norm = gradient.iter().map(|g| f64::from(*g).powi(2)).sum::<f64>().sqrt();
        let factor = clip / norm.max(clip);
        for (sum, g) in sum.iter_mut().zip(&gradient) {
            *sum += factor * f64::from(*g);
        }
    }
    sum
}

fn norm(values: impl Iterator<Item = f64>) -> f64 {
    values.map(|value| value * value).sum::<f64>().sqrt()
}

/// One step without noise is the mean, over the examples that a lot was expected to have, of gradients clipped one by one, to 1e-5
/// of its length: for every kind of layer, for lots of one, of half, and of everybody, where some are clipped and some not, and where
/// all are. On a grid so fine that rounding to it is far below that, and on the one that private tasks have, where each example is off
/// by half a step in each number at most.
pub async fn private_steps_agree_with_a_loop_over_single_examples(device: &Device) {
    let (mut checked, mut clipped) = (0, 0);
    for case in cases() {
        if case.name.contains("dropout") {
            continue;
        }
        let (model, start, examples) = case.problem();
        let n = examples.len() as u32;
        let all: Vec<u32> = (0..n).collect();
        let norms = model.loss_and_clipped_gradient(&start, &examples, 1.0).unwrap().2;
        let largest = norms.iter().copied().fold(0.0, f64::max);
        for share in [0.5, 0.05] {
            let clip = (share * largest) as f32;
            if clip < 1e-6 {
                continue; // nothing is learned here
            }
            clipped += norms.iter().filter(|norm| **norm > clip.into()).count();
            let backwards: Vec<u32> = (0..n).rev().collect();
            let fine = steps(1, clip / f32::powi(2.0, 23));
            let usual = PrivateSteps {
                grid_step: ExampleNoise::grid_step(clip),
                bound_squared: ExampleNoise::new(1.0, 1.0, start.len()).unwrap().bound_squared(),
                ..fine
            };
            for (lot, steps) in [&all[..1], &all[n as usize / 2..], &backwards]
                .into_iter()
                .flat_map(|lot| [(lot, fine), (lot, usual)])
            {
                let rate = 1024.0;
                let spec = how(
                    1,
                    1,
                    Some(clip),
                    serde_json::json!({"type": "sgd", "learning_rate": rate}),
                );
                let mut script = Script::new(&[lot], Vec::new());
                let trained = Training::new(&model, &examples, &spec)
                    .run_private(&start, steps, &mut script, device, &mut Unobserved)
                    .await
                    .unwrap();
                let expected = naive(&model, &start, &examples, lot, 0, clip.into());
                let found = trained.parameters.iter().zip(&start);
                let found = found.map(|(after, before)| f64::from(before - after) / rate);
                let off = norm(found.zip(&expected).map(|(found, expected)| found - expected));
                let length = norm(expected.iter().copied());
                // The weights themselves are rounded, too.
                let rounding = 2f64.powi(-24) * norm(trained.parameters.iter().map(|w| f64::from(*w)));
                let to_the_grid = if steps == usual {
                    lot.len() as f64 * (start.len() as f64).sqrt() / 2.0 * f64::from(steps.grid_step)
                } else {
                    0.0
                };
                let allowed = 1e-5 * length + to_the_grid + 2.0 * rounding / rate;
                assert!(
                    off <= allowed,
                    "{} of {} at {clip}: {off} {length}",
                    case.name,
                    lot.len()
                );
                checked += 1;
            }
        }
    }
    assert!(checked > 100 && clipped > 50, "{checked} {clipped}");
}

/// What a step adds is the noise of that step, times the grid's step over the examples expected, whether anybody is in the lot or
/// nobody.
pub async fn noise_is_added_to_the_sum_of_every_lot(device: &Device) {
    let (model, examples) = problem(12, 5, 4, 3);
    let start = model.initial_parameters(5);
    let d = start.len();
    let noise: Vec<Vec<i32>> = (0..3_i32)
        .map(|step| (0..d as i32).map(|at| (at - 7) * (step + 1) * 1000).collect())
        .collect();
    let all: Vec<u32> = (0..12).collect();
    let spec = how(
        1,
        4,
        Some(0.5),
        serde_json::json!({"type": "sgd", "learning_rate": 0.25}),
    );
    let steps = steps(1, f32::powi(2.0, -18));
    let unit = f64::powi(2.0, -18) / 4.0 * 0.25;
    for lot in [&all[..], &[]] {
        let mut quiet = Script::new(&[lot], Vec::new());
        let quiet = run((&model, &examples), &spec, steps, &mut quiet, device)
            .await
            .unwrap();
        assert_eq!(quiet.losses.len(), usize::from(!lot.is_empty()));
        assert_eq!(quiet.parameters == start, lot.is_empty());
        for noise in &noise {
            let mut loud = Script::new(&[lot], vec![noise.clone()]);
            let loud = run((&model, &examples), &spec, steps, &mut loud, device)
                .await
                .unwrap();
            for ((loud, quiet), noise) in loud.parameters.iter().zip(&quiet.parameters).zip(noise) {
                let found = f64::from(quiet - loud);
                let expected = f64::from(*noise) * unit;
                // Weights of at most 4, rounded a few times.
                assert!(
                    (found - expected).abs() < 4.0 * f64::powi(2.0, -23) * 4.0,
                    "{found} {expected}"
                );
            }
        }
    }
}

/// SCAFFOLD's correction is added to what a step makes of its lot, whoever is in it: after its noise, and unclipped.
pub async fn a_correction_is_added_to_every_private_step(device: &Device) {
    let (model, examples) = problem(12, 5, 4, 3);
    let start = model.initial_parameters(5);
    let correction: Vec<f32> = (0..start.len()).map(|at| (at as f32 * 0.7).sin() * 4.0).collect();
    let spec = how(
        1,
        4,
        Some(0.5),
        serde_json::json!({"type": "sgd", "learning_rate": 0.25}),
    );
    for lot in [&[0, 3, 5, 11][..], &[]] {
        let steps = steps(1, f32::powi(2.0, -18));
        let mut script = Script::new(&[lot], Vec::new());
        let without = run((&model, &examples), &spec, steps, &mut script, device)
            .await
            .unwrap();
        let mut script = Script::new(&[lot], Vec::new());
        let with = Training::new(&model, &examples, &spec)
            .correction(&correction)
            .run_private(&start, steps, &mut script, device, &mut Unobserved)
            .await
            .unwrap();
        for ((with, without), correction) in with.parameters.iter().zip(&without.parameters).zip(&correction)
        {
            let (found, expected) = (f64::from(without - with), f64::from(*correction) * 0.25);
            // Numbers of at most 4, rounded a few times.
            assert!(
                (found - expected).abs() < 4.0 * f64::powi(2.0, -23) * 4.0,
                "{found} {expected}"
            );
        }
    }
}

/// What a step leaves where nothing learns has no part in what the next one makes of its lot: neither in how long gradients are, nor in their
/// sum.
pub async fn what_does_not_learn_has_no_part_in_the_next_private_step(device: &Device) {
    let model = serde_json::json!({
        "input": [5, 5, 1],
        "layers": [
            {"type": "conv2d", "filters": 3, "kernel": [3, 3]}, {"type": "relu"}, {"type": "flatten"}, {"type": "dense", "units": 3}],
        "loss": "softmax-cross-entropy"
    });
    let model = Model::new(&serde_json::from_value(model).unwrap()).unwrap();
    let examples = Examples::new(crate::noise(3, 6 * 25), vec![0, 1, 2, 0, 1, 2], 25, 3).unwrap();
    let (start, frozen) = (model.initial_parameters(5), 3 * 9 + 3);
    let (clip, rate) = (0.5, 0.25);
    let mut spec = how(
        1,
        1,
        Some(clip),
        serde_json::json!({"type": "sgd", "learning_rate": rate}),
    );
    spec.freeze = vec!["layers.0".into()];
    let usual = |steps_per_epoch| PrivateSteps {
        steps_per_epoch,
        grid_step: ExampleNoise::grid_step(clip),
        bound_squared: ExampleNoise::new(1.0, 1.0, start.len()).unwrap().bound_squared(),
    };
    // Four times the clip norm in every number, and then none.
    let noise = || vec![vec![1 << 20; start.len()], vec![0; start.len()]];
    let lot = [0, 2, 3, 5];
    let mut after = Vec::new();
    for steps in [1, 2] {
        let mut script = Script::new(&[&lot], noise());
        let trained = Training::new(&model, &examples, &spec)
            .run_private(&start, usual(steps), &mut script, device, &mut Unobserved)
            .await
            .unwrap();
        assert_eq!(trained.parameters[..frozen], start[..frozen]);
        after.push(trained.parameters);
    }
    let expected = naive(&model, &after[0], &examples, &lot, frozen, clip.into());
    let found = after[0].iter().zip(&after[1]);
    let found = found.map(|(before, after)| f64::from(before - after) / rate);
    let off = norm(found.zip(&expected).map(|(found, expected)| found - expected));
    let length = norm(expected.iter().copied());
    let rounding = 2f64.powi(-24) * norm(after[1].iter().map(|w| f64::from(*w)));
    let to_the_grid =
        lot.len() as f64 * (start.len() as f64).sqrt() / 2.0 * f64::from(ExampleNoise::grid_step(clip));
    let allowed = 1e-5 * length + to_the_grid + 2.0 * rounding / rate;
    assert!(
        off <= allowed && length > 100.0 * allowed,
        "{off} {length} {allowed}"
    );
}

/// The largest noise on the largest sum of either sign stays within 32 bits.
pub async fn the_largest_noise_on_the_largest_sum_is_no_number_of_the_other_sign(device: &Device) {
    const EXAMPLES: u32 = 200;
    let model = serde_json::json!({
        "input": [1], "layers": [{"type": "dense", "units": 2}], "loss": "softmax-cross-entropy"
    });
    let model = Model::new(&serde_json::from_value(model).unwrap()).unwrap();
    // Only the biases have gradients, of −½ and ½, which are clipped to 2²³/√2 steps: 200 of them are beyond 2³⁰.
    let examples = Examples::new(vec![0.0; EXAMPLES as usize], vec![0; EXAMPLES as usize], 1, 2).unwrap();
    let clip = 0.5;
    let spec = how(
        1,
        EXAMPLES,
        Some(clip),
        serde_json::json!({"type": "sgd", "learning_rate": 1.0}),
    );
    let steps = steps(1, clip / f32::powi(2.0, 23));
    let everybody: Vec<u32> = (0..EXAMPLES).collect();
    let noise = vec![vec![0, 0, -(1 << 30), 1 << 30]];
    let mut script = Script::new(&[&everybody], noise);
    let trained = Training::new(&model, &examples, &spec)
        .run_private(&[0.0; 4], steps, &mut script, device, &mut Unobserved)
        .await
        .unwrap();
    // 2³¹ − 1 steps, as 32-bit floats have it, over the examples expected.
    let moved = f64::powi(2.0, 31 - 24) / f64::from(EXAMPLES);
    for (found, expected) in trained.parameters.iter().zip([0.0, 0.0, moved, -moved]) {
        assert!((f64::from(*found) - expected).abs() < 1e-6, "{found} {expected}");
    }
}

/// Many steps with noise, empty lots and lots of several batches: the same losses and weights as on the CPU.
pub async fn private_training_follows_the_cpu(device: &Device) {
    let (model, examples) = problem(40, 9, 8, 4);
    let d = model.parameter_count();
    let all: Vec<u32> = (0..40).collect();
    let odd: Vec<u32> = (1..40).step_by(2).collect();
    let lots: [&[u32]; 5] = [&[3, 8, 17], &[], &all, &odd, &[39]];
    let noise = || {
        let numbers = crate::noise(9, 5 * d);
        let steps = numbers.chunks_exact(d);
        steps
            .map(|step| step.iter().map(|x| (x * 1e5) as i32).collect())
            .collect::<Vec<_>>()
    };
    for optimizer in [
        serde_json::json!({"type": "sgd", "learning_rate": 0.5, "momentum": 0.9}),
        serde_json::json!({"type": "adam", "learning_rate": 0.01}),
    ] {
        let mut spec = how(3, 4, Some(0.5), optimizer);
        spec.weight_decay = 1e-3;
        spec.freeze = vec!["layers.0.bias".into()];
        let steps = steps(5, 0.5 * f32::powi(2.0, -18));
        let mut results = Vec::new();
        for device in [device, &Device::Cpu] {
            let mut script = Script::new(&lots, noise());
            results.push(
                run((&model, &examples), &spec, steps, &mut script, device)
                    .await
                    .unwrap(),
            );
            assert_eq!(script.drawn, 15);
        }
        let [here, there]: [Trained; 2] = results.try_into().unwrap();
        assert_eq!(
            (here.losses.len(), here.steps),
            (12, 15),
            "one lot of five is empty"
        );
        for (a, b) in here.parameters.iter().zip(&there.parameters) {
            assert!((a - b).abs() <= 2e-4 * b.abs().max(0.1), "{a} {b}");
        }
        for (step, (a, b)) in here.losses.iter().zip(&there.losses).enumerate() {
            assert!((a - b).abs() <= 1e-3 * b.abs().max(0.1), "step {step}: {a} {b}");
        }
        let frozen = model
            .layout()
            .tensors()
            .iter()
            .find(|tensor| tensor.name == "layers.0.bias")
            .unwrap();
        assert_eq!(
            here.parameters[frozen.range()],
            model.initial_parameters(5)[frozen.range()]
        );
        assert_ne!(here.parameters, model.initial_parameters(5));
    }
}

/// Chance that has none left.
struct Spent;

impl Chance for Spent {
    fn lot(&mut self, _: u32, _: u32, _: &mut Vec<u32>) -> Result<(), EngineError> {
        Err(EngineError::Chance("no randomness".into()))
    }

    fn noise(&mut self, _: u32, _: &mut [i32]) -> Result<(), EngineError> {
        Err(EngineError::Chance("no randomness".into()))
    }
}

/// Everything that would break the promise is an error.
pub async fn private_training_refuses_what_would_not_be_private(device: &Device) {
    let (model, examples) = problem(12, 5, 4, 3);
    let sgd = || serde_json::json!({"type": "sgd", "learning_rate": 0.25});
    let good = how(1, 4, Some(0.5), sgd());
    let steps = steps(2, 0.001);
    let script = |lot: &[u32]| Script::new(&[lot], Vec::new());
    let field = |result: Result<Trained, EngineError>| match result {
        Err(EngineError::Spec(SpecError::Training { field, .. })) => field,
        other => panic!("{other:?}"),
    };
    let data = (&model, &examples);
    assert!(
        run(data, &good, steps, &mut script(&[1, 2]), device)
            .await
            .is_ok()
    );
    let unclipped = how(1, 4, None, sgd());
    assert_eq!(
        field(run(data, &unclipped, steps, &mut script(&[1]), device).await),
        "clip_examples_l2"
    );
    let mut several = good.clone();
    several.accumulate = 2.try_into().unwrap();
    assert_eq!(
        field(run(data, &several, steps, &mut script(&[1]), device).await),
        "accumulate"
    );
    for grid_step in [0.0, -1.0, f32::NAN, f32::INFINITY, 1e-40] {
        let coarse = PrivateSteps { grid_step, ..steps };
        assert_eq!(
            field(run(data, &good, coarse, &mut script(&[1]), device).await),
            "grid_step"
        );
    }
    let long = how(4_000_000_000, 4, Some(0.5), sgd());
    for (spec, steps_per_epoch) in [(&good, 0), (&long, 2)] {
        let many = PrivateSteps {
            steps_per_epoch,
            ..steps
        };
        assert_eq!(
            field(run(data, spec, many, &mut script(&[1]), device).await),
            "epochs"
        );
    }
    let chance = |result: Result<Trained, EngineError>| {
        assert!(matches!(result, Err(EngineError::Chance(_))), "{result:?}")
    };
    chance(run(data, &good, steps, &mut Spent, device).await);
    chance(run(data, &good, steps, &mut script(&[12]), device).await);
    chance(run(data, &good, steps, &mut script(&[3, 5, 3]), device).await);
    let dropout = serde_json::json!({
        "input": [5], "layers": [{"type": "dropout", "rate": 0.5}, {"type": "dense", "units": 3}],
        "loss": "softmax-cross-entropy"
    });
    let dropout = Model::new(&serde_json::from_value(dropout).unwrap()).unwrap();
    let refused = run((&dropout, &examples), &good, steps, &mut script(&[1]), device).await;
    assert!(
        matches!(
            refused,
            Err(EngineError::Spec(SpecError::Refused {
                layer: 0,
                kind: "dropout",
                ..
            }))
        ),
        "{refused:?}"
    );
    #[cfg(not(target_arch = "wasm32"))]
    {
        let tensor = serde_json::json!({"name": "w", "shape": [5, 3], "spread": 0.1});
        let external = serde_json::json!({
            "input": [5], "layers": [{"type": "external", "tensors": [tensor], "output": [3]}], "loss": "softmax-cross-entropy"
        });
        let external = Model::new(&serde_json::from_value(external).unwrap()).unwrap();
        let refused = external.check_private(&good, steps);
        assert!(
            matches!(refused, Err(SpecError::Refused { kind: "external", .. })),
            "{refused:?}"
        );
    }
    for bound_squared in [0, (1 << 48) + 1] {
        let loose = PrivateSteps {
            bound_squared,
            ..steps
        };
        assert_eq!(
            field(run(data, &good, loose, &mut script(&[1]), device).await),
            "bound_squared"
        );
    }
}

/// Nothing that the data do is an error: an example whose gradient is no number, or beyond the bound, adds nothing, and parameters that are
/// no numbers are those of the start. The losses that are known are those of the others.
pub async fn nothing_that_the_data_do_ends_private_training(device: &Device) {
    let (model, examples) = problem(12, 5, 4, 3);
    // So large that products with the first example overflow, of either sign: what they add up to is no number.
    let start: Vec<f32> = model.initial_parameters(5).iter().map(|w| 100.0 * w).collect();
    let x = [&[3e38; 5], &examples.x()[5..]].concat();
    let broken = Examples::new(x, examples.y().to_vec(), 5, 3).unwrap();
    let sgd = |rate: f32| serde_json::json!({"type": "sgd", "learning_rate": rate});
    let spec = how(1, 4, Some(0.5), sgd(0.25));
    let once = steps(1, 0.5 * f32::powi(2.0, -18));
    let train = async |spec: &TrainSpec, steps: PrivateSteps, lot: &[u32], noise: i32| {
        let mut script = Script::new(&[lot], vec![vec![noise; start.len()]]);
        Training::new(&model, &broken, spec)
            .run_private(&start, steps, &mut script, device, &mut Unobserved)
            .await
            .unwrap()
    };
    let everybody: Vec<u32> = (0..12).collect();
    let others = &everybody[1..];
    let without = train(&spec, once, others, 0).await;
    assert_ne!(without.parameters, start);
    let with = train(&spec, once, &everybody, 0).await;
    assert_eq!(with.parameters, without.parameters);
    assert!(
        with.losses
            .iter()
            .chain(&without.losses)
            .all(|loss| loss.is_finite())
    );
    let alone = train(&spec, once, &[0], 0).await;
    assert_eq!(alone.parameters, start);
    assert!(alone.losses.iter().all(|loss| loss.is_finite()));
    // A bound that nobody keeps.
    let narrow = PrivateSteps {
        bound_squared: 1,
        ..once
    };
    assert_eq!(train(&spec, narrow, others, 0).await.parameters, start);
    // Steps beyond all numbers.
    let far = how(1, 4, Some(0.5), sgd(3e38));
    let twice = PrivateSteps {
        steps_per_epoch: 2,
        ..once
    };
    let trained = train(&far, twice, others, 1 << 30).await;
    assert_eq!((trained.parameters, trained.steps), (start.clone(), 2));
}

/// Who has no examples sends noise, of as many steps as anybody.
pub async fn nobody_is_told_that_there_are_no_examples(device: &Device) {
    let (model, examples) = problem(12, 5, 4, 3);
    let none = Examples::none(5, 3);
    let d = model.parameter_count();
    let spec = how(
        2,
        4,
        Some(0.5),
        serde_json::json!({"type": "sgd", "learning_rate": 0.25}),
    );
    let steps = steps(3, 0.001);
    let noise: Vec<Vec<i32>> = (0..6)
        .map(|step| (0..d as i32).map(|at| at * 7 + step).collect())
        .collect();
    let mut script = Script::new(&[&[]], noise.clone());
    let trained = run((&model, &none), &spec, steps, &mut script, device)
        .await
        .unwrap();
    assert_eq!((trained.steps, trained.losses.len(), script.drawn), (6, 0, 6));
    // As who has some, none of whom is in a lot.
    let mut script = Script::new(&[&[]], noise);
    let others = run((&model, &examples), &spec, steps, &mut script, &Device::Cpu)
        .await
        .unwrap();
    assert_eq!(trained.parameters, others.parameters);
    assert_ne!(trained.parameters, model.initial_parameters(5));
    // Other training has nothing to do.
    let refused = Training::new(&model, &none, &spec)
        .run(&model.initial_parameters(5), device, &mut Unobserved)
        .await;
    assert!(matches!(refused, Err(EngineError::Data(_))), "{refused:?}");
}

/// Destroys the device at a step of an epoch.
struct Destroyer {
    gpu: GpuDevice,
    at: (u32, u32),
    fallbacks: u32,
}

impl Observer for Destroyer {
    async fn progress(&mut self, progress: Progress<'_>) -> Control {
        match progress {
            Progress::Step { epoch, step, .. } if (epoch, step) == self.at => self.gpu.destroy(),
            Progress::Fallback { .. } => self.fallbacks += 1,
            _ => {}
        }
        Control::Continue
    }
}

/// A GPU that is lost in the middle: the epoch is done again on the CPU, with the same lots and the same noise, so that what comes of it
/// is what comes of the CPU alone.
pub async fn a_gpu_that_is_lost_in_private_training_has_the_epoch_done_again(gpu: GpuDevice) {
    let (model, examples) = problem(40, 9, 8, 4);
    let start = model.initial_parameters(5);
    let spec = how(
        3,
        4,
        Some(0.5),
        serde_json::json!({"type": "sgd", "learning_rate": 0.1}),
    );
    let steps = steps(6, 0.001);
    let noise = crate::noise(9, 18 * start.len());
    let noise: Vec<Vec<i32>> = noise
        .chunks_exact(start.len())
        .map(|step| step.iter().map(|x| (x * 1e3) as i32).collect())
        .collect();
    let script = || Script::new(&[&[1, 2, 3], &[4, 5], &[6], &[7, 8, 9]], noise.clone());
    let mut observer = Destroyer {
        gpu: gpu.clone(),
        at: (2, 3),
        fallbacks: 0,
    };
    let device = Device::Gpu(gpu);
    let mut lost = script();
    let trained = Training::new(&model, &examples, &spec)
        .run_private(&start, steps, &mut lost, &device, &mut observer)
        .await
        .unwrap();
    assert!(trained.fell_back && observer.fallbacks == 1);
    assert_eq!((trained.losses.len(), trained.steps), (18, 18));
    // Steps 1 to 4 or 5 of the second epoch were asked for twice.
    assert!((22..=24).contains(&lost.drawn), "{}", lost.drawn);
    let mut whole = script();
    let expected = run((&model, &examples), &spec, steps, &mut whole, &Device::Cpu)
        .await
        .unwrap();
    for (a, b) in trained.parameters.iter().zip(&expected.parameters) {
        assert!((a - b).abs() <= 2e-4 * b.abs().max(0.1), "{a} {b}");
    }
}
