//! Reading binary messages from untrusted bytes.

/// Why bytes are not the message they claim to be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The bytes end before the message does.
    #[error("{field} needs {needed} more bytes, but only {left} are left")]
    Truncated {
        /// The field that could not be read.
        field: &'static str,
        /// Bytes that the field has.
        needed: usize,
        /// Bytes that were left.
        left: usize,
    },
    /// Bytes follow the end of the message.
    #[error("{0} bytes follow the end of the message")]
    TrailingBytes(usize),
    /// The first four bytes are not this message's.
    #[error("these bytes are not {expected}: the first four are {found:02x?}")]
    Magic {
        /// What the message should be.
        expected: &'static str,
        /// The bytes found.
        found: [u8; 4],
    },
    /// The message is of another protocol version.
    #[error("protocol version {found}, but this side speaks version {expected}")]
    Version {
        /// The version found.
        found: u16,
        /// The version that this crate speaks.
        expected: u16,
    },
    /// A field holds a value that the format does not allow.
    #[error("{field} is {value}, but must be {expected}")]
    Field {
        /// The field.
        field: &'static str,
        /// The value found.
        value: u64,
        /// What is allowed.
        expected: &'static str,
    },
}

/// Takes fields from the front of a byte slice. Integers are little-endian.
///
/// ```
/// # use unsaid_protocol::{DecodeError, Reader};
/// let mut reader = Reader::new(&[1, 2, 3]);
/// assert_eq!(reader.u16("length")?, 0x0201);
/// assert!(matches!(reader.u32("count"), Err(DecodeError::Truncated { field: "count", needed: 4, left: 1 })));
/// assert_eq!(reader.finish(), Err(DecodeError::TrailingBytes(1)));
/// # Ok::<(), DecodeError>(())
/// ```
#[derive(Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Reads from the start of `bytes`.
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// The next `length` bytes.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`] where fewer are left.
    pub fn bytes(&mut self, length: usize, field: &'static str) -> Result<&'a [u8], DecodeError> {
        let left = self.rest.len();
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(DecodeError::Truncated {
            field,
            needed: length,
            left,
        })?;
        self.rest = rest;
        Ok(taken)
    }

    /// The next `N` bytes as an array.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`] where fewer are left.
    pub fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], DecodeError> {
        let mut out = [0; N];
        out.copy_from_slice(self.bytes(N, field)?);
        Ok(out)
    }

    /// One byte.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`] where none is left.
    pub fn u8(&mut self, field: &'static str) -> Result<u8, DecodeError> {
        self.array::<1>(field).map(|[byte]| byte)
    }

    /// Two bytes as an unsigned integer.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`] where fewer are left.
    pub fn u16(&mut self, field: &'static str) -> Result<u16, DecodeError> {
        self.array(field).map(u16::from_le_bytes)
    }

    /// Four bytes as an unsigned integer.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`] where fewer are left.
    pub fn u32(&mut self, field: &'static str) -> Result<u32, DecodeError> {
        self.array(field).map(u32::from_le_bytes)
    }

    /// Eight bytes as an unsigned integer.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`] where fewer are left.
    pub fn u64(&mut self, field: &'static str) -> Result<u64, DecodeError> {
        self.array(field).map(u64::from_le_bytes)
    }

    /// The four bytes that begin every binary message of Unsaid, then its version.
    ///
    /// # Errors
    /// [`DecodeError::Magic`] or [`DecodeError::Version`] where they are another's.
    pub fn header(&mut self, magic: [u8; 4], name: &'static str) -> Result<(), DecodeError> {
        let found = self.array::<4>("magic")?;
        if found != magic {
            return Err(DecodeError::Magic {
                expected: name,
                found,
            });
        }
        match self.u16("version")? {
            crate::VERSION => Ok(()),
            found => Err(DecodeError::Version {
                found,
                expected: crate::VERSION,
            }),
        }
    }

    /// Ends the message.
    ///
    /// # Errors
    /// [`DecodeError::TrailingBytes`] where bytes are left.
    pub const fn finish(self) -> Result<(), DecodeError> {
        match self.rest.len() {
            0 => Ok(()),
            left => Err(DecodeError::TrailingBytes(left)),
        }
    }
}
