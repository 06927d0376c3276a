//! A Fourier transform of real vectors, no larger than the accountant needs.

use std::f64::consts::TAU;

/// A complex number.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Complex {
    pub(super) re: f64,
    pub(super) im: f64,
}

impl Complex {
    pub(super) const ONE: Self = Self { re: 1.0, im: 0.0 };

    #[inline]
    pub(super) fn times(self, other: Self) -> Self {
        Self {
            re: self.re * other.re - self.im * other.im,
            im: self.re * other.im + self.im * other.re,
        }
    }

    #[inline]
    fn plus(self, other: Self) -> Self {
        Self {
            re: self.re + other.re,
            im: self.im + other.im,
        }
    }

    #[inline]
    fn minus(self, other: Self) -> Self {
        Self {
            re: self.re - other.re,
            im: self.im - other.im,
        }
    }

    #[inline]
    const fn conjugate(self) -> Self {
        Self {
            re: self.re,
            im: -self.im,
        }
    }

    pub(super) fn magnitude_squared(self) -> f64 {
        self.re * self.re + self.im * self.im
    }

    /// This number to the power `n`, by squaring.
    pub(super) fn power(self, mut n: u64) -> Self {
        let (mut base, mut result) = (self, Self::ONE);
        while n > 0 {
            if n & 1 == 1 {
                result = result.times(base);
            }
            base = base.times(base);
            n >>= 1;
        }
        result
    }
}

/// The transform of real vectors of one length, a power of two from 4 on.
pub(super) struct RealFft {
    /// e^(−2πi·j/length) for j below length/2.
    roots: Vec<Complex>,
}

impl RealFft {
    /// The transform of vectors of at least `least` numbers.
    pub(super) fn new(least: usize) -> Self {
        let length = least.next_power_of_two().max(4);
        let roots = (0..length / 2)
            .map(|j| {
                let (sin, cos) = (TAU * j as f64 / length as f64).sin_cos();
                Complex { re: cos, im: -sin }
            })
            .collect();
        Self { roots }
    }

    /// Numbers in a vector.
    pub(super) const fn length(&self) -> usize {
        self.roots.len() * 2
    }

    /// A bound on each coefficient's error, for a vector whose magnitudes add up to 1: a coefficient is reached by log₂ n
    /// butterflies and one unpacking, each of a multiplication by a root (whose angle, up to π, is rounded: within 6u) and an
    /// addition, with a relative error of at most (√5 + 6 + 1)u < 10u (Brent, Percival, Zimmermann 2007, for the
    /// multiplication).
    pub(super) fn rounding(&self) -> f64 {
        const UNIT: f64 = f64::EPSILON / 2.0;
        10.0 * UNIT * (self.length().ilog2() as f64 + 1.0)
    }

    /// The first length/2 + 1 coefficients Σ xⱼ·e^(−2πi·jk/length); the others are their conjugates.
    pub(super) fn forward(&self, values: &[f64]) -> Vec<Complex> {
        debug_assert_eq!(values.len(), self.length());
        let half = self.roots.len();
        // Even and odd places as real and imaginary parts of a vector of half the length.
        let mut packed: Vec<Complex> = values
            .chunks_exact(2)
            .map(|pair| Complex {
                re: pair[0],
                im: pair[1],
            })
            .collect();
        self.transform(&mut packed);
        (0..=half)
            .map(|k| {
                let (a, b) = (packed[k % half], packed[(half - k) % half].conjugate());
                let even = a.plus(b);
                // (a − b)/i
                let difference = a.minus(b);
                let odd = Complex {
                    re: difference.im,
                    im: -difference.re,
                };
                let root = if k == half {
                    Complex { re: -1.0, im: 0.0 }
                } else {
                    self.roots[k]
                };
                let sum = even.plus(odd.times(root));
                Complex {
                    re: sum.re / 2.0,
                    im: sum.im / 2.0,
                }
            })
            .collect()
    }

