// Enlarging an image by repeating its pixels `factor` times in either direction.
//
//   entry point   a                            out
//   forward       x  [rows, h, w, c]           y  [rows, factor h, factor w, c]
//   backward      dy [rows, factor h, …, c]    dx [rows, h, w, c]
//
// Dispatch: workgroups (ceil(numbers of `out` in an example / 64), rows), one invocation a number.

struct Dims {
    height: u32,
    width: u32,
    channels: u32,
    factor: u32,
}

struct Batch {
    rows: u32,
    first: u32,
    index: u32,
}

@group(0) @binding(0) var<storage, read> a: array<f32>;
@group(0) @binding(1) var<storage, read_write> out: array<f32>;
@group(0) @binding(2) var<uniform> dims: Dims;
@group(1) @binding(0) var<uniform> batch: Batch;

@compute @workgroup_size(64)
fn forward(@builtin(global_invocation_id) id: vec3<u32>) {
    let wide = dims.width * dims.factor;
    let len = dims.height * dims.factor * wide * dims.channels;
    if (id.x >= len || id.y >= batch.rows) { return; }
    let channel = id.x % dims.channels;
    let pixel = id.x / dims.channels;
    let y = id.y * dims.height + pixel / wide / dims.factor;
    let x = pixel % wide / dims.factor;
    out[id.y * len + id.x] = a[(y * dims.width + x) * dims.channels + channel];
}

@compute @workgroup_size(64)
fn backward(@builtin(global_invocation_id) id: vec3<u32>) {
    let len = dims.height * dims.width * dims.channels;
    if (id.x >= len || id.y >= batch.rows) { return; }
    let channel = id.x % dims.channels;
    let pixel = id.x / dims.channels;
    let y = (id.y * dims.height + pixel / dims.width) * dims.factor;
    let x = pixel % dims.width * dims.factor;
    var sum = 0.0;
    for (var i = 0u; i < dims.factor; i++) {
        for (var j = 0u; j < dims.factor; j++) {
            sum += a[((y + i) * dims.width * dims.factor + x + j) * dims.channels + channel];
        }
    }
    out[id.y * len + id.x] = sum;
}
