// Collects a batch: row r of x is row order[batch.first + r] of the data set; its targets likewise.
//
//   reads    data_x [examples, features], data_y [examples, targets], order [examples]
//   writes   x [rows, features], y [rows, targets]
//
// Dispatch: workgroups (ceil(max(features, targets) / 256), rows) of 64 that each copy four numbers of each, 64 apart.

struct Dims {
    features: u32,
    targets: u32,
}

struct Batch {
    rows: u32,
    first: u32,
    index: u32,
}

@group(0) @binding(0) var<storage, read> data_x: array<f32>;
@group(0) @binding(1) var<storage, read> data_y: array<u32>;
@group(0) @binding(2) var<storage, read> order: array<u32>;
@group(0) @binding(3) var<storage, read_write> x: array<f32>;
@group(0) @binding(4) var<storage, read_write> y: array<u32>;
@group(0) @binding(5) var<uniform> dims: Dims;
@group(1) @binding(0) var<uniform> batch: Batch;

@compute @workgroup_size(64)
fn gather(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let row = group.y;
    if (row >= batch.rows) { return; }
    let example = order[batch.first + row];
    let first = group.x * 256u + lane;
    for (var at = first; at < min(first + 256u, dims.features); at += 64u) {
        x[row * dims.features + at] = data_x[example * dims.features + at];
    }
    for (var at = first; at < min(first + 256u, dims.targets); at += 64u) {
        y[row * dims.targets + at] = data_y[example * dims.targets + at];
    }
}
