//! The carrier's API for calls that exist: live and queued ones, detail records, hangup, cancel, transfer.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{Path, RawQuery, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, NaiveDateTime, TimeDelta, Utc};
use serde_json::{Value, json};
use url::form_urlencoded;

use super::Shared;
use super::api::{ApiError, LookupCaller, with_api_id};
use super::calls::{Call, Command, Phase};
use super::dial::{Callback, is_web_url, parse_method};
use super::exchange::Exchange;
use super::hangup::Hangup;

/// Largest and default page of every list.
const LARGEST_PAGE: usize = 20;

/// The query of a list or look-up.
struct Filters(BTreeMap<String, String>);

impl Filters {
    fn of(query: Option<String>) -> Self {
        Self(
            form_urlencoded::parse(query.unwrap_or_default().as_bytes())
                .into_owned()
                .collect(),
        )
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    fn number(&self, name: &str) -> Result<Option<u64>, ApiError> {
        self.get(name)
            .map(|text| text.parse().map_err(|_| invalid(name)))
            .transpose()
    }

    /// `(limit, offset)`.
    fn page(&self) -> Result<(usize, usize), ApiError> {
        let number = |name| -> Result<Option<usize>, ApiError> {
            self.number(name)?
                .map(|value| usize::try_from(value).map_err(|_| invalid(name)))
                .transpose()
        };
        let limit = number("limit")?.unwrap_or(LARGEST_PAGE);
        if !(1..=LARGEST_PAGE).contains(&limit) {
            return Err(invalid("limit"));
        }
        Ok((limit, number("offset")?.unwrap_or(0)))
    }

    /// Whether a call is between the numbers and in the direction asked for; numbers may be prefixes.
    fn match_parties(&self, call: &Call) -> bool {
        let starts = |name, digits: &str| {
            self.get(name)
                .is_none_or(|wanted| digits.starts_with(wanted.trim_start_matches('+')))
        };
        starts("to_number", call.request.to.digits())
            && starts("from_number", call.request.from.digits())
            && self
                .get("call_direction")
                .is_none_or(|direction| direction == "outbound")
    }

    fn match_hangup(&self, call: &Call) -> bool {
        let Some(hangup) = call.hangup else {
            return false;
        };
        self.get("hangup_cause_code")
            .is_none_or(|code| code == hangup.code.to_string())
            && self
                .get("hangup_source")
                .is_none_or(|source| source == hangup.source)
    }

    fn match_bill_duration(&self, seconds: u64) -> Result<bool, ApiError> {
        let check = |suffix: &str, holds: fn(&u64, &u64) -> bool| {
            let wanted = self.number(&format!("bill_duration{suffix}"))?;
            Ok::<bool, ApiError>(wanted.is_none_or(|wanted| holds(&seconds, &wanted)))
        };
        Ok(check("", u64::eq)?
            && check("__gt", u64::gt)?
            && check("__gte", u64::ge)?
            && check("__lt", u64::lt)?
            && check("__lte", u64::le)?)
    }

    fn time(&self, name: &str) -> Result<Option<DateTime<Utc>>, ApiError> {
        let parse = |text: &str| {
            NaiveDateTime::parse_from_str(text, "%Y-%m-%d %H:%M:%S%.f")
                .or_else(|_| NaiveDateTime::parse_from_str(text, "%Y-%m-%d %H:%M"))
                .map(|time| time.and_utc())
                .map_err(|_| invalid(name))
        };
        self.get(name).map(parse).transpose()
    }

    /// The span of end times asked for, as bounds that a time passes or not. Without any, the last 7 days; at most 30.
    fn end_times(&self, now: DateTime<Utc>) -> Result<impl Fn(DateTime<Utc>) -> bool, ApiError> {
        let [exact, gt, gte, lt, lte] =
            ["", "__gt", "__gte", "__lt", "__lte"].map(|suffix| format!("end_time{suffix}"));
        let (exact, gt, gte) = (self.time(&exact)?, self.time(&gt)?, self.time(&gte)?);
        let (lt, lte) = (self.time(&lt)?, self.time(&lte)?);
        let last = lt.into_iter().chain(lte).min().unwrap_or(now);
        let first = gt.into_iter().chain(gte).max();
        if first.is_some_and(|first| last.signed_duration_since(first) > TimeDelta::days(30)) {
            return Err(ApiError::new(
                StatusCode::BAD_REQUEST,
                "end_time range must not exceed 30 days",
            ));
        }
        let earliest = first
            .or(exact)
            .unwrap_or(last - TimeDelta::days(if lt.or(lte).is_some() { 30 } else { 7 }));
        Ok(move |time: DateTime<Utc>| {
            time >= earliest
                && exact.is_none_or(|exact| time == exact)
                && gt.is_none_or(|bound| time > bound)
                && lt.is_none_or(|bound| time < bound)
                && lte.is_none_or(|bound| time <= bound)
        })
    }
}

fn invalid(name: &str) -> ApiError {
    ApiError::new(
        StatusCode::BAD_REQUEST,
        format!("{name} parameter is invalid"),
    )
}

/// `GET Call/`: detail records, or with `status` the ids of live or queued calls.
pub(super) async fn list(
    State(shared): State<Arc<Shared>>,
    _: LookupCaller,
    RawQuery(query): RawQuery,
) -> Result<Response, ApiError> {
    let filters = Filters::of(query);
    let (limit, offset) = filters.page()?;
    let now = shared.now();
    let exchange = shared.exchange();
    let wanted: fn(&Call) -> bool = match filters.get("status") {
        None => return list_records(&exchange, &filters, now),
        Some("live") => Call::is_live,
        Some("queued") => |call| call.phase == Phase::Queued,
        Some(_) => return Err(invalid("status")),
    };
    let calls: Vec<&str> = exchange
        .ledger
        .living()
        .filter(|call| wanted(call) && filters.match_parties(call))
        .skip(offset)
        .take(limit)
        .map(|call| &*call.uuid)
        .collect();
    Ok(with_api_id(json!({ "calls": calls })).into_response())
}

fn list_records(
    exchange: &Exchange,
    filters: &Filters,
    now: DateTime<Utc>,
) -> Result<Response, ApiError> {
    let (limit, offset) = filters.page()?;
    let within = filters.end_times(now)?;
    let mut found = Vec::new();
    for call in exchange.ledger.newest_first() {
        let written = call
            .recorded_at(&exchange.options)
            .is_some_and(|at| at <= now);
        if written
            && call.ended_at.is_some_and(&within)
            && filters.match_parties(call)
            && filters.match_hangup(call)
            && filters.match_bill_duration(call.duration_seconds(now))?
        {
            found.push(call);
        }
    }
    found.sort_by_key(|call| std::cmp::Reverse(call.ended_at));
    let page = |offset: usize| {
        format!(
            "/v1/Account/{}/Call/?limit={limit}&offset={offset}",
            exchange.options.auth_id
        )
    };
    let objects: Vec<Value> = found
        .iter()
        .skip(offset)
        .take(limit)
        .map(|call| with_api_id(call.detail_record(&exchange.options, now)).0)
        .collect();
    let meta = json!({
        "limit": limit,
        "offset": offset,
        "total_count": found.len(),
        "next": (offset.saturating_add(limit) < found.len()).then(|| page(offset + limit)),
        "previous": (offset > 0).then(|| page(offset.saturating_sub(limit))),
    });
    Ok(with_api_id(json!({ "meta": meta, "objects": objects })).into_response())
}

/// `GET Call/{uuid}/`: the detail record, or with `status` the live or queued call.
pub(super) async fn one(
    State(shared): State<Arc<Shared>>,
    _: LookupCaller,
    Path((_, uuid)): Path<(String, String)>,
    RawQuery(query): RawQuery,
) -> Result<Response, ApiError> {
    let filters = Filters::of(query);
    let now = shared.now();
    let exchange = shared.exchange();
    let call = exchange
        .ledger
        .call(&uuid)
        .ok_or_else(ApiError::not_found)?;
    let view = match filters.get("status") {
        None => call
            .recorded_at(&exchange.options)
            .is_some_and(|at| at <= now)
            .then(|| call.detail_record(&exchange.options, now)),
        Some("live") => call.is_live().then(|| call.live_view()),
        Some("queued") => (call.phase == Phase::Queued).then(|| call.live_view()),
        Some(_) => return Err(invalid("status")),
    };
    view.map(|view| with_api_id(view).into_response())
        .ok_or_else(ApiError::not_found)
}

/// `DELETE Call/{uuid}/`: hangs up a live call or cancels a queued one.
pub(super) async fn hang_up(
    State(shared): State<Arc<Shared>>,
    _: LookupCaller,
    Path((_, uuid)): Path<(String, String)>,
) -> Result<StatusCode, ApiError> {
    end(&shared, &uuid, |_| true)
}

/// `DELETE Request/{uuid}/`: cancels a queued call.
pub(super) async fn cancel(
    State(shared): State<Arc<Shared>>,
    _: LookupCaller,
    Path((_, uuid)): Path<(String, String)>,
) -> Result<StatusCode, ApiError> {
    end(&shared, &uuid, |call| call.phase == Phase::Queued)
}

fn end(shared: &Shared, uuid: &str, may_end: fn(&Call) -> bool) -> Result<StatusCode, ApiError> {
    let now = shared.now();
    let mut exchange = shared.exchange();
    let call = exchange
        .ledger
        .call(uuid)
        .filter(|call| may_end(call))
        .ok_or_else(ApiError::not_found)?;
    let hangup = Hangup::of(if call.answered() { 4000 } else { 1000 }).by("API Request");
    if exchange.hang_up(uuid, hangup, now) {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(ApiError::not_found())
    }
}

/// `DELETE Call/`: hangs up every call of the account, with cause 0.
pub(super) async fn hang_up_all(State(shared): State<Arc<Shared>>, _: LookupCaller) -> StatusCode {
    let now = shared.now();
    let mut exchange = shared.exchange();
    let living: Vec<Arc<str>> = exchange
        .ledger
        .living()
        .map(|call| Arc::clone(&call.uuid))
        .collect();
    for uuid in living {
        exchange.hang_up(&uuid, Hangup::of(0), now);
    }
    StatusCode::NO_CONTENT
}

/// `POST Call/{uuid}/`: another document takes over a call in progress.
pub(super) async fn transfer(
    State(shared): State<Arc<Shared>>,
    _: LookupCaller,
    Path((_, uuid)): Path<(String, String)>,
    body: Bytes,
) -> Result<Response, ApiError> {
    let body: Value = serde_json::from_slice(&body)
        .map_err(|_| ApiError::new(StatusCode::BAD_REQUEST, "request body is not JSON"))?;
    let text = |name: &str| body.get(name).and_then(Value::as_str);
    if !matches!(text("legs"), None | Some("aleg" | "both")) {
        return Err(ApiError::new(
            StatusCode::BAD_REQUEST,
            "the simulator's calls have no other leg than aleg",
        ));
    }
    let url = text("aleg_url")
        .filter(|url| is_web_url(url))
        .ok_or_else(|| invalid("aleg_url"))?
        .to_owned();
    let method = parse_method(text("aleg_method")).ok_or_else(|| invalid("aleg_method"))?;
    let exchange = shared.exchange();
    let call = exchange
        .ledger
        .call(&uuid)
        .filter(|call| call.phase == Phase::InProgress)
        .ok_or_else(ApiError::not_found)?;
    call.commands
        .send(Command::Transfer(Callback { url, method }))
        .map_err(|_| ApiError::not_found())?;
    Ok((
        StatusCode::ACCEPTED,
        with_api_id(json!({ "message": "call transferred" })),
    )
        .into_response())
}
