//! `/simulator/…`: the books and the options over HTTP. No authentication: the simulator serves tests and demos.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{Path, RawQuery, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, patch, post};
use axum::{Json, Router};
use serde_json::{Value, json};
use url::form_urlencoded;

use super::webhooks::EventKind;
use super::{ReplayError, Shared};

pub(super) fn router() -> Router<Arc<Shared>> {
    Router::new()
        .route("/simulator/calls", get(calls))
        .route("/simulator/stats", get(stats))
        .route("/simulator/options", patch(change_options))
        .route("/simulator/reset", post(reset))
        .route("/simulator/calls/{uuid}/webhooks/{kind}", post(replay))
}

fn error(status: StatusCode, text: impl Into<String>) -> Response {
    (status, Json(json!({ "error": text.into() }))).into_response()
}

/// `?limit&offset`, both optional: dial requests in the order of their decision, with the total.
async fn calls(State(shared): State<Arc<Shared>>, RawQuery(query): RawQuery) -> Response {
    let query = query.unwrap_or_default();
    let mut page = (0, usize::MAX);
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        let field = match name.as_ref() {
            "offset" => &mut page.0,
            "limit" => &mut page.1,
            _ => return error(StatusCode::BAD_REQUEST, "only limit and offset are known"),
        };
        match value.parse() {
            Ok(number) => *field = number,
            Err(_) => {
                return error(
                    StatusCode::BAD_REQUEST,
                    "limit and offset are whole numbers",
                );
            }
        }
    }
    let exchange = shared.exchange();
    let records = exchange.ledger.records(page.0, page.1);
    Json(json!({ "total": exchange.ledger.len(), "calls": records })).into_response()
}

async fn stats(State(shared): State<Arc<Shared>>) -> Response {
    Json(shared.exchange().ledger.stats()).into_response()
}

async fn change_options(State(shared): State<Arc<Shared>>, body: Bytes) -> Response {
    let Ok(patch @ Value::Object(_)) = serde_json::from_slice(&body) else {
        return error(StatusCode::BAD_REQUEST, "options are a JSON object");
    };
    match shared.exchange().patch(&patch) {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(reason) => error(StatusCode::BAD_REQUEST, reason.to_string()),
    }
}

async fn reset(State(shared): State<Arc<Shared>>) -> StatusCode {
    shared.exchange().ledger.reset();
    StatusCode::NO_CONTENT
}

async fn replay(
    State(shared): State<Arc<Shared>>,
    Path((uuid, kind)): Path<(String, String)>,
) -> Response {
    let kind = match kind.as_str() {
        "ring" => EventKind::Ring,
        "answer" => EventKind::Answer,
        "hangup" => EventKind::Hangup,
        _ => {
            return error(
                StatusCode::NOT_FOUND,
                "webhooks are ring, answer and hangup",
            );
        }
    };
    match shared.replay(&uuid, kind).await {
        Ok(status) => Json(json!({ "httpStatus": status })).into_response(),
        Err(reason @ ReplayError::UnknownCall) => error(StatusCode::NOT_FOUND, reason.to_string()),
        Err(reason @ (ReplayError::NoCallback | ReplayError::NotEnded)) => {
            error(StatusCode::CONFLICT, reason.to_string())
        }
    }
}
