//! Lets in whoever has a key or token, and tells the handlers who that is.

use axum::extract::{Request, State};
use axum::http::{HeaderMap, header};
use axum::middleware::Next;
use axum::response::Response;

use crate::error::{ApiError, ApiResult};
use crate::state::AppState;

use super::X_API_KEY;

/// See the module. The `Principal` goes into the request's extensions.
pub async fn authenticate(
    State(state): State<AppState>,
    mut request: Request,
    next: Next,
) -> ApiResult<Response> {
    let credential = credential(request.headers()).ok_or_else(|| {
        ApiError::unauthorized(
            "Send a key or token as `Authorization: Bearer …` or `x-api-key: …`.",
        )
    })?;
    let principal = state.auth.authenticate(credential).await?;
    if let Some(client) = principal.client() {
        tracing::Span::current().record("clientId", tracing::field::display(client));
    }
    request.extensions_mut().insert(principal);
    Ok(next.run(request).await)
}

fn credential(headers: &HeaderMap) -> Option<&str> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let bearer = text(header::AUTHORIZATION).and_then(|value| {
        let (scheme, credential) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then_some(credential)
    });
    bearer
        .or_else(|| text(X_API_KEY))
        .map(str::trim)
        .filter(|credential| !credential.is_empty())
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderName, HeaderValue};

    use super::*;

    #[test]
    fn credentials_come_in_two_headers() {
        let of = |name: HeaderName, value: &'static str| {
            let headers = HeaderMap::from_iter([(name, HeaderValue::from_static(value))]);
            credential(&headers).map(str::to_owned)
        };
        assert_eq!(of(header::AUTHORIZATION, "Bearer k").as_deref(), Some("k"));
        assert_eq!(
            of(header::AUTHORIZATION, "bearer  k ").as_deref(),
            Some("k")
        );
        assert_eq!(of(X_API_KEY, "k").as_deref(), Some("k"));
        for (name, value) in [
            (header::AUTHORIZATION, "Basic k"),
            (header::AUTHORIZATION, "k"),
            (X_API_KEY, " "),
        ] {
            assert_eq!(of(name, value), None);
        }
    }
}
