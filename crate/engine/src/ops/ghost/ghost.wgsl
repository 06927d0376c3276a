// Squared norms of the gradients of single examples, without the gradients: parts of the sum for each example.
//
//   entry point   what is summed for an example                                  one workgroup of 4 x 4 x 8
//   outer         |a|^2 |b|^2, for one position                                  all of it
//   product       squares of sum_t a[t, i] b[t, j], over i and j                 16 i x 16 j
//   gram          <a[t], a[s]> <b[t], b[s]>, over t and s                        16 t x 16 s
//   tokens        <b[t], b[s]> where c[t] = c[s], over t and s                   16 t x 16 s
//   cross         2 b[t, c[s]] <a[t], d[s]>, over t and s                        16 t x 16 s
//
// a [rows, positions, m], or (patches = 1) images whose patches are that; b [rows, positions, n]; c [rows, time] tokens;
// d [rows, time, m]. With ones = 1 there is a number 1 behind the m of each a[t], whose gradient is the bias's. out [rows, parts]:
// a workgroup writes the part first + group.x.
//
// Dispatch: (tiles of one example, rows). An invocation sums every eighth term of a block of 4 x 4, straight from storage; the eight
// sums meet in workgroup memory. `gram` and `tokens` are the same on both sides of the diagonal: tiles below it are left out, and
// those above it count twice.

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

// Blocks of the invocations, [eighth][row of blocks][column of blocks][line].
var<workgroup> blocks: array<vec4<f32>, 512>;
const LANES = 128u;
var<workgroup> partial: array<vec2<f32>, LANES>;

