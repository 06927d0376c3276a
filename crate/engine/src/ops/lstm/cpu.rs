//! CPU kernels: one product for all steps where there can be one, else one a step over all examples, and loops over the cells.

use super::Lstm;
#[cfg(feature = "gpu")]
use crate::{
    EngineError,
    backend::gpu::{OpBuffers, Planner},
};
use crate::{
    backend::matrix::{Matrix, MatrixMut, multiply, multiply_into},
    ops::{
        Forward, InputGradient, Op, ParameterGradient, SquaredNorms,
        exponential::{logistic, tanh},
        ghost, scale_rows,
    },
};

/// What is kept of a batch: one part after the other, each `[rows, time, …]`.
struct Kept<T> {
    /// The gates, `[…, gates]`; after `input_gradient` the gradients of their pre-activations.
    gates: T,
    /// `c`, `[…, units]`; after `input_gradient` nothing of use.
    cells: T,
    /// The output of the step before, `[…, outputs]`, zeros for the first: what the recurrent kernel sees.
    previous: T,
    /// `m`, `[…, units]`, where there is a projection.
    hidden: T,
}

impl Lstm {
    /// Numbers per example of each part of what is kept.
    const fn parts(&self) -> [usize; 4] {
        let hidden = if self.projection.is_some() { self.units } else { 0 };
        [
            self.time * self.gates(),
            self.time * self.units,
            self.time * self.outputs,
            self.time * hidden,
        ]
    }

    fn split<'a>(&self, rows: usize, kept: &'a [f32]) -> Kept<&'a [f32]> {
        let [gates, cells, previous, _] = self.parts().map(|len| len * rows);
        let (gates, rest) = kept.split_at(gates);
        let (cells, rest) = rest.split_at(cells);
        let (previous, hidden) = rest.split_at(previous);
        Kept {
            gates,
            cells,
            previous,
            hidden,
        }
    }

    fn split_mut<'a>(&self, rows: usize, kept: &'a mut [f32]) -> Kept<&'a mut [f32]> {
        let [gates, cells, previous, _] = self.parts().map(|len| len * rows);
        let (gates, rest) = kept.split_at_mut(gates);
        let (cells, rest) = rest.split_at_mut(cells);
        let (previous, hidden) = rest.split_at_mut(previous);
        Kept {
            gates,
            cells,
            previous,
            hidden,
        }
    }

    /// Step `step` of all examples, `[rows, width]`, out of `[rows, time, width]`.
    fn at_step<'a>(&self, values: &'a [f32], rows: usize, step: usize, width: usize) -> Matrix<'a> {
        Matrix::strided(&values[step * width..], rows, width, self.time * width, 1)
    }

    fn at_step_mut<'a>(
        &self,
        values: &'a mut [f32],
        rows: usize,
        step: usize,
        width: usize,
    ) -> MatrixMut<'a> {
        MatrixMut::strided(&mut values[step * width..], rows, width, self.time * width)
    }

    fn recurrent<'a>(&self, parameters: &'a [f32]) -> Matrix<'a> {
        let kernel = &parameters[self.recurrent_kernel()];
        Matrix::new(kernel, self.outputs, self.gates())
    }

    /// The projection matrix, where there is one.
    fn projecting<'a>(&self, parameters: &'a [f32]) -> Option<Matrix<'a>> {
        self.projection()
            .map(|range| Matrix::new(&parameters[range], self.units, self.outputs))
    }

    /// One step of one example: turns pre-activations to gates, and writes `c` and `m`.
    fn cell_forward(&self, gates: &mut [f32], c_before: &[f32], c: &mut [f32], m: &mut [f32]) {
        let [i, f, g, o] = gates_of(gates, self.units);
        let (c_before, c, m) = (&c_before[..f.len()], &mut c[..f.len()], &mut m[..f.len()]);
        for at in 0..f.len() {
            f[at] = logistic(f[at]);
            g[at] = tanh(g[at]);
            o[at] = logistic(o[at]);
        }
        if self.coupled {
            for at in 0..f.len() {
                c[at] = f[at] * c_before[at] + (1.0 - f[at]) * g[at];
            }
        } else {
            let i = &mut i[..f.len()];
            for at in 0..f.len() {
                i[at] = logistic(i[at]);
                c[at] = f[at] * c_before[at] + i[at] * g[at];
            }
        }
        for at in 0..f.len() {
            m[at] = o[at] * tanh(c[at]);
        }
    }

    /// The way back of one step of one example: gates become the gradients of their pre-activations, and `c` what is passed
    /// down to the step before; `passed` is what the step after passes down.
    fn cell_gradient(&self, gates: &mut [f32], c_before: &[f32], c: &mut [f32], passed: &[f32], dm: &[f32]) {
        let [i, f, g, o] = gates_of(gates, self.units);
        let (c_before, c) = (&c_before[..f.len()], &mut c[..f.len()]);
        let (passed, dm) = (&passed[..f.len()], &dm[..f.len()]);
        for at in 0..f.len() {
            let squashed = tanh(c[at]);
            c[at] = dm[at] * o[at] * (1.0 - squashed * squashed) + passed[at];
            o[at] = dm[at] * squashed * o[at] * (1.0 - o[at]);
        }
        if self.coupled {
            for at in 0..f.len() {
                let (dc, forget, new) = (c[at], f[at], g[at]);
                f[at] = dc * (c_before[at] - new) * forget * (1.0 - forget);
                g[at] = dc * (1.0 - forget) * (1.0 - new * new);
                c[at] = dc * forget;
            }
        } else {
            let i = &mut i[..f.len()];
            for at in 0..f.len() {
                let (dc, input, forget, new) = (c[at], i[at], f[at], g[at]);
                i[at] = dc * new * input * (1.0 - input);
                f[at] = dc * c_before[at] * forget * (1.0 - forget);
                g[at] = dc * input * (1.0 - new * new);
                c[at] = dc * forget;
            }
        }
    }
}

