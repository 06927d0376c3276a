//! Browser-local storage: IndexedDB, database `unsaid`, version 1.
//!
//! | store      | key                        | value                                                                    |
//! |------------|----------------------------|--------------------------------------------------------------------------|
//! | `examples` | automatic                  | `{owner, x: Float32Array, y: Uint32Array}`, index `owner`                |
//! | `clients`  | owner, or the task alone   | the participant's id, hexadecimal                                        |
//! | `pending`  | owner                      | `{round, frame: Uint8Array, control: Float32Array}`: paid for and not acknowledged |
//! | `pending`  | owner and `/control`       | the participant's control variate, `Float32Array`, where its task has any |
//! | `ledger`   | `"ledger"`                 | the ledger as JSON, one for the whole origin                             |
//!
//! An owner is `<relay>/<task>/<place>`: the tabs of one profile that take part each have their own data and id, and share the
//! ledger. Nothing kept for one relay is sent to another, but for one thing: in a task of mode `central` a profile is one client, whatever
//! the relay's address and the place, so that one sum never has two of its updates. That id goes by the task alone.

use idb::{DatabaseEvent, Factory, IndexParams, KeyPath, ObjectStore, ObjectStoreParams, Query, Transaction};
use js_sys::{Array, Float32Array, Object, Reflect, Uint8Array, Uint32Array};
use unsaid_privacy::{Budget, Ledger};
use unsaid_protocol::{ClientId, TaskId};
use wasm_bindgen::{JsCast, JsValue, prelude::wasm_bindgen};
use web_sys::IdbTransaction;

use super::describe;
use crate::{
    ClientError,
    ports::{LedgerChange, Pending, Store},
    random::Random,
};

const EXAMPLES: &str = "examples";
const CLIENTS: &str = "clients";
const PENDING: &str = "pending";
const LEDGER: &str = "ledger";
const OWNER: &str = "owner";
const CONTROL: &str = "control";

#[wasm_bindgen]
extern "C" {
    /// An open database, for the options of a transaction, which neither idb nor web-sys (without a build flag) know.
    type Connection;
    #[wasm_bindgen(method, catch)]
    fn transaction(
        this: &Connection,
        stores: &Array,
        mode: &str,
        options: &JsValue,
    ) -> Result<IdbTransaction, JsValue>;
    #[wasm_bindgen(method)]
    fn close(this: &Connection);
}

/// What a transaction does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Access {
    Read,
    Write,
    /// Its commit is reported only once it would survive a power cut, where the browser knows how (others pass over the option).
    WriteForGood,
}

/// The database, for one participant.
pub(crate) struct IndexedDb {
    database: Connection,
    owner: String,
    /// The budget that a ledger begins with.
    first_budget: Budget,
}

impl std::fmt::Debug for IndexedDb {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "IndexedDb({})", self.owner)
    }
}

fn failed(error: idb::Error) -> ClientError {
    ClientError::Storage(error.to_string())
}

fn odd(error: JsValue) -> ClientError {
    ClientError::Storage(describe(&error))
}

/// A plain object.
fn object(fields: &[(&str, JsValue)]) -> Result<JsValue, ClientError> {
    let object = Object::new();
    for (name, value) in fields {
        Reflect::set(&object, &JsValue::from_str(name), value).map_err(odd)?;
    }
    Ok(object.into())
}

fn field<T: JsCast>(object: &JsValue, name: &str) -> Result<T, ClientError> {
    let value = Reflect::get(object, &JsValue::from_str(name)).map_err(odd)?;
    value
        .dyn_into()
        .map_err(|_| ClientError::Storage(format!("a stored record has no {name}")))
}

/// The control variate of an update that waits. One that was kept by an earlier version has none.
fn control_of(record: &JsValue) -> Result<Vec<f32>, ClientError> {
    Ok(floats(Reflect::get(record, &CONTROL.into()).map_err(odd)?))
}

/// The numbers of an array; none where it is no array.
fn floats(value: JsValue) -> Vec<f32> {
    value
        .dyn_into::<Float32Array>()
        .map_or_else(|_| Vec::new(), |array| array.to_vec())
}

fn query(key: &str) -> Query {
    Query::Key(JsValue::from_str(key))
}

/// One transaction over `$stores`: the body sees `$transaction`; it is committed at its end and aborted where it fails.
macro_rules! transact {
    ($self:ident, $stores:expr, $access:ident, |$transaction:ident| $body:block) => {{
        let $transaction = $self.begin($stores, Access::$access)?;
        let result: Result<_, ClientError> = async { $body }.await;
        end($transaction, result.is_ok()).await.and(result)
    }};
}

async fn put(store: &ObjectStore, value: &JsValue, key: &JsValue) -> Result<(), ClientError> {
    let put = store.put(value, Some(key)).map_err(failed)?;
    put.await.map_err(failed).map(drop)
}

async fn delete(store: &ObjectStore, what: Query) -> Result<(), ClientError> {
    let deleted = store.delete(what).map_err(failed)?;
    deleted.await.map_err(failed)
}

