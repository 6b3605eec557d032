//! The one error of the HTTP edge: a problem as of RFC 9457, with a stable `code` that programs may branch on.
//!
//! Turning an [`ApiError`] into a response has no side effect and writes no body: the error rides in the response's
//! extensions to `middleware::access_log`, which knows the request id, renders the [`Problem`] and logs it once. What
//! went wrong inside (`cause`) is logged there and never sent; what is sent (`detail`, `errors`) is never logged, because
//! it may speak of the caller's data (promise P8).

mod services;

use std::borrow::Cow;
use std::fmt;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::domain::list::RejectedRow;
use crate::domain::role::NotYours;
use crate::services::store::StoreError;

pub use services::{IN_PROGRESS_RETRY_AFTER, REQUEST_IN_PROGRESS};

/// Seconds after which a request that met an unreachable database is worth another try: a failover takes about two.
const DATABASE_RETRY_AFTER: u32 = 2;

/// Result of everything that a handler calls.
pub type ApiResult<T> = Result<T, ApiError>;

/// One fault of what was sent.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct FieldFault {
    /// The JSON field, query or path parameter, or part of the form at fault.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "window.start")]
    pub path: Option<String>,
    /// The line of the file, or of a JSON text that cannot be parsed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<u64>,
    /// The column by its name in the file, or the place in the line of a JSON text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub column: Option<String>,
    /// What is wrong.
    #[schema(example = "must be 1 to 100000")]
    pub reason: String,
}

impl FieldFault {
    /// The fault of one field or parameter.
    pub fn at(path: impl Into<String>, reason: impl Into<String>) -> Self {
        Self {
            path: Some(path.into()),
            reason: reason.into(),
            ..Self::default()
        }
    }
}

impl From<RejectedRow> for FieldFault {
    fn from(row: RejectedRow) -> Self {
        Self {
            path: None,
            line: Some(row.line),
            column: row.column,
            reason: row.reason,
        }
    }
}

/// The body of every refusal (RFC 9457, `application/problem+json`).
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Problem {
    /// Names the kind of problem; `urn:ringmaster:problem:` and the code.
    #[schema(example = "urn:ringmaster:problem:not_found")]
    pub r#type: String,
    /// The status in words.
    #[schema(example = "Not Found")]
    pub title: String,
    /// The HTTP status.
    #[schema(example = 404)]
    pub status: u16,
    /// Stable name of the problem, for programs.
    #[schema(example = "not_found")]
    pub code: String,
    /// What to do about it, for people.
    pub detail: String,
    /// The request's id, as in `x-request-id` and in our logs.
    pub request_id: String,
    /// Every single fault of what was sent.
    #[serde(default)]
    pub errors: Vec<FieldFault>,
}

/// A refused or failed request.
#[derive(Clone)]
pub struct ApiError(Box<Inner>);

#[derive(Clone)]
struct Inner {
    status: StatusCode,
    code: &'static str,
    detail: Cow<'static, str>,
    errors: Vec<FieldFault>,
    retry_after: Option<u32>,
    cause: Option<String>,
}

impl ApiError {
    /// A problem with any status and code; the named constructors cover the usual ones.
    pub fn new(
        status: StatusCode,
        code: &'static str,
        detail: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self(Box::new(Inner {
            status,
            code,
            detail: detail.into(),
            errors: Vec::new(),
            retry_after: None,
            cause: None,
        }))
    }

