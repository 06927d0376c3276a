//! What an operator has: pause, rollback, figures, limits, TLS.

use std::{sync::Arc, time::Duration};

use futures_util::FutureExt;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::{
    TlsConnector,
    rustls::{
        ClientConfig, RootCertStore,
        pki_types::{CertificateDer, ServerName, pem::PemObject},
    },
};
use unsaid_protocol::{CheckInReply, ProblemKind};
use unsaid_relay::{
    RelayOptions,
    http::{admin::AdminToken, limits::RateLimit},
    tls,
};

use crate::harness::*;

const TOKEN: &str = "a token of the tests";

async fn with_operator() -> TestRelay {
    let options = RelayOptions {
        admin_token: AdminToken::new(TOKEN),
        ..RelayOptions::default()
    };
    TestRelay::over(FaultyStore::new(), &[], options).await
}

async fn call(
    relay: &TestRelay,
    path: &str,
    token: &str,
    body: serde_json::Value,
) -> Answer<serde_json::Value> {
    let request = relay.api.http.post(relay.api.url(path)).json(&body);
    let response = request.bearer_auth(token).send().await.unwrap();
    answer(response).await.unwrap()
}

async fn operator(relay: &TestRelay, what: &str) -> Answer<serde_json::Value> {
    let path = format!("/v1/admin/tasks/tiny/{what}");
    call(relay, &path, TOKEN, serde_json::json!({})).await
}

async fn roll_back(relay: &TestRelay, round: u64) -> Answer<serde_json::Value> {
    let path = "/v1/admin/tasks/tiny/rollback";
    call(relay, path, TOKEN, serde_json::json!({ "round": round })).await
}

#[tokio::test]
async fn a_paused_task_lets_nobody_in_and_finishes_its_round() {
    let relay = with_operator().await;
    let api = &relay.api;
    api.take_part(1).await;
    api.check_in(2).await.unwrap();
    operator(&relay, "pause").await.unwrap();
    assert!(api.state().await.paused);
    assert!(matches!(
        api.check_in(3).await,
        Ok(CheckInReply::Wait { round: 1, .. })
    ));
    assert!(matches!(
        api.check_in(2).await,
        Ok(CheckInReply::Train { round: 1, .. })
    ));
    let second = api.frame(2).await;
    assert_eq!(
        api.send(&second).await,
        Ok(accepted(&second)),
        "who is in may report"
    );
    operator(&relay, "resume").await.unwrap();
    assert!(!api.state().await.paused);
    api.take_part(3).await;
    assert_eq!(api.state().await.round, 2);
}

#[tokio::test]
async fn a_pause_survives_a_restart() {
    let store = FaultyStore::new();
    let options = || RelayOptions {
        admin_token: AdminToken::new(TOKEN),
        ..RelayOptions::default()
    };
    let relay = TestRelay::over(store.clone(), &[], options()).await;
    operator(&relay, "pause").await.unwrap();
    relay.stop().await;
    let relay = TestRelay::over(store, &[], options()).await;
    assert!(matches!(
        relay.api.check_in(1).await,
        Ok(CheckInReply::Wait { .. })
    ));
}

#[tokio::test]
async fn a_rollback_is_a_round_that_publishes_an_older_model() {
    let relay = with_operator().await;
    let api = &relay.api;
    for _ in 0..2 {
        for client in 1..=3 {
            api.take_part(client).await;
        }
    }
    let pending = api.take_part(4).await;
    assert_eq!(roll_back(&relay, 1).await, Err(ProblemKind::NotPaused));
    operator(&relay, "pause").await.unwrap();
    assert_eq!(roll_back(&relay, 9).await, Err(ProblemKind::NotFound));
    let answer = roll_back(&relay, 1).await.unwrap();
    let rounds = api.rounds().await;
    let older = rounds[1].model;
    let expected = serde_json::json!({ "round": 3, "to": 1, "model": older, "discarded": 1 });
    assert_eq!(answer, expected);
    assert_eq!(
        (rounds[3].model, rounds[3].clients, rounds[3].rolled_back_to),
        (older, 0, Some(1))
    );
    assert_eq!(
        rounds[3].bytes_up, 0,
        "what was given up is not what the model was made of"
    );
    assert!(rounds[2].bytes_up > 0, "the control: a round of updates");
    assert_eq!((rounds[2].rolled_back_to, api.state().await.model), (None, older));
    assert_eq!(
        api.send(&pending).await,
        Ok(duplicate(&pending)),
        "its id is known: it is not sent again for ever"
    );
    // The next round starts from it, and counts nothing of what was given up.
    operator(&relay, "resume").await.unwrap();
    let before = api.model(older).await;
    for client in 1..=3 {
        api.take_part(client).await;
    }
    assert_eq!(api.state().await.model, expected_model(&before, &[1, 2, 3]));
}

