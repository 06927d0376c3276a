//! CPU kernels: loops over the channels of a pixel.

use super::{Pool2d, Pooling};
use crate::ops::{Forward, InputGradient, Op};
#[cfg(feature = "gpu")]
use crate::{
    EngineError,
    backend::gpu::{OpBuffers, Planner},
};

impl Pool2d {
    /// Visits every pixel of every window of the batch: the window's number in the batch, the pixel's number in the window, and
    /// where the pixel's channels begin in the batch.
    #[inline(always)]
    fn each_pixel(&self, rows: usize, mut visit: impl FnMut(usize, usize, usize)) {
        let window = &self.window;
        for index in 0..rows * window.positions() {
            let (row, position) = (index / window.positions(), index % window.positions());
            let y = position / window.output[1] * window.stride[0];
            let x = position % window.output[1] * window.stride[1];
            for u in 0..window.size[0] {
                for v in 0..window.size[1] {
                    let pixel = (y + u) * window.input[1] + x + v;
                    let at = row * window.image_len() + pixel * window.channels;
                    visit(index, u * window.size[1] + v, at);
                }
            }
        }
    }

    /// What each number of a window counts in its mean.
    pub(super) fn share(&self) -> f32 {
        1.0 / (self.window.size[0] * self.window.size[1]) as f32
    }
}

impl Op for Pool2d {
    fn kept_len(&self) -> usize {
        match self.pooling {
            Pooling::Max => self.output_len(),
            Pooling::Average => 0,
        }
    }

    fn forward_cpu(&self, pass: Forward<'_>) {
        let channels = self.window.channels;
        match self.pooling {
            Pooling::Max => self.each_pixel(pass.rows, |index, tap, at| {
                let x = &pass.x[at..at + channels];
                let y = &mut pass.y[index * channels..(index + 1) * channels];
                let kept = &mut pass.kept[index * channels..(index + 1) * channels];
                if tap == 0 {
                    y.copy_from_slice(x);
                    kept.fill(0.0);
                    return;
                }
                for ((y, kept), &x) in y.iter_mut().zip(kept).zip(x) {
                    let larger = x > *y || x.is_nan();
                    *y = if larger { x } else { *y };
                    *kept = if larger { tap as f32 } else { *kept };
                }
            }),
            Pooling::Average => {
                pass.y.fill(0.0);
                self.each_pixel(pass.rows, |index, _, at| {
                    let y = &mut pass.y[index * channels..(index + 1) * channels];
                    for (sum, x) in y.iter_mut().zip(&pass.x[at..at + channels]) {
                        *sum += x;
                    }
                });
                let share = self.share();
                pass.y.iter_mut().for_each(|y| *y *= share);
            }
        }
    }

    fn input_gradient_cpu(&self, pass: InputGradient<'_>) {
        let Some(dx) = pass.dx else { return };
        let channels = self.window.channels;
        dx.fill(0.0);
        match self.pooling {
            Pooling::Max => self.each_pixel(pass.rows, |index, tap, at| {
                let dy = &pass.dy[index * channels..(index + 1) * channels];
                let kept = &pass.kept[index * channels..(index + 1) * channels];
                for ((dx, &dy), &kept) in dx[at..at + channels].iter_mut().zip(dy).zip(kept) {
                    *dx += if kept == tap as f32 { dy } else { 0.0 };
                }
            }),
            Pooling::Average => {
                let share = self.share();
                self.each_pixel(pass.rows, |index, _, at| {
                    let dy = &pass.dy[index * channels..(index + 1) * channels];
                    for (dx, dy) in dx[at..at + channels].iter_mut().zip(dy) {
                        *dx += share * dy;
                    }
                });
            }
        }
    }

    #[cfg(feature = "gpu")]
    fn plan_gpu(&self, planner: &mut Planner<'_>, buffers: &OpBuffers<'_>) -> Result<(), EngineError> {
        self.plan(planner, buffers)
    }
}
