//! GPU dispatches of `conv2d.wgsl`.

use super::Conv2d;
use crate::{
    EngineError,
    backend::gpu::{Access, Grid, OpBuffers, Planner},
    ops::ghost::{self, ProductTerm},
};

const SHADER: (&str, &str) = ("conv2d", include_str!(concat!(env!("OUT_DIR"), "/conv2d.wgsl")));
const ACCESS: [Access; 3] = [Access::Read, Access::Read, Access::Write];
/// Elements that one invocation writes: this many lines of this many columns.
const TILE: [usize; 2] = [4, 8];
/// Invocations of a workgroup.
const GROUP: usize = 64;
/// Invocations that the gradient of the kernel is cut into, at least, where its sums are long enough: some for every lane of a
/// large GPU.
const BUSY: usize = 1 << 14;
/// The most partial sums: each is written and read once more.
const MAX_SPLITS: usize = 128;

impl Conv2d {
    pub(super) fn plan(&self, planner: &mut Planner<'_>, buffers: &OpBuffers<'_>) -> Result<(), EngineError> {
        let window = &self.window;
        let tiles = |lines: usize, columns: usize| lines.div_ceil(TILE[0]) * columns.div_ceil(TILE[1]);
        let kernel_len = (window.patch_len() + 1) * self.filters;
        let kernel_tiles = tiles(window.patch_len() + 1, self.filters);
        let lines = planner.max_rows() * window.output[0];
        let splits = BUSY.div_ceil(kernel_tiles).min(MAX_SPLITS).min(lines).max(1);
        let mut numbers = window.numbers();
        numbers.extend([
            self.filters as u32,
            self.offset as u32,
            u32::from(self.relu),
            splits as u32,
        ]);
        let dims = planner.uniform(&numbers);
        let partial = planner.fixed("partial sums", splits * kernel_len);
        let rows = planner.max_rows();
        let &OpBuffers {
            x,
            y,
            dy,
            dx,
            parameters,
            d_parameters,
            ..
        } = buffers;
        let mut dispatch = |entry, bound: [&wgpu::Buffer; 3], grid| {
            planner.dispatch(SHADER, entry, &ACCESS, &bound, Some(&dims), grid)
        };
        let forward = dispatch(
            "forward",
            [x, parameters, y],
            Grid::per_row(rows, tiles(window.positions(), self.filters), GROUP),
        );
        let mask = self.relu.then(|| {
            let grid = Grid::rows(1, window.positions() * self.filters, GROUP);
            dispatch("mask", [y, y, dy], grid)
        });
        let input_gradient = dx.map(|dx| {
            let pixels = window.input[0] * window.input[1];
            let grid = Grid::per_row(rows, tiles(pixels, window.channels), GROUP);
            dispatch("input_gradient", [dy, parameters, dx], grid)
        });
        let gradient = dispatch(
            "gradient",
            [x, dy, &partial],
            Grid::linear(splits * kernel_tiles, GROUP),
        );
        let sum = dispatch(
            "sum",
            [&partial, &partial, d_parameters],
            Grid::linear(kernel_len, GROUP),
        );
        planner.forward.push(forward);
        planner.input_gradient.extend(mask);
        planner.input_gradient.extend(input_gradient);
        planner.parameter_gradient.extend([gradient, sum]);
        let term = ProductTerm {
            a: x,
            b: dy,
            shape: [window.positions(), window.patch_len(), self.filters],
            bias: true,
            window: Some(window),
        };
        ghost::product_gpu(planner, &term);
        planner
            .scaled
            .push((dy.clone(), window.positions() * self.filters));
        Ok(())
    }
}
