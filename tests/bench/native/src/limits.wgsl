// What a GPU can do at most.
//
//   entry point   reads             writes
//   copy          a [4 * len]       out [4 * len]: the same numbers
//   multiply      a [4]             out: a number for each invocation, after ROUNDS * 32 fused multiply-adds
//
// Dispatch: copy a grid of workgroups of 256 that covers `len` groups of four numbers, a number of them an invocation;
// multiply any number of workgroups.

const ROUNDS = 4096u;

@group(0) @binding(0) var<storage, read> a: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read_write> out: array<vec4<f32>>;

@compute @workgroup_size(256)
fn copy(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    for (var at = id.x; at < arrayLength(&a); at += groups.x * 256u) {
        out[at] = a[at];
    }
}

@compute @workgroup_size(256)
fn multiply(@builtin(global_invocation_id) id: vec3<u32>) {
    let by = a[0];
    let more = a[1];
    var s0 = by + vec4<f32>(f32(id.x));
    var s1 = s0 + by;
    var s2 = s1 + by;
    var s3 = s2 + by;
    var s4 = s3 + by;
    var s5 = s4 + by;
    var s6 = s5 + by;
    var s7 = s6 + by;
    for (var round = 0u; round < ROUNDS; round++) {
        s0 = fma(s0, by, more);
        s1 = fma(s1, by, more);
        s2 = fma(s2, by, more);
        s3 = fma(s3, by, more);
        s4 = fma(s4, by, more);
        s5 = fma(s5, by, more);
        s6 = fma(s6, by, more);
        s7 = fma(s7, by, more);
    }
    out[id.x] = s0 + s1 + s2 + s3 + s4 + s5 + s6 + s7;
}
