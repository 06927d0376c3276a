//! Products of matrices on the CPU: natively by the `gemm` crate (AVX, chosen when the program runs), in wasm by the kernels
//! here (SIMD128, and relaxed SIMD where the build has it). The threads of the crew share the output; the order of every sum
//! depends on sizes alone.

#[cfg(not(target_arch = "wasm32"))]
mod apart;
mod blocked;
mod kernel;
pub(crate) mod lane;
#[cfg(not(target_arch = "wasm32"))]
mod native;
mod pack;
mod row;
#[cfg(test)]
mod tests;
#[cfg(target_arch = "wasm32")]
mod wasm;

use std::{cell::Cell, marker::PhantomData, ops::Range};

#[cfg(not(target_arch = "wasm32"))]
use native::product;
#[cfg(target_arch = "wasm32")]
use wasm::product;

use crate::crew;

/// A matrix inside a slice: element `(i, j)` is at `i × row_stride + j × column_stride`.
#[derive(Clone, Copy)]
pub(crate) struct Matrix<'a> {
    data: &'a [f32],
    rows: usize,
    columns: usize,
    row_stride: usize,
    column_stride: usize,
}

impl<'a> Matrix<'a> {
    /// A row-major matrix.
    ///
    /// # Panics
    /// Where `data` has not that many elements.
    pub fn new(data: &'a [f32], rows: usize, columns: usize) -> Self {
        assert!(data.len() == rows * columns, "matrix length");
        Self::strided(data, rows, columns, columns, 1)
    }

    /// A matrix with these distances from a row to the next and from a column to the next.
    ///
    /// # Panics
    /// Where the last element is beyond `data`.
    pub fn strided(
        data: &'a [f32],
        rows: usize,
        columns: usize,
        row_stride: usize,
        column_stride: usize,
    ) -> Self {
        assert!(
            fits(data.len(), [rows, columns], [row_stride, column_stride]),
            "matrix length"
        );
        Self {
            data,
            rows,
            columns,
            row_stride,
            column_stride,
        }
    }

    /// Some of its rows.
    fn some_rows(self, rows: &Range<usize>) -> Self {
        Self {
            data: &self.data[(rows.start * self.row_stride).min(self.data.len())..],
            rows: rows.len(),
            ..self
        }
    }

    pub const fn transposed(self) -> Self {
        Self {
            data: self.data,
            rows: self.columns,
            columns: self.rows,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
        }
    }
}

/// A row-major matrix that is written.
pub(crate) struct MatrixMut<'a> {
    /// Not a slice: the parts of an output that is shared out lie between each other.
    data: *mut f32,
    rows: usize,
    columns: usize,
    row_stride: usize,
    of: PhantomData<&'a mut [f32]>,
}

impl<'a> MatrixMut<'a> {
    /// A matrix without gaps between its rows.
    ///
    /// # Panics
    /// Where `data` has not that many elements.
    pub fn new(data: &'a mut [f32], rows: usize, columns: usize) -> Self {
        assert!(data.len() == rows * columns, "matrix length");
        Self::strided(data, rows, columns, columns)
    }

    /// A matrix with this distance from a row to the next.
    ///
    /// # Panics
    /// Where rows overlap, or the last element is beyond `data`.
    pub fn strided(data: &'a mut [f32], rows: usize, columns: usize, row_stride: usize) -> Self {
        assert!(row_stride >= columns, "rows overlap");
        assert!(
            fits(data.len(), [rows, columns], [row_stride, 1]),
            "matrix length"
        );
        Self {
            data: data.as_mut_ptr(),
            rows,
            columns,
            row_stride,
            of: PhantomData,
        }
    }
}

/// Whether a slice of `len` holds every element of a matrix.
fn fits(len: usize, [rows, columns]: [usize; 2], [row_stride, column_stride]: [usize; 2]) -> bool {
    if rows == 0 || columns == 0 {
        return true;
    }
    let last = |count: usize, stride: usize| (count - 1).checked_mul(stride);
    last(rows, row_stride)
        .zip(last(columns, column_stride))
        .and_then(|(row, column)| row.checked_add(column))
        .is_some_and(|last| last < len)
}

