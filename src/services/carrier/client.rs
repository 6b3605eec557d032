//! Plivo's Call API. Nothing here retries: whether asking again is safe is for the callers to know.

use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use reqwest::{Method, Response, StatusCode};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};
use url::Url;

use super::plivo_event;
use super::sealed_body::SealedBody;
use super::{CallRecord, DialError, DialRequest, LiveCall, LookupError, Sighting};
use crate::config;
use crate::domain::campaign::MachineDetection;
use crate::domain::phone::PhoneNumber;

/// How long the carrier may take to answer.
const ANSWER_TIME: Duration = Duration::from_secs(10);
/// How long connecting may take.
const CONNECT_TIME: Duration = Duration::from_secs(3);
/// Plivo's own defaults retry no 5xx (REFERENCE section 0, 3): ask for five retries of time-outs and 5xx.
const CALLBACK_RETRIES: &str = "rc=5&rp=ct,rt,5xx";

/// The addresses that one dial is called back at. Each carries our ids, so that a webhook finds its call even when the
/// carrier's answer to the dial request was lost.
#[derive(Debug, Clone)]
pub struct CallbackUrls {
    base: Url,
    query: String,
}

impl CallbackUrls {
    /// The addresses under `base`, with `parameters` of `[A-Za-z0-9_-]` only (the signature's common subset, REFERENCE section 4).
    #[must_use]
    pub fn new(base: &Url, parameters: &[(&str, String)]) -> Self {
        let query = parameters
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect::<Vec<_>>()
            .join("&");
        Self {
            base: base.clone(),
            query,
        }
    }

    fn url(&self, hook: &str) -> String {
        let base = self.base.as_str().trim_end_matches('/');
        format!("{base}/plivo/{hook}?{}#{CALLBACK_RETRIES}", self.query)
    }
}

/// A client of one Plivo account.
#[derive(Debug, Clone)]
pub struct PlivoClient {
    http: reqwest::Client,
    account: String,
    auth_id: String,
    token: SecretString,
}

