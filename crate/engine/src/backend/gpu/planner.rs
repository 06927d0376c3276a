//! Planning: from a model's operations to dispatches with their bindings in place.

use std::borrow::Cow;

use super::{
    GpuDevice, Kernel, Kernels, Work,
    device::{Constant, Pipeline, PipelineEntry, lock},
    subgroups,
};
use crate::{EngineError, ops::clip};

/// How a kernel uses a storage buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// Read only.
    Read,
    /// Written, and perhaps read.
    Write,
}

/// How many workgroups a dispatch has, given the rows of the batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Grid {
    /// `x` across the columns, `y` down the positions of all rows, `tile` of them to a workgroup.
    Rows { x: u32, positions: u32, tile: u32 },
    /// The same for every batch.
    Fixed { x: u32, y: u32 },
}

impl Grid {
    /// Workgroups that one dispatch may have in one direction (WebGPU's default limit).
    pub const MAX_GROUPS: u32 = 65_535;

    /// Workgroups of `tile_rows × tile_columns` over `[rows, columns]`.
    pub fn rows(tile_rows: usize, columns: usize, tile_columns: usize) -> Self {
        Self::positions(tile_rows, 1, columns, tile_columns)
    }

    /// As [`Grid::rows`], where each row of the batch is `positions` lines.
    pub fn positions(tile_rows: usize, positions: usize, columns: usize, tile_columns: usize) -> Self {
        Self::Rows {
            x: columns.div_ceil(tile_columns) as u32,
            positions: positions as u32,
            tile: tile_rows as u32,
        }
    }

    /// Workgroups of `tile × tile_columns` over `[lines, columns]`, whatever the batch.
    pub fn fixed(lines: usize, tile: usize, columns: usize, tile_columns: usize) -> Self {
        Self::Fixed {
            x: columns.div_ceil(tile_columns) as u32,
            y: lines.div_ceil(tile) as u32,
        }
    }

    /// Workgroups of `group` over `len` numbers, folded into rows where there are too many for one.
    pub fn linear(len: usize, group: usize) -> Self {
        let groups = len.div_ceil(group) as u32;
        let x = groups.clamp(1, Self::MAX_GROUPS);
        Self::Fixed {
            x,
            y: groups.div_ceil(x).max(1),
        }
    }

    /// Workgroups of `group` over `items` for each row of the batch, of which there are at most `max_rows`; folded into rows where
    /// there are too many for one.
    pub fn per_row(max_rows: usize, items: usize, group: usize) -> Self {
        let fold = (max_rows * items)
            .div_ceil(group)
            .div_ceil(Self::MAX_GROUPS as usize);
        Self::positions(group, items.div_ceil(fold.max(1)), fold.max(1), 1)
    }

    /// One workgroup.
    pub const fn one() -> Self {
        Self::Fixed { x: 1, y: 1 }
    }

    /// The workgroups for a batch of `batch` rows.
    pub const fn size(self, batch: u32) -> (u32, u32) {
        match self {
            Self::Rows { x, positions, tile } => (x, (batch * positions).div_ceil(tile)),
            Self::Fixed { x, y } => (x, y),
        }
    }
}

/// A kernel with its bindings, ready to be recorded.
pub(crate) struct Dispatch {
    pub pipeline: wgpu::ComputePipeline,
    pub bindings: wgpu::BindGroup,
    pub grid: Grid,
}

