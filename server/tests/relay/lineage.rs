//! Where a model comes from and what it cost, in the list of rounds, in the store, and in the file that people take away.

use std::{collections::HashMap, path::Path, sync::Arc};

use redb::{Database, ReadableTable, TableDefinition};
use reqwest::header;
use safetensors::SafeTensors;
use serde_json::{Value, json};
use tempfile::TempDir;
use unsaid_privacy::{Adjacency, Cost, Rho};
use unsaid_protocol::ProblemKind;
use unsaid_relay::{RelayOptions, http::admin::AdminToken, store::RedbStore};

use crate::{
    harness::*,
    operating::{TOKEN, operator, roll_back, with_operator_of},
};

const LOCAL: [&str; 2] = ["privacy.mode=local", "privacy.noise_multiplier=1.5"];

async fn rounds(relay: &TestRelay) -> Vec<Value> {
    relay.api.get("/v1/tasks/tiny/rounds").await.json().await.unwrap()
}

async fn one_round(relay: &TestRelay) {
    for client in 1..=3 {
        relay.api.take_part(client).await;
    }
}

/// ε of so many rounds of the noise of [`LOCAL`], by its formula: σ is rounded up to what the sampler draws, by less than a thousandth.
fn is_epsilon_of(told: &Value, rounds: u64) -> bool {
    let round = Rho::local_round(1.5, Adjacency::ReplaceOne).unwrap();
    let expected = Cost::from(round).times(rounds).epsilon(1e-5).unwrap();
    let told = told.as_f64().unwrap();
    told <= expected && told > expected * (1.0 - 2e-3) || rounds == 0 && told == 0.0
}

#[tokio::test]
async fn every_round_says_what_it_was_made_from_and_what_was_spent_until_then() {
    let relay = with_operator_of(&LOCAL).await;
    one_round(&relay).await;
    one_round(&relay).await;
    operator(&relay, "pause").await.unwrap();
    roll_back(&relay, 1).await.unwrap();
    operator(&relay, "resume").await.unwrap();
    one_round(&relay).await;
    let rounds = rounds(&relay).await;
    let manifest = json!(relay.api.state().await.manifest);
    let model = |round: usize| &rounds[round]["model"];
    assert_eq!(rounds[0]["parent"], Value::Null);
    assert_eq!(&rounds[1]["parent"], model(0));
    assert_eq!(&rounds[2]["parent"], model(1));
    assert_eq!(
        (&rounds[3]["parent"], model(3)),
        (model(1), model(1)),
        "gone back to"
    );
    assert_eq!(&rounds[4]["parent"], model(3));
    // A rollback gives nothing back, and costs nothing.
    for (round, paid) in rounds.iter().zip([0, 1, 2, 2, 3]) {
        let spent = &round["spent"];
        assert!(is_epsilon_of(&spent["epsilon"], paid), "{round}");
        let of = ["mode", "unit", "adjacency", "delta"].map(|field| spent[field].clone());
        let expected = [json!("local"), json!("update"), json!("replace-one"), json!(1e-5)];
        assert_eq!((of, &round["manifest"]), (expected, &manifest));
    }
    // The operator's page shows the same.
    let status = relay.api.http.get(relay.api.url("/v1/admin/status"));
    let status: Value = status
        .bearer_auth(TOKEN)
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    for (shown, told) in status["tasks"][0]["rounds"]
        .as_array()
        .unwrap()
        .iter()
        .zip(&rounds)
    {
        assert_eq!(
            (&shown["epsilon"], &shown["parent"]),
            (&told["spent"]["epsilon"], &told["parent"])
        );
    }
}

