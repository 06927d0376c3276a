//! Optimisers: how a gradient moves the parameters.

pub mod sgd;

use crate::{SpecError, spec::OptimizerSpec};

/// A checked optimiser.
pub(crate) fn check(spec: &OptimizerSpec) -> Result<sgd::Sgd, SpecError> {
    match *spec {
        OptimizerSpec::Sgd {
            learning_rate,
            momentum,
        } => sgd::Sgd::new(learning_rate, momentum),
    }
}
