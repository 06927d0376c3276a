//! Places for tabs: each tab of one browser profile that takes part holds a numbered place under a Web Lock, which the browser
//! frees when the tab closes, however it closes.

use std::{cell::RefCell, rc::Rc};

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

/// A place, held until it is dropped.
pub(crate) struct Place {
    /// Its number, from 0.
    pub number: u32,
    release: Rc<RefCell<Option<Function>>>,
}

impl std::fmt::Debug for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Place({})", self.number)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(release) = self.release.take() {
            let _ = release.call0(&JsValue::NULL);
        }
    }
}

/// Takes the first free of `places` places of `task`; waits for place 0 where all are taken, after calling `waiting`.
pub(crate) async fn take_place(
    task: &str,
    places: u32,
    waiting: impl FnOnce(),
    abort: &Abort,
) -> Result<Place, ClientError> {
    for number in 0..places {
        if let Some(place) = hold(task, number, true).await? {
            return Ok(place);
        }
    }
    waiting();
    let place = abort.guard(hold(task, 0, false)).await??;
    place.ok_or_else(|| ClientError::Storage("the browser gave no lock".into()))
}

/// Holds a place; none where `only_if_free` and it is not.
async fn hold(task: &str, number: u32, only_if_free: bool) -> Result<Option<Place>, ClientError> {
    let failed = |error: JsValue| ClientError::Storage(format!("Web Locks: {}", describe(&error)));
    let release = Rc::new(RefCell::new(None::<Function>));
    let options = Object::new();
    Reflect::set(&options, &"ifAvailable".into(), &only_if_free.into()).map_err(failed)?;
    let name = format!("unsaid/{task}/place/{number}");
    // Settled with whether the lock was given, as soon as that is known.
    let mut asked: Option<Result<Promise, JsValue>> = None;
    let given = Promise::new(&mut |tell, refuse| {
        let release = Rc::clone(&release);
        let callback = Closure::once_into_js(move |lock: JsValue| -> JsValue {
            let given = !lock.is_null();
            let _ = tell.call1(&JsValue::NULL, &given.into());
            if !given {
                return JsValue::UNDEFINED;
            }
            // The lock is held until this promise is resolved, which dropping the place does.
            Promise::new(&mut |resolve, _| {
                release.replace(Some(resolve));
            })
            .into()
        });
        let request = request(&name, &options, callback.unchecked_ref());
        if let Err(error) = &request {
            let _ = refuse.call1(&JsValue::NULL, error);
        }
        asked = Some(request);
    });
    let given = JsFuture::from(given).await.map_err(failed)?;
    Ok(given.is_truthy().then_some(Place { number, release }))
}
