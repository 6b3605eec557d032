//! The carrier's webhooks. They are verified before they come here, and answered only when what they say is durable.

use axum::extract::{Extension, RawQuery, State};
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::error::{ApiResult, Problem};
use crate::services::carrier::plivo_event::Hook;
use crate::services::carrier::plivo_xml::{self, answer_document, empty_document, hangup_document};
use crate::services::webhooks::{Instruction, SignedForm, Webhook};
use crate::state::AppState;
use crate::utils::crash_points::crash_point;

/// The routes.
pub(super) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(ring))
        .routes(routes!(answer))
        .routes(routes!(hangup))
        .routes(routes!(fallback))
        .routes(routes!(machine))
        .routes(routes!(record))
}

macro_rules! hooks {
    ($($(#[$doc:meta])* $name:ident $path:literal $hook:ident;)*) => {$(
        $(#[$doc])*
        #[utoipa::path(post, path = $path, tag = "webhooks",
            params(
                ("call" = Option<String>, Query, description = "Our id of the call; without it the call is found by CallUUID or RequestUUID"),
                ("dial" = Option<u32>, Query, description = "Which dial of the call"),
            ),
            request_body(content = String, content_type = "application/x-www-form-urlencoded"),
            responses(
                (status = 200, description = "Durable", body = String, content_type = "application/xml"),
                (status = 403, description = "Not signed by the carrier", body = Problem, content_type = "application/problem+json"),
                (status = 413, description = "Form too large", body = Problem, content_type = "application/problem+json"),
                (status = 503, description = "Not durable: deliver it again", body = Problem, content_type = "application/problem+json"),
            ))]
        async fn $name(state: State<AppState>, form: Extension<SignedForm>, query: RawQuery) -> ApiResult<Response> {
            take(state, form, query, Hook::$hook).await
        }
    )*};
}

hooks! {
    /// The destination rings
    ring "/plivo/ring-url" Ring;
    /// The callee answered: what is it to hear?
    answer "/plivo/answer-url" Answer;
    /// The call is over
    hangup "/plivo/hangup-url" Hangup;
    /// The answer address failed: what is the callee to hear?
    fallback "/plivo/fallback-url" Fallback;
    /// An answering machine was detected
    machine "/plivo/machine-url" Machine;
    /// A recording is ready
    record "/plivo/record-url" Record;
}

async fn take(
    State(state): State<AppState>,
    Extension(SignedForm(params)): Extension<SignedForm>,
    RawQuery(query): RawQuery,
    hook: Hook,
) -> ApiResult<Response> {
    let query = query.unwrap_or_default();
    let parameter = |name: &str| {
        url::form_urlencoded::parse(query.as_bytes())
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.into_owned())
    };
    let webhook = Webhook {
        hook,
        call: parameter("call").and_then(|id| id.parse().ok()),
        dial: parameter("dial").and_then(|dial| dial.parse().ok()),
        params,
    };
    let document = match state.webhooks.take(&webhook).await? {
        Instruction::None => empty_document(),
        Instruction::Play(answer) => answer_document(&answer),
        Instruction::HangUp => hangup_document(),
    };
    crash_point!("webhook.before_answer");
    Ok(([(CONTENT_TYPE, plivo_xml::CONTENT_TYPE)], document).into_response())
}
