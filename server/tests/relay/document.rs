//! `PROTOCOL.md` and the vectors of `tests/vectors/v1`, held against a relay.

use std::{collections::BTreeSet, path::Path};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use unsaid_relay::{
    RelayOptions, http::admin::AdminToken, key::RelayKey, lineage::RoundRecord, live::TaskConfig,
};

use crate::{harness::*, operating::TOKEN};

const PROTOCOL: &str = include_str!("../../../PROTOCOL.md");

/// A route as the document names it, in code.
fn named(text: &str) -> BTreeSet<(&str, &str)> {
    let codes = text.split('`').skip(1).step_by(2);
    let routes = codes.filter_map(|code| code.split_once(' '));
    let routes = routes.filter(|(method, path)| ["GET", "POST"].contains(method) && path.starts_with('/'));
    routes.collect()
}

#[tokio::test]
async fn the_protocol_names_every_route_and_no_other() {
    let (_folder, options) = folders();
    let options = RelayOptions {
        admin_token: AdminToken::new(TOKEN),
        ..options
    };
    let relay = TestRelay::over(FaultyStore::new(), &[], options).await;
    let described: Value = relay.api.get("/v1/openapi.json").await.json().await.unwrap();
    let whole = described.to_string();
    let mut types = whole
        .split("#/components/schemas/")
        .skip(1)
        .map(|rest| rest.split('"').next().unwrap());
    let undefined = types.find(|name| described["components"]["schemas"].get(name).is_none());
    assert_eq!(
        undefined, None,
        "a type that the description names and does not have"
    );
    let mut routed = BTreeSet::new();
    for (path, methods) in described["paths"].as_object().unwrap() {
        for method in methods.as_object().unwrap().keys() {
            let method = if method == "get" { "GET" } else { "POST" };
            routed.insert((method, path.as_str()));
        }
    }
    assert!(routed.len() >= 23, "{routed:?}");
    let table = PROTOCOL.split_once("## 2. Routes").unwrap().1;
    let table = table.split_once("### 2.1").unwrap().0;
    let in_table = named(table);
    let missing: Vec<_> = routed.difference(&in_table).collect();
    assert!(missing.is_empty(), "not in section 2: {missing:?}");
    // Those are no API: pages and files.
    let beside = ["/operator", "/operator/", "/data/…", "/…"].map(|path| ("GET", path));
    let beside: BTreeSet<_> = beside
        .into_iter()
        .chain([("POST", "/data/{partition}/claim")])
        .collect();
    let not_routed: Vec<_> = in_table
        .difference(&routed)
        .filter(|route| !beside.contains(*route))
        .collect();
    assert!(not_routed.is_empty(), "nothing is there: {not_routed:?}");
    // And those are there.
    for path in ["/operator/", "/data/test.shard", "/"] {
        assert_eq!(relay.api.get(path).await.status(), 200, "{path}");
    }
    let claim = relay.api.http.post(relay.api.url("/data/iid/claim")).send().await;
    assert_eq!(claim.unwrap().status(), 200);
}

/// Section 2: what is no request, and what has too long a head, reaches no route, and is answered by what reads them.
#[tokio::test]
async fn what_is_no_request_is_answered_without_the_headers_of_answers() {
    let relay = TestRelay::start(&[]).await;
    let long = format!(
        "GET /healthz HTTP/1.1\r\nhost: x\r\nx-long: {}\r\n\r\n",
        "a".repeat(70_000)
    );
    for (sent, status) in [("no HTTP at all\r\n\r\n", "400"), (long.as_str(), "431")] {
        let address = relay.api.base.strip_prefix("http://").unwrap();
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let _ = stream.write_all(sent.as_bytes()).await; // it may be closed before all was read
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        let answer = String::from_utf8(answer).unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
        assert!(answer.ends_with("\r\n\r\n"), "there is a body: {answer}");
        for absent in [
            "content-security-policy",
            "x-content-type-options",
            "content-type",
        ] {
            assert!(!answer.contains(absent), "{answer}");
        }
    }
}

