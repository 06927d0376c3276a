//! GPU dispatches: of `product.wgsl` where the device is better at it, else of `conv2d.wgsl`.

use super::Conv2d;
use crate::{
    EngineError,
    backend::gpu::{Access, Grid, OpBuffers, Planner, Work},
    ops::{
        ghost::{self, ProductTerm},
        product::{Kind, Product, Tiles},
    },
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
        if !self.plan_tiled(planner, buffers) {
            self.plan_direct(planner, buffers);
        }
        let &OpBuffers { x, y, dy, .. } = buffers;
        let window = &self.window;
        if self.relu {
            let dims = planner.uniform(&self.numbers(0));
            let grid = Grid::rows(1, window.positions() * self.filters, GROUP);
            let mask = planner.dispatch(SHADER, "mask", &ACCESS, &[y, y, dy], Some(&dims), grid);
            planner.input_gradient.insert(0, mask);
        }
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

    /// What the direct kernels read.
    fn numbers(&self, splits: usize) -> Vec<u32> {
        let mut numbers = self.window.numbers();
        numbers.extend([
            self.filters as u32,
            self.offset as u32,
            u32::from(self.relu),
            splits as u32,
        ]);
        numbers
    }

    /// Products of matrices of patches, read from the images where they are used; false, with nothing planned, where the device
    /// is better at the direct kernels.
    fn plan_tiled(&self, planner: &mut Planner<'_>, buffers: &OpBuffers<'_>) -> bool {
        let Some(tiles) = Tiles::of(planner.kernel(Work::Convolution)) else {
            return false;
        };
        let &OpBuffers {
            x,
            y,
            dy,
            dx,
            parameters,
            d_parameters,
            ..
        } = buffers;
        let (window, filters) = (&self.window, self.filters);
        let windows = Some((window, filters));
        let forward = Product {
            kind: Kind::ConvForward,
            lines: window.positions(),
            depth: window.patch_len(),
            columns: filters,
            offset: self.offset,
            bias: Some(self.bias().start),
            relu: self.relu,
            ones: false,
            windows,
        };
        let input_gradient = Product {
            kind: Kind::ConvInputGradient,
            lines: window.input[0] * window.input[1],
            depth: window.size[0] * window.size[1] * filters,
            columns: window.channels,
            bias: None,
            relu: false,
            ..forward
        };
        let gradient = Product {
            kind: Kind::ConvGradient,
            lines: window.patch_len() + 1,
            depth: window.positions(),
            bias: None,
            relu: false,
            ones: true,
            ..forward
        };
        let forward = forward.plan(planner, tiles, [x, parameters, y]);
        let gradient = gradient.plan(planner, tiles, [x, dy, d_parameters]);
        let input_gradient = dx.map_or_else(
            || Some(Vec::new()),
            |dx| input_gradient.plan(planner, tiles, [dy, parameters, dx]),
        );
        let (Some(forward), Some(gradient), Some(input_gradient)) = (forward, gradient, input_gradient)
        else {
            return false;
        };
        planner.forward.extend(forward);
        planner.input_gradient.extend(input_gradient);
        planner.parameter_gradient.extend(gradient);
        true
    }

    fn plan_direct(&self, planner: &mut Planner<'_>, buffers: &OpBuffers<'_>) {
        let window = &self.window;
        let tiles = |lines: usize, columns: usize| lines.div_ceil(TILE[0]) * columns.div_ceil(TILE[1]);
        let kernel_len = (window.patch_len() + 1) * self.filters;
        let kernel_tiles = tiles(window.patch_len() + 1, self.filters);
        let lines = planner.max_rows() * window.output[0];
        let splits = BUSY.div_ceil(kernel_tiles).min(MAX_SPLITS).min(lines).max(1);
        let dims = planner.uniform(&self.numbers(splits));
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
        planner.input_gradient.extend(input_gradient);
        planner.parameter_gradient.extend([gradient, sum]);
    }
}
