//! The vectors of `tests/vectors/v1`, which another program made from `PROTOCOL.md`: what is good is read as they say, and what is not is
//! refused for the reason that they give.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use unsaid_document::{Document, parse};
use unsaid_protocol::{
    CheckIn, CheckInReply, ContentHash, CoordinateWidth, DecodeError, Enrol, Enrolled, Event, Manifest,
    ManifestError, Problem, ProblemKind, RelayIdentity, RoundMetrics, RoundState, Shard, UpdateFrame,
    UpdateReply,
};

/// What was read, as a vector's `fields`; or why it was not.
type Read = Result<Value, Fault>;

/// Why bytes were refused.
#[derive(Debug)]
struct Fault {
    reason: &'static str,
    /// A field, or a text that says which.
    says: String,
    /// Bytes that were left behind the end.
    left: Option<usize>,
}

impl Fault {
    fn new(reason: &'static str, says: impl Into<String>) -> Self {
        Self {
            reason,
            says: says.into(),
            left: None,
        }
    }
}

impl From<DecodeError> for Fault {
    fn from(error: DecodeError) -> Self {
        match error {
            DecodeError::Truncated { field, .. } => Self::new("truncated", field),
            DecodeError::TrailingBytes(left) => Self {
                left: Some(left),
                ..Self::new("trailing", "")
            },
            DecodeError::Magic { .. } => Self::new("magic", "magic"),
            DecodeError::Version { .. } => Self::new("version", "version"),
            DecodeError::Field { field, .. } => Self::new("field", field),
            other => panic!("no vector knows of this: {other}"),
        }
    }
}

impl From<ManifestError> for Fault {
    fn from(error: ManifestError) -> Self {
        match error {
            ManifestError::Json(text) => Self::new("json", text),
            ManifestError::Version { .. } => Self::new("version", ""),
            ManifestError::Hash { .. } => Self::new("hash", ""),
            ManifestError::Value { field, .. } => Self::new("value", field),
            other => panic!("no vector knows of this: {other}"),
        }
    }
}

/// A message that must have no other fields, and none twice.
fn closed<T: Document + Serialize>(bytes: &[u8]) -> Read {
    let read = parse(bytes).and_then(T::read);
    let read = read.map_err(|text| Fault::new("json", text))?;
    Ok(serde_json::to_value(read).unwrap())
}

/// An answer, to which later relays may add fields.
fn open<T: DeserializeOwned + Serialize>(bytes: &[u8]) -> Read {
    let read: T = serde_json::from_slice(bytes).map_err(|error| Fault::new("json", error.to_string()))?;
    Ok(serde_json::to_value(read).unwrap())
}

fn update_frame(bytes: &[u8], context: &Value) -> Read {
    let fixed = context["fixed_width"].as_u64();
    let fixed = fixed.map(|width| CoordinateWidth::for_bound(1 << (16 * width - 4)));
    let frame = UpdateFrame::decode_in(bytes, fixed)?;
    assert_eq!(frame.encode_in(fixed), bytes, "there is one encoding");
    let width = UpdateFrame::read(bytes).unwrap().1.bytes();
    let mut fields = json!({
        "width": width, "update": frame.update, "client": frame.client, "manifest": frame.manifest, "model": frame.model,
        "round": frame.round.to_string(), "coordinates": frame.coordinates,
    });
    if let Some(parameters) = context["parameters"].as_u64() {
        fields["weight"] = frame.coordinates.get(parameters as usize).copied().into();
    }
    Ok(fields)
}

fn shard(bytes: &[u8]) -> Read {
    let shard = Shard::decode(bytes)?;
    assert_eq!(shard.encode(), bytes, "there is one encoding");
    Ok(json!({
        "examples": shard.len(), "features": shard.features, "classes": shard.classes, "labels": shard.labels, "pixels": shard.pixels,
    }))
}

fn manifest(bytes: &[u8], context: &Value) -> Read {
    let manifest = match context["announced"].as_str() {
        Some(hash) => Manifest::from_json_named(bytes, hash.parse().unwrap())?,
        None => Manifest::from_json(bytes)?,
    };
    Ok(json!({ "hash": ContentHash::of(bytes), "document": manifest }))
}

