//! Steps put together, and the questions that are asked about them.

use super::analytic::epsilon_at;
use super::error::{check_delta, check_epsilon};
use super::{Adjacency, CompositionError, GaussianSum, LossDistribution, RdpCurve, Sampling, usual_orders};

/// Which computation to trust with a composition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Accountant {
    /// [`RdpCurve`] over [`usual_orders`]: fast, and up to a few tens of percent above the truth.
    Rdp,
    /// [`LossDistribution`]: within a few parts in 10⁴ of the truth.
    Pld,
}

/// ε, and what is known about how near it is.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct EpsilonBounds {
    /// The guarantee: the upper bound.
    pub epsilon: f64,
    /// No accountant can prove less: a lower bound on the ε of the steps' dominating pair, which for Poisson sampling, and without any,
    /// is what the worst inputs attain. 0 where nothing is known, as with sampling without replacement, where no inputs are known to
    /// attain it.
    pub lower: f64,
    /// The steps are (ε, δ)-differentially private with this ε.
    pub upper: f64,
}

/// Gaussian sums, one after the other, each seeing what the ones before gave.
///
/// ```
/// use unsaid_privacy::Adjacency;
/// use unsaid_privacy::accounting::{Accountant, Composition, GaussianSum, Sampling};
/// let step = GaussianSum::new(4.0, Sampling::Poisson { rate: 0.01 })?;
/// let training = Composition::new(Adjacency::AddRemove).repeat(step, 10_000)?;
/// let rdp = training.epsilon(Accountant::Rdp, 1e-5)?;
/// let pld = training.epsilon(Accountant::Pld, 1e-5)?;
/// assert!((rdp.epsilon - 1.0355).abs() < 1e-4 && (pld.epsilon - 0.9470).abs() < 1e-3);
/// # Ok::<(), unsaid_privacy::accounting::CompositionError>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Composition {
    adjacency: Adjacency,
    parts: Vec<(GaussianSum, u64)>,
    steps: u64,
}

impl Composition {
    /// The most steps.
    pub const MAX_STEPS: u64 = 1_000_000_000;

    /// No steps yet.
    pub const fn new(adjacency: Adjacency) -> Self {
        Self {
            adjacency,
            parts: Vec::new(),
            steps: 0,
        }
    }

    /// Adds `count` steps of the same kind. The order does not matter.
    ///
    /// # Errors
    /// [`CompositionError::Steps`] for 0, or where there would be more than [`Self::MAX_STEPS`];
    /// [`CompositionError::FixedBatch`] for add/remove without replacement.
    pub fn repeat(mut self, step: GaussianSum, count: u64) -> Result<Self, CompositionError> {
        step.check(self.adjacency)?;
        let steps = self.steps.saturating_add(count);
        if count == 0 || steps > Self::MAX_STEPS {
            return Err(CompositionError::Steps(count));
        }
        self.steps = steps;
        match self.parts.iter_mut().find(|(known, _)| *known == step) {
            Some((_, known)) => *known += count,
            None => self.parts.push((step, count)),
        }
        Ok(self)
    }

    /// For which adjacent inputs it counts.
    pub const fn adjacency(&self) -> Adjacency {
        self.adjacency
    }

    /// The cost as a curve over these orders.
    ///
    /// # Errors
    /// [`CompositionError::NoSteps`], [`CompositionError::Order`].
    pub fn rdp(&self, orders: &[f64]) -> Result<RdpCurve, CompositionError> {
        if self.parts.is_empty() {
            return Err(CompositionError::NoSteps);
        }
        self.parts
            .iter()
            .try_fold(RdpCurve::nothing(orders)?, |sum, (step, count)| {
                sum.plus(&RdpCurve::of_sum(step, self.adjacency, orders)?.times(*count))
            })
    }

    /// The distribution of the privacy loss. Steps without sampling are put together first: k of noise multiplier z are one of
    /// z/√k.
    ///
    /// # Errors
    /// [`CompositionError::NoSteps`], and [`CompositionError::Overflow`] where that is below [`GaussianSum::MIN_NOISE_MULTIPLIER`].
    pub fn loss(&self) -> Result<LossDistribution, CompositionError> {
        let mut parts: Vec<(GaussianSum, u64)> = self
            .parts
            .iter()
            .filter(|(step, _)| step.sampling() != Sampling::All)
            .copied()
            .collect();
        let mu = self.unsampled_mu();
        if mu > 0.0 {
            let multiplier = self.adjacency.sensitivity_factor() / mu;
            if multiplier < GaussianSum::MIN_NOISE_MULTIPLIER {
                return Err(CompositionError::Overflow);
            }
            parts.push((GaussianSum::unchecked(multiplier.next_down()), 1));
        }
        LossDistribution::of(&parts, self.adjacency)
    }