    /// 401: no key or token, or one that we do not know.
    pub fn unauthorized(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "unauthorized", detail)
    }

    /// 403: known, but not allowed.
    pub fn forbidden(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "forbidden", detail)
    }

    /// 404: there is no such thing, or it is someone else's.
    pub fn not_found(what: &str) -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "not_found",
            format!("There is no such {what}."),
        )
    }

    /// 409: not in the state that it has; `detail` names the current one.
    pub fn conflict(code: &'static str, detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::CONFLICT, code, detail)
    }

    /// 400: what was sent is not of the expected form.
    pub fn malformed(code: &'static str, detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, detail)
    }

    /// 422: of the right form, with values that cannot be.
    pub fn invalid(errors: impl IntoIterator<Item = FieldFault>) -> Self {
        Self::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "invalid",
            "Some values cannot be used; nothing was changed.",
        )
        .with_errors(errors)
    }

    /// 422 for one field.
    pub fn invalid_field(path: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::invalid([FieldFault::at(path, reason)])
    }

    /// 413: longer than `limit` bytes.
    pub fn payload_too_large(limit: usize) -> Self {
        Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "payload_too_large",
            format!("The body may have at most {limit} bytes."),
        )
    }

    /// 415: send it as `expected`.
    pub fn unsupported_media_type(expected: &str) -> Self {
        Self::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "unsupported_media_type",
            format!("The body must be sent as {expected}, and say so in content-type."),
        )
    }

    /// 429: try again after so many seconds.
    pub fn too_many_requests(detail: impl Into<Cow<'static, str>>, retry_after: u32) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, "too_many_requests", detail)
            .with_retry_after(retry_after)
    }

    /// 503: not now; try again after so many seconds.
    pub fn unavailable(detail: impl Into<Cow<'static, str>>, retry_after: u32) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", detail)
            .with_retry_after(retry_after)
    }

    /// 500: a fault of ours. The caller is told the request id only; `cause` goes to the log.
    pub fn internal(cause: impl fmt::Display) -> Self {
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            "Something went wrong on our side. Ask us with the request id.",
        )
        .with_cause(cause)
    }

    /// The single faults of what was sent.
    #[must_use]
    pub fn with_errors(mut self, errors: impl IntoIterator<Item = FieldFault>) -> Self {
        self.0.errors = errors.into_iter().collect();
        self
    }

    /// Seconds after which trying again makes sense.
    #[must_use]
    pub fn with_retry_after(mut self, seconds: u32) -> Self {
        self.0.retry_after = Some(seconds);
        self
    }

    /// What went wrong inside, for the log: no phone numbers, names or secrets.
    #[must_use]
    pub fn with_cause(mut self, cause: impl fmt::Display) -> Self {
        self.0.cause = Some(cause.to_string());
        self
    }

    /// The HTTP status.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.0.status
    }

    /// The stable name.
    #[must_use]
    pub fn code(&self) -> &'static str {
        self.0.code
    }

    /// What the caller is told.
    #[must_use]
    pub fn detail(&self) -> &str {
        &self.0.detail
    }

    /// What went wrong inside.
    #[must_use]
    pub fn cause(&self) -> Option<&str> {
        self.0.cause.as_deref()
    }

    /// The body to send.
    #[must_use]
    pub fn problem(&self, request_id: &str) -> Problem {
        Problem {
            r#type: format!("urn:ringmaster:problem:{}", self.0.code),
            title: self
                .0
                .status
                .canonical_reason()
                .unwrap_or("Error")
                .to_owned(),
            status: self.0.status.as_u16(),
            code: self.0.code.to_owned(),
            detail: self.0.detail.clone().into_owned(),
            request_id: request_id.to_owned(),
            errors: self.0.errors.clone(),
        }
    }
}

/// Without what is told to the caller: it may speak of the caller's data.
impl fmt::Debug for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiError")
            .field("status", &self.0.status.as_u16())
            .field("code", &self.0.code)
            .field("cause", &self.0.cause)
            .finish_non_exhaustive()
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = self.0.status.into_response();
        let headers = response.headers_mut();
        if let Some(seconds) = self.0.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.0.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response.extensions_mut().insert(self);
        response
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        if error.is_unavailable() {
            return Self::unavailable(
                "The database cannot be used at the moment: GET /health tells why.",
                DATABASE_RETRY_AFTER,
            )
            .with_cause(error);
        }
        Self::internal(error)
    }
}

impl From<NotYours> for ApiError {
    fn from(_: NotYours) -> Self {
        Self::not_found("resource")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_constructor_has_its_status_and_code() {
        let rows = [
            (ApiError::unauthorized("x"), 401, "unauthorized"),
            (ApiError::forbidden("x"), 403, "forbidden"),
            (ApiError::not_found("list"), 404, "not_found"),
            (ApiError::conflict("list_in_use", "x"), 409, "list_in_use"),
            (ApiError::malformed("invalid_id", "x"), 400, "invalid_id"),
            (ApiError::invalid_field("name", "x"), 422, "invalid"),
            (ApiError::payload_too_large(7), 413, "payload_too_large"),
            (
                ApiError::unsupported_media_type("application/json"),
                415,
                "unsupported_media_type",
            ),
            (
                ApiError::too_many_requests("x", 1),
                429,
                "too_many_requests",
            ),
            (ApiError::unavailable("x", 1), 503, "unavailable"),
            (ApiError::internal("x"), 500, "internal"),
            (
                StoreError::Unavailable { code: None }.into(),
                503,
                "unavailable",
            ),
            (StoreError::Corrupt { what: "x" }.into(), 500, "internal"),
            (NotYours.into(), 404, "not_found"),
        ];
        for (error, status, code) in rows {
            assert_eq!((error.status().as_u16(), error.code()), (status, code));
            assert_eq!(error.problem("r").status, status);
        }
    }

    #[test]
    fn the_cause_is_kept_from_the_caller_and_the_detail_from_the_log() {
        let error = ApiError::internal("driver said no");
        let body = serde_json::to_string(&error.problem("req-1")).unwrap();
        assert!(body.contains("req-1") && !body.contains("driver"));
        let error = ApiError::invalid_field("to", "secret value");
        assert!(!format!("{error:?}").contains("secret"));
    }

    #[test]
    fn a_response_says_when_to_come_back_and_how_to_log_in() {
        let response = ApiError::from(StoreError::Unavailable { code: None }).into_response();
        assert_eq!(response.headers()[header::RETRY_AFTER], "2");
        let response = ApiError::unauthorized("who?").into_response();
        assert_eq!(response.headers()[header::WWW_AUTHENTICATE], "Bearer");
        assert!(response.extensions().get::<ApiError>().is_some());
    }
}
