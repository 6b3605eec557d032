//! The carrier's HTTP face: authentication, rate limit, error bodies, and the dial request.

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{ConnectInfo, FromRequestParts, RawPathParams, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use axum::{Json, RequestPartsExt as _};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use tokio::time::{Duration, Instant, sleep};

use super::exchange::Refused;
use super::faults::DeafeningFault;
use super::listener::Connection;
use super::{Shared, control, life, lookup};

/// All routes, the carrier's and those of its books.
pub(super) fn router(shared: Arc<Shared>) -> Router {
    let calls = post(dial).get(lookup::list).delete(lookup::hang_up_all);
    let one_call = get(lookup::one)
        .post(lookup::transfer)
        .delete(lookup::hang_up);
    Router::new()
        .route("/v1/Account/{auth_id}/Call/", calls)
        // A client that hangs up an empty id gets here, and really hangs up every call.
        .route("/v1/Account/{auth_id}/Call//", delete(lookup::hang_up_all))
        .route("/v1/Account/{auth_id}/Call/{uuid}/", one_call)
        .route(
            "/v1/Account/{auth_id}/Request/{uuid}/",
            delete(lookup::cancel),
        )
        .merge(control::router())
        .fallback(|| async { ApiError::new(StatusCode::NOT_FOUND, "not found") })
        .method_not_allowed_fallback(|| async {
            ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "method not allowed")
        })
        .with_state(shared)
}

/// An error in Plivo's shape, `{"api_id", "error"}`; 401 is plain text, as in practice.
pub(super) struct ApiError {
    status: StatusCode,
    text: String,
    retry_after_seconds: Option<u64>,
}

impl ApiError {
    pub(super) fn new(status: StatusCode, text: impl Into<String>) -> Self {
        Self {
            status,
            text: text.into(),
            retry_after_seconds: None,
        }
    }

    pub(super) fn not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "not found")
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = if self.status == StatusCode::UNAUTHORIZED {
            (
                self.status,
                [(header::WWW_AUTHENTICATE, "Basic realm=\"Login Required\"")],
                self.text,
            )
                .into_response()
        } else {
            (self.status, with_api_id(json!({ "error": self.text }))).into_response()
        };
        if let Some(seconds) = self.retry_after_seconds {
            response
                .headers_mut()
                .insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

/// A JSON object with the `api_id` that every answer of Plivo has.
pub(super) fn with_api_id(mut body: Value) -> Json<Value> {
    body["api_id"] = json!(uuid::Uuid::new_v4().to_string());
    Json(body)
}

/// A request of the account's owner within the rate limit.
pub(super) struct Caller;

impl FromRequestParts<Arc<Shared>> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, shared: &Arc<Shared>) -> Result<Self, ApiError> {
        let path = parts
            .extract::<RawPathParams>()
            .await
            .map_err(|_| ApiError::not_found())?;
        let account = path
            .iter()
            .find(|(name, _)| *name == "auth_id")
            .map(|(_, value)| value);
        let credentials = credentials(&parts.headers);
        let mut exchange = shared.exchange();
        let options = &exchange.options;
        let known = credentials.is_some_and(|(id, token)| {
            account == Some(options.auth_id.as_str())
                && id == options.auth_id
                && options.auth_tokens.contains(&token)
        });
        if !known {
            let text = "Could not verify your access level for that URL. You have to login with proper credentials";
            return Err(ApiError::new(StatusCode::UNAUTHORIZED, text));
        }
        if !exchange.within_rate_limit(Instant::now()) {
            return Err(ApiError::new(
                StatusCode::TOO_MANY_REQUESTS,
                "Too Many Requests",
            ));
        }
        Ok(Self)
    }
}

fn credentials(headers: &HeaderMap) -> Option<(String, String)> {
    let encoded = headers
        .get(header::AUTHORIZATION)?
        .to_str()
        .ok()?
        .strip_prefix("Basic ")?;
    let decoded = String::from_utf8(STANDARD.decode(encoded).ok()?).ok()?;
    let (id, token) = decoded.split_once(':')?;
    Some((id.to_owned(), token.to_owned()))
}

/// A caller whose look-up does not fail by a fault.
pub(super) struct LookupCaller;

