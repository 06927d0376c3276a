//! From images to the matrix of their patches and back ("im2col", "col2im").

use crate::ops::window::Window;

/// Numbers that are moved by a loop rather than by a call.
const SHORT: usize = 32;

/// Writes the patches of windows `first..` of the batch of images `x` to the lines of `out`, `[windows, patch length]`.
pub(super) fn extract(window: &Window, x: &[f32], first: usize, out: &mut [f32]) {
    for (index, patch) in out.chunks_exact_mut(window.patch_len()).enumerate() {
        each_line(window, first + index, |line, inside, from| {
            let line = &mut patch[line];
            line[..inside.0].fill(0.0);
            line[inside.1..].fill(0.0);
            let to = &mut line[inside.0..inside.1];
            let from = &x[from..from + to.len()];
            if to.len() > SHORT {
                to.copy_from_slice(from);
            } else {
                for (to, from) in to.iter_mut().zip(from) {
                    *to = *from;
                }
            }
        });
    }
}

/// Adds the lines of `patches` to the images `dx` that the windows `first..` of the batch cover.
pub(super) fn add_back(window: &Window, patches: &[f32], first: usize, dx: &mut [f32]) {
    for (index, patch) in patches.chunks_exact(window.patch_len()).enumerate() {
        each_line(window, first + index, |line, inside, to| {
            let from = &patch[line][inside.0..inside.1];
            for (sum, more) in dx[to..to + from.len()].iter_mut().zip(from) {
                *sum += more;
            }
        });
    }
}

/// Visits the lines of a window of the batch: where the line lies in its patch, what of it is inside the image, and where that
/// begins in the batch of images.
#[inline(always)]
fn each_line(
    window: &Window,
    index: usize,
    mut visit: impl FnMut(std::ops::Range<usize>, (usize, usize), usize),
) {
    let &Window {
        input: [height, width],
        channels,
        size,
        stride,
        before: [above, left],
        output,
    } = window;
    let position = index % window.positions();
    let image = index / window.positions() * window.image_len();
    // In the padded image.
    let (y, x) = (position / output[1] * stride[0], position % output[1] * stride[1]);
    let begin = left.saturating_sub(x).min(size[1]);
    let end = (left + width).saturating_sub(x).clamp(begin, size[1]);
    let column = (x + begin).saturating_sub(left);
    let run = size[1] * channels;
    for u in 0..size[0] {
        let line = u * run..(u + 1) * run;
        if y + u < above || y + u >= above + height {
            visit(line, (run, run), image);
        } else {
            let from = image + ((y + u - above) * width + column) * channels;
            visit(line, (begin * channels, end * channels), from);
        }
    }
}
