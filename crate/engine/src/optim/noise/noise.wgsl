// Noise on the sum of a lot's clipped gradients: gradient = (round(gradient / step) + noise) * step / expected examples.
//
//   reads             reads and writes
//   noise [d]: i32    gradient [d]
//
// Dispatch: ceil(len / 256) workgroups, folded into rows of at most 65,535. An empty lot has the sum 0, whatever lies there.

struct Dims {
    len: u32,
    per_unit: f32,
    unit: f32,
}

struct Batch {
    rows: u32,
    first: u32,
    index: u32,
}

// 2^30: with noise of as much at most, the sum stays within an i32.
const LIMIT = 1073741824.0;
const EXPONENT = 0x7f800000u;

@group(0) @binding(0) var<storage, read> noise: array<i32>;
@group(0) @binding(1) var<storage, read_write> gradient: array<f32>;
@group(0) @binding(2) var<uniform> dims: Dims;
@group(1) @binding(0) var<uniform> batch: Batch;

@compute @workgroup_size(256)
fn add(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let at = id.y * groups.x * 256u + id.x;
    if (at >= dims.len) { return; }
    var sum = 0.0;
    if (batch.rows > 0u) { sum = gradient[at]; }
    // What is not a finite number stays none, so that the training fails; told by its bits, since a compiler may take every
    // number for finite.
    if ((bitcast<u32>(sum) & EXPONENT) == EXPONENT) { return; }
    let steps = i32(clamp(round(sum * dims.per_unit), -LIMIT, LIMIT));
    gradient[at] = f32(steps + noise[at]) * dims.unit;
}
