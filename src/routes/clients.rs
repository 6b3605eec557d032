//! `/v1/clients`: tenants, their limits and their keys.

use axum::Extension;
use axum::extract::State;
use axum::http::StatusCode;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::domain::ids::{ClientId, KeyId};
use crate::domain::role::Principal;
use crate::error::{ApiError, ApiResult, Problem};
use crate::services::idempotency::ShownOnce;
use crate::state::AppState;

use super::dto::client::{ClientIn, ClientOut, ClientPatchIn, KeyCreated, KeyIn, KeyOut};
use super::dto::page::{Page, PageQuery};
use super::extract::{Admin, AppJson, AppPath, AppQuery, Created, NewId};

/// The routes of this file.
pub(super) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(create, list))
        .routes(routes!(get, patch))
        .routes(routes!(create_key, list_keys))
        .routes(routes!(revoke_key))
}

/// Creates a client.
///
/// For admins. Limits that are not given have the deployment's defaults.
#[utoipa::path(
    post, path = "/v1/clients", tag = "clients",
    request_body = ClientIn,
    responses(
        (status = 201, description = "The client.", body = ClientOut),
        (status = 409, description = "The guarantees of all clients would be more than GLOBAL_MAX_CALLS, or an earlier \
            request with this Idempotency-Key is still being worked on.",
            body = Problem, content_type = "application/problem+json"),
    )
)]
async fn create(
    State(state): State<AppState>,
    _: Admin,
    NewId(id): NewId<ClientId>,
    AppJson(body): AppJson<ClientIn>,
) -> ApiResult<Created<ClientOut>> {
    let (new, faults) = body.into_new();
    let client = state.clients.create(id, new, faults).await?;
    Ok(Created(ClientOut::of(client, true)))
}

/// Lists clients, newest first.
///
/// For admins.
#[utoipa::path(
    get, path = "/v1/clients", tag = "clients",
    params(PageQuery),
    responses((status = 200, description = "A page of clients.", body = Page<ClientOut>))
)]
async fn list(
    State(state): State<AppState>,
    _: Admin,
    AppQuery(query): AppQuery<PageQuery>,
) -> ApiResult<AppJson<Page<ClientOut>>> {
    let page = query.request::<ClientId>()?;
    let read = state.clients.list(page.after, page.fetch()).await?;
    Ok(AppJson(page.page(
        read,
        |client| client.id.to_string(),
        |client| ClientOut::of(client, true),
    )))
}

/// Shows a client.
///
/// For admins, and for the client itself.
#[utoipa::path(
    get, path = "/v1/clients/{id}", tag = "clients",
    params(("id" = String, Path, description = "The client's id.")),
    responses((status = 200, description = "The client.", body = ClientOut))
)]
async fn get(
    State(state): State<AppState>,
    principal: Principal,
    AppPath(id): AppPath<ClientId>,
) -> ApiResult<AppJson<ClientOut>> {
    principal
        .scope(Some(id))
        .map_err(|_| ApiError::not_found("client"))?;
    let client = state.clients.get(id).await?;
    let client = client.ok_or_else(|| ApiError::not_found("client"))?;
    Ok(AppJson(ClientOut::of(client, principal.may_see_numbers())))
}

/// Changes a client.
///
/// For admins. What is not mentioned stays; null removes. Lower limits take effect as calls end, higher ones at once.
#[utoipa::path(
    patch, path = "/v1/clients/{id}", tag = "clients",
    params(("id" = String, Path, description = "The client's id.")),
    request_body = ClientPatchIn,
    responses(
        (status = 200, description = "The client as it is now.", body = ClientOut),
        (status = 409, description = "The guarantees of all clients would be more than GLOBAL_MAX_CALLS.",
            body = Problem, content_type = "application/problem+json"),
    )
)]
async fn patch(
    State(state): State<AppState>,
    _: Admin,
    AppPath(id): AppPath<ClientId>,
    AppJson(body): AppJson<ClientPatchIn>,
) -> ApiResult<AppJson<ClientOut>> {
    let (patch, faults) = body.into_patch();
    let client = state.clients.patch(id, patch, faults).await?;
    Ok(AppJson(ClientOut::of(client, true)))
}

/// Creates an API key for a client.
///
/// For admins. The key is in this answer only: keep it. A repeated request with the same `Idempotency-Key` is not shown it again.
#[utoipa::path(
    post, path = "/v1/clients/{id}/keys", tag = "clients",
    params(("id" = String, Path, description = "The client's id.")),
    request_body = KeyIn,
    responses(
        (status = 201, description = "The key.", body = KeyCreated),
        (status = 409, description = "An earlier request with this Idempotency-Key was answered, and a key is shown once; or \
            it is still being worked on.", body = Problem, content_type = "application/problem+json"),
    )
)]
async fn create_key(
    State(state): State<AppState>,
    _: Admin,
    AppPath(client): AppPath<ClientId>,
    NewId(id): NewId<KeyId>,
    AppJson(body): AppJson<KeyIn>,
) -> ApiResult<(Extension<ShownOnce>, Created<KeyCreated>)> {
    let (key, secret) = state
        .clients
        .create_key(id, client, body.role, body.label)
        .await?;
    Ok((Extension(ShownOnce), Created(KeyCreated::new(key, &secret))))
}

/// Lists a client's API keys, newest first, without the keys themselves.
///
/// For admins. Revoked keys are listed too.
#[utoipa::path(
    get, path = "/v1/clients/{id}/keys", tag = "clients",
    params(("id" = String, Path, description = "The client's id."), PageQuery),
    responses((status = 200, description = "A page of keys.", body = Page<KeyOut>))
)]
async fn list_keys(
    State(state): State<AppState>,
    _: Admin,
    AppPath(client): AppPath<ClientId>,
    AppQuery(query): AppQuery<PageQuery>,
) -> ApiResult<AppJson<Page<KeyOut>>> {
    let page = query.request::<KeyId>()?;
    let read = state
        .clients
        .list_keys(client, page.after, page.fetch())
        .await?
        .ok_or_else(|| ApiError::not_found("client"))?;
    Ok(AppJson(page.page(
        read,
        |key| key.id.to_string(),
        KeyOut::from,
    )))
}

/// Revokes an API key.
///
/// For admins. The key is refused everywhere within 5 s.
#[utoipa::path(
    delete, path = "/v1/keys/{id}", tag = "clients",
    params(("id" = String, Path, description = "The key's id.")),
    responses((status = 204, description = "It is revoked."))
)]
async fn revoke_key(
    State(state): State<AppState>,
    _: Admin,
    AppPath(id): AppPath<KeyId>,
) -> ApiResult<StatusCode> {
    state.clients.revoke_key(id).await?;
    Ok(StatusCode::NO_CONTENT)
}