fn vectors() -> Vec<(String, Value)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/vectors/v1");
    let read = |path: std::path::PathBuf| {
        let vector: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        (path.file_stem().unwrap().to_str().unwrap().to_owned(), vector)
    };
    let files = std::fs::read_dir(folder).unwrap();
    files.map(|file| read(file.unwrap().path())).collect()
}

fn bytes(vector: &Value) -> Vec<u8> {
    let hex = vector["bytes"].as_str().unwrap();
    let byte = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
    (0..hex.len()).step_by(2).map(byte).collect()
}

/// Of the overrides of a task like the one that a frame is for.
fn terms(context: &Value) -> Vec<&'static str> {
    if context.get("max_weight").is_some() {
        return vec![
            "strategy.aggregation.type=weighted-mean",
            "strategy.aggregation.max_weight=600",
        ];
    }
    if context.get("fixed_width").is_some() {
        return vec![
            "privacy.mode=central",
            "privacy.adjacency=add-remove",
            "privacy.delta=1e-5",
        ];
    }
    Vec::new()
}

#[tokio::test]
async fn a_relay_answers_each_bad_vector_with_the_problem_that_it_names() {
    let folder = tempfile::TempDir::new().unwrap();
    let mut tried = 0;
    let mut relays = std::collections::BTreeMap::new();
    for (name, vector) in vectors() {
        let error = &vector["error"];
        let (Some(problem), Some(reason)) = (error["problem"].as_str(), error["reason"].as_str()) else {
            continue;
        };
        let bytes = bytes(&vector);
        if ["weight", "count"].contains(&reason) {
            // A relay asks first whether the round is open. What it finds of the coordinates it finds before.
            let submission = TaskConfig::new(task(&terms(&vector["context"])))
                .examine(&bytes)
                .unwrap();
            let refused = unsaid_relay::http::problem::Refused::from(submission.coordinates.unwrap_err());
            assert_eq!(refused.0.urn, problem, "{name}");
            tried += 1;
            continue;
        }
        let terms = terms(&vector["context"]);
        if !relays.contains_key(&terms) {
            let options = RelayOptions {
                key: Some(RelayKey::create(&folder.path().join(relays.len().to_string())).unwrap()),
                ..RelayOptions::default()
            };
            relays.insert(
                terms.clone(),
                TestRelay::over(FaultyStore::new(), &terms, options).await,
            );
        }
        let api = &relays[&terms].api;
        let (path, kind) = match vector["reads"].as_str().unwrap() {
            "update-frame" => ("/v1/tasks/tiny/updates", "application/vnd.unsaid.update"),
            "check-in" => ("/v1/tasks/tiny/check-in", "application/json"),
            "enrol" => ("/v1/identities", "application/json"),
            other => panic!("{name}: nobody answers to {other}"),
        };
        let request = api
            .http
            .post(api.url(path))
            .header("content-type", kind)
            .body(bytes);
        let answer: Value = request.send().await.unwrap().json().await.unwrap();
        assert_eq!(answer["type"], problem, "{name}: {answer}");
        tried += 1;
    }
    assert!(tried >= 38, "{tried}");
}

#[tokio::test]
async fn a_relay_takes_the_weights_of_the_vectors() {
    let mut taken = 0;
    for (name, vector) in vectors() {
        let Some(weight) = vector["fields"]["weight"].as_i64() else {
            continue;
        };
        let config = TaskConfig::new(task(&terms(&vector["context"])));
        let coordinates = config.examine(&bytes(&vector)).unwrap().coordinates.unwrap();
        assert_eq!(coordinates.last().copied().map(i64::from), Some(weight), "{name}");
        taken += 1;
    }
    assert_eq!(taken, 2);
}

#[test]
fn a_round_is_told_as_its_vector_says() {
    let all = vectors();
    let (_, vector) = all.iter().find(|(name, _)| name == "round-record").unwrap();
    let record: RoundRecord = serde_json::from_slice(&bytes(vector)).unwrap();
    assert_eq!(json!(record), vector["fields"]);
    let parent = vector["fields"]["parent"].as_str().unwrap();
    assert_eq!(record.lineage.parent, Some(parent.parse().unwrap()));
    assert_eq!(record.lineage.spent.unwrap().epsilon, Some(1.25));
}
