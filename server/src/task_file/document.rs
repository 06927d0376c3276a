//! A TOML document with overrides, and where in it a mistake is.

use std::{ops::Range, path::Path};

use serde::de::DeserializeOwned;
use toml::{
    Spanned,
    de::{DeTable, DeValue, Deserializer},
};

/// A mistake in a task file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {}{message}", if field.is_empty() { String::new() } else { format!("{field}: ") })]
pub struct TaskFileError {
    /// `file:line:column`, or the override.
    pub place: String,
    /// Line, from 1; none in an override, or where the file cannot be read.
    pub line: Option<usize>,
    /// The field, as a path; empty where it is the document's syntax.
    pub field: String,
    /// What is wrong.
    pub message: String,
}

impl TaskFileError {
    pub(super) fn unreadable(path: &Path, error: &std::io::Error) -> Self {
        Self {
            place: path.display().to_string(),
            line: None,
            field: String::new(),
            message: format!("cannot be read: {error}"),
        }
    }
}

/// A mistake, at some bytes of the document.
#[derive(Debug)]
pub(super) struct Fault {
    span: Option<Range<usize>>,
    /// The field, where it is known by its path; the span is then that of its section.
    path: Option<String>,
    message: String,
}

impl Fault {
    pub(super) fn at(span: Range<usize>, message: impl ToString) -> Self {
        Self {
            span: Some(span),
            path: None,
            message: message.to_string(),
        }
    }

    /// In the value at `path`, below `section`: serde loses positions inside a tagged enum.
    pub(super) fn of(path: String, section: Range<usize>, message: impl ToString) -> Self {
        Self {
            path: Some(path),
            ..Self::at(section, message)
        }
    }
}

impl From<toml::de::Error> for Fault {
    fn from(error: toml::de::Error) -> Self {
        Self {
            span: error.span(),
            path: None,
            message: error.message().to_owned(),
        }
    }
}

/// A file and overrides. These lie after the file in one space of positions, so a position tells which of them it is in.
pub(super) struct Source<'a> {
    name: &'a str,
    text: &'a str,
    overrides: Vec<Override<'a>>,
}

struct Override<'a> {
    written: &'a str,
    key: &'a str,
    /// A document of its own, with spaces before it that put it at its place.
    text: String,
    range: Range<usize>,
}

impl<'a> Source<'a> {
    pub(super) fn new(name: &'a str, text: &'a str, overrides: &'a [String]) -> Result<Self, TaskFileError> {
        let mut start = text.len() + 1;
        let place = |written: &'a String| {
            let over = Override::at(start, written)?;
            start = over.range.end;
            Ok(over)
        };
        let overrides = overrides.iter().map(place).collect::<Result<_, _>>()?;
        Ok(Self {
            name,
            text,
            overrides,
        })
    }
}

impl<'a> Override<'a> {
    fn at(start: usize, written: &'a str) -> Result<Self, TaskFileError> {
        let wrong = |message: String| TaskFileError {
            place: format!("override {written}"),
            line: None,
            field: String::new(),
            message,
        };
        let parts = written.split_once('=');
        let (key, value) = parts.ok_or_else(|| wrong("is not of the form KEY=VALUE".into()))?;
        let (key, value) = (key.trim(), value.trim());
        let document = |value: &str| format!("{}{key} = {value}", " ".repeat(start));
        let is_word = !value.is_empty()
            && value
                .bytes()
                .all(|c| c.is_ascii_alphanumeric() || b"-_./".contains(&c));
        let mut text = document(value);
        if let Err(error) = DeTable::parse(&text) {
            text = document(&format!("\"{value}\""));
            if !is_word || DeTable::parse(&text).is_err() {
                return Err(wrong(error.message().to_owned()));
            }
        }
        let range = start..text.len() + 1;
        Ok(Self {
            written,
            key,
            text,
            range,
        })
    }
}

/// A parsed document, with the overrides in it.
pub(super) struct Document<'a> {
    source: &'a Source<'a>,
    root: Spanned<DeTable<'a>>,
}

impl<'a> Document<'a> {
    pub(super) fn parse(source: &'a Source<'a>) -> Result<Self, TaskFileError> {
        let root = Spanned::new(0..source.text.len(), DeTable::new());
        let mut document = Self { source, root };
        document.root = DeTable::parse(source.text).map_err(|error| document.explain(error.into()))?;
        for over in &source.overrides {
            let table = DeTable::parse(&over.text).map_err(|error| document.explain(error.into()))?;
            merge(document.root.get_mut(), table.into_inner());
        }
        Ok(document)
    }

    /// Reads the document as `T`.
    pub(super) fn read<T: DeserializeOwned>(&self) -> Result<T, TaskFileError> {
        T::deserialize(Deserializer::from(self.root.clone())).map_err(|error| self.explain(error.into()))
    }

