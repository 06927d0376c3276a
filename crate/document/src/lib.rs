//! Reading JSON documents, and printing the numbers of error messages, in few bytes of wasm.
//!
//! serde derives a parser of its own for every struct and variant, and the standard library prints a number as the shortest
//! text that reads back as the same one. Both are good; in a module that is downloaded they weigh more than what they do here.
//!
//! ```
//! use unsaid_document::{Document, Fields, Value, deserialize_by_read};
//!
//! #[derive(Debug, PartialEq)]
//! struct Size { width: usize, title: Option<String> }
//!
//! impl Document for Size {
//!     fn read(document: Value) -> Result<Self, String> {
//!         let mut fields = Fields::of(document)?;
//!         let size = Self { width: fields.required("width"), title: fields.nullable("title") };
//!         fields.finish()?;
//!         Ok(size)
//!     }
//! }
//! deserialize_by_read!(Size);
//!
//! let read = |json| serde_json::from_str::<Size>(json).map_err(|error| error.to_string());
//! assert_eq!(read(r#"{"width": 3}"#), Ok(Size { width: 3, title: None }));
//! assert_eq!(read(r#"{"width": "3"}"#), Err("field `width` must be a whole number, but is the string `3`".into()));
//! assert_eq!(read(r#"{"width": 3, "widht": 4}"#), Err("unknown field `widht`".into()));
//! ```

#![forbid(unsafe_code)]

mod decimal;
mod fields;
mod text;

#[doc(hidden)]
pub use serde;
pub use serde_json::{Map, Number, Value};

pub use decimal::{Decimal, Shape};
pub use fields::{Document, Field, Fields};
pub use text::parse;

/// `Deserialize` by a type's own [`Document::read`], for whoever reads it with serde.
#[macro_export]
macro_rules! deserialize_by_read {
    ($($type:ty),+ $(,)?) => {$(
        impl<'de> $crate::serde::Deserialize<'de> for $type {
            fn deserialize<D: $crate::serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let document = <$crate::Value as $crate::serde::Deserialize>::deserialize(deserializer)?;
                <Self as $crate::Document>::read(document).map_err($crate::serde::de::Error::custom)
            }
        }
    )+};
}