/// Commits a transaction, or aborts it. A function of its own, for there is to be one copy of it in the wasm.
async fn end(transaction: Transaction, commit: bool) -> Result<(), ClientError> {
    if !commit {
        if let Ok(aborting) = transaction.abort() {
            let _ = aborting.await;
        }
        return Ok(());
    }
    let committed = transaction.commit().map_err(failed)?.await.map_err(failed)?;
    if committed.is_committed() {
        Ok(())
    } else {
        Err(ClientError::Storage("the browser dropped a transaction".into()))
    }
}

impl IndexedDb {
    /// Opens the database for the participant at `place` of `task`. `first_budget` is used where there is no ledger yet.
    pub async fn open(task: &str, place: u32, first_budget: Budget) -> Result<Self, ClientError> {
        let mut request = Factory::new()
            .map_err(failed)?
            .open("unsaid", Some(1))
            .map_err(failed)?;
        request.on_upgrade_needed(|event| {
            // A failure here fails the open request, which reports it.
            let Ok(database) = event.database() else { return };
            let mut automatic = ObjectStoreParams::new();
            automatic.auto_increment(true);
            if let Ok(examples) = database.create_object_store(EXAMPLES, automatic) {
                let _ = examples.create_index(OWNER, KeyPath::new_single(OWNER), Some(IndexParams::new()));
            }
            for store in [CLIENTS, PENDING, LEDGER] {
                let _ = database.create_object_store(store, ObjectStoreParams::new());
            }
        });
        let database = request.await.map_err(failed)?;
        Ok(Self {
            database: JsValue::from(database).unchecked_into(),
            owner: format!("{task}/{place}"),
            first_budget,
        })
    }

    /// From now on this is the store of the participant in another place.
    pub fn move_to(&mut self, task: &str, place: u32) {
        self.owner = format!("{task}/{place}");
    }

    /// Adds examples to the participant's own.
    pub async fn add_examples(&self, x: &[f32], y: &[u32]) -> Result<(), ClientError> {
        let record = object(&[
            (OWNER, JsValue::from_str(&self.owner)),
            ("x", Float32Array::from(x).into()),
            ("y", Uint32Array::from(y).into()),
        ])?;
        transact!(self, &[EXAMPLES], Write, |transaction| {
            let store = transaction.object_store(EXAMPLES).map_err(failed)?;
            store.add(&record, None).map_err(failed)?.await.map_err(failed)?;
            Ok(())
        })
    }

    /// Forgets the participant's examples, and what was made from them: an update that was not acknowledged (its cost stays debited), and
    /// the control variate.
    pub async fn clear_examples(&self) -> Result<(), ClientError> {
        transact!(self, &[EXAMPLES, PENDING], Write, |transaction| {
            let pending = transaction.object_store(PENDING).map_err(failed)?;
            delete(&pending, query(&self.owner)).await?;
            delete(&pending, query(&self.control_key())).await?;
            let store = transaction.object_store(EXAMPLES).map_err(failed)?;
            let index = store.index(OWNER).map_err(failed)?;
            let keys = index
                .get_all_keys(Some(query(&self.owner)), None)
                .map_err(failed)?;
            for key in keys.await.map_err(failed)? {
                delete(&store, Query::Key(key)).await?;
            }
            Ok(())
        })
    }

    fn begin(&self, stores: &[&str], access: Access) -> Result<Transaction, ClientError> {
        let stores: Array = stores.iter().map(|store| JsValue::from_str(store)).collect();
        let mode = if access == Access::Read {
            "readonly"
        } else {
            "readwrite"
        };
        let options = match access {
            Access::WriteForGood => object(&[("durability", "strict".into())])?,
            Access::Read | Access::Write => JsValue::UNDEFINED,
        };
        let transaction = self.database.transaction(&stores, mode, &options);
        transaction.map(Transaction::from).map_err(odd)
    }

    /// Closes the database.
    pub fn close(&self) {
        self.database.close();
    }

    fn pending_record(pending: &Pending) -> Result<JsValue, ClientError> {
        let round = JsValue::from_str(&pending.round.to_string());
        object(&[
            ("round", round),
            ("frame", Uint8Array::from(pending.frame.as_slice()).into()),
            (CONTROL, Float32Array::from(pending.control.as_slice()).into()),
        ])
    }

    fn control_key(&self) -> String {
        format!("{}/{CONTROL}", self.owner)
    }

    /// What is at `key` among the updates that wait.
    async fn kept(&self, key: &str) -> Result<Option<JsValue>, ClientError> {
        transact!(self, &[PENDING], Read, |transaction| {
            let store = transaction.object_store(PENDING).map_err(failed)?;
            store.get(query(key)).map_err(failed)?.await.map_err(failed)
        })
    }
}

