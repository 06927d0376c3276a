//! What a simulation tells, one JSON object per line. Nothing of it depends on time or threads: the same seed writes the same bytes.

use serde::Serialize;
use unsaid_protocol::{CentralAdjacency, ContentHash, Privacy};

use super::Baseline;

/// A line.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Line {
    /// What is simulated.
    Start(StartLine),
    /// A round was published.
    Round(RoundLine),
    /// A baseline was trained.
    Baseline(BaselineLine),
    /// The final model.
    End(EndLine),
}

/// What the noise of a simulation protects, and so what each ε of it means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Protection {
    /// The task's privacy mode, as in its file.
    pub mode: &'static str,
    /// What the noise is on, and who adds it.
    pub noise: &'static str,
    /// Whose data an ε protects; none without noise.
    pub unit: Option<&'static str>,
    /// Which client of all that is.
    pub client: Option<&'static str>,
    /// Which two inputs an ε says are hard to tell apart: `replace-one` or `add-remove`.
    pub adjacency: Option<&'static str>,
}

impl Protection {
    pub(super) const fn of(privacy: &Privacy) -> Self {
        const UPDATES: Option<&str> = Some("all updates of a client");
        const MOST_OFTEN: Option<&str> = Some("the one that took part most often");
        let (replace_one, add_remove) = (Some("replace-one"), Some("add-remove"));
        match privacy {
            Privacy::Local { .. } => Self {
                mode: "local",
                noise: "on each update, by its client",
                unit: UPDATES,
                client: MOST_OFTEN,
                adjacency: replace_one,
            },
            Privacy::Example { .. } => Self {
                mode: "example",
                noise: "on each sum of gradients, by its client",
                unit: Some("one example of a client"),
                client: MOST_OFTEN,
                adjacency: add_remove,
            },
            Privacy::Central(terms) => Self {
                mode: "central",
                noise: if terms.tree.is_some() {
                    "on sums of rounds, in a tree, by the relay, which sees every update"
                } else {
                    "on each round's sum, by the relay, which sees every update"
                },
                unit: UPDATES,
                client: if terms.tree.is_some() {
                    Some("one that took part as often as it may")
                } else {
                    MOST_OFTEN
                },
                adjacency: match terms.adjacency {
                    CentralAdjacency::AddRemove => add_remove,
                    _ => replace_one, // as `Central` counts
                },
            },
            _ => Self {
                mode: "none",
                noise: "none: the relay sees every update as it is",
                unit: None,
                client: None,
                adjacency: None,
            },
        }
    }
}

/// What is simulated.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StartLine {
    /// The task's id.
    pub task: String,
    /// The task's title.
    pub title: String,
    /// Parameters of the model.
    pub parameters: u32,
    /// The aggregation rule.
    pub aggregation: &'static str,
    /// The server optimiser.
    pub server: &'static str,
    /// What the noise protects, and what each `epsilon` means.
    pub privacy: Protection,
    /// The noise multiplier, where there is noise: the clients', or the relay's.
    pub noise_multiplier: Option<f64>,
    /// How the data are split.
    pub partition: String,
    /// Clients.
    pub clients: usize,
    /// Examples of all clients.
    pub examples: usize,
    /// Clients of a round.
    pub cohort: usize,
    /// Rounds at most.
    pub rounds: u64,
    /// The seed.
    pub seed: u64,
    /// δ of every ε.
    pub delta: f64,
    /// What malicious clients do.
    pub attack: Option<String>,
    /// How many clients are malicious.
    pub malicious: usize,
}

/// A published round.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RoundLine {
    /// The round.
    pub round: u64,
    /// Updates in its aggregate.
    pub clients: u32,
    /// Held-out accuracy, 0 to 1, where it was evaluated.
    pub accuracy: Option<f64>,
    /// Held-out loss, where it was evaluated.
    pub loss: Option<f64>,
    /// Mean over the clients of the loss of their last local epoch.
    pub train_loss: f64,
    /// Mean over the updates of the rounds that closed since the one whose model each started from. Not in synchronous rounds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub staleness: Option<f64>,
    /// Clients whose change was longer than the clip norm.
    pub clipped: u32,
    /// ε of all rounds so far, at the δ, of the unit and under the adjacency of the first line; none without noise.
    pub epsilon: Option<f64>,
    /// The clip norm of the next round, where the relay adds the noise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clip_l2: Option<f64>,
    /// Bytes of the update frames.
    pub bytes_up: u64,
    /// Bytes of the models that were downloaded for them, uncompressed.
    pub bytes_down: u64,
}

/// A baseline.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct BaselineLine {
    /// Which one.
    pub baseline: Baseline,
    /// Held-out accuracy, the mean over its models.
    pub accuracy: f64,
    /// How it is spread over its models.
    pub fairness: Fairness,
    /// δ = |V_FED − V_SUM|, with the centralised baseline: how much accuracy federation costs.
    pub loss_of_accuracy: Option<f64>,
}

impl BaselineLine {
    pub(super) fn new(baseline: Baseline, accuracies: &[f64], federated: Option<f64>) -> Self {
        let fairness = Fairness::of(accuracies);
        Self {
            baseline,
            accuracy: fairness.mean,
            fairness,
            loss_of_accuracy: federated.map(|federated| (federated - fairness.mean).abs()),
        }
    }
}

/// The final model.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct EndLine {
    /// Rounds that were published.
    pub rounds: u64,
    /// The final model's hash.
    pub model: ContentHash,
    /// Its held-out accuracy, as of the last evaluation.
    pub accuracy: f64,
    /// What the noise protected, and what `epsilon` means.
    pub privacy: Protection,
    /// ε of all rounds; none without noise, or without a round.
    pub epsilon: Option<f64>,
    /// δ of it.
    pub delta: f64,
    /// How the final model's accuracy on each client's own examples is spread over the clients.
    pub fairness: Fairness,
    /// That accuracy, of each client.
    pub clients: Vec<f64>,
}

/// How a figure is spread over clients.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Fairness {
    /// The least.
    pub least: f64,
    /// A tenth of the clients have less.
    pub tenth: f64,
    /// Half of the clients have less.
    pub median: f64,
    /// The mean.
    pub mean: f64,
    /// The greatest.
    pub greatest: f64,
    /// The variance, the measure of Li et al. 2020 (“Fair Resource Allocation in Federated Learning”, definition 1).
    pub variance: f64,
}

impl Fairness {
    /// The spread of `values`; all 0 of none.
    pub fn of(values: &[f64]) -> Self {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let n = sorted.len().max(1) as f64;
        let at = |share: f64| {
            let rank = (share * n) as usize;
            sorted.get(rank).or(sorted.last()).copied().unwrap_or_default()
        };
        let mean = sorted.iter().sum::<f64>() / n;
        Self {
            least: at(0.0),
            tenth: at(0.1),
            median: at(0.5),
            mean,
            greatest: sorted.last().copied().unwrap_or_default(),
            variance: sorted.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / n,
        }
    }
}
