//! What each of several relays adds up for itself, before its turn, and what becomes of it.

use std::{sync::Arc, time::Duration};

use tokio::task::JoinHandle;
use unsaid_protocol::{ProblemKind, UpdateFrame, UpdateReply};
use unsaid_relay::{
    RelayOptions,
    http::admin::AdminToken,
    store::{Ahead, Changes, Lane, Mark, PostgresStore, RedbStore, Store},
};

use crate::{
    database::Database,
    harness::*,
    postgres::{counted, lanes, open, opening, relay, task_id},
    program::*,
    wire::Wire,
};

/// The sum of the open round, whoever counted what.
fn total(lanes: &[(u64, u32, Vec<i64>)]) -> Vec<i64> {
    let width = lanes.first().map_or(0, |(_, _, steps)| steps.len());
    let at = |at: usize| lanes.iter().map(|(_, _, steps)| steps[at]).sum();
    (0..width).map(at).collect()
}

/// The sum of these clients' updates in a task whose rule is the mean.
fn sum_of(clients: &[u8]) -> Vec<i64> {
    let at = |at: usize| {
        clients
            .iter()
            .map(|&client| i64::from(coordinates(client)[at]))
            .sum()
    };
    (0..PARAMETERS).map(at).collect()
}

/// Holds a task's row, so that turns wait.
async fn hold(database: &Database) -> tokio_postgres::Client {
    let holder = database.connect().await;
    let hold = "BEGIN; SELECT 1 FROM unsaid.tasks FOR UPDATE";
    holder.batch_execute(hold).await.unwrap();
    holder
}

/// Until so many turns wait for the task's row.
async fn until_wait(database: &Database, turns: i64) {
    let watcher = database.connect().await;
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%FROM unsaid.tasks%FOR UPDATE'";
    let waiting = async || watcher.query_one(sql, &[]).await.unwrap().get::<_, i64>(0);
    until("turns wait", async || waiting().await >= turns).await;
}

fn sent(api: &Api, frame: &UpdateFrame) -> JoinHandle<Result<UpdateReply, ProblemKind>> {
    let (api, frame) = (api.clone(), frame.clone());
    tokio::spawn(async move { api.send(&frame).await })
}

const SIX: [&str; 2] = ["rounds.min_clients=6", "rounds.target_clients=6"];

/// Whatever is summed: what three relays have in their lanes is what one has in its sum, and the models are the same bits.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_lanes_of_three_relays_are_one_relays_sum_for_every_rule_that_sums() {
    let Some(database) = Database::start() else { return };
    let central = [
        "privacy.mode=central",
        "privacy.adjacency=add-remove",
        "privacy.delta=1e-5",
        "privacy.adaptive_clip.initial_l2=0.1",
        "privacy.adaptive_clip.count_noise=2",
    ];
    let rules: [&[&str]; 7] = [
        &[
            "strategy.server.type=fed-adam",
            "strategy.server.learning_rate=0.1",
        ],
        &[
            "strategy.aggregation.type=weighted-mean",
            "strategy.aggregation.max_weight=10",
        ],
        &[
            "strategy.aggregation.type=norm-bounding",
            "strategy.aggregation.bound_l2=0.2",
        ],
        &[
            "strategy.aggregation.type=fed-buff",
            "strategy.aggregation.max_staleness=2",
        ],
        &[
            "strategy.aggregation.type=scaffold",
            "strategy.aggregation.population=10",
            "training.steps_per_epoch=5",
        ],
        &central[..3],
        &central,
    ];
    for rule in rules {
        let overrides = [&SIX[..], rule].concat();
        let watcher = database.connect().await;
        watcher
            .batch_execute("DROP SCHEMA IF EXISTS unsaid CASCADE")
            .await
            .unwrap();
        let mut relays = Vec::new();
        for _ in 0..3 {
            relays.push(relay(&database, &overrides).await);
        }
        let folder = tempfile::TempDir::new().unwrap();
        let file = Arc::new(RedbStore::open(&folder.path().join("relay.redb")).unwrap());
        let alone = TestRelay::over(file.clone(), &overrides, RelayOptions::default()).await;
        let weighs = rule.iter().any(|it| it.contains("weighted"));
        for round in 1..=3 {
            let take_part = async |relay: &TestRelay, client: u8| {
                relay.api.check_in(client).await.unwrap();
                let mut frame = relay.api.frame(client).await;
                if weighs {
                    frame.coordinates.push(i32::from(client));
                }
                assert_eq!(relay.api.send(&frame).await, Ok(accepted(&frame)), "{rule:?}");
            };
            for client in 1..=5 {
                let relay = &relays[usize::from(client) % 3];
                until("it follows", async || relay.api.state().await.round == round).await;
                take_part(relay, client).await;
                take_part(&alone, client).await;
            }
            let store = open(database.address(), None).await.unwrap();
            let apart = lanes(&store, 0);
            let counts: Vec<u32> = apart.iter().map(|(_, updates, _)| *updates).collect();
            assert_eq!(
                (counts.len(), counts.iter().sum::<u32>()),
                (3, 5),
                "{rule:?}: {counts:?}"
            );
            let saved = file.load(&task_id()).unwrap().unwrap();
            // From its second round on the norm that adapts has noise of its own, here and there.
            if round == 1 || rule.len() < central.len() {
                assert_eq!(Some(total(&apart)), saved.sum, "{rule:?}, round {round}");
            }
            let closes = &relays[round as usize % 3];
            take_part(closes, 6).await;
            take_part(&alone, 6).await;
            assert_eq!(closes.api.rounds().await[round as usize].clients, 6);
            if !rule.contains(&central[0]) {
                let (one, other) = (closes.api.state().await, alone.api.state().await);
                assert_eq!((one.round, one.model), (round + 1, other.model), "{rule:?}");
            }
            assert_eq!(lanes(&store, 0), [], "what has closed is gone");
        }
    }
}

