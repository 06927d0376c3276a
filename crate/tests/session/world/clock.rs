//! Time that passes when a test lets it.

use std::cell::{Cell, RefCell};

use unsaid::ports::Clock;

use super::{Log, Op, turn};

/// A clock whose waits take no time. What was planned for a moment happens when a wait passes it.
pub struct VirtualClock {
    log: Log,
    now: Cell<f64>,
    plans: RefCell<Vec<Plan>>,
}

struct Plan {
    at_ms: f64,
    what: Box<dyn FnOnce()>,
}

impl VirtualClock {
    pub fn new(log: &Log) -> Self {
        Self {
            log: log.clone(),
            now: Cell::new(0.0),
            plans: RefCell::default(),
        }
    }

    /// Does `what` once `in_ms` have passed.
    pub fn plan(&self, in_ms: u64, what: impl FnOnce() + 'static) {
        self.plans.borrow_mut().push(Plan {
            at_ms: self.now.get() + in_ms as f64,
            what: Box::new(what),
        });
    }

    /// Lets time pass while nobody waits.
    pub fn pass(&self, ms: u64) {
        self.now.set(self.now.get() + ms as f64);
    }

    /// The time, without the step that reading it as a session takes.
    pub fn now(&self) -> f64 {
        self.now.get()
    }

    fn due(&self, until: f64) -> Option<Plan> {
        let mut plans = self.plans.borrow_mut();
        let due = plans.iter().enumerate().filter(|(_, plan)| plan.at_ms <= until);
        let earliest = due.min_by(|(_, a), (_, b)| a.at_ms.total_cmp(&b.at_ms))?.0;
        Some(plans.swap_remove(earliest))
    }
}

impl Clock for VirtualClock {
    fn now_ms(&self) -> f64 {
        self.now.set(self.now.get() + 0.0371); // a little passes between two looks at a clock
        self.now.get()
    }

    fn unix_ms(&self) -> u64 {
        1_700_000_000_000 + self.now.get() as u64
    }

    async fn sleep(&self, ms: u64) {
        self.log.push(Op::Wait(ms));
        let until = self.now.get() + ms as f64;
        loop {
            turn().await;
            let Some(plan) = self.due(until) else { break };
            self.now.set(plan.at_ms.max(self.now.get()));
            (plan.what)();
        }
        self.now.set(until.max(self.now.get()));
    }

    async fn give_way(&self) {
        turn().await;
    }
}
