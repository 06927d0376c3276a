//! A disk that refuses every write, and one that is read-only for a while, under the real program and its file.

use std::{
    path::Path,
    process::{Command, Stdio},
};

use rustix::process::{Pid, Resource, Rlimit, prlimit};
use unsaid_protocol::{CheckInReply, ProblemKind};

use crate::{harness::*, program::*};

/// The program, which is told of a write beyond its limit by an error, as of one to a full disk, not by a signal.
fn start(folder: &Path, store: &Path) -> Program {
    let mut shell = Command::new("sh");
    shell
        .args(["-c", "trap '' XFSZ; exec \"$0\" \"$@\"", PROGRAM])
        .stderr(Stdio::null());
    Program::start_by(shell, folder, &["--store", store.to_str().unwrap()])
}

/// Has the system refuse every write of the program to a file, or none. Says why where it cannot.
fn refuse_writes(program: &Program, refused: bool) -> Result<(), String> {
    let pid = i32::try_from(program.child.id()).ok().and_then(Pid::from_raw);
    let limit = Rlimit {
        current: refused.then_some(0),
        maximum: None,
    };
    let set = prlimit(pid, Resource::Fsize, limit);
    set.map(drop)
        .map_err(|error| format!("the limit of file sizes cannot be set: {error}"))
}

/// A file system of its own at a folder, until it is dropped.
struct Mounted<'a>(&'a Path);

impl<'a> Mounted<'a> {
    fn at(folder: &'a Path) -> Result<Self, String> {
        mount(&["-t", "tmpfs", "-o", "size=64m", "tmpfs"], folder).map(|()| Self(folder))
    }

    fn remount(&self, how: &str) -> Result<(), String> {
        mount(&["-o", &format!("remount,{how}")], self.0)
    }
}

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0).status();
    }
}

fn mount(arguments: &[&str], folder: &Path) -> Result<(), String> {
    let done = Command::new("mount").args(arguments).arg(folder).output();
    match done {
        Ok(done) if done.status.success() => Ok(()),
        Ok(done) => Err(String::from_utf8_lossy(&done.stderr).trim().to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

async fn is_ready(api: &Api) -> bool {
    let answer = api.get("/readyz").await;
    assert_eq!(
        answer.status() == 503,
        answer.headers().contains_key("retry-after")
    );
    answer.status() == 200
}

/// That nothing is acknowledged: neither an update nor a check-in. The harness holds every 503 to its `Retry-After`.
async fn nothing_is_taken(api: &Api, second: &unsaid_protocol::UpdateFrame) {
    assert_eq!(api.send(second).await, Err(ProblemKind::Unavailable));
    assert_eq!(api.check_in(9).await, Err(ProblemKind::Unavailable));
    assert!(!is_ready(api).await);
    let state = api.state().await;
    assert_eq!((state.round, state.received, state.checked_in), (1, 1, 2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_takes_nothing_loses_nothing_and_the_relay_recovers_without_help() {
    let folder = folder_with_task();
    let disk = folder.path().join("disk");
    std::fs::create_dir(&disk).unwrap();
    let mounted = Mounted::at(&disk);
    if let Err(why) = &mounted {
        eprintln!("no file system can be mounted, so none is read-only here: {why}");
    }
    let store = disk.join("relay.redb");
    let program = start(folder.path(), &store);
    let api = program.api();
    let before = api.model(api.state().await.model).await;
    api.take_part(1).await;
    assert!(matches!(api.check_in(2).await, Ok(CheckInReply::Train { .. })));
    let second = api.frame(2).await;
    if let Err(why) = refuse_writes(&program, true) {
        eprintln!("skipped: {why}");
        return;
    }
    for _ in 0..3 {
        nothing_is_taken(&api, &second).await;
    }
    if let Ok(mounted) = &mounted {
        // The relay has closed its file, or could not be kept from it now.
        let mut tries = 0;
        while let Err(why) = mounted.remount("ro") {
            tries += 1;
            assert!(tries < 100, "{why}");
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        refuse_writes(&program, false).unwrap();
        for _ in 0..3 {
            nothing_is_taken(&api, &second).await;
        }
        mounted.remount("rw").unwrap();
    } else {
        refuse_writes(&program, false).unwrap();
    }
    until(
        "the relay is ready again, though nobody asks it for anything else",
        async || is_ready(&api).await,
    )
    .await;
    assert_eq!(
        api.send(&second).await,
        Ok(accepted(&second)),
        "it was not counted before"
    );
    assert_eq!(api.send(&second).await, Ok(duplicate(&second)));
    api.take_part(3).await;
    let rounds = api.rounds().await;
    assert_eq!(rounds[1].model, expected_model(&before, &[1, 2, 3]));
    drop(program);
    let again = start(folder.path(), &store);
    assert_eq!(again.api().rounds().await, rounds, "it is on the disk");
}
