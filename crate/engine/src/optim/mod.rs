//! Optimisers: how a gradient moves the parameters.

pub mod adagrad;
pub mod adam;
pub(crate) mod adjust;
pub(crate) mod lot;
pub(crate) mod schedule;
pub mod sgd;

use std::ops::Range;

#[cfg(feature = "gpu")]
use crate::backend::gpu::Planner;
use crate::{
    SpecError,
    crew::{self, Parts},
    spec::OptimizerSpec,
};

/// Parameters that are updated at once: threads begin at multiples of them.
const LANE: usize = 4;
/// What the update of a parameter costs, in multiply-adds: it moves a few numbers through the caches.
const COST: usize = 4;

/// What is different from step to step.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct StepNumbers {
    /// What dropout draws from: different for every step of every training.
    pub key: u32,
    /// Step size of this step.
    pub learning_rate: f32,
    /// Two numbers of the optimiser's own.
    pub own: [f32; 2],
}

/// The buffers that an update is planned over, all of the whole flat vector's length but the state, which has
/// [`Optimizer::state_per_parameter`] times as many numbers.
#[cfg(feature = "gpu")]
pub(crate) struct UpdateBuffers<'a> {
    pub gradient: &'a wgpu::Buffer,
    pub parameters: &'a wgpu::Buffer,
    pub state: &'a wgpu::Buffer,
}

/// A checked optimiser.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Optimizer {
    Sgd(sgd::Sgd),
    Adam(adam::Adam),
    Adagrad(adagrad::Adagrad),
}

impl Default for Optimizer {
    fn default() -> Self {
        Self::Sgd(sgd::Sgd {
            learning_rate: 1.0,
            momentum: 0.0,
            nesterov: false,
        })
    }
}

impl Optimizer {
    /// Checks a spec.
    pub fn new(spec: &OptimizerSpec) -> Result<Self, SpecError> {
        match *spec {
            OptimizerSpec::Sgd {
                learning_rate,
                momentum,
                nesterov,
            } => sgd::Sgd::new(learning_rate, momentum, nesterov).map(Self::Sgd),
            OptimizerSpec::Adam {
                learning_rate,
                beta1,
                beta2,
                epsilon,
                weight_decay,
            } => adam::Adam::new(learning_rate, [beta1, beta2], epsilon, weight_decay).map(Self::Adam),
            OptimizerSpec::Adagrad {
                learning_rate,
                initial_accumulator,
                epsilon,
            } => adagrad::Adagrad::new(learning_rate, initial_accumulator, epsilon).map(Self::Adagrad),
        }
    }

    /// The numbers of step `step`, from 1, of a training whose schedule gives `factor` for it.
    pub fn numbers(&self, step: u32, factor: f32, key: u32) -> StepNumbers {
        let (rate, own) = match self {
            Self::Sgd(sgd) => (sgd.learning_rate, [0.0; 2]),
            Self::Adam(adam) => (adam.learning_rate, adam.corrections(step)),
            Self::Adagrad(adagrad) => (adagrad.learning_rate, [0.0; 2]),
        };
        StepNumbers {
            key,
            learning_rate: rate * factor,
            own,
        }
    }

    /// Numbers of state per parameter.
    pub const fn state_per_parameter(&self) -> usize {
        match self {
            Self::Sgd(sgd) => sgd.state_per_parameter(),
            Self::Adam(_) => 2,
            Self::Adagrad(_) => 1,
        }
    }

    /// A fresh state for so many parameters.
    pub fn fresh_state(&self, parameters: usize) -> Vec<f32> {
        let start = match self {
            Self::Adagrad(adagrad) => adagrad.initial_accumulator,
            _ => 0.0,
        };
        vec![start; self.state_per_parameter() * parameters]
    }

    /// One update of the parameters in `range` by `gradient`; both are the whole flat vector, `[d]`, and `state` is
    /// `[state_per_parameter, d]`.
    pub fn update_cpu(
        &self,
        numbers: StepNumbers,
        range: Range<usize>,
        parameters: &mut [f32],
        gradient: &[f32],
        state: &mut [f32],
    ) {
        let d = parameters.len();
        let (all_parameters, all_state) = (Parts::of(parameters), Parts::of(state));
        crew::split(range.len(), LANE, COST, |part| {
            let part = range.start + part.start..range.start + part.end;
            let gradient = &gradient[part.clone()];
            let state = |which: usize| part.start + which * d..part.end + which * d;
            // SAFETY: every thread has other parameters, and their state.
            unsafe {
                let parameters = all_parameters.part(part.clone());
                match self {
                    Self::Sgd(sgd) if sgd.momentum == 0.0 => {
                        sgd.update_plain_cpu(numbers, parameters, gradient);
                    }
                    Self::Sgd(sgd) => {
                        sgd.update_cpu(numbers, parameters, gradient, all_state.part(state(0)));
                    }
                    Self::Adam(adam) => {
                        let (m, v) = (all_state.part(state(0)), all_state.part(state(1)));
                        adam.update_cpu(numbers, parameters, gradient, m, v);
                    }
                    Self::Adagrad(adagrad) => {
                        adagrad.update_cpu(numbers, parameters, gradient, all_state.part(state(0)));
                    }
                }
            }
        });
    }

    /// Adds the update of the parameters in `range` of `len` to a plan.
    #[cfg(feature = "gpu")]
    pub fn plan(
        &self,
        planner: &mut Planner<'_>,
        len: usize,
        range: &Range<usize>,
        buffers: &UpdateBuffers<'_>,
    ) {
        match self {
            Self::Sgd(sgd) => sgd.plan(planner, range, buffers),
            Self::Adam(adam) => adam.plan(planner, len, range, buffers),
            Self::Adagrad(adagrad) => adagrad.plan(planner, range, buffers),
        }
    }
}

/// `value`, where it is finite and `fits`; otherwise the error that names the field.
pub(crate) fn in_range(
    field: &'static str,
    value: f32,
    fits: bool,
    expected: &'static str,
) -> Result<f32, SpecError> {
    if value.is_finite() && fits {
        return Ok(value);
    }
    Err(SpecError::Training {
        field,
        found: value.into(),
        expected,
    })
}

/// A step size.
pub(crate) fn learning_rate(value: f32) -> Result<f32, SpecError> {
    in_range(
        "optimizer.learning_rate",
        value,
        value > 0.0,
        "a finite number above 0",
    )
}
