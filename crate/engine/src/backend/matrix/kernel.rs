//! The innermost loop: a tile of the output, 6 or 4 rows by 8 or 4 columns, held in registers along the inner dimension.
//!
//! x86-64 has 16 vector registers, one of which engines keep for themselves. 6 × 8 takes 12 for the sums, 2 for a row of `b` and
//! 1 for an element of `a`: just right, where products are added in one instruction. Where they are not, each takes a register
//! of its own for a moment, and 4 × 8 is faster. Both were measured, as was reading `a` where it lies.
//!
//! Written out by macros rather than in loops, so that the code is the same however the compiler is told to optimise.

use super::lane::Block;

/// The most rows of a tile.
pub(super) const TILE_ROWS: usize = 6;
/// The most columns of a tile.
pub(super) const TILE_COLUMNS: usize = 8;

/// The operands of one tile.
pub(super) struct Tile {
    /// Inner dimension.
    pub depth: usize,
    /// The rows of `a` where it is row-major; otherwise the first of these is its first column.
    pub a: [*const f32; TILE_ROWS],
    /// From a column of `a` to the next, where it is not row-major.
    pub a_stride: usize,
    pub b: *const f32,
    /// From a row of `b` to the next.
    pub b_stride: usize,
    /// What the sums start from.
    pub start: *const f32,
    pub start_stride: usize,
    pub out: *mut f32,
    pub out_stride: usize,
    /// Results are at least this.
    pub floor: f32,
}

/// Computes a tile of `ROWS` (4 or 6) by `VECTORS` (1 or 2) times 4: `out = max(start + a·b, floor)`. Element `(i, p)` of `a` is
/// `p` behind the pointer to row `i` if `ROW_MAJOR`, otherwise `i + p × a_stride` behind the first pointer.
///
/// # Safety
/// All that the tile's sizes and strides reach can be read, and written at `out`; `out` overlaps nothing but `start`.
#[inline(never)]
pub(super) unsafe fn compute<L: Block, const ROWS: usize, const VECTORS: usize, const ROW_MAJOR: bool>(
    tile: &Tile,
) {
    // SAFETY: the caller's promise covers every pointer below: each stays within its operand's rows and columns, except that
    // the pointers into `a` and `b` end behind the last, by `wrapping_add`.
    unsafe {
        let zero = L::splat(0.0);
        let (mut r0, mut r1, mut r2, mut r3, mut r4, mut r5) = (zero, zero, zero, zero, zero, zero);
        let (mut l4, mut l5) = (zero, zero);
        let (mut l0, mut l1, mut l2, mut l3);
        let [mut a0, mut a1, mut a2, mut a3, mut a4, mut a5] = tile.a;
        /// `$do!(number, pointer into a, left sum, right sum)` for each row of the tile.
        macro_rules! each_row {
            ($do:ident) => {
                $do!(0, a0, l0, r0);
                $do!(1, a1, l1, r1);
                $do!(2, a2, l2, r2);
                $do!(3, a3, l3, r3);
                if ROWS > 4 {
                    $do!(4, a4, l4, r4);
                    $do!(5, a5, l5, r5);
                }
            };
        }

        macro_rules! start {
            ($i:literal, $a:ident, $left:ident, $right:ident) => {
                let start = tile.start.add($i * tile.start_stride);
                $left = L::load(start);
                if VECTORS > 1 {
                    $right = L::load(start.add(4));
                }
            };
        }
        each_row!(start);

        let mut b = tile.b;
        let mut remaining = tile.depth;
        macro_rules! step {
            ($p:literal) => {
                let b_left = L::load(b);
                let b_right = if VECTORS > 1 {
                    L::load(b.add(4))
                } else {
                    b_left
                };
                macro_rules! multiply {
                    ($i:literal, $a:ident, $left:ident, $right:ident) => {
                        // Never so: this ends a basic block. Within one, LLVM would take all rows times `b_left` first and
                        // then all times `b_right`, for which the registers do not suffice.
                        if L::FUSED && $i > 0 && remaining == usize::MAX - $i - 8 * $p {
                            break;
                        }
                        let factor = L::load_splat(if ROW_MAJOR { $a.add($p) } else { a0.add($i) });
                        $left = $left.add_product(factor, b_left);
                        if VECTORS > 1 {
                            $right = $right.add_product(factor, b_right);
                        }
                    };
                }
                each_row!(multiply);
                b = b.wrapping_add(tile.b_stride);
                if !ROW_MAJOR {
                    a0 = a0.wrapping_add(tile.a_stride);
                }
            };
        }
        macro_rules! advance {
            ($i:literal, $a:ident, $left:ident, $right:ident) => {
                if ROW_MAJOR {
                    $a = $a.wrapping_add(4);
                }
            };
        }
        if remaining > 0 {
            loop {
                step!(0);
                if remaining == 1 {
                    break;
                }
                step!(1);
                if remaining == 2 {
                    break;
                }
                step!(2);
                if remaining == 3 {
                    break;
                }
                step!(3);
                remaining -= 4;
                if remaining == 0 {
                    break;
                }
                each_row!(advance);
            }
        }

        let floor = L::splat(tile.floor);
        macro_rules! finish {
            ($i:literal, $a:ident, $left:ident, $right:ident) => {
                let out = tile.out.add($i * tile.out_stride);
                $left.at_least(floor).store(out);
                if VECTORS > 1 {
                    $right.at_least(floor).store(out.add(4));
                }
            };
        }
        each_row!(finish);
    }
}
