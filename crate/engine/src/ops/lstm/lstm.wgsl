// Long short-term memory, after a dense layer has written what the input says to the gates of all steps to `kept`, and
// before (on the way back) one takes the gradients of the gates from there.
//
//   entry point          what it does for step `step`                                   one workgroup
//   advance              gates, c, and m or (not projected) y                           4 rows x 32 units
//   project              y = m . P                                                      4 rows x 32 outputs
//   transpose            transposed = R and P with lines and columns exchanged          64 numbers
//   output_gradient      dy += gradients of the next step's gates . R'  (projected)     4 rows x 32 outputs
//   step_gradient        gradients of the gates; not projected: the above as well       4 rows x 32 units
//   recurrent_gradient   of R, over all steps                                           32 x 32 elements
//   projection_gradient  of P, over all steps                                           32 x 32 elements
//
// `kept` holds the gates [rows, time, gates] (first their pre-activations, after `step_gradient` the gradients of those), at
// `cells_at` c [rows, time, units] (after `step_gradient` what is passed down to the step before), and if projected at `hidden_at` m
// [rows, time, units]. `gates` is 4 * units, in the order i f g o, or coupled, with i = 1 - f, 3 * units: f g o. `y` and `dy` are
// [rows, time, outputs]; R [outputs, gates] lies at `recurrent` in the parameters, P [units, outputs] at `projection`, and transposed
// one behind the other.
//
// The first five have 32 x 4 invocations. Each sums a quarter of the terms for one column and four rows, so that a row of a kernel
// is read once for four examples; then each adds the four quarters up for one of the four rows, and finishes that. Dispatch:
// (ceil(columns / 32), ceil(rows / 4)); transpose: ceil(numbers / 64), folded into rows; the last two (ceil(columns / 32),
// ceil(lines / 32)) with 8 x 8 invocations of 4 x 4 elements. Loads past an edge are clamped, stores past it are left out.

struct Dims {
    step: u32,
    time: u32,
    units: u32,
    outputs: u32,
    gates: u32,
    coupled: u32,
    projected: u32,
    recurrent: u32,
    projection: u32,
    cells_at: u32,
    hidden_at: u32,
}

struct Batch {
    rows: u32,
    first: u32,
    index: u32,
}

@group(0) @binding(0) var<storage, read> parameters: array<f32>;
@group(0) @binding(1) var<storage, read_write> kept: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;
@group(0) @binding(3) var<storage, read_write> dy: array<f32>;
@group(0) @binding(4) var<storage, read_write> transposed: array<f32>;
@group(0) @binding(5) var<storage, read_write> d_parameters: array<f32>;
@group(0) @binding(6) var<uniform> dims: Dims;
@group(1) @binding(0) var<uniform> batch: Batch;

// [quarter][row][column]: the four gates of a cell, or one number.
var<workgroup> gate_parts: array<vec4<f32>, 512>;
var<workgroup> parts: array<f32, 512>;

fn four(start: u32, last: u32) -> vec4<u32> {
    return min(vec4<u32>(start, start + 1u, start + 2u, start + 3u), vec4<u32>(last));
}

// Neither overflows, and near zero, where a difference of nearly equal numbers would, the tangent loses no digits.
fn logistic(x: f32) -> f32 {
    return 1.0 / (1.0 + exp(clamp(-x, -80.0, 80.0)));
}

fn tangent(x: f32) -> f32 {
    let s = x * x;
    let series = x * (1.0 + s * (-1.0 / 3.0 + s * (2.0 / 15.0 + s * (-17.0 / 315.0 + s * (62.0 / 2835.0)))));
    let far = 1.0 - 2.0 / (1.0 + exp(clamp(2.0 * x, -80.0, 80.0)));
    return select(far, series, s < 0.0625);
}

// Where the gates i f g o of a unit are in a line of gates; coupled, i is read but not used.
fn gate_at(unit: u32) -> vec4<u32> {
    let f = dims.gates - 3u * dims.units;
    return vec4<u32>(0u, f, f + dims.units, f + 2u * dims.units) + unit;
}

