//! CPU kernels.

use super::SoftmaxCrossEntropy;
#[cfg(feature = "gpu")]
use crate::{EngineError, backend::gpu::Planner};
use crate::{
    PADDING,
    backend::vector::{exponential, largest, scale},
    crew::{self, Parts},
    ops::{LossInput, LossOp, Reduction, Tally},
};

/// What a class costs, in the crew's measure.
const COST: usize = 8;

/// `log Σⱼ exp(rowⱼ)`, without overflow; `exponentials` is room for as many numbers. NaN where there is one.
fn log_sum_exp(row: &[f32], exponentials: &mut [f32]) -> f32 {
    let max = largest(row);
    max + exponential(exponentials, row, max).ln()
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
        let shares: Vec<f32> = batch
            .targets
            .chunks_exact(labels_of)
            .map(|labels| 1.0 / counted(labels))
            .collect();
        let mut losses = vec![0.0f32; batch.targets.len()];
        {
            let (losses, gradients) = (Parts::of(&mut losses), Parts::of(d_outputs));
            let classes = self.classes;
            crew::split(batch.targets.len(), 1, COST * classes, |rows| {
                for at in rows {
                    let row = &batch.outputs[at * classes..(at + 1) * classes];
                    // SAFETY: every thread has other rows.
                    let gradient = unsafe { gradients.part(at * classes..(at + 1) * classes) };
                    let label = batch.targets[at];
                    if label == PADDING {
                        gradient.fill(0.0);
                        continue;
                    }
                    let (max, share) = (largest(row), shares[at / labels_of]);
                    let sum = exponential(gradient, row, max);
                    scale(gradient, share / sum);
                    gradient[label as usize] -= share;
                    // SAFETY: likewise.
                    let loss = unsafe { losses.part(at..at + 1) };
                    loss[0] = max + sum.ln() - row[label as usize];
                }
            });
        }
        // In f64: losses that are nearly equal would all be rounded the same way.
        let mut total = 0.0f64;
        for (losses, &share) in losses.chunks_exact(labels_of).zip(&shares) {
            total += losses.iter().map(|&loss| f64::from(loss)).sum::<f64>() * f64::from(share);
        }
        (total / groups as f64) as f32
    }

    fn tally_cpu(&self, batch: LossInput<'_>, tally: &mut Tally) {
        let mut exponentials = vec![0.0; self.classes];
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
            tally.loss += f64::from(log_sum_exp(row, &mut exponentials) - own);
            tally.right += usize::from(before == 0 && !own.is_nan());
            tally.in_top_k += usize::from(before < tally.k && !own.is_nan());
        }
    }

    fn predict_cpu(&self, outputs: &mut [f32]) {
        let mut exponentials = vec![0.0; self.classes];
        for row in outputs.chunks_exact_mut(self.classes) {
            let sum = exponential(&mut exponentials, row, largest(row));
            scale(&mut exponentials, 1.0 / sum);
            row.copy_from_slice(&exponentials);
        }
    }

    #[cfg(feature = "gpu")]
    fn plan_gpu(
        &self,
        planner: &mut Planner<'_>,
        outputs: &wgpu::Buffer,
        d_outputs: &wgpu::Buffer,
        reduction: Reduction,
    ) -> Result<(), EngineError> {
        self.plan(planner, outputs, d_outputs, reduction);
        Ok(())
    }
}
