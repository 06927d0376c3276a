//! The distribution of the privacy loss, on a grid and composed by Fourier transform.

mod dots;
mod pair;

use super::error::check_delta;
use super::fft::{Complex, RealFft};
use super::{Adjacency, Composition, CompositionError, GaussianSum};
use dots::{OnGrid, Side};
use pair::Pair;

/// The grid step, which is that of most published values, where the two limits below allow it.
const USUAL_STEP: f64 = 1e-4;

/// The fewest and the most grid steps in one standard deviation of a single step's loss. The pessimistic rounding adds a sixth of a
/// grid step's square to its variance: at most 1/(6·25²) = 0.03 % of it, and about half of that to ε.
const FEWEST_IN_DEVIATION: f64 = 25.0;
const MOST_IN_DEVIATION: f64 = 256.0;

/// The most grid points, of a single step and of the composition.
const MAX_POINTS: f64 = (1 << 21) as f64;

/// Probability left outside the window of the composition, at both ends together. It is counted as an infinite loss.
const OUTSIDE: f64 = 1e-15;

/// The privacy loss of a composition of steps: how surely an observer who sees all the outputs can tell two adjacent inputs apart.
///
/// It holds, for each direction in which inputs can differ, two distributions of the loss ln(P/Q): one at least as bad as the truth and
/// one at most as bad (see `dots.rs`). Both are composed by Fourier transform (Koskela, Jälkö, Honkela, “Computing Tight Differential
/// Privacy Guarantees Using FFT”, AISTATS 2020, [arXiv:1906.03049](https://arxiv.org/abs/1906.03049)): the transform of one step to the
/// power of the number of steps. The window of the result is chosen by Chernoff's bound, and what can lie outside it is added to δ, as
/// is a bound on the rounding errors of the transforms.
///
/// ```
/// use unsaid_privacy::{Adjacency, accounting::{GaussianSum, LossDistribution, Sampling}};
/// let step = GaussianSum::new(1.0, Sampling::Poisson { rate: 0.01 })?;
/// let loss = LossDistribution::of(&[(step, 1_000)], Adjacency::AddRemove)?;
/// let (lower, upper) = loss.epsilon(1e-5)?;
/// assert!(lower <= upper && (upper - 1.8282).abs() < 1e-3);
/// # Ok::<(), unsaid_privacy::accounting::CompositionError>(())
/// ```
#[derive(Debug, Clone)]
pub struct LossDistribution {
    pessimistic: Vec<Composed>,
    optimistic: Vec<Composed>,
}

impl LossDistribution {
    /// The loss of these steps, each with its number of repetitions.
    ///
    /// # Errors
    /// [`CompositionError::NoSteps`] for no parts, [`CompositionError::Steps`] for more than [`Composition::MAX_STEPS`],
    /// [`CompositionError::FixedBatch`] for add/remove without replacement.
    pub fn of(parts: &[(GaussianSum, u64)], adjacency: Adjacency) -> Result<Self, CompositionError> {
        if parts.iter().all(|(_, count)| *count == 0) {
            return Err(CompositionError::NoSteps);
        }
        let steps = parts
            .iter()
            .fold(0_u64, |sum, (_, count)| sum.saturating_add(*count));
        if steps > Composition::MAX_STEPS {
            return Err(CompositionError::Steps(steps));
        }
        let mut pairs = Vec::new();
        for (step, count) in parts {
            step.check(adjacency)?;
            pairs.push((Pair::of_step(step, adjacency), *count));
        }
        let directions = pairs.iter().map(|(pairs, _)| pairs.len()).max().unwrap_or(1);
        let mut loss = Self {
            pessimistic: Vec::new(),
            optimistic: Vec::new(),
        };
        for direction in 0..directions {
            // A step with one pair is its own mirror image: the same in both directions.
            let pairs: Vec<(&Pair, u64)> = pairs
                .iter()
                .map(|(pairs, count)| (&pairs[direction.min(pairs.len() - 1)], *count))
                .collect();
            loss.pessimistic.push(compose(&pairs, Side::Pessimistic));
            loss.optimistic.push(compose(&pairs, Side::Optimistic));
        }
        Ok(loss)
    }

