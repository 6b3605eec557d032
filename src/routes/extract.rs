//! Extractors whose refusals are our problems: bodies, path and query parameters, and who is asking.
//!
//! No handler takes axum's own `Json`, `Path` or `Query`: theirs answer in plain text, and repeat what was sent.

use std::time::Duration;

use axum::body::Body;
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::header::CONTENT_TYPE;
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::error::Category;

use crate::domain::ids::Id;
use crate::domain::role::Principal;
use crate::error::{ApiError, ApiResult, FieldFault};
use crate::services::idempotency::{ReservedId, reserved_or_new};
use crate::state::AppState;

/// Longest JSON body, where a route does not say otherwise.
pub const JSON_LIMIT: usize = 2 * 1024 * 1024;

/// How long the rest of a body that is too long is read and thrown away.
const DISCARD_TIME: Duration = Duration::from_secs(5);
/// And how many pieces of it, of some 16 KiB each.
const MOST_DISCARDED_CHUNKS: usize = 4096;

/// A JSON body; as a response, one with status 200.
#[derive(Debug, Clone)]
pub struct AppJson<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for AppJson<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _state: &S) -> ApiResult<Self> {
        read_json(request, JSON_LIMIT).await.map(Self)
    }
}

impl<T: Serialize> IntoResponse for AppJson<T> {
    fn into_response(self) -> Response {
        axum::Json(self.0).into_response()
    }
}

/// An answer 201 with the resource that was created.
#[derive(Debug, Clone)]
pub struct Created<T>(pub T);

impl<T: Serialize> IntoResponse for Created<T> {
    fn into_response(self) -> Response {
        (StatusCode::CREATED, axum::Json(self.0)).into_response()
    }
}

/// Reads a JSON body of at most `limit` bytes.
///
/// # Errors
/// 415, 413, 400 `invalid_json` with line and column, 422 `invalid` with the path of the field at fault.
pub async fn read_json<T: DeserializeOwned>(request: Request, limit: usize) -> ApiResult<T> {
    if !is_json(request.headers()) {
        return Err(ApiError::unsupported_media_type("application/json"));
    }
    let body = read_body(request.into_body(), limit).await?;
    parse_json(&body)
}

/// Reads a body of at most `limit` bytes. Of a longer one the rest is thrown away for a while, because a client that is
/// still sending when the connection closes never sees the answer.
async fn read_body(body: Body, limit: usize) -> ApiResult<Vec<u8>> {
    let mut chunks = body.into_data_stream();
    let mut read = Vec::new();
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|_| {
            ApiError::malformed(
                "body_incomplete",
                "The body ended before it was complete; nothing was changed.",
            )
        })?;
        if read.len() + chunk.len() > limit {
            let rest = chunks.take(MOST_DISCARDED_CHUNKS).for_each(|_| async {});
            // Whether the rest came in time does not matter: the answer is the same.
            tokio::time::timeout(DISCARD_TIME, rest).await.ok();
            return Err(ApiError::payload_too_large(limit));
        }
        read.extend_from_slice(&chunk);
    }
    Ok(read)
}

fn is_json(headers: &HeaderMap) -> bool {
    let content_type = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    let essence = content_type
        .and_then(|value| value.split(';').next())
        .unwrap_or("")
        .trim();
    let essence = essence.to_ascii_lowercase();
    essence == "application/json"
        || (essence.starts_with("application/") && essence.ends_with("+json"))
}

fn parse_json<T: DeserializeOwned>(body: &[u8]) -> ApiResult<T> {
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let value = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let path = error.path().to_string();
        json_error(&path, &error.into_inner())
    })?;
    deserializer
        .end()
        .map_err(|error| json_error(".", &error))?;
    Ok(value)
}

fn json_error(path: &str, error: &serde_json::Error) -> ApiError {
    let text = error.to_string();
    let message = text.split(" at line ").next().unwrap_or_default();
    if error.classify() == Category::Data {
        let path = if path == "." { "" } else { path };
        return ApiError::invalid([data_fault(path, message)]);
    }
    let fault = FieldFault {
        line: Some(error.line() as u64),
        column: Some(error.column().to_string()),
        reason: message.to_owned(),
        path: None,
    };
    ApiError::malformed("invalid_json", "The body is not JSON; nothing was changed.")
        .with_errors([fault])
}

