//! `/v1/lists`: contact lists, imported from a CSV file while it is being uploaded, or from JSON.

mod upload;

use std::time::Duration;

use axum::Extension;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use axum::http::{HeaderName, StatusCode};
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::domain::ids::{ClientId, ListId};
use crate::domain::list::{ContactList, RejectedRow};
use crate::domain::phone::CountryCode;
use crate::domain::role::Principal;
use crate::error::{ApiError, ApiResult, Problem};
use crate::services::idempotency::{FormDigest, FormSaid, ReservedId};
use crate::services::imports::{MAX_FORM_BYTES, MAX_JSON_BYTES, NewList, UploadFault};
use crate::state::AppState;

use super::dto::list::{ContactOut, ListForm, ListIn, ListOut};
use super::dto::page::{Page, PageQuery};
use super::extract::{AppJson, AppPath, AppQuery, Created, Writer, read_json};

/// Time for a list in JSON to arrive.
const JSON_TIME: Duration = Duration::from_secs(120);

/// The route that imports; a file takes longer than other requests may.
pub(super) fn import_router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(create))
        .layer(DefaultBodyLimit::max(MAX_FORM_BYTES))
}

/// The other routes of this file.
pub(super) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(get, delete))
        .routes(routes!(contacts))
        .routes(routes!(rejected))
}

/// For whom a list is imported.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct CreateQuery {
    /// Whose it will be; for admins, who may also say so in the body.
    #[param(value_type = Option<String>)]
    client_id: Option<ClientId>,
    /// The country of numbers without a country code (ISO 3166-1 alpha-2), where the body does not say.
    default_country: Option<String>,
}

/// Which lists to show.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct ListQuery {
    /// Those of this client; for admins.
    #[param(value_type = Option<String>)]
    client_id: Option<ClientId>,
    /// Items of the page, 1 to 500; 50 if not given.
    limit: Option<u32>,
    /// `nextCursor` of the page before.
    cursor: Option<String>,
}

/// What all three ways to name a list's properties come down to.
struct Properties {
    /// In a form it may come behind the file.
    name: Option<String>,
    default_country: Option<String>,
    client_id: Option<ClientId>,
}

impl Properties {
    fn or(self, query: CreateQuery) -> Self {
        Self {
            name: self.name,
            default_country: self.default_country.or(query.default_country),
            client_id: self.client_id.or(query.client_id),
        }
    }

    fn into_new(self, principal: Principal, reservation: Option<ReservedId>) -> ApiResult<NewList> {
        let default_country = self.default_country.filter(|text| !text.trim().is_empty());
        let default_country = default_country
            .map(|text| CountryCode::parse(&text))
            .transpose();
        let client = principal.scope(self.client_id)?.client();
        Ok(NewList {
            client: client.ok_or_else(|| {
                ApiError::invalid_field("clientId", "is missing: an admin must say for whom")
            })?,
            name: self.name,
            default_country: default_country
                .map_err(|error| ApiError::invalid_field("defaultCountry", error.to_string()))?,
            reservation,
        })
    }
}

/// Imports a contact list.
///
/// Good rows are kept; duplicates (of a number) and bad rows are counted and reported with line and reason. A list is
/// usable only once it is `ready`; a refused or broken upload leaves nothing behind. In a form, `defaultCountry` and `clientId`
/// must come before `file`, or be query parameters: they decide how its rows are read. `name` may come behind it.
#[utoipa::path(
    post, path = "/v1/lists", tag = "lists",
    params(CreateQuery),
    request_body(content((ListForm = "multipart/form-data"), (ListIn = "application/json"))),
    responses(
        (status = 201, description = "The list, with the report of its import.", body = ListOut),
        (status = 429, description = "Other imports are running.", body = Problem, content_type = "application/problem+json"),
    )
)]
async fn create(
    State(state): State<AppState>,
    Writer(principal): Writer,
    AppQuery(query): AppQuery<CreateQuery>,
    reserved: Option<Extension<ReservedId>>,
    request: Request,
) -> ApiResult<(Option<Extension<FormSaid>>, Created<ListOut>)> {
    let reservation = reserved.map(|Extension(reserved)| reserved);
    let (list, said) = if upload::is_form(request.headers()) {
        let settle = |properties: Properties| properties.or(query).into_new(principal, reservation);
        let digest = reservation.map(|_| FormDigest::default());
        upload::import(&state, request, settle, digest).await?
    } else {
        let body = tokio::time::timeout(JSON_TIME, read_json(request, MAX_JSON_BYTES)).await;
        let body = body.map_err(|_| ApiError::from(UploadFault::Incomplete))?;
        let body: ListIn = body.map_err(name_both_types)?;
        let properties = Properties {
            name: Some(body.name),
            default_country: body.default_country,
            client_id: body.client_id,
        };
        let new = properties.or(query).into_new(principal, reservation)?;
        (state.imports.import_json(new, body.contacts).await?, None)
    };
    Ok((said.map(Extension), Created(list.into())))
}

fn name_both_types(error: ApiError) -> ApiError {
    match error.status() {
        StatusCode::UNSUPPORTED_MEDIA_TYPE => {
            ApiError::unsupported_media_type("multipart/form-data or application/json")
        }
        _ => error,
    }
}

