//! Which aggregation rule goes with which privacy mode.
//!
//! | rule | `none` | `example` | `local` | `central` |
//! |---|---|---|---|---|
//! | `mean` | yes | yes | yes | yes |
//! | `weighted-mean` | yes | **no**: the number of examples would leave the device without noise | **no**: likewise, and noise in proportion to one update's norm is too small for one that counts `max_weight` times | **no** |
//! | `scaffold` | yes | yes: its control variates are made of what is sent (as Noble, Bellet, Dieuleveut 2022) | **no**: the noise would be in its control variates | **no**: likewise |
//! | `norm-bounding` | yes | yes | with a bound above the norm of the noise itself | **no** |
//! | `fed-buff` | yes | yes | yes: no weight is above 1 | **no** |
//! | `coordinate-median`, `trimmed-mean`, `geometric-median` | yes | yes | yes: the noise is symmetric about each update | **no** |
//! | `krum`, `multi-krum` | yes | yes | **no**: the distances that they compare are those of the noise | **no** |
//! | `centred-clipping` | yes | yes | with a radius above the norm of the noise itself | **no** |
//!
//! With `example` the noise was added to gradients while training, and an update is clipped like one without any: how long it can be,
//! and how far apart two are, the clip norm says.
//! With `central` only the mean: the noise is for a sum of updates of bounded norm. With weights one client moves the sum by as many
//! times that norm as it weighs at most; a rule that sees every update (a median, a nearest neighbour) has no bound that a single
//! client moves its result by which is smaller than the updates themselves; and a relay that adapts its clip norm bounds norms already.
//! Every server optimiser goes with it: it sees the noised sum (post-processing).
//!
//! With `local` and `example` every rule is computed after the noise was added on the devices: it costs no further privacy
//! (post-processing). What is
//! refused is refused because it would reveal more, or because it would be noise. Every server optimiser goes with every mode.
//!
//! With weights, the mean's sensitivity is not one client's share any more: replacing a client moves Σ wᵢuᵢ by up to
//! 2 · `max_weight` · Δ, and Σ wᵢ by up to `max_weight` (McMahan, Ramage, Talwar, Zhang, “Learning Differentially Private
//! Recurrent Language Models”, ICLR 2018, section 3: noise for the sum of weights, or a fixed denominator). No mode of this
//! relay adds noise for that, so weights go without noise only.
//!
//! **SCAFFOLD** and noise. Its shared control variate c is a running sum of what clients send, and must stay the mean of their own cᵢ:
//! what is in c alone is never taken out of it, and pulls all clients of all later rounds the same way. With `central` the noise of every
//! round would add up there, in proportion to √rounds, since no client knows its part of it. With `local` the same, unless each cᵢ has
//! the noise of its last update; then the client's next change is that noise, which is longer than the clip norm with any σ that
//! protects. Where the noise is on gradients, in a client's steps, it is in Δᵢ before anything is clipped and sent, and so in cᵢ and c
//! alike: M. Noble, A. Bellet, A. Dieuleveut, “Differentially Private Federated Learning on Heterogeneous Data”, AISTATS 2022
//! ([arXiv:2111.09278](https://arxiv.org/abs/2111.09278)), algorithm 1. The correction c − cᵢ is made of what was sent before
//! (post-processing), and costs no privacy.
//!
//! It is a rule of its own, and goes with no other: a median or a nearest neighbour of changes is not the mean that keeps c the mean of
//! the cᵢ; a weighted mean moves the model by other shares than c; an update of an older model was corrected by an older c. None of
//! these is covered by its authors. Every server optimiser goes with it: c depends on changes, not on where the server steps.
//!
//! Sums that hide their parts (secure aggregation) can only go with rules that need no single update:
//! [`Aggregation::needs_updates`].

use unsaid_privacy::{Encoding, LocalNoise};
use unsaid_protocol::Privacy;

use super::{Aggregation, StrategyError};

const NOISE_IN_CONTROL: &str = "the noise of every round would add up in the shared control variate, which never forgets it; mode \"example\" has it in the clients' steps";

const EXAMPLES_WITHOUT_NOISE: &str = "a client's number of examples would leave its device without noise";

fn refused(rule: &Aggregation, mode: &str, reason: &str) -> StrategyError {
    let message = format!("{} cannot go with privacy mode \"{mode}\": {reason}", rule.name());
    StrategyError::new("aggregation", message)
}

