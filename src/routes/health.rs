//! `/health`: for orchestrators and people. Not authenticated, and tells nothing about anybody.

use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::state::AppState;

use super::extract::AppJson;

/// The database must answer within this time.
const DATABASE_TIME_LIMIT: Duration = Duration::from_secs(2);

/// The routes of this file.
pub(super) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(live))
        .routes(routes!(ready))
        .routes(routes!(details))
}

/// How a process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum Health {
    /// All is well.
    Ok,
    /// The database does not answer, or was not prepared yet: nothing is let in.
    Unavailable,
    /// It is about to stop and takes no new work.
    Stopping,
}

/// Whether a process should get requests.
#[derive(Debug, Serialize, ToSchema)]
struct HealthOut {
    /// How it is.
    status: Health,
}

/// How a process is, with details.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct HealthDetails {
    /// How it is.
    status: Health,
    /// Version of the program.
    version: &'static str,
    /// Whether the database answers.
    database: bool,
    /// Seconds since it began to serve.
    uptime_seconds: u64,
}

/// Whether the process lives. Restart it when not.
#[utoipa::path(
    get, path = "/health/live", tag = "operations",
    responses((status = 200, description = "It lives.", body = HealthOut))
)]
async fn live() -> AppJson<HealthOut> {
    AppJson(HealthOut { status: Health::Ok })
}

/// Whether the process should get requests.
#[utoipa::path(
    get, path = "/health/ready", tag = "operations",
    responses(
        (status = 200, description = "It should.", body = HealthOut),
        (status = 503, description = "It should not: the database does not answer or was not prepared yet, or it is stopping.", body = HealthOut),
    )
)]
async fn ready(State(state): State<AppState>) -> Response {
    let status = if state.lifecycle.is_stopping() {
        Health::Stopping
    } else if state.is_prepared() && database_answers(&state).await {
        Health::Ok
    } else {
        Health::Unavailable
    };
    let code = match status {
        Health::Ok => StatusCode::OK,
        Health::Unavailable | Health::Stopping => StatusCode::SERVICE_UNAVAILABLE,
    };
    (code, AppJson(HealthOut { status })).into_response()
}

/// How the process is, for people: always 200.
#[utoipa::path(
    get, path = "/health", tag = "operations",
    responses((status = 200, description = "How it is.", body = HealthDetails))
)]
async fn details(State(state): State<AppState>) -> AppJson<HealthDetails> {
    let database = database_answers(&state).await;
    let is_well = state.is_prepared() && database;
    let status = match (state.lifecycle.is_stopping(), is_well) {
        (true, _) => Health::Stopping,
        (false, true) => Health::Ok,
        (false, false) => Health::Unavailable,
    };
    AppJson(HealthDetails {
        status,
        version: env!("CARGO_PKG_VERSION"),
        database,
        uptime_seconds: state.started.elapsed().as_secs(),
    })
}

/// The question is put to its end even when nobody waits for the answer: the driver does not like to be dropped.
async fn database_answers(state: &AppState) -> bool {
    let monitoring = state.monitoring.clone();
    let asked = state
        .lifecycle
        .spawn_work(async move { monitoring.ping().await });
    matches!(
        tokio::time::timeout(DATABASE_TIME_LIMIT, asked).await,
        Ok(Ok(Ok(())))
    )
}
