// Mean squared error (measure 0) and sigmoid cross-entropy (1): the gradient of the mean loss, and the batch's mean loss.
//
//   entry point   reads                                       writes
//   gradient      outputs [rows, len], targets [rows, len]    d_outputs [rows, len], row_losses [rows]
//   reduce        row_losses [rows]                           losses[batch.index]
//
// Dispatch: gradient (1, rows), 64 invocations a row; reduce (1). The sums' order is fixed, so the same batch always gives the
// same bits. Targets are the bits of numbers. With per_example = 1 the gradient of each row is that of its own mean loss.

struct Dims {
    len: u32,
    measure: u32,
    per_example: u32,
}

struct Batch {
    rows: u32,
    first: u32,
    index: u32,
}

@group(0) @binding(0) var<storage, read> outputs: array<f32>;
@group(0) @binding(1) var<storage, read> targets: array<u32>;
@group(0) @binding(2) var<storage, read_write> d_outputs: array<f32>;
@group(0) @binding(3) var<storage, read_write> row_losses: array<f32>;
@group(0) @binding(4) var<storage, read_write> losses: array<f32>;
@group(0) @binding(5) var<uniform> dims: Dims;
@group(1) @binding(0) var<uniform> batch: Batch;

var<workgroup> partial: array<f32, 64>;

@compute @workgroup_size(64)
fn gradient(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let row = group.y;
    let scale = 1.0 / (f32(batch.rows) * f32(dims.len));
    let slope = select(scale, 1.0 / f32(dims.len), dims.per_example == 1u);
    var sum = 0.0;
    if (row < batch.rows) {
        for (var i = lane; i < dims.len; i += 64u) {
            let at = row * dims.len + i;
            let z = outputs[at];
            let t = bitcast<f32>(targets[at]);
            if (dims.measure == 0u) {
                sum += (z - t) * (z - t);
                d_outputs[at] = 2.0 * (z - t) * slope;
            } else {
                sum += max(z, 0.0) - z * t + log(1.0 + exp(-abs(z)));
                d_outputs[at] = (1.0 / (1.0 + exp(-z)) - t) * slope;
            }
        }
    }
    partial[lane] = sum;
    workgroupBarrier();
    if (lane == 0u && row < batch.rows) {
        var total = 0.0;
        for (var i = 0u; i < 64u; i++) { total += partial[i]; }
        row_losses[row] = total * scale;
    }
}

@compute @workgroup_size(1)
fn reduce() {
    var sum = 0.0;
    for (var row = 0u; row < batch.rows; row++) {
        sum += row_losses[row];
    }
    losses[batch.index] = sum;
}