/// The buffers around one operation. Each value and each gradient is a buffer of its own, since one dispatch may not bind the
/// same buffer to read and to write.
pub(crate) struct OpBuffers<'a> {
    /// The input.
    pub x: &'a wgpu::Buffer,
    /// The second input, where branches meet.
    pub other: Option<&'a wgpu::Buffer>,
    /// The output.
    pub y: &'a wgpu::Buffer,
    /// Gradient of the output.
    pub dy: &'a wgpu::Buffer,
    /// Gradient of the input: overwritten; none where it is not needed.
    pub dx: Option<&'a wgpu::Buffer>,
    /// Gradient of the second input: overwritten; none where it is not needed.
    pub d_other: Option<&'a wgpu::Buffer>,
    /// What the forward pass keeps for the gradients, `[rows, kept length]`.
    pub kept: &'a wgpu::Buffer,
    /// Input and output's gradient of the operation that has a tensor which this one uses too.
    pub shared: Option<[&'a wgpu::Buffer; 2]>,
    /// All parameters of the model.
    pub parameters: &'a wgpu::Buffer,
    /// Gradient of all parameters.
    pub d_parameters: &'a wgpu::Buffer,
}

/// What one operation adds to the squared norms of its examples' gradients: a dispatch that writes `parts` numbers for each row.
/// The places of these are known when all operations are planned.
pub(crate) struct NormTerm {
    pub shader: (&'static str, &'static str),
    pub entry: &'static str,
    /// Of `bound`, and then of the numbers written.
    pub access: &'static [Access],
    pub bound: Vec<wgpu::Buffer>,
    /// What the uniform begins with; the first of the parts and the parts of all operations follow.
    pub numbers: Vec<u32>,
    /// Workgroups for each row.
    pub parts: usize,
}

/// Collects the dispatches of one training step.
pub(crate) struct Planner<'a> {
    pub(super) gpu: &'a GpuDevice,
    batch_layout: &'a wgpu::BindGroupLayout,
    max_rows: usize,
    pub(super) kernels: Kernels,
    /// The batch's labels, `[rows]`.
    pub labels: wgpu::Buffer,
    /// The loss of each step of the epoch.
    pub losses: wgpu::Buffer,
    /// Forward dispatches, first to last, the loss included.
    pub forward: Vec<Dispatch>,
    /// Dispatches for the gradients of the inputs of the operation being planned, in the order in which they run.
    pub input_gradient: Vec<Dispatch>,
    /// Dispatches for the gradient of its parameters, which run after those.
    pub parameter_gradient: Vec<Dispatch>,
    /// What it adds to the norms of its examples' gradients, for clipping.
    pub norms: Vec<NormTerm>,
    /// What has to be scaled by the examples' factors before the gradient of its parameters: buffers and numbers per row.
    pub scaled: Vec<(wgpu::Buffer, usize)>,
    /// All of these, of all operations, in the order in which they run.
    pub(super) backward: Vec<Dispatch>,
    /// The optimiser's dispatches.
    pub update: Vec<Dispatch>,
    failed: Option<EngineError>,
}

impl<'a> Planner<'a> {
    pub(super) fn new(
        gpu: &'a GpuDevice,
        batch_layout: &'a wgpu::BindGroupLayout,
        max_rows: usize,
        labels: wgpu::Buffer,
        losses: wgpu::Buffer,
    ) -> Self {
        Self {
            gpu,
            batch_layout,
            max_rows,
            kernels: gpu.kernels(),
            labels,
            losses,
            forward: Vec::new(),
            input_gradient: Vec::new(),
            parameter_gradient: Vec::new(),
            norms: Vec::new(),
            scaled: Vec::new(),
            backward: Vec::new(),
            update: Vec::new(),
            failed: None,
        }
    }

