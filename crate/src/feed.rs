//! The newest state of the task's round, as the relay's events tell it, and waiting for the next.

use std::{
    cell::RefCell,
    rc::Rc,
    task::{Poll, Waker},
};

use unsaid_protocol::RoundState;

/// Shared by the event stream, which fills it, and the session, which waits on it.
#[derive(Debug, Clone, Default)]
pub struct Feed {
    shared: Rc<RefCell<Shared>>,
}

#[derive(Debug, Default)]
struct Shared {
    newest: Option<RoundState>,
    waiting: Vec<Waker>,
}

impl Feed {
    /// Takes a newer state.
    pub fn set(&self, state: RoundState) {
        let waiting = {
            let mut shared = self.shared.borrow_mut();
            shared.newest = Some(state);
            std::mem::take(&mut shared.waiting)
        };
        waiting.into_iter().for_each(Waker::wake);
    }

    /// The newest state.
    pub fn newest(&self) -> Option<RoundState> {
        self.shared.borrow().newest.clone()
    }

    /// Waits for a state of a round after `round`.
    pub async fn after(&self, round: u64) -> RoundState {
        std::future::poll_fn(|context| {
            let mut shared = self.shared.borrow_mut();
            if let Some(state) = shared
                .newest
                .as_ref()
                .filter(|state| state.round > round || is_finished(state))
            {
                return Poll::Ready(state.clone());
            }
            shared.waiting.push(context.waker().clone());
            Poll::Pending
        })
        .await
    }
}

fn is_finished(state: &RoundState) -> bool {
    state.phase == unsaid_protocol::RoundPhase::Finished
}
