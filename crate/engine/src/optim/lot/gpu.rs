//! GPU dispatches of `lot.wgsl`.

use super::Lot;
use crate::backend::gpu::{Access, Dispatch, Grid, Planner};

const SHADER: (&str, &str) = ("lot", include_str!(concat!(env!("OUT_DIR"), "/lot.wgsl")));
const ACCESS: [Access; 5] = [
    Access::Read,
    Access::Read,
    Access::Read,
    Access::Write,
    Access::Write,
];
/// Numbers of a workgroup that counts.
const GROUP: usize = 4096;

/// What the counting of a lot is planned over.
pub(crate) struct LotBuffers<'a> {
    /// The gradient of one example, `[d]`.
    pub gradient: &'a wgpu::Buffer,
    /// The loss of each step's last example, `[steps]`.
    pub losses: &'a wgpu::Buffer,
    /// The sums of each step's losses, `[steps]`: added to.
    pub sums: &'a wgpu::Buffer,
    /// A step's noise, `[d]`.
    pub noise: &'a wgpu::Buffer,
    /// The noised mean, `[d]`.
    pub mean: &'a wgpu::Buffer,
}

/// The dispatches of a lot.
pub(crate) struct LotDispatches {
    /// For each example, behind its gradient.
    pub count: [Dispatch; 3],
    /// Once, before the optimiser.
    pub noised: Dispatch,
}

impl Lot {
    /// Plans a lot over `len` parameters.
    pub(crate) fn plan(
        &self,
        planner: &mut Planner<'_>,
        len: usize,
        buffers: &LotBuffers<'_>,
    ) -> LotDispatches {
        let groups = len.div_ceil(GROUP);
        let dims = planner.uniform(&[
            len as u32,
            groups as u32,
            (1.0 / self.clip_l2).to_bits(),
            (1.0 / self.grid_step).to_bits(),
            self.unit.to_bits(),
            self.bound_squared as u32,
            (self.bound_squared >> 32) as u32,
        ]);
        let &LotBuffers {
            gradient,
            losses,
            sums,
            noise,
            mean,
        } = buffers;
        let parts = planner.fixed("parts of a norm", groups);
        let squares = planner.fixed("parts of a squared length", 2 * groups);
        let whole = planner.fixed("whole numbers of an example", len);
        let totals = planner.fixed("whole numbers of a lot", len);
        let mut add = |entry, bound: [&wgpu::Buffer; 5], group| {
            planner.dispatch(
                SHADER,
                entry,
                &ACCESS,
                &bound,
                Some(&dims),
                Grid::linear(len, group),
            )
        };
        LotDispatches {
            count: [
                add("measure", [gradient, gradient, losses, &parts, &squares], GROUP),
                add("round_all", [gradient, &parts, losses, &whole, &squares], GROUP),
                add("count", [&whole, &squares, losses, &totals, sums], GROUP),
            ],
            noised: add("noised", [noise, noise, losses, &totals, mean], 256),
        }
    }
}
