//! Runs the example and prints the shared model's accuracy round by round. Arguments: rounds, and overrides of the task.

use std::{env, error::Error};

/// Rounds where nothing else is said.
const ROUNDS: u32 = 14;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut words = env::args().skip(1);
    let rounds = words.next().map_or(Ok(ROUNDS), |rounds| rounds.parse())?;
    let overrides: Vec<String> = words.collect();
    let report = unsaid_dfdx_example::federate(rounds, &overrides).await?;
    println!("round  held-out accuracy");
    for (round, accuracy) in report.accuracy.iter().enumerate() {
        println!("{round:5}  {:6.2} %", 100.0 * accuracy);
    }
    println!("ε of each client (δ = 1e-5): {:?}", report.epsilon);
    Ok(())
}
