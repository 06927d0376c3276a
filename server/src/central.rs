//! Central differential privacy: the relay bounds each update, adds them up, and adds noise to the sum, once.
//!
//! **What holds the bound.** An update whose squared norm is above the task's bound is refused, in whole numbers, before it is counted:
//! a client that does not clip gains nothing. Where the clip norm adapts, the relay shortens each update to it as well.
//!
//! **One noise for one sum.** The noised model is made and committed in the turn that closes the round, in one transaction with the end
//! of the sum. Readers see it after that commit. A relay that is killed before it has shown nobody anything, and may draw other noise
//! when it closes the round again; one that is killed after it never has that sum again.
//!
//! **Trees.** With the mechanism `tree-aggregation` each round is a leaf of a tree, and the noise is that of its nodes, drawn once
//! ([`TreeNoise`]; Kairouz and others 2021, DP-FTRL): all rounds of a tree together have the noise of a few nodes, and a round alone has
//! about that of two. What strategies make of them is post-processing: plain averaging with a server rate of 1 is DP-FTRL, with momentum its
//! momentum variant. Each node's noise is made of a seed of its own, drawn when the round that ends it closes, and stored in the head by the
//! transaction that stores the model, until a later node replaces it. So the store never has the noise of a node that was not told yet: a
//! round that is closed again, after a crash or over an older copy of the store, gets other noise, as without trees, and two sums are never
//! told with one noise. Who can read the store sees the sum of the tree's rounds so far up to each node that is open then, beside the open
//! round's; in this mode they are trusted. A tree ends after its rounds, with a roll-back, and with other terms: then what it cost so far
//! stays spent, and the next round begins another one. That nobody is in two rounds of a tree that are nearer than its terms say is the
//! round machine's to enforce (`round.rs`), by identity where the task asks for one, else by client id.
//!
//! **What is told.** The noised sum, moved through the strategy (post-processing), and the noised share of short updates. Who takes part,
//! and how many, is public, and no privacy is claimed from it: there is no amplification by sampling.

use rand_core::CryptoRng;
use serde::{Deserialize, Serialize};
use unsaid_privacy::{
    AccountingError, Adjacency, Encoding, Rho,
    central::{AdaptiveClip, CentralError, CentralNoise, TreeNoise},
};
use unsaid_protocol::{CentralAdjacency, CentralPrivacy, RoundPrivacy, TreeTerms};

use crate::{aggregate::PartialSum, randomness};

#[cfg(test)]
mod tests;

/// Parts of a grid step that a shortened coordinate is counted in, so that shortening costs little precision.
pub const PARTS: u32 = 16;

/// How a task's sums are noised.
#[derive(Debug, Clone, Copy)]
pub struct Central {
    adjacency: Adjacency,
    delta: f64,
    noise_multiplier: f64,
    /// The bound of an update that clients clip, in grid steps².
    bound_squared: u64,
    grid_step: f64,
    clip_l2: f64,
    target_clients: u32,
    adaptive: Option<Adaptive>,
    tree: Option<(TreeTerms, TreeNoise)>,
}

#[derive(Debug, Clone, Copy)]
struct Adaptive {
    rule: AdaptiveClip,
    initial_l2: f64,
    /// Of the sum, beside that of the count.
    sum_multiplier: f64,
}

/// What is known from round to round. All of it is public but a tree's seeds.
#[derive(Debug, Clone, PartialEq)]
pub struct State {
    /// What all rounds so far cost under add/remove, whatever the task's adjacency is: that may change.
    pub spent: Rho,
    /// Whether a round counted updates without this noise, under other terms of the task. Then there is no ε of all rounds to tell.
    pub otherwise: bool,
    /// The clip norm of the open round, in the model's own units.
    pub clip_l2: f64,
    /// The tree whose next leaf the open round is; none where that begins one, and where there are no trees.
    pub tree: Option<Tree>,
}

/// A tree that has begun.
///
/// It is not for copying about: a node's noise goes with one sum. The store's own copies are safe, as a node is only told with the commit that
/// stores its seed.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tree {
    /// Of which the noise of its open nodes is made, the largest first: one for each binary digit of `rounds` that is 1, 20 at most. None in
    /// heads of before nodes had seeds of their own: such a tree does not go on.
    #[serde(default)]
    seeds: Vec<Seed>,
    /// Rounds that are its leaves.
    rounds: u64,
    /// What was spent before it, under add/remove: the bits of a ρ.
    before: u64,
}

