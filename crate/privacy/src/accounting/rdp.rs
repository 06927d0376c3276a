//! Rényi differential privacy (Mironov 2017): a curve of costs over orders, which adds up order by order.

mod subsampled;

pub(super) use subsampled::ln_mixture;
pub(crate) use subsampled::sampled_at;

use super::error::check_delta;
use super::{Adjacency, CompositionError, GaussianSum, Rho, Sampling};

/// The cost of a mechanism at a number of orders α > 1: the Rényi divergence of order α between its outputs on any two adjacent
/// inputs is at most the value there (Mironov, “Rényi Differential Privacy”, CSF 2017,
/// [arXiv:1702.07476](https://arxiv.org/abs/1702.07476)).
///
/// Curves over the same orders add up under composition, also where a step is chosen after seeing the ones before (Mironov 2017,
/// Proposition 1).
///
/// ```
/// use unsaid_privacy::{Adjacency, accounting::{GaussianSum, RdpCurve, Sampling, usual_orders}};
/// let step = GaussianSum::new(1.0, Sampling::Poisson { rate: 0.01 })?;
/// let curve = RdpCurve::of_sum(&step, Adjacency::AddRemove, &usual_orders())?.times(1_000);
/// assert!((curve.epsilon(1e-5)?.0 - 2.1014).abs() < 5e-5);
/// # Ok::<(), unsaid_privacy::accounting::CompositionError>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct RdpCurve {
    orders: Vec<f64>,
    values: Vec<f64>,
}

/// The orders that programs in use try: 1.1, 1.2, …, 10.9, 11, 12, …, 63, and, for very small costs, 128, 256, 512, 1024.
pub fn usual_orders() -> Vec<f64> {
    (1..100)
        .map(|i| 1.0 + f64::from(i) / 10.0)
        .chain((11..64).map(f64::from))
        .chain([128.0, 256.0, 512.0, 1024.0])
        .collect()
}

/// The largest order. Above it sums over orders take too long, and no ε that means anything needs it.
const MAX_ORDER: f64 = 4096.0;

impl RdpCurve {
    /// Nothing spent.
    ///
    /// # Errors
    /// [`CompositionError::Order`] for no orders, and for one that is not above 1 and at most 4,096.
    pub fn nothing(orders: &[f64]) -> Result<Self, CompositionError> {
        Self::from_cost(orders, |_| 0.0)
    }

    /// A cost in ρ-zCDP: ρα (Bun, Steinke 2016, Definition 1.1). With [`Rho::local_round`] this is the curve of discrete
    /// Gaussian noise on every coordinate (CKS 2020, Theorem 14), which costs no more than the continuous one.
    ///
    /// # Errors
    /// As [`Self::nothing`].
    pub fn of_rho(rho: Rho, orders: &[f64]) -> Result<Self, CompositionError> {
        Self::from_cost(orders, |order| order * rho.get())
    }

    /// One sum with Gaussian noise. With s the largest distance of two sums (1 for add/remove, 2 for replace-one) and σ the noise
    /// multiplier:
    /// - no sampling: αs²/2σ² (Mironov 2017, Corollary 3);
    /// - Poisson, add/remove: Mironov, Talwar, Zhang, “Rényi Differential Privacy of the Sampled Gaussian Mechanism”, 2019,
    ///   [arXiv:1908.10530](https://arxiv.org/abs/1908.10530), section 3.3, at whole and at fractional orders;
    /// - Poisson, replace-one: the divergence of (1−q)·N(0, σ²) + q·N(1, σ²) from (1−q)·N(0, σ²) + q·N(−1, σ²), by numerical
    ///   integration. See PRIVACY.md for why no pair of adjacent inputs has a larger one;
    /// - without replacement, replace-one: Wang, Balle, Kasiviswanathan, “Subsampled Rényi Differential Privacy and Analytical
    ///   Moments Accountant”, AISTATS 2019, [arXiv:1808.00087](https://arxiv.org/abs/1808.00087), Theorem 27.
    ///
    /// # Errors
    /// As [`Self::nothing`], and [`CompositionError::FixedBatch`] for add/remove without replacement.
    pub fn of_sum(
        step: &GaussianSum,
        adjacency: Adjacency,
        orders: &[f64],
    ) -> Result<Self, CompositionError> {
        step.check(adjacency)?;
        let z = step.noise_multiplier();
        let distance = adjacency.sensitivity_factor();
        match (step.sampling(), adjacency) {
            (Sampling::All, _) => {
                Self::from_cost(orders, |order| order * distance * distance / (2.0 * z * z))
            }
            (Sampling::Poisson { rate }, Adjacency::AddRemove) => {
                Self::from_cost(orders, |order| subsampled::poisson(rate, z, order))
            }
            (Sampling::Poisson { rate }, Adjacency::ReplaceOne) => {
                Self::from_cost(orders, |order| subsampled::poisson_replace(rate, z, order))
            }
            (Sampling::WithoutReplacement { rate }, _) => {
                let bound = subsampled::WithoutReplacement::new(rate, z / distance, orders);
                Self::from_cost(orders, |order| bound.at(order))
            }
        }
    }

