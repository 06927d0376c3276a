//! A shard: a small data set in one file, such as the slice of MNIST that a tab loads as its local data.

use crate::{DecodeError, Reader, VERSION};

const MAGIC: [u8; 4] = *b"UNSD";

/// Labelled examples with 8-bit features. A stored byte `v` means the feature `v / 255`.
///
/// Layout, little-endian (`PROTOCOL.md`, “Shard”): magic `UNSD`, version `u16`, reserved `u16` = 0, examples `u32`, features
/// `u32`, classes `u32`, then `examples` labels of one byte, then `examples × features` bytes, row-major.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shard {
    /// Bytes per example.
    pub features: u32,
    /// Number of labels, 1 to 256.
    pub classes: u32,
    /// One label per example, each below `classes`.
    pub labels: Vec<u8>,
    /// `[examples, features]`, row-major.
    pub pixels: Vec<u8>,
}

impl Shard {
    /// Bytes before the labels.
    pub const HEADER_LEN: usize = 4 + 2 + 2 + 4 + 4 + 4;

    /// Number of examples.
    pub const fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there is no example.
    pub const fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// The file's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(Self::HEADER_LEN + self.labels.len() + self.pixels.len());
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&[0, 0]);
        out.extend_from_slice(&(self.labels.len() as u32).to_le_bytes());
        out.extend_from_slice(&self.features.to_le_bytes());
        out.extend_from_slice(&self.classes.to_le_bytes());
        out.extend_from_slice(&self.labels);
        out.extend_from_slice(&self.pixels);
        out
    }

    /// Reads a file.
    ///
    /// # Errors
    /// [`DecodeError`] for anything but exactly one shard whose labels are all below `classes`.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        reader.header(MAGIC, "a data shard")?;
        let field = |field, value: u64, expected| {
            Err(DecodeError::Field {
                field,
                value,
                expected,
            })
        };
        match reader.u16("reserved")? {
            0 => {}
            other => return field("reserved", other.into(), "0"),
        }
        let examples = reader.u32("examples")?;
        let features = reader.u32("features")?;
        let classes = reader.u32("classes")?;
        if features == 0 {
            return field("features", 0, "at least 1");
        }
        if !(1..=256).contains(&classes) {
            return field("classes", classes.into(), "1 to 256");
        }
        let labels = reader.bytes(examples as usize, "labels")?;
        if let Some(&label) = labels.iter().find(|&&label| u32::from(label) >= classes) {
            return field("label", label.into(), "below the number of classes");
        }
        let length = (examples as usize).checked_mul(features as usize);
        let length = length.ok_or(DecodeError::Field {
            field: "features",
            value: features.into(),
            expected: "few enough that the examples fit in memory",
        })?;
        let pixels = reader.bytes(length, "pixels")?;
        reader.finish()?;
        Ok(Self {
            features,
            classes,
            labels: labels.to_vec(),
            pixels: pixels.to_vec(),
        })
    }

    /// The features as numbers from 0 to 1, `[examples, features]`, row-major.
    pub fn features_f32(&self) -> Vec<f32> {
        self.pixels
            .iter()
            .map(|&pixel| f32::from(pixel) / 255.0)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shard() -> Shard {
        Shard {
            features: 2,
            classes: 3,
            labels: vec![0, 2],
            pixels: vec![0, 255, 51, 102],
        }
    }

    #[test]
    fn a_shard_has_these_bytes() {
        let expected = [
            b"UNSD".as_slice(),
            &[1, 0, 0, 0], // version, reserved
            &[2, 0, 0, 0], // examples
            &[2, 0, 0, 0], // features
            &[3, 0, 0, 0], // classes
            &[0, 2],       // labels
            &[0, 255, 51, 102],
        ]
        .concat();
        assert_eq!(shard().encode(), expected);
        assert_eq!(Shard::decode(&expected), Ok(shard()));
        assert_eq!(shard().features_f32(), [0.0, 1.0, 0.2, 0.4]);
    }

    #[test]
    fn bad_shards_are_refused() {
        let good = shard().encode();
        for length in 0..good.len() {
            assert!(Shard::decode(&good[..length]).is_err(), "{length}");
        }
        assert_eq!(
            Shard::decode(&[&good[..], &[0]].concat()),
            Err(DecodeError::TrailingBytes(1))
        );
        let mut label = good.clone();
        label[Shard::HEADER_LEN] = 3;
        assert!(matches!(
            Shard::decode(&label),
            Err(DecodeError::Field { field: "label", .. })
        ));
        let mut classes = good;
        classes[16..20].copy_from_slice(&257u32.to_le_bytes());
        assert!(matches!(
            Shard::decode(&classes),
            Err(DecodeError::Field { field: "classes", .. })
        ));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            if let Ok(shard) = Shard::decode(&bytes) {
                prop_assert_eq!(shard.encode(), bytes);
            }
        }
    }
}
