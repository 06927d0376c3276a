//! CPU kernels: one product for all steps where there can be one, else one a step over all examples, and loops over the cells.

use super::Lstm;
#[cfg(feature = "gpu")]
use crate::{
    EngineError,
    backend::gpu::{OpBuffers, Planner},
};
use crate::{
    backend::{
        matrix::{
            Matrix, MatrixMut,
            lane::{Lane, each_lane},
            multiply, multiply_into,
        },
        vector::{logistic, multiply as multiply_by, tanh},
    },
    crew::{self, Parts},
    ops::{Forward, InputGradient, Op, ParameterGradient, SquaredNorms, ghost, scale_rows},
};

/// What a cell costs in a step, beside the products, in the crew's measure.
const CELL: usize = 20;

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
        let units = self.units;
        let (sigmoids, rest) = gates.split_at_mut(gates.len() - 2 * units);
        let (g, o) = rest.split_at_mut(units);
        logistic(sigmoids);
        tanh(g);
        logistic(o);
        let (i, f) = sigmoids.split_at(sigmoids.len() - units);
        assert!(c_before.len() == units && c.len() == units, "lengths");
        {
            let (i, f, g) = (i.as_ptr(), f.as_ptr(), g.as_ptr());
            let (c_before, c) = (c_before.as_ptr(), c.as_mut_ptr());
            each_lane!(units, |at: L| {
                // SAFETY: all have as many numbers as there are units, `i` where the gates are not coupled.
                unsafe {
                    let f = L::load(f.add(at));
                    let i = if self.coupled {
                        L::splat(1.0).sub(f)
                    } else {
                        L::load(i.add(at))
                    };
                    let kept = f.mul(L::load(c_before.add(at)));
                    kept.add_product(i, L::load(g.add(at))).store(c.add(at));
                }
            });
        }
        m.copy_from_slice(c);
        tanh(m);
        multiply_by(m, o);
    }

    /// The way back of one step of one example: gates become the gradients of their pre-activations, and `c` what is passed
    /// down to the step before; `passed` is what the step after passes down. `squashed` is room for as many numbers.
    fn cell_gradient(
        &self,
        gates: &mut [f32],
        [c_before, passed, dm]: [&[f32]; 3],
        c: &mut [f32],
        squashed: &mut [f32],
    ) {
        let units = self.units;
        assert!(gates.len() == self.gates() && c.len() == units, "lengths");
        assert!(
            c_before.len() == units && passed.len() == units && dm.len() == units,
            "lengths"
        );
        squashed.copy_from_slice(c);
        tanh(squashed);
        let (c_before, passed, dm) = (c_before.as_ptr(), passed.as_ptr(), dm.as_ptr());
        let (c, squashed) = (c.as_mut_ptr(), squashed.as_ptr());
        let first = gates.as_mut_ptr();
        let o = first.wrapping_add(gates.len() - units);
        let (g, f) = (o.wrapping_sub(units), o.wrapping_sub(2 * units));
        each_lane!(units, |at: L| {
            // SAFETY: all have as many numbers as there are units, and there are three or, where they are not coupled, four gates.
            unsafe {
                let one = L::splat(1.0);
                let (s, dm) = (L::load(squashed.add(at)), L::load(dm.add(at)));
                let out = L::load(o.add(at));
                let dc = dm.mul(out).mul(one.sub(s.mul(s))).add(L::load(passed.add(at)));
                dm.mul(s).mul(out).mul(one.sub(out)).store(o.add(at));
                let (forget, new) = (L::load(f.add(at)), L::load(g.add(at)));
                let (mut before, mut input) = (L::load(c_before.add(at)), one.sub(forget));
                if self.coupled {
                    before = before.sub(new);
                } else {
                    input = L::load(first.add(at));
                    dc.mul(new).mul(input).mul(one.sub(input)).store(first.add(at));
                }
                dc.mul(before).mul(forget).mul(one.sub(forget)).store(f.add(at));
                dc.mul(input).mul(one.sub(new.mul(new))).store(g.add(at));
                dc.mul(forget).store(c.add(at));
            }
        });
    }
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
            {
                let m = if projection.is_some() {
                    &mut *hidden
                } else {
                    &mut *pass.y
                };
                let (gates, cells, m) = (Parts::of(gates), Parts::of(cells), Parts::of(m));
                crew::split(rows, 1, CELL * units, |rows| {
                    for row in rows {
                        let at = row * time + step;
                        let of = |at: usize| at * units..(at + 1) * units;
                        // SAFETY: every thread has other examples, and the cells of two steps are apart.
                        unsafe {
                            let c_before: &[f32] = if step > 0 { cells.part(of(at - 1)) } else { &zeros };
                            self.cell_forward(
                                gates.part(at * self.gates()..(at + 1) * self.gates()),
                                c_before,
                                cells.part(of(at)),
                                m.part(of(at)),
                            );
                        }
                    }
                });
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
            let (gates, cells) = (Parts::of(gates), Parts::of(cells));
            let (dy, projected) = (&*pass.dy, &*projected);
            crew::split(rows, 1, CELL * units, |rows| {
                let mut squashed = vec![0.0; units];
                for row in rows {
                    let at = row * time + step;
                    let of = |at: usize| at * units..(at + 1) * units;
                    let dm = if projection.is_some() {
                        &projected[of(row)]
                    } else {
                        &dy[of(at)]
                    };
                    // SAFETY: every thread has other examples, and the cells of three steps are apart.
                    unsafe {
                        let c_before: &[f32] = if step > 0 { cells.part(of(at - 1)) } else { &zeros };
                        let passed: &[f32] = if step + 1 < time {
                            cells.part(of(at + 1))
                        } else {
                            &zeros
                        };
                        self.cell_gradient(
                            gates.part(at * self.gates()..(at + 1) * self.gates()),
                            [c_before, passed, dm],
                            cells.part(of(at)),
                            &mut squashed,
                        );
                    }
                }
            });
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
