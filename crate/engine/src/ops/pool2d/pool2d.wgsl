// Pooling: the largest or the mean number of each window, channel by channel.
//
//   entry point        a                        kept                    out
//   maximum             x  [rows, h, w, c]       written                 y  [rows, h', w', c]
//   max_gradient       dy [rows, h', w', c]     read                    dx [rows, h, w, c]
//   average            x  [rows, h, w, c]       (unused)                y  [rows, h', w', c]
//   average_gradient   dy [rows, h', w', c]     (unused)                dx [rows, h, w, c]
//
// `kept` [rows, h', w', c] is which number of its window was the maximum, line by line: the first of several.
//
// Dispatch: workgroups (ceil(numbers of `out` in an example / 64), rows), one invocation a number.

struct Dims {
    height: u32,
    width: u32,
    window_height: u32,
    window_width: u32,
    stride_y: u32,
    stride_x: u32,
    above: u32,
    left: u32,
    out_height: u32,
    out_width: u32,
    channels: u32,
}

struct Batch {
    rows: u32,
    first: u32,
    index: u32,
}

@group(0) @binding(0) var<storage, read> a: array<f32>;
@group(0) @binding(1) var<storage, read_write> kept: array<f32>;
@group(0) @binding(2) var<storage, read_write> out: array<f32>;
@group(0) @binding(3) var<uniform> dims: Dims;
@group(1) @binding(0) var<uniform> batch: Batch;

// Where the window of output number `id.x` of example `id.y` begins in x.
fn window(id: vec3<u32>) -> u32 {
    let channel = id.x % dims.channels;
    let pixel = id.x / dims.channels;
    let y = id.y * dims.height + pixel / dims.out_width * dims.stride_y;
    let x = pixel % dims.out_width * dims.stride_x;
    return (y * dims.width + x) * dims.channels + channel;
}

@compute @workgroup_size(64)
fn maximum(@builtin(global_invocation_id) id: vec3<u32>) {
    let len = dims.out_height * dims.out_width * dims.channels;
    if (id.x >= len || id.y >= batch.rows) { return; }
    let start = window(id);
    var best = a[start];
    var tap = 0u;
    for (var u = 0u; u < dims.window_height; u++) {
        for (var v = 0u; v < dims.window_width; v++) {
            let value = a[start + (u * dims.width + v) * dims.channels];
            if (value > best || value != value) {
                best = value;
                tap = u * dims.window_width + v;
            }
        }
    }
    out[id.y * len + id.x] = best;
    kept[id.y * len + id.x] = f32(tap);
}

@compute @workgroup_size(64)
fn average(@builtin(global_invocation_id) id: vec3<u32>) {
    let len = dims.out_height * dims.out_width * dims.channels;
    if (id.x >= len || id.y >= batch.rows) { return; }
    let start = window(id);
    var sum = 0.0;
    for (var u = 0u; u < dims.window_height; u++) {
        for (var v = 0u; v < dims.window_width; v++) {
            sum += a[start + (u * dims.width + v) * dims.channels];
        }
    }
    out[id.y * len + id.x] = sum / f32(dims.window_height * dims.window_width);
}

// The windows along one direction that cover `at`: from .x to before .y.
fn covering(at: u32, size: u32, stride: u32, windows: u32) -> vec2<u32> {
    let first = select(0u, (at - size) / stride + 1u, at >= size);
    return vec2<u32>(first, min(at / stride + 1u, windows));
}

@compute @workgroup_size(64)
fn max_gradient(@builtin(global_invocation_id) id: vec3<u32>) {
    let len = dims.height * dims.width * dims.channels;
    if (id.x >= len || id.y >= batch.rows) { return; }
    let channel = id.x % dims.channels;
    let y = id.x / dims.channels / dims.width;
    let x = id.x / dims.channels % dims.width;
    let down = covering(y, dims.window_height, dims.stride_y, dims.out_height);
    let across = covering(x, dims.window_width, dims.stride_x, dims.out_width);
    var sum = 0.0;
    for (var i = down.x; i < down.y; i++) {
        for (var j = across.x; j < across.y; j++) {
            let at = ((id.y * dims.out_height + i) * dims.out_width + j) * dims.channels + channel;
            let tap = (y - i * dims.stride_y) * dims.window_width + x - j * dims.stride_x;
            sum += select(0.0, a[at], kept[at] == f32(tap));
        }
    }
    out[id.y * len + id.x] = sum;
}

@compute @workgroup_size(64)
fn average_gradient(@builtin(global_invocation_id) id: vec3<u32>) {
    let len = dims.height * dims.width * dims.channels;
    if (id.x >= len || id.y >= batch.rows) { return; }
    let channel = id.x % dims.channels;
    let y = id.x / dims.channels / dims.width;
    let x = id.x / dims.channels % dims.width;
    let down = covering(y, dims.window_height, dims.stride_y, dims.out_height);
    let across = covering(x, dims.window_width, dims.stride_x, dims.out_width);
    var sum = 0.0;
    for (var i = down.x; i < down.y; i++) {
        for (var j = across.x; j < across.y; j++) {
            sum += a[((id.y * dims.out_height + i) * dims.out_width + j) * dims.channels + channel];
        }
    }
    out[id.y * len + id.x] = sum / f32(dims.window_height * dims.window_width);
}
