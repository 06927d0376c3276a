//! Training as a whole.

use crate::noise;
use unsaid_engine::{
    Control, Device, EngineError, Examples, Model, Observer, PADDING, Progress, TrainSpec, Trained, Training,
    Unobserved, train,
};

/// A perceptron `inputs-hidden-classes` and examples whose label can be learned: the largest of the first `classes` features
/// (or of as many as there are).
pub fn problem(examples: usize, inputs: usize, hidden: usize, classes: usize) -> (Model, Examples) {
    let spec = serde_json::json!({
        "input": [inputs],
        "layers": [{"type": "dense", "units": hidden}, {"type": "relu"}, {"type": "dense", "units": classes}],
        "loss": "softmax-cross-entropy"
    });
    let model = Model::new(&serde_json::from_value(spec).unwrap()).unwrap();
    let x = noise(11, examples * inputs);
    let label = |row: &[f32]| {
        let seen = &row[..classes.min(inputs)];
        (0..seen.len()).fold(0, |best, i| if seen[i] > seen[best] { i } else { best }) as u32
    };
    let y = x.chunks_exact(inputs).map(label).collect();
    (model, Examples::new(x, y, inputs, classes).unwrap())
}

/// A training spec.
pub fn spec(epochs: u32, batch_size: u32, learning_rate: f32, momentum: f32) -> TrainSpec {
    let optimizer = serde_json::json!({"type": "sgd", "learning_rate": learning_rate, "momentum": momentum});
    let json = serde_json::json!({"epochs": epochs, "batch_size": batch_size, "optimizer": optimizer});
    serde_json::from_value(json).unwrap()
}

async fn run(model: &Model, examples: &Examples, spec: &TrainSpec, device: &Device) -> Trained {
    let start = model.initial_parameters(5);
    train(model, &start, examples, spec, 3, device, &mut Unobserved)
        .await
        .unwrap()
}

/// One step, then a whole training run, on `device` and on the CPU, for sizes beside every tile edge.
///
/// One step moves a weight by `lr · g`; the two back ends sum the same numbers in another order, so their gradients differ by at
/// most `terms · 2⁻²⁴` of the sum of magnitudes (Higham 2002, section 3.1), for which 8 × the largest gradient stands here, and
/// the weight itself is rounded once.
pub async fn agrees_with_the_cpu(device: &Device) {
    for (rows, inputs, hidden, classes) in [
        (1, 1, 1, 2),
        (2, 3, 5, 7),
        (7, 33, 31, 3),
        (33, 65, 64, 10),
        (64, 128, 32, 4),
        (5, 784, 128, 10),
    ] {
        let (model, examples) = problem(rows, inputs, hidden, classes);
        let start = model.initial_parameters(5);
        let rate = 0.5;
        let once = spec(1, rows as u32, rate, 0.0);
        let (here, there) = (
            run(&model, &examples, &once, device).await,
            run(&model, &examples, &once, &Device::Cpu).await,
        );
        let moved = start
            .iter()
            .zip(&there.parameters)
            .fold(0.0f32, |max, (before, after)| max.max((before - after).abs()));
        assert!(moved > 0.0, "nothing was learned");
        let terms = (rows + inputs + hidden + classes) as f32;
        let tolerance = 8.0 * terms * 2f32.powi(-24) * moved + 2f32.powi(-23);
        for (index, (a, b)) in here.parameters.iter().zip(&there.parameters).enumerate() {
            let error = (a - b).abs();
            assert!(
                error <= tolerance,
                "{rows}×{inputs}-{hidden}-{classes}: weight {index}: {error:e} > {tolerance:e}"
            );
        }
        assert!((here.losses[0] - there.losses[0]).abs() <= 1e-5 * there.losses[0].max(1.0));
    }
}

