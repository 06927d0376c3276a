// Squared norms of the gradients of single examples, without the gradients: parts of the sum for each example.
//
//   entry point   what is summed for an example                                  one workgroup of 8 x 8
//   outer         |a|^2 |b|^2, for one position                                  all of it
//   product       squares of sum_t a[t, i] b[t, j], over i and j                 32 i x 32 j
//   gram          <a[t], a[s]> <b[t], b[s]>, over t and s                        32 t x 32 s
//   tokens        <b[t], b[s]> where c[t] = c[s], over t and s                   32 t x 32 s
//   cross         2 b[t, c[s]] <a[t], d[s]>, over t and s                        32 t x 32 s
//
// a [rows, positions, m], or (patches = 1) images whose patches are that; b [rows, positions, n]; c [rows, time] tokens;
// d [rows, time, m]. With ones = 1 there is a number 1 behind the m of each a[t], whose gradient is the bias's. out [rows, parts]:
// a workgroup writes the part first + group.x.
//
// Dispatch: (tiles of one example, rows). Invocations sum blocks of 4 x 4, straight from storage. `gram` and `tokens` are the same
// on both sides of the diagonal: tiles below it are left out, and those above it count twice.

struct Dims {
    positions: u32,
    m: u32,
    n: u32,
    ones: u32,
    time: u32,
    patches: u32,
    height: u32,
    width: u32,
    kernel_height: u32,
    kernel_width: u32,
    stride_y: u32,
    stride_x: u32,
    above: u32,
    left: u32,
    out_height: u32,
    out_width: u32,
    channels: u32,
    first: u32,
    parts: u32,
}

struct Batch {
    rows: u32,
    first: u32,
    index: u32,
}

@group(0) @binding(0) var<storage, read> a: array<f32>;
@group(0) @binding(1) var<storage, read> b: array<f32>;
@group(0) @binding(2) var<storage, read> c: array<f32>;
@group(0) @binding(3) var<storage, read> d: array<f32>;
@group(0) @binding(4) var<storage, read_write> out: array<f32>;
@group(0) @binding(5) var<uniform> dims: Dims;
@group(1) @binding(0) var<uniform> batch: Batch;

var<workgroup> partial: array<vec2<f32>, 64>;

// The sums of `own` over the workgroup, always in the same order.
fn total(lane: u32, own: vec2<f32>) -> vec2<f32> {
    partial[lane] = own;
    for (var reach = 32u; reach > 0u; reach /= 2u) {
        workgroupBarrier();
        if (lane < reach) { partial[lane] += partial[lane + reach]; }
    }
    workgroupBarrier();
    return partial[0];
}

fn finish(group: vec3<u32>, lane: u32, own: f32) {
    let sum = total(lane, vec2<f32>(own, 0.0)).x;
    if (lane == 0u) { out[group.y * dims.parts + dims.first + group.x] = sum; }
}

// Number `i` of a[t]; 0 behind the last.
fn a_at(example: u32, t: u32, i: u32) -> f32 {
    if (i >= dims.m) { return select(0.0, 1.0, i == dims.m && dims.ones == 1u); }
    if (dims.patches == 0u) { return a[(example * dims.positions + t) * dims.m + i]; }
    let tap = i / dims.channels;
    let y = t / dims.out_width * dims.stride_y + tap / dims.kernel_width - dims.above;
    let x = t % dims.out_width * dims.stride_x + tap % dims.kernel_width - dims.left;
    if (y >= dims.height || x >= dims.width) { return 0.0; }
    return a[((example * dims.height + y) * dims.width + x) * dims.channels + i % dims.channels];
}

// Number `j` of b[t]; 0 behind the last.
fn b_at(example: u32, t: u32, j: u32) -> f32 {
    if (j >= dims.n) { return 0.0; }
    return b[(example * dims.positions + t) * dims.n + j];
}

// Four numbers from `start` on, none past `last`.
fn four(start: u32, last: u32) -> vec4<u32> {
    return min(vec4<u32>(start, start + 1u, start + 2u, start + 3u), vec4<u32>(last));
}

fn a_lines(example: u32, t: vec4<u32>, i: u32) -> vec4<f32> {
    return vec4<f32>(a_at(example, t.x, i), a_at(example, t.y, i), a_at(example, t.z, i), a_at(example, t.w, i));
}

fn b_lines(example: u32, t: vec4<u32>, j: u32) -> vec4<f32> {
    return vec4<f32>(b_at(example, t.x, j), b_at(example, t.y, j), b_at(example, t.z, j), b_at(example, t.w, j));
}

// A 4 x 4 block of sums of products.
struct Block {
    r0: vec4<f32>,
    r1: vec4<f32>,
    r2: vec4<f32>,
    r3: vec4<f32>,
}

fn add(block: Block, left: vec4<f32>, right: vec4<f32>) -> Block {
    return Block(
        block.r0 + left.x * right,
        block.r1 + left.y * right,
        block.r2 + left.z * right,
        block.r3 + left.w * right,
    );
}

// <b[t], b[s]> for four t and four s.
fn b_gram(example: u32, t: vec4<u32>, s: vec4<u32>) -> Block {
    var block = Block();
    for (var j = 0u; j < dims.n; j++) {
        block = add(block, b_lines(example, t, j), b_lines(example, s, j));
    }
    return block;
}

// The sum of the products of two blocks, without what is past the last line or column.
fn inner(f: Block, g: Block, lines: vec4<bool>, columns: vec4<bool>) -> f32 {
    let weight = select(vec4<f32>(), vec4<f32>(1.0), columns);
    let sums = vec4<f32>(dot(f.r0 * g.r0, weight), dot(f.r1 * g.r1, weight), dot(f.r2 * g.r2, weight), dot(f.r3 * g.r3, weight));
    return dot(sums, select(vec4<f32>(), vec4<f32>(1.0), lines));
}

