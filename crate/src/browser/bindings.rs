//! The surface that JavaScript sees, used only by the worker in `worker/`. `pkg/src/types.ts` has its types.

use std::{cell::RefCell, pin::Pin, rc::Rc};

use js_sys::Promise;
use unsaid_document::{Document, Fields, Value};
use unsaid_engine::Examples;
use unsaid_privacy::{Budget, ClientFloors};
use unsaid_protocol::{Shard, TaskId};
use wasm_bindgen::{JsCast, JsValue, closure::Closure, prelude::wasm_bindgen};

use super::{
    BrowserPorts,
    clock::WorkerClock,
    events::{self, Callback, to_js},
    locks::{self, Place},
    relay::HttpRelay,
    seal::{self, Seal},
    store::IndexedDb,
    trials::Trials,
    views::{manifest_view, summary},
};
use crate::{
    ClientError, SessionEvent,
    abort::Abort,
    backend::BackendChoice,
    events::State,
    feed::Feed,
    ports::{Listener, Ports, Relay, Store},
    session::{self, Patience},
    task::Task,
};

#[derive(Debug)]
struct OpenOptions {
    relay: String,
    task: String,
    backend: BackendChoice,
    budget: Option<BudgetOption>,
    floors: ClientFloors,
    /// The most tabs of one profile that may take part at once.
    participants: u32,
    attempts: Option<u32>,
    first_wait_ms: Option<u32>,
}

impl Document for OpenOptions {
    fn read(document: Value) -> Result<Self, String> {
        let mut fields = Fields::of(document)?;
        let f = &mut fields;
        let options = Self {
            relay: f.required("relay"),
            task: f.required("task"),
            backend: f.optional("backend").unwrap_or_default(),
            budget: f.optional_document("budget")?,
            floors: f.optional_document("floors")?.unwrap_or_default(),
            participants: f.optional("participants").unwrap_or(1),
            attempts: f.nullable("attempts"),
            first_wait_ms: f.nullable("firstWaitMs"),
        };
        fields.finish().map(|()| options)
    }
}

#[derive(Debug, Clone, Copy)]
struct BudgetOption {
    epsilon: f64,
    delta: f64,
}

impl Document for BudgetOption {
    fn read(document: Value) -> Result<Self, String> {
        let mut fields = Fields::of(document)?;
        let option = Self {
            epsilon: fields.required("epsilon"),
            delta: fields.required("delta"),
        };
        fields.finish().map(|()| option)
    }
}

/// The limit of a person who has set none: ε = 8 at δ = 10⁻⁵.
const DEFAULT_BUDGET: BudgetOption = BudgetOption {
    epsilon: 8.0,
    delta: 1e-5,
};

#[derive(Debug, Default)]
struct RunOptions {
    rounds: Option<u32>,
}

impl Document for RunOptions {
    fn read(document: Value) -> Result<Self, String> {
        let mut fields = Fields::of(document)?;
        let rounds = fields.nullable("rounds");
        fields.finish().map(|()| Self { rounds })
    }
}

/// An `Error` with the client's stable `code`, and the relay's problem document where there is one.
fn throw(error: &ClientError) -> JsValue {
    let js = js_sys::Error::new(&error.to_string());
    js.set_name("UnsaidError");
    let set = |name: &str, value: &JsValue| {
        let _ = js_sys::Reflect::set(&js, &JsValue::from_str(name), value);
    };
    set("code", &JsValue::from_str(error.code()));
    if let ClientError::Refused(problem) = error {
        set("problem", &to_js(problem));
    }
    js.into()
}

fn options<T: Document>(value: JsValue) -> Result<T, ClientError> {
    let bad = |error: &dyn std::fmt::Display| ClientError::BadOptions(format!("options: {error}"));
    let text = js_sys::JSON::stringify(&value)
        .ok()
        .and_then(|text| text.as_string());
    let text = text.ok_or_else(|| bad(&"not a plain object"))?;
    let document: Value = serde_json::from_str(&text).map_err(|error| bad(&error))?;
    T::read(document).map_err(|error| bad(&error))
}

/// A promise of `work`'s result. One executor for every method: each `async fn` of an exported type would bring its own.
fn promise(work: impl Future<Output = Result<JsValue, ClientError>> + 'static) -> Promise {
    let work: Pin<Box<dyn Future<Output = Result<JsValue, JsValue>>>> =
        Box::pin(async move { work.await.map_err(|error| throw(&error)) });
    wasm_bindgen_futures::future_to_promise(work)
}

/// An [`Abort`] that follows a JavaScript `AbortSignal`.
fn abort_of(signal: &web_sys::AbortSignal) -> Abort {
    let abort = Abort::default();
    if signal.aborted() {
        abort.stop();
    } else {
        let stop = abort.clone();
        let heard = Closure::once_into_js(move || stop.stop());
        let _ = signal.add_event_listener_with_callback("abort", heard.unchecked_ref());
    }
    abort
}

