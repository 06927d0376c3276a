//! Products of matrices on the GPU through tiles in workgroup memory: what dense layers and convolutions consist of.
//!
//! `out = A·B` with `A [lines, depth]` and `B [depth, columns]`; which buffers these are made of, and how, says [`Kind`]. A product
//! with few results and a long depth, such as the gradient of a kernel, would keep few workgroups busy, so the depth is cut
//! into parts ("split-K"), whose sums a second dispatch adds. Tiles and blocks as in Volkov, Demmel 2008; a cut depth as the
//! "2.5D" products of Solomonik, Demmel 2011 cut it between processors.

use crate::{
    backend::gpu::{Access, Dispatch, Grid, Kernel, Planner},
    ops::window::Window,
};

const SHADER: (&str, &str) = ("product", include_str!(concat!(env!("OUT_DIR"), "/product.wgsl")));
const ACCESS: [Access; 3] = [Access::Read, Access::Read, Access::Write];
/// Where the bias is, where there is none.
const NO_BIAS: u32 = u32::MAX;
/// Workgroups that keep a large GPU busy.
const BUSY: usize = 256;
/// Loads of tiles from which on a depth is cut at all: for fewer a second dispatch would take longer than it saves.
const LONG_STEPS: usize = 16;
/// Loads of tiles that a part of the depth has at least.
const MIN_STEPS: usize = 4;
/// Invocations of a workgroup of `sum`.
const GROUP: usize = 64;
/// How many numbers describe the windows of a convolution.
const WINDOW_NUMBERS: usize = 11;

/// What a product is made of; the shader has a table. In the gradients the depth runs over the batch, in the others the lines do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Forward,
    InputGradient,
    Gradient,
    ConvForward,
    ConvInputGradient,
    ConvGradient,
}

impl Kind {
    const fn is_gradient(self) -> bool {
        matches!(self, Self::Gradient | Self::ConvGradient)
    }
}

/// The tiles of a kernel; none for [`Kernel::Direct`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tiles {
    entry: &'static str,
    /// Lines and columns.
    tile: usize,
    /// Invocations along one side.
    side: usize,
    /// Steps of the depth in workgroup memory at a time.
    depth: usize,
}

impl Tiles {
    /// Those of `kernel`.
    pub const fn of(kernel: Kernel) -> Option<Self> {
        let (entry, tile, side, depth) = match kernel {
            Kernel::Direct => return None,
            Kernel::Tile64 => ("block4", 64, 16, 16),
            // A depth of 16 would need more workgroup memory than WebGPU promises.
            Kernel::Tile128 => ("block8", 128, 16, 8),
        };
        Some(Self {
            entry,
            tile,
            side,
            depth,
        })
    }

    /// Parts of the depth for a product of this shape.
    const fn splits(&self, lines: usize, columns: usize, depth: usize) -> usize {
        if depth < self.depth * LONG_STEPS {
            return 1;
        }
        let tiles = lines.div_ceil(self.tile) * columns.div_ceil(self.tile);
        let wanted = BUSY / tiles;
        let most = depth / (self.depth * MIN_STEPS);
        let splits = if wanted < most { wanted } else { most };
        if splits > 1 { splits } else { 1 }
    }
}

/// A product: see the module.
pub(crate) struct Product<'a> {
    pub kind: Kind,
    /// Lines of the result; of one example where they run over the batch.
    pub lines: usize,
    /// Terms of a sum; of one example where they run over the batch.
    pub depth: usize,
    /// Columns of the result.
    pub columns: usize,
    /// Where the kernel, or its gradient, begins in the flat vector.
    pub offset: usize,
    /// Where lies what the sums start from.
    pub bias: Option<usize>,
    /// Whether the result is rectified.
    pub relu: bool,
    /// Whether the last line is the gradient of a bias.
    pub ones: bool,
    /// Of a convolution the windows and the filters.
    pub windows: Option<(&'a Window, usize)>,
}

