//! Dominating pairs of distributions on the line: what the outputs of one step can be compared to, in the worst case.
//!
//! A pair (P, Q) dominates a mechanism where sup over events of P − e^ε·Q is, at every ε, at least that of the mechanism's outputs
//! on adjacent inputs. Pairs that dominate steps dominate, composed, their composition (Zhu, Dong, Wang, “Optimal Accounting of
//! Differential Privacy via Characteristic Function”, AISTATS 2022, [arXiv:2106.08567](https://arxiv.org/abs/2106.08567), Theorem
//! 10).

use crate::accounting::rdp::ln_mixture;
use crate::accounting::special::normal_cdf;
use crate::accounting::{Adjacency, GaussianSum, Sampling};

/// A part of a pair on which the loss ln(P/Q) rises with y, for y between two limits.
#[derive(Debug, Clone, Copy)]
pub(super) struct Piece {
    shape: Shape,
    q: f64,
    pub(super) sigma: f64,
    pub(super) low: f64,
    pub(super) high: f64,
}

/// With N(m) for the normal distribution of mean m and standard deviation σ, and mix(m) = (1−q)·N(0) + q·N(m):
#[derive(Debug, Clone, Copy, PartialEq)]
enum Shape {
    /// (mix(1), N(0)): a record is taken away.
    Remove,
    /// (N(0), mix(−1)): a record comes in.
    Add,
    /// (mix(1), mix(−1)): a record is replaced.
    Replace,
}

/// How far out a normal distribution is looked at, in σ: 10⁻²³ is beyond.
const REACH: f64 = 10.0;

impl Piece {
    const fn new(shape: Shape, q: f64, sigma: f64) -> Self {
        let (low, high) = match shape {
            Shape::Add => (-REACH * sigma, REACH * sigma),
            Shape::Remove | Shape::Replace => (-REACH * sigma, 1.0 + REACH * sigma),
        };
        Self {
            shape,
            q,
            sigma,
            low,
            high,
        }
    }

    /// ln(P/Q) at y.
    pub(super) fn loss(&self, y: f64) -> f64 {
        let remove = |y| ln_mixture(self.q, self.sigma, y);
        match self.shape {
            Shape::Remove => remove(y),
            Shape::Add => -remove(-y),
            Shape::Replace => remove(y) - remove(-y),
        }
    }

    /// The density of P at y and the loss there.
    pub(super) fn density_and_loss(&self, y: f64) -> (f64, f64) {
        let gaussian = -y * y / (2.0 * self.sigma * self.sigma);
        let scale = 1.0 / (self.sigma * (2.0 * std::f64::consts::PI).sqrt());
        let up = ln_mixture(self.q, self.sigma, if self.shape == Shape::Add { -y } else { y });
        match self.shape {
            Shape::Remove => (scale * (gaussian + up).exp(), up),
            Shape::Add => (scale * gaussian.exp(), -up),
            Shape::Replace => (
                scale * (gaussian + up).exp(),
                up - ln_mixture(self.q, self.sigma, -y),
            ),
        }
    }

    /// Where the loss is `loss`, within the limits.
    pub(super) fn at_loss(&self, loss: f64) -> f64 {
        let y = match self.shape {
            Shape::Remove => self.removed_at(loss),
            Shape::Add => -self.removed_at(-loss),
            Shape::Replace => {
                let y = self.replaced_at(loss.abs());
                if loss < 0.0 { -y } else { y }
            }
        };
        // NaN, which no finite loss gives, would be the upper limit.
        if y < self.low { self.low } else { y.min(self.high) }
    }

    /// y with ln(1 − q + q·e^((2y−1)/2σ²)) = `loss`.
    fn removed_at(&self, loss: f64) -> f64 {
        let ln_ratio = if self.q == 1.0 {
            loss
        } else if loss > 30.0 {
            loss + (-(1.0 - self.q) * (-loss).exp()).ln_1p() - self.q.ln()
        } else {
            let ratio = (loss.exp_m1() + self.q) / self.q;
            if ratio <= 0.0 {
                return f64::NEG_INFINITY;
            }
            ratio.ln()
        };
        self.sigma * self.sigma * ln_ratio + 0.5
    }

    /// The same for the loss of a replacement, at least 0: with E = e^loss, c = q·e^(−1/2σ²) and u = e^(y/σ²), the positive root of
    /// c·u² − (1−q)(E−1)·u − E·c = 0.
    fn replaced_at(&self, loss: f64) -> f64 {
        let ln_c = self.q.ln() - 0.5 / (self.sigma * self.sigma);
        // All divided by E.
        let b = (1.0 - self.q) * -(-loss).exp_m1();
        let c_squared = (2.0 * ln_c - loss).exp();
        let root = (b + (b * b + 4.0 * c_squared).sqrt()) / 2.0;
        let ln_u = if root > 0.0 {
            root.ln() + loss - ln_c
        } else {
            loss / 2.0
        };
        self.sigma * self.sigma * ln_u
    }

    fn up_to(self, high: f64) -> Self {
        Self {
            high: high.min(self.high),
            ..self
        }
    }

    fn from(self, low: f64) -> Self {
        Self {
            low: low.max(self.low),
            ..self
        }
    }
}

/// A pair of distributions, by its pieces in rising order of the loss.
#[derive(Debug, Clone)]
pub(super) struct Pair {
    pub(super) pieces: Vec<Piece>,
    /// P's mass at loss 0, besides the pieces.
    pub(super) at_zero: f64,
}

impl Pair {
    /// The pairs that dominate a step, one for each direction in which inputs can differ. The guarantee is the worst of them.
    ///
    /// - Add/remove, Poisson: two directions (Zhu, Dong, Wang 2022, Theorem 11; Koskela, Jälkö, Honkela 2020).
    /// - Replace-one, Poisson: one, which is its own mirror image. See PRIVACY.md for the proof.
    /// - Replace-one, without replacement: the curve of Zhu, Dong, Wang 2022, Theorem 11, which is that of (mix, N) above loss 0
    ///   and that of (N, mix) below, with sums 2 apart; the two meet in an atom at 0.
    pub(super) fn of_step(step: &GaussianSum, adjacency: Adjacency) -> Vec<Self> {
        let z = step.noise_multiplier();
        let one = |piece| Self {
            pieces: vec![piece],
            at_zero: 0.0,
        };
        match (step.sampling(), adjacency) {
            (Sampling::All, _) => {
                vec![one(Piece::new(
                    Shape::Remove,
                    1.0,
                    z / adjacency.sensitivity_factor(),
                ))]
            }
            (Sampling::Poisson { rate }, Adjacency::AddRemove) => vec![
                one(Piece::new(Shape::Remove, rate, z)),
                one(Piece::new(Shape::Add, rate, z)),
            ],
            (Sampling::Poisson { rate }, Adjacency::ReplaceOne) => {
                vec![one(Piece::new(Shape::Replace, rate, z))]
            }
            (Sampling::WithoutReplacement { rate }, _) => {
                let sigma = z / adjacency.sensitivity_factor();
                // Loss 0 is at y = 1/2 and, mirrored, at −1/2.
                let above = Piece::new(Shape::Remove, rate, sigma).from(0.5);
                let below = Piece::new(Shape::Add, rate, sigma).up_to(-0.5);
                let middle = normal_cdf(0.5 / sigma) - normal_cdf(-0.5 / sigma);
                vec![Self {
                    pieces: vec![below, above],
                    at_zero: (1.0 - rate) * middle,
                }]
            }
        }
    }
}
