// Layer and group normalisation: y = scale * (x - mean) * factor + shift, factor = 1 / sqrt(variance + epsilon).
//
//   entry point      x   parameters   dy           kept      out
//   forward          x   parameters   x (unused)   written   y
//   input_gradient   x   parameters   dy           read      dx
//   gradient         x   x (unused)   dy           read      d_parameters
//   norms            x   x (unused)   dy           read      norms: for each row the squared norm of its gradient
//
// x, y, dy, dx: [rows, instances, positions, channels]. kept: for each instance the means of its groups, then their factors,
// [rows, instances, 2, groups]. In `parameters` and `d_parameters` the scale [channels] lies at `offset`, the shift [channels]
// right behind it. norms [rows, parts]: `norms` writes the part `first`.
//
// Dispatch: workgroups of 64, folded into (x, y): forward and input_gradient one for each group of an instance, rows * instances *
// groups; gradient one for each channel; norms one for each row. Their sums are made in workgroup memory, in the same order every time.

struct Dims {
    instances: u32,
    positions: u32,
    channels: u32,
    groups: u32,
    offset: u32,
    epsilon: u32, // bits of an f32
    first: u32,
    parts: u32,
}

struct Batch {
    rows: u32,
    first: u32,
    index: u32,
}

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> parameters: array<f32>;
@group(0) @binding(2) var<storage, read> dy: array<f32>;
@group(0) @binding(3) var<storage, read_write> kept: array<f32>;
@group(0) @binding(4) var<storage, read_write> out: array<f32>;
@group(0) @binding(5) var<uniform> dims: Dims;
@group(1) @binding(0) var<uniform> batch: Batch;

const LANES = 64u;
var<workgroup> partial: array<vec2<f32>, LANES>;

// A group of an instance: where its first number is, where its mean is kept, and its first channel.
struct Place {
    start: u32,
    statistics: u32,
    channel: u32,
}

fn place(number: u32) -> Place {
    let instance = number / dims.groups;
    let group = number % dims.groups;
    let channel = group * (dims.channels / dims.groups);
    return Place(
        instance * dims.positions * dims.channels + channel,
        instance * 2u * dims.groups + group,
        channel,
    );
}

// The sums of `own` over the workgroup.
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

@compute @workgroup_size(64)
fn forward(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) count: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let number = id.y * count.x + id.x;
    if (number >= batch.rows * dims.instances * dims.groups) { return; }
    let at_group = place(number);
    let wide = dims.channels / dims.groups;
    let len = dims.positions * wide;
    // The number `i` of the group is channel `i % wide` of pixel `i / wide`.
    let start = at_group.start;
    var sum = 0.0;
    for (var i = lane; i < len; i += LANES) {
        sum += x[start + i / wide * dims.channels + i % wide];
    }
    let mean = total(lane, vec2<f32>(sum, 0.0)).x / f32(len);
    var squares = 0.0;
    for (var i = lane; i < len; i += LANES) {
        let off = x[start + i / wide * dims.channels + i % wide] - mean;
        squares += off * off;
    }
    let variance = total(lane, vec2<f32>(squares, 0.0)).x / f32(len);
    let factor = 1.0 / sqrt(variance + bitcast<f32>(dims.epsilon));
    if (lane == 0u) {
        kept[at_group.statistics] = mean;
        kept[at_group.statistics + dims.groups] = factor;
    }
    for (var i = lane; i < len; i += LANES) {
        let at = start + i / wide * dims.channels + i % wide;
        let scale = dims.offset + at_group.channel + i % wide;
        out[at] = (x[at] - mean) * factor * parameters[scale] + parameters[scale + dims.channels];
    }
}

@compute @workgroup_size(64)
fn input_gradient(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) count: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let number = id.y * count.x + id.x;
    if (number >= batch.rows * dims.instances * dims.groups) { return; }
    let at_group = place(number);
    let wide = dims.channels / dims.groups;
    let len = dims.positions * wide;
    let start = at_group.start;
    let mean = kept[at_group.statistics];
    let factor = kept[at_group.statistics + dims.groups];
    var sums = vec2<f32>();
    for (var i = lane; i < len; i += LANES) {
        let at = start + i / wide * dims.channels + i % wide;
        let g = dy[at] * parameters[dims.offset + at_group.channel + i % wide];
        sums += vec2<f32>(g, g * (x[at] - mean) * factor);
    }
    let means = total(lane, sums) / f32(len);
    for (var i = lane; i < len; i += LANES) {
        let at = start + i / wide * dims.channels + i % wide;
        let g = dy[at] * parameters[dims.offset + at_group.channel + i % wide];
        out[at] = (g - means.x - (x[at] - mean) * factor * means.y) * factor;
    }
}

@compute @workgroup_size(64)
fn gradient(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) count: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let channel = id.y * count.x + id.x;
    if (channel >= dims.channels) { return; }
    let group = channel / (dims.channels / dims.groups);
    let lines = batch.rows * dims.instances * dims.positions;
    var sums = vec2<f32>();
    for (var line = lane; line < lines; line += LANES) {
        let at = line * dims.channels + channel;
        let statistics = line / dims.positions * 2u * dims.groups + group;
        let normal = (x[at] - kept[statistics]) * kept[statistics + dims.groups];
        sums += vec2<f32>(dy[at] * normal, dy[at]);
    }
    let totals = total(lane, sums);
    if (lane == 0u) {
        out[dims.offset + channel] = totals.x;
        out[dims.offset + dims.channels + channel] = totals.y;
    }
}

@compute @workgroup_size(64)
fn norms(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let lines = dims.instances * dims.positions;
    let begin = id.y * lines;
    var squares = 0.0;
    for (var channel = lane; channel < dims.channels; channel += LANES) {
        let group = channel / (dims.channels / dims.groups);
        var sums = vec2<f32>();
        for (var line = begin; line < begin + lines; line++) {
            let at = line * dims.channels + channel;
            let statistics = line / dims.positions * 2u * dims.groups + group;
            let normal = (x[at] - kept[statistics]) * kept[statistics + dims.groups];
            sums += vec2<f32>(dy[at] * normal, dy[at]);
        }
        squares += dot(sums, sums);
    }
    let squared = total(lane, vec2<f32>(squares, 0.0)).x;
    if (lane == 0u) { out[id.y * dims.parts + dims.first] = squared; }
}
