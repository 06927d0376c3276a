//! A database that answers nothing, or gives no lock: what clients are told, how soon, and that the relay needs no help afterwards.

use std::time::{Duration, Instant};

use unsaid_protocol::ProblemKind;

use crate::{
    database::Database,
    harness::*,
    identity::{OPEN, Person, operate, options},
    postgres::{open, relay},
};

/// What the relay waits for a turn to begin is 15 s; the rest is a slow machine's.
const TOLD_WITHIN: Duration = Duration::from_secs(25);

/// The relay's connections, as the database counts them.
async fn connections(watcher: &tokio_postgres::Client) -> i64 {
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'unsaid-relay'";
    watcher.query_one(sql, &[]).await.unwrap().get(0)
}

/// Many at once ask a relay whose database answers nothing: as many of them with updates as one address may send at a time, or fewer.
async fn crowd(api: &Api) -> Vec<(u8, u16, bool, Duration)> {
    let asks = (0..120_u8).map(|number| {
        let api = api.clone();
        async move {
            let begun = Instant::now();
            let request = match number % 4 {
                0 => api.http.get(api.url("/v1/tasks/tiny/rounds")),
                1 => api.update_request(frame(&api.state().await, 2).encode()),
                _ => {
                    let body = serde_json::json!({
                        "client": client_id(number), "manifest": api.state().await.manifest
                    });
                    api.http.post(api.url("/v1/tasks/tiny/check-in")).json(&body)
                }
            };
            let answer = request.send().await.unwrap();
            let retry = answer.headers().contains_key("retry-after");
            (number, answer.status().as_u16(), retry, begun.elapsed())
        }
    });
    futures_util::future::join_all(asks).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_stops_answering_is_503_soon_and_needs_no_help_when_it_goes_on() {
    let Some(database) = Database::start() else { return };
    let one = relay(&database, &[]).await;
    let before = one.api.model(one.api.state().await.model).await;
    one.api.take_part(1).await;
    one.api.check_in(2).await.unwrap();
    let second = one.api.frame(2).await;
    let watcher = database.connect().await;
    database.freeze();
    for (number, status, retry, after) in crowd(&one.api).await {
        assert!(status == 503 && retry, "{number}: {status}, Retry-After: {retry}");
        assert!(after < TOLD_WITHIN, "{number}: {after:?}");
    }
    // What needs no database is answered as ever, and the relay says that it is not ready.
    let begun = Instant::now();
    assert_eq!(one.api.get("/healthz").await.status(), 200);
    assert_eq!(one.api.get("/readyz").await.status(), 503);
    assert_eq!(one.api.state().await.received, 1, "nothing was acknowledged");
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    database.thaw();
    let begun = Instant::now();
    until(
        "it goes on",
        async || matches!(one.api.send(&second).await, Ok(reply) if reply.update == second.update),
    )
    .await;
    assert!(begun.elapsed() < TOLD_WITHIN, "{:?}", begun.elapsed());
    one.api.take_part(3).await;
    let rounds = one.api.rounds().await;
    assert_eq!(rounds[1].model, expected_model(&before, &[1, 2, 3]));
    assert_eq!(one.api.get("/readyz").await.status(), 200);
    // One for the task, four that read, one that listens, and one for the operator: however many asked.
    until("what was frozen is closed", async || {
        connections(&watcher).await <= 7
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_the_lock_of_identities_is_held_enrolment_is_503_and_nobody_is_half_enrolled() {
    let Some(database) = Database::start() else { return };
    let folder = tempfile::TempDir::new().unwrap();
    let store = open(database.address(), None).await.unwrap();
    let relay = TestRelay::over(store, &[OPEN], options(folder.path())).await;
    let (known, new) = (Person::of(1, &relay.api).await, Person::of(2, &relay.api).await);
    let enrolled = known.enrol(&relay.api, None).await.unwrap();
    let holder = database.connect().await;
    let hold = "BEGIN; SELECT 1 FROM unsaid.census FOR UPDATE";
    holder.batch_execute(hold).await.unwrap();
    let begun = Instant::now();
    let revoke = format!("identities/{}/revoke", known.id());
    let (refused, unrevoked) = tokio::join!(
        new.enrol(&relay.api, None),
        operate(&relay.api, &revoke, serde_json::json!({}))
    );
    assert_eq!(refused, Err(ProblemKind::Unavailable));
    assert_eq!(unrevoked, Err(ProblemKind::Unavailable));
    let waited = begun.elapsed();
    assert!(
        (Duration::from_secs(9)..TOLD_WITHIN).contains(&waited),
        "{waited:?}"
    );
    // Who is known asks for no lock, and takes part meanwhile.
    let begun = Instant::now();
    assert_eq!(known.enrol(&relay.api, None).await, Ok(enrolled));
    known.take_part(&relay.api, 1).await;
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    assert_eq!(
        new.check_in(&relay.api, 2).await,
        Err(ProblemKind::IdentityUnknown)
    );
    holder.batch_execute("COMMIT").await.unwrap();
    new.enrol(&relay.api, None).await.unwrap();
    new.take_part(&relay.api, 2).await;
    operate(&relay.api, &revoke, serde_json::json!({})).await.unwrap();
    assert_eq!(
        known.check_in(&relay.api, 1).await,
        Err(ProblemKind::IdentityRevoked)
    );
    let sql = "SELECT enrolled, revoked, uninvited FROM unsaid.census";
    let census = holder.query_one(sql, &[]).await.unwrap();
    let census: [i64; 3] = [0, 1, 2].map(|at| census.get(at));
    assert_eq!(census, [2, 1, 1], "each is counted once");
}

/// Rounds that one client fills, so that an identity reports again and again.
const ALONE: [&str; 3] = [OPEN, "rounds.min_clients=1", "rounds.target_clients=1"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn from_the_answer_to_a_revocation_on_nothing_is_counted_at_another_relay() {
    let Some(database) = Database::start() else { return };
    let folder = tempfile::TempDir::new().unwrap();
    let start = async || {
        let store = open(database.address(), None).await.unwrap();
        TestRelay::over(store, &ALONE, options(folder.path())).await
    };
    let (here, there) = (start().await, start().await);
    let person = Person::of(1, &here.api).await;
    person.enrol(&here.api, None).await.unwrap();
    let revoke = format!("identities/{}/revoke", person.id());
    let (api, reporter) = (here.api.clone(), person.clone());
    let reports = tokio::spawn(async move {
        let mut counted = 0_u32;
        loop {
            match reporter.check_in(&api, 1).await {
                Ok(_) => {}
                Err(ProblemKind::IdentityRevoked) => return counted,
                Err(refused) => panic!("{refused:?}"),
            }
            let frame = api.frame(1).await;
            match reporter.send(&api, &frame).await {
                Ok(_) => counted += 1,
                Err(ProblemKind::IdentityRevoked) => return counted,
                Err(ProblemKind::Unavailable) => {} // its turn had begun before: it is sent again
                Err(refused) => panic!("{refused:?}"),
            }
        }
    });
    until("it reports", async || there.api.state().await.round > 5).await;
    operate(&there.api, &revoke, serde_json::json!({})).await.unwrap();
    let watcher = database.connect().await;
    let sql = "SELECT count(*) FROM unsaid.counted";
    let now: i64 = watcher.query_one(sql, &[]).await.unwrap().get(0);
    let counted = reports.await.unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    let later: i64 = watcher.query_one(sql, &[]).await.unwrap().get(0);
    assert_eq!(now, later, "nothing was counted after the answer");
    assert_eq!(i64::from(counted), later, "and all of it was told");
    assert_eq!(
        person.check_in(&here.api, 1).await,
        Err(ProblemKind::IdentityRevoked)
    );
}
