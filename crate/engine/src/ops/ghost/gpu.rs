//! GPU dispatches of `ghost.wgsl`: what an operation says about the norms of its examples' gradients.

use super::by_gram;
use crate::{
    backend::gpu::{Access, NormTerm, Planner},
    ops::window::Window,
};

const SHADER: (&str, &str) = ("ghost", include_str!(concat!(env!("OUT_DIR"), "/ghost.wgsl")));
const ACCESS: [Access; 5] = [
    Access::Read,
    Access::Read,
    Access::Read,
    Access::Read,
    Access::Write,
];
/// Lines and columns of a workgroup.
const TILE: usize = 16;
/// How many numbers describe the windows of a convolution.
const WINDOW_NUMBERS: usize = 11;

/// A gradient that is, for each example, the product `aᵀ·b` of `a [positions, m]` and `b [positions, n]`.
pub(crate) struct ProductTerm<'a> {
    /// `a`, or images whose patches it is.
    pub a: &'a wgpu::Buffer,
    /// `b`.
    pub b: &'a wgpu::Buffer,
    /// `[positions, m, n]`.
    pub shape: [usize; 3],
    /// Whether there is a bias, whose gradient is the sum of `b` over the positions.
    pub bias: bool,
    /// Which patches.
    pub window: Option<&'a Window>,
}

/// Adds the norms of a product to a plan; see [`super::product`].
pub(crate) fn product_gpu(planner: &mut Planner<'_>, term: &ProductTerm<'_>) {
    let [positions, m, n] = term.shape;
    let tiles = |len: usize| len.div_ceil(TILE);
    let (entry, parts) = if positions == 1 {
        ("outer", 1)
    } else if by_gram(term.shape) {
        ("gram", tiles(positions).pow(2))
    } else {
        ("product", tiles(m + usize::from(term.bias)) * tiles(n))
    };
    let numbers = dims(term.shape, term.bias, 0, term.window);
    let bound = [term.a, term.b, term.b, term.b];
    add(planner, entry, bound, numbers, parts);
}

/// Adds the norms of an embedding's gradient to a plan: `tokens [rows, time]`, `dy [rows, time, units]`.
pub(crate) fn tokens_gpu(
    planner: &mut Planner<'_>,
    tokens: &wgpu::Buffer,
    dy: &wgpu::Buffer,
    [time, units]: [usize; 2],
) {
    let numbers = dims([time, 0, units], false, time, None);
    let parts = time.div_ceil(TILE).pow(2);
    add(planner, "tokens", [dy, dy, tokens, dy], numbers, parts);
}

/// Adds `2⟨A, B⟩` to a plan, where `A` is the gradient of a table by a tied layer, `dyᵀ·x` of the shape `[positions, units,
/// vocabulary]`, and `B` that by the embedding: `tokens [rows, time]`, `vectors [rows, time, units]`.
pub(crate) fn cross_gpu(
    planner: &mut Planner<'_>,
    [x, dy, tokens, vectors]: [&wgpu::Buffer; 4],
    shape: [usize; 3],
    time: usize,
) {
    let numbers = dims(shape, false, time, None);
    let parts = shape[0].div_ceil(TILE) * time.div_ceil(TILE);
    add(planner, "cross", [x, dy, tokens, vectors], numbers, parts);
}

fn dims(shape: [usize; 3], bias: bool, time: usize, window: Option<&Window>) -> Vec<u32> {
    let [positions, m, n] = shape.map(|len| len as u32);
    let mut numbers = vec![
        positions,
        m,
        n,
        u32::from(bias),
        time as u32,
        u32::from(window.is_some()),
    ];
    numbers.extend(window.map_or_else(|| vec![0; WINDOW_NUMBERS], Window::numbers));
    numbers
}

fn add(
    planner: &mut Planner<'_>,
    entry: &'static str,
    bound: [&wgpu::Buffer; 4],
    numbers: Vec<u32>,
    parts: usize,
) {
    planner.norms.push(NormTerm {
        shader: SHADER,
        entry,
        access: &ACCESS,
        bound: bound.map(Clone::clone).to_vec(),
        numbers,
        parts,
    });
}
