// Long short-term memory, after a dense layer has written what the input says to the gates of all steps to `kept`, and
// before (on the way back) one takes the gradients of the gates from there.
//
//   entry point          what it does for step `step`                                   one workgroup
//   advance              gates, c, and m or (not projected) y                           4 rows x 32 units
//   project              y = m . P                                                      4 rows x 32 outputs
//   transpose            transposed = R and P with lines and columns exchanged          64 numbers
//   output_gradient      dy += gradients of the next step's gates . R'  (projected)     4 rows x 32 outputs
//   step_gradient        gradients of the gates; not projected: the above as well       4 rows x 32 units
//
// and, where other kernels have done the products of a step:
//
//   cell                 what `advance` does, from what was added to the gates          64 units of a row
//   shift                `previous`, of all steps                                       64 numbers of a row
//   cell_gradient        what `step_gradient` does, from dy, to which they were added,  64 units of a row
//                        or (projected) from dm [rows, units] in the place of `transposed`
//
// `kept` holds the gates [rows, time, gates] (first their pre-activations, after `step_gradient` the gradients of those), and at
// `cells_at` c [rows, time, units] (after `step_gradient` what is passed down to the step before). `gates` is 4 * units, in the
// order i f g o, or coupled, with i = 1 - f, 3 * units: f g o. `y`, `dy` and `previous`, which is y one step later and 0 at the
// first, are [rows, time, outputs], `hidden`, if projected, is m [rows, time, units]. R [outputs, gates] lies at `recurrent` in
// the parameters, P [units, outputs] at `projection`, and transposed one behind the other.
//
// The first ones but `transpose` have 128 invocations. In `advance` each sums a quarter of the terms for four rows and the four gates of one
// unit, in the others a 16th of the terms for four rows and four columns, so that what is loaded is used four times; then each
// adds the parts up for one row and column, and finishes that. Dispatch: (ceil(columns / 32), ceil(rows / 4)); transpose:
// ceil(numbers / 64), folded into rows. Loads past an edge are clamped, stores past it are left out.

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
@group(0) @binding(5) var<storage, read_write> previous: array<f32>;
@group(0) @binding(6) var<storage, read_write> hidden: array<f32>;
@group(0) @binding(7) var<uniform> dims: Dims;
@group(1) @binding(0) var<uniform> batch: Batch;

// Parts of sums: [quarter][row][column], the four gates of a cell; [16th][row][column / 4], four columns.
var<workgroup> parts: array<vec4<f32>, 512>;

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

// Writes an output of the step.
fn finish(row: u32, output: u32, value: f32) {
    let at = (row * dims.time + dims.step) * dims.outputs + output;
    y[at] = value;
    if (dims.step == 0u) { previous[at] = 0.0; }
    if (dims.step + 1u < dims.time) { previous[at + dims.outputs] = value; }
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
        parts[(local.y * 4u + r) * 32u + local.x] = sums[r];
    }
    workgroupBarrier();
    let row = first + local.y;
    if (unit >= dims.units || row >= batch.rows) { return; }
    var sum = vec4<f32>();
    for (var quarter = 0u; quarter < 4u; quarter++) {
        sum += parts[(quarter * 4u + local.y) * 32u + local.x];
    }
    advance_cell(row, unit, sum);
}

// Gates, c, and m or y of a cell, from what is kept for its gates and `more`.
fn advance_cell(row: u32, unit: u32, more: vec4<f32>) {
    let position = row * dims.time + dims.step;
    let gate = position * dims.gates + gate_at(unit);
    let sum = more + vec4<f32>(kept[gate.x], kept[gate.y], kept[gate.z], kept[gate.w]);
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
        hidden[cell] = m;
    } else {
        finish(row, unit, m);
    }
}

@compute @workgroup_size(64)
fn cell(@builtin(global_invocation_id) id: vec3<u32>) {
    if (id.x < dims.units && id.y < batch.rows) { advance_cell(id.y, id.x, vec4<f32>()); }
}

@compute @workgroup_size(64)
fn shift(@builtin(global_invocation_id) id: vec3<u32>) {
    let len = dims.time * dims.outputs;
    if (id.x >= len || id.y >= batch.rows) { return; }
    let at = id.y * len + id.x;
    var before = 0.0;
    if (id.x >= dims.outputs) { before = y[at - dims.outputs]; }
    previous[at] = before;
}

// Adds a row of four terms to each row of a block.
fn block_add(block: ptr<function, array<vec4<f32>, 4>>, left: vec4<f32>, right: vec4<f32>) {
    (*block)[0] += left.x * right;
    (*block)[1] += left.y * right;
    (*block)[2] += left.z * right;
    (*block)[3] += left.w * right;
}

