//! GPU dispatches of `lstm.wgsl`, and those of dense layers for what is one product over all steps.

use super::Lstm;
use crate::{
    EngineError,
    backend::gpu::{Access, Dispatch, Grid, OpBuffers, Planner},
    ops::{
        Op,
        dense::{Dense, Lines},
    },
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
        let state = State {
            uniforms,
            kept,
            y,
            dy,
            parameters,
            previous: &previous,
            hidden: &hidden,
        };
        let Steps { forward, backward } = match self.steps_apart(planner, &state) {
            Some(steps) => steps,
            None => self.steps_shared(planner, &state),
        };
        planner.input_gradient.extend(backward);
        // Its output are the pre-activations; the gradients of these come to lie in the same place.
        self.input.plan_gpu(
            planner,
            &OpBuffers {
                y: kept,
                dy: kept,
                ..*buffers
            },
        )?;
        planner.forward.extend(forward);
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

    /// Steps with products through workgroup memory.
    fn steps_shared(&self, planner: &mut Planner<'_>, state: &State<'_>) -> Steps {
        let transposed_len =
            self.gates() * self.outputs + self.projection.map_or(0, |_| self.units * self.outputs);
        let transposed = planner.fixed("transposed kernels", transposed_len);
        let over = |columns| Grid::rows(STEP_TILE[0], columns, STEP_TILE[1]);
        let projected = self.projection.is_some();
        let mut steps = Steps::default();
        let grid = Grid::linear(transposed_len, GROUP);
        let transpose = state.dispatch(planner, "transpose", 0, &transposed, grid);
        steps.backward.push(transpose);
        for step in 0..self.time {
            let advance = state.dispatch(planner, "advance", step, &transposed, over(self.units));
            steps.forward.push(advance);
            if projected {
                let project = state.dispatch(planner, "project", step, &transposed, over(self.outputs));
                steps.forward.push(project);
            }
        }
        for step in (0..self.time).rev() {
            if projected {
                let output =
                    state.dispatch(planner, "output_gradient", step, &transposed, over(self.outputs));
                steps.backward.push(output);
            }
            let gates = state.dispatch(planner, "step_gradient", step, &transposed, over(self.units));
            steps.backward.push(gates);
        }
        steps
    }

    /// Steps with the products of dense layers, straight from storage. `None` where those cannot do it, or are slower.
    fn steps_apart(&self, planner: &mut Planner<'_>, state: &State<'_>) -> Option<Steps> {
        if !cfg!(feature = "extra-kernels") {
            return None;
        }
        let (units, outputs, gates) = (self.units, self.outputs, self.gates());
        let product = |inputs, outputs, offset| Dense {
            positions: 1,
            inputs,
            outputs,
            offset,
            relu: false,
        };
        let recurrent = product(outputs, gates, self.offset);
        let projection = self.projection.map(|offset| product(units, outputs, offset));
        let apart = |len: usize, step: usize| Lines {
            from: step * len,
            stride: self.time * len,
        };
        let own = Lines {
            from: 0,
            stride: units,
        };
        let &State {
            kept,
            y,
            dy,
            parameters,
            hidden,
            ..
        } = state;
        // The gradient of m, where there is a projection; else it is dy.
        let d_hidden = planner.per_row(
            "gradient before projection",
            projection.as_ref().map_or(0, |_| units),
        );
        let cells = || Grid::rows(1, units, GROUP);
        let mut steps = Steps::default();
        for step in 0..self.time {
            if step > 0 {
                let lines = [apart(outputs, step - 1), apart(gates, step)];
                let bound = [y, parameters, kept];
                steps
                    .forward
                    .push(recurrent.apart_gpu(planner, "forward", bound, lines, true)?);
            }
            steps
                .forward
                .push(state.dispatch(planner, "cell", step, &d_hidden, cells()));
            if let Some(projection) = &projection {
                let lines = [apart(units, step), apart(outputs, step)];
                let bound = [hidden, parameters, y];
                steps
                    .forward
                    .push(projection.apart_gpu(planner, "forward", bound, lines, false)?);
            }
        }
        if projection.is_some() {
            let grid = Grid::rows(1, self.time * outputs, GROUP);
            steps
                .forward
                .push(state.dispatch(planner, "shift", 0, &d_hidden, grid));
        }
        for step in (0..self.time).rev() {
            if step + 1 < self.time {
                let lines = [apart(gates, step + 1), apart(outputs, step)];
                let bound = [kept, parameters, dy];
                steps
                    .backward
                    .push(recurrent.apart_gpu(planner, "input_gradient", bound, lines, true)?);
            }
            if let Some(projection) = &projection {
                let lines = [apart(outputs, step), own];
                let bound = [dy, parameters, &d_hidden];
                steps
                    .backward
                    .push(projection.apart_gpu(planner, "input_gradient", bound, lines, false)?);
            }
            steps
                .backward
                .push(state.dispatch(planner, "cell_gradient", step, &d_hidden, cells()));
        }
        Some(steps)
    }
}

/// Buffers of all steps.
struct State<'a> {
    /// One for each step.
    uniforms: Vec<wgpu::Buffer>,
    kept: &'a wgpu::Buffer,
    y: &'a wgpu::Buffer,
    dy: &'a wgpu::Buffer,
    parameters: &'a wgpu::Buffer,
    previous: &'a wgpu::Buffer,
    hidden: &'a wgpu::Buffer,
}

/// What is done for all steps, in order.
#[derive(Default)]
struct Steps {
    forward: Vec<Dispatch>,
    backward: Vec<Dispatch>,
}

impl State<'_> {
    fn dispatch(
        &self,
        planner: &mut Planner<'_>,
        entry: &'static str,
        step: usize,
        transposed: &wgpu::Buffer,
        grid: Grid,
    ) -> Dispatch {
        let bound = [
            self.parameters,
            self.kept,
            self.y,
            self.dy,
            transposed,
            self.previous,
            self.hidden,
        ];
        planner.dispatch(SHADER, entry, &ACCESS, &bound, Some(&self.uniforms[step]), grid)
    }
}
