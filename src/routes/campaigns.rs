//! Campaigns: create, read, command, watch.

use axum::extract::State;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::dto::call::{CallOut, CallQuery};
use super::dto::campaign::{CampaignIn, CampaignOut, CampaignQuery, CommandedOut, ProgressOut};
use super::dto::page::{Page, PageQuery};
use super::extract::{AppJson, AppPath, AppQuery, Created, NewId, Writer};
use crate::domain::campaign::Command;
use crate::domain::ids::{CallId, CampaignId};
use crate::domain::role::Principal;
use crate::error::{ApiError, ApiResult, FieldFault, Problem};
use crate::services::calls::CallFilter;
use crate::services::campaigns::CampaignError;
use crate::state::AppState;

/// The routes.
pub(super) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(create, list))
        .routes(routes!(get))
        .routes(routes!(pause))
        .routes(routes!(resume))
        .routes(routes!(cancel))
        .routes(routes!(progress))
        .routes(routes!(calls))
}

/// Create a campaign
///
/// It starts at once, or by itself at `scheduledAt`. Contacts are dialed in the order of the list, each once.
#[utoipa::path(post, path = "/v1/campaigns", tag = "campaigns", request_body = CampaignIn,
    params(("Idempotency-Key" = Option<String>, Header, description = "Send it again with the same key and nothing is created twice.")),
    responses(
        (status = 201, description = "Created", body = CampaignOut),
        (status = 404, description = "There is no such list", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "The list is not ready, or the key is in use", body = Problem, content_type = "application/problem+json"),
    ))]
async fn create(
    State(state): State<AppState>,
    Writer(principal): Writer,
    NewId(id): NewId<CampaignId>,
    AppJson(body): AppJson<CampaignIn>,
) -> ApiResult<Created<CampaignOut>> {
    let scope = principal.scope(body.client_id)?.client();
    let new = body
        .into_new(id)
        .map_err(|fault| ApiError::invalid([fault]))?;
    let campaign = state.campaigns.create(scope, new).await?;
    Ok(Created(CampaignOut::of(
        campaign,
        principal.may_see_numbers(),
    )))
}

/// List campaigns, newest first
#[utoipa::path(get, path = "/v1/campaigns", tag = "campaigns", params(CampaignQuery),
    responses(
        (status = 200, description = "A page", body = Page<CampaignOut>),
    ))]
async fn list(
    State(state): State<AppState>,
    principal: Principal,
    AppQuery(query): AppQuery<CampaignQuery>,
) -> ApiResult<AppJson<Page<CampaignOut>>> {
    let scope = principal.scope(query.client_id)?.client();
    let page = PageQuery {
        limit: query.limit,
        cursor: query.cursor,
    }
    .request::<CampaignId>()?;
    let found = state
        .campaigns
        .list(scope, query.status, page.after, i64::from(page.fetch()))
        .await?;
    let may_see = principal.may_see_numbers();
    Ok(AppJson(page.page(
        found,
        |campaign| campaign.id.to_string(),
        |campaign| CampaignOut::of(campaign, may_see),
    )))
}

/// Read a campaign
#[utoipa::path(get, path = "/v1/campaigns/{id}", tag = "campaigns", params(("id" = String, Path, description = "Campaign id")),
    responses(
        (status = 200, description = "The campaign", body = CampaignOut),
    ))]
async fn get(
    State(state): State<AppState>,
    principal: Principal,
    AppPath(id): AppPath<CampaignId>,
) -> ApiResult<AppJson<CampaignOut>> {
    let scope = principal.scope(None)?.client();
    let campaign = state.campaigns.get(id, scope).await?;
    Ok(AppJson(CampaignOut::of(
        campaign,
        principal.may_see_numbers(),
    )))
}

/// Pause a campaign
///
/// No call starts later than a second after the answer. Calls under way go on; `inFlight` says how many.
#[utoipa::path(post, path = "/v1/campaigns/{id}/pause", tag = "campaigns", params(("id" = String, Path, description = "Campaign id")),
    responses(
        (status = 200, description = "Paused (or paused already)", body = CommandedOut),
        (status = 409, description = "Its status does not allow it", body = Problem, content_type = "application/problem+json"),
    ))]
async fn pause(
    state: State<AppState>,
    writer: Writer,
    id: AppPath<CampaignId>,
) -> ApiResult<AppJson<CommandedOut>> {
    command(state, writer, id, Command::Pause).await
}