/// `[i, f, g, o]`; without `i` where the gates are coupled.
fn gates_of(gates: &mut [f32], units: usize) -> [&mut [f32]; 4] {
    let (rest, o) = gates.split_at_mut(gates.len() - units);
    let (rest, g) = rest.split_at_mut(rest.len() - units);
    let (i, f) = rest.split_at_mut(rest.len() - units);
    // Slices that are seen to have one length let the loops over them run without checks.
    let (g, o) = (&mut g[..f.len()], &mut o[..f.len()]);
    [i, f, g, o]
}

impl Op for Lstm {
    fn kept_len(&self) -> usize {
        self.parts().iter().sum()
    }

    fn forward_cpu(&self, pass: Forward<'_>) {
        let (rows, time, units, outputs) = (pass.rows, self.time, self.units, self.outputs);
        let Kept {
            gates,
            cells,
            previous,
            hidden,
        } = self.split_mut(rows, pass.kept);
        self.input.forward_cpu(Forward {
            y: &mut *gates,
            kept: &mut [],
            ..pass
        });
        let projection = self.projecting(pass.parameters);
        let zeros = vec![0.0; units];
        for step in 0..time {
            if step > 0 {
                let before = self.at_step(previous, rows, step, outputs);
                let out = self.at_step_mut(gates, rows, step, self.gates());
                multiply_into(out, before, self.recurrent(pass.parameters), true);
            }
            for row in 0..rows {
                let at = row * time + step;
                let (before, c) = cells.split_at_mut(at * units);
                let c_before = if step > 0 {
                    &before[(at - 1) * units..]
                } else {
                    &zeros
                };
                let gates = &mut gates[at * self.gates()..][..self.gates()];
                let m = if projection.is_some() {
                    &mut hidden[at * units..]
                } else {
                    &mut pass.y[at * units..]
                };
                self.cell_forward(gates, c_before, c, m);
            }
            if let Some(projection) = projection {
                let m = self.at_step(hidden, rows, step, units);
                let out = self.at_step_mut(pass.y, rows, step, outputs);
                multiply_into(out, m, projection, false);
            }
            for row in 0..rows {
                let at = (row * time + step) * outputs;
                if step == 0 {
                    previous[at..at + outputs].fill(0.0);
                }
                if step + 1 < time {
                    previous[at + outputs..at + 2 * outputs].copy_from_slice(&pass.y[at..at + outputs]);
                }
            }
        }
    }

