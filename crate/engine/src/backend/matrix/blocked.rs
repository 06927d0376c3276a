//! Products in blocks that fit the caches, after Goto and van de Geijn, "Anatomy of High-Performance Matrix Multiplication"
//! (2008): a block of `b` is packed into panels of 8 columns, and each panel stays in the first cache while it meets every tile
//! of rows of a block of `a`. `a` itself is read where it lies if its rows or its columns are contiguous.

use std::ops::Range;

use super::{
    MatrixMut, Operand, Start,
    kernel::{TILE_COLUMNS, TILE_ROWS, Tile, compute},
    lane::Block,
    pack::{Panel, Panels, Rows, ranges},
    row::row_times,
    with_workspace,
};

/// Inner dimension of a block: a panel of `b` takes 10 KiB and a tile of `a` 8 KiB of the first cache.
const DEPTH: usize = 320;
/// Rows of a block of `a`: 120 KiB of the second cache.
const ROWS: usize = 96;
/// Up to this many rows, `b` is read where it lies: packing would not pay.
const UNPACKED: usize = 64;
/// Unless a multiple of this lies between its rows, which the caches put into the same few places.
const CONFLICT: usize = 1024;
/// Columns of a block of `b`: 640 KiB.
const COLUMNS: usize = 512;

/// `out = start + a·b`, but at least 0 if `relu`. The sizes agree; that of the output is not 0.
pub(super) fn product<L: Block>(
    out: MatrixMut<'_>,
    a: Operand<'_>,
    b: Operand<'_>,
    start: Start<'_>,
    relu: bool,
) {
    if let (1, Operand::Matrix(row), Operand::Matrix(matrix)) = (out.rows, a, b) {
        let done = row_times::<L>(&out, row, matrix, start, relu);
        if done == out.columns {
            return;
        }
        if done > 0 {
            let rest = done..out.columns;
            let start = match start {
                Start::Row(row) => Start::Row(&row[done..]),
                start => start,
            };
            let out = MatrixMut {
                data: out.data.wrapping_add(done),
                columns: rest.len(),
                ..out
            };
            let matrix = matrix.transposed().some_rows(&rest).transposed();
            return product::<L>(out, a, Operand::Matrix(matrix), start, relu);
        }
    }
    let (m, n, k) = (out.rows, out.columns, a.columns());
    // Blocks along the inner dimension are of like sizes.
    let depth = k.div_ceil(k.div_ceil(DEPTH).max(1)).next_multiple_of(4).max(4);
    let lens = [
        // Tiles may reach beyond the last row; and before it is used for `a`, a panel of `b` may pass through.
        (ROWS.min(m) * depth + TILE_ROWS).max(TILE_COLUMNS * depth),
        COLUMNS.min(n).next_multiple_of(TILE_COLUMNS) * depth,
    ];
    let in_place = match b {
        Operand::Matrix(b) => m <= TILE_ROWS || (m <= UNPACKED && !b.row_stride.is_multiple_of(CONFLICT)),
        _ => false,
    };
    with_workspace(lens, |left, right| {
        for columns in ranges(n, COLUMNS) {
            for inner in ranges(k.max(1), depth) {
                let (first, last) = (inner.start == 0, inner.end >= k);
                let inner = inner.start..inner.end.min(k);
                let panels = Panels::new::<L>(b, inner.clone(), columns.clone(), in_place, right, left);
                for rows in ranges(m, ROWS) {
                    let block = Rows::new(
                        a,
                        rows.clone(),
                        inner.clone(),
                        tiles_exactly::<L>(rows.len()),
                        left,
                    );
                    for column in columns.clone().step_by(TILE_COLUMNS) {
                        let start = match start {
                            Start::Row(row) if first => Start::Row(&row[column..]),
                            Start::Zero if first => Start::Zero,
                            _ => Start::Output,
                        };
                        let floor = if relu && last { 0.0 } else { f32::NEG_INFINITY };
                        let panel = panels.get(column - columns.start);
                        panel_times::<L>(
                            &out,
                            rows.clone(),
                            column,
                            block,
                            inner.len(),
                            panel,
                            start,
                            floor,
                        );
                    }
                }
            }
        }
    });
}

/// The rows of the next tile where so many are left: 6, or 4 where that leaves fewer of the tile's rows empty.
const fn tile_rows<L: Block>(left: usize) -> usize {
    if L::FUSED && (left > 8 || left == 6 || left == 5) {
        6
    } else {
        4
    }
}

/// Whether no tile of so many rows has rows to spare.
const fn tiles_exactly<L: Block>(rows: usize) -> bool {
    rows >= 4 && rows.is_multiple_of(if L::FUSED { 2 } else { 4 })
}

