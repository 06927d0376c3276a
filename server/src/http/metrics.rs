//! `GET /metrics`: figures for Prometheus, in its text format (version 0.0.4). No ids of clients or updates are in it.

use std::{
    collections::BTreeMap,
    fmt::Write,
    sync::{Arc, Mutex, PoisonError, atomic::Ordering},
    time::{Duration, Instant},
};

use axum::{
    Extension,
    extract::{MatchedPath, Request, State},
    http::{HeaderMap, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use tracing::Instrument;
use unsaid_protocol::{ProblemKind, RoundPhase};

use super::{
    admin::refuse_token,
    limits::Peer,
    openapi::{OfMetrics, Refusals},
    problem::Refused,
    status::{self, Counts},
};
use crate::{
    relay::{Relay, TaskHandle},
    store::Census,
};

/// Upper ends of the buckets of a request's time, in seconds.
const BUCKETS: [f64; 8] = [0.001, 0.005, 0.025, 0.1, 0.5, 2.5, 10.0, 60.0];

/// How requests were answered. Routes are those of the router, so that nobody can make more lines by asking for other paths.
#[derive(Debug, Default)]
pub struct Requests(Mutex<BTreeMap<(String, String, u16), Answered>>);

#[derive(Debug, Default, Clone, Copy)]
struct Answered {
    count: u64,
    seconds: f64,
    /// Of each bucket, with those of the buckets before it.
    within: [u64; BUCKETS.len()],
}

impl Requests {
    fn count(&self, route: &str, method: &str, status: u16, took: Duration) {
        let mut answered = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = answered
            .entry((route.to_owned(), method.to_owned(), status))
            .or_default();
        let seconds = took.as_secs_f64();
        entry.count += 1;
        entry.seconds += seconds;
        for (within, most) in entry.within.iter_mut().zip(BUCKETS) {
            *within += u64::from(seconds <= most);
        }
    }
}

/// Counts every request, and how long it took to answer (to its first byte: an event stream does not count while it is open). Says so in
/// the log, too, where that is as detailed as `debug`; what is logged meanwhile has the method and the route, never a header or a body.
pub async fn count(State(relay): State<Arc<Relay>>, request: Request, next: Next) -> Response {
    let begun = Instant::now();
    let route = request.extensions().get::<MatchedPath>();
    let route = route.map_or("other", MatchedPath::as_str).to_owned();
    let method = match request.method().as_str() {
        known @ ("GET" | "POST" | "HEAD" | "OPTIONS") => known.to_owned(),
        _ => "other".to_owned(),
    };
    let span = tracing::debug_span!("request", method, route);
    let answer = async {
        let response = next.run(request).await;
        let (status, took) = (response.status().as_u16(), begun.elapsed());
        tracing::debug!(status, ms = took.as_secs_f64() * 1e3, "answered");
        relay.requests.count(&route, &method, status, took);
        response
    };
    answer.instrument(span.clone()).await
}

/// `GET /metrics`. Where the relay has an operator's token, only with it.
#[utoipa::path(get, path = "/metrics", tag = "operator", security((), ("operator" = [])), responses(
    (status = 200, description = "Figures for Prometheus", body = String, content_type = "text/plain"), Refusals<OfMetrics>,
))]
pub async fn metrics(
    State(relay): State<Arc<Relay>>,
    peer: Option<Extension<Peer>>,
    headers: HeaderMap,
) -> Result<impl IntoResponse, Refused> {
    let token = relay.options.admin_token.as_ref();
    if token.is_some_and(|token| !token.is_in(&headers)) {
        let detail = "figures need the header `authorization: Bearer` with the operator's token";
        return Err(refuse_token(&relay, peer.map(|Extension(peer)| peer), detail));
    }
    let kind = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    // A store that fails takes these figures, and no others.
    let census = relay.census().await;
    let tasks = relay.handles();
    let told = tokio::task::spawn_blocking(|| tasks.into_iter().map(Told::of).collect());
    let told: Vec<Told> = told.await.map_err(|_| Refused::internal())?;
    Ok((kind, page(&relay, &told, census)))
}

/// A task, and what is not in memory as it is told.
struct Told {
    task: Arc<TaskHandle>,
    since_start: Counts,
    epsilon: f64,
}

impl Told {
    /// Blocks: the store may be asked.
    fn of(task: Arc<TaskHandle>) -> Self {
        Self {
            since_start: task.tally.counts(),
            epsilon: status::spent(&task).unwrap_or(f64::NAN),
            task,
        }
    }
}

