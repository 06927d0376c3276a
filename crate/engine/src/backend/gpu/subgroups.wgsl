// How a workgroup sums with subgroups; and a kernel that tells whether it can.
//
//   entry point   writes
//   check         sums [2]: of 0, 1, … 63, and of as many ones
//
// Kernels that sum over a workgroup have a function `total` of this very signature, which sums in workgroup memory. Where a device has
// subgroups, the one here takes its place (`subgroups.rs`): two barriers instead of eight. It needs invocations that lie in subgroups in
// the order of their index, all subgroups full and as wide: WGSL does not promise that, so `check` looks.
//
// Dispatch: check (1).
//
// Browsers want `enable subgroups;` above it, which naga 30 does not know yet: who compiles it says so.

@group(0) @binding(0) var<storage, read_write> sums: array<f32>;

const LANES = 64u;
var<workgroup> partial: array<vec2<f32>, LANES>;

// The sums of `own` over the workgroup, always in the same order on one device.
fn total(lane: u32, own: vec2<f32>) -> vec2<f32> {
    let width = subgroupAdd(1u);
    let sum = subgroupAdd(own);
    workgroupBarrier();
    if (lane % width == 0u) { partial[lane / width] = sum; }
    workgroupBarrier();
    var all = partial[0];
    for (var group = 1u; group * width < LANES; group++) { all += partial[group]; }
    return all;
}

@compute @workgroup_size(4, 4, 4)
fn check(@builtin(local_invocation_index) lane: u32) {
    let all = total(lane, vec2<f32>(f32(lane), 1.0));
    if (lane == 0u) {
        sums[0] = all.x;
        sums[1] = all.y;
    }
}
