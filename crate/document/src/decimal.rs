//! Numbers and shapes in error messages.
//!
//! The standard library prints the shortest text that reads back as the same number, and lists through `Debug`: both
//! weigh in the downloaded module, for messages that need neither.

use std::fmt::{Display, Formatter, Result};

/// A number with up to six digits after the point; very large and very small ones with a power of ten.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Decimal(pub f64);

impl Display for Decimal {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        const MILLION: u64 = 1_000_000;
        let mut value = self.0.abs();
        if value.is_nan() {
            return f.write_str("NaN");
        }
        if self.0 < 0.0 {
            f.write_str("-")?;
        }
        if value.is_infinite() {
            return f.write_str("inf");
        }
        let mut exponent = 0;
        if value >= 1e9 || (value > 0.0 && value < 1e-3) {
            while value >= 10.0 {
                value /= 10.0;
                exponent += 1;
            }
            while value < 1.0 {
                value *= 10.0;
                exponent -= 1;
            }
        }
        // Below 10¹⁵: exact in an f64, and in a u64.
        let millionths = (value * MILLION as f64 + 0.5) as u64;
        write!(f, "{}", millionths / MILLION)?;
        let (mut fraction, mut digits) = (millionths % MILLION, 6);
        if fraction > 0 {
            while fraction % 10 == 0 {
                fraction /= 10;
                digits -= 1;
            }
            write!(f, ".{fraction:0digits$}")?;
        }
        if exponent != 0 {
            write!(f, "e{exponent}")?;
        }
        Ok(())
    }
}

/// A shape as JSON writes it, with spaces: `[28, 28, 1]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape<'a>(pub &'a [usize]);

impl Display for Shape<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.write_str("[")?;
        for (index, dim) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(f, "{comma}{dim}")?;
        }
        f.write_str("]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_people_write_them() {
        let cases = [
            (0.0, "0"),
            (1.5, "1.5"),
            (-0.25, "-0.25"),
            (f64::from(0.1f32), "0.1"),
            (0.999_999_9, "1"),
            (0.05, "0.05"),
            (10.0, "10"),
            (f64::from(1e-7f32), "1e-7"),
            (2.5e12, "2.5e12"),
            (f64::NAN, "NaN"),
            (f64::NEG_INFINITY, "-inf"),
        ];
        for (number, text) in cases {
            assert_eq!(Decimal(number).to_string(), text);
        }
    }

    #[test]
    fn shapes_are_written_as_debug_writes_them() {
        for shape in [&[][..], &[7], &[28, 28, 1]] {
            assert_eq!(Shape(shape).to_string(), format!("{shape:?}"));
        }
    }
}
