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
override TILE: u32 = 32u;
override SIDE: u32 = 8u;
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

// Number `tap` of the patch for output pixel `pixel` of the batch. What is above or on the left of an image wraps to large
// numbers, so one comparison finds it on either side.
fn patch_at(pixel: u32, tap: u32) -> f32 {
    let line = pixel / dims.out_width;
    let y = line % dims.out_height * dims.stride_y + tap / dims.channels / dims.kernel_width - dims.above;
    let x = pixel % dims.out_width * dims.stride_x + tap / dims.channels % dims.kernel_width - dims.left;
    if (y >= dims.height || x >= dims.width) { return 0.0; }
    return a[((line / dims.out_height * dims.height + y) * dims.width + x) * dims.channels + tap % dims.channels];
}

// What output pixel and filter say to input pixel `pixel` of the batch through `tap`, (u, v, filter).
fn window_at(pixel: u32, tap: u32) -> f32 {
    let line = pixel / dims.width;
    let y = line % dims.height + dims.above - tap / dims.filters / dims.kernel_width;
    let x = pixel % dims.width + dims.left - tap / dims.filters % dims.kernel_width;
    let i = y / dims.stride_y;
    let j = x / dims.stride_x;
    if (i * dims.stride_y != y || j * dims.stride_x != x || i >= dims.out_height || j >= dims.out_width) { return 0.0; }
    return a[((line / dims.height * dims.out_height + i) * dims.out_width + j) * dims.filters + tap % dims.filters];
}

fn a_at(line: u32, k: u32, end: u32) -> f32 {
    if (line >= lines() || k >= end) { return 0.0; }
    if (KIND == 3u) { return patch_at(line, k); }
    if (KIND == 4u) { return window_at(line, k); }
    if (is_gradient()) {
        let len = dims.lines - dims.ones;
        if (line == len) { return 1.0; }
        if (KIND == 5u) { return patch_at(k, line); }
        return a[k * len + line];
    }
    return a[line * dims.depth + k];
}

fn b_at(k: u32, column: u32, end: u32) -> f32 {
    if (column >= dims.columns || k >= end) { return 0.0; }
    if (is_gradient()) { return b[k * dims.columns + column]; }
    if (KIND == 1u) { return b[dims.offset + column * dims.depth + k]; }
    if (KIND == 4u) {
        return b[dims.offset + (k / dims.filters * dims.columns + column) * dims.filters + k % dims.filters];
    }
    return b[dims.offset + k * dims.columns + column];
}

// Loads the tiles for the depth from `k` on. Invocations side by side read numbers side by side: along the depth where these lie
// in a line of the matrix, across it elsewhere.
fn load(line: u32, column: u32, k: u32, end: u32, lane: u32) {
    for (var i = lane; i < DEPTH * QUADS; i += SIDE * SIDE) {
        let along = vec2<u32>(i % DEPTH, i / DEPTH);
        let across = vec2<u32>(i / QUADS, i % QUADS);
        let p = select(along, across, is_gradient());
        let m = line + 4u * p.y;
        tile_a[p.x * PITCH + p.y] = vec4<f32>(
            a_at(m, k + p.x, end),
            a_at(m + 1u, k + p.x, end),
            a_at(m + 2u, k + p.x, end),
            a_at(m + 3u, k + p.x, end),
        );
        let q = select(across, along, KIND == 1u || KIND == 4u);
        let n = column + 4u * q.y;
        tile_b[q.x * PITCH + q.y] = vec4<f32>(
            b_at(k + q.x, n, end),
            b_at(k + q.x, n + 1u, end),
            b_at(k + q.x, n + 2u, end),
            b_at(k + q.x, n + 3u, end),
        );
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