    /// ε at `delta`.
    ///
    /// # Errors
    /// [`CompositionError::NoSteps`], [`CompositionError::Delta`], [`CompositionError::DeltaTooSmall`] (only for
    /// [`Accountant::Pld`]) and [`CompositionError::Overflow`] where the answer is not a finite number.
    pub fn epsilon(&self, accountant: Accountant, delta: f64) -> Result<EpsilonBounds, CompositionError> {
        check_delta(delta)?;
        if self.parts.is_empty() {
            return Err(CompositionError::NoSteps);
        }
        let pld = || {
            if self
                .parts
                .iter()
                .all(|(step, _)| step.sampling() == Sampling::All)
            {
                // The composition is one Gaussian: exact, but for rounding. δ is the difference of two probabilities, the second of which is
                // what δ loses for each bit of ε: rounding both moves ε by a few units of 1, whatever the noise.
                let epsilon = epsilon_at(self.unsampled_mu(), delta);
                let slack = 1e-9 * epsilon + 1e-14;
                return Ok(((epsilon - slack).max(0.0), epsilon + slack));
            }
            self.loss()?.epsilon(delta)
        };
        let (lower, upper) = match accountant {
            Accountant::Rdp => {
                let (upper, _) = self.rdp(&usual_orders())?.epsilon(delta)?;
                // The truth's lower bound is one for every accountant; where it is not known, it is 0.
                (pld().map_or(0.0, |(lower, _)| lower), upper)
            }
            Accountant::Pld => pld()?,
        };
        if !upper.is_finite() {
            return Err(CompositionError::Overflow);
        }
        let attained = self
            .parts
            .iter()
            .all(|(step, _)| !matches!(step.sampling(), Sampling::WithoutReplacement { .. }));
        Ok(EpsilonBounds {
            epsilon: upper,
            lower: if attained { lower.min(upper) } else { 0.0 },
            upper,
        })
    }

    /// √(Σ counts/z²)·s over the steps without sampling.
    fn unsampled_mu(&self) -> f64 {
        self.parts
            .iter()
            .filter(|(step, _)| step.sampling() == Sampling::All)
            .map(|(step, count)| *count as f64 / step.noise_multiplier().powi(2))
            .sum::<f64>()
            .sqrt()
            * self.adjacency.sensitivity_factor()
    }

    /// The upper bound alone.
    fn upper(&self, accountant: Accountant, delta: f64) -> Result<f64, CompositionError> {
        match accountant {
            Accountant::Rdp => Ok(self.rdp(&usual_orders())?.epsilon(delta)?.0),
            Accountant::Pld => Ok(self.epsilon(accountant, delta)?.upper),
        }
    }
}

/// The least noise multiplier with which `steps` steps keep (`epsilon`, `delta`), to within one part in 10⁴ and never below.
///
/// # Errors
/// [`CompositionError::TargetEpsilon`], [`CompositionError::Delta`], [`CompositionError::Steps`],
/// [`CompositionError::SamplingRate`], [`CompositionError::FixedBatch`], and [`CompositionError::Unreachable`] where even the
/// largest noise multiplier is not enough.
pub fn noise_multiplier(
    epsilon: f64,
    delta: f64,
    sampling: Sampling,
    steps: u64,
    adjacency: Adjacency,
    accountant: Accountant,
) -> Result<f64, CompositionError> {
    const PRECISION: f64 = 1e-4;
    check_epsilon(epsilon)?;
    check_delta(delta)?;
    let fits = |multiplier: f64, accountant| {
        let step = GaussianSum::new(multiplier, sampling)?;
        match Composition::new(adjacency)
            .repeat(step, steps)?
            .upper(accountant, delta)
        {
            Ok(found) => Ok(found <= epsilon),
            // So little noise that no number comes out.
            Err(CompositionError::Overflow) => Ok(false),
            Err(error) => Err(error),
        }
    };
    // The quick accountant first: the tight one needs no more noise than it.
    let (mut low, mut high) = (GaussianSum::MIN_NOISE_MULTIPLIER, 1.0);
    while !fits(high, Accountant::Rdp)? {
        low = high;
        high *= 2.0;
        if high > GaussianSum::MAX_NOISE_MULTIPLIER {
            return Err(CompositionError::Unreachable);
        }
    }
    let narrow = |low: &mut f64, high: &mut f64, accountant| -> Result<(), CompositionError> {
        while *high > *low * (1.0 + PRECISION) {
            let middle = (*low * *high).sqrt();
            if fits(middle, accountant)? {
                *high = middle;
            } else {
                *low = middle;
            }
        }
        Ok(())
    };
    narrow(&mut low, &mut high, Accountant::Rdp)?;
    if accountant == Accountant::Rdp {
        return Ok(high);
    }
    if !fits(high, Accountant::Pld)? {
        return Err(CompositionError::Unreachable);
    }
    let mut low = high;
    loop {
        low = (low * 0.8).max(GaussianSum::MIN_NOISE_MULTIPLIER);
        if !fits(low, Accountant::Pld)? {
            break;
        }
        high = low;
        if low == GaussianSum::MIN_NOISE_MULTIPLIER {
            return Ok(low);
        }
    }
    narrow(&mut low, &mut high, Accountant::Pld)?;
    Ok(high)
}

#[cfg(test)]
mod tests;