/// Several epochs with momentum and a last batch that is not full: the losses follow the CPU's, and learning happens.
pub async fn learns_like_the_cpu(device: &Device) {
    let (model, examples) = problem(203, 17, 24, 5);
    let spec = spec(6, 16, 0.1, 0.9);
    let here = run(&model, &examples, &spec, device).await;
    let there = run(&model, &examples, &spec, &Device::Cpu).await;
    assert_eq!(here.losses.len(), 6 * 203usize.div_ceil(16));
    assert_eq!(here.losses.len(), there.losses.len());
    // Differences grow from step to step as the weights drift apart; over 78 steps they stay below one part in a thousand.
    for (step, (a, b)) in here.losses.iter().zip(&there.losses).enumerate() {
        assert!((a - b).abs() <= 1e-3 * b.abs().max(0.1), "step {step}: {a} {b}");
    }
    let accuracy = model.evaluate(&here.parameters, &examples).unwrap().accuracy;
    assert!(accuracy > 0.9, "{accuracy}");
}

/// Every optimiser, schedule and term of the gradient does on `device` what it does on the CPU, and what is frozen stays.
pub async fn every_optimizer_agrees_with_the_cpu(device: &Device) {
    use serde_json::json;
    let (model, examples) = problem(40, 9, 8, 4);
    let start = model.initial_parameters(5);
    let correction: Vec<f32> = noise(21, model.parameter_count())
        .iter()
        .map(|v| 0.01 * v)
        .collect();
    let sgd = json!({"type": "sgd", "learning_rate": 0.1});
    let heavy = json!({"type": "sgd", "learning_rate": 0.05, "momentum": 0.9});
    let nesterov = json!({"type": "sgd", "learning_rate": 0.05, "momentum": 0.9, "nesterov": true});
    let adam = json!({"type": "adam", "learning_rate": 0.01});
    let adamw = json!({"type": "adam", "learning_rate": 0.01, "weight_decay": 0.1});
    let adagrad = json!({"type": "adagrad", "learning_rate": 0.05});
    let mut finals: Vec<Vec<f32>> = Vec::new();
    for more in [
        json!({"optimizer": sgd}),
        json!({"optimizer": heavy}),
        json!({"optimizer": nesterov}),
        json!({"optimizer": adam}),
        json!({"optimizer": adamw}),
        json!({"optimizer": adagrad}),
        json!({"optimizer": sgd, "schedule": {"type": "linear"}}),
        json!({"optimizer": adam, "schedule": {"type": "cosine", "end": 0.1}}),
        json!({"optimizer": sgd, "schedule": {"type": "step", "every": 3, "factor": 0.5}}),
        json!({"optimizer": sgd, "weight_decay": 0.1}),
        json!({"optimizer": sgd, "proximal": 1.0}),
        json!({"optimizer": adam, "freeze": ["layers.0.kernel"]}),
        json!({"optimizer": heavy, "freeze": ["layers.2"]}),
        json!({"optimizer": sgd, "shuffle": false}),
    ] {
        let mut how = json!({"epochs": 3, "batch_size": 16});
        for (key, value) in more.as_object().unwrap() {
            how[key] = value.clone();
        }
        let spec: TrainSpec = serde_json::from_value(how).unwrap();
        for correction in [&[][..], &correction] {
            let mut results = Vec::new();
            for device in [device, &Device::Cpu] {
                let training = Training::new(&model, &examples, &spec)
                    .seed(3)
                    .correction(correction);
                results.push(training.run(&start, device, &mut Unobserved).await.unwrap());
            }
            for (index, (a, b)) in results[0]
                .parameters
                .iter()
                .zip(&results[1].parameters)
                .enumerate()
            {
                // Nine steps; Adam divides by the root of a small number, which magnifies rounding.
                assert!(
                    (a - b).abs() <= 2e-4 * b.abs().max(0.1),
                    "{more}: weight {index}: {a} {b}"
                );
            }
            for tensor in model.layout().tensors() {
                let frozen = spec.freeze.iter().any(|name| tensor.name.starts_with(name));
                let same = results[0].parameters[tensor.range()] == start[tensor.range()];
                assert_eq!(same, frozen, "{more}: {}", tensor.name);
            }
            assert!(
                !finals.contains(&results[1].parameters),
                "{more} changes nothing that another setting does not"
            );
            finals.push(results[1].parameters.clone());
        }
    }
}