    /// One number with (continuous or discrete) Laplace noise of scale b, where one record changes the number by at most
    /// `sensitivity`: with a = distance / b, ln((sinh(αa) − sinh((α−1)a)) / sinh a) / (α − 1), which is what anything of pure ε = a
    /// costs at most (Bun, Steinke 2016, Proposition 3.3), and exact for discrete noise at distance 1. (The curve of Mironov 2017,
    /// Proposition 6, holds for continuous noise alone: discrete noise costs more than it.) The distance is the sensitivity under
    /// add/remove, and twice that under replace-one.
    ///
    /// # Errors
    /// As [`Self::nothing`], and [`CompositionError::LaplaceScale`] for a scale over sensitivity that is not a finite number
    /// above 0.
    pub fn of_laplace(
        scale_over_sensitivity: f64,
        adjacency: Adjacency,
        orders: &[f64],
    ) -> Result<Self, CompositionError> {
        if !(scale_over_sensitivity.is_finite() && scale_over_sensitivity > 0.0) {
            return Err(CompositionError::LaplaceScale(scale_over_sensitivity));
        }
        let a = adjacency.sensitivity_factor() / scale_over_sensitivity;
        Self::from_cost(orders, |order| pure(a, order))
    }

    /// A curve by its values.
    pub(crate) fn from_cost(orders: &[f64], cost: impl Fn(f64) -> f64) -> Result<Self, CompositionError> {
        if let Some(order) = orders
            .iter()
            .find(|order| !(**order > 1.0 && **order <= MAX_ORDER))
        {
            return Err(CompositionError::Order(*order));
        }
        if orders.is_empty() {
            return Err(CompositionError::Order(f64::NAN));
        }
        // What cannot be computed is not known to be anything less than everything.
        let safe = |cost: f64| {
            if cost.is_nan() {
                f64::INFINITY
            } else {
                cost.max(0.0)
            }
        };
        let values = orders.iter().map(|order| safe(cost(*order))).collect();
        Ok(Self {
            orders: orders.to_vec(),
            values,
        })
    }

    /// The orders.
    pub fn orders(&self) -> &[f64] {
        &self.orders
    }

    /// The cost at each order.
    pub fn values(&self) -> &[f64] {
        &self.values
    }

    /// The cost of doing the same `count` times.
    #[must_use]
    pub fn times(mut self, count: u64) -> Self {
        for value in &mut self.values {
            *value *= count as f64;
        }
        self
    }

    /// The cost of both.
    ///
    /// # Errors
    /// [`CompositionError::OrdersDiffer`].
    pub fn plus(mut self, other: &Self) -> Result<Self, CompositionError> {
        if self.orders != other.orders {
            return Err(CompositionError::OrdersDiffer);
        }
        for (value, more) in self.values.iter_mut().zip(&other.values) {
            *value += more;
        }
        Ok(self)
    }

    /// ε at `delta`, and the order at which it was found: the least over the orders of
    /// r(α) + ln(1 − 1/α) − ln(αδ)/(α − 1) (CKS 2020, Proposition 12; the same as Asoodeh and others 2020, Lemma 1's relaxed
    /// form). Where r is so small that even the divergence of order 1 allows no more than δ, √(1 − e^(−r)) ≤ δ (Bretagnolle,
    /// Huber 1979), ε is 0.
    ///
    /// # Errors
    /// [`CompositionError::Delta`].
    pub fn epsilon(&self, delta: f64) -> Result<(f64, f64), CompositionError> {
        check_delta(delta)?;
        let mut best = (f64::INFINITY, self.orders[0]);
        for (order, value) in self.orders.iter().zip(&self.values) {
            let epsilon = if delta * delta + (-value).exp_m1() >= 0.0 {
                0.0
            } else {
                value + (-1.0 / order).ln_1p() - (delta * order).ln() / (order - 1.0)
            };
            if epsilon < best.0 {
                best = (epsilon.max(0.0), *order);
            }
        }
        Ok(best)
    }
}

/// The largest divergence of order α that pure `a`-differential privacy leaves room for: ln(cosh((α−½)a) / cosh(a/2)) / (α − 1),
/// which is [`RdpCurve::of_laplace`]'s by sinh x − sinh y = 2·cosh((x+y)/2)·sinh((x−y)/2).
fn pure(a: f64, order: f64) -> f64 {
    if (order - 1.0) * a > 1.0 {
        // ln cosh x = x + ln(1 + e^(−2x)) − ln 2: nothing overflows, however large a is.
        let rest = (-(2.0 * order - 1.0) * a).exp().ln_1p() - (-a).exp().ln_1p();
        (a + rest / (order - 1.0)).min(a)
    } else {
        // The ratio less 1 is 2·sinh(αa/2)·sinh((α−1)a/2) / cosh(a/2), so that small costs are not lost beside 1. Both sinh are
        // divided by e^(a/2), as is the cosh, for α near 1 and a large a.
        let (up, down) = (
            (order * a / 2.0 - a / 2.0).exp(),
            (-(order + 1.0) * a / 2.0).exp(),
        );
        let first = if order * a > 1.0 {
            (up - down) / 2.0
        } else {
            (order * a / 2.0).sinh() * (-a / 2.0).exp()
        };
        let excess = 4.0 * first * ((order - 1.0) * a / 2.0).sinh() / (1.0 + (-a).exp());
        (excess.ln_1p() / (order - 1.0)).min(a)
    }
}

#[cfg(test)]
mod tests;
