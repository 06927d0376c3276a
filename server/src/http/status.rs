//! `GET /v1/admin/status`: everything that an operator looks at, in one answer.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError, atomic::Ordering},
};

use axum::{Json, extract::State, http::header, response::IntoResponse};
use serde::Serialize;
use unsaid_privacy::{Adjacency, Cost, Encoding, ExampleNoise, LocalNoise};
use unsaid_protocol::{
    CheckInReply, ContentHash, Manifest, Privacy, Problem, ProblemKind, RoundMetrics, RoundState, UpdateReply,
};
use utoipa::ToSchema;

use super::{
    openapi::{OfStatus, Refusals},
    problem::Refused,
};
use crate::{
    relay::{Relay, TaskHandle},
    strategy::Strategy,
};

/// The newest rounds of each task that are told.
const ROUNDS: usize = 500;

/// δ of the ε that is shown. Clients may count with another.
const DELTA: f64 = 1e-5;

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
    metrics: RoundMetrics,
    /// ε at `delta`; none in a task without noise, or where it is beyond any bound.
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
    /// δ of every ε.
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
    let rounds = task.store.rounds(&manifest.task).map_err(|error| {
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
        rounds: with_epsilon(rounds, round_cost(manifest)),
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

/// What one round costs a client that takes part, as its own ledger counts it.
fn round_cost(manifest: &Manifest) -> Option<Cost> {
    let (update, d) = (manifest.update, manifest.parameters as usize);
    match manifest.privacy {
        Privacy::Local { noise_multiplier } => {
            let encoding = Encoding::new(update.clip_l2, update.grid_step, d).ok()?;
            let noise = LocalNoise::new(&encoding, noise_multiplier).ok()?;
            Some(noise.rho(Adjacency::ReplaceOne).into())
        }
        Privacy::Example {
            noise_multiplier,
            sampling_rate,
            ..
        } => {
            let noise = ExampleNoise::new(noise_multiplier, sampling_rate, d).ok()?;
            let epochs = u32::try_from(manifest.training.get("epochs")?.as_u64()?).ok()?;
            let steps = epochs.saturating_mul(noise.steps_per_epoch());
            Some(Cost::of_examples(|order| noise.cost(order, steps)))
        }
        _ => None,
    }
}

/// The newest rounds, with the ε of a client that took part in all: a rollback costs nothing.
fn with_epsilon(rounds: Vec<RoundMetrics>, cost: Option<Cost>) -> Vec<RoundStatus> {
    let skipped = rounds.len().saturating_sub(ROUNDS);
    let mut paid = 0;
    let told = rounds.into_iter().enumerate().map(|(at, metrics)| {
        paid += u64::from(metrics.clients > 0);
        let epsilon = epsilon_after(&metrics, paid, cost.filter(|_| at >= skipped));
        RoundStatus { metrics, epsilon }
    });
    told.skip(skipped).collect()
}

/// The ε that is told with a round, where a client has taken part in `paid`.
fn epsilon_after(metrics: &RoundMetrics, paid: u64, cost: Option<Cost>) -> Option<f64> {
    let spent = cost.map(|cost| cost.times(paid));
    let epsilon = spent
        .and_then(|spent| spent.epsilon(DELTA).ok())
        .filter(|it| it.is_finite());
    // Where the relay adds the noise it has said so itself, at the task's own δ.
    epsilon.or(metrics.privacy.and_then(|privacy| privacy.epsilon))
}

/// The ε that is told with the newest round. Blocks; none, too, where the store fails.
pub(super) fn spent(task: &TaskHandle) -> Option<f64> {
    let manifest = &task.config.manifest;
    let Some(cost) = round_cost(manifest) else {
        return epsilon_after(&task.outlook.snapshot.borrow().newest, 0, None);
    };
    let rounds = task.store.rounds(&manifest.task).ok()?;
    let paid = rounds.iter().filter(|round| round.clients > 0).count();
    epsilon_after(rounds.last()?, paid as u64, Some(cost))
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn a_round_costs_what_the_ledgers_of_clients_book_for_it() {
        let task = |overrides: &[&str]| {
            let overrides: Vec<String> = overrides.iter().map(|&text| text.to_owned()).collect();
            let text = include_str!("../../tests/tiny.toml");
            crate::task_file::Task::parse("tiny.toml", text, &overrides)
                .unwrap()
                .manifest
        };
        assert_eq!(round_cost(&task(&[])), None);
        // ρ = 2 / 1.5², and σ is rounded up to what the sampler draws.
        let local = round_cost(&task(&["privacy.mode=\"local\""])).unwrap();
        assert!(
            (local.rho().get() * 1.5 * 1.5 / 2.0 - 1.0).abs() < 1e-3,
            "{local:?}"
        );
        let examples = include_str!("../../tasks/mnist-example.toml");
        let examples = crate::task_file::Task::parse("mnist-example.toml", examples, &[]).unwrap();
        let examples = round_cost(&examples.manifest).unwrap();
        assert!(!examples.is_of_updates() && examples.epsilon(DELTA).unwrap().is_finite());
    }

    #[test]
    fn epsilon_grows_with_each_round_that_counted_updates_and_with_no_other() {
        let round = |round, clients| RoundMetrics {
            round,
            model: ContentHash::of(b"model"),
            clients,
            checked_in: clients,
            bytes_up: 0,
            model_bytes: 0,
            duration_ms: 0,
            published_at_ms: 0,
            accuracy: None,
            loss: None,
            rolled_back_to: None,
            privacy: None,
        };
        let rounds = vec![round(0, 0), round(1, 3), round(2, 0), round(3, 3)];
        let cost = Cost::from(unsaid_privacy::Rho::new(0.5).unwrap());
        let told = with_epsilon(rounds.clone(), Some(cost));
        let epsilons: Vec<f64> = told.iter().map(|it| it.epsilon.unwrap()).collect();
        let of = |rounds| cost.times(rounds).epsilon(DELTA).unwrap();
        assert_eq!(epsilons, [of(0), of(1), of(1), of(2)]);
        assert!(epsilons[0] < epsilons[1] && epsilons[1] < epsilons[3]);
        assert!(with_epsilon(rounds, None).iter().all(|it| it.epsilon.is_none()));
        let many = (0..2 * ROUNDS as u64).map(|at| round(at, 1)).collect();
        let told = with_epsilon(many, None);
        assert_eq!((told.len(), told[0].metrics.round), (ROUNDS, ROUNDS as u64));
    }
}
