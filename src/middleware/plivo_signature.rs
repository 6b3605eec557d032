//! Lets only webhooks in that the carrier signed (promise P7): V3 over address, query and form. V2 covers neither query nor
//! form and is never accepted. A refused webhook writes nothing.

use axum::body::to_bytes;
use axum::extract::{OriginalUri, Request, State};
use axum::http::HeaderMap;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use secrecy::ExposeSecret;

use super::is_too_long;
use crate::error::ApiError;
use crate::services::carrier::plivo_signature::{
    MAIN_SIGNATURE_HEADER, NONCE_HEADER, SIGNATURE_HEADER, verify_v3,
};
use crate::services::webhooks::SignedForm;
use crate::state::AppState;

/// Longest form of a webhook in bytes; captured ones have about 1,000. It is read before anybody knows who sends it, so it
/// counts for every connection that there may be.
const LONGEST_FORM: usize = 32 * 1024;

/// Verifies the signature and hands the form on as a [`SignedForm`].
pub async fn verify(
    State(state): State<AppState>,
    OriginalUri(uri): OriginalUri,
    request: Request,
    next: Next,
) -> Response {
    let (mut parts, body) = request.into_parts();
    let body = match to_bytes(body, LONGEST_FORM).await {
        Ok(body) => body,
        Err(error) if is_too_long(&error) => {
            return ApiError::payload_too_large(LONGEST_FORM).into_response();
        }
        Err(_) => {
            let detail = "The form ended before it was complete, or did not get on.";
            return ApiError::malformed("body_incomplete", detail).into_response();
        }
    };
    let form: Vec<(String, String)> = url::form_urlencoded::parse(&body).into_owned().collect();
    // The address as the carrier dialed it: a proxy in front of us may have changed scheme and host.
    let base = state
        .config
        .carrier
        .base_url
        .as_ref()
        .map(|url| url.as_str().trim_end_matches('/'))
        .unwrap_or_default();
    let address = format!(
        "{base}{}",
        uri.path_and_query().map_or("", |path| path.as_str())
    );
    if !is_signed(
        &state,
        &parts.headers,
        parts.method.as_str(),
        &address,
        &form,
    ) {
        let has_signature = parts.headers.contains_key(SIGNATURE_HEADER)
            || parts.headers.contains_key(MAIN_SIGNATURE_HEADER);
        tracing::warn!(
            path = uri.path(),
            has_query = uri.query().is_some(),
            has_signature,
            "webhook refused: is BASE_URL the address that the carrier calls, and is the token the right one?"
        );
        return ApiError::forbidden("The webhook is not signed by the carrier.").into_response();
    }
    parts.extensions.insert(SignedForm(form));
    next.run(Request::from_parts(parts, axum::body::Body::empty()))
        .await
}

fn is_signed(
    state: &AppState,
    headers: &HeaderMap,
    method: &str,
    address: &str,
    form: &[(String, String)],
) -> bool {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let Some(nonce) = text(NONCE_HEADER) else {
        return false;
    };
    [SIGNATURE_HEADER, MAIN_SIGNATURE_HEADER]
        .into_iter()
        .filter_map(text)
        .any(|signature| {
            let tokens = state
                .config
                .carrier
                .auth_tokens
                .iter()
                .map(|token| token.expose_secret());
            verify_v3(method, address, form, nonce, signature, tokens)
        })
}
