// Tied dense layer: forward, gradient of table and bias, gradient of the input.
//
//   entry point      a                   b                   out                      one invocation writes
//   forward          x  [rows, units]    parameters          y  [rows, vocabulary]    4 rows x 4 tokens
//   gradient         x  [rows, units]    dy                  d_parameters             4 tokens x 4 units (behind the last: the bias)
//   input_gradient   dy [rows, vocabulary]  parameters       dx [rows, units]         4 rows x 4 units
//
// `rows` are the batch's rows times the positions of each. In `parameters` and `d_parameters` the table [vocabulary, units] lies
// at `table`, the bias [vocabulary] at `bias`; its gradient is column `units` of the table's, made by a column of ones behind x.
//
// Dispatch: workgroups (ceil(columns / 32), ceil(lines / 32)) with 8 x 8 invocations of 4 x 4 elements, kept in registers and
// read straight from storage. Loads past an edge are clamped, stores past it are left out.

struct Dims {
    units: u32,
    vocabulary: u32,
    table: u32,
    bias: u32,
    positions: u32,
}

struct Batch {
    rows: u32,
    first: u32,
    index: u32,
}

@group(0) @binding(0) var<storage, read> a: array<f32>;
@group(0) @binding(1) var<storage, read> b: array<f32>;
@group(0) @binding(2) var<storage, read_write> out: array<f32>;
@group(0) @binding(3) var<uniform> dims: Dims;
@group(1) @binding(0) var<uniform> batch: Batch;

// The four indices from `start`, none past `last`.
fn four(start: u32, last: u32) -> vec4<u32> {
    return min(vec4<u32>(start, start + 1u, start + 2u, start + 3u), vec4<u32>(last));
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
    if (row >= rows || column >= dims.vocabulary) { return; }
    let r = four(row, rows - 1u) * dims.units;
    let v = four(column, dims.vocabulary - 1u);
    let start = vec4<f32>(b[dims.bias + v.x], b[dims.bias + v.y], b[dims.bias + v.z], b[dims.bias + v.w]);
    var y0 = start;
    var y1 = start;
    var y2 = start;
    var y3 = start;
    let t = dims.table + v * dims.units;
    for (var u = 0u; u < dims.units; u++) {
        let table = vec4<f32>(b[t.x + u], b[t.y + u], b[t.z + u], b[t.w + u]);
        y0 += a[r.x + u] * table;
        y1 += a[r.y + u] * table;
        y2 += a[r.z + u] * table;
        y3 += a[r.w + u] * table;
    }
    store(row * dims.vocabulary, column, dims.vocabulary, y0);
    if (row + 1u < rows) { store((row + 1u) * dims.vocabulary, column, dims.vocabulary, y1); }
    if (row + 2u < rows) { store((row + 2u) * dims.vocabulary, column, dims.vocabulary, y2); }
    if (row + 3u < rows) { store((row + 3u) * dims.vocabulary, column, dims.vocabulary, y3); }
}

// Writes up to four numbers of the table's gradient; the one behind a row's last is the bias's.
fn store_gradient(token: u32, column: u32, value: vec4<f32>) {
    if (token >= dims.vocabulary) { return; }
    for (var i = 0u; i < 4u; i++) {
        let unit = column + i;
        if (unit < dims.units) {
            out[dims.table + token * dims.units + unit] = value[i];
        } else if (unit == dims.units) {
            out[dims.bias + token] = value[i];
        }
    }
}

@compute @workgroup_size(8, 8)
fn gradient(@builtin(global_invocation_id) id: vec3<u32>) {
    let rows = batch.rows * dims.positions;
    let token = id.y * 4u;
    let column = id.x * 4u;
    if (token >= dims.vocabulary || column > dims.units) { return; }
    let ones = vec4<u32>(column, column + 1u, column + 2u, column + 3u) >= vec4<u32>(dims.units);
    var g0 = vec4<f32>();
    var g1 = vec4<f32>();
    var g2 = vec4<f32>();
    var g3 = vec4<f32>();
    var x_at = four(column, dims.units - 1u);
    var dy_at = four(token, dims.vocabulary - 1u);
    for (var row = 0u; row < rows; row++) {
        let x = select(vec4<f32>(a[x_at.x], a[x_at.y], a[x_at.z], a[x_at.w]), vec4<f32>(1.0), ones);
        g0 += b[dy_at.x] * x;
        g1 += b[dy_at.y] * x;
        g2 += b[dy_at.z] * x;
        g3 += b[dy_at.w] * x;
        x_at += vec4<u32>(dims.units);
        dy_at += vec4<u32>(dims.vocabulary);
    }
    store_gradient(token, column, g0);
    store_gradient(token + 1u, column, g1);
    store_gradient(token + 2u, column, g2);
    store_gradient(token + 3u, column, g3);
}

@compute @workgroup_size(8, 8)
fn input_gradient(@builtin(global_invocation_id) id: vec3<u32>) {
    let rows = batch.rows * dims.positions;
    let row = id.y * 4u;
    let column = id.x * 4u;
    if (row >= rows || column >= dims.units) { return; }
    let r = four(row, rows - 1u) * dims.vocabulary;
    var t = dims.table + four(column, dims.units - 1u);
    var x0 = vec4<f32>();
    var x1 = vec4<f32>();
    var x2 = vec4<f32>();
    var x3 = vec4<f32>();
    for (var v = 0u; v < dims.vocabulary; v++) {
        let table = vec4<f32>(b[t.x], b[t.y], b[t.z], b[t.w]);
        x0 += a[r.x + v] * table;
        x1 += a[r.y + v] * table;
        x2 += a[r.z + v] * table;
        x3 += a[r.w + v] * table;
        t += vec4<u32>(dims.units);
    }
    store(row * dims.units, column, dims.units, x0);
    if (row + 1u < rows) { store((row + 1u) * dims.units, column, dims.units, x1); }
    if (row + 2u < rows) { store((row + 2u) * dims.units, column, dims.units, x2); }
    if (row + 3u < rows) { store((row + 3u) * dims.units, column, dims.units, x3); }
}