#[tokio::test]
async fn only_the_operator_is_the_operator() {
    let relay = with_operator().await;
    let path = "/v1/admin/tasks/tiny/pause";
    let body = || serde_json::json!({});
    assert_eq!(
        call(&relay, path, "another token of tests", body()).await,
        Err(ProblemKind::Unauthorized)
    );
    let bare = relay.api.http.post(relay.api.url(path)).send().await.unwrap();
    assert_eq!(
        answer::<serde_json::Value>(bare).await.unwrap(),
        Err(ProblemKind::Unauthorized)
    );
    assert_eq!(
        call(&relay, "/v1/admin/tasks/none/pause", TOKEN, body()).await,
        Err(ProblemKind::NotFound)
    );
    assert!(!relay.api.state().await.paused);
    // No page elsewhere is told that it may ask, and without a token there is nothing to ask for.
    let request = relay
        .api
        .http
        .post(relay.api.url(path))
        .header("origin", "https://elsewhere.example");
    let response = request.bearer_auth(TOKEN).send().await.unwrap();
    assert!(!response.headers().contains_key("access-control-allow-origin"));
    let plain = TestRelay::start(&[]).await;
    assert_eq!(
        call(&plain, path, TOKEN, body()).await,
        Err(ProblemKind::NotFound)
    );
}

