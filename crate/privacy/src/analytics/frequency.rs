//! Which of k values each person has, under local differential privacy.

use rand_core::CryptoRng;

use super::{AnalyticsError, DENOMINATOR, Estimate, check_epsilon};
use crate::noise::uniform_below;

/// How a value is randomised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FrequencyScheme {
    /// k-ary randomised response (Kairouz, Bonawitz, Ramage 2016; Warner 1965 for k = 2): the true value with probability
    /// e^ε/(e^ε + k − 1), any other with 1/(e^ε + k − 1). Best for few values: k below about 3e^ε + 2.
    RandomizedResponse,
    /// Optimised unary encoding (Wang, Blocki, Li, Jha, USENIX Security 2017, section 4.2): k bits, of which the true one is set
    /// with probability 1/2 and any other with 1/(e^ε + 1). k bits a report, error independent of k.
    UnaryEncoding,
    /// Hadamard response (Acharya, Sun, Zhang, AISTATS 2019, section 4): a column of a Hadamard matrix in which the row of the
    /// value has a +1, with probability e^ε/(e^ε + 1), else one in which it has a −1. log₂ k bits a report.
    Hadamard,
}

/// What one person sends.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Report {
    /// A value, or a column.
    Index(u32),
    /// One bit for each value, the first in the lowest bit of the first word.
    Bits(Vec<u64>),
}

/// A way to ask many people for one of k values, at ε for each.
///
/// Unit: one answer. Adjacency: any value in place of any other. Whoever collects the reports is not trusted.
///
/// ```
/// use unsaid_privacy::analytics::{AnalyticsError, FrequencyOracle, FrequencyScheme};
/// # use rand_core::SeedableRng;
/// # let mut rng = rand_chacha::ChaCha20Rng::from_seed([1; 32]);
/// let oracle = FrequencyOracle::new(FrequencyScheme::UnaryEncoding, 4, 1.0)?;
/// let reports: Vec<_> = (0..20_000).map(|i| oracle.report(i % 2, &mut rng)).collect::<Result<_, _>>()?;
/// let shares = oracle.estimate(&reports)?;
/// assert!((shares[0].value - 0.5).abs() < 0.1 && shares[3].value.abs() < 0.1);
/// let (low, high) = shares[0].interval(0.999_999);
/// assert!(low < 0.5 && 0.5 < high);
/// # Ok::<(), AnalyticsError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FrequencyOracle {
    scheme: FrequencyScheme,
    categories: u32,
    /// e^ε·2²⁰, rounded down: what is more likely under the truth is at most this many 2²⁰ths as likely as under any other value.
    weight: u64,
}

impl FrequencyOracle {
    /// The most values.
    pub const MAX_CATEGORIES: u32 = 1 << 20;

    /// A question with `categories` answers, at `epsilon` for each person.
    ///
    /// # Errors
    /// [`AnalyticsError::Categories`] for fewer than 2 or more than [`Self::MAX_CATEGORIES`], [`AnalyticsError::Epsilon`].
    pub fn new(scheme: FrequencyScheme, categories: u32, epsilon: f64) -> Result<Self, AnalyticsError> {
        check_epsilon(epsilon)?;
        if !(2..=Self::MAX_CATEGORIES).contains(&categories) {
            return Err(AnalyticsError::Categories(categories));
        }
        // The exponential is within a few units in the last place; two of them down, and it is never above.
        let weight = (epsilon.exp().next_down().next_down() * DENOMINATOR as f64).floor() as u64;
        Ok(Self {
            scheme,
            categories,
            weight,
        })
    }

    /// The ε that a report really costs: the logarithm of the fraction that stands for e^ε.
    pub fn epsilon(&self) -> f64 {
        (self.weight as f64 / DENOMINATOR as f64).ln()
    }

    /// The scheme.
    pub const fn scheme(&self) -> FrequencyScheme {
        self.scheme
    }

    /// The number of values.
    pub const fn categories(&self) -> u32 {
        self.categories
    }

    /// Columns of the Hadamard matrix: the first power of two above the number of values, because row 0 has no −1.
    const fn columns(&self) -> u32 {
        (self.categories + 1).next_power_of_two()
    }

    /// Randomises one value.
    ///
    /// # Errors
    /// [`AnalyticsError::Value`].
    pub fn report<R: CryptoRng + ?Sized>(&self, value: u32, rng: &mut R) -> Result<Report, AnalyticsError> {
        let categories = self.categories;
        if value >= categories {
            return Err(AnalyticsError::Value { value, categories });
        }
        Ok(match self.scheme {
            FrequencyScheme::RandomizedResponse => {
                // The true value has `weight` of these, every other 2²⁰.
                let all = u128::from(self.weight) + u128::from(DENOMINATOR) * u128::from(categories - 1);
                let drawn = uniform_below(all, rng)?;
                Report::Index(match drawn.checked_sub(u128::from(self.weight)) {
                    None => value,
                    Some(beyond) => {
                        let other = (beyond / u128::from(DENOMINATOR)) as u32;
                        other + u32::from(other >= value)
                    }
                })
            }
            FrequencyScheme::UnaryEncoding => {
                let all = u128::from(self.weight + DENOMINATOR);
                let mut bits = vec![0_u64; categories.div_ceil(64) as usize];
                for at in 0..categories {
                    let set = if at == value {
                        uniform_below(2, rng)? == 1
                    } else {
                        uniform_below(all, rng)? < u128::from(DENOMINATOR)
                    };
                    bits[at as usize / 64] |= u64::from(set) << (at % 64);
                }
                Report::Bits(bits)
            }
            FrequencyScheme::Hadamard => {
                let plus =
                    uniform_below(u128::from(self.weight + DENOMINATOR), rng)? < u128::from(self.weight);
                // Half of the columns have the wanted sign: drawing again takes two tries on average.
                loop {
                    let column = uniform_below(u128::from(self.columns()), rng)? as u32;
                    if has_plus(value, column) == plus {
                        break Report::Index(column);
                    }
                }
            }
        })
    }

