//! JSON text whose numbers are whole: the header of a file of weights.
//!
//! `serde_json` reads more, such as numbers exact to the last bit by tables of powers of ten. In the trainer, whose other
//! documents the browser parses, that would be 10 kB to download for nothing.

use unsaid_document::Value;

/// The most lists and objects inside each other.
const DEEPEST: usize = 16;

/// Reads JSON text. The text is untrusted.
///
/// # Errors
/// What is wrong with the text.
pub(crate) fn parse(text: &str) -> Result<Value, &'static str> {
    let mut parser = Parser {
        text: text.as_bytes(),
        at: 0,
    };
    let value = parser.value(DEEPEST)?;
    parser.space();
    match parser.peek() {
        None => Ok(value),
        Some(_) => Err("something follows its end"),
    }
}

/// Reads text byte by byte (RFC 8259).
struct Parser<'a> {
    text: &'a [u8],
    at: usize,
}

impl Parser<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\n' | b'\r' | b'\t')) {
            self.at += 1;
        }
    }

    /// Whether the next byte behind spaces is this one, which is taken then.
    fn take(&mut self, byte: u8) -> bool {
        self.space();
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    fn word(&mut self, word: &[u8], value: Value) -> Result<Value, &'static str> {
        if !self.text[self.at..].starts_with(word) {
            return Err("a value is none");
        }
        self.at += word.len();
        Ok(value)
    }

    fn value(&mut self, deepest: usize) -> Result<Value, &'static str> {
        let deeper = deepest.checked_sub(1).ok_or("it is nested too deeply")?;
        self.space();
        match self.peek() {
            Some(b'"') => self.string().map(Value::String),
            Some(b'[') => {
                self.at += 1;
                let mut list = Vec::new();
                self.items(b']', |parser| {
                    list.push(parser.value(deeper)?);
                    Ok(())
                })?;
                Ok(Value::Array(list))
            }
            Some(b'{') => {
                self.at += 1;
                let mut fields = unsaid_document::Map::new();
                self.items(b'}', |parser| {
                    parser.space();
                    let name = parser.string()?;
                    if !parser.take(b':') {
                        return Err("a field has no value");
                    }
                    let value = parser.value(deeper)?;
                    match fields.insert(name, value) {
                        None => Ok(()),
                        Some(_) => Err("a field is there twice"),
                    }
                })?;
                Ok(Value::Object(fields))
            }
            Some(b't') => self.word(b"true", Value::Bool(true)),
            Some(b'f') => self.word(b"false", Value::Bool(false)),
            Some(b'n') => self.word(b"null", Value::Null),
            _ => self.whole(),
        }
    }

    /// Items between commas, up to `end`.
    fn items(
        &mut self,
        end: u8,
        mut item: impl FnMut(&mut Self) -> Result<(), &'static str>,
    ) -> Result<(), &'static str> {
        if self.take(end) {
            return Ok(());
        }
        loop {
            item(self)?;
            if self.take(end) {
                return Ok(());
            }
            if !self.take(b',') {
                return Err("a comma or an end is missing");
            }
        }
    }

    fn whole(&mut self) -> Result<Value, &'static str> {
        let (start, mut number) = (self.at, 0u64);
        while let Some(digit @ b'0'..=b'9') = self.peek() {
            let more = number
                .checked_mul(10)
                .and_then(|n| n.checked_add(u64::from(digit - b'0')));
            number = more.ok_or("a number is too large")?;
            self.at += 1;
        }
        let leading_zero = self.text[start..].first() == Some(&b'0') && self.at > start + 1;
        if self.at == start || leading_zero || matches!(self.peek(), Some(b'.' | b'e' | b'E')) {
            return Err("a value is none, or a number is not whole");
        }
        Ok(Value::from(number))
    }

    fn string(&mut self) -> Result<String, &'static str> {
        const UNENDED: &str = "a string has no end";
        if self.peek() != Some(b'"') {
            return Err("a field has no name");
        }
        self.at += 1;
        let mut bytes = Vec::new();
        loop {
            let byte = self.peek().ok_or(UNENDED)?;
            self.at += 1;
            match byte {
                b'"' => return String::from_utf8(bytes).map_err(|_| "a string is no text"),
                b'\\' => {
                    let escaped = self.peek().ok_or(UNENDED)?;
                    self.at += 1;
                    let plain = match escaped {
                        b'"' | b'\\' | b'/' => escaped,
                        b'b' => 8,
                        b'f' => 12,
                        b'n' => b'\n',
                        b'r' => b'\r',
                        b't' => b'\t',
                        b'u' => {
                            let c = self.unicode()?;
                            bytes.extend(c.encode_utf8(&mut [0; 4]).bytes());
                            continue;
                        }
                        _ => return Err("an escape is none"),
                    };
                    bytes.push(plain);
                }
                0..0x20 => return Err("a string has a control character"),
                _ => bytes.push(byte),
            }
        }
    }

    /// The character of `\uXXXX`, or of two of them where it lies beyond 16 bits.
    fn unicode(&mut self) -> Result<char, &'static str> {
        const BAD: &str = "an escape is no character";
        let high = self.hex().ok_or(BAD)?;
        if !(0xd800..0xdc00).contains(&high) {
            return char::from_u32(high).ok_or(BAD);
        }
        if !self.text[self.at..].starts_with(b"\\u") {
            return Err(BAD);
        }
        self.at += 2;
        let low = self
            .hex()
            .filter(|low| (0xdc00..0xe000).contains(low))
            .ok_or(BAD)?;
        char::from_u32(0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00)).ok_or(BAD)
    }

    fn hex(&mut self) -> Option<u32> {
        let digits = self.text.get(self.at..self.at + 4)?;
        self.at += 4;
        digits.iter().try_fold(0, |value, &digit| {
            Some(16 * value + char::from(digit).to_digit(16)?)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `serde_json` is the independent reference, for whole numbers.
    fn reference(text: &str) -> Option<Value> {
        serde_json::from_str(text).ok()
    }

    #[test]
    fn text_is_read_as_serde_json_reads_it() {
        for text in [
            "null",
            " true ",
            "false",
            "0",
            "12345678901",
            r#""""#,
            "[]",
            "{}",
            "[1, [2, {}], \"x\"]",
            r#"{"a": {"b": [1, 2, null]}, "": "\u00e9\n\/\"\\"}"#,
            r#""\ud83d\ude00 ü""#,
            "[\t1 ,\r\n2 ]",
            // And what is none.
            "",
            " ",
            "nul",
            "tru",
            "[1,]",
            "[,1]",
            "{\"a\"}",
            "{\"a\":}",
            "{a:1}",
            "{\"a\":1,}",
            "01",
            "+1",
            "1 2",
            "\"",
            "\"\\x\"",
            "\"\\ud800\"",
            "\"\\ud800\\u0041\"",
            "\"\\udc00\"",
            "\"\\u12\"",
            "\"a\nb\"",
            "[1",
            "{",
            "]",
            "\u{0}",
        ] {
            assert_eq!(parse(text).ok(), reference(text), "{text}");
        }
    }

    #[test]
    fn numbers_that_are_not_whole_are_refused_and_never_cut() {
        for text in ["-1", "1.5", "1e3", "1E3", "18446744073709551616"] {
            assert!(parse(text).is_err(), "{text}");
        }
        assert_eq!(parse("18446744073709551615"), Ok(Value::from(u64::MAX)));
        assert!(parse(r#"{"a": 1, "a": 1}"#).is_err(), "a name twice");
    }

    /// Every truncation, and every change of one byte, of a real header: an error or a value, never a panic.
    #[test]
    fn untrusted_text_never_panics_and_is_never_nested_without_end() {
        let header = r#"{"__metadata__":{"é":"\u00e9"},"layers.0.bias":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#;
        assert!(parse(header).is_ok());
        for (end, _) in header.char_indices() {
            assert!(parse(&header[..end]).is_err());
        }
        for at in 0..header.len() {
            for byte in [b'"', b'\\', b'{', b'[', b'}', b',', b'9', b'u', 0] {
                let mut changed = header.as_bytes().to_vec();
                changed[at] = byte;
                if let Ok(text) = std::str::from_utf8(&changed) {
                    let found = parse(text);
                    assert!(found.is_err() || found.ok() == reference(text), "{text}");
                }
            }
        }
        for open in ["[", "{\"a\":"] {
            assert!(parse(&open.repeat(100_000)).is_err());
        }
    }
}
