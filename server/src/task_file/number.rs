//! Numbers that are checked where they are read, so that an error points at them.

use serde::{Deserialize, Deserializer, de};

use crate::round::MAX_CHECK_INS;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty), $ok:expr, $expected:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq)]
        pub(super) struct $name($inner);

        impl $name {
            pub(super) const fn get(self) -> $inner {
                self.0
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let found = deserializer.deserialize_any(Expected($expected))?;
                let ok: fn(Found) -> Option<$inner> = $ok;
                let wrong = || de::Error::custom(format!(concat!("{} is not ", $expected), found));
                ok(found).map(Self).ok_or_else(wrong)
            }
        }
    };
}

/// A number of either kind that TOML has.
#[derive(Debug, Clone, Copy)]
enum Found {
    Whole(i64),
    Real(f64),
}

/// Reads a number of either kind, and says what it has to be where it is none.
struct Expected(&'static str);

impl de::Visitor<'_> for Expected {
    type Value = Found;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0)
    }

    fn visit_i64<E>(self, number: i64) -> Result<Found, E> {
        Ok(Found::Whole(number))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Found, E> {
        Ok(Found::Real(number))
    }
}

impl std::fmt::Display for Found {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Whole(number) => number.fmt(f),
            Self::Real(number) => write!(f, "{number:?}"),
        }
    }
}

/// `found` as a real number above 0 and at most `most`. NaN is not.
fn positive(found: Found, most: f64) -> Option<f64> {
    let number = match found {
        Found::Whole(number) => number as f64,
        Found::Real(number) => number,
    };
    (number > 0.0 && number <= most).then_some(number)
}

fn whole(found: Found, most: u32) -> Option<u32> {
    match found {
        Found::Whole(number) => u32::try_from(number)
            .ok()
            .filter(|number| (1..=most).contains(number)),
        Found::Real(_) => None,
    }
}

number!(
    /// Bounded so that no sum of updates can leave the range of an f32.
    ClipL2(f64), |found| positive(found, 1e6), "a number above 0 and at most 1e6"
);
number!(
    /// Its range beside the clip norm is checked once both are known.
    GridStep(f64), |found| positive(found, 1e6), "a number above 0 and at most 1e6"
);
number!(
    NoiseMultiplier(f64),
    |found| positive(found, 1e6),
    "a number above 0 and at most 1e6"
);
number!(
    /// Of the gradient of one example: a 32-bit float, like its 2¹⁸th part.
    ClipGradientL2(f64), |found| positive(found, 1e6).filter(|number| *number >= 1e-6), "a number from 1e-6 to 1e6"
);
number!(
    SamplingRate(f64),
    |found| positive(found, 1.0).filter(|number| *number >= 1e-6),
    "a number from 1e-6 to 1"
);
number!(
    /// The δ at which ε is told.
    Delta(f64), |found| positive(found, 1.0).filter(|&delta| delta < 1.0), "a number above 0 and below 1"
);
number!(
    /// The most that the updates of one identity may cost.
    MaxEpsilon(f64), |found| positive(found, 1e6), "a number above 0 and at most 1e6"
);
number!(
    /// A share of updates.
    Quantile(f64), |found| positive(found, 1.0).filter(|&share| share < 1.0), "a number above 0 and below 1"
);

impl Default for Quantile {
    /// The median.
    fn default() -> Self {
        Self(0.5)
    }
}

number!(
    /// Clients of a round: as many as it lets in at most, or no round would ever have them.
    Clients(u32), |found| whole(found, MAX_CHECK_INS as u32), "a whole number from 1 to 65536"
);
number!(
    /// Updates, rounds or models.
    Count(u32), |found| whole(found, u32::MAX), "a whole number of at least 1"
);
number!(
    /// Rounds of a tree.
    RestartEvery(u32), |found| whole(found, 1 << 20), "a whole number from 1 to 1048576"
);
number!(
    /// Rounds from one that counts a client to the next that may.
    Separation(u32), |found| whole(found, 1 << 16), "a whole number from 1 to 65536"
);
number!(
    /// Up to 30 days.
    DeadlineMs(u64), |found| whole(found, 2_592_000_000).map(u64::from), "a whole number from 1 to 2592000000"
);
