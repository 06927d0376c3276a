//! A sum as bytes: blocks of [`SUM_BLOCK`] entries, each in four bytes an entry where they are enough for all of it, and else in eight.

use super::{StoreError, numbers};
use crate::exact;

/// Entries of a block of a sum: as `i32`s they fill, with the longest name of a task, a page of 64 kB in redb.
pub(super) const SUM_BLOCK: usize = 16_320;

/// Appends a block of at most [`SUM_BLOCK`] entries: the bytes of an entry, and little-endian `i32`s or `i64`s.
pub(super) fn write_block(block: &[i64], bytes: &mut Vec<u8>) {
    let width = if exact::fits_i32(block) { 4 } else { 8 };
    bytes.push(width);
    let start = bytes.len();
    bytes.resize(start + usize::from(width) * block.len(), 0);
    if width == 4 {
        exact::narrow(block, &mut bytes[start..]);
    } else {
        let (chunks, _) = bytes[start..].as_chunks_mut();
        for (chunk, entry) in chunks.iter_mut().zip(block) {
            *chunk = entry.to_le_bytes();
        }
    }
}

/// Reads one block of `bytes`, and returns what is behind it.
///
/// # Errors
/// [`StoreError`] where it is none.
pub(super) fn read_block<'a>(bytes: &'a [u8], steps: &mut Vec<i64>) -> Result<&'a [u8], StoreError> {
    let (&width, entries) = bytes.split_first().unwrap_or((&0, &[]));
    let length = entries.len().min(usize::from(width) * SUM_BLOCK);
    let (block, rest) = entries.split_at(length);
    match width {
        4 | 8 if length % usize::from(width) != 0 => {
            return Err(StoreError("a block of a sum is cut off".into()));
        }
        4 => steps.extend(numbers(block, |entry| i64::from(i32::from_le_bytes(entry)))),
        8 => steps.extend(numbers(block, i64::from_le_bytes)),
        _ => return Err(StoreError("a block of a sum has no width".into())),
    }
    Ok(rest)
}

/// All blocks of a sum, one after the other.
pub(super) fn pack(steps: &[i64]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(4 * steps.len() + steps.len() / SUM_BLOCK + 1);
    for block in steps.chunks(SUM_BLOCK) {
        write_block(block, &mut bytes);
    }
    bytes
}

/// What [`pack`] packed.
///
/// # Errors
/// [`StoreError`] where it did not.
pub(super) fn unpack(mut bytes: &[u8]) -> Result<Vec<i64>, StoreError> {
    let mut steps = Vec::with_capacity(bytes.len() / 4);
    while !bytes.is_empty() {
        bytes = read_block(bytes, &mut steps)?;
    }
    Ok(steps)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_sum_of_blocks_of_either_width_is_read_as_it_was_written() {
        let wide = i64::from(i32::MAX) + 1;
        for length in [0, 1, SUM_BLOCK - 1, SUM_BLOCK, SUM_BLOCK + 1, 3 * SUM_BLOCK + 7] {
            for at in [None, Some(0), Some(length / 2), length.checked_sub(1)] {
                let mut steps: Vec<i64> = (0..length as i64).map(|at| at - 9).collect();
                if let Some(entry) = at.and_then(|at| steps.get_mut(at)) {
                    *entry = wide;
                }
                let bytes = pack(&steps);
                let blocks = length.div_ceil(SUM_BLOCK);
                assert!(
                    bytes.len() <= blocks + 4 * length + 4 * SUM_BLOCK,
                    "one wide block"
                );
                assert_eq!(unpack(&bytes).unwrap(), steps, "{length} {at:?}");
            }
        }
    }

    #[test]
    fn what_is_cut_off_is_no_sum() {
        for bytes in [&[0][..], &[4, 1, 0, 0], &[8, 1, 0, 0, 0], &[5, 0, 0, 0, 0, 0]] {
            assert!(unpack(bytes).is_err(), "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn packed_entries_are_themselves(steps in prop::collection::vec(any::<i64>(), 0..99), shift in 0_u32..63) {
            let steps: Vec<i64> = steps.iter().map(|step| step >> shift).collect();
            prop_assert_eq!(unpack(&pack(&steps)).unwrap(), steps);
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = unpack(&bytes);
        }
    }
}
