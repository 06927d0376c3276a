//! Running sums by a binary tree: Kairouz, McMahan, Song, Thakkar, Thakurta, Xu, “Practical and Private (Deep) Learning without
//! Sampling or Shuffling”, ICML 2021, [arXiv:2103.00039](https://arxiv.org/abs/2103.00039), after Dwork, Naor, Pitassi, Rothblum 2010
//! and Chan, Shi, Song 2011.

use std::fmt;

use rand_core::CryptoRng;

use super::{CentralError, noise_of};
use crate::accounting::CompositionError;
use crate::{Adjacency, DiscreteGaussian, Rho};

/// The noised sum of all vectors so far, after every step, as DP-FTRL needs it.
///
/// The steps are the leaves of a binary tree, and every node has the sum of its leaves with noise of its own, drawn once. The sum of the
/// first t steps is that of the nodes that t is written with in binary: at most log₂ t + 1 of them, so that its noise has a variance of
/// at most (log₂ t + 1)·σ², where noise on every step would add up to t·σ². A vector is in as many nodes as the tree is high.
///
/// ```
/// use unsaid_privacy::{Adjacency, central::{CentralError, TreeSum}};
/// # use rand_core::SeedableRng;
/// # let mut rng = rand_chacha::ChaCha20Rng::from_seed([1; 32]);
/// let mut tree = TreeSum::new(2, 100, 2.0, 1_000)?; // norms of at most 10 grid steps, z = 2
/// let first = tree.push(&[6, -8], &mut rng)?;
/// let second = tree.push(&[6, -8], &mut rng)?; // near (12, −16)
/// assert_eq!(second.len(), 2);
/// // 1,000 steps make a tree of height 10; each participant takes part once: 10·Δ²/2σ².
/// assert!((tree.cost(1)?.rho(Adjacency::AddRemove).get() - 10.0 / 8.0).abs() < 1e-3);
/// # Ok::<(), CentralError>(())
/// ```
///
/// It cannot be cloned: two trees with the same noise in their nodes tell the difference of their sums.
///
/// ```compile_fail,E0277
/// fn copied<T: Clone>() {}
/// copied::<unsaid_privacy::central::TreeSum>();
/// ```
pub struct TreeSum {
    gaussian: DiscreteGaussian,
    bound_squared: u64,
    dimension: usize,
    max_steps: u64,
    steps: u64,
    /// For each binary digit of `steps` that is 1, from the lowest level up: the node's exact sum and its noise.
    nodes: Vec<Option<Node>>,
}

struct Node {
    sum: Vec<i64>,
    noise: Vec<i64>,
}

/// What a tree costs, for its whole life.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TreeCost {
    /// Σ over nodes of (participations in the node)², at most.
    nodes: u64,
    bound_squared: u64,
    variance: (u64, u64),
}

/// A node of the tree: the sum of 2^`level` steps, of which `end` is the last, counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TreeNode {
    /// 0 for a single step.
    pub level: u32,
    /// Its last step: a multiple of 2^`level`.
    pub end: u64,
}

/// The noise of a [`TreeSum`] without the sums: what each step adds to the noise of all steps so far. For an aggregator that tells one
/// step's sum after the other, and keeps nothing of a tree but a seed for each open node, of which its noise is made: drawn when the node's last step is
/// told, never before, and kept until the node is replaced. Whoever tells one step twice, with two sums, must draw another seed for its node.
///
/// With Nₜ the noise of the first t sums together, step t is told with Nₜ − Nₜ₋₁: so all steps told so far add up to their exact sum and Nₜ,
/// which is all that anyone knows of them. That is the noise of the node that ends with t, less that of the nodes that it replaces.
///
/// ```
/// use unsaid_privacy::central::{CentralError, TreeNode, TreeNoise};
/// # use rand_core::SeedableRng;
/// let noise = TreeNoise::new(100, 2.0)?;
/// // A generator for each node, always the same for the same one, of which nobody else can guess any.
/// # fn generator(node: TreeNode) -> rand_chacha::ChaCha20Rng { rand_chacha::ChaCha20Rng::from_seed([(8 * node.end as u8) + node.level as u8; 32]) }
/// let mut first = vec![6_i64, -8];
/// noise.add(1, &mut first, generator)?;
/// let mut second = vec![6_i64, -8];
/// noise.add(2, &mut second, generator)?; // less the noise of the first step, which cancels in the sum of both
/// # Ok::<(), CentralError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TreeNoise {
    gaussian: DiscreteGaussian,
    bound_squared: u64,
}

