//! One row times a matrix, as where a batch has one example: every number of the matrix is used once, so it is read in the order in
//! which it lies, and nothing is packed.
//!
//! Each result is the sum that the tiles make, term by term in the same order: whether a row is computed here or as part of a tile
//! changes no bit.

use super::{Matrix, MatrixMut, Start, lane::Block};

/// Computes the first columns of `out = start + a·b`, but at least 0 if `relu`, where `out` has one row: how many were computed, a
/// multiple of four. None where the numbers of `a` do not lie side by side, or those of `b` neither by row nor by column.
pub(super) fn row_times<L: Block>(
    out: &MatrixMut<'_>,
    a: Matrix<'_>,
    b: Matrix<'_>,
    start: Start<'_>,
    relu: bool,
) -> usize {
    let (columns, depth) = (out.columns / 4 * 4, b.rows);
    let by_row = b.column_stride == 1;
    if columns == 0 || depth == 0 || a.column_stride != 1 || !(by_row || b.row_stride == 1) {
        return 0;
    }
    debug_assert!(
        out.rows == 1 && a.rows == 1 && a.columns == depth && b.columns == out.columns,
        "sizes"
    );
    match start {
        Start::Output => {}
        // SAFETY: the output has that many columns, and so has the row.
        Start::Row(row) => unsafe {
            out.data
                .copy_from_nonoverlapping(row[..columns].as_ptr(), columns)
        },
        // SAFETY: as above.
        Start::Zero => unsafe { out.data.write_bytes(0, columns) },
    }
    let (from, a, sums) = (b.data.as_ptr(), a.data.as_ptr(), out.data);
    // SAFETY: `a` has `depth` numbers, `b` as many rows of `columns` at least, and the output that many columns.
    unsafe {
        if by_row {
            by_rows::<L>(sums, columns, a, depth, from, b.row_stride);
        } else {
            by_columns::<L>(sums, columns, a, depth, from, b.column_stride);
        }
        if relu {
            let mut at = 0;
            while at < columns {
                L::load(sums.add(at)).at_least(L::splat(0.0)).store(sums.add(at));
                at += 4;
            }
        }
    }
    columns
}

/// Adds four rows of `b` at a time, each times its number of `a`, to all sums.
///
/// # Safety
/// `a` has `depth` numbers, `b` as many rows, `stride` apart, of `columns`, a multiple of four, and so many are the sums.
#[inline(never)]
unsafe fn by_rows<L: Block>(
    sums: *mut f32,
    columns: usize,
    mut a: *const f32,
    mut depth: usize,
    mut b: *const f32,
    stride: usize,
) {
    // SAFETY: the caller's promise; pointers end behind the last row by `wrapping_add`.
    unsafe {
        while depth >= 4 {
            let (a0, a1) = (L::load_splat(a), L::load_splat(a.add(1)));
            let (a2, a3) = (L::load_splat(a.add(2)), L::load_splat(a.add(3)));
            let (mut b0, mut b1) = (b, b.wrapping_add(stride));
            let (mut b2, mut b3) = (b1.wrapping_add(stride), b1.wrapping_add(2 * stride));
            let (mut to, end) = (sums, sums.add(columns));
            while to < end {
                L::load(to)
                    .add_product(a0, L::load(b0))
                    .add_product(a1, L::load(b1))
                    .add_product(a2, L::load(b2))
                    .add_product(a3, L::load(b3))
                    .store(to);
                (b0, b1) = (b0.wrapping_add(4), b1.wrapping_add(4));
                (b2, b3) = (b2.wrapping_add(4), b3.wrapping_add(4));
                to = to.wrapping_add(4);
            }
            (a, b) = (a.wrapping_add(4), b.wrapping_add(4 * stride));
            depth -= 4;
        }
        while depth > 0 {
            let a0 = L::load_splat(a);
            let mut at = 0;
            while at < columns {
                let to = sums.add(at);
                L::load(to).add_product(a0, L::load(b.add(at))).store(to);
                at += 4;
            }
            (a, b) = (a.wrapping_add(1), b.wrapping_add(stride));
            depth -= 1;
        }
    }
}

/// Takes four columns of `b` at a time, which lie one behind the other: of each four numbers, which turned round are four rows of four
/// columns.
///
/// # Safety
/// `a` has `depth` numbers, `b` `columns` columns, a multiple of four, `stride` apart, of as many, and so many are the sums.
#[inline(never)]
unsafe fn by_columns<L: Block>(
    sums: *mut f32,
    columns: usize,
    a: *const f32,
    depth: usize,
    mut b: *const f32,
    stride: usize,
) {
    // SAFETY: the caller's promise; pointers end behind the last column by `wrapping_add`.
    unsafe {
        let mut at = 0;
        while at < columns {
            let (b0, b1) = (b, b.wrapping_add(stride));
            let (b2, b3) = (b1.wrapping_add(stride), b1.wrapping_add(2 * stride));
            let mut sum = L::load(sums.add(at));
            let mut p = 0;
            while p + 4 <= depth {
                let [r0, r1, r2, r3] = L::transpose([
                    L::load(b0.add(p)),
                    L::load(b1.add(p)),
                    L::load(b2.add(p)),
                    L::load(b3.add(p)),
                ]);
                let a = a.add(p);
                sum = sum
                    .add_product(L::load_splat(a), r0)
                    .add_product(L::load_splat(a.add(1)), r1)
                    .add_product(L::load_splat(a.add(2)), r2)
                    .add_product(L::load_splat(a.add(3)), r3);
                p += 4;
            }
            while p < depth {
                let numbers = [
                    b0.add(p).read(),
                    b1.add(p).read(),
                    b2.add(p).read(),
                    b3.add(p).read(),
                ];
                sum = sum.add_product(L::load_splat(a.add(p)), L::load(numbers.as_ptr()));
                p += 1;
            }
            sum.store(sums.add(at));
            b = b.wrapping_add(4 * stride);
            at += 4;
        }
    }
}
