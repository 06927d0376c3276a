//! The real program, killed with SIGKILL at moments that a seed chooses, while clients report.

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{Arc, RwLock},
    time::Duration,
};

use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};
use tempfile::TempDir;
use unsaid_protocol::{CheckInReply, RoundState};

use crate::harness::*;

const CLIENTS: u8 = 24;
const KILLS: u32 = 8;

struct Program {
    child: Child,
    base: String,
}

impl Program {
    fn start(folder: &Path, rule: &str) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_unsaid-relay"))
            .args(["serve", "--listen", "127.0.0.1:0", "--task"])
            .arg(folder.join("tiny.toml"))
            .arg("--store")
            .arg(folder.join("relay.redb"))
            .args(["--set", &format!("rounds.target_clients={CLIENTS}")])
            .args(["--set", &format!("rounds.min_clients={CLIENTS}")])
            .args(["--set", &format!("strategy.aggregation.type={rule}")])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
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

    /// SIGKILL: no handler runs, nothing is flushed.
    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// A client that tries until it is acknowledged, and then never sends again. Returns how often it had to.
async fn report(client: u8, address: Arc<RwLock<String>>, state: RoundState, delay: Duration) -> u32 {
    let api = || Api::new(&address.read().unwrap());
    tokio::time::sleep(delay).await;
    loop {
        match api().try_check_in(client, state.manifest).await {
            Ok(Ok(CheckInReply::Train { round: 1, .. })) => break,
            Ok(other) => panic!("client {client}: {other:?}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
    tokio::time::sleep(delay / 2).await;
    let bytes = frame(&state, client).encode();
    for attempt in 1.. {
        match api().try_send(bytes.clone()).await {
            Ok(Ok(_)) => return attempt,
            Ok(Err(refused)) => panic!("client {client}: {refused:?}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
    unreachable!()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_acknowledged_update_is_counted_exactly_once_whenever_the_relay_is_killed() {
    for (seed, rule) in [(0, "mean"), (1, "mean"), (2, "mean"), (3, "coordinate-median")] {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut pick = |below_ms: u64| Duration::from_millis(rng.next_u64() % below_ms);
        let folder = TempDir::new().unwrap();
        std::fs::write(folder.path().join("tiny.toml"), TASK).unwrap();
        let mut program = Program::start(folder.path(), rule);
        let state = Api::new(&program.base).state().await;
        let before = Api::new(&program.base).model(state.model).await;
        let address = Arc::new(RwLock::new(program.base.clone()));
        let clients: Vec<_> = (1..=CLIENTS)
            .map(|client| tokio::spawn(report(client, address.clone(), state.clone(), pick(1_200))))
            .collect();
        for _ in 0..KILLS {
            tokio::time::sleep(pick(250)).await;
            program.kill();
            program = Program::start(folder.path(), rule);
            *address.write().unwrap() = program.base.clone();
        }
        let mut attempts = 0;
        for client in clients {
            attempts += client.await.unwrap();
        }
        // All are acknowledged, and the round needs every one of them: one that was lost would keep it open, one that was
        // counted twice would change the model.
        let api = Api::new(&program.base);
        let rounds = api.rounds().await;
        assert_eq!(rounds.len(), 2, "seed {seed}");
        assert_eq!(rounds[1].clients, u32::from(CLIENTS), "seed {seed}");
        let all: Vec<u8> = (1..=CLIENTS).collect();
        let expected = match rule {
            "mean" => expected_model(&before, &all),
            _ => expected_median(&before, &all),
        };
        assert_eq!(rounds[1].model, expected, "seed {seed}");
        eprintln!("seed {seed}: {KILLS} kills, {attempts} attempts for {CLIENTS} updates");
        program.kill();
    }
}

#[test]
fn a_terminated_program_ends_in_good_order() {
    let folder = TempDir::new().unwrap();
    std::fs::write(folder.path().join("tiny.toml"), TASK).unwrap();
    let mut program = Program::start(folder.path(), "mean");
    let stopped = Command::new("kill")
        .arg(program.child.id().to_string())
        .status()
        .unwrap();
    assert!(stopped.success());
    assert!(program.child.wait().unwrap().success());
}