    /// The real vector with these coefficients.
    pub(super) fn inverse(&self, coefficients: &[Complex]) -> Vec<f64> {
        let half = self.roots.len();
        debug_assert_eq!(coefficients.len(), half + 1);
        // The reverse of `forward`, on conjugates, because an inverse transform is one of the conjugates.
        let mut packed: Vec<Complex> = (0..half)
            .map(|k| {
                let (a, b) = (coefficients[k], coefficients[half - k].conjugate());
                let even = a.plus(b);
                let odd = a.minus(b).times(self.roots[k].conjugate());
                // even + i·odd
                Complex {
                    re: even.re - odd.im,
                    im: even.im + odd.re,
                }
                .conjugate()
            })
            .collect();
        self.transform(&mut packed);
        let scale = 1.0 / self.length() as f64;
        packed
            .iter()
            .flat_map(|z| [z.re * scale, -z.im * scale])
            .collect()
    }

    /// Cooley and Tukey 1965, decimation in time, in place, on half the length.
    fn transform(&self, values: &mut [Complex]) {
        let n = values.len();
        let bits = n.ilog2();
        for i in 0..n {
            let j = i.reverse_bits() >> (usize::BITS - bits);
            if i < j {
                values.swap(i, j);
            }
        }
        let mut size = 2;
        while size <= n {
            // The roots are those of the full length, twice n.
            let stride = 2 * n / size;
            for block in values.chunks_exact_mut(size) {
                let (low, high) = block.split_at_mut(size / 2);
                for ((a, b), root) in low.iter_mut().zip(high).zip(self.roots.iter().step_by(stride)) {
                    let turned = b.times(*root);
                    (*a, *b) = (a.plus(turned), a.minus(turned));
                }
            }
            size *= 2;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(n: usize) -> Vec<f64> {
        let mut state = 1_u64;
        (0..n)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (state >> 11) as f64 / (1_u64 << 53) as f64 - 0.5
            })
            .collect()
    }

    #[test]
    fn coefficients_are_those_of_the_definition() {
        for n in [4_usize, 8, 64, 256] {
            let (fft, values) = (RealFft::new(n), noise(n));
            let total: f64 = values.iter().map(|x| x.abs()).sum();
            for (k, found) in fft.forward(&values).iter().enumerate() {
                let (mut re, mut im) = (0.0, 0.0);
                for (j, x) in values.iter().enumerate() {
                    let angle = TAU * ((j * k) % n) as f64 / n as f64;
                    re += x * angle.cos();
                    im -= x * angle.sin();
                }
                assert!((found.re - re).hypot(found.im - im) <= 4.0 * fft.rounding() * total);
            }
        }
    }

    #[test]
    fn the_inverse_gives_back_what_was_transformed() {
        for n in [4, 16, 1 << 14] {
            let (fft, values) = (RealFft::new(n), noise(n));
            let back = fft.inverse(&fft.forward(&values));
            assert_eq!(back.len(), n);
            for (x, y) in values.iter().zip(back) {
                assert!((x - y).abs() < 1e-13);
            }
        }
    }

    #[test]
    fn a_product_of_transforms_is_a_circular_convolution() {
        let fft = RealFft::new(3);
        let a = fft.forward(&[0.5, 0.25, 0.25, 0.0]);
        let square: Vec<Complex> = a.iter().map(|z| z.power(2)).collect();
        let found = fft.inverse(&square);
        // (1/4, 1/4, 5/16, 1/8, 1/16), and the last wraps around.
        for (x, y) in found.iter().zip([0.3125, 0.25, 0.3125, 0.125]) {
            assert!((x - y).abs() < 1e-15, "{found:?}");
        }
        assert_eq!(
            Complex { re: 0.0, im: 1.0 }.power(3),
            Complex { re: 0.0, im: -1.0 }
        );
    }
}