type Seed = [u8; 32];

/// Without the seeds.
impl std::fmt::Debug for Tree {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tree")
            .field("rounds", &self.rounds)
            .finish_non_exhaustive()
    }
}

/// A sum that may be told.
#[derive(Debug, Clone, PartialEq)]
pub struct Release {
    /// The direction: the noised sum in the model's units over the number of updates, `[d]`.
    pub direction: Vec<f64>,
    /// The state after it.
    pub state: State,
}

impl Central {
    /// The mechanism of a task.
    ///
    /// # Errors
    /// [`CentralError`] where its numbers make none.
    pub fn new(
        privacy: &CentralPrivacy,
        encoding: &Encoding,
        target_clients: u32,
    ) -> Result<Self, CentralError> {
        let adjacency = match privacy.adjacency {
            CentralAdjacency::AddRemove => Adjacency::AddRemove,
            // The other two inputs that can be meant are no farther apart.
            _ => Adjacency::ReplaceOne,
        };
        let adaptive = match privacy.adaptive_clip {
            None => None,
            Some(clip) => {
                let range = |field, found, expected| CentralError::Parameter {
                    field,
                    found,
                    expected,
                };
                let (least, most) = (encoding.grid_step(), encoding.clip_l2());
                if !(least..=most).contains(&clip.initial_l2) {
                    let expected = "from update.grid_step to update.clip_l2";
                    return Err(range("initial_l2", clip.initial_l2, expected));
                }
                if most / least > MOST_STEPS {
                    let expected = "at least update.clip_l2 / 4,194,304 where the clip norm adapts";
                    return Err(range("update.grid_step", least, expected));
                }
                let rule =
                    AdaptiveClip::new(clip.quantile, clip.rate, clip.count_noise, target_clients.into())?;
                Some(Adaptive {
                    rule,
                    initial_l2: clip.initial_l2,
                    sum_multiplier: rule.sum_noise_multiplier(privacy.noise_multiplier)?,
                })
            }
        };
        let central = Self {
            adjacency,
            delta: privacy.delta,
            noise_multiplier: privacy.noise_multiplier,
            bound_squared: encoding.bound_squared(),
            grid_step: encoding.grid_step(),
            clip_l2: encoding.clip_l2(),
            target_clients,
            adaptive,
            tree: match privacy.tree {
                None => None,
                Some(terms) => {
                    let noise = TreeNoise::new(encoding.bound_squared(), privacy.noise_multiplier)?;
                    // That the whole tree's cost is a number.
                    noise.cost(terms.restart_every.into(), terms.min_separation.into())?;
                    Some((terms, noise))
                }
            },
        };
        // That it works at either end of what the clip norm can be.
        for clip_l2 in [central.grid_step, central.clip_l2] {
            central.noise(clip_l2)?;
        }
        Ok(central)
    }

    /// Before the first round.
    pub fn first(&self) -> State {
        State {
            spent: Rho::ZERO,
            otherwise: false,
            clip_l2: self.adaptive.map_or(self.clip_l2, |adaptive| adaptive.initial_l2),
            tree: None,
        }
    }

    /// Where the last round left off, with the tree that goes on, if one does, and whether rounds counted updates otherwise. What was spent
    /// under other terms stays spent.
    ///
    /// # Errors
    /// [`AccountingError::Rho`] where what was spent is no finite number: it is never taken for nothing.
    pub fn resume(
        &self,
        last: Option<&RoundPrivacy>,
        tree: Option<Tree>,
        otherwise: bool,
    ) -> Result<State, AccountingError> {
        let first = State {
            otherwise,
            ..self.first()
        };
        let Some(last) = last else { return Ok(first) };
        Ok(State {
            // Written and read as a decimal: not below what it was.
            spent: Rho::new(last.rho.next_up())?,
            otherwise,
            clip_l2: self.adaptive.map_or(first.clip_l2, |_| {
                last.next_clip_l2.clamp(self.grid_step, self.clip_l2)
            }),
            tree: tree.filter(|_| self.tree.is_some()),
        })
    }