/// A client of one task, in a worker. Every method that takes time returns a promise; it rejects with an `Error` that has a
/// stable `code`.
#[wasm_bindgen]
#[derive(Debug)]
pub struct Session {
    inner: Rc<session::Session<BrowserPorts>>,
    closing: Abort,
    place: RefCell<Option<Place>>,
}

#[wasm_bindgen]
impl Session {
    /// Takes a place among this browser's tabs, opens the storage, and fetches and checks the manifest: a promise of a `Session`.
    pub fn open(given: JsValue, on_event: js_sys::Function, trials: Trials, seal: Seal) -> Promise {
        promise(async move {
            let session = open(options(given)?, Callback(on_event), trials, seal).await;
            session.map(JsValue::from)
        })
    }

    /// The manifest that the client agreed to.
    pub fn manifest(&self) -> Promise {
        self.promise(async |session| manifest_view(&session).await)
    }

    /// Adds examples: features row after row, and one label each.
    #[wasm_bindgen(js_name = addExamples)]
    pub fn add_examples(&self, x: Vec<f32>, y: Vec<u32>) -> Promise {
        self.promise(async move |session| add(&session, x, y).await)
    }

    /// Adds the examples of a shard file.
    #[wasm_bindgen(js_name = importShard)]
    pub fn import_shard(&self, bytes: Vec<u8>) -> Promise {
        self.promise(async move |session| {
            let shard = Shard::decode(&bytes)?;
            let labels = shard.labels.iter().map(|&label| label.into()).collect();
            add(&session, shard.features_f32(), labels).await
        })
    }

    /// How much local data there is.
    #[wasm_bindgen(js_name = dataSummary)]
    pub fn data_summary(&self) -> Promise {
        self.promise(async |session| summary(&session).await)
    }

    /// Forgets the local data.
    #[wasm_bindgen(js_name = clearData)]
    pub fn clear_data(&self) -> Promise {
        self.promise(async |session| {
            session.ports.store().clear_examples().await?;
            summary(&session).await
        })
    }

    /// Takes part.
    pub fn run(&self, given: JsValue, signal: web_sys::AbortSignal) -> Promise {
        self.promise(async move |session| {
            let RunOptions { rounds } = if given.is_undefined() {
                RunOptions::default()
            } else {
                options(given)?
            };
            let summary = session.run(rounds, &abort_of(&signal)).await?;
            Ok(to_js(&summary))
        })
    }

    /// The newest shared model's probabilities for each row of `x`.
    pub fn predict(&self, x: Vec<f32>) -> Promise {
        let closing = self.closing.clone();
        self.promise(async move |session| {
            let probabilities = session.predict(&x, &closing).await?;
            Ok(js_sys::Float32Array::from(probabilities.as_slice()).into())
        })
    }

    /// The budget as it stands.
    pub fn budget(&self) -> Promise {
        self.promise(async |session| Ok(to_js(&session.budget().await?)))
    }

    /// Sets the person's limit.
    #[wasm_bindgen(js_name = setBudget)]
    pub fn set_budget(&self, epsilon: f64, delta: f64) -> Promise {
        self.promise(async move |session| {
            let limit = Budget::new(epsilon, delta)?;
            let mut change = |ledger: &mut unsaid_privacy::Ledger| {
                ledger.set_budget(limit);
                Ok(())
            };
            session.ports.store().change_ledger(None, &mut change).await?;
            tell_budget(&session).await
        })
    }

    /// The ledger's JSON.
    #[wasm_bindgen(js_name = exportLedger)]
    pub fn export_ledger(&self) -> Promise {
        self.promise(async |session| Ok(session.export_ledger().await?.into()))
    }

    /// Forgets the ledger and every identity.
    #[wasm_bindgen(js_name = eraseLedger)]
    pub fn erase_ledger(&self) -> Promise {
        self.promise(async |session| {
            session.erase_ledger().await?;
            tell_budget(&session).await
        })
    }

    /// Ends the session: the event stream, the storage, and the tab's place. A run in progress must be stopped first.
    pub fn close(&self) {
        self.closing.stop();
        self.inner.ports.store().close();
        self.place.take();
    }

    fn promise(
        &self,
        work: impl AsyncFnOnce(Rc<session::Session<BrowserPorts>>) -> Result<JsValue, ClientError> + 'static,
    ) -> Promise {
        let session = Rc::clone(&self.inner);
        promise(async move { work(session).await })
    }
}

