//! Tasks that are added while the relay runs.

use std::time::Duration;

use tempfile::TempDir;
use unsaid_protocol::ProblemKind;
use unsaid_relay::{RelayOptions, http::admin::AdminToken};

use crate::{harness::*, operating::TOKEN};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_that_is_added_runs_beside_the_others_and_after_a_restart() {
    let folder = TempDir::new().unwrap();
    let tasks = folder.path().join("tasks");
    let token = token_file(folder.path(), TOKEN);
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
async fn a_task_that_cannot_be_stored_is_asked_for_again_and_starts_then() {
    let store = FaultyStore::new();
    let folder = TempDir::new().unwrap();
    let options = RelayOptions {
        tasks: Some(folder.path().to_owned()),
        admin_token: AdminToken::new(TOKEN),
        ..RelayOptions::default()
    };
    let relay = TestRelay::over(store.clone(), &[], options).await;
    let text = TASK.replacen("\"tiny\"", "\"second\"", 1);
    let add = async || {
        let request = relay.api.http.post(relay.api.url("/v1/admin/tasks"));
        let request = request.header("content-type", "application/toml");
        let response = request
            .bearer_auth(TOKEN)
            .body(text.clone())
            .send()
            .await
            .unwrap();
        answer::<serde_json::Value>(response).await.unwrap()
    };
    for fault in [Fault::Everything, Fault::BeforeCommit] {
        store.set(fault);
        assert_eq!(add().await, Err(ProblemKind::Unavailable), "{fault:?}");
        assert_eq!(
            std::fs::read_dir(folder.path()).unwrap().count(),
            0,
            "nothing is left"
        );
    }
    store.set(Fault::None);
    assert_eq!(add().await.unwrap()["task"], "second");
}
