//! The exponential and logistic functions and the hyperbolic tangent, four numbers at once (`expf` is a call for each number, and in
//! wasm a slow one).
//!
//! `eˣ = 2ⁿ·eʳ` with `n = round(x / ln 2)` and `|r| ≤ ln 2 / 2`, and `eʳ − 1 = r + r²·q(r)` with a minimax polynomial `q` of degree
//! 4 (by Remez's exchange, coefficients rounded to `f32`), which is off by at most 6.3·10⁻⁸; `eʳ` thereby by 0.18 units of 2⁻²⁴
//! (relative), and `eʳ − 1` by 0.43. `ln 2` is taken off in two parts, the first of which has 16 bits, so that its product with
//! `n` is exact (Cody, Waite 1980, chapter 6); what is rounded off `r` is at most 0.25 units.
//!
//! With `u = 2⁻²⁴` for each rounded operation and `eʳ` good to `0.18 + 0.25 + 1.5` units (the last sum and what `r²·q` rounds):
//! - `σ(x) = 1 / (1 + e⁻ˣ)` is off by at most 1.93 + 1 + 1 < 4 units of 2⁻²⁴, relative: 4 ulp where the last bit weighs least, and
//!   2 where it weighs most.
//! - `tanh x = E / (E + 2)` with `E = e²ˣ − 1` for `x ≥ 0`, odd. For `n = 0` all errors of `E` are relative ones: `0.43 + 0.25 + 2`
//!   units. For `n ≥ 1` the error is that of `2ⁿ·(eʳ − 1)`, which is at most half of `E` and may have the other sign: below 3 units. Of
//!   either at most a share of `2 / (E + 2)` reaches the quotient, and the sum and the division add 2 units: 5 of 2⁻²⁴.
//!
//! Measured over every `f32` against `f64`: 2.49 and 3.20 units.

use crate::backend::matrix::lane::Lane;

/// Beyond ±87, `e^±x` nears the ends of the range of `f32`, and the logistic function is 0 or 1 to more digits than it has.
const LOGISTIC_LIMIT: f32 = 87.0;
/// From 9.02 on the hyperbolic tangent is 1 in `f32`.
const TANH_LIMIT: f32 = 10.0;

/// `[2ⁿ, eʳ − 1]` for `eˣ = 2ⁿ·eʳ`; `|x| ≤ 87`. NaN where `x` is.
#[inline(always)]
fn split<L: Lane>(x: L) -> [L; 2] {
    /// 1.5·2²³: adding it rounds to a whole number, which then is the low bits.
    const ROUND: f32 = 12_582_912.0;
    const LN_2_HIGH: f32 = 0.693_145_75;
    const LN_2_LOW: f32 = 1.428_606_8e-6;
    let shifted = L::splat(ROUND).add_product(x, L::splat(std::f32::consts::LOG2_E));
    let n = shifted.sub(L::splat(ROUND));
    let r = x
        .add_product(n, L::splat(-LN_2_HIGH))
        .add_product(n, L::splat(-LN_2_LOW));
    let q = L::splat(1.394_121_9e-3);
    let q = L::splat(8.363_235e-3).add_product(q, r);
    let q = L::splat(4.166_637_4e-2).add_product(q, r);
    let q = L::splat(1.666_657_6e-1).add_product(q, r);
    let q = L::splat(0.5).add_product(q, r);
    [shifted.power_of_shifted(), r.add_product(r.mul(r), q)]
}

/// `eˣ`, to within 1.93 units of 2⁻²⁴, relative; `e⁻⁸⁷`, some 10⁻³⁸, for everything below −87, and `e⁸⁷` above 87. NaN where `x` is.
#[inline(always)]
pub(crate) fn exp<L: Lane>(x: L) -> L {
    let [power, less_one] = split(
        x.at_most(L::splat(LOGISTIC_LIMIT))
            .at_least(L::splat(-LOGISTIC_LIMIT)),
    );
    power.mul(less_one.add(L::splat(1.0)))
}

/// `1 / (1 + e⁻ˣ)`; NaN where `x` is.
#[inline(always)]
pub(crate) fn logistic<L: Lane>(x: L) -> L {
    let one = L::splat(1.0);
    one.div(one.add(exp(L::splat(0.0).sub(x))))
}

/// The hyperbolic tangent; NaN where `x` is.
#[inline(always)]
pub(crate) fn tanh<L: Lane>(x: L) -> L {
    let (one, sign) = (L::splat(1.0), x.sign());
    let size = x.abs().at_most(L::splat(TANH_LIMIT));
    let [power, less_one] = split(size.add(size));
    let less_one = power.sub(one).add_product(power, less_one);
    less_one.div(less_one.add(L::splat(2.0))).or(sign)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The largest error of `f` over all numbers up to `limit`, in units of 2⁻²⁴ of the true value.
    fn worst(f: impl Fn(f32) -> f32, truth: impl Fn(f64) -> f64, limit: f32, step: usize) -> f64 {
        (0..=limit.to_bits())
            .step_by(step)
            .flat_map(|bits| [f32::from_bits(bits), -f32::from_bits(bits)])
            .filter(|x| x.is_normal())
            .fold(0.0, |worst: f64, x| {
                let truth = truth(f64::from(x));
                let error = (f64::from(f(x)) - truth).abs() / truth.abs();
                worst.max(error * 2f64.powi(24))
            })
    }

    fn true_logistic(x: f64) -> f64 {
        1.0 / (1.0 + (-x).exp())
    }

    #[test]
    fn errors_are_within_their_bounds() {
        let step = 509;
        let logistic = worst(logistic::<f32>, true_logistic, LOGISTIC_LIMIT, step);
        let tanh = worst(tanh::<f32>, f64::tanh, 30.0, step);
        assert!(logistic <= 4.0, "{logistic}");
        assert!(tanh <= 5.0, "{tanh}");
        // The bounds are not idle: the last bit is missed somewhere.
        assert!(logistic > 0.5 && tanh > 0.5, "{logistic} {tanh}");
    }

    #[test]
    #[ignore = "two minutes; the figures in the module's text are from here"]
    fn errors_over_every_number() {
        println!("{}", worst(logistic::<f32>, true_logistic, LOGISTIC_LIMIT, 1));
        println!("{}", worst(tanh::<f32>, f64::tanh, 30.0, 1));
    }

    #[test]
    fn ends_and_nan() {
        assert_eq!(logistic(0.0f32), 0.5);
        assert_eq!(logistic(f32::INFINITY), 1.0);
        assert!(logistic(f32::NEG_INFINITY) < 1e-37);
        assert_eq!([tanh(f32::INFINITY), tanh(f32::NEG_INFINITY)], [1.0, -1.0]);
        assert_eq!(tanh(-0.0).to_bits(), (-0.0f32).to_bits());
        assert_eq!(tanh(f32::MIN_POSITIVE), f32::MIN_POSITIVE);
        assert!(logistic(f32::NAN).is_nan() && tanh(f32::NAN).is_nan());
    }
}