/// Multiplies the block of `a` with a panel of `b`.
#[expect(
    clippy::too_many_arguments,
    reason = "one loop of five, in a function of its own to be readable"
)]
fn panel_times<L: Block>(
    out: &MatrixMut<'_>,
    rows: Range<usize>,
    column: usize,
    a: Rows,
    depth: usize,
    panel: Panel,
    start: Start<'_>,
    floor: f32,
) {
    static ZEROS: [f32; TILE_COLUMNS] = [0.0; TILE_COLUMNS];
    let width = Panel::width(panel.columns);
    let mut out_at = out.data.wrapping_add(rows.start * out.row_stride + column);
    let mut a_at = a.data;
    let mut tile = Tile {
        depth,
        a: [a_at; TILE_ROWS],
        a_stride: a.stride,
        b: panel.data,
        b_stride: panel.stride,
        start: ZEROS.as_ptr(),
        start_stride: 0,
        out: out_at,
        out_stride: out.row_stride,
        floor,
    };
    if let Start::Row(row) = start {
        tile.start = row.as_ptr();
    }
    let mut left = rows.len();
    while left > 0 {
        let height = tile_rows::<L>(left);
        let used = if height < left { height } else { left };
        if a.row_major {
            let row = |at: usize| a_at.wrapping_add(if at < used { at } else { used - 1 } * a.stride);
            tile.a = [a_at, row(1), row(2), row(3), row(4), row(5)];
        } else {
            tile.a[0] = a_at;
        }
        tile.out = out_at;
        if let Start::Output = start {
            (tile.start, tile.start_stride) = (out_at, out.row_stride);
        }
        // SAFETY: the operands hold the block and the panel; a tile that the output does not hold in whole goes through
        // `compute_edge`, which writes the part that it does.
        unsafe {
            if used == height && panel.columns == width {
                compute_tile::<L>(height, width, a.row_major, &tile);
            } else {
                compute_edge::<L>(height, width, a.row_major, &tile, used, panel.columns);
            }
        }
        let next = if a.row_major { height * a.stride } else { height };
        (a_at, out_at) = (
            a_at.wrapping_add(next),
            out_at.wrapping_add(height * out.row_stride),
        );
        left -= used;
    }
}

/// # Safety
/// As for [`compute`].
#[inline(always)]
unsafe fn compute_tile<L: Block>(height: usize, width: usize, row_major: bool, tile: &Tile) {
    // SAFETY: the caller's promise.
    unsafe {
        // The compiler drops the tiles of 6 rows where `tile_rows` gives none.
        match (L::FUSED && height == 6, width, row_major) {
            (true, TILE_COLUMNS, true) => compute::<L, 6, 2, true>(tile),
            (true, TILE_COLUMNS, false) => compute::<L, 6, 2, false>(tile),
            (true, _, true) => compute::<L, 6, 1, true>(tile),
            (true, _, false) => compute::<L, 6, 1, false>(tile),
            (false, TILE_COLUMNS, true) => compute::<L, 4, 2, true>(tile),
            (false, TILE_COLUMNS, false) => compute::<L, 4, 2, false>(tile),
            (false, _, true) => compute::<L, 4, 1, true>(tile),
            (false, _, false) => compute::<L, 4, 1, false>(tile),
        }
    }
}

/// Computes a tile aside, and copies the part of it that counts.
///
/// # Safety
/// As for [`compute`], with so many `rows` and `columns` at `start` and `out`.
#[inline(never)]
unsafe fn compute_edge<L: Block>(
    height: usize,
    width: usize,
    row_major: bool,
    tile: &Tile,
    rows: usize,
    columns: usize,
) {
    let mut edge = [0.0; TILE_ROWS * TILE_COLUMNS];
    let at = edge.as_mut_ptr();
    // SAFETY: the caller's promise; `edge` holds any tile.
    unsafe {
        copy((tile.start, tile.start_stride), (at, TILE_COLUMNS), rows, columns);
        let aside = Tile {
            start: at,
            start_stride: TILE_COLUMNS,
            out: at,
            out_stride: TILE_COLUMNS,
            ..*tile
        };
        compute_tile::<L>(height, width, row_major, &aside);
        copy((at, TILE_COLUMNS), (tile.out, tile.out_stride), rows, columns);
    }
}

/// Copies some numbers between matrices given by pointer and row stride.
///
/// # Safety
/// They hold so many `rows` and `columns`.
#[inline(always)]
unsafe fn copy(
    (mut from, from_stride): (*const f32, usize),
    (mut to, to_stride): (*mut f32, usize),
    rows: usize,
    columns: usize,
) {
    for _ in 0..rows {
        for column in 0..columns {
            // SAFETY: the caller's promise.
            unsafe { to.add(column).write(from.add(column).read()) };
        }
        (from, to) = (from.wrapping_add(from_stride), to.wrapping_add(to_stride));
    }
}
