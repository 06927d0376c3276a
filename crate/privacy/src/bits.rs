//! Numbers in stored documents, as the 16 hexadecimal digits of their bits: what is read back is exactly what was written,
//! without the tables that printing and parsing decimals exactly would add to a browser's download.

use serde::{Serialize, Serializer};
use unsaid_document::{Field, Value};

/// A number by its bits.
pub(crate) struct Bits(pub f64);

impl Field for Bits {
    const EXPECTED: &'static str = "16 lower-case hexadecimal digits";
    const NONE: Self = Self(f64::NAN);
    fn read(value: &Value) -> Option<Self> {
        let text = value.as_str()?;
        let digits = text.len() == 16 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        let bits = u64::from_str_radix(text, 16).ok().filter(|_| digits);
        bits.map(f64::from_bits).map(Self)
    }
}

impl Serialize for Bits {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serialize(&self.0, serializer)
    }
}

pub(crate) fn serialize<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&format!("{:016x}", value.to_bits()))
}
