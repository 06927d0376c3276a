//! Which client holds which examples.

use std::{fmt, str::FromStr};

use rand_chacha::ChaCha12Rng;
use rand_core::{Rng, SeedableRng};

use super::random::below;

/// A way to split examples among clients. Every example goes to one client at most.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Partition {
    /// Shuffled, then cut into equal parts.
    Iid,
    /// Sorted by label (stable), cut into two runs for each client, the runs shuffled: most clients see two labels (McMahan et
    /// al. 2017, section 3).
    Shards,
    /// Equal parts, each with a mix of labels of its own, drawn from the symmetric Dirichlet distribution of this concentration
    /// (Hsu, Qi, Brown, “Measuring the Effects of Non-Identical Data Distribution for Federated Visual Classification”, 2019,
    /// section 3). A label that has run out is drawn no more.
    Dirichlet(f64),
    /// A client for each file of the data, as they are.
    Natural,
}

impl FromStr for Partition {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            None if text == "iid" => Ok(Self::Iid),
            None if text == "shards" => Ok(Self::Shards),
            None if text == "natural" => Ok(Self::Natural),
            Some(("dirichlet", alpha)) => {
                let alpha = alpha.parse::<f64>().ok();
                let alpha = alpha.filter(|alpha| (0.001..=1e6).contains(alpha));
                let wrong = || "the concentration must be a number from 0.001 to 1e6".to_owned();
                alpha.map(Self::Dirichlet).ok_or_else(wrong)
            }
            _ => Err(format!(
                "{text} is none of iid, shards, dirichlet:CONCENTRATION, natural"
            )),
        }
    }
}

impl fmt::Display for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Iid => f.write_str("iid"),
            Self::Shards => f.write_str("shards"),
            Self::Dirichlet(alpha) => write!(f, "dirichlet:{alpha}"),
            Self::Natural => f.write_str("natural"),
        }
    }
}

impl Partition {
    /// The examples of each of `clients` clients, as indices into `labels`; none where a client would have none, or the split is
    /// not by label. What does not divide evenly is left out.
    ///
    /// ChaCha12 (`rand_chacha`), `seed_from_u64(seed)`; shuffles are Fisher–Yates from the last element down, with the index
    /// floor(`next_u64` · n / 2⁶⁴).
    pub fn clients(self, labels: &[u8], clients: usize, seed: u64) -> Option<Vec<Vec<usize>>> {
        let mut rng = ChaCha12Rng::seed_from_u64(seed);
        let mut all: Vec<usize> = (0..labels.len()).collect();
        let parts = if self == Self::Shards {
            clients.checked_mul(2)?
        } else {
            clients
        };
        let each = labels.len().checked_div(parts).filter(|&each| each > 0)?;
        match self {
            Self::Iid => {
                shuffle(&mut all, &mut rng);
                Some(
                    all.chunks_exact(each)
                        .take(clients)
                        .map(<[usize]>::to_vec)
                        .collect(),
                )
            }
            Self::Shards => {
                all.sort_by_key(|&at| labels[at]);
                let mut runs: Vec<&[usize]> = all.chunks_exact(each).take(parts).collect();
                shuffle(&mut runs, &mut rng);
                Some(runs.chunks_exact(2).map(<[&[usize]]>::concat).collect())
            }
            Self::Dirichlet(alpha) => {
                shuffle(&mut all, &mut rng);
                Some(by_mixtures(&all, labels, clients, each, alpha, &mut rng))
            }
            Self::Natural => None,
        }
    }
}

fn shuffle<T>(items: &mut [T], rng: &mut impl Rng) {
    for last in (1..items.len()).rev() {
        items.swap(last, below(rng, last + 1));
    }
}

fn by_mixtures(
    shuffled: &[usize],
    labels: &[u8],
    clients: usize,
    each: usize,
    alpha: f64,
    rng: &mut impl Rng,
) -> Vec<Vec<usize>> {
    let classes = labels.iter().max().map_or(0, |&label| usize::from(label) + 1);
    let mut left: Vec<Vec<usize>> = vec![Vec::new(); classes];
    for &at in shuffled {
        left[usize::from(labels[at])].push(at);
    }
    let client = |_| {
        let mut mix: Vec<f64> = (0..classes).map(|_| gamma(alpha, rng)).collect();
        let mut own = Vec::with_capacity(each);
        while own.len() < each {
            for (share, left) in mix.iter_mut().zip(&left) {
                if left.is_empty() {
                    *share = 0.0;
                }
            }
            if mix.iter().sum::<f64>() <= 0.0 {
                // All of the mix has run out, or underflowed: what is left is equally likely.
                for (share, left) in mix.iter_mut().zip(&left) {
                    *share = if left.is_empty() { 0.0 } else { 1.0 };
                }
            }
            let mut point = unit(rng) * mix.iter().sum::<f64>();
            let mut label = 0;
            for (at, &share) in mix.iter().enumerate().filter(|&(_, &share)| share > 0.0) {
                label = at;
                if point < share {
                    break;
                }
                point -= share;
            }
            own.extend(left[label].pop());
        }
        own
    };
    (0..clients).map(client).collect()
}

