//! Stopping: a flag that can be asked and waited for.

use std::{
    cell::{Cell, RefCell},
    future::Future,
    pin::pin,
    rc::Rc,
    task::{Poll, Waker},
};

use futures_util::future::{Either, select};

use crate::ClientError;

/// Shared by the one who stops and the one who is stopped.
#[derive(Debug, Clone, Default)]
pub struct Abort {
    shared: Rc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    stopped: Cell<bool>,
    waiting: RefCell<Vec<Waker>>,
}

impl Abort {
    /// Stops.
    pub fn stop(&self) {
        self.shared.stopped.set(true);
        for waker in self.shared.waiting.take() {
            waker.wake();
        }
    }

    /// Whether it was stopped.
    pub fn is_stopped(&self) -> bool {
        self.shared.stopped.get()
    }

    /// Waits until it is stopped.
    async fn stopped(&self) {
        std::future::poll_fn(|context| {
            if self.is_stopped() {
                return Poll::Ready(());
            }
            // Asked again by the same task, it is woken once: a run of many rounds must not pile up wakers.
            let mut waiting = self.shared.waiting.borrow_mut();
            if !waiting.iter().any(|waker| waker.will_wake(context.waker())) {
                waiting.push(context.waker().clone());
            }
            Poll::Pending
        })
        .await;
    }

    /// `work`, unless stopped first.
    ///
    /// # Errors
    /// [`ClientError::Aborted`] where it was; `work` is dropped then.
    pub async fn guard<T>(&self, work: impl Future<Output = T>) -> Result<T, ClientError> {
        if self.is_stopped() {
            return Err(ClientError::Aborted);
        }
        match select(pin!(self.stopped()), pin!(work)).await {
            Either::Left(_) => Err(ClientError::Aborted),
            Either::Right((done, _)) => Ok(done),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{future, task::Context};

    use pollster::block_on;

    use super::*;

    #[test]
    fn work_that_ends_is_let_through_even_if_a_stop_comes_later() {
        let abort = Abort::default();
        assert_eq!(block_on(abort.guard(async { 7 })), Ok(7));
        abort.stop();
        assert!(abort.is_stopped());
    }

    #[test]
    fn after_a_stop_no_work_is_begun() {
        let abort = Abort::default();
        abort.clone().stop();
        let work = async { panic!("begun") };
        assert_eq!(block_on(abort.guard::<()>(work)), Err(ClientError::Aborted));
    }

    #[test]
    fn a_stop_ends_the_wait_for_work_and_drops_the_work() {
        struct Dropped(Rc<Cell<bool>>);
        impl Drop for Dropped {
            fn drop(&mut self) {
                self.0.set(true);
            }
        }
        let (abort, dropped) = (Abort::default(), Rc::new(Cell::new(false)));
        let held = Dropped(Rc::clone(&dropped));
        let work = async {
            let _held = held;
            future::pending::<()>().await;
        };
        let stop = async { abort.stop() };
        let (result, ()) = block_on(futures_util::future::join(abort.guard(work), stop));
        assert_eq!(result, Err(ClientError::Aborted));
        assert!(dropped.get());
    }

    #[test]
    fn everyone_who_waits_hears_the_stop() {
        let abort = Abort::default();
        let wait = || abort.guard(future::pending::<()>());
        let stop = async { abort.stop() };
        let both = futures_util::future::join(wait(), wait());
        let (both, ()) = block_on(futures_util::future::join(both, stop));
        assert_eq!(both, (Err(ClientError::Aborted), Err(ClientError::Aborted)));
    }

    #[test]
    fn waiting_again_and_again_does_not_pile_up() {
        let abort = Abort::default();
        for _ in 0..100 {
            let wait = pin!(abort.guard(future::pending::<()>()));
            assert!(wait.poll(&mut Context::from_waker(Waker::noop())).is_pending());
        }
        assert_eq!(abort.shared.waiting.borrow().len(), 1);
    }
}
