//! Everything that is served: the groups of routes, each behind its guards, inside the whole middleware stack.

use axum::Router;
use axum::http::StatusCode;
use utoipa_swagger_ui::SwaggerUi;

use crate::error::ApiError;
use crate::middleware::{self, Pace};
use crate::routes;
use crate::state::AppState;

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
    let router = router
        .merge(SwaggerUi::new("/docs").url("/api-docs/openapi.json", routes::document()))
        .fallback(async || ApiError::not_found("path"))
        .method_not_allowed_fallback(async || {
            let detail = "The path exists, but not with this method; see the Allow header.";
            ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", detail)
        })
        .with_state(state.clone());
    middleware::apply(router, state)
}
