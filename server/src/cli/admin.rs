//! `unsaid-relay admin`: the operator's calls to a running relay.

use std::path::PathBuf;

use axum::body::Body;
use clap::{Args, Subcommand};
use hyper::{Request, header};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::CommandResult;

const JSON: &str = "application/json";

/// The most bytes of an answer.
const MAX_ANSWER_BYTES: usize = 1 << 20;

#[derive(Debug, Args)]
pub(super) struct Admin {
    #[command(subcommand)]
    call: Call,
    /// The relay's address. Plain HTTP only: run this on the relay's machine, or through a tunnel.
    #[arg(long, global = true, default_value = "http://127.0.0.1:8787")]
    relay: String,
    /// The file of the operator's token.
    #[arg(long, global = true, value_name = "FILE")]
    token_file: Option<PathBuf>,
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
    let file = options
        .token_file
        .as_ref()
        .ok_or("--token-file FILE is needed: the operator's token is in it")?;
    let token = std::fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
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
    let address = options
        .relay
        .strip_prefix("http://")
        .ok_or("the relay's address must begin with http://")?
        .trim_end_matches('/');
    let request = Request::post(format!("/v1/admin/tasks{path}"))
        .header(header::HOST, address)
        .header(header::AUTHORIZATION, format!("Bearer {}", token.trim()))
        .header(header::CONTENT_TYPE, kind)
        .body(Body::from(body))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let (status, answer) = runtime.block_on(ask(address, request))?;
    if status != 200 {
        return Err(format!("the relay answered {status}: {answer}").into());
    }
    println!("{answer}");
    Ok(())
}

async fn ask(address: &str, request: Request<Body>) -> Result<(u16, String), Box<dyn std::error::Error>> {
    let address = if address.contains(':') {
        address.to_owned()
    } else {
        format!("{address}:80")
    };
    let stream = TcpStream::connect(&address)
        .await
        .map_err(|error| format!("{address}: {error}"))?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let exchange = async {
        let response = sender.send_request(request).await?;
        let status = response.status().as_u16();
        let body = axum::body::to_bytes(Body::new(response.into_body()), MAX_ANSWER_BYTES).await?;
        drop(sender);
        Ok::<_, Box<dyn std::error::Error>>((status, String::from_utf8_lossy(&body).into_owned()))
    };
    let (answer, _) = tokio::join!(exchange, connection);
    answer
}
