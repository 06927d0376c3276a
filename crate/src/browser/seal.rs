//! Signatures, which the browser makes and checks (WebCrypto): whether a manifest is signed by the key that the page trusts
//! (`worker/src/seal.ts`), and who this browser is where a task asks for that (`worker/src/identity.ts`).

use gloo_net::http::RequestBuilder;
use js_sys::Promise;
use wasm_bindgen::prelude::wasm_bindgen;
use wasm_bindgen_futures::JsFuture;

use super::describe;
use crate::{
    ClientError,
    ports::{Offered, RelayFault},
};

#[wasm_bindgen]
extern "C" {
    /// The worker's side.
    #[wasm_bindgen(typescript_type = "any")]
    #[derive(Debug)]
    pub type Seal;

    /// Rejects unless the manifest may be used.
    #[wasm_bindgen(method)]
    fn check(this: &Seal, manifest: &[u8], signature: Option<String>) -> Promise;

    /// Resolves with the header that says who sends a request with this body; with nothing where nobody need say so.
    #[wasm_bindgen(method)]
    fn sign(this: &Seal, body: &[u8]) -> Promise;
}

/// Refuses a manifest that the page's key has not signed; without a key, none.
pub(super) async fn check(seal: &Seal, offered: &Offered) -> Result<(), ClientError> {
    let checked = JsFuture::from(seal.check(&offered.bytes, offered.signature.clone())).await;
    checked
        .map(drop)
        .map_err(|why| ClientError::BadManifest(describe(&why)))
}

/// A request with the header that says who sends it, where the task asks for that.
pub(super) async fn sign(
    seal: &Seal,
    request: RequestBuilder,
    body: &[u8],
) -> Result<RequestBuilder, RelayFault> {
    let signed = JsFuture::from(seal.sign(body)).await;
    // What has to be asked of the relay for it did not come.
    let credential = signed.map_err(|why| RelayFault::Unreachable(describe(&why)))?;
    Ok(match credential.as_string() {
        Some(credential) => request.header("unsaid-identity", &credential),
        None => request,
    })
}