/// Uniform in (0, 1), with 53 bits.
fn unit(rng: &mut impl Rng) -> f64 {
    ((rng.next_u64() >> 11) as f64 + 0.5) / (1_u64 << 53) as f64
}

/// A Gamma(`shape`, 1) variate: Marsaglia, Tsang, “A Simple Method for Generating Gamma Variables”, ACM TOMS 2000, and for
/// shapes below 1 its section 6. Normal variates by Box and Muller (1958).
fn gamma(shape: f64, rng: &mut impl Rng) -> f64 {
    if shape < 1.0 {
        return gamma(shape + 1.0, rng) * unit(rng).powf(1.0 / shape);
    }
    let d = shape - 1.0 / 3.0;
    let c = 1.0 / (9.0 * d).sqrt();
    loop {
        let x = (-2.0 * unit(rng).ln()).sqrt() * (2.0 * std::f64::consts::PI * unit(rng)).cos();
        let v = (1.0 + c * x).powi(3);
        if v > 0.0 && unit(rng).ln() < 0.5 * x * x + d - d * v + d * v.ln() {
            return d * v;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn labels() -> Vec<u8> {
        (0..6_000u32)
            .map(|at| (at.wrapping_mul(2_654_435_761) >> 16) as u8 % 10)
            .collect()
    }

    const ALL: [Partition; 5] = [
        Partition::Iid,
        Partition::Shards,
        Partition::Dirichlet(0.001),
        Partition::Dirichlet(0.5),
        Partition::Dirichlet(1e6),
    ];

    #[test]
    fn no_two_clients_share_an_example_and_all_have_as_many() {
        for partition in ALL {
            for clients in [1, 7, 60] {
                let split = partition.clients(&labels(), clients, 3).unwrap();
                assert_eq!(split.len(), clients);
                let each = split[0].len();
                assert!(
                    each >= 6_000 / clients - 1 && split.iter().all(|own| own.len() == each),
                    "{partition}"
                );
                let distinct: BTreeSet<usize> = split.iter().flatten().copied().collect();
                assert_eq!(distinct.len(), each * clients, "{partition}");
            }
            assert_eq!(partition.clients(&labels(), 6_001, 3), None, "{partition}");
        }
    }

    #[test]
    fn the_same_seed_splits_alike_and_another_does_not() {
        for partition in ALL {
            let split = |seed| partition.clients(&labels(), 20, seed).unwrap();
            assert_eq!(split(5), split(5), "{partition}");
            assert_ne!(split(5), split(6), "{partition}");
        }
    }

    /// Σ over clients of the share of their most frequent label, on average.
    fn skew(partition: Partition) -> f64 {
        let labels = labels();
        let split = partition.clients(&labels, 60, 1).unwrap();
        let share = |own: &Vec<usize>| {
            let count = |label| own.iter().filter(|&&at| labels[at] == label).count();
            (0..10).map(count).max().unwrap() as f64 / own.len() as f64
        };
        split.iter().map(share).sum::<f64>() / 60.0
    }

    #[test]
    fn the_less_the_concentration_the_more_do_clients_differ() {
        let [even, half, tenth] = [1e6, 0.5, 0.1].map(|alpha| skew(Partition::Dirichlet(alpha)));
        assert!((skew(Partition::Iid) - even).abs() < 0.05);
        assert!(
            even < 0.2 && (0.3..0.6).contains(&half) && tenth > 0.6,
            "{even} {half} {tenth}"
        );
        assert!(skew(Partition::Shards) > 0.45);
    }

    /// Mean and variance of Gamma(a, 1) are a. With 40,000 draws the mean is off by more than five standard errors
    /// √(a/40,000) with probability below 10⁻⁶; the variance's standard error is √((2a² + 6a)/40,000). The seed is fixed.
    #[test]
    fn gamma_variates_have_their_mean_and_variance() {
        const DRAWS: usize = 40_000;
        let mut rng = ChaCha12Rng::seed_from_u64(9);
        for shape in [0.1, 0.5, 1.0, 3.0] {
            let draws: Vec<f64> = (0..DRAWS).map(|_| gamma(shape, &mut rng)).collect();
            let mean = draws.iter().sum::<f64>() / DRAWS as f64;
            let variance = draws.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / DRAWS as f64;
            let error = (shape / DRAWS as f64).sqrt();
            assert!((mean - shape).abs() < 5.0 * error, "{shape}: {mean}");
            let error = ((2.0 * shape * shape + 6.0 * shape) / DRAWS as f64).sqrt();
            assert!((variance - shape).abs() < 5.0 * error, "{shape}: {variance}");
        }
    }

    #[test]
    fn names_are_read_as_they_are_written() {
        for name in ["iid", "shards", "dirichlet:0.5", "natural"] {
            assert_eq!(name.parse::<Partition>().unwrap().to_string(), name);
        }
        for bad in [
            "",
            "dirichlet",
            "dirichlet:0",
            "dirichlet:nan",
            "dirichlet:1e308",
            "shards:2",
        ] {
            assert!(bad.parse::<Partition>().is_err(), "{bad}");
        }
    }
}
