// Softmax cross-entropy: the gradient of the mean loss, the loss of each row, and then the batch's mean loss.
//
//   entry point   reads                                       writes
//   gradient      outputs [rows, classes], labels [rows]      d_outputs [rows, classes], row_losses [rows]
//   reduce        row_losses [rows]                           losses[batch.index]
//
// Dispatch: gradient (ceil(rows / 64)), one invocation a row; reduce (1), one invocation: the sum's order is fixed, so the
// same batch always gives the same bits.

struct Dims {
    classes: u32,
}

struct Batch {
    rows: u32,
    first: u32,
    index: u32,
}

@group(0) @binding(0) var<storage, read> outputs: array<f32>;
@group(0) @binding(1) var<storage, read> labels: array<u32>;
@group(0) @binding(2) var<storage, read_write> d_outputs: array<f32>;
@group(0) @binding(3) var<storage, read_write> row_losses: array<f32>;
@group(0) @binding(4) var<storage, read_write> losses: array<f32>;
@group(0) @binding(5) var<uniform> dims: Dims;
@group(1) @binding(0) var<uniform> batch: Batch;

@compute @workgroup_size(64)
fn gradient(@builtin(global_invocation_id) id: vec3<u32>) {
    let row = id.x;
    if (row >= batch.rows) { return; }
    let base = row * dims.classes;
    var largest = outputs[base];
    for (var j = 1u; j < dims.classes; j++) {
        largest = max(largest, outputs[base + j]);
    }
    var sum = 0.0;
    for (var j = 0u; j < dims.classes; j++) {
        sum += exp(outputs[base + j] - largest);
    }
    let log_sum = largest + log(sum);
    let scale = 1.0 / f32(batch.rows);
    let label = labels[row];
    for (var j = 0u; j < dims.classes; j++) {
        let hit = select(0.0, 1.0, j == label);
        d_outputs[base + j] = (exp(outputs[base + j] - log_sum) - hit) * scale;
    }
    row_losses[row] = log_sum - outputs[base + label];
}

@compute @workgroup_size(1)
fn reduce() {
    var sum = 0.0;
    for (var row = 0u; row < batch.rows; row++) {
        sum += row_losses[row];
    }
    losses[batch.index] = sum / f32(batch.rows);
}
