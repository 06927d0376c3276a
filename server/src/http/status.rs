//! `GET /v1/admin/status`: everything that an operator looks at, in one answer.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError, atomic::Ordering},
};

use axum::{Json, extract::State, http::header, response::IntoResponse};
use serde::Serialize;
use unsaid_protocol::{CheckInReply, ContentHash, Privacy, Problem, ProblemKind, RoundState, UpdateReply};
use utoipa::ToSchema;

use super::{
    openapi::{OfStatus, Refusals},
    problem::Refused,
};
use crate::{
    lineage::{DELTA, RoundRecord},
    relay::{Relay, TaskHandle},
    strategy::Strategy,
};

/// The newest rounds of each task that are told.
const ROUNDS: u16 = 500;

/// What happened in a task since the relay was started.
#[derive(Debug, Default)]
pub struct Tally(Mutex<Counts>);

/// The way of clients through a task since the relay was started, and what was refused.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct Counts {
    /// Check-ins that were answered with a round or with waiting, each as often as it was sent.
    pub asked: u64,
    /// Of these, those that were told to train.
    pub selected: u64,
    /// Updates that were counted, each once.
    pub reported: u64,
    /// Updates that came after their round had closed.
    pub late: u64,
    /// Requests that were refused, by the last part of the problem's type.
    pub refused: BTreeMap<String, u64>,
}

impl Tally {
    fn change(&self, change: impl FnOnce(&mut Counts)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// The counts as they are.
    pub fn counts(&self) -> Counts {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Counts the answer to a check-in.
    pub fn check_in(&self, answer: &Result<CheckInReply, Refused>) {
        match answer {
            Ok(reply) => self.change(|it| {
                it.asked += 1;
                it.selected += u64::from(matches!(reply, CheckInReply::Train { .. }));
            }),
            Err(Refused(problem)) => self.refuse(problem),
        }
    }

    /// Counts the answer to an update.
    pub fn update(&self, answer: &Result<UpdateReply, Refused>) {
        match answer {
            Ok(reply) => self.change(|it| it.reported += u64::from(!reply.duplicate)),
            Err(Refused(problem)) => self.refuse(problem),
        }
    }

    fn refuse(&self, problem: &Problem) {
        let kind = last_part(&problem.urn).to_owned();
        self.change(|it| {
            it.late += u64::from(kind == "round-closed");
            *it.refused.entry(kind).or_default() += 1;
        });
    }
}

/// What a kind of problem is called in [`Counts::refused`].
pub(super) fn kind(kind: ProblemKind) -> &'static str {
    last_part(kind.urn())
}

fn last_part(urn: &str) -> &str {
    urn.rsplit(':').next().unwrap_or(urn)
}

/// A published round, and what a client had spent after it that took part in every one.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct RoundStatus {
    #[serde(flatten)]
    record: RoundRecord,
    /// The ε of what was spent; none where there is none.
    epsilon: Option<f64>,
}

/// A task.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct TaskStatus {
    title: String,
    manifest: ContentHash,
    parameters: u32,
    /// The aggregation rule and the server optimiser, by the names that they have in a task file.
    strategy: [String; 2],
    privacy: Privacy,
    /// Whether the store did its last work for the task.
    healthy: bool,
    /// The open round.
    state: RoundState,
    since_start: Counts,
    /// The newest 500 published rounds, oldest first.
    rounds: Vec<RoundStatus>,
}

/// The relay.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct Status {
    version: &'static str,
    uptime_ms: u64,
    /// Updates that could be received now beside those that are.
    uploads_free: usize,
    /// δ of every ε of noise that clients add.
    delta: f64,
    tasks: Vec<TaskStatus>,
}

/// What an operator looks at.
#[utoipa::path(get, path = "/v1/admin/status", tag = "operator", security(("operator" = [])), responses(
    (status = 200, description = "Every task, its rounds, and what happened since the start", body = Status), Refusals<OfStatus>,
))]
pub async fn status(State(relay): State<Arc<Relay>>) -> Result<impl IntoResponse, Refused> {
    let read = move || {
        let now_ms = relay.clock.now_ms();
        let tasks = relay.handles();
        let tasks = tasks
            .iter()
            .map(|task| task_status(task, now_ms))
            .collect::<Result<_, _>>()?;
        Ok::<_, Refused>(Status {
            version: env!("CARGO_PKG_VERSION"),
            uptime_ms: now_ms.saturating_sub(relay.started_ms),
            uploads_free: relay.uploads.free(),
            delta: DELTA,
            tasks,
        })
    };
    let status: Status = tokio::task::spawn_blocking(read)
        .await
        .map_err(|_| Refused::internal())??;
    Ok(([(header::CACHE_CONTROL, "no-store")], Json(status)))
}

