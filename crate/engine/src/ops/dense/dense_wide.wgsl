// Dense layer for lengths that are multiples of 4: as dense.wgsl, with blocks of 8 x 8 elements and loads of four numbers.
//
//   entry point      a                 b                    out                     one invocation writes
//   forward          x  [rows, in]     parameters           y  [rows, out]          8 rows x 8 outputs
//   gradient         x  [rows, in]     dy [rows, out]       d_parameters (kernel)   8 inputs x 8 outputs
//   input_gradient   dy [rows, out]    parameters           dx [rows, in]           8 rows x 8 inputs
//
// `rows` are the batch's rows times the positions of each. `inputs`, `outputs`, `offset` and `bias` count groups of four numbers.
// In `parameters` and `d_parameters` the kernel [in, out] lies at `offset`, in `parameters` the bias at `bias`, or there is none.
// In `forward` and `input_gradient` the lines of a begin at `start` and lie `stride` apart, those of out at `to` and `out_stride`;
// with `add`, what is there already is added to.
//
// Dispatch: workgroups (ceil(columns / 64), ceil(lines / 32)) with 8 x 4 invocations, straight from storage. Loads past an edge are clamped, stores past it are left out.

struct Dims {
    inputs: u32,
    outputs: u32,
    offset: u32,
    positions: u32,
    relu: u32,
    bias: u32,
    start: u32,
    stride: u32,
    to: u32,
    out_stride: u32,
    add: u32,
}

struct Batch {
    rows: u32,
    first: u32,
    index: u32,
}

@group(0) @binding(0) var<storage, read> a: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> b: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> out: array<vec4<f32>>;
@group(0) @binding(3) var<uniform> dims: Dims;
@group(1) @binding(0) var<uniform> batch: Batch;

// What sums for a group of columns start from.
fn bias_of(column: u32) -> vec4<f32> {
    if (dims.bias == 0xffffffffu) { return vec4<f32>(); }
    return b[dims.bias + column];
}

// What an element of out is added to.
fn before(at: u32) -> vec4<f32> {
    if (dims.add == 0u) { return vec4<f32>(); }
    return out[at];
}

// A number that is not one passes through, so that a broken model shows in its loss.
fn rectified(y: vec4<f32>) -> vec4<f32> {
    if (dims.relu == 1u) {
        return select(y, vec4<f32>(), y < vec4<f32>());
    }
    return y;
}

// Writes two groups of a line of out; only the first where there are no more.
fn put(row: u32, left: u32, more: bool, s: vec4<f32>, t: vec4<f32>) {
    let at = dims.to + row * dims.out_stride + left;
    out[at] = rectified(s + before(at));
    if (more) { out[at + 1u] = rectified(t + before(at + 1u)); }
}

