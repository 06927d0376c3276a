//! The accountants for JavaScript. `pkg/src/accountant.ts` is the API that people see; this crate is only its wasm half.
//!
//! It is a crate of its own, so that a page that takes part in a task downloads none of it, and it is loaded when first asked.
#![cfg(target_arch = "wasm32")]

use unsaid_privacy::Adjacency;
use unsaid_privacy::accounting::{
    Accountant, Composition, CompositionError, GaussianSum, Sampling, noise_multiplier,
};
use wasm_bindgen::{JsValue, prelude::wasm_bindgen};

/// ε of `steps` sums with Gaussian noise: the guarantee, and a number of which no accountant can prove less
/// (0 where nothing is known).
///
/// # Errors
/// An `Error` with the code `bad-options`, for whatever makes no sense or cannot be computed.
#[wasm_bindgen]
pub fn epsilon(
    multiplier: f64,
    sampling: &str,
    rate: f64,
    steps: f64,
    delta: f64,
    adjacency: &str,
    accountant: &str,
) -> Result<Vec<f64>, JsValue> {
    let run = || -> Result<_, Wrong> {
        let step = GaussianSum::new(multiplier, sampling_of(sampling, rate)?)?;
        let run = Composition::new(adjacency_of(adjacency)?).repeat(step, whole(steps)?)?;
        Ok(run.epsilon(accountant_of(accountant)?, delta)?)
    };
    run()
        .map(|bounds| vec![bounds.epsilon, bounds.lower])
        .map_err(thrown)
}

/// The least noise multiplier with which `steps` sums keep ε.
///
/// # Errors
/// As [`epsilon`].
#[wasm_bindgen(js_name = noiseMultiplier)]
pub fn calibrated(
    target: f64,
    sampling: &str,
    rate: f64,
    steps: f64,
    delta: f64,
    adjacency: &str,
    accountant: &str,
) -> Result<f64, JsValue> {
    let run = || -> Result<f64, Wrong> {
        Ok(noise_multiplier(
            target,
            delta,
            sampling_of(sampling, rate)?,
            whole(steps)?,
            adjacency_of(adjacency)?,
            accountant_of(accountant)?,
        )?)
    };
    run().map_err(thrown)
}

/// Why there is no answer.
enum Wrong {
    Accounting(CompositionError),
    Word(&'static str),
}

impl From<CompositionError> for Wrong {
    fn from(error: CompositionError) -> Self {
        Self::Accounting(error)
    }
}

fn sampling_of(name: &str, rate: f64) -> Result<Sampling, Wrong> {
    match name {
        "poisson" => Ok(Sampling::Poisson { rate }),
        "without-replacement" => Ok(Sampling::WithoutReplacement { rate }),
        _ => Err(Wrong::Word(
            "sampling must be \"poisson\" or \"without-replacement\"",
        )),
    }
}

fn adjacency_of(name: &str) -> Result<Adjacency, Wrong> {
    match name {
        "add-remove" => Ok(Adjacency::AddRemove),
        "replace-one" => Ok(Adjacency::ReplaceOne),
        _ => Err(Wrong::Word("adjacency must be \"add-remove\" or \"replace-one\"")),
    }
}

fn accountant_of(name: &str) -> Result<Accountant, Wrong> {
    match name {
        "rdp" => Ok(Accountant::Rdp),
        "pld" => Ok(Accountant::Pld),
        _ => Err(Wrong::Word("accountant must be \"rdp\" or \"pld\"")),
    }
}

/// A JavaScript number as a number of steps.
fn whole(steps: f64) -> Result<u64, Wrong> {
    if steps.fract() == 0.0 && steps >= 0.0 {
        // Beyond 64 bits it becomes the largest, which is refused.
        Ok(steps as u64)
    } else {
        Err(Wrong::Word("steps must be a whole number of at least 1"))
    }
}

/// The one place where these errors become JavaScript's.
fn thrown(wrong: Wrong) -> JsValue {
    let message = match wrong {
        Wrong::Accounting(error) => error.to_string(),
        Wrong::Word(word) => word.to_owned(),
    };
    let error = js_sys::Error::new(&message);
    error.set_name("UnsaidError");
    let _ = js_sys::Reflect::set(
        &error,
        &JsValue::from_str("code"),
        &JsValue::from_str("bad-options"),
    );
    error.into()
}
