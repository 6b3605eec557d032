//! HTTP in, HTTP out; no decisions. This file is the list of all routes, of which both the router and the API's
//! document are made.

pub mod dto;
pub mod extract;

mod calls;
mod campaigns;
mod clients;
mod health;
mod lists;
mod monitoring;
mod openapi;
mod webhooks;

use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;

use crate::state::AppState;

/// For everybody: no key or token is asked for.
#[must_use]
pub fn open_routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().merge(health::router())
}

/// For callers with a key or token.
#[must_use]
pub fn tenant_routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .merge(clients::router())
        .merge(lists::router())
        .merge(campaigns::router())
        .merge(calls::router())
        .merge(monitoring::router())
}

/// Likewise, for requests that may take long: uploads, and streams of events.
#[must_use]
pub fn long_tenant_routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .merge(lists::import_router())
        .merge(calls::making_router())
}

/// For the carrier: no key, but a signature.
#[must_use]
pub fn carrier_routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().merge(webhooks::router())
}

/// The API's document.
#[must_use]
pub fn document() -> OpenApi {
    let routes = OpenApiRouter::with_openapi(openapi::base())
        .merge(open_routes())
        .merge(tenant_routes())
        .merge(long_tenant_routes())
        .merge(carrier_routes());
    let mut document = routes.into_openapi();
    openapi::complete(&mut document);
    document
}
