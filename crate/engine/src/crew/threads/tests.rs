use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::atomic::{AtomicU32, AtomicUsize, Ordering},
};

use super::*;
use crate::crew::{Parts, split};

/// There is one crew in the process: those who look at it take turns.
static TURN: Mutex<()> = Mutex::new(());

fn with_threads<R>(work: impl FnOnce() -> R) -> R {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    assert!(start(3) >= 3);
    work()
}

#[test]
fn every_task_is_done_once_and_by_several() {
    with_threads(|| {
        let mut by_others = 0;
        for round in 0..2000 {
            let tasks = 1 + round % 7;
            let done: Vec<AtomicU32> = (0..tasks).map(|_| AtomicU32::new(0)).collect();
            let others = AtomicUsize::new(0);
            let me = std::thread::current().id();
            run(tasks, &|task| {
                done[task].fetch_add(1, Ordering::Relaxed);
                others.fetch_add(usize::from(std::thread::current().id() != me), Ordering::Relaxed);
                if round % 100 == 99 {
                    std::thread::sleep(Duration::from_millis(1));
                }
            });
            assert!(
                done.iter().all(|count| count.load(Ordering::Relaxed) == 1),
                "{done:?}"
            );
            by_others += others.load(Ordering::Relaxed);
        }
        assert!(by_others > 0, "nobody helped");
    });
}

#[test]
fn sleeping_helpers_are_woken() {
    with_threads(|| {
        let me = std::thread::current().id();
        let helped = (0..50).any(|_| {
            std::thread::sleep(Duration::from_millis(20));
            let others = AtomicUsize::new(0);
            run(3, &|_| {
                others.fetch_add(usize::from(std::thread::current().id() != me), Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(20));
            });
            others.load(Ordering::Relaxed) > 0
        });
        assert!(helped);
    });
}

#[test]
fn a_task_does_not_fork_and_a_second_caller_works_alone() {
    with_threads(|| {
        let total = AtomicUsize::new(0);
        run(4, &|_| {
            assert_eq!(size(), 1);
            run(5, &|task| {
                total.fetch_add(task, Ordering::Relaxed);
            });
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    let me = std::thread::current().id();
                    run(3, &|task| {
                        assert_eq!(std::thread::current().id(), me);
                        total.fetch_add(task, Ordering::Relaxed);
                    });
                });
            });
        });
        assert_eq!(total.load(Ordering::Relaxed), 4 * (10 + 3));
    });
}

#[test]
fn a_range_is_cut_at_whole_units_and_lost_nowhere() {
    with_threads(|| {
        for (count, unit, cost) in [
            (0, 1, 1),
            (1, 4, 1 << 20),
            (1003, 4, 1 << 12),
            (100, 12, 1 << 12),
            (7, 1, 1),
        ] {
            let mut numbers = vec![0u8; count];
            let parts = Parts::of(&mut numbers);
            split(count, unit, cost, |range| {
                assert!(
                    range.start.is_multiple_of(unit)
                        && (range.end == count || range.end.is_multiple_of(unit))
                );
                // SAFETY: ranges do not overlap, or the numbers would be more than 1.
                unsafe { parts.part(range) }
                    .iter_mut()
                    .for_each(|number| *number += 1);
            });
            assert!(
                numbers.iter().all(|&number| number == 1),
                "{count} {unit} {cost}: {numbers:?}"
            );
        }
    });
}

/// On whichever thread: the caller learns of it, and the crew can be used again.
#[test]
fn a_panic_reaches_the_caller() {
    with_threads(|| {
        let me = std::thread::current().id();
        for on_helper in [false, true] {
            let panicked = (0..200).any(|_| {
                let work = |_: usize| {
                    std::thread::sleep(Duration::from_millis(2));
                    assert!((std::thread::current().id() != me) != on_helper, "on purpose");
                };
                catch_unwind(AssertUnwindSafe(|| run(3, &work))).is_err()
            });
            assert!(panicked, "on a helper: {on_helper}");
            start(3);
            let total = AtomicUsize::new(0);
            run(3, &|task| {
                total.fetch_add(task, Ordering::Relaxed);
            });
            assert_eq!(total.load(Ordering::Relaxed), 3);
        }
    });
}
