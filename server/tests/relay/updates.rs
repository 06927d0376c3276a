//! Every way in which an update is taken or refused.

use unsaid_protocol::{CheckInReply, ContentHash, Problem, ProblemKind, UpdateFrame, UpdateId};

use crate::harness::*;

#[tokio::test]
async fn a_round_publishes_the_exact_average_of_its_updates() {
    let relay = TestRelay::start(&[]).await;
    let before = relay.api.model(relay.api.state().await.model).await;
    for client in [3, 1, 2] {
        relay.api.take_part(client).await;
    }
    let state = relay.api.state().await;
    assert_eq!((state.round, state.received, state.checked_in), (2, 0, 0));
    assert_eq!(state.model, expected_model(&before, &[1, 2, 3]));
    let rounds = relay.api.rounds().await;
    assert_eq!(rounds.len(), 2);
    assert_eq!(
        (rounds[1].round, rounds[1].clients, rounds[1].checked_in),
        (1, 3, 3)
    );
    assert_eq!(rounds[1].model, state.model);
    assert_eq!(
        rounds[1].bytes_up,
        3 * (UpdateFrame::HEADER_LEN + PARAMETERS) as u64
    );
    assert_eq!(ContentHash::of(&relay.api.model(state.model).await), state.model);
}

#[tokio::test]
async fn duplicate_update_is_counted_once_even_after_its_round_closed() {
    let relay = TestRelay::start(&[]).await;
    let first = relay.api.take_part(1).await;
    assert_eq!(relay.api.send(&first).await, Ok(duplicate(&first)));
    assert_eq!(relay.api.state().await.received, 1);
    relay.api.take_part(2).await;
    relay.api.take_part(3).await;
    assert_eq!(relay.api.state().await.round, 2);
    assert_eq!(relay.api.send(&first).await, Ok(duplicate(&first)));
    assert_eq!(relay.api.rounds().await[1].clients, 3);
}

#[tokio::test]
async fn each_refusal_has_its_kind() {
    let relay = TestRelay::start(&[]).await;
    let api = &relay.api;
    let first = api.take_part(1).await;
    api.check_in(2).await.unwrap();
    let good = api.frame(2).await;
    let other = ContentHash::of(b"other");
    let changed = |change: fn(&mut UpdateFrame)| {
        let mut frame = good.clone();
        change(&mut frame);
        frame
    };
    let conflict = UpdateFrame {
        coordinates: vec![1; PARAMETERS],
        ..first.clone()
    };
    let cases = [
        (conflict, ProblemKind::UpdateConflict),
        (
            UpdateFrame {
                manifest: other,
                ..good.clone()
            },
            ProblemKind::WrongManifest,
        ),
        (
            UpdateFrame {
                model: other,
                ..good.clone()
            },
            ProblemKind::WrongModel,
        ),
        (changed(|frame| frame.round = 0), ProblemKind::WrongRound),
        (changed(|frame| frame.round = 2), ProblemKind::WrongRound),
        (changed(|frame| frame.round = u64::MAX), ProblemKind::WrongRound),
        (frame(&api.state().await, 9), ProblemKind::NotCheckedIn),
        (
            UpdateFrame {
                update: UpdateId::from_bytes([9; 16]),
                ..first.clone()
            },
            ProblemKind::AlreadyReported,
        ),
        (
            changed(|frame| frame.coordinates.truncate(7)),
            ProblemKind::Unacceptable,
        ),
        (
            changed(|frame| frame.coordinates.push(0)),
            ProblemKind::Unacceptable,
        ),
        (
            changed(|frame| frame.coordinates[0] = 2_000),
            ProblemKind::Unacceptable,
        ),
        (
            changed(|frame| frame.coordinates = vec![i32::MIN; PARAMETERS]),
            ProblemKind::Unacceptable,
        ),
    ];
    for (frame, expected) in cases {
        assert_eq!(api.send(&frame).await, Err(expected), "{frame:?}");
    }
    assert_eq!(api.state().await.received, 1, "nothing of that was counted");
    assert_eq!(
        api.send(&good).await,
        Ok(accepted(&good)),
        "and none of it stands in the way"
    );

    // Checks come in an order: what is known first, then the terms, the round, the model, the client, the vector.
    let all_wrong = |frame: UpdateFrame| UpdateFrame {
        coordinates: vec![],
        ..frame
    };
    let frame = UpdateFrame {
        manifest: other,
        round: 9,
        model: other,
        ..all_wrong(good.clone())
    };
    assert_eq!(api.send(&frame).await, Err(ProblemKind::UpdateConflict));
    let frame = UpdateFrame {
        update: UpdateId::from_bytes([8; 16]),
        ..frame
    };
    assert_eq!(api.send(&frame).await, Err(ProblemKind::WrongManifest));
    let frame = UpdateFrame {
        manifest: good.manifest,
        ..frame
    };
    assert_eq!(api.send(&frame).await, Err(ProblemKind::WrongRound));
    let frame = UpdateFrame {
        round: 1,
        client: client_id(7),
        ..frame
    };
    assert_eq!(api.send(&frame).await, Err(ProblemKind::WrongModel));
    let frame = UpdateFrame {
        model: good.model,
        ..frame
    };
    assert_eq!(api.send(&frame).await, Err(ProblemKind::NotCheckedIn));
}

