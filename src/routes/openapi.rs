//! The API's document: made of the same list of routes that is served, with what holds for all of them added here.

use utoipa::Modify;
use utoipa::Number;
use utoipa::OpenApi as _;
use utoipa::openapi::path::{Operation, Parameter, ParameterBuilder, ParameterIn, PathItem};
use utoipa::openapi::security::{
    ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme,
};
use utoipa::openapi::{
    Content, ContentBuilder, ObjectBuilder, OpenApi, Ref, RefOr, Required, Response,
    ResponseBuilder, Schema, Type,
};

use super::dto::page::MAX_LIMIT;
use crate::domain::call::CallStatus;
use crate::error::{FieldFault, Problem};

/// Routes under this prefix need a key or token.
const GUARDED: &str = "/v1/";
/// What an id looks like.
const ID: &str = "^[0-9a-fA-F]{24}$";
/// What a place in a list of contacts looks like.
const PLACE: &str = "^[0-9]{1,18}$";
/// The header that makes a POST safe to repeat.
const IDEMPOTENCY_KEY: &str = "Idempotency-Key";
/// What an idempotency key looks like.
const KEY: &str = "^[!-~]{1,200}$";

#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "Ringmaster",
        description = "Outbound phone-call campaigns over Plivo that survive anything.\n\n\
            Every refusal is a problem as of RFC 9457 (`application/problem+json`) with a stable `code`. \
            Send an `Idempotency-Key` with a POST that creates something to be able to repeat it safely. \
            Times are RFC 3339 in UTC. Lists are `{items, nextCursor}`."
    ),
    components(schemas(Problem, FieldFault)),
    tags(
        (name = "clients", description = "Tenants, their limits and their keys"),
        (name = "lists", description = "Contact lists"),
        (name = "campaigns", description = "Lists that are being called: create, command, watch"),
        (name = "calls", description = "Calls of campaigns, and single ones"),
        (name = "monitoring", description = "What is going on now"),
        (name = "webhooks", description = "For the carrier, which signs them"),
        (name = "operations", description = "For those who run it"),
    ),
    modifiers(&Security)
)]
struct Document;

struct Security;

impl Modify for Security {
    fn modify(&self, document: &mut OpenApi) {
        let components = document.components.get_or_insert_default();
        let bearer = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .description(Some(
                "An API key, or a JSON web token (HS256) with the claims clientId, role and exp.",
            ))
            .build();
        components.add_security_scheme("bearer", SecurityScheme::Http(bearer));
        let header = ApiKey::Header(ApiKeyValue::new("x-api-key"));
        components.add_security_scheme("apiKey", SecurityScheme::ApiKey(header));
    }
}

/// The document without any route.
pub(super) fn base() -> OpenApi {
    Document::openapi()
}

/// Adds to every guarded operation how to be let in, and the problems that any of its kind can have.
pub(super) fn complete(document: &mut OpenApi) {
    for (path, item) in &mut document.paths.paths {
        if path.starts_with(GUARDED) {
            for (may_create, operation) in operations(item) {
                complete_operation(path, operation, may_create);
            }
        }
    }
}

/// All operations of a path, each with whether it is a POST.
fn operations(item: &mut PathItem) -> impl Iterator<Item = (bool, &mut Operation)> {
    [
        (false, &mut item.get),
        (true, &mut item.post),
        (false, &mut item.put),
        (false, &mut item.patch),
        (false, &mut item.delete),
    ]
    .into_iter()
    .filter_map(|(is_post, operation)| Some((is_post, operation.as_mut()?)))
}

/// The header that lets a request be repeated.
fn idempotency_key() -> Parameter {
    let description =
        "Send it again with the same key, if the answer was lost: nothing is done twice.";
    ParameterBuilder::new()
        .name(IDEMPOTENCY_KEY)
        .parameter_in(ParameterIn::Header)
        .required(Required::False)
        .schema(Some(ObjectBuilder::new().schema_type(Type::String)))
        .description(Some(description))
        .build()
}

/// Says of parameters that many operations share what they may be.
fn narrow(path: &str, parameter: &mut RefOr<Parameter>) {
    let RefOr::T(parameter) = parameter else {
        return;
    };
    let Some(RefOr::T(Schema::Object(schema))) = &mut parameter.schema else {
        return;
    };
    match parameter.name.as_str() {
        "cursor" if path.ends_with("/contacts") => schema.pattern = Some(PLACE.to_owned()),
        "id" | "clientId" | "campaignId" | "cursor" => schema.pattern = Some(ID.to_owned()),
        IDEMPOTENCY_KEY => schema.pattern = Some(KEY.to_owned()),
        "limit" => {
            schema.minimum = Some(Number::UInt(1));
            schema.maximum = Some(Number::UInt(MAX_LIMIT as usize));
        }
        "status" if path.contains("calls") => {
            let names = CallStatus::ALL.map(|status| status.as_str().into());
            schema.enum_values = Some(names.to_vec());
        }
        _ => {}
    }
}

fn complete_operation(path: &str, operation: &mut Operation, is_post: bool) {
    let creates = is_post && operation.responses.responses.contains_key("201");
    let parameters = operation.parameters.get_or_insert_default();
    let names_a_client = parameters
        .iter()
        .any(|known| matches!(known, RefOr::T(known) if known.name == "clientId"));
    if creates {
        parameters.push(RefOr::T(idempotency_key()));
    }
    for parameter in parameters {
        narrow(path, parameter);
    }
    let scopes = std::iter::empty::<String>;
    operation.security = Some(vec![
        SecurityRequirement::new("bearer", scopes()),
        SecurityRequirement::new("apiKey", scopes()),
    ]);
    let has_body = operation.request_body.is_some();
    let problems = [
        (
            true,
            "400",
            "The path, a query parameter or the body is malformed.",
        ),
        (true, "401", "No key or token, or none that we know."),
        (
            true,
            "403",
            "The role does not allow it, or the client is suspended.",
        ),
        (
            path.contains('{') || names_a_client,
            "404",
            "There is no such thing, or it is someone else's.",
        ),
        (
            is_post,
            "409",
            "The Idempotency-Key is in use, or what is there stands in the way.",
        ),
        (has_body, "413", "The body is too long."),
        (has_body, "415", "The body is not sent as what it must be."),
        (
            has_body,
            "422",
            "Values that cannot be; each with its path, or line and column.",
        ),
        (true, "500", "A fault of ours; ask with the request id."),
        (true, "503", "Not now; try again after Retry-After."),
    ];
    for (applies, status, description) in problems {
        if applies {
            let responses = &mut operation.responses.responses;
            responses
                .entry(status.to_owned())
                .or_insert_with(|| RefOr::T(problem(description)));
        }
    }
}

fn problem(description: &str) -> Response {
    let content: Content = ContentBuilder::new()
        .schema(Some(Ref::from_schema_name("Problem")))
        .build();
    ResponseBuilder::new()
        .description(description)
        .content("application/problem+json", content)
        .build()
}
