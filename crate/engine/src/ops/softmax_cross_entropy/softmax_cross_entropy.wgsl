// Softmax cross-entropy: the gradient of the mean loss, the loss of each position, and then the batch's mean loss.
//
//   entry point   reads                                                  writes
//   count         labels [rows, positions]                               position_losses[0] = 1 / labels that count
//   gradient      outputs [rows, positions, classes], labels             d_outputs [rows, positions, classes], position_losses
//   reduce        position_losses [rows, positions], labels              losses[batch.index]
//
// A label of 0xffffffff is padding and does not count. `position_losses` has one number more than positions: the last one is
// the share of each position in the mean, which `count` writes and the others read.
//
// Dispatch: count (1), gradient (ceil(positions / 64), rows), one invocation a position; reduce (1). The sums' order is fixed,
// so the same batch always gives the same bits.

struct Dims {
    classes: u32,
    positions: u32,
    share_at: u32,
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

var<workgroup> partial: array<f32, 64>;

@compute @workgroup_size(64)
fn count(@builtin(local_invocation_index) lane: u32) {
    var counted = 0.0;
    for (var at = lane; at < batch.rows * dims.positions; at += 64u) {
        counted += select(1.0, 0.0, labels[at] == PADDING);
    }
    partial[lane] = counted;
    workgroupBarrier();
    if (lane == 0u) {
        var total = 0.0;
        for (var i = 0u; i < 64u; i++) { total += partial[i]; }
        position_losses[dims.share_at] = 1.0 / max(total, 1.0);
    }
}

@compute @workgroup_size(64)
fn gradient(@builtin(global_invocation_id) id: vec3<u32>) {
    if (id.x >= dims.positions || id.y >= batch.rows) { return; }
    let position = id.y * dims.positions + id.x;
    let base = position * dims.classes;
    let label = labels[position];
    if (label == PADDING) {
        for (var j = 0u; j < dims.classes; j++) { d_outputs[base + j] = 0.0; }
        position_losses[position] = 0.0;
        return;
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
    let share = position_losses[dims.share_at];
    for (var j = 0u; j < dims.classes; j++) {
        let hit = select(0.0, 1.0, j == label);
        d_outputs[base + j] = (exp(outputs[base + j] - log_sum) - hit) * share;
    }
    position_losses[position] = log_sum - outputs[base + label];
}

@compute @workgroup_size(64)
fn reduce(@builtin(local_invocation_index) lane: u32) {
    var sum = 0.0;
    for (var at = lane; at < batch.rows * dims.positions; at += 64u) {
        sum += position_losses[at];
    }
    partial[lane] = sum;
    workgroupBarrier();
    if (lane == 0u) {
        var total = 0.0;
        for (var i = 0u; i < 64u; i++) { total += partial[i]; }
        losses[batch.index] = total * position_losses[dims.share_at];
    }
}
