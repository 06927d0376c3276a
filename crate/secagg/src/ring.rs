//! Integers modulo 2^b.

/// Why a ring cannot be made, or not hold what is asked of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RingError {
    /// A width outside 1 to 64.
    #[error("a ring has 1 to 64 bits, not {0}")]
    Bits(u32),
    /// The sum of so many such numbers does not fit in 64 bits.
    #[error("the sum of {cohort} numbers of magnitude up to {max_abs} does not fit in 64 bits")]
    SumTooLarge {
        /// How many numbers.
        cohort: u64,
        /// The largest magnitude of one.
        max_abs: u64,
    },
    /// A number that the ring cannot tell from another.
    #[error("{value} is outside the range of {bits} bits")]
    OutOfRange {
        /// The number.
        value: i64,
        /// The ring's width.
        bits: u32,
    },
    /// Vectors of different lengths.
    #[error("a vector of {found} elements was given where one of {expected} is needed")]
    Length {
        /// Elements given.
        found: usize,
        /// Elements expected.
        expected: usize,
    },
}

/// The integers modulo 2^b, 1 ≤ b ≤ 64. An element is a `u64` below 2^b.
///
/// A signed number x is encoded as x mod 2^b; [`Ring::lift`] reads an element as the one number in −2^(b−1)..2^(b−1) that is
/// congruent to it. So a sum is right if and only if the true sum lies in that range, however often it wrapped on the
/// way: choose b with [`Ring::for_sum`].
///
/// ```
/// use unsaid_secagg::Ring;
/// let ring = Ring::for_sum(3, 100)?; // sums of three numbers of −100 to 100
/// assert_eq!(ring.bits(), 10);
/// let mut sum = ring.encode(&[100, -100])?;
/// ring.add_assign(&mut sum, &ring.encode(&[100, -100])?)?;
/// ring.add_assign(&mut sum, &ring.encode(&[100, -100])?)?;
/// assert_eq!(ring.lift(&sum), [300, -300]);
/// # Ok::<(), unsaid_secagg::RingError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Ring {
    bits: u32,
}

impl Ring {
    /// The ring of `bits` bits.
    ///
    /// # Errors
    /// [`RingError::Bits`] outside 1 to 64.
    pub const fn new(bits: u32) -> Result<Self, RingError> {
        if bits >= 1 && bits <= 64 {
            Ok(Self { bits })
        } else {
            Err(RingError::Bits(bits))
        }
    }

    /// The least number of bits whose ring holds every sum of `cohort` numbers from −`max_abs` to `max_abs`.
    ///
    /// # Errors
    /// [`RingError::SumTooLarge`] above 64 bits.
    pub const fn bits_for(cohort: u64, max_abs: u64) -> Result<u32, RingError> {
        // −2^(b−1) ≤ −reach and reach < 2^(b−1): one bit more than reach has.
        match cohort.checked_mul(max_abs) {
            Some(reach) if reach <= i64::MAX as u64 => Ok(u64::BITS - reach.leading_zeros() + 1),
            _ => Err(RingError::SumTooLarge { cohort, max_abs }),
        }
    }

    /// The ring of [`Self::bits_for`].
    ///
    /// # Errors
    /// [`RingError::SumTooLarge`].
    pub const fn for_sum(cohort: u64, max_abs: u64) -> Result<Self, RingError> {
        match Self::bits_for(cohort, max_abs) {
            Ok(bits) => Ok(Self { bits }),
            Err(error) => Err(error),
        }
    }

    /// b.
    pub const fn bits(self) -> u32 {
        self.bits
    }

    /// 2^b − 1: the largest element, and the mask that reduces.
    pub const fn mask(self) -> u64 {
        u64::MAX >> (u64::BITS - self.bits)
    }

    /// The numbers that [`Self::lift`] gives: the least and the largest.
    pub const fn range(self) -> (i64, i64) {
        let most = (self.mask() >> 1) as i64;
        (-most - 1, most)
    }

    /// Any word modulo 2^b.
    pub const fn reduce(self, value: u64) -> u64 {
        value & self.mask()
    }

    /// Reduces each word.
    pub fn reduce_assign(self, values: &mut [u64]) {
        for value in values {
            *value = self.reduce(*value);
        }
    }

    /// `sum` ← `sum` + `other`, element by element.
    ///
    /// # Errors
    /// [`RingError::Length`]; then nothing has changed.
    pub fn add_assign(self, sum: &mut [u64], other: &[u64]) -> Result<(), RingError> {
        self.combine(sum, other, u64::wrapping_add)
    }

    /// `sum` ← `sum` − `other`, element by element.
    ///
    /// # Errors
    /// [`RingError::Length`]; then nothing has changed.
    pub fn sub_assign(self, sum: &mut [u64], other: &[u64]) -> Result<(), RingError> {
        self.combine(sum, other, u64::wrapping_sub)
    }

    /// Signed numbers as elements.
    ///
    /// # Errors
    /// [`RingError::OutOfRange`] for the first that [`Self::lift`] would not give back.
    pub fn encode(self, values: &[i64]) -> Result<Vec<u64>, RingError> {
        let (least, most) = self.range();
        let element = |value: &i64| {
            if (least..=most).contains(value) {
                Ok(self.reduce(*value as u64))
            } else {
                Err(RingError::OutOfRange {
                    value: *value,
                    bits: self.bits,
                })
            }
        };
        values.iter().map(element).collect()
    }

    /// Elements as the signed numbers nearest to 0 (the centred lift). Words are reduced first.
    pub fn lift(self, elements: &[u64]) -> Vec<i64> {
        elements.iter().map(|element| self.lift_one(*element)).collect()
    }

    /// One element as a signed number.
    pub const fn lift_one(self, element: u64) -> i64 {
        // The element's top bit becomes the sign, which shifting back repeats.
        let unused = u64::BITS - self.bits;
        ((element << unused) as i64) >> unused
    }

    fn combine(self, sum: &mut [u64], other: &[u64], op: fn(u64, u64) -> u64) -> Result<(), RingError> {
        if sum.len() != other.len() {
            return Err(RingError::Length {
                found: other.len(),
                expected: sum.len(),
            });
        }
        for (a, b) in sum.iter_mut().zip(other) {
            *a = self.reduce(op(*a, *b));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
