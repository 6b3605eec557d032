//! The body of a Make-Call request: what Plivo reads from it and what it refuses.

use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::Serialize;
use serde_json::{Map, Value};
use url::{Url, form_urlencoded};

use super::options::SimulatorOptions;

/// Longest call that Plivo allows, in seconds: greater limits are cut to it.
pub(super) const LONGEST_CALL_SECONDS: u64 = 86_400;

/// A phone number or SIP address, printed masked; the books show it in full.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Address(String);

impl Address {
    /// The address as it was given.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The number without `+`, or the SIP address as it is.
    pub fn digits(&self) -> &str {
        self.0.strip_prefix('+').unwrap_or(&self.0)
    }

    /// The number with `+`, or the SIP address as it is.
    pub(super) fn with_plus(&self) -> String {
        if self.0.starts_with("sip:") {
            self.0.clone()
        } else {
            format!("+{}", self.digits())
        }
    }

    fn is_callable(&self) -> bool {
        let digits = self.digits();
        self.0.starts_with("sip:")
            || ((7..=15).contains(&digits.len())
                && digits.bytes().all(|byte| byte.is_ascii_digit()))
    }
}

/// Lets maps keyed by addresses be asked with a string.
impl Borrow<str> for Address {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Address {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Address(***)")
    }
}

/// How a webhook is requested.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Method {
    Get,
    #[default]
    Post,
}

impl Method {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
        }
    }
}

/// A callback URL with its method.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Callback {
    pub(super) url: String,
    pub(super) method: Method,
}

/// What to do about answering machines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MachineDetection {
    Continue,
    Hangup,
}

/// A valid Make-Call request.
#[derive(Clone)]
pub(super) struct DialRequest {
    pub(super) from: Address,
    pub(super) to: Address,
    pub(super) answer: Callback,
    pub(super) ring: Option<Callback>,
    pub(super) hangup: Callback,
    pub(super) fallback: Option<Callback>,
    pub(super) machine: Option<Callback>,
    pub(super) machine_detection: Option<MachineDetection>,
    pub(super) caller_name: String,
    pub(super) time_limit: Duration,
    pub(super) ring_timeout: Duration,
    pub(super) hangup_on_ring: Option<Duration>,
    /// `X-PH-` names and values, sent with every webhook.
    pub(super) sip_headers: Vec<(String, String)>,
    /// The query of `answer_url`: the caller's own ids.
    pub(super) params: BTreeMap<String, String>,
}

impl DialRequest {
    /// Reads a request body; fails with the text of Plivo's 400.
    pub(super) fn parse(body: &Value) -> Result<Self, String> {
        let fields = Fields(
            body.as_object()
                .ok_or("request body must be a JSON object")?,
        );
        let from = Address(fields.required("from")?);
        let to = Address(fields.required("to")?);
        let answer = fields
            .callback("answer")?
            .ok_or("answer_url parameter is missing")?;
        if to.as_str().contains('<') {
            return Err(
                "the simulator places one call per request: bulk destinations are refused"
                    .to_owned(),
            );
        }
        if !to.is_callable() {
            return Err("to parameter is invalid".to_owned());
        }
        if from.digits() == to.digits() {
            return Err("from and to parameters must not be the same".to_owned());
        }
        if fields.0.contains_key("callback_url") {
            return Err(
                "the simulator answers every request itself: callback_url is refused".to_owned(),
            );
        }
        let caller_name = fields.text("caller_name")?.unwrap_or_default();
        if caller_name.chars().count() > 50 {
            return Err("caller_name parameter is too long".to_owned());
        }
        let machine_detection = match fields.text("machine_detection")?.as_deref() {
            None | Some("false") => None,
            Some("true") => Some(MachineDetection::Continue),
            Some("hangup") => Some(MachineDetection::Hangup),
            Some(_) => return Err("machine_detection parameter is invalid".to_owned()),
        };
        Ok(Self {
            from,
            to,
            ring: fields.callback("ring")?,
            // Plivo sends the hangup to the answer URL where no hangup URL is given.
            hangup: fields.callback("hangup")?.unwrap_or_else(|| Callback {
                url: answer.url.clone(),
                method: Method::Post,
            }),
            fallback: fields.callback("fallback")?,
            machine: fields.callback("machine_detection")?,
            machine_detection,
            caller_name,
            time_limit: fields
                .seconds("time_limit", 1)?
                .unwrap_or(Duration::from_secs(14_400)),
            ring_timeout: fields
                .seconds("ring_timeout", 0)?
                .unwrap_or(Duration::from_secs(120)),
            hangup_on_ring: fields.seconds("hangup_on_ring", 0)?,
            sip_headers: sip_headers(&fields.text("sip_headers")?.unwrap_or_default())?,
            params: query_of(&answer.url),
            answer,
        })
    }

