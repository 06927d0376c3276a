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
            if let Some(state) = shared.newest.as_ref().filter(|state| is_after(state, round)) {
                return Poll::Ready(state.clone());
            }
            if !shared
                .waiting
                .iter()
                .any(|waker| waker.will_wake(context.waker()))
            {
                shared.waiting.push(context.waker().clone());
            }
            Poll::Pending
        })
        .await
    }
}

/// Whether `round` is over in `state`.
pub(crate) fn is_after(state: &RoundState, round: u64) -> bool {
    state.round > round || state.phase == unsaid_protocol::RoundPhase::Finished
}

#[cfg(test)]
mod tests {
    use std::{future::Future, pin::pin, task::Context};

    use pollster::block_on;
    use unsaid_protocol::{ContentHash, RoundPhase};

    use super::*;

    fn state(round: u64, phase: RoundPhase) -> RoundState {
        RoundState {
            task: "flowers".parse().unwrap(),
            round,
            phase,
            model: ContentHash::of(b"model"),
            manifest: ContentHash::of(b"manifest"),
            checked_in: 0,
            received: 0,
            deadline_ms: None,
            paused: false,
        }
    }

    fn is_waiting(wait: impl Future) -> bool {
        pin!(wait)
            .poll(&mut Context::from_waker(Waker::noop()))
            .is_pending()
    }

    #[test]
    fn only_a_later_round_ends_the_wait() {
        let feed = Feed::default();
        assert!(is_waiting(feed.after(3)));
        for round in [2, 3] {
            feed.set(state(round, RoundPhase::Collecting));
            assert!(is_waiting(feed.after(3)), "{round}");
        }
        let later = state(4, RoundPhase::Idle);
        feed.set(later.clone());
        assert_eq!(block_on(feed.after(3)), later);
        assert_eq!(feed.newest(), Some(later));
    }

    #[test]
    fn a_finished_task_ends_every_wait() {
        let feed = Feed::default();
        feed.set(state(3, RoundPhase::Finished));
        assert_eq!(block_on(feed.after(u64::MAX)).round, 3);
    }

    #[test]
    fn everyone_who_waits_is_woken() {
        let feed = Feed::default();
        let tell = async { feed.set(state(2, RoundPhase::Collecting)) };
        let both = futures_util::future::join(feed.after(1), feed.after(0));
        let ((one, other), ()) = block_on(futures_util::future::join(both, tell));
        assert_eq!((one.round, other.round), (2, 2));
    }

    #[test]
    fn waiting_again_and_again_does_not_pile_up() {
        let feed = Feed::default();
        for _ in 0..100 {
            assert!(is_waiting(feed.after(1)));
        }
        assert_eq!(feed.shared.borrow().waiting.len(), 1);
    }
}
