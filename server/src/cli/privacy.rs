//! `unsaid-relay privacy`: what a run costs, how much noise a cost asks for, and samples of the noise itself.

use std::{
    fmt,
    io::{self, BufWriter, Write},
};

use clap::{Args, Subcommand, ValueEnum};
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;
use serde_json::json;
use unsaid_privacy::{
    Adjacency, DiscreteGaussian, DiscreteLaplace, NoiseError, Skellam,
    accounting::{Accountant, Composition, CompositionError, GaussianSum, Sampling, noise_multiplier},
};

#[derive(Debug, Subcommand)]
pub(super) enum PrivacyCommand {
    /// Print the epsilon that a number of noised sums cost.
    #[command(allow_negative_numbers = true)]
    Epsilon {
        /// σ of the noise, in units of the norm to which each record's vector is clipped.
        #[arg(long)]
        noise_multiplier: f64,
        #[command(flatten)]
        run: Run,
    },
    /// Print the least noise multiplier with which a number of noised sums keep an epsilon.
    #[command(allow_negative_numbers = true)]
    Calibrate {
        /// The epsilon to keep.
        #[arg(long)]
        epsilon: f64,
        #[command(flatten)]
        run: Run,
    },
    /// Write whole numbers of noise, one a line, for anyone's own statistics.
    #[command(allow_negative_numbers = true)]
    Sample {
        /// The distribution.
        #[arg(long, value_enum)]
        mechanism: MechanismName,
        /// σ of the discrete Gaussian, the scale of the discrete Laplace, or the standard deviation of the Skellam distribution: a
        /// decimal number, taken exactly as it is written.
        #[arg(long, alias = "scale", value_name = "DECIMAL")]
        sigma: String,
        /// How many.
        #[arg(long)]
        count: u64,
    },
}

