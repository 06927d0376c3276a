//! Points in the plane on three rings around the origin; the label is the ring. No line separates them.

use std::f32::consts::TAU;

use unsaid_engine::{DataError, Examples};

/// Numbers that look random but are the same everywhere, in [0, 1).
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> f32 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 40) as f32 / 16_777_216.0
    }
}

/// `examples` points whose angle is between `from` and `to`, in turns.
fn points(seed: u64, from: f32, to: f32, examples: usize) -> Result<Examples, DataError> {
    let mut noise = Noise(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let (mut x, mut y) = (Vec::with_capacity(2 * examples), Vec::with_capacity(examples));
    for _ in 0..examples {
        let ring = (noise.next() * 3.0) as u32;
        // Rings of width 0.35 around the radii 0.25, 0.75 and 1.25.
        let radius = 0.25 + 0.5 * ring as f32 + 0.35 * (noise.next() - 0.5);
        let angle = TAU * (from + (to - from) * noise.next());
        x.extend([radius * angle.cos(), radius * angle.sin()]);
        y.push(ring.min(2));
    }
    Examples::new(x, y, 2, 3)
}

/// The points of client `client` of `clients`: those of its own sector.
///
/// # Errors
/// None, where `examples` is not 0.
pub fn sector(client: usize, clients: usize, examples: usize) -> Result<Examples, DataError> {
    let turn = |client: usize| client as f32 / clients as f32;
    points(100 + client as u64, turn(client), turn(client + 1), examples)
}

/// Points of all sectors.
///
/// # Errors
/// None, where `examples` is not 0.
pub fn everywhere(seed: u64, examples: usize) -> Result<Examples, DataError> {
    points(seed, 0.0, 1.0, examples)
}
