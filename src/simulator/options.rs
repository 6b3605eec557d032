//! What the simulated carrier does, how fast, and what it does wrong: the options and their rules.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use rand::RngExt as _;
use rand::rngs::StdRng;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::faults::{DialFaults, LookupFaults, WebhookFaults};
use super::outcomes::{Outcome, OutcomeMix};

/// Longest duration that options may ask for, in milliseconds.
const LONGEST_MS: u64 = 86_400_000;

/// Everything that can be chosen about a [`Simulator`](super::Simulator). Every field has a default, unknown fields are
/// refused, durations are in milliseconds.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct SimulatorOptions {
    /// The account's auth id: user name of Basic auth and part of every path.
    pub auth_id: String,
    /// The account's active auth tokens: each is accepted, and webhooks are signed with all of them.
    pub auth_tokens: Vec<String>,
    /// Numbers that the account rents; empty accepts any caller id.
    pub caller_ids: Vec<String>,
    /// Caller ids refused because their compliance application is not accepted (India).
    pub pending_caller_ids: Vec<String>,
    /// Caller ids refused because they are suspended (India).
    pub suspended_caller_ids: Vec<String>,
    /// Calls started per second; requests above it are accepted and queued. 0 means no limit.
    pub cps: u32,
    /// How many API requests of any kind are allowed in a time; above it they get 429.
    pub api_limit: ApiLimit,
    /// Calls that may ring or talk at once (India's limit): above it 403, or cause 5030 for a queued call.
    pub concurrency_limit: Option<usize>,
    /// The account has no credit: every call ends with cause 1010 before it rings.
    pub out_of_credit: bool,
    /// Seed of every random choice; none draws a new one at each start.
    pub seed: Option<u64>,
    /// Weights of what becomes of a call.
    pub outcome_mix: OutcomeMix,
    /// What becomes of calls to a number (with or without `+`); wins over the mix.
    pub outcome_by_number: BTreeMap<String, Outcome>,
    /// From the start of a call to its ringing (or to its failure, where it never rings).
    pub ring_delay_ms: MsRange,
    /// Ringing until the callee answers or declines, or the network gives up.
    pub ring_duration_ms: MsRange,
    /// Talking until the callee hangs up.
    pub talk_duration_ms: MsRange,
    /// From answer to the verdict that a machine answered.
    pub machine_detection_ms: MsRange,
    /// Offset of the account's time zone from UTC, in minutes: webhooks and CDRs speak local time.
    pub utc_offset_minutes: i32,
    /// `CountryCode` of answer webhooks.
    pub country_code: String,
    /// Price of a started minute.
    pub bill_rate: f64,
    /// From the end of a call to its detail record.
    pub cdr_delay_ms: u64,
    /// Pause before a webhook is retried (Plivo's is unknown).
    pub webhook_retry_spacing_ms: u64,
    /// Whether a call cancelled in the queue sends a hangup webhook (unknown for Plivo).
    pub hangup_webhook_for_queued: bool,
    /// What goes wrong with webhooks.
    pub webhook_faults: WebhookFaults,
    /// What goes wrong with dial requests.
    pub dial_faults: DialFaults,
    /// What goes wrong with every other API request.
    pub lookup_faults: LookupFaults,
}

impl SimulatorOptions {
    /// The token of an account for which none was chosen. It opens nothing but a simulator.
    pub const DEFAULT_TOKEN: &str = "simulator-auth-token";
}

impl Default for SimulatorOptions {
    fn default() -> Self {
        Self {
            auth_id: "MASIMULATOR000000000".to_owned(),
            auth_tokens: vec![Self::DEFAULT_TOKEN.to_owned()],
            caller_ids: Vec::new(),
            pending_caller_ids: Vec::new(),
            suspended_caller_ids: Vec::new(),
            cps: 2,
            api_limit: ApiLimit::default(),
            concurrency_limit: None,
            out_of_credit: false,
            seed: None,
            outcome_mix: OutcomeMix::default(),
            outcome_by_number: BTreeMap::new(),
            ring_delay_ms: MsRange { min: 100, max: 500 },
            ring_duration_ms: MsRange {
                min: 1_000,
                max: 4_000,
            },
            talk_duration_ms: MsRange {
                min: 2_000,
                max: 8_000,
            },
            machine_detection_ms: MsRange {
                min: 500,
                max: 1_500,
            },
            utc_offset_minutes: 330,
            country_code: "IN".to_owned(),
            bill_rate: 0.005,
            cdr_delay_ms: 2_000,
            webhook_retry_spacing_ms: 500,
            hangup_webhook_for_queued: true,
            webhook_faults: WebhookFaults::default(),
            dial_faults: DialFaults::default(),
            lookup_faults: LookupFaults::default(),
        }
    }
}

