//! Four numbers at once: what the kernels are written in. SIMD128 in wasm; a plain array natively, where the compiler makes SIMD
//! of it. Single numbers too, for what is left over.

/// Some `f32`s. Comparisons give masks: numbers all of whose bits are set where it is so, and none elsewhere.
pub(crate) trait Lane: Copy {
    /// How many.
    const LEN: usize;

    /// # Safety
    /// So many numbers can be read at `at`.
    unsafe fn load(at: *const f32) -> Self;
    /// # Safety
    /// So many numbers can be written at `at`.
    unsafe fn store(self, at: *mut f32);
    fn splat(value: f32) -> Self;
    fn add(self, other: Self) -> Self;
    fn sub(self, other: Self) -> Self;
    fn mul(self, other: Self) -> Self;
    fn div(self, other: Self) -> Self;
    fn sqrt(self) -> Self;
    /// `self + a·b`, with one rounding or two.
    fn add_product(self, a: Self, b: Self) -> Self;
    fn abs(self) -> Self;
    /// The bit of the sign, and no other.
    fn sign(self) -> Self;
    /// Whether it is greater; not so where either is not a number.
    fn greater(self, other: Self) -> Self;
    /// Whether it is not a number.
    fn not_a_number(self) -> Self;
    /// The bits of both.
    fn or(self, other: Self) -> Self;
    /// `yes` where this mask is set, elsewhere `no`.
    fn select(self, yes: Self, no: Self) -> Self;
    /// The sum of the bits of both as whole numbers of 32 bits, without what is carried out of them.
    fn add_bits(self, other: Self) -> Self;
    /// The nearest number to the whole number of 32 bits that its bits are.
    fn of_whole(self) -> Self;
    /// `2ⁿ`, where the number is `n + 1.5·2²³`.
    fn power_of_shifted(self) -> Self;

    /// Each number, or `floor` where it is less; what is not a number stays so.
    #[inline(always)]
    fn at_least(self, floor: Self) -> Self {
        floor.greater(self).select(floor, self)
    }

    /// Each number, or `ceiling` where it is greater; what is not a number stays so.
    #[inline(always)]
    fn at_most(self, ceiling: Self) -> Self {
        self.greater(ceiling).select(ceiling, self)
    }
}

/// What the products of matrices need besides.
pub(super) trait Block: Lane {
    /// Whether `add_product` is one instruction.
    const FUSED: bool;

    /// The number at `at`, four times.
    ///
    /// # Safety
    /// One number can be read at `at`.
    unsafe fn load_splat(at: *const f32) -> Self;
    /// Rows to columns.
    fn transpose(rows: [Self; 4]) -> [Self; 4];
}

/// Four numbers, as this platform has them.
#[cfg(target_arch = "wasm32")]
pub(crate) type Four = core::arch::wasm32::v128;
#[cfg(not(target_arch = "wasm32"))]
pub(crate) type Four = Scalars<false>;

/// Runs `$body` for `$at` from 0 to `$len`, which are as many numbers at once as `$lane` has: four while there are, then one. Safe code
/// first compares `$len` with the lengths of what the body reads and writes.
macro_rules! each_lane {
    ($len:expr, |$at:ident: $lane:ident| $body:block) => {{
        let len: usize = $len;
        let mut $at = 0;
        {
            type $lane = $crate::backend::matrix::lane::Four;
            while $at + 4 <= len {
                $body;
                $at += 4;
            }
        }
        {
            type $lane = f32;
            while $at < len {
                $body;
                $at += 1;
            }
        }
    }};
}
pub(crate) use each_lane;

const fn mask(set: bool) -> u32 {
    if set { u32::MAX } else { 0 }
}

impl Lane for f32 {
    const LEN: usize = 1;

    #[inline(always)]
    unsafe fn load(at: *const f32) -> Self {
        // SAFETY: the caller's promise.
        unsafe { at.read() }
    }

    #[inline(always)]
    unsafe fn store(self, at: *mut f32) {
        // SAFETY: the caller's promise.
        unsafe { at.write(self) }
    }

