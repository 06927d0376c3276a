// Convolution: forward, gradient of kernel and bias, gradient of the input. The matrix of patches is never stored: its elements
// are read from the image where they are used.
//
//   entry point      a                         b                 out                        one invocation writes
//   forward          x  [rows, h, w, c]        parameters        y  [rows, h', w', f]       4 pixels x 8 filters
//   gradient         x  [rows, h, w, c]        dy                partial [splits, k + 1, f] 4 lines of the kernel x 8 filters
//   sum              partial                   (unused)          d_parameters               1 number
//   input_gradient   dy [rows, h', w', f]      parameters        dx [rows, h, w, c]         4 pixels x 8 channels
//   mask             y                         (unused)          dy                         1 number: 0 where a rectified y is 0
//
// k = kernel height * kernel width * c lines of the kernel; in `parameters` and `d_parameters` they lie at `offset`, the bias
// [f] right behind them: it is line k, whose x is 1.
//
// The gradient's sum over all output pixels is long and its result small, so the lines of the output images are dealt to `splits`
// partial sums, which `sum` adds in a fixed order: the same numbers give the same bits.
//
// Dispatch: workgroups of 64, folded into (x, y), over
//   forward          rows * ceil(h' w' / 4) * ceil(f / 8)
//   gradient         splits * ceil((k + 1) / 4) * ceil(f / 8)
//   sum              (k + 1) * f
//   input_gradient   rows * ceil(h w / 4) * ceil(c / 8)
//   mask             (ceil(h' w' f / 64), rows)
// Loads past an edge are clamped, stores past it are left out. Coordinates outside the image on the upper or left side wrap to very
// large numbers, so one comparison finds them on either side.

