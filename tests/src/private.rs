//! Training that is private for each example.

use unsaid_engine::{
    Chance, Control, Device, EngineError, Examples, GpuDevice, Model, Observer, PrivateSteps, Progress,
    SpecError, TargetKind, TrainSpec, Trained, Training, Unobserved,
};

use crate::{layers::cases, training::problem};

/// Chance that is none: these lots and this noise, one after the other and then from the start again.
struct Script {
    lots: Vec<Vec<u32>>,
    noise: Vec<Vec<i32>>,
    drawn: usize,
}

impl Script {
    fn new(lots: &[&[u32]], noise: Vec<Vec<i32>>) -> Self {
        let lots = lots.iter().map(|lot| lot.to_vec()).collect();
        Self {
            lots,
            noise,
            drawn: 0,
        }
    }
}

impl Chance for Script {
    fn lot(&mut self, _: u32, lot: &mut Vec<u32>) -> Result<(), EngineError> {
        assert!(lot.is_empty());
        lot.extend(&self.lots[self.drawn % self.lots.len()]);
        self.drawn += 1;
        Ok(())
    }

    fn noise(&mut self, noise: &mut [i32]) -> Result<(), EngineError> {
        if let Some(drawn) = self.noise.get((self.drawn - 1) % self.noise.len().max(1)) {
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

/// Example `index` alone.
fn one_of(examples: &Examples, index: usize) -> Examples {
    let (features, targets) = (examples.features(), examples.targets_per_example());
    let x = examples.x()[index * features..][..features].to_vec();
    let y = examples.y()[index * targets..][..targets].to_vec();
    let one = match examples.kind() {
        TargetKind::Labels { classes } => Examples::sequences(x, y, features, targets, classes),
        _ => {
            let values: Vec<f32> = y.into_iter().map(f32::from_bits).collect();
            Examples::with_values(x, &values, features, targets)
        }
    };
    one.unwrap()
}

/// The sum of the gradients of the examples in `lot`, one by one, each clipped to `clip`, in f64.
fn naive(model: &Model, start: &[f32], examples: &Examples, lot: &[u32], clip: f64) -> Vec<f64> {
    let mut sum = vec![0.0; start.len()];
    for &index in lot {
        let one = one_of(examples, index as usize);
        let (_, gradient) = model.loss_and_gradient(start, &one).unwrap();
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
/// of its length: for every kind of layer, for lots that are small, more than a batch holds, and everybody, where some are
/// clipped and some not, and where all are.
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
            for lot in [&all[..1], &all[n as usize / 2..], &backwards] {
                // Lots of 1 are expected: a batch has room for 4.
                let rate = 1024.0;
                let spec = how(
                    1,
                    1,
                    Some(clip),
                    serde_json::json!({"type": "sgd", "learning_rate": rate}),
                );
                // So fine a grid that rounding to it is far below 1e-5.
                let steps = PrivateSteps {
                    steps_per_epoch: 1,
                    grid_step: clip / f32::powi(2.0, 23),
                };
                let mut script = Script::new(&[lot], Vec::new());
                let trained = Training::new(&model, &examples, &spec)
                    .run_private(&start, steps, &mut script, device, &mut Unobserved)
                    .await
                    .unwrap();
                let expected = naive(&model, &start, &examples, lot, clip.into());
                let found = trained.parameters.iter().zip(&start);
                let found = found.map(|(after, before)| f64::from(before - after) / rate);
                let off = norm(found.zip(&expected).map(|(found, expected)| found - expected));
                let length = norm(expected.iter().copied());
                // The weights themselves are rounded, too.
                let rounding = 2f64.powi(-24) * norm(trained.parameters.iter().map(|w| f64::from(*w)));
                let allowed = 1e-5 * length + 2.0 * rounding / rate;
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

/// A model, parameters, and examples.
type Problem = (Model, Vec<f32>, Examples);

/// A perceptron, and `rows` examples that are all much alike, so that their gradients add up to a sum as long as it can be: what rounding
/// of a sum does most to.
fn alike(rows: usize) -> Problem {
    let (model, _) = problem(2, 48, 24, 10);
    let noise = crate::noise(13, rows * 48);
    let x: Vec<f32> = noise
        .iter()
        .enumerate()
        .map(|(at, x)| ((at % 48) as f32).sin() + 0.01 * x)
        .collect();
    let start = model.initial_parameters(5);
    (model, start, Examples::new(x, vec![3; rows], 48, 10).unwrap())
}

/// How much longer than the clip norm the difference of two sums can be in 32-bit floats, with one example and without it, is what
/// `ExampleNoise::ALLOWANCE` is for: measured here for every kind of layer, and for up to 2,000 examples that are all alike; for the first,
/// a middle and the last example, of lots that fit in a batch and of lots that do not. (The weights are rounded, too: twice that is taken off.)
pub async fn one_example_moves_a_sum_by_its_clip_norm_and_the_allowance_at_most(device: &Device) {
    let mut problems: Vec<(String, Problem)> = cases()
        .iter()
        .filter(|case| !case.name.contains("dropout"))
        .map(|case| (case.name.to_owned(), case.problem()))
        .collect();
    problems.extend([300, 2_000].map(|rows| (format!("{rows} alike"), alike(rows))));
    let (mut least, mut most) = (f64::INFINITY, 0.0_f64);
    for (name, (model, start, examples)) in problems {
        let n = examples.len() as u32;
        let norms = model.loss_and_clipped_gradient(&start, &examples, 1.0).unwrap().2;
        // Everybody whose gradient is not next to nothing is clipped.
        let clip = (0.1 * norms.iter().copied().fold(0.0, f64::max)) as f32;
        if clip < 1e-6 {
            continue;
        }
        let rate = 1024.0;
        // So fine a grid that what is measured is not its rounding, and so coarse that the largest sum fits.
        let steps = PrivateSteps {
            steps_per_epoch: 1,
            grid_step: clip * (n as f32).max(64.0) / f32::powi(2.0, 29),
        };
        for expected in [1.max(n / 40), n] {
            let spec = how(
                1,
                expected,
                Some(clip),
                serde_json::json!({"type": "sgd", "learning_rate": rate}),
            );
            let sum = async |lot: Vec<u32>| {
                let mut script = Script::new(&[&lot], Vec::new());
                let trained = Training::new(&model, &examples, &spec)
                    .run_private(&start, steps, &mut script, device, &mut Unobserved)
                    .await
                    .unwrap();
                let moved = trained.parameters.iter().zip(&start);
                let scale = f64::from(expected) / rate;
                let rounding = 2f64.powi(-24) * norm(trained.parameters.iter().map(|w| f64::from(*w)));
                let sum: Vec<f64> = moved
                    .map(|(after, before)| f64::from(before - after) * scale)
                    .collect();
                (sum, rounding * scale)
            };
            let (with, rounding) = sum((0..n).collect()).await;
            for left_out in [0, n / 2, n - 1] {
                let (without, more) = sum((0..n).filter(|index| *index != left_out).collect()).await;
                let moved = norm(with.iter().zip(&without).map(|(with, without)| with - without));
                let length = (moved - 2.0 * (rounding + more)) / f64::from(clip);
                assert!(
                    length <= 1.0 + unsaid_privacy::ExampleNoise::ALLOWANCE,
                    "{name}, without {left_out} of {n}: {length}"
                );
                if name.contains("alike") {
                    least = least.min(moved / f64::from(clip));
                }
                most = most.max(moved / f64::from(clip));
            }
        }
    }
    // It is measured on examples that are clipped to their norm.
    assert!(least > 0.9 && most > 0.99, "{least} {most}");
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
    let steps = PrivateSteps {
        steps_per_epoch: 1,
        grid_step: f32::powi(2.0, -18),
    };
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
        let steps = PrivateSteps {
            steps_per_epoch: 5,
            grid_step: 0.5 * f32::powi(2.0, -18),
        };
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
        // On a GPU the loss of a lot that takes several batches is that of the first.
        for (step, (a, b)) in here.losses.iter().zip(&there.losses).enumerate() {
            let is_whole = matches!(step % 4, 0 | 3) || matches!(device, Device::Cpu);
            assert!(
                !is_whole || (a - b).abs() <= 1e-3 * b.abs().max(0.1),
                "step {step}: {a} {b}"
            );
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
    fn lot(&mut self, _: u32, _: &mut Vec<u32>) -> Result<(), EngineError> {
        Err(EngineError::Chance("no randomness".into()))
    }

    fn noise(&mut self, _: &mut [i32]) -> Result<(), EngineError> {
        Err(EngineError::Chance("no randomness".into()))
    }
}

/// Everything that would break the promise is an error.
pub async fn private_training_refuses_what_would_not_be_private(device: &Device) {
    let (model, examples) = problem(12, 5, 4, 3);
    let sgd = || serde_json::json!({"type": "sgd", "learning_rate": 0.25});
    let good = how(1, 4, Some(0.5), sgd());
    let steps = PrivateSteps {
        steps_per_epoch: 2,
        grid_step: 0.001,
    };
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
    chance(run(data, &good, steps, &mut script(&[0; 13]), device).await);
    // Which numbers dropout drops depends on how many others there are.
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
    // An example whose gradient is no number, in the last step too, of which no loss tells.
    let broken = Examples::new([vec![3e38; 5], vec![0.5; 55]].concat(), vec![0; 12], 5, 3).unwrap();
    let once = PrivateSteps {
        steps_per_epoch: 1,
        ..steps
    };
    let failed = run((&model, &broken), &good, once, &mut script(&[0, 1]), device).await;
    assert!(matches!(failed, Err(EngineError::NonFinite { .. })), "{failed:?}");
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

/// A GPU that is lost in the middle: the epoch is done again on the CPU, with lots and noise of its own, and so are the rest.
pub async fn a_gpu_that_is_lost_in_private_training_has_the_epoch_done_again(gpu: GpuDevice) {
    let (model, examples) = problem(40, 9, 8, 4);
    let start = model.initial_parameters(5);
    let spec = how(
        3,
        4,
        Some(0.5),
        serde_json::json!({"type": "sgd", "learning_rate": 0.1}),
    );
    let steps = PrivateSteps {
        steps_per_epoch: 6,
        grid_step: 0.001,
    };
    let mut script = Script::new(&[&[1, 2, 3], &[4, 5]], Vec::new());
    let mut observer = Destroyer {
        gpu: gpu.clone(),
        at: (2, 3),
        fallbacks: 0,
    };
    let device = Device::Gpu(gpu);
    let trained = Training::new(&model, &examples, &spec)
        .run_private(&start, steps, &mut script, &device, &mut observer)
        .await
        .unwrap();
    assert!(trained.fell_back && observer.fallbacks == 1);
    assert_eq!((trained.losses.len(), trained.steps), (18, 18));
    // Steps 1 to 4 or 5 of the second epoch were drawn twice.
    assert!((22..=24).contains(&script.drawn), "{}", script.drawn);
}