@compute @workgroup_size(32, 4)
fn advance(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_id) local: vec3<u32>,
) {
    let unit = group.x * 32u + local.x;
    let at = gate_at(min(unit, dims.units - 1u));
    let first = group.y * 4u;
    var sums = array<vec4<f32>, 4>();
    if (dims.step > 0u) {
        let h = (four(first, batch.rows - 1u) * dims.time + dims.step - 1u) * dims.outputs;
        for (var k = local.y; k < dims.outputs; k += 4u) {
            let r = dims.recurrent + k * dims.gates + at;
            let kernel = vec4<f32>(parameters[r.x], parameters[r.y], parameters[r.z], parameters[r.w]);
            sums[0] += y[h.x + k] * kernel;
            sums[1] += y[h.y + k] * kernel;
            sums[2] += y[h.z + k] * kernel;
            sums[3] += y[h.w + k] * kernel;
        }
    }
    for (var r = 0u; r < 4u; r++) {
        gate_parts[(local.y * 4u + r) * 32u + local.x] = sums[r];
    }
    workgroupBarrier();
    let row = first + local.y;
    if (unit >= dims.units || row >= batch.rows) { return; }
    let position = row * dims.time + dims.step;
    let gate = position * dims.gates + at;
    var sum = vec4<f32>(kept[gate.x], kept[gate.y], kept[gate.z], kept[gate.w]);
    for (var quarter = 0u; quarter < 4u; quarter++) {
        sum += gate_parts[(quarter * 4u + local.y) * 32u + local.x];
    }
    let f = logistic(sum.y);
    var i = 1.0 - f;
    if (dims.coupled == 0u) {
        i = logistic(sum.x);
        kept[gate.x] = i;
    }
    let g = tangent(sum.z);
    let o = logistic(sum.w);
    kept[gate.y] = f;
    kept[gate.z] = g;
    kept[gate.w] = o;
    let cell = position * dims.units + unit;
    var c = i * g;
    if (dims.step > 0u) { c += f * kept[dims.cells_at + cell - dims.units]; }
    kept[dims.cells_at + cell] = c;
    let m = o * tangent(c);
    if (dims.projected == 1u) {
        kept[dims.hidden_at + cell] = m;
    } else {
        y[cell] = m;
    }
}

// Adds up the quarters of `sum` (four rows) over the workgroup; the invocation's own row.
fn total(sum: vec4<f32>, local: vec3<u32>) -> f32 {
    for (var r = 0u; r < 4u; r++) {
        parts[(local.y * 4u + r) * 32u + local.x] = sum[r];
    }
    workgroupBarrier();
    let at = local.y * 32u + local.x;
    return parts[at] + parts[at + 128u] + parts[at + 256u] + parts[at + 384u];
}

@compute @workgroup_size(32, 4)
fn project(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_id) local: vec3<u32>,
) {
    let output = group.x * 32u + local.x;
    let column = min(output, dims.outputs - 1u);
    let first = group.y * 4u;
    let m = dims.hidden_at + (four(first, batch.rows - 1u) * dims.time + dims.step) * dims.units;
    var sum = vec4<f32>();
    for (var k = local.y; k < dims.units; k += 4u) {
        sum += vec4<f32>(kept[m.x + k], kept[m.y + k], kept[m.z + k], kept[m.w + k])
            * parameters[dims.projection + k * dims.outputs + column];
    }
    let value = total(sum, local);
    let row = first + local.y;
    if (output < dims.outputs && row < batch.rows) {
        y[(row * dims.time + dims.step) * dims.outputs + output] = value;
    }
}

@compute @workgroup_size(64)
fn transpose(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let at = id.y * groups.x * 64u + id.x;
    let recurrent = dims.gates * dims.outputs;
    if (at < recurrent) {
        transposed[at] = parameters[dims.recurrent + at % dims.outputs * dims.gates + at / dims.outputs];
    } else if (dims.projected == 1u && at - recurrent < dims.units * dims.outputs) {
        let p = at - recurrent;
        transposed[at] = parameters[dims.projection + p % dims.units * dims.outputs + p / dims.units];
    }
}

// This quarter of the gradient that the gates of the next step have for output `column` of four rows.
fn from_next_step(first: u32, column: u32, quarter: u32) -> vec4<f32> {
    var sum = vec4<f32>();
    if (dims.step + 1u < dims.time) {
        let d = (four(first, batch.rows - 1u) * dims.time + dims.step + 1u) * dims.gates;
        for (var k = quarter; k < dims.gates; k += 4u) {
            sum += vec4<f32>(kept[d.x + k], kept[d.y + k], kept[d.z + k], kept[d.w + k])
                * transposed[k * dims.outputs + column];
        }
    }
    return sum;
}

@compute @workgroup_size(32, 4)
fn output_gradient(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_id) local: vec3<u32>,
) {
    let output = group.x * 32u + local.x;
    let first = group.y * 4u;
    let more = total(from_next_step(first, min(output, dims.outputs - 1u), local.y), local);
    let row = first + local.y;
    if (output < dims.outputs && row < batch.rows) {
        dy[(row * dims.time + dims.step) * dims.outputs + output] += more;
    }
}

