//! From untrusted bytes to a document.

use serde_json::Value;

/// Reads JSON, and refuses an object that has one field twice: of such, every reader would keep another.
///
/// # Errors
/// What is wrong with the text.
///
/// ```
/// # use unsaid_document::parse;
/// assert_eq!(parse(br#"{"a": ":"}"#), Ok(serde_json::json!({"a": ":"})));
/// assert_eq!(parse(br#"[{"a": 1, "a": 1}]"#), Err("an object has a field twice".into()));
/// assert!(parse(b"\xff").is_err() && parse(b"{").is_err());
/// ```
pub fn parse(bytes: &[u8]) -> Result<Value, String> {
    let text = std::str::from_utf8(bytes).map_err(|error| error.to_string())?;
    let document: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
    if members(&document) != members_written(text) {
        return Err("an object has a field twice".into());
    }
    Ok(document)
}

/// Fields of all objects in `document`. The parser keeps the last of those with one name.
fn members(document: &Value) -> usize {
    match document {
        Value::Object(fields) => fields.len() + fields.values().map(members).sum::<usize>(),
        Value::Array(elements) => elements.iter().map(members).sum(),
        _ => 0,
    }
}

/// Fields of all objects as they are written in valid JSON: outside of strings there is one colon for each.
fn members_written(json: &str) -> usize {
    let (mut written, mut in_string, mut escaped) = (0, false, false);
    for byte in json.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => in_string = !in_string,
            b':' if !in_string => written += 1,
            _ => {}
        }
    }
    written
}
