//! Calls: make one, list, read, hang up.

use axum::extract::State;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::dto::call::{CallIn, CallOut, CallQuery, HungUpOut};
use super::dto::page::{Page, PageQuery};
use super::extract::{AppJson, AppPath, AppQuery, Created, NewId, Writer};
use crate::domain::call::CallFilter;
use crate::domain::ids::CallId;
use crate::domain::role::Principal;
use crate::error::{ApiError, ApiResult, FieldFault, Problem};
use crate::services::dialer::HangUpError;
use crate::services::single_calls::SingleCallError;
use crate::state::AppState;

/// The routes.
pub(super) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(get))
        .routes(routes!(hang_up))
}

/// Making a call waits for a bot, a slot and the carrier.
pub(super) fn making_router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(create))
}

/// Make a single call
///
/// By the same path as a campaign's call: limits, pacing, warm-up. It waits for a free slot for MAX_CONCURRENT_CALL_WAIT,
/// then answers 429 without having dialed. The answer has the call as it stands after the carrier was asked; status
/// `dialing` means that the carrier did not answer in time: what became of it follows.
#[utoipa::path(post, path = "/v1/calls", tag = "calls", request_body = CallIn,
    responses(
        (status = 201, description = "The call", body = CallOut),
        (status = 404, description = "There is no such client, or it is not the caller's", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "All slots are taken: see Retry-After", body = Problem, content_type = "application/problem+json"),
    ))]
async fn create(
    State(state): State<AppState>,
    Writer(principal): Writer,
    NewId(id): NewId<CallId>,
    AppJson(body): AppJson<CallIn>,
) -> ApiResult<Created<CallOut>> {
    let scope = principal.scope(body.client_id)?;
    let client = scope
        .client()
        .ok_or_else(|| ApiError::invalid_field("clientId", "an admin must name the client"))?;
    let new = body.into_new(id, client).map_err(ApiError::invalid)?;
    let call = state.single_calls.make(new).await?;
    Ok(Created(CallOut::of(call, principal.may_see_numbers())))
}

/// List calls, newest first
#[utoipa::path(get, path = "/v1/calls", tag = "calls", params(CallQuery),
    responses(
        (status = 200, description = "A page", body = Page<CallOut>),
    ))]
async fn list(
    State(state): State<AppState>,
    principal: Principal,
    AppQuery(query): AppQuery<CallQuery>,
) -> ApiResult<AppJson<Page<CallOut>>> {
    let client = principal.scope(query.client_id)?.client();
    let page = PageQuery {
        limit: query.limit,
        cursor: query.cursor,
    }
    .request::<CallId>()?;
    let filter = CallFilter {
        client,
        campaign: query.campaign_id,
        outcome: query.outcome,
        status: query.status,
        live: false,
        before: page.after,
    };
    let found = state.calls.list(&filter, i64::from(page.fetch())).await?;
    let may_see = principal.may_see_numbers();
    Ok(AppJson(page.page(
        found,
        |call| call.id.to_string(),
        |call| CallOut::of(call, may_see),
    )))
}

/// Read a call
#[utoipa::path(get, path = "/v1/calls/{id}", tag = "calls", params(("id" = String, Path, description = "Call id")),
    responses(
        (status = 200, description = "The call", body = CallOut),
    ))]
async fn get(
    State(state): State<AppState>,
    principal: Principal,
    AppPath(id): AppPath<CallId>,
) -> ApiResult<AppJson<CallOut>> {
    let scope = principal.scope(None)?.client();
    let call = state
        .single_calls
        .get(id, scope)
        .await?
        .ok_or_else(|| ApiError::not_found("call"))?;
    Ok(AppJson(CallOut::of(call, principal.may_see_numbers())))
}

/// Hang a call up
///
/// The carrier is told; the call's end follows by webhook. A call that the carrier has only queued is over as soon as the carrier says that it
/// knows it no more, mostly at once.
#[utoipa::path(post, path = "/v1/calls/{id}/hangup", tag = "calls", params(("id" = String, Path, description = "Call id")),
    responses(
        (status = 200, description = "The carrier was told", body = HungUpOut),
        (status = 409, description = "The call is over, or the carrier has not accepted it yet", body = Problem, content_type = "application/problem+json"),
    ))]
async fn hang_up(
    State(state): State<AppState>,
    Writer(principal): Writer,
    AppPath(id): AppPath<CallId>,
) -> ApiResult<AppJson<HungUpOut>> {
    let scope = principal.scope(None)?.client();
    let call = state
        .single_calls
        .get(id, scope)
        .await?
        .ok_or_else(|| ApiError::not_found("call"))?;
    if !call.status.is_live() || call.carrier_id().is_none() {
        let detail = format!(
            "The call is {}; there is nothing to hang up.",
            call.status.as_str()
        );
        return Err(ApiError::conflict("wrong_state", detail));
    }
    let hung_up = state.single_calls.hang_up(&call).await?;
    let call = state.single_calls.get(id, scope).await?.unwrap_or(call);
    Ok(AppJson(HungUpOut {
        call: CallOut::of(call, principal.may_see_numbers()),
        hung_up,
    }))
}

impl From<SingleCallError> for ApiError {
    fn from(error: SingleCallError) -> Self {
        match error {
            SingleCallError::NoSuchClient => Self::not_found("client"),
            SingleCallError::Suspended => Self::forbidden("The client is suspended."),
            SingleCallError::CallerId => Self::invalid([FieldFault::at(
                "from",
                "is not one of the client's caller IDs",
            )]),
            SingleCallError::Addresses(faults) => Self::invalid(
                faults
                    .into_iter()
                    .map(|(path, reason)| FieldFault::at(path, reason)),
            ),
            SingleCallError::Busy(what) => Self::too_many_requests(
                format!("No {what} became free in time; nobody was called."),
                5,
            ),
            SingleCallError::Stopping => {
                Self::unavailable("The service is stopping; nobody was called.", 1)
            }
            SingleCallError::Store(error) => error.into(),
        }
    }
}

impl From<HangUpError> for ApiError {
    fn from(error: HangUpError) -> Self {
        match error {
            HangUpError::Carrier(cause) => {
                Self::unavailable("The carrier cannot be reached.", 5).with_cause(cause)
            }
            HangUpError::Store(error) => error.into(),
        }
    }
}