    /// A uniform buffer with these numbers.
    pub fn uniform(&mut self, numbers: &[u32]) -> wgpu::Buffer {
        let mut padded = numbers.to_vec();
        padded.resize(numbers.len().next_multiple_of(4), 0);
        let buffer = self.gpu.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("dims"),
            size: 4 * padded.len() as u64,
            usage: wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        });
        self.gpu
            .queue
            .write_buffer(&buffer, 0, bytemuck::cast_slice(&padded));
        buffer
    }

    /// A storage buffer of `len` numbers for each row of the batch. A buffer that is too large is reported by
    /// [`Planner::finish`].
    pub fn per_row(&mut self, what: &'static str, len: usize) -> wgpu::Buffer {
        self.fixed(what, self.max_rows.saturating_mul(len))
    }

    /// A storage buffer that holds `values`.
    pub fn upload(&self, what: &'static str, values: &[f32]) -> Result<wgpu::Buffer, EngineError> {
        self.gpu.upload(what, values)
    }

    /// Rows of the largest batch.
    pub const fn max_rows(&self) -> usize {
        self.max_rows
    }

    /// A storage buffer of `len` numbers, whatever the batch. A buffer that is too large is reported by [`Planner::finish`].
    pub fn fixed(&mut self, what: &'static str, len: usize) -> wgpu::Buffer {
        let bytes = 4 * len as u64;
        let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC;
        self.gpu.buffer(what, bytes, usage).unwrap_or_else(|error| {
            self.failed.get_or_insert(error);
            self.labels.clone()
        })
    }

    /// Whether the device is emulated.
    pub const fn is_software(&self) -> bool {
        self.gpu.is_software()
    }

    /// The kernel for products of this kind.
    pub const fn kernel(&self, work: Work) -> Kernel {
        self.kernels.of(work)
    }

    /// A dispatch of `entry` of the shader `(name, source)`. Group 0 has the storage buffers in order and then the uniform;
    /// group 1 the batch.
    pub fn dispatch(
        &mut self,
        shader: (&'static str, &'static str),
        entry: &'static str,
        access: &[Access],
        buffers: &[&wgpu::Buffer],
        uniform: Option<&wgpu::Buffer>,
        grid: Grid,
    ) -> Dispatch {
        self.dispatch_with(shader, (entry, &[]), access, buffers, uniform, grid)
    }

    /// As [`Planner::dispatch`], with values for the shader's `override` constants beside the entry.
    pub fn dispatch_with(
        &mut self,
        (name, source): (&'static str, &'static str),
        (entry, constants): (&'static str, &[Constant]),
        access: &[Access],
        buffers: &[&wgpu::Buffer],
        uniform: Option<&wgpu::Buffer>,
        grid: Grid,
    ) -> Dispatch {
        let device = &self.gpu.device;
        let subgroups = self.kernels.subgroups && subgroups::is_summing(name);
        let mut pipelines = lock(&self.gpu.pipelines);
        let known = pipelines
            .iter()
            .find(|known| {
                (known.shader, known.entry, known.subgroups) == (name, entry, subgroups)
                    && known.constants == constants
            })
            .map(|known| known.pipeline.clone());
        let Pipeline { pipeline, bindings } = known.unwrap_or_else(|| {
            let source = if subgroups {
                subgroups::with_subgroups(source).into()
            } else {
                source.into()
            };
            let pipeline = compile(
                device,
                (name, source),
                (entry, constants),
                access,
                uniform.is_some(),
                self.batch_layout,
            );
            pipelines.push(PipelineEntry {
                shader: name,
                entry,
                constants: constants.to_vec(),
                subgroups,
                pipeline: pipeline.clone(),
            });
            pipeline
        });
        let entries: Vec<_> = (0..)
            .zip(buffers.iter().copied().chain(uniform))
            .map(|(binding, buffer)| wgpu::BindGroupEntry {
                binding,
                resource: buffer.as_entire_binding(),
            })
            .collect();
        let bindings = device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: Some(entry),
            layout: &bindings,
            entries: &entries,
        });
        Dispatch {
            pipeline,
            bindings,
            grid,
        }
    }

    /// Plans the clipping of each example's gradient to `clip_l2`: the norms of all operations, the factors, and the scaling.
    pub(super) fn clip(
        &mut self,
        clip_l2: f32,
        norms: &[NormTerm],
        scaled: &[(wgpu::Buffer, usize)],
    ) -> Vec<Dispatch> {
        let all: usize = norms.iter().map(|term| term.parts).sum();
        let parts = self.per_row("squared norms", all);
        let factors = self.per_row("clip factors", 1);
        let mut dispatches = Vec::with_capacity(norms.len() + 1 + scaled.len());
        let mut first = 0;
        for term in norms {
            let dims = self.uniform(&[&term.numbers[..], &[first as u32, all as u32]].concat());
            let bound: Vec<_> = term.bound.iter().chain([&parts]).collect();
            let grid = Grid::Rows {
                x: term.parts as u32,
                positions: 1,
                tile: 1,
            };
            dispatches.push(self.dispatch(term.shader, term.entry, term.access, &bound, Some(&dims), grid));
            first += term.parts;
        }
        dispatches.push(clip::factors(self, &parts, &factors, all, clip_l2));
        for (values, len) in scaled {
            dispatches.push(clip::scale(self, &factors, values, *len));
        }
        dispatches
    }

    /// The dispatches of a batch, forward and backward, and those of the update.
    pub(super) fn finish(self) -> Result<(Vec<Dispatch>, Vec<Dispatch>), EngineError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        let mut batch = self.forward;
        batch.extend(self.backward);
        Ok((batch, self.update))
    }
}