/// A matrix that is nowhere in memory as such: products ask for it block by block, so that what is derived from other numbers,
/// such as the patches of an image, is made in cache and never whole.
pub(crate) trait Source: Sync {
    fn rows(&self) -> usize;
    fn columns(&self) -> usize;
    /// Writes the elements of `rows` and `columns` (both inside the matrix) to `out`, row-major, `stride` from a row to the
    /// next. What lies between the rows is left as it is.
    fn pack(&self, rows: Range<usize>, columns: Range<usize>, out: &mut [f32], stride: usize);
}

impl Source for Matrix<'_> {
    fn rows(&self) -> usize {
        self.rows
    }

    fn columns(&self) -> usize {
        self.columns
    }

    fn pack(&self, rows: Range<usize>, columns: Range<usize>, out: &mut [f32], stride: usize) {
        for (row, out) in rows.zip(out.chunks_mut(stride.max(1))) {
            if self.column_stride == 1 {
                let from = row * self.row_stride + columns.start;
                out[..columns.len()].copy_from_slice(&self.data[from..from + columns.len()]);
                continue;
            }
            for (column, out) in columns.clone().zip(out) {
                *out = self.data[row * self.row_stride + column * self.column_stride];
            }
        }
    }
}

/// A factor of a product.
#[derive(Clone, Copy)]
pub(crate) enum Operand<'a> {
    Matrix(Matrix<'a>),
    Source(&'a dyn Source),
    Transposed(&'a dyn Source),
}

impl Operand<'_> {
    fn rows(&self) -> usize {
        match self {
            Self::Matrix(matrix) => matrix.rows,
            Self::Source(source) => source.rows(),
            Self::Transposed(source) => source.columns(),
        }
    }

    fn columns(&self) -> usize {
        match self {
            Self::Matrix(matrix) => matrix.columns,
            Self::Source(source) => source.columns(),
            Self::Transposed(source) => source.rows(),
        }
    }
}

impl<'a> From<Matrix<'a>> for Operand<'a> {
    fn from(matrix: Matrix<'a>) -> Self {
        Self::Matrix(matrix)
    }
}

/// What is done with a product on the way to the output.
#[derive(Clone, Copy)]
pub(crate) enum Epilogue<'a> {
    None,
    /// A row of numbers is added to every row.
    Bias(&'a [f32]),
    /// The same, and what is negative becomes 0.
    BiasRelu(&'a [f32]),
}

impl<'a> Epilogue<'a> {
    pub const fn bias(bias: &'a [f32], relu: bool) -> Self {
        if relu {
            Self::BiasRelu(bias)
        } else {
            Self::Bias(bias)
        }
    }

    /// What sums start from, and whether what is negative becomes 0.
    const fn parts(self) -> (Start<'a>, bool) {
        match self {
            Self::None => (Start::Zero, false),
            Self::Bias(bias) => (Start::Row(bias), false),
            Self::BiasRelu(bias) => (Start::Row(bias), true),
        }
    }
}

/// What sums start from.
#[derive(Clone, Copy)]
enum Start<'a> {
    Zero,
    Output,
    Row(&'a [f32]),
}

/// `out = a·b`, or `out += a·b`. `out` is row-major.
pub(crate) fn multiply(out: &mut [f32], a: Matrix<'_>, b: Matrix<'_>, add: bool) {
    multiply_into(MatrixMut::new(out, a.rows, b.columns), a, b, add);
}

/// `out = a·b`, or `out += a·b`.
pub(crate) fn multiply_into<'a>(
    out: MatrixMut<'_>,
    a: impl Into<Operand<'a>>,
    b: impl Into<Operand<'a>>,
    add: bool,
) {
    let start = if add { Start::Output } else { Start::Zero };
    checked_product(out, a.into(), b.into(), start, false);
}

/// `out = a·b`, and then what `epilogue` says.
pub(crate) fn multiply_then<'a>(
    out: MatrixMut<'_>,
    a: impl Into<Operand<'a>>,
    b: impl Into<Operand<'a>>,
    epilogue: Epilogue<'_>,
) {
    let (start, relu) = epilogue.parts();
    checked_product(out, a.into(), b.into(), start, relu);
}

