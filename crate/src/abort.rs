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
            self.shared.waiting.borrow_mut().push(context.waker().clone());
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
