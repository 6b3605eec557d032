//! `/health`: for orchestrators and people. Not authenticated, and tells nothing about anybody.

use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::services::monitoring::DatabaseProblem;
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
    /// The database does not answer, takes no writes, or was not prepared yet: nothing is let in.
    Unavailable,
    /// It is about to stop and takes no new work.
    Stopping,
}

/// What is the matter with the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum DatabaseProblemOut {
    /// It has no room left: reading works, every write fails.
    Full,
    /// It takes no writes: it has no primary at the moment, or is shutting down.
    ReadOnly,
    /// It does not answer, or not in time.
    Away,
}

impl From<DatabaseProblem> for DatabaseProblemOut {
    fn from(problem: DatabaseProblem) -> Self {
        match problem {
            DatabaseProblem::Full => Self::Full,
            DatabaseProblem::ReadOnly => Self::ReadOnly,
            DatabaseProblem::Away => Self::Away,
        }
    }
}

/// Whether a process should get requests.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct HealthOut {
    /// How it is.
    status: Health,
    /// What is the matter with the database, if anything is.
    #[serde(skip_serializing_if = "Option::is_none")]
    database_problem: Option<DatabaseProblemOut>,
}

/// How a process is, with details.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct HealthDetails {
    /// How it is.
    status: Health,
    /// Version of the program.
    version: &'static str,
    /// Whether the database answers and takes writes.
    database: bool,
    /// What is the matter with it, if anything is.
    #[serde(skip_serializing_if = "Option::is_none")]
    database_problem: Option<DatabaseProblemOut>,
    /// Seconds since it began to serve.
    uptime_seconds: u64,
}

/// Whether the process lives. Restart it when not.
#[utoipa::path(
    get, path = "/health/live", tag = "operations",
    responses((status = 200, description = "It lives.", body = HealthOut))
)]
async fn live() -> AppJson<HealthOut> {
    AppJson(HealthOut {
        status: Health::Ok,
        database_problem: None,
    })
}

/// Whether the process should get requests.
#[utoipa::path(
    get, path = "/health/ready", tag = "operations",
    responses(
        (status = 200, description = "It should.", body = HealthOut),
        (status = 503, description = "It should not: the database does not answer, takes no writes or was not prepared yet, or it is stopping.", body = HealthOut),
    )
)]
async fn ready(State(state): State<AppState>) -> Response {
    let (status, database_problem) = health(&state).await;
    let code = match status {
        Health::Ok => StatusCode::OK,
        Health::Unavailable | Health::Stopping => StatusCode::SERVICE_UNAVAILABLE,
    };
    let body = HealthOut {
        status,
        database_problem,
    };
    (code, AppJson(body)).into_response()
}

/// How the process is, for people: always 200.
#[utoipa::path(
    get, path = "/health", tag = "operations",
    responses((status = 200, description = "How it is.", body = HealthDetails))
)]
async fn details(State(state): State<AppState>) -> AppJson<HealthDetails> {
    let (status, database_problem) = health(&state).await;
    AppJson(HealthDetails {
        status,
        version: env!("CARGO_PKG_VERSION"),
        database: database_problem.is_none(),
        database_problem,
        uptime_seconds: state.started.elapsed().as_secs(),
    })
}

async fn health(state: &AppState) -> (Health, Option<DatabaseProblemOut>) {
    if state.lifecycle.is_stopping() {
        return (Health::Stopping, None);
    }
    let problem = database_problem(state).await;
    if problem.is_none() && state.is_prepared() {
        (Health::Ok, None)
    } else {
        (Health::Unavailable, problem)
    }
}

/// Asks the database for its time and for a small write: one that is full or has lost its primary still answers questions.
/// The question is put to its end even when nobody waits for the answer: the driver does not like to be dropped.
async fn database_problem(state: &AppState) -> Option<DatabaseProblemOut> {
    let (monitoring, is_prepared) = (state.monitoring.clone(), state.is_prepared());
    let asked = state
        .lifecycle
        .spawn_work(async move { monitoring.probe(is_prepared).await });
    match tokio::time::timeout(DATABASE_TIME_LIMIT, asked).await {
        Ok(Ok(Ok(()))) => None,
        Ok(Ok(Err(trouble))) => Some(trouble.into()),
        Ok(Err(_)) | Err(_) => Some(DatabaseProblemOut::Away),
    }
}