@compute @workgroup_size(8, 4)
fn forward(@builtin(global_invocation_id) id: vec3<u32>) {
    let rows = batch.rows * dims.positions;
    let row = id.y * 8u;
    let left = id.x * 2u;
    if (row >= rows || left >= dims.outputs) { return; }
    let right = min(left + 1u, dims.outputs - 1u);
    let last = rows - 1u;
    let r0 = dims.start + min(row + 0u, last) * dims.stride;
    let r1 = dims.start + min(row + 1u, last) * dims.stride;
    let r2 = dims.start + min(row + 2u, last) * dims.stride;
    let r3 = dims.start + min(row + 3u, last) * dims.stride;
    let r4 = dims.start + min(row + 4u, last) * dims.stride;
    let r5 = dims.start + min(row + 5u, last) * dims.stride;
    let r6 = dims.start + min(row + 6u, last) * dims.stride;
    let r7 = dims.start + min(row + 7u, last) * dims.stride;
    let s = bias_of(left); let t = bias_of(right);
    var s0 = s; var t0 = t;
    var s1 = s; var t1 = t;
    var s2 = s; var t2 = t;
    var s3 = s; var t3 = t;
    var s4 = s; var t4 = t;
    var s5 = s; var t5 = t;
    var s6 = s; var t6 = t;
    var s7 = s; var t7 = t;
    var w = dims.offset;
    for (var k = 0u; k < dims.inputs; k++) {
        let x0 = a[r0 + k];
        let x1 = a[r1 + k];
        let x2 = a[r2 + k];
        let x3 = a[r3 + k];
        let x4 = a[r4 + k];
        let x5 = a[r5 + k];
        let x6 = a[r6 + k];
        let x7 = a[r7 + k];
        {
            let u = b[w + left]; let v = b[w + right];
            s0 += x0.x * u; t0 += x0.x * v;
            s1 += x1.x * u; t1 += x1.x * v;
            s2 += x2.x * u; t2 += x2.x * v;
            s3 += x3.x * u; t3 += x3.x * v;
            s4 += x4.x * u; t4 += x4.x * v;
            s5 += x5.x * u; t5 += x5.x * v;
            s6 += x6.x * u; t6 += x6.x * v;
            s7 += x7.x * u; t7 += x7.x * v;
            w += dims.outputs;
        }
        {
            let u = b[w + left]; let v = b[w + right];
            s0 += x0.y * u; t0 += x0.y * v;
            s1 += x1.y * u; t1 += x1.y * v;
            s2 += x2.y * u; t2 += x2.y * v;
            s3 += x3.y * u; t3 += x3.y * v;
            s4 += x4.y * u; t4 += x4.y * v;
            s5 += x5.y * u; t5 += x5.y * v;
            s6 += x6.y * u; t6 += x6.y * v;
            s7 += x7.y * u; t7 += x7.y * v;
            w += dims.outputs;
        }
        {
            let u = b[w + left]; let v = b[w + right];
            s0 += x0.z * u; t0 += x0.z * v;
            s1 += x1.z * u; t1 += x1.z * v;
            s2 += x2.z * u; t2 += x2.z * v;
            s3 += x3.z * u; t3 += x3.z * v;
            s4 += x4.z * u; t4 += x4.z * v;
            s5 += x5.z * u; t5 += x5.z * v;
            s6 += x6.z * u; t6 += x6.z * v;
            s7 += x7.z * u; t7 += x7.z * v;
            w += dims.outputs;
        }
        {
            let u = b[w + left]; let v = b[w + right];
            s0 += x0.w * u; t0 += x0.w * v;
            s1 += x1.w * u; t1 += x1.w * v;
            s2 += x2.w * u; t2 += x2.w * v;
            s3 += x3.w * u; t3 += x3.w * v;
            s4 += x4.w * u; t4 += x4.w * v;
            s5 += x5.w * u; t5 += x5.w * v;
            s6 += x6.w * u; t6 += x6.w * v;
            s7 += x7.w * u; t7 += x7.w * v;
            w += dims.outputs;
        }
    }
    let more = left + 1u < dims.outputs;
    if (row + 0u <= last) { put(row + 0u, left, more, s0, t0); }
    if (row + 1u <= last) { put(row + 1u, left, more, s1, t1); }
    if (row + 2u <= last) { put(row + 2u, left, more, s2, t2); }
    if (row + 3u <= last) { put(row + 3u, left, more, s3, t3); }
    if (row + 4u <= last) { put(row + 4u, left, more, s4, t4); }
    if (row + 5u <= last) { put(row + 5u, left, more, s5, t5); }
    if (row + 6u <= last) { put(row + 6u, left, more, s6, t6); }
    if (row + 7u <= last) { put(row + 7u, left, more, s7, t7); }
}