#[tokio::test]
async fn what_was_spent_is_told_of_every_mode() {
    let none = TestRelay::start(&[]).await;
    one_round(&none).await;
    let nothing = json!({ "mode": "none", "unit": null, "adjacency": null, "delta": null, "epsilon": null });
    assert!(rounds(&none).await.iter().all(|round| round["spent"] == nothing));
    let terms = [
        "privacy.mode=central",
        "privacy.adjacency=add-remove",
        "privacy.delta=1e-6",
    ];
    let central = TestRelay::start(&terms).await;
    one_round(&central).await;
    let rounds = rounds(&central).await;
    assert_eq!(rounds[0]["spent"]["epsilon"], 0.0);
    let spent = &rounds[1]["spent"];
    assert_eq!(spent["epsilon"], rounds[1]["privacy"]["epsilon"]);
    assert!(spent["epsilon"].as_f64().unwrap() > 0.0);
    let of = ["mode", "unit", "adjacency", "delta"].map(|field| spent[field].clone());
    assert_eq!(
        of,
        [
            json!("central"),
            json!("update"),
            json!("add-remove"),
            json!(1e-6)
        ]
    );
}

/// Takes out of a store what relays did not keep before they kept lineages.
fn age(path: &Path) {
    const ROUNDS: TableDefinition<(&str, u64), &[u8]> = TableDefinition::new("rounds");
    const HEADS: TableDefinition<&str, &[u8]> = TableDefinition::new("heads");
    let without = |bytes: &[u8], fields: &[&str]| {
        let mut json: Value = serde_json::from_slice(bytes).unwrap();
        let all = json.as_object_mut().unwrap();
        let taken = fields.iter().filter_map(|&field| all.remove(field)).count();
        assert_eq!(
            taken,
            fields.len(),
            "the control: there was something to take out"
        );
        serde_json::to_vec(&json).unwrap()
    };
    let write = Database::open(path).unwrap().begin_write().unwrap();
    let mut table = write.open_table(ROUNDS).unwrap();
    for round in 0.. {
        let Some(record) = table.get(("tiny", round)).unwrap().map(|it| it.value().to_vec()) else {
            assert!(round > 0);
            break;
        };
        let aged = without(&record, &["parent", "manifest", "spent"]);
        table.insert(("tiny", round), aged.as_slice()).unwrap();
    }
    drop(table);
    let mut table = write.open_table(HEADS).unwrap();
    let head = table.get("tiny").unwrap().unwrap().value().to_vec();
    table
        .insert("tiny", without(&head, &["spent"]).as_slice())
        .unwrap();
    drop(table);
    write.commit().unwrap();
}

#[tokio::test]
async fn a_store_of_before_lineages_opens_and_its_rounds_are_never_taken_for_cheap() {
    for took_part in [false, true] {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("relay.redb");
        let relay = TestRelay::in_file(&path, &LOCAL).await;
        if took_part {
            one_round(&relay).await;
        }
        let before = rounds(&relay).await;
        relay.stop().await;
        age(&path);
        let relay = TestRelay::in_file(&path, &LOCAL).await;
        let aged = rounds(&relay).await;
        assert_eq!(aged.len(), before.len());
        for (aged, before) in aged.iter().zip(&before) {
            assert_eq!((&aged["parent"], &aged["spent"]), (&Value::Null, &Value::Null));
            assert_eq!(
                (&aged["model"], &aged["clients"]),
                (&before["model"], &before["clients"])
            );
        }
        one_round(&relay).await;
        // And again over a restart: what is not known stays so.
        relay.stop().await;
        let relay = TestRelay::in_file(&path, &LOCAL).await;
        one_round(&relay).await;
        let rounds = rounds(&relay).await;
        let newest = rounds.last().unwrap();
        assert_eq!(newest["parent"], rounds[rounds.len() - 2]["model"]);
        assert_eq!(newest["spent"]["mode"], "local");
        let epsilon = &newest["spent"]["epsilon"];
        match took_part {
            true => assert_eq!(epsilon, &Value::Null, "nobody knows what the round before cost"),
            false => assert!(is_epsilon_of(epsilon, 2), "{epsilon}"),
        }
    }
}

