//! The adapter against the engine: the same network, once as the engine's own layers and once as a dfdx module.
#![allow(missing_docs, clippy::panic, clippy::unwrap_used, clippy::expect_used)] // tests

use dfdx::{prelude::*, tensor::Cpu};
use pollster::block_on;
use unsaid_engine::{
    Control, Device, EngineError, Examples, LossSpec, Model, ModelSpec, Observer, OptimizerSpec, Progress,
    TrainSpec, Unobserved,
    dfdx::{DfdxModel, Vectors},
    train,
};

const IN: usize = 7;
const HIDDEN: usize = 11;
const OUT: usize = 3;

type Net = (Linear<IN, HIDDEN>, Tanh, LayerNorm1D<HIDDEN>, Linear<HIDDEN, OUT>);

/// Numbers that look random but are the same everywhere, in [−1, 1).
fn noise(seed: u64, len: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / 8_388_608.0 - 1.0
    };
    (0..len).map(|_| next()).collect()
}

fn ours() -> Model {
    let spec = ModelSpec::of([IN])
        .dense(HIDDEN)
        .tanh()
        .layer_norm()
        .dense(OUT)
        .loss(LossSpec::SoftmaxCrossEntropy);
    Model::new(&spec).unwrap()
}

fn theirs() -> DfdxModel<Vectors<<Net as BuildOnDevice<Cpu, f32>>::Built, IN, OUT>> {
    let module = Cpu::default().build_module::<Net, f32>();
    DfdxModel::new(Vectors(module), &[IN], &[OUT], LossSpec::SoftmaxCrossEntropy).unwrap()
}

/// dfdx's kernels are `[out, in]`, ours `[in, out]`; everything else lies in the same order.
fn to_dfdx(parameters: &[f32]) -> Vec<f32> {
    let transposed = |kernel: &[f32], rows: usize, columns: usize| -> Vec<f32> {
        (0..rows * columns)
            .map(|at| kernel[at % rows * columns + at / rows])
            .collect()
    };
    let (first, rest) = parameters.split_at(IN * HIDDEN);
    let (between, last) = rest.split_at(3 * HIDDEN);
    let (last, bias) = last.split_at(HIDDEN * OUT);
    [
        &transposed(first, IN, HIDDEN)[..],
        between,
        &transposed(last, HIDDEN, OUT),
        bias,
    ]
    .concat()
}

fn examples(n: usize) -> Examples {
    let y = noise(3, n)
        .into_iter()
        .map(|v| ((v + 1.0) / 2.0 * OUT as f32) as u32 % OUT as u32);
    Examples::new(noise(5, n * IN), y.collect(), IN, OUT).unwrap()
}

fn specs() -> Vec<TrainSpec> {
    let spec = |optimizer| TrainSpec::new(4.try_into().unwrap(), 8.try_into().unwrap(), optimizer);
    vec![
        spec(OptimizerSpec::sgd(0.1)),
        TrainSpec {
            weight_decay: 0.01,
            proximal: 0.1,
            ..spec(OptimizerSpec::adam(0.01))
        },
        TrainSpec {
            clip_examples_l2: Some(0.5),
            ..spec(OptimizerSpec::sgd(0.1))
        },
    ]
}

/// Sixteen steps of rounding in f32 over sums of some ten terms: 16 · 16 · 2⁻²⁴ of a loss of about 1 is 1.5e-5, and the control
/// below shows that a wrong gradient is a thousand times that.
const TOLERANCE: f32 = 5e-5;

#[test]
fn a_module_trains_as_the_same_network_of_the_engine_does() {
    let (model, examples) = (ours(), examples(29));
    let mut start = model.initial_parameters(3);
    start
        .iter_mut()
        .zip(noise(9, model.parameter_count()))
        .for_each(|(p, n)| *p += 0.1 * n);
    for spec in specs() {
        let expected = block_on(train(
            &model,
            &start,
            &examples,
            &spec,
            7,
            &Device::Cpu,
            &mut Unobserved,
        ))
        .unwrap();
        let mut net = theirs();
        assert_eq!(net.model().parameter_count(), model.parameter_count());
        let found = block_on(net.train(&to_dfdx(&start), &examples, &spec, 7, &[], &mut Unobserved)).unwrap();
        assert_eq!(found.losses.len(), 16);
        for (step, (found, expected)) in found.losses.iter().zip(&expected.losses).enumerate() {
            assert!(
                (found - expected).abs() <= TOLERANCE,
                "{spec:?}, step {step}: {found} {expected}"
            );
        }
        for (found, expected) in found.parameters.iter().zip(to_dfdx(&expected.parameters)) {
            assert!(
                (found - expected).abs() <= 4.0 * TOLERANCE,
                "{spec:?}: {found} {expected}"
            );
        }
        assert_eq!(
            net.parameters(),
            found.parameters,
            "the module holds what it was trained to"
        );
        let ours = model.evaluate(&expected.parameters, &examples).unwrap();
        let theirs = net.evaluate(&found.parameters, &examples).unwrap();
        assert!(
            (ours.loss - theirs.loss).abs() <= 1e-4 && (ours.accuracy - theirs.accuracy).abs() <= 1.0 / 29.0
        );
    }
}

/// The control of the test above: another order of the examples is noticed.
#[test]
fn another_seed_is_noticed() {
    let examples = examples(29);
    let (start, spec) = (theirs().parameters(), &specs()[0]);
    let losses = |seed| {
        block_on(theirs().train(&start, &examples, spec, seed, &[], &mut Unobserved))
            .unwrap()
            .losses
    };
    assert_eq!(losses(7), losses(7));
    let (a, b) = (losses(7), losses(8));
    assert!(a.iter().zip(&b).any(|(a, b)| (a - b).abs() > 20.0 * TOLERANCE));
}

