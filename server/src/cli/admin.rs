//! `unsaid-relay admin`: the operator's calls to a running relay.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use hyper::{Method, header};
use serde_json::Value;

use super::{
    CommandResult,
    call::{Operator, Remote, refusal},
    out::say,
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
    /// Make invitations, each of which lets one person enrol an identity: one a line. They are told once.
    Invite {
        /// How many, up to 1,000.
        #[arg(long, default_value = "1", value_parser = clap::value_parser!(u64).range(1..=1000))]
        count: u64,
    },
    /// List identities: one JSON object a line, with what each task counted of it and the ε of that.
    Identities,
    /// Revoke an identity, for good: nothing more of it is counted. What was counted stays.
    Revoke {
        /// The identity's id.
        identity: String,
    },
}

pub(super) fn run(options: &Admin) -> CommandResult {
    let remote = Remote::new(&options.operator)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let (path, kind, body) = match &options.call {
        Call::Identities => return runtime.block_on(list(&remote)),
        Call::Invite { count } => {
            let body = serde_json::json!({ "count": count }).to_string();
            let answer = runtime.block_on(ask(&remote, Method::POST, "/v1/admin/invitations", JSON, body))?;
            let answer: Value = serde_json::from_str(&answer)?;
            for invitation in answer["invitations"].as_array().into_iter().flatten() {
                say!("{}", invitation.as_str().unwrap_or_default());
            }
            return Ok(());
        }
        Call::Revoke { identity } => {
            let path = format!("/v1/admin/identities/{identity}/revoke");
            let answer = runtime.block_on(ask(&remote, Method::POST, &path, JSON, String::new()))?;
            say!("{answer}");
            return Ok(());
        }
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
    let path = format!("/v1/admin/tasks{path}");
    let answer = runtime.block_on(ask(&remote, Method::POST, &path, kind, body))?;
    say!("{answer}");
    Ok(())
}

/// Every page of the list of identities.
async fn list(remote: &Remote) -> CommandResult {
    let mut path = "/v1/admin/identities".to_owned();
    loop {
        let page: Value = serde_json::from_str(&ask(remote, Method::GET, &path, JSON, String::new()).await?)?;
        for identity in page["identities"].as_array().into_iter().flatten() {
            say!("{identity}");
        }
        match page["after"].as_str() {
            Some(after) => path = format!("/v1/admin/identities?after={after}"),
            None => return Ok(()),
        }
    }
}

/// The relay's answer; an error where it is no success.
async fn ask(
    remote: &Remote,
    method: Method,
    path: &str,
    kind: &'static str,
    body: String,
) -> Result<String, Box<dyn std::error::Error>> {
    let headers = [(header::CONTENT_TYPE, kind)];
    let (status, answer) = remote.ask(method, path, &headers, body).await?;
    if status == 200 {
        Ok(answer)
    } else {
        Err(refusal(status, &answer).into())
    }
}
