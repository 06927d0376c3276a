//! Answers questions about ε, one a line, for scripts that compare accountants:
//! `cargo run --release -p unsaid-privacy --example accountant < QUESTIONS`.
//!
//! A question is `sampling rate noise_multiplier steps delta adjacency`, with `all`, `poisson` or `subset`, and `add-remove` or
//! `replace-one`. The answer is a line of JSON: RDP at the usual orders, its ε, and the lower and upper ε of the loss distribution
//! (null where there is none), and the milliseconds that took.

use std::{error::Error, io, time::Instant};

use unsaid_privacy::Adjacency;
use unsaid_privacy::accounting::{Composition, GaussianSum, Sampling, usual_orders};

fn main() -> Result<(), Box<dyn Error>> {
    for line in io::stdin().lines() {
        println!("{}", answer(&line?)?);
    }
    Ok(())
}

fn answer(line: &str) -> Result<serde_json::Value, Box<dyn Error>> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let [sampling, rate, multiplier, steps, delta, adjacency] = words[..] else {
        return Err(format!("not a question: {line}").into());
    };
    let rate = rate.parse()?;
    let sampling = match sampling {
        "all" => Sampling::All,
        "poisson" => Sampling::Poisson { rate },
        "subset" => Sampling::WithoutReplacement { rate },
        other => return Err(format!("no such sampling: {other}").into()),
    };
    let adjacency = match adjacency {
        "add-remove" => Adjacency::AddRemove,
        "replace-one" => Adjacency::ReplaceOne,
        other => return Err(format!("no such adjacency: {other}").into()),
    };
    let step = GaussianSum::new(multiplier.parse()?, sampling)?;
    let composition = Composition::new(adjacency).repeat(step, steps.parse()?)?;
    let delta = delta.parse()?;
    let curve = composition.rdp(&usual_orders())?;
    let begun = Instant::now();
    let bounds = composition.loss()?.epsilon(delta).ok();
    let took = begun.elapsed();
    Ok(serde_json::json!({
        "rdp": curve.values(),
        "rdp_epsilon": curve.epsilon(delta)?.0,
        "lower": bounds.map(|(lower, _)| lower),
        "upper": bounds.map(|(_, upper)| upper),
        "pld_ms": took.as_secs_f64() * 1e3,
    }))
}