#[tokio::test]
async fn a_late_update_is_told_so() {
    let relay = TestRelay::start(&[]).await;
    relay.api.check_in(9).await.unwrap();
    let late = relay.api.frame(9).await;
    for client in 1..=3 {
        relay.api.take_part(client).await;
    }
    assert_eq!(relay.api.send(&late).await, Err(ProblemKind::RoundClosed));
    assert_eq!(relay.api.state().await.received, 0);
}

#[tokio::test]
async fn malformed_bodies_are_refused_and_counted_nowhere() {
    let relay = TestRelay::start(&[]).await;
    relay.api.check_in(1).await.unwrap();
    let good = relay.api.frame(1).await.encode();
    let mut version = good.clone();
    version[4] = 2;
    let mut magic = good.clone();
    magic[0] = b'X';
    let float_nan = [&good[..UpdateFrame::HEADER_LEN], &f32::NAN.to_le_bytes()].concat();
    let cases = [
        (vec![], ProblemKind::Malformed),
        (b"{}".to_vec(), ProblemKind::Malformed),
        (magic, ProblemKind::Malformed),
        (version, ProblemKind::Version),
        ([&good[..], &[0]].concat(), ProblemKind::Malformed),
        (good[..good.len() - 1].to_vec(), ProblemKind::Malformed),
        (float_nan, ProblemKind::Malformed),
        (
            vec![0; UpdateFrame::max_len(PARAMETERS) + 1],
            ProblemKind::TooLarge,
        ),
    ];
    for (body, expected) in cases {
        assert_eq!(
            relay.api.try_send(body.clone()).await.unwrap(),
            Err(expected),
            "{body:?}"
        );
    }
    for length in 0..good.len() {
        let cut = relay.api.try_send(good[..length].to_vec()).await.unwrap();
        assert_eq!(cut, Err(ProblemKind::Malformed), "{length}");
    }
    assert_eq!(relay.api.state().await.received, 0);
}

#[tokio::test]
async fn a_body_of_unannounced_length_is_bounded_too() {
    let relay = TestRelay::start(&[]).await;
    let parts = futures_util::stream::iter((0..64).map(|_| Ok::<_, std::io::Error>(vec![0u8; 64])));
    let request = relay.api.update_request(reqwest::Body::wrap_stream(parts));
    let refused = answer::<serde_json::Value>(request.send().await.unwrap())
        .await
        .unwrap();
    assert_eq!(refused, Err(ProblemKind::TooLarge));
}

#[tokio::test]
async fn an_update_needs_its_content_type() {
    let relay = TestRelay::start(&[]).await;
    relay.api.check_in(1).await.unwrap();
    let frame = relay.api.frame(1).await;
    let url = relay.api.url("/v1/tasks/tiny/updates");
    for content_type in [None, Some("application/octet-stream"), Some("application/json")] {
        let mut request = relay.api.http.post(&url).body(frame.encode());
        if let Some(content_type) = content_type {
            request = request.header("content-type", content_type);
        }
        let refused = answer::<serde_json::Value>(request.send().await.unwrap())
            .await
            .unwrap();
        assert_eq!(refused, Err(ProblemKind::ContentType), "{content_type:?}");
    }
    // Too large is said first: nobody has to send megabytes to learn of a wrong header.
    let request = relay.api.http.post(&url).body(vec![0; 100_000]);
    let refused = answer::<serde_json::Value>(request.send().await.unwrap())
        .await
        .unwrap();
    assert_eq!(refused, Err(ProblemKind::TooLarge));
}

