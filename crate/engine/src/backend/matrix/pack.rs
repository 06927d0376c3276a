//! Blocks of the operands, as the kernels read them: where they lie if that is as fast, otherwise packed into scratch memory.

use std::ops::Range;

use super::{Matrix, Operand, Source, kernel::TILE_COLUMNS, lane::Block};

/// Rows of `b` that are packed at a time: few enough to stay in the first cache while each panel takes its part of them.
const ROWS_AT_ONCE: usize = 16;

/// A block of `a`.
#[derive(Clone, Copy)]
pub(super) struct Rows {
    pub data: *const f32,
    /// From a row to the next if `row_major`, otherwise from a column to the next; the other distance is 1.
    pub stride: usize,
    pub row_major: bool,
}

impl Rows {
    /// The block of `a` at `rows` and `inner`. Tiles may read up to 5 numbers beyond a column, unless `exact`.
    pub fn new(
        a: Operand<'_>,
        rows: Range<usize>,
        inner: Range<usize>,
        exact: bool,
        scratch: &mut [f32],
    ) -> Self {
        let (height, depth) = (rows.len(), inner.len());
        let by_row = |data| Self {
            data,
            stride: depth,
            row_major: true,
        };
        let by_column = |data| Self {
            data,
            stride: height,
            row_major: false,
        };
        match a {
            Operand::Matrix(a) if depth == 0 => by_row(a.data.as_ptr()),
            Operand::Matrix(a) if a.column_stride == 1 => Self {
                data: a.data[rows.start * a.row_stride + inner.start..].as_ptr(),
                stride: a.row_stride,
                row_major: true,
            },
            Operand::Matrix(a) if a.row_stride == 1 && exact => Self {
                data: a.data[rows.start + inner.start * a.column_stride..].as_ptr(),
                stride: a.column_stride,
                row_major: false,
            },
            Operand::Matrix(a) => {
                a.transposed().pack(inner, rows, scratch, height);
                by_column(scratch.as_ptr())
            }
            Operand::Source(a) => {
                a.pack(rows, inner, scratch, depth);
                by_row(scratch.as_ptr())
            }
            Operand::Transposed(a) => {
                a.pack(inner, rows, scratch, height);
                by_column(scratch.as_ptr())
            }
        }
    }
}

/// A panel of `b`: the columns that a tile has, the last of which may not count.
pub(super) struct Panel {
    pub data: *const f32,
    /// From a row to the next.
    pub stride: usize,
    /// 8 or 4, or fewer in the last panel.
    pub columns: usize,
}

impl Panel {
    /// 8, or 4 if that is enough.
    pub const fn width(columns: usize) -> usize {
        if columns > TILE_COLUMNS / 2 {
            TILE_COLUMNS
        } else {
            TILE_COLUMNS / 2
        }
    }
}

/// A block of `b`.
pub(super) struct Panels {
    columns: usize,
    depth: usize,
    packed: *const f32,
    /// The block itself, and its row stride, if full panels are read where they lie.
    in_place: Option<(*const f32, usize)>,
}

impl Panels {
    /// The block of `b` at `inner` and `columns`, packed into `packed`; `scratch` has room for a panel. Where
    /// `in_place`, full panels with contiguous rows are read where they lie.
    pub fn new<L: Block>(
        b: Operand<'_>,
        inner: Range<usize>,
        columns: Range<usize>,
        in_place: bool,
        packed: &mut [f32],
        scratch: &mut [f32],
    ) -> Self {
        let mut panels = Self {
            columns: columns.len(),
            depth: inner.len(),
            packed: packed.as_ptr(),
            in_place: None,
        };
        if inner.is_empty() {
            return panels;
        }
        match b {
            Operand::Matrix(b) => {
                let data = &b.data[inner.start * b.row_stride + columns.start * b.column_stride..];
                if in_place && b.column_stride == 1 {
                    panels.in_place = Some((data.as_ptr(), b.row_stride));
                }
                let block = Matrix::strided(data, inner.len(), columns.len(), b.row_stride, b.column_stride);
                // Rows in small groups, each shared out to the panels; columns one panel at a time.
                let rows_at_once = if b.row_stride == 1 {
                    inner.len()
                } else {
                    ROWS_AT_ONCE
                };
                for rows in ranges(inner.len(), rows_at_once) {
                    for at in ranges(columns.len(), TILE_COLUMNS) {
                        if panels.in_place.is_none() || at.len() < Panel::width(at.len()) {
                            let panel = &mut packed[at.start * inner.len()..];
                            pack_panel::<L>(block, rows.clone(), at, panel);
                        }
                    }
                }
            }
            Operand::Source(b) => {
                for at in ranges(columns.len(), TILE_COLUMNS) {
                    let panel = &mut packed[at.start * inner.len()..];
                    let columns = columns.start + at.start..columns.start + at.end;
                    b.pack(inner.clone(), columns, panel, Panel::width(at.len()));
                }
            }
            Operand::Transposed(b) => {
                for at in ranges(columns.len(), TILE_COLUMNS) {
                    let rows = columns.start + at.start..columns.start + at.end;
                    b.pack(rows, inner.clone(), scratch, inner.len());
                    let block = Matrix::strided(scratch, inner.len(), at.len(), 1, inner.len());
                    let panel = &mut packed[at.start * inner.len()..];
                    pack_panel::<L>(block, 0..inner.len(), 0..at.len(), panel);
                }
            }
        }
        panels
    }

