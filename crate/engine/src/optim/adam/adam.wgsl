// Adam with decoupled weight decay over the parameters start..end; see mod.rs for the formulas.
//
//   reads           reads and writes
//   gradient [d]    parameters [d], state [2 * d]: m, then v
//
// Dispatch: ceil((end - start) / 256) workgroups, folded into rows of at most 65,535.

struct Dims {
    start: u32,
    end: u32,
    len: u32,
    beta1: f32,
    beta2: f32,
    epsilon: f32,
    weight_decay: f32,
}

struct Batch {
    rows: u32,
    first: u32,
    index: u32,
    key: u32,
    learning_rate: f32,
    correct1: f32,
    correct2: f32,
}

@group(0) @binding(0) var<storage, read> gradient: array<f32>;
@group(0) @binding(1) var<storage, read_write> parameters: array<f32>;
@group(0) @binding(2) var<storage, read_write> state: array<f32>;
@group(0) @binding(3) var<uniform> dims: Dims;
@group(1) @binding(0) var<uniform> batch: Batch;

// As in mod.rs: smaller moments become 0.
const TINY: f32 = 1e-30;

@compute @workgroup_size(256)
fn update(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let at = dims.start + id.y * groups.x * 256u + id.x;
    if (at >= dims.end) { return; }
    let g = gradient[at];
    var m = dims.beta1 * state[at] + (1.0 - dims.beta1) * g;
    var v = dims.beta2 * state[dims.len + at] + (1.0 - dims.beta2) * g * g;
    m = select(m, 0.0, abs(m) < TINY);
    v = select(v, 0.0, v < TINY);
    state[at] = m;
    state[dims.len + at] = v;
    let keep = 1.0 - batch.learning_rate * dims.weight_decay;
    let step = batch.learning_rate * batch.correct1 * m / (sqrt(batch.correct2 * v) + dims.epsilon);
    parameters[at] = keep * parameters[at] - step;
}
