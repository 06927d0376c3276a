//! Weights and data made to break the clipping of private training: whoever runs the relay chooses the weights that training starts from.

use serde_json::json;
use unsaid_engine::{Device, Examples, Model, PrivateSteps, TargetKind, TrainSpec, Training, Unobserved};
use unsaid_privacy::ExampleNoise;

use crate::{
    layers::{Case, cases},
    private::{Script, some_of},
};

/// A model, weights, examples, and what they are about.
struct Problem {
    name: String,
    model: Model,
    start: Vec<f32>,
    examples: Examples,
}

fn model(spec: serde_json::Value) -> Model {
    Model::new(&serde_json::from_value(spec).unwrap()).unwrap()
}

/// Weights under which the first example's hidden layer is 0 before a layer whose gradient's norm is beyond 32-bit floats: the norm of the
/// product is 0 times infinity, while the bias's gradient is finite.
fn norm_that_is_no_number() -> Problem {
    let model = model(json!({
        "input": [2],
        "layers": [
            {"type": "dense", "units": 2}, {"type": "relu"}, {"type": "dense", "units": 2}, {"type": "dense", "units": 2}],
        "loss": "softmax-cross-entropy"
    }));
    let start = [
        [1.0, 0.0, 0.0, 1.0, 0.0, 0.0],       // the hidden layer is the data,
        [0.0, 0.0, 0.0, 0.0, 1e-20, 1e-20],   // the next a tiny bias,
        [1e20, -1e20, 1e20, -1e20, 0.0, 0.0], // which is made to logits of 2 and -2
    ]
    .concat();
    Problem {
        name: "a norm that is no number".into(),
        model,
        start,
        examples: Examples::new(vec![0.0, 0.0, 1.0, 0.5, 0.25, 2.0], vec![1, 0, 1], 2, 2).unwrap(),
    }
}

/// Two positions that are nearly the same, whose gradients are opposite: of all that the norm is the sum of in terms of the positions'
/// inner products nothing is left in 32-bit floats, but the gradient is 56,000 long.
fn positions_that_cancel() -> Problem {
    let model = model(json!({
        "input": [2, 8],
        "layers": [{"type": "dense", "units": 8}, {"type": "flatten"}, {"type": "dense", "units": 2}],
        "loss": "softmax-cross-entropy"
    }));
    let mut start = vec![0.0; 64 + 8];
    for position in [1000.0, -1000.0] {
        start.extend([position, -position].repeat(8));
    }
    start.extend([0.0, 0.0]);
    let example = |e: f32| [[1e6 + e; 8], [1e6; 8]].concat();
    Problem {
        name: "positions that cancel".into(),
        model,
        start,
        examples: Examples::new(
            [example(7.0), example(1.0), example(0.0)].concat(),
            vec![0, 1, 0],
            16,
            2,
        )
        .unwrap(),
    }
}

/// Examples of every kind of layer, with weights as usual, large, so large that most numbers overflow, and of all sizes: as many as
/// `rows` gives, of the numbers that a case has, by their index.
fn every_layer(rows: fn(usize) -> Vec<usize>) -> Vec<Problem> {
    type Change = fn(usize, f32) -> f32;
    let changes: [(&str, Change); 4] = [
        ("as usual", |_, w| w),
        ("large", |_, w| 1e5 * w),
        ("overflowing", |_, w| 1e25 * w),
        ("of all sizes", |at, w| w * 10f32.powi(at as i32 % 41 - 20)),
    ];
    let cases = cases();
    let cases = cases.iter().filter(|case| !case.name.contains("dropout"));
    let problem = |case: &Case, (what, change): (&str, fn(usize, f32) -> f32)| {
        let (model, start, examples) = case.problem();
        Problem {
            name: format!("{}, {what}", case.name),
            start: start.iter().enumerate().map(|(at, w)| change(at, *w)).collect(),
            examples: some_of(&examples, &rows(examples.len())),
            model,
        }
    };
    cases
        .flat_map(|case| changes.map(|change| problem(case, change)))
        .collect()
}

/// Many examples that are all much alike, whose clipped gradients make as long a sum as they can.
fn alike(rows: usize) -> Problem {
    let (model, _) = crate::training::problem(2, 48, 24, 10);
    let noise = crate::noise(13, rows * 48);
    let x = noise.iter().enumerate();
    let x = x.map(|(at, x)| ((at % 48) as f32).sin() + 0.01 * x).collect();
    Problem {
        name: format!("{rows} alike"),
        start: model.initial_parameters(5),
        examples: Examples::new(x, vec![3; rows], 48, 10).unwrap(),
        model,
    }
}

const CLIP: f32 = 0.5;