@compute @workgroup_size(8, 4)
fn gradient(@builtin(global_invocation_id) id: vec3<u32>) {
    let rows = batch.rows * dims.positions;
    let top = id.y * 2u;
    let left = id.x * 2u;
    if (top >= dims.inputs || left >= dims.outputs) { return; }
    let below = min(top + 1u, dims.inputs - 1u);
    let right = min(left + 1u, dims.outputs - 1u);
    var s0 = vec4<f32>(); var t0 = vec4<f32>();
    var s1 = vec4<f32>(); var t1 = vec4<f32>();
    var s2 = vec4<f32>(); var t2 = vec4<f32>();
    var s3 = vec4<f32>(); var t3 = vec4<f32>();
    var s4 = vec4<f32>(); var t4 = vec4<f32>();
    var s5 = vec4<f32>(); var t5 = vec4<f32>();
    var s6 = vec4<f32>(); var t6 = vec4<f32>();
    var s7 = vec4<f32>(); var t7 = vec4<f32>();
    var x_at = 0u;
    var dy_at = 0u;
    for (var row = 0u; row < rows; row++) {
        let x = a[x_at + top];
        let z = a[x_at + below];
        let u = b[dy_at + left];
        let v = b[dy_at + right];
        s0 += x.x * u; t0 += x.x * v;
        s1 += x.y * u; t1 += x.y * v;
        s2 += x.z * u; t2 += x.z * v;
        s3 += x.w * u; t3 += x.w * v;
        s4 += z.x * u; t4 += z.x * v;
        s5 += z.y * u; t5 += z.y * v;
        s6 += z.z * u; t6 += z.z * v;
        s7 += z.w * u; t7 += z.w * v;
        x_at += dims.inputs;
        dy_at += dims.outputs;
    }
    let more = left + 1u < dims.outputs;
    let base = dims.offset + 4u * top * dims.outputs + left;
    out[base + 0u * dims.outputs] = s0; if (more) { out[base + 0u * dims.outputs + 1u] = t0; }
    out[base + 1u * dims.outputs] = s1; if (more) { out[base + 1u * dims.outputs + 1u] = t1; }
    out[base + 2u * dims.outputs] = s2; if (more) { out[base + 2u * dims.outputs + 1u] = t2; }
    out[base + 3u * dims.outputs] = s3; if (more) { out[base + 3u * dims.outputs + 1u] = t3; }
    if (top + 1u < dims.inputs) {
        out[base + 4u * dims.outputs] = s4; if (more) { out[base + 4u * dims.outputs + 1u] = t4; }
        out[base + 5u * dims.outputs] = s5; if (more) { out[base + 5u * dims.outputs + 1u] = t5; }
        out[base + 6u * dims.outputs] = s6; if (more) { out[base + 6u * dims.outputs + 1u] = t6; }
        out[base + 7u * dims.outputs] = s7; if (more) { out[base + 7u * dims.outputs + 1u] = t7; }
    }
}

