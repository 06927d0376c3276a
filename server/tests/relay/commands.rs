//! What the program's other commands say where something is wrong, and to whom.

use std::{
    process::{Command, Output, Stdio},
    sync::Arc,
};

use tempfile::TempDir;
use unsaid_relay::{RelayOptions, http::admin::AdminToken, store::RedbStore};

use crate::{
    harness::*,
    operating::TOKEN,
    program::{PROGRAM, folder_with_task},
};

fn run(arguments: &[&str]) -> (bool, String, String) {
    let output = Command::new(PROGRAM).args(arguments).output().unwrap();
    let Output {
        status,
        stdout,
        stderr,
    } = output;
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (status.success(), text(stdout), text(stderr))
}

#[test]
fn a_reader_that_goes_away_ends_the_program_without_a_word() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = Command::new(PROGRAM);
    let output = command
        .args(["task", "schema"])
        .stdout(writer)
        .stderr(Stdio::piped())
        .output()
        .unwrap();
    assert_eq!((output.status.code(), output.stderr.len()), (Some(1), 0));
}

#[test]
fn numbers_that_make_no_simulation_are_refused_before_it_begins() {
    for (option, bad) in [
        ("--fraction", "0"),
        ("--fraction", "nan"),
        ("--fraction", "1.5"),
        ("--stop-at", "2"),
        ("--delta", "0"),
        ("--delta", "1"),
        ("--proxy", "1"),
        ("--rounds", "0"),
        ("--threads", "0"),
        ("--partition", "dirichlet:1e308"),
    ] {
        let (done, _, said) = run(&["simulate", "task.toml", "--data", ".", option, bad]);
        assert!(!done && said.contains(option) && said.contains(bad), "{said}");
    }
}

#[test]
fn a_task_without_noise_is_said_to_be_one() {
    let folder = folder_with_task();
    let file = folder.path().join("tiny.toml");
    let check = |set: &[&str]| {
        let file = file.to_str().unwrap();
        run(&[&["task", "check", file], set].concat())
    };
    let (done, manifest, said) = check(&[]);
    assert!(
        done && manifest.starts_with('{') && said.contains("without noise"),
        "{said}"
    );
    let (done, _, said) = check(&["--set", "privacy.mode=local"]);
    assert!(done && said.is_empty(), "{said}");
}

#[test]
fn a_relay_with_nothing_to_serve_says_how_it_could_have() {
    let (done, _, said) = run(&["serve"]);
    assert!(
        !done && said.contains("--task <FILE>") && said.contains("--tasks <DIR>"),
        "{said}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_relay_refuses_is_told_in_words_and_a_token_that_others_could_read_is_warned_of() {
    let options = RelayOptions {
        admin_token: AdminToken::new(TOKEN),
        ..RelayOptions::default()
    };
    let folder = TempDir::new().unwrap();
    let store = RedbStore::open(&folder.path().join("relay.redb")).unwrap();
    let relay = TestRelay::over(Arc::new(store), &[], options).await;
    let right = token_file(folder.path(), TOKEN);
    let other = TempDir::new().unwrap();
    let wrong = token_file(other.path(), "not the operator's token");
    let ask = async |arguments: &[&str]| {
        let arguments: Vec<String> = arguments.iter().map(ToString::to_string).collect();
        let ask = move || run(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
        tokio::task::spawn_blocking(ask).await.unwrap()
    };
    let base = relay.api.base.clone();
    let (right, wrong) = (right.to_str().unwrap(), wrong.to_str().unwrap());
    let (done, _, said) = ask(&["status", "--once", "--relay", &base, "--token-file", wrong]).await;
    assert!(
        !done && said.starts_with("error: the relay answered 401 (unauthorized): ") && !said.contains('{'),
        "{said}"
    );
    let (done, _, said) = ask(&["admin", "pause", "none", "--relay", &base, "--token-file", right]).await;
    assert!(
        !done && said.contains("404 (not-found): this relay has no such task"),
        "{said}"
    );
    let secure = base.replace("http://", "https://");
    let (done, _, said) = ask(&["status", "--once", "--relay", &secure, "--token-file", right]).await;
    assert!(!done && said.contains(&format!("ask {base}")), "{said}");
    // A name that leads nowhere (RFC 6761).
    let nowhere = "http://relay.invalid:9";
    let (done, _, said) = ask(&["status", "--once", "--relay", nowhere, "--token-file", right]).await;
    assert!(
        !done && said.starts_with("warning: the token goes to relay.invalid over plain HTTP"),
        "{said}"
    );
    relay.stop().await;
}
