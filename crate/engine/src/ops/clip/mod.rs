//! Clipping the gradients of single examples on the GPU: from the parts of their squared norms to factors, and from factors to
//! scaled rows. On the CPU loops of the back end.
//!
//! An example's factor is `C / max(‖g‖, C)` (Abadi et al. 2016, algorithm 1), here with the `1 / rows` of the mean over the
//! batch, so that the sum of the scaled gradients is the mean of the clipped ones.

use crate::backend::gpu::{Access, Dispatch, Grid, Planner};

const SHADER: (&str, &str) = ("clip", include_str!(concat!(env!("OUT_DIR"), "/clip.wgsl")));
const ACCESS: [Access; 2] = [Access::Read, Access::Write];
const GROUP: usize = 64;

/// The factors of the rows, `[rows]`, from `parts` numbers each of `norms`, `[rows, parts]`.
pub(crate) fn factors(
    planner: &mut Planner<'_>,
    norms: &wgpu::Buffer,
    factors: &wgpu::Buffer,
    parts: usize,
    clip_l2: f32,
) -> Dispatch {
    let dims = planner.uniform(&[parts as u32, clip_l2.to_bits()]);
    let grid = Grid::fixed(1, 1, planner.max_rows(), GROUP);
    planner.dispatch(SHADER, "factors", &ACCESS, &[norms, factors], Some(&dims), grid)
}

/// Multiplies each row of `values`, `[rows, len]`, by its factor.
pub(crate) fn scale(
    planner: &mut Planner<'_>,
    factors: &wgpu::Buffer,
    values: &wgpu::Buffer,
    len: usize,
) -> Dispatch {
    let dims = planner.uniform(&[len as u32]);
    let grid = Grid::rows(1, len, GROUP);
    planner.dispatch(SHADER, "scale", &ACCESS, &[factors, values], Some(&dims), grid)
}
