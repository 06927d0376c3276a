//! The HTTP side: routes, limits and headers.

use std::sync::Arc;

use axum::{
    Router,
    http::{HeaderName, HeaderValue, Method, header},
    middleware,
    routing::{get, post},
};
use tower_http::cors::{AllowOrigin, Any, CorsLayer};

use crate::relay::Relay;

pub mod admin;
pub mod body;
pub mod claims;
pub mod events;
pub mod files;
pub mod limits;
pub mod metrics;
pub mod models;
pub mod problem;
pub mod tasks;
pub mod updates;

/// Carries a manifest's name, beside its `ETag`.
pub const CONTENT_HASH: HeaderName = HeaderName::from_static("unsaid-content-hash");

/// Everything that a relay serves, as a router; [`crate::serve()`] serves it.
pub fn app(relay: Arc<Relay>) -> Router {
    let limit = middleware::from_fn_with_state(relay.clone(), limits::limit);
    let v1 = Router::new()
        .route("/tasks", get(tasks::list))
        .route("/tasks/{task}/manifest", get(tasks::manifest))
        .route("/tasks/{task}/round", get(tasks::round))
        .route("/tasks/{task}/rounds", get(tasks::rounds))
        .route("/tasks/{task}/check-in", post(tasks::check_in))
        .route("/tasks/{task}/models/{hash}", get(models::model))
        .route("/tasks/{task}/updates", post(updates::update))
        .route("/tasks/{task}/events", get(events::events))
        .fallback(problem::not_found)
        // Within CORS: a page elsewhere may read that it asks too often, and a browser's asking first (a preflight) is not counted.
        .layer(limit.clone())
        .layer(cors(&relay.options.origins));
    let others = Router::new()
        .merge(admin::routes(&relay))
        .route("/metrics", get(metrics::metrics))
        .route("/healthz", get(tasks::healthz))
        .route("/readyz", get(tasks::readyz));
    files::add(others, &relay.options)
        .layer(limit)
        .nest("/v1", v1)
        .with_state(relay.clone())
        .layer(middleware::from_fn_with_state(relay, metrics::count))
        .layer(middleware::from_fn(files::security_headers))
        .layer(middleware::map_response(problem::document_every_error))
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
        .allow_headers([header::CONTENT_TYPE, header::IF_NONE_MATCH])
        .expose_headers([header::ETAG, header::RETRY_AFTER, CONTENT_HASH])
        .max_age(std::time::Duration::from_secs(86_400))
}
