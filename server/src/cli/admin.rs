//! `unsaid-relay admin`: the operator's calls to a running relay.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use hyper::{Method, header};

use super::{
    CommandResult,
    call::{Operator, Remote},
};

const JSON: &str = "application/json";

#[derive(Debug, Args)]
pub(super) struct Admin {
    #[command(subcommand)]
    call: Call,
    #[command(flatten)]
    operator: Operator,
}

#[derive(Debug, Subcommand)]
enum Call {
    /// Add a task to a relay that was started with --tasks.
    Add {
        /// The task file.
        file: PathBuf,
    },
    /// Let no more clients in. The open round goes on with those that are in.
    Pause {
        /// The task's id.
        task: String,
    },
    /// Let clients in again.
    Resume {
        /// The task's id.
        task: String,
    },
    /// Go back to the model of an earlier round, in a round of its own. The task must be paused; updates of the open round are
    /// given up.
    Rollback {
        /// The task's id.
        task: String,
        /// The round whose model is to be the newest.
        #[arg(long)]
        round: u64,
    },
}

pub(super) fn run(options: &Admin) -> CommandResult {
    let (path, kind, body) = match &options.call {
        Call::Add { file } => {
            let text =
                std::fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
            (String::new(), "application/toml", text)
        }
        Call::Pause { task } => (format!("/{task}/pause"), JSON, String::new()),
        Call::Resume { task } => (format!("/{task}/resume"), JSON, String::new()),
        Call::Rollback { task, round } => {
            let body = serde_json::json!({ "round": round }).to_string();
            (format!("/{task}/rollback"), JSON, body)
        }
    };
    let remote = Remote::new(&options.operator)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let path = format!("/v1/admin/tasks{path}");
    let headers = [(header::CONTENT_TYPE, kind)];
    let (status, answer) = runtime.block_on(remote.ask(Method::POST, &path, &headers, body))?;
    if status != 200 {
        return Err(format!("the relay answered {status}: {answer}").into());
    }
    println!("{answer}");
    Ok(())
}