    /// What is added to the sum besides the coordinates: the number of short updates, where the clip norm adapts.
    pub const fn extra(&self) -> usize {
        self.adaptive.is_some() as usize
    }

    /// Adds an update that was found to be within the task's bound.
    pub fn add(&self, sum: &mut PartialSum, coordinates: &[i32], state: &State) {
        if self.adaptive.is_none() {
            return sum.add(coordinates);
        }
        let (mut parts, within) = shorten(coordinates, self.bound_in_parts(state.clip_l2));
        parts.push(within.into());
        sum.merge(&PartialSum::from_steps(parts));
    }

    /// Noises a round's sum of `count` updates, and says what that cost.
    ///
    /// # Errors
    /// [`CentralError`]: nothing may be told of the sum then.
    pub fn release<R: CryptoRng + ?Sized>(
        &self,
        sum: &PartialSum,
        count: u32,
        state: &State,
        rng: &mut R,
    ) -> Result<Release, CentralError> {
        if let Some((terms, noise)) = &self.tree {
            return self.release_leaf(*terms, noise, sum, count, state, rng);
        }
        let noise = self.noise(state.clip_l2)?;
        let (coordinates, within) = sum.steps().split_at(sum.steps().len() - self.extra());
        let mut noised = coordinates.to_vec();
        noise.add(&mut noised, rng)?;
        let mut spent = state.spent + noise.rho(Adjacency::AddRemove);
        let (mut clip_l2, mut unit) = (state.clip_l2, self.grid_step);
        if let Some(Adaptive { rule, .. }) = &self.adaptive {
            let within = within.first().copied().unwrap_or(0).unsigned_abs();
            let next = rule.next(state.clip_l2, within, count.into(), rng)?;
            spent = spent + rule.rho(Adjacency::AddRemove);
            clip_l2 = next.clip_l2.clamp(self.grid_step, self.clip_l2);
            unit /= f64::from(PARTS);
        }
        Ok(Release {
            direction: self.mean(noised, unit, count),
            state: State {
                spent,
                otherwise: state.otherwise,
                clip_l2,
                tree: None,
            },
        })
    }

    /// A round as the next leaf of the tree, or as the first one of another.
    fn release_leaf<R: CryptoRng + ?Sized>(
        &self,
        terms: TreeTerms,
        noise: &TreeNoise,
        sum: &PartialSum,
        count: u32,
        state: &State,
        rng: &mut R,
    ) -> Result<Release, CentralError> {
        let goes_on = state
            .tree
            .as_ref()
            .filter(|tree| tree.rounds < terms.restart_every.into() && tree.is_whole());
        let mut tree = goes_on.cloned().unwrap_or_else(|| Tree {
            seeds: Vec::new(),
            rounds: 0,
            before: state.spent.get().to_bits(),
        });
        let mut seed = Seed::default();
        rng.fill_bytes(&mut seed);
        let replaced = tree.grow(seed);
        let mut noised = sum.steps().to_vec();
        noise.add(tree.rounds, &mut noised, |node| {
            randomness::of_node(if node.end == tree.rounds {
                seed
            } else {
                // INVARIANT: the nodes that a step replaces are those of every level below its own, and `grow` gives as many.
                replaced[node.level as usize]
            })
        })?;
        let spent = f64::from_bits(tree.before);
        let before = Rho::new(spent).map_err(|_| CentralError::Parameter {
            field: "what was spent before the tree",
            found: spent,
            expected: "a finite number of at least 0",
        })?;
        let cost = noise.cost(tree.rounds, terms.min_separation.into())?;
        Ok(Release {
            direction: self.mean(noised, self.grid_step, count),
            state: State {
                spent: before + cost.rho(Adjacency::AddRemove),
                otherwise: state.otherwise,
                clip_l2: state.clip_l2,
                tree: Some(tree),
            },
        })
    }

