//! The logistic function and the hyperbolic tangent, in arithmetic that the compiler turns into SIMD and that gives the same
//! bits on every platform (`expf` is a call for each number, and in wasm a slow one).
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

/// Beyond ±87, `e^±x` nears the ends of the range of `f32`, and the logistic function is 0 or 1 to more digits than it has.
const LOGISTIC_LIMIT: f32 = 87.0;
/// From 9.02 on the hyperbolic tangent is 1 in `f32`.
const TANH_LIMIT: f32 = 10.0;

/// `[2ⁿ, eʳ − 1]` for `eˣ = 2ⁿ·eʳ`; `|x| ≤ 87`. NaN where `x` is.
#[inline(always)]
fn split(x: f32) -> [f32; 2] {
    /// 1.5·2²³: adding it rounds to a whole number, which then is the low bits.
    const ROUND: f32 = 12_582_912.0;
    const LN_2_HIGH: f32 = 0.693_145_75;
    const LN_2_LOW: f32 = 1.428_606_8e-6;
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = (x - n * LN_2_HIGH) - n * LN_2_LOW;
    let q = 1.394_121_9e-3_f32;
    let q = q * r + 8.363_235e-3;
    let q = q * r + 4.166_637_4e-2;
    let q = q * r + 1.666_657_6e-1;
    let q = q * r + 0.5;
    let power = f32::from_bits((shifted.to_bits() << 23).wrapping_add(1f32.to_bits()));
    [power, r + r * r * q]
}

/// `eˣ`, to within 1.93 units of 2⁻²⁴, relative; `e⁻⁸⁷`, some 10⁻³⁸, for everything below −87, and `e⁸⁷` above 87. NaN where `x` is.
#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
    let x = if x > LOGISTIC_LIMIT { LOGISTIC_LIMIT } else { x };
    let x = if x < -LOGISTIC_LIMIT { -LOGISTIC_LIMIT } else { x };
    let [power, less_one] = split(x);
    power * (1.0 + less_one)
}

/// `1 / (1 + e⁻ˣ)`; NaN where `x` is.
#[inline(always)]
pub(super) fn logistic(x: f32) -> f32 {
    // Comparisons and not `clamp` or `min`: they let NaN through, and are one instruction each.
    let x = if x > LOGISTIC_LIMIT { LOGISTIC_LIMIT } else { x };
    let x = if x < -LOGISTIC_LIMIT { -LOGISTIC_LIMIT } else { x };
    let [power, less_one] = split(-x);
    1.0 / (1.0 + power * (1.0 + less_one))
}

/// The hyperbolic tangent; NaN where `x` is.
#[inline(always)]
pub(super) fn tanh(x: f32) -> f32 {
    let size = x.abs();
    let size = if size > TANH_LIMIT { TANH_LIMIT } else { size };
    let [power, less_one] = split(2.0 * size);
    let less_one = power * less_one + (power - 1.0);
    (less_one / (less_one + 2.0)).copysign(x)
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
        let logistic = worst(logistic, true_logistic, LOGISTIC_LIMIT, step);
        let tanh = worst(tanh, f64::tanh, 30.0, step);
        assert!(logistic <= 4.0, "{logistic}");
        assert!(tanh <= 5.0, "{tanh}");
        // The bounds are not idle: the last bit is missed somewhere.
        assert!(logistic > 0.5 && tanh > 0.5, "{logistic} {tanh}");
    }

    #[test]
    #[ignore = "two minutes; the figures in the module's text are from here"]
    fn errors_over_every_number() {
        println!("{}", worst(logistic, true_logistic, LOGISTIC_LIMIT, 1));
        println!("{}", worst(tanh, f64::tanh, 30.0, 1));
    }

    #[test]
    fn ends_and_nan() {
        assert_eq!(logistic(0.0), 0.5);
        assert_eq!(logistic(f32::INFINITY), 1.0);
        assert!(logistic(f32::NEG_INFINITY) < 1e-37);
        assert_eq!([tanh(f32::INFINITY), tanh(f32::NEG_INFINITY)], [1.0, -1.0]);
        assert_eq!(tanh(-0.0).to_bits(), (-0.0f32).to_bits());
        assert_eq!(tanh(f32::MIN_POSITIVE), f32::MIN_POSITIVE);
        assert!(logistic(f32::NAN).is_nan() && tanh(f32::NAN).is_nan());
    }
}