    #[inline(always)]
    fn splat(value: f32) -> Self {
        value
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        self + other
    }

    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        self - other
    }

    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        self * other
    }

    #[inline(always)]
    fn div(self, other: Self) -> Self {
        self / other
    }

    #[inline(always)]
    fn sqrt(self) -> Self {
        Self::sqrt(self)
    }

    #[inline(always)]
    fn add_product(self, a: Self, b: Self) -> Self {
        self + a * b
    }

    #[inline(always)]
    fn abs(self) -> Self {
        Self::abs(self)
    }

    #[inline(always)]
    fn sign(self) -> Self {
        Self::from_bits(self.to_bits() & (-0f32).to_bits())
    }

    #[inline(always)]
    fn greater(self, other: Self) -> Self {
        Self::from_bits(mask(self > other))
    }

    #[inline(always)]
    fn not_a_number(self) -> Self {
        Self::from_bits(mask(Self::is_nan(self)))
    }

    #[inline(always)]
    fn or(self, other: Self) -> Self {
        Self::from_bits(self.to_bits() | other.to_bits())
    }

    #[inline(always)]
    fn select(self, yes: Self, no: Self) -> Self {
        if self.to_bits() == 0 { no } else { yes }
    }

    #[inline(always)]
    fn add_bits(self, other: Self) -> Self {
        Self::from_bits(self.to_bits().wrapping_add(other.to_bits()))
    }

    #[inline(always)]
    fn of_whole(self) -> Self {
        self.to_bits().cast_signed() as Self
    }

    #[inline(always)]
    fn power_of_shifted(self) -> Self {
        Self::from_bits((self.to_bits() << 23).wrapping_add(1f32.to_bits()))
    }
}

/// Four numbers without SIMD.
#[cfg(not(target_arch = "wasm32"))]
#[derive(Clone, Copy)]
pub(crate) struct Scalars<const FUSED: bool>([f32; 4]);

#[cfg(not(target_arch = "wasm32"))]
impl<const FUSED: bool> Scalars<FUSED> {
    #[inline(always)]
    fn each(self, other: Self, function: impl Fn(f32, f32) -> f32) -> Self {
        Self(std::array::from_fn(|lane| function(self.0[lane], other.0[lane])))
    }
}

#[cfg(not(target_arch = "wasm32"))]
impl<const FUSED: bool> Lane for Scalars<FUSED> {
    const LEN: usize = 4;

    #[inline(always)]
    unsafe fn load(at: *const f32) -> Self {
        // SAFETY: the caller's promise.
        Self(unsafe { at.cast::<[f32; 4]>().read() })
    }

    #[inline(always)]
    unsafe fn store(self, at: *mut f32) {
        // SAFETY: the caller's promise.
        unsafe { at.cast::<[f32; 4]>().write(self.0) }
    }

    #[inline(always)]
    fn splat(value: f32) -> Self {
        Self([value; 4])
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        self.each(other, |a, b| a + b)
    }

    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        self.each(other, |a, b| a - b)
    }

    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        self.each(other, |a, b| a * b)
    }

    #[inline(always)]
    fn div(self, other: Self) -> Self {
        self.each(other, |a, b| a / b)
    }

    #[inline(always)]
    fn sqrt(self) -> Self {
        Self(self.0.map(f32::sqrt))
    }

    #[inline(always)]
    fn add_product(self, a: Self, b: Self) -> Self {
        Self(std::array::from_fn(|lane| {
            if FUSED {
                a.0[lane].mul_add(b.0[lane], self.0[lane])
            } else {
                self.0[lane] + a.0[lane] * b.0[lane]
            }
        }))
    }

    #[inline(always)]
    fn abs(self) -> Self {
        Self(self.0.map(f32::abs))
    }

    #[inline(always)]
    fn sign(self) -> Self {
        Self(self.0.map(Lane::sign))
    }

    #[inline(always)]
    fn greater(self, other: Self) -> Self {
        self.each(other, Lane::greater)
    }

    #[inline(always)]
    fn not_a_number(self) -> Self {
        Self(self.0.map(Lane::not_a_number))
    }

    #[inline(always)]
    fn or(self, other: Self) -> Self {
        self.each(other, Lane::or)
    }

    #[inline(always)]
    fn select(self, yes: Self, no: Self) -> Self {
        Self(std::array::from_fn(|lane| {
            Lane::select(self.0[lane], yes.0[lane], no.0[lane])
        }))
    }

    #[inline(always)]
    fn add_bits(self, other: Self) -> Self {
        self.each(other, Lane::add_bits)
    }

    #[inline(always)]
    fn of_whole(self) -> Self {
        Self(self.0.map(Lane::of_whole))
    }

    #[inline(always)]
    fn power_of_shifted(self) -> Self {
        Self(self.0.map(Lane::power_of_shifted))
    }
}

#[cfg(not(target_arch = "wasm32"))]
impl<const FUSED: bool> Block for Scalars<FUSED> {
    const FUSED: bool = FUSED;

    #[inline(always)]
    unsafe fn load_splat(at: *const f32) -> Self {
        // SAFETY: the caller's promise.
        Self([unsafe { at.read() }; 4])
    }