    /// Each value's share of all people, from one report of each: (c/n − q)/(p − q), where c of n reports support the value, and a
    /// report does so with probability p if it is the person's and q if not (Wang and others 2017, Theorem 1). Unbiased. The
    /// standard error is that of c/n over p − q.
    ///
    /// # Errors
    /// [`AnalyticsError::Empty`], and [`AnalyticsError::Report`] for a report that this scheme cannot have made. Reports come
    /// from strangers: a false one of the right form cannot be told, and moves a share by at most 1/(n(p − q)).
    pub fn estimate(&self, reports: &[Report]) -> Result<Vec<Estimate>, AnalyticsError> {
        if reports.is_empty() {
            return Err(AnalyticsError::Empty);
        }
        let n = reports.len() as f64;
        let (p, q) = self.support();
        Ok(self
            .count(reports)?
            .into_iter()
            .map(|count| {
                let share = count / n;
                // Never 0, whatever was counted: half a report is the least that could be there unseen.
                let error = (share * (1.0 - share)).max(0.5 / n).sqrt() / n.sqrt();
                Estimate::of_many((share - q) / (p - q), error / (p - q))
            })
            .collect())
    }

    /// With what probability a report supports the person's value, and any other.
    fn support(&self) -> (f64, f64) {
        let (weight, unit) = (self.weight as f64, DENOMINATOR as f64);
        match self.scheme {
            FrequencyScheme::RandomizedResponse => {
                let all = weight + unit * f64::from(self.categories - 1);
                (weight / all, unit / all)
            }
            FrequencyScheme::UnaryEncoding => (0.5, unit / (weight + unit)),
            // Two rows of a Hadamard matrix agree in half of the columns.
            FrequencyScheme::Hadamard => (weight / (weight + unit), 0.5),
        }
    }

    /// How many reports support each value.
    pub(super) fn count(&self, reports: &[Report]) -> Result<Vec<f64>, AnalyticsError> {
        let length = match self.scheme {
            FrequencyScheme::Hadamard => self.columns(),
            _ => self.categories,
        };
        let mut counts = vec![0.0; length as usize];
        for (index, report) in reports.iter().enumerate() {
            match (self.scheme, report) {
                (FrequencyScheme::UnaryEncoding, Report::Bits(words)) => {
                    self.check_bits(words).ok_or(AnalyticsError::Report { index })?;
                    for (count, at) in counts.iter_mut().zip(0..) {
                        *count += (words[at / 64] >> (at % 64) & 1) as f64;
                    }
                }
                (FrequencyScheme::RandomizedResponse | FrequencyScheme::Hadamard, Report::Index(at)) => {
                    *counts
                        .get_mut(*at as usize)
                        .ok_or(AnalyticsError::Report { index })? += 1.0;
                }
                _ => return Err(AnalyticsError::Report { index }),
            }
        }
        if self.scheme == FrequencyScheme::Hadamard {
            // Place r of the transform is Σ counts·(±1 of row r); the row's support is half of that and of all.
            walsh_hadamard(&mut counts);
            let all = counts[0];
            counts = counts[1..=self.categories as usize]
                .iter()
                .map(|signed| f64::midpoint(all, *signed))
                .collect();
        }
        Ok(counts)
    }

    /// As many words as there must be, and no bit beyond the last value.
    fn check_bits(&self, words: &[u64]) -> Option<()> {
        let right_length = words.len() == self.categories.div_ceil(64) as usize;
        let beyond = match self.categories % 64 {
            0 => 0,
            used => words.last()? >> used,
        };
        (right_length && beyond == 0).then_some(())
    }
}

/// Whether row `value` + 1 of the Hadamard matrix (Sylvester's) has a +1 in this column.
const fn has_plus(value: u32, column: u32) -> bool {
    ((value + 1) & column).count_ones().is_multiple_of(2)
}

/// The fast Walsh–Hadamard transform, in place.
fn walsh_hadamard(values: &mut [f64]) {
    let mut half = 1;
    while half < values.len() {
        for block in values.chunks_exact_mut(2 * half) {
            let (low, high) = block.split_at_mut(half);
            for (a, b) in low.iter_mut().zip(high) {
                (*a, *b) = (*a + *b, *a - *b);
            }
        }
        half *= 2;
    }
}