#[tokio::test]
async fn rounds_under_other_terms_are_paid_for_too() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("relay.redb");
    // One round of less noise, then one of more, then one of none, and one of noise after it.
    let terms: [&[&str]; 4] = [
        &LOCAL,
        &["privacy.mode=local", "privacy.noise_multiplier=3"],
        &[],
        &LOCAL,
    ];
    let rho = |multiplier| Rho::local_round(multiplier, Adjacency::ReplaceOne).unwrap();
    let expected = [Some(rho(1.5)), Some(rho(1.5) + rho(3.0)), None, None];
    for (round, (terms, expected)) in terms.into_iter().zip(expected).enumerate() {
        let relay = TestRelay::in_file(&path, terms).await;
        one_round(&relay).await;
        let rounds = rounds(&relay).await;
        let told = rounds[round + 1]["spent"]["epsilon"].as_f64();
        let expected = expected.map(|rho| Cost::from(rho).epsilon(1e-5).unwrap());
        match (told, expected) {
            (Some(told), Some(expected)) => {
                assert!(
                    told <= expected && told > expected * (1.0 - 2e-3),
                    "{told} {expected}"
                );
            }
            other => assert_eq!(other, (None, None), "round {round}"),
        }
        relay.stop().await;
    }
}

#[tokio::test]
async fn updates_of_a_round_whose_terms_change_are_paid_for_by_both() {
    let rho = |multiplier| Rho::local_round(multiplier, Adjacency::ReplaceOne).unwrap();
    let more: &[&str] = &["privacy.mode=local", "privacy.noise_multiplier=3"];
    for (before, expected) in [(&LOCAL[..], Some(rho(1.5) + rho(3.0))), (&[], None)] {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("relay.redb");
        let relay = TestRelay::in_file(&path, before).await;
        relay.api.take_part(1).await;
        relay.stop().await;
        let relay = TestRelay::in_file(&path, more).await;
        // Once more, under the same terms: it is booked once.
        relay.stop().await;
        let relay = TestRelay::in_file(&path, more).await;
        relay.api.take_part(2).await;
        relay.api.take_part(3).await;
        let told = rounds(&relay).await[1]["spent"]["epsilon"].as_f64();
        match (told, expected.map(|rho| Cost::from(rho).epsilon(1e-5).unwrap())) {
            (Some(told), Some(expected)) => {
                let close = told <= expected && told > expected * (1.0 - 2e-3);
                assert!(close, "{told} {expected}");
            }
            other => assert_eq!(other, (None, None), "one of them had no noise"),
        }
    }
}

#[tokio::test]
async fn a_round_that_is_given_up_is_paid_for_where_somebody_was_in_it() {
    let relay = with_operator_of(&LOCAL).await;
    one_round(&relay).await;
    relay.api.take_part(1).await;
    operator(&relay, "pause").await.unwrap();
    for paid in [2, 2] {
        roll_back(&relay, 1).await.unwrap();
        let newest = rounds(&relay).await.pop().unwrap();
        assert_eq!(newest["rolled_back_to"], 1);
        assert!(is_epsilon_of(&newest["spent"]["epsilon"], paid), "{newest}");
    }
}