    /// Says where a fault is.
    pub(super) fn explain(&self, fault: Fault) -> TaskFileError {
        let Some(span) = fault.span else {
            return TaskFileError {
                place: self.source.name.to_owned(),
                line: None,
                field: String::new(),
                message: fault.message,
            };
        };
        let entries = entries(self.root.get_ref());
        let span = narrow(&entries, span, fault.path.as_deref(), &fault.message);
        if let Some(over) = self
            .source
            .overrides
            .iter()
            .find(|over| over.range.contains(&span.start))
        {
            return TaskFileError {
                place: format!("override {}", over.written),
                line: None,
                field: over.key.to_owned(),
                message: fault.message,
            };
        }
        let before = self.source.text.get(..span.start).unwrap_or(self.source.text);
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().map_or(0, |line| line.chars().count()) + 1;
        let innermost = entries
            .iter()
            .filter(|entry| entry.holds(&span))
            .max_by_key(|entry| entry.path.len());
        let innermost = innermost.map(|entry| entry.path.join(".")).unwrap_or_default();
        // One that is missing has no place of its own, and still has a name.
        let missing = fault.path.filter(|path| {
            let (section, field) = path.rsplit_once('.').unwrap_or_default();
            section == innermost && !field.is_empty()
        });
        TaskFileError {
            place: format!("{}:{line}:{column}", self.source.name),
            line: Some(line),
            field: missing.unwrap_or(innermost),
            message: fault.message,
        }
    }
}

fn merge<'a>(into: &mut DeTable<'a>, from: DeTable<'a>) {
    for (key, value) in from {
        let (span, value) = (value.span(), value.into_inner());
        match (into.get_mut::<str>(key.get_ref()).map(Spanned::get_mut), value) {
            (Some(DeValue::Table(into)), DeValue::Table(from)) => merge(into, from),
            (_, value) => {
                into.remove::<str>(key.get_ref());
                into.insert(key, Spanned::new(span, value));
            }
        }
    }
}

/// A key or an array's element, and what it holds.
struct Entry {
    path: Vec<String>,
    key: Range<usize>,
    value: Range<usize>,
    /// A string, or a number or truth value as it is written.
    text: Option<String>,
}

impl Entry {
    fn holds(&self, span: &Range<usize>) -> bool {
        let inside = |outer: &Range<usize>| outer.start <= span.start && span.end <= outer.end;
        inside(&self.key) || inside(&self.value)
    }
}

/// Every entry, outer ones before those inside them.
fn entries(table: &DeTable<'_>) -> Vec<Entry> {
    let mut entries = Vec::new();
    let mut open: Vec<(Vec<String>, Range<usize>, &Spanned<DeValue<'_>>)> = Vec::new();
    open.extend(
        table
            .iter()
            .map(|(key, value)| (vec![key.get_ref().to_string()], key.span(), value)),
    );
    while let Some((path, key, value)) = open.pop() {
        let below = |name: String| [&path[..], &[name]].concat();
        match value.get_ref() {
            DeValue::Table(table) => {
                open.extend(
                    table
                        .iter()
                        .map(|(key, value)| (below(key.get_ref().to_string()), key.span(), value)),
                );
            }
            DeValue::Array(array) => {
                open.extend(
                    array
                        .iter()
                        .enumerate()
                        .map(|(at, value)| (below(at.to_string()), value.span(), value)),
                );
            }
            _ => {}
        }
        let text = match value.get_ref() {
            DeValue::String(text) => Some(text.to_string()),
            DeValue::Integer(number) => Some(number.as_str().to_owned()),
            DeValue::Float(number) => Some(number.as_str().to_owned()),
            DeValue::Boolean(is_true) => Some(is_true.to_string()),
            _ => None,
        };
        entries.push(Entry {
            path,
            key,
            value: value.span(),
            text,
        });
    }
    entries
}

/// serde loses positions inside a tagged enum, such as a layer: the path, or the name in its message, finds them again.
fn narrow(entries: &[Entry], span: Range<usize>, path: Option<&str>, message: &str) -> Range<usize> {
    let known = path.and_then(|path| entries.iter().find(|entry| entry.path.join(".") == path));
    if let Some(entry) = known {
        return entry.value.clone();
    }
    let named = |prefix: &str| message.strip_prefix(prefix)?.split('`').next();
    let inside = |inner: &Range<usize>| span.start <= inner.start && inner.end <= span.end;
    // The span of a table with a header of its own is that of the header: what is in it is found by its path.
    let table = entries
        .iter()
        .find(|entry| entry.value == span)
        .map(|entry| &entry.path);
    let below = |entry: &Entry| table.is_some_and(|table| entry.path.starts_with(table));
    let key = named("unknown field `")
        .or_else(|| named("field `"))
        .and_then(|name| {
            let mut found = entries
                .iter()
                .filter(|entry| entry.path.last().is_some_and(|last| last == name));
            found.find(|entry| inside(&entry.key) || below(entry))
        })
        .map(|entry| &entry.key);
    let value = named("unknown variant `").and_then(|name| {
        let mut found = entries.iter().filter(|entry| entry.text.as_deref() == Some(name));
        found.find(|entry| inside(&entry.value) || below(entry))
    });
    let value = value.or_else(|| {
        let wrong = wrong_value(message)?;
        let is_it =
            |entry: &&Entry| entry.text.as_deref() == Some(wrong) && (inside(&entry.value) || below(entry));
        let mut found = entries.iter().filter(is_it);
        found.next().filter(|_| found.next().is_none()) // of two that are alike nobody knows which
    });
    let value = value.map(|entry| &entry.value);
    key.or(value).cloned().unwrap_or(span)
}

/// The value that serde found where another kind or range was expected, where its message quotes it: ``invalid value: integer `-1` ``.
fn wrong_value(message: &str) -> Option<&str> {
    let rest = message
        .strip_prefix("invalid value: ")
        .or_else(|| message.strip_prefix("invalid type: "))?;
    let (kind, rest) = rest.split_once(' ')?;
    let quote = if kind == "string" { '"' } else { '`' };
    let rest = rest.strip_prefix("point ").unwrap_or(rest); // floating point
    rest.strip_prefix(quote)?.split(quote).next()
}
