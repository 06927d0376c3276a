//! From a pair of distributions to one on the grid, whose guarantee is a little weaker, or a little stronger.
//!
//! The pessimistic one is the “connect the dots” of Doroshenko, Ghazi, Kamath, Kumar, Manurangsi, “Connect the Dots: Tighter
//! Discrete Approximations of Privacy Loss Distributions”, PETS 2022, [arXiv:2207.04380](https://arxiv.org/abs/2207.04380),
//! section 4: the least curve δ(ε) with corners at grid points only that is nowhere below the true one. It runs straight (in e^ε)
//! between the true curve's values on the grid. Seen from the distributions, the mass of P and that of Q between two grid points
//! is moved to the two points so that both masses are kept.
//!
//! The optimistic one has its corners at grid points, too, and touches the true curve from below between them (section 5 there).
//! Seen from the distributions, the line is cut into intervals around the grid points, chosen so that the masses of P and Q in one
//! have the very ratio of its grid point, and each is merged there. Merging can only help privacy.

use super::pair::{Pair, Piece};

/// Losses on a grid, and their probabilities under P.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct OnGrid {
    /// The grid step.
    pub(super) step: f64,
    /// The first loss, in grid steps.
    pub(super) first: i64,
    /// The probability of each loss from the first on.
    pub(super) mass: Vec<f64>,
    /// The probability of an infinite loss.
    pub(super) infinite: f64,
}

/// Which side of the truth a distribution is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    /// At least the true δ and ε.
    Pessimistic,
    /// At most those.
    Optimistic,
}

/// Widest interval of y that is integrated at once, in units of min(σ, σ²): narrow beside both the Gaussian and the loss.
const WIDTH: f64 = 0.25;

/// Probability that lies beyond a piece's limits, at either end: Φ(−10) < 10⁻²³.
const BEYOND: f64 = 1e-23;

impl OnGrid {
    pub(super) fn of_pair(pair: &Pair, step: f64, side: Side) -> Self {
        let ends = |piece: &Piece| {
            (
                (piece.loss(piece.low) / step).floor() as i64,
                (piece.loss(piece.high) / step).ceil() as i64,
            )
        };
        let (first, last) = pair
            .pieces
            .iter()
            .map(ends)
            .fold((0, 0), |(first, last), (low, high)| {
                (first.min(low), last.max(high))
            });
        let mut grid = Self {
            step,
            first,
            mass: vec![0.0; (last - first) as usize + 1],
            infinite: 0.0,
        };
        grid.mass[-first as usize] += pair.at_zero;
        for piece in &pair.pieces {
            match side {
                Side::Pessimistic => grid.connect(piece),
                Side::Optimistic => grid.merge(piece),
            }
        }
        if side == Side::Pessimistic {
            // What lies beyond the limits counts as the worst that can be.
            grid.infinite += 2.0 * BEYOND;
        }
        grid
    }

    /// From the least to the greatest loss that would be put on a grid.
    pub(super) fn range(pair: &Pair) -> f64 {
        let mut reach = (0.0_f64, 0.0_f64);
        for piece in &pair.pieces {
            reach.0 = reach.0.min(piece.loss(piece.low));
            reach.1 = reach.1.max(piece.loss(piece.high));
        }
        reach.1 - reach.0
    }

    fn add(&mut self, at: i64, mass: f64) {
        let index = (at - self.first).clamp(0, self.mass.len() as i64 - 1);
        self.mass[index as usize] += mass;
    }

    /// Pessimistic: of the mass at loss l between ε₀ and ε₁ = ε₀ + h, the share (1 − e^(ε₀−l))/(1 − e^(−h)) goes to ε₁.
    fn connect(&mut self, piece: &Piece) {
        let full = -(-self.step).exp_m1();
        let mut y = piece.low;
        let mut cell = (piece.loss(y) / self.step).floor() as i64;
        let last = (piece.loss(piece.high) / self.step).ceil() as i64;
        while cell < last {
            let floor = cell as f64 * self.step;
            let next = if cell + 1 == last {
                piece.high
            } else {
                piece.at_loss((cell + 1) as f64 * self.step)
            };
            if next > y {
                let [mass, up] = integrate(piece, y, next, |loss| {
                    (-(floor - loss).exp_m1() / full).clamp(0.0, 1.0)
                });
                self.add(cell, mass - up);
                self.add(cell + 1, up);
                y = next;
            }
            cell += 1;
        }
    }

