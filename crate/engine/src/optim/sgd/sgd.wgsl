// Stochastic gradient descent over the parameters start..end: v = momentum * v + g; w -= learning_rate * v, or with Nesterov
// w -= learning_rate * (g + momentum * v). `plain` has no momentum and touches no state.
//
//   entry point   reads           reads and writes
//   plain         gradient [d]    parameters [d] (velocity bound to a dummy)
//   momentum      gradient [d]    parameters [d], velocity [d]
//
// Dispatch: ceil((end - start) / 1024) workgroups of 256 that each write four, 256 apart; folded into rows of at most 65,535.

struct Dims {
    start: u32,
    end: u32,
    momentum: f32,
    nesterov: u32,
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
@group(0) @binding(2) var<storage, read_write> velocity: array<f32>;
@group(0) @binding(3) var<uniform> dims: Dims;
@group(1) @binding(0) var<uniform> batch: Batch;

// The first of an invocation's four.
fn first_of(group: vec3<u32>, groups: vec3<u32>, lane: u32) -> u32 {
    return dims.start + (group.y * groups.x + group.x) * 1024u + lane;
}

@compute @workgroup_size(256)
fn plain(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let first = first_of(group, groups, lane);
    for (var at = first; at < min(first + 1024u, dims.end); at += 256u) {
        parameters[at] -= batch.learning_rate * gradient[at];
    }
}

@compute @workgroup_size(256)
fn momentum(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let first = first_of(group, groups, lane);
    for (var at = first; at < min(first + 1024u, dims.end); at += 256u) {
        let g = gradient[at];
        let v = dims.momentum * velocity[at] + g;
        velocity[at] = v;
        parameters[at] -= batch.learning_rate * select(v, g + dims.momentum * v, dims.nesterov == 1u);
    }
}
