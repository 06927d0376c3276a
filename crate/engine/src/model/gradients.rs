//! Where the gradients of values are kept: which are needed, and which may share memory because one is done before the
//! other begins.

use super::Node;

/// The plan of the gradients of one model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct GradientPlan {
    /// For each node whether the gradient of its parameters is wanted.
    pub learns: Vec<bool>,
    /// For each value the buffer of its gradient; none where no parameter lies before it.
    pub slot: Vec<Option<usize>>,
    /// Numbers per example of each buffer.
    pub slot_lens: Vec<usize>,
    /// For each node, how its gradients reach its inputs: first and second.
    pub flows: Vec<[Flow; 2]>,
    /// For first and second inputs, the longest gradient that is added to another, and so needs a place of its own; 0 where
    /// there is none.
    pub added_lens: [usize; 2],
}

/// How one gradient reaches the value that it belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flow {
    /// It is not needed.
    Unneeded,
    /// It is the first, and is written.
    Written,
    /// Another was there before, and it is added.
    Added,
}

impl GradientPlan {
    /// Plans for `nodes` over values of `lens` numbers an example. `learns` says for which nodes the gradient of their parameters is wanted. With `keep_all` no
    /// two gradients share memory, since all are needed at the end.
    pub fn new(nodes: &[Node], lens: &[usize], learns: Vec<bool>, keep_all: bool) -> Self {
        let mut needed = vec![false; lens.len()];
        for (index, node) in nodes.iter().enumerate() {
            let before = needed[node.input] || node.other.is_some_and(|other| needed[other]);
            needed[index + 1] = before || learns[index];
        }
        let mut plan = Self {
            learns,
            slot: vec![None; lens.len()],
            slot_lens: Vec::new(),
            flows: vec![[Flow::Unneeded; 2]; nodes.len()],
            added_lens: [0; 2],
        };
        let mut free: Vec<usize> = Vec::new();
        if needed[nodes.len()] {
            plan.take(nodes.len(), lens, &mut free);
        }
        for (index, node) in nodes.iter().enumerate().rev() {
            if plan.slot[index + 1].is_none() {
                continue;
            }
            for (which, value) in [Some(node.input), node.other].into_iter().enumerate() {
                let Some(value) = value.filter(|&value| needed[value]) else {
                    continue;
                };
                plan.flows[index][which] = if plan.slot[value].is_some() {
                    plan.added_lens[which] = plan.added_lens[which].max(lens[value]);
                    Flow::Added
                } else {
                    plan.take(value, lens, &mut free);
                    Flow::Written
                };
            }
            if !keep_all {
                free.extend(plan.slot[index + 1]);
            }
        }
        plan
    }

    /// Gives `value` a free buffer: the smallest that is long enough, else the longest, which grows.
    fn take(&mut self, value: usize, lens: &[usize], free: &mut Vec<usize>) {
        let len = lens[value];
        let fit = |slot: usize| {
            let have = self.slot_lens[slot];
            if have >= len {
                (0, have)
            } else {
                (1, usize::MAX - have)
            }
        };
        let best = (0..free.len()).min_by_key(|&at| fit(free[at]));
        let slot = best.map_or_else(
            || {
                self.slot_lens.push(0);
                self.slot_lens.len() - 1
            },
            |at| free.swap_remove(at),
        );
        self.slot_lens[slot] = self.slot_lens[slot].max(len);
        self.slot[value] = Some(slot);
    }
}
