//! Several relays over one PostgreSQL database.

use std::{
    path::Path,
    sync::{Arc, Mutex, atomic::Ordering},
    time::Duration,
};

use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};
use unsaid_protocol::{CheckInReply, ClientId, ContentHash, Event, ProblemKind, TaskId, UpdateId};
use unsaid_relay::{
    RelayOptions,
    round::{Counted, DrawKey, FrameDigest, Head, REMEMBERED_ROUNDS, Span},
    store::{Changes, Lane, Mark, PostgresStore, Saved, Store},
    strategy::Memory,
};

use crate::{
    database::Database, events::Events, harness::*, load::*, program::*, rounds::check_pages, wire::Wire,
};

/// Opened on a thread of its own, as the program does: here a runtime runs already.
pub async fn open(
    address: String,
    authority: Option<std::path::PathBuf>,
) -> Result<Arc<PostgresStore>, String> {
    let open = move || PostgresStore::open(&address, authority.as_deref());
    let opened = tokio::task::spawn_blocking(open).await.unwrap();
    opened.map(Arc::new).map_err(|error| error.to_string())
}

pub async fn relay(database: &Database, overrides: &[&str]) -> TestRelay {
    let store = open(database.address(), None).await.unwrap();
    TestRelay::over(store, overrides, RelayOptions::default()).await
}

const CLIENTS: u8 = 12;
const KILLS: u32 = 20;