#[tokio::test]
async fn figures_tell_what_happened_and_are_the_operators_where_there_is_one() {
    let relay = TestRelay::start(&[]).await;
    for client in 1..=3 {
        relay.api.take_part(client).await;
    }
    relay.api.get("/v1/tasks/none/round").await;
    relay.api.get("/somewhere/else").await;
    let response = relay.api.get("/metrics").await;
    let kind = response.headers()["content-type"].to_str().unwrap().to_owned();
    assert!(kind.starts_with("text/plain; version=0.0.4"), "{kind}");
    let page = response.text().await.unwrap();
    let value = |line: &str| -> f64 {
        let found = page.lines().find_map(|found| found.strip_prefix(line));
        found
            .unwrap_or_else(|| panic!("{line}\n{page}"))
            .trim()
            .parse()
            .unwrap()
    };
    assert_eq!(value("unsaid_round{task=\"tiny\"}"), 2.0);
    assert_eq!(value("unsaid_model_clients{task=\"tiny\"}"), 3.0);
    assert!(
        value("unsaid_model_accuracy{task=\"tiny\"}").is_nan(),
        "there are no held-out examples"
    );
    assert_eq!(value("unsaid_task_healthy{task=\"tiny\"}"), 1.0);
    let labels = "route=\"/v1/tasks/{task}/updates\",method=\"POST\",status=\"200\"";
    assert_eq!(
        value(&format!("unsaid_http_request_seconds_count{{{labels}}}")),
        3.0
    );
    let last = format!("unsaid_http_request_seconds_bucket{{{labels},le=\"+Inf\"}}");
    assert_eq!(value(&last), 3.0);
    let missing = "route=\"/v1/tasks/{task}/round\",method=\"GET\",status=\"404\"";
    assert_eq!(
        value(&format!("unsaid_http_request_seconds_count{{{missing}}}")),
        1.0
    );
    assert!(
        !page.contains("/somewhere/else"),
        "no line for what nobody has: {page}"
    );
    for line in page.lines().filter(|line| !line.starts_with('#')) {
        let (name, value) = line.rsplit_once(' ').unwrap();
        assert!(name.starts_with("unsaid_"), "{line}");
        assert!(value == "NaN" || value.parse::<f64>().is_ok(), "{line}");
    }
    let relay = with_operator().await;
    assert_eq!(relay.api.get("/metrics").await.status(), 401);
    let request = relay.api.http.get(relay.api.url("/metrics")).bearer_auth(TOKEN);
    assert_eq!(request.send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn an_address_that_asks_too_often_is_told_to_wait() {
    let options = RelayOptions {
        rate_limit: Some(RateLimit {
            per_second: 1.0,
            burst: 5.0,
        }),
        ..RelayOptions::default()
    };
    let relay = TestRelay::over(FaultyStore::new(), &[], options).await;
    let path = "/v1/tasks/tiny/round";
    let from_elsewhere = |method: reqwest::Method| {
        let request = relay.api.http.request(method, relay.api.url(path));
        request.header("origin", "https://elsewhere.example")
    };
    for _ in 0..20 {
        let ask_first = from_elsewhere(reqwest::Method::OPTIONS);
        let ask_first = ask_first.header("access-control-request-method", "GET");
        let answer = ask_first.send().await.unwrap();
        assert_eq!(answer.status(), 200, "what browsers ask first is not counted");
    }
    let mut statuses = Vec::new();
    for _ in 0..8 {
        statuses.push(relay.api.get(path).await.status().as_u16());
    }
    assert_eq!(statuses[..5], [200; 5]);
    assert!(statuses[5..].contains(&429), "{statuses:?}");
    let refused = loop {
        let response = from_elsewhere(reqwest::Method::GET).send().await.unwrap();
        if response.status() == 429 {
            break response;
        }
    };
    let allowed = refused.headers().get("access-control-allow-origin");
    assert!(allowed.is_some(), "the page may read why: {refused:?}");
    for other in ["/healthz", "/v1/none", "/none"] {
        let mut statuses = Vec::new();
        for _ in 0..20 {
            statuses.push(relay.api.get(other).await.status().as_u16());
        }
        assert!(statuses.contains(&429), "{other} {statuses:?}");
    }
    assert!(
        refused.headers()["retry-after"]
            .to_str()
            .unwrap()
            .parse::<u64>()
            .unwrap()
            >= 1
    );
    assert!(refused.headers().contains_key("content-security-policy"));
    assert_eq!(
        answer::<()>(refused).await.unwrap(),
        Err(ProblemKind::TooManyRequests)
    );
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    assert_eq!(relay.api.get(path).await.status(), 200);
}

#[tokio::test]
async fn only_pages_of_the_list_may_ask() {
    let options = RelayOptions {
        origins: Some(vec!["https://good.example".parse().unwrap()]),
        ..RelayOptions::default()
    };
    let relay = TestRelay::over(FaultyStore::new(), &[], options).await;
    let allowed = async |origin: &str| {
        let request = relay
            .api
            .http
            .get(relay.api.url("/v1/tasks"))
            .header("origin", origin);
        let response = request.send().await.unwrap();
        response.headers().get("access-control-allow-origin").cloned()
    };
    assert_eq!(
        allowed("https://good.example").await.unwrap(),
        "https://good.example"
    );
    assert_eq!(allowed("https://other.example").await, None);
    assert_eq!(allowed("http://good.example").await, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_that_is_added_runs_beside_the_others_and_after_a_restart() {
    let folder = TempDir::new().unwrap();
    let tasks = folder.path().join("tasks");
    let token = folder.path().join("token");
    std::fs::write(&token, TOKEN).unwrap();
    let start = || {
        let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_unsaid-relay"))
            .args(["serve", "--listen", "127.0.0.1:0"])
            .args(["--set", "title=\"As this relay says\"", "--tasks"])
            .arg(&tasks)
            .arg("--store")
            .arg(folder.path().join("relay.redb"))
            .arg("--admin-token-file")
            .arg(&token)
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let output = child.stdout.take().unwrap();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(output), &mut line).unwrap();
        let base = line
            .trim()
            .strip_prefix("listening on ")
            .expect("it starts")
            .to_owned();
        (child, Api::new(&base))
    };
    let admin = |api: &Api, arguments: &[&str]| {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_unsaid-relay"))
            .arg("admin")
            .args(arguments)
            .args(["--relay", &api.base, "--token-file"])
            .arg(&token)
            .output()
            .unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (
            output.status.success(),
            text(&output.stdout) + &text(&output.stderr),
        )
    };
    let (mut child, api) = start();
    let file = folder.path().join("tiny.toml");
    std::fs::write(&file, TASK.replace("epochs = 1", "epochs = 0")).unwrap();
    let (done, said) = admin(&api, &["add", file.to_str().unwrap()]);
    assert!(
        !done && said.contains("task:15:") && said.contains("training.epochs"),
        "{said}"
    );
    assert_eq!(api.get("/v1/tasks/tiny/round").await.status(), 404);
    std::fs::write(&file, TASK).unwrap();
    let kept = tasks.join("tiny.toml");
    std::fs::create_dir_all(&tasks).unwrap();
    std::fs::write(&kept, "# of somebody else").unwrap();
    let (done, said) = admin(&api, &["add", file.to_str().unwrap()]);
    assert!(!done && said.contains("task-exists"), "{said}");
    assert_eq!(std::fs::read_to_string(&kept).unwrap(), "# of somebody else");
    assert_eq!(api.get("/v1/tasks/tiny/round").await.status(), 404);
    std::fs::remove_file(&kept).unwrap();
    let (done, said) = admin(&api, &["add", file.to_str().unwrap()]);
    assert!(done && said.contains("\"task\":\"tiny\""), "{said}");
    let (done, said) = admin(&api, &["add", file.to_str().unwrap()]);
    assert!(!done && said.contains("task-exists"), "{said}");
    let listed = async |api: &Api| {
        api.get("/v1/tasks")
            .await
            .json::<serde_json::Value>()
            .await
            .unwrap()
    };
    let before = listed(&api).await;
    assert_eq!(
        before[0]["title"], "As this relay says",
        "--set is for added tasks, too"
    );
    api.take_part(1).await;
    child.kill().unwrap();
    child.wait().unwrap();
    let (mut child, api) = start();
    assert_eq!(api.state().await.received, 1, "it goes on where it was");
    assert_eq!(listed(&api).await, before, "under the same manifest");
    let (done, said) = admin(&api, &["pause", "tiny"]);
    assert!(done && said.contains("\"paused\":true"), "{said}");
    let (done, said) = admin(&api, &["rollback", "tiny", "--round", "0"]);
    assert!(done && said.contains("\"discarded\":1"), "{said}");
    let (done, said) = admin(&api, &["resume", "none"]);
    assert!(!done && said.contains("404"), "{said}");
    child.kill().unwrap();
    child.wait().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_that_takes_long_to_start_keeps_nobody_waiting() {
    let store = FaultyStore::new();
    let relay = TestRelay::over(store.clone(), &[], RelayOptions::default()).await;
    store.set(Fault::HeldLoading);
    let adding = relay.relay.clone();
    let added = tokio::task::spawn_blocking(move || adding.add(task(&["task=\"slow\""])));
    until("it is being loaded", async || store.struck() == 1).await;
    let tasks = async || {
        let asked = tokio::time::timeout(Duration::from_secs(5), relay.api.get("/v1/tasks"));
        let listed: serde_json::Value = asked.await.expect("nobody waits").json().await.unwrap();
        listed.as_array().unwrap().len()
    };
    assert_eq!(tasks().await, 1);
    relay.api.take_part(1).await;
    store.set(Fault::None);
    added.await.unwrap().unwrap();
    assert_eq!(tasks().await, 2);
    let again = relay.relay.clone();
    let twice = tokio::task::spawn_blocking(move || again.add(task(&["task=\"slow\""])));
    assert!(twice.await.unwrap().is_err(), "one of a name");
}

#[tokio::test]
async fn the_operator_sees_the_way_of_clients_through_a_task_and_nobody_else_does() {
    let relay = with_operator().await;
    assert_eq!(relay.api.get("/v1/admin/status").await.status(), 401);
    let late = relay.api.frame(1).await;
    for client in 1..=3 {
        relay.api.take_part(client).await;
    }
    let late = unsaid_protocol::UpdateFrame {
        update: update_id(9, 9),
        ..late
    };
    assert_eq!(relay.api.send(&late).await, Err(ProblemKind::RoundClosed));
    let request = relay.api.http.get(relay.api.url("/v1/admin/status"));
    let status: serde_json::Value = request
        .bearer_auth(TOKEN)
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    let task = &status["tasks"][0];
    let refused = serde_json::json!({"round-closed": 1});
    let since = serde_json::json!({"asked": 3, "selected": 3, "reported": 3, "late": 1, "refused": refused});
    assert_eq!(task["since_start"], since);
    assert_eq!(task["strategy"], serde_json::json!(["mean", "fed-avg"]));
    assert_eq!(task["rounds"].as_array().unwrap().len(), 2);
    assert_eq!(task["rounds"][1]["clients"], 3);
    assert_eq!(
        (&task["state"]["round"], &task["healthy"]),
        (&2.into(), &true.into())
    );

    let folder = TempDir::new().unwrap();
    let token = folder.path().join("token");
    std::fs::write(&token, TOKEN).unwrap();
    let output = tokio::process::Command::new(env!("CARGO_BIN_EXE_unsaid-relay"))
        .args(["status", "--once", "--relay", &relay.api.base, "--token-file"])
        .arg(&token)
        .output();
    let output = output.await.unwrap();
    let shown = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success()
            && shown.contains("tiny  2")
            && shown.contains("tiny refused: round-closed 1"),
        "{shown}"
    );
}

#[tokio::test]
async fn the_operators_page_is_there_with_a_token_and_loads_nothing_from_elsewhere() {
    let without = TestRelay::start(&[]).await;
    assert_eq!(without.api.get("/operator/").await.status(), 404);
    let relay = with_operator().await;
    let mut page = String::new();
    for file in ["", "operator.css", "operator.js"] {
        let response = relay.api.get(&format!("/operator/{file}")).await;
        assert_eq!(response.status(), 200, "{file}");
        let policies = response.headers().get_all("content-security-policy");
        let policies: Vec<_> = policies
            .iter()
            .map(|it| it.to_str().unwrap().to_owned())
            .collect();
        assert!(
            policies.len() == 1
                && policies[0].starts_with("default-src 'none'")
                && policies[0].contains("connect-src 'self'"),
            "{policies:?}"
        );
        page += &response.text().await.unwrap();
    }
    let elsewhere: Vec<&str> = page.matches("//").collect();
    let namespace = page.matches("http://www.w3.org/2000/svg").count();
    let comments = page
        .lines()
        .filter(|line| line.trim_start().starts_with("//"))
        .count();
    assert_eq!(elsewhere.len(), namespace + comments, "no other address");
    assert!(!page.contains("localStorage") && !page.contains("sessionStorage") && !page.contains("cookie"));
}

/// A description that the routes contradict would be found by schemathesis; here it is whole, and of this very relay.
#[tokio::test]
async fn the_description_names_every_route_and_every_problem() {
    let relay = with_operator().await;
    let described: serde_json::Value = relay.api.get("/v1/openapi.json").await.json().await.unwrap();
    let paths = described["paths"].as_object().unwrap();
    assert_eq!(paths.len(), 21, "{:?}", paths.keys());
    let whole = described.to_string();
    let unnamed: Vec<_> = ProblemKind::ALL
        .iter()
        .filter(|kind| !whole.contains(kind.urn()))
        .collect();
    assert!(unnamed.is_empty(), "{unnamed:?}");
    for reference in whole.match_indices("#/components/schemas/") {
        let name: String = whole[reference.0 + reference.1.len()..]
            .chars()
            .take_while(|c| c.is_alphanumeric())
            .collect();
        assert!(
            described["components"]["schemas"].get(&name).is_some(),
            "{name} is not there"
        );
    }
    let without = TestRelay::start(&[]).await;
    let described: serde_json::Value = without.api.get("/v1/openapi.json").await.json().await.unwrap();
    let operators = |path: &&String| path.contains("/admin/");
    assert_eq!(
        described["paths"]
            .as_object()
            .unwrap()
            .keys()
            .filter(operators)
            .count(),
        0
    );
}

#[tokio::test]
async fn a_field_that_is_there_twice_is_refused() {
    let relay = with_operator().await;
    let manifest = relay.api.state().await.manifest;
    let (one, other) = (client_id(1), client_id(2));
    let post = async |path: &str, body: String| {
        let request = relay.api.http.post(relay.api.url(path)).bearer_auth(TOKEN);
        let request = request.header("content-type", "application/json").body(body);
        answer::<serde_json::Value>(request.send().await.unwrap())
            .await
            .unwrap()
    };
    let twice = format!("{{\"client\":\"{one}\",\"client\":\"{other}\",\"manifest\":\"{manifest}\"}}");
    assert_eq!(
        post("/v1/tasks/tiny/check-in", twice).await,
        Err(ProblemKind::Malformed)
    );
    let once = format!("{{\"client\":\"{one}\",\"manifest\":\"{manifest}\"}}");
    assert!(post("/v1/tasks/tiny/check-in", once).await.is_ok());
    let rollback = "{\"round\":0,\"round\":1}".to_owned();
    assert_eq!(
        post("/v1/admin/tasks/tiny/rollback", rollback).await,
        Err(ProblemKind::Malformed)
    );
}

#[tokio::test]
async fn the_operators_calls_reach_a_relay_over_tls_that_they_trust_and_no_other() {
    let folder = TempDir::new().unwrap();
    let made = |name: &str| {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let paths = [format!("{name}.pem"), format!("{name}.key")].map(|file| folder.path().join(file));
        std::fs::write(&paths[0], made.cert.pem()).unwrap();
        std::fs::write(&paths[1], made.signing_key.serialize_pem()).unwrap();
        paths
    };
    let ([certificate, key], [other, _]) = (made("relay"), made("other"));
    let token = folder.path().join("token");
    std::fs::write(&token, TOKEN).unwrap();
    let options = RelayOptions {
        admin_token: AdminToken::new(TOKEN),
        tls: Some(tls::read(&certificate, &key).unwrap()),
        ..RelayOptions::default()
    };
    let relay = TestRelay::over(FaultyStore::new(), &[], options).await;
    let port = relay.api.base.rsplit_once(':').unwrap().1.to_owned();
    let pause = async |address: String, trusted: &std::path::Path| {
        let output = tokio::process::Command::new(env!("CARGO_BIN_EXE_unsaid-relay"))
            .args(["admin", "pause", "tiny", "--relay", &address, "--token-file"])
            .arg(&token)
            .arg("--ca-cert")
            .arg(trusted)
            .output();
        let output = output.await.unwrap();
        let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        (output.status.success(), text)
    };
    let (done, said) = pause(format!("https://localhost:{port}"), &certificate).await;
    assert!(done && said.contains("\"paused\":true"), "{said}");
    let (done, said) = pause(format!("https://localhost:{port}/"), &other).await;
    assert!(!done && said.contains("certificate"), "{said}");
    let (done, said) = pause(format!("ftp://localhost:{port}"), &certificate).await;
    assert!(!done && said.contains("no address of a relay"), "{said}");
}

/// A relay over TLS with a certificate of its own, and a client that trusts it.
async fn over_tls(folder: &TempDir) -> (TestRelay, Arc<ClientConfig>) {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let (certificate, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    std::fs::write(&certificate, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let options = RelayOptions {
        tls: Some(tls::read(&certificate, &key).unwrap()),
        page: Some(folder.path().to_owned()),
        head_timeout: Duration::from_millis(600),
        answer_timeout: Duration::from_millis(600),
        ..RelayOptions::default()
    };
    let relay = TestRelay::over(FaultyStore::new(), &[], options).await;
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_file(&certificate).unwrap())
        .unwrap();
    let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    (relay, Arc::new(config))
}

async fn connect(
    relay: &TestRelay,
    config: &Arc<ClientConfig>,
    protocol: &[u8],
) -> tokio_rustls::client::TlsStream<TcpStream> {
    let mut config = (**config).clone();
    config.alpn_protocols = vec![protocol.to_vec()];
    let address = relay.api.base.strip_prefix("http://").unwrap();
    let stream = TcpStream::connect(address).await.unwrap();
    let connector = TlsConnector::from(Arc::new(config));
    let name = ServerName::try_from("localhost").unwrap();
    connector.connect(name, stream).await.unwrap()
}

#[tokio::test]
async fn tls_carries_http_1_and_http_2() {
    let folder = TempDir::new().unwrap();
    let (relay, config) = over_tls(&folder).await;
    let mut one = connect(&relay, &config, b"http/1.1").await;
    let request = b"GET /v1/tasks HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    one.write_all(request).await.unwrap();
    let mut answer = Vec::new();
    let _ = one.read_to_end(&mut answer).await;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    assert!(
        answer.starts_with("HTTP/1.1 200") && answer.contains("\"tiny\""),
        "{answer}"
    );

    let two = connect(&relay, &config, b"h2").await;
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(two))
            .await
            .unwrap();
    tokio::spawn(connection.map(drop));
    let mut ask = |path: &str| {
        let request = hyper::Request::get(format!("https://localhost{path}"));
        sender.send_request(request.body(axum::body::Body::empty()).unwrap())
    };
    // Two at a time over one connection.
    let both = (ask("/v1/tasks"), ask("/healthz"));
    let (first, second) = futures_util::future::join(both.0, both.1).await;
    for response in [first.unwrap(), second.unwrap()] {
        assert_eq!(
            (response.status().as_u16(), response.version()),
            (200, hyper::Version::HTTP_2)
        );
    }
}

type Sender = hyper::client::conn::http2::SendRequest<axum::body::Body>;

/// HTTP/2 over `stream`; the task ends with the connection.
async fn http_2(stream: tokio_rustls::client::TlsStream<TcpStream>) -> (Sender, tokio::task::JoinHandle<()>) {
    let made = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
    let (sender, connection) = made.await.unwrap();
    (sender, tokio::spawn(connection.map(drop)))
}

async fn get(sender: &mut Sender, path: &str) -> hyper::Response<hyper::body::Incoming> {
    let request = hyper::Request::get(format!("https://localhost{path}"));
    let request = request.body(axum::body::Body::empty()).unwrap();
    sender.send_request(request).await.unwrap()
}

#[tokio::test]
async fn http_2_that_is_agreed_and_not_spoken_is_closed() {
    let folder = TempDir::new().unwrap();
    let (relay, config) = over_tls(&folder).await;
    let mut silent = connect(&relay, &config, b"h2").await;
    let mut rest = Vec::new();
    let end = tokio::time::timeout(Duration::from_secs(5), silent.read_to_end(&mut rest));
    let _ = end.await.expect("the relay closes the connection");
}

#[tokio::test]
async fn http_2_that_asks_once_and_then_only_answers_pings_is_closed() {
    let folder = TempDir::new().unwrap();
    let (relay, config) = over_tls(&folder).await;
    let (mut sender, connection) = http_2(connect(&relay, &config, b"h2").await).await;
    for _ in 0..3 {
        let response = get(&mut sender, "/healthz").await;
        assert_eq!(response.status(), 200);
        drop(response);
        tokio::time::sleep(Duration::from_millis(400)).await; // less than the time that it may be silent
    }
    let end = tokio::time::timeout(Duration::from_secs(5), connection);
    end.await.expect("the relay closes the connection").unwrap();
    drop(sender); // kept until now: it was not the client that ended it
}

#[tokio::test]
async fn http_2_with_an_event_stream_is_not_silent() {
    let folder = TempDir::new().unwrap();
    let (relay, config) = over_tls(&folder).await;
    let (mut sender, connection) = http_2(connect(&relay, &config, b"h2").await).await;
    let events = get(&mut sender, "/v1/tasks/tiny/events").await;
    tokio::time::sleep(Duration::from_millis(2_400)).await; // four times as long as it may be silent
    assert!(!connection.is_finished());
    assert_eq!(get(&mut sender, "/healthz").await.status(), 200);
    drop(events); // resets the stream: nothing is open any more
    let end = tokio::time::timeout(Duration::from_secs(5), connection);
    end.await.expect("the relay closes the connection").unwrap();
}

#[tokio::test]
async fn http_2_whose_answer_is_not_taken_is_closed() {
    let folder = TempDir::new().unwrap();
    let (relay, config) = over_tls(&folder).await;
    std::fs::write(folder.path().join("large.bin"), vec![7; 24 << 20]).unwrap();
    let (mut sender, connection) = http_2(connect(&relay, &config, b"h2").await).await;
    // The client's windows are full soon, and it goes on to answer pings.
    let answer = get(&mut sender, "/large.bin").await;
    assert_eq!(answer.status(), 200);
    let end = tokio::time::timeout(Duration::from_secs(5), connection);
    end.await.expect("the relay closes the connection").unwrap();
    drop((answer, sender));
}

#[tokio::test]
async fn a_handshake_that_does_not_come_is_not_waited_for() {
    let folder = TempDir::new().unwrap();
    let (relay, _) = over_tls(&folder).await;
    let address = relay.api.base.strip_prefix("http://").unwrap();
    for first in [&b""[..], b"GET / HTTP/1.1\r\n\r\n", &[0x16, 3, 1]] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(first).await.unwrap();
        let mut rest = Vec::new();
        let end = tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut rest));
        let _ = end.await.expect("the relay closes the connection");
    }
}

#[test]
fn a_certificate_that_cannot_be_used_is_named() {
    let folder = TempDir::new().unwrap();
    let (empty, missing) = (folder.path().join("empty.pem"), folder.path().join("missing.pem"));
    std::fs::write(&empty, "").unwrap();
    let error = tls::read(&missing, &empty).unwrap_err().to_string();
    assert!(error.contains("missing.pem"), "{error}");
    let error = tls::read(&empty, &empty).unwrap_err().to_string();
    assert!(error.contains("empty.pem"), "{error}");
}
