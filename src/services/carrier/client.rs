//! Plivo's Call API. Nothing here retries: whether asking again is safe is for the callers to know.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use reqwest::{Method, Response, StatusCode};
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;

use super::plivo_dial;
use super::plivo_event;
use super::sealed_body::SealedBody;
use super::{CallRecord, DialError, DialRequest, LiveCall, LookupError, Sighting};
use crate::config;
use crate::domain::phone::PhoneNumber;

/// How long the carrier may take to answer.
const ANSWER_TIME: Duration = Duration::from_secs(10);
/// How long connecting may take.
const CONNECT_TIME: Duration = Duration::from_secs(3);
/// Connections are not used again after so long: one that the carrier closes just then would make a dial ambiguous.
const IDLE_TIME: Duration = Duration::from_secs(15);
/// The system gives a connection up when what was sent on it is not confirmed for so long: bytes of a dial request that
/// left us must not arrive much later, when the campaign was paused or the call given up.
#[cfg(target_os = "linux")]
const UNHEARD_TIME: Duration = Duration::from_secs(2);
/// Questions are at least so far apart: 200 in 5 s of the 300 requests that Plivo allows, the rest is for dialing and hanging up.
const BETWEEN_QUESTIONS: Duration = Duration::from_millis(25);

/// A client of one Plivo account.
#[derive(Debug, Clone)]
pub struct PlivoClient {
    http: reqwest::Client,
    account: String,
    auth_id: String,
    token: SecretString,
    /// When the next question may be asked.
    next_question: Arc<Mutex<Instant>>,
}

impl PlivoClient {
    /// A client with the account of `settings`.
    ///
    /// # Errors
    /// When the HTTP client cannot be built.
    pub fn new(settings: &config::Carrier) -> Result<Self, reqwest::Error> {
        let builder = reqwest::Client::builder();
        // Where the system has it; elsewhere a dead network is noticed by ANSWER_TIME only.
        #[cfg(target_os = "linux")]
        let builder = builder.tcp_user_timeout(UNHEARD_TIME);
        let http = builder
            .connect_timeout(CONNECT_TIME)
            .timeout(ANSWER_TIME)
            .retry(reqwest::retry::never())
            .redirect(reqwest::redirect::Policy::none())
            .http1_only()
            .pool_max_idle_per_host(32)
            .pool_idle_timeout(IDLE_TIME)
            .user_agent(concat!("ringmaster/", env!("CARGO_PKG_VERSION")))
            .build()?;
        let auth_id = settings.auth_id.clone().unwrap_or_default();
        let base = settings.api_base.as_str().trim_end_matches('/');
        Ok(Self {
            http,
            account: format!("{base}/v1/Account/{auth_id}"),
            auth_id,
            next_question: Arc::new(Mutex::new(Instant::now())),
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
        let (body, seal) =
            SealedBody::new(plivo_dial::body(request).to_string().into_bytes(), deadline);
        let sent = self
            .request(Method::POST, "/Call/")
            .header(reqwest::header::CONTENT_TYPE, "application/json")
            .body(reqwest::Body::wrap(body))
            .send()
            .await;
        let response = match sent {
            Ok(response) => response,
            Err(error) if !seal.is_broken() => {
                return Err(if error.is_connect() {
                    DialError::NotSent("no connection")
                } else {
                    DialError::Late
                });
            }
            Err(error) if error.is_timeout() => return Err(DialError::Ambiguous("time-out")),
            Err(_) => return Err(DialError::Ambiguous("connection lost")),
        };
        plivo_dial::answer(response).await
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

    /// Waits for the turn of a question.
    async fn turn(&self) {
        let at = {
            let mut next = self
                .next_question
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            let at = (*next).max(Instant::now());
            *next = at + BETWEEN_QUESTIONS;
            at
        };
        tokio::time::sleep_until(at.into()).await;
    }

    /// The JSON answer; `None` for 404.
    async fn get(&self, path: &str, query: &[(&str, &str)]) -> Result<Option<Value>, LookupError> {
        self.turn().await;
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
    let text = |name: &str| value.get(name).and_then(Value::as_str).unwrap_or_default();
    let digits = |name: &str| text(name).trim_start_matches('+').to_owned();
    let call_uuid = Some(text("call_uuid")).filter(|known| !known.is_empty());
    LiveCall {
        call_uuid: call_uuid.unwrap_or(uuid).to_owned(),
        in_progress: text("call_status") == "in-progress",
        from: digits("from"),
        to: digits("to"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