    /// The panel that starts at `column`, a multiple of 8.
    pub fn get(&self, column: usize) -> Panel {
        let columns = TILE_COLUMNS.min(self.columns - column);
        let width = Panel::width(columns);
        match self.in_place {
            Some((data, stride)) if columns == width => Panel {
                data: data.wrapping_add(column),
                stride,
                columns,
            },
            _ => Panel {
                data: self.packed.wrapping_add(column * self.depth),
                stride: width,
                columns,
            },
        }
    }
}

/// Packs `rows` of the panel that the `columns` of `block` are. Without closures or iterators in the loops: the browser build is
/// optimised for size, and would call them.
fn pack_panel<L: Block>(block: Matrix<'_>, rows: Range<usize>, columns: Range<usize>, panel: &mut [f32]) {
    let width = Panel::width(columns.len());
    assert!(panel.len() >= rows.end * width && rows.end <= block.rows && columns.end <= block.columns);
    let Matrix {
        row_stride,
        column_stride,
        ..
    } = block;
    let mut from = block
        .data
        .as_ptr()
        .wrapping_add(rows.start * row_stride + columns.start * column_stride);
    let mut to = panel.as_mut_ptr().wrapping_add(rows.start * width);
    let last = columns.len() - 1;
    let mut left = rows.len();
    // SAFETY: by the assertion the block holds all that is read, a column that is not there being read as the last one, and the
    // panel all that is written; four at once are read where they are neighbours in a row or column. The pointers end behind it.
    unsafe {
        if column_stride == 1 && last + 1 == width {
            while left > 0 {
                L::load(from).store(to);
                if width > 4 {
                    L::load(from.add(4)).store(to.add(4));
                }
                (from, to) = (from.wrapping_add(row_stride), to.wrapping_add(width));
                left -= 1;
            }
        }
        if row_stride == 1 {
            let mut column = 0;
            while column < width {
                let mut a = from.add(at(column, last) * column_stride);
                let mut b = from.add(at(column + 1, last) * column_stride);
                let mut c = from.add(at(column + 2, last) * column_stride);
                let mut d = from.add(at(column + 3, last) * column_stride);
                let mut to = to.add(column);
                let mut blocks = left / 4;
                while blocks > 0 {
                    let transposed = L::transpose([L::load(a), L::load(b), L::load(c), L::load(d)]);
                    transposed[0].store(to);
                    transposed[1].store(to.add(width));
                    transposed[2].store(to.add(2 * width));
                    transposed[3].store(to.add(3 * width));
                    (a, b) = (a.wrapping_add(4), b.wrapping_add(4));
                    (c, d) = (c.wrapping_add(4), d.wrapping_add(4));
                    to = to.wrapping_add(4 * width);
                    blocks -= 1;
                }
                column += 4;
            }
            let done = left / 4 * 4;
            (from, to) = (from.wrapping_add(done), to.wrapping_add(done * width));
            left -= done;
        }
        while left > 0 {
            let mut column = 0;
            while column < width {
                to.add(column)
                    .write(from.add(at(column, last) * column_stride).read());
                column += 1;
            }
            (from, to) = (from.wrapping_add(row_stride), to.wrapping_add(width));
            left -= 1;
        }
    }
}

/// The lesser.
#[inline(always)]
const fn at(column: usize, last: usize) -> usize {
    if column < last { column } else { last }
}

/// `0..total` in ranges of `step`.
pub(super) fn ranges(total: usize, step: usize) -> impl Iterator<Item = Range<usize>> {
    (0..total)
        .step_by(step)
        .map(move |start| start..total.min(start + step))
}