@compute @workgroup_size(32, 4)
fn step_gradient(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_id) local: vec3<u32>,
) {
    let unit = group.x * 32u + local.x;
    let column = min(unit, dims.units - 1u);
    let first = group.y * 4u;
    var sum = vec4<f32>();
    if (dims.projected == 1u) {
        let d = (four(first, batch.rows - 1u) * dims.time + dims.step) * dims.outputs;
        let p = dims.gates * dims.outputs + column;
        for (var k = local.y; k < dims.outputs; k += 4u) {
            sum += vec4<f32>(dy[d.x + k], dy[d.y + k], dy[d.z + k], dy[d.w + k]) * transposed[p + k * dims.units];
        }
    } else {
        sum = from_next_step(first, column, local.y);
    }
    var dm = total(sum, local);
    let row = first + local.y;
    if (unit >= dims.units || row >= batch.rows) { return; }
    let position = row * dims.time + dims.step;
    let cell = position * dims.units + unit;
    if (dims.projected == 0u) { dm += dy[cell]; }
    let at = position * dims.gates + gate_at(unit);
    let f = kept[at.y];
    let g = kept[at.z];
    let o = kept[at.w];
    let squashed = tangent(kept[dims.cells_at + cell]);
    var dc = dm * o * (1.0 - squashed * squashed);
    if (dims.step + 1u < dims.time) { dc += kept[dims.cells_at + cell + dims.units]; }
    var before = 0.0;
    if (dims.step > 0u) { before = kept[dims.cells_at + cell - dims.units]; }
    var i = 1.0 - f;
    var df = before - g;
    if (dims.coupled == 0u) {
        i = kept[at.x];
        df = before;
        kept[at.x] = dc * g * i * (1.0 - i);
    }
    kept[at.y] = dc * df * f * (1.0 - f);
    kept[at.z] = dc * i * (1.0 - g * g);
    kept[at.w] = dm * squashed * o * (1.0 - o);
    kept[dims.cells_at + cell] = dc * f;
}

// Writes a block of 4 x 4 elements to the matrix [lines, columns] at `base`.
fn store(base: u32, line: u32, lines: u32, column: u32, columns: u32, block: array<vec4<f32>, 4>) {
    var values = block;
    for (var l = 0u; l < 4u; l++) {
        for (var c = 0u; c < 4u; c++) {
            if (line + l < lines && column + c < columns) {
                d_parameters[base + (line + l) * columns + column + c] = values[l][c];
            }
        }
    }
}

@compute @workgroup_size(8, 8)
fn recurrent_gradient(@builtin(global_invocation_id) id: vec3<u32>) {
    let line = id.y * 4u;
    let column = id.x * 4u;
    if (line >= dims.outputs || column >= dims.gates) { return; }
    let i = four(line, dims.outputs - 1u);
    let c = four(column, dims.gates - 1u);
    var block = array<vec4<f32>, 4>();
    for (var row = 0u; row < batch.rows; row++) {
        var h = row * dims.time * dims.outputs + i;
        var d = (row * dims.time + 1u) * dims.gates + c;
        for (var t = 1u; t < dims.time; t++) {
            let gates = vec4<f32>(kept[d.x], kept[d.y], kept[d.z], kept[d.w]);
            block[0] += y[h.x] * gates;
            block[1] += y[h.y] * gates;
            block[2] += y[h.z] * gates;
            block[3] += y[h.w] * gates;
            h += vec4<u32>(dims.outputs);
            d += vec4<u32>(dims.gates);
        }
    }
    store(dims.recurrent, line, dims.outputs, column, dims.gates, block);
}

@compute @workgroup_size(8, 8)
fn projection_gradient(@builtin(global_invocation_id) id: vec3<u32>) {
    let line = id.y * 4u;
    let column = id.x * 4u;
    if (line >= dims.units || column >= dims.outputs) { return; }
    var m = dims.hidden_at + four(line, dims.units - 1u);
    var d = four(column, dims.outputs - 1u);
    var block = array<vec4<f32>, 4>();
    for (var position = 0u; position < batch.rows * dims.time; position++) {
        let dh = vec4<f32>(dy[d.x], dy[d.y], dy[d.z], dy[d.w]);
        block[0] += kept[m.x] * dh;
        block[1] += kept[m.y] * dh;
        block[2] += kept[m.z] * dh;
        block[3] += kept[m.w] * dh;
        m += vec4<u32>(dims.units);
        d += vec4<u32>(dims.outputs);
    }
    store(dims.projection, line, dims.units, column, dims.outputs, block);
}
