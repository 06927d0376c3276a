//! CPU kernels.

use super::{ElementwiseLoss, Measure};
use crate::ops::{LossInput, LossOp, Reduction, Tally, exponential::logistic};
#[cfg(feature = "gpu")]
use crate::{EngineError, backend::gpu::Planner};

impl ElementwiseLoss {
    /// The loss of one output, and its slope.
    fn of(&self, z: f32, t: f32) -> (f32, f32) {
        match self.measure {
            Measure::SquaredError => ((z - t) * (z - t), 2.0 * (z - t)),
            Measure::SigmoidCrossEntropy => (z.max(0.0) - z * t + (-z.abs()).exp().ln_1p(), logistic(z) - t),
        }
    }
}

impl LossOp for ElementwiseLoss {
    fn targets_per_example(&self) -> usize {
        self.len
    }

    fn takes_labels(&self) -> bool {
        false
    }

    fn loss_cpu(&self, batch: LossInput<'_>, reduction: Reduction, d_outputs: &mut [f32]) -> f32 {
        // Every example has as many outputs, so the mean over the batch is the mean of the examples' means.
        let all = 1.0 / batch.outputs.len() as f32;
        let slope_scale = match reduction {
            Reduction::Batch => all,
            Reduction::Example => 1.0 / self.len as f32,
        };
        let mut total = 0.0f64;
        let pairs = batch.outputs.iter().zip(batch.targets);
        for (d, (&z, &t)) in d_outputs.iter_mut().zip(pairs) {
            let (loss, slope) = self.of(z, f32::from_bits(t));
            total += f64::from(loss);
            *d = slope * slope_scale;
        }
        (total * f64::from(all)) as f32
    }

    fn tally_cpu(&self, batch: LossInput<'_>, tally: &mut Tally) {
        tally.counted += batch.outputs.len();
        for (&z, &t) in batch.outputs.iter().zip(batch.targets) {
            let t = f32::from_bits(t);
            tally.loss += f64::from(self.of(z, t).0);
            // A yes-or-no output is right where it is on the target's side.
            let right = self.measure == Measure::SigmoidCrossEntropy && (z > 0.0) == (t > 0.5);
            tally.right += usize::from(right);
            tally.in_top_k += usize::from(right);
        }
    }

    fn predict_cpu(&self, outputs: &mut [f32]) {
        if self.measure == Measure::SigmoidCrossEntropy {
            outputs.iter_mut().for_each(|z| *z = logistic(*z));
        }
    }

    #[cfg(feature = "gpu")]
    fn plan_gpu(
        &self,
        planner: &mut Planner<'_>,
        outputs: &wgpu::Buffer,
        d_outputs: &wgpu::Buffer,
    ) -> Result<(), EngineError> {
        self.plan(planner, outputs, d_outputs);
        Ok(())
    }
}
