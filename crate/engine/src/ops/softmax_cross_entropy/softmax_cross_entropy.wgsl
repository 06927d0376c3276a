// Softmax cross-entropy: the gradient of the mean loss, the loss of each position, and then the batch's mean loss.
//
//   entry point   reads                                                  writes
//   count         labels [rows, positions]                               the share of a position: 1 / labels that count
//   count_each    labels                                                 the shares of the rows: 1 / labels of the row that count
//   gradient      outputs [rows, positions, classes], labels, shares     d_outputs [rows, positions, classes], position_losses
//   gradient_wide the same, a workgroup a position
//   small         outputs, labels                                        d_outputs, losses[batch.index]: count, gradient and reduce
//   reduce        position_losses [rows, positions], labels              losses[batch.index]
//
// A label of 0xffffffff is padding and does not count. Behind the losses of the positions, at `share_at`, position_losses has the
// share of each position in its mean: one for all, or (per_example = 1) one for each row, whose gradient is then that of the row's own
// mean loss; the batch's loss is the mean of the rows' then.
//
// Dispatch: count (1); count_each ceil(rows / 64), one invocation a row; gradient (ceil(positions / 64), rows), one invocation a
// position; gradient_wide (positions, rows); reduce and small (1). The sums' order is fixed, so the same batch always gives the same bits.

struct Dims {
    classes: u32,
    positions: u32,
    share_at: u32,
    per_example: u32,
}

struct Batch {
    rows: u32,
    first: u32,
    index: u32,
}

@group(0) @binding(0) var<storage, read> outputs: array<f32>;
@group(0) @binding(1) var<storage, read> labels: array<u32>;
@group(0) @binding(2) var<storage, read_write> d_outputs: array<f32>;
@group(0) @binding(3) var<storage, read_write> position_losses: array<f32>;
@group(0) @binding(4) var<storage, read_write> losses: array<f32>;
@group(0) @binding(5) var<uniform> dims: Dims;
@group(1) @binding(0) var<uniform> batch: Batch;

const PADDING: u32 = 0xffffffffu;

const LANES = 64u;
var<workgroup> partial: array<vec2<f32>, LANES>;

// How many labels of the batch count.
fn count_all(lane: u32) -> f32 {
    var counted = 0.0;
    for (var at = lane; at < batch.rows * dims.positions; at += 64u) {
        counted += select(1.0, 0.0, labels[at] == PADDING);
    }
    return total(lane, vec2<f32>(counted, 0.0)).x;
}

@compute @workgroup_size(64)
fn count(@builtin(local_invocation_index) lane: u32) {
    let all = count_all(lane);
    if (lane == 0u) { position_losses[dims.share_at] = 1.0 / max(all, 1.0); }
}

@compute @workgroup_size(64)
fn count_each(@builtin(global_invocation_id) id: vec3<u32>) {
    if (id.x >= batch.rows) { return; }
    var counted = 0.0;
    for (var at = id.x * dims.positions; at < (id.x + 1u) * dims.positions; at++) {
        counted += select(1.0, 0.0, labels[at] == PADDING);
    }
    position_losses[dims.share_at + id.x] = 1.0 / max(counted, 1.0);
}

// The sums of `own` over the workgroup, always in the same order.
fn total(lane: u32, own: vec2<f32>) -> vec2<f32> {
    workgroupBarrier();
    partial[lane] = own;
    for (var reach = LANES / 2u; reach > 0u; reach /= 2u) {
        workgroupBarrier();
        if (lane < reach) { partial[lane] += partial[lane + reach]; }
    }
    workgroupBarrier();
    return partial[0];
}

fn share_of(row: u32) -> f32 {
    return position_losses[dims.share_at + row * dims.per_example];
}

// Writes the gradient of a position with this share in its mean; its part of the loss.
fn of_position(position: u32, share: f32) -> f32 {
    let base = position * dims.classes;
    let label = labels[position];
    if (label == PADDING) {
        for (var j = 0u; j < dims.classes; j++) { d_outputs[base + j] = 0.0; }
        return 0.0;
    }
    var largest = outputs[base];
    for (var j = 1u; j < dims.classes; j++) {
        largest = max(largest, outputs[base + j]);
    }
    var sum = 0.0;
    for (var j = 0u; j < dims.classes; j++) {
        sum += exp(outputs[base + j] - largest);
    }
    let log_sum = largest + log(sum);
    for (var j = 0u; j < dims.classes; j++) {
        let hit = select(0.0, 1.0, j == label);
        d_outputs[base + j] = (exp(outputs[base + j] - log_sum) - hit) * share;
    }
    return (log_sum - outputs[base + label]) * share;
}

@compute @workgroup_size(64)
fn gradient(@builtin(global_invocation_id) id: vec3<u32>) {
    if (id.x >= dims.positions || id.y >= batch.rows) { return; }
    let position = id.y * dims.positions + id.x;
    position_losses[position] = of_position(position, share_of(id.y));
}

@compute @workgroup_size(64)
fn small(@builtin(local_invocation_index) lane: u32) {
    let share = 1.0 / max(count_all(lane), 1.0);
    var sum = 0.0;
    for (var at = lane; at < batch.rows * dims.positions; at += 64u) {
        sum += of_position(at, share);
    }
    let all = total(lane, vec2<f32>(sum, 0.0)).x;
    if (lane == 0u) { losses[batch.index] = all; }
}

@compute @workgroup_size(64)
fn gradient_wide(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let position = id.y * dims.positions + id.x;
    let base = position * dims.classes;
    let label = labels[position];
    var largest = outputs[base];
    for (var j = lane; j < dims.classes; j += 64u) {
        largest = max(largest, outputs[base + j]);
    }
    partial[lane].x = largest;
    workgroupBarrier();
    for (var i = 0u; i < LANES; i++) { largest = max(largest, partial[i].x); }
    var sum = 0.0;
    for (var j = lane; j < dims.classes; j += 64u) {
        sum += exp(outputs[base + j] - largest);
    }
    let log_sum = largest + log(total(lane, vec2<f32>(sum, 0.0)).x);
    let share = select(share_of(id.y), 0.0, label == PADDING);
    for (var j = lane; j < dims.classes; j += 64u) {
        let hit = select(0.0, 1.0, j == label);
        d_outputs[base + j] = (exp(outputs[base + j] - log_sum) - hit) * share;
    }
    if (lane == 0u) {
        position_losses[position] = (log_sum - outputs[base + min(label, dims.classes - 1u)]) * share;
    }
}

@compute @workgroup_size(64)
fn reduce(@builtin(local_invocation_index) lane: u32) {
    var sum = 0.0;
    for (var at = lane; at < batch.rows * dims.positions; at += 64u) {
        sum += position_losses[at];
    }
    let all = total(lane, vec2<f32>(sum, 0.0)).x;
    if (lane == 0u) { losses[batch.index] = all / select(1.0, f32(batch.rows), dims.per_example == 1u); }
}