/// What one step without noise makes of a lot, in whole grid steps: read from a momentum that began at 0, which is the gradient whatever
/// the weights are.
async fn sum(problem: &Problem, lot: &[u32], device: &Device) -> Vec<i64> {
    sum_within(problem, lot, bound_squared(problem), device).await
}

/// As [`sum`], where an example may add so much and no more.
async fn sum_within(problem: &Problem, lot: &[u32], bound_squared: u64, device: &Device) -> Vec<i64> {
    let spec: TrainSpec = serde_json::from_value(json!({
        "epochs": 1, "batch_size": 1, "clip_examples_l2": CLIP,
        "optimizer": {"type": "sgd", "learning_rate": 1e-6, "momentum": 0.5}
    }))
    .unwrap();
    let steps = PrivateSteps {
        steps_per_epoch: 1,
        grid_step: ExampleNoise::grid_step(CLIP),
        bound_squared,
    };
    let mut script = Script::new(&[lot], Vec::new());
    let trained = Training::new(&problem.model, &problem.examples, &spec)
        .run_private(&problem.start, steps, &mut script, device, &mut Unobserved)
        .await;
    let trained = trained.unwrap_or_else(|error| panic!("{} {lot:?}: {error}", problem.name));
    // A power of two times whole numbers below 2²⁴: exact.
    let whole = trained.optimizer.iter().map(|g| (g / steps.grid_step) as i64);
    whole.collect()
}

fn bound_squared(problem: &Problem) -> u64 {
    let noise = ExampleNoise::new(1.0, 0.5, problem.start.len()).unwrap();
    noise.bound_squared()
}

/// What the whole of the guarantee hangs by, exactly: an example adds the same whole numbers to a sum whoever else is in the lot, and
/// their squares add up to no more than the noise was made for.
pub async fn whatever_the_weights_an_example_adds_the_same_and_no_more_than_its_bound(device: &Device) {
    let special = [norm_that_is_no_number(), positions_that_cancel(), alike(40)];
    let (mut counted, mut left_out, mut longest) = (0, 0, 0.0_f64);
    for problem in special
        .into_iter()
        .chain(every_layer(|has| (0..has.min(3)).collect()))
    {
        let name = &problem.name;
        let n = problem.examples.len() as u32;
        let mut own = Vec::new();
        for index in 0..n {
            own.push(sum(&problem, &[index], device).await);
        }
        for (index, whole) in own.iter().enumerate() {
            let squared: i64 = whole.iter().map(|v| v * v).sum();
            assert!(
                squared as u64 <= bound_squared(&problem),
                "{name} {index}: {squared}"
            );
            counted += usize::from(squared > 0);
            left_out += usize::from(squared == 0);
            longest = longest.max((squared as f64).sqrt() / ExampleNoise::CLIP_STEPS);
        }
        let all: Vec<u32> = (0..n).collect();
        for lot in [&all[..], &all[1..], &all[..n as usize / 2]] {
            let expected: Vec<i64> = (0..problem.start.len())
                .map(|at| lot.iter().map(|&index| own[index as usize][at]).sum())
                .collect();
            let found = sum(&problem, lot, device).await;
            assert!(found == expected, "{name} {lot:?}");
        }
    }
    // Many are clipped to the very norm, and many have no gradient that is finite.
    assert!(
        longest > 0.999 && counted > 300 && left_out > 50,
        "{longest} {counted} {left_out}"
    );
}

fn length_squared(whole: &[i64]) -> u64 {
    whole.iter().map(|v| v.unsigned_abs().pow(2)).sum()
}

/// A bound that whole numbers keep whose squares add up to this, however the bound is checked: they may be taken for longer by half a step
/// each, once for what they were before they were rounded and once for what they are after, and by some room for floats.
fn kept_by(problem: &Problem, squared: u64) -> u64 {
    let longest = (squared as f64).sqrt() + (problem.start.len() as f64).sqrt();
    (longest * (1.0 + 1.0 / 16_384.0)).powi(2).ceil() as u64
}

/// A convolution, whose gradient is written, and a dense layer, whose gradient is not.
fn convolution_before_dense() -> Problem {
    let model = model(json!({
        "input": [5, 5, 1],
        "layers": [
            {"type": "conv2d", "filters": 3, "kernel": [3, 3]}, {"type": "relu"}, {"type": "flatten"}, {"type": "dense", "units": 3}],
        "loss": "softmax-cross-entropy"
    }));
    Problem {
        name: "a convolution before a dense layer".into(),
        start: model.initial_parameters(5),
        examples: Examples::new(crate::noise(17, 25), vec![1], 25, 3).unwrap(),
        model,
    }
}

