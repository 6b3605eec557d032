//! Lets nothing in before the database was prepared: without its unique indexes no limit holds and nobody is claimed once.

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::error::ApiError;
use crate::state::AppState;

/// See the module: 503 until then.
pub async fn prepared(State(state): State<AppState>, request: Request, next: Next) -> Response {
    if state.is_prepared() {
        return next.run(request).await;
    }
    ApiError::unavailable("The service is starting, or its database is away.", 2).into_response()
}