/// A figure of each task: its name, kind and explanation, and how to get it.
type TaskFigure = (&'static str, &'static str, &'static str, fn(&Told) -> f64);

const TASK_FIGURES: [TaskFigure; 15] = [
    ("unsaid_round", "gauge", "The open round.", |task| {
        state(task, |it| it.round as f64)
    }),
    (
        "unsaid_round_checked_in",
        "gauge",
        "Clients checked in to the open round.",
        |task| state(task, |it| it.checked_in.into()),
    ),
    (
        "unsaid_round_received",
        "gauge",
        "Updates counted in the open round.",
        |task| state(task, |it| it.received.into()),
    ),
    (
        "unsaid_task_collecting",
        "gauge",
        "1 while a round collects.",
        |task| state(task, |it| f64::from(u8::from(it.phase == RoundPhase::Collecting))),
    ),
    (
        "unsaid_task_paused",
        "gauge",
        "1 while no clients are let in.",
        |task| state(task, |it| f64::from(u8::from(it.paused))),
    ),
    (
        "unsaid_task_healthy",
        "gauge",
        "1 where the store did its last work for the task.",
        |told| f64::from(u8::from(told.task.outlook.healthy.load(Ordering::Relaxed))),
    ),
    (
        "unsaid_model_accuracy",
        "gauge",
        "Held-out accuracy of the newest evaluated model.",
        |task| evaluated(task, |it| it.accuracy),
    ),
    (
        "unsaid_model_loss",
        "gauge",
        "Held-out loss of the newest evaluated model.",
        |task| evaluated(task, |it| it.loss),
    ),
    (
        "unsaid_model_clients",
        "gauge",
        "Updates in the newest model's aggregate.",
        |told| told.task.outlook.snapshot.borrow().newest.clients.into(),
    ),
    (
        "unsaid_task_epsilon",
        "gauge",
        "Epsilon so far, as status tells it: at delta 1e-5 of a client in every round (of one of its examples, where the noise is on \
         gradients); where the relay adds the noise, of all rounds at the task's delta.",
        |told| told.epsilon,
    ),
    (
        "unsaid_task_identity_epsilon_max",
        "gauge",
        "The most epsilon that the updates of one identity cost, of those that this relay has counted since it started.",
        |told| {
            let dearest = told.task.outlook.snapshot.borrow().dearest;
            dearest.unwrap_or(f64::NAN)
        },
    ),
    (
        "unsaid_check_ins_total",
        "counter",
        "Check-ins that were answered with a round or with waiting, each as often as it was sent.",
        |told| told.since_start.asked as f64,
    ),
    (
        "unsaid_selected_total",
        "counter",
        "Check-ins that were told to train.",
        |told| told.since_start.selected as f64,
    ),
    (
        "unsaid_updates_counted_total",
        "counter",
        "Updates that were counted, each once.",
        |told| told.since_start.reported as f64,
    ),
    (
        "unsaid_updates_late_total",
        "counter",
        "Updates that came after their round had closed.",
        |told| told.since_start.late as f64,
    ),
];

fn state(told: &Told, of: impl Fn(unsaid_protocol::RoundState) -> f64) -> f64 {
    of(told.task.outlook.snapshot.borrow().state(0))
}

fn evaluated(told: &Told, of: impl Fn(&unsaid_protocol::RoundMetrics) -> Option<f64>) -> f64 {
    let snapshot = told.task.outlook.snapshot.borrow();
    snapshot.evaluated.as_ref().and_then(of).unwrap_or(f64::NAN)
}

fn page(relay: &Relay, tasks: &[Told], census: Option<Census>) -> String {
    let mut page = String::new();
    // Writing to a string cannot fail.
    let head = |page: &mut String, name: &str, kind: &str, help: &str| {
        let _ = write!(page, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
    };
    head(&mut page, "unsaid_info", "gauge", "The relay's version.");
    let _ = writeln!(page, "unsaid_info{{version=\"{}\"}} 1", env!("CARGO_PKG_VERSION"));
    let name = "unsaid_uptime_seconds";
    head(&mut page, name, "gauge", "Seconds since the relay was started.");
    let up_ms = relay.clock.now_ms().saturating_sub(relay.started_ms);
    let _ = writeln!(page, "{name} {}", up_ms as f64 / 1_000.0);
    let name = "unsaid_uploads_free";
    head(
        &mut page,
        name,
        "gauge",
        "Updates that could be received now beside those that are.",
    );
    let _ = writeln!(page, "{name} {}", relay.uploads.free());
    if let Some(census) = census {
        for (name, help, value) in [
            (
                "unsaid_identities_enrolled",
                "Identities that were enrolled, with those that were revoked.",
                census.enrolled,
            ),
            (
                "unsaid_identities_revoked",
                "Identities that were revoked.",
                census.revoked,
            ),
            (
                "unsaid_invitations_unused",
                "Invitations that nobody has used.",
                census.invitations,
            ),
        ] {
            head(&mut page, name, "gauge", help);
            let _ = writeln!(page, "{name} {value}");
        }
    }
    for (name, kind, help, of) in TASK_FIGURES {
        head(&mut page, name, kind, help);
        for told in tasks {
            let (id, value) = (&told.task.config.manifest.task, of(told));
            let value = if value.is_nan() {
                "NaN".to_owned()
            } else {
                value.to_string()
            };
            let _ = writeln!(page, "{name}{{task=\"{id}\"}} {value}");
        }
    }
    let name = "unsaid_refused_total";
    let help = "Check-ins and updates that were refused, by the last part of the problem's type.";
    head(&mut page, name, "counter", help);
    for told in tasks {
        // Every kind that there is, and no other: a rate needs to see the zero before the first one.
        for kind in ProblemKind::ALL.map(status::kind) {
            let (id, count) = (
                &told.task.config.manifest.task,
                told.since_start.refused.get(kind),
            );
            let count = count.copied().unwrap_or_default();
            let _ = writeln!(page, "{name}{{task=\"{id}\",kind=\"{kind}\"}} {count}");
        }
    }
    let name = "unsaid_http_request_seconds";
    head(
        &mut page,
        name,
        "histogram",
        "Time to the first byte of an answer.",
    );
    let answered = relay.requests.0.lock().unwrap_or_else(PoisonError::into_inner);
    for ((route, method, status), it) in &*answered {
        let labels = format!("route=\"{route}\",method=\"{method}\",status=\"{status}\"");
        for (within, most) in it.within.iter().zip(BUCKETS) {
            let _ = writeln!(page, "{name}_bucket{{{labels},le=\"{most}\"}} {within}");
        }
        let _ = writeln!(page, "{name}_bucket{{{labels},le=\"+Inf\"}} {}", it.count);
        let _ = writeln!(page, "{name}_sum{{{labels}}} {}", it.seconds);
        let _ = writeln!(page, "{name}_count{{{labels}}} {}", it.count);
    }
    page
}
