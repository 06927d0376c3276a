//! How serving ends.

use unsaid_protocol::{ContentHash, TaskId};
use unsaid_relay::{
    lineage::RoundRecord,
    store::{Changes, Saved, StoreError},
};

use super::*;

/// A store that fails as no store may.
struct Faulty(RedbStore);

impl Store for Faulty {
    fn load(&self, task: &TaskId) -> Result<Option<Saved>, StoreError> {
        self.0.load(task)
    }

    fn commit(&self, task: &TaskId, changes: &Changes) -> Result<(), StoreError> {
        assert!(changes.check_ins.is_empty(), "injected");
        self.0.commit(task, changes)
    }

    fn model(&self, task: &TaskId, model: &ContentHash) -> Result<Option<Vec<u8>>, StoreError> {
        self.0.model(task, model)
    }

    fn rounds(&self, task: &TaskId) -> Result<Vec<RoundRecord>, StoreError> {
        self.0.rounds(task)
    }

    fn rounds_before(&self, task: &TaskId, before: u64, most: u16) -> Result<Vec<RoundRecord>, StoreError> {
        self.0.rounds_before(task, before, most)
    }
}

#[tokio::test]
async fn a_task_that_panics_ends_the_program_with_its_name_and_others_end_it_well() {
    for panics in [true, false] {
        let folder = tempfile::TempDir::new().unwrap();
        let task = Task::parse("tiny.toml", include_str!("../../tests/tiny.toml"), &[]).unwrap();
        let manifest = ContentHash::of(&task.manifest.to_json());
        let store: Arc<dyn Store> = Arc::new(Faulty(
            RedbStore::open(&folder.path().join("relay.redb")).unwrap(),
        ));
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let relay = Relay::open(vec![task], &store, &clock, RelayOptions::default()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let serving = tokio::spawn(async move {
            serve_until(relay, listener, async move { drop(stopped.await) })
                .await
                .map_err(|error| error.to_string())
        });
        let ready = async || {
            let answer = reqwest::get(format!("{base}/readyz")).await.ok()?;
            Some((answer.status().as_u16(), answer.text().await.ok()?))
        };
        assert_eq!(ready().await.unwrap().0, 200);
        if panics {
            let ask = serde_json::json!({ "client": "01".repeat(16), "manifest": manifest });
            let check_in = reqwest::Client::new().post(format!("{base}/v1/tasks/tiny/check-in"));
            let answer = check_in.json(&ask).send().await.unwrap();
            assert_eq!(answer.status(), 500, "nothing was counted");
            // While it ends it is not ready, and says why.
            if let Some((status, text)) = ready().await {
                assert!(
                    status == 503 && text.contains("the task tiny ended"),
                    "{status} {text}"
                );
            }
        } else {
            stop.send(()).unwrap();
        }
        let ended = tokio::time::timeout(GRACE + GRACE, serving)
            .await
            .unwrap()
            .unwrap();
        match ended {
            Ok(()) => assert!(!panics),
            Err(error) => assert!(
                panics && error.starts_with("task tiny ended by a fault"),
                "{error}"
            ),
        }
    }
}