impl PlivoClient {
    /// A client with the account of `settings`.
    ///
    /// # Errors
    /// When the HTTP client cannot be built.
    pub fn new(settings: &config::Carrier) -> Result<Self, reqwest::Error> {
        let http = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIME)
            .timeout(ANSWER_TIME)
            .retry(reqwest::retry::never())
            .redirect(reqwest::redirect::Policy::none())
            .http1_only()
            .pool_max_idle_per_host(32)
            .user_agent(concat!("ringmaster/", env!("CARGO_PKG_VERSION")))
            .build()?;
        let auth_id = settings.auth_id.clone().unwrap_or_default();
        let base = settings.api_base.as_str().trim_end_matches('/');
        Ok(Self {
            http,
            account: format!("{base}/v1/Account/{auth_id}"),
            auth_id,
            token: settings
                .auth_tokens
                .first()
                .cloned()
                .unwrap_or_else(|| SecretString::from(String::new())),
        })
    }

    /// Asks the carrier to dial; answers its id of the request. The request's body leaves before `deadline` or not at all.
    ///
    /// # Errors
    /// A [`DialError`] that says whether the carrier may have dialed.
    pub async fn dial(
        &self,
        request: &DialRequest,
        deadline: Instant,
    ) -> Result<String, DialError> {
        let (body, seal) = SealedBody::new(dial_body(request).to_string().into_bytes(), deadline);
        let sent = self
            .request(Method::POST, "/Call/")
            .header(reqwest::header::CONTENT_TYPE, "application/json")
            .body(reqwest::Body::wrap(body))
            .send()
            .await;
        let response = match sent {
            Ok(response) => response,
            Err(_) if !seal.is_broken() => {
                return Err(DialError::NotSent("no connection, or not in time"));
            }
            Err(error) if error.is_timeout() => return Err(DialError::Ambiguous("time-out")),
            Err(_) => return Err(DialError::Ambiguous("connection lost")),
        };
        dial_answer(response).await
    }

    /// Hangs up a live call, or cancels a queued one. True when the carrier did, false when it knows of none.
    ///
    /// # Errors
    /// When the carrier cannot be asked.
    pub async fn hang_up(&self, uuid: &str) -> Result<bool, LookupError> {
        // With an empty id this request would hang up every live call of the account (REFERENCE section 0, 2).
        let Some(path) = call_path(uuid) else {
            return Ok(false);
        };
        let response = self.send(self.request(Method::DELETE, &path)).await?;
        match response.status() {
            status if status.is_success() => Ok(true),
            StatusCode::NOT_FOUND => Ok(false),
            status => Err(refusal(status)),
        }
    }

    /// What the carrier knows of the call `uuid`. Asked in the order of a call's life (queued, live, ended), so that a call
    /// that moves on between two questions is not missed.
    ///
    /// # Errors
    /// When the carrier cannot be asked.
    pub async fn look_up(&self, uuid: &str) -> Result<Sighting, LookupError> {
        let Some(path) = call_path(uuid) else {
            return Ok(Sighting::Nothing);
        };
        if let Some(queued) = self.get(&path, &[("status", "queued")]).await? {
            return Ok(Sighting::Queued(live_call(&queued, uuid)));
        }
        if let Some(live) = self.get(&path, &[("status", "live")]).await? {
            return Ok(Sighting::Live(live_call(&live, uuid)));
        }
        match self.get(&path, &[]).await? {
            None => Ok(Sighting::Nothing),
            Some(record) => Ok(Sighting::Ended(Box::new(readable(&record)?))),
        }
    }

    /// The ids of all live (`queued` = false) or queued calls, of one destination where given.
    ///
    /// # Errors
    /// When the carrier cannot be asked.
    pub async fn list_live(
        &self,
        queued: bool,
        to: Option<&PhoneNumber>,
    ) -> Result<Vec<String>, LookupError> {
        const PAGE: usize = 20;
        let mut uuids: Vec<String> = Vec::new();
        loop {
            let offset = uuids.len().to_string();
            let status = if queued { "queued" } else { "live" };
            let mut query = vec![
                ("status", status),
                ("limit", "20"),
                ("offset", offset.as_str()),
            ];
            if let Some(to) = to {
                query.push(("to_number", to.digits()));
            }
            let page = self.listed(&query, "calls").await?;
            let page: Vec<&str> = page.iter().filter_map(Value::as_str).collect();
            let known = uuids.len();
            for uuid in &page {
                if !uuids.iter().any(|known| known == uuid) {
                    uuids.push((*uuid).to_owned());
                }
            }
            // A page without news means that the carrier does not page this list.
            if page.len() < PAGE || uuids.len() == known {
                return Ok(uuids);
            }
        }
    }

    /// The records of calls to `to` that ended after `since`.
    ///
    /// # Errors
    /// When the carrier cannot be asked.
    pub async fn records_to(
        &self,
        to: &PhoneNumber,
        since: DateTime<Utc>,
    ) -> Result<Vec<CallRecord>, LookupError> {
        let since = since.format("%Y-%m-%d %H:%M:%S").to_string();
        let query = [
            ("to_number", to.digits()),
            ("end_time__gte", since.as_str()),
            ("limit", "20"),
        ];
        let records = self.listed(&query, "objects").await?;
        records.iter().map(readable).collect()
    }

    /// The array `name` of a list. An answer without it is no answer: "nothing there" must be said, not guessed.
    async fn listed(&self, query: &[(&str, &str)], name: &str) -> Result<Vec<Value>, LookupError> {
        let answer = self.get("/Call/", query).await?;
        let items = answer
            .as_ref()
            .and_then(|answer| answer.get(name)?.as_array());
        items.cloned().ok_or(LookupError::Unavailable("not a list"))
    }

    fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.account));
        request.basic_auth(&self.auth_id, Some(self.token.expose_secret()))
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Result<Response, LookupError> {
        request.send().await.map_err(|error| {
            LookupError::Unavailable(if error.is_timeout() {
                "time-out"
            } else {
                "no connection"
            })
        })
    }

    /// The JSON answer; `None` for 404.
    async fn get(&self, path: &str, query: &[(&str, &str)]) -> Result<Option<Value>, LookupError> {
        let response = self
            .send(self.request(Method::GET, path).query(query))
            .await?;
        match response.status() {
            StatusCode::NOT_FOUND => Ok(None),
            status if status.is_success() => response
                .json()
                .await
                .map(Some)
                .map_err(|_| LookupError::Unavailable("not JSON")),
            status => Err(refusal(status)),
        }
    }
}

fn refusal(status: StatusCode) -> LookupError {
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => LookupError::Unauthorized,
        StatusCode::TOO_MANY_REQUESTS => LookupError::Unavailable("throttled"),
        status if status.is_server_error() => LookupError::Unavailable("server error"),
        _ => LookupError::Unavailable("unexpected status"),
    }
}

/// The path of one call; `None` for anything that could mean another path.
fn call_path(uuid: &str) -> Option<String> {
    let is_plain = !uuid.is_empty()
        && uuid
            .chars()
            .all(|char| char.is_ascii_alphanumeric() || char == '-' || char == '_');
    is_plain.then(|| format!("/Call/{uuid}/"))
}

fn readable(record: &Value) -> Result<CallRecord, LookupError> {
    plivo_event::call_record(record).ok_or(LookupError::Unavailable("a record that cannot be read"))
}

fn live_call(value: &Value, uuid: &str) -> LiveCall {
    let text = |name: &str| value.get(name).and_then(Value::as_str).map(str::to_owned);
    LiveCall {
        call_uuid: text("call_uuid").unwrap_or_else(|| uuid.to_owned()),
        in_progress: text("call_status").as_deref() == Some("in-progress"),
        from: text("from")
            .unwrap_or_default()
            .trim_start_matches('+')
            .to_owned(),
    }
}