    /// Optimistic: intervals of y in which P's mass is e^ε times Q's, for a grid point ε.
    fn merge(&mut self, piece: &Piece) {
        let end = piece.loss(piece.high);
        let mut y = piece.low;
        loop {
            let from = piece.loss(y);
            let mut target = (from / self.step).floor() as i64 + 1;
            let mut found = None;
            // Where one point leads nowhere (rounding), the next is tried.
            for _ in 0..2 {
                let epsilon = target as f64 * self.step;
                if 2.0 * epsilon - from < end {
                    found = balance(piece, y, epsilon);
                }
                if found.is_some() {
                    break;
                }
                target += 1;
            }
            let Some((next, mass)) = found else {
                // The rest, at its least loss rounded down: P's mass at a lower loss is a stronger guarantee.
                let [mass, _] = integrate(piece, y, piece.high, |_| 0.0);
                self.add((from / self.step).floor() as i64, mass);
                return;
            };
            self.add(target, mass);
            y = next;
        }
    }
}

/// The end of an interval from `y` on in which P's mass is at least e^`epsilon` times Q's, and hardly more, and P's mass there.
fn balance(piece: &Piece, y: f64, epsilon: f64) -> Option<(f64, f64)> {
    let from = piece.loss(y);
    // Were the density even, the interval would end as far above ε as it begins below.
    let mut end = piece.at_loss(2.0 * epsilon - from);
    let evaluate = |end: f64| integrate(piece, y, end, |loss| -(epsilon - loss).exp_m1());
    let mut best = None;
    for _ in 0..8 {
        if !(end > y && end <= piece.high) {
            break;
        }
        let [mass, surplus] = evaluate(end);
        // Within a millionth of the largest surplus that could be there, above and never below.
        let tolerance = 1e-6 * mass * (epsilon - from);
        if surplus >= 0.0 {
            best = Some((end, mass));
            if surplus <= tolerance {
                break;
            }
        }
        let (density, loss) = piece.density_and_loss(end);
        let slope = density * -(epsilon - loss).exp_m1();
        if slope.is_nan() || slope <= 0.0 {
            break;
        }
        end += (tolerance / 2.0 - surplus) / slope;
    }
    best
}

/// Nodes and weights of Gauss and Legendre on (−1, 1) (Abramowitz, Stegun, table 25.4), of 3 and of 5 points.
const THREE: [(f64, f64); 3] = [
    (-0.774_596_669_241_483_4, 5.0 / 9.0),
    (0.0, 8.0 / 9.0),
    (0.774_596_669_241_483_4, 5.0 / 9.0),
];
const FIVE: [(f64, f64); 5] = [
    (-0.906_179_845_938_664, 0.236_926_885_056_189_08),
    (-0.538_469_310_105_683_1, 0.478_628_670_499_366_47),
    (0.0, 0.568_888_888_888_888_9),
    (0.538_469_310_105_683_1, 0.478_628_670_499_366_47),
    (0.906_179_845_938_664, 0.236_926_885_056_189_08),
];

/// ∫ P and ∫ P·`weight`(loss) from `low` to `high`. In an interval of at most a quarter of min(σ, σ²) five points leave a relative
/// error below 10⁻¹⁴, and three below 10⁻¹² in a sixteenth.
fn integrate(piece: &Piece, low: f64, high: f64, weight: impl Fn(f64) -> f64) -> [f64; 2] {
    let unit = WIDTH * piece.sigma.min(piece.sigma * piece.sigma);
    let parts = ((high - low) / unit).ceil().max(1.0);
    let half = (high - low) / parts / 2.0;
    let rule: &[(f64, f64)] = if 8.0 * half <= unit { &THREE } else { &FIVE };
    let mut sums = [0.0, 0.0];
    let mut part = 0.0;
    while part < parts {
        let middle = low + (2.0 * part + 1.0) * half;
        for (node, share) in rule {
            let (density, loss) = piece.density_and_loss(middle + half * node);
            let mass = density * share * half;
            sums[0] += mass;
            sums[1] += mass * weight(loss);
        }
        part += 1.0;
    }
    sums
}

/// The variance of the loss under P.
pub(super) fn variance(pair: &Pair) -> f64 {
    let (mut mean, mut square) = (0.0, 0.0);
    for piece in &pair.pieces {
        mean += integrate(piece, piece.low, piece.high, |loss| loss)[1];
        square += integrate(piece, piece.low, piece.high, |loss| loss * loss)[1];
    }
    (square - mean * mean).max(0.0)
}
