//! Whole requests to a relay: methods, paths, queries, headers and bodies, as its router has them from the network.

use std::{
    cell::RefCell,
    fs::File,
    io::Write,
    net::{IpAddr, Ipv4Addr},
    os::unix::fs::OpenOptionsExt,
    sync::{Arc, OnceLock},
};

use axum::{
    body::{Body, to_bytes},
    http::{Request, header},
};
use ed25519_dalek::{Signer, SigningKey};
use tokio::runtime::Runtime;
use tower::ServiceExt;
use unsaid_protocol::{
    CheckIn, ClientId, ContentHash, Credential, Problem, PublicKey, Signature, SignedUpdate, UpdateFrame,
    UpdateId,
    identity::{check_in_bytes, enrolment_bytes, update_bytes},
};
use unsaid_relay::{
    Relay, RelayOptions, app,
    clock::Clock,
    http::{
        admin::AdminToken,
        forwarded::{Network, origin},
        limits::Peer,
    },
    key::RelayKey,
    store::{RedbStore, Store},
    task_file::Task,
};

use super::{Bytes, NOW_MS, relay::Stopped};

const TINY: &str = include_str!("../../server/tests/tiny.toml");

/// The operator's token, which `{token}` stands for.
const TOKEN: &str = "operator-0123456789";

/// Rounds that nobody fills, so that all inputs find the relay in the same one.
const OPEN: [&str; 2] = ["rounds.target_clients=65536", "rounds.min_clients=65536"];

/// The most bytes of an answer.
const MOST_ANSWER: usize = 1 << 20;

/// A relay with a task that everybody may take part in, `tiny`, and one for identities, `signed`.
struct Target {
    relay: Arc<Relay>,
    key: PublicKey,
    /// The key of a client.
    client: SigningKey,
    /// Who passes requests on.
    proxies: [Network; 2],
}

