//! Four numbers at once: what the kernels are written in. SIMD128 in wasm; a plain array where the tests run them natively.

/// Four `f32`s.
pub(super) trait Lane: Copy {
    /// Whether `add_product` is one instruction.
    const FUSED: bool;

    /// # Safety
    /// Four numbers can be read at `at`.
    unsafe fn load(at: *const f32) -> Self;
    /// The number at `at`, four times.
    ///
    /// # Safety
    /// One number can be read at `at`.
    unsafe fn load_splat(at: *const f32) -> Self;
    /// # Safety
    /// Four numbers can be written at `at`.
    unsafe fn store(self, at: *mut f32);
    fn splat(value: f32) -> Self;
    /// `self + a·b`, with one rounding or two.
    fn add_product(self, a: Self, b: Self) -> Self;
    /// Each number, or `floor` where it is less; what is not a number stays so.
    fn at_least(self, floor: Self) -> Self;
    /// Rows to columns.
    fn transpose(rows: [Self; 4]) -> [Self; 4];
}

/// Four numbers without SIMD.
#[cfg(not(target_arch = "wasm32"))]
#[derive(Clone, Copy)]
pub(super) struct Scalars<const FUSED: bool>([f32; 4]);

#[cfg(not(target_arch = "wasm32"))]
impl<const FUSED: bool> Lane for Scalars<FUSED> {
    const FUSED: bool = FUSED;

    #[inline(always)]
    unsafe fn load(at: *const f32) -> Self {
        // SAFETY: the caller's promise.
        Self(unsafe { at.cast::<[f32; 4]>().read() })
    }

    #[inline(always)]
    unsafe fn load_splat(at: *const f32) -> Self {
        // SAFETY: the caller's promise.
        Self([unsafe { at.read() }; 4])
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
    fn at_least(self, floor: Self) -> Self {
        Self(std::array::from_fn(|lane| {
            if self.0[lane] < floor.0[lane] {
                floor.0[lane]
            } else {
                self.0[lane]
            }
        }))
    }

    #[inline(always)]
    fn transpose(rows: [Self; 4]) -> [Self; 4] {
        std::array::from_fn(|row| Self(std::array::from_fn(|column| rows[column].0[row])))
    }
}

#[cfg(target_arch = "wasm32")]
mod simd128 {
    use core::arch::wasm32::{
        f32x4_pmax, f32x4_splat, i32x4_shuffle, v128, v128_load, v128_load32_splat, v128_store,
    };

    impl super::Lane for v128 {
        const FUSED: bool = cfg!(target_feature = "relaxed-simd");

        #[inline(always)]
        unsafe fn load(at: *const f32) -> Self {
            // SAFETY: the caller's promise; the instruction asks for no alignment.
            unsafe { v128_load(at.cast()) }
        }

        #[inline(always)]
        unsafe fn load_splat(at: *const f32) -> Self {
            // SAFETY: the caller's promise.
            unsafe { v128_load32_splat(at.cast()) }
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

        #[cfg(target_feature = "relaxed-simd")]
        #[inline(always)]
        fn add_product(self, a: Self, b: Self) -> Self {
            core::arch::wasm32::f32x4_relaxed_madd(a, b, self)
        }

        #[cfg(not(target_feature = "relaxed-simd"))]
        #[inline(always)]
        fn add_product(self, a: Self, b: Self) -> Self {
            use core::arch::wasm32::{f32x4_add, f32x4_mul};
            f32x4_add(self, f32x4_mul(a, b))
        }

        #[inline(always)]
        fn at_least(self, floor: Self) -> Self {
            f32x4_pmax(self, floor)
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