/// Lists contact lists, newest first.
#[utoipa::path(
    get, path = "/v1/lists", tag = "lists",
    params(ListQuery),
    responses((status = 200, description = "A page of lists, without their errors.", body = Page<ListOut>))
)]
async fn list(
    State(state): State<AppState>,
    principal: Principal,
    AppQuery(query): AppQuery<ListQuery>,
) -> ApiResult<AppJson<Page<ListOut>>> {
    let scope = principal.scope(query.client_id)?;
    let page = PageQuery {
        limit: query.limit,
        cursor: query.cursor,
    }
    .request::<ListId>()?;
    let read = state
        .lists
        .list(scope.client(), page.after, page.fetch())
        .await?;
    Ok(AppJson(page.page(
        read,
        |list| list.id.to_string(),
        ListOut::from,
    )))
}

async fn find(state: &AppState, principal: Principal, id: ListId) -> ApiResult<ContactList> {
    let found = state.lists.get(id, principal.client()).await?;
    found.ok_or_else(|| ApiError::not_found("list"))
}

/// Shows a contact list.
#[utoipa::path(
    get, path = "/v1/lists/{id}", tag = "lists",
    params(("id" = String, Path, description = "The list's id.")),
    responses((status = 200, description = "The list.", body = ListOut))
)]
async fn get(
    State(state): State<AppState>,
    principal: Principal,
    AppPath(id): AppPath<ListId>,
) -> ApiResult<AppJson<ListOut>> {
    Ok(AppJson(find(&state, principal, id).await?.into()))
}

/// Deletes a contact list.
#[utoipa::path(
    delete, path = "/v1/lists/{id}", tag = "lists",
    params(("id" = String, Path, description = "The list's id.")),
    responses(
        (status = 204, description = "It is deleted."),
        (status = 409, description = "It is not ready, or a campaign that has not ended uses it.",
            body = Problem, content_type = "application/problem+json"),
    )
)]
async fn delete(
    State(state): State<AppState>,
    Writer(principal): Writer,
    AppPath(id): AppPath<ListId>,
) -> ApiResult<StatusCode> {
    let list = find(&state, principal, id).await?;
    state.lists.delete(&list).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Shows a list's contacts in the order in which they are dialed.
///
/// Viewers see masked numbers.
#[utoipa::path(
    get, path = "/v1/lists/{id}/contacts", tag = "lists",
    params(("id" = String, Path, description = "The list's id."), PageQuery),
    responses(
        (status = 200, description = "A page of contacts.", body = Page<ContactOut>),
        (status = 409, description = "It is not ready.", body = Problem, content_type = "application/problem+json"),
    )
)]
async fn contacts(
    State(state): State<AppState>,
    principal: Principal,
    AppPath(id): AppPath<ListId>,
    AppQuery(query): AppQuery<PageQuery>,
) -> ApiResult<AppJson<Page<ContactOut>>> {
    let page = query.request::<u64>()?;
    let list = find(&state, principal, id).await?;
    let from = page.after.map_or(0, |seq| seq.saturating_add(1));
    let read = state.lists.contacts(&list, from, page.fetch()).await?;
    let show = |contact| ContactOut::new(contact, principal);
    Ok(AppJson(page.page(
        read,
        |contact| contact.seq.to_string(),
        show,
    )))
}

/// The rows that an import refused, as CSV: line, column, reason.
///
/// The first 10,000 are kept; a last line says how many more there were.
#[utoipa::path(
    get, path = "/v1/lists/{id}/rejected.csv", tag = "lists",
    params(("id" = String, Path, description = "The list's id.")),
    responses((status = 200, description = "The rows.", body = String, content_type = "text/csv"))
)]
async fn rejected(
    State(state): State<AppState>,
    principal: Principal,
    AppPath(id): AppPath<ListId>,
) -> ApiResult<([(HeaderName, &'static str); 2], Vec<u8>)> {
    let list = find(&state, principal, id).await?;
    let rows = state.lists.rejects(id).await?;
    let file = rejects_csv(&rows, list.rejected).map_err(ApiError::internal)?;
    let headers = [
        (CONTENT_TYPE, "text/csv; charset=utf-8"),
        (CONTENT_DISPOSITION, "attachment; filename=\"rejected.csv\""),
    ];
    Ok((headers, file))
}

fn rejects_csv(rows: &[RejectedRow], total: u64) -> Result<Vec<u8>, csv::Error> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(["line", "column", "reason"])?;
    for row in rows {
        let column = harmless(row.column.as_deref().unwrap_or_default());
        writer.write_record([&row.line.to_string(), &column, &row.reason])?;
    }
    let missing = total.saturating_sub(rows.len() as u64);
    if missing > 0 {
        let note = format!("{missing} further rejected rows were not kept");
        writer.write_record(["", "", &note])?;
    }
    writer
        .into_inner()
        .map_err(|error| error.into_error().into())
}

/// A column's name is the uploader's; as a cell it must not become a formula in whoever's spreadsheet.
fn harmless(cell: &str) -> String {
    let quote = if cell.starts_with(['=', '+', '-', '@', '\t', '\r']) {
        "'"
    } else {
        ""
    };
    format!("{quote}{cell}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rejected_rows_become_a_file_that_says_when_it_was_cut() {
        let row = |column: Option<&str>| RejectedRow {
            line: 3,
            column: column.map(str::to_owned),
            reason: "too \"few\" digits".to_owned(),
        };
        let file = rejects_csv(&[row(Some("=number")), row(None)], 5).unwrap();
        let expected = "line,column,reason\n\
            3,'=number,\"too \"\"few\"\" digits\"\n\
            3,,\"too \"\"few\"\" digits\"\n\
            ,,3 further rejected rows were not kept\n";
        assert_eq!(String::from_utf8(file).unwrap(), expected);
    }
}
