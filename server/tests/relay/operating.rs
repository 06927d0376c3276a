//! What an operator has: pause, rollback, figures, limits, and a page.

use std::time::Duration;

use tempfile::TempDir;
use unsaid_protocol::{CheckInReply, ProblemKind};
use unsaid_relay::{
    RelayOptions,
    http::{admin::AdminToken, limits::RateLimit},
};

use crate::harness::*;

pub const TOKEN: &str = "a token of the tests";

async fn with_operator() -> TestRelay {
    with_operator_of(&[]).await
}

pub async fn with_operator_of(overrides: &[&str]) -> TestRelay {
    let options = RelayOptions {
        admin_token: AdminToken::new(TOKEN),
        ..RelayOptions::default()
    };
    TestRelay::over(FaultyStore::new(), overrides, options).await
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

pub async fn operator(relay: &TestRelay, what: &str) -> Answer<serde_json::Value> {
    let path = format!("/v1/admin/tasks/tiny/{what}");
    call(relay, &path, TOKEN, serde_json::json!({})).await
}

pub async fn roll_back(relay: &TestRelay, round: u64) -> Answer<serde_json::Value> {
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
async fn a_rollback_brings_back_the_control_variate_of_its_model() {
    let overrides = [
        "strategy.aggregation.type=scaffold",
        "strategy.aggregation.population=10",
        "training.steps_per_epoch=5",
    ];
    let round = async |relay: &TestRelay| {
        for client in 1..=3 {
            relay.api.take_part(client).await;
        }
        relay.api.state().await.model
    };
    let relay = with_operator_of(&overrides).await;
    let first = round(&relay).await;
    let second = round(&relay).await;
    operator(&relay, "pause").await.unwrap();
    roll_back(&relay, 1).await.unwrap();
    operator(&relay, "resume").await.unwrap();
    assert_eq!(relay.api.state().await.model, first);
    // The same updates make the same file again, and its control variate with it.
    assert_eq!(round(&relay).await, second);
    assert_ne!(round(&relay).await, second);
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

/// What an operator's alarms look at is what the operator looks at.
#[tokio::test]
async fn figures_have_the_funnel_and_the_epsilon_that_status_tells() {
    let noisy = ["privacy.mode=local"];
    let central = [
        "privacy.mode=central",
        "privacy.adjacency=add-remove",
        "privacy.delta=1e-6",
    ];
    for overrides in [&[][..], &noisy, &central] {
        let relay = with_operator_of(overrides).await;
        let late = relay.api.frame(1).await;
        for round in 0..2 {
            for client in 1..=3 {
                relay.api.take_part(3 * round + client).await;
            }
        }
        let late = unsaid_protocol::UpdateFrame {
            update: update_id(9, 9),
            ..late
        };
        assert_eq!(relay.api.send(&late).await, Err(ProblemKind::RoundClosed));
        let get = async |path: &str| {
            let request = relay.api.http.get(relay.api.url(path)).bearer_auth(TOKEN);
            request.send().await.unwrap().text().await.unwrap()
        };
        let status: serde_json::Value = serde_json::from_str(&get("/v1/admin/status").await).unwrap();
        let page = get("/metrics").await;
        let value = |line: &str| -> f64 {
            let found = page.lines().find_map(|found| found.strip_prefix(line));
            let found = found.unwrap_or_else(|| panic!("{line}\n{page}"));
            found.trim().parse().unwrap()
        };
        let since = &status["tasks"][0]["since_start"];
        for (figure, field, expected) in [
            ("unsaid_check_ins_total", "asked", 6.0),
            ("unsaid_selected_total", "selected", 6.0),
            ("unsaid_updates_counted_total", "reported", 6.0),
            ("unsaid_updates_late_total", "late", 1.0),
        ] {
            assert_eq!(value(&format!("{figure}{{task=\"tiny\"}}")), expected);
            assert_eq!(since[field].as_f64(), Some(expected), "{field}");
        }
        let refused = |kind: &str| value(&format!("unsaid_refused_total{{task=\"tiny\",kind=\"{kind}\"}}"));
        assert_eq!((refused("round-closed"), refused("wrong-manifest")), (1.0, 0.0));
        let kinds = page.matches("unsaid_refused_total{").count();
        assert_eq!(
            kinds,
            ProblemKind::ALL.len(),
            "each kind that there is, and no more whatever is asked"
        );
        let told = status["tasks"][0]["rounds"].as_array().unwrap().last().unwrap()["epsilon"].as_f64();
        assert_eq!(told.is_some(), !overrides.is_empty(), "{overrides:?}");
        let found = value("unsaid_task_epsilon{task=\"tiny\"}");
        match told {
            // JSON's numbers are read to the last digit but one.
            Some(told) => assert!((found / told - 1.0).abs() < 1e-12, "{found} {told}"),
            None => assert!(found.is_nan(), "{found}"),
        }
    }
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
    let token = token_file(folder.path(), TOKEN);
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
    assert_eq!(paths.len(), 22, "{:?}", paths.keys());
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