/// Checks that `rule` can be used in a task of this privacy mode.
///
/// # Errors
/// [`StrategyError`] with the field and the reason.
pub fn check(rule: &Aggregation, privacy: &Privacy, encoding: &Encoding) -> Result<(), StrategyError> {
    let noise_multiplier = match *privacy {
        Privacy::None => return Ok(()),
        Privacy::Example { .. } => {
            return match rule {
                Aggregation::WeightedMean { .. } => Err(refused(rule, "example", EXAMPLES_WITHOUT_NOISE)),
                _ => Ok(()),
            };
        }
        Privacy::Local { noise_multiplier } => noise_multiplier,
        Privacy::Central(_) => {
            let reason = match rule {
                Aggregation::Mean {} => return Ok(()),
                Aggregation::WeightedMean { .. } => {
                    "one client would move the sum by as many times the bound as it weighs"
                }
                Aggregation::Scaffold { .. } => NOISE_IN_CONTROL,
                Aggregation::FedBuff { .. } => {
                    "its updates start from models of several rounds and are weighed by their age, and the noise and its accounting are for one plain sum of one round"
                }
                Aggregation::NormBounding { .. } => {
                    "the relay bounds norms already: choose update.clip_l2, or privacy.adaptive_clip"
                }
                _ => {
                    "the noise is for a sum, and one client can move this rule's result by as much as a whole update"
                }
            };
            let message = format!(
                "{} cannot go with privacy mode \"central\": {reason}",
                rule.name()
            );
            return Err(StrategyError::new("aggregation", message));
        }
        _ => {
            let message = format!("{} is not known to go with this privacy mode", rule.name());
            return match rule {
                Aggregation::Mean {} => Ok(()),
                _ => Err(StrategyError::new("aggregation", message)),
            };
        }
    };
    let refused = |reason: &str| Err(refused(rule, "local", reason));
    match *rule {
        Aggregation::Mean {}
        | Aggregation::FedBuff { .. }
        | Aggregation::CoordinateMedian {}
        | Aggregation::TrimmedMean { .. }
        | Aggregation::GeometricMedian { .. } => Ok(()),
        Aggregation::WeightedMean { .. } => refused(EXAMPLES_WITHOUT_NOISE),
        Aggregation::Scaffold { .. } => refused(NOISE_IN_CONTROL),
        Aggregation::Krum { .. } | Aggregation::MultiKrum { .. } => {
            refused("the distances that it compares would be those of the noise")
        }
        Aggregation::NormBounding { bound_l2 } => {
            above_noise("aggregation.bound_l2", bound_l2, encoding, noise_multiplier)
        }
        Aggregation::CentredClipping { radius_l2, .. } => {
            above_noise("aggregation.radius_l2", radius_l2, encoding, noise_multiplier)
        }
    }
}

/// Whether `bound` is above what an honest, noised update's norm is expected to be at most: √(Δ² + dσ²) grid steps.
fn above_noise(
    field: &'static str,
    bound: f64,
    encoding: &Encoding,
    noise_multiplier: f64,
) -> Result<(), StrategyError> {
    let noise = LocalNoise::new(encoding, noise_multiplier)
        .map_err(|error| StrategyError::new("aggregation", error.to_string()))?;
    let squared = encoding.bound_squared() as f64 + encoding.dimension() as f64 * noise.variance_steps();
    let expected = squared.sqrt() * encoding.grid_step();
    if bound >= expected {
        return Ok(());
    }
    Err(StrategyError::new(
        field,
        format!(
            "{bound} is below {expected:.6}, the norm of an honest update with its noise: every update would be cut"
        ),
    ))
}

#[cfg(test)]
mod tests {
    /// The lines of the first table of `text` that has this heading, each without what stands before it.
    fn table<'a>(text: &'a str, before: &str, heading: &str) -> Vec<&'a str> {
        let lines = text.lines().map(|line| line.strip_prefix(before).unwrap_or(line));
        lines
            .skip_while(|line| !line.starts_with(heading))
            .take_while(|line| line.starts_with('|'))
            .collect()
    }

    #[test]
    fn operators_are_told_the_same_table_as_those_who_read_the_code() {
        let heading = "| rule | `none` |";
        let here = table(include_str!("compose.rs"), "//! ", heading);
        let told = table(include_str!("../../../OPERATING.md"), "", heading);
        assert!(here.len() >= 10, "{here:?}");
        assert_eq!(told, here);
        // Every rule has a cell in it; `the_table_of_what_goes_together_is_kept` holds it against the code.
        for rule in crate::strategy::tests::EVERY_RULE {
            let name = format!("`{}`", rule.name());
            let cells = told
                .iter()
                .filter(|row| row.split('|').nth(1).is_some_and(|cell| cell.contains(&name)));
            assert_eq!(cells.count(), 1, "{name}");
        }
    }
}
