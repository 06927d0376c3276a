//! A store in memory that can fail.

use std::cell::{Cell, RefCell};

use unsaid::{
    ClientError,
    ports::{LedgerChange, Pending, Store},
};
use unsaid_privacy::{Budget, Charge, Cost, Ledger};
use unsaid_protocol::{ClientId, ContentHash, TaskId};

use super::{DELTA, Log, Op, terms::examples, turn};

/// Something that a store may fail at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fails {
    ClientId,
    Examples,
    ReadLedger,
    WriteLedger,
    ReadPending,
    Keep,
    Clear,
}

/// A store. Its ledger is text, as in a browser.
pub struct MemoryStore {
    log: Log,
    client: Cell<ClientId>,
    /// For which tasks the id was asked that all places share, and whether that or its own was.
    pub asked_for: RefCell<Vec<Option<String>>>,
    pub examples: RefCell<(Vec<f32>, Vec<u32>)>,
    ledger: RefCell<String>,
    pub pending: RefCell<Option<Pending>>,
    pub control: RefCell<Vec<f32>>,
    pub fails: Cell<Option<Fails>>,
}

impl MemoryStore {
    pub fn new(log: &Log) -> Self {
        Self {
            log: log.clone(),
            asked_for: RefCell::default(),
            client: Cell::new(ClientId::from_bytes(*b"a client's id 16")),
            examples: RefCell::new(examples()),
            ledger: RefCell::new(Ledger::new(Budget::new(1000.0, DELTA).unwrap()).to_json()),
            pending: RefCell::new(None),
            control: RefCell::default(),
            fails: Cell::new(None),
        }
    }

    fn works(&self, at: Fails) -> Result<(), ClientError> {
        match self.fails.get() {
            Some(fails) if fails == at => Err(ClientError::Storage("the disk is full".into())),
            _ => Ok(()),
        }
    }

    pub fn ledger(&self) -> Ledger {
        Ledger::from_json(&self.ledger.borrow()).unwrap()
    }

    pub fn set_ledger(&self, json: impl Into<String>) {
        self.ledger.replace(json.into());
    }

    pub fn set_epsilon(&self, epsilon: f64) {
        let mut ledger = self.ledger();
        ledger.set_budget(Budget::new(epsilon, DELTA).unwrap());
        self.set_ledger(ledger.to_json());
    }

    /// What another tab's update does to the budget that the tabs share.
    pub fn spend_elsewhere(&self, cost: Cost) {
        self.spend_elsewhere_at(cost, 0);
    }

    /// The same, at a time of its own.
    pub fn spend_elsewhere_at(&self, cost: Cost, at_ms: u64) {
        let mut ledger = self.ledger();
        let charge = Charge {
            task: "elsewhere".into(),
            round: 1,
            update: "e".repeat(32),
            frame_sha256: "e".repeat(64),
            cost,
            at_ms,
        };
        ledger.debit(charge).unwrap();
        self.set_ledger(ledger.to_json());
    }
}

impl Store for MemoryStore {
    async fn client_id(&self, shared: Option<&TaskId>) -> Result<ClientId, ClientError> {
        self.works(Fails::ClientId)?;
        self.asked_for.borrow_mut().push(shared.map(TaskId::to_string));
        Ok(self.client.get())
    }

    async fn examples(&self) -> Result<(Vec<f32>, Vec<u32>), ClientError> {
        self.works(Fails::Examples)?;
        Ok(self.examples.borrow().clone())
    }

    async fn change_ledger(
        &self,
        pending: Option<&Pending>,
        change: &mut LedgerChange<'_>,
    ) -> Result<(), ClientError> {
        turn().await;
        self.works(Fails::ReadLedger)?;
        let before = Ledger::from_json(&self.ledger.borrow())?;
        let mut after = before.clone();
        change(&mut after)?;
        if after != before || pending.is_some() {
            self.works(Fails::WriteLedger)?;
            if let Some(charge) = after.entries().last().filter(|_| after != before) {
                self.log.push(Op::Debit {
                    charged: charge.frame_sha256.parse().unwrap(),
                    kept: pending.map(|pending| ContentHash::of(&pending.frame)),
                });
            }
            self.set_ledger(after.to_json());
            if let Some(pending) = pending {
                self.pending.replace(Some(pending.clone()));
            }
        }
        Ok(())
    }

    async fn pending(&self) -> Result<Option<Pending>, ClientError> {
        self.works(Fails::ReadPending)?;
        Ok(self.pending.borrow().clone())
    }

    async fn keep_pending(&self, pending: &Pending) -> Result<(), ClientError> {
        turn().await;
        self.works(Fails::Keep)?;
        self.log.push(Op::Keep(ContentHash::of(&pending.frame)));
        self.pending.replace(Some(pending.clone()));
        Ok(())
    }

    async fn control(&self) -> Result<Vec<f32>, ClientError> {
        Ok(self.control.borrow().clone())
    }

    async fn clear_pending(&self, counted: bool) -> Result<(), ClientError> {
        self.works(Fails::Clear)?;
        self.log.push(Op::Clear);
        let kept = self.pending.take().map(|pending| pending.control);
        if let Some(control) = kept.filter(|control| counted && !control.is_empty()) {
            self.control.replace(control);
        }
        Ok(())
    }

    async fn erase(&self) -> Result<(), ClientError> {
        self.works(Fails::WriteLedger)?;
        self.set_ledger(Ledger::new(Budget::new(1000.0, DELTA).unwrap()).to_json());
        self.pending.replace(None);
        self.control.take();
        self.client.set(ClientId::from_bytes(*b"another id of 16"));
        Ok(())
    }
}
