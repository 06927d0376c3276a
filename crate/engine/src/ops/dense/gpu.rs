//! GPU dispatches: of `product.wgsl` where the device is better at it, else of `dense.wgsl`, and of `dense_wide.wgsl` where the
//! lengths allow it.

use super::Dense;
use crate::{
    EngineError,
    backend::gpu::{Access, Dispatch, Grid, Kernel, OpBuffers, Planner, Work},
    ops::{
        ghost::{self, ProductTerm},
        product::{Kind, Product, Tiles},
    },
};

const SHADER: (&str, &str) = ("dense", include_str!(concat!(env!("OUT_DIR"), "/dense.wgsl")));
/// Lines and columns that one workgroup covers: 8 invocations of 4 in each direction.
const TILE: [usize; 2] = [32, 32];
/// As above, 4 invocations of 8 lines and 4 columns.
const HALF_TILE: [usize; 2] = [32, 16];
const WIDE: (&str, &str) = (
    "dense_wide",
    include_str!(concat!(env!("OUT_DIR"), "/dense_wide.wgsl")),
);
/// As above, 4 and 8 invocations of 8: enough workgroups for several cores where a batch is small.
const WIDE_TILE: [usize; 2] = [32, 64];
/// Numbers in one load of the wide kernels.
const LANES: usize = 4;
const ACCESS: [Access; 3] = [Access::Read, Access::Read, Access::Write];
/// Where the bias is, where there is none.
const NO_BIAS: u32 = u32::MAX;

impl Dense {
    pub(super) fn plan(&self, planner: &mut Planner<'_>, buffers: &OpBuffers<'_>) -> Result<(), EngineError> {
        let &OpBuffers {
            x,
            y,
            dy,
            dx,
            parameters,
            d_parameters,
            ..
        } = buffers;
        let bias = self.bias().start;
        let forward = self.forward_gpu(planner, [x, parameters, y], Some(bias));
        planner.forward.extend(forward);
        if self.relu {
            let dims = planner.uniform(&self.dims(1, None));
            let grid = Grid::rows(1, self.positions * self.outputs, 64);
            let mask = planner.dispatch(SHADER, "mask", &ACCESS, &[y, y, dy], Some(&dims), grid);
            planner.input_gradient.push(mask);
        }
        if let Some(dx) = dx {
            let input_gradient = self.input_gradient_gpu(planner, [dy, parameters, dx], None);
            planner.input_gradient.extend(input_gradient);
        }
        let gradient = self.gradient_gpu(planner, [x, dy, d_parameters], Some(bias));
        planner.parameter_gradient.extend(gradient);
        self.norms_gpu(planner, [x, dy], true);
        planner.scaled.push((dy.clone(), self.positions * self.outputs));
        Ok(())
    }

    /// `y = x·W`, and the bias that lies at `bias`: `[x, parameters, y]`.
    pub(in crate::ops) fn forward_gpu(
        &self,
        planner: &mut Planner<'_>,
        bound: [&wgpu::Buffer; 3],
        bias: Option<usize>,
    ) -> Vec<Dispatch> {
        let product = Product {
            kind: Kind::Forward,
            lines: self.positions,
            depth: self.inputs,
            columns: self.outputs,
            bias,
            relu: self.relu,
            ..self.product()
        };
        self.tiled(planner, &product, bound).unwrap_or_else(|| {
            let grid =
                |[lines, columns]: [usize; 2]| Grid::positions(lines, self.positions, self.outputs, columns);
            vec![self.direct(planner, "forward", bound, bias, grid)]
        })
    }

