//! Plivo's dial request: what it says, and what its answer means.

use std::time::Duration;

use reqwest::{Response, StatusCode};
use serde_json::{Value, json};
use url::Url;

use super::{DialError, DialRequest};
use crate::domain::campaign::MachineDetection;

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

/// The request's body.
pub(super) fn body(request: &DialRequest) -> Value {
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

/// What the carrier's answer means.
pub(super) async fn answer(response: Response) -> Result<String, DialError> {
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
