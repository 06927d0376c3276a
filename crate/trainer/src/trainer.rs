//! The surface that JavaScript sees, used only by the worker. `pkg/src/trainer.ts` has its types.

use std::{cell::RefCell, pin::Pin, rc::Rc};

use js_sys::{Float32Array, Promise, Uint8Array, Uint32Array};
use unsaid_engine::{
    Control, Device, EngineError, Examples, LossSpec, Model, ModelSpec, Observer, Progress, TrainSpec,
    Training,
};
#[cfg(feature = "gpu")]
use unsaid_engine::{Kernel, Work};
use wasm_bindgen::{JsCast, JsValue, prelude::wasm_bindgen};

use crate::{
    choice::{self, Asked, Choice, Memory, Trials},
    document,
    errors::{bad_options, of_engine, throw},
    turn::{give_way, now_ms},
};

/// How long training may hold the worker before it looks for messages, such as one that asks it to stop.
const TURN_MS: f64 = 8.0;

/// What changes.
struct State {
    parameters: Vec<f32>,
    optimizer: Vec<f32>,
    steps: u32,
    choice: Option<Choice>,
    /// SCAFFOLD's, of the last training that had a correction.
    control_variate: Option<Vec<f32>>,
    fell_back: bool,
    busy: bool,
}

/// A model in training. Every method that takes time returns a promise; it rejects with an `Error` that has a stable `code`.
#[wasm_bindgen]
pub struct Trainer {
    model: Rc<Model>,
    asked: Asked,
    /// The model's spec as it was given, by which trials are kept.
    text: Rc<str>,
    trials: Rc<Trials>,
    state: Rc<RefCell<State>>,
}

impl std::fmt::Debug for Trainer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Trainer")
            .field("asked", &self.asked)
            .finish_non_exhaustive()
    }
}

/// A promise of `work`'s result. One executor for every method: each `async fn` of an exported type would bring its own.
fn promise(work: impl Future<Output = Result<JsValue, JsValue>> + 'static) -> Promise {
    let work: Pin<Box<dyn Future<Output = Result<JsValue, JsValue>>>> = Box::pin(work);
    wasm_bindgen_futures::future_to_promise(work)
}

#[wasm_bindgen]
impl Trainer {
    /// A model from its spec (JSON), with the weights of a safetensors file, or fresh ones from `seed`. `backend` is `auto`,
    /// `cpu` or `webgpu`.
    #[wasm_bindgen(constructor)]
    pub fn new(
        spec: &str,
        backend: &str,
        weights: Option<Vec<u8>>,
        seed: u32,
        trials: Trials,
    ) -> Result<Trainer, JsValue> {
        let asked = match backend {
            "auto" => Asked::Auto,
            "cpu" => Asked::Cpu,
            "webgpu" => Asked::WebGpu,
            _ => return Err(bad_options(&"backend must be auto, cpu or webgpu")),
        };
        let text = spec.into();
        let spec: ModelSpec = document::read(spec)?;
        let model = Model::new(&spec).map_err(|error| bad_options(&error))?;
        let parameters = match weights {
            None => model.initial_parameters(u64::from(seed)),
            Some(file) => model
                .from_safetensors(&file)
                .map_err(|error| of_engine(&error.into()))?,
        };
        let state = State {
            parameters,
            optimizer: Vec::new(),
            steps: 0,
            choice: None,
            control_variate: None,
            fell_back: false,
            busy: false,
        };
        Ok(Self {
            model: Rc::new(model),
            asked,
            text,
            trials: Rc::new(trials),
            state: Rc::new(RefCell::new(state)),
        })
    }

