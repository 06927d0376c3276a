//! Whether a manifest is signed by the key that the page trusts. The browser checks it (WebCrypto): `worker/src/seal.ts`.

use js_sys::Promise;
use wasm_bindgen::prelude::wasm_bindgen;
use wasm_bindgen_futures::JsFuture;

use super::describe;
use crate::{ClientError, ports::Offered};

#[wasm_bindgen]
extern "C" {
    /// The worker's check.
    #[wasm_bindgen(typescript_type = "any")]
    #[derive(Debug)]
    pub type Seal;

    /// Rejects unless the manifest may be used.
    #[wasm_bindgen(method)]
    fn check(this: &Seal, manifest: &[u8], signature: Option<String>) -> Promise;
}

/// Refuses a manifest that the page's key has not signed; without a key, none.
pub(super) async fn check(seal: &Seal, offered: &Offered) -> Result<(), ClientError> {
    let checked = JsFuture::from(seal.check(&offered.bytes, offered.signature.clone())).await;
    checked
        .map(drop)
        .map_err(|why| ClientError::BadManifest(describe(&why)))
}