/// For every kind of layer, what an example adds counts towards its bound: one step below, and it adds nothing. And so do all layers
/// together, where each alone is within it.
pub async fn an_example_above_its_bound_adds_nothing_whatever_its_layers(device: &Device) {
    let usual = every_layer(|_| vec![0]).into_iter();
    let usual = usual.filter(|problem| problem.name.ends_with("as usual"));
    let mut checked = 0;
    for problem in usual.chain([convolution_before_dense()]) {
        let name = &problem.name;
        let own = sum(&problem, &[0], device).await;
        let squared = length_squared(&own);
        if squared < 2 {
            continue; // nothing is learned here
        }
        let found = sum_within(&problem, &[0], kept_by(&problem, squared), device).await;
        assert!(found == own, "{name}");
        let found = sum_within(&problem, &[0], squared - 1, device).await;
        assert!(found.iter().all(|v| *v == 0), "{name}");
        checked += 1;
    }
    assert!(checked > 30, "{checked}");

    let both = convolution_before_dense();
    let own = sum(&both, &[0], device).await;
    let (written, outer) = own.split_at(3 * 9 + 3);
    let (written, outer, all) = (
        length_squared(written),
        length_squared(outer),
        length_squared(&own),
    );
    let each = kept_by(&both, written).max(kept_by(&both, outer));
    let between = each.midpoint(all);
    assert!(each < between && between < all, "{written} {outer}");
    let found = sum_within(&both, &[0], between, device).await;
    assert!(found.iter().all(|v| *v == 0));
}

/// The examples of a problem, of which every fifth is made of numbers so large that nearly all that is computed of it is infinite or none;
/// tokens and examples without labels as they are.
fn with_others_beyond_all_numbers(examples: Examples) -> Examples {
    let TargetKind::Labels { classes } = examples.kind() else {
        return examples;
    };
    if examples.x().iter().all(|x| x.fract() == 0.0) {
        return examples;
    }
    let (features, targets) = (examples.features(), examples.targets_per_example());
    let mut x = examples.x().to_vec();
    for row in x.chunks_exact_mut(features).step_by(5) {
        row.iter_mut().for_each(|x| *x *= 3e38);
    }
    Examples::sequences(x, examples.y().to_vec(), features, targets, classes).unwrap()
}

/// Where examples are computed beside each other, none has any part in what another adds: in every place, beside others that are as usual
/// and others that are infinite or no numbers, it adds what it adds by itself. On the CPU.
pub async fn an_example_adds_the_same_in_every_place_and_every_company() {
    // Two and a half times as many as are computed beside each other.
    const N: usize = 40;
    let (mut checked, mut infinite) = (0, 0);
    for mut problem in every_layer(|has| (0..N).map(|row| (row * 7 + row / has) % has).collect()) {
        if problem.start.len() > 20_000 {
            continue;
        }
        problem.examples = with_others_beyond_all_numbers(problem.examples);
        let mut own = Vec::new();
        for index in 0..N as u32 {
            own.push(sum(&problem, &[index], &Device::Cpu).await);
        }
        infinite += own.iter().filter(|whole| whole.iter().all(|v| *v == 0)).count();
        for place in 0..=16 {
            // The one at 17 is in this place, behind some of those before it.
            let lot: Vec<u32> = (17 - place..N as u32 - place % 3).collect();
            let expected: Vec<i64> = (0..problem.start.len())
                .map(|at| lot.iter().map(|&index| own[index as usize][at]).sum())
                .collect();
            let found = sum(&problem, &lot, &Device::Cpu).await;
            assert!(found == expected, "{} {place}", problem.name);
            checked += 1;
        }
    }
    assert!(checked > 1_000 && infinite > 500, "{checked} {infinite}");
}

/// Without noise, too, a norm that 32-bit floats cannot tell is never taken for a short one: the gradient is clipped, or is no number either.
pub async fn a_gradient_that_is_no_number_is_never_taken_for_short(device: &Device) {
    let Problem {
        model,
        start,
        examples,
        ..
    } = norm_that_is_no_number();
    let spec: TrainSpec = serde_json::from_value(json!({
        "epochs": 1, "batch_size": 1, "clip_examples_l2": CLIP,
        "optimizer": {"type": "sgd", "learning_rate": 1e-6, "momentum": 0.5}
    }))
    .unwrap();
    let one = some_of(&examples, &[0]);
    // It is not clipped already: without a clip norm the gradient is beyond all measure.
    let (_, gradient) = model.loss_and_gradient(&start, &one).unwrap();
    assert!(gradient.iter().any(|g| g.abs() > 1e19));
    let trained = Training::new(&model, &one, &spec)
        .run(&start, device, &mut Unobserved)
        .await
        .unwrap();
    let squared: f64 = trained.optimizer.iter().map(|g| f64::from(*g).powi(2)).sum();
    assert!(
        squared.is_nan() || squared.sqrt() <= f64::from(CLIP) * 1.01,
        "{squared}"
    );
}