// The sums of `own` over the workgroup, always in the same order.
fn total(lane: u32, own: vec2<f32>) -> vec2<f32> {
    partial[lane] = own;
    for (var reach = LANES / 2u; reach > 0u; reach /= 2u) {
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

// Line and column of output pixel `t`, and (u, v, channel) of number `i` of a patch, where there are patches. Divisions are slow, so
// they are kept out of loops.
fn pixel(t: u32) -> vec2<u32> {
    if (dims.patches == 0u) { return vec2<u32>(); }
    return vec2<u32>(t / dims.out_width, t % dims.out_width);
}

fn tap(i: u32) -> vec3<u32> {
    if (dims.patches == 0u) { return vec3<u32>(); }
    let n = i / dims.channels;
    return vec3<u32>(n / dims.kernel_width, n % dims.kernel_width, i % dims.channels);
}

// Number `i` of a[t]; 0 behind the last.
fn a_at(example: u32, t: u32, p: vec2<u32>, i: u32, k: vec3<u32>) -> f32 {
    if (i >= dims.m) { return select(0.0, 1.0, i == dims.m && dims.ones == 1u); }
    if (dims.patches == 0u) { return a[(example * dims.positions + t) * dims.m + i]; }
    let y = p.x * dims.stride_y + k.x - dims.above;
    let x = p.y * dims.stride_x + k.y - dims.left;
    if (y >= dims.height || x >= dims.width) { return 0.0; }
    return a[((example * dims.height + y) * dims.width + x) * dims.channels + k.z];
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

// Four neighbouring numbers of the workgroup's tile, summed over the eighths: invocation `lane` gets line lane % 4 of block
// lane / 4; those from 64 on get nothing.
fn meet(block: Block, lane: u32) -> vec4<f32> {
    workgroupBarrier();
    blocks[lane * 4u] = block.r0;
    blocks[lane * 4u + 1u] = block.r1;
    blocks[lane * 4u + 2u] = block.r2;
    blocks[lane * 4u + 3u] = block.r3;
    workgroupBarrier();
    var sum = vec4<f32>();
    if (lane < 64u) {
        for (var eighth = 0u; eighth < 8u; eighth++) { sum += blocks[eighth * 64u + lane]; }
    }
    return sum;
}

// A workgroup's tile among `across` side by side: where it begins, and how often it counts where both sides of the diagonal are the
// same.
struct Tile {
    line: u32,
    column: u32,
    times: f32,
}

fn tile(group: vec3<u32>, across: u32) -> Tile {
    let row = group.x / across;
    let column = group.x % across;
    let times = select(select(0.0, 2.0, row < column), 1.0, row == column);
    return Tile(row * 16u, column * 16u, times);
}

// 1 for what invocation `lane` got from `meet`, where that is within `lines` and `columns`, 0 elsewhere.
fn within(at: Tile, lane: u32, lines: u32, columns: u32) -> vec4<f32> {
    let line = line_of(at, lane);
    let column = column_of(at, lane);
    let inside = vec4<u32>(column, column + 1u, column + 2u, column + 3u) < vec4<u32>(columns);
    return select(vec4<f32>(), vec4<f32>(1.0), inside & vec4<bool>(line < lines && lane < 64u));
}

fn line_of(at: Tile, lane: u32) -> u32 {
    return at.line + lane / 16u * 4u + lane % 4u;
}

fn column_of(at: Tile, lane: u32) -> u32 {
    return at.column + lane / 4u % 4u * 4u;
}

@compute @workgroup_size(4, 4, 8)
fn outer(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    var sums = vec2<f32>();
    let first = pixel(0u);
    for (var i = lane; i < dims.m + dims.ones; i += 128u) {
        let value = a_at(group.y, 0u, first, i, tap(i));
        sums.x += value * value;
    }
    for (var j = lane; j < dims.n; j += 128u) {
        let value = b_at(group.y, 0u, j);
        sums.y += value * value;
    }
    let norms = total(lane, sums);
    if (lane == 0u) { out[group.y * dims.parts + dims.first] = norms.x * norms.y; }
}

@compute @workgroup_size(4, 4, 8)
fn product(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_id) local: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let at = tile(group, (dims.n + 15u) / 16u);
    let i = at.line + local.y * 4u;
    let j = at.column + local.x * 4u;
    var block = Block();
    if (i < dims.m + dims.ones && j < dims.n) {
        let k0 = tap(i);
        let k1 = tap(i + 1u);
        let k2 = tap(i + 2u);
        let k3 = tap(i + 3u);
        for (var t = local.z; t < dims.positions; t += 8u) {
            let p = pixel(t);
            let left = vec4<f32>(
                a_at(group.y, t, p, i, k0),
                a_at(group.y, t, p, i + 1u, k1),
                a_at(group.y, t, p, i + 2u, k2),
                a_at(group.y, t, p, i + 3u, k3),
            );
            let right = vec4<f32>(
                b_at(group.y, t, j),
                b_at(group.y, t, j + 1u),
                b_at(group.y, t, j + 2u),
                b_at(group.y, t, j + 3u),
            );
            block = add(block, left, right);
        }
    }
    // What is past the last line or column is 0.
    let sum = meet(block, lane);
    finish(group, lane, dot(sum, sum));
}

// <b[t], b[s]> for the workgroup's tile of t and s.
fn b_gram(example: u32, at: Tile, local: vec3<u32>, lane: u32) -> vec4<f32> {
    var block = Block();
    if (at.times > 0.0) {
        let t = four(at.line + local.y * 4u, dims.positions - 1u);
        let s = four(at.column + local.x * 4u, dims.positions - 1u);
        for (var j = local.z; j < dims.n; j += 8u) {
            block = add(block, b_lines(example, t, j), b_lines(example, s, j));
        }
    }
    return meet(block, lane);
}

@compute @workgroup_size(4, 4, 8)
fn gram(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_id) local: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let at = tile(group, (dims.positions + 15u) / 16u);
    var block = Block();
    if (at.times > 0.0) {
        let t = four(at.line + local.y * 4u, dims.positions - 1u);
        let s = four(at.column + local.x * 4u, dims.positions - 1u);
        let t0 = pixel(t.x);
        let t1 = pixel(t.y);
        let t2 = pixel(t.z);
        let t3 = pixel(t.w);
        let s0 = pixel(s.x);
        let s1 = pixel(s.y);
        let s2 = pixel(s.z);
        let s3 = pixel(s.w);
        for (var i = local.z; i < dims.m + dims.ones; i += 8u) {
            let k = tap(i);
            let left = vec4<f32>(
                a_at(group.y, t.x, t0, i, k),
                a_at(group.y, t.y, t1, i, k),
                a_at(group.y, t.z, t2, i, k),
                a_at(group.y, t.w, t3, i, k),
            );
            let right = vec4<f32>(
                a_at(group.y, s.x, s0, i, k),
                a_at(group.y, s.y, s1, i, k),
                a_at(group.y, s.z, s2, i, k),
                a_at(group.y, s.w, s3, i, k),
            );
            block = add(block, left, right);
        }
    }
    let terms = meet(block, lane) * b_gram(group.y, at, local, lane);
    finish(group, lane, at.times * dot(terms, within(at, lane, dims.positions, dims.positions)));
}

@compute @workgroup_size(4, 4, 8)
fn tokens(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_id) local: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let at = tile(group, (dims.positions + 15u) / 16u);
    let last = dims.positions - 1u;
    let base = group.y * dims.positions;
    let s = base + four(column_of(at, lane), last);
    let same = vec4<f32>(c[s.x], c[s.y], c[s.z], c[s.w]) == vec4<f32>(c[base + min(line_of(at, lane), last)]);
    let terms = select(vec4<f32>(), b_gram(group.y, at, local, lane), same);
    finish(group, lane, at.times * dot(terms, within(at, lane, dims.positions, dims.positions)));
}

@compute @workgroup_size(4, 4, 8)
fn cross(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_id) local: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let at = tile(group, (dims.time + 15u) / 16u);
    let base = group.y * dims.positions;
    let t = (base + four(at.line + local.y * 4u, dims.positions - 1u)) * dims.m;
    let s = (group.y * dims.time + four(at.column + local.x * 4u, dims.time - 1u)) * dims.m;
    var block = Block();
    for (var i = local.z; i < dims.m; i += 8u) {
        let left = vec4<f32>(a[t.x + i], a[t.y + i], a[t.z + i], a[t.w + i]);
        block = add(block, left, vec4<f32>(d[s.x + i], d[s.y + i], d[s.z + i], d[s.w + i]));
    }
    let k = group.y * dims.time + four(column_of(at, lane), dims.time - 1u);
    let token = vec4<u32>(vec4<f32>(c[k.x], c[k.y], c[k.z], c[k.w]));
    let line = (base + min(line_of(at, lane), dims.positions - 1u)) * dims.n;
    let shares = vec4<f32>(b[line + token.x], b[line + token.y], b[line + token.z], b[line + token.w]);
    let terms = meet(block, lane) * shares;
    finish(group, lane, 2.0 * dot(terms, within(at, lane, dims.positions, dims.time)));
}
