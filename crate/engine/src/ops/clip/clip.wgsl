// Clipping the gradients of single examples.
//
//   entry point   values                     out                          one invocation
//   factors       norms [rows, len]          factors [rows]               clip / (rows max(sqrt(sum of a line of norms), clip))
//   scale         factors [rows]             gradient [rows, len]         multiplies a number by its line's factor
//
// Dispatch: factors ceil(rows / 64); scale (ceil(len / 64), rows). Norms are summed in the order in which they lie.

struct Dims {
    len: u32,
    clip: f32,
}

struct Batch {
    rows: u32,
    first: u32,
    index: u32,
}

@group(0) @binding(0) var<storage, read> values: array<f32>;
@group(0) @binding(1) var<storage, read_write> out: array<f32>;
@group(0) @binding(2) var<uniform> dims: Dims;
@group(1) @binding(0) var<uniform> batch: Batch;

@compute @workgroup_size(64)
fn factors(@builtin(global_invocation_id) id: vec3<u32>) {
    if (id.x >= batch.rows) { return; }
    var squared = 0.0;
    for (var part = 0u; part < dims.len; part++) {
        squared += values[id.x * dims.len + part];
    }
    // Sums of products can round to a little less than nothing. A norm that is not a number stays one.
    let norm = sqrt(select(squared, 0.0, squared < 0.0));
    let divisor = select(norm, dims.clip, norm < dims.clip);
    out[id.x] = dims.clip / (f32(batch.rows) * divisor);
}

@compute @workgroup_size(64)
fn scale(@builtin(global_invocation_id) id: vec3<u32>) {
    if (id.x < dims.len && id.y < batch.rows) { out[id.y * dims.len + id.x] *= values[id.y]; }
}
