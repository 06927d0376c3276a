//! From images to the matrix of their patches and back ("im2col", "col2im").

use std::ops::Range;

use crate::ops::window::Window;

/// Up to so many numbers are moved by a loop rather than by a call.
const SHORT: usize = 32;

/// Writes the patches of windows `first..` of the batch of images `x` to the lines of `out`, `[windows, patch length]`.
pub(super) fn extract(window: &Window, x: &[f32], first: usize, out: &mut [f32]) {
    let run = window.size[1] * window.channels;
    for (index, patch) in out.chunks_exact_mut(window.patch_len()).enumerate() {
        let corner = Corner::of(window, first + index);
        if let Some(from) = corner.inside(window) {
            let lines = x[from..].chunks(window.line_len());
            for (line, from) in patch.chunks_exact_mut(run).zip(lines) {
                copy(line, &from[..run]);
            }
            continue;
        }
        for (u, line) in patch.chunks_exact_mut(run).enumerate() {
            let (inside, from) = corner.line(window, u);
            line[..inside.start].fill(0.0);
            line[inside.end..].fill(0.0);
            let to = &mut line[inside];
            copy(to, &x[from..from + to.len()]);
        }
    }
}

#[inline(always)]
fn copy(to: &mut [f32], from: &[f32]) {
    if to.len() > SHORT {
        to.copy_from_slice(from);
    } else {
        for (to, from) in to.iter_mut().zip(from) {
            *to = *from;
        }
    }
}

/// Adds the lines of `patches` to the images `dx` that the windows `first..` of the batch cover.
pub(super) fn add_back(window: &Window, patches: &[f32], first: usize, dx: &mut [f32]) {
    let run = window.size[1] * window.channels;
    for (index, patch) in patches.chunks_exact(window.patch_len()).enumerate() {
        let corner = Corner::of(window, first + index);
        for (u, line) in patch.chunks_exact(run).enumerate() {
            let (inside, to) = corner.line(window, u);
            let from = &line[inside];
            for (sum, more) in dx[to..to + from.len()].iter_mut().zip(from) {
                *sum += more;
            }
        }
    }
}

/// Where a window of the batch begins.
struct Corner {
    /// Where its image begins in the batch.
    image: usize,
    /// Its first line and column in the padded image.
    at: [usize; 2],
}

impl Corner {
    #[inline(always)]
    const fn of(window: &Window, index: usize) -> Self {
        let position = index % window.positions();
        let (line, column) = (position / window.output[1], position % window.output[1]);
        Self {
            image: index / window.positions() * window.image_len(),
            at: [line * window.stride[0], column * window.stride[1]],
        }
    }

    /// Where the window begins in the batch, if all of it is inside its image.
    #[inline(always)]
    fn inside(&self, window: &Window) -> Option<usize> {
        let line = self.at[0].checked_sub(window.before[0])?;
        let column = self.at[1].checked_sub(window.before[1])?;
        (line + window.size[0] <= window.input[0] && column + window.size[1] <= window.input[1])
            .then(|| self.image + line * window.line_len() + column * window.channels)
    }

    /// What of line `u` of the window is inside the image, and where that begins in the batch.
    #[inline(always)]
    fn line(&self, window: &Window, u: usize) -> (Range<usize>, usize) {
        let ([above, left], [height, width]) = (window.before, window.input);
        let (y, x) = (self.at[0] + u, self.at[1]);
        if y < above || y >= above + height {
            return (0..0, 0);
        }
        let begin = left.saturating_sub(x).min(window.size[1]);
        let end = (left + width).saturating_sub(x).clamp(begin, window.size[1]);
        let column = (x + begin).saturating_sub(left);
        let from = self.image + (y - above) * window.line_len() + column * window.channels;
        (begin * window.channels..end * window.channels, from)
    }
}
