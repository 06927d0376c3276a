//! How the program starts, and what it says where it is told something odd.

use std::{
    io::{BufRead, BufReader, Read},
    path::Path,
    process::{Command, Stdio},
};

use tempfile::TempDir;

use crate::program::{PROGRAM, Program, folder_with_task};

/// What the program writes to standard error until it listens, or ends; and whether it listened.
fn says(folder: &Path, arguments: &[&str]) -> (String, bool) {
    let mut child = Command::new(PROGRAM)
        .current_dir(folder)
        .env_remove("UNSAID_DATABASE")
        .args(["serve", "--listen", "127.0.0.1:0"])
        .args(arguments)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    let _ = child.kill();
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    child.wait().unwrap();
    (said, line.starts_with("listening"))
}

#[test]
fn a_folder_of_tasks_that_was_not_there_is_said_so() {
    let folder = TempDir::new().unwrap();
    let (said, listened) = says(folder.path(), &["--tasks", "typo"]);
    assert!(listened, "{said}");
    assert!(
        said.contains("was not there, and was made") && said.contains("folder=typo"),
        "{said}"
    );
    assert!(said.contains("serves no task until one is added"), "{said}");
    // The controls: the same folder, which is there now; and one with a task.
    let (said, _) = says(folder.path(), &["--tasks", "typo"]);
    assert!(
        !said.contains("was made") && said.contains("serves no task"),
        "{said}"
    );
    let folder = folder_with_task();
    let (said, listened) = says(folder.path(), &["--tasks", "."]);
    assert!(listened && !said.contains("no task file"), "{said}");
}

#[test]
fn an_authority_without_a_database_is_refused() {
    let folder = folder_with_task();
    let (said, listened) = says(folder.path(), &["--task", "tiny.toml", "--database-ca", "ca.pem"]);
    assert!(!listened && said.contains("--database"), "{said}");
    assert!(!folder.path().join("relay.redb").exists(), "nothing was begun");
}

/// As where only `relay.redb` is moved after a crash.
#[tokio::test]
async fn a_store_that_was_parted_from_its_journal_is_refused_until_that_is_given_up() {
    let folder = folder_with_task();
    let path = folder.path().join("relay.redb");
    let program = Program::start(folder.path(), &["--store", path.to_str().unwrap()]);
    for client in 1..=2 {
        program.api().take_part(client).await;
    }
    drop(program);
    for number in ["0", "1"] {
        std::fs::remove_file(folder.path().join(format!("relay.redb.tiny.{number}"))).unwrap();
    }
    let arguments = ["--task", "tiny.toml"];
    let (said, listened) = says(folder.path(), &arguments);
    assert!(!listened && said.contains("relay.redb.tiny.0"), "{said}");
    let (said, listened) = says(folder.path(), &[&arguments[..], &["--give-up-journals"]].concat());
    assert!(listened && said.contains("is given up"), "{said}");
}
