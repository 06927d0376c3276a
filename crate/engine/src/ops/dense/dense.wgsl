// Dense layer: forward, gradient of kernel and bias, gradient of the input.
//
//   entry point      a                 b                    out                     one invocation writes
//   forward          x  [rows, in]     parameters           y  [rows, out]          4 rows x 4 outputs
//   gradient         x  [rows, in]     dy [rows, out]       d_parameters            4 inputs (bias: the last) x 4 outputs
//   forward4         the same, x as groups of four                                  8 rows x 4 outputs
//   gradient4        the same, x as groups of four                                  8 inputs x 4 outputs
//   input_gradient   dy [rows, out]    parameters           dx [rows, in]           4 rows x 4 inputs
//   bias_gradient    (unused)          dy [rows, out]       d_parameters            1 number of the bias, for a kernel elsewhere
//   mask             y  [rows, out]    (unused)             dy [rows, out]          1 number: 0 where a rectified y is 0
//
// `rows` are the batch's rows times the positions of each. In `parameters` and `d_parameters` the kernel [in, out] lies at
// `offset`, the bias at `bias`, or there is none (0xffffffff). `forward` adds one to x . W, `input_gradient` to dy . W', as a
// tied layer needs it. For `gradient` the bias [out] is right behind the kernel: its gradient is row `in` of the kernel's, made by
// a column of ones behind x.
//
// Dispatch: workgroups (ceil(columns / 32), ceil(lines / 32)) with 8 x 8 invocations of 4 x 4 elements, kept in registers and
// read straight from storage; forward4 and gradient4, for lengths `in` that are multiples of 4, (ceil(columns / 16),
// ceil(lines / 32)) with 4 x 4 of 8 x 4; mask: (ceil(positions * out / 64), batch rows);
// bias_gradient: ceil(out / 16), folded into rows, with 16 x 4 that share out the rows. Loads past an edge are clamped, stores past it are left out.

struct Dims {
    inputs: u32,
    outputs: u32,
    offset: u32,
    positions: u32,
    relu: u32,
    bias: u32,
}

struct Batch {
    rows: u32,
    first: u32,
    index: u32,
}

@group(0) @binding(0) var<storage, read> a: array<f32>;
@group(0) @binding(0) var<storage, read> a4: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> b: array<f32>;
@group(0) @binding(2) var<storage, read_write> out: array<f32>;
@group(0) @binding(3) var<uniform> dims: Dims;
@group(1) @binding(0) var<uniform> batch: Batch;

// The four indices from `start`, none past `last`.
fn four(start: u32, last: u32) -> vec4<u32> {
    return min(vec4<u32>(start, start + 1u, start + 2u, start + 3u), vec4<u32>(last));
}

const NO_BIAS: u32 = 0xffffffffu;

// What sums for these columns start from.
fn bias_of(c: vec4<u32>) -> vec4<f32> {
    if (dims.bias == NO_BIAS) { return vec4<f32>(); }
    return vec4<f32>(b[dims.bias + c.x], b[dims.bias + c.y], b[dims.bias + c.z], b[dims.bias + c.w]);
}

// Writes up to four numbers of one line.
fn store(base: u32, column: u32, columns: u32, value: vec4<f32>) {
    out[base + column] = value.x;
    if (column + 1u < columns) { out[base + column + 1u] = value.y; }
    if (column + 2u < columns) { out[base + column + 2u] = value.z; }
    if (column + 3u < columns) { out[base + column + 3u] = value.w; }
}

@compute @workgroup_size(8, 8)
fn forward(@builtin(global_invocation_id) id: vec3<u32>) {
    let rows = batch.rows * dims.positions;
    let row = id.y * 4u;
    let column = id.x * 4u;
    if (row >= rows || column >= dims.outputs) { return; }
    let r = four(row, rows - 1u) * dims.inputs;
    let c = four(column, dims.outputs - 1u);
    let start = bias_of(c);
    var y0 = start;
    var y1 = start;
    var y2 = start;
    var y3 = start;
    var w = dims.offset + c;
    for (var i = 0u; i < dims.inputs; i++) {
        let kernel = vec4<f32>(b[w.x], b[w.y], b[w.z], b[w.w]);
        y0 += a[r.x + i] * kernel;
        y1 += a[r.y + i] * kernel;
        y2 += a[r.z + i] * kernel;
        y3 += a[r.w + i] * kernel;
        w += vec4<u32>(dims.outputs);
    }
    store(row * dims.outputs, column, dims.outputs, activate(y0));
    if (row + 1u < rows) { store((row + 1u) * dims.outputs, column, dims.outputs, activate(y1)); }
    if (row + 2u < rows) { store((row + 2u) * dims.outputs, column, dims.outputs, activate(y2)); }
    if (row + 3u < rows) { store((row + 3u) * dims.outputs, column, dims.outputs, activate(y3)); }
}