/// What serde says about a value, without the value: it may be a phone number.
fn data_fault(path: &str, message: &str) -> FieldFault {
    let inner = |field: &str| match path {
        "" => field.to_owned(),
        _ => format!("{path}.{field}"),
    };
    if let Some(field) = quoted_after(message, "missing field ") {
        return FieldFault::at(inner(field), "is missing");
    }
    if let Some(field) = quoted_after(message, "duplicate field ") {
        // A query's path ends with the parameter already.
        let path = if path == field {
            path.to_owned()
        } else {
            inner(field)
        };
        return FieldFault::at(path, "is there more than once");
    }
    if message.starts_with("unknown field ") {
        return FieldFault::at(path, "is not known here");
    }
    let repeats_the_value = [
        "invalid type: ",
        "invalid value: ",
        "invalid length ",
        "unknown variant ",
    ];
    if !repeats_the_value
        .iter()
        .any(|start| message.starts_with(start))
    {
        return FieldFault::at(path, message);
    }
    match message.rsplit_once("expected ") {
        // Serde calls an object by the name of our type.
        Some((_, expected)) if expected.starts_with("struct ") => {
            FieldFault::at(path, "must be an object")
        }
        Some((_, expected)) => FieldFault::at(path, format!("must be {expected}")),
        None => FieldFault::at(path, "cannot be used"),
    }
}

fn quoted_after<'a>(message: &'a str, start: &str) -> Option<&'a str> {
    message.strip_prefix(start)?.split('`').nth(1)
}

/// The parameters of the path: ids, all of them.
#[derive(Debug, Clone)]
pub struct AppPath<T>(pub T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for AppPath<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> ApiResult<Self> {
        match Path::<T>::from_request_parts(parts, state).await {
            Ok(Path(value)) => Ok(Self(value)),
            Err(_) => {
                let reason = "must be 24 hexadecimal digits";
                let fault = FieldFault::at("id", reason);
                Err(
                    ApiError::malformed("invalid_id", "The path has an id that cannot be one.")
                        .with_errors([fault]),
                )
            }
        }
    }
}

/// The query parameters. Declare them with `deny_unknown_fields`: a misspelt filter must not mean "everything".
#[derive(Debug, Clone)]
pub struct AppQuery<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for AppQuery<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> ApiResult<Self> {
        Query::try_from_uri(&parts.uri)
            .map(|Query(value)| Self(value))
            .map_err(|rejection| {
                let text = std::error::Error::source(&rejection).map(ToString::to_string);
                let text = text.unwrap_or_default();
                // "parameter: what is wrong"; a missing one stands alone.
                let (path, message) = text.split_once(": ").unwrap_or(("", &text));
                query_error(data_fault(path, message))
            })
    }
}

/// 400: a query parameter that cannot be.
#[must_use]
pub fn query_error(fault: FieldFault) -> ApiError {
    ApiError::malformed("invalid_query", "A query parameter cannot be used.").with_errors([fault])
}

impl<S: Send + Sync> FromRequestParts<S> for Principal {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> ApiResult<Self> {
        let principal = parts.extensions.get::<Self>().copied();
        principal.ok_or_else(|| {
            ApiError::internal("a route asks who is there, but has no authentication")
        })
    }
}

/// A caller that may change things.
#[derive(Debug, Clone, Copy)]
pub struct Writer(pub Principal);

impl<S: Send + Sync> FromRequestParts<S> for Writer {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> ApiResult<Self> {
        let principal = Principal::from_request_parts(parts, state).await?;
        if !principal.may_write() {
            return Err(ApiError::forbidden("A viewer may only read."));
        }
        Ok(Self(principal))
    }
}

/// A caller that is an admin.
#[derive(Debug, Clone, Copy)]
pub struct Admin;

impl<S: Send + Sync> FromRequestParts<S> for Admin {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> ApiResult<Self> {
        let principal = Principal::from_request_parts(parts, state).await?;
        if !principal.is_admin() {
            return Err(ApiError::forbidden("Only an admin may do this."));
        }
        Ok(Self)
    }
}

