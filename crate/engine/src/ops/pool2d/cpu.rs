//! CPU kernels: loops over the channels of a window's pixels.

use std::ops::Range;

use super::{Pool2d, Pooling};
#[cfg(feature = "gpu")]
use crate::{
    EngineError,
    backend::gpu::{OpBuffers, Planner},
};
use crate::{
    backend::{
        matrix::lane::{Lane, each_lane},
        vector::scale,
    },
    crew::{self, Parts},
    ops::{Forward, InputGradient, Op},
};

impl Pool2d {
    /// Visits the windows of `images`: where the channels of its output begin in those of these images, and where its first pixel's do.
    #[inline(always)]
    fn each_window(&self, images: usize, mut visit: impl FnMut(usize, usize)) {
        let window = &self.window;
        let (step, mut output) = (window.stride[1] * window.channels, 0);
        for line in 0..images * window.output[0] {
            let (image, y) = (
                line / window.output[0],
                line % window.output[0] * window.stride[0],
            );
            let mut at = image * window.image_len() + y * window.line_len();
            for _ in 0..window.output[1] {
                visit(output, at);
                output += window.channels;
                at += step;
            }
        }
    }

    /// What each number of a window counts in its mean.
    pub(super) fn share(&self) -> f32 {
        1.0 / (self.window.size[0] * self.window.size[1]) as f32
    }

    /// The largest of each window, and which of its pixels that was: the first of several. NaN is larger than any number.
    fn max(&self, x: &[f32], y: &mut [f32], kept: &mut [f32]) {
        let window = &self.window;
        let images = self.check(x, y, kept);
        let (x, y, kept) = (x.as_ptr(), y.as_mut_ptr(), kept.as_mut_ptr());
        self.each_window(images, |output, first| {
            each_lane!(window.channels, |at: L| {
                // SAFETY: `check` compared the lengths, and a window is inside its image.
                unsafe {
                    let mut from = x.add(first + at);
                    let (mut most, mut place) = (L::load(from), L::splat(0.0));
                    let (mut tap, mut line) = (0.0, window.size[0]);
                    while line > 0 {
                        let mut column = window.size[1];
                        let mut pixel = from;
                        while column > 0 {
                            let value = L::load(pixel);
                            let larger = value.greater(most).or(value.not_a_number());
                            most = larger.select(value, most);
                            place = larger.select(L::splat(tap), place);
                            pixel = pixel.wrapping_add(window.channels);
                            tap += 1.0;
                            column -= 1;
                        }
                        from = from.wrapping_add(window.line_len());
                        line -= 1;
                    }
                    most.store(y.add(output + at));
                    place.store(kept.add(output + at));
                }
            });
        });
    }

    /// The sum of each window.
    fn sum(&self, x: &[f32], y: &mut [f32]) {
        let window = &self.window;
        let images = self.check(x, y, y);
        let (x, y) = (x.as_ptr(), y.as_mut_ptr());
        self.each_window(images, |output, first| {
            each_lane!(window.channels, |at: L| {
                // SAFETY: as in `max`.
                unsafe {
                    let mut total = L::splat(0.0);
                    for line in 0..window.size[0] {
                        for column in 0..window.size[1] {
                            let pixel = first + at + line * window.line_len() + column * window.channels;
                            total = total.add(L::load(x.add(pixel)));
                        }
                    }
                    total.store(y.add(output + at));
                }
            });
        });
    }

    /// Adds each output's gradient to the pixels that it came from: to the one that was `kept`, or to all of the window where
    /// nothing is.
    fn back(&self, dx: &mut [f32], dy: &[f32], kept: Option<&[f32]>) {
        let window = &self.window;
        let images = self.check(dx, dy, kept.unwrap_or(dy));
        let share = self.share();
        let (dx, dy, kept) = (dx.as_mut_ptr(), dy.as_ptr(), kept.map(<[f32]>::as_ptr));
        self.each_window(images, |output, first| {
            each_lane!(window.channels, |at: L| {
                // SAFETY: as in `max`.
                unsafe {
                    let dy = L::load(dy.add(output + at));
                    let place = kept.map(|kept| L::load(kept.add(output + at)));
                    let (mut to, mut tap, mut line) = (dx.add(first + at), 0.0, window.size[0]);
                    while line > 0 {
                        let mut column = window.size[1];
                        let mut pixel = to;
                        while column > 0 {
                            let more = match place {
                                None => dy.mul(L::splat(share)),
                                Some(place) => {
                                    let (tap, zero) = (L::splat(tap), L::splat(0.0));
                                    let other = place.greater(tap).or(tap.greater(place));
                                    other.select(zero, dy)
                                }
                            };
                            L::load(pixel).add(more).store(pixel);
                            pixel = pixel.wrapping_add(window.channels);
                            tap += 1.0;
                            column -= 1;
                        }
                        to = to.wrapping_add(window.line_len());
                        line -= 1;
                    }
                }
            });
        });
    }

    /// How many images these are.
    ///
    /// # Panics
    /// Where one of them has other lengths than so many images and their outputs.
    fn check(&self, x: &[f32], y: &[f32], kept: &[f32]) -> usize {
        let images = y.len() / self.output_len();
        assert!(
            x.len() == images * self.window.image_len() && kept.len() == y.len(),
            "lengths"
        );
        images
    }

    /// Shares the images out: `work` gets the numbers of the inputs and of the outputs of some.
    fn split(&self, images: usize, work: impl Fn(Range<usize>, Range<usize>) + Sync) {
        let [image, output] = [self.window.image_len(), self.output_len()];
        crew::split(images, 1, image, |images| {
            work(
                images.start * image..images.end * image,
                images.start * output..images.end * output,
            );
        });
    }
}

impl Op for Pool2d {
    fn kept_len(&self) -> usize {
        match self.pooling {
            Pooling::Max => self.output_len(),
            Pooling::Average => 0,
        }
    }

    fn forward_cpu(&self, pass: Forward<'_>) {
        let (x, all_y, all_kept) = (pass.x, Parts::of(pass.y), Parts::of(pass.kept));
        self.split(pass.rows, |image, output| {
            // SAFETY: every thread has other images.
            let y = unsafe { all_y.part(output.clone()) };
            match self.pooling {
                // SAFETY: likewise.
                Pooling::Max => self.max(&x[image], y, unsafe { all_kept.part(output) }),
                Pooling::Average => {
                    self.sum(&x[image], y);
                    scale(y, self.share());
                }
            }
        });
    }

    fn input_gradient_cpu(&self, pass: InputGradient<'_>) {
        let Some(dx) = pass.dx else { return };
        let (all_dx, dy, kept) = (Parts::of(dx), &*pass.dy, &*pass.kept);
        self.split(pass.rows, |image, output| {
            // SAFETY: every thread has other images.
            let dx = unsafe { all_dx.part(image) };
            dx.fill(0.0);
            let kept = (self.pooling == Pooling::Max).then(|| &kept[output.clone()]);
            self.back(dx, &dy[output], kept);
        });
    }

    #[cfg(feature = "gpu")]
    fn plan_gpu(&self, planner: &mut Planner<'_>, buffers: &OpBuffers<'_>) -> Result<(), EngineError> {
        self.plan(planner, buffers)
    }
}
