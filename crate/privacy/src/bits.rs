//! Numbers in stored documents, as the 16 hexadecimal digits of their bits: what is read back is exactly what was written,
//! without the tables that printing and parsing decimals exactly would add to a browser's download.

use serde::{Deserialize, Deserializer, Serializer, de::Error};

pub(crate) fn serialize<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&format!("{:016x}", value.to_bits()))
}

pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    let text = String::deserialize(deserializer)?;
    let digits = text.len() == 16 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let bits = u64::from_str_radix(&text, 16).ok().filter(|_| digits);
    bits.map(f64::from_bits)
        .ok_or_else(|| D::Error::custom("a number is not 16 hexadecimal digits"))
}
