//! From images to the matrix of their patches and back ("im2col", "col2im"), over images with their zeros around them, in which
//! every window is inside.

use std::ops::Range;

use crate::{
    backend::matrix::lane::{Four, Lane, each_lane},
    ops::window::Window,
};

/// Numbers are copied four at a time: so many may be read and written beyond the last.
pub(super) const SLACK: usize = 3;

/// One image with its zeros; of the batch's, the one whose windows were asked for last.
pub(super) struct Padded<'w> {
    window: &'w Window,
    /// Pixels of a line.
    width: usize,
    numbers: Vec<f32>,
    /// Which image it is.
    image: Option<usize>,
}

impl<'w> Padded<'w> {
    pub fn new(window: &'w Window) -> Self {
        // No more than the windows reach.
        let [height, width] =
            [0, 1].map(|axis| (window.output[axis] - 1) * window.stride[axis] + window.size[axis]);
        Self {
            window,
            width,
            numbers: vec![0.0; height * width * window.channels + SLACK],
            image: None,
        }
    }

    /// For each line of an image: where what the windows reach of it begins in the image, and where it is in here.
    fn lines(&self) -> impl Iterator<Item = (usize, Range<usize>)> + use<> {
        let Window {
            input: [height, width],
            channels,
            before: [above, left],
            ..
        } = *self.window;
        let (line, own) = (width * channels, self.width * channels);
        let lines = height.min((self.numbers.len() / own).saturating_sub(above));
        let len = width.min(self.width.saturating_sub(left)) * channels;
        (0..lines).map(move |y| {
            let start = (above + y) * own + left * channels;
            (y * line, start..start + len)
        })
    }

    /// Where the first window of line `line` of the batch's windows begins, and its image.
    const fn begin(&self, line: usize) -> (usize, usize) {
        let Window { output, stride, .. } = self.window;
        let first = line % output[0] * stride[0] * self.width * self.window.channels;
        (first, line / output[0])
    }

    /// Writes the patches of the windows in `lines` of the batch of images `x` to `out`, `[windows, patch length]` and [`SLACK`].
    pub fn extract(&mut self, x: &[f32], lines: Range<usize>, out: &mut [f32]) {
        let Window {
            output,
            size,
            stride,
            channels,
            ..
        } = *self.window;
        let (run, line_len) = (size[1] * channels, self.width * channels);
        assert!(
            out.len() >= lines.len() * output[1] * size[0] * run + SLACK,
            "patches"
        );
        let mut to = out.as_mut_ptr();
        for line in lines {
            let (first, image) = self.begin(line);
            if self.image != Some(image) {
                let image = &x[image * self.window.image_len()..][..self.window.image_len()];
                for (from, here) in self.lines() {
                    let len = here.len();
                    self.numbers[here].copy_from_slice(&image[from..from + len]);
                }
                self.image = Some(line / output[0]);
            }
            let mut window = self.numbers[first..].as_ptr();
            for _ in 0..output[1] {
                let mut from = window;
                for _ in 0..size[0] {
                    // SAFETY: the window is inside the padded image and its patch inside `out`; either has the numbers to
                    // spare that the last four may reach beyond. What they write there is written again, or is slack.
                    unsafe {
                        let mut at = 0;
                        while at < run {
                            Four::load(from.add(at)).store(to.add(at));
                            at += 4;
                        }
                        to = to.add(run);
                    }
                    from = from.wrapping_add(line_len);
                }
                window = window.wrapping_add(stride[1] * channels);
            }
        }
    }

    /// Adds `patches`, those of the windows in `lines`, to where they came from, and writes every image that this completes to the
    /// batch `dx`. Lines are given in their order.
    pub fn add_back(&mut self, patches: &[f32], lines: Range<usize>, dx: &mut [f32]) {
        let Window {
            output,
            size,
            stride,
            channels,
            ..
        } = *self.window;
        let (run, line_len) = (size[1] * channels, self.width * channels);
        assert!(
            patches.len() >= lines.len() * output[1] * size[0] * run,
            "patches"
        );
        let mut from = patches.as_ptr();
        for line in lines {
            let (first, image) = self.begin(line);
            if line % output[0] == 0 {
                self.numbers.fill(0.0);
            }
            let mut window = self.numbers[first..].as_mut_ptr();
            for _ in 0..output[1] {
                let mut to = window;
                for _ in 0..size[0] {
                    each_lane!(run, |at: L| {
                        // SAFETY: the window is inside the padded image and its patch inside `patches`.
                        unsafe {
                            let to = to.add(at);
                            L::load(to).add(L::load(from.add(at))).store(to);
                        }
                    });
                    from = from.wrapping_add(run);
                    to = to.wrapping_add(line_len);
                }
                window = window.wrapping_add(stride[1] * channels);
            }
            if line % output[0] == output[0] - 1 {
                let image = &mut dx[image * self.window.image_len()..][..self.window.image_len()];
                for (to, here) in self.lines() {
                    image[to..to + here.len()].copy_from_slice(&self.numbers[here]);
                }
            }
        }
    }
}
