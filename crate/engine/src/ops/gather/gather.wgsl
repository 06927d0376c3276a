// Collects a batch: row r of x is row order[batch.first + r] of the data set; the label likewise.
//
//   reads    data_x [examples, features], data_y [examples], order [examples]
//   writes   x [rows, features], y [rows]
//
// Dispatch: workgroups (ceil(features / 64), rows), one invocation a number; the first of a row also copies the label.

struct Dims {
    features: u32,
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
    if (id.x >= dims.features || id.y >= batch.rows) { return; }
    let example = order[batch.first + id.y];
    x[id.y * dims.features + id.x] = data_x[example * dims.features + id.x];
    if (id.x == 0u) {
        y[id.y] = data_y[example];
    }
}
