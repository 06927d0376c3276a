//! Identifiers. Each is its own type, so that a round's model cannot be passed where an update's id is meant.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use unsaid_document::{Field, Value};

/// Why a text is not an identifier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IdError {
    /// A hexadecimal id has the wrong number of digits.
    #[error("expected {expected} hexadecimal digits, found {found} characters")]
    Length {
        /// Digits that the id must have.
        expected: usize,
        /// Characters that the text has.
        found: usize,
    },
    /// A character that is no lower-case hexadecimal digit.
    #[error("expected lower-case hexadecimal digits only")]
    NotHex,
    /// A task id that is empty, too long, or has a character outside `a-z 0-9 -`.
    #[error("a task id has 1 to 64 characters, each one of a-z, 0-9 or '-'")]
    Task,
    /// What says who signed a request has another form.
    #[error("expected a public key, a signature and perhaps a time, with points between them")]
    Credential,
}

pub(crate) fn to_hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut out = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        out.push(DIGITS[usize::from(byte >> 4)] as char);
        out.push(DIGITS[usize::from(byte & 15)] as char);
    }
    out
}

fn from_hex<const N: usize>(text: &str) -> Result<[u8; N], IdError> {
    let digits = text.as_bytes();
    if digits.len() != 2 * N {
        return Err(IdError::Length {
            expected: 2 * N,
            found: text.chars().count(),
        });
    }
    let value = |digit: u8| match digit {
        b'0'..=b'9' => Ok(digit - b'0'),
        b'a'..=b'f' => Ok(digit - b'a' + 10),
        _ => Err(IdError::NotHex),
    };
    let mut out = [0; N];
    for (byte, pair) in out.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = value(pair[0])? << 4 | value(pair[1])?;
    }
    Ok(out)
}

/// A whole number in decimal digits, the only way to write it.
pub(crate) fn from_digits(text: &str) -> Result<u64, IdError> {
    let number = text.parse::<u64>().ok();
    let found = number.filter(|number| number.to_string() == text);
    found.ok_or(IdError::Credential)
}

macro_rules! hex_id {
    ($(#[$doc:meta])* $name:ident, $bytes:literal) => {
        hex_id!(unseen $(#[$doc])* $name, $bytes);

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), to_hex(&self.0))
            }
        }
    };
    (unseen $(#[$doc:meta])* $name:ident, $bytes:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name([u8; $bytes]);

        impl $name {
            /// Length in bytes.
            pub const LEN: usize = $bytes;

            /// Wraps raw bytes.
            pub const fn from_bytes(bytes: [u8; $bytes]) -> Self {
                Self(bytes)
            }

            /// The raw bytes.
            pub const fn as_bytes(&self) -> &[u8; $bytes] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&to_hex(&self.0))
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                from_hex(text).map(Self)
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdError;
            fn try_from(text: String) -> Result<Self, IdError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.to_string()
            }
        }

        #[cfg(feature = "openapi")]
        impl utoipa::PartialSchema for $name {
            fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
                text_schema(&format!("^[0-9a-f]{{{}}}$", 2 * $bytes))
            }
        }

        #[cfg(feature = "openapi")]
        impl utoipa::ToSchema for $name {}

        impl Field for $name {
            const EXPECTED: &'static str = concat!($bytes, " bytes as lower-case hexadecimal digits");
            const NONE: Self = Self([0; $bytes]);
            fn read(value: &Value) -> Option<Self> {
                value.as_str()?.parse().ok()
            }
        }
    };
}

hex_id!(
    /// SHA-256 of some bytes: the name of a model or of a manifest. 64 lower-case hexadecimal digits in text.
    ContentHash,
    32
);
hex_id!(
    /// Names one update, chosen at random by its client. Sending the same update twice under one id counts it once.
    UpdateId,
    16
);
hex_id!(
    /// Names one participant, chosen at random in the browser. It says nothing about the person behind it.
    ClientId,
    16
);

hex_id!(
    /// Names the owner of a key that a relay knows: a digest of its public half.
    IdentityId,
    32
);
hex_id!(
    /// The public half of an Ed25519 key (RFC 8032): a relay's, or that of a client's identity.
    PublicKey,
    32
);
hex_id!(
    /// An Ed25519 signature.
    Signature,
    64
);
hex_id!(unseen
    /// Lets whoever has it enrol one identity. Random, and good for one use.
    Invitation,
    16
);

impl ContentHash {
    /// The SHA-256 digest of `bytes`.
    ///
    /// ```
    /// # use unsaid_protocol::ContentHash;
    /// let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"; // FIPS 180-4
    /// assert_eq!(ContentHash::of(b"").to_string(), empty);
    /// ```
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }
}

/// Names a task on a relay: 1 to 64 characters of `a-z`, `0-9`, `-`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TaskId(String);

impl TaskId {
    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for TaskId {
    type Error = IdError;
    fn try_from(text: String) -> Result<Self, IdError> {
        let allowed = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
        if text.is_empty() || text.len() > 64 || !text.bytes().all(allowed) {
            return Err(IdError::Task);
        }
        Ok(Self(text))
    }
}

impl FromStr for TaskId {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        text.to_owned().try_into()
    }
}

impl Field for TaskId {
    const EXPECTED: &'static str = "1 to 64 characters of a-z, 0-9 and -";
    const NONE: Self = Self(String::new());
    fn read(value: &Value) -> Option<Self> {
        value.as_str()?.parse().ok()
    }
}

#[cfg(feature = "openapi")]
impl utoipa::PartialSchema for TaskId {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
        text_schema("^[a-z0-9-]{1,64}$")
    }
}

#[cfg(feature = "openapi")]
impl utoipa::ToSchema for TaskId {}

/// A string that matches `pattern`.
#[cfg(feature = "openapi")]
fn text_schema(pattern: &str) -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
    let text = utoipa::openapi::ObjectBuilder::new().schema_type(utoipa::openapi::Type::String);
    text.pattern(Some(pattern)).into()
}

impl From<TaskId> for String {
    fn from(id: TaskId) -> String {
        id.0
    }
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_ids_survive_a_round_trip_through_text() {
        let id = UpdateId::from_bytes(*b"\x00\x01\x7f\x80\xff56789abcdef");
        assert_eq!(id.to_string().parse::<UpdateId>().unwrap(), id);
        assert_eq!(serde_json::to_string(&id).unwrap(), format!("\"{id}\""));
    }

    #[test]
    fn bad_hex_is_refused_with_the_reason() {
        assert_eq!(
            "00".parse::<ClientId>(),
            Err(IdError::Length {
                expected: 32,
                found: 2
            })
        );
        assert_eq!(
            "0".repeat(31).parse::<ClientId>(),
            Err(IdError::Length {
                expected: 32,
                found: 31
            })
        );
        assert_eq!("G0".repeat(16).parse::<ClientId>(), Err(IdError::NotHex));
        assert_eq!("AB".repeat(16).parse::<ClientId>(), Err(IdError::NotHex));
        // 32 bytes of UTF-8 that are not 32 characters
        assert_eq!("é".repeat(16).parse::<ClientId>(), Err(IdError::NotHex));
    }

    #[test]
    fn task_ids_are_safe_in_a_path() {
        assert!("mnist-2".parse::<TaskId>().is_ok());
        for bad in ["", "..", "a/b", "A", "é", &"a".repeat(65)] {
            assert_eq!(bad.parse::<TaskId>(), Err(IdError::Task), "{bad}");
        }
    }
}