    /// `dx = dy·Wᵀ`, and the bias that lies at `bias`: `[dy, parameters, dx]`.
    pub(in crate::ops) fn input_gradient_gpu(
        &self,
        planner: &mut Planner<'_>,
        bound: [&wgpu::Buffer; 3],
        bias: Option<usize>,
    ) -> Vec<Dispatch> {
        let product = Product {
            kind: Kind::InputGradient,
            lines: self.positions,
            depth: self.outputs,
            columns: self.inputs,
            bias,
            ..self.product()
        };
        self.tiled(planner, &product, bound).unwrap_or_else(|| {
            let grid =
                |[lines, columns]: [usize; 2]| Grid::positions(lines, self.positions, self.inputs, columns);
            vec![self.direct(planner, "input_gradient", bound, bias, grid)]
        })
    }

    /// `dW = xᵀ·dy`: `[x, dy, d_parameters]`; and `db` at `bias`, which must be right behind the kernel.
    pub(in crate::ops) fn gradient_gpu(
        &self,
        planner: &mut Planner<'_>,
        bound: [&wgpu::Buffer; 3],
        bias: Option<usize>,
    ) -> Vec<Dispatch> {
        let product = Product {
            kind: Kind::Gradient,
            lines: self.inputs + usize::from(bias.is_some()),
            depth: self.positions,
            columns: self.outputs,
            ones: bias.is_some(),
            ..self.product()
        };
        if let Some(dispatches) = self.tiled(planner, &product, bound) {
            return dispatches;
        }
        // The narrow kernel makes the bias's gradient as one line more.
        let wide = self.is_wide(bias);
        let (lines, with_bias) = if wide {
            (self.inputs, None)
        } else {
            (self.inputs + usize::from(bias.is_some()), bias)
        };
        let gradient = self.direct(planner, "gradient", bound, with_bias, |[tile, columns]| {
            Grid::fixed(lines, tile, self.outputs, columns)
        });
        let [_, dy, d_parameters] = bound;
        let bias = bias.filter(|_| wide);
        let bias = bias
            .map(|bias| bias_gradient_gpu(planner, [dy, d_parameters], [self.positions, self.outputs], bias));
        [gradient].into_iter().chain(bias).collect()
    }

    /// The norms of each example's `xᵀ·dy`, and of the bias's gradient where there is one: `[x, dy]`.
    pub(in crate::ops) fn norms_gpu(
        &self,
        planner: &mut Planner<'_>,
        [a, b]: [&wgpu::Buffer; 2],
        bias: bool,
    ) {
        let shape = [self.positions, self.inputs, self.outputs];
        let window = None;
        ghost::product_gpu(
            planner,
            &ProductTerm {
                a,
                b,
                shape,
                bias,
                window,
            },
        );
    }