// A workgroup's tile among `across` side by side, and how often it counts where both sides of the diagonal are the same.
struct Tile {
    line: u32,
    column: u32,
    times: f32,
}

fn tile(group: vec3<u32>, local: vec3<u32>, across: u32) -> Tile {
    let row = group.x / across;
    let column = group.x % across;
    let times = select(select(0.0, 2.0, row < column), 1.0, row == column);
    return Tile(row * 32u + local.y * 4u, column * 32u + local.x * 4u, times);
}

fn within(start: u32, len: u32) -> vec4<bool> {
    return vec4<u32>(start, start + 1u, start + 2u, start + 3u) < vec4<u32>(len);
}

@compute @workgroup_size(8, 8)
fn outer(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    var sums = vec2<f32>();
    for (var i = lane; i < dims.m + dims.ones; i += 64u) {
        let value = a_at(group.y, 0u, i);
        sums.x += value * value;
    }
    for (var j = lane; j < dims.n; j += 64u) {
        let value = b_at(group.y, 0u, j);
        sums.y += value * value;
    }
    let norms = total(lane, sums);
    if (lane == 0u) { out[group.y * dims.parts + dims.first] = norms.x * norms.y; }
}

@compute @workgroup_size(8, 8)
fn product(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_id) local: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let at = tile(group, local, (dims.n + 31u) / 32u);
    var block = Block();
    if (at.line < dims.m + dims.ones && at.column < dims.n) {
        for (var t = 0u; t < dims.positions; t++) {
            let left = vec4<f32>(
                a_at(group.y, t, at.line),
                a_at(group.y, t, at.line + 1u),
                a_at(group.y, t, at.line + 2u),
                a_at(group.y, t, at.line + 3u),
            );
            let right = vec4<f32>(
                b_at(group.y, t, at.column),
                b_at(group.y, t, at.column + 1u),
                b_at(group.y, t, at.column + 2u),
                b_at(group.y, t, at.column + 3u),
            );
            block = add(block, left, right);
        }
    }
    finish(group, lane, inner(block, block, vec4<bool>(true), vec4<bool>(true)));
}

@compute @workgroup_size(8, 8)
fn gram(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_id) local: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let at = tile(group, local, (dims.positions + 31u) / 32u);
    var own = 0.0;
    if (at.times > 0.0 && at.line < dims.positions && at.column < dims.positions) {
        let t = four(at.line, dims.positions - 1u);
        let s = four(at.column, dims.positions - 1u);
        var block = Block();
        for (var i = 0u; i < dims.m + dims.ones; i++) {
            block = add(block, a_lines(group.y, t, i), a_lines(group.y, s, i));
        }
        let lines = within(at.line, dims.positions);
        own = at.times * inner(block, b_gram(group.y, t, s), lines, within(at.column, dims.positions));
    }
    finish(group, lane, own);
}

@compute @workgroup_size(8, 8)
fn tokens(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_id) local: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let at = tile(group, local, (dims.positions + 31u) / 32u);
    var own = 0.0;
    if (at.times > 0.0 && at.line < dims.positions && at.column < dims.positions) {
        let t = four(at.line, dims.positions - 1u);
        let s = four(at.column, dims.positions - 1u);
        let base = group.y * dims.positions;
        let other = vec4<f32>(c[base + s.x], c[base + s.y], c[base + s.z], c[base + s.w]);
        let one = vec4<f32>(1.0);
        let same = Block(
            select(vec4<f32>(), one, other == vec4<f32>(c[base + t.x])),
            select(vec4<f32>(), one, other == vec4<f32>(c[base + t.y])),
            select(vec4<f32>(), one, other == vec4<f32>(c[base + t.z])),
            select(vec4<f32>(), one, other == vec4<f32>(c[base + t.w])),
        );
        let lines = within(at.line, dims.positions);
        own = at.times * inner(same, b_gram(group.y, t, s), lines, within(at.column, dims.positions));
    }
    finish(group, lane, own);
}

@compute @workgroup_size(8, 8)
fn cross(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_id) local: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let at = tile(group, local, (dims.time + 31u) / 32u);
    var own = 0.0;
    if (at.line < dims.positions && at.column < dims.time) {
        let t = four(at.line, dims.positions - 1u);
        let s = group.y * dims.time + four(at.column, dims.time - 1u);
        var block = Block();
        for (var i = 0u; i < dims.m; i++) {
            let right = vec4<f32>(d[s.x * dims.m + i], d[s.y * dims.m + i], d[s.z * dims.m + i], d[s.w * dims.m + i]);
            block = add(block, a_lines(group.y, t, i), right);
        }
        let token = vec4<u32>(vec4<f32>(c[s.x], c[s.y], c[s.z], c[s.w]));
        var shares = Block();
        shares = add(shares, b_lines(group.y, t, token.x), vec4<f32>(1.0, 0.0, 0.0, 0.0));
        shares = add(shares, b_lines(group.y, t, token.y), vec4<f32>(0.0, 1.0, 0.0, 0.0));
        shares = add(shares, b_lines(group.y, t, token.z), vec4<f32>(0.0, 0.0, 1.0, 0.0));
        shares = add(shares, b_lines(group.y, t, token.w), vec4<f32>(0.0, 0.0, 0.0, 1.0));
        own = 2.0 * inner(shares, block, within(at.line, dims.positions), within(at.column, dims.time));
    }
    finish(group, lane, own);
}
