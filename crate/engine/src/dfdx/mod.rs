//! Any dfdx module as the model of a task, natively (feature `dfdx`).
//!
//! A task speaks of one flat `f32[d]` vector with named tensors. [`DfdxModel`] ties a module to that: it lays the module's
//! tensors out ([`Model`] with one [`LayerSpec::External`]), takes and gives the flat vector, and trains by dfdx's forward and
//! backward passes. Everything around the module is the engine's: order of the examples, loss and padding, optimiser and schedule,
//! FedProx, SCAFFOLD's correction, freezing. What comes out is clipped, noised and sent as any other model's.
//!
//! Clipping per example runs the examples one by one. Modules with tensors that do not learn by gradients, such as the running
//! statistics of batch normalisation, are refused, as the engine refuses that layer.
//!
//! ```
//! use ::dfdx::{prelude::*, tensor::Cpu};
//! use unsaid_engine::{Examples, LossSpec, TrainSpec, Unobserved, dfdx::{DfdxModel, Vectors}};
//! # pollster::block_on(async {
//! type Net = (Linear<2, 8>, Tanh, Linear<8, 2>);
//! let module = Cpu::default().build_module::<Net, f32>();
//! let mut net = DfdxModel::new(Vectors::<_, 2, 2>(module), &[2], &[2], LossSpec::SoftmaxCrossEntropy)?;
//! assert_eq!(net.model().layout().tensors()[0].name, "layers.0.0.weight");
//!
//! let examples = Examples::new(vec![1.0, 0.0, 0.0, 1.0], vec![0, 1], 2, 2)?;
//! let how: TrainSpec = serde_json::from_str(
//!     r#"{"epochs": 40, "batch_size": 2, "optimizer": {"type": "sgd", "learning_rate": 0.5}}"#)?;
//! let start = net.parameters();
//! let trained = net.train(&start, &examples, &how, 7, &[], &mut Unobserved).await?;
//! assert_eq!(net.evaluate(&trained.parameters, &examples)?.accuracy, 1.0);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # }).unwrap();
//! ```

mod tensors;

use ::dfdx::{
    nn::{Module, ModuleMut, ZeroGrads, tensor_collection::TensorCollection},
    shapes::{Const, Rank0},
    tensor::{Cpu, CpuError, NoneTape, OwnedTape, SplitTape, Tensor, TensorFromVec, Trace},
    tensor_ops::{Backward, RealizeTo, SumTo, TryMul},
};

use crate::{
    Control, EngineError, Evaluation, Examples, LayerSpec, LossSpec, Model, ModelSpec, Observer, Progress,
    TrainSpec, Trained, Training,
    model::USUAL_K,
    ops::{LossInput, Reduction, Tally, gather::gather_cpu},
    optim::StepNumbers,
    train::Settings,
};

/// A batch, `[rows, numbers]`, with or without a tape.
pub type Batch<T = NoneTape> = Tensor<(usize, usize), f32, Cpu, T>;
/// The tape of training.
pub type Tape = OwnedTape<f32, Cpu>;

/// A module, and how a batch goes through it.
pub trait Network {
    /// The module.
    type Module: TensorCollection<f32, Cpu> + ZeroGrads<f32, Cpu>;
    /// The module.
    fn module(&self) -> &Self::Module;
    /// The module.
    fn module_mut(&mut self) -> &mut Self::Module;
    /// A batch in training: `[rows, features] → [rows, outputs]`.
    ///
    /// # Errors
    /// What dfdx says.
    fn learn(&mut self, x: Batch<Tape>) -> Result<Batch<Tape>, CpuError>;
    /// A batch in evaluation: `[rows, features] → [rows, outputs]`.
    ///
    /// # Errors
    /// What dfdx says.
    fn infer(&self, x: Batch) -> Result<Batch, CpuError>;
}

/// The [`Network`] of a module that takes `[rows, IN]` and gives `[rows, OUT]`.
#[derive(Debug, Clone)]
pub struct Vectors<M, const IN: usize, const OUT: usize>(pub M);

/// A batch of vectors of a length that is known to the compiler.
type Rows<const LEN: usize, T> = Tensor<(usize, Const<LEN>), f32, Cpu, T>;

impl<M, const IN: usize, const OUT: usize> Network for Vectors<M, IN, OUT>
where
    M: TensorCollection<f32, Cpu>
        + ModuleMut<Rows<IN, Tape>, Output = Rows<OUT, Tape>, Error = CpuError>
        + Module<Rows<IN, NoneTape>, Output = Rows<OUT, NoneTape>, Error = CpuError>,
{
    type Module = M;

    fn module(&self) -> &M {
        &self.0
    }

    fn module_mut(&mut self) -> &mut M {
        &mut self.0
    }

    fn learn(&mut self, x: Batch<Tape>) -> Result<Batch<Tape>, CpuError> {
        let x = x.try_realize().map_err(|_| CpuError::WrongNumElements)?;
        let y = self.0.try_forward_mut(x)?;
        y.try_realize().map_err(|_| CpuError::WrongNumElements)
    }

    fn infer(&self, x: Batch) -> Result<Batch, CpuError> {
        let x = x.try_realize().map_err(|_| CpuError::WrongNumElements)?;
        let y = self.0.try_forward(x)?;
        y.try_realize().map_err(|_| CpuError::WrongNumElements)
    }
}