/// A number of noised sums, one after the other.
#[derive(Debug, Args)]
pub(super) struct Run {
    /// The probability with which a record is in a step.
    #[arg(long, default_value = "1")]
    sampling_rate: f64,
    /// How the records of a step are chosen.
    #[arg(long, value_enum, default_value = "poisson")]
    sampling: SamplingName,
    /// The number of steps.
    #[arg(long)]
    steps: u64,
    /// The delta at which epsilon holds.
    #[arg(long)]
    delta: f64,
    /// How it is computed.
    #[arg(long, value_enum, default_value = "pld")]
    accountant: AccountantName,
    /// What must be hard to tell apart: a record there or not, or a record and any other in its place.
    #[arg(long, value_enum)]
    adjacency: AdjacencyName,
    /// Print a JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum SamplingName {
    /// Each record by a coin of its own.
    Poisson,
    /// A batch of fixed size.
    WithoutReplacement,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum AccountantName {
    /// Rényi differential privacy: quick, an upper bound.
    Rdp,
    /// The distribution of the privacy loss: tight.
    Pld,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum AdjacencyName {
    AddRemove,
    ReplaceOne,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum MechanismName {
    DiscreteGaussian,
    DiscreteLaplace,
    Skellam,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(super) enum PrivacyCommandError {
    /// The run makes no sense, or its cost cannot be computed.
    #[error(transparent)]
    Accounting(#[from] CompositionError),
    /// There is no such noise.
    #[error(transparent)]
    Noise(#[from] NoiseError),
    /// σ is not a number.
    #[error(
        "--sigma is {0:?}, but must be a decimal number above 0, such as 2.5 or 1e3, of at most 18 digits"
    )]
    Sigma(String),
    /// The system gives no randomness.
    #[error("the system's random source failed, so there is no noise: {0}")]
    NoRandomness(#[from] getrandom::Error),
    /// Standard output does not take it.
    #[error("writing failed: {0}")]
    Output(#[from] io::Error),
}

/// Runs the command, and writes its answer to `out`.
pub(super) fn run(command: PrivacyCommand, out: impl Write) -> Result<(), PrivacyCommandError> {
    let mut out = BufWriter::new(out);
    match command {
        PrivacyCommand::Epsilon {
            noise_multiplier,
            run,
        } => epsilon(noise_multiplier, &run, &mut out)?,
        PrivacyCommand::Calibrate { epsilon, run } => calibrate(epsilon, &run, &mut out)?,
        PrivacyCommand::Sample {
            mechanism,
            sigma,
            count,
        } => match sample(mechanism, &sigma, count, &mut out) {
            // Whoever reads has seen enough.
            Err(PrivacyCommandError::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
                return Ok(());
            }
            other => other?,
        },
    }
    out.flush()?;
    Ok(())
}

impl Run {
    fn sampling(&self) -> Sampling {
        let rate = self.sampling_rate;
        match self.sampling {
            SamplingName::Poisson => Sampling::Poisson { rate },
            SamplingName::WithoutReplacement => Sampling::WithoutReplacement { rate },
        }
    }

    const fn adjacency(&self) -> Adjacency {
        match self.adjacency {
            AdjacencyName::AddRemove => Adjacency::AddRemove,
            AdjacencyName::ReplaceOne => Adjacency::ReplaceOne,
        }
    }

    const fn accountant(&self) -> Accountant {
        match self.accountant {
            AccountantName::Rdp => Accountant::Rdp,
            AccountantName::Pld => Accountant::Pld,
        }
    }
}

fn epsilon(multiplier: f64, run: &Run, out: &mut impl Write) -> Result<(), PrivacyCommandError> {
    let step = GaussianSum::new(multiplier, run.sampling())?;
    let bounds = Composition::new(run.adjacency())
        .repeat(step, run.steps)?
        .epsilon(run.accountant(), run.delta)?;
    if run.json {
        let answer = json!({ "epsilon": bounds.epsilon, "lower": bounds.lower, "upper": bounds.upper });
        writeln!(out, "{answer}")?;
    } else {
        // Outwards, so that what is read is as true as what was computed.
        let (lower, upper) = (
            (bounds.lower * 1e6).floor() / 1e6,
            (bounds.upper * 1e6).ceil() / 1e6,
        );
        write!(out, "epsilon {upper:.6} ")?;
        if bounds.lower > 0.0 {
            write!(out, "(no accountant can prove less than {lower:.6}) ")?;
        } else {
            write!(out, "(how much of it is needed is not known) ")?;
        }
        writeln!(out, "at delta {:e}, {}", run.delta, Named(run.adjacency()))?;
    }
    Ok(())
}

fn calibrate(epsilon: f64, run: &Run, out: &mut impl Write) -> Result<(), PrivacyCommandError> {
    let multiplier = noise_multiplier(
        epsilon,
        run.delta,
        run.sampling(),
        run.steps,
        run.adjacency(),
        run.accountant(),
    )?;
    if run.json {
        writeln!(out, "{}", json!({ "noise_multiplier": multiplier }))?;
    } else {
        writeln!(out, "{multiplier}")?;
    }
    Ok(())
}

fn sample(
    mechanism: MechanismName,
    sigma: &str,
    count: u64,
    out: &mut impl Write,
) -> Result<(), PrivacyCommandError> {
    let wrong = || PrivacyCommandError::Sigma(sigma.to_owned());
    let (num, den) = fraction(sigma).ok_or_else(wrong)?;
    let squared = || num.checked_mul(num).zip(den.checked_mul(den)).ok_or_else(wrong);
    let mut rng = seeded_by(getrandom::fill)?;
    let mut write = |mut draw: Box<dyn FnMut(&mut ChaCha20Rng) -> i64>| -> io::Result<()> {
        for _ in 0..count {
            writeln!(out, "{}", draw(&mut rng))?;
        }
        Ok(())
    };
    match mechanism {
        MechanismName::DiscreteGaussian => {
            let (num, den) = squared()?;
            let gaussian = DiscreteGaussian::with_variance(num, den)?;
            write(Box::new(move |rng| gaussian.sample(rng)))?;
        }
        MechanismName::DiscreteLaplace => {
            let laplace = DiscreteLaplace::with_scale(num, den)?;
            write(Box::new(move |rng| laplace.sample(rng)))?;
        }
        MechanismName::Skellam => {
            let (num, den) = squared()?;
            let skellam = Skellam::with_variance(num, den)?;
            write(Box::new(move |rng| skellam.sample(rng)))?;
        }
    }
    Ok(())
}

/// A generator; none where there is no seed.
fn seeded_by(
    source: impl FnOnce(&mut [u8]) -> Result<(), getrandom::Error>,
) -> Result<ChaCha20Rng, getrandom::Error> {
    let mut seed = [0; 32];
    source(&mut seed)?;
    Ok(ChaCha20Rng::from_seed(seed))
}

/// A decimal number above 0 as a fraction, exactly as it is written.
fn fraction(text: &str) -> Option<(u128, u128)> {
    let (digits, exponent) = match text.split_once(['e', 'E']) {
        Some((digits, exponent)) => (digits, exponent.parse::<i32>().ok()?),
        None => (text, 0),
    };
    let (whole, part) = digits.split_once('.').unwrap_or((digits, ""));
    let all = format!("{whole}{part}");
    if all.is_empty() || all.len() > 18 || !all.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let num = all.parse::<u128>().ok().filter(|num| *num > 0)?;
    let shift = exponent.checked_sub(i32::try_from(part.len()).ok()?)?;
    let power = 10_u128
        .checked_pow(shift.unsigned_abs())
        .filter(|_| shift.abs() <= 18)?;
    if shift < 0 {
        Some((num, power))
    } else {
        num.checked_mul(power).map(|num| (num, 1))
    }
}

/// An adjacency, in words.
struct Named(Adjacency);

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Adjacency::AddRemove => "add/remove",
            _ => "replace-one",
        })
    }
}

#[cfg(test)]
mod tests;
