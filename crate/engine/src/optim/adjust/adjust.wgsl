// Terms added to the gradient: gradient += of_weight * parameters + constant.
//
//   reads                             reads and writes
//   parameters [d], constant [d]      gradient [d]
//
// Dispatch: ceil(len / 256) workgroups, folded into rows of at most 65,535.

struct Dims {
    len: u32,
    of_weight: f32,
}

struct Batch {
    rows: u32,
    first: u32,
    index: u32,
}

@group(0) @binding(0) var<storage, read> parameters: array<f32>;
@group(0) @binding(1) var<storage, read> constant: array<f32>;
@group(0) @binding(2) var<storage, read_write> gradient: array<f32>;
@group(0) @binding(3) var<uniform> dims: Dims;
@group(1) @binding(0) var<uniform> batch: Batch;

@compute @workgroup_size(256)
fn adjust(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let at = id.y * groups.x * 256u + id.x;
    if (at >= dims.len) { return; }
    gradient[at] += dims.of_weight * parameters[at] + constant[at];
}