/// A dfdx module as the model of a task: see [this module](self).
#[derive(Debug)]
pub struct DfdxModel<N> {
    network: N,
    model: Model,
}

/// Examples of one forward pass of an evaluation.
const EVALUATION_ROWS: usize = 256;

impl<N: Network> DfdxModel<N> {
    /// Ties `network`, which takes examples of shape `input` and gives outputs of shape `output` (the logits, for a
    /// cross-entropy), to a layout and a loss. Each tensor of the spec starts with numbers that have the mean and the
    /// variance of those that the module has now.
    ///
    /// # Errors
    /// [`EngineError::External`] where a tensor of the module does not learn, [`EngineError::Spec`] where the shapes are
    /// impossible.
    pub fn new(network: N, input: &[usize], output: &[usize], loss: LossSpec) -> Result<Self, EngineError> {
        let tensors = tensors::describe(network.module())?;
        let spec = ModelSpec {
            input: input.to_vec(),
            layers: vec![LayerSpec::External {
                tensors,
                output: output.to_vec(),
            }],
            loss,
        };
        Ok(Self {
            model: Model::new(&spec)?,
            network,
        })
    }

    /// The model as a task knows it: its spec goes into the task file, its layout names the tensors.
    pub const fn model(&self) -> &Model {
        &self.model
    }

    /// The network, with the parameters that it was given or trained to last.
    pub const fn network(&self) -> &N {
        &self.network
    }

    /// The module's numbers as one flat vector, `[d]`.
    pub fn parameters(&self) -> Vec<f32> {
        tensors::read(self.network.module(), self.model.parameter_count())
    }

    /// Gives the module the numbers of a flat vector, `[d]`.
    ///
    /// # Errors
    /// [`EngineError::Weights`] where they are not as many as the module has.
    pub fn set_parameters(&mut self, parameters: &[f32]) -> Result<(), EngineError> {
        self.model.check_count(parameters)?;
        tensors::write(self.network.module_mut(), parameters);
        Ok(())
    }

    /// Trains from `parameters` as `spec` says: what [`crate::train`] is for the engine's own models. `correction` is SCAFFOLD's, `[d]`,
    /// or empty ([`Training::correction`]). Afterwards the module holds the new parameters.
    ///
    /// # Errors
    /// As [`crate::train`], and [`EngineError::External`] where dfdx fails.
    pub async fn train(
        &mut self,
        parameters: &[f32],
        examples: &Examples,
        spec: &TrainSpec,
        seed: u64,
        correction: &[f32],
        observer: &mut impl Observer,
    ) -> Result<Trained, EngineError> {
        let settings = Training::new(&self.model, examples, spec)
            .seed(seed)
            .correction(correction)
            .checked(parameters)?;
        self.run(parameters.to_vec(), examples, &settings, observer).await
    }

    async fn run(
        &mut self,
        mut parameters: Vec<f32>,
        examples: &Examples,
        settings: &Settings,
        observer: &mut impl Observer,
    ) -> Result<Trained, EngineError> {
        let mut state = settings.optimizer.fresh_state(parameters.len());
        let epochs = settings.epochs;
        let mut losses: Vec<f32> = Vec::new();
        for epoch in 1..=epochs {
            let order = settings.order(examples.len(), epoch);
            let steps = order.len().div_ceil(settings.step_len());
            for (index, batch) in order.chunks(settings.step_len()).enumerate() {
                let step = index as u32 + 1;
                let numbers = settings.numbers(epoch, steps, index);
                tensors::write(self.network.module_mut(), &parameters);
                let (loss, mut gradient) = self.step_gradient(examples, batch, settings, numbers)?;
                if !loss.is_finite() {
                    return Err(EngineError::NonFinite { epoch, step });
                }
                settings.adjust.add_cpu(&parameters, &mut gradient);
                for range in &settings.trainable {
                    let range = range.clone();
                    settings
                        .optimizer
                        .update_cpu(numbers, range, &mut parameters, &gradient, &mut state);
                }
                losses.push(loss);
                let steps = steps as u32;
                tell(
                    observer,
                    Progress::Step {
                        epoch,
                        epochs,
                        step,
                        steps,
                        loss: Some(loss),
                    },
                )
                .await?;
            }
            let of_epoch = &losses[losses.len() - steps..];
            let loss = of_epoch.iter().sum::<f32>() / steps as f32;
            tell(observer, Progress::Epoch { epoch, epochs, loss }).await?;
        }
        tensors::write(self.network.module_mut(), &parameters);
        Ok(Trained {
            parameters,
            steps: losses.len() as u32,
            losses,
            fell_back: false,
            optimizer: state,
        })
    }

