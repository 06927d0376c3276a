//! Which kernels compute products of matrices: no one kind is the fastest everywhere.
//!
//! Software adapters have no workgroup memory of their own, and run blocks in registers straight from storage several times
//! faster; on a GPU it is the other way round. So the kinds are timed once for each device, on one product of each kind of
//! [`Work`], and a pure function picks; and so are the two ways to sum over a workgroup. (Tiles of 32 were tried, too: on an H100 they were never the fastest.) The same kinds give the same bits on the same device; another kind sums in another order.

/// How products of matrices are computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kernel {
    /// Blocks in registers, straight from storage.
    Direct,
    /// Tiles of 64 × 64 in workgroup memory, blocks of 4 × 4.
    Tile64,
    /// Tiles of 128 × 128 in workgroup memory, blocks of 8 × 8.
    Tile128,
}

impl Kernel {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Direct, Self::Tile64, Self::Tile128];

    /// Its name, as in figures.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Tile64 => "tile64",
            Self::Tile128 => "tile128",
        }
    }
}

/// What a product is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Work {
    /// A product with few results, as in a dense layer over a small batch.
    Small,
    /// A product with many results.
    Large,
    /// A convolution.
    Convolution,
}

impl Work {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Small, Self::Large, Self::Convolution];

    /// Its name, as in figures.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Small => "small",
            Self::Large => "large",
            Self::Convolution => "convolution",
        }
    }
}

/// Results from which on a product is large.
const LARGE: usize = 1 << 18;

impl Work {
    /// What a product of this many lines and columns is.
    pub(crate) const fn of(lines: usize, columns: usize) -> Self {
        if lines.saturating_mul(columns) >= LARGE {
            Self::Large
        } else {
            Self::Small
        }
    }
}

/// The kernel for each kind of work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kernels {
    /// For [`Work::Small`].
    pub small: Kernel,
    /// For [`Work::Large`].
    pub large: Kernel,
    /// For [`Work::Convolution`].
    pub convolution: Kernel,
    /// Whether sums over a workgroup are made by subgroups, where the device has them.
    pub subgroups: bool,
}

impl Kernels {
    /// The same for all products; sums in workgroup memory.
    pub const fn all(kernel: Kernel) -> Self {
        Self {
            small: kernel,
            large: kernel,
            convolution: kernel,
            subgroups: false,
        }
    }

    /// What is used where nothing was timed.
    pub(super) const fn untimed(software: bool) -> Self {
        if software {
            return Self::all(Kernel::Direct);
        }
        Self::all(Kernel::Tile64)
    }

    /// The kernel for this work.
    pub const fn of(&self, work: Work) -> Kernel {
        match work {
            Work::Small => self.small,
            Work::Large => self.large,
            Work::Convolution => self.convolution,
        }
    }

    /// The fastest for each work among `times`; where there is none that is a number, as it is here. Of those that the clock cannot
    /// tell apart, the one that is used here.
    #[must_use]
    pub fn fastest(self, times: &[KernelTime]) -> Self {
        let best = |work| {
            times
                .iter()
                .filter(|time| time.work == work && time.ms.is_finite())
                .min_by(|a, b| {
                    let other = |time: &KernelTime| time.kernel != self.of(work);
                    a.ms.total_cmp(&b.ms).then(other(a).cmp(&other(b)))
                })
                .map_or(self.of(work), |time| time.kernel)
        };
        Self {
            small: best(Work::Small),
            large: best(Work::Large),
            convolution: best(Work::Convolution),
            ..self
        }
    }
}

/// How long a kernel took for some work.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct KernelTime {
    /// The work.
    pub work: Work,
    /// The kernel.
    pub kernel: Kernel,
    /// Milliseconds for one product.
    pub ms: f64,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(work: Work, kernel: Kernel, ms: f64) -> KernelTime {
        KernelTime { work, kernel, ms }
    }

    #[test]
    fn the_fastest_kernel_is_picked_for_each_work() {
        let untimed = Kernels::untimed(false);
        assert_eq!(untimed.fastest(&[]), untimed);
        let picked = untimed.fastest(&[
            time(Work::Small, Kernel::Tile64, 3.0),
            time(Work::Small, Kernel::Direct, 2.0),
            time(Work::Large, Kernel::Direct, 9.0),
            time(Work::Large, Kernel::Tile128, 1.0),
            time(Work::Large, Kernel::Tile64, f64::NAN),
        ]);
        let expected = Kernels {
            small: Kernel::Direct,
            large: Kernel::Tile128,
            ..untimed
        };
        assert_eq!(picked, expected);
    }

    #[test]
    fn software_adapters_need_no_timing() {
        assert_eq!(Kernels::untimed(true), Kernels::all(Kernel::Direct));
        assert_ne!(Kernels::untimed(false).large, Kernel::Direct);
    }
}
