//! GPU dispatches of `lstm.wgsl`, and those of dense layers for what is one product over all steps.

use super::Lstm;
use crate::{
    EngineError,
    backend::gpu::{Access, Grid, OpBuffers, Planner},
    ops::{Op, dense::Dense},
};

const SHADER: (&str, &str) = ("lstm", include_str!(concat!(env!("OUT_DIR"), "/lstm.wgsl")));
const ACCESS: [Access; 7] = [
    Access::Read,
    Access::Write,
    Access::Write,
    Access::Write,
    Access::Write,
    Access::Write,
    Access::Write,
];
/// Rows and columns of a workgroup in the dispatches of a step.
const STEP_TILE: [usize; 2] = [4, 32];
/// Invocations of a workgroup where each writes one number.
const GROUP: usize = 64;

impl Lstm {
    pub(super) fn plan(&self, planner: &mut Planner<'_>, buffers: &OpBuffers<'_>) -> Result<(), EngineError> {
        let (units, outputs, gates) = (self.units, self.outputs, self.gates());
        let &OpBuffers {
            y,
            dy,
            kept,
            parameters,
            d_parameters,
            ..
        } = buffers;
        let cells_at = planner.max_rows() * self.time * gates;
        let previous = planner.per_row("outputs of the step before", self.time * outputs);
        let hidden_len = self.projection.map_or(0, |_| self.time * units);
        let hidden = planner.per_row("outputs before projection", hidden_len);
        let transposed_len = gates * outputs + self.projection.map_or(0, |_| units * outputs);
        let transposed = planner.fixed("transposed kernels", transposed_len);
        let uniforms: Vec<_> = (0..self.time)
            .map(|step| {
                planner.uniform(&[
                    step as u32,
                    self.time as u32,
                    units as u32,
                    outputs as u32,
                    gates as u32,
                    u32::from(self.coupled),
                    u32::from(self.projection.is_some()),
                    self.offset as u32,
                    self.projection.unwrap_or(0) as u32,
                    cells_at as u32,
                ])
            })
            .collect();
        let bound = [parameters, kept, y, dy, &transposed, &previous, &hidden];
        let dispatch = |planner: &mut Planner<'_>, entry, step: usize, grid| {
            planner.dispatch(SHADER, entry, &ACCESS, &bound, Some(&uniforms[step]), grid)
        };
        let over = |columns| Grid::rows(STEP_TILE[0], columns, STEP_TILE[1]);
        let projected = self.projection.is_some();

        let transpose = dispatch(planner, "transpose", 0, Grid::linear(transposed_len, GROUP));
        planner.input_gradient.push(transpose);
        for step in (0..self.time).rev() {
            if projected {
                let dispatch = dispatch(planner, "output_gradient", step, over(outputs));
                planner.input_gradient.push(dispatch);
            }
            let dispatch = dispatch(planner, "step_gradient", step, over(units));
            planner.input_gradient.push(dispatch);
        }
        // Its output are the pre-activations; the gradients of these come to lie in the same place.
        self.input.plan_gpu(
            planner,
            &OpBuffers {
                y: kept,
                dy: kept,
                ..*buffers
            },
        )?;
        for step in 0..self.time {
            let dispatch_step = dispatch(planner, "advance", step, over(units));
            planner.forward.push(dispatch_step);
            if projected {
                let dispatch = dispatch(planner, "project", step, over(outputs));
                planner.forward.push(dispatch);
            }
        }
        let mut kernel_gradient = |offset, [inputs, outputs]: [usize; 2], bound: [&wgpu::Buffer; 3]| {
            let kernel = Dense {
                positions: self.time,
                inputs,
                outputs,
                offset,
                relu: false,
            };
            let gradient = kernel.gradient_gpu(planner, bound, None);
            planner.parameter_gradient.extend(gradient);
            kernel.norms_gpu(planner, [bound[0], bound[1]], false);
        };
        kernel_gradient(self.offset, [outputs, gates], [&previous, kept, d_parameters]);
        if let Some(offset) = self.projection {
            kernel_gradient(offset, [units, outputs], [&hidden, dy, d_parameters]);
            planner.scaled.push((dy.clone(), self.time * outputs));
        }
        Ok(())
    }
}
