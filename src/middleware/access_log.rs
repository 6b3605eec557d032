//! The outermost layer: gives a request its id and span, renders problems, and writes one line per request.
//!
//! The line names the route (`/v1/lists/{id}`), never the path with its values, and an error's code and inner cause,
//! never what the caller is told: that may speak of the caller's data (promise P8).

use std::time::Instant;

use axum::body::Body;
use axum::extract::{MatchedPath, Request};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;
use tracing::Instrument;
use tracing::field::Empty;
use uuid::Uuid;

use crate::error::ApiError;

use super::{TRACEPARENT, X_REQUEST_ID};

/// Longest request id that is taken over from a caller.
const MAX_ID_CHARS: usize = 128;
/// What nginx logs when the caller went away before the answer.
const CLIENT_CLOSED_REQUEST: u16 = 499;
/// Routes that are called all the time; they are logged at a lower level.
const QUIET: [&str; 2] = ["/health", "/docs"];

/// See the module.
pub async fn access_log(mut request: Request, next: Next) -> Response {
    let id = request_id(request.headers());
    let mut line = Line {
        method: request.method().clone(),
        route: request
            .extensions()
            .get::<MatchedPath>()
            .map_or_else(|| "unmatched".to_owned(), |path| path.as_str().to_owned()),
        began: Instant::now(),
        answer: None,
    };
    let span = tracing::info_span!("request", requestId = %id, traceId = Empty, clientId = Empty);
    if let Some(trace) = trace_id(request.headers()) {
        span.record("traceId", trace);
    }
    let header = HeaderValue::from_str(&id).unwrap_or_else(|_| HeaderValue::from_static(""));
    request.headers_mut().insert(X_REQUEST_ID, header.clone());
    async move {
        let mut response = next.run(request).await;
        let error = response.extensions().get::<ApiError>().cloned();
        if let Some(error) = &error {
            response = render(response, error, &id);
        }
        response.headers_mut().insert(X_REQUEST_ID, header);
        line.answer = Some((response.status(), error));
        drop(line);
        response
    }
    .instrument(span)
    .await
}

/// The body of a problem.
fn render(response: Response, error: &ApiError, id: &str) -> Response {
    let (mut parts, _) = response.into_parts();
    let body = serde_json::to_vec(&error.problem(id)).unwrap_or_default();
    parts.headers.remove(header::CONTENT_LENGTH);
    let problem = HeaderValue::from_static("application/problem+json");
    parts.headers.insert(header::CONTENT_TYPE, problem);
    Response::from_parts(parts, Body::from(body))
}

/// The caller's own id if it is short and harmless, else a new one. One without a letter may be a phone number.
fn request_id(headers: &HeaderMap) -> String {
    let is_harmless = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.' | b':');
    headers
        .get(X_REQUEST_ID)
        .and_then(|value| value.to_str().ok())
        .filter(|id| (1..=MAX_ID_CHARS).contains(&id.len()) && id.bytes().all(is_harmless))
        .filter(|id| id.bytes().any(|c| c.is_ascii_alphabetic()))
        .map_or_else(|| Uuid::new_v4().to_string(), str::to_owned)
}

/// The trace that the request is part of (W3C Trace Context, version 00).
fn trace_id(headers: &HeaderMap) -> Option<&str> {
    let mut parts = headers.get(TRACEPARENT)?.to_str().ok()?.split('-');
    let (version, trace) = (parts.next()?, parts.next()?);
    let is_hex = |c: u8| matches!(c, b'0'..=b'9' | b'a'..=b'f');
    let known = version.len() == 2 && version != "ff" && version.bytes().all(is_hex);
    let valid = trace.len() == 32 && trace.bytes().all(is_hex) && trace.bytes().any(|c| c != b'0');
    (known && valid).then_some(trace)
}

/// Written when it is dropped: also when the caller goes away and the request's future with it.
struct Line {
    method: Method,
    route: String,
    began: Instant,
    answer: Option<(StatusCode, Option<ApiError>)>,
}

impl Drop for Line {
    fn drop(&mut self) {
        let (status, error) = match &self.answer {
            Some((status, error)) => (status.as_u16(), error.as_ref()),
            None => (CLIENT_CLOSED_REQUEST, None),
        };
        let method = self.method.as_str();
        let route = self.route.as_str();
        let duration_ms = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let code = error.map(ApiError::code);
        let cause = error.and_then(ApiError::cause);
        macro_rules! line {
            ($level:ident) => {
                tracing::$level!(
                    http.method = method,
                    http.route = route,
                    http.status = status,
                    duration_ms,
                    error.code = code,
                    error.cause = cause,
                    "answered"
                )
            };
        }
        match status {
            500.. => line!(error),
            _ if QUIET.iter().any(|quiet| route.starts_with(quiet)) => line!(debug),
            _ => line!(info),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: axum::http::HeaderName, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_str(value).unwrap())])
    }

    #[test]
    fn a_harmless_request_id_is_kept_and_another_replaced() {
        let kept = |id: &str| request_id(&headers(X_REQUEST_ID, id)) == id;
        assert!(kept("a1-B2_c.3:4") && kept(&"x".repeat(128)));
        assert!(!kept(&"x".repeat(129)) && !kept("") && !kept("a b") && !kept("+14155550123"));
        assert!(!kept("14155550123") && !kept("1-415-555.0123"));
        assert_eq!(request_id(&HeaderMap::new()).len(), 36);
    }

    #[test]
    fn traces_are_taken_over_when_valid() {
        let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
        let parent = |text: &str| trace_id(&headers(TRACEPARENT, text)).map(str::to_owned);
        assert_eq!(
            parent(&format!("00-{trace}-00f067aa0ba902b7-01")).as_deref(),
            Some(trace)
        );
        for junk in [
            "",
            "00",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-x-01",
        ] {
            assert_eq!(parent(junk), None, "{junk}");
        }
    }
}