/// Resume a paused campaign
///
/// It goes on with the first contact that was never dialed; nobody is dialed twice.
#[utoipa::path(post, path = "/v1/campaigns/{id}/resume", tag = "campaigns", params(("id" = String, Path, description = "Campaign id")),
    responses(
        (status = 200, description = "Running (or running already)", body = CommandedOut),
        (status = 409, description = "Its status does not allow it", body = Problem, content_type = "application/problem+json"),
    ))]
async fn resume(
    state: State<AppState>,
    writer: Writer,
    id: AppPath<CampaignId>,
) -> ApiResult<AppJson<CommandedOut>> {
    command(state, writer, id, Command::Resume).await
}

/// Cancel a campaign for good
///
/// No call starts later than a second after the answer. Calls under way go on; `inFlight` says how many.
#[utoipa::path(post, path = "/v1/campaigns/{id}/cancel", tag = "campaigns", params(("id" = String, Path, description = "Campaign id")),
    responses(
        (status = 200, description = "Cancelled (or cancelled already)", body = CommandedOut),
        (status = 409, description = "Its status does not allow it", body = Problem, content_type = "application/problem+json"),
    ))]
async fn cancel(
    state: State<AppState>,
    writer: Writer,
    id: AppPath<CampaignId>,
) -> ApiResult<AppJson<CommandedOut>> {
    command(state, writer, id, Command::Cancel).await
}

async fn command(
    State(state): State<AppState>,
    Writer(principal): Writer,
    AppPath(id): AppPath<CampaignId>,
    command: Command,
) -> ApiResult<AppJson<CommandedOut>> {
    let scope = principal.scope(None)?.client();
    let commanded = state.campaigns.command(id, scope, command).await?;
    Ok(AppJson(CommandedOut::of(
        commanded,
        principal.may_see_numbers(),
    )))
}

/// Watch a campaign
///
/// Every contact is under exactly one heading, so the numbers add up to `total` in every answer.
#[utoipa::path(get, path = "/v1/campaigns/{id}/progress", tag = "campaigns", params(("id" = String, Path, description = "Campaign id")),
    responses(
        (status = 200, description = "Progress", body = ProgressOut),
    ))]
async fn progress(
    State(state): State<AppState>,
    principal: Principal,
    AppPath(id): AppPath<CampaignId>,
) -> ApiResult<AppJson<ProgressOut>> {
    let scope = principal.scope(None)?.client();
    Ok(AppJson(state.campaigns.progress(id, scope).await?.into()))
}

/// List a campaign's calls, newest first
#[utoipa::path(get, path = "/v1/campaigns/{id}/calls", tag = "campaigns", params(("id" = String, Path, description = "Campaign id"), CallQuery),
    responses(
        (status = 200, description = "A page", body = Page<CallOut>),
    ))]
async fn calls(
    State(state): State<AppState>,
    principal: Principal,
    AppPath(id): AppPath<CampaignId>,
    AppQuery(query): AppQuery<CallQuery>,
) -> ApiResult<AppJson<Page<CallOut>>> {
    let campaign = state
        .campaigns
        .get(id, principal.scope(query.client_id)?.client())
        .await?;
    let page = PageQuery {
        limit: query.limit,
        cursor: query.cursor,
    }
    .request::<CallId>()?;
    let filter = CallFilter {
        campaign: Some(campaign.id),
        outcome: query.outcome,
        status: query.status,
        before: page.after,
        ..CallFilter::default()
    };
    let found = state.calls.list(&filter, i64::from(page.fetch())).await?;
    let may_see = principal.may_see_numbers();
    Ok(AppJson(page.page(
        found,
        |call| call.id.to_string(),
        |call| CallOut::of(call, may_see),
    )))
}

impl From<CampaignError> for ApiError {
    fn from(error: CampaignError) -> Self {
        match error {
            CampaignError::Invalid(faults) => Self::invalid(
                faults
                    .into_iter()
                    .map(|(path, reason)| FieldFault::at(path, reason)),
            ),
            CampaignError::NotFound => Self::not_found("campaign"),
            CampaignError::NoSuchList => Self::not_found("list"),
            CampaignError::Suspended => Self::forbidden("The client is suspended."),
            CampaignError::ListNotReady => Self::conflict(
                "list_not_ready",
                "The list is still being imported, or its import failed.",
            ),
            CampaignError::EmptyList => {
                Self::invalid([FieldFault::at("listId", "the list has no contacts")])
            }
            CampaignError::WrongState(status) => Self::conflict(
                "wrong_state",
                format!(
                    "The campaign is {}; that does not allow it.",
                    status.as_str()
                ),
            ),
            CampaignError::Store(error) => error.into(),
        }
    }
}
