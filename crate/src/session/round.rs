//! One round: the model is fetched, trained, protected and paid for.

use std::rc::Rc;

use unsaid_engine::{
    Control, Device, EngineError, Examples, Observer, Progress, Training, control_variate_after,
};
use unsaid_privacy::Charge;
use unsaid_protocol::{ClientId, ContentHash};

use super::{RoundEnd, Session};
use crate::{
    ClientError, SessionEvent,
    abort::Abort,
    backend::{self, Backend, BackendChoice},
    events::State,
    lots::Lots,
    ports::{Clock, Listener, LocalTraining, Pending, Ports, Relay, Store},
    protect::{Learned, Protected, protect},
};

/// Time between two reports, and two breaths, of a training run: a stop is heard within this.
const BREATH_MS: f64 = 40.0;

/// A model that was downloaded and checked.
#[derive(Debug, Clone)]
pub(super) struct SharedModel {
    hash: ContentHash,
    /// Its parameters, `[d]`, and the shared control variate, `[d]` where the task has one.
    pub(super) numbers: Rc<(Vec<f32>, Vec<f32>)>,
}

impl<P: Ports> Session<P> {
    /// One round from its model on, which was fetched since `start`: training, protection, payment, delivery.
    pub(super) async fn round(
        &self,
        client: ClientId,
        round: u64,
        start: f64,
        (model, bytes_down): (SharedModel, u64),
        examples: &Examples,
        abort: &Abort,
    ) -> Result<RoundEnd, ClientError> {
        let SharedModel { hash: model, numbers } = model;
        let (before, shared) = &*numbers;
        self.say(State::Training, Some(round));
        let mut own = Vec::new();
        if self.task.reach.is_some() {
            own = self.ports.store().control().await?;
            // Zeros before the first time, where it is another model's, and where a relay's numbers made it none: that one is not for ever.
            if own.len() != before.len() || own.iter().any(|value| !value.is_finite()) {
                own.clear();
            }
        }
        let mut correction = shared.clone();
        for (shared, own) in correction.iter_mut().zip(&own) {
            *shared -= own;
        }
        let after = self.train(round, before, &correction, examples, abort).await?;
        self.say(State::Protecting, Some(round));
        let Protected {
            update,
            frame,
            report,
            change,
        } = protect(
            &self.task,
            client,
            round,
            model,
            Learned {
                before,
                after: &after,
                examples: examples.len(),
            },
            &mut self.random.borrow_mut(),
        )?;
        self.hear(SessionEvent::Update(report));
        let control = match self.task.reach {
            Some(reach) => control_variate_after(&own, shared, change, reach),
            None => Vec::new(),
        };
        let pending = Pending {
            round,
            frame,
            control,
        };
        match self.task.round_cost() {
            Some(cost) => {
                let charge = Charge {
                    task: self.task.manifest.task.to_string(),
                    round,
                    update: update.to_string(),
                    frame_sha256: ContentHash::of(&pending.frame).to_string(),
                    cost,
                    at_ms: self.ports.clock().unix_ms(),
                };
                let per_day = self.task.rounds_per_day;
                let mut debit = |ledger: &mut unsaid_privacy::Ledger| {
                    ledger.check_day(per_day, charge.at_ms)?;
                    ledger.debit(charge.clone())?;
                    Ok(())
                };
                self.ports
                    .store()
                    .change_ledger(Some(&pending), &mut debit)
                    .await?;
                let budget = self.budget().await?;
                self.hear(SessionEvent::Budget(budget));
            }
            None => self.ports.store().keep_pending(&pending).await?,
        }
        let end = self.deliver(client, &pending, abort).await?;
        if let RoundEnd::Counted = end {
            let epsilon_spent = match self.task.round_cost() {
                Some(_) => Some(self.budget().await?.spent),
                None => None,
            };
            self.hear(SessionEvent::Contribution {
                round,
                seconds: (self.ports.clock().now_ms() - start) / 1000.0,
                bytes_up: pending.frame.len() as u64,
                bytes_down,
                epsilon_spent,
            });
        }
        Ok(end)
    }

