// The sum of a lot's clipped gradients, and the noise on it, in whole numbers. One example after the other:
//
//   entry point   reads                                       writes
//   measure       gradient [d]                                parts [groups]: sums of squares, in units of the clip norm
//   round_all     gradient [d], parts                         whole [d], squares [groups, 2]: gradient / step, clipped and rounded
//   count         whole [d], squares, losses [steps]          totals [d] += whole where that may count, sums [steps] += share * loss
//
// and once for the lot, of which there may be none:
//
//   noised        noise [d]                                   mean [d] = (totals + noise) * step / expected examples; totals [d] = 0
//
// Reals lie in these buffers as their bits. What counts is decided on whole numbers alone: the sum of the squares of `whole`, in 64
// bits, must be within the bound that the noise was made for. So it does not matter what a compiler makes of numbers that are infinite
// or none; those only make an example that does not count.
//
// Dispatch: `measure`, `round_all`, `count`: one workgroup for 4,096 numbers, `noised` one for 256, folded into rows of at most 65,535.

struct Dims {
    len: u32,
    groups: u32,
    per_clip: f32,
    per_step: f32,
    unit: f32,
    bound_low: u32,
    bound_high: u32,
}

struct Batch {
    rows: u32,
    first: u32,
    index: u32,
    key: u32,
    learning_rate: f32,
    own0: f32,
    own1: f32,
    share: f32,
}

// 2^30 - 1: with noise of 2^30 at most, the sum stays within an i32.
const LIMIT = 1073741823;
// 2^24: a number that is larger is above every bound, or would be if it were this.
const MOST = 16777216.0;
const EXPONENT = 0x7f800000u;
// Numbers of an invocation.
const EACH = 16u;

@group(0) @binding(0) var<storage, read> first_in: array<i32>;
@group(0) @binding(1) var<storage, read> second_in: array<i32>;
@group(0) @binding(2) var<storage, read> losses: array<f32>;
@group(0) @binding(3) var<storage, read_write> first_out: array<i32>;
@group(0) @binding(4) var<storage, read_write> second_out: array<i32>;
@group(0) @binding(5) var<uniform> dims: Dims;
@group(1) @binding(0) var<uniform> batch: Batch;

var<workgroup> reals: array<f32, 256>;
var<workgroup> wholes: array<vec2<u32>, 256>;

// The sum of `own` over the workgroup, always in the same order.
fn real_total(lane: u32, own: f32) -> f32 {
    reals[lane] = own;
    for (var reach = 128u; reach > 0u; reach /= 2u) {
        workgroupBarrier();
        if (lane < reach) { reals[lane] += reals[lane + reach]; }
    }
    workgroupBarrier();
    return reals[0];
}

// The sum of two numbers of 64 bits, (low, high); all ones where it is beyond them.
fn plus(a: vec2<u32>, b: vec2<u32>) -> vec2<u32> {
    let low = a.x + b.x;
    let high = a.y + b.y;
    let sum = high + u32(low < a.x);
    if (high < a.y || sum < high) { return vec2<u32>(0xffffffffu); }
    return vec2<u32>(low, sum);
}

// The square of a number of 32 bits, (low, high).
fn square(value: i32) -> vec2<u32> {
    let size = u32(abs(value));
    let high = size >> 16u;
    let low = size & 0xffffu;
    return plus(vec2<u32>(low * low, high * high), vec2<u32>((high * low) << 17u, (high * low) >> 15u));
}

fn whole_total(lane: u32, own: vec2<u32>) -> vec2<u32> {
    wholes[lane] = own;
    for (var reach = 128u; reach > 0u; reach /= 2u) {
        workgroupBarrier();
        if (lane < reach) { wholes[lane] = plus(wholes[lane], wholes[lane + reach]); }
    }
    workgroupBarrier();
    return wholes[0];
}

@compute @workgroup_size(256)
fn measure(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let group = id.y * groups.x + id.x;
    let start = group * 256u * EACH + lane;
    var own = 0.0;
    for (var each = 0u; each < EACH; each++) {
        let at = start + each * 256u;
        if (at < dims.len) {
            let share = bitcast<f32>(first_in[at]) * dims.per_clip;
            own += share * share;
        }
    }
    let sum = real_total(lane, own);
    if (lane == 0u && group < dims.groups) { first_out[group] = bitcast<i32>(sum); }
}

@compute @workgroup_size(256)
fn round_all(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    var part = 0.0;
    for (var at = lane; at < dims.groups; at += 256u) { part += bitcast<f32>(second_in[at]); }
    let norm = sqrt(real_total(lane, part));
    let divisor = max(norm, 1.0);
    let group = id.y * groups.x + id.x;
    let start = group * 256u * EACH + lane;
    var own = vec2<u32>();
    for (var each = 0u; each < EACH; each++) {
        let at = start + each * 256u;
        if (at < dims.len) {
            let real = first_in[at];
            var whole = i32(clamp(round(bitcast<f32>(real) * dims.per_step / divisor), -MOST, MOST));
            // What is no finite number is above every bound: told by its bits, since a compiler may take every number for finite.
            if ((bitcast<u32>(real) & EXPONENT) == EXPONENT) { whole = 0x40000000; }
            first_out[at] = whole;
            own = plus(own, square(whole));
        }
    }
    let sum = whole_total(lane, own);
    if (lane == 0u && group < dims.groups) {
        second_out[2u * group] = bitcast<i32>(sum.x);
        second_out[2u * group + 1u] = bitcast<i32>(sum.y);
    }
}

@compute @workgroup_size(256)
fn count(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    var part = vec2<u32>();
    for (var at = lane; at < dims.groups; at += 256u) {
        part = plus(part, bitcast<vec2<u32>>(vec2<i32>(second_in[2u * at], second_in[2u * at + 1u])));
    }
    let squared = whole_total(lane, part);
    let counts = squared.y < dims.bound_high || (squared.y == dims.bound_high && squared.x <= dims.bound_low);
    let group = id.y * groups.x + id.x;
    let start = group * 256u * EACH + lane;
    for (var each = 0u; each < EACH; each++) {
        let at = start + each * 256u;
        if (counts && at < dims.len) { first_out[at] = clamp(first_out[at] + first_in[at], -LIMIT, LIMIT); }
    }
    if (group == 0u && lane == 0u) {
        let loss = losses[batch.index];
        if ((bitcast<u32>(loss) & EXPONENT) != EXPONENT) {
            let sum = bitcast<f32>(second_out[batch.index]) + loss * batch.share;
            second_out[batch.index] = bitcast<i32>(sum);
        }
    }
}

@compute @workgroup_size(256)
fn noised(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let at = id.y * groups.x * 256u + id.x;
    if (at >= dims.len) { return; }
    second_out[at] = bitcast<i32>(f32(first_out[at] + first_in[at]) * dims.unit);
    first_out[at] = 0;
}
