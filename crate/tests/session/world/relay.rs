//! A relay in memory that answers as a real one does, and fails on request.

use std::{
    cell::RefCell,
    collections::{HashMap, HashSet, VecDeque},
};

use unsaid::{
    feed::Feed,
    ports::{Offered, Relay, RelayFault},
    task::Task,
};
use unsaid_engine::Model;
use unsaid_protocol::{
    CheckIn, CheckInReply, ClientId, ContentHash, Problem, ProblemKind, RoundMetrics, RoundPhase, RoundState,
    TaskId, UpdateFrame, UpdateId, UpdateReply,
};

use super::{Log, Op, turn};

/// What becomes of one upload.
#[derive(Debug, Clone, Copy)]
pub enum Upload {
    /// It arrives, and so does the answer.
    Arrives,
    /// It does not arrive.
    Lost,
    /// It arrives, but the answer does not.
    AnswerLost,
    /// The relay refuses it unread.
    Refused(ProblemKind, Option<u64>),
    /// It arrives after its round has closed without it.
    TooLate,
    /// It arrives at a relay that has forgotten who checked in.
    ForgottenCheckIn,
}

/// A relay. A round closes with one update.
pub struct MemoryRelay {
    log: Log,
    /// Events go here where there is someone to hear them.
    pub feed: RefCell<Option<Feed>>,
    pub state: RefCell<RelayState>,
}

pub struct RelayState {
    task: TaskId,
    model_spec: Model,
    /// Whether models have a control variate beside them.
    has_control: bool,
    pub manifest: ContentHash,
    pub round: u64,
    pub last_round: u64,
    pub model: ContentHash,
    pub models: HashMap<ContentHash, Vec<u8>>,
    checked_in: HashSet<ClientId>,
    reported: HashSet<ClientId>,
    accepted: HashMap<UpdateId, (u64, Vec<u8>)>,
    /// Every update that was counted.
    pub counted: Vec<UpdateFrame>,
    /// Every body that left the client, arrived or not.
    pub bodies: Vec<Vec<u8>>,
    /// What becomes of the next uploads; those after them arrive.
    pub uploads: VecDeque<Upload>,
    /// Faults of the next check-ins.
    pub check_in_faults: VecDeque<RelayFault>,
    /// Answers to the next check-ins, whatever the state is.
    pub check_in_replies: VecDeque<CheckInReply>,
    /// Faults of the next model downloads.
    pub model_faults: VecDeque<RelayFault>,
    /// Whether a round closes as soon as it has an update.
    pub closes: bool,
    /// Nothing gets through at all.
    pub down: bool,
}

pub fn refusal(kind: ProblemKind) -> RelayFault {
    RelayFault::Refused {
        problem: Problem::new(kind, "says the relay"),
        retry_after_ms: None,
    }
}

pub fn down() -> RelayFault {
    RelayFault::Unreachable("the cable is cut".into())
}

impl RelayState {
    fn new(task: &Task) -> Self {
        let mut state = Self {
            task: task.manifest.task.clone(),
            model_spec: Model::new(task.model.spec()).unwrap(),
            has_control: task.reach.is_some(),
            manifest: task.hash,
            round: 1,
            last_round: u64::MAX,
            model: ContentHash::of(b""),
            models: HashMap::new(),
            checked_in: HashSet::new(),
            reported: HashSet::new(),
            accepted: HashMap::new(),
            counted: Vec::new(),
            bodies: Vec::new(),
            uploads: VecDeque::new(),
            check_in_faults: VecDeque::new(),
            check_in_replies: VecDeque::new(),
            model_faults: VecDeque::new(),
            closes: true,
            down: false,
        };
        state.publish();
        state
    }

    /// The open round's starting model.
    fn publish(&mut self) {
        let model = &self.model_spec;
        let parameters = model.initial_parameters(self.round);
        let file = if self.has_control {
            let control = model.initial_parameters(1000 + self.round);
            model.to_safetensors_with_control(&parameters, &control)
        } else {
            model.to_safetensors(&parameters)
        };
        self.serve(file.unwrap());
    }

    /// Makes `model` the newest one, under its own hash.
    pub fn serve(&mut self, model: Vec<u8>) {
        self.model = ContentHash::of(&model);
        self.models.insert(self.model, model);
    }

    /// Closes the open round and opens the next.
    pub fn advance(&mut self) {
        self.round += 1;
        self.checked_in.clear();
        self.reported.clear();
        self.publish();
    }

    pub fn round_state(&self) -> RoundState {
        RoundState {
            task: self.task.clone(),
            round: self.round,
            phase: if self.round > self.last_round {
                RoundPhase::Finished
            } else {
                RoundPhase::Collecting
            },
            model: self.model,
            manifest: self.manifest,
            checked_in: self.checked_in.len() as u32,
            received: self.reported.len() as u32,
            deadline_ms: None,
            paused: false,
        }
    }