fn start(folder: &Path, address: &str, server: Server) -> Program {
    let (target, min) = (
        format!("rounds.target_clients={CLIENTS}"),
        format!("rounds.min_clients={CLIENTS}"),
    );
    let mut arguments = vec!["--database", address, "--set", &target, "--set", &min];
    arguments.extend(server_flags(server));
    Program::start(folder, &arguments)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_acknowledged_update_is_counted_once_whichever_of_three_relays_is_killed() {
    tokio::time::timeout(Duration::from_secs(240), kill_while_clients_report())
        .await
        .expect("it ends");
}

/// Relays are killed, and stopped for a while; answers to commits are lost on the way to one of them; the database is killed once.
async fn kill_while_clients_report() {
    let Some(mut database) = Database::start() else {
        return;
    };
    let folder = folder_with_task();
    let wire = Wire::to(database.socket());
    let addresses = [wire.address(), database.address(), database.address()];
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let start = |relay: usize| start(folder.path(), &addresses[relay], Server::FedAdam);
    let mut relays: Vec<Program> = (0..3).map(start).collect();
    let state = relays[0].api().state().await;
    let first = relays[0].api().model(state.model).await;
    let addresses = relays.iter().map(|relay| relay.base.clone()).collect();
    let load = Load::new(addresses, state.manifest);
    let clients: Vec<_> = (1..=CLIENTS)
        .map(|client| tokio::spawn(load.clone().client(client, 7)))
        .collect();
    for kill in 0..KILLS {
        wire.lose_a_commits_answer();
        tokio::time::sleep(Duration::from_millis(rng.next_u64() % 120)).await;
        let sleeper = rng.next_u64() as usize % relays.len();
        relays[sleeper].signal("STOP");
        tokio::time::sleep(Duration::from_millis(rng.next_u64() % 300)).await;
        relays[sleeper].signal("CONT");
        if kill == KILLS / 2 {
            database.kill();
            tokio::time::sleep(Duration::from_millis(300)).await;
            database.resume();
        }
        let victim = rng.next_u64() as usize % relays.len();
        relays[victim].child.kill().unwrap();
        tokio::time::sleep(Duration::from_millis(rng.next_u64() % 60)).await; // the others go on alone
        relays[victim] = start(victim);
        load.addresses.write().unwrap()[victim] = relays[victim].base.clone();
    }
    let last = load.finish();
    for client in clients {
        client.await.unwrap();
    }
    let rounds = relays[0].api().rounds().await;
    check_rounds(&first, &rounds, CLIENTS, Server::FedAdam);
    for relay in &relays[1..] {
        assert_eq!(relay.api().rounds().await, rounds, "every relay tells the same");
    }
    // The database's own list of what was counted is what clients were told, and nothing else.
    let rows = database
        .connect()
        .await
        .query("SELECT round, id FROM unsaid.counted", &[])
        .await
        .unwrap();
    let counted: std::collections::BTreeSet<_> = rows
        .iter()
        .map(|row| {
            let id: &[u8] = row.get(1);
            let round = u64::try_from(row.get::<_, i64>(0)).unwrap();
            (round, UpdateId::from_bytes(id.try_into().unwrap()))
        })
        .collect();
    assert_eq!(rows.len(), counted.len());
    let mut acknowledged = load.acknowledged.lock().unwrap().clone();
    assert_eq!(acknowledged.len(), last as usize * usize::from(CLIENTS));
    acknowledged.retain(|(round, _)| *round + REMEMBERED_ROUNDS > last);
    assert_eq!(counted, acknowledged);
    // The round that is open counts nothing, and nobody has added anything up in it.
    let sql = "SELECT count(*) FROM unsaid.lanes JOIN unsaid.tasks USING (task) \
               WHERE lanes.round >= (tasks.head::json ->> 'round')::bigint";
    let left = database.connect().await.query_one(sql, &[]).await.unwrap();
    assert_eq!(left.get::<_, i64>(0), 0);
    let (lost, duplicates) = (wire.lost(), load.duplicates.load(Ordering::SeqCst));
    assert!(
        lost > 0 && duplicates > 0,
        "{lost} answers of the database were lost, {duplicates} updates sent again that were counted"
    );
    assert!(
        last > u64::from(KILLS) / 4,
        "{last} rounds: clients went on meanwhile"
    );
    eprintln!(
        "{KILLS} kills, {lost} answers lost, {last} rounds, {} updates, {duplicates} of them sent again",
        counted.len()
    );
}

#[tokio::test]
async fn what_one_relay_publishes_reaches_the_readers_of_another() {
    let Some(database) = Database::start() else { return };
    let (one, two) = (relay(&database, &[]).await, relay(&database, &[]).await);
    let before = one.api.model(one.api.state().await.model).await;
    assert_eq!(
        one.api.state().await.model,
        two.api.state().await.model,
        "one start"
    );
    let mut events = Events::open(&two.api).await;
    // Check-in here, update there: both are of one round.
    assert!(matches!(
        one.api.check_in(1).await,
        Ok(CheckInReply::Train { round: 1, .. })
    ));
    let frame = one.api.frame(1).await;
    assert_eq!(two.api.send(&frame).await, Ok(accepted(&frame)));
    assert_eq!(
        one.api.send(&frame).await,
        Ok(duplicate(&frame)),
        "the other one knows"
    );
    let same_id = unsaid_protocol::UpdateFrame {
        coordinates: coordinates(9),
        ..frame.clone()
    };
    assert_eq!(one.api.send(&same_id).await, Err(ProblemKind::UpdateConflict));
    for client in 2..=3 {
        one.api.take_part(client).await;
    }
    let published = loop {
        match events.next().await.unwrap() {
            Event::Published(metrics) if metrics.round == 1 => break metrics,
            _ => {}
        }
    };
    assert_eq!(
        (published.clients, published.model),
        (3, expected_model(&before, &[1, 2, 3]))
    );
    let state = two.api.state().await;
    assert_eq!(
        (state.round, state.received, state.model),
        (2, 0, published.model)
    );
    assert_eq!(two.api.rounds().await, one.api.rounds().await);
    assert!(!two.api.model(published.model).await.is_empty());
    // The next round begins at the other one.
    for client in 1..=3 {
        two.api.take_part(client).await;
    }
    until("the first one follows", async || one.api.state().await.round == 3).await;
}

#[tokio::test]
async fn a_databases_rounds_are_told_page_by_page() {
    let Some(database) = Database::start() else { return };
    let relay = relay(&database, &["rounds.target_clients=2"]).await;
    for _ in 1..=4 {
        relay.api.take_part(1).await;
        relay.api.take_part(2).await;
    }
    check_pages(&relay.api).await;
}

#[tokio::test]
async fn updates_that_are_kept_one_by_one_are_kept_by_all_relays_together() {
    let Some(database) = Database::start() else { return };
    let rule = ["strategy.aggregation.type=coordinate-median"];
    let (one, two) = (relay(&database, &rule).await, relay(&database, &rule).await);
    let before = one.api.model(one.api.state().await.model).await;
    one.api.take_part(1).await;
    two.api.take_part(2).await;
    one.api.take_part(3).await;
    let rounds = two.api.rounds().await;
    assert_eq!(rounds[1].model, expected_median(&before, &[1, 2, 3]));
}

#[tokio::test]
async fn whichever_relay_closes_a_round_goes_on_from_the_same_control_variate() {
    let Some(database) = Database::start() else { return };
    let rule = [
        "strategy.aggregation.type=scaffold",
        "strategy.aggregation.population=10",
        "training.steps_per_epoch=5",
    ];
    let (one, two) = (relay(&database, &rule).await, relay(&database, &rule).await);
    let alone = TestRelay::start(&rule).await;
    for closes in [&one, &two, &two, &one] {
        for client in 1..=2 {
            one.api.take_part(client).await;
            alone.api.take_part(client).await;
        }
        closes.api.take_part(3).await;
        alone.api.take_part(3).await;
        let expected = alone.api.state().await.model;
        let state = closes.api.state().await;
        assert_eq!(state.model, expected);
        assert_eq!(one.api.model(expected).await, alone.api.model(expected).await);
        until("all follow", async || one.api.state().await.round == state.round).await;
    }
}

#[tokio::test]
async fn a_stale_update_counts_at_whichever_relay_it_comes_to() {
    let Some(database) = Database::start() else {
        return;
    };
    let buffered = [
        "strategy.aggregation.type=fed-buff",
        "strategy.aggregation.max_staleness=2",
    ];
    let (one, two) = (
        relay(&database, &buffered).await,
        relay(&database, &buffered).await,
    );
    one.api.check_in(9).await.unwrap();
    let slow = one.api.frame(9).await;
    for client in 1..=3 {
        one.api.take_part(client).await;
    }
    let reply = unsaid_protocol::UpdateReply {
        round: 2,
        ..accepted(&slow)
    };
    assert_eq!(
        two.api.send(&slow).await,
        Ok(reply.clone()),
        "it knows of the check-in"
    );
    // One that starts now reads the check-in to a round that has closed from the database.
    let three = relay(&database, &buffered).await;
    assert_eq!(
        three.api.send(&slow).await,
        Ok(unsaid_protocol::UpdateReply {
            duplicate: true,
            ..reply
        })
    );
}

#[tokio::test]
async fn a_deadline_is_kept_by_any_relay_and_a_round_closes_once() {
    let Some(database) = Database::start() else { return };
    let short = ["rounds.deadline_ms=400"];
    let (one, two) = (relay(&database, &short).await, relay(&database, &short).await);
    one.api.take_part(1).await;
    one.api.take_part(2).await;
    one.stop().await; // what is left to do is the other's
    until("publication", async || two.api.state().await.round == 2).await;
    let rounds = two.api.rounds().await;
    assert_eq!((rounds.len(), rounds[1].clients), (2, 2));
}

#[tokio::test]
async fn a_database_that_is_gone_is_503_until_it_is_back() {
    let Some(mut database) = Database::start() else {
        return;
    };
    let (one, two) = (relay(&database, &[]).await, relay(&database, &[]).await);
    let before = one.api.model(one.api.state().await.model).await;
    one.api.take_part(1).await;
    two.api.check_in(2).await.unwrap();
    let second = two.api.frame(2).await;
    database.kill();
    for relay in [&one, &two] {
        assert_eq!(relay.api.send(&second).await, Err(ProblemKind::Unavailable));
        assert_eq!(relay.api.check_in(3).await, Err(ProblemKind::Unavailable));
        assert_eq!(relay.api.get("/readyz").await.status(), 503);
        assert_eq!(relay.api.get("/healthz").await.status(), 200);
        assert_eq!(
            relay.api.get("/v1/tasks/tiny/round").await.status(),
            200,
            "as it was last"
        );
        let rounds = relay.api.get("/v1/tasks/tiny/rounds").await;
        assert_eq!(rounds.status(), 503);
        assert!(rounds.headers().contains_key("retry-after"));
    }
    database.resume();
    assert_eq!(
        one.api.send(&second).await,
        Ok(accepted(&second)),
        "nothing was counted"
    );
    two.api.take_part(3).await;
    assert_eq!(
        two.api.rounds().await[1].model,
        expected_model(&before, &[1, 2, 3])
    );
    // Nobody asks the first one anything more; it listens again, and follows.
    until("the first one follows", async || one.api.state().await.round == 2).await;
    assert_eq!(one.api.get("/readyz").await.status(), 200);
}

#[tokio::test]
async fn a_relay_with_an_older_task_file_counts_nothing_under_the_new_one() {
    let Some(database) = Database::start() else { return };
    let old = relay(&database, &[]).await;
    old.api.take_part(1).await;
    let changed = relay(&database, &["rounds.deadline_ms=50_000"]).await;
    assert_eq!(changed.api.state().await.received, 1, "the round goes on");
    let frame = old.api.frame(2).await;
    assert_eq!(old.api.check_in(2).await, Err(ProblemKind::Unavailable));
    assert_eq!(old.api.send(&frame).await, Err(ProblemKind::Unavailable));
    assert_eq!(old.api.get("/readyz").await.status(), 503);
    changed.api.take_part(2).await;
    assert_eq!(changed.api.get("/readyz").await.status(), 200);
}

pub fn task_id() -> TaskId {
    "tiny".parse().unwrap()
}

pub fn head(round: u64) -> Head {
    Head {
        round,
        model: ContentHash::of(&round.to_le_bytes()),
        span: Some(Span {
            started_ms: 1,
            deadline_ms: 2,
        }),
        bytes_up: 3,
        paused: true,
        forgot: 0,
        excused: 0,
        draw_key: Some(DrawKey::from_bytes([round as u8; 32])),
        earlier: Vec::new(),
        min_separation: 0,
        shares: None,
        tree: None,
        spent: None,
    }
}

pub fn opening(round: u64) -> Changes {
    Changes {
        head: Some(head(round)),
        models: vec![(head(round).model, round.to_le_bytes().to_vec())],
        ..Changes::default()
    }
}

pub fn counted(round: u64, number: u8) -> Counted {
    Counted {
        update: update_id(round, number),
        round,
        client: ClientId::from_bytes([number; 16]),
        digest: FrameDigest::of(b"frame"),
    }
}

/// Every lane of the open round but one, with its updates and its sum, by their ids.
pub fn lanes(store: &PostgresStore, but: u64) -> Vec<(u64, u32, Vec<i64>)> {
    let task = task_id();
    let mut found = Vec::new();
    let mut turn = store.turn(&task).unwrap();
    turn.other_lanes(but, &mut |lane, steps| found.push((lane.id, lane.updates, steps)))
        .unwrap();
    found.sort();
    found
}

#[tokio::test]
async fn what_was_committed_is_what_is_read_and_a_round_that_closed_leaves_what_is_remembered() {
    let Some(database) = Database::start() else { return };
    let (one, two) = (
        open(database.address(), None).await.unwrap(),
        open(database.address(), None).await.unwrap(),
    );
    let task = task_id();
    assert_eq!(one.load(&task).unwrap(), None);
    let memory = Memory {
        kind: "fed-adam".into(),
        values: vec![0.1, f32::MIN_POSITIVE, -0.0],
    };
    let first = Changes {
        manifest: Some("{}".into()),
        sum: Some(vec![1, -2, i64::MAX, i64::MIN]),
        lane: Some(Lane { id: 7, updates: 1 }),
        updates: vec![(update_id(1, 1), vec![1, -2, i32::MIN])],
        memory: Some(memory.clone()),
        check_ins: vec![(1, client_id(1)), (1, client_id(2))],
        counted: vec![counted(1, 1)],
        ..opening(1)
    };
    one.commit(&task, &first).unwrap();
    let expected = Saved {
        head: head(1),
        manifest: "{}".into(),
        sum: None, // in lanes
        updates: first.updates.clone(),
        memory: Some(memory.clone()),
        check_ins: vec![(1, client_id(1)), (1, client_id(2))],
        counted: first.counted.clone(),
    };
    assert_eq!(two.load(&task).unwrap(), Some(expected));
    assert_eq!(
        two.model(&task, &head(1).model).unwrap(),
        Some(1_u64.to_le_bytes().to_vec())
    );
    assert_eq!(two.model(&task, &ContentHash::of(b"none")).unwrap(), None);
    assert_eq!(two.load(&"another".parse().unwrap()).unwrap(), None);

    // What is new since a version, and no more.
    let first_stage = two.turn(&task).unwrap().stage();
    let second = Changes {
        check_ins: vec![(1, client_id(3))],
        counted: vec![counted(1, 2)],
        sum: Some(vec![5]),
        lane: Some(Lane {
            id: u64::MAX,
            updates: 1,
        }),
        head: Some(head(1)),
        ..Changes::default()
    };
    one.commit(&task, &second).unwrap();
    let mut turn = two.turn(&task).unwrap();
    assert_eq!(turn.stage().version, 2);
    let mark = Mark {
        stage: first_stage,
        round: 1,
    };
    let news = turn.news(mark).unwrap().expect("it follows").saved;
    assert_eq!(
        (news.check_ins, news.counted),
        (vec![(1, client_id(3))], vec![counted(1, 2)])
    );
    assert_eq!((news.sum, news.updates, news.memory), (None, vec![], None));
    drop(turn);
    assert_eq!(lanes(&two, 7), [(u64::MAX, 1, vec![5])]);
    assert_eq!(lanes(&two, u64::MAX), [(7, 1, vec![1, -2, i64::MAX, i64::MIN])]);

    one.commit(&task, &opening(2)).unwrap();
    let saved = two.load(&task).unwrap().unwrap();
    assert_eq!(
        (saved.sum, saved.updates, saved.check_ins),
        (None, vec![], vec![])
    );
    assert_eq!((saved.counted.len(), saved.memory), (2, Some(memory)));
    assert_eq!(lanes(&two, 0), []);
    one.commit(&task, &opening(200)).unwrap();
    assert_eq!(
        two.load(&task).unwrap().unwrap().counted,
        vec![],
        "forgotten in time"
    );
    assert_eq!(two.model(&task, &head(1).model).unwrap(), None, "and its model");
    assert!(two.model(&task, &head(200).model).unwrap().is_some());
}

#[tokio::test]
async fn a_turn_that_was_taken_away_commits_nothing() {
    let Some(database) = Database::start() else { return };
    let (one, two) = (
        open(database.address(), None).await.unwrap(),
        open(database.address(), None).await.unwrap(),
    );
    let task = task_id();
    one.commit(&task, &opening(1)).unwrap();
    let late = one.turn(&task).unwrap();
    // As the database does by itself with a relay that is frozen in its turn.
    let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE state = 'idle in transaction'";
    let ended = database.connect().await.query(sql, &[]).await.unwrap();
    assert_eq!(ended.len(), 1);
    let count = |number| Changes {
        counted: vec![counted(1, number)],
        ..Changes::default()
    };
    two.commit(&task, &count(2)).unwrap();
    late.commit(&count(1)).unwrap_err();
    assert_eq!(two.load(&task).unwrap().unwrap().counted, vec![counted(1, 2)]);
    one.commit(&task, &count(3)).unwrap(); // by another connection
    // The last fence: what a fault of the round machine would count twice the database refuses, whole.
    let twice = Changes {
        head: Some(head(7)),
        ..count(3)
    };
    two.commit(&task, &twice).unwrap_err();
    let saved = one.load(&task).unwrap().unwrap();
    assert_eq!((saved.head.round, saved.counted.len()), (1, 2));
}

#[tokio::test]
async fn a_turn_waits_for_the_one_before_it() {
    let Some(database) = Database::start() else { return };
    let (one, two) = (
        open(database.address(), None).await.unwrap(),
        open(database.address(), None).await.unwrap(),
    );
    let task = task_id();
    one.commit(&task, &opening(1)).unwrap();
    let order = Arc::new(Mutex::new(Vec::new()));
    let turn = one.turn(&task).unwrap();
    let waiting = tokio::task::spawn_blocking({
        let (order, two) = (order.clone(), two.clone());
        move || {
            let task = task_id();
            let turn = two.turn(&task).unwrap();
            order.lock().unwrap().push(("second", turn.stage().version));
        }
    });
    tokio::time::sleep(Duration::from_millis(300)).await;
    order.lock().unwrap().push(("first", turn.stage().version));
    turn.commit(&opening(2)).unwrap();
    waiting.await.unwrap();
    assert_eq!(*order.lock().unwrap(), [("first", 1), ("second", 2)]);
}

#[tokio::test]
async fn the_way_to_a_database_elsewhere_is_encrypted_and_its_certificate_is_checked() {
    let Some(database) = Database::start() else { return };
    let encrypted = "SELECT count(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) \
                     WHERE ssl AND application_name = 'unsaid-relay'";
    let watcher = database.connect().await;
    let plain = open(database.address(), None).await.unwrap();
    assert_eq!(
        watcher.query_one(encrypted, &[]).await.unwrap().get::<_, i64>(0),
        0
    );
    drop(plain);
    let by_name = database.address_by_name();
    let store = open(by_name.clone(), Some(database.authority())).await.unwrap();
    store.commit(&task_id(), &opening(1)).unwrap();
    assert!(watcher.query_one(encrypted, &[]).await.unwrap().get::<_, i64>(0) >= 1);
    // Another authority, and a name that the certificate is not for.
    let other = tempfile::TempDir::new().unwrap();
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let file = other.path().join("other.crt");
    std::fs::write(&file, made.cert.pem()).unwrap();
    for (address, authority) in [(by_name, file), (database.address(), database.authority())] {
        let Err(error) = open(address, Some(authority)).await else {
            panic!("a certificate of somebody else was taken")
        };
        assert!(error.contains("certificate"), "{error}");
    }
}