    /// A lower and an upper bound on ε at `delta`, of the steps' dominating pairs: what the steps are proved to keep is the upper one,
    /// and inputs that attain the lower one are known for Poisson sampling and without any.
    ///
    /// # Errors
    /// [`CompositionError::Delta`]; [`CompositionError::DeltaTooSmall`] where δ is below what the rounding errors leave.
    pub fn epsilon(&self, delta: f64) -> Result<(f64, f64), CompositionError> {
        check_delta(delta)?;
        let least = self
            .pessimistic
            .iter()
            .map(|composed| composed.extra)
            .fold(0.0, f64::max);
        // Where half of δ goes to errors, the answer says little.
        if 2.0 * least >= delta {
            return Err(CompositionError::DeltaTooSmall {
                delta,
                least: 2.0 * least,
            });
        }
        let worst = |composed: &[Composed], side| {
            composed
                .iter()
                .map(|composed| composed.epsilon(delta, side))
                .fold(0.0, f64::max)
        };
        let upper = worst(&self.pessimistic, Side::Pessimistic);
        let lower = worst(&self.optimistic, Side::Optimistic);
        if !upper.is_finite() {
            return Err(CompositionError::Overflow);
        }
        Ok((lower.min(upper), upper))
    }

    /// A lower and an upper bound on δ at `epsilon` ≥ 0.
    ///
    /// # Errors
    /// [`CompositionError::Epsilon`] for an ε that is negative, infinite or NaN.
    pub fn delta(&self, epsilon: f64) -> Result<(f64, f64), CompositionError> {
        if !(epsilon.is_finite() && epsilon >= 0.0) {
            return Err(CompositionError::Epsilon(epsilon));
        }
        let worst = |composed: &[Composed], side| {
            composed
                .iter()
                .map(|composed| composed.delta(epsilon, side))
                .fold(0.0, f64::max)
        };
        let upper = worst(&self.pessimistic, Side::Pessimistic);
        let lower = worst(&self.optimistic, Side::Optimistic);
        Ok((lower.min(upper), upper))
    }
}

/// The loss of a whole composition, in one direction.
#[derive(Debug, Clone)]
struct Composed {
    step: f64,
    /// The first loss, in grid steps.
    first: i64,
    mass: Vec<f64>,
    /// What to add to δ (and, for an optimistic one, to take off): infinite losses, the outside of the window, rounding.
    extra: f64,
}

/// The grid step for a composition: the finest that any part needs, unless there would be too many points.
fn grid_step(pairs: &[(&Pair, u64)]) -> f64 {
    let deviations: Vec<f64> = pairs
        .iter()
        .map(|(pair, count)| dots::variance(pair).sqrt() * (*count as f64).sqrt())
        .collect();
    let all = deviations.iter().map(|one| one * one).sum::<f64>().sqrt();
    let mut step = f64::INFINITY;
    for ((_, count), together) in pairs.iter().zip(deviations) {
        // A part that hardly counts beside the others needs no finer grid than one that does.
        let one = together.max(all / 10.0) / (*count as f64).sqrt();
        step = step.min(USUAL_STEP.clamp(one / MOST_IN_DEVIATION, one / FEWEST_IN_DEVIATION));
    }
    for (pair, _) in pairs {
        step = step.max(OnGrid::range(pair) / MAX_POINTS);
    }
    // Where the loss is always 0, any grid will do.
    if step > 0.0 { step } else { USUAL_STEP }
}