fn task_status(task: &TaskHandle, now_ms: u64) -> Result<TaskStatus, Refused> {
    let manifest = &task.config.manifest;
    let newest = task.store.rounds_before(&manifest.task, u64::MAX, ROUNDS);
    let rounds = newest.map_err(|error| {
        tracing::warn!(%error, "the rounds cannot be read");
        Refused::unstored()
    })?;
    Ok(TaskStatus {
        title: manifest.title.clone(),
        manifest: task.config.manifest_hash,
        parameters: manifest.parameters,
        strategy: names(&task.config.strategy),
        privacy: manifest.privacy,
        healthy: task.outlook.healthy.load(Ordering::Relaxed),
        state: task.outlook.snapshot.borrow().state(now_ms),
        since_start: task.tally.counts(),
        rounds: told(rounds),
    })
}

/// The rule's and the optimiser's names, as in a task file.
fn names(strategy: &Strategy) -> [String; 2] {
    let name = |part: serde_json::Result<serde_json::Value>| {
        let tag = part
            .ok()
            .and_then(|part| Some(part.get("type")?.as_str()?.to_owned()));
        tag.unwrap_or_default()
    };
    [
        name(serde_json::to_value(strategy.aggregation)),
        name(serde_json::to_value(strategy.server)),
    ]
}

/// Rounds as the operator is told of them.
fn told(rounds: Vec<RoundRecord>) -> Vec<RoundStatus> {
    let rounds = rounds.into_iter().map(|record| RoundStatus {
        epsilon: record.lineage.spent.and_then(|spent| spent.epsilon),
        record,
    });
    rounds.collect()
}

/// The ε that is told with the newest round. Blocks; none, too, where the store fails.
pub(super) fn spent(task: &TaskHandle) -> Option<f64> {
    let newest = task
        .store
        .rounds_before(&task.config.manifest.task, u64::MAX, 1)
        .ok()?;
    newest.last()?.lineage.spent?.epsilon
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lineage::{Lineage, Spent, cost_of_round, tests::metrics};

    #[test]
    fn the_funnel_counts_each_update_once_and_says_which_came_late() {
        let tally = Tally::default();
        let (round, model) = (1, ContentHash::of(b"model"));
        tally.check_in(&Ok(CheckInReply::Train {
            round,
            model,
            deadline_ms: 5,
        }));
        tally.check_in(&Ok(CheckInReply::Wait {
            round,
            retry_after_ms: 5,
        }));
        let update = unsaid_protocol::UpdateId::from_bytes([1; 16]);
        for duplicate in [false, true] {
            tally.update(&Ok(UpdateReply {
                update,
                round,
                duplicate,
            }));
        }
        tally.update(&Err(Refused::new(ProblemKind::RoundClosed, "late")));
        tally.check_in(&Err(Refused::new(ProblemKind::WrongManifest, "other terms")));
        let refused = [("round-closed", 1), ("wrong-manifest", 1)];
        let expected = Counts {
            asked: 2,
            selected: 1,
            reported: 1,
            late: 1,
            refused: refused.map(|(kind, count)| (kind.to_owned(), count)).into(),
        };
        assert_eq!(tally.counts(), expected);
    }

    #[test]
    fn the_newest_rounds_are_told_each_with_what_was_spent_until_then() {
        let task = crate::task_file::Task::parse(
            "tiny.toml",
            include_str!("../../tests/tiny.toml"),
            &["privacy.mode=local".into()],
        );
        let manifest = task.unwrap().manifest;
        let round = |round: u64| {
            let metrics = metrics(round, 1);
            let cost = cost_of_round(&manifest).times(round);
            let lineage = Lineage {
                spent: Some(Spent::after(&manifest, &cost, &metrics)),
                ..Lineage::default()
            };
            RoundRecord { metrics, lineage }
        };
        for (at, told) in told((0..50).map(round).collect()).iter().enumerate() {
            let cost = cost_of_round(&manifest).times(at as u64);
            assert_eq!(told.record.round, at as u64);
            assert_eq!(told.epsilon, Some(cost.epsilon(DELTA).unwrap()));
        }
        let unknown = told(vec![round(1).metrics.into()]);
        assert_eq!(unknown[0].epsilon, None);
    }
}