@compute @workgroup_size(8, 8)
fn gradient(@builtin(global_invocation_id) id: vec3<u32>) {
    let rows = batch.rows * dims.positions;
    let line = id.y * 4u;
    let column = id.x * 4u;
    let lines = select(dims.inputs + 1u, dims.inputs, dims.bias == NO_BIAS);
    if (line >= lines || column >= dims.outputs) { return; }
    let i = four(line, dims.inputs - 1u);
    let c = four(column, dims.outputs - 1u);
    // Line `inputs` is the bias: its x is 1.
    let ones = vec4<u32>(line, line + 1u, line + 2u, line + 3u) >= vec4<u32>(dims.inputs);
    var g0 = vec4<f32>();
    var g1 = vec4<f32>();
    var g2 = vec4<f32>();
    var g3 = vec4<f32>();
    var x_at = i;
    var dy_at = c;
    for (var row = 0u; row < rows; row++) {
        let dy = vec4<f32>(b[dy_at.x], b[dy_at.y], b[dy_at.z], b[dy_at.w]);
        let x = select(vec4<f32>(a[x_at.x], a[x_at.y], a[x_at.z], a[x_at.w]), vec4<f32>(1.0), ones);
        g0 += x.x * dy;
        g1 += x.y * dy;
        g2 += x.z * dy;
        g3 += x.w * dy;
        x_at += vec4<u32>(dims.inputs);
        dy_at += vec4<u32>(dims.outputs);
    }
    let base = dims.offset + line * dims.outputs;
    store(base, column, dims.outputs, g0);
    if (line + 1u < lines) { store(base + dims.outputs, column, dims.outputs, g1); }
    if (line + 2u < lines) { store(base + 2u * dims.outputs, column, dims.outputs, g2); }
    if (line + 3u < lines) { store(base + 3u * dims.outputs, column, dims.outputs, g3); }
}

// Rectifies where the layer does. A number that is not one passes through, so that a broken model shows in its loss.
fn activate(y: vec4<f32>) -> vec4<f32> {
    return select(y, vec4<f32>(), (y < vec4<f32>()) & vec4<bool>(dims.relu == 1u));
}

@compute @workgroup_size(4, 4)
fn forward4(@builtin(global_invocation_id) id: vec3<u32>) {
    let rows = batch.rows * dims.positions;
    let row = id.y * 8u;
    let column = id.x * 4u;
    if (row >= rows || column >= dims.outputs) { return; }
    let len = dims.inputs / 4u;
    let r = four(row, rows - 1u) * len;
    let q = four(row + 4u, rows - 1u) * len;
    let start = bias_of(four(column, dims.outputs - 1u));
    var y0 = start;
    var y1 = start;
    var y2 = start;
    var y3 = start;
    var y4 = start;
    var y5 = start;
    var y6 = start;
    var y7 = start;
    var w = dims.offset + four(column, dims.outputs - 1u);
    for (var k = 0u; k < len; k++) {
        let x0 = a4[r.x + k];
        let x1 = a4[r.y + k];
        let x2 = a4[r.z + k];
        let x3 = a4[r.w + k];
        let x4 = a4[q.x + k];
        let x5 = a4[q.y + k];
        let x6 = a4[q.z + k];
        let x7 = a4[q.w + k];
        {
            let kernel = vec4<f32>(b[w.x], b[w.y], b[w.z], b[w.w]);
            y0 += x0.x * kernel;
            y1 += x1.x * kernel;
            y2 += x2.x * kernel;
            y3 += x3.x * kernel;
            y4 += x4.x * kernel;
            y5 += x5.x * kernel;
            y6 += x6.x * kernel;
            y7 += x7.x * kernel;
            w += vec4<u32>(dims.outputs);
        }
        {
            let kernel = vec4<f32>(b[w.x], b[w.y], b[w.z], b[w.w]);
            y0 += x0.y * kernel;
            y1 += x1.y * kernel;
            y2 += x2.y * kernel;
            y3 += x3.y * kernel;
            y4 += x4.y * kernel;
            y5 += x5.y * kernel;
            y6 += x6.y * kernel;
            y7 += x7.y * kernel;
            w += vec4<u32>(dims.outputs);
        }
        {
            let kernel = vec4<f32>(b[w.x], b[w.y], b[w.z], b[w.w]);
            y0 += x0.z * kernel;
            y1 += x1.z * kernel;
            y2 += x2.z * kernel;
            y3 += x3.z * kernel;
            y4 += x4.z * kernel;
            y5 += x5.z * kernel;
            y6 += x6.z * kernel;
            y7 += x7.z * kernel;
            w += vec4<u32>(dims.outputs);
        }
        {
            let kernel = vec4<f32>(b[w.x], b[w.y], b[w.z], b[w.w]);
            y0 += x0.w * kernel;
            y1 += x1.w * kernel;
            y2 += x2.w * kernel;
            y3 += x3.w * kernel;
            y4 += x4.w * kernel;
            y5 += x5.w * kernel;
            y6 += x6.w * kernel;
            y7 += x7.w * kernel;
            w += vec4<u32>(dims.outputs);
        }
    }
    var y = array<vec4<f32>, 8>(y0, y1, y2, y3, y4, y5, y6, y7);
    for (var i = 0u; i < min(8u, rows - row); i++) {
        store((row + i) * dims.outputs, column, dims.outputs, activate(y[i]));
    }
}

