//! Rényi divergences of Gaussian sums over a random subset.

use crate::accounting::special::{ln_add, ln_erfc, ln_exp_m1, ln_one_plus_exp, ln_sub};

use std::f64::consts::{LN_2, SQRT_2};

/// Poisson sampling under add/remove: the divergence of order `order` of (1−q)·N(0, σ²) + q·N(1, σ²) from N(0, σ²), which is the
/// larger of the two directions (Mironov, Talwar, Zhang 2019, Theorem 5 and Corollary 7).
pub(super) fn poisson(q: f64, sigma: f64, order: f64) -> f64 {
    let ln_moment = if order.fract() == 0.0 {
        whole(q, sigma, order)
    } else {
        fractional(q, sigma, order)
    };
    ln_moment / (order - 1.0)
}

/// As [`poisson`] at a whole order of at least 2, without the code for the others. What is no such order costs everything.
pub(crate) fn sampled_at(q: f64, sigma: f64, order: f64) -> f64 {
    if !(order >= 2.0 && order.fract() == 0.0) {
        return f64::INFINITY;
    }
    if q == 1.0 {
        return order / (2.0 * sigma * sigma);
    }
    whole(q, sigma, order) / (order - 1.0)
}

/// ln A_α for whole α: A_α = Σₖ C(α, k)·(1−q)^(α−k)·qᵏ·e^((k² − k)/2σ²) (Mironov, Talwar, Zhang 2019, section 3.3). The weights
/// add up to 1 and k = 0, 1 have the exponent 0, so that A_α − 1 = Σ_{k ≥ 2} C(α, k)·(1−q)^(α−k)·qᵏ·(e^((k² − k)/2σ²) − 1),
/// in which nothing cancels.
fn whole(q: f64, sigma: f64, order: f64) -> f64 {
    let (ln_q, ln_rest) = (q.ln(), (-q).ln_1p());
    let (mut ln_choose, mut ln_excess, mut k) = (order.ln(), f64::NEG_INFINITY, 2.0);
    while k <= order {
        ln_choose += ((order - k + 1.0) / k).ln();
        let weight = ln_choose + k * ln_q + (order - k) * ln_rest;
        ln_excess = ln_add(
            ln_excess,
            weight + ln_exp_m1(k * (k - 1.0) / (2.0 * sigma * sigma)),
        );
        k += 1.0;
    }
    ln_one_plus_exp(ln_excess)
}

/// ln A_α for fractional α: both series of Mironov, Talwar, Zhang 2019, section 3.3, which split the integral at
/// z₀ = σ²·ln(1/q − 1) + 1/2, where the two parts of the mixture are equally likely.
fn fractional(q: f64, sigma: f64, order: f64) -> f64 {
    let (ln_q, ln_rest) = (q.ln(), (-q).ln_1p());
    let split = sigma * sigma * (ln_rest - ln_q) + 0.5;
    // Positive and negative terms apart.
    let (mut plus, mut minus) = (f64::NEG_INFINITY, f64::NEG_INFINITY);
    // ln |C(α, i)| and its sign.
    let (mut ln_choose, mut positive, mut i) = (0.0, true, 0.0);
    let half_tail = |x: f64| ln_erfc(x / (SQRT_2 * sigma)) - LN_2;
    let bend = |k: f64| (k * k - k) / (2.0 * sigma * sigma);
    loop {
        let j = order - i;
        let below = i * ln_q + j * ln_rest + bend(i) + half_tail(i - split);
        let above = j * ln_q + i * ln_rest + bend(j) + half_tail(split - j);
        let term = ln_choose + ln_add(below, above);
        if positive {
            plus = ln_add(plus, term);
        } else {
            minus = ln_add(minus, term);
        }
        // Beyond α the terms of either series alternate in sign and fall, so that what is left out is less than the last.
        if i > order && term < -36.0 || i > 1e6 {
            break;
        }
        let factor = j / (i + 1.0);
        ln_choose += factor.abs().ln();
        positive ^= factor < 0.0;
        i += 1.0;
    }
    let ln_moment = ln_sub(plus, minus.min(plus));
    if ln_moment > 1e-6 {
        return ln_moment;
    }
    // So near 0 the terms of order 1 leave few digits.
    integral(q, sigma, order).unwrap_or(ln_moment.max(1e-6))
}

