// Adagrad over the parameters start..end: s += g * g; w -= learning_rate * g / (sqrt(s) + epsilon).
//
//   reads           reads and writes
//   gradient [d]    parameters [d], sums [d]
//
// Dispatch: ceil((end - start) / 256) workgroups, folded into rows of at most 65,535.

struct Dims {
    start: u32,
    end: u32,
    epsilon: f32,
}

struct Batch {
    rows: u32,
    first: u32,
    index: u32,
    key: u32,
    learning_rate: f32,
}

@group(0) @binding(0) var<storage, read> gradient: array<f32>;
@group(0) @binding(1) var<storage, read_write> parameters: array<f32>;
@group(0) @binding(2) var<storage, read_write> sums: array<f32>;
@group(0) @binding(3) var<uniform> dims: Dims;
@group(1) @binding(0) var<uniform> batch: Batch;

@compute @workgroup_size(256)
fn update(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let at = dims.start + id.y * groups.x * 256u + id.x;
    if (at >= dims.end) { return; }
    let g = gradient[at];
    let sum = sums[at] + g * g;
    sums[at] = sum;
    parameters[at] -= batch.learning_rate * g / (sqrt(sum) + dims.epsilon);
}