/// SCAFFOLD's rounds on `device` are algorithm 1 of Karimireddy et al. 2020 (option II, one step of the server), written out here in
/// f64 for a line through points: the same parameters, control variates and shared variate. And they do what they are for:
/// clients that pull apart end where the sum of their losses is least, which averages of uncorrected steps do not.
pub async fn scaffold_is_the_papers_algorithm(device: &Device) {
    let spec_of = serde_json::json!({"input": [1], "layers": [{"type": "dense", "units": 1}], "loss": "mean-squared-error"});
    let model = Model::new(&serde_json::from_value(spec_of).unwrap()).unwrap();
    // Batches of two, and of all that a client has: only these are without the noise of batches.
    for batch in [2, 4] {
        let how = serde_json::json!({
            "epochs": LINE_EPOCHS, "batch_size": batch, "shuffle": false, "optimizer": {"type": "sgd", "learning_rate": LINE_RATE}
        });
        let how: TrainSpec = serde_json::from_value(how).unwrap();
        let (mut x, mut c, mut own) = (vec![0.0f32; 2], vec![0.0f32; 2], [vec![0.0f32; 2], vec![0.0; 2]]);
        for _ in 0..LINE_ROUNDS {
            let mut ends = Vec::new();
            for (own, (points, targets)) in own.iter_mut().zip(LINES) {
                let examples = Examples::with_values(points.to_vec(), &targets, 1, 1).unwrap();
                let correction: Vec<f32> = c.iter().zip(&*own).map(|(c, own)| c - own).collect();
                let training = Training::new(&model, &examples, &how).correction(&correction);
                let end = training.run(&x, device, &mut Unobserved).await.unwrap();
                *own = training.control_variate(&x, &end.parameters).unwrap();
                ends.push(end.parameters);
            }
            let mean = |rows: [&[f32]; 2]| [0, 1].map(|at| rows[0][at].midpoint(rows[1][at])).to_vec();
            x = mean([&ends[0], &ends[1]]);
            c = mean([&own[0], &own[1]]);
        }
        let (by_hand_x, by_hand_c, by_hand_own) = scaffold_by_hand(batch, true);
        let pairs = [
            (&x, by_hand_x),
            (&c, by_hand_c),
            (&own[0], by_hand_own[0]),
            (&own[1], by_hand_own[1]),
        ];
        for (here, by_hand) in pairs {
            for (a, b) in here.iter().zip(by_hand) {
                // Rounds contract, so that the rounding of one does not add up to more than a few: at most a dozen steps of a dozen
                // operations on numbers below 8, divided by the learning rate.
                let tolerance = 12.0 * 12.0 * 8.0 / f64::from(LINE_RATE) * 2f64.powi(-24);
                assert!(
                    (f64::from(*a) - b).abs() <= tolerance,
                    "batches of {batch}: {a} {b}"
                );
            }
        }
        if batch == 4 {
            // The gradient of the sum, by the weight.
            let slope = |[weight, bias]: [f64; 2]| {
                let pairs = LINES
                    .iter()
                    .flat_map(|(points, targets)| points.iter().zip(targets));
                let miss = |point: f32, target: f32| weight * f64::from(point) + bias - f64::from(target);
                let terms = pairs.map(|(&point, &target)| miss(point, target) * f64::from(point));
                terms.sum::<f64>().abs()
            };
            let (corrected, drifting) = (slope(by_hand_x), slope(scaffold_by_hand(batch, false).0));
            assert!(corrected < 1e-6 && drifting > 0.1, "{corrected} {drifting}");
        }
    }
}

/// The points and targets of two clients: lines that no line fits both.
const LINES: [([f32; 4], [f32; 4]); 2] = [
    ([-1.0, -0.5, 0.25, 1.0], [-3.0, -2.0, -0.5, 1.0]),
    ([0.0, 0.5, 1.0, 1.5], [1.0, 0.75, 0.5, 0.25]),
];
const LINE_RATE: f32 = 0.125;
const LINE_EPOCHS: usize = 6;
const LINE_ROUNDS: usize = 80;