#[tokio::test]
async fn a_round_whose_commit_fails_or_only_seems_to_is_paid_for_once() {
    let store = FaultyStore::new();
    let relay = TestRelay::over(store.clone(), &LOCAL, RelayOptions::default()).await;
    for (round, fault) in [(1, Fault::BeforePublication), (2, Fault::AfterCommit)] {
        relay.api.take_part(1).await;
        relay.api.take_part(2).await;
        relay.api.check_in(3).await.unwrap();
        let last = relay.api.frame(3).await;
        store.set(fault);
        assert_eq!(relay.api.send(&last).await, Err(ProblemKind::Unavailable));
        store.set(Fault::None);
        relay.api.send(&last).await.unwrap();
        let rounds = rounds(&relay).await;
        assert_eq!(rounds.len(), round + 1, "{fault:?}");
        assert_eq!(rounds[round]["parent"], rounds[round - 1]["model"], "{fault:?}");
        assert!(
            is_epsilon_of(&rounds[round]["spent"]["epsilon"], round as u64),
            "{fault:?}"
        );
    }
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn relays_of_one_database_add_up_what_each_of_them_published() {
    let Some(database) = crate::database::Database::start() else {
        return;
    };
    let relays = [
        crate::postgres::relay(&database, &LOCAL).await,
        crate::postgres::relay(&database, &LOCAL).await,
    ];
    for round in 1..=4 {
        let relay = &relays[round % 2];
        until("the round is open here, too", async || {
            relay.api.state().await.round == round as u64
        })
        .await;
        one_round(relay).await;
    }
    for relay in &relays {
        let rounds = rounds(relay).await;
        assert_eq!(rounds.len(), 5);
        for (round, pair) in (1..).zip(rounds.windows(2)) {
            assert_eq!(pair[1]["parent"], pair[0]["model"], "{round}");
            assert!(is_epsilon_of(&pair[1]["spent"]["epsilon"], round), "{round}");
        }
        let file = relay.api.get("/v1/tasks/tiny/rounds/latest/model").await;
        let told = metadata(&file.bytes().await.unwrap());
        assert_eq!(told["parent"], rounds[4]["parent"].as_str().unwrap());
    }
}

/// What a file says of itself, read by the `safetensors` crate.
fn metadata(file: &[u8]) -> HashMap<String, String> {
    let (_, header) = SafeTensors::read_metadata(file).unwrap();
    header.metadata().clone().unwrap_or_default()
}

#[tokio::test]
async fn a_model_is_taken_away_with_its_lineage_and_its_tensors_bit_for_bit() {
    let relay = with_operator_of(&LOCAL).await;
    let api = &relay.api;
    one_round(&relay).await;
    one_round(&relay).await;
    let rounds = rounds(&relay).await;
    for (round, record) in rounds.iter().enumerate() {
        let answer = api.get(&format!("/v1/tasks/tiny/rounds/{round}/model")).await;
        assert_eq!(answer.status(), 200);
        let headers = answer.headers().clone();
        assert_eq!(headers[header::CONTENT_TYPE], "application/octet-stream");
        let name = format!("attachment; filename=\"tiny-{round}.safetensors\"");
        assert_eq!(headers[header::CONTENT_DISPOSITION], name.as_str());
        assert_eq!(
            headers[header::CACHE_CONTROL],
            "no-cache",
            "figures may come later"
        );
        assert_eq!(headers[header::ACCEPT_RANGES], "none");
        assert_eq!(headers["unsaid-content-hash"], record["model"].as_str().unwrap());
        assert_eq!(headers[header::ACCESS_CONTROL_ALLOW_ORIGIN], "*");
        let file = answer.bytes().await.unwrap();
        assert_eq!(headers[header::CONTENT_LENGTH], file.len().to_string().as_str());
        let path = format!("/v1/tasks/tiny/models/{}", record["model"].as_str().unwrap());
        let canonical = api.get(&path).await.bytes().await.unwrap();
        assert!(
            metadata(&canonical).is_empty(),
            "the file that clients fetch is as it was"
        );
        let (taken, canonical) = (
            SafeTensors::deserialize(&file).unwrap(),
            SafeTensors::deserialize(&canonical).unwrap(),
        );
        assert_eq!((taken.len(), canonical.len()), (2, 2));
        for (name, tensor) in canonical.tensors() {
            let same = taken.tensor(&name).unwrap();
            assert_eq!(
                (same.shape(), same.data()),
                (tensor.shape(), tensor.data()),
                "{name}"
            );
        }
        let told = metadata(&file);
        let text = |value: &Value| match value {
            Value::Null => None,
            Value::String(text) => Some(text.clone()),
            number => Some(number.to_string()),
        };
        for (name, value) in [
            ("model", &record["model"]),
            ("parent", &record["parent"]),
            ("manifest", &record["manifest"]),
            ("round", &record["round"]),
            ("clients", &record["clients"]),
            ("published_at_ms", &record["published_at_ms"]),
            ("privacy_mode", &record["spent"]["mode"]),
            ("privacy_unit", &record["spent"]["unit"]),
            ("adjacency", &record["spent"]["adjacency"]),
            ("accuracy", &Value::Null),
        ] {
            assert_eq!(told.get(name).cloned(), text(value), "{name}");
        }
        let number = |name: &str| told[name].parse::<f64>().unwrap();
        assert_eq!(number("delta"), 1e-5);
        assert_eq!(number("epsilon"), record["spent"]["epsilon"].as_f64().unwrap());
        assert_eq!((told["task"].as_str(), told["title"].as_str()), ("tiny", "Tiny"));
        assert!(told["relay"].starts_with("unsaid-relay "));
        assert!(told["created"].starts_with("20") && told["created"].ends_with('Z'));
    }
    let (latest, second) = (
        "/v1/tasks/tiny/rounds/latest/model",
        "/v1/tasks/tiny/rounds/2/model",
    );
    let latest = api.get(latest).await.bytes().await.unwrap();
    assert_eq!(latest, api.get(second).await.bytes().await.unwrap());
}

#[tokio::test]
async fn a_model_to_take_away_is_sent_once_and_whole() {
    let relay = TestRelay::start(&[]).await;
    one_round(&relay).await;
    let url = relay.api.url("/v1/tasks/tiny/rounds/latest/model");
    let get = || relay.api.http.get(&url);
    let whole = get().send().await.unwrap();
    let etag = whole.headers()[header::ETAG].clone();
    let length = whole.headers()[header::CONTENT_LENGTH].clone();
    let file = whole.bytes().await.unwrap();
    for (tag, expected) in [(etag.to_str().unwrap(), 304), ("*", 304), ("\"other\"", 200)] {
        let answer = get().header(header::IF_NONE_MATCH, tag).send().await.unwrap();
        assert_eq!(
            (answer.status().as_u16(), &answer.headers()[header::ETAG]),
            (expected, &etag)
        );
    }
    let part = get().header(header::RANGE, "bytes=8-15").send().await.unwrap();
    assert_eq!(
        part.status(),
        200,
        "a server may pass over what is asked for in parts"
    );
    assert_eq!(part.bytes().await.unwrap(), file);
    let head = relay.api.http.head(&url).send().await.unwrap();
    assert_eq!(
        (head.status().as_u16(), &head.headers()[header::CONTENT_LENGTH]),
        (200, &length)
    );
    one_round(&relay).await;
    let answer = get().header(header::IF_NONE_MATCH, etag).send().await.unwrap();
    assert_eq!(answer.status(), 200, "another round, another file");
}

#[tokio::test]
async fn what_was_not_published_or_is_forgotten_is_told_so() {
    let folder = TempDir::new().unwrap();
    let store = RedbStore::open(&folder.path().join("relay.redb"))
        .unwrap()
        .keeping(2);
    let options = RelayOptions {
        admin_token: AdminToken::new(TOKEN),
        ..RelayOptions::default()
    };
    let relay = TestRelay::over(Arc::new(store), &[], options).await;
    for _ in 0..4 {
        one_round(&relay).await;
    }
    for (round, said) in [
        ("1", "the model of round 1 is no longer kept"),
        ("5", "this round has not been published"),
        ("18446744073709551616", "a round is a number"),
        ("04", "a round is a number"),
        ("-1", "a round is a number"),
        ("+4", "a round is a number"),
        ("Latest", "a round is a number"),
    ] {
        let path = format!("/v1/tasks/tiny/rounds/{round}/model");
        let answer = relay.api.get(&path).await;
        let problem: Value = answer.json().await.unwrap();
        assert_eq!(
            (&problem["status"], &problem["type"]),
            (&json!(404), &json!(ProblemKind::NotFound.urn()))
        );
        assert!(
            problem["detail"].as_str().unwrap().contains(said),
            "{round}: {problem}"
        );
    }
    for round in ["4", "latest"] {
        let path = format!("/v1/tasks/tiny/rounds/{round}/model");
        assert_eq!(relay.api.get(&path).await.status(), 200, "{round}");
    }
    assert_eq!(
        relay
            .api
            .get("/v1/tasks/other/rounds/latest/model")
            .await
            .status(),
        404
    );
}
