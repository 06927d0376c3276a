// Copies `columns` numbers of every position from a row of `source` to a row of `out`.
//
//   reads                                   writes
//   source [rows, positions, from_len]      out [rows, positions, to_len], columns to_at.. of each position
//
// Dispatch: workgroups (ceil(positions * columns / 64), rows), one invocation a number.

struct Dims {
    positions: u32,
    from_len: u32,
    from_at: u32,
    to_len: u32,
    to_at: u32,
    columns: u32,
}

struct Batch {
    rows: u32,
    first: u32,
    index: u32,
}

@group(0) @binding(0) var<storage, read> source: array<f32>;
@group(0) @binding(1) var<storage, read_write> out: array<f32>;
@group(0) @binding(2) var<uniform> dims: Dims;
@group(1) @binding(0) var<uniform> batch: Batch;

@compute @workgroup_size(64)
fn copy(@builtin(global_invocation_id) id: vec3<u32>) {
    if (id.x >= dims.positions * dims.columns || id.y >= batch.rows) { return; }
    let position = id.y * dims.positions + id.x / dims.columns;
    let column = id.x % dims.columns;
    out[position * dims.to_len + dims.to_at + column] = source[position * dims.from_len + dims.from_at + column];
}