    /// The addresses of a body that may be no valid request, for the books.
    pub(super) fn addresses(body: &Value) -> (Address, Address, BTreeMap<String, String>) {
        let text = |name: &str| body.get(name).and_then(Value::as_str).unwrap_or_default();
        (
            Address::from(text("from")),
            Address::from(text("to")),
            query_of(text("answer_url")),
        )
    }

    /// Whether the account may call from this number; fails with the text of Plivo's 400.
    pub(super) fn check_caller_id(&self, options: &SimulatorOptions) -> Result<(), String> {
        let from = self.from.digits();
        let listed = |list: &[String]| list.iter().any(|id| id.trim_start_matches('+') == from);
        let number = self.from.with_plus();
        if listed(&options.suspended_caller_ids) {
            return Err(format!(
                "from number {number} cannot place calls as its compliance application is 'suspended'."
            ));
        }
        if listed(&options.pending_caller_ids) {
            return Err(format!(
                "from number {number} cannot place calls as its compliance application is not in 'accepted' status."
            ));
        }
        if !options.caller_ids.is_empty() && !listed(&options.caller_ids) {
            return Err(format!(
                "from parameter is invalid. {number} is not associated with your account."
            ));
        }
        Ok(())
    }
}

/// The pairs of a URL's query; of several with one name, the last.
fn query_of(url: &str) -> BTreeMap<String, String> {
    let without_fragment = url.split_once('#').map_or(url, |(before, _)| before);
    let query = without_fragment
        .split_once('?')
        .map_or("", |(_, query)| query);
    form_urlencoded::parse(query.as_bytes())
        .into_owned()
        .collect()
}

/// `k1=v1,k2=v2`; names are alphanumeric, values may also hold `%`.
fn sip_headers(text: &str) -> Result<Vec<(String, String)>, String> {
    let plain = |part: &str, extra: &[u8]| {
        !part.is_empty()
            && part
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || extra.contains(&byte))
    };
    text.split(',')
        .filter(|pair| !pair.is_empty())
        .map(|pair| match pair.split_once('=') {
            Some((name, value)) if plain(name, b"") && plain(value, b"%") => {
                Ok((format!("X-PH-{name}"), value.to_owned()))
            }
            _ => Err("sip_headers parameter is invalid".to_owned()),
        })
        .collect()
}

/// Whether a URL can be called back.
pub(super) fn is_web_url(url: &str) -> bool {
    Url::parse(url)
        .is_ok_and(|parsed| matches!(parsed.scheme(), "http" | "https") && parsed.has_host())
}

/// Typed reading of the fields; SDKs send numbers and booleans both bare and as strings.
struct Fields<'a>(&'a Map<String, Value>);

impl Fields<'_> {
    fn text(&self, name: &str) -> Result<Option<String>, String> {
        match self.0.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) if text.is_empty() => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(Value::Number(number)) => Ok(Some(number.to_string())),
            Some(Value::Bool(flag)) => Ok(Some(flag.to_string())),
            Some(Value::Array(_) | Value::Object(_)) => Err(format!("{name} parameter is invalid")),
        }
    }

    fn required(&self, name: &str) -> Result<String, String> {
        self.text(name)?
            .ok_or_else(|| format!("{name} parameter is missing"))
    }

    fn seconds(&self, name: &str, least: u64) -> Result<Option<Duration>, String> {
        let Some(text) = self.text(name)? else {
            return Ok(None);
        };
        match text.parse::<u64>() {
            Ok(seconds) if seconds >= least => {
                Ok(Some(Duration::from_secs(seconds.min(LONGEST_CALL_SECONDS))))
            }
            _ => Err(format!("{name} parameter is invalid")),
        }
    }

    fn callback(&self, event: &str) -> Result<Option<Callback>, String> {
        let name = format!("{event}_url");
        let Some(url) = self.text(&name)? else {
            return Ok(None);
        };
        if !is_web_url(&url) {
            return Err(format!("{name} parameter is invalid"));
        }
        let method_name = format!("{event}_method");
        let method = parse_method(self.text(&method_name)?.as_deref())
            .ok_or_else(|| format!("{method_name} parameter is invalid"))?;
        Ok(Some(Callback { url, method }))
    }
}

