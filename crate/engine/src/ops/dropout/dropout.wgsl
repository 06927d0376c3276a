// Dropout, forward and backward alike: out = 0 where the hash of the place is below the threshold, else values * scale.
//
//   reads                writes
//   values [rows, len]   out [rows, len]
//
// Dispatch: workgroups (ceil(len / 64), rows), one invocation a number.

struct Dims {
    len: u32,
    threshold: u32,
    scale: f32,
    salt: u32,
}

struct Batch {
    rows: u32,
    first: u32,
    index: u32,
    key: u32,
}

@group(0) @binding(0) var<storage, read> values: array<f32>;
@group(0) @binding(1) var<storage, read_write> out: array<f32>;
@group(0) @binding(2) var<uniform> dims: Dims;
@group(1) @binding(0) var<uniform> batch: Batch;

// The finaliser of MurmurHash3.
fn hash(seed: u32) -> u32 {
    var value = seed;
    value ^= value >> 16u;
    value *= 0x85ebca6bu;
    value ^= value >> 13u;
    value *= 0xc2b2ae35u;
    return value ^ (value >> 16u);
}

@compute @workgroup_size(64)
fn apply(@builtin(global_invocation_id) id: vec3<u32>) {
    if (id.x >= dims.len || id.y >= batch.rows) { return; }
    let at = id.y * dims.len + id.x;
    let dropped = hash(at ^ hash(batch.key ^ dims.salt)) < dims.threshold;
    out[at] = select(values[at] * dims.scale, 0.0, dropped);
}