/// As [`multiply_then`], with every row of `out` the function of its row of `a` and of `b` that it is where `a` has no other row, to the
/// last bit: what private training stands on. `epilogue` is done to `0 + a·b`, or to a sum that begins with the bias.
///
/// In wasm every product is like that: whichever tile a row is in, each of its numbers is a sum of its own, over the inner dimension in one
/// order by one instruction, whose blocks do not depend on the number of rows. The `gemm` crate chooses its blocks by all sizes and has
/// kernels of its own for small ones, so natively there are others.
pub(crate) fn multiply_apart(out: MatrixMut<'_>, a: Matrix<'_>, b: Matrix<'_>, epilogue: Epilogue<'_>) {
    #[cfg(target_arch = "wasm32")]
    multiply_then(out, a, b, epilogue);
    #[cfg(not(target_arch = "wasm32"))]
    {
        let (start, relu) = epilogue.parts();
        check(&out, &a.into(), &b.into(), start);
        apart::product(out, a, b, start, relu);
    }
}

/// # Panics
/// Where the sizes do not fit.
fn check(out: &MatrixMut<'_>, a: &Operand<'_>, b: &Operand<'_>, start: Start<'_>) {
    assert!(a.columns() == b.rows(), "inner dimensions");
    assert!(out.rows == a.rows() && out.columns == b.columns(), "output size");
    if let Start::Row(row) = start {
        assert!(row.len() == out.columns, "bias length");
    }
}

fn checked_product(out: MatrixMut<'_>, a: Operand<'_>, b: Operand<'_>, start: Start<'_>, relu: bool) {
    check(&out, &a, &b, start);
    let (m, n, depth) = (out.rows, out.columns, a.columns());
    if m == 0 || n == 0 {
        return;
    }
    // Whole tiles for each thread, along the longer side. What is nowhere in memory is packed by one.
    let out = Shared(out);
    match (a, b) {
        (_, Operand::Matrix(b)) if n >= m => crew::split(n, COLUMNS_AT_ONCE, m * depth, |columns| {
            let start = match start {
                Start::Row(row) => Start::Row(&row[columns.clone()]),
                start => start,
            };
            let b = Operand::Matrix(b.transposed().some_rows(&columns).transposed());
            product(out.part(0..m, columns), a, b, start, relu);
        }),
        (Operand::Matrix(a), _) => crew::split(m, ROWS_AT_ONCE, n * depth, |rows| {
            let a = Operand::Matrix(a.some_rows(&rows));
            product(out.part(rows, 0..n), a, b, start, relu);
        }),
        _ => product(out.0, a, b, start, relu),
    }
}

/// What threads take of a product's columns and rows: multiples of all tiles.
const COLUMNS_AT_ONCE: usize = 8;
pub(crate) const ROWS_AT_ONCE: usize = 12;

/// An output of which every thread writes another part.
struct Shared<'a>(MatrixMut<'a>);

// SAFETY: it is a mutable borrow of which `part` gives out parts, and `checked_product` asks for no two that overlap.
unsafe impl Sync for Shared<'_> {}

impl Shared<'_> {
    fn part(&self, rows: Range<usize>, columns: Range<usize>) -> MatrixMut<'_> {
        let Self(MatrixMut {
            data, row_stride, of, ..
        }) = self;
        MatrixMut {
            data: data.wrapping_add(rows.start * row_stride + columns.start),
            rows: rows.len(),
            columns: columns.len(),
            row_stride: *row_stride,
            of: *of,
        }
    }
}

/// A cache line. Blocks start at one, so that no load of four numbers straddles two.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([f32; 16]);

thread_local! {
    /// Where blocks are packed: kept, so that no product but the largest yet allocates.
    static WORKSPACE: Cell<Vec<Line>> = const { Cell::new(Vec::new()) };
}

/// Calls `work` with two blocks of at least these lengths, whose contents are arbitrary.
fn with_workspace<R>(lens: [usize; 2], work: impl FnOnce(&mut [f32], &mut [f32]) -> R) -> R {
    let [left, right] = lens.map(|len| len.div_ceil(16));
    let mut lines = WORKSPACE.take();
    if lines.len() < left + right {
        lines.resize(left + right, Line([0.0; 16]));
    }
    let numbers = lines.len() * 16;
    // SAFETY: a `Line` is 16 numbers and nothing else, so `lines` is that many in a row, borrowed mutably through `lines`.
    let numbers = unsafe { std::slice::from_raw_parts_mut(lines.as_mut_ptr().cast::<f32>(), numbers) };
    let (left, right) = numbers.split_at_mut(left * 16);
    let result = work(left, right);
    WORKSPACE.set(lines);
    result
}
