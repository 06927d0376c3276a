//! Documents from JavaScript: the browser parses the text, and what it gives becomes the engine's document.

use js_sys::{Array, JSON, Object};
use unsaid_document::{Document, Map, Number, Value};
use wasm_bindgen::{JsCast, JsValue};

use crate::errors::bad_options;

/// 2⁵³: from here on a JavaScript number does not hold every whole one.
const PAST_WHOLE: f64 = 9_007_199_254_740_992.0;

/// Reads a spec from JSON text.
pub(crate) fn read<T: Document>(text: &str) -> Result<T, JsValue> {
    let value = JSON::parse(text).map_err(|_| bad_options(&"the document is no JSON"))?;
    T::read(document(&value)).map_err(|error| bad_options(&error))
}

/// A value that `JSON.parse` gave, from text that the page itself wrote.
fn document(value: &JsValue) -> Value {
    if let Some(number) = value.as_f64() {
        if (0.0..PAST_WHOLE).contains(&number) && number.trunc() == number {
            Value::from(number as u64)
        } else {
            Number::from_f64(number).map_or(Value::Null, Value::Number)
        }
    } else if let Some(text) = value.as_string() {
        Value::String(text)
    } else if let Some(truth) = value.as_bool() {
        Value::Bool(truth)
    } else if value.is_null() {
        Value::Null
    } else if let Some(list) = value.dyn_ref::<Array>() {
        Value::Array(list.iter().map(|item| document(&item)).collect())
    } else {
        let mut fields = Map::new();
        for entry in Object::entries(value.unchecked_ref()).iter() {
            let entry: Array = entry.unchecked_into();
            fields.insert(
                entry.get(0).as_string().unwrap_or_default(),
                document(&entry.get(1)),
            );
        }
        Value::Object(fields)
    }
}
