//! Child processes. Each runs in a process group of its own, and every group still alive is stopped when this program ends,
//! fails or is interrupted.

use std::{
    io::{BufRead, BufReader, Read, Write},
    os::unix::process::CommandExt,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};

/// How long a child has between being asked to stop and being killed.
const GRACE: Duration = Duration::from_secs(4);

static INTERRUPTED: AtomicBool = AtomicBool::new(false);
static GROUPS: Mutex<Vec<i32>> = Mutex::new(Vec::new());

fn groups() -> MutexGuard<'static, Vec<i32>> {
    GROUPS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// From now on Ctrl-C, SIGTERM and SIGHUP stop the children first.
pub(crate) fn stop_children_on_signals() -> Result<()> {
    ctrlc::set_handler(|| {
        INTERRUPTED.store(true, Ordering::SeqCst);
        eprintln!("\n==> stopping");
        stop_all_children();
        // One that was being started just then.
        thread::sleep(Duration::from_millis(100));
        stop_all_children();
        std::process::exit(130);
    })
    .context("signals cannot be handled")
}

/// Whether this program is being stopped: then children that end are no news. The signal's own thread ends the program.
pub(crate) fn interrupted() -> bool {
    INTERRUPTED.load(Ordering::SeqCst)
}

/// Stops every process group that is still alive.
pub(crate) fn stop_all_children() {
    let all = std::mem::take(&mut *groups());
    stop(&all);
}

fn stop(groups: &[i32]) {
    let alive = |group: &i32| killpg(Pid::from_raw(*group), None).is_ok();
    for group in groups {
        let _ = killpg(Pid::from_raw(*group), Signal::SIGTERM);
    }
    let start = Instant::now();
    while start.elapsed() < GRACE && groups.iter().any(alive) {
        thread::sleep(Duration::from_millis(20));
    }
    for group in groups.iter().filter(|group| alive(group)) {
        let _ = killpg(Pid::from_raw(*group), Signal::SIGKILL);
    }
}

/// A running child; its whole process group is stopped when this is dropped.
pub(crate) struct Running {
    child: Child,
    group: i32,
}

impl Running {
    /// Starts `command` without standard input unless one was asked for.
    pub(crate) fn start(command: &mut Command) -> Result<Self> {
        while interrupted() {
            thread::park();
        }
        command.process_group(0);
        let line = describe(command);
        let child = command
            .spawn()
            .with_context(|| format!("`{line}` cannot be started"))?;
        let group = i32::try_from(child.id()).context("a process id that does not fit")?;
        groups().push(group);
        Ok(Self { child, group })
    }

    pub(crate) fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    fn wait(&mut self) -> Result<ExitStatus> {
        self.child.wait().context("a child cannot be waited for")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Reaping the child first would free its id, and with it the name of the group; so it is signalled first.
        let exited = matches!(self.child.try_wait(), Ok(Some(_)));
        if !exited {
            let _ = killpg(Pid::from_raw(self.group), Signal::SIGTERM);
            let start = Instant::now();
            while start.elapsed() < GRACE && matches!(self.child.try_wait(), Ok(None)) {
                thread::sleep(Duration::from_millis(20));
            }
        }
        let _ = killpg(Pid::from_raw(self.group), Signal::SIGKILL);
        let _ = self.child.wait();
        groups().retain(|group| *group != self.group);
    }
}

/// The command as one would type it.
pub(crate) fn describe(command: &Command) -> String {
    let quote = |text: &std::ffi::OsStr| {
        let text = text.to_string_lossy();
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_=+./:,@%".contains(c);
        if !text.is_empty() && text.chars().all(plain) {
            text.into_owned()
        } else {
            format!("'{}'", text.replace('\'', r"'\''"))
        }
    };
    let variables = command
        .get_envs()
        .filter_map(|(name, value)| Some(format!("{}={} ", name.to_string_lossy(), quote(value?))));
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let words: Vec<String> = words.map(quote).collect();
    format!("{}{}", variables.collect::<String>(), words.join(" "))
}

/// Runs `command` to its end with its output on the terminal.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    command.stdin(Stdio::null());
    let status = Running::start(command)?.wait()?;
    if !status.success() {
        bail!("`{}` failed ({status})", describe(command));
    }
    Ok(())
}

