//! What every request passes through, in order, and what guards the routes of clients.
//!
//! May not know the routes. Promises P7 (nobody gets in) and P8 (nothing leaks) are kept here for all of them.

pub mod access_log;
pub mod auth;
pub mod detach;
pub mod idempotency;
pub mod plivo_signature;
pub mod prepared;

use std::any::Any;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderName, HeaderValue, Method, header};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::compression::CompressionLayer;
use tower_http::cors::{AllowOrigin, CorsLayer};
use tower_http::sensitive_headers::SetSensitiveRequestHeadersLayer;
use tower_http::set_header::SetResponseHeaderLayer;
use utoipa_axum::router::OpenApiRouter;

use crate::error::ApiError;
use crate::state::AppState;

/// The longest that a request may take, an import excepted.
const TIME_LIMIT: Duration = Duration::from_secs(30);

/// Our own pages and Swagger UI load nothing from elsewhere; Swagger UI sets styles and shows images inline.
const CONTENT_SECURITY_POLICY: &str = "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
    object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'";

const X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");
const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const IDEMPOTENCY_REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// Puts the whole stack around all routes and fallbacks; the first layer is the outermost.
pub fn apply(router: Router, state: &AppState) -> Router {
    let always =
        |name, value| SetResponseHeaderLayer::overriding(name, HeaderValue::from_static(value));
    router.layer((
        // The request's id, its span, its one line in the log, and the body of every problem.
        from_fn(access_log::access_log),
        // A panic becomes a problem 500; what it said stays here, because it may speak of data.
        CatchPanicLayer::custom(|_: Box<dyn Any + Send>| {
            ApiError::internal("a handler panicked").into_response()
        }),
        // What browsers need to be told, on every answer.
        (
            always(header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
            always(header::X_FRAME_OPTIONS, "DENY"),
            always(header::REFERRER_POLICY, "no-referrer"),
            // Answers are a tenant's data, and out of date at once.
            always(header::CACHE_CONTROL, "no-store"),
            always(header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
        ),
        // Answers preflights; other origins' pages may read answers only if ALLOWED_ORIGINS has them.
        cors(&state.config.http.allowed_origins),
        CompressionLayer::new(),
        // Nothing that prints headers prints these. Bodies are limited where they are read: extractors know how much
        // their route takes, and axum's own limit of 2 MiB holds for the rest.
        SetSensitiveRequestHeadersLayer::new([header::AUTHORIZATION, header::COOKIE, X_API_KEY]),
    ))
}

/// How long the requests of a group of routes may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// Every request ends within 30 s, at the worst with 503; its work goes on by itself.
    Bounded,
    /// As long as it takes: uploads, and streams of events.
    Unbounded,
}

/// Guards routes that need a caller. These layers run for routes only: an unknown path is 404 for everybody.
pub fn guard(
    router: OpenApiRouter<AppState>,
    state: &AppState,
    pace: Pace,
) -> OpenApiRouter<AppState> {
    router.route_layer((
        from_fn_with_state(state.clone(), prepared::prepared),
        from_fn_with_state(state.clone(), auth::authenticate),
        from_fn_with_state(pace, time_limit),
        // Inside the time limit: when that ends the wait, the work itself is not dropped half-way.
        from_fn_with_state(state.clone(), detach::detach),
        // Inside detach: the answer is kept even when the caller went away.
        from_fn_with_state(state.clone(), idempotency::idempotency),
    ))
}

/// Guards the carrier's webhooks. A refused one has written nothing; an accepted one is finished whether or not the carrier
/// waits for it.
pub fn guard_webhooks(
    router: OpenApiRouter<AppState>,
    state: &AppState,
) -> OpenApiRouter<AppState> {
    router.route_layer((
        from_fn_with_state(state.clone(), plivo_signature::verify),
        from_fn_with_state(state.clone(), prepared::prepared),
        from_fn_with_state(Pace::Bounded, time_limit),
        from_fn_with_state(state.clone(), detach::detach),
    ))
}

/// Whether a body was longer than it may be, or broken.
fn is_too_long(error: &axum::Error) -> bool {
    let cause = std::error::Error::source(error);
    cause.is_some_and(|cause| cause.to_string().contains("length limit"))
}

async fn time_limit(State(pace): State<Pace>, request: Request, next: Next) -> Response {
    let answer = next.run(request);
    match pace {
        Pace::Unbounded => answer.await,
        Pace::Bounded => match tokio::time::timeout(TIME_LIMIT, answer).await {
            Ok(response) => response,
            Err(_) => {
                ApiError::unavailable("The request took too long; it may still be carried out.", 5)
                    .with_cause("time limit")
                    .into_response()
            }
        },
    }
}

fn cors(origins: &[String]) -> CorsLayer {
    let methods = [
        Method::GET,
        Method::POST,
        Method::PATCH,
        Method::PUT,
        Method::DELETE,
    ];
    let layer = CorsLayer::new()
        .allow_methods(methods)
        .allow_headers([
            header::AUTHORIZATION,
            header::CONTENT_TYPE,
            X_API_KEY,
            IDEMPOTENCY_KEY,
            X_REQUEST_ID,
            TRACEPARENT,
        ])
        .expose_headers([X_REQUEST_ID, IDEMPOTENCY_REPLAYED, header::RETRY_AFTER]);
    if origins.iter().any(|origin| origin == "*") {
        return layer.allow_origin(AllowOrigin::any());
    }
    let origins = origins
        .iter()
        .filter_map(|origin| HeaderValue::from_str(origin).ok());
    layer.allow_origin(AllowOrigin::list(origins))
}
