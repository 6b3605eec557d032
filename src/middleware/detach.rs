//! Runs a request's work apart from its connection: a caller that goes away, or a time limit, ends the wait and never the
//! work. A write is then either not begun or finished, and no future of the database driver is dropped half-way.

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tracing::Instrument;

use crate::error::ApiError;
use crate::state::AppState;

/// See the module. A panic in the work is answered as a problem 500.
pub async fn detach(State(state): State<AppState>, request: Request, next: Next) -> Response {
    let work = next.run(request).in_current_span();
    match state.lifecycle.spawn_work(work).await {
        Ok(response) => response,
        Err(_) => ApiError::internal("a handler panicked").into_response(),
    }
}