    /// The loss of the examples at `indices` and the gradient of one step, clipped where the settings say so.
    fn step_gradient(
        &mut self,
        examples: &Examples,
        indices: &[u32],
        settings: &Settings,
        numbers: StepNumbers,
    ) -> Result<(f32, Vec<f32>), EngineError> {
        let Some(clip_l2) = settings.clip_examples_l2 else {
            return self.gradient(examples, indices, Reduction::Batch, numbers.key);
        };
        let mut sum = vec![0.0; self.model.parameter_count()];
        let mut loss = 0.0;
        for index in indices {
            let one = std::slice::from_ref(index);
            let (own_loss, own) = self.gradient(examples, one, Reduction::Example, numbers.key ^ index)?;
            loss += own_loss;
            let norm = own.iter().map(|&g| f64::from(g).powi(2)).sum::<f64>().sqrt();
            let factor = (f64::from(clip_l2) / norm.max(f64::from(clip_l2))) as f32;
            sum.iter_mut()
                .zip(own)
                .for_each(|(sum, own)| *sum += factor * own);
        }
        let mean = 1.0 / indices.len() as f32;
        sum.iter_mut().for_each(|g| *g *= mean);
        Ok((loss * mean, sum))
    }

    /// The loss of the examples at `indices` and its gradient with respect to the module's numbers, `[d]`.
    fn gradient(
        &mut self,
        examples: &Examples,
        indices: &[u32],
        reduction: Reduction,
        key: u32,
    ) -> Result<(f32, Vec<f32>), EngineError> {
        let (mut x, mut targets) = (Vec::new(), Vec::new());
        gather_cpu(examples, indices, &mut x, &mut targets);
        let rows = indices.len();
        // What a dropout layer draws from is the device of what it sees.
        let device = Cpu::seed_from_u64(key.into());
        let gradients = self.network.module().try_alloc_grads().map_err(failed)?;
        let x = device.try_tensor_from_vec(x, (rows, self.model.features()));
        let outputs = self.network.learn(x.map_err(failed)?.traced(gradients));
        let (outputs, tape) = outputs.map_err(failed)?.split_tape();
        let z = self.outputs(&outputs, rows)?;
        let mut dz = vec![0.0; z.len()];
        let batch = LossInput {
            rows,
            outputs: &z,
            targets: &targets,
        };
        let loss = self.model.loss().loss_cpu(batch, reduction, &mut dz);
        // The engine's loss and its gradient dz: the gradient of Σ z·dz, with dz held fixed, is that of the loss.
        let dz = device
            .try_tensor_from_vec(dz, (rows, z.len() / rows))
            .map_err(failed)?;
        let inner = ::dfdx::tensor::PutTape::put_tape(outputs, tape)
            .try_mul(dz)
            .map_err(failed)?;
        let inner: Tensor<Rank0, f32, Cpu, Tape> = inner.try_sum().map_err(failed)?;
        let gradients = inner.try_backward().map_err(failed)?;
        let d = self.model.parameter_count();
        Ok((loss, tensors::gradient(self.network.module(), &gradients, d)))
    }

    /// The numbers of a batch's outputs, `[rows, outputs]`.
    fn outputs(&self, outputs: &Batch, rows: usize) -> Result<Vec<f32>, EngineError> {
        let expected = rows * self.model.output_shape().iter().product::<usize>();
        let found = outputs.as_vec();
        if found.len() != expected {
            let message = format!("the module gave {} numbers instead of {expected}", found.len());
            return Err(EngineError::External(message));
        }
        Ok(found)
    }

    /// How well the module does with `parameters` on `examples`: what [`Model::evaluate`] is for the engine's own models.
    ///
    /// # Errors
    /// [`EngineError::Weights`] or [`EngineError::Data`] where they are not this model's, [`EngineError::External`] where dfdx
    /// fails.
    pub fn evaluate(&mut self, parameters: &[f32], examples: &Examples) -> Result<Evaluation, EngineError> {
        self.model.check_examples(examples)?;
        self.set_parameters(parameters)?;
        let device = Cpu::default();
        let features = self.model.features();
        let mut tally = Tally::new(USUAL_K);
        let batches = examples.x().chunks(EVALUATION_ROWS * features);
        for (x, targets) in batches.zip(
            examples
                .y()
                .chunks(EVALUATION_ROWS * examples.targets_per_example()),
        ) {
            let rows = x.len() / features;
            let x = device.try_tensor_from_vec(x.to_vec(), (rows, features));
            let outputs = self.network.infer(x.map_err(failed)?).map_err(failed)?;
            let outputs = self.outputs(&outputs, rows)?;
            let batch = LossInput {
                rows,
                outputs: &outputs,
                targets,
            };
            self.model.loss().tally_cpu(batch, &mut tally);
        }
        Ok(tally.evaluation(examples.len()))
    }
}

/// What dfdx says, as an error of the engine.
fn failed(error: CpuError) -> EngineError {
    EngineError::External(error.to_string())
}

async fn tell(observer: &mut impl Observer, progress: Progress<'_>) -> Result<(), EngineError> {
    match observer.progress(progress).await {
        Control::Continue => Ok(()),
        Control::Stop => Err(EngineError::Stopped),
    }
}
