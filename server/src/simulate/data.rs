//! The data of a simulation: shards, split among clients.

use std::{
    fs,
    path::{Path, PathBuf},
};

use unsaid_engine::{DataError, Examples};
use unsaid_protocol::{DecodeError, Shard};

use super::Partition;

/// Why the data of a simulation cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SplitError {
    /// A file or folder cannot be read.
    #[error("{path}: {error}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// A file is no shard.
    #[error("{path}: {error}")]
    Shard {
        /// The file.
        path: PathBuf,
        /// Why.
        error: DecodeError,
    },
    /// Shards of one folder have different examples.
    #[error("{0} has other features or classes than the shards before it")]
    Mixed(PathBuf),
    /// The folder has no shards.
    #[error("{0} has no .shard files")]
    Empty(PathBuf),
    /// There are not enough examples.
    #[error("{examples} examples cannot be split {partition} among {clients} clients")]
    TooFew {
        /// Examples that there are.
        examples: usize,
        /// How they are split.
        partition: Partition,
        /// Clients that there are.
        clients: usize,
    },
    /// Examples are not what the engine takes.
    #[error(transparent)]
    Data(#[from] DataError),
}

/// What clients train on, and what is public.
#[derive(Debug)]
pub struct TrainingData {
    /// How it was split, for people.
    pub partition: String,
    /// Each client's examples.
    pub clients: Vec<Examples>,
    /// Public examples of the same kind, that no client has.
    pub proxy: Option<Examples>,
}

/// The shards of a folder, in the order of their names.
#[derive(Debug)]
pub struct Shards(Vec<Shard>);

impl Shards {
    /// Reads every `.shard` file of `folder`.
    ///
    /// # Errors
    /// [`SplitError`] naming the file.
    pub fn read(folder: &Path) -> Result<Self, SplitError> {
        let failed = |path: &Path, error| SplitError::File {
            path: path.to_owned(),
            error,
        };
        let mut files = Vec::new();
        for entry in fs::read_dir(folder).map_err(|error| failed(folder, error))? {
            let path = entry.map_err(|error| failed(folder, error))?.path();
            if path.extension().is_some_and(|kind| kind == "shard") {
                files.push(path);
            }
        }
        files.sort();
        let mut shards: Vec<Shard> = Vec::new();
        for path in files {
            let bytes = fs::read(&path).map_err(|error| failed(&path, error))?;
            let shard = Shard::decode(&bytes).map_err(|error| SplitError::Shard {
                path: path.clone(),
                error,
            })?;
            let first = shards.first().unwrap_or(&shard);
            if (first.features, first.classes) != (shard.features, shard.classes) {
                return Err(SplitError::Mixed(path));
            }
            shards.push(shard);
        }
        if shards.is_empty() {
            return Err(SplitError::Empty(folder.to_owned()));
        }
        Ok(Self(shards))
    }

    /// Splits them. Where `proxy` is above 0, that share of every shard's examples, the last, is set aside as public.
    ///
    /// # Errors
    /// [`SplitError::TooFew`] where a client, or the public part, would have no example.
    pub fn split(
        &self,
        partition: Partition,
        clients: usize,
        seed: u64,
        proxy: f64,
    ) -> Result<TrainingData, SplitError> {
        let kept = |shard: &Shard| shard.len() - ((shard.len() as f64 * proxy) as usize).min(shard.len());
        let part = |from: fn(usize, usize) -> std::ops::Range<usize>| {
            let mut all = Part::like(&self.0[0]);
            for shard in &self.0 {
                all.extend(shard, from(kept(shard), shard.len()));
            }
            all
        };
        let (private, public) = (part(|kept, _| 0..kept), part(|kept, all| kept..all));
        let too_few = || SplitError::TooFew {
            examples: private.labels.len(),
            partition,
            clients,
        };
        let split: Vec<Vec<usize>> = if partition == Partition::Natural {
            let mut start = 0;
            let own = |shard: &Shard| {
                let own = (start..start + kept(shard)).collect();
                start += kept(shard);
                own
            };
            self.0.iter().map(own).collect()
        } else {
            let split = partition.clients(&private.labels, clients, seed);
            split.ok_or_else(too_few)?
        };
        if split.iter().any(Vec::is_empty) || proxy > 0.0 && public.labels.is_empty() {
            return Err(too_few());
        }
        let clients = split.iter().map(|own| private.select(own));
        Ok(TrainingData {
            partition: partition.to_string(),
            clients: clients.collect::<Result<_, _>>()?,
            proxy: if proxy > 0.0 {
                Some(public.select(&(0..public.labels.len()).collect::<Vec<_>>())?)
            } else {
                None
            },
        })
    }
}

/// Some examples of shards, as bytes.
struct Part {
    features: usize,
    classes: usize,
    labels: Vec<u8>,
    pixels: Vec<u8>,
}

impl Part {
    const fn like(shard: &Shard) -> Self {
        Self {
            features: shard.features as usize,
            classes: shard.classes as usize,
            labels: Vec::new(),
            pixels: Vec::new(),
        }
    }

    fn extend(&mut self, shard: &Shard, range: std::ops::Range<usize>) {
        let pixels = range.start * self.features..range.end * self.features;
        self.labels.extend_from_slice(&shard.labels[range]);
        self.pixels.extend_from_slice(&shard.pixels[pixels]);
    }

    fn select(&self, examples: &[usize]) -> Result<Examples, DataError> {
        let labels = examples.iter().map(|&at| self.labels[at].into()).collect();
        let pixels = examples
            .iter()
            .flat_map(|&at| &self.pixels[at * self.features..(at + 1) * self.features]);
        let features = pixels.map(|&byte| f32::from(byte) / 255.0).collect();
        Examples::new(features, labels, self.features, self.classes)
    }
}

/// Labelled examples, cut into pieces of at most `size`.
pub(super) fn pieces(examples: &Examples, size: usize) -> Result<Vec<Examples>, DataError> {
    let features = examples.features();
    let classes = match examples.kind() {
        unsaid_engine::TargetKind::Labels { classes } => classes,
        _ => 0,
    };
    let rows = examples.x().chunks(size * features);
    let labels = examples.y().chunks(size * examples.targets_per_example());
    rows.zip(labels)
        .map(|(rows, labels)| {
            let per_example = examples.targets_per_example();
            Examples::sequences(rows.to_vec(), labels.to_vec(), features, per_example, classes)
        })
        .collect()
}
