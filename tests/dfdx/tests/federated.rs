//! The example, as a test: the shared module learns, and every client pays for what it sends.
#![allow(missing_docs, clippy::panic, clippy::unwrap_used, clippy::expect_used)] // tests

use unsaid_dfdx_example::{CLIENTS, federate};

const ROUNDS: u32 = 14;

/// One sector alone teaches little of the whole: the shared model must know what no single client has seen. (Chance is 33 %.
/// Seen over ten runs: 91.7 to 97.5 %.)
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_with_a_sector_each_teach_one_dfdx_module_the_whole() {
    let run = tokio::time::timeout(std::time::Duration::from_secs(120), federate(ROUNDS, &[]));
    let report = run.await.expect("it ends in time").unwrap();
    println!("{report:?}");
    let (first, last) = (report.accuracy[0], report.accuracy[ROUNDS as usize]);
    assert_eq!(report.accuracy.len(), ROUNDS as usize + 1);
    assert!(first < 0.6, "an untrained module guesses: {first}");
    assert!(last > 0.8 && last > first + 0.3, "{first} → {last}");
    // Every update was debited before it was sent, at the price of the task's noise.
    assert_eq!(report.counted, vec![u64::from(ROUNDS); CLIENTS]);
    assert!(
        report
            .epsilon
            .iter()
            .all(|&epsilon| epsilon > 0.0 && epsilon == report.epsilon[0])
    );
}