// Adds up the 16 parts of every element; the sum of the invocation's own, row lane / 32 and column lane % 32.
fn total(block: array<vec4<f32>, 4>, local: vec3<u32>, lane: u32) -> f32 {
    var rows = block;
    for (var r = 0u; r < 4u; r++) {
        parts[(local.y * 4u + r) * 8u + local.x] = rows[r];
    }
    workgroupBarrier();
    var sum = 0.0;
    for (var part = 0u; part < 16u; part++) {
        sum += parts[part * 32u + lane / 4u][lane % 4u];
    }
    return sum;
}

@compute @workgroup_size(8, 16)
fn project(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_id) local: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let first = group.y * 4u;
    let m = (four(first, batch.rows - 1u) * dims.time + dims.step) * dims.units;
    let c = dims.projection + four(group.x * 32u + local.x * 4u, dims.outputs - 1u);
    var block = array<vec4<f32>, 4>();
    for (var k = local.y; k < dims.units; k += 16u) {
        let p = c + k * dims.outputs;
        let kernel = vec4<f32>(parameters[p.x], parameters[p.y], parameters[p.z], parameters[p.w]);
        block_add(&block, vec4<f32>(hidden[m.x + k], hidden[m.y + k], hidden[m.z + k], hidden[m.w + k]), kernel);
    }
    let value = total(block, local, lane);
    let row = first + lane / 32u;
    let output = group.x * 32u + lane % 32u;
    if (output < dims.outputs && row < batch.rows) { finish(row, output, value); }
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

// The invocation's part of what the gates of the next step say about the outputs of four rows from `column` on.
fn from_next_step(first: u32, column: u32, part: u32) -> array<vec4<f32>, 4> {
    var block = array<vec4<f32>, 4>();
    if (dims.step + 1u < dims.time) {
        let d = (four(first, batch.rows - 1u) * dims.time + dims.step + 1u) * dims.gates;
        let c = four(column, dims.outputs - 1u);
        for (var k = part; k < dims.gates; k += 16u) {
            let t = c + k * dims.outputs;
            let kernel = vec4<f32>(transposed[t.x], transposed[t.y], transposed[t.z], transposed[t.w]);
            block_add(&block, vec4<f32>(kept[d.x + k], kept[d.y + k], kept[d.z + k], kept[d.w + k]), kernel);
        }
    }
    return block;
}

@compute @workgroup_size(8, 16)
fn output_gradient(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_id) local: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let first = group.y * 4u;
    let more = total(from_next_step(first, group.x * 32u + local.x * 4u, local.y), local, lane);
    let row = first + lane / 32u;
    let output = group.x * 32u + lane % 32u;
    if (output < dims.outputs && row < batch.rows) {
        dy[(row * dims.time + dims.step) * dims.outputs + output] += more;
    }
}

@compute @workgroup_size(8, 16)
fn step_gradient(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_id) local: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let first = group.y * 4u;
    let column = group.x * 32u + local.x * 4u;
    var block = array<vec4<f32>, 4>();
    if (dims.projected == 1u) {
        let d = (four(first, batch.rows - 1u) * dims.time + dims.step) * dims.outputs;
        let c = dims.gates * dims.outputs + four(column, dims.units - 1u);
        for (var k = local.y; k < dims.outputs; k += 16u) {
            let p = c + k * dims.units;
            let kernel = vec4<f32>(transposed[p.x], transposed[p.y], transposed[p.z], transposed[p.w]);
            block_add(&block, vec4<f32>(dy[d.x + k], dy[d.y + k], dy[d.z + k], dy[d.w + k]), kernel);
        }
    } else {
        block = from_next_step(first, column, local.y);
    }
    var dm = total(block, local, lane);
    let row = first + lane / 32u;
    let unit = group.x * 32u + lane % 32u;
    if (unit >= dims.units || row >= batch.rows) { return; }
    if (dims.projected == 0u) { dm += dy[(row * dims.time + dims.step) * dims.units + unit]; }
    back_cell(row, unit, dm);
}

@compute @workgroup_size(64)
fn cell_gradient(@builtin(global_invocation_id) id: vec3<u32>) {
    if (id.x >= dims.units || id.y >= batch.rows) { return; }
    var dm = transposed[id.y * dims.units + id.x];
    if (dims.projected == 0u) { dm = dy[(id.y * dims.time + dims.step) * dims.units + id.x]; }
    back_cell(id.y, id.x, dm);
}

// Gradients of a cell's gates, and what it passes down, from that of m.
fn back_cell(row: u32, unit: u32, dm: f32) {
    let position = row * dims.time + dims.step;
    let cell = position * dims.units + unit;
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