fn compose(pairs: &[(&Pair, u64)], side: Side) -> Composed {
    let mut step = grid_step(pairs);
    loop {
        let parts: Vec<(OnGrid, u64)> = pairs
            .iter()
            .filter(|(_, count)| *count > 0)
            .map(|(pair, count)| (OnGrid::of_pair(pair, step, side), *count))
            .collect();
        let (low, high) = window(&parts);
        if (high - low) as f64 <= MAX_POINTS {
            return convolve(&parts, low, high, side);
        }
        step *= ((high - low) as f64 / MAX_POINTS * 1.1).max(2.0);
    }
}

/// The losses, in grid steps, between which the composition's lies but for [`OUTSIDE`] (Chernoff's bound, for a set of rates).
fn window(parts: &[(OnGrid, u64)]) -> (i64, i64) {
    let step = parts.first().map_or(1.0, |(grid, _)| grid.step);
    let (mut least, mut most) = (0, 0);
    for (grid, count) in parts {
        let count = i64::try_from(*count).unwrap_or(i64::MAX);
        least += grid.first.saturating_mul(count);
        most += (grid.first + grid.mass.len() as i64 - 1).saturating_mul(count);
    }
    let room = (2.0 / OUTSIDE).ln();
    let deviation: f64 = parts
        .iter()
        .map(|(grid, count)| *count as f64 * grid.variance())
        .sum::<f64>()
        .sqrt();
    let bound = |sign: f64| {
        // Around the rate that suits a Gaussian. A loss with a long tail asks for a much smaller one.
        (-20..=8)
            .map(|i| {
                let rate = sign * 1.6f64.powi(i) * (2.0 * room).sqrt() / deviation.max(step);
                let ln_generating: f64 = parts
                    .iter()
                    .map(|(grid, count)| *count as f64 * grid.ln_generating(rate))
                    .sum();
                (ln_generating + room) / rate / step
            })
            .filter(|bound| bound.is_finite())
            .fold(sign * f64::INFINITY, |best, bound| {
                if sign > 0.0 {
                    best.min(bound)
                } else {
                    best.max(bound)
                }
            })
    };
    // A float beyond i64 becomes the nearest.
    (
        least.max(bound(-1.0).floor() as i64),
        most.min(bound(1.0).ceil() as i64),
    )
}

/// The relative error of a complex multiplication, √5 units (Brent, Percival, Zimmermann 2007), twice over: products of errors are far below
/// that, since what is added up for 10⁹ steps is below 10⁻⁴.
const MULTIPLIED: f64 = 2.24 * f64::EPSILON;

/// The parts' distributions, each to its power, in the window from `low` to `high`.
fn convolve(parts: &[(OnGrid, u64)], low: i64, high: i64, side: Side) -> Composed {
    let fft = RealFft::new((high - low) as usize + 1);
    let length = fft.length();
    let mut product = vec![Complex::ONE; length / 2 + 1];
    // Of each coefficient of the product: a bound on it, computed and true, and on how far apart the two are.
    let mut bounds = vec![(1.0, 0.0); product.len()];
    let rounding = fft.rounding();
    let mut infinite = 0.0;
    for (grid, count) in parts {
        let mut folded = vec![0.0; length];
        for (i, mass) in grid.mass.iter().enumerate() {
            folded[(grid.first + i as i64).rem_euclid(length as i64) as usize] += mass;
        }
        let k = *count as f64;
        let parts = product.iter_mut().zip(&mut bounds);
        for ((all, (most, apart)), one) in parts.zip(fft.forward(&folded)) {
            // With γ on the one: |ẑᵏ − zᵏ| ≤ kγ·(|ẑ| + γ)ᵏ⁻¹. To that the rounding of at most 2k multiplications for the power, and of the one
            // that follows.
            let base = one.magnitude_squared().sqrt() * (1.0 + f64::EPSILON) + rounding;
            let before = base.powf(k - 1.0) * (1.0 + f64::EPSILON);
            let power = before * base;
            *apart = *apart * power + *most * (k * rounding * before + (2.0 * k + 1.0) * MULTIPLIED * power);
            *most *= power;
            *all = all.times(one.power(*count));
        }
        infinite += k * grid.infinite;
    }
    let magnitudes: f64 = 2.0 * product.iter().map(|z| z.magnitude_squared().sqrt()).sum::<f64>();
    let circle = fft.inverse(&product);
    let mass: Vec<f64> = (low..=high)
        .map(|at| circle[at.rem_euclid(length as i64) as usize].max(0.0))
        .collect();
    // By Parseval, and since a sum over n numbers is at most √n times their 2-norm, errors of the coefficients move the result by their
    // 2-norm in sum; all but two of them stand for a conjugate, too. The inverse adds γ times the coefficients' sum.
    let apart = bounds.iter().map(|(_, apart)| apart * apart).sum::<f64>();
    let error = (2.0 * apart).sqrt() + rounding * magnitudes;
    Composed {
        step: parts.first().map_or(1.0, |(grid, _)| grid.step),
        first: low,
        mass,
        extra: match side {
            Side::Pessimistic => infinite + OUTSIDE + error,
            Side::Optimistic => OUTSIDE + error,
        },
    }
}

