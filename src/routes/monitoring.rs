//! What is going on now: live calls, utilization, containers; and the tick that wakes a service scaled to zero.

use axum::extract::State;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::dto::call::CallOut;
use super::dto::monitoring::{
    ActiveCallsOut, ActiveCallsQuery, ClientUtilization, ContainerOut, TickOut, UtilizationReport,
};
use super::dto::page::Page;
use super::extract::{Admin, AppJson, AppQuery};
use crate::domain::role::Principal;
use crate::error::{ApiError, ApiResult, Problem};
use crate::state::AppState;

/// The routes.
pub(super) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(active_calls))
        .routes(routes!(utilization))
        .routes(routes!(containers))
        .routes(routes!(tick))
}

/// Count (and list) live calls
#[utoipa::path(get, path = "/v1/active-calls", tag = "monitoring", params(ActiveCallsQuery),
    responses(
        (status = 200, description = "Live calls", body = ActiveCallsOut),
        (status = 404, description = "There is no such client", body = Problem, content_type = "application/problem+json"),
    ))]
async fn active_calls(
    State(state): State<AppState>,
    principal: Principal,
    AppQuery(query): AppQuery<ActiveCallsQuery>,
) -> ApiResult<AppJson<ActiveCallsOut>> {
    let client = match principal.scope(query.client_id)?.client() {
        Some(id) => Some(
            state
                .clients
                .get(id)
                .await?
                .ok_or_else(|| ApiError::not_found("client"))?,
        ),
        None => None,
    };
    let found = state
        .monitoring
        .active_calls(client.as_ref(), query.include_calls.unwrap_or(false))
        .await?;
    let may_see = principal.may_see_numbers();
    Ok(AppJson(ActiveCallsOut {
        timestamp: state.clock.now(),
        global: found.global.into(),
        client: found.client.map(Into::into),
        calls: found.calls.map(|calls| {
            calls
                .into_iter()
                .map(|call| CallOut::of(call, may_see))
                .collect()
        }),
    }))
}

/// How full the account and its clients are
#[utoipa::path(get, path = "/v1/utilization", tag = "monitoring",
    responses(
        (status = 200, description = "Utilization", body = UtilizationReport),
    ))]
async fn utilization(
    State(state): State<AppState>,
    principal: Principal,
) -> ApiResult<AppJson<UtilizationReport>> {
    let (global, clients) = state
        .monitoring
        .utilization(principal.scope(None)?.client())
        .await?;
    let clients = clients
        .into_iter()
        .map(|(client_id, found)| ClientUtilization {
            client_id,
            utilization: found.into(),
        });
    Ok(AppJson(UtilizationReport {
        timestamp: state.clock.now(),
        global: global.into(),
        clients: clients.collect(),
    }))
}

/// The containers that are alive
///
/// Those with a sign of life within ORPHAN_DETECTION_THRESHOLD, the oldest first; all on one page.
#[utoipa::path(get, path = "/v1/containers", tag = "monitoring",
    responses(
        (status = 200, description = "Containers", body = Page<ContainerOut>),
    ))]
async fn containers(
    State(state): State<AppState>,
    _principal: Principal,
) -> ApiResult<AppJson<Page<ContainerOut>>> {
    let this = state.dispatcher.container().to_owned();
    let items = state
        .monitoring
        .containers()
        .await?
        .into_iter()
        .map(|driving| ContainerOut::of(driving, &this))
        .collect();
    Ok(AppJson(Page {
        items,
        next_cursor: None,
    }))
}

/// Do now what is due
///
/// Starts due schedules, adopts orphaned campaigns and asks the carrier after overdue calls. Safe to poke as often as one
/// likes; a scheduler pokes it to wake a service that was scaled to zero.
#[utoipa::path(post, path = "/v1/tick", tag = "monitoring",
    responses(
        (status = 200, description = "What was done", body = TickOut),
    ))]
async fn tick(State(state): State<AppState>, _admin: Admin) -> ApiResult<AppJson<TickOut>> {
    let scan = state.dispatcher.scan().await?;
    let round = state.reconciler.tick().await?;
    Ok(AppJson(TickOut {
        timestamp: state.clock.now(),
        started: scan.started,
        adopted: scan.adopted,
        asked: round.asked,
        ended: round.ended,
        withdrawn: round.withdrawn,
        given_up: round.given_up,
    }))
}