/// Prints no field: the options hold tokens and phone numbers.
impl fmt::Debug for SimulatorOptions {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("SimulatorOptions")
            .finish_non_exhaustive()
    }
}

/// Why options were refused; names the field and never its value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct OptionsError(String);

impl OptionsError {
    pub(super) fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

impl SimulatorOptions {
    /// These options with the fields of `patch` changed, as a JSON merge patch (RFC 7396): nested objects are merged and
    /// null resets a field to its default. Fails with the reason, and changes nothing, if the result is not valid.
    pub fn patched(&self, patch: &Value) -> Result<Self, OptionsError> {
        let mut merged =
            serde_json::to_value(self).map_err(|error| OptionsError::new(error.to_string()))?;
        merge(&mut merged, patch);
        let options: Self = serde_path_to_error::deserialize(merged)
            .map_err(|error| OptionsError::new(error.to_string()))?;
        options.validate()?;
        Ok(options)
    }

    /// Checks every rule that the types do not express.
    pub fn validate(&self) -> Result<(), OptionsError> {
        if self.auth_id.is_empty() || self.auth_id.contains([':', '/']) {
            return Err(OptionsError::new(
                "authId must be a non-empty name without ':' and '/'",
            ));
        }
        if self.auth_tokens.is_empty() || self.auth_tokens.iter().any(String::is_empty) {
            return Err(OptionsError::new(
                "authTokens must name at least one token, none empty",
            ));
        }
        for (field, range) in [
            ("ringDelayMs", self.ring_delay_ms),
            ("ringDurationMs", self.ring_duration_ms),
            ("talkDurationMs", self.talk_duration_ms),
            ("machineDetectionMs", self.machine_detection_ms),
        ] {
            range.validate(field)?;
        }
        if self.cdr_delay_ms > LONGEST_MS {
            return Err(OptionsError::new("cdrDelayMs must be at most a day"));
        }
        if self.utc_offset_minutes.abs() > 14 * 60 {
            return Err(OptionsError::new(
                "utcOffsetMinutes must be within 14 hours",
            ));
        }
        if !(0.0..=100.0).contains(&self.bill_rate) {
            return Err(OptionsError::new("billRate must be from 0 to 100"));
        }
        if self
            .outcome_by_number
            .values()
            .any(|outcome| !outcome.is_known())
        {
            return Err(OptionsError::new(
                "outcomeByNumber names a hangup cause code that Plivo does not have",
            ));
        }
        self.outcome_mix.validate()?;
        self.webhook_faults.validate()?;
        self.dial_faults.validate()?;
        self.lookup_faults.validate()
    }

    /// The outcome chosen for a destination, if one was (digits only, without `+`).
    pub(super) fn outcome_for(&self, digits: &str) -> Option<Outcome> {
        self.outcome_by_number
            .get(digits)
            .or_else(|| self.outcome_by_number.get(&format!("+{digits}")))
            .copied()
    }
}

/// RFC 7396, with the difference that the defaults fill in what null removed (through serde's `default`).
fn merge(target: &mut Value, patch: &Value) {
    match (target, patch) {
        (Value::Object(target), Value::Object(patch)) => {
            for (key, value) in patch {
                if value.is_null() {
                    target.remove(key);
                } else {
                    merge(target.entry(key.clone()).or_insert(Value::Null), value);
                }
            }
        }
        (target, patch) => *target = patch.clone(),
    }
}

/// A span of milliseconds from which a duration is drawn evenly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MsRange {
    /// Shortest, in milliseconds.
    pub min: u64,
    /// Longest, in milliseconds; not less than `min`.
    pub max: u64,
}

impl MsRange {
    /// Always the same duration, in milliseconds.
    pub const fn exactly(ms: u64) -> Self {
        Self { min: ms, max: ms }
    }

    pub(super) fn validate(self, field: &str) -> Result<(), OptionsError> {
        if self.min > self.max {
            return Err(OptionsError::new(format!(
                "{field}.min must not be greater than {field}.max"
            )));
        }
        if self.max > LONGEST_MS {
            return Err(OptionsError::new(format!(
                "{field}.max must be at most a day"
            )));
        }
        Ok(())
    }

    pub(super) fn draw(self, rng: &mut StdRng) -> Duration {
        Duration::from_millis(rng.random_range(self.min..=self.max))
    }
}

/// The API's rate limit: Plivo allows 300 requests in 5 seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ApiLimit {
    /// Requests allowed in any window; 0 means no limit.
    pub requests: usize,
    /// Length of the sliding window in milliseconds.
    pub window_ms: u64,
}

impl Default for ApiLimit {
    fn default() -> Self {
        Self {
            requests: 300,
            window_ms: 5_000,
        }
    }
}
