//! Which client holds which training examples: the splits of McMahan et al. 2017, section 3, by a seeded shuffle.

use rand_chacha::ChaCha12Rng;
use rand_core::{Rng, SeedableRng};

/// Clients of every partition.
pub const CLIENTS: usize = 100;

/// How the splits are made, for people who want to make them again.
pub const DESCRIPTION: &str = "ChaCha12 (rand_chacha), seed_from_u64(1) for iid and (2) for shards; Fisher-Yates from the \
     last element down, index = floor(next_u64 * n / 2^64); iid: shuffle all examples, client c takes the c-th hundredth; \
     shards: sort by label (stable), cut into 200 runs, shuffle the runs, client c takes runs 2c and 2c+1";

/// Runs of examples with neighbouring labels, in the non-IID split.
const RUNS: usize = 2 * CLIENTS;

/// A way to split examples among clients. Every example goes to one client at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Partition {
    /// Shuffled: every client has some of every label.
    Iid,
    /// McMahan's pathological split: sorted by label, 200 runs, two for each client, so that most see two labels only.
    Shards,
}

impl Partition {
    /// Every partition.
    pub const ALL: [Self; 2] = [Self::Iid, Self::Shards];

    /// The partition's name, that of its folder.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Iid => "iid",
            Self::Shards => "shards",
        }
    }

    /// The examples of each of [`CLIENTS`] clients, as indices into `labels`. What does not divide evenly is left out.
    pub fn clients(self, labels: &[u8]) -> Vec<Vec<usize>> {
        let mut examples: Vec<usize> = (0..labels.len()).collect();
        match self {
            Self::Iid => {
                shuffle(&mut examples, 1);
                cut(&examples, CLIENTS)
            }
            Self::Shards => {
                examples.sort_by_key(|&at| labels[at]);
                let mut runs = cut(&examples, RUNS);
                shuffle(&mut runs, 2);
                runs.chunks_exact(2).map(<[Vec<usize>]>::concat).collect()
            }
        }
    }
}

fn cut(examples: &[usize], parts: usize) -> Vec<Vec<usize>> {
    let length = examples.len() / parts;
    (0..parts)
        .map(|part| examples[part * length..(part + 1) * length].to_vec())
        .collect()
}

/// Fisher–Yates. The seed is public: it chooses a split of public data, and protects nothing.
fn shuffle<T>(items: &mut [T], seed: u64) {
    let mut rng = ChaCha12Rng::seed_from_u64(seed);
    for last in (1..items.len()).rev() {
        // Off from uniform by less than 2⁻⁴⁰ for fewer than 2²⁴ items.
        let chosen = (u128::from(rng.next_u64()) * (last as u128 + 1)) >> 64;
        items.swap(last, chosen as usize);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use unsaid_protocol::ContentHash;

    use super::*;

    /// Labels like MNIST's: 60,000, roughly as many of each.
    fn labels() -> Vec<u8> {
        (0..60_000u32)
            .map(|at| (at.wrapping_mul(2_654_435_761) >> 16) as u8 % 10)
            .collect()
    }

    #[test]
    fn no_two_clients_share_an_example() {
        for partition in Partition::ALL {
            let clients = partition.clients(&labels());
            assert_eq!(clients.len(), 100);
            assert!(clients.iter().all(|examples| examples.len() == 600));
            let distinct: BTreeSet<usize> = clients.into_iter().flatten().collect();
            assert_eq!(distinct, (0..60_000).collect(), "{partition:?}");
        }
    }

    #[test]
    fn the_split_never_changes() {
        let name = |partition: Partition| {
            let flat = partition.clients(&labels()).concat();
            ContentHash::of(
                &flat
                    .iter()
                    .flat_map(|&at| (at as u32).to_le_bytes())
                    .collect::<Vec<_>>(),
            )
            .to_string()
        };
        assert_eq!(
            Partition::ALL.map(name),
            [
                "755ded31b69dd6f8b0145cee0c210b8e72b357e7da533560a0ea1f98c21def77",
                "c7e6bd81553e5bc7efa765eb8d5df4201de1b020a0effe89cf430dc3595e80cb"
            ]
        );
    }

    #[test]
    fn the_non_iid_split_gives_most_clients_two_labels() {
        let labels = labels();
        let kinds = |partition: Partition| -> Vec<usize> {
            let distinct = |examples: &Vec<usize>| {
                examples
                    .iter()
                    .map(|&at| labels[at])
                    .collect::<BTreeSet<_>>()
                    .len()
            };
            partition.clients(&labels).iter().map(distinct).collect()
        };
        assert!(kinds(Partition::Iid).iter().all(|&kinds| kinds == 10));
        let shards = kinds(Partition::Shards);
        assert!(shards.iter().all(|&kinds| kinds <= 4), "{shards:?}");
        assert!(
            shards.iter().filter(|&&kinds| kinds <= 2).count() >= 80,
            "{shards:?}"
        );
    }
}