    /// What all products of the layer share.
    const fn product(&self) -> Product<'static> {
        Product {
            kind: Kind::Forward,
            lines: 0,
            depth: 0,
            columns: 0,
            offset: self.offset,
            bias: None,
            relu: false,
            ones: false,
            windows: None,
        }
    }

    /// A product through workgroup memory, where the device is better at that.
    fn tiled(
        &self,
        planner: &mut Planner<'_>,
        product: &Product<'_>,
        bound: [&wgpu::Buffer; 3],
    ) -> Option<Vec<Dispatch>> {
        let rows = if product.kind == Kind::Gradient {
            1
        } else {
            planner.max_rows()
        };
        let work = Work::of(rows * product.lines, product.columns);
        let tiles = Tiles::of(planner.kernel(work))?;
        product.plan(planner, tiles, bound)
    }

    /// `y = x·W` (`entry` "forward") or `dx = dy·Wᵀ` ("input_gradient"), without a bias, on lines that lie apart. `None` where the
    /// wide kernels cannot do it, or the device is a GPU, which is faster with what takes fewer dispatches.
    pub(in crate::ops) fn apart_gpu(
        &self,
        planner: &mut Planner<'_>,
        entry: &'static str,
        bound: [&wgpu::Buffer; 3],
        [read, write]: [Lines; 2],
        add: bool,
    ) -> Option<Dispatch> {
        let columns = if entry == "forward" {
            self.outputs
        } else {
            self.inputs
        };
        let places = [read.from, read.stride, write.from, write.stride];
        let can = self.is_wide(None) && places.iter().all(|at| at.is_multiple_of(LANES));
        if !can || planner.kernel(Work::Small) != Kernel::Direct || !planner.is_software() {
            return None;
        }
        let dims = planner.uniform(&self.wide_dims(None, [read, write], add));
        let [lines, tile] = WIDE_TILE;
        let grid = Grid::positions(lines, self.positions, columns, tile);
        Some(planner.dispatch(WIDE, entry, &ACCESS, &bound, Some(&dims), grid))
    }

    /// One product straight from storage, by the wide kernels where they can do it.
    fn direct(
        &self,
        planner: &mut Planner<'_>,
        entry: &'static str,
        bound: [&wgpu::Buffer; 3],
        bias: Option<usize>,
        grid: impl FnOnce([usize; 2]) -> Grid,
    ) -> Dispatch {
        if self.is_wide(bias) {
            let lens = if entry == "input_gradient" {
                [self.outputs, self.inputs]
            } else {
                [self.inputs, self.outputs]
            };
            let lines = lens.map(|stride| Lines { from: 0, stride });
            // Gradients of inputs are not rectified.
            let relu = self.relu && entry == "forward";
            let dims = Self { relu, ..self.clone() }.wide_dims(bias, lines, false);
            let dims = planner.uniform(&dims);
            return planner.dispatch(WIDE, entry, &ACCESS, &bound, Some(&dims), grid(WIDE_TILE));
        }
        let (entry, tile) = match entry {
            "forward" if self.inputs.is_multiple_of(LANES) => ("forward4", HALF_TILE),
            "gradient" if self.inputs.is_multiple_of(LANES) => ("gradient4", HALF_TILE),
            _ => (entry, TILE),
        };
        let dims = planner.uniform(&self.dims(1, bias));
        planner.dispatch(SHADER, entry, &ACCESS, &bound, Some(&dims), grid(tile))
    }

    /// Whether all lengths and places are multiples of what the wide kernels load at once.
    fn is_wide(&self, bias: Option<usize>) -> bool {
        [self.inputs, self.outputs, self.offset, bias.unwrap_or(0)]
            .iter()
            .all(|len| len.is_multiple_of(LANES))
    }

    /// What `dense_wide.wgsl` is told.
    fn wide_dims(&self, bias: Option<usize>, [read, write]: [Lines; 2], add: bool) -> Vec<u32> {
        let mut dims = self.dims(LANES, bias).to_vec();
        dims.extend([read.from, read.stride, write.from, write.stride].map(|at| (at / LANES) as u32));
        dims.push(u32::from(add));
        dims
    }

    fn dims(&self, unit: usize, bias: Option<usize>) -> [u32; 6] {
        [
            (self.inputs / unit) as u32,
            (self.outputs / unit) as u32,
            (self.offset / unit) as u32,
            self.positions as u32,
            u32::from(self.relu),
            bias.map_or(NO_BIAS, |bias| (bias / unit) as u32),
        ]
    }
}

/// Where the lines of a product are, in numbers.
#[derive(Debug, Clone, Copy)]
pub(in crate::ops) struct Lines {
    /// The beginning of the first.
    pub from: usize,
    /// From one to the next.
    pub stride: usize,
}

/// `db = Σᵣ dy[r]` at `bias`: `[dy, d_parameters]`, `[positions, columns]`.
pub(in crate::ops) fn bias_gradient_gpu(
    planner: &mut Planner<'_>,
    [dy, d_parameters]: [&wgpu::Buffer; 2],
    [positions, columns]: [usize; 2],
    bias: usize,
) -> Dispatch {
    let dims = planner.uniform(&[0, columns as u32, 0, positions as u32, 0, bias as u32]);
    let (bound, grid) = ([dy, dy, d_parameters], Grid::linear(columns, 16));
    planner.dispatch(SHADER, "bias_gradient", &ACCESS, &bound, Some(&dims), grid)
}
