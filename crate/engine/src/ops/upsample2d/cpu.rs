//! CPU kernels: each output line is made from an input line, pixel by pixel.

use super::Upsample2d;
use crate::ops::{Forward, InputGradient, Op};
#[cfg(feature = "gpu")]
use crate::{
    EngineError,
    backend::gpu::{OpBuffers, Planner},
};

impl Op for Upsample2d {
    fn forward_cpu(&self, pass: Forward<'_>) {
        let (channels, factor) = (self.channels, self.factor);
        let lines = pass.x.chunks_exact(self.width * channels);
        for (x, y) in lines.zip(pass.y.chunks_exact_mut(self.line_len() * factor)) {
            let (first, more) = y.split_at_mut(self.line_len());
            for (x, y) in x
                .chunks_exact(channels)
                .zip(first.chunks_exact_mut(factor * channels))
            {
                y.chunks_exact_mut(channels).for_each(|y| y.copy_from_slice(x));
            }
            more.chunks_exact_mut(self.line_len())
                .for_each(|line| line.copy_from_slice(first));
        }
    }

    fn input_gradient_cpu(&self, pass: InputGradient<'_>) {
        let Some(dx) = pass.dx else { return };
        dx.fill(0.0);
        let channels = self.channels;
        let lines = dx.chunks_exact_mut(self.width * channels);
        for (dx, dy) in lines.zip(pass.dy.chunks_exact(self.line_len() * self.factor)) {
            for dy in dy.chunks_exact(self.line_len()) {
                let pixels = dx.chunks_exact_mut(channels);
                for (dx, dy) in pixels.zip(dy.chunks_exact(self.factor * channels)) {
                    for dy in dy.chunks_exact(channels) {
                        dx.iter_mut().zip(dy).for_each(|(sum, more)| *sum += more);
                    }
                }
            }
        }
    }

    #[cfg(feature = "gpu")]
    fn plan_gpu(&self, planner: &mut Planner<'_>, buffers: &OpBuffers<'_>) -> Result<(), EngineError> {
        self.plan(planner, buffers)
    }
}