/// Algorithm 1 over [`LINES`] for the model `weight · point + bias` and the squared error: the parameters, the shared control variate
/// and the clients', `[weight, bias]` each. Uncorrected, it is federated averaging.
fn scaffold_by_hand(batch: usize, corrected: bool) -> ([f64; 2], [f64; 2], [[f64; 2]; 2]) {
    let mean = |rows: [[f64; 2]; 2]| [0, 1].map(|at| (rows[0][at] + rows[1][at]) / 2.0);
    let rate = f64::from(LINE_RATE);
    let (mut x, mut c, mut own) = ([0.0; 2], [0.0; 2], [[0.0; 2]; 2]);
    for _ in 0..LINE_ROUNDS {
        let (mut ends, mut next) = ([[0.0; 2]; 2], own);
        for (i, (points, targets)) in LINES.iter().enumerate() {
            let mut y = x;
            let mut steps = 0.0;
            for _ in 0..LINE_EPOCHS {
                for (points, targets) in points.chunks(batch).zip(targets.chunks(batch)) {
                    let mut gradient = [0.0; 2];
                    for (&point, &target) in points.iter().zip(targets) {
                        let slope = 2.0 * (y[0] * f64::from(point) + y[1] - f64::from(target)) / batch as f64;
                        gradient[0] += slope * f64::from(point);
                        gradient[1] += slope;
                    }
                    for at in [0, 1] {
                        let correction = if corrected { c[at] - own[i][at] } else { 0.0 };
                        y[at] -= rate * (gradient[at] + correction);
                    }
                    steps += 1.0;
                }
            }
            next[i] = [0, 1].map(|at| own[i][at] - c[at] + (x[at] - y[at]) / (steps * rate));
            ends[i] = y;
        }
        x = mean(ends);
        own = next;
        c = mean(own);
    }
    (x, c, own)
}

/// Dropout drops the same numbers on `device` as on the CPU, and learning still happens.
pub async fn dropout_agrees_with_the_cpu(device: &Device) {
    let spec_of = serde_json::json!({
        "input": [17],
        "layers": [{"type": "dense", "units": 40}, {"type": "relu"}, {"type": "dropout", "rate": 0.4}, {"type": "dense", "units": 5}],
        "loss": "softmax-cross-entropy"
    });
    let (_, examples) = problem(203, 17, 24, 5);
    let model = Model::new(&serde_json::from_value(spec_of).unwrap()).unwrap();
    let spec = spec(6, 16, 0.3, 0.0);
    let (here, there) = (
        run(&model, &examples, &spec, device).await,
        run(&model, &examples, &spec, &Device::Cpu).await,
    );
    for (step, (a, b)) in here.losses.iter().zip(&there.losses).enumerate() {
        assert!((a - b).abs() <= 1e-3 * b.abs().max(0.1), "step {step}: {a} {b}");
    }
    let accuracy = model.evaluate(&here.parameters, &examples).unwrap().accuracy;
    assert!(accuracy > 0.9, "{accuracy}");
}

/// Per-example clipping bounds every step by the learning rate times the clip norm, and a norm that none reaches changes nothing.
pub async fn clipping_bounds_the_step(device: &Device) {
    let (model, examples) = problem(40, 9, 8, 4);
    let start = model.initial_parameters(5);
    let clipped = async |clip: f32| {
        let how = serde_json::json!({
            "epochs": 1, "batch_size": 40, "clip_examples_l2": clip, "optimizer": {"type": "sgd", "learning_rate": 1.0}
        });
        let how: TrainSpec = serde_json::from_value(how).unwrap();
        train(&model, &start, &examples, &how, 3, device, &mut Unobserved).await
    };
    let result = clipped(0.01).await.unwrap().parameters;
    let squares = result
        .iter()
        .zip(&start)
        .map(|(after, before)| (after - before).powi(2));
    let norm = squares.sum::<f32>().sqrt();
    assert!(norm > 0.0 && norm <= 0.01 * 1.0001, "{norm}");
    let free = clipped(1e6).await.unwrap().parameters;
    let plain = run(&model, &examples, &spec(1, 40, 1.0, 0.0), device).await;
    for (a, b) in free.iter().zip(&plain.parameters) {
        assert!((a - b).abs() <= 1e-5, "{a} {b}");
    }
    let senseless = clipped(0.0).await;
    assert!(matches!(senseless, Err(EngineError::Spec(_))), "{senseless:?}");
}