impl TreeNoise {
    /// Noise of `noise_multiplier` times √`bound_squared` in every node.
    ///
    /// # Errors
    /// [`CentralError::Bound`] and [`CentralError::Noise`], as [`TreeSum::new`].
    pub fn new(bound_squared: u64, noise_multiplier: f64) -> Result<Self, CentralError> {
        Ok(Self {
            gaussian: noise_of(bound_squared, noise_multiplier)?,
            bound_squared,
        })
    }

    /// Adds step `step`'s part of the noise, from 1, to its exact sum. `generator` gives a node's generator: the same one for the same node
    /// whenever it is asked, and one that is independent of all others. On an error all coordinates are 0.
    ///
    /// # Errors
    /// [`CentralError::Full`] for step 0 or one above [`TreeSum::MAX_STEPS`], [`CentralError::Noise`] where a coordinate leaves 64 bits.
    pub fn add<R: CryptoRng>(
        &self,
        step: u64,
        sum: &mut [i64],
        mut generator: impl FnMut(TreeNode) -> R,
    ) -> Result<(), CentralError> {
        if step == 0 || step > TreeSum::MAX_STEPS {
            return Err(CentralError::Full(step));
        }
        let level = step.trailing_zeros();
        let mut rng = generator(TreeNode { level, end: step });
        let mut replaced: Vec<R> = (0..level)
            .map(|level| {
                generator(TreeNode {
                    level,
                    end: step - (1 << level),
                })
            })
            .collect();
        for index in 0..sum.len() {
            let mut noised = sum[index].checked_add(self.gaussian.sample(&mut rng));
            for rng in &mut replaced {
                let noise = self.gaussian.sample(rng);
                noised = noised.and_then(|sum| sum.checked_sub(noise));
            }
            match noised {
                Some(noised) => sum[index] = noised,
                None => {
                    sum.fill(0);
                    return Err(crate::NoiseError::Saturated { index }.into());
                }
            }
        }
        Ok(())
    }

    /// What the first `steps` steps cost a participant between two of whose steps there are always at least `separation`: step t, and then
    /// t + `separation` at the earliest; 1 for any steps. Whichever those are, and whatever the vectors within the bound.
    ///
    /// A node with j of them has a sensitivity of j·Δ, and only nodes that have ended were told. At level l there are ⌊n/2^l⌋ of them for n
    /// steps, with at most ⌈2^l/`separation`⌉ of the participant's steps each, and ⌈n/`separation`⌉ together. Σ j² is largest where they lie
    /// together, as many nodes as possible being full (it is convex), and the sum of what each level has at most is never below what all have
    /// (Kairouz and others 2021, appendix D, has the exact maximum, by dynamic programming).
    ///
    /// # Errors
    /// [`CentralError::Full`] for more steps than [`TreeSum::MAX_STEPS`], [`CentralError::Accounting`] for a separation of 0.
    pub fn cost(&self, steps: u64, separation: u64) -> Result<TreeCost, CentralError> {
        if steps > TreeSum::MAX_STEPS {
            return Err(CentralError::Full(steps));
        }
        if separation == 0 {
            return Err(CompositionError::Steps(separation).into());
        }
        let together = steps.div_ceil(separation);
        let mut nodes = 0_u64;
        for level in 0..u64::BITS - steps.leading_zeros() {
            let most = (1_u64 << level).div_ceil(separation);
            let full = (together / most).min(steps >> level);
            // The last one has what is left; all are full where there are not more nodes than that.
            let left = if full < steps >> level {
                together - full * most
            } else {
                0
            };
            nodes = nodes
                .saturating_add(full.saturating_mul(most.saturating_mul(most)))
                .saturating_add(left.saturating_mul(left));
        }
        Ok(TreeCost {
            nodes,
            bound_squared: self.bound_squared,
            variance: self.gaussian.variance(),
        })
    }
}

/// How many times the cost of one node's noise on one vector each of a participant's steps costs at most, in a tree of `steps` steps of which
/// theirs lie at least `separation` (above 0) apart, so that a ledger may book step by step: Σ ⌈2^l/`separation`⌉ over the levels. Of the
/// squares of [`TreeNoise::cost`], Σ j² ≤ Σ j·m where j ≤ m, and Σ j is their number of steps.
pub fn tree_share(steps: u64, separation: u64) -> u64 {
    (0..u64::BITS - steps.leading_zeros())
        .map(|level| (1_u64 << level).div_ceil(separation.max(1)))
        .fold(0, u64::saturating_add)
}

/// Without the nodes, which hold exact sums and the noise.
impl fmt::Debug for TreeSum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TreeSum")
            .field("dimension", &self.dimension)
            .field("max_steps", &self.max_steps)
            .field("steps", &self.steps)
            .finish_non_exhaustive()
    }
}

impl TreeSum {
    /// The most steps.
    pub const MAX_STEPS: u64 = 1 << 32;