/// Nobody takes over what a relay that is gone has added up, and it counts all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_that_is_killed_leaves_its_lane_counted() {
    let Some(database) = Database::start() else { return };
    let folder = folder_with_task();
    let address = database.address();
    let start = || {
        let six = ["--set", SIX[0], "--set", SIX[1]];
        Program::start(folder.path(), &[&["--database", &address], &six[..]].concat())
    };
    let (mut one, two) = (start(), start());
    let before = two.api().model(two.api().state().await.model).await;
    one.api().take_part(1).await;
    one.api().take_part(2).await;
    two.api().take_part(3).await;
    one.child.kill().unwrap();
    one = start();
    one.api().take_part(4).await;
    let store = open(address.clone(), None).await.unwrap();
    let apart = lanes(&store, 0);
    let mut counts: Vec<u32> = apart.iter().map(|(_, updates, _)| *updates).collect();
    counts.sort_unstable();
    assert_eq!((counts, total(&apart)), (vec![1, 1, 2], sum_of(&[1, 2, 3, 4])));
    one.child.kill().unwrap();
    two.api().take_part(5).await;
    two.api().take_part(6).await;
    let rounds = two.api().rounds().await;
    let expected = expected_model(&before, &[1, 2, 3, 4, 5, 6]);
    assert_eq!((rounds[1].clients, rounds[1].model), (6, expected));
    assert_eq!(lanes(&store, 0), []);
}

/// Where it is not known whether a commit was made, the lane is left as it is, and another is begun.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_of_unknown_outcome_ends_a_lane_and_what_is_in_it_counts_once() {
    let Some(database) = Database::start() else { return };
    let wire = Wire::to(database.socket());
    let through = open(wire.address(), None).await.unwrap();
    let one = TestRelay::over(through, &SIX, RelayOptions::default()).await;
    let store = open(database.address(), None).await.unwrap();
    let before = one.api.model(one.api.state().await.model).await;
    let counts = || {
        let mut counts: Vec<u32> = lanes(&store, 0).iter().map(|(_, updates, _)| *updates).collect();
        counts.sort_unstable();
        counts
    };
    one.api.take_part(1).await;
    assert_eq!(counts(), [1]);
    // It is made, and nobody is told.
    one.api.check_in(2).await.unwrap();
    let second = one.api.frame(2).await;
    wire.lose_a_commits_answer();
    assert_eq!(one.api.send(&second).await, Err(ProblemKind::Unavailable));
    assert_eq!(counts(), [2], "it was made");
    assert_eq!(one.api.send(&second).await, Ok(duplicate(&second)));
    // It is not made: the turn is taken away while it is waited for, with the lane written.
    one.api.check_in(3).await.unwrap();
    let third = one.api.frame(3).await;
    let holder = hold(&database).await;
    let sending = sent(&one.api, &third);
    until_wait(&database, 1).await;
    let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event_type = 'Lock'";
    holder.query(end, &[]).await.unwrap();
    assert_eq!(sending.await.unwrap(), Err(ProblemKind::Unavailable));
    holder.batch_execute("COMMIT").await.unwrap();
    assert_eq!(counts(), [2], "it was not made");
    assert_eq!(one.api.send(&third).await, Ok(accepted(&third)));
    assert_eq!(counts(), [1, 2]);
    assert_eq!(total(&lanes(&store, 0)), sum_of(&[1, 2, 3]));
    for client in 4..=6 {
        one.api.take_part(client).await;
    }
    let expected = expected_model(&before, &[1, 2, 3, 4, 5, 6]);
    assert_eq!(one.api.rounds().await[1].model, expected);
}

