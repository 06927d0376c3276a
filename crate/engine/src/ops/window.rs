//! Where the windows of convolutions and pools lie in an image: `⌊(n − k) / s⌋ + 1` of them along `n` pixels without padding, for windows
//! of `k` and steps of `s` (Dumoulin, Visin 2016, relationship 5), and `⌈n / s⌉` with it (as in TensorFlow).

use crate::{SpecError, model::Placement, spec::Padding};

/// Windows over images `[height, width, channels]`. Pairs are `[vertical, horizontal]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    /// Height and width of the image.
    pub input: [usize; 2],
    /// Its channels.
    pub channels: usize,
    /// Height and width of a window.
    pub size: [usize; 2],
    /// Steps from a window to the next.
    pub stride: [usize; 2],
    /// Lines of zeros above the image, and columns of zeros on its left.
    pub before: [usize; 2],
    /// How many windows there are.
    pub output: [usize; 2],
}

impl Window {
    /// Windows over a value of shape `image`. Without padding, lines and columns that fill no whole window are left out; with
    /// [`Padding::Same`] there is a window for every `stride`-th pixel, and of the zeros that this takes the odd one is below and
    /// on the right (as in TensorFlow).
    pub(crate) fn new(
        at: &Placement<'_>,
        image: &[usize],
        size: [usize; 2],
        stride: [usize; 2],
        padding: Padding,
    ) -> Result<Self, SpecError> {
        let &[height, width, channels] = image else {
            return Err(at.shape_error("an image [height, width, channels]", image));
        };
        at.at_least_one("stride", stride[0].min(stride[1]))?;
        let input = [height, width];
        // A longer stride than the image has the same effect.
        let stride = [stride[0].min(height), stride[1].min(width)];
        let along = |axis: usize| {
            along(input[axis], size[axis], stride[axis], padding)
                .ok_or_else(|| at.shape_error("an image of at least the window's height and width", image))
        };
        let ([above, rows], [left, columns]) = (along(0)?, along(1)?);
        Ok(Self {
            input,
            channels,
            size,
            stride,
            before: [above, left],
            output: [rows, columns],
        })
    }

    /// Windows of one image.
    pub const fn positions(&self) -> usize {
        self.output[0] * self.output[1]
    }

    /// Numbers in one line of an image.
    pub const fn line_len(&self) -> usize {
        self.input[1] * self.channels
    }

    /// Numbers in one image.
    pub const fn image_len(&self) -> usize {
        self.input[0] * self.input[1] * self.channels
    }

    /// Numbers in one window.
    pub const fn patch_len(&self) -> usize {
        self.size[0] * self.size[1] * self.channels
    }

    /// The numbers of the geometry, as the shaders read them.
    #[cfg(feature = "gpu")]
    pub(crate) fn numbers(&self) -> Vec<u32> {
        let pairs = [self.input, self.size, self.stride, self.before, self.output];
        let mut numbers: Vec<u32> = pairs.iter().flatten().map(|&n| n as u32).collect();
        numbers.push(self.channels as u32);
        numbers
    }
}

/// Zeros before the first number, and windows, along one direction; none where no window fits.
fn along(input: usize, size: usize, stride: usize, padding: Padding) -> Option<[usize; 2]> {
    match padding {
        Padding::Valid => Some([0, input.checked_sub(size)? / stride + 1]),
        Padding::Same => {
            let windows = input.div_ceil(stride);
            let reach = ((windows - 1) * stride).saturating_add(size);
            Some([reach.saturating_sub(input) / 2, windows])
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The examples of TensorFlow's notes on padding, and the corners.
    #[test]
    fn same_padding_is_that_of_tensorflow() {
        let same = |input, size, stride| along(input, size, stride, Padding::Same);
        assert_eq!(same(13, 6, 5), Some([1, 3])); // one zero before, two after
        assert_eq!(same(28, 5, 1), Some([2, 28]));
        assert_eq!(same(28, 2, 1), Some([0, 28])); // the only zero is after
        assert_eq!(same(5, 3, 2), Some([1, 3]));
        assert_eq!(same(4, 3, 2), Some([0, 2]));
        assert_eq!(same(4, 1, 3), Some([0, 2]));
        assert_eq!(same(1, 5, 1), Some([2, 1]));
    }

    #[test]
    fn without_padding_only_whole_windows_count() {
        let valid = |input, size, stride| along(input, size, stride, Padding::Valid);
        assert_eq!(valid(13, 6, 5), Some([0, 2]));
        assert_eq!(valid(28, 5, 1), Some([0, 24]));
        assert_eq!(valid(5, 5, 2), Some([0, 1]));
        assert_eq!(valid(4, 5, 1), None);
    }
}