#[tokio::test]
async fn with_noise_the_norm_is_not_checked() {
    let relay = TestRelay::start(&["privacy.mode=local", "privacy.noise_multiplier=1.0"]).await;
    relay.api.check_in(1).await.unwrap();
    let frame = UpdateFrame {
        coordinates: vec![i32::MAX; PARAMETERS],
        ..relay.api.frame(1).await
    };
    assert_eq!(relay.api.send(&frame).await, Ok(accepted(&frame)));
}

#[tokio::test]
async fn check_ins_are_read_strictly() {
    let relay = TestRelay::start(&[]).await;
    let url = relay.api.url("/v1/tasks/tiny/check-in");
    let manifest = relay.api.state().await.manifest;
    let client = client_id(1);
    let good = serde_json::json!({ "client": client, "manifest": manifest }).to_string();
    for (body, expected) in [
        (String::new(), ProblemKind::Malformed),
        ("{".into(), ProblemKind::Malformed),
        ("[]".into(), ProblemKind::Malformed),
        (good.replace("client", "clint"), ProblemKind::Malformed),
        (good.replace('}', ",\"more\":1}"), ProblemKind::Malformed),
        (format!("{good} x"), ProblemKind::Malformed),
        (good.replace(&manifest.to_string(), "00"), ProblemKind::Malformed),
        (
            good.replace(&manifest.to_string(), &ContentHash::of(b"x").to_string()),
            ProblemKind::WrongManifest,
        ),
        (" ".repeat(5_000), ProblemKind::TooLarge),
    ] {
        let request = relay
            .api
            .http
            .post(&url)
            .header("content-type", "application/json")
            .body(body.clone());
        let refused = answer::<serde_json::Value>(request.send().await.unwrap())
            .await
            .unwrap();
        assert_eq!(refused, Err(expected), "{body}");
    }
    assert_eq!(relay.api.state().await.checked_in, 0);
    assert!(matches!(
        relay.api.check_in(1).await,
        Ok(CheckInReply::Train { round: 1, .. })
    ));
}

#[tokio::test]
async fn paths_and_methods_that_do_not_exist_are_problems_too() {
    let relay = TestRelay::start(&[]).await;
    let none = format!("/v1/tasks/tiny/models/{}", ContentHash::of(b"none"));
    for path in [
        "/",
        "/v2",
        "/v1",
        "/v1/",
        "/v1/tasks/none/round",
        "/v1/tasks/..%2f/round",
        "/v1/tasks/%ff/round",
        "/v1/tasks/tiny/models/xyz",
        "/data/iid/000.shard",
        &none,
    ] {
        let refused = answer::<serde_json::Value>(relay.api.get(path).await)
            .await
            .unwrap();
        let expected = if path.contains("%ff") {
            ProblemKind::Malformed
        } else {
            ProblemKind::NotFound
        };
        assert_eq!(refused, Err(expected), "{path}");
    }
    let url = relay.api.url("/v1/tasks/tiny/updates");
    let response = relay.api.http.put(&url).send().await.unwrap();
    assert_eq!(response.headers()["allow"], "POST");
    assert_eq!(
        answer::<serde_json::Value>(response).await.unwrap(),
        Err(ProblemKind::MethodNotAllowed)
    );
    let round = relay.api.url("/v1/tasks/tiny/round");
    let asked = async |request: reqwest::RequestBuilder| request.send().await.unwrap().status();
    assert_eq!(asked(relay.api.http.head(&round)).await, 200);
    let options = reqwest::Method::OPTIONS;
    for (path, expected) in [
        ("/v1/tasks/tiny/round", 200),
        ("/v1/nothing", 200),
        ("/healthz", 405),
    ] {
        let request = relay.api.http.request(options.clone(), relay.api.url(path));
        assert_eq!(asked(request).await, expected, "{path}");
    }
    let problem: Problem = relay.api.get("/v1/nothing").await.json().await.unwrap();
    assert_eq!(problem.detail, "there is nothing at /v1/nothing");
}
