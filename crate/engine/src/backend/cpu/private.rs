//! A step that is private for each example: what each of a lot adds to its sum.
//!
//! # Why what an example adds is a function of that example and the weights
//! Examples are computed some at a time, yet no bit of one depends on the others:
//!
//! - A dense layer's outputs and its inputs' gradients are products whose rows are apart (`multiply_apart`), and what else the layer does,
//!   the rectifier, is done number by number.
//! - Every other operation, and the loss, is asked for each example by itself, as a batch of one.
//! - The norm of an example's gradient, the factor that clips it, and whether it may count are computed from its own rows alone.
//! - Its whole numbers are its own rows', rounded number by number; sums of whole numbers do not depend on their order (`optim/lot`).
//!
//! A row that is infinite or no number is no exception: rows are never multiplied with each other, nor added up before they are whole
//! numbers, and of an example that may not count no row is read.

use std::ops::Range;

use super::{CpuRun, of};
use crate::{
    ops::{dense::Dense, ghost},
    optim::{
        StepNumbers,
        lot::{Lot, Outer, add, outer},
    },
};

/// Examples that are computed beside each other, where there is a dense layer. It has no part in what comes of it, but for speed: weights
/// are read once for all.
pub(crate) const ROWS: usize = 16;

impl<'m> CpuRun<'m> {
    /// One step on the lot of the examples at `indices`, of which there may be none: what they add and `noise`, as the settings say; the
    /// mean of their losses before it, without those that are not finite.
    pub fn private_step(&mut self, indices: &[u32], noise: &[i32], numbers: StepNumbers) -> Option<f32> {
        let private = self.settings.private?;
        let lot = private.lot;
        let mut totals = std::mem::take(&mut self.totals);
        totals.resize(self.gradient.len());
        let (nodes, mut loss, mut finite) = (self.model.nodes(), 0.0, 0);
        for indices in indices.chunks(private.rows) {
            let rows = indices.len();
            self.loss(indices, numbers.key, &mut |own| {
                if own.is_finite() {
                    loss += own;
                    finite += 1;
                }
            });
            for index in (0..nodes.len()).rev() {
                self.input_gradient(index, rows, numbers.key);
            }
            let sums = totals.room_for(rows, lot.largest());
            let (mut counted, mut count) = ([0; ROWS], 0);
            for row in 0..rows {
                counted[count] = row;
                count += usize::from(self.clip_row(&lot, row, sums));
            }
            for (index, node) in nodes.iter().enumerate() {
                if let Some(dense) = self.outer(&lot, index) {
                    let x = self.pass.value(self.model, &self.x, node.input, &(0..rows));
                    let e = self.gradients.of(index + 1);
                    outer::add(sums, x, e, &counted[..count], dense);
                }
            }
        }
        lot.noised_cpu(&mut totals, noise, &mut self.gradient);
        self.totals = totals;
        self.update(numbers);
        (finite > 0).then(|| loss / finite as f32)
    }

    /// The layer of a node whose gradient is an outer product that is wanted, and not written down.
    fn outer(&self, lot: &Lot, index: usize) -> Option<&'m Dense> {
        let wanted = self.gradients.plan.learns[index] && lot.takes_outer();
        self.model.nodes()[index].op.outer().filter(|_| wanted)
    }

    /// Makes whole numbers of the gradient of example `row` of those that were computed last: adds those that are written to `sums`, and
    /// scales the outputs' gradients that the others are made of. Whether it may count; else it adds nothing.
    fn clip_row(&mut self, lot: &Lot, row: usize, sums: &mut [i32]) -> bool {
        let (nodes, rows) = (self.model.nodes(), row..row + 1);
        // What no operation writes must not be what an earlier example left there.
        self.each_written(lot, &mut |gradient, _| gradient.fill(0.0));
        let mut norm = 0.0;
        self.norms.clear();
        for (index, node) in nodes.iter().enumerate().rev() {
            if let Some(dense) = self.outer(lot, index) {
                // The bias sees a 1.
                let x = self.pass.value(self.model, &self.x, node.input, &rows);
                let input = 1.0 + ghost::squared(x);
                norm += input * ghost::squared(&self.gradients.of(index + 1)[of(&rows, dense.outputs)]);
                self.norms.push(input);
            } else {
                self.parameter_gradient(index, &rows);
            }
        }
        self.each_written(lot, &mut |gradient, _| norm += ghost::squared(gradient));
        let Some(factor) = lot.factor(norm) else {
            return false;
        };
        let mut squares = 0.0;
        self.each_written(lot, &mut |gradient, _| squares += lot.round(gradient, factor));
        let mut known = Outer::default();
        for index in 0..nodes.len() {
            if let Some(dense) = self.outer(lot, index) {
                let e = &mut self.gradients.of_mut(index + 1)[of(&rows, dense.outputs)];
                for e in &mut *e {
                    *e = (f64::from(*e) * factor) as f32;
                }
                known.squared += self.norms.pop().unwrap_or(f64::NAN) * ghost::squared(e);
                known.count += dense.parameters().len();
            }
        }
        let counts = lot.admits(squares, known);
        if counts {
            self.each_written(lot, &mut |gradient, place| add(&mut sums[place], gradient));
        }
        counts
    }

    /// Visits the gradients that are written down, with their places in the flat vector: those of all parameters but dense layers'. (A tensor
    /// of two operations is the first one's, and may be written by the other: so it is no matter which of them learn.)
    fn each_written(&mut self, lot: &Lot, visit: &mut dyn FnMut(&mut [f32], Range<usize>)) {
        for node in self.model.nodes() {
            if !(lot.takes_outer() && node.op.outer().is_some()) {
                visit(
                    &mut self.gradient[node.parameters.clone()],
                    node.parameters.clone(),
                );
            }
        }
    }
}
