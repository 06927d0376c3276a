// Collects a batch: row r of x is row order[batch.first + r] of the data set; its targets likewise.
//
//   reads    data_x [examples, features], data_y [examples, targets], order [examples]
//   writes   x [rows, features], y [rows, targets]
//
// Dispatch: workgroups (ceil(max(features, targets) / 64), rows), one invocation a number of each.

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
fn gather(@builtin(global_invocation_id) id: vec3<u32>) {
    if (id.y >= batch.rows) { return; }
    let example = order[batch.first + id.y];
    if (id.x < dims.features) {
        x[id.y * dims.features + id.x] = data_x[example * dims.features + id.x];
    }
    if (id.x < dims.targets) {
        y[id.y * dims.targets + id.x] = data_y[example * dims.targets + id.x];
    }
}
