//! The real program, and SIGKILL.

use std::{
    io::{BufRead, BufReader},
    net::Ipv4Addr,
    path::Path,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
};

use crate::harness::*;

/// Where it is.
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_unsaid-relay");

pub struct Program {
    pub child: Child,
    pub base: String,
}

impl Program {
    /// Starts it on the task `tiny.toml` of a folder, and waits until it listens.
    pub fn start(folder: &Path, arguments: &[&str]) -> Self {
        Self::start_logging(folder, arguments, "off", Stdio::null())
    }

    /// As [`Program::start`], with its log at `level`.
    pub fn start_logging(folder: &Path, arguments: &[&str], level: &str, log: Stdio) -> Self {
        let mut command = Command::new(PROGRAM);
        command.env("RUST_LOG", level).stderr(log);
        Self::start_by(command, folder, arguments)
    }

    /// As [`Program::start`], by a command that becomes the program with the arguments that follow.
    pub fn start_by(mut command: Command, folder: &Path, arguments: &[&str]) -> Self {
        let mut child = command
            .args([
                "serve",
                "--listen",
                &free_address(),
                "--rate-limit",
                "0",
                "--task",
            ])
            .arg(folder.join("tiny.toml"))
            .args(arguments)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let base = line
            .trim()
            .strip_prefix("listening on ")
            .expect("it starts")
            .to_owned();
        Self { child, base }
    }

    /// `STOP` or `CONT`.
    #[cfg(target_os = "linux")]
    pub fn signal(&self, name: &str) {
        let done = Command::new("kill")
            .args([&format!("-{name}"), &self.child.id().to_string()])
            .status();
        assert!(done.unwrap().success());
    }

    pub fn api(&self) -> Api {
        Api::new(&self.base)
    }
}

impl Drop for Program {
    /// SIGKILL: no handler runs, nothing is flushed.
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Any port of an address that no program before it had: who still asks one that was killed must not be answered by the next one, which
/// may be another test's.
fn free_address() -> String {
    static STARTED: AtomicU32 = AtomicU32::new(0);
    let number = STARTED.fetch_add(1, Ordering::Relaxed);
    if cfg!(target_os = "linux") {
        // Where all of 127.0.0.0/8 is this machine.
        return format!("{}:0", Ipv4Addr::from_bits(0x7f01_0001 + number));
    }
    "127.0.0.1:0".to_owned()
}

/// A folder with the task file.
pub fn folder_with_task() -> tempfile::TempDir {
    let folder = tempfile::TempDir::new().unwrap();
    std::fs::write(folder.path().join("tiny.toml"), TASK).unwrap();
    folder
}
