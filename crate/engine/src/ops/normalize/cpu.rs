//! CPU kernels: sums over the positions for each channel, then over the channels of a group.

use super::Normalize;
use crate::ops::{Forward, InputGradient, Op, ParameterGradient, SquaredNorms, ghost};
#[cfg(feature = "gpu")]
use crate::{
    EngineError,
    backend::gpu::{OpBuffers, Planner},
};

/// The sum, in eight lanes so that it is vectorised and rounds less.
fn sum(values: &[f32]) -> f32 {
    let (lanes, rest) = values.as_chunks::<8>();
    let mut totals = [0.0f32; 8];
    for lane in lanes {
        totals.iter_mut().zip(lane).for_each(|(sum, more)| *sum += more);
    }
    totals.iter().chain(rest).sum()
}

impl Normalize {
    /// Numbers of an instance.
    const fn instance_len(&self) -> usize {
        self.positions * self.channels
    }

    /// Channels of a group.
    const fn width(&self) -> usize {
        self.channels / self.groups
    }

    /// Replaces the sum of each channel by the mean of its group.
    fn group_means(&self, channels: &mut [f32]) {
        let share = 1.0 / (self.positions * self.width()) as f32;
        for group in channels.chunks_exact_mut(self.width()) {
            let mean = sum(group) * share;
            group.fill(mean);
        }
    }

    /// Adds `Σ dy·x̂` over an instance to `d_scale`, for each channel.
    fn add_scale_gradient(&self, x: &[f32], dy: &[f32], kept: &[f32], d_scale: &mut [f32]) {
        let (means, factors) = kept.split_at(self.groups);
        let pixels = x.chunks_exact(self.channels).zip(dy.chunks_exact(self.channels));
        for (x, dy) in pixels {
            let groups = x.chunks_exact(self.width()).zip(dy.chunks_exact(self.width()));
            let sums = d_scale.chunks_exact_mut(self.width());
            for (((x, dy), sums), (mean, factor)) in groups.zip(sums).zip(means.iter().zip(factors)) {
                for ((sum, x), dy) in sums.iter_mut().zip(x).zip(dy) {
                    *sum += dy * (x - mean) * factor;
                }
            }
        }
    }
}

impl Op for Normalize {
    /// For each instance the means of the groups, then their factors.
    fn kept_len(&self) -> usize {
        2 * self.instances * self.groups
    }

    fn forward_cpu(&self, pass: Forward<'_>) {
        let (channels, len, width) = (self.channels, self.instance_len(), self.width());
        let (scale, shift) = (&pass.parameters[self.scale()], &pass.parameters[self.shift()]);
        let mut means = vec![0.0f32; channels];
        let mut factors = vec![0.0f32; channels];
        let instances = pass.x.chunks_exact(len).zip(pass.y.chunks_exact_mut(len));
        for ((x, y), kept) in instances.zip(pass.kept.chunks_exact_mut(2 * self.groups)) {
            means.fill(0.0);
            for x in x.chunks_exact(channels) {
                means.iter_mut().zip(x).for_each(|(sum, x)| *sum += x);
            }
            self.group_means(&mut means);
            factors.fill(0.0);
            for x in x.chunks_exact(channels) {
                for ((sum, x), mean) in factors.iter_mut().zip(x).zip(&means) {
                    *sum += (x - mean) * (x - mean);
                }
            }
            self.group_means(&mut factors);
            for factor in &mut factors {
                *factor = 1.0 / (*factor + self.epsilon).sqrt();
            }
            for group in 0..self.groups {
                kept[group] = means[group * width];
                kept[self.groups + group] = factors[group * width];
            }
            factors
                .iter_mut()
                .zip(scale)
                .for_each(|(factor, scale)| *factor *= scale);
            for (x, y) in x.chunks_exact(channels).zip(y.chunks_exact_mut(channels)) {
                for c in 0..channels {
                    y[c] = (x[c] - means[c]) * factors[c] + shift[c];
                }
            }
        }
    }

