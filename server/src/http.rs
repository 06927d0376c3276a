//! The HTTP side: routes, limits and headers.

use std::sync::Arc;

use axum::{
    Router,
    http::{HeaderName, HeaderValue, Method, header},
    middleware,
};
use tower_http::cors::{AllowOrigin, Any, CorsLayer};
use unsaid_protocol::identity::IDENTITY_HEADER;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::relay::Relay;

pub mod admin;
pub mod body;
pub mod claims;
pub mod download;
pub mod events;
pub mod files;
pub mod forwarded;
pub mod identities;
pub mod limits;
pub mod metrics;
pub mod models;
pub mod openapi;
pub mod operator;
pub mod problem;
pub mod status;
pub mod tasks;
pub mod updates;
pub mod uploads;

/// Carries a manifest's name, beside its `ETag`.
pub const CONTENT_HASH: HeaderName = HeaderName::from_static("unsaid-content-hash");

/// Carries the relay's signature of a manifest.
pub const SIGNATURE: HeaderName = HeaderName::from_static("unsaid-signature");

/// Everything that a relay serves, as a router; [`crate::serve()`] serves it.
pub fn app(relay: Arc<Relay>) -> Router {
    let limit = middleware::from_fn_with_state(relay.clone(), limits::limit);
    let v1 = Router::from(v1());
    let others = Router::from(others(&relay)).merge(operator::routes(&relay));
    let v1 = v1
        .fallback(problem::not_found)
        // Within CORS: a page elsewhere may read that it asks too often, and a browser's asking first (a preflight) is not counted.
        .layer(limit.clone())
        .layer(cors(&relay.options.origins));
    files::add(others, &relay.options)
        .layer(limit)
        .nest("/v1", v1)
        .with_state(relay.clone())
        .layer(middleware::from_fn_with_state(relay.clone(), metrics::count))
        .layer(middleware::from_fn_with_state(relay, files::security_headers))
        .layer(middleware::map_response(problem::document_every_error))
}

/// The routes below `/v1` that pages elsewhere may ask.
fn v1() -> OpenApiRouter<Arc<Relay>> {
    OpenApiRouter::new()
        .routes(routes!(openapi::openapi))
        .routes(routes!(tasks::list))
        .routes(routes!(tasks::manifest))
        .routes(routes!(tasks::round))
        .routes(routes!(tasks::rounds))
        .routes(routes!(tasks::check_in))
        .routes(routes!(models::model))
        .routes(routes!(download::download))
        .routes(routes!(updates::update))
        .routes(routes!(identities::identity))
        .routes(routes!(identities::enrol))
        .routes(routes!(events::events))
}

fn others(relay: &Arc<Relay>) -> OpenApiRouter<Arc<Relay>> {
    OpenApiRouter::with_openapi(openapi::head())
        .merge(admin::routes(relay))
        .routes(routes!(metrics::metrics))
        .routes(routes!(tasks::healthz))
        .routes(routes!(tasks::readyz))
}

/// The description of the API of this very relay.
fn described(relay: &Arc<Relay>) -> utoipa::openapi::OpenApi {
    others(relay).into_openapi().nest("/v1", v1().into_openapi())
}

/// Which pages elsewhere may ask: all, or those of a list.
fn cors(origins: &Option<Vec<HeaderValue>>) -> CorsLayer {
    let allowed = match origins {
        None => Any.into(),
        Some(origins) => AllowOrigin::list(origins.iter().cloned()),
    };
    CorsLayer::new()
        .allow_origin(allowed)
        .allow_methods([Method::GET, Method::POST])
        .allow_headers([
            header::CONTENT_TYPE,
            header::IF_NONE_MATCH,
            HeaderName::from_static(IDENTITY_HEADER),
        ])
        .expose_headers([header::ETAG, header::RETRY_AFTER, CONTENT_HASH, SIGNATURE])
        .max_age(std::time::Duration::from_secs(86_400))
}