/// Two relays add up the same update, and one of them counts it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_update_that_two_relays_have_added_up_ahead_is_in_one_lane() {
    let Some(database) = Database::start() else { return };
    let (one, two) = (relay(&database, &SIX).await, relay(&database, &SIX).await);
    let store = open(database.address(), None).await.unwrap();
    let before = one.api.model(one.api.state().await.model).await;
    for client in 1..=5 {
        one.api.check_in(client).await.unwrap();
    }
    two.api.take_part(6).await; // knows of the check-ins from here on
    let (third, fourth, fifth) = (
        one.api.frame(3).await,
        one.api.frame(4).await,
        one.api.frame(5).await,
    );
    let other_bytes = UpdateFrame {
        coordinates: coordinates(9),
        ..fifth.clone()
    };
    let holder = hold(&database).await;
    let ones = [&third, &fifth].map(|frame| sent(&one.api, frame));
    let twos = [&third, &fourth, &other_bytes].map(|frame| sent(&two.api, frame));
    until_wait(&database, 2).await;
    holder.batch_execute("COMMIT").await.unwrap();
    let mut answers = Vec::new();
    for sending in ones.into_iter().chain(twos) {
        answers.push(sending.await.unwrap());
    }
    let new = |answer: &Result<UpdateReply, _>| answer.as_ref().is_ok_and(|reply| !reply.duplicate);
    assert!(new(&answers[0]) ^ new(&answers[2]), "{answers:?}");
    assert!(answers[0].is_ok() && answers[2].is_ok(), "{answers:?}");
    assert!(new(&answers[3]), "{answers:?}");
    assert!(new(&answers[1]) ^ new(&answers[4]), "{answers:?}");
    let last = if new(&answers[1]) { 5 } else { 9 };
    let refused = if last == 5 { &answers[4] } else { &answers[1] };
    assert_eq!(*refused, Err(ProblemKind::UpdateConflict));
    assert_eq!(total(&lanes(&store, 0)), sum_of(&[3, 4, last, 6]));
    one.api.take_part(1).await;
    two.api.take_part(2).await;
    let expected = expected_model(&before, &[1, 2, 3, 4, last, 6]);
    assert_eq!(one.api.rounds().await[1].model, expected);
}

/// The turn that is waited for is the one that closes the round: it reads what others committed meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_that_added_up_ahead_may_find_that_it_closes_the_round() {
    let Some(database) = Database::start() else { return };
    let (one, two) = (relay(&database, &SIX).await, relay(&database, &SIX).await);
    let before = one.api.model(one.api.state().await.model).await;
    for client in 1..=3 {
        one.api.take_part(client).await;
    }
    let mut last = Vec::new();
    for (client, relay) in [(4, &one), (5, &two), (6, &two)] {
        relay.api.check_in(client).await.unwrap();
        last.push(relay.api.frame(client).await);
    }
    until("it follows", async || one.api.state().await.checked_in == 6).await;
    let holder = hold(&database).await;
    let fourth = sent(&one.api, &last[0]);
    until_wait(&database, 1).await;
    let fifth = sent(&two.api, &last[1]);
    until_wait(&database, 2).await;
    let sixth = sent(&two.api, &last[2]);
    holder.batch_execute("COMMIT").await.unwrap();
    for (sending, frame) in [fourth, fifth, sixth].into_iter().zip(&last) {
        assert_eq!(sending.await.unwrap(), Ok(accepted(frame)));
    }
    let rounds = two.api.rounds().await;
    let expected = expected_model(&before, &[1, 2, 3, 4, 5, 6]);
    assert_eq!((rounds[1].clients, rounds[1].model), (6, expected));
}