    /// Sums of `dimension` coordinates over at most `max_steps` steps, where one participant's vector has a squared norm of at most
    /// `bound_squared`, and every node's noise σ = `noise_multiplier`·√`bound_squared`.
    ///
    /// # Errors
    /// [`CentralError::Bound`], [`CentralError::Noise`], [`CentralError::Full`] for no steps or more than [`Self::MAX_STEPS`].
    pub fn new(
        dimension: usize,
        bound_squared: u64,
        noise_multiplier: f64,
        max_steps: u64,
    ) -> Result<Self, CentralError> {
        if max_steps == 0 || max_steps > Self::MAX_STEPS {
            return Err(CentralError::Full(max_steps));
        }
        Ok(Self {
            gaussian: noise_of(bound_squared, noise_multiplier)?,
            bound_squared,
            dimension,
            max_steps,
            steps: 0,
            nodes: Vec::new(),
        })
    }

    /// Adds one step's exact sum, and gives the noised sum of all steps so far.
    ///
    /// # Errors
    /// [`CentralError::Length`], [`CentralError::Full`] after the last step, [`CentralError::Noise`] where a sum leaves 64 bits. On an
    /// error nothing has changed.
    pub fn push<R: CryptoRng + ?Sized>(
        &mut self,
        step: &[i64],
        rng: &mut R,
    ) -> Result<Vec<i64>, CentralError> {
        if step.len() != self.dimension {
            return Err(CentralError::Length {
                found: step.len(),
                expected: self.dimension,
            });
        }
        if self.steps == self.max_steps {
            return Err(CentralError::Full(self.max_steps));
        }
        // As a binary counter: full nodes of the lowest levels join the new one.
        let mut sum = step.to_vec();
        let level = self
            .nodes
            .iter()
            .position(Option::is_none)
            .unwrap_or(self.nodes.len());
        for node in self.nodes[..level].iter().flatten() {
            add_to(&mut sum, &node.sum)?;
        }
        let node = Node {
            sum,
            noise: (0..self.dimension).map(|_| self.gaussian.sample(rng)).collect(),
        };
        let mut total = vec![0; self.dimension];
        for node in self.nodes.iter().skip(level + 1).flatten().chain([&node]) {
            add_to(&mut total, &node.sum)?;
            add_to(&mut total, &node.noise)?;
        }
        if level == self.nodes.len() {
            self.nodes.push(None);
        }
        self.nodes[..level].fill_with(|| None);
        self.nodes[level] = Some(node);
        self.steps += 1;
        Ok(total)
    }

    /// Steps so far.
    pub const fn steps(&self) -> u64 {
        self.steps
    }

    /// Nodes above one leaf, the leaf included: ⌊log₂ max_steps⌋ + 1.
    pub const fn height(&self) -> u32 {
        self.max_steps.ilog2() + 1
    }

    /// What the whole tree costs a participant who takes part in at most `participations` of its steps, with any steps and any
    /// vectors within the bound, chosen as they like. A node with j of them has a sensitivity of j·Δ. At level l a node has 2^l
    /// leaves, so that j ≤ min(k, 2^l) for k participations, and Σ j² ≤ k·min(k, 2^l) over the level. For k = 1 this is the height
    /// (Kairouz and others 2021, Theorem 4.1).
    ///
    /// # Errors
    /// [`CentralError::Accounting`] for no participations, or more than there are steps.
    pub fn cost(&self, participations: u64) -> Result<TreeCost, CentralError> {
        if participations == 0 || participations > self.max_steps {
            return Err(CompositionError::Steps(participations).into());
        }
        let mut nodes = 0_u64;
        for level in 0..self.height() {
            let most = participations.min(1 << level);
            nodes = nodes.saturating_add(participations.saturating_mul(most));
        }
        Ok(TreeCost {
            nodes,
            bound_squared: self.bound_squared,
            variance: self.gaussian.variance(),
        })
    }
}

impl TreeCost {
    /// ρ of all that the tree tells: Σ (kⱼ·s·Δ)²/2σ² over its nodes (CKS 2020, Theorem 14, for the vector of all nodes).
    pub fn rho(&self, adjacency: Adjacency) -> Rho {
        let (num, den) = self.variance;
        Rho::of_ratio(
            adjacency,
            (self.nodes as f64).next_up() * self.bound_squared as f64 * den as f64,
            num as f64,
        )
    }
}

fn add_to(total: &mut [i64], more: &[i64]) -> Result<(), CentralError> {
    for (index, (total, more)) in total.iter_mut().zip(more).enumerate() {
        *total = total
            .checked_add(*more)
            .ok_or(crate::NoiseError::Saturated { index })?;
    }
    Ok(())
}
