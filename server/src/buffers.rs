//! Buffers of coordinates that are used again: memory that was just read is still near the processor, and new memory has to be made by the
//! operating system, page by page.

use std::sync::{Mutex, PoisonError};

/// The most bytes that wait to be used again.
const KEPT_BYTES: usize = 8 << 20;

/// Buffers of one task.
#[derive(Debug, Default)]
pub struct Buffers(Mutex<Vec<Vec<i32>>>);

impl Buffers {
    /// An empty one, with place for so many coordinates: the one that was given back last.
    pub fn take(&self, coordinates: usize) -> Vec<i32> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut buffer = kept.unwrap_or_default();
        buffer.reserve_exact(coordinates);
        buffer
    }

    /// Takes one back, and forgets what is in it.
    pub fn give(&self, mut buffer: Vec<i32>) {
        buffer.clear();
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if (kept.len() + 1) * size_of::<i32>() * buffer.capacity() <= KEPT_BYTES {
            kept.push(buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_used_again_and_empty() {
        let buffers = Buffers::default();
        let mut buffer = buffers.take(3);
        buffer.extend([7; 3]);
        let place = buffer.as_ptr();
        buffers.give(buffer);
        let again = buffers.take(3);
        assert_eq!((again.as_ptr(), again.len()), (place, 0));
        assert!(buffers.take(3).is_empty(), "there was one");
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let buffers = Buffers::default();
        let (large, half) = (
            KEPT_BYTES / size_of::<i32>() + 1,
            KEPT_BYTES / size_of::<i32>() / 2,
        );
        buffers.give(Vec::with_capacity(large));
        assert_eq!(buffers.0.lock().unwrap().len(), 0);
        (0..3).for_each(|_| buffers.give(Vec::with_capacity(half)));
        assert_eq!(buffers.0.lock().unwrap().len(), 2);
    }
}