fn compile(
    device: &wgpu::Device,
    (name, source): (&'static str, Cow<'static, str>),
    (entry, constants): (&'static str, &[Constant]),
    access: &[Access],
    uniform: bool,
    batch_layout: &wgpu::BindGroupLayout,
) -> Pipeline {
    let module = device.create_shader_module(wgpu::ShaderModuleDescriptor {
        label: Some(name),
        source: wgpu::ShaderSource::Wgsl(source),
    });
    let storage = access.iter().map(|access| wgpu::BufferBindingType::Storage {
        read_only: *access == Access::Read,
    });
    let entries: Vec<_> = (0..)
        .zip(storage.chain(uniform.then_some(wgpu::BufferBindingType::Uniform)))
        .map(|(binding, ty)| buffer_entry(binding, ty, false))
        .collect();
    let bindings = device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor {
        label: Some(name),
        entries: &entries,
    });
    let layout = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
        label: Some(name),
        bind_group_layouts: &[Some(&bindings), Some(batch_layout)],
        immediate_size: 0,
    });
    let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
        label: Some(entry),
        layout: Some(&layout),
        module: &module,
        entry_point: Some(entry),
        compilation_options: wgpu::PipelineCompilationOptions {
            constants,
            // Every kernel writes workgroup memory before it reads it.
            zero_initialize_workgroup_memory: false,
        },
        cache: None,
    });
    Pipeline { pipeline, bindings }
}

/// A buffer as an entry of a bind group layout.
pub(super) fn buffer_entry(
    binding: u32,
    ty: wgpu::BufferBindingType,
    has_dynamic_offset: bool,
) -> wgpu::BindGroupLayoutEntry {
    wgpu::BindGroupLayoutEntry {
        binding,
        visibility: wgpu::ShaderStages::COMPUTE,
        ty: wgpu::BindingType::Buffer {
            ty,
            has_dynamic_offset,
            min_binding_size: None,
        },
        count: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grids_cover_every_element() {
        assert_eq!(Grid::rows(32, 33, 32).size(65), (2, 3));
        assert_eq!(Grid::positions(32, 5, 33, 32).size(13), (2, 3));
        assert_eq!(Grid::fixed(785, 32, 10, 32).size(1), (1, 25));
        assert_eq!(Grid::linear(257, 256).size(1), (2, 1));
        assert_eq!(Grid::per_row(32, 100, 64).size(32), (1, 50));
        assert_eq!(Grid::per_row(32, 100, 64).size(7), (1, 11));
        let (x, y) = Grid::per_row(64, 65_536, 64).size(64);
        assert!(x == 2 && y <= Grid::MAX_GROUPS && x * y * 64 >= 64 * 65_536);
        for len in [1, 255, 256, 65_535 * 256, 65_535 * 256 + 1, 200_000_000] {
            let (x, y) = Grid::linear(len, 256).size(1);
            assert!(
                x <= Grid::MAX_GROUPS && y <= Grid::MAX_GROUPS && x as usize * y as usize * 256 >= len,
                "{len}"
            );
        }
    }
}
