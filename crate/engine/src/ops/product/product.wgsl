// Products of matrices through workgroup memory, for GPUs that have one: out = A . B, A [lines, depth], B [depth, columns].
//
//   KIND                        A                              B                      out
//   0 dense, forward            a = x [lines, depth]           kernel in b            y
//   1 dense, input gradient     a = dy [lines, depth]          kernel' in b           dx
//   2 dense, gradient           a = x', a line of ones         b = dy                 d_parameters
//   3 conv, forward             patches of the images a = x    kernel in b            y
//   4 conv, input gradient      windows of the images a = dy   kernel in b            dx
//   5 conv, gradient            patches', a line of ones       b = dy                 d_parameters
//
// In 2 and 5 the depth runs over the batch, in the others the lines do: dims.lines or dims.depth are those of one example then.
// The kernel lies at `offset` in the parameters b, and the gradient in out; `bias` is where what sums start from lies in b, or
// 0xffffffff. The line of ones (ones = 1) is the last one and gives the gradient of the bias, which lies behind the kernel.
//
// A workgroup of SIDE x SIDE has TILE x TILE numbers of out and keeps them in registers: 4 x 4 an invocation in `block4`, where
// TILE = 4 SIDE, and 8 x 8 in `block8`, where TILE = 8 SIDE. It loads DEPTH columns of A and lines of B at a time. With
// splits > 1 the depth is cut into that many parts, out gets the sum of each, [splits, lines, columns], and `sum` adds them in
// order, a being these: no atomics, so the same numbers give the same bits.
//
// Dispatch: block4, block8 (ceil(columns / TILE) * splits, ceil(lines / TILE)); sum: workgroups of 64 over lines * columns, folded.

override KIND: u32 = 0u;
override TILE: u32 = 64u;
override SIDE: u32 = 16u;
override DEPTH: u32 = 16u;
// Groups of four numbers in a line of a tile; one more lies between lines, so that invocations side by side use other banks.
override QUADS: u32 = TILE / 4u;
override PITCH: u32 = QUADS + 1u;
override CELLS: u32 = DEPTH * PITCH;

struct Dims {
    lines: u32,
    depth: u32,
    columns: u32,
    offset: u32,
    bias: u32,
    relu: u32,
    ones: u32,
    splits: u32,
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
    filters: u32,
}

struct Batch {
    rows: u32,
    first: u32,
    index: u32,
}

@group(0) @binding(0) var<storage, read> a: array<f32>;
@group(0) @binding(1) var<storage, read> b: array<f32>;
@group(0) @binding(2) var<storage, read_write> out: array<f32>;
@group(0) @binding(3) var<uniform> dims: Dims;
@group(1) @binding(0) var<uniform> batch: Batch;

// Tiles of A and B, a line of either for each step of the depth.
var<workgroup> tile_a: array<vec4<f32>, CELLS>;
var<workgroup> tile_b: array<vec4<f32>, CELLS>;

fn is_gradient() -> bool {
    return KIND == 2u || KIND == 5u;
}

fn lines() -> u32 {
    return select(dims.lines * batch.rows, dims.lines, is_gradient());
}

fn depth() -> u32 {
    return select(dims.depth, dims.depth * batch.rows, is_gradient());
}

// Number `n` of a block [anything, lines, columns] as its three indices, and the one behind it. Divisions are slow.
fn place(n: u32, lines: u32, columns: u32) -> vec3<u32> {
    let line = n / columns;
    return vec3<u32>(line / lines, line % lines, n % columns);
}

fn next(at: vec3<u32>, lines: u32, columns: u32) -> vec3<u32> {
    var p = vec3<u32>(at.xy, at.z + 1u);
    if (p.z == columns) { p = vec3<u32>(p.x, p.y + 1u, 0u); }
    if (p.y == lines) { p = vec3<u32>(p.x + 1u, 0u, p.z); }
    return p;
}

// What the image has at (u, v, channel) `tap` of the window for output pixel `at`, (image, line, column). What is above or on the
// left of an image wraps to large numbers, so one comparison finds it on either side.
fn in_patch(at: vec3<u32>, tap: vec3<u32>) -> f32 {
    let y = at.y * dims.stride_y + tap.x - dims.above;
    let x = at.z * dims.stride_x + tap.y - dims.left;
    if (y >= dims.height || x >= dims.width) { return 0.0; }
    return a[((at.x * dims.height + y) * dims.width + x) * dims.channels + tap.z];
}

// What an output pixel says to input pixel `at` through `tap`, (u, v, filter).
fn from_window(at: vec3<u32>, tap: vec3<u32>) -> f32 {
    var i = at.y + dims.above - tap.x;
    var j = at.z + dims.left - tap.y;
    if (dims.stride_y > 1u || dims.stride_x > 1u) {
        if (i % dims.stride_y != 0u || j % dims.stride_x != 0u) { return 0.0; }
        i /= dims.stride_y;
        j /= dims.stride_x;
    }
    if (i >= dims.out_height || j >= dims.out_width) { return 0.0; }
    return a[((at.x * dims.out_height + i) * dims.out_width + j) * dims.filters + tap.z];
}

