//! Models, files, headers, and the command line.

use std::{process::Command, sync::Arc};

use tempfile::TempDir;
use unsaid_protocol::{ContentHash, Manifest, ProblemKind, Shard};
use unsaid_relay::{RelayOptions, key::RelayKey, store::RedbStore};

use crate::harness::*;

async fn with_folders(overrides: &[&str]) -> (TestRelay, TempDir) {
    let (folder, options) = folders();
    let store = RedbStore::open(&folder.path().join("relay.redb")).unwrap();
    (TestRelay::over(Arc::new(store), overrides, options).await, folder)
}

/// A relay with a key signs the very bytes that it serves, and pages elsewhere may read the signature.
#[tokio::test]
async fn the_manifest_is_signed_where_the_relay_has_a_key() {
    let folder = tempfile::TempDir::new().unwrap();
    let key = RelayKey::create(&folder.path().join("relay.key")).unwrap();
    let options = RelayOptions {
        key: Some(key.clone()),
        ..RelayOptions::default()
    };
    let relay = TestRelay::over(FaultyStore::new(), &[], options).await;
    let request = relay.api.http.get(relay.api.url("/v1/tasks/tiny/manifest"));
    let response = request
        .header("origin", "https://elsewhere.example")
        .send()
        .await
        .unwrap();
    let header = |name: &str| response.headers()[name].to_str().unwrap().to_owned();
    let exposed = header("access-control-expose-headers");
    assert!(exposed.contains("unsaid-signature"), "{exposed}");
    let signature = header("unsaid-signature");
    assert_eq!(signature, key.sign_manifest(&response.bytes().await.unwrap()));
    let without = TestRelay::start(&[]).await;
    let response = without.api.get("/v1/tasks/tiny/manifest").await;
    assert!(!response.headers().contains_key("unsaid-signature"));
}

#[tokio::test]
async fn the_manifest_is_named_by_its_bytes() {
    let relay = TestRelay::start(&[]).await;
    let response = relay.api.get("/v1/tasks/tiny/manifest").await;
    let hash: ContentHash = response.headers()["unsaid-content-hash"]
        .to_str()
        .unwrap()
        .parse()
        .unwrap();
    let etag = response.headers()["etag"].clone();
    assert_eq!(etag, format!("\"{hash}\""));
    assert_eq!(response.headers()["access-control-allow-origin"], "*");
    let manifest = Manifest::from_json_named(&response.bytes().await.unwrap(), hash).unwrap();
    assert_eq!((manifest.task.as_str(), manifest.parameters), ("tiny", 8));
    let url = relay.api.url("/v1/tasks/tiny/manifest");
    let again = relay
        .api
        .http
        .get(url)
        .header("if-none-match", etag)
        .send()
        .await
        .unwrap();
    assert_eq!(again.status(), 304);
    let tasks: serde_json::Value = relay.api.get("/v1/tasks").await.json().await.unwrap();
    assert_eq!(tasks[0]["task"], "tiny");
    assert_eq!(tasks[0]["manifest"], hash.to_string());
}

#[tokio::test]
async fn models_never_change_and_come_compressed_to_those_who_ask() {
    let relay = TestRelay::start(&[]).await;
    let hash = relay.api.state().await.model;
    let url = relay.api.url(&format!("/v1/tasks/tiny/models/{hash}"));
    let plain = relay.api.http.get(&url).send().await.unwrap();
    assert!(plain.headers().get("content-encoding").is_none());
    assert_eq!(
        plain.headers()["cache-control"],
        "public, max-age=31536000, immutable"
    );
    let length: usize = plain.headers()["content-length"]
        .to_str()
        .unwrap()
        .parse()
        .unwrap();
    let plain = plain.bytes().await.unwrap();
    assert_eq!((plain.len(), ContentHash::of(&plain)), (length, hash));

    let gzip = relay
        .api
        .http
        .get(&url)
        .header("accept-encoding", "gzip")
        .send()
        .await
        .unwrap();
    assert_eq!(gzip.headers()["content-encoding"], "gzip");
    assert_eq!(gzip.headers()["vary"], "accept-encoding");
    let etag = gzip.headers()["etag"].clone();
    let length: usize = gzip.headers()["content-length"]
        .to_str()
        .unwrap()
        .parse()
        .unwrap();
    let gzip = gzip.bytes().await.unwrap();
    assert_eq!(gzip.len(), length);
    let mut unpacked = Vec::new();
    std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(&gzip[..]), &mut unpacked).unwrap();
    assert_eq!(unpacked, plain);
    let again = relay
        .api
        .http
        .get(&url)
        .header("if-none-match", etag)
        .send()
        .await
        .unwrap();
    assert_eq!(again.status(), 304);
}

