//! Two values side by side in their last dimension, as where a U-Net's way up meets its way down (Ronneberger, Fischer, Brox 2015,
//! section 2) and in DenseNet (Huang et al. 2017, equation 2).
//!
//! `y[r, p] = [x[r, p] | other[r, p]]`; shapes, row-major: `x [rows, positions, m]`, `other [rows, positions, n]`,
//! `y [rows, positions, m + n]`, where `positions` are all dimensions but the last. It is linear, so its gradient is cut where the values
//! met: `dx[r, p] = dy[r, p, ..m]`, `d_other[r, p] = dy[r, p, m..]`.

#[cfg(feature = "gpu")]
use crate::{
    EngineError,
    backend::gpu::{Access, Grid, OpBuffers, Planner},
};
use crate::{
    SpecError,
    model::Placement,
    ops::{Forward, InputGradient, Op},
};

#[cfg(feature = "gpu")]
const SHADER: (&str, &str) = ("concat", include_str!(concat!(env!("OUT_DIR"), "/concat.wgsl")));

/// A concatenation: see the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Concat {
    /// Rows of an example.
    pub positions: usize,
    /// Last dimension of the first value.
    pub first: usize,
    /// Last dimension of the second value.
    pub second: usize,
}

impl Concat {
    pub(crate) fn new(
        at: &Placement<'_>,
        x: &[usize],
        other: &[usize],
    ) -> Result<(Self, Vec<usize>), SpecError> {
        // INVARIANT: shapes have at least one dimension.
        let (leading, first) = (&x[..x.len() - 1], x[x.len() - 1]);
        let (other_leading, second) = (&other[..other.len() - 1], other[other.len() - 1]);
        if leading != other_leading {
            return Err(at.shape_error("the marked value's dimensions but the last", x));
        }
        let concat = Self {
            positions: leading.iter().product(),
            first,
            second,
        };
        Ok((concat, [leading, &[first + second]].concat()))
    }
}

impl Op for Concat {
    fn forward_cpu(&self, pass: Forward<'_>) {
        let inputs = pass
            .x
            .chunks_exact(self.first)
            .zip(pass.other.chunks_exact(self.second));
        for (y, (x, other)) in pass.y.chunks_exact_mut(self.first + self.second).zip(inputs) {
            y[..self.first].copy_from_slice(x);
            y[self.first..].copy_from_slice(other);
        }
    }

    fn input_gradient_cpu(&self, pass: InputGradient<'_>) {
        let rows = || pass.dy.chunks_exact(self.first + self.second);
        if let Some(dx) = pass.dx {
            for (dx, dy) in dx.chunks_exact_mut(self.first).zip(rows()) {
                dx.copy_from_slice(&dy[..self.first]);
            }
        }
        if let Some(d_other) = pass.d_other {
            for (d_other, dy) in d_other.chunks_exact_mut(self.second).zip(rows()) {
                d_other.copy_from_slice(&dy[self.first..]);
            }
        }
    }

    #[cfg(feature = "gpu")]
    fn plan_gpu(&self, planner: &mut Planner<'_>, buffers: &OpBuffers<'_>) -> Result<(), EngineError> {
        let access = [Access::Read, Access::Write];
        let whole = self.first + self.second;
        // Each copy moves `columns` of every position between a row of `from` and one of `to`.
        let copy =
            |planner: &mut Planner<'_>, from, to, [from_len, from_at, to_len, to_at, columns]: [usize; 5]| {
                let dims = [self.positions, from_len, from_at, to_len, to_at, columns].map(|dim| dim as u32);
                let dims = planner.uniform(&dims);
                let grid = Grid::rows(1, self.positions * columns, 64);
                planner.dispatch(SHADER, "copy", &access, &[from, to], Some(&dims), grid)
            };
        let (first, second) = (self.first, self.second);
        let other = buffers.other.unwrap_or(buffers.x);
        let forward = [
            copy(planner, buffers.x, buffers.y, [first, 0, whole, 0, first]),
            copy(planner, other, buffers.y, [second, 0, whole, first, second]),
        ];
        planner.forward.extend(forward);
        if let Some(dx) = buffers.dx {
            let back = copy(planner, buffers.dy, dx, [whole, 0, first, 0, first]);
            planner.input_gradient.push(back);
        }
        if let Some(d_other) = buffers.d_other {
            let back = copy(planner, buffers.dy, d_other, [whole, first, second, 0, second]);
            planner.input_gradient.push(back);
        }
        Ok(())
    }
}
