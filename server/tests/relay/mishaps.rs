//! What may happen to a database that relays share, and on the way to it.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use unsaid_protocol::{CheckInReply, ProblemKind};
use unsaid_relay::{
    Relay, RelayOptions,
    clock::{Clock, SystemClock},
    store::{Changes, Lane, PostgresStore, Store},
};

use crate::{
    database::Database,
    harness::*,
    postgres::{counted, head, open, opening, relay, task_id},
    wire::Wire,
};

async fn relay_at(address: String) -> TestRelay {
    let store = open(address, None).await.unwrap();
    TestRelay::over(store, &[], RelayOptions::default()).await
}

#[tokio::test]
async fn a_commit_whose_answer_is_lost_counts_once() {
    let Some(database) = Database::start() else { return };
    let wire = Wire::to(database.socket());
    let (one, two) = (relay_at(wire.address()).await, relay(&database, &[]).await);
    let before = one.api.model(one.api.state().await.model).await;
    for (client, other) in [(1, &one), (2, &two), (3, &one)] {
        one.api.check_in(client).await.unwrap();
        let frame = one.api.frame(client).await;
        wire.lose_a_commits_answer();
        assert_eq!(
            one.api.send(&frame).await,
            Err(ProblemKind::Unavailable),
            "it cannot know"
        );
        assert_eq!(wire.lost(), u32::from(client));
        let again = other.api.send(&frame).await;
        assert_eq!(again, Ok(duplicate(&frame)), "it was counted");
    }
    let rounds = two.api.rounds().await;
    assert_eq!(rounds[1].model, expected_model(&before, &[1, 2, 3]));
    until("readers of the first one follow", async || {
        one.api.state().await.round == 2
    })
    .await;
}

/// Tables that a backup has.
const TABLES: [&str; 8] = [
    "tasks",
    "commits",
    "lanes",
    "updates",
    "check_ins",
    "counted",
    "models",
    "rounds",
];

async fn back_up(database: &Database) {
    let mut sql = "CREATE SCHEMA backup;".to_owned();
    for table in TABLES {
        sql += &format!("CREATE TABLE backup.{table} AS TABLE unsaid.{table};");
    }
    database.connect().await.batch_execute(&sql).await.unwrap();
}

async fn put_back(database: &Database) {
    let mut sql = "BEGIN;".to_owned();
    for table in TABLES {
        sql += &format!("TRUNCATE unsaid.{table}; INSERT INTO unsaid.{table} TABLE backup.{table};");
    }
    database
        .connect()
        .await
        .batch_execute(&(sql + "COMMIT"))
        .await
        .unwrap();
}

/// What the relay remembers is of a past that is none any more, whether the database stands at an earlier version than it saw last,
/// at another commit of that version, or at a later one.
#[tokio::test]
async fn a_database_that_was_put_back_is_read_again() {
    for commits in 0..=2 {
        let Some(database) = Database::start() else { return };
        let one = relay(&database, &[]).await;
        let before = one.api.model(one.api.state().await.model).await;
        one.api.take_part(1).await;
        one.api.check_in(2).await.unwrap();
        let second = one.api.frame(2).await;
        back_up(&database).await;
        assert_eq!(one.api.send(&second).await, Ok(accepted(&second)));
        put_back(&database).await;
        let two = relay(&database, &[]).await;
        if commits > 0 {
            two.api.check_in(4).await.unwrap();
        }
        let fourth = two.api.frame(4).await;
        if commits > 1 {
            assert_eq!(two.api.send(&fourth).await, Ok(accepted(&fourth)));
        }
        let again = one.api.send(&second).await;
        assert_eq!(
            again,
            Ok(accepted(&second)),
            "{commits}: it is not counted any more"
        );
        if commits == 0 {
            two.api.check_in(4).await.unwrap();
        }
        if commits < 2 {
            assert_eq!(one.api.send(&fourth).await, Ok(accepted(&fourth)), "{commits}");
        }
        let rounds = one.api.rounds().await;
        let expected = expected_model(&before, &[1, 2, 4]);
        assert_eq!((rounds[1].clients, rounds[1].model), (3, expected), "{commits}");
    }
}