    fn input_gradient_cpu(&self, pass: InputGradient<'_>) {
        let (rows, time, units) = (pass.rows, self.time, self.units);
        let Kept { gates, cells, .. } = self.split_mut(rows, pass.kept);
        let projection = self.projecting(pass.parameters);
        let zeros = vec![0.0; units];
        let mut projected = vec![0.0; if projection.is_some() { rows * units } else { 0 }];
        for step in (0..time).rev() {
            if step + 1 < time {
                let after = self.at_step(gates, rows, step + 1, self.gates());
                let out = self.at_step_mut(pass.dy, rows, step, self.outputs);
                multiply_into(out, after, self.recurrent(pass.parameters).transposed(), true);
            }
            if let Some(projection) = projection {
                let dh = self.at_step(pass.dy, rows, step, self.outputs);
                multiply(&mut projected, dh, projection.transposed(), false);
            }
            for row in 0..rows {
                let at = row * time + step;
                let (before, rest) = cells.split_at_mut(at * units);
                let (c, after) = rest.split_at_mut(units);
                let c_before = if step > 0 {
                    &before[(at - 1) * units..]
                } else {
                    &zeros
                };
                let passed = if step + 1 < time { &*after } else { &zeros };
                let dm = if projection.is_some() {
                    &projected[row * units..]
                } else {
                    &pass.dy[at * units..]
                };
                let gates = &mut gates[at * self.gates()..][..self.gates()];
                self.cell_gradient(gates, c_before, c, passed, dm);
            }
        }
        self.input.input_gradient_cpu(InputGradient {
            dy: gates,
            kept: &mut [],
            ..pass
        });
    }

    fn parameter_gradient_cpu(&self, pass: ParameterGradient<'_>) {
        let steps = pass.rows * self.time;
        let kept = self.split(pass.rows, pass.kept);
        let previous = Matrix::new(kept.previous, steps, self.outputs);
        let gates = Matrix::new(kept.gates, steps, self.gates());
        let d_recurrent = &mut pass.d_parameters[self.recurrent_kernel()];
        multiply(d_recurrent, previous.transposed(), gates, false);
        if let Some(range) = self.projection() {
            let hidden = Matrix::new(kept.hidden, steps, self.units);
            let dh = Matrix::new(pass.dy, steps, self.outputs);
            multiply(&mut pass.d_parameters[range], hidden.transposed(), dh, false);
        }
        self.input.parameter_gradient_cpu(ParameterGradient {
            dy: kept.gates,
            kept: &[],
            ..pass
        });
    }

    fn squared_norms_cpu(&self, pass: SquaredNorms<'_>) {
        let kept = self.split(pass.rows, pass.kept);
        let shape = [self.time, self.outputs, self.gates()];
        ghost::product(kept.previous, kept.gates, shape, pass.norms);
        if self.projection.is_some() {
            let shape = [self.time, self.units, self.outputs];
            ghost::product(kept.hidden, pass.dy, shape, pass.norms);
        }
        self.input.squared_norms_cpu(SquaredNorms {
            dy: kept.gates,
            kept: &[],
            ..pass
        });
    }

    fn scale_rows_cpu(&self, factors: &[f32], dy: &mut [f32], kept: &mut [f32]) {
        scale_rows(factors, self.split_mut(factors.len(), kept).gates);
        if self.projection.is_some() {
            scale_rows(factors, dy);
        }
    }

    #[cfg(feature = "gpu")]
    fn plan_gpu(&self, planner: &mut Planner<'_>, buffers: &OpBuffers<'_>) -> Result<(), EngineError> {
        self.plan(planner, buffers)
    }
}