    /// A noised sum of `unit`s over the number of updates. Who comes is no part of a sum under add/remove: it is divided by a constant. With a
    /// tree, too: only what was divided alike cancels when a later round takes it off again.
    fn mean(&self, noised: Vec<i64>, unit: f64, count: u32) -> Vec<f64> {
        let updates = match self.adjacency {
            Adjacency::ReplaceOne if self.tree.is_none() => count.max(1),
            _ => self.target_clients,
        };
        noised
            .into_iter()
            .map(|steps| steps as f64 * unit / f64::from(updates))
            .collect()
    }

    /// ε at `delta` under the task's adjacency of what costs `spent` under add/remove: two sums are twice as far apart under replace-one.
    ///
    /// # Errors
    /// [`AccountingError::Delta`].
    pub fn epsilon(&self, spent: Rho, delta: f64) -> Result<f64, AccountingError> {
        let cost = match self.adjacency {
            Adjacency::AddRemove => spent,
            _ => std::iter::repeat_n(spent, 4).sum(),
        };
        cost.epsilon(delta)
    }

    /// Whether what a round costs depends on those before it, so that costs are those of all rounds together.
    pub const fn has_tree(&self) -> bool {
        self.tree.is_some()
    }

    /// What is told of `state`.
    pub fn figures(&self, state: &State) -> RoundPrivacy {
        // The task's δ was checked; were it not, there would be no promise.
        let epsilon = self.epsilon(state.spent, self.delta).unwrap_or(f64::MAX);
        RoundPrivacy {
            epsilon: (!state.otherwise).then_some(epsilon.min(f64::MAX)),
            rho: state.spent.get(),
            next_clip_l2: state.clip_l2,
        }
    }

    /// The noise of a round at a clip norm.
    fn noise(&self, clip_l2: f64) -> Result<CentralNoise, CentralError> {
        match &self.adaptive {
            None => CentralNoise::new(self.bound_squared, self.noise_multiplier),
            Some(adaptive) => CentralNoise::new(self.bound_in_parts(clip_l2), adaptive.sum_multiplier),
        }
    }

    /// The squared clip norm in [`PARTS`]², rounded down to a whole number: the bound that the integers obey. At most 2⁵².
    fn bound_in_parts(&self, clip_l2: f64) -> u64 {
        let parts = clip_l2 / self.grid_step * f64::from(PARTS);
        (parts * parts) as u64
    }
}

impl Tree {
    /// Whether it has a seed for each open node.
    fn is_whole(&self) -> bool {
        self.seeds.len() == self.rounds.count_ones() as usize
    }

    /// Takes in another leaf, and with it a node of this seed, in place of those of all levels below the node's: their seeds, from level 0 up.
    /// They are not needed again.
    fn grow(&mut self, seed: Seed) -> Vec<Seed> {
        self.rounds += 1;
        let level = self.rounds.trailing_zeros() as usize;
        let mut replaced = self.seeds.split_off(self.seeds.len().saturating_sub(level));
        replaced.reverse();
        self.seeds.push(seed);
        replaced
    }
}

/// The most grid steps of a clip norm that adapts: 2²², so that its square in [`PARTS`] is at most 2⁵².
const MOST_STEPS: f64 = 4_194_304.0;

/// `coordinates`, in grid steps, as [`PARTS`] of one, with a squared norm of at most `bound_squared`; and whether they were that short
/// before. What is less than a part is cut off.
fn shorten(coordinates: &[i32], bound_squared: u64) -> (Vec<i64>, bool) {
    let norm_squared = |parts: &[i64]| -> u128 {
        parts
            .iter()
            .map(|part| u128::from(part.unsigned_abs()).pow(2))
            .sum()
    };
    let whole: Vec<i64> = coordinates
        .iter()
        .map(|&steps| i64::from(steps) * i64::from(PARTS))
        .collect();
    let squared = norm_squared(&whole);
    if squared <= bound_squared.into() {
        return (whole, true);
    }
    let mut share = (bound_squared as f64 / squared as f64).sqrt();
    loop {
        let shortened: Vec<i64> = whole.iter().map(|&part| (part as f64 * share) as i64).collect();
        if norm_squared(&shortened) <= bound_squared.into() {
            return (shortened, false);
        }
        // Floats may be off by a few units in their last place; the bound is not.
        share *= 1.0 - 1e-12;
    }
}