    /// Trains on `x`, `[examples, features]`, and `y`: labels (`Uint32Array`) or numbers (`Float32Array`). `spec` is a training
    /// spec (JSON); `on_step` hears `(epoch, step, steps, loss or undefined)`; `correction`, where there is one, is SCAFFOLD's. A
    /// promise of the loss of every step.
    #[allow(clippy::too_many_arguments, reason = "JavaScript's surface has no structs")]
    pub fn fit(
        &self,
        x: Vec<f32>,
        y: JsValue,
        spec: &str,
        seed: u32,
        on_step: Option<js_sys::Function>,
        signal: web_sys::AbortSignal,
        correction: Option<Vec<f32>>,
    ) -> Promise {
        let (model, state, asked) = (Rc::clone(&self.model), Rc::clone(&self.state), self.asked);
        let (trials, what) = (Rc::clone(&self.trials), format!("{}{spec}", self.text));
        let spec: Result<TrainSpec, JsValue> = document::read(spec);
        promise(async move {
            let spec = spec?;
            let examples = examples(&model, x, &y)?;
            if state.borrow().busy {
                return Err(throw("busy", "this trainer is training already"));
            }
            let (parameters, optimizer, steps, known) = {
                let mut state = state.borrow_mut();
                state.busy = true;
                (
                    state.parameters.clone(),
                    state.optimizer.clone(),
                    state.steps,
                    state.choice.clone(),
                )
            };
            let mut reporter = Reporter {
                on_step,
                signal,
                last_turn: now_ms(),
            };
            let result = async {
                let choice = match known {
                    Some(choice) => choice,
                    None => {
                        let memory = Memory {
                            trials: &trials,
                            what: &what,
                        };
                        choice::choose(asked, &model, &parameters, &examples, &spec, memory).await?
                    }
                };
                state.borrow_mut().choice = Some(choice.clone());
                let training = Training::new(&model, &examples, &spec)
                    .seed(u64::from(seed))
                    .resume(&optimizer, steps)
                    .correction(correction.as_deref().unwrap_or_default());
                let variate = |end: &[f32]| {
                    let variate = correction
                        .as_ref()
                        .map(|_| training.control_variate(&parameters, end));
                    variate.transpose()
                };
                variate(&parameters)?; // what it refuses, it refuses before anything is trained
                let trained = training.run(&parameters, &choice.device, &mut reporter).await?;
                Ok((variate(&trained.parameters)?, trained))
            }
            .await;
            let mut state = state.borrow_mut();
            state.busy = false;
            let (control_variate, trained) = result.map_err(|error: EngineError| of_engine(&error))?;
            state.control_variate = control_variate;
            state.fell_back |= trained.fell_back;
            if trained.fell_back {
                state.choice = Some(Choice::cpu("the GPU was lost"));
            }
            state.parameters = trained.parameters;
            state.optimizer = trained.optimizer;
            state.steps = trained.steps;
            Ok(Float32Array::from(trained.losses.as_slice()).into())
        })
    }

    /// Accuracy, recall among the first `k` guesses, mean loss and perplexity: `[accuracy, topK, loss, perplexity, examples]`.
    pub fn evaluate(&self, x: Vec<f32>, y: JsValue, k: usize) -> Result<Vec<f64>, JsValue> {
        let examples = examples(&self.model, x, &y)?;
        let found = self
            .model
            .evaluate_top(&self.state.borrow().parameters, &examples, k)
            .map_err(|error| of_engine(&error))?;
        Ok(vec![
            found.accuracy,
            found.top_k,
            found.loss,
            found.perplexity(),
            found.examples as f64,
        ])
    }

    /// The model's answer to each row of `x`: probabilities, where the loss has them.
    pub fn predict(&self, x: &[f32]) -> Result<Float32Array, JsValue> {
        let answers = self
            .model
            .predict(&self.state.borrow().parameters, x)
            .map_err(|error| of_engine(&error))?;
        Ok(Float32Array::from(answers.as_slice()))
    }

    /// A copy of the flat parameter vector.
    pub fn weights(&self) -> Float32Array {
        Float32Array::from(self.state.borrow().parameters.as_slice())
    }

    /// The bytes that a training (its spec as JSON) on so many examples holds: `[parameters, activations, gradients, optimizer]`.
    pub fn memory(&self, spec: &str, examples: usize) -> Result<Vec<f64>, JsValue> {
        let spec: TrainSpec = document::read(spec)?;
        let memory = self
            .model
            .memory(&spec, examples)
            .map_err(|error| bad_options(&error))?;
        let parts = [
            memory.parameters,
            memory.activations,
            memory.gradients,
            memory.optimizer,
        ];
        Ok(parts.map(|bytes| bytes as f64).to_vec())
    }

    /// SCAFFOLD's control variate after the last training, if that had a correction.
    #[wasm_bindgen(js_name = controlVariate)]
    pub fn control_variate(&self) -> Option<Float32Array> {
        let state = self.state.borrow();
        state.control_variate.as_deref().map(Float32Array::from)
    }

    /// Takes a flat parameter vector; the optimiser begins anew.
    #[wasm_bindgen(js_name = setWeights)]
    pub fn set_weights(&self, weights: Vec<f32>) -> Result<(), JsValue> {
        let expected = self.model.parameter_count();
        if weights.len() != expected {
            let message = format!("{} weights, but the model has {expected}", weights.len());
            return Err(throw("bad-model", &message));
        }
        if weights.iter().any(|weight| !weight.is_finite()) {
            return Err(throw("bad-model", "a weight is not a finite number"));
        }
        self.replace(weights)
    }

    /// Name, offset and shape of each tensor: `[name, offset, dim, dim, …]`.
    pub fn layout(&self) -> js_sys::Array {
        let tensors = self.model.layout().tensors().iter();
        tensors
            .map(|tensor| {
                let numbers = [tensor.offset].into_iter().chain(tensor.shape.iter().copied());
                let row = js_sys::Array::of1(&JsValue::from_str(&tensor.name));
                for number in numbers {
                    row.push(&JsValue::from_f64(number as f64));
                }
                row
            })
            .collect()
    }

    /// The weights as a safetensors file.
    pub fn save(&self) -> Result<Uint8Array, JsValue> {
        let file = self
            .model
            .to_safetensors(&self.state.borrow().parameters)
            .map_err(|error| of_engine(&error.into()))?;
        Ok(Uint8Array::from(file.as_slice()))
    }