impl Store for IndexedDb {
    async fn client_id(&self, shared: Option<&TaskId>) -> Result<ClientId, ClientError> {
        let fresh = ClientId::from_bytes(Random::default().bytes()?);
        let owner = shared.map_or(self.owner.as_str(), TaskId::as_str);
        let key = JsValue::from_str(owner);
        transact!(self, &[CLIENTS], Write, |transaction| {
            let store = transaction.object_store(CLIENTS).map_err(failed)?;
            let known = store.get(query(owner)).map_err(failed)?.await.map_err(failed)?;
            let known = known.and_then(|id| id.as_string()).and_then(|id| id.parse().ok());
            if let Some(known) = known {
                return Ok(known);
            }
            let value = JsValue::from_str(&fresh.to_string());
            put(&store, &value, &key).await?;
            Ok(fresh)
        })
    }

    async fn examples(&self) -> Result<(Vec<f32>, Vec<u32>), ClientError> {
        let records: Result<_, ClientError> = transact!(self, &[EXAMPLES], Read, |transaction| {
            let store = transaction.object_store(EXAMPLES).map_err(failed)?;
            let index = store.index(OWNER).map_err(failed)?;
            index
                .get_all(Some(query(&self.owner)), None)
                .map_err(failed)?
                .await
                .map_err(failed)
        });
        let (mut x, mut y) = (Vec::new(), Vec::new());
        for record in records? {
            x.extend(field::<Float32Array>(&record, "x")?.to_vec());
            y.extend(field::<Uint32Array>(&record, "y")?.to_vec());
        }
        Ok((x, y))
    }

    async fn change_ledger(
        &self,
        pending: Option<&Pending>,
        change: &mut LedgerChange<'_>,
    ) -> Result<(), ClientError> {
        let record = pending.map(Self::pending_record).transpose()?;
        let (ledger_key, owner) = (JsValue::from_str(LEDGER), JsValue::from_str(&self.owner));
        // One read-write transaction: IndexedDB runs those that share a store one after the other, across all tabs.
        transact!(self, &[LEDGER, PENDING], WriteForGood, |transaction| {
            let store = transaction.object_store(LEDGER).map_err(failed)?;
            let json = store.get(query(LEDGER)).map_err(failed)?.await.map_err(failed)?;
            let mut ledger = match &json {
                Some(json) => {
                    let json = json.as_string();
                    let json =
                        json.ok_or_else(|| ClientError::Storage("the ledger is damaged: no text".into()))?;
                    Ledger::from_json(&json)?
                }
                None => Ledger::new(self.first_budget),
            };
            change(&mut ledger)?;
            let changed = JsValue::from_str(&ledger.to_json());
            // Who only looks makes the disk do nothing.
            if json.as_ref() != Some(&changed) {
                put(&store, &changed, &ledger_key).await?;
            }
            if let Some(record) = &record {
                let store = transaction.object_store(PENDING).map_err(failed)?;
                put(&store, record, &owner).await?;
            }
            Ok(())
        })
    }

    async fn pending(&self) -> Result<Option<Pending>, ClientError> {
        let Some(record) = self.kept(&self.owner).await? else {
            return Ok(None);
        };
        let round = Reflect::get(&record, &"round".into()).map_err(odd)?.as_string();
        let round = round.and_then(|round| round.parse().ok());
        let round = round.ok_or_else(|| ClientError::Storage("a stored update has no round".into()))?;
        Ok(Some(Pending {
            round,
            frame: field::<Uint8Array>(&record, "frame")?.to_vec(),
            control: control_of(&record)?,
        }))
    }

    async fn control(&self) -> Result<Vec<f32>, ClientError> {
        let kept = self.kept(&self.control_key()).await?;
        Ok(floats(kept.unwrap_or_default()))
    }

    async fn keep_pending(&self, pending: &Pending) -> Result<(), ClientError> {
        let (record, owner) = (Self::pending_record(pending)?, JsValue::from_str(&self.owner));
        transact!(self, &[PENDING], Write, |transaction| {
            let store = transaction.object_store(PENDING).map_err(failed)?;
            put(&store, &record, &owner).await?;
            Ok(())
        })
    }

    async fn clear_pending(&self, counted: bool) -> Result<(), ClientError> {
        let key = JsValue::from_str(&self.control_key());
        transact!(self, &[PENDING], Write, |transaction| {
            let store = transaction.object_store(PENDING).map_err(failed)?;
            let kept = store.get(query(&self.owner)).map_err(failed)?;
            let control = match kept.await.map_err(failed)? {
                Some(record) if counted => control_of(&record)?,
                _ => Vec::new(),
            };
            delete(&store, query(&self.owner)).await?;
            if !control.is_empty() {
                put(&store, &Float32Array::from(control.as_slice()).into(), &key).await?;
            }
            Ok(())
        })
    }

    async fn erase(&self) -> Result<(), ClientError> {
        transact!(self, &[LEDGER, PENDING, CLIENTS], WriteForGood, |transaction| {
            for name in [LEDGER, PENDING, CLIENTS] {
                let store = transaction.object_store(name).map_err(failed)?;
                store.clear().map_err(failed)?.await.map_err(failed)?;
            }
            Ok(())
        })
    }
}
