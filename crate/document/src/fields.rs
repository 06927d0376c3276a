//! Reading the objects of a document.

use std::num::NonZeroU32;

use serde_json::{Map, Value};

use crate::Decimal;

/// What can be read from a JSON document.
pub trait Document: Sized {
    /// Reads it.
    ///
    /// # Errors
    /// What is missing, unknown or of another type, for people.
    fn read(document: Value) -> Result<Self, String>;
}

impl<T: Document> Document for Vec<T> {
    fn read(document: Value) -> Result<Self, String> {
        match document {
            Value::Array(elements) => elements.into_iter().map(T::read).collect(),
            _ => Err("expected a list".into()),
        }
    }
}

/// The fields of one object. The first fault is kept until [`Fields::finish`]; what is read after it means nothing.
#[derive(Debug)]
pub struct Fields {
    object: Map<String, Value>,
    fault: Option<String>,
}

impl Fields {
    /// The fields of an object.
    ///
    /// # Errors
    /// Where the document is none.
    pub fn of(document: Value) -> Result<Self, String> {
        match document {
            Value::Object(object) => Ok(Self { object, fault: None }),
            _ => Err("expected an object".into()),
        }
    }

    /// The document of a field that must be there.
    ///
    /// # Errors
    /// Where it is not.
    pub fn document(&mut self, name: &str) -> Result<Value, String> {
        self.object
            .remove(name)
            .ok_or_else(|| format!("missing field `{name}`"))
    }

    /// A field that must be there and is a document of its own.
    ///
    /// # Errors
    /// Where it is missing, and all that its own `read` finds.
    pub fn nested<T: Document>(&mut self, name: &str) -> Result<T, String> {
        T::read(self.document(name)?).map_err(|error| format!("{name}: {error}"))
    }

    /// A field that must be there.
    pub fn required<T: Field>(&mut self, name: &str) -> T {
        self.optional(name).unwrap_or_else(|| {
            self.fail(|| format!("missing field `{name}`"));
            T::NONE
        })
    }

    /// A field that may be left out or null, and else is a document of its own.
    ///
    /// # Errors
    /// All that its own `read` finds.
    pub fn optional_document<T: Document>(&mut self, name: &str) -> Result<Option<T>, String> {
        let found = self.object.remove(name).filter(|value| !value.is_null());
        let read = |value| T::read(value).map_err(|error| format!("{name}: {error}"));
        found.map(read).transpose()
    }

    /// The field that says which of several forms the object has.
    ///
    /// # Errors
    /// Where it is missing, or no string.
    pub fn tag(&mut self, name: &str) -> Result<String, String> {
        let tag = self.required(name);
        self.fault.take().map_or(Ok(tag), Err)
    }

    /// The fields that are left, as an object of their own.
    ///
    /// # Errors
    /// The first fault so far, and all that its own `read` finds.
    pub fn rest<T: Document>(self) -> Result<T, String> {
        self.fault.map_or(Ok(()), Err)?;
        T::read(Value::Object(self.object))
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

    /// Whether all of the fields were there and had the right type. Others may be left: for answers, to which a later version
    /// may add some.
    ///
    /// # Errors
    /// The first fault.
    pub fn finish_open(self) -> Result<(), String> {
        self.fault.map_or(Ok(()), Err)
    }

    /// Whether all of the fields were there, had the right type, and no other is left.
    ///
    /// # Errors
    /// A field that is left, or else the first fault.
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
pub trait Field: Sized {
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

impl Field for u16 {
    const EXPECTED: &'static str = "a whole number below 65,536";
    const NONE: Self = 0;
    fn read(value: &Value) -> Option<Self> {
        value.as_u64()?.try_into().ok()
    }
}

impl Field for u32 {
    const EXPECTED: &'static str = "a whole number below 2³²";
    const NONE: Self = 0;
    fn read(value: &Value) -> Option<Self> {
        value.as_u64()?.try_into().ok()
    }
}

impl Field for u64 {
    const EXPECTED: &'static str = "a whole number";
    const NONE: Self = 0;
    fn read(value: &Value) -> Option<Self> {
        value.as_u64()
    }
}

impl Field for f64 {
    const EXPECTED: &'static str = "a finite number";
    const NONE: Self = 0.0;
    fn read(value: &Value) -> Option<Self> {
        value.as_f64()
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