fn dial_body(request: &DialRequest) -> Value {
    let urls = &request.callbacks;
    let mut body = json!({
        "from": request.from.as_str(),
        "to": request.to.as_str(),
        "answer_url": urls.url("answer-url"),
        "answer_method": "POST",
        "ring_url": urls.url("ring-url"),
        "ring_method": "POST",
        // Without it Plivo sends the hangup to answer_url.
        "hangup_url": urls.url("hangup-url"),
        "hangup_method": "POST",
        "fallback_url": urls.url("fallback-url"),
        "fallback_method": "POST",
    });
    if let Some(detection) = request.machine_detection {
        body["machine_detection"] = match detection {
            MachineDetection::Continue => "true".into(),
            MachineDetection::Hangup => "hangup".into(),
        };
        body["machine_detection_url"] = urls.url("machine-url").into();
        body["machine_detection_method"] = "POST".into();
    }
    if let Some(limit) = request.time_limit_s {
        body["time_limit"] = limit.into();
    }
    if let Some(timeout) = request.ring_timeout_s {
        body["ring_timeout"] = timeout.into();
    }
    body
}

async fn dial_answer(response: Response) -> Result<String, DialError> {
    let status = response.status();
    if status.is_server_error() {
        return Err(DialError::Ambiguous("server error"));
    }
    if status == StatusCode::TOO_MANY_REQUESTS {
        let seconds = response
            .headers()
            .get(reqwest::header::RETRY_AFTER)
            .and_then(|value| value.to_str().ok()?.parse().ok());
        return Err(DialError::Throttled {
            retry_after: seconds.map(Duration::from_secs),
        });
    }
    let body = response.bytes().await;
    if status.is_success() {
        let answer: Value = body
            .ok()
            .and_then(|body| serde_json::from_slice(&body).ok())
            .unwrap_or_default();
        return request_uuid(&answer).ok_or(DialError::Ambiguous("accepted without an id"));
    }
    let text = body
        .map(|body| String::from_utf8_lossy(&body).to_lowercase())
        .unwrap_or_default();
    Err(refused(status.as_u16(), &text))
}

/// Plivo answers one id as a text, several (bulk) as an array.
fn request_uuid(answer: &Value) -> Option<String> {
    let id = answer.get("request_uuid")?;
    let id = id.as_array().map_or(Some(id), |ids| ids.first())?;
    id.as_str().filter(|id| !id.is_empty()).map(str::to_owned)
}

/// What a 4xx answer (its text in lower case) means. The texts are Plivo's (REFERENCE section 1, errors).
fn refused(status: u16, text: &str) -> DialError {
    let says = |words: &str| text.contains(words);
    match status {
        401 => DialError::Condemned("the carrier refuses our credentials"),
        402 => DialError::Condemned("the carrier account has no credit"),
        403 if says("concurren") => DialError::Throttled { retry_after: None },
        403 if says("credit") || says("balance") => {
            DialError::Condemned("the carrier account has no credit")
        }
        404 | 405 => {
            DialError::Condemned("the carrier does not know our account or its address is wrong")
        }
        400 if says("from parameter") || says("from number") || says("caller id") => {
            DialError::Condemned("the carrier refuses the caller ID")
        }
        400 if says("answer_url") || says("ring_url") || says("hangup_url") => {
            DialError::Condemned("the carrier refuses our callback address")
        }
        status => DialError::Refused {
            status,
            destination: says("to parameter") || says("destination") || says("to number"),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_read_for_what_it_condemns() {
        assert_eq!(
            refused(401, "unauthorized"),
            DialError::Condemned("the carrier refuses our credentials")
        );
        assert!(matches!(
            refused(
                400,
                "from parameter is invalid. it is not associated with your account"
            ),
            DialError::Condemned(_)
        ));
        assert_eq!(
            refused(403, "concurrency limit breached"),
            DialError::Throttled { retry_after: None }
        );
        assert_eq!(
            refused(400, "to parameter is invalid"),
            DialError::Refused {
                status: 400,
                destination: true
            }
        );
        assert_eq!(
            refused(403, "geo permission"),
            DialError::Refused {
                status: 403,
                destination: false
            }
        );
    }

    #[test]
    fn an_id_that_is_not_plain_never_becomes_a_path() {
        for uuid in ["", "/", "..", "a/b", "a?b", "é"] {
            assert_eq!(call_path(uuid), None, "{uuid}");
        }
        assert_eq!(
            call_path("9834029e-58b6").as_deref(),
            Some("/Call/9834029e-58b6/")
        );
    }

    #[test]
    fn one_id_or_the_first_of_many() {
        assert_eq!(
            request_uuid(&json!({"request_uuid": "a"})).as_deref(),
            Some("a")
        );
        assert_eq!(
            request_uuid(&json!({"request_uuid": ["a", "b"]})).as_deref(),
            Some("a")
        );
        for none in [
            json!({}),
            json!({"request_uuid": ""}),
            json!({"request_uuid": []}),
            json!({"request_uuid": 7}),
        ] {
            assert_eq!(request_uuid(&none), None);
        }
    }
}
