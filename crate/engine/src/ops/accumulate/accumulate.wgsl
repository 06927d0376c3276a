// Adds one gradient to another: sum += more.
//
//   reads              reads and writes
//   more [rows, len]   sum [rows, len]
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

@group(0) @binding(0) var<storage, read> more: array<f32>;
@group(0) @binding(1) var<storage, read_write> sum: array<f32>;
@group(0) @binding(2) var<uniform> dims: Dims;
@group(1) @binding(0) var<uniform> batch: Batch;

@compute @workgroup_size(64)
fn accumulate(@builtin(global_invocation_id) id: vec3<u32>) {
    if (id.x >= dims.len || id.y >= batch.rows) { return; }
    let at = id.y * dims.len + id.x;
    sum[at] += more[at];
}
