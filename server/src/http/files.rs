//! Static files of the page and the demo's data, and the headers that every answer has.

use std::sync::Arc;

use axum::{
    Router,
    extract::{Request, State},
    http::{HeaderName, HeaderValue, header},
    middleware::{self, Next},
    response::Response,
    routing::post,
};
use tower_http::services::ServeDir;

use super::{claims, problem};
use crate::relay::{Relay, RelayOptions};

/// What a page from this relay may load. The worker needs WebAssembly; the page may talk to relays elsewhere.
const CONTENT_SECURITY_POLICY: &str = "default-src 'self'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self' blob:; \
     style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; connect-src 'self' http: https:; object-src 'none'; \
     base-uri 'self'; form-action 'self'; frame-ancestors 'none'";

const HEADERS: [(HeaderName, &str); 6] = [
    (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (
        HeaderName::from_static("cross-origin-opener-policy"),
        "same-origin",
    ),
    (
        HeaderName::from_static("cross-origin-embedder-policy"),
        "require-corp",
    ),
    // Pages elsewhere that isolate themselves may use this relay; what is private is not behind a URL.
    (
        HeaderName::from_static("cross-origin-resource-policy"),
        "cross-origin",
    ),
];

/// What an answer over the relay's own TLS says: for a year, ask this host in no other way (RFC 6797). Over plain HTTP, and from behind a proxy
/// that does TLS, it would be nothing that the relay knows to be so.
const STRICT_TRANSPORT_SECURITY: &str = "max-age=31536000";

/// Adds the folders that the options name.
pub fn add(router: Router<Arc<Relay>>, options: &RelayOptions) -> Router<Arc<Relay>> {
    let router = match &options.data {
        Some(folder) => {
            let data = Router::new()
                .route("/{partition}/claim", post(claims::claim))
                .fallback_service(ServeDir::new(folder).append_index_html_on_directories(false))
                .layer(middleware::from_fn(data_caching));
            router.nest("/data", data)
        }
        None => router,
    };
    match &options.page {
        Some(folder) => {
            let page = ServeDir::new(folder).precompressed_gzip();
            let page: Router<()> = Router::new()
                .fallback_service(page)
                .layer(middleware::from_fn(page_caching));
            router.fallback_service(page)
        }
        None => router.fallback(problem::not_found),
    }
}

/// The demo's data is what its manifest of hashes says: it never changes. A claim is another each time.
async fn data_caching(request: Request, next: Next) -> Response {
    let is_file = request.method().is_safe();
    let response = next.run(request).await;
    cached(
        response,
        if is_file {
            "public, max-age=31536000, immutable"
        } else {
            "no-store"
        },
    )
}

/// Vite names what it builds into `assets/` by content; everything else is asked for again.
async fn page_caching(request: Request, next: Next) -> Response {
    let named_by_content = request.uri().path().starts_with("/assets/");
    let response = next.run(request).await;
    cached(
        response,
        if named_by_content {
            "public, max-age=31536000, immutable"
        } else {
            "no-cache"
        },
    )
}

fn cached(mut response: Response, how: &'static str) -> Response {
    if response.status().is_success() {
        response
            .headers_mut()
            .insert(header::CACHE_CONTROL, HeaderValue::from_static(how));
    }
    response
}

/// Puts the security headers on every answer.
pub async fn security_headers(State(relay): State<Arc<Relay>>, request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    if relay.options.tls.is_some() {
        let always = HeaderValue::from_static(STRICT_TRANSPORT_SECURITY);
        headers.insert(header::STRICT_TRANSPORT_SECURITY, always);
    }
    for (name, value) in HEADERS {
        // A route may have said something stricter.
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
    response
}