/// One event of a stream: lines of a name and a value.
fn event(bytes: &[u8]) -> Read {
    let text = std::str::from_utf8(bytes).unwrap();
    let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    let name = field("event: ");
    let read = Event::read(name, field("data: ")).map_err(|text| Fault::new("json", text))?;
    let data = read.map(|event| serde_json::from_str::<Value>(&event.data()).unwrap());
    Ok(json!({ "event": name, "data": data }))
}

/// None for what this crate has no reader of.
fn read(kind: &str, bytes: &[u8], context: &Value) -> Option<Read> {
    Some(match kind {
        "update-frame" => update_frame(bytes, context),
        "shard" => shard(bytes),
        "manifest" => manifest(bytes, context),
        "event" => event(bytes),
        "check-in" => closed::<CheckIn>(bytes),
        "enrol" => closed::<Enrol>(bytes),
        "check-in-reply" => open::<CheckInReply>(bytes),
        "update-reply" => open::<UpdateReply>(bytes),
        "round-state" => open::<RoundState>(bytes),
        "round-metrics" => open::<RoundMetrics>(bytes),
        "problem" => open::<Problem>(bytes),
        "enrolled" => open::<Enrolled>(bytes),
        "relay-identity" => open::<RelayIdentity>(bytes),
        _ => return None,
    })
}

fn vectors() -> BTreeMap<String, Value> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/vectors/v1");
    let files = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let vector = |path: std::path::PathBuf| {
        let vector: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        vector.get("reads").is_some().then_some((name, vector))
    };
    files.filter_map(vector).collect()
}

fn bytes(vector: &Value) -> Vec<u8> {
    let hex = vector["bytes"].as_str().unwrap();
    let byte = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
    (0..hex.len()).step_by(2).map(byte).collect()
}

#[test]
fn every_vector_is_read_as_it_says_or_refused_for_the_reason_that_it_gives() {
    let (mut good, mut bad, mut elsewhere) = (BTreeMap::new(), BTreeMap::new(), BTreeSet::new());
    for (name, vector) in vectors() {
        let kind = vector["reads"].as_str().unwrap().to_owned();
        let bytes = bytes(&vector);
        if let Some(text) = vector["text"].as_str() {
            assert_eq!(text.as_bytes(), bytes, "{name}");
        }
        let Some(read) = read(&kind, &bytes, &vector["context"]) else {
            elsewhere.insert(kind);
            continue;
        };
        let error = &vector["error"];
        let reason = error["reason"].as_str();
        assert_eq!(name.contains("_bad_"), reason.is_some(), "{name}");
        match (read, reason) {
            // Which the relay finds, who knows the task (server/tests/relay/vectors.rs).
            (Ok(_), Some("weight" | "count")) => {}
            (Ok(_), None) if vector["prefixes"] == "all" => {
                for length in 0..bytes.len() {
                    let part = self::read(&kind, &bytes[..length], &vector["context"]).unwrap();
                    assert!(part.is_err(), "{name}: the first {length} bytes are read");
                }
            }
            (Ok(fields), None) => {
                assert_eq!(fields, vector["fields"], "{name}");
                *good.entry(kind).or_insert(0) += 1;
            }
            (Err(fault), Some(reason)) => {
                assert_eq!(fault.reason, reason, "{name}: {fault:?}");
                let field = error["field"].as_str().unwrap_or_default();
                assert!(fault.says.contains(field), "{name}: {fault:?}");
                if let (Some(left), Some(at)) = (fault.left, error["at"].as_u64()) {
                    assert_eq!(bytes.len() - left, at as usize, "{name}");
                }
                *bad.entry(kind).or_insert(0) += 1;
            }
            (read, _) => panic!("{name}: {read:?}"),
        }
    }
    // Of every kind there are good ones and bad ones, and none was passed over that no other test reads.
    assert_eq!(good.len(), 13, "{good:?}");
    assert_eq!(bad.keys().collect::<Vec<_>>(), good.keys().collect::<Vec<_>>());
    assert_eq!(elsewhere, BTreeSet::from(["model".into(), "round-record".into()]));
    assert!(
        good.values().sum::<u32>() >= 75 && bad.values().sum::<u32>() >= 125,
        "{good:?} {bad:?}"
    );
}