/// The budget after a change of the person's own, told as an event too.
async fn tell_budget(session: &session::Session<BrowserPorts>) -> Result<JsValue, ClientError> {
    let view = session.budget().await?;
    session.ports.listener().hear(SessionEvent::Budget(view.clone()));
    Ok(to_js(&view))
}

async fn open(
    given: OpenOptions,
    listener: Callback,
    trials: Trials,
    seal: Seal,
) -> Result<Session, ClientError> {
    let task: TaskId = given
        .task
        .parse()
        .map_err(|error| ClientError::BadOptions(format!("task: {error}")))?;
    if !(1..=256).contains(&given.participants) {
        return Err(ClientError::BadOptions(
            "participants must be from 1 to 256".into(),
        ));
    }
    let default = Patience::default();
    let patience = Patience {
        attempts: given.attempts.unwrap_or(default.attempts).max(1),
        first_wait_ms: given.first_wait_ms.map_or(default.first_wait_ms, u64::from),
    };
    let limit = given.budget.unwrap_or(DEFAULT_BUDGET);
    let budget = Budget::new(limit.epsilon, limit.delta)?;
    let closing = Abort::default();
    let say = |state| listener.hear(SessionEvent::State { state, round: None });
    say(State::Opening);
    let waiting = || say(State::WaitingForOtherTab);
    // Data, id and unsent update belong to the task of this very relay: another relay with a task of the same name gets none
    // of them. The ledger is the origin's own.
    let owner = format!("{}/{task}", given.relay.trim_end_matches('/'));
    let mut place = locks::take_place(&owner, given.participants, waiting, &closing).await?;
    let store = IndexedDb::open(&owner, place.number, budget).await?;
    let relay = HttpRelay::new(&given.relay, task, seal);
    let events_url = relay.url("events");
    let mut ports = BrowserPorts {
        relay,
        store,
        clock: WorkerClock,
        listener: listener.clone(),
        trials,
    };
    let fetched = session::ask(&ports, patience, &closing, |ports: &BrowserPorts| {
        ports.relay().manifest()
    })
    .await;
    let task = match fetched {
        Ok(offered) => seal::check(&ports.relay.seal, &offered)
            .await
            .and_then(|()| Task::new(&offered.bytes, offered.hash, &given.floors)),
        Err(error) => Err(error),
    };
    let task = task.inspect_err(|_| ports.store.close())?;
    let places = task.places(given.participants);
    if place.number >= places {
        let moved = locks::take_place(&owner, places, waiting, &closing).await;
        place = moved.inspect_err(|_| ports.store.close())?;
        ports.store.move_to(&owner, place.number);
    }
    let feed = Feed::default();
    let inner = session::Session::new(ports, task, feed.clone(), given.backend, patience);
    // The chart begins with what was before.
    if let Ok(rounds) = inner.ports.relay().rounds().await {
        for metrics in rounds {
            listener.hear(SessionEvent::Round {
                metrics: metrics.into(),
            });
        }
    }
    // Events are told when something changes; what is the case now has to be asked.
    if let Ok(state) = inner.ports.relay().round().await {
        listener.hear((&state).into());
        feed.set(state);
    }
    wasm_bindgen_futures::spawn_local(events::follow(
        events_url,
        feed,
        listener.clone(),
        closing.clone(),
    ));
    let budget = inner.budget().await?;
    listener.hear(SessionEvent::Budget(budget));
    listener.hear(SessionEvent::State {
        state: State::Ready,
        round: None,
    });
    Ok(Session {
        inner: Rc::new(inner),
        closing,
        place: RefCell::new(Some(place)),
    })
}

async fn add(
    session: &session::Session<BrowserPorts>,
    x: Vec<f32>,
    y: Vec<u32>,
) -> Result<JsValue, ClientError> {
    let model = &session.task.model;
    let examples = Examples::new(x, y, model.features(), model.classes())?;
    session
        .ports
        .store()
        .add_examples(examples.x(), examples.y())
        .await?;
    summary(session).await
}

/// Panics, so that whoever embeds the client can test what happens then.
#[doc(hidden)]
#[wasm_bindgen]
#[allow(clippy::panic)]
pub fn panic_for_test() {
    // INVARIANT: only a test's own message leads here; the client never calls it.
    panic!("a panic was asked for");
}

/// Runs when the module is loaded: a panic's text goes where the worker finds it.
#[wasm_bindgen(start)]
pub fn start() {
    std::panic::set_hook(Box::new(|info| {
        // The worker reads it when the trap that follows reaches JavaScript. Where it was is in the trap's stack: a shipped
        // module has no source lines.
        let text = JsValue::from_str(info.payload_as_str().unwrap_or("a panic without words"));
        let _ = js_sys::Reflect::set(&js_sys::global(), &"__unsaidPanic".into(), &text);
    }));
}