/// What is added up for a round that closes while its turn is waited for is in no sum, and is gone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_added_up_ahead_for_a_round_that_closes_meanwhile_counts_nowhere() {
    let Some(database) = Database::start() else { return };
    let token = "operator-0123456789";
    let start = async || {
        let store = open(database.address(), None).await.unwrap();
        let options = RelayOptions {
            admin_token: AdminToken::new(token),
            ..RelayOptions::default()
        };
        TestRelay::over(store, &SIX, options).await
    };
    let (one, two) = (start().await, start().await);
    let store = open(database.address(), None).await.unwrap();
    let before = one.api.model(one.api.state().await.model).await;
    one.api.take_part(1).await;
    two.api.take_part(2).await;
    two.api.check_in(3).await.unwrap();
    let third = two.api.frame(3).await;
    let operate = async |what: &str, body: serde_json::Value| {
        let request = one
            .api
            .http
            .post(one.api.url(&format!("/v1/admin/tasks/tiny/{what}")));
        request
            .bearer_auth(token)
            .json(&body)
            .send()
            .await
            .unwrap()
            .status()
    };
    assert_eq!(operate("pause", serde_json::json!({})).await, 200);
    let holder = hold(&database).await;
    let (closed, refused) = tokio::join!(operate("rollback", serde_json::json!({ "round": 0 })), async {
        until_wait(&database, 1).await;
        let sending = sent(&two.api, &third);
        until_wait(&database, 2).await;
        holder.batch_execute("COMMIT").await.unwrap();
        sending.await.unwrap()
    });
    assert_eq!((closed.as_u16(), refused), (200, Err(ProblemKind::RoundClosed)));
    let rows = holder.query("SELECT 1 FROM unsaid.lanes", &[]).await.unwrap();
    assert_eq!(
        rows.len(),
        0,
        "neither what was written nor what it was written over"
    );
    assert_eq!(operate("resume", serde_json::json!({})).await, 200);
    until("it follows", async || two.api.state().await.round == 2).await;
    for (client, relay) in (1..=6).zip([&one, &two].into_iter().cycle()) {
        relay.api.take_part(client).await;
    }
    assert_eq!(lanes(&store, 0), []);
    let rounds = one.api.rounds().await;
    let expected = expected_model(&before, &[1, 2, 3, 4, 5, 6]);
    assert_eq!(
        (rounds[1].clients, rounds[2].clients, rounds[2].model),
        (0, 6, expected)
    );
}

/// Whoever closes a round waits for none that only waits for its end, and a lane that is just being written is in no closed round.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_round_closes_while_another_relay_writes_its_lane() {
    for commits in [false, true] {
        let Some(database) = Database::start() else { return };
        let (one, two) = (
            open(database.address(), None).await.unwrap(),
            open(database.address(), None).await.unwrap(),
        );
        let task = task_id();
        let first = Changes {
            sum: Some(vec![7]),
            lane: Some(Lane { id: 1, updates: 1 }),
            counted: vec![counted(1, 1)],
            ..opening(1)
        };
        one.commit(&task, &first).unwrap();
        let stage = two.turn(&task).unwrap().stage();
        let closing = two.turn(&task).unwrap();
        let late = tokio::task::spawn_blocking({
            let one: Arc<PostgresStore> = one.clone();
            move || {
                let task = task_id();
                let ahead = Ahead {
                    round: 1,
                    lane: Lane { id: 1, updates: 2 },
                    steps: &[9],
                };
                let mut turn = one.turn_after(&task, ahead).unwrap();
                assert!(turn.is_ahead());
                let news = turn.news(Mark { stage, round: 1 }).unwrap().expect("it follows");
                assert_eq!(news.saved.head.round, 2);
                if commits {
                    let next = Changes {
                        check_ins: vec![(2, client_id(1))],
                        stands: true, // not of this round
                        ..Changes::default()
                    };
                    turn.commit(&next).unwrap();
                }
            }
        });
        until_wait(&database, 1).await;
        let mut closing = closing;
        let mut read = Vec::new();
        closing
            .other_lanes(2, &mut |lane, steps| read.push((lane.id, lane.updates, steps)))
            .unwrap();
        assert_eq!(read, [(1, 1, vec![7])], "what was committed");
        let begun = std::time::Instant::now();
        closing.commit(&opening(2)).unwrap();
        assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
        late.await.unwrap();
        let watcher = database.connect().await;
        let rows = watcher.query("SELECT 1 FROM unsaid.lanes", &[]).await.unwrap();
        assert_eq!(rows.len(), 0, "commits: {commits}");
    }
}

