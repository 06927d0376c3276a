//! Reading the objects of a document that carry their `type`.
//!
//! serde derives the same, but as a parser of its own for every variant: a quarter of the whole wasm module.

use std::num::NonZeroU32;

use serde_json::{Map, Value};

/// The fields of one object. The first fault is kept until [`Fields::finish`]; what is read after it means nothing.
pub(super) struct Fields {
    object: Map<String, Value>,
    kind: String,
    fault: Option<String>,
}

impl Fields {
    /// The fields of an object, and its `type`.
    pub fn of(document: Value) -> Result<Self, String> {
        let Value::Object(mut object) = document else {
            return Err("expected an object with a `type`".into());
        };
        match object.remove("type") {
            Some(Value::String(kind)) => Ok(Self {
                object,
                kind,
                fault: None,
            }),
            Some(_) => Err("`type` must be a text".into()),
            None => Err("missing field `type`".into()),
        }
    }

    /// The `type`.
    pub fn kind(&self) -> String {
        self.kind.clone()
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
            self.fail(|| format!("field `{name}` must be {}", T::EXPECTED));
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

    /// What was made of the fields, if all of them were there, had the right type, and no other is left.
    pub fn finish<T>(self, made: Option<T>) -> Result<T, String> {
        let kind = self.kind;
        let made = made.ok_or_else(|| format!("unknown variant `{kind}`"))?;
        match (self.object.into_iter().next(), self.fault) {
            (Some((name, _)), _) => Err(format!("unknown field `{name}` of `{kind}`")),
            (None, Some(fault)) => Err(format!("{fault} in `{kind}`")),
            (None, None) => Ok(made),
        }
    }

    #[cold]
    fn fail(&mut self, fault: impl FnOnce() -> String) {
        self.fault.get_or_insert_with(fault);
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
    const EXPECTED: &'static str = "a text";
    const NONE: Self = Self::new();
    fn read(value: &Value) -> Option<Self> {
        Some(value.as_str()?.to_owned())
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
