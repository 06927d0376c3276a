//! What the tabs of one browser profile share out among themselves, by Web Locks, which the browser frees when a tab closes,
//! however it closes: places to take part, and who reads the relay's events for all.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
};

use js_sys::{Function, Object, Promise, Reflect};
use wasm_bindgen::{JsCast, JsValue, closure::Closure, prelude::wasm_bindgen};
use wasm_bindgen_futures::JsFuture;

use super::describe;
use crate::{ClientError, abort::Abort};

#[wasm_bindgen]
extern "C" {
    // web-sys has Web Locks only behind a build flag for unstable interfaces; the interface itself has been stable since 2018.
    #[wasm_bindgen(catch, js_namespace = ["navigator", "locks"], js_name = request)]
    fn request(name: &str, options: &JsValue, callback: &Function) -> Result<Promise, JsValue>;
}

/// A lock, held until it is dropped.
pub(crate) struct Lock {
    release: Rc<RefCell<Option<Function>>>,
}

impl std::fmt::Debug for Lock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Lock")
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        if let Some(release) = self.release.take() {
            let _ = release.call0(&JsValue::NULL);
        }
    }
}

/// A numbered place to take part in a task.
#[derive(Debug)]
pub(crate) struct Place {
    /// Its number, from 0.
    pub number: u32,
    _lock: Lock,
}

/// Takes the first free of `places` places of `task` (with its relay); waits for place 0 where all are taken, after calling `waiting`.
pub(crate) async fn take_place(
    task: &str,
    places: u32,
    waiting: impl FnOnce(),
    abort: &Abort,
) -> Result<Place, ClientError> {
    let name = |number: u32| format!("unsaid/{task}/place/{number}");
    for number in 0..places {
        if let Some(_lock) = hold(&name(number), true).await? {
            return Ok(Place { number, _lock });
        }
    }
    waiting();
    match abort.guard(hold(&name(0), false)).await?? {
        Some(_lock) => Ok(Place { number: 0, _lock }),
        None => Err(ClientError::Storage("the browser gave no lock".into())),
    }
}

/// Says that nobody waits any more, where the waiting future is dropped.
struct Waiting(Rc<Cell<bool>>);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.set(false);
    }
}

/// Holds the lock `name`; none where `only_if_free` and it is not.
pub(crate) async fn hold(name: &str, only_if_free: bool) -> Result<Option<Lock>, ClientError> {
    let failed = |error: JsValue| ClientError::Storage(format!("Web Locks: {}", describe(&error)));
    let release = Rc::new(RefCell::new(None::<Function>));
    let waiting = Waiting(Rc::new(Cell::new(true)));
    let options = Object::new();
    Reflect::set(&options, &"ifAvailable".into(), &only_if_free.into()).map_err(failed)?;
    // Settled with whether the lock was given, as soon as that is known.
    let given = Promise::new(&mut |tell, refuse| {
        let (release, waited_for) = (Rc::clone(&release), Rc::clone(&waiting.0));
        let callback = Closure::once_into_js(move |lock: JsValue| -> JsValue {
            let given = !lock.is_null();
            let _ = tell.call1(&JsValue::NULL, &given.into());
            if !given || !waited_for.get() {
                return JsValue::UNDEFINED; // which gives the lock back at once
            }
            // The lock is held until this promise is resolved, which dropping the lock does.
            Promise::new(&mut |resolve, _| {
                release.replace(Some(resolve));
            })
            .into()
        });
        let asked = request(name, &options, callback.unchecked_ref());
        // A refusal (storage denied, say) comes as a rejection; once `given` is settled, refusing it does nothing.
        wasm_bindgen_futures::spawn_local(async move {
            let ended = match asked {
                Ok(asked) => JsFuture::from(asked).await,
                Err(error) => Err(error),
            };
            if let Err(error) = ended {
                let _ = refuse.call1(&JsValue::NULL, &error);
            }
        });
    });
    let given = JsFuture::from(given).await.map_err(failed)?;
    Ok(given.is_truthy().then_some(Lock { release }))
}
