// Embedding: forward, and the gradient of the table.
//
//   entry point   x               a                     out                                one invocation
//   forward       x [rows, time]  parameters            y [rows, time, units]              writes 1 number
//   clear         (unused)        (unused)              d_parameters                       sets 1 number of the table's gradient to 0
//   gradient      x [rows, time]  dy [rows, time, units]  d_parameters                     adds to 1 number of it, or does nothing
//
// The table [vocabulary, units] lies at `offset`. In `gradient` a workgroup has one position of the batch. The position at which
// a token is first seen adds up the gradients of all positions with that token, in order; the others add nothing. So no two
// invocations write the same number, no atomics are needed, and the sums' order is fixed. Which positions have the same token
// the workgroup finds together, 32 of them to a bit mask, 64 masks at a time.
//
// Dispatch: forward and gradient (ceil(units / 64), rows * time); clear ceil(vocabulary * units / 64), folded into rows.

struct Dims {
    time: u32,
    units: u32,
    offset: u32,
    vocabulary: u32,
}

struct Batch {
    rows: u32,
    first: u32,
    index: u32,
}

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> a: array<f32>;
@group(0) @binding(2) var<storage, read_write> out: array<f32>;
@group(0) @binding(3) var<uniform> dims: Dims;
@group(1) @binding(0) var<uniform> batch: Batch;

var<workgroup> masks: array<u32, 64>;

@compute @workgroup_size(64)
fn forward(@builtin(global_invocation_id) id: vec3<u32>) {
    if (id.x >= dims.units || id.y >= batch.rows * dims.time) { return; }
    out[id.y * dims.units + id.x] = a[dims.offset + u32(x[id.y]) * dims.units + id.x];
}

@compute @workgroup_size(64)
fn clear(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let at = id.y * groups.x * 64u + id.x;
    if (at < dims.vocabulary * dims.units) { out[dims.offset + at] = 0.0; }
}

@compute @workgroup_size(64)
fn gradient(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(global_invocation_id) id: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let positions = batch.rows * dims.time;
    let own = group.y;
    let unit = min(id.x, dims.units - 1u);
    let token = x[own];
    var first = true;
    var sum = 0.0;
    for (var start = 0u; start < positions; start += 2048u) {
        let begin = start + lane * 32u;
        var mask = 0u;
        for (var i = 0u; i < 32u; i++) {
            if (begin + i < positions) {
                mask |= select(0u, 1u << i, x[begin + i] == token);
            }
        }
        masks[lane] = mask;
        workgroupBarrier();
        let words = min(64u, (positions - start + 31u) / 32u);
        for (var word = 0u; word < words; word++) {
            var left = masks[word];
            while (left != 0u) {
                let at = start + word * 32u + countTrailingZeros(left);
                first = first && at >= own;
                sum += a[at * dims.units + unit];
                left &= left - 1u;
            }
        }
        workgroupBarrier();
    }
    if (first && id.x < dims.units) {
        out[dims.offset + u32(token) * dims.units + unit] += sum;
    }
}
