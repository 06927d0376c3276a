//! CPU kernels.

use super::SoftmaxCrossEntropy;
#[cfg(feature = "gpu")]
use crate::{EngineError, backend::gpu::Planner};
use crate::{
    PADDING,
    ops::{LossInput, LossOp, Reduction, Tally, exponential::exp},
};

/// The largest value; NaN where there is one, so that it reaches the loss.
fn max(row: &[f32]) -> f32 {
    row.iter().fold(
        f32::NEG_INFINITY,
        |max, &z| if z > max || z.is_nan() { z } else { max },
    )
}

/// `log Σⱼ exp(rowⱼ)`, without overflow.
fn log_sum_exp(row: &[f32]) -> f32 {
    let max = max(row);
    max + row.iter().map(|&z| exp(z - max)).sum::<f32>().ln()
}

/// The sum, in eight parts side by side: the compiler may not reorder a sum of `f32` by itself.
fn sum_of(values: &[f32]) -> f32 {
    let mut parts = [0.0; 8];
    let chunks = values.chunks_exact(8);
    let rest = chunks.remainder().iter().sum::<f32>();
    for chunk in chunks {
        for (part, value) in parts.iter_mut().zip(chunk) {
            *part += value;
        }
    }
    parts.iter().sum::<f32>() + rest
}

impl LossOp for SoftmaxCrossEntropy {
    fn targets_per_example(&self) -> usize {
        self.positions
    }

    fn takes_labels(&self) -> bool {
        true
    }

    fn loss_cpu(&self, batch: LossInput<'_>, reduction: Reduction, d_outputs: &mut [f32]) -> f32 {
        let counted = |labels: &[u32]| labels.iter().filter(|&&label| label != PADDING).count().max(1) as f32;
        let groups = match reduction {
            Reduction::Batch => 1,
            Reduction::Example => batch.rows,
        };
        let labels_of = batch.targets.len() / groups;
        // In f64: losses that are nearly equal would all be rounded the same way.
        let mut total = 0.0f64;
        for (group, labels) in batch.targets.chunks_exact(labels_of).enumerate() {
            let scale = 1.0 / counted(labels);
            let start = group * labels_of * self.classes;
            let rows = batch.outputs[start..].chunks_exact(self.classes);
            let gradients = d_outputs[start..].chunks_exact_mut(self.classes);
            let mut sum = 0.0f64;
            for ((row, gradient), &label) in rows.zip(gradients).zip(labels) {
                if label == PADDING {
                    gradient.fill(0.0);
                    continue;
                }
                let max = max(row);
                for (d, &z) in gradient.iter_mut().zip(row) {
                    *d = exp(z - max);
                }
                let exp_sum = sum_of(gradient);
                let share = scale / exp_sum;
                gradient.iter_mut().for_each(|d| *d *= share);
                gradient[label as usize] -= scale;
                sum += f64::from(max + exp_sum.ln() - row[label as usize]);
            }
            total += sum * f64::from(scale);
        }
        (total / groups as f64) as f32
    }

    fn tally_cpu(&self, batch: LossInput<'_>, tally: &mut Tally) {
        for (row, &label) in batch.outputs.chunks_exact(self.classes).zip(batch.targets) {
            if label == PADDING {
                continue;
            }
            let own = row[label as usize];
            // Of equal outputs the first is the guess.
            let before = row
                .iter()
                .enumerate()
                .filter(|&(index, &z)| z > own || (z == own && index < label as usize))
                .count();
            tally.counted += 1;
            tally.loss += f64::from(log_sum_exp(row) - own);
            tally.right += usize::from(before == 0 && !own.is_nan());
            tally.in_top_k += usize::from(before < tally.k && !own.is_nan());
        }
    }

    fn predict_cpu(&self, outputs: &mut [f32]) {
        for row in outputs.chunks_exact_mut(self.classes) {
            let log_sum = log_sum_exp(row);
            row.iter_mut().for_each(|z| *z = exp(*z - log_sum));
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