/// Two trainings, the second with the first one's optimiser, are one training of as many epochs.
pub async fn an_optimizer_can_be_resumed(device: &Device) {
    let (model, examples) = problem(40, 9, 8, 4);
    let start = model.initial_parameters(5);
    let json = |epochs: u32| serde_json::json!({"epochs": epochs, "batch_size": 16, "shuffle": false, "optimizer": {"type": "adam", "learning_rate": 0.01}});
    let [two, four]: [TrainSpec; 2] = [2, 4].map(|epochs| serde_json::from_value(json(epochs)).unwrap());
    let whole = Training::new(&model, &examples, &four)
        .run(&start, device, &mut Unobserved)
        .await
        .unwrap();
    let first = Training::new(&model, &examples, &two)
        .run(&start, device, &mut Unobserved)
        .await
        .unwrap();
    let second = Training::new(&model, &examples, &two)
        .resume(&first.optimizer, first.steps)
        .run(&first.parameters, device, &mut Unobserved)
        .await
        .unwrap();
    assert_eq!(second.parameters, whole.parameters);
    assert_eq!((second.steps, whole.steps), (12, 12));
}

/// Steps over several batches are steps over one batch of all their examples: the same losses and parameters but for the order of
/// the sums, also where batches have unequal numbers of targets that count, where the last step has fewer batches and the last
/// batch fewer examples, and where each example is clipped.
pub async fn accumulated_batches_are_one_large_batch(device: &Device) {
    let (classes, time) = (4, 3);
    let spec_of = serde_json::json!({
        "input": [time, 2], "layers": [{"type": "dense", "units": 8}, {"type": "relu"}, {"type": "dense", "units": classes}],
        "loss": "softmax-cross-entropy"
    });
    let model = Model::new(&serde_json::from_value(spec_of).unwrap()).unwrap();
    let rows = 23;
    // The first examples are mostly padding.
    let label = |at: usize| {
        if at < 25 && !at.is_multiple_of(5) {
            PADDING
        } else {
            (at % classes) as u32
        }
    };
    let examples = Examples::sequences(
        noise(31, rows * time * 2),
        (0..rows * time).map(label).collect(),
        time * 2,
        time,
        classes,
    )
    .unwrap();
    let how = |batch: u32, accumulate: u32, clip: Option<f32>| -> TrainSpec {
        let how = serde_json::json!({
            "epochs": 2, "batch_size": batch, "accumulate": accumulate, "clip_examples_l2": clip, "shuffle": false,
            "optimizer": {"type": "sgd", "learning_rate": 0.5, "momentum": 0.9}
        });
        serde_json::from_value(how).unwrap()
    };
    let start = model.initial_parameters(5);
    for clip in [None, Some(0.1)] {
        let mut results = Vec::new();
        for (batch, accumulate) in [(12, 1), (4, 3), (4, 1)] {
            let spec = how(batch, accumulate, clip);
            let result = train(&model, &start, &examples, &spec, 3, device, &mut Unobserved).await;
            results.push(result.unwrap());
        }
        let [whole, parts, other]: [Trained; 3] = results.try_into().unwrap();
        assert_eq!((whole.losses.len(), parts.losses.len(), parts.steps), (4, 4, 4));
        // Four steps. A sum of `terms` numbers is off by at most terms · 2⁻²⁴ of the sum of magnitudes in either order (Higham
        // 2002, section 3.1); 8 stands for that sum over the largest move of a weight, and the drift of the later steps.
        let terms = (rows * time + 8) as f32;
        let tolerance = 8.0 * terms * 2f32.powi(-24);
        for (a, b) in whole.parameters.iter().zip(&parts.parameters) {
            assert!((a - b).abs() <= tolerance, "{clip:?}: {a} {b}");
        }
        for (a, b) in whole.losses.iter().zip(&parts.losses) {
            assert!((a - b).abs() <= tolerance * b, "{clip:?}: {a} {b}");
        }
        let apart = |other: &Trained| {
            let pairs = whole.parameters.iter().zip(&other.parameters);
            pairs.fold(0.0f32, |most, (a, b)| most.max((a - b).abs()))
        };
        assert!(
            apart(&other) > 100.0 * tolerance,
            "smaller steps go elsewhere: {}",
            apart(&other)
        );
    }
}

