//! `GET /operator`: the operator's page. It is in the program, asks this relay only, and is the same for everybody: what it shows
//! needs the operator's token, which is typed into it.

use std::sync::Arc;

use axum::{
    Router,
    http::{HeaderValue, header},
    response::{IntoResponse, Redirect},
    routing::get,
};

use crate::relay::Relay;

/// Nothing from elsewhere, no inline script, and requests to this relay alone. Bars are as long as a style says.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src data:; \
     connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const PAGE: (&str, &str) = ("text/html; charset=utf-8", include_str!("operator/index.html"));
const STYLE: (&str, &str) = ("text/css; charset=utf-8", include_str!("operator/operator.css"));
const SCRIPT: (&str, &str) = (
    "text/javascript; charset=utf-8",
    include_str!("operator/operator.js"),
);

/// The routes; empty where the relay has no operator's token.
pub fn routes(relay: &Arc<Relay>) -> Router<Arc<Relay>> {
    if relay.options.admin_token.is_none() {
        return Router::new();
    }
    Router::new()
        .route("/operator", get(async || Redirect::permanent("/operator/")))
        .route("/operator/", get(async || served(PAGE)))
        .route("/operator/operator.css", get(async || served(STYLE)))
        .route("/operator/operator.js", get(async || served(SCRIPT)))
}

fn served((kind, text): (&'static str, &'static str)) -> impl IntoResponse {
    let policy = HeaderValue::from_static(CONTENT_SECURITY_POLICY);
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(kind)),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
        (header::CONTENT_SECURITY_POLICY, policy),
    ];
    (headers, text)
}