    /// The rules of a relay: what was counted is known for ever, then manifest, round, model, check-in, report, size.
    fn receive(&mut self, body: &[u8]) -> Result<UpdateReply, RelayFault> {
        let (frame, _) = UpdateFrame::read(body).map_err(|_| refusal(ProblemKind::Malformed))?;
        if let Some((round, known)) = self.accepted.get(&frame.update) {
            return if known == body {
                Ok(UpdateReply {
                    update: frame.update,
                    round: *round,
                    duplicate: true,
                })
            } else {
                Err(refusal(ProblemKind::UpdateConflict))
            };
        }
        let kind = if frame.manifest != self.manifest {
            ProblemKind::WrongManifest
        } else if frame.round == 0 || frame.round > self.round {
            ProblemKind::WrongRound
        } else if frame.round < self.round {
            ProblemKind::RoundClosed
        } else if frame.model != self.model {
            ProblemKind::WrongModel
        } else if !self.checked_in.contains(&frame.client) {
            ProblemKind::NotCheckedIn
        } else if self.reported.contains(&frame.client) {
            ProblemKind::AlreadyReported
        } else if frame.coordinates.len() != self.model_spec.parameter_count() {
            ProblemKind::Unacceptable
        } else {
            let reply = UpdateReply {
                update: frame.update,
                round: frame.round,
                duplicate: false,
            };
            self.accepted.insert(frame.update, (frame.round, body.to_vec()));
            self.reported.insert(frame.client);
            self.counted.push(frame);
            if self.closes {
                self.advance();
            }
            return Ok(reply);
        };
        Err(refusal(kind))
    }
}

impl MemoryRelay {
    pub fn new(log: &Log, task: &Task) -> Self {
        Self {
            log: log.clone(),
            feed: RefCell::new(None),
            state: RefCell::new(RelayState::new(task)),
        }
    }

    async fn hear(&self, op: Op) {
        self.log.push(op);
        turn().await;
    }

    /// Closes the open round, opens the next, and says so to whoever listens.
    pub fn advance(&self) {
        self.state.borrow_mut().advance();
        self.tell();
    }

    fn tell(&self) {
        if let Some(feed) = &*self.feed.borrow() {
            feed.set(self.state.borrow().round_state());
        }
    }
}

impl Relay for MemoryRelay {
    async fn manifest(&self) -> Result<Offered, RelayFault> {
        Err(down()) // a session has its manifest already
    }

    async fn round(&self) -> Result<RoundState, RelayFault> {
        self.hear(Op::Round).await;
        Ok(self.state.borrow().round_state())
    }

    async fn rounds(&self) -> Result<Vec<RoundMetrics>, RelayFault> {
        Ok(Vec::new())
    }

    async fn check_in(&self, message: &CheckIn) -> Result<CheckInReply, RelayFault> {
        self.hear(Op::CheckIn).await;
        let mut state = self.state.borrow_mut();
        if state.down {
            return Err(down());
        }
        if let Some(fault) = state.check_in_faults.pop_front() {
            return Err(fault);
        }
        if let Some(reply) = state.check_in_replies.pop_front() {
            return Ok(reply);
        }
        if message.manifest != state.manifest {
            return Err(refusal(ProblemKind::WrongManifest));
        }
        let (round, model) = (state.round, state.model);
        Ok(if round > state.last_round {
            CheckInReply::Finished {
                round: round - 1,
                model,
            }
        } else if state.reported.contains(&message.client) {
            CheckInReply::Wait {
                round,
                retry_after_ms: 5000,
            }
        } else {
            state.checked_in.insert(message.client);
            CheckInReply::Train {
                round,
                model,
                deadline_ms: 60_000,
            }
        })
    }

    async fn model(&self, hash: ContentHash, _: usize) -> Result<Vec<u8>, RelayFault> {
        self.hear(Op::Model).await;
        let mut state = self.state.borrow_mut();
        if let Some(fault) = state.model_faults.pop_front() {
            return Err(fault);
        }
        state
            .models
            .get(&hash)
            .cloned()
            .ok_or_else(|| refusal(ProblemKind::NotFound))
    }

    async fn send(&self, frame: &[u8]) -> Result<UpdateReply, RelayFault> {
        self.hear(Op::Send(ContentHash::of(frame))).await;
        let answer = {
            let mut state = self.state.borrow_mut();
            state.bodies.push(frame.to_vec());
            let upload = match state.down {
                true => Upload::Lost,
                false => state.uploads.pop_front().unwrap_or(Upload::Arrives),
            };
            match upload {
                Upload::Arrives => state.receive(frame),
                Upload::Lost => Err(down()),
                Upload::AnswerLost => state.receive(frame).and(Err(down())),
                Upload::Refused(kind, retry_after_ms) => Err(RelayFault::Refused {
                    problem: Problem::new(kind, "says the relay"),
                    retry_after_ms,
                }),
                Upload::TooLate => {
                    state.advance();
                    state.receive(frame)
                }
                Upload::ForgottenCheckIn => {
                    state.checked_in.clear();
                    state.receive(frame)
                }
            }
        };
        self.tell();
        answer
    }
}