struct Dims {
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
    offset: u32,
    relu: u32,
    splits: u32,
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

// The number of an invocation in the whole dispatch.
fn number(group: vec3<u32>, groups: vec3<u32>, lane: u32) -> u32 {
    return (group.y * groups.x + group.x) * 64u + lane;
}

// The four indices from `start`, none past `last`.
fn four(start: u32, last: u32) -> vec4<u32> {
    return min(vec4<u32>(start, start + 1u, start + 2u, start + 3u), vec4<u32>(last));
}

fn load_a(at: vec4<u32>) -> vec4<f32> {
    return vec4<f32>(a[at.x], a[at.y], a[at.z], a[at.w]);
}

fn load_b(at: vec4<u32>) -> vec4<f32> {
    return vec4<f32>(b[at.x], b[at.y], b[at.z], b[at.w]);
}

// Writes up to four numbers of one line.
fn store(base: u32, column: u32, columns: u32, value: vec4<f32>) {
    if (column < columns) { out[base + column] = value.x; }
    if (column + 1u < columns) { out[base + column + 1u] = value.y; }
    if (column + 2u < columns) { out[base + column + 2u] = value.z; }
    if (column + 3u < columns) { out[base + column + 3u] = value.w; }
}

// Rectifies. A number that is not one passes through, so that a broken model shows in its loss.
fn activate(value: vec4<f32>) -> vec4<f32> {
    return select(value, vec4<f32>(), (value < vec4<f32>()) & vec4<bool>(dims.relu == 1u));
}

@compute @workgroup_size(64)
fn forward(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let item = number(group, groups, lane);
    let columns = (dims.filters + 7u) / 8u;
    let pixels = dims.out_height * dims.out_width;
    let tiles = (pixels + 3u) / 4u;
    let column = item % columns * 8u;
    let tile = item / columns;
    let example = tile / tiles;
    if (example >= batch.rows) { return; }
    let first = tile % tiles * 4u;
    let pixel = four(first, pixels - 1u);
    let top = pixel / dims.out_width * dims.stride_y - dims.above;
    let left = pixel % dims.out_width * dims.stride_x - dims.left;
    let f0 = four(column, dims.filters - 1u);
    let f1 = four(column + 4u, dims.filters - 1u);
    let bias = dims.offset + dims.kernel_height * dims.kernel_width * dims.channels * dims.filters;
    var y00 = load_b(bias + f0);
    var y01 = load_b(bias + f1);
    var y10 = y00;
    var y11 = y01;
    var y20 = y00;
    var y21 = y01;
    var y30 = y00;
    var y31 = y01;
    var line = dims.offset;
    for (var u = 0u; u < dims.kernel_height; u++) {
        let y = top + u;
        for (var v = 0u; v < dims.kernel_width; v++) {
            let x = left + v;
            let inside = (y < vec4<u32>(dims.height)) & (x < vec4<u32>(dims.width));
            let at = select(vec4<u32>(), ((example * dims.height + y) * dims.width + x) * dims.channels, inside);
            for (var c = 0u; c < dims.channels; c++) {
                let value = select(vec4<f32>(), load_a(at + c), inside);
                let k0 = load_b(line + f0);
                let k1 = load_b(line + f1);
                y00 += value.x * k0;
                y01 += value.x * k1;
                y10 += value.y * k0;
                y11 += value.y * k1;
                y20 += value.z * k0;
                y21 += value.z * k1;
                y30 += value.w * k0;
                y31 += value.w * k1;
                line += dims.filters;
            }
        }
    }
    let base = (example * pixels + first) * dims.filters;
    store(base, column, dims.filters, activate(y00));
    store(base, column + 4u, dims.filters, activate(y01));
    if (first + 1u < pixels) {
        store(base + dims.filters, column, dims.filters, activate(y10));
        store(base + dims.filters, column + 4u, dims.filters, activate(y11));
    }
    if (first + 2u < pixels) {
        store(base + 2u * dims.filters, column, dims.filters, activate(y20));
        store(base + 2u * dims.filters, column + 4u, dims.filters, activate(y21));
    }
    if (first + 3u < pixels) {
        store(base + 3u * dims.filters, column, dims.filters, activate(y30));
        store(base + 3u * dims.filters, column + 4u, dims.filters, activate(y31));
    }
}

@compute @workgroup_size(64)
fn gradient(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let item = number(group, groups, lane);
    let taps = dims.kernel_height * dims.kernel_width * dims.channels;
    let columns = (dims.filters + 7u) / 8u;
    let tiles = (taps + 4u) / 4u;
    let column = item % columns * 8u;
    let tap = item / columns % tiles * 4u;
    let split = item / columns / tiles;
    if (split >= dims.splits) { return; }
    let k = four(tap, taps - 1u);
    let ones = vec4<u32>(tap, tap + 1u, tap + 2u, tap + 3u) >= vec4<u32>(taps);
    let channel = k % dims.channels;
    let v = k / dims.channels % dims.kernel_width;
    let u = k / dims.channels / dims.kernel_width;
    let f0 = four(column, dims.filters - 1u);
    let f1 = four(column + 4u, dims.filters - 1u);
    var g00 = vec4<f32>();
    var g01 = vec4<f32>();
    var g10 = vec4<f32>();
    var g11 = vec4<f32>();
    var g20 = vec4<f32>();
    var g21 = vec4<f32>();
    var g30 = vec4<f32>();
    var g31 = vec4<f32>();
    let lines = batch.rows * dims.out_height;
    let share = (lines + dims.splits - 1u) / dims.splits;
    let end = min((split + 1u) * share, lines);
    for (var line = split * share; line < end; line++) {
        let y = line % dims.out_height * dims.stride_y + u - dims.above;
        let in_height = y < vec4<u32>(dims.height);
        let row = (line / dims.out_height * dims.height + select(vec4<u32>(), y, in_height)) * dims.width;
        var x = v - dims.left;
        var dy = line * dims.out_width * dims.filters;
        for (var j = 0u; j < dims.out_width; j++) {
            let inside = in_height & (x < vec4<u32>(dims.width));
            let at = (row + select(vec4<u32>(), x, inside)) * dims.channels + channel;
            let value = select(select(vec4<f32>(), load_a(at), inside), vec4<f32>(1.0), ones);
            let d0 = load_b(dy + f0);
            let d1 = load_b(dy + f1);
            g00 += value.x * d0;
            g01 += value.x * d1;
            g10 += value.y * d0;
            g11 += value.y * d1;
            g20 += value.z * d0;
            g21 += value.z * d1;
            g30 += value.w * d0;
            g31 += value.w * d1;
            x += vec4<u32>(dims.stride_x);
            dy += dims.filters;
        }
    }
    let base = (split * (taps + 1u) + tap) * dims.filters;
    store(base, column, dims.filters, g00);
    store(base, column + 4u, dims.filters, g01);
    if (tap + 1u <= taps) {
        store(base + dims.filters, column, dims.filters, g10);
        store(base + dims.filters, column + 4u, dims.filters, g11);
    }
    if (tap + 2u <= taps) {
        store(base + 2u * dims.filters, column, dims.filters, g20);
        store(base + 2u * dims.filters, column + 4u, dims.filters, g21);
    }
    if (tap + 3u <= taps) {
        store(base + 3u * dims.filters, column, dims.filters, g30);
        store(base + 3u * dims.filters, column + 4u, dims.filters, g31);
    }
}

@compute @workgroup_size(64)
fn sum(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let item = number(group, groups, lane);
    let len = (dims.kernel_height * dims.kernel_width * dims.channels + 1u) * dims.filters;
    if (item >= len) { return; }
    var total = 0.0;
    for (var split = 0u; split < dims.splits; split++) {
        total += a[split * len + item];
    }
    out[dims.offset + item] = total;
}

@compute @workgroup_size(64)
fn input_gradient(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let item = number(group, groups, lane);
    let columns = (dims.channels + 7u) / 8u;
    let pixels = dims.height * dims.width;
    let tiles = (pixels + 3u) / 4u;
    let channel = item % columns * 8u;
    let tile = item / columns;
    let example = tile / tiles;
    if (example >= batch.rows) { return; }
    let first = tile % tiles * 4u;
    let pixel = four(first, pixels - 1u);
    let y = pixel / dims.width + dims.above;
    let x = pixel % dims.width + dims.left;
    let c0 = four(channel, dims.channels - 1u) * dims.filters;
    let c1 = four(channel + 4u, dims.channels - 1u) * dims.filters;
    var x00 = vec4<f32>();
    var x01 = vec4<f32>();
    var x10 = vec4<f32>();
    var x11 = vec4<f32>();
    var x20 = vec4<f32>();
    var x21 = vec4<f32>();
    var x30 = vec4<f32>();
    var x31 = vec4<f32>();
    var line = dims.offset;
    for (var u = 0u; u < dims.kernel_height; u++) {
        // The output pixel whose window has this pixel at (u, v), where there is one.
        let i = (y - u) / dims.stride_y;
        let in_height = (i * dims.stride_y == y - u) & (i < vec4<u32>(dims.out_height));
        for (var v = 0u; v < dims.kernel_width; v++) {
            let j = (x - v) / dims.stride_x;
            let inside = in_height & (j * dims.stride_x == x - v) & (j < vec4<u32>(dims.out_width));
            if (any(inside)) {
                let begin = ((example * dims.out_height + i) * dims.out_width + j) * dims.filters;
                let at = select(vec4<u32>(), begin, inside);
                for (var f = 0u; f < dims.filters; f++) {
                    let dy = select(vec4<f32>(), load_a(at + f), inside);
                    let k0 = load_b(line + f + c0);
                    let k1 = load_b(line + f + c1);
                    x00 += dy.x * k0;
                    x01 += dy.x * k1;
                    x10 += dy.y * k0;
                    x11 += dy.y * k1;
                    x20 += dy.z * k0;
                    x21 += dy.z * k1;
                    x30 += dy.w * k0;
                    x31 += dy.w * k1;
                }
            }
            line += dims.channels * dims.filters;
        }
    }
    let base = (example * pixels + first) * dims.channels;
    store(base, channel, dims.channels, x00);
    store(base, channel + 4u, dims.channels, x01);
    if (first + 1u < pixels) {
        store(base + dims.channels, channel, dims.channels, x10);
        store(base + dims.channels, channel + 4u, dims.channels, x11);
    }
    if (first + 2u < pixels) {
        store(base + 2u * dims.channels, channel, dims.channels, x20);
        store(base + 2u * dims.channels, channel + 4u, dims.channels, x21);
    }
    if (first + 3u < pixels) {
        store(base + 3u * dims.channels, channel, dims.channels, x30);
        store(base + 3u * dims.channels, channel + 4u, dims.channels, x31);
    }
}

@compute @workgroup_size(64)
fn mask(@builtin(global_invocation_id) id: vec3<u32>) {
    let len = dims.out_height * dims.out_width * dims.filters;
    if (id.x >= len || id.y >= batch.rows) { return; }
    let at = id.y * len + id.x;
    if (!(a[at] > 0.0)) { out[at] = 0.0; }
}
