//! GPU dispatches of `normalize.wgsl`.

use super::Normalize;
use crate::{
    EngineError,
    backend::gpu::{Access, Grid, NormTerm, OpBuffers, Planner},
};

const SHADER: (&str, &str) = (
    "normalize",
    include_str!(concat!(env!("OUT_DIR"), "/normalize.wgsl")),
);
const ACCESS: [Access; 5] = [
    Access::Read,
    Access::Read,
    Access::Read,
    Access::Write,
    Access::Write,
];

impl Normalize {
    pub(super) fn plan(&self, planner: &mut Planner<'_>, buffers: &OpBuffers<'_>) -> Result<(), EngineError> {
        let sizes = [
            self.instances,
            self.positions,
            self.channels,
            self.groups,
            self.offset,
        ];
        let mut numbers = sizes.map(|n| n as u32).to_vec();
        numbers.push(self.epsilon.to_bits());
        // No parts of norms here.
        let dims = planner.uniform(&[&numbers[..], &[0, 0]].concat());
        let &OpBuffers {
            x,
            y,
            dy,
            dx,
            kept,
            parameters,
            d_parameters,
            ..
        } = buffers;
        let each_group = Grid::per_row(planner.max_rows(), self.instances * self.groups, 1);
        let mut dispatch = |entry, bound: [&wgpu::Buffer; 5], grid| {
            planner.dispatch(SHADER, entry, &ACCESS, &bound, Some(&dims), grid)
        };
        let forward = dispatch("forward", [x, parameters, x, kept, y], each_group);
        let input_gradient =
            dx.map(|dx| dispatch("input_gradient", [x, parameters, dy, kept, dx], each_group));
        let gradient = dispatch(
            "gradient",
            [x, x, dy, kept, d_parameters],
            Grid::linear(self.channels, 1),
        );
        planner.forward.push(forward);
        planner.input_gradient.extend(input_gradient);
        planner.parameter_gradient.push(gradient);
        planner.norms.push(NormTerm {
            shader: SHADER,
            entry: "norms",
            access: &ACCESS,
            bound: [x, x, dy, kept].map(Clone::clone).to_vec(),
            numbers,
            parts: 1,
        });
        let len = self.instances * self.positions * self.channels;
        planner.scaled.push((dy.clone(), len));
        Ok(())
    }
}