/// `GET` or `POST`, the default; none for anything else.
pub(super) fn parse_method(text: Option<&str>) -> Option<Method> {
    match text {
        None => Some(Method::default()),
        Some(text) if text.eq_ignore_ascii_case("POST") => Some(Method::Post),
        Some(text) if text.eq_ignore_ascii_case("GET") => Some(Method::Get),
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn refusal(body: &Value) -> String {
        DialRequest::parse(body).map(|_| ()).unwrap_err()
    }

    fn body() -> Value {
        json!({"from": "+15550100001", "to": "15550100002", "answer_url": "https://example.com/a?call=c1&dial=d1#rc=5"})
    }

    fn with(name: &str, value: Value) -> Value {
        let mut body = body();
        body[name] = value;
        body
    }

    #[test]
    fn the_three_required_fields_are_required() {
        for name in ["from", "to", "answer_url"] {
            assert_eq!(
                refusal(&with(name, Value::Null)),
                format!("{name} parameter is missing")
            );
            assert_eq!(
                refusal(&with(name, json!(""))),
                format!("{name} parameter is missing")
            );
        }
        refusal(&json!([]));
    }

    #[test]
    fn defaults_are_plivos() {
        let request = DialRequest::parse(&body()).unwrap();
        assert_eq!(request.ring_timeout, Duration::from_secs(120));
        assert_eq!(request.time_limit, Duration::from_secs(14_400));
        assert!(request.ring.is_none() && request.machine_detection.is_none());
        assert!(request.hangup == request.answer);
        assert_eq!(request.params["call"], "c1");
        assert_eq!(request.params["dial"], "d1");
    }

    #[test]
    fn numbers_may_be_strings_and_flags_may_be_bare() {
        let request = DialRequest::parse(&with("ring_timeout", json!("45"))).unwrap();
        assert_eq!(request.ring_timeout, Duration::from_secs(45));
        let request = DialRequest::parse(&with("machine_detection", json!(true))).unwrap();
        assert_eq!(request.machine_detection, Some(MachineDetection::Continue));
    }

    #[test]
    fn what_plivo_refuses_is_refused() {
        for (name, value) in [
            ("to", json!("+15550100001")),
            ("to", json!("15550100002<15550100003")),
            ("to", json!("12")),
            ("to", json!("not a number")),
            ("answer_url", json!("ftp://example.com")),
            ("answer_url", json!("/relative")),
            ("answer_method", json!("PUT")),
            ("hangup_url", json!({})),
            ("time_limit", json!(0)),
            ("ring_timeout", json!(-1)),
            ("ring_timeout", json!("soon")),
            ("machine_detection", json!("maybe")),
            ("caller_name", json!("x".repeat(51))),
            ("sip_headers", json!("a b=c")),
            ("callback_url", json!("https://example.com/async")),
        ] {
            refusal(&with(name, value));
        }
    }

    #[test]
    fn caller_ids_are_checked_with_or_without_plus() {
        let request = DialRequest::parse(&body()).unwrap();
        let check = |change: fn(&mut SimulatorOptions)| {
            let mut options = SimulatorOptions::default();
            change(&mut options);
            request.check_caller_id(&options)
        };
        assert!(check(|_| {}).is_ok());
        assert!(check(|options| options.caller_ids = vec!["15550100001".to_owned()]).is_ok());
        let unknown =
            check(|options| options.caller_ids = vec!["+15550100009".to_owned()]).unwrap_err();
        assert!(unknown.starts_with("from parameter is invalid."));
        let pending = check(|options| options.pending_caller_ids = vec!["+15550100001".to_owned()])
            .unwrap_err();
        assert!(pending.contains("'accepted'"));
        let suspended =
            check(|options| options.suspended_caller_ids = vec!["15550100001".to_owned()])
                .unwrap_err();
        assert!(suspended.contains("'suspended'"));
    }

    #[test]
    fn sip_headers_become_parameters() {
        assert_eq!(
            sip_headers("k1=v1,k2=v%20").unwrap(),
            [
                ("X-PH-k1".to_owned(), "v1".to_owned()),
                ("X-PH-k2".to_owned(), "v%20".to_owned())
            ]
        );
    }
}