impl FromRequestParts<Arc<Shared>> for LookupCaller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, shared: &Arc<Shared>) -> Result<Self, ApiError> {
        Caller::from_request_parts(parts, shared).await?;
        let (delay, fails) = {
            let mut exchange = shared.exchange();
            exchange.ledger.look_up();
            (
                Duration::from_millis(exchange.options.lookup_faults.slow_ms),
                exchange.lookup_fails(),
            )
        };
        sleep(delay).await;
        if fails {
            Err(ApiError::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "service unavailable",
            ))
        } else {
            Ok(Self)
        }
    }
}

/// What the client of a dial request sees.
enum Ending {
    Answer(Response),
    Cut,
}

/// `POST Call/`.
async fn dial(
    State(shared): State<Arc<Shared>>,
    ConnectInfo(connection): ConnectInfo<Connection>,
    caller: Result<Caller, ApiError>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let arrived_at = shared.now();
    shared.exchange().ledger.arrive(Instant::now());
    let body = caller
        .map_err(refused_caller)
        .and_then(|_| read(&headers, &body));
    // In its own task: the carrier carries out a request even if the client has hung up on it.
    let placing = shared.spawn(place(Arc::clone(&shared), arrived_at, body));
    match placing.await {
        Ok(Some(Ending::Answer(response))) => response,
        Ok(Some(Ending::Cut)) => {
            connection.cut();
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
        Ok(None) | Err(_) => {
            ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "stopping").into_response()
        }
    }
}

fn refused_caller(error: ApiError) -> Refused {
    let reason = if error.status == StatusCode::UNAUTHORIZED {
        "authentication"
    } else {
        "rate limit"
    };
    Refused::new(error.status.as_u16(), reason, error.text)
}

fn read(headers: &HeaderMap, body: &[u8]) -> Result<Value, Refused> {
    let content_type = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    if !content_type.starts_with("application/json") {
        return Err(Refused::new(
            400,
            "invalid request",
            "content type must be application/json",
        ));
    }
    serde_json::from_slice(body)
        .map_err(|_| Refused::new(400, "invalid request", "request body is not JSON"))
}

async fn place(
    shared: Arc<Shared>,
    arrived_at: DateTime<Utc>,
    body: Result<Value, Refused>,
) -> Ending {
    let delay = if body.is_ok() {
        shared.exchange().dial_delay()
    } else {
        Duration::ZERO
    };
    sleep(delay).await;
    let now = shared.now();
    let decision = shared.exchange().decide(arrived_at, now, body);
    let accepted = match decision {
        Ok(accepted) => accepted,
        Err(refused) => {
            tracing::debug!(
                reason = refused.refusal.reason,
                status = refused.refusal.status,
                "dial request refused"
            );
            return refusal(refused);
        }
    };
    tracing::debug!(call.uuid = %accepted.uuid, queued = accepted.queued, "call accepted");
    let message = if accepted.queued {
        "call queued"
    } else {
        "call fired"
    };
    let answer = json!({ "message": message, "request_uuid": *accepted.uuid });
    let (deafening, answer_delay) = (accepted.deafening, accepted.answer_delay);
    shared.spawn(life::live(Arc::clone(&shared), accepted));
    sleep(answer_delay).await;
    match deafening {
        None => Ending::Answer((StatusCode::CREATED, with_api_id(answer)).into_response()),
        Some(DeafeningFault::Error) => {
            let status = shared.exchange().options.dial_faults.error_status;
            let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            Ending::Answer(ApiError::new(status, "internal server error").into_response())
        }
        Some(DeafeningFault::Timeout) => {
            let hold = Duration::from_millis(shared.exchange().options.dial_faults.hold_ms);
            sleep(hold).await;
            Ending::Cut
        }
        Some(DeafeningFault::Reset) => Ending::Cut,
    }
}

fn refusal(refused: Refused) -> Ending {
    let Some(status) = refused
        .refusal
        .status
        .and_then(|status| StatusCode::from_u16(status).ok())
    else {
        return Ending::Cut;
    };
    let error = ApiError {
        status,
        text: refused.text,
        retry_after_seconds: refused.retry_after_seconds,
    };
    Ending::Answer(error.into_response())
}