/// As a relay of the layout before leaves it: one sum, whole.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_sum_of_the_layout_before_becomes_a_lane_and_its_relays_count_no_more() {
    let Some(database) = Database::start() else { return };
    let one = relay(&database, &[]).await;
    let before = one.api.model(one.api.state().await.model).await;
    one.api.take_part(1).await;
    one.api.take_part(2).await;
    one.stop().await;
    let sum: Vec<u8> = sum_of(&[1, 2]).into_iter().flat_map(i64::to_le_bytes).collect();
    let client = database.connect().await;
    let back = "DROP TABLE unsaid.lanes; UPDATE unsaid.meta SET layout = 3; \
                CREATE TABLE unsaid.sums (task text PRIMARY KEY, steps bytea NOT NULL)";
    client.batch_execute(back).await.unwrap();
    let sql = "INSERT INTO unsaid.sums (task, steps) VALUES ('tiny', $1)";
    client.execute(sql, &[&sum]).await.unwrap();
    let two = relay(&database, &[]).await;
    let store = open(database.address(), None).await.unwrap();
    assert_eq!(lanes(&store, u64::MAX), [(0, 2, sum_of(&[1, 2]))]);
    two.api.take_part(3).await;
    assert_eq!(
        two.api.rounds().await[1].model,
        expected_model(&before, &[1, 2, 3])
    );
    let gone = client.query("SELECT steps FROM unsaid.sums", &[]).await;
    assert!(gone.is_err(), "what such a relay does in its turns");
    let layout: i64 = client
        .query_one("SELECT layout FROM unsaid.meta", &[])
        .await
        .unwrap()
        .get(0);
    assert_eq!(layout, 4);
}

/// A lane that is missing, or one too many, and the round does not close: no model is made of a sum that is none.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_round_does_not_close_with_other_sums_than_its_updates() {
    let Some(database) = Database::start() else { return };
    let (one, two) = (relay(&database, &[]).await, relay(&database, &[]).await);
    let before = one.api.model(one.api.state().await.model).await;
    one.api.take_part(1).await;
    two.api.take_part(2).await;
    two.api.check_in(3).await.unwrap();
    let third = two.api.frame(3).await;
    let client = database.connect().await;
    let spoil = [
        "UPDATE unsaid.lanes SET updates = updates + 1",
        "UPDATE unsaid.lanes SET steps = '\\x0400000000'",
        "INSERT INTO unsaid.lanes SELECT task, round, 5, updates, steps FROM unsaid.lanes LIMIT 1",
        "DELETE FROM unsaid.lanes",
    ];
    client
        .batch_execute("CREATE TABLE kept AS TABLE unsaid.lanes")
        .await
        .unwrap();
    for spoil in spoil {
        client.batch_execute(spoil).await.unwrap();
        assert_eq!(
            two.api.send(&third).await,
            Err(ProblemKind::Unavailable),
            "{spoil}"
        );
        assert_eq!(two.api.rounds().await.len(), 1);
        client
            .batch_execute("TRUNCATE unsaid.lanes; INSERT INTO unsaid.lanes TABLE kept")
            .await
            .unwrap();
    }
    assert_eq!(two.api.send(&third).await, Ok(accepted(&third)));
    assert_eq!(
        two.api.rounds().await[1].model,
        expected_model(&before, &[1, 2, 3])
    );
}
