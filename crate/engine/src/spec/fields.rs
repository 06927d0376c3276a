//! Reading the objects of a document.
//!
//! serde derives the same, but as a parser of its own for every struct and variant, which shows in the wasm's size.

use std::num::NonZeroU32;

use serde_json::{Map, Value};

use crate::decimal::Decimal;

/// The fields of one object. The first fault is kept until [`Fields::finish`]; what is read after it means nothing.
pub(super) struct Fields {
    object: Map<String, Value>,
    fault: Option<String>,
}

impl Fields {
    /// The fields of an object.
    pub fn of(document: Value) -> Result<Self, String> {
        match document {
            Value::Object(object) => Ok(Self { object, fault: None }),
            _ => Err("expected an object".into()),
        }
    }

    /// The document of a field that must be there.
    pub fn document(&mut self, name: &str) -> Result<Value, String> {
        self.object
            .remove(name)
            .ok_or_else(|| format!("missing field `{name}`"))
    }

    /// A field that must be there.
    pub fn required<T: Field>(&mut self, name: &str) -> T {
        self.optional(name).unwrap_or_else(|| {
            self.fail(|| format!("missing field `{name}`"));
            T::NONE
        })
    }

    /// A field that may be left out.
    pub fn optional<T: Field>(&mut self, name: &str) -> Option<T> {
        let value = self.object.remove(name)?;
        let read = T::read(&value);
        if read.is_none() {
            self.fail(|| format!("field `{name}` must be {}{}", T::EXPECTED, but_is(&value)));
        }
        read.or(Some(T::NONE))
    }

    /// A field that may be left out or null.
    pub fn nullable<T: Field>(&mut self, name: &str) -> Option<T> {
        if self.object.get(name) == Some(&Value::Null) {
            self.object.remove(name);
        }
        self.optional(name)
    }

    /// Whether all of the fields were there, had the right type, and no other is left.
    pub fn finish(self) -> Result<(), String> {
        match (self.object.into_iter().next(), self.fault) {
            (Some((name, _)), _) => Err(format!("unknown field `{name}`")),
            (None, Some(fault)) => Err(fault),
            (None, None) => Ok(()),
        }
    }

    #[cold]
    fn fail(&mut self, fault: impl FnOnce() -> String) {
        self.fault.get_or_insert_with(fault);
    }
}

/// The number or the text found where something else was expected; other things are seen without being repeated.
fn but_is(value: &Value) -> String {
    if let Some(text) = value.as_str() {
        format!(", but is the string `{text}`")
    } else if let Some(whole) = value.as_u64() {
        format!(", but is {whole}")
    } else if let Some(number) = value.as_f64() {
        format!(", but is {}", Decimal(number))
    } else {
        String::new()
    }
}

/// What a field can hold.
pub(super) trait Field: Sized {
    /// What it must be, for people.
    const EXPECTED: &'static str;
    /// Stands for what could not be read.
    const NONE: Self;
    /// Reads it.
    fn read(value: &Value) -> Option<Self>;
}

impl Field for usize {
    const EXPECTED: &'static str = "a whole number";
    const NONE: Self = 0;
    fn read(value: &Value) -> Option<Self> {
        value.as_u64()?.try_into().ok()
    }
}

impl Field for NonZeroU32 {
    const EXPECTED: &'static str = "a nonzero whole number";
    const NONE: Self = Self::MIN;
    fn read(value: &Value) -> Option<Self> {
        Self::new(u32::try_from(value.as_u64()?).ok()?)
    }
}

impl Field for f32 {
    const EXPECTED: &'static str = "a finite number";
    const NONE: Self = 0.0;
    fn read(value: &Value) -> Option<Self> {
        Some(value.as_f64()? as f32)
    }
}

impl Field for bool {
    const EXPECTED: &'static str = "true or false";
    const NONE: Self = false;
    fn read(value: &Value) -> Option<Self> {
        value.as_bool()
    }
}

impl Field for String {
    const EXPECTED: &'static str = "a string";
    const NONE: Self = Self::new();
    fn read(value: &Value) -> Option<Self> {
        Some(value.as_str()?.to_owned())
    }
}

impl Field for Vec<usize> {
    const EXPECTED: &'static str = "a list of whole numbers";
    const NONE: Self = Self::new();
    fn read(value: &Value) -> Option<Self> {
        value.as_array()?.iter().map(usize::read).collect()
    }
}

impl Field for Vec<String> {
    const EXPECTED: &'static str = "a list of strings";
    const NONE: Self = Self::new();
    fn read(value: &Value) -> Option<Self> {
        value.as_array()?.iter().map(String::read).collect()
    }
}

impl Field for [usize; 2] {
    const EXPECTED: &'static str = "two whole numbers";
    const NONE: Self = [0; 2];
    fn read(value: &Value) -> Option<Self> {
        let [height, width] = value.as_array()?.as_slice() else {
            return None;
        };
        Some([usize::read(height)?, usize::read(width)?])
    }
}

/// `Deserialize` by a type's own `read`.
macro_rules! deserialize_by_read {
    ($($type:ty),+) => {$(
        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let document = serde_json::Value::deserialize(deserializer)?;
                Self::read(document).map_err(serde::de::Error::custom)
            }
        }
    )+};
}
pub(super) use deserialize_by_read;