impl Target {
    /// Its files are deleted while it has them open.
    fn start() -> Option<Self> {
        let folder = tempfile::TempDir::new().ok()?;
        let key = folder.path().join("relay.key");
        let mut file = File::options()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&key)
            .ok()?;
        writeln!(file, "{}", ContentHash::from_bytes([7; 32])).ok()?;
        let key = RelayKey::read(&key).ok()?;
        let of = |more: &[&str]| {
            let overrides: Vec<String> = OPEN.iter().chain(more).map(|&it| it.to_owned()).collect();
            Task::parse("tiny.toml", TINY, &overrides).ok()
        };
        let signed = of(&["task=\"signed\"", "identity.required=open"])?;
        let store: Arc<dyn Store> = Arc::new(RedbStore::open(&folder.path().join("relay.redb")).ok()?);
        let clock: Arc<dyn Clock> = Arc::new(Stopped);
        let public = key.public_key();
        let options = RelayOptions {
            admin_token: AdminToken::new(TOKEN),
            key: Some(key),
            ..RelayOptions::default()
        };
        Some(Self {
            relay: Relay::open(vec![of(&[])?, signed], &store, &clock, options).ok()?,
            key: public,
            client: SigningKey::from_bytes(&[9; 32]),
            proxies: ["127.0.0.0/8".parse().ok()?, "2001:db8::/33".parse().ok()?],
        })
    }

    fn sign(&self, bytes: &[u8]) -> Signature {
        Signature::from_bytes(self.client.sign(bytes).to_bytes())
    }

    fn public(&self) -> PublicKey {
        PublicKey::from_bytes(self.client.verifying_key().to_bytes())
    }

    /// Puts in what an input cannot know, or cannot compute.
    fn fill(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for handle in self.relay.handles() {
            let name = format!("{{manifest of {}}}", handle.config.manifest.task);
            text = text.replace(&name, &handle.config.manifest_hash.to_string());
        }
        let signature = self.sign(&enrolment_bytes(&self.key, &self.public(), None));
        text.replace("{model}", &self.model().to_string())
            .replace("{client}", &self.public().to_string())
            .replace("{enrolment}", &signature.to_string())
            .replace("{token}", TOKEN)
    }

    fn model(&self) -> ContentHash {
        let handles = self.relay.handles();
        let model = |it: &Arc<unsaid_relay::relay::TaskHandle>| it.outlook.snapshot.borrow().newest.model;
        handles.first().map_or(ContentHash::of(b""), model)
    }

    /// A body: text, or behind `{frame}` what an update is made of.
    fn body(&self, body: &[u8], signed: bool) -> Vec<u8> {
        if let Some(parts) = body.strip_prefix(b"{frame}") {
            let mut parts = Bytes(parts);
            let [update, client, round] = parts.take();
            let handles = self.relay.handles();
            let task = if signed { handles.first() } else { handles.last() };
            let frame = UpdateFrame {
                update: UpdateId::from_bytes([update; 16]),
                client: ClientId::from_bytes([client; 16]),
                manifest: task.map_or(ContentHash::of(b""), |it| it.config.manifest_hash),
                model: self.model(),
                round: round.into(),
                coordinates: (0..8).map(|_| i16::from_le_bytes(parts.take()).into()).collect(),
            };
            return frame.encode();
        }
        match std::str::from_utf8(body) {
            Ok(text) => self.fill(text).into_bytes(),
            Err(_) => body.to_vec(),
        }
    }

    /// The credential that `{signature}` stands for: of a check-in or an update, whichever the body is.
    fn credential(&self, body: &[u8]) -> String {
        let (signed, time_ms) = if let Ok(ask) = serde_json::from_slice::<CheckIn>(body) {
            (check_in_bytes(&self.key, &ask, NOW_MS), Some(NOW_MS))
        } else if let Ok((frame, _)) = UpdateFrame::read(body) {
            (update_bytes(&self.key, &SignedUpdate::of(&frame, body)), None)
        } else {
            return String::new();
        };
        let credential = Credential {
            key: self.public(),
            signature: self.sign(&signed),
            time_ms,
        };
        credential.to_string()
    }

    fn request(&self, head: &str, body: &[u8]) -> Option<Request<Body>> {
        let head = self.fill(head);
        let mut lines = head.lines();
        let (method, path) = lines.next()?.split_once(' ')?;
        let body = self.body(body, path.contains("signed"));
        let mut request = Request::builder().method(method).uri(path);
        for line in lines {
            let (name, value) = line.split_once(": ")?;
            let value = value.replace("{signature}", &self.credential(&body));
            request = request.header(name, value);
        }
        request.body(Body::from(body)).ok()
    }

    /// Whether a request was granted. A refusal is a problem document that says the same as its status, and none is the relay's fault.
    async fn ask(&self, mut request: Request<Body>) -> bool {
        let (peer, proxies) = (IpAddr::V4(Ipv4Addr::LOCALHOST), self.proxies);
        let from = origin(peer, request.headers(), &proxies);
        assert_eq!(
            origin(peer, request.headers(), &[]),
            peer,
            "nobody but a proxy says so"
        );
        request.extensions_mut().insert(Peer(from));
        let answer = match app(self.relay.clone()).oneshot(request).await {
            Ok(answer) => answer,
            Err(never) => match never {},
        };
        let status = answer.status();
        let kind = answer.headers().get(header::CONTENT_TYPE).cloned();
        let kind = kind.as_ref().and_then(|it| it.to_str().ok()).unwrap_or_default();
        if status.is_client_error() || status.is_server_error() {
            assert!(!status.is_server_error(), "{status}");
            assert_eq!(kind, "application/problem+json", "{status}");
            let retry = answer.headers().contains_key(header::RETRY_AFTER);
            let document = to_bytes(answer.into_body(), MOST_ANSWER)
                .await
                .unwrap_or_default();
            if !document.is_empty() {
                let problem = serde_json::from_slice::<Problem>(&document).ok();
                let problem = problem.filter(|it| it.status == status.as_u16());
                let kind = problem.and_then(|it| it.kind());
                assert_eq!(
                    kind.map(unsaid_protocol::ProblemKind::is_temporary),
                    Some(retry),
                    "{status}"
                );
            }
        } else if kind != "text/event-stream" {
            assert!(to_bytes(answer.into_body(), MOST_ANSWER).await.is_ok());
        }
        status.is_success()
    }
}

/// A request: a line with method and path, lines of headers, an empty line, and the body. What it cannot know is filled in. Whatever
/// it is, the relay answers, and never that it has a fault.
pub fn requests(bytes: &[u8]) -> bool {
    static TARGET: OnceLock<Option<Target>> = OnceLock::new();
    thread_local! {
        static RUNTIME: RefCell<Option<Runtime>> = RefCell::new(
            tokio::runtime::Builder::new_current_thread().enable_all().build().ok(),
        );
    }
    let target = TARGET.get_or_init(Target::start).as_ref();
    let Some(split) = bytes.windows(2).position(|two| two == b"\n\n") else {
        return false;
    };
    let Ok(head) = std::str::from_utf8(&bytes[..split]) else {
        return false;
    };
    // A relay that does not start is a failure of the replay: nothing would ever be granted.
    let Some(target) = target else {
        return false;
    };
    let Some(request) = target.request(head, &bytes[split + 2..]) else {
        return false;
    };
    RUNTIME.with_borrow(|runtime| {
        runtime
            .as_ref()
            .is_some_and(|it| it.block_on(target.ask(request)))
    })
}
