//! Products by the `gemm` crate.

use super::{MatrixMut, Operand, Start, with_workspace};

/// Sources are packed in blocks of this many rows and columns.
const BLOCK: usize = 512;

/// An operand's block, as pointer, row stride and column stride.
type Block = (*const f32, isize, isize);

pub(super) fn product(out: MatrixMut<'_>, a: Operand<'_>, b: Operand<'_>, start: Start<'_>, relu: bool) {
    let (m, n, k) = (out.rows, out.columns, a.columns());
    // SAFETY: the output holds every one of its rows, which do not overlap, and each is let go before it is asked for again.
    let rows =
        || (0..m).map(|row| unsafe { std::slice::from_raw_parts_mut(out.data.add(row * out.row_stride), n) });
    match start {
        Start::Zero => rows().for_each(|row| row.fill(0.0)),
        Start::Row(values) => rows().for_each(|row| row.copy_from_slice(values)),
        Start::Output => {}
    }
    let whole = matches!((a, b), (Operand::Matrix(_), Operand::Matrix(_)));
    let (rows_step, depth_step) = if whole { (m, k) } else { (BLOCK, BLOCK) };
    with_workspace(
        [rows_step.min(m) * depth_step.min(k), depth_step.min(k) * n],
        |left, right| {
            for i in (0..m).step_by(rows_step.max(1)) {
                for p in (0..k).step_by(depth_step.max(1)) {
                    let [height, depth] = [rows_step.min(m - i), depth_step.min(k - p)];
                    let lhs = block(a, [i, p], [height, depth], left);
                    let rhs = block(b, [p, 0], [depth, n], right);
                    // SAFETY: `block` gives what holds these sizes; the output was checked when it was made, and is borrowed
                    // mutably, so it overlaps neither block.
                    unsafe {
                        let dst = out.data.add(i * out.row_stride);
                        multiply([height, n, depth], (dst, out.row_stride as isize), lhs, rhs);
                    }
                }
            }
        },
    );
    if relu {
        for value in rows().flatten() {
            *value = if *value < 0.0 { 0.0 } else { *value };
        }
    }
}

/// The block of `operand` at `[row, column]` of this size, packed into `scratch` where it is nowhere in memory.
fn block(
    operand: Operand<'_>,
    [i, j]: [usize; 2],
    [rows, columns]: [usize; 2],
    scratch: &mut [f32],
) -> Block {
    match operand {
        Operand::Matrix(matrix) => {
            let data = &matrix.data[i * matrix.row_stride + j * matrix.column_stride..];
            (
                data.as_ptr(),
                matrix.row_stride as isize,
                matrix.column_stride as isize,
            )
        }
        Operand::Source(source) => {
            source.pack(i..i + rows, j..j + columns, scratch, columns);
            (scratch.as_ptr(), columns as isize, 1)
        }
        Operand::Transposed(source) => {
            source.pack(j..j + columns, i..i + rows, scratch, rows);
            (scratch.as_ptr(), 1, rows as isize)
        }
    }
}

/// `dst += lhs·rhs`.
///
/// # Safety
/// Every element that the sizes and strides reach is inside its allocation, and `dst` overlaps neither operand.
unsafe fn multiply(
    [m, n, k]: [usize; 3],
    (dst, dst_rs): (*mut f32, isize),
    (lhs, lhs_rs, lhs_cs): Block,
    (rhs, rhs_rs, rhs_cs): Block,
) {
    let parallelism = gemm::Parallelism::None;
    // SAFETY: the caller's promise.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            dst,
            1,
            dst_rs,
            true,
            lhs,
            lhs_cs,
            lhs_rs,
            rhs,
            rhs_cs,
            rhs_rs,
            1.0,
            1.0,
            false,
            false,
            false,
            parallelism,
        );
    }
}