/// Runs `command` to its end and returns what it printed; its standard error goes into the error where it fails.
pub(crate) fn capture(command: &mut Command) -> Result<String> {
    command.stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let line = describe(command);
    let output = command
        .output()
        .with_context(|| format!("`{line}` cannot be started"))?;
    if !output.status.success() {
        let reason = String::from_utf8_lossy(&output.stderr);
        bail!("`{line}` failed ({}): {}", output.status, reason.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs `command` with its output swallowed; true where it ended well within `limit`.
pub(crate) fn succeeds_within(command: &mut Command, limit: Duration) -> bool {
    command.stdin(Stdio::null());
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let Ok(mut running) = Running::start(command) else {
        return false;
    };
    let start = Instant::now();
    while start.elapsed() < limit {
        match running.child.try_wait() {
            Ok(Some(status)) => return status.success(),
            Ok(None) => thread::sleep(Duration::from_millis(50)),
            Err(_) => return false,
        }
    }
    false
}

/// What became of a command whose output was kept.
pub(crate) struct Finished {
    pub(crate) success: bool,
    pub(crate) lines: Vec<String>,
}

/// Runs `command` to its end; every line of its output is shown at once, and kept.
pub(crate) fn tee(command: &mut Command) -> Result<Finished> {
    finish(command, true)
}

/// Runs `command` to its end and keeps every line of its output, of which none is shown.
pub(crate) fn keep(command: &mut Command) -> Result<Finished> {
    finish(command, false)
}

fn finish(command: &mut Command, show: bool) -> Result<Finished> {
    command.stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut running = Running::start(command)?;
    let lines = Arc::new(Mutex::new(Vec::new()));
    let child = running.child();
    let mut readers = Vec::new();
    if let Some(pipe) = child.stdout.take() {
        readers.push(keep_lines(pipe, &lines, show));
    }
    if let Some(pipe) = child.stderr.take() {
        readers.push(keep_lines(pipe, &lines, show));
    }
    let status = running.wait()?;
    // A grandchild that outlived the child would hold the pipes open; it goes with the group.
    drop(running);
    for reader in readers {
        let _ = reader.join();
    }
    let lines = std::mem::take(&mut *lines.lock().unwrap_or_else(PoisonError::into_inner));
    Ok(Finished {
        success: status.success(),
        lines,
    })
}

fn keep_lines(
    pipe: impl Read + Send + 'static,
    lines: &Arc<Mutex<Vec<String>>>,
    show: bool,
) -> thread::JoinHandle<()> {
    let lines = Arc::clone(lines);
    thread::spawn(move || {
        let mut pipe = BufReader::new(pipe);
        let mut bytes = Vec::new();
        while matches!(pipe.read_until(b'\n', &mut bytes), Ok(length) if length > 0) {
            let line = String::from_utf8_lossy(&bytes).trim_end().to_owned();
            if show {
                let _ = writeln!(std::io::stdout(), "{line}");
            }
            lines.lock().unwrap_or_else(PoisonError::into_inner).push(line);
            bytes.clear();
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_child_takes_its_children_with_it() {
        let mut shell = Command::new("sh");
        shell.args(["-c", "sleep 300 & echo $!; wait"]);
        shell.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut running = Running::start(&mut shell).unwrap();
        let mut line = String::new();
        let pipe = running.child().stdout.take().unwrap();
        BufReader::new(pipe).read_line(&mut line).unwrap();
        let grandchild = Pid::from_raw(line.trim().parse().unwrap());
        assert!(nix::sys::signal::kill(grandchild, None).is_ok());
        drop(running);
        // It is init's (or a subreaper's) to reap, so it may linger as a zombie for a moment.
        let gone = || {
            let status = std::fs::read_to_string(format!("/proc/{grandchild}/stat"));
            status.map_or(true, |status| status.contains(") Z "))
        };
        let start = Instant::now();
        while !gone() {
            assert!(
                start.elapsed() < Duration::from_secs(5),
                "the grandchild lives on"
            );
            thread::sleep(Duration::from_millis(10));
        }
    }

    #[test]
    fn both_streams_are_kept_and_failure_is_seen() {
        let mut shell = Command::new("sh");
        let finished = tee(shell.args(["-c", "echo out; echo err >&2; exit 3"])).unwrap();
        assert!(!finished.success);
        let mut lines = finished.lines;
        lines.sort();
        assert_eq!(lines, ["err", "out"]);
    }

    #[test]
    fn a_command_that_does_not_end_in_time_has_not_succeeded() {
        let start = Instant::now();
        assert!(!succeeds_within(
            Command::new("sleep").arg("300"),
            Duration::from_millis(100)
        ));
        assert!(start.elapsed() < Duration::from_secs(30));
    }

    #[test]
    fn a_command_is_described_as_one_would_type_it() {
        let mut command = Command::new("cargo");
        command.arg("test").arg("a b").env("CI", "true");
        assert_eq!(describe(&command), "CI=true cargo test 'a b'");
    }
}