impl OnGrid {
    /// ln E[e^(rate·loss)], by Horner's rule from the end where the exponential is least.
    fn ln_generating(&self, rate: f64) -> f64 {
        let falling = (-rate.abs() * self.step).exp();
        let horner = |sum: f64, mass: &f64| sum * falling + mass;
        let last = self.first + self.mass.len() as i64 - 1;
        let (sum, at) = if rate > 0.0 {
            (self.mass.iter().fold(0.0, horner), last)
        } else {
            (self.mass.iter().rev().fold(0.0, horner), self.first)
        };
        sum.ln() + rate * at as f64 * self.step
    }

    fn variance(&self) -> f64 {
        let at = |i: usize| (self.first + i as i64) as f64 * self.step;
        let mean: f64 = self.mass.iter().enumerate().map(|(i, mass)| mass * at(i)).sum();
        self.mass
            .iter()
            .enumerate()
            .map(|(i, mass)| mass * (at(i) - mean).powi(2))
            .sum()
    }
}

impl Composed {
    /// δ(ε) = Σ P(loss)·(1 − e^(ε−loss)) over losses above ε, widened.
    fn delta(&self, epsilon: f64, side: Side) -> f64 {
        let sum: f64 = self
            .mass
            .iter()
            .enumerate()
            .rev()
            .map(|(i, mass)| (mass, epsilon - (self.first + i as i64) as f64 * self.step))
            .take_while(|(_, exponent)| *exponent < 0.0)
            .map(|(mass, exponent)| mass * -exponent.exp_m1())
            .sum();
        match side {
            Side::Pessimistic => (sum + self.extra).min(1.0),
            Side::Optimistic => (sum - self.extra).max(0.0),
        }
    }

    /// The least ε ≥ 0 with δ(ε) at most `delta`.
    ///
    /// From the top: with S the mass above a grid point and D the value of δ there, the next point below has
    /// D' = (1 − e^(−h))·S + e^(−h)·D, in which nothing cancels. Between the two, δ is straight in e^ε.
    fn epsilon(&self, delta: f64, side: Side) -> f64 {
        let delta = match side {
            Side::Pessimistic => delta - self.extra,
            Side::Optimistic => delta + self.extra,
        };
        let (keep, full) = ((-self.step).exp(), -(-self.step).exp_m1());
        let (mut above, mut here) = (0.0, 0.0);
        for (i, mass) in self.mass.iter().enumerate().rev() {
            let at = self.first + i as i64;
            if at <= 0 {
                break;
            }
            // `here` is δ at this grid point, `above` the mass from here on up.
            above += mass;
            let below = full * above + keep * here;
            if below > delta {
                // e^(ε − at·h) = (above − δ)/(above − here)
                let change = (-(delta - here) / (above - here)).ln_1p();
                return (at as f64 * self.step + change).max(0.0);
            }
            here = below;
        }
        0.0
    }
}

#[cfg(test)]
mod tests;
