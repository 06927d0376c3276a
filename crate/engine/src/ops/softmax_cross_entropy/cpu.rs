//! CPU kernels.

use super::SoftmaxCrossEntropy;
use crate::ops::LossOp;
#[cfg(feature = "gpu")]
use crate::{EngineError, backend::gpu::Planner};

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
    max + row.iter().map(|&z| (z - max).exp()).sum::<f32>().ln()
}

impl LossOp for SoftmaxCrossEntropy {
    fn loss_cpu(&self, rows: usize, outputs: &[f32], labels: &[u32], d_outputs: &mut [f32]) -> f32 {
        let scale = 1.0 / rows as f32;
        let mut total = 0.0;
        let gradients = d_outputs.chunks_exact_mut(self.classes);
        for ((row, gradient), &label) in outputs.chunks_exact(self.classes).zip(gradients).zip(labels) {
            let log_sum = log_sum_exp(row);
            for (d, &z) in gradient.iter_mut().zip(row) {
                *d = (z - log_sum).exp() * scale;
            }
            gradient[label as usize] -= scale;
            total += log_sum - row[label as usize];
        }
        total * scale
    }

    fn mean_loss_cpu(&self, rows: usize, outputs: &[f32], labels: &[u32]) -> f32 {
        let rows_and_labels = outputs.chunks_exact(self.classes).zip(labels);
        rows_and_labels
            .map(|(row, &label)| log_sum_exp(row) - row[label as usize])
            .sum::<f32>()
            / rows as f32
    }

    fn probabilities_cpu(&self, outputs: &[f32]) -> Vec<f32> {
        let mut probabilities = Vec::with_capacity(outputs.len());
        for row in outputs.chunks_exact(self.classes) {
            let log_sum = log_sum_exp(row);
            probabilities.extend(row.iter().map(|&z| (z - log_sum).exp()));
        }
        probabilities
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