/// Poisson sampling under replace-one: the divergence of P = (1−q)·N(0, σ²) + q·N(1, σ²) from Q, its mirror image.
pub(super) fn poisson_replace(q: f64, sigma: f64, order: f64) -> f64 {
    let one = |y: f64| ln_mixture(q, sigma, y);
    // ln(P/Q), and ln Q less the constant of the Gaussian.
    let loss = |y: f64| one(y) - one(-y);
    let ln_density = |y: f64| -y * y / (2.0 * sigma * sigma) + one(-y);
    // P/Q grows at most as e^(2y/σ²), so that the mode of Q·(P/Q)^α is at 2α at the most.
    let reach = (-1.0, 2.0 * order);
    match ln_excess(sigma, order, reach, loss, ln_density) {
        Some(ln_excess) => ln_one_plus_exp(ln_excess) / (order - 1.0),
        // Sampling only helps (quasi-convexity of the divergence): the cost without it.
        None => 2.0 * order / (sigma * sigma),
    }
}

/// ln A_α of [`poisson`] as an integral.
pub(super) fn integral(q: f64, sigma: f64, order: f64) -> Option<f64> {
    let loss = |y: f64| ln_mixture(q, sigma, y);
    let ln_density = |y: f64| -y * y / (2.0 * sigma * sigma);
    ln_excess(sigma, order, (0.0, order), loss, ln_density).map(ln_one_plus_exp)
}

/// ln ∫ Q·((P/Q)^α − 1 − α·(P/Q − 1)), which is ln(∫ Q·(P/Q)^α − 1), with an integrand that is nowhere negative: small costs
/// are not lost beside 1.
///
/// **What is left out.** P/Q is within e^(±y/σ²) times a constant (e^(±2y/σ²) for mirror images). Where (P/Q)^α decides, the integrand's
/// logarithm has a slope of at most (mode − y)/σ² beyond the last mode that `reach` names; where P/Q is near 1, the convexity is its square,
/// with modes up to 3 from 0. Beyond both it falls at least as a Gaussian of σ from there, and from there inwards no faster than one, so that
/// the tails beyond 12σ are less than √(2π)·Φ(−12)/0.6 < 10⁻³¹ of the integral.
fn ln_excess(
    sigma: f64,
    order: f64,
    reach: (f64, f64),
    loss: impl Fn(f64) -> f64,
    ln_density: impl Fn(f64) -> f64,
) -> Option<f64> {
    let (low, high) = (reach.0.min(-3.0) - 12.0 * sigma, reach.1.max(3.0) + 12.0 * sigma);
    let step = sigma.min(sigma * sigma) / 4.0;
    let f = |y: f64| ln_density(y) + ln_convexity(order, loss(y));
    ln_integral(low, high, step, f, sigma)
}

/// ln(e^(αL) − 1 − α·(e^L − 1)).
fn ln_convexity(order: f64, loss: f64) -> f64 {
    let grown = order * loss;
    if grown.abs() < 0.1 {
        // Σ_{n ≥ 2} (αⁿ − α)·Lⁿ/n!, in which the first terms no longer cancel.
        let (mut up, mut plain, mut sum) = (grown, order * loss, 0.0);
        for n in 2..14 {
            up *= grown / f64::from(n);
            plain *= loss / f64::from(n);
            sum += up - plain;
        }
        sum.max(0.0).ln()
    } else if grown < 30.0 {
        (grown.exp_m1() - order * loss.exp_m1()).max(0.0).ln()
    } else {
        grown + (-(order * (loss - grown).exp() + (1.0 - order) * (-grown).exp())).ln_1p()
    }
}

/// ln(1 − q + q·e^((2y − 1)/2σ²)): the log ratio of (1−q)·N(0, σ²) + q·N(1, σ²) and N(0, σ²) at y.
pub(crate) fn ln_mixture(q: f64, sigma: f64, y: f64) -> f64 {
    let t = (2.0 * y - 1.0) / (2.0 * sigma * sigma);
    if q == 1.0 {
        t
    } else if t > 30.0 {
        t + q.ln() + ((1.0 - q) / q * (-t).exp()).ln_1p()
    } else {
        (q * t.exp_m1()).ln_1p()
    }
}

/// The most points of an integral.
const MAX_POINTS: f64 = 1e6;

/// ln of ∫ e^f / (σ√2π) by the trapezium rule; nothing where it would take too many points, which happens for σ far below 1.
///
/// The integrands are analytic in a strip around the real axis of half-width πσ² or more and fall like a Gaussian; the rule's error
/// then falls exponentially with the number of points (Trefethen, Weideman 2014, Theorem 5.1): at a step of σ²/4 it is below
/// e^(−8π²).
fn ln_integral(low: f64, high: f64, step: f64, f: impl Fn(f64) -> f64, sigma: f64) -> Option<f64> {
    let points = ((high - low) / step).ceil();
    if points > MAX_POINTS {
        return None;
    }
    let (mut peak, mut sum, mut i) = (f64::NEG_INFINITY, 0.0, 0.0);
    while i <= points {
        let value = f(low + i * step);
        if value > peak {
            sum = sum * (peak - value).exp() + 1.0;
            peak = value;
        } else if value > f64::NEG_INFINITY {
            sum += (value - peak).exp();
        }
        i += 1.0;
    }
    Some(peak + (sum * step / (sigma * (2.0 * std::f64::consts::PI).sqrt())).ln())
}

