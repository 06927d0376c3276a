//! Calls to a running relay, over HTTP or HTTPS.

use std::{net::IpAddr, path::PathBuf, sync::Arc};

use axum::body::Body;
use clap::Args;
use hyper::{Method, Request, Uri, header};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::{
    TlsConnector,
    rustls::{self, ClientConfig, pki_types::ServerName},
};
use unsaid_protocol::Problem;
use unsaid_relay::{secret, tls};

/// The most bytes of an answer.
const MAX_ANSWER_BYTES: usize = 16 << 20;

type Failed = Box<dyn std::error::Error>;

/// Which relay, and as whom.
#[derive(Debug, Args)]
pub(super) struct Operator {
    /// The relay's address: `http://…` or `https://…`. The token is sent there: over plain HTTP only on the relay's own machine, or
    /// through a tunnel.
    #[arg(long, global = true, default_value = "http://127.0.0.1:8787")]
    relay: String,
    /// The file of the operator's token.
    #[arg(long, global = true, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Trust the certificates (PEM) of this file and no others, instead of those that the operating system trusts.
    #[arg(long, global = true, value_name = "FILE")]
    ca_cert: Option<PathBuf>,
}

/// A relay that can be asked.
pub(super) struct Remote {
    host: String,
    authority: String,
    port: u16,
    token: String,
    tls: Option<Arc<ClientConfig>>,
}

impl Remote {
    pub(super) fn new(operator: &Operator) -> Result<Self, Failed> {
        let file = operator.token_file.as_ref();
        let file = file.ok_or("--token-file FILE is needed: the operator's token is in it")?;
        let token = secret::read(file)?;
        let wrong = || {
            format!(
                "{} is no address of a relay: http://HOST:PORT or https://HOST:PORT",
                operator.relay
            )
        };
        let address: Uri = operator.relay.parse().map_err(|_| wrong())?;
        let (tls, default_port) = match address.scheme_str() {
            Some("http") => (None, 80),
            Some("https") => (Some(tls::client(operator.ca_cert.as_deref())?), 443),
            _ => return Err(wrong().into()),
        };
        let authority = address.authority().ok_or_else(wrong)?;
        let host = authority.host().trim_matches(['[', ']']);
        let is_here = host == "localhost" || host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback());
        if tls.is_none() && !is_here {
            eprintln!(
                "warning: the token goes to {host} over plain HTTP, where others may read it: use https://, or a tunnel"
            );
        }
        if !matches!(address.path(), "" | "/") {
            return Err(wrong().into());
        }
        Ok(Self {
            host: host.to_owned(),
            port: authority.port_u16().unwrap_or(default_port),
            authority: authority.to_string(),
            token: token.trim().to_owned(),
            tls,
        })
    }

    /// Sends one request on a connection of its own: the status, and the answer's text.
    pub(super) async fn ask(
        &self,
        method: Method,
        path: &str,
        headers: &[(header::HeaderName, &str)],
        body: String,
    ) -> Result<(u16, String), Failed> {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, &self.authority)
            .header(header::AUTHORIZATION, format!("Bearer {}", self.token));
        for (name, value) in headers {
            request = request.header(name, *value);
        }
        let request = request.body(Body::from(body))?;
        let stream = TcpStream::connect((self.host.as_str(), self.port))
            .await
            .map_err(|error| format!("{}: {error}", self.authority))?;
        let authority = &self.authority;
        let Some(tls) = &self.tls else {
            let answer = exchange(stream, request).await;
            return answer.map_err(|error| {
                format!("http://{authority}: {error}; if the relay speaks HTTPS, ask https://{authority}")
                    .into()
            });
        };
        let name = ServerName::try_from(self.host.clone())?;
        let stream = TlsConnector::from(tls.clone()).connect(name, stream).await;
        let stream = stream.map_err(|error| {
            let hint = match error.get_ref().and_then(|it| it.downcast_ref()) {
                Some(rustls::Error::InvalidMessage(_)) => {
                    format!("; if the relay speaks plain HTTP, ask http://{authority}")
                }
                _ => String::new(),
            };
            format!("https://{authority}: {error}{hint}")
        })?;
        exchange(stream, request).await
    }
}

/// What an answer that is no success says, as text for people.
pub(super) fn refusal(status: u16, answer: &str) -> String {
    match serde_json::from_str::<Problem>(answer) {
        Ok(problem) => {
            let kind = problem.urn.rsplit(':').next().unwrap_or_default();
            format!("the relay answered {status} ({kind}): {}", problem.detail)
        }
        Err(_) => format!("the relay answered {status}: {answer}"),
    }
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Body>,
) -> Result<(u16, String), Failed> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let exchange = async {
        let response = sender.send_request(request).await?;
        let status = response.status().as_u16();
        let body = axum::body::to_bytes(Body::new(response.into_body()), MAX_ANSWER_BYTES).await?;
        drop(sender);
        Ok::<_, Failed>((status, String::from_utf8_lossy(&body).into_owned()))
    };
    let (answer, _) = tokio::join!(exchange, connection);
    answer
}