/// A training of fixed steps is, to the bit, one over the same examples laid out in a row as often as they are visited: for fewer examples
/// than a batch has, for batches across the end of a pass, and for epochs that end in the middle of one.
pub async fn fixed_steps_visit_the_examples_one_pass_after_the_other(device: &Device) {
    for (rows, steps, batch, accumulate) in [(5, 3, 4, 1), (1, 3, 4, 1), (7, 3, 2, 2), (40, 2, 8, 1)] {
        let (model, examples) = problem(rows, 6, 8, 3);
        let epochs = 2;
        let visits = (epochs * steps * batch * accumulate) as usize;
        let in_a_row = (0..visits).map(|at| at % rows);
        let x = in_a_row
            .clone()
            .flat_map(|at| examples.x()[6 * at..][..6].to_vec());
        let y = in_a_row.map(|at| examples.y()[at]);
        let laid_out = Examples::new(x.collect(), y.collect(), 6, 3).unwrap();
        let whole = TrainSpec {
            shuffle: false,
            accumulate: accumulate.try_into().unwrap(),
            ..spec(1, batch, 0.25, 0.9)
        };
        let fixed = TrainSpec {
            epochs: epochs.try_into().unwrap(),
            steps_per_epoch: Some(steps.try_into().unwrap()),
            ..whole.clone()
        };
        let found = run(&model, &examples, &fixed, device).await;
        let expected = run(&model, &laid_out, &whole, device).await;
        assert_eq!(found.losses.len(), (epochs * steps) as usize, "{rows}");
        assert_eq!(found.losses, expected.losses, "{rows}");
        assert_eq!(found.parameters, expected.parameters, "{rows}");
    }
}

/// A language model over batches of which the last is not full: the losses follow the CPU's, and what can be known of the next
/// token is learned. A token is followed by its double, so all but the first of a sequence follow from the one before.
pub async fn a_language_model_learns_like_the_cpu(device: &Device) {
    let (tokens, time) = (7, 5);
    let spec_json = serde_json::json!({
        "input": [time],
        "layers": [
            {"type": "embedding", "vocabulary": tokens, "units": 8}, {"type": "lstm", "units": 12},
            {"type": "cifg-lstm", "units": 9, "projection": 8}, {"type": "tied-dense"},
        ],
        "loss": "softmax-cross-entropy"
    });
    let model = Model::new(&serde_json::from_value(spec_json).unwrap()).unwrap();
    let sequence = |at: u32| (0..=time).map(move |step| (at << step) % tokens);
    let sequences = (0..23).map(sequence);
    let x = sequences
        .clone()
        .flat_map(|s| s.take(time as usize))
        .map(|token| token as f32);
    let labels = sequences.flat_map(|s| s.skip(1));
    let time = time as usize;
    let examples = Examples::sequences(x.collect(), labels.collect(), time, time, tokens as usize).unwrap();
    let spec = spec(40, 5, 0.3, 0.9);
    let here = run(&model, &examples, &spec, device).await;
    let there = run(&model, &examples, &spec, &Device::Cpu).await;
    assert_eq!(here.losses.len(), there.losses.len());
    // Differences grow from step to step as the weights drift apart: only the first two epochs are compared.
    for (step, (a, b)) in here.losses.iter().zip(&there.losses).take(10).enumerate() {
        assert!((a - b).abs() <= 1e-4 * b.abs(), "step {step}: {a} {b}");
    }
    let found = model.evaluate(&here.parameters, &examples).unwrap();
    assert!(found.accuracy > 0.99 && found.perplexity() < 1.1, "{found:?}");
}