/// Sampling without replacement under replace-one (Wang, Balle, Kasiviswanathan 2019, Theorem 27).
///
/// With r the curve of the sum over a whole batch, γ the batch's share, and B(l) the l-th moment of the likelihood ratio less 1:
/// e^((α−1)·r'(α)) ≤ 1 + C(α,2)·γ²·min{4(e^(r(2)) − 1), 2e^(r(2))}
///   + Σ_{j=3..α} C(α,j)·γʲ·min{4·√(B(2⌊j/2⌋)·B(2⌈j/2⌉)), 2e^((j−1)·r(j))}.
///
/// At fractional orders (α − 1)·r'(α), which is convex in α, is interpolated linearly (their Corollary 10).
pub(super) struct WithoutReplacement {
    ln_rate: f64,
    /// Noise over the distance of two sums.
    sigma: f64,
    /// ln B(2m) at place m.
    ln_moments: Vec<f64>,
}

impl WithoutReplacement {
    /// The highest moment that is computed. For terms beyond, the other bound of the minimum is taken alone.
    const MOMENTS: usize = 256;

    pub(super) fn new(rate: f64, sigma: f64, orders: &[f64]) -> Self {
        let highest = orders.iter().copied().fold(2.0, f64::max).ceil() as usize + 1;
        let ln_moments = (0..=highest.min(Self::MOMENTS) / 2)
            .map(|m| ln_moment(sigma, 2 * m).unwrap_or(f64::INFINITY))
            .collect();
        Self {
            ln_rate: rate.ln(),
            sigma,
            ln_moments,
        }
    }

    pub(super) fn at(&self, order: f64) -> f64 {
        let (below, above) = (order.floor(), order.ceil());
        let at_below = self.whole(below);
        let ln_moment = if above > below {
            at_below + (order - below) * (self.whole(above) - at_below)
        } else {
            at_below
        };
        ln_moment / (order - 1.0)
    }

    /// The bound on (α − 1)·r'(α) at a whole order.
    fn whole(&self, order: f64) -> f64 {
        // (j − 1)·r(j)
        let cumulant = |j: f64| j * (j - 1.0) / (2.0 * self.sigma * self.sigma);
        let (mut ln_choose, mut ln_excess, mut j) = (order.ln(), f64::NEG_INFINITY, 2.0);
        while j <= order {
            ln_choose += ((order - j + 1.0) / j).ln();
            let simple = LN_2 + cumulant(j);
            let index = j as usize;
            let tight = if index == 2 {
                4_f64.ln() + ln_exp_m1(cumulant(2.0))
            } else {
                match (
                    self.ln_moments.get(index / 2),
                    self.ln_moments.get(index.div_ceil(2)),
                ) {
                    (Some(low), Some(high)) => 4_f64.ln() + (low + high) / 2.0,
                    _ => f64::INFINITY,
                }
            };
            ln_excess = ln_add(ln_excess, ln_choose + j * self.ln_rate + simple.min(tight));
            j += 1.0;
        }
        ln_one_plus_exp(ln_excess)
    }
}

/// ln E[(e^L − 1)^l] for even l, where L = (2y − 1)/2σ² and y ~ N(0, σ²). Wang, Balle and Kasiviswanathan write it as the l-th
/// finite difference of e^((j−1)·r(j)), whose terms cancel; as an integral nothing does.
fn ln_moment(sigma: f64, l: usize) -> Option<f64> {
    if l == 0 {
        return Some(0.0);
    }
    let f = |y: f64| {
        let loss = (2.0 * y - 1.0) / (2.0 * sigma * sigma);
        let magnitude = if loss > 0.0 {
            ln_exp_m1(loss)
        } else {
            (-loss.exp_m1()).ln()
        };
        l as f64 * magnitude - y * y / (2.0 * sigma * sigma)
    };
    let (low, high) = (-1.0 - 14.0 * sigma, l as f64 + 1.0 + 14.0 * sigma);
    // Entire in y, with oscillations of period 2πσ².
    ln_integral(low, high, sigma.min(sigma * sigma) / 8.0, f, sigma)
}
