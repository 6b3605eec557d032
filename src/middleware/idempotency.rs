//! `Idempotency-Key` on every POST: see [`crate::services::idempotency`] for what it promises.

use std::time::Duration;

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{DefaultBodyLimit, FromRequest, Multipart, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tokio::time::timeout;

use crate::domain::role::Principal;
use crate::error::{
    ApiError, ApiResult, FieldFault, IN_PROGRESS_RETRY_AFTER, KEY_REUSED, REQUEST_IN_PROGRESS,
};
use crate::services::idempotency::{
    Answer, FormDigest, FormSaid, LIFE_SIGN_INTERVAL, ShownOnce, Turn, Work,
};
use crate::services::imports::{MAX_FORM_BYTES, MAX_JSON_BYTES, UploadFault};
use crate::state::AppState;
use crate::utils::crash_points::crash_point;

use super::{IDEMPOTENCY_KEY, IDEMPOTENCY_REPLAYED, is_too_long};

/// Longest key.
const MAX_KEY_CHARS: usize = 200;
/// Longest body that is part of a request's digest: the longest JSON that any route takes. Forms are not kept in memory;
/// what they say is compared when they have been read.
const MAX_BODY: usize = MAX_JSON_BYTES;
/// Time for it to arrive.
const BODY_TIME: Duration = Duration::from_secs(120);
/// A form that is only compared may be silent for so long.
const FORM_SILENCE: Duration = Duration::from_secs(60);
/// Longest answer that is kept.
const MAX_ANSWER: usize = 8 * 1024 * 1024;

/// See the module. Runs inside of `auth` and `detach`.
pub async fn idempotency(
    State(state): State<AppState>,
    request: Request,
    next: Next,
) -> ApiResult<Response> {
    let Some(key) = key(request.method(), request.headers())? else {
        return Ok(next.run(request).await);
    };
    let principal = request.extensions().get::<Principal>().copied();
    let principal =
        principal.ok_or_else(|| ApiError::internal("idempotency without authentication"))?;
    let (mut request, body) = with_body(request).await?;
    let asked = request
        .uri()
        .path_and_query()
        .map_or("", |path| path.as_str())
        .to_owned();
    let turn = state
        .idempotency
        .begin(principal, &key, &[b"POST", asked.as_bytes(), &body])
        .await?;
    let work = match turn {
        Turn::Work(work) => work,
        Turn::Replay(answer) => {
            if let Some(form) = &answer.form
                && *form != said_by(request, &state).await?
            {
                return Err(ApiError::key_reused());
            }
            return replay(answer);
        }
        Turn::InProgress => {
            let detail = "An earlier request with this Idempotency-Key is still being worked on.";
            return Err(ApiError::conflict(REQUEST_IN_PROGRESS, detail)
                .with_retry_after(IN_PROGRESS_RETRY_AFTER));
        }
        Turn::Mismatch => return Err(ApiError::key_reused()),
    };
    crash_point!("idempotency.after_reserving");
    request.extensions_mut().insert(work.reserved());
    let response = run(&work, request, next).await;
    keep(&work, response).await
}

/// The key of a request that has one and creates something.
fn key(method: &Method, headers: &HeaderMap) -> ApiResult<Option<String>> {
    let Some(value) = headers
        .get(IDEMPOTENCY_KEY)
        .filter(|_| method == Method::POST)
    else {
        return Ok(None);
    };
    let key = value.to_str().unwrap_or_default();
    let is_possible =
        (1..=MAX_KEY_CHARS).contains(&key.len()) && key.bytes().all(|c| c.is_ascii_graphic());
    if is_possible {
        return Ok(Some(key.to_owned()));
    }
    let reason = format!("must have 1 to {MAX_KEY_CHARS} visible ASCII characters");
    let fault = FieldFault::at("idempotency-key", reason);
    Err(ApiError::malformed(
        "invalid_idempotency_key",
        "The Idempotency-Key cannot be used.",
    )
    .with_errors([fault]))
}

/// Reads the body for the digest, except a form.
async fn with_body(request: Request) -> ApiResult<(Request, Bytes)> {
    const FORM: &[u8] = b"multipart/";
    let content_type = request.headers().get(header::CONTENT_TYPE);
    let content_type = content_type.and_then(|value| value.as_bytes().get(..FORM.len()));
    if content_type.is_some_and(|start| start.eq_ignore_ascii_case(FORM)) {
        return Ok((request, Bytes::new()));
    }
    let (parts, body) = request.into_parts();
    let incomplete =
        || ApiError::malformed("body_incomplete", "The body ended before it was complete.");
    let body = timeout(BODY_TIME, to_bytes(body, MAX_BODY)).await;
    let body = body
        .map_err(|_| incomplete())?
        .map_err(|error| match is_too_long(&error) {
            true => ApiError::payload_too_large(MAX_BODY),
            false => incomplete(),
        })?;
    Ok((Request::from_parts(parts, Body::from(body.clone())), body))
}

/// What a form says whose answer is known already.
async fn said_by(mut request: Request, state: &AppState) -> ApiResult<String> {
    let incomplete = || ApiError::from(UploadFault::Incomplete);
    DefaultBodyLimit::max(MAX_FORM_BYTES).apply(&mut request);
    let form = Multipart::from_request(request, state).await;
    let mut form = form.map_err(|_| incomplete())?;
    let mut digest = FormDigest::default();
    loop {
        let part = timeout(FORM_SILENCE, form.next_field()).await;
        let Some(mut part) = part.map_err(|_| incomplete())?.map_err(|_| incomplete())? else {
            let FormSaid(said) = digest.finish();
            return Ok(said);
        };
        digest.part(part.name().unwrap_or_default());
        loop {
            let bytes = timeout(FORM_SILENCE, part.chunk()).await;
            match bytes.map_err(|_| incomplete())?.map_err(|_| incomplete())? {
                Some(bytes) => digest.feed(&bytes),
                None => break,
            }
        }
    }
}

/// Runs the work, with a life sign now and then.
async fn run(work: &Work, request: Request, next: Next) -> Response {
    let mut answer = std::pin::pin!(next.run(request));
    loop {
        tokio::select! {
            response = &mut answer => return response,
            () = tokio::time::sleep(LIFE_SIGN_INTERVAL) => {
                if let Err(error) = work.touch().await {
                    tracing::debug!(%error, "an idempotency record has no life sign");
                }
            }
        }
    }
}

/// Keeps the answer of a request that created something, frees the key of one that was refused, and lets one that failed be
/// taken over.
async fn keep(work: &Work, response: Response) -> ApiResult<Response> {
    let error = response.extensions().get::<ApiError>();
    // The resource is there, made by another try or for another form.
    let is_elsewhere =
        error.is_some_and(|error| [REQUEST_IN_PROGRESS, KEY_REUSED].contains(&error.code()));
    if response.status().is_server_error() || is_elsewhere {
        // It may have been carried out all the same: a retry works with the same id and finds what there is.
        settle(work.abandon().await);
        return Ok(response);
    }
    if !response.status().is_success() {
        settle(work.release().await);
        return Ok(response);
    }
    let (parts, body) = response.into_parts();
    let body = to_bytes(body, MAX_ANSWER)
        .await
        .map_err(ApiError::internal)?;
    let content_type = parts.headers.get(header::CONTENT_TYPE);
    let form = parts.extensions.get::<FormSaid>();
    let is_secret = parts.extensions.get::<ShownOnce>().is_some();
    crash_point!("idempotency.before_keeping");
    settle(
        work.complete(Answer {
            status: parts.status.as_u16(),
            content_type: content_type
                .and_then(|value| value.to_str().ok())
                .map(str::to_owned),
            body: (!is_secret).then(|| body.to_vec()),
            form: form.map(|FormSaid(said)| said.clone()),
        })
        .await,
    );
    crash_point!("idempotency.after_keeping");
    Ok(Response::from_parts(parts, Body::from(body)))
}

/// The work is done, whether its record is or not: a retry then finds what was created by its id.
fn settle(recorded: Result<(), impl std::fmt::Display>) {
    if let Err(error) = recorded {
        tracing::warn!(%error, "an idempotency record was not settled");
    }
}

fn replay(answer: Answer) -> ApiResult<Response> {
    let Some(body) = answer.body else {
        let detail = "This request was carried out, and its answer holds a secret that is shown once only. \
            Revoke what it created and create another.";
        return Err(ApiError::conflict("shown_once", detail));
    };
    let status = StatusCode::from_u16(answer.status).map_err(ApiError::internal)?;
    let mut response = (status, Body::from(body)).into_response();
    let headers = response.headers_mut();
    headers.insert(IDEMPOTENCY_REPLAYED, HeaderValue::from_static("true"));
    if let Some(content_type) = answer.content_type.and_then(|text| text.parse().ok()) {
        headers.insert(header::CONTENT_TYPE, content_type);
    }
    Ok(response)
}
