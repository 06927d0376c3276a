//! What malicious clients send in place of what they learned. They keep to the protocol: what they send is clipped and rounded
//! like everything else, since the relay of a task without noise takes nothing longer.

use std::{fmt, str::FromStr};

use super::local::Local;

/// An attack. All malicious clients of a round do the same.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Attack {
    /// The change, turned round.
    SignFlip,
    /// The change, this many times.
    Scale(f64),
    /// μ − zσ of each coordinate, with z as large as goes unnoticed: Baruch, Baruch, Goldberg, “A Little Is Enough: Circumventing
    /// Defenses For Distributed Learning”, NeurIPS 2019, algorithm 3. These attackers know every update of the round, which is
    /// more than the paper's need.
    LittleIsEnough,
}

impl FromStr for Attack {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let factor = |factor: &str| factor.parse::<f64>().ok().filter(|factor| factor.is_finite());
        match text.split_once(':') {
            None if text == "sign-flip" => Ok(Self::SignFlip),
            None if text == "little-is-enough" => Ok(Self::LittleIsEnough),
            Some(("scale", by)) => factor(by)
                .map(Self::Scale)
                .ok_or_else(|| format!("{by} is not a number")),
            _ => Err(format!(
                "{text} is none of sign-flip, scale:FACTOR, little-is-enough"
            )),
        }
    }
}

impl fmt::Display for Attack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SignFlip => f.write_str("sign-flip"),
            Self::Scale(factor) => write!(f, "scale:{factor}"),
            Self::LittleIsEnough => f.write_str("little-is-enough"),
        }
    }
}

impl Attack {
    /// Changes what the clients numbered below `malicious` send.
    pub(super) fn apply(self, locals: &mut [Local], malicious: usize) {
        let crafted = match self {
            Self::LittleIsEnough => Some(little_is_enough(locals, malicious)),
            Self::SignFlip | Self::Scale(_) => None,
        };
        for local in locals.iter_mut().filter(|local| local.client < malicious) {
            match (self, &crafted) {
                (Self::SignFlip, _) => local.change.iter_mut().for_each(|x| *x = -*x),
                (Self::Scale(factor), _) => {
                    local
                        .change
                        .iter_mut()
                        .for_each(|x| *x = (f64::from(*x) * factor) as f32);
                }
                (Self::LittleIsEnough, Some(crafted)) => local.change.clone_from(crafted),
                (Self::LittleIsEnough, None) => {}
            }
        }
    }
}

fn little_is_enough(locals: &[Local], malicious: usize) -> Vec<f32> {
    let n = locals.len();
    let f = locals.iter().filter(|local| local.client < malicious).count();
    let z = most_unnoticed(n, f);
    let d = locals.first().map_or(0, |local| local.change.len());
    let one = |at: usize| {
        let values = || locals.iter().map(|local| f64::from(local.change[at]));
        let mean = values().sum::<f64>() / n as f64;
        let variance = values().map(|x| (x - mean).powi(2)).sum::<f64>() / n as f64;
        (mean - z * variance.sqrt()) as f32
    };
    (0..d).map(one).collect()
}

/// z with Φ(z) = (n − f − s) / (n − f), s = ⌊n/2 + 1⌋ − f: as many honest updates as the attackers lack for a majority lie
/// further out.
fn most_unnoticed(n: usize, f: usize) -> f64 {
    let supporters = (n / 2 + 1).saturating_sub(f);
    let honest = n.saturating_sub(f).max(1);
    let share = honest.saturating_sub(supporters) as f64 / honest as f64;
    let (mut low, mut high) = (-8.0, 8.0);
    for _ in 0..60 {
        let middle = f64::midpoint(low, high);
        if normal_distribution(middle) < share {
            low = middle;
        } else {
            high = middle;
        }
    }
    f64::midpoint(low, high)
}

/// Φ(x), by Simpson's rule from 0.
fn normal_distribution(x: f64) -> f64 {
    const PIECES: usize = 200;
    let density = |t: f64| (-t * t / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt();
    let step = x / PIECES as f64;
    let weight = |at: usize| match at {
        0 | PIECES => 1.0,
        at if at.is_multiple_of(2) => 2.0,
        _ => 4.0,
    };
    let sum: f64 = (0..=PIECES)
        .map(|at| weight(at) * density(at as f64 * step))
        .sum();
    0.5 + sum * step / 3.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn local(client: usize, change: &[f32]) -> Local {
        Local {
            client,
            change: change.to_vec(),
            examples: 1,
            loss: 0.0,
        }
    }

    #[test]
    fn only_malicious_clients_send_something_else() {
        let honest = [local(0, &[1.0, -2.0]), local(5, &[3.0, 4.0])];
        for (attack, expected) in [
            (Attack::SignFlip, [-1.0, 2.0]),
            (Attack::Scale(1000.0), [1000.0, -2000.0]),
        ] {
            let mut locals = honest.clone();
            attack.apply(&mut locals, 1);
            assert_eq!(locals[0].change, expected, "{attack}");
            assert_eq!(locals[1].change, honest[1].change, "{attack}");
        }
    }

    #[test]
    fn the_little_is_that_of_the_paper() {
        // Its example (section 3.2): of 50 workers 24 are corrupted, s = 2, and z is where Φ(z) = 24/26 = 0.923: 1.43.
        assert!((most_unnoticed(50, 24) - 1.43).abs() < 0.01);
        let mut locals: Vec<Local> = (0..50).map(|client| local(client, &[client as f32])).collect();
        Attack::LittleIsEnough.apply(&mut locals, 24);
        let sigma = ((50.0 * 50.0 - 1.0) / 12.0_f64).sqrt(); // of 0 to 49
        let expected = 24.5 - 1.43 * sigma;
        assert!(
            locals[..24]
                .iter()
                .all(|local| (f64::from(local.change[0]) - expected).abs() < 0.1)
        );
        assert_eq!(locals[24].change, [24.0]);
    }

    #[test]
    fn names_are_read_as_they_are_written() {
        for name in ["sign-flip", "scale:1000", "little-is-enough"] {
            assert_eq!(name.parse::<Attack>().unwrap().to_string(), name);
        }
        for bad in ["", "scale", "scale:", "scale:inf", "flip"] {
            assert!(bad.parse::<Attack>().is_err(), "{bad}");
        }
    }
}