#[tokio::test]
async fn readers_are_told_of_a_round_that_was_put_back() {
    let Some(database) = Database::start() else { return };
    let one = relay(&database, &[]).await;
    one.api.take_part(1).await;
    back_up(&database).await;
    one.api.take_part(2).await;
    one.api.take_part(3).await;
    assert_eq!(one.api.state().await.round, 2);
    put_back(&database).await;
    one.api.check_in(4).await.unwrap();
    let state = one.api.state().await;
    assert_eq!((state.round, state.received, state.checked_in), (1, 1, 2));
    let newest = one.relay.handles()[0].outlook.snapshot.borrow().newest.round;
    assert_eq!(newest, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_turn_lasts_as_long_as_its_relay_says_something() {
    let Some(database) = Database::start() else { return };
    let wire = Wire::to(database.socket());
    let store = open(wire.address(), None).await.unwrap();
    let task = task_id();
    store.commit(&task, &opening(1)).unwrap();
    let turn = store.turn(&task).unwrap();
    tokio::time::sleep(Duration::from_secs(22)).await; // the database waits 20 s for one that says nothing
    turn.commit(&opening(2)).unwrap();
    let turn = store.turn(&task).unwrap();
    wire.freeze();
    let other = open(database.address(), None).await.unwrap();
    let waited = has_its_turn(&other).await;
    assert!(waited < Duration::from_secs(35), "{waited:?}");
    wire.thaw();
    turn.commit(&opening(3)).unwrap_err();
    assert_eq!(other.load(&task).unwrap().unwrap().head.round, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_that_freezes_in_the_middle_of_a_message_loses_its_turn() {
    let Some(database) = Database::start() else { return };
    let wire = Wire::to(database.socket());
    let store = open(wire.address(), None).await.unwrap();
    let task = task_id();
    store.commit(&task, &opening(1)).unwrap();
    wire.freeze_in_a_large_message();
    let late = tokio::task::spawn_blocking(move || {
        let large = Changes {
            sum: Some(vec![1; 1 << 20]),
            lane: Some(Lane { id: 1, updates: 1 }),
            ..opening(2)
        };
        store.commit(&task_id(), &large)
    });
    until("the relay freezes", async || wire.is_frozen()).await;
    let other = open(database.address(), None).await.unwrap();
    let waited = has_its_turn(&other).await;
    assert!(waited < Duration::from_secs(70), "{waited:?}");
    assert_eq!(other.load(&task).unwrap().unwrap().head.round, 1);
    wire.thaw();
    late.await.unwrap().unwrap_err();
    assert_eq!(
        other.load(&task).unwrap().unwrap().head.round,
        1,
        "nothing of it came"
    );
}

/// Waits until `store` has a turn, trying again as a relay does.
async fn has_its_turn(store: &Arc<PostgresStore>) -> Duration {
    let (store, begun) = (store.clone(), Instant::now());
    let wait = move || {
        while store.turn(&task_id()).is_err() {
            assert!(begun.elapsed() < Duration::from_secs(120), "it never has a turn");
        }
        begun.elapsed()
    };
    tokio::task::spawn_blocking(wait).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_that_wait_keep_no_turn_waiting_and_are_told_when_they_are_too_many() {
    let Some(database) = Database::start() else { return };
    let store = open(database.address(), None).await.unwrap();
    let task = task_id();
    store.commit(&task, &opening(1)).unwrap();
    let blocker = database.connect().await;
    blocker
        .batch_execute("BEGIN; LOCK unsaid.rounds IN ACCESS EXCLUSIVE MODE")
        .await
        .unwrap();
    let readers: Vec<_> = (0..6)
        .map(|_| {
            let store = store.clone();
            tokio::task::spawn_blocking(move || store.rounds(&task_id()).map_err(|error| error.to_string()))
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(500)).await;
    let begun = Instant::now();
    let mut turn = store.turn(&task).unwrap();
    assert!(turn.model(&head(1).model).unwrap().is_some());
    drop(turn);
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    tokio::time::sleep(Duration::from_secs(3)).await;
    blocker.batch_execute("COMMIT").await.unwrap();
    let mut refused = 0;
    for reader in readers {
        if let Err(error) = reader.await.unwrap() {
            assert!(error.contains("too many"), "{error}");
            refused += 1;
        }
    }
    assert_eq!(refused, 2, "four read at a time");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn turns_follow_each_other_whatever_the_databases_defaults_are() {
    let Some(database) = Database::start() else { return };
    let defaults = "ALTER ROLE unsaid SET default_transaction_isolation = 'serializable'; \
                    ALTER ROLE unsaid SET default_transaction_read_only = on";
    database.connect().await.batch_execute(defaults).await.unwrap();
    let one = open(database.address(), None).await.unwrap();
    let two = open(database.address(), None).await.unwrap();
    let task = task_id();
    one.commit(&task, &opening(1)).unwrap();
    let turn = one.turn(&task).unwrap();
    let waiting = tokio::task::spawn_blocking(move || {
        let task = task_id();
        let turn = two.turn(&task)?;
        assert_eq!(turn.stage().version, 2);
        turn.commit(&opening(3))
    });
    tokio::time::sleep(Duration::from_millis(300)).await;
    turn.commit(&opening(2)).unwrap();
    assert_eq!(waiting.await.unwrap().unwrap().version, 3);
}

#[tokio::test]
async fn of_several_hosts_the_one_that_can_be_written_to_is_taken() {
    let (Some(replica), Some(primary)) = (Database::start(), Database::start()) else {
        return;
    };
    let read_only = "ALTER SYSTEM SET default_transaction_read_only = on";
    let client = replica.connect().await;
    client.batch_execute(read_only).await.unwrap();
    client.batch_execute("SELECT pg_reload_conf()").await.unwrap();
    until("it is read-only", async || {
        let fresh = replica.connect().await;
        let row = fresh.query_one("SHOW transaction_read_only", &[]).await.unwrap();
        row.get::<_, &str>(0) == "on"
    })
    .await;
    let both = format!(
        "postgres://unsaid@{},{}/postgres",
        replica.socket(),
        primary.socket()
    );
    let store = open(both, None).await.unwrap();
    store.commit(&task_id(), &opening(1)).unwrap();
    let there = open(primary.address(), None).await.unwrap();
    assert!(there.load(&task_id()).unwrap().is_some());
}

#[tokio::test]
async fn an_address_that_says_another_thing_than_the_options_is_refused() {
    let Some(database) = Database::start() else { return };
    for (mode, authority, expected) in [
        ("disable", Some(database.authority()), "sslmode=disable"),
        ("verify-full", None, "sslmode=require"),
    ] {
        let address = format!("{}?sslmode={mode}", database.address());
        let error = open(address, authority).await.err().expect("refused");
        assert!(error.contains(expected), "{error}");
    }
}

#[tokio::test]
async fn an_id_that_is_forgotten_may_come_again_with_the_round_that_forgets_it() {
    let Some(database) = Database::start() else { return };
    let store = open(database.address(), None).await.unwrap();
    let task = task_id();
    let first = Changes {
        counted: vec![counted(1, 1)],
        ..opening(1)
    };
    store.commit(&task, &first).unwrap();
    let again = Changes {
        counted: vec![unsaid_relay::round::Counted {
            round: 100,
            ..counted(1, 1)
        }],
        ..opening(101)
    };
    store.commit(&task, &again).unwrap();
    assert_eq!(store.load(&task).unwrap().unwrap().counted, again.counted);
}

#[tokio::test]
async fn forgotten_check_ins_are_gone_but_for_those_of_clients_that_reported() {
    let Some(database) = Database::start() else { return };
    let store = open(database.address(), None).await.unwrap();
    let task = task_id();
    let first = Changes {
        check_ins: (1..=3).map(|client| (1, client_id(client))).collect(),
        ..opening(1)
    };
    store.commit(&task, &first).unwrap();
    let second = Changes {
        counted: vec![counted(1, 2)],
        forgotten: Some(1),
        check_ins: vec![(1, client_id(4))],
        ..Changes::default()
    };
    store.commit(&task, &second).unwrap();
    let left = store.load(&task).unwrap().unwrap().check_ins;
    assert_eq!(left, [(1, client_id(2)), (1, client_id(4))]);
}

/// A clock that is an hour ahead of this machine's.
struct Ahead;

impl Clock for Ahead {
    fn now_ms(&self) -> u64 {
        SystemClock.now_ms() + 3_600_000
    }
}

#[tokio::test]
async fn rounds_go_by_the_databases_clock() {
    let Some(database) = Database::start() else { return };
    let one = relay(&database, &[]).await;
    let store: Arc<dyn Store> = open(database.address(), None).await.unwrap();
    let clock: Arc<dyn Clock> = Arc::new(Ahead);
    let fast = Relay::open(vec![task(&[])], &store, &clock, RelayOptions::default()).unwrap();
    one.api.take_part(1).await;
    one.api.take_part(2).await; // enough to publish with, once the deadline has passed
    let handle = &fast.handles()[0];
    until("the fast one knows", async || {
        handle.outlook.snapshot.borrow().state(clock.now_ms()).received == 2
    })
    .await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let left = handle.outlook.snapshot.borrow().state(clock.now_ms()).deadline_ms;
    assert!(left.is_some_and(|left| (1..=60_000).contains(&left)), "{left:?}");
    assert_eq!(one.api.state().await.round, 1);
    let third = one.api.check_in(3).await;
    assert!(
        matches!(third, Ok(CheckInReply::Train { round: 1, .. })),
        "{third:?}"
    );
}

#[tokio::test]
async fn a_task_whose_values_no_row_takes_does_not_start() {
    let Some(database) = Database::start() else { return };
    let large = [
        "model.input=[1000]",
        "model.layers=[{ type = \"dense\", units = 4030 }]", // a task file takes it, and a row does not
        "strategy.aggregation.type=fed-buff",
        "strategy.aggregation.max_staleness=32",
    ];
    let store: Arc<dyn Store> = open(database.address(), None).await.unwrap();
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let refused = Relay::open(vec![task(&large)], &store, &clock, RelayOptions::default());
    let error = refused.err().expect("refused").to_string();
    assert!(error.contains("the sum of a round"), "{error}");
}
