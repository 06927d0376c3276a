// Adds one gradient to another.
//
//   entry point   reads              reads and writes
//   accumulate    more [rows, len]   sum [rows, len]: sum += more
//   add_share     more [len]         sum [len]: sum += share * more
//   set_share     more [len]         sum [len]: sum = share * more
//
// Dispatch: accumulate (ceil(len / 64), rows); the others ceil(len / 64), folded into rows; one invocation a number.

struct Dims {
    len: u32,
}

struct Batch {
    rows: u32,
    first: u32,
    index: u32,
    key: u32,
    learning_rate: f32,
    own0: f32,
    own1: f32,
    share: f32,
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

@compute @workgroup_size(64)
fn add_share(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let at = id.y * groups.x * 64u + id.x;
    if (at < dims.len) { sum[at] += batch.share * more[at]; }
}

@compute @workgroup_size(64)
fn set_share(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let at = id.y * groups.x * 64u + id.x;
    if (at < dims.len) { sum[at] = batch.share * more[at]; }
}