/// The same seed gives the same bits.
pub async fn same_seed_same_bits(device: &Device) {
    let (model, examples) = problem(50, 13, 11, 3);
    let spec = spec(3, 8, 0.2, 0.5);
    let (first, second) = (
        run(&model, &examples, &spec, device).await,
        run(&model, &examples, &spec, device).await,
    );
    assert_eq!(first, second);
    let other = train(
        &model,
        &model.initial_parameters(5),
        &examples,
        &spec,
        4,
        device,
        &mut Unobserved,
    )
    .await;
    assert_ne!(first.losses, other.unwrap().losses, "another seed, another order");
}

/// A batch larger than the data set, and a data set of one example.
pub async fn tiny_data_sets_train(device: &Device) {
    for examples in [1, 3] {
        let (model, examples) = problem(examples, 4, 6, 3);
        let trained = run(&model, &examples, &spec(30, 64, 0.3, 0.0), device).await;
        assert_eq!(trained.losses.len(), 30);
        assert_eq!(
            model.evaluate(&trained.parameters, &examples).unwrap().accuracy,
            1.0
        );
    }
}

/// A learning rate far too high ends in a typed error that names the step, not in weights that are not numbers.
pub async fn a_loss_that_is_not_finite_stops(device: &Device) {
    let (model, examples) = problem(32, 8, 8, 4);
    let start = model.initial_parameters(5);
    let spec = spec(4, 8, 1e30, 0.0);
    let result = train(&model, &start, &examples, &spec, 3, device, &mut Unobserved).await;
    assert!(
        matches!(
            result,
            Err(EngineError::NonFinite {
                epoch: 1,
                step: 2..=4
            })
        ),
        "{result:?}"
    );
}

/// An observer that acts once, when step `after` of `epoch` or a later one is reported.
struct At<F: FnMut() -> Control> {
    epoch: u32,
    after: u32,
    act: F,
    /// The steps reported before it acted, as epoch and step, and those after.
    steps: [Vec<(u32, u32)>; 2],
    fallbacks: Vec<String>,
}

impl<F: FnMut() -> Control> At<F> {
    const fn new(epoch: u32, after: u32, act: F) -> Self {
        Self {
            epoch,
            after,
            act,
            steps: [Vec::new(), Vec::new()],
            fallbacks: Vec::new(),
        }
    }
}

impl<F: FnMut() -> Control> Observer for At<F> {
    async fn progress(&mut self, progress: Progress<'_>) -> Control {
        match progress {
            Progress::Step { epoch, step, .. } => {
                let acted = self.epoch == 0;
                self.steps[usize::from(acted)].push((epoch, step));
                if epoch == self.epoch && step >= self.after {
                    self.epoch = 0;
                    return (self.act)();
                }
                Control::Continue
            }
            Progress::Fallback { reason } => {
                self.fallbacks.push(reason.to_owned());
                Control::Continue
            }
            _ => Control::Continue,
        }
    }
}

/// The observer can stop training between two steps.
pub async fn the_observer_can_stop(device: &Device) {
    let (model, examples) = problem(64, 8, 8, 4);
    let start = model.initial_parameters(5);
    let mut observer = At::new(2, 1, || Control::Stop);
    let result = train(
        &model,
        &start,
        &examples,
        &spec(3, 8, 0.1, 0.0),
        3,
        device,
        &mut observer,
    )
    .await;
    assert_eq!(result, Err(EngineError::Stopped));
}

/// The most steps that a GPU is given before it is heard of.
const STEPS_UNDER_WAY: u32 = 8;

