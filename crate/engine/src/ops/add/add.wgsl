// The sum of two values, and its gradient, which is passed on as it is.
//
//   entry point   a                 b                     out
//   forward       x  [rows, len]    other [rows, len]     y [rows, len]
//   backward      dy [rows, len]    (unused)              dx or d_other [rows, len]
//
// Dispatch: workgroups (ceil(len / 64), rows), one invocation a number.

struct Dims {
    len: u32,
}

struct Batch {
    rows: u32,
    first: u32,
    index: u32,
}

@group(0) @binding(0) var<storage, read> a: array<f32>;
@group(0) @binding(1) var<storage, read> b: array<f32>;
@group(0) @binding(2) var<storage, read_write> out: array<f32>;
@group(0) @binding(3) var<uniform> dims: Dims;
@group(1) @binding(0) var<uniform> batch: Batch;

@compute @workgroup_size(64)
fn forward(@builtin(global_invocation_id) id: vec3<u32>) {
    if (id.x >= dims.len || id.y >= batch.rows) { return; }
    let at = id.y * dims.len + id.x;
    out[at] = a[at] + b[at];
}

@compute @workgroup_size(64)
fn backward(@builtin(global_invocation_id) id: vec3<u32>) {
    if (id.x >= dims.len || id.y >= batch.rows) { return; }
    let at = id.y * dims.len + id.x;
    out[at] = a[at];
}