    #[inline(always)]
    fn transpose(rows: [Self; 4]) -> [Self; 4] {
        std::array::from_fn(|row| Self(std::array::from_fn(|column| rows[column].0[row])))
    }
}

#[cfg(target_arch = "wasm32")]
mod simd128 {
    use core::arch::wasm32::{
        f32x4_abs, f32x4_add, f32x4_convert_i32x4, f32x4_div, f32x4_gt, f32x4_mul, f32x4_ne, f32x4_pmax,
        f32x4_splat, f32x4_sqrt, f32x4_sub, i32x4_add, i32x4_shl, i32x4_shuffle, i32x4_splat, v128, v128_and,
        v128_bitselect, v128_load, v128_load32_splat, v128_or, v128_store,
    };

    impl super::Lane for v128 {
        const LEN: usize = 4;

        #[inline(always)]
        unsafe fn load(at: *const f32) -> Self {
            // SAFETY: the caller's promise; the instruction asks for no alignment.
            unsafe { v128_load(at.cast()) }
        }

        #[inline(always)]
        unsafe fn store(self, at: *mut f32) {
            // SAFETY: the caller's promise; the instruction asks for no alignment.
            unsafe { v128_store(at.cast(), self) }
        }

        #[inline(always)]
        fn splat(value: f32) -> Self {
            f32x4_splat(value)
        }

        #[inline(always)]
        fn add(self, other: Self) -> Self {
            f32x4_add(self, other)
        }

        #[inline(always)]
        fn sub(self, other: Self) -> Self {
            f32x4_sub(self, other)
        }

        #[inline(always)]
        fn mul(self, other: Self) -> Self {
            f32x4_mul(self, other)
        }

        #[inline(always)]
        fn div(self, other: Self) -> Self {
            f32x4_div(self, other)
        }

        #[inline(always)]
        fn sqrt(self) -> Self {
            f32x4_sqrt(self)
        }

        #[cfg(target_feature = "relaxed-simd")]
        #[inline(always)]
        fn add_product(self, a: Self, b: Self) -> Self {
            core::arch::wasm32::f32x4_relaxed_madd(a, b, self)
        }

        #[cfg(not(target_feature = "relaxed-simd"))]
        #[inline(always)]
        fn add_product(self, a: Self, b: Self) -> Self {
            f32x4_add(self, f32x4_mul(a, b))
        }

        #[inline(always)]
        fn abs(self) -> Self {
            f32x4_abs(self)
        }

        #[inline(always)]
        fn sign(self) -> Self {
            v128_and(self, f32x4_splat(-0.0))
        }

        #[inline(always)]
        fn greater(self, other: Self) -> Self {
            f32x4_gt(self, other)
        }

        #[inline(always)]
        fn not_a_number(self) -> Self {
            f32x4_ne(self, self)
        }

        #[inline(always)]
        fn or(self, other: Self) -> Self {
            v128_or(self, other)
        }

        #[inline(always)]
        fn select(self, yes: Self, no: Self) -> Self {
            v128_bitselect(yes, no, self)
        }

        #[inline(always)]
        fn add_bits(self, other: Self) -> Self {
            i32x4_add(self, other)
        }

        #[inline(always)]
        fn of_whole(self) -> Self {
            f32x4_convert_i32x4(self)
        }

        #[inline(always)]
        fn power_of_shifted(self) -> Self {
            i32x4_add(i32x4_shl(self, 23), i32x4_splat(1f32.to_bits() as i32))
        }

        #[inline(always)]
        fn at_least(self, floor: Self) -> Self {
            f32x4_pmax(self, floor)
        }
    }

    impl super::Block for v128 {
        const FUSED: bool = cfg!(target_feature = "relaxed-simd");

        #[inline(always)]
        unsafe fn load_splat(at: *const f32) -> Self {
            // SAFETY: the caller's promise.
            unsafe { v128_load32_splat(at.cast()) }
        }

        #[inline(always)]
        fn transpose([a, b, c, d]: [Self; 4]) -> [Self; 4] {
            let (ab, cd) = (
                i32x4_shuffle::<0, 4, 1, 5>(a, b),
                i32x4_shuffle::<0, 4, 1, 5>(c, d),
            );
            let (ef, gh) = (
                i32x4_shuffle::<2, 6, 3, 7>(a, b),
                i32x4_shuffle::<2, 6, 3, 7>(c, d),
            );
            [
                i32x4_shuffle::<0, 1, 4, 5>(ab, cd),
                i32x4_shuffle::<2, 3, 6, 7>(ab, cd),
                i32x4_shuffle::<0, 1, 4, 5>(ef, gh),
                i32x4_shuffle::<2, 3, 6, 7>(ef, gh),
            ]
        }
    }
}
