// Gelu (function 0), tanh (1) and sigmoid (2): y = f(x); dx = dy * f'(x). See mod.rs for the formulas.
//
//   entry point   x                a                b                out
//   forward       x [rows, len]    (unused)         (unused)         y  [rows, len]
//   backward      x [rows, len]    y [rows, len]    dy [rows, len]   dx [rows, len]
//
// Dispatch: workgroups (ceil(len / 64), rows), one invocation a number.

struct Dims {
    len: u32,
    function: u32,
}

struct Batch {
    rows: u32,
    first: u32,
    index: u32,
}

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> a: array<f32>;
@group(0) @binding(2) var<storage, read> b: array<f32>;
@group(0) @binding(3) var<storage, read_write> out: array<f32>;
@group(0) @binding(4) var<uniform> dims: Dims;
@group(1) @binding(0) var<uniform> batch: Batch;

const ROOT: f32 = 0.7978846;
const CUBIC: f32 = 0.044715;

// tanh is 1 to the last bit from 10 on; some drivers' own overflows far out.
fn bounded_tanh(v: f32) -> f32 {
    return tanh(clamp(v, -10.0, 10.0));
}

@compute @workgroup_size(64)
fn forward(@builtin(global_invocation_id) id: vec3<u32>) {
    if (id.x >= dims.len || id.y >= batch.rows) { return; }
    let at = id.y * dims.len + id.x;
    let v = x[at];
    if (dims.function == 0u) {
        out[at] = 0.5 * v * (1.0 + bounded_tanh(ROOT * (v + CUBIC * v * v * v)));
    } else if (dims.function == 1u) {
        out[at] = bounded_tanh(v);
    } else {
        out[at] = 1.0 / (1.0 + exp(-v));
    }
}

@compute @workgroup_size(64)
fn backward(@builtin(global_invocation_id) id: vec3<u32>) {
    if (id.x >= dims.len || id.y >= batch.rows) { return; }
    let at = id.y * dims.len + id.x;
    let v = x[at];
    let y = a[at];
    var slope = y * (1.0 - y);
    if (dims.function == 0u) {
        let t = bounded_tanh(ROOT * (v + CUBIC * v * v * v));
        slope = 0.5 * (1.0 + t) + 0.5 * v * (1.0 - t * t) * ROOT * (1.0 + 3.0 * CUBIC * v * v);
    } else if (dims.function == 1u) {
        slope = 1.0 - y * y;
    }
    out[at] = b[at] * slope;
}