impl Product<'_> {
    /// The dispatches: `[a, b, out]`. None where there are more workgroups than one dispatch may have in one direction.
    pub fn plan(
        &self,
        planner: &mut Planner<'_>,
        tiles: Tiles,
        [a, b, out]: [&wgpu::Buffer; 3],
    ) -> Option<Vec<Dispatch>> {
        let rows = planner.max_rows();
        let gradient = self.kind.is_gradient();
        let (lines, depth) = if gradient {
            (self.lines, rows * self.depth)
        } else {
            (rows * self.lines, self.depth)
        };
        let splits = tiles.splits(lines, self.columns, depth);
        let across = self.columns.div_ceil(tiles.tile) * splits;
        let most = Grid::MAX_GROUPS as usize;
        if across > most || lines.div_ceil(tiles.tile) > most {
            return None;
        }
        let numbers = [self.lines, self.depth, self.columns, self.offset].map(|n| n as u32);
        let mut numbers = numbers.to_vec();
        numbers.extend([
            self.bias.map_or(NO_BIAS, |bias| bias as u32),
            u32::from(self.relu),
            u32::from(self.ones),
            splits as u32,
        ]);
        match self.windows {
            Some((window, filters)) => {
                numbers.extend(window.numbers());
                numbers.push(filters as u32);
            }
            None => numbers.extend([0; WINDOW_NUMBERS + 1]),
        }
        let dims = planner.uniform(&numbers);
        let constants = [
            ("KIND", f64::from(self.kind as u32)),
            ("TILE", tiles.tile as f64),
            ("SIDE", tiles.side as f64),
            ("DEPTH", tiles.depth as f64),
        ];
        let grid = |tile: usize, columns: usize| {
            if gradient {
                Grid::fixed(lines, tile, columns, 1)
            } else {
                Grid::positions(tile, self.lines, columns, 1)
            }
        };
        let partial = (splits > 1).then(|| planner.fixed("partial sums", splits * lines * self.columns));
        let bound = [a, b, partial.as_ref().unwrap_or(out)];
        let blocks = (tiles.entry, &constants[..]);
        let mut dispatches = vec![planner.dispatch_with(
            SHADER,
            blocks,
            &ACCESS,
            &bound,
            Some(&dims),
            grid(tiles.tile, across),
        )];
        if let Some(partial) = &partial {
            let sum = ("sum", &constants[..1]);
            let grid = if gradient {
                Grid::linear(lines * self.columns, GROUP)
            } else {
                Grid::per_row(rows, self.lines * self.columns, GROUP)
            };
            let bound = [partial, b, out];
            dispatches.push(planner.dispatch_with(SHADER, sum, &ACCESS, &bound, Some(&dims), grid));
        }
        Some(dispatches)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_depth_with_few_results_is_split() {
        let tiles = Tiles::of(Kernel::Tile64).unwrap();
        assert_eq!(tiles.splits(64, 128, 784), 12); // as many as the depth allows
        assert_eq!(tiles.splits(64, 128, 1 << 20), 128); // as many as there is use for
        assert_eq!(tiles.splits(1024, 1024, 1024), 1);
        assert_eq!(tiles.splits(64, 64, 255), 1); // a second dispatch would take longer
        assert_eq!(tiles.splits(1, 1, 1), 1);
        assert_eq!(tiles.splits(1 << 20, 1 << 10, 1 << 10), 1);
        assert_eq!(Tiles::of(Kernel::Direct), None);
    }

    #[test]
    fn tiles_fit_the_memory_and_the_invocations_that_webgpu_promises() {
        for kernel in Kernel::ALL {
            let Some(tiles) = Tiles::of(kernel) else { continue };
            let cells = tiles.depth * (tiles.tile / 4 + 1);
            assert!(
                2 * 16 * cells <= 16_384 && tiles.side * tiles.side <= 256,
                "{kernel:?}"
            );
            let block = tiles.tile / tiles.side;
            assert_eq!(tiles.entry, format!("block{block}"));
        }
    }
}