#[tokio::test]
async fn each_model_is_evaluated_and_the_figures_are_kept() {
    let (relay, _folder) = with_folders(&["evaluation.shard=test.shard"]).await;
    until("round 0", async || relay.api.rounds().await[0].accuracy.is_some()).await;
    for client in 1..=3 {
        relay.api.take_part(client).await;
    }
    until("round 1", async || relay.api.rounds().await[1].loss.is_some()).await;
    let rounds = relay.api.rounds().await;
    assert!(
        rounds
            .iter()
            .all(|metrics| (0.0..=1.0).contains(&metrics.accuracy.unwrap()))
    );
    assert_ne!(rounds[0].loss, rounds[1].loss);
}

#[tokio::test]
async fn page_and_data_are_served_with_headers_that_isolate_them() {
    let (relay, _folder) = with_folders(&[]).await;
    let page = relay.api.get("/").await;
    assert_eq!(page.headers()["cross-origin-opener-policy"], "same-origin");
    assert_eq!(page.headers()["cross-origin-embedder-policy"], "require-corp");
    assert_eq!(page.headers()["x-content-type-options"], "nosniff");
    assert!(
        page.headers()["content-security-policy"]
            .to_str()
            .unwrap()
            .contains("'wasm-unsafe-eval'")
    );
    assert_eq!(page.headers()["cache-control"], "no-cache");
    assert_eq!(page.text().await.unwrap(), "<title>page</title>");
    let asset = relay.api.get("/assets/a1.js").await;
    assert_eq!(
        asset.headers()["cache-control"],
        "public, max-age=31536000, immutable"
    );
    let shard = relay.api.get("/data/iid/001.shard").await;
    assert_eq!(
        shard.headers()["cache-control"],
        "public, max-age=31536000, immutable"
    );
    assert_eq!(Shard::decode(&shard.bytes().await.unwrap()).unwrap().len(), 2);
    for path in [
        "/none.html",
        "/data/iid/002.shard",
        "/data/iid",
        "/data/../relay.redb",
        "/..%2frelay.redb",
    ] {
        let refused = answer::<serde_json::Value>(relay.api.get(path).await)
            .await
            .unwrap();
        assert_eq!(refused, Err(ProblemKind::NotFound), "{path}");
    }
}

#[tokio::test]
async fn claims_go_round() {
    let (relay, _folder) = with_folders(&[]).await;
    let claim = async |partition: &str| {
        let url = relay.api.url(&format!("/data/{partition}/claim"));
        answer::<serde_json::Value>(relay.api.http.post(url).send().await.unwrap())
            .await
            .unwrap()
    };
    for expected in [0, 1, 0] {
        assert_eq!(claim("iid").await.unwrap()["index"], expected);
    }
    assert_eq!(claim("none").await, Err(ProblemKind::NotFound));
}

fn program(arguments: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_unsaid-relay"))
        .args(arguments)
        .output()
        .unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn a_taken_port_is_a_clear_error() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("tiny.toml");
    std::fs::write(&file, TASK).unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let store = folder.path().join("relay.redb");
    let (code, error) = program(&[
        "serve",
        "--task",
        file.to_str().unwrap(),
        "--store",
        store.to_str().unwrap(),
        "--listen",
        &address,
    ]);
    assert_eq!(code, Some(1));
    assert!(
        error.contains(&format!("{address} is taken by another program")),
        "{error}"
    );
}

#[test]
fn a_typo_in_a_task_file_is_reported_with_its_line() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("typo.toml");
    std::fs::write(&file, TASK.replace("target_clients", "taget_clients")).unwrap();
    let (code, error) = program(&["task", "check", file.to_str().unwrap()]);
    assert_eq!(code, Some(1));
    let line = TASK
        .lines()
        .position(|line| line.starts_with("target_clients"))
        .unwrap()
        + 1;
    assert!(
        error.contains(&format!("typo.toml:{line}:1: rounds.taget_clients: ")),
        "{error}"
    );
}

#[test]
fn the_demo_task_is_valid() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tasks/mnist.toml");
    let (code, error) = program(&[
        "task",
        "check",
        file,
        "--set",
        "privacy.noise_multiplier=0.5",
        "--set",
        "rounds.target_clients=8",
    ]);
    assert_eq!((code, error.as_str()), (Some(0), ""));
}