/// A byte that is said to be at fault is: with that of a good frame in its place the frame is good, or is refused for something else.
#[test]
fn the_byte_that_a_bad_frame_names_is_the_one_at_fault() {
    let all = vectors();
    let good = bytes(&all["update-frame"]);
    let mut named = 0;
    for (name, vector) in &all {
        let (error, context) = (&vector["error"], &vector["context"]);
        let fixed_parts = ["magic", "version", "reserved"].contains(&error["field"].as_str().unwrap_or(""));
        if vector["reads"] != "update-frame" || !fixed_parts || name.ends_with("_empty") {
            continue;
        }
        named += 1;
        let at = error["at"].as_u64().unwrap() as usize;
        let mut repaired = bytes(vector);
        assert_ne!(repaired[at], good[at], "{name}");
        let end = if error["field"] == "version" {
            at + 2
        } else {
            at + 1
        };
        repaired[at..end].copy_from_slice(&good[at..end]);
        assert!(update_frame(&repaired, context).is_ok(), "{name}");
    }
    assert_eq!(named, 6);
}

#[test]
fn every_kind_of_problem_has_a_vector_and_is_sent_again_or_not_as_it_says() {
    let all = vectors();
    for kind in ProblemKind::ALL {
        let name = kind.urn().rsplit(':').next().unwrap();
        let vector = &all[&format!("problem-{name}")];
        let fields = &vector["fields"];
        assert_eq!(
            (&fields["type"], &fields["status"]),
            (&json!(kind.urn()), &json!(kind.status()))
        );
        assert_eq!(
            vector["about"] == "may be sent again",
            kind.is_temporary(),
            "{name}"
        );
    }
    let found = all.keys().filter(|name| name.starts_with("problem-")).count();
    assert_eq!(found, ProblemKind::ALL.len() + 1, "and the one of a later relay");
}

/// The examples of `PROTOCOL.md`, byte by byte, with the offsets that its lines begin with.
#[test]
fn the_examples_of_the_protocol_are_the_vectors() {
    let document = include_str!("../../../PROTOCOL.md");
    let all = vectors();
    let dumps: Vec<Vec<u8>> = document
        .split("```")
        .skip(1)
        .step_by(2)
        .filter_map(dump)
        .collect();
    assert_eq!(dumps, [bytes(&all["update-frame"]), bytes(&all["shard"])]);
}

/// The bytes of a block of lines like `0004  01 00    version 1`; none where it is another block.
fn dump(block: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    for line in block.trim().lines() {
        let (offset, rest) = line.split_once("  ")?;
        assert_eq!(usize::from_str_radix(offset, 16).ok()?, bytes.len(), "{line}");
        let (hex, _) = rest.split_once("  ").unwrap_or((rest, ""));
        for byte in hex.split(' ') {
            bytes.push(u8::from_str_radix(byte, 16).ok()?);
        }
    }
    Some(bytes)
}

/// In the tables of sections 5 and 9 each field begins where the one before it ends, and the rest of the message behind the last.
#[test]
fn the_byte_tables_of_the_protocol_have_no_gaps() {
    let document = include_str!("../../../PROTOCOL.md");
    for (section, header) in [("## 5. ", UpdateFrame::HEADER_LEN), ("## 9. ", Shard::HEADER_LEN)] {
        let (_, text) = document.split_once(section).unwrap();
        let rows = text.lines().skip_while(|line| !line.starts_with("| offset"));
        let rows = rows.skip(2).take_while(|line| line.starts_with('|'));
        let mut end = 0;
        let mut fields = 0;
        for row in rows {
            let cells: Vec<&str> = row.split('|').map(str::trim).collect();
            let Ok(offset) = cells[1].parse::<usize>() else {
                continue; // of as many bytes as the message says
            };
            assert_eq!(offset, end, "{row}");
            fields += 1;
            end += cells[2].parse::<usize>().unwrap_or(0);
        }
        assert_eq!(end, header, "{section}");
        assert!(fields >= 7, "{section}: {fields}");
    }
}