/// A GPU that is lost in the middle of an epoch: the CPU goes on from the last step that was done, in the same order, and the
/// result is as good as an undisturbed one. `gpu` gives a device each time.
#[cfg(not(doctest))]
pub async fn a_lost_gpu_goes_on_on_the_cpu(gpu: impl AsyncFn() -> unsaid_engine::GpuDevice) {
    let (model, examples) = problem(203, 17, 24, 5);
    let start = model.initial_parameters(5);
    let spec = spec(4, 8, 0.1, 0.9);
    let undisturbed = run(&model, &examples, &spec, &Device::Cpu).await;
    for after in [1, 9, 17, 26] {
        let gpu = gpu().await;
        let lose = gpu.clone();
        let mut observer = At::new(2, after, move || {
            lose.destroy();
            Control::Continue
        });
        let device = Device::Gpu(gpu);
        let trained = train(&model, &start, &examples, &spec, 3, &device, &mut observer)
            .await
            .unwrap();
        assert!(trained.fell_back);
        assert_eq!(observer.fallbacks.len(), 1, "{:?}", observer.fallbacks);
        // Nothing that was reported as done is done again, and nothing is left out. What was under way when the device went may
        // still have been finished: then the GPU reports it, too, before the CPU goes on step by step.
        let [before, then] = &observer.steps;
        let following = |(epoch, step): (u32, u32)| {
            if step == 26 {
                (epoch + 1, 1)
            } else {
                (epoch, step + 1)
            }
        };
        let &(epoch, step) = before.last().unwrap();
        let by_cpu = match then.first() {
            Some(&first) if first == following((epoch, step)) => &then[..],
            Some(&(again, last)) if again == epoch && last > step && last <= step + STEPS_UNDER_WAY => {
                &then[1..]
            }
            other => panic!("lost after {after}: then {other:?}"),
        };
        let from = then[then.len() - by_cpu.len()..].first().unwrap();
        let reported = if by_cpu.len() == then.len() {
            (epoch, step)
        } else {
            then[0]
        };
        assert_eq!(*from, following(reported), "lost after {after}");
        assert!(by_cpu.windows(2).all(|pair| pair[1] == following(pair[0])));
        let all: Vec<_> = before.iter().chain(then).collect();
        assert!(all.is_sorted(), "{all:?}");
        assert_eq!(trained.losses.len(), undisturbed.losses.len());
        for (step, (a, b)) in trained.losses.iter().zip(&undisturbed.losses).enumerate() {
            assert!((a - b).abs() <= 1e-3 * b.abs().max(0.1), "step {step}: {a} {b}");
        }
        for (a, b) in trained.parameters.iter().zip(&undisturbed.parameters) {
            assert!(
                (a - b).abs() <= 1e-3 * b.abs().max(0.1),
                "lost after {after}: {a} {b}"
            );
        }
        // A device that is known to be lost is not tried again: the CPU does it all.
        let again = train(&model, &start, &examples, &spec, 3, &device, &mut Unobserved)
            .await
            .unwrap();
        assert!(again.fell_back);
        assert_eq!(again.parameters, undisturbed.parameters);
    }
}

/// With a model of more than a megabyte the newest known state may lie some submissions back: those steps are done again.
#[cfg(not(doctest))]
pub async fn a_lost_gpu_with_a_large_model_does_few_steps_again(gpu: unsaid_engine::GpuDevice) {
    let (model, examples) = problem(203, 784, 400, 5);
    let start = model.initial_parameters(5);
    let spec = spec(2, 8, 0.02, 0.9);
    let undisturbed = run(&model, &examples, &spec, &Device::Cpu).await;
    let lose = gpu.clone();
    let mut observer = At::new(2, 13, move || {
        lose.destroy();
        Control::Continue
    });
    let trained = train(
        &model,
        &start,
        &examples,
        &spec,
        3,
        &Device::Gpu(gpu),
        &mut observer,
    )
    .await
    .unwrap();
    let [before, then] = &observer.steps;
    let (&(_, reached), &(epoch, first)) = (before.last().unwrap(), then.first().unwrap());
    // Parameters and state are 2.5 MB: a snapshot for every third submission of four steps.
    assert!(
        epoch == 2 && first < reached && first + 8 >= reached,
        "{reached} {first}"
    );
    assert_eq!(trained.losses.len(), undisturbed.losses.len());
    for (step, (a, b)) in trained.losses.iter().zip(&undisturbed.losses).enumerate() {
        assert!((a - b).abs() <= 1e-3 * b.abs().max(0.1), "step {step}: {a} {b}");
    }
}
