//! Everything that is served: the groups of routes, each behind its guards, inside the whole middleware stack.

use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderName, StatusCode, header};
use axum::routing::get;
use utoipa_swagger_ui::{Config, SwaggerUi};

use crate::error::ApiError;
use crate::middleware::{self, Pace};
use crate::routes;
use crate::state::AppState;

/// Where the API's document is.
const DOCUMENT: &str = "/api-docs/openapi.json";
/// What it is.
const JSON: (HeaderName, &str) = (header::CONTENT_TYPE, "application/json");

/// The router of the service.
pub fn router(state: &AppState) -> Router {
    let routes = routes::open_routes()
        .merge(middleware::guard(
            routes::tenant_routes(),
            state,
            Pace::Bounded,
        ))
        .merge(middleware::guard(
            routes::long_tenant_routes(),
            state,
            Pace::Unbounded,
        ))
        .merge(middleware::guard_webhooks(routes::carrier_routes(), state));
    let (router, _) = routes.split_for_parts();
    // Written once: everybody may ask for it, as often as they like.
    let document = Bytes::from(serde_json::to_vec(&routes::document()).unwrap_or_default());
    let router = router
        .route(DOCUMENT, get(async move || ([JSON], document)))
        .merge(SwaggerUi::new("/docs").config(Config::new([DOCUMENT])))
        .fallback(async || ApiError::not_found("path"))
        .method_not_allowed_fallback(async || {
            let detail = "The path exists, but not with this method; see the Allow header.";
            ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", detail)
        })
        .with_state(state.clone());
    middleware::apply(router, state)
}