    /// Trains on the chosen back end; the new parameters.
    async fn train(
        &self,
        round: u64,
        before: &[f32],
        correction: &[f32],
        examples: &Examples,
        abort: &Abort,
    ) -> Result<Vec<f32>, ClientError> {
        let known = self.backend.borrow().clone();
        let backend = match known {
            Some(backend) => backend,
            None => {
                let chosen =
                    backend::choose(&self.ports, self.choice, &self.task, before, examples, abort).await?;
                self.backend.replace(Some(chosen.clone()));
                chosen
            }
        };
        let seed = u64::from_le_bytes(self.random.borrow_mut().bytes()?);
        let clock = self.ports.clock();
        let now = clock.now_ms();
        let mut watch = Watch {
            ports: &self.ports,
            round,
            abort,
            breath: now,
            epoch_start: now,
            fallback: None,
        };
        let job = LocalTraining {
            task: &self.task,
            start: before,
            examples,
            correction,
            seed,
        };
        // Nobody asked for the GPU by name: what it cannot do, the CPU does, from the start and in the same order.
        let instead = (self.choice == BackendChoice::Auto).then_some(&Device::Cpu);
        let mut private = match self.task.private_steps() {
            None => None,
            // Drawn once, so that what is done again has the same lots and the same noise.
            Some((noise, steps)) => Some((Lots::new(noise)?, steps)),
        };
        let on = async |device: &Device| match &mut private {
            None => self.ports.train(job, device, &mut watch).await,
            Some((lots, steps)) => {
                Training::new(&self.task.model, examples, &self.task.training)
                    .correction(correction)
                    .run_private(before, *steps, lots, device, &mut watch)
                    .await
            }
        };
        let (trained, failed) = backend::or_instead(&backend.device, instead, on).await?;
        if let Some(reason) = failed.or(watch.fallback) {
            // A device that was lost, or failed, is not asked again in this session.
            self.backend.replace(Some(Backend { device: Device::Cpu }));
            self.hear(SessionEvent::Backend {
                backend: "cpu",
                reason,
                adapter: None,
                cpu_ms_per_step: None,
                gpu_ms_per_step: None,
                cached: false,
                fallback: true,
            });
        }
        Ok(trained.parameters)
    }

    /// Makes the model `hash` the current one; the bytes that were fetched for it.
    pub(super) async fn fetch_model(
        &self,
        hash: ContentHash,
        abort: &Abort,
    ) -> Result<(SharedModel, u64), ClientError> {
        let current = self.model.borrow().clone();
        if let Some(current) = current.filter(|current| current.hash == hash) {
            return Ok((current, 0));
        }
        // Four bytes a parameter, and as many for its control variate, and room for the header.
        let d = self.task.model.parameter_count();
        let max_bytes = 8 * d + (1 << 20);
        let bytes = self
            .ask(abort, |ports| async move {
                ports.relay().model(hash, max_bytes).await
            })
            .await?;
        let found = ContentHash::of(&bytes);
        if found != hash {
            let reason = format!("its bytes have the hash {found}, but {hash} was announced");
            return Err(ClientError::BadModel(reason));
        }
        let read = self.task.model.from_safetensors_with_control(&bytes);
        let mut numbers = read.map_err(EngineError::from)?;
        numbers
            .1
            .resize(if self.task.reach.is_some() { d } else { 0 }, 0.0);
        let fetched = SharedModel {
            hash,
            numbers: numbers.into(),
        };
        self.model.replace(Some(fetched.clone()));
        Ok((fetched, bytes.len() as u64))
    }
}

/// Watches training: reports, breathes, stops.
struct Watch<'a, P: Ports> {
    ports: &'a P,
    round: u64,
    abort: &'a Abort,
    breath: f64,
    epoch_start: f64,
    fallback: Option<String>,
}

impl<P: Ports> Observer for Watch<'_, P> {
    async fn progress(&mut self, progress: Progress<'_>) -> Control {
        let (round, clock) = (self.round, self.ports.clock());
        let now = clock.now_ms();
        match progress {
            Progress::Step {
                epoch,
                epochs,
                step,
                steps,
                ..
            } if now - self.breath >= BREATH_MS || step == steps => {
                self.ports.listener().hear(SessionEvent::Step {
                    round,
                    epoch,
                    epochs,
                    step,
                    steps,
                });
                clock.give_way().await;
                self.breath = clock.now_ms();
            }
            Progress::Epoch { epoch, epochs, loss } => {
                let seconds = (now - self.epoch_start) / 1000.0;
                self.epoch_start = now;
                self.ports.listener().hear(SessionEvent::Epoch {
                    round,
                    epoch,
                    epochs,
                    loss,
                    seconds,
                });
            }
            Progress::Fallback { reason } => self.fallback = Some(format!("WebGPU was lost: {reason}")),
            _ => {}
        }
        if self.abort.is_stopped() {
            Control::Stop
        } else {
            Control::Continue
        }
    }
}