// Whether this line and the next three are there.
fn present(line: u32, lines: u32) -> vec4<bool> {
    return vec4<u32>(line, line + 1u, line + 2u, line + 3u) < vec4<u32>(lines);
}

// Four lines of A at one step of the depth.
fn a_quad(line: u32, k: u32, end: u32) -> vec4<f32> {
    var quad = vec4<f32>();
    if (k >= end || line >= lines()) { return quad; }
    if (KIND == 3u) {
        let tap = place(k, dims.kernel_width, dims.channels);
        let p0 = place(line, dims.out_height, dims.out_width);
        let p1 = next(p0, dims.out_height, dims.out_width);
        let p2 = next(p1, dims.out_height, dims.out_width);
        let p3 = next(p2, dims.out_height, dims.out_width);
        quad = vec4<f32>(in_patch(p0, tap), in_patch(p1, tap), in_patch(p2, tap), in_patch(p3, tap));
    } else if (KIND == 4u) {
        let tap = place(k, dims.kernel_width, dims.filters);
        let p0 = place(line, dims.height, dims.width);
        let p1 = next(p0, dims.height, dims.width);
        let p2 = next(p1, dims.height, dims.width);
        let p3 = next(p2, dims.height, dims.width);
        quad = vec4<f32>(from_window(p0, tap), from_window(p1, tap), from_window(p2, tap), from_window(p3, tap));
    } else if (is_gradient()) {
        let len = dims.lines - dims.ones;
        if (KIND == 5u) {
            let pixel = place(k, dims.out_height, dims.out_width);
            let t0 = place(line, dims.kernel_width, dims.channels);
            let t1 = next(t0, dims.kernel_width, dims.channels);
            let t2 = next(t1, dims.kernel_width, dims.channels);
            let t3 = next(t2, dims.kernel_width, dims.channels);
            quad = vec4<f32>(in_patch(pixel, t0), in_patch(pixel, t1), in_patch(pixel, t2), in_patch(pixel, t3));
        } else {
            let at = k * len + line;
            quad = vec4<f32>(a[at], a[at + 1u], a[at + 2u], a[at + 3u]);
        }
        if (dims.ones == 1u) { quad = select(vec4<f32>(1.0), quad, present(line, len)); }
    } else {
        let at = line * dims.depth + k;
        let step = dims.depth;
        quad = vec4<f32>(a[at], a[at + step], a[at + 2u * step], a[at + 3u * step]);
    }
    return select(vec4<f32>(), quad, present(line, lines()));
}

// Four columns of B at one step of the depth.
fn b_quad(k: u32, column: u32, end: u32) -> vec4<f32> {
    if (k >= end) { return vec4<f32>(); }
    var at = k * dims.columns + column;
    var step = 1u;
    if (KIND == 1u) {
        at = column * dims.depth + k;
        step = dims.depth;
    }
    if (KIND == 4u) {
        at = (k / dims.filters * dims.columns + column) * dims.filters + k % dims.filters;
        step = dims.filters;
    }
    if (!is_gradient()) { at += dims.offset; }
    let quad = vec4<f32>(b[at], b[at + step], b[at + 2u * step], b[at + 3u * step]);
    return select(vec4<f32>(), quad, present(column, dims.columns));
}

// Loads the tiles for the depth from `k` on. Invocations side by side read numbers side by side: along the depth where these lie
// in a line of the matrix, across it elsewhere. What is read past the end of a buffer is not used.
fn load(line: u32, column: u32, k: u32, end: u32, lane: u32) {
    for (var i = lane; i < DEPTH * QUADS; i += SIDE * SIDE) {
        let along = vec2<u32>(i % DEPTH, i / DEPTH);
        let across = vec2<u32>(i / QUADS, i % QUADS);
        let p = select(along, across, is_gradient());
        tile_a[p.x * PITCH + p.y] = a_quad(line + 4u * p.y, k + p.x, end);
        let q = select(across, along, KIND == 1u || KIND == 4u);
        tile_b[q.x * PITCH + q.y] = b_quad(k + q.x, column + 4u * q.y, end);
    }
}

// What an invocation's workgroup has to do: first line, first column, the depth from and to, and where its results begin.
struct Task {
    line: u32,
    column: u32,
    begin: u32,
    end: u32,
    base: u32,
}

fn task(group: vec3<u32>) -> Task {
    let across = (dims.columns + TILE - 1u) / TILE;
    let split = group.x / across;
    let steps = (depth() + DEPTH - 1u) / DEPTH;
    let share = (steps + dims.splits - 1u) / dims.splits * DEPTH;
    var base = 0u;
    if (dims.splits > 1u) {
        base = split * lines() * dims.columns;
    } else if (is_gradient()) {
        base = dims.offset;
    }
    return Task(group.y * TILE, group.x % across * TILE, split * share, min((split + 1u) * share, depth()), base);
}