/// The id for what a request creates: the one reserved for it by its `Idempotency-Key`, else a new one.
#[derive(Debug, Clone, Copy)]
pub struct NewId<T>(pub T);

impl<T: Id> FromRequestParts<AppState> for NewId<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> ApiResult<Self> {
        let reserved = parts.extensions.get::<ReservedId>().copied();
        Ok(Self(reserved_or_new(reserved, state.clock.now())))
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;
    use crate::domain::ids::ListId;

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "camelCase", deny_unknown_fields)]
    #[expect(dead_code, reason = "only their types matter")]
    struct Body {
        list_id: ListId,
        limit: Option<u32>,
        kind: Option<Kind>,
        inner: Option<Inner>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum Kind {
        One,
        Two,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only their types matter")]
    struct Inner {
        start: String,
    }

    fn fault(body: &str) -> (u16, FieldFault) {
        let error = parse_json::<Body>(body.as_bytes()).unwrap_err();
        let problem = error.problem("");
        (problem.status, problem.errors[0].clone())
    }

    #[test]
    fn faults_have_their_path_and_never_the_value() {
        let id = "0123456789abcdef01234567";
        for (body, path, reason) in [
            ("{}".to_owned(), "listId", "is missing"),
            (
                r#"{"listId":"+14155550123"}"#.to_owned(),
                "listId",
                "an id is 24 hexadecimal digits",
            ),
            (
                format!(r#"{{"listId":"{id}","limit":"+14155550123"}}"#),
                "limit",
                "must be u32",
            ),
            (
                format!(r#"{{"listId":"{id}","kind":"+14155550123"}}"#),
                "kind",
                "must be `one` or `two`",
            ),
            (
                format!(r#"{{"listId":"{id}","extra":1}}"#),
                "extra",
                "is not known here",
            ),
            (
                format!(r#"{{"listId":"{id}","inner":{{"stop":"x"}}}}"#),
                "inner.stop",
                "is not known here",
            ),
            (
                format!(r#"{{"listId":"{id}","inner":{{}}}}"#),
                "inner.start",
                "is missing",
            ),
            (
                format!(r#"{{"listId":"{id}","listId":"{id}"}}"#),
                "listId",
                "is there more than once",
            ),
            ("[]".to_owned(), "", "must be an object"),
            ("7".to_owned(), "", "must be an object"),
        ] {
            assert_eq!(fault(&body), (422, FieldFault::at(path, reason)), "{body}");
        }
    }

    #[test]
    fn what_is_not_json_is_told_by_line_and_column() {
        for (body, line, column) in [
            ("{\n \"listId\": oops}", 2, "12"),
            ("{}x", 1, "3"),
            ("", 1, "0"),
        ] {
            let error = parse_json::<serde_json::Value>(body.as_bytes()).unwrap_err();
            let problem = error.problem("");
            assert_eq!(
                (problem.status, problem.code.as_str()),
                (400, "invalid_json")
            );
            assert_eq!(problem.errors[0].line, Some(line), "{body}");
            assert_eq!(problem.errors[0].column.as_deref(), Some(column), "{body}");
        }
    }

    #[tokio::test]
    async fn query_parameters_have_their_faults_too() {
        #[derive(Debug, Deserialize)]
        #[serde(rename_all = "camelCase", deny_unknown_fields)]
        #[expect(dead_code, reason = "only their types matter")]
        struct Filter {
            limit: Option<u32>,
            list_id: Option<ListId>,
        }
        for (query, path, reason) in [
            ("limit=x", "limit", "invalid digit found in string"),
            ("limits=1", "limits", "is not known here"),
            (
                "listId=%7B%22$gt%22:1%7D",
                "listId",
                "an id is 24 hexadecimal digits",
            ),
            ("limit=1&limit=2", "limit", "is there more than once"),
        ] {
            let request = Request::get(format!("/x?{query}")).body(()).unwrap();
            let (mut parts, ()) = request.into_parts();
            let error = AppQuery::<Filter>::from_request_parts(&mut parts, &())
                .await
                .unwrap_err();
            let problem = error.problem("");
            assert_eq!(
                (problem.status, problem.code.as_str()),
                (400, "invalid_query")
            );
            assert_eq!(problem.errors[0], FieldFault::at(path, reason), "{query}");
        }
    }
}