    /// Takes the weights of a safetensors file; the optimiser begins anew.
    pub fn load(&self, file: &[u8]) -> Result<(), JsValue> {
        let weights = self.model.from_safetensors(file);
        self.replace(weights.map_err(|error| of_engine(&error.into()))?)
    }

    /// Where training happens and why: `[backend, reason, adapter, cpuMsPerStep, gpuMsPerStep, cached, kernels]`; undefined before
    /// the first training. `kernels` are those of the GPU for products of matrices, `[work, kernel, milliseconds or null, chosen]`.
    pub fn backend(&self) -> JsValue {
        let state = self.state.borrow();
        let Some(choice) = &state.choice else {
            return JsValue::UNDEFINED;
        };
        let time = |which: fn(&(f64, f64)) -> f64| {
            choice
                .times
                .as_ref()
                .map_or(JsValue::NULL, |times| JsValue::from_f64(which(times)))
        };
        let adapter = choice
            .adapter
            .as_ref()
            .map_or(JsValue::NULL, |name| JsValue::from_str(name));
        let row = js_sys::Array::of5(
            &JsValue::from_str(choice.name()),
            &JsValue::from_str(&choice.reason),
            &adapter,
            &time(|times| times.0),
            &time(|times| times.1),
        );
        row.push(&JsValue::from_bool(choice.cached));
        row.push(&kernels(&choice.device));
        row.into()
    }

    fn replace(&self, parameters: Vec<f32>) -> Result<(), JsValue> {
        let mut state = self.state.borrow_mut();
        if state.busy {
            return Err(throw("busy", "this trainer is training"));
        }
        state.parameters = parameters;
        state.optimizer = Vec::new();
        state.steps = 0;
        Ok(())
    }
}

/// Checked examples of the model.
fn examples(model: &Model, x: Vec<f32>, y: &JsValue) -> Result<Examples, JsValue> {
    let features = model.features();
    let outputs = model.output_shape();
    let made = if model.spec().loss == LossSpec::SoftmaxCrossEntropy {
        let labels = y
            .dyn_ref::<Uint32Array>()
            .ok_or_else(|| throw("bad-data", "y must be labels, a Uint32Array"))?
            .to_vec();
        let (positions, classes) = (outputs[..outputs.len() - 1].iter().product(), model.classes());
        Examples::sequences(x, labels, features, positions, classes)
    } else {
        let values = y
            .dyn_ref::<Float32Array>()
            .ok_or_else(|| throw("bad-data", "y must be numbers, a Float32Array"))?
            .to_vec();
        Examples::with_values(x, &values, features, outputs.iter().product())
    };
    made.map_err(|error| of_engine(&error.into()))
}

/// Tells JavaScript of every step, and lets it stop training.
struct Reporter {
    on_step: Option<js_sys::Function>,
    signal: web_sys::AbortSignal,
    last_turn: f64,
}

impl Observer for Reporter {
    async fn progress(&mut self, progress: Progress<'_>) -> Control {
        if let (
            Some(on_step),
            Progress::Step {
                epoch,
                step,
                steps,
                loss,
                ..
            },
        ) = (&self.on_step, progress)
        {
            let loss = loss.map_or(JsValue::UNDEFINED, |loss| JsValue::from_f64(f64::from(loss)));
            let numbers = js_sys::Array::of4(&epoch.into(), &step.into(), &steps.into(), &loss);
            // A listener that throws is the page's fault and must not stop training.
            let _ = on_step.apply(&JsValue::NULL, &numbers);
        }
        if now_ms() - self.last_turn > TURN_MS {
            give_way().await;
            self.last_turn = now_ms();
        }
        if self.signal.aborted() {
            Control::Stop
        } else {
            Control::Continue
        }
    }
}

#[cfg(not(feature = "gpu"))]
fn kernels(_: &Device) -> js_sys::Array {
    js_sys::Array::new()
}

/// The kernels of a GPU as rows for JavaScript: what was timed, or where nothing was, what is used.
#[cfg(feature = "gpu")]
fn kernels(device: &Device) -> js_sys::Array {
    let rows = js_sys::Array::new();
    let Device::Gpu(gpu) = device else { return rows };
    let chosen = gpu.kernels();
    let add = |work: Work, kernel: Kernel, ms: JsValue| {
        let (work_name, kernel_name) = (JsValue::from_str(work.name()), JsValue::from_str(kernel.name()));
        let is_chosen = JsValue::from_bool(chosen.of(work) == kernel);
        rows.push(&js_sys::Array::of4(&work_name, &kernel_name, &ms, &is_chosen));
    };
    let times = gpu.kernel_times();
    for time in &times {
        add(time.work, time.kernel, JsValue::from_f64(time.ms));
    }
    if times.is_empty() {
        for work in Work::ALL {
            add(work, chosen.of(work), JsValue::NULL);
        }
    }
    rows
}
