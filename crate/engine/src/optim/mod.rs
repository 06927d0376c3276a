//! Optimisers: how a gradient moves the parameters.

pub mod sgd;

#[cfg(feature = "gpu")]
use crate::backend::gpu::Planner;
use crate::{SpecError, spec::OptimizerSpec};

/// What is different from step to step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct StepNumbers {
    /// Step since training began, from 1.
    pub step: u32,
    /// What dropout draws from: different for every step of every training.
    pub key: u32,
    /// Step size of this step.
    pub learning_rate: f32,
}

/// A checked optimiser.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Optimizer {
    Sgd(sgd::Sgd),
}

impl Default for Optimizer {
    fn default() -> Self {
        Self::Sgd(sgd::Sgd {
            learning_rate: 1.0,
            momentum: 0.0,
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
            } => sgd::Sgd::new(learning_rate, momentum).map(Self::Sgd),
        }
    }

    /// Step size before any schedule.
    pub const fn learning_rate(&self) -> f32 {
        match self {
            Self::Sgd(sgd) => sgd.learning_rate,
        }
    }

    /// Numbers of state for so many parameters.
    pub const fn state_len(&self, parameters: usize) -> usize {
        match self {
            Self::Sgd(sgd) => sgd.state_len(parameters),
        }
    }

    /// One update of `parameters` by `gradient`, both `[d]`; `state` is `[state_len(d)]`.
    pub fn update_cpu(
        &self,
        numbers: StepNumbers,
        parameters: &mut [f32],
        gradient: &[f32],
        state: &mut [f32],
    ) {
        match self {
            Self::Sgd(sgd) => sgd.update_cpu(numbers, parameters, gradient, state),
        }
    }

    /// Adds the update of `parameters` (`[len]`) to a plan.
    #[cfg(feature = "gpu")]
    pub fn plan(
        &self,
        planner: &mut Planner<'_>,
        len: usize,
        gradient: &wgpu::Buffer,
        parameters: &wgpu::Buffer,
        state: &wgpu::Buffer,
    ) {
        match self {
            Self::Sgd(sgd) => sgd.plan(planner, len, gradient, parameters, state),
        }
    }
}
