//! The IDX format of the MNIST files: big-endian, a type byte, the number of dimensions, then each length.

/// Why bytes are not the IDX file that is expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not an IDX file of {expected}: {reason}")]
pub struct IdxError {
    expected: &'static str,
    reason: String,
}

/// Images of equal size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Images {
    /// Number of images.
    pub count: usize,
    /// Pixels of each.
    pub features: u32,
    /// `[count, features]`, row-major.
    pub pixels: Vec<u8>,
}

/// Reads images: unsigned bytes in three dimensions.
///
/// # Errors
/// [`IdxError`] for anything else.
pub fn images(bytes: &[u8]) -> Result<Images, IdxError> {
    let ([count, rows, columns], pixels) = read::<3>(bytes, "images")?;
    let features = rows.checked_mul(columns).filter(|&features| features > 0);
    let features = features.ok_or_else(|| wrong("images", "an image has no pixels, or too many"))?;
    Ok(Images {
        count: count as usize,
        features,
        pixels: pixels.to_vec(),
    })
}

/// Reads labels: unsigned bytes in one dimension.
///
/// # Errors
/// [`IdxError`] for anything else.
pub fn labels(bytes: &[u8]) -> Result<Vec<u8>, IdxError> {
    read::<1>(bytes, "labels").map(|(_, labels)| labels.to_vec())
}

fn wrong(expected: &'static str, reason: impl ToString) -> IdxError {
    IdxError {
        expected,
        reason: reason.to_string(),
    }
}

/// The dimensions, and the unsigned bytes that they announce.
fn read<'a, const N: usize>(
    bytes: &'a [u8],
    expected: &'static str,
) -> Result<([u32; N], &'a [u8]), IdxError> {
    let magic = [0, 0, 8, N as u8]; // 8: unsigned bytes
    let rest = bytes
        .strip_prefix(&magic)
        .ok_or_else(|| wrong(expected, "it begins otherwise"))?;
    let (header, data) = rest
        .split_at_checked(4 * N)
        .ok_or_else(|| wrong(expected, "it ends in its header"))?;
    let mut dimensions = [0; N];
    for (dimension, word) in dimensions.iter_mut().zip(header.as_chunks().0) {
        *dimension = u32::from_be_bytes(*word);
    }
    let announced = dimensions.iter().try_fold(1usize, |product, &dimension| {
        product.checked_mul(dimension as usize)
    });
    if announced != Some(data.len()) {
        return Err(wrong(
            expected,
            format!("it announces {dimensions:?} bytes and holds {}", data.len()),
        ));
    }
    Ok((dimensions, data))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_and_labels_are_read() {
        let file = [
            &[0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 2][..],
            &[1, 2, 3, 4],
        ]
        .concat();
        assert_eq!(
            images(&file),
            Ok(Images {
                count: 2,
                features: 2,
                pixels: vec![1, 2, 3, 4]
            })
        );
        assert_eq!(labels(&[0, 0, 8, 1, 0, 0, 0, 2, 7, 9]), Ok(vec![7, 9]));
    }

    #[test]
    fn every_truncation_and_a_trailing_byte_are_refused() {
        let file = [
            &[0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 2][..],
            &[1, 2, 3, 4, 5],
        ]
        .concat();
        assert!(images(&file).is_err());
        for length in 0..file.len() - 1 {
            assert!(images(&file[..length]).is_err(), "{length}");
        }
    }

    #[test]
    fn dimensions_that_overflow_are_refused() {
        let file = [
            0, 0, 8, 3, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255,
        ];
        assert!(images(&file).is_err());
    }
}