fn epilogue(value: f32, column: u32) -> f32 {
    var y = value;
    if (dims.bias != 0xffffffffu) { y += b[dims.bias + column]; }
    // A number that is not one passes through, so that a broken model shows in its loss.
    return select(y, 0.0, dims.relu == 1u && y < 0.0);
}

fn store_one(at: Task, line: u32, column: u32, value: f32) {
    if (column >= dims.columns) { return; }
    let place = at.base + line * dims.columns + column;
    if (dims.splits > 1u) { out[place] = value; } else { out[place] = epilogue(value, column); }
}

fn store(at: Task, line: u32, column: u32, value: vec4<f32>) {
    if (line >= lines()) { return; }
    store_one(at, line, column, value.x);
    store_one(at, line, column + 1u, value.y);
    store_one(at, line, column + 2u, value.z);
    store_one(at, line, column + 3u, value.w);
}

@compute @workgroup_size(SIDE, SIDE)
fn block4(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_id) local: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let at = task(group);
    var s0 = vec4<f32>();
    var s1 = vec4<f32>();
    var s2 = vec4<f32>();
    var s3 = vec4<f32>();
    for (var k = at.begin; k < at.end; k += DEPTH) {
        load(at.line, at.column, k, at.end, lane);
        workgroupBarrier();
        for (var step = 0u; step < DEPTH; step++) {
            let l = tile_a[step * PITCH + local.y];
            let r = tile_b[step * PITCH + local.x];
            s0 += l.x * r;
            s1 += l.y * r;
            s2 += l.z * r;
            s3 += l.w * r;
        }
        workgroupBarrier();
    }
    let line = at.line + 4u * local.y;
    let column = at.column + 4u * local.x;
    store(at, line, column, s0);
    store(at, line + 1u, column, s1);
    store(at, line + 2u, column, s2);
    store(at, line + 3u, column, s3);
}

// The numbers of an invocation are in four places of the tile, half a tile apart: so invocations side by side use other banks.
@compute @workgroup_size(SIDE, SIDE)
fn block8(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_id) local: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let at = task(group);
    var s0 = vec4<f32>(); var t0 = vec4<f32>();
    var s1 = vec4<f32>(); var t1 = vec4<f32>();
    var s2 = vec4<f32>(); var t2 = vec4<f32>();
    var s3 = vec4<f32>(); var t3 = vec4<f32>();
    var s4 = vec4<f32>(); var t4 = vec4<f32>();
    var s5 = vec4<f32>(); var t5 = vec4<f32>();
    var s6 = vec4<f32>(); var t6 = vec4<f32>();
    var s7 = vec4<f32>(); var t7 = vec4<f32>();
    for (var k = at.begin; k < at.end; k += DEPTH) {
        load(at.line, at.column, k, at.end, lane);
        workgroupBarrier();
        for (var step = 0u; step < DEPTH; step++) {
            let l = tile_a[step * PITCH + local.y];
            let m = tile_a[step * PITCH + local.y + SIDE];
            let r = tile_b[step * PITCH + local.x];
            let q = tile_b[step * PITCH + local.x + SIDE];
            s0 += l.x * r; t0 += l.x * q;
            s1 += l.y * r; t1 += l.y * q;
            s2 += l.z * r; t2 += l.z * q;
            s3 += l.w * r; t3 += l.w * q;
            s4 += m.x * r; t4 += m.x * q;
            s5 += m.y * r; t5 += m.y * q;
            s6 += m.z * r; t6 += m.z * q;
            s7 += m.w * r; t7 += m.w * q;
        }
        workgroupBarrier();
    }
    let line = at.line + 4u * local.y;
    let below = line + 4u * SIDE;
    let column = at.column + 4u * local.x;
    let right = column + 4u * SIDE;
    store(at, line, column, s0); store(at, line, right, t0);
    store(at, line + 1u, column, s1); store(at, line + 1u, right, t1);
    store(at, line + 2u, column, s2); store(at, line + 2u, right, t2);
    store(at, line + 3u, column, s3); store(at, line + 3u, right, t3);
    store(at, below, column, s4); store(at, below, right, t4);
    store(at, below + 1u, column, s5); store(at, below + 1u, right, t5);
    store(at, below + 2u, column, s6); store(at, below + 2u, right, t6);
    store(at, below + 3u, column, s7); store(at, below + 3u, right, t7);
}

@compute @workgroup_size(64)
fn sum(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let item = (group.y * groups.x + group.x) * 64u + lane;
    let len = lines() * dims.columns;
    if (item >= len) { return; }
    var total = 0.0;
    for (var split = 0u; split < dims.splits; split++) {
        total += a[split * len + item];
    }
    out[select(0u, dims.offset, is_gradient()) + item] = epilogue(total, item % dims.columns);
}