    fn input_gradient_cpu(&self, pass: InputGradient<'_>) {
        let Some(dx) = pass.dx else { return };
        let (channels, len, width) = (self.channels, self.instance_len(), self.width());
        let scale = &pass.parameters[self.scale()];
        // For each channel: mean and factor of its group; the means of `g` and of `g·x̂`.
        let [mut means, mut factors] = [vec![0.0f32; channels], vec![0.0f32; channels]];
        let [mut g, mut g_x] = [vec![0.0f32; channels], vec![0.0f32; channels]];
        let instances = pass.x.chunks_exact(len).zip(pass.dy.chunks_exact(len));
        let instances = instances.zip(pass.kept.chunks_exact(2 * self.groups));
        for (((x, dy), kept), dx) in instances.zip(dx.chunks_exact_mut(len)) {
            for c in 0..channels {
                means[c] = kept[c / width];
                factors[c] = kept[self.groups + c / width];
            }
            g.fill(0.0);
            g_x.fill(0.0);
            self.add_scale_gradient(x, dy, kept, &mut g_x);
            for dy in dy.chunks_exact(channels) {
                g.iter_mut().zip(dy).for_each(|(sum, dy)| *sum += dy);
            }
            for c in 0..channels {
                g[c] *= scale[c];
                g_x[c] *= scale[c];
            }
            self.group_means(&mut g);
            self.group_means(&mut g_x);
            let pixels = x.chunks_exact(channels).zip(dy.chunks_exact(channels));
            for ((x, dy), dx) in pixels.zip(dx.chunks_exact_mut(channels)) {
                for c in 0..channels {
                    let normal = (x[c] - means[c]) * factors[c];
                    dx[c] = (dy[c] * scale[c] - g[c] - normal * g_x[c]) * factors[c];
                }
            }
        }
    }

    fn parameter_gradient_cpu(&self, pass: ParameterGradient<'_>) {
        let len = self.instance_len();
        let d_scale = &mut pass.d_parameters[self.scale()];
        d_scale.fill(0.0);
        let instances = pass.x.chunks_exact(len).zip(pass.dy.chunks_exact(len));
        for ((x, dy), kept) in instances.zip(pass.kept.chunks_exact(2 * self.groups)) {
            self.add_scale_gradient(x, dy, kept, d_scale);
        }
        let d_shift = &mut pass.d_parameters[self.shift()];
        d_shift.fill(0.0);
        for dy in pass.dy.chunks_exact(self.channels) {
            d_shift.iter_mut().zip(dy).for_each(|(sum, dy)| *sum += dy);
        }
    }

    /// The gradient of one example is no longer than a pixel, so it is computed.
    fn squared_norms_cpu(&self, pass: SquaredNorms<'_>) {
        let len = self.instance_len();
        ghost::sum(
            pass.dy,
            self.instances * self.positions,
            self.channels,
            pass.norms,
        );
        let mut d_scale = vec![0.0; self.channels];
        let rows = pass.x.chunks_exact(self.instances * len);
        let rows = rows.zip(pass.dy.chunks_exact(self.instances * len));
        let rows = rows.zip(pass.kept.chunks_exact(self.kept_len()));
        for (((x, dy), kept), norm) in rows.zip(pass.norms) {
            d_scale.fill(0.0);
            let instances = x.chunks_exact(len).zip(dy.chunks_exact(len));
            for ((x, dy), kept) in instances.zip(kept.chunks_exact(2 * self.groups)) {
                self.add_scale_gradient(x, dy, kept, &mut d_scale);
            }
            *norm += ghost::squared(&d_scale);
        }
    }

    #[cfg(feature = "gpu")]
    fn plan_gpu(&self, planner: &mut Planner<'_>, buffers: &OpBuffers<'_>) -> Result<(), EngineError> {
        self.plan(planner, buffers)
    }
}
