//! One row times a matrix, as where a batch has one example: every number of the matrix is used once, so it is read in the order in
//! which it lies, and nothing is packed.
//!
//! Each result is the sum that the tiles make, term by term in the same order: whether a row is computed here or as part of a tile
//! changes no bit.

use super::{Matrix, MatrixMut, Start, lane::Block};

/// Rows of `b` that are added up at a time.
const AT_ONCE: usize = 4;

/// Computes the first columns of `out = start + a·b`, but at least 0 if `relu`, where `out` has one row: how many were computed, a
/// multiple of four. None where the numbers of `b` lie neither by row nor by column.
pub(super) fn row_times<L: Block>(
    out: &MatrixMut<'_>,
    a: Matrix<'_>,
    b: Matrix<'_>,
    start: Start<'_>,
    relu: bool,
) -> usize {
    let columns = out.columns / 4 * 4;
    let depth = b.rows;
    if columns == 0 || depth == 0 || (b.column_stride != 1 && b.row_stride != 1) {
        return 0;
    }
    debug_assert!(
        out.rows == 1 && a.rows == 1 && a.columns == depth && b.columns == out.columns,
        "sizes"
    );
    let sums = |at: usize| out.data.wrapping_add(at);
    for at in (0..columns).step_by(4) {
        // SAFETY: `at + 4` is within the columns of the output, of which `row` has as many.
        unsafe {
            match start {
                Start::Zero => L::splat(0.0).store(sums(at)),
                Start::Row(row) => L::load(row[at..at + 4].as_ptr()).store(sums(at)),
                Start::Output => {}
            }
        }
    }
    let factor = |p: usize| L::splat(a.data[p * a.column_stride]);
    if b.column_stride == 1 {
        let row = |p: usize| b.data[p * b.row_stride..].as_ptr();
        let mut p = 0;
        while p + AT_ONCE <= depth {
            let factors = [factor(p), factor(p + 1), factor(p + 2), factor(p + 3)];
            let rows = [row(p), row(p + 1), row(p + 2), row(p + 3)];
            add_rows(sums(0), columns, factors, rows);
            p += AT_ONCE;
        }
        while p < depth {
            add_rows(sums(0), columns, [factor(p)], [row(p)]);
            p += 1;
        }
    } else {
        for at in (0..columns).step_by(4) {
            // Of four columns of `b`, which are contiguous, four numbers each; turned round, they are four rows of four columns.
            let column = |j: usize| b.data[(at + j) * b.column_stride..].as_ptr();
            let from = [column(0), column(1), column(2), column(3)];
            // SAFETY: each of these columns has `depth` numbers, and the output four at `at`.
            unsafe {
                let mut sum = L::load(sums(at));
                let mut p = 0;
                while p + 4 <= depth {
                    let rows = L::transpose(from.map(|column| L::load(column.add(p))));
                    for (i, row) in rows.into_iter().enumerate() {
                        sum = sum.add_product(factor(p + i), row);
                    }
                    p += 4;
                }
                while p < depth {
                    let numbers = from.map(|column| column.add(p).read());
                    sum = sum.add_product(factor(p), L::load(numbers.as_ptr()));
                    p += 1;
                }
                sum.store(sums(at));
            }
        }
    }
    if relu {
        for at in (0..columns).step_by(4) {
            // SAFETY: as above.
            unsafe { L::load(sums(at)).at_least(L::splat(0.0)).store(sums(at)) };
        }
    }
    columns
}

/// Adds `factors·rows`, one after the other, to the `columns` sums.
#[inline(always)]
fn add_rows<L: Block, const N: usize>(
    sums: *mut f32,
    columns: usize,
    factors: [L; N],
    rows: [*const f32; N],
) {
    let mut at = 0;
    while at < columns {
        // SAFETY: the caller's output and rows have that many columns, a multiple of four.
        unsafe {
            let mut sum = L::load(sums.add(at));
            for (factor, row) in factors.into_iter().zip(rows) {
                sum = sum.add_product(factor, L::load(row.add(at)));
            }
            sum.store(sums.add(at));
        }
        at += 4;
    }
}