#[test]
fn the_layout_names_each_tensor_and_starts_it_as_the_module_starts_it() {
    let net = theirs();
    let names: Vec<(&str, &[usize])> = net
        .model()
        .layout()
        .tensors()
        .iter()
        .map(|tensor| (tensor.name.as_str(), &tensor.shape[..]))
        .collect();
    let expected: [(&str, &[usize]); 6] = [
        ("layers.0.0.weight", &[HIDDEN, IN]),
        ("layers.0.0.bias", &[HIDDEN]),
        ("layers.0.2.gamma", &[HIDDEN]),
        ("layers.0.2.beta", &[HIDDEN]),
        ("layers.0.3.weight", &[OUT, HIDDEN]),
        ("layers.0.3.bias", &[OUT]),
    ];
    assert_eq!(names, expected);
    let start = net.model().initial_parameters(5);
    let of = |name: &str| {
        let tensor = net
            .model()
            .layout()
            .tensors()
            .iter()
            .find(|tensor| tensor.name == name);
        start[tensor.unwrap().range()].to_vec()
    };
    assert!(of("layers.0.2.gamma").iter().all(|&gamma| gamma == 1.0));
    assert!(of("layers.0.2.beta").iter().all(|&beta| beta == 0.0));
    // dfdx draws from ± 1 / √in, and the spec from a range of the same variance.
    let bound = 1.3 / (IN as f32).sqrt();
    let kernel = of("layers.0.0.weight");
    assert!(
        kernel.iter().all(|weight| weight.abs() <= bound)
            && kernel.iter().any(|weight| weight.abs() > bound / 2.0)
    );
    // And the safetensors file of a published model is the module's.
    let file = net.model().to_safetensors(&net.parameters()).unwrap();
    assert_eq!(net.model().from_safetensors(&file).unwrap(), net.parameters());
}

#[test]
fn the_engine_refuses_to_run_what_it_cannot_compute() {
    let (net, examples) = (theirs(), examples(4));
    let (model, start) = (net.model(), net.parameters());
    let spec = &specs()[0];
    model.check_training(spec).unwrap();
    let trained = block_on(train(
        model,
        &start,
        &examples,
        spec,
        0,
        &Device::Cpu,
        &mut Unobserved,
    ));
    assert!(matches!(trained, Err(EngineError::External(_))));
    assert!(matches!(
        model.evaluate(&start, &examples),
        Err(EngineError::External(_))
    ));
    assert!(matches!(
        model.predict(&start, &[0.0; IN]),
        Err(EngineError::External(_))
    ));
    assert!(matches!(
        model.loss_and_gradient(&start, &examples),
        Err(EngineError::External(_))
    ));
}

#[test]
fn what_does_not_learn_or_does_not_fit_is_refused() {
    type Normalised = (Linear<4, 3>, BatchNorm1D<3>);
    let module = Cpu::default().build_module::<Normalised, f32>();
    let refused = DfdxModel::new(Other(module), &[4], &[3], LossSpec::SoftmaxCrossEntropy).unwrap_err();
    assert!(refused.to_string().contains("running_mean"), "{refused}");
    let mut net = theirs();
    assert!(matches!(
        net.set_parameters(&[0.0; 3]),
        Err(EngineError::Weights(_))
    ));
    let bad = Examples::new(vec![0.0; 4], vec![0], 4, 3).unwrap();
    let start = net.parameters();
    let trained = block_on(net.train(&start, &bad, &specs()[0], 0, &[], &mut Unobserved));
    assert!(matches!(trained, Err(EngineError::Data(_))));
    let infinite = TrainSpec {
        optimizer: OptimizerSpec::sgd(3e38),
        ..specs()[0].clone()
    };
    let trained = block_on(net.train(&start, &examples(29), &infinite, 0, &[], &mut Unobserved));
    assert!(
        matches!(trained, Err(EngineError::NonFinite { epoch: 1, .. })),
        "{trained:?}"
    );
}

struct Impatient(u32);

impl Observer for Impatient {
    async fn progress(&mut self, progress: Progress<'_>) -> Control {
        if let Progress::Step { .. } = progress {
            self.0 += 1;
        }
        if self.0 == 3 {
            Control::Stop
        } else {
            Control::Continue
        }
    }
}

#[test]
fn training_stops_after_the_step_in_which_it_is_told_to() {
    let (mut net, mut observer) = (theirs(), Impatient(0));
    let start = net.parameters();
    let stopped = block_on(net.train(&start, &examples(29), &specs()[0], 0, &[], &mut observer));
    assert_eq!(stopped.unwrap_err(), EngineError::Stopped);
    assert_eq!(observer.0, 3);
}

/// A module that is only looked at.
#[derive(Debug)]
struct Other<M>(M);

impl<M: TensorCollection<f32, Cpu> + ZeroGrads<f32, Cpu>> unsaid_engine::dfdx::Network for Other<M> {
    type Module = M;
    fn module(&self) -> &M {
        &self.0
    }
    fn module_mut(&mut self) -> &mut M {
        &mut self.0
    }
    fn learn(
        &mut self,
        x: unsaid_engine::dfdx::Batch<unsaid_engine::dfdx::Tape>,
    ) -> Result<unsaid_engine::dfdx::Batch<unsaid_engine::dfdx::Tape>, dfdx::tensor::CpuError> {
        Ok(x)
    }
    fn infer(
        &self,
        x: unsaid_engine::dfdx::Batch,
    ) -> Result<unsaid_engine::dfdx::Batch, dfdx::tensor::CpuError> {
        Ok(x)
    }
}