// Four numbers of x; behind the last ones that of the bias.
fn x_group(row: u32, group: u32, len: u32) -> vec4<f32> {
    if (group < len) { return a4[row * len + group]; }
    return vec4<f32>(1.0, 0.0, 0.0, 0.0);
}

@compute @workgroup_size(4, 4)
fn gradient4(@builtin(global_invocation_id) id: vec3<u32>) {
    let rows = batch.rows * dims.positions;
    let line = id.y * 8u;
    let column = id.x * 4u;
    let lines = select(dims.inputs + 1u, dims.inputs, dims.bias == NO_BIAS);
    if (line >= lines || column >= dims.outputs) { return; }
    let len = dims.inputs / 4u;
    var g0 = vec4<f32>();
    var g1 = vec4<f32>();
    var g2 = vec4<f32>();
    var g3 = vec4<f32>();
    var g4 = vec4<f32>();
    var g5 = vec4<f32>();
    var g6 = vec4<f32>();
    var g7 = vec4<f32>();
    var dy_at = four(column, dims.outputs - 1u);
    for (var row = 0u; row < rows; row++) {
        let x = x_group(row, line / 4u, len);
        let z = x_group(row, line / 4u + 1u, len);
        let dy = vec4<f32>(b[dy_at.x], b[dy_at.y], b[dy_at.z], b[dy_at.w]);
        g0 += x.x * dy;
        g1 += x.y * dy;
        g2 += x.z * dy;
        g3 += x.w * dy;
        g4 += z.x * dy;
        g5 += z.y * dy;
        g6 += z.z * dy;
        g7 += z.w * dy;
        dy_at += vec4<u32>(dims.outputs);
    }
    var g = array<vec4<f32>, 8>(g0, g1, g2, g3, g4, g5, g6, g7);
    for (var i = 0u; i < min(8u, lines - line); i++) {
        store(dims.offset + (line + i) * dims.outputs, column, dims.outputs, g[i]);
    }
}

@compute @workgroup_size(8, 8)
fn input_gradient(@builtin(global_invocation_id) id: vec3<u32>) {
    let rows = batch.rows * dims.positions;
    let row = id.y * 4u;
    let column = id.x * 4u;
    if (row >= rows || column >= dims.inputs) { return; }
    let r = four(row, rows - 1u) * dims.outputs;
    let c = four(column, dims.inputs - 1u);
    let k = dims.offset + c * dims.outputs;
    let start = bias_of(c);
    var x0 = start;
    var x1 = start;
    var x2 = start;
    var x3 = start;
    for (var o = 0u; o < dims.outputs; o++) {
        let kernel = vec4<f32>(b[k.x + o], b[k.y + o], b[k.z + o], b[k.w + o]);
        x0 += a[r.x + o] * kernel;
        x1 += a[r.y + o] * kernel;
        x2 += a[r.z + o] * kernel;
        x3 += a[r.w + o] * kernel;
    }
    store(row * dims.inputs, column, dims.inputs, x0);
    if (row + 1u < rows) { store((row + 1u) * dims.inputs, column, dims.inputs, x1); }
    if (row + 2u < rows) { store((row + 2u) * dims.inputs, column, dims.inputs, x2); }
    if (row + 3u < rows) { store((row + 3u) * dims.inputs, column, dims.inputs, x3); }
}

var<workgroup> parts: array<array<f32, 16>, 4>;

@compute @workgroup_size(16, 4)
fn bias_gradient(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_id) local: vec3<u32>,
) {
    let column = (group.y * groups.x + group.x) * 16u + local.x;
    var sum = 0.0;
    for (var row = local.y; row < batch.rows * dims.positions; row += 4u) {
        sum += b[row * dims.outputs + min(column, dims.outputs - 1u)];
    }
    parts[local.y][local.x] = sum;
    workgroupBarrier();
    if (local.y > 0u || column >= dims.outputs) { return; }
    out[dims.bias + column] = parts[0][local.x] + parts[1][local.x] + parts[2][local.x] + parts[3][local.x];
}

@compute @workgroup_size(64)
fn mask(@builtin(global_invocation_id) id: vec3<u32>) {
    let len = dims.positions * dims.outputs;
    if (id.x >= len || id.y >= batch.rows) { return; }
    let at = id.y * len + id.x;
    if (!(a[at] > 0.0)) { out[at] = 0.0; }
}