@compute @workgroup_size(8, 4)
fn input_gradient(@builtin(global_invocation_id) id: vec3<u32>) {
    let rows = batch.rows * dims.positions;
    let row = id.y * 8u;
    let left = id.x * 2u;
    if (row >= rows || left >= dims.inputs) { return; }
    let last = rows - 1u;
    let right = min(left + 1u, dims.inputs - 1u);
    let r0 = dims.start + min(row + 0u, last) * dims.stride;
    let r1 = dims.start + min(row + 1u, last) * dims.stride;
    let r2 = dims.start + min(row + 2u, last) * dims.stride;
    let r3 = dims.start + min(row + 3u, last) * dims.stride;
    let r4 = dims.start + min(row + 4u, last) * dims.stride;
    let r5 = dims.start + min(row + 5u, last) * dims.stride;
    let r6 = dims.start + min(row + 6u, last) * dims.stride;
    let r7 = dims.start + min(row + 7u, last) * dims.stride;
    let k0 = dims.offset + (4u * left + 0u) * dims.outputs;
    let k1 = dims.offset + (4u * left + 1u) * dims.outputs;
    let k2 = dims.offset + (4u * left + 2u) * dims.outputs;
    let k3 = dims.offset + (4u * left + 3u) * dims.outputs;
    let k4 = dims.offset + (4u * right + 0u) * dims.outputs;
    let k5 = dims.offset + (4u * right + 1u) * dims.outputs;
    let k6 = dims.offset + (4u * right + 2u) * dims.outputs;
    let k7 = dims.offset + (4u * right + 3u) * dims.outputs;
    let s = bias_of(left); let t = bias_of(right);
    var s0 = s; var t0 = t;
    var s1 = s; var t1 = t;
    var s2 = s; var t2 = t;
    var s3 = s; var t3 = t;
    var s4 = s; var t4 = t;
    var s5 = s; var t5 = t;
    var s6 = s; var t6 = t;
    var s7 = s; var t7 = t;
    for (var o = 0u; o < dims.outputs; o++) {
        let w0 = b[k0 + o];
        let w1 = b[k1 + o];
        let w2 = b[k2 + o];
        let w3 = b[k3 + o];
        let w4 = b[k4 + o];
        let w5 = b[k5 + o];
        let w6 = b[k6 + o];
        let w7 = b[k7 + o];
        {
            let dy = a[r0 + o];
            s0 += vec4<f32>(dot(dy, w0), dot(dy, w1), dot(dy, w2), dot(dy, w3));
            t0 += vec4<f32>(dot(dy, w4), dot(dy, w5), dot(dy, w6), dot(dy, w7));
        }
        {
            let dy = a[r1 + o];
            s1 += vec4<f32>(dot(dy, w0), dot(dy, w1), dot(dy, w2), dot(dy, w3));
            t1 += vec4<f32>(dot(dy, w4), dot(dy, w5), dot(dy, w6), dot(dy, w7));
        }
        {
            let dy = a[r2 + o];
            s2 += vec4<f32>(dot(dy, w0), dot(dy, w1), dot(dy, w2), dot(dy, w3));
            t2 += vec4<f32>(dot(dy, w4), dot(dy, w5), dot(dy, w6), dot(dy, w7));
        }
        {
            let dy = a[r3 + o];
            s3 += vec4<f32>(dot(dy, w0), dot(dy, w1), dot(dy, w2), dot(dy, w3));
            t3 += vec4<f32>(dot(dy, w4), dot(dy, w5), dot(dy, w6), dot(dy, w7));
        }
        {
            let dy = a[r4 + o];
            s4 += vec4<f32>(dot(dy, w0), dot(dy, w1), dot(dy, w2), dot(dy, w3));
            t4 += vec4<f32>(dot(dy, w4), dot(dy, w5), dot(dy, w6), dot(dy, w7));
        }
        {
            let dy = a[r5 + o];
            s5 += vec4<f32>(dot(dy, w0), dot(dy, w1), dot(dy, w2), dot(dy, w3));
            t5 += vec4<f32>(dot(dy, w4), dot(dy, w5), dot(dy, w6), dot(dy, w7));
        }
        {
            let dy = a[r6 + o];
            s6 += vec4<f32>(dot(dy, w0), dot(dy, w1), dot(dy, w2), dot(dy, w3));
            t6 += vec4<f32>(dot(dy, w4), dot(dy, w5), dot(dy, w6), dot(dy, w7));
        }
        {
            let dy = a[r7 + o];
            s7 += vec4<f32>(dot(dy, w0), dot(dy, w1), dot(dy, w2), dot(dy, w3));
            t7 += vec4<f32>(dot(dy, w4), dot(dy, w5), dot(dy, w6), dot(dy, w7));
        }
    }
    let more = left + 1u < dims.inputs;
    if (row + 0u <= last) { put(row + 0u, left, more, s0, t0); }
    if (row + 1u <= last) { put(row + 1u, left, more, s1, t1); }
    if (row + 2u <= last) { put(row + 2u, left, more, s2, t2); }
    if (row + 3u <= last) { put(row + 3u, left, more, s3, t3); }
    if (row + 4u <= last) { put(row + 4u, left, more, s4, t4); }
    if (row + 5u <= last) { put(row + 5u, left, more, s5, t5); }
    if (row + 6u <= last) { put(row + 6u, left, more, s6, t6); }
    if (row + 7u <= last) { put(row + 7u, left, more, s7, t7); }
}
