//! What follows where a thread of a task panics: the relay is not ready any more, says which task it was, and ends.
//!
//! A task's memory after a panic is whatever the fault has left, so the task is not gone on with. What was acknowledged is in the store, and
//! a relay that is started again goes on from there, in less time than it would take anyone to look; whatever supervises the program sees
//! that it failed, which a task that opens itself again and again would hide.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use tokio::sync::watch;
use unsaid_protocol::TaskId;

/// Who hears of the first task that fell.
#[derive(Debug, Clone, Default)]
pub(crate) struct Falls(watch::Sender<Option<TaskId>>);

impl Falls {
    /// The task that fell first; none so far.
    pub(crate) fn first(&self) -> Option<TaskId> {
        self.0.borrow().clone()
    }

    /// Waits until a task falls.
    pub(crate) async fn wait(&self) -> TaskId {
        let mut falls = self.0.subscribe();
        loop {
            if let Some(task) = falls.borrow_and_update().clone() {
                return task;
            }
            if falls.changed().await.is_err() {
                std::future::pending::<()>().await; // `self` is a sender, so there is one
            }
        }
    }

    /// What a thread of `task` holds while it runs.
    pub(crate) fn guard(&self, task: &TaskId, healthy: &Arc<AtomicBool>) -> Guard {
        Guard {
            task: task.clone(),
            healthy: healthy.clone(),
            falls: self.clone(),
        }
    }
}

/// Tells of a panic of the thread that holds it.
#[derive(Debug)]
pub(crate) struct Guard {
    task: TaskId,
    healthy: Arc<AtomicBool>,
    falls: Falls,
}

impl Drop for Guard {
    fn drop(&mut self) {
        if !thread::panicking() {
            return;
        }
        self.healthy.store(false, Ordering::Relaxed);
        tracing::error!(
            task = %self.task,
            "a thread of this task ended by a fault; what it had acknowledged is stored, and nothing else was counted"
        );
        self.falls.0.send_if_modified(|first| {
            let is_first = first.is_none();
            first.get_or_insert_with(|| self.task.clone());
            is_first
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_thread_that_panics_is_told_of_and_one_that_ends_is_not() {
        let (falls, healthy) = (Falls::default(), Arc::new(AtomicBool::new(true)));
        let run = |task: &str, panics: bool| {
            let guard = falls.guard(&task.parse().unwrap(), &healthy);
            let thread = thread::spawn(move || {
                let _guard = guard;
                assert!(!panics, "injected");
            });
            thread.join().is_err()
        };
        assert!(!run("one", false));
        assert!(healthy.load(Ordering::Relaxed) && falls.first().is_none());
        assert!(run("two", true));
        assert!(run("three", true));
        assert!(!healthy.load(Ordering::Relaxed));
        assert_eq!(falls.wait().await.as_str(), "two", "the first one");
    }
}
