//! What can go wrong at the carrier, by probability or for the next few times.

use std::time::Duration;

use rand::RngExt as _;
use rand::rngs::StdRng;
use serde::{Deserialize, Serialize};

use super::options::{MsRange, OptionsError};
use super::webhooks::EventKind;

/// When one thing goes wrong: the next `next` times for certain, after those with a probability.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Fault {
    /// From 0 (never) to 1 (always).
    pub probability: f64,
    /// How many of the next occasions fail for certain; counts down.
    pub next: u32,
}

impl Fault {
    /// It always goes wrong.
    pub const ALWAYS: Self = Self {
        probability: 1.0,
        next: 0,
    };

    /// It goes wrong this many times, then never again.
    pub const fn next(times: u32) -> Self {
        Self {
            probability: 0.0,
            next: times,
        }
    }

    /// Whether it goes wrong this time.
    pub(super) fn strikes(&mut self, rng: &mut StdRng) -> bool {
        if self.next > 0 {
            self.next -= 1;
            return true;
        }
        self.probability > 0.0 && rng.random_bool(self.probability)
    }

    fn validate(self, field: &str) -> Result<(), OptionsError> {
        if !(0.0..=1.0).contains(&self.probability) {
            return Err(OptionsError::new(format!(
                "{field}.probability must be from 0 to 1"
            )));
        }
        Ok(())
    }
}

/// Faults of dial requests. "Before" leaves no call behind, "after" leaves one that the client was not told of.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct DialFaults {
    /// 429, no call.
    pub too_many_requests: Fault,
    /// `Retry-After` of those 429 in seconds; none sends no such header (what Plivo does is unknown).
    pub retry_after_seconds: Option<u64>,
    /// 403 for want of a geo permission, no call.
    pub forbidden: Fault,
    /// A 5xx, no call.
    pub error_before: Fault,
    /// A 5xx, yet the call goes on.
    pub error_after: Fault,
    /// Status of both kinds of 5xx.
    pub error_status: u16,
    /// No answer for `hold_ms`, then the connection is closed; the call goes on.
    pub timeout_after: Fault,
    /// How long a time-out holds the request, in milliseconds.
    pub hold_ms: u64,
    /// The connection is reset, no call.
    pub reset_before: Fault,
    /// The connection is reset, yet the call goes on.
    pub reset_after: Fault,
    /// The request is taken and waits `slow_ms` before it is carried out, even if the client has gone meanwhile.
    pub slow_before: Fault,
    /// The request is carried out at once and its answer takes `slow_ms`.
    pub slow_after: Fault,
    /// How slow the slow ones are, in milliseconds.
    pub slow_ms: u64,
}

impl Default for DialFaults {
    fn default() -> Self {
        Self {
            too_many_requests: Fault::default(),
            retry_after_seconds: None,
            forbidden: Fault::default(),
            error_before: Fault::default(),
            error_after: Fault::default(),
            error_status: 500,
            timeout_after: Fault::default(),
            hold_ms: 30_000,
            reset_before: Fault::default(),
            reset_after: Fault::default(),
            slow_before: Fault::default(),
            slow_after: Fault::default(),
            slow_ms: 1_000,
        }
    }
}

/// Why a faulty dial request leaves no call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RefusingFault {
    TooManyRequests,
    Forbidden,
    Error,
    Reset,
}

/// How the client fails to hear of its call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DeafeningFault {
    Error,
    Timeout,
    Reset,
}

impl DialFaults {
    pub(super) fn refusing(&mut self, rng: &mut StdRng) -> Option<RefusingFault> {
        if self.too_many_requests.strikes(rng) {
            Some(RefusingFault::TooManyRequests)
        } else if self.forbidden.strikes(rng) {
            Some(RefusingFault::Forbidden)
        } else if self.error_before.strikes(rng) {
            Some(RefusingFault::Error)
        } else if self.reset_before.strikes(rng) {
            Some(RefusingFault::Reset)
        } else {
            None
        }
    }

    pub(super) fn deafening(&mut self, rng: &mut StdRng) -> Option<DeafeningFault> {
        if self.error_after.strikes(rng) {
            Some(DeafeningFault::Error)
        } else if self.timeout_after.strikes(rng) {
            Some(DeafeningFault::Timeout)
        } else if self.reset_after.strikes(rng) {
            Some(DeafeningFault::Reset)
        } else {
            None
        }
    }

    pub(super) fn slow(&self) -> Duration {
        Duration::from_millis(self.slow_ms)
    }

    pub(super) fn validate(&self) -> Result<(), OptionsError> {
        for (field, fault) in [
            ("tooManyRequests", self.too_many_requests),
            ("forbidden", self.forbidden),
            ("errorBefore", self.error_before),
            ("errorAfter", self.error_after),
            ("timeoutAfter", self.timeout_after),
            ("resetBefore", self.reset_before),
            ("resetAfter", self.reset_after),
            ("slowBefore", self.slow_before),
            ("slowAfter", self.slow_after),
        ] {
            fault.validate(&format!("dialFaults.{field}"))?;
        }
        if !(500..=599).contains(&self.error_status) {
            return Err(OptionsError::new(
                "dialFaults.errorStatus must be from 500 to 599",
            ));
        }
        Ok(())
    }
}

/// Faults of every API request but dialing: lists, look-ups, hangups, transfers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct LookupFaults {
    /// Answered 503, and nothing is done.
    pub unavailable: Fault,
    /// How much later every answer comes, in milliseconds.
    pub slow_ms: u64,
}

impl LookupFaults {
    pub(super) fn validate(&self) -> Result<(), OptionsError> {
        self.unavailable.validate("lookupFaults.unavailable")
    }
}

/// Faults of the webhooks, by kind of event.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct WebhookFaults {
    /// Of the ring webhook.
    pub ring: EventFaults,
    /// Of the answer webhook; a lost one drops the call with cause 7011.
    pub answer: EventFaults,
    /// Of the hangup webhook.
    pub hangup: EventFaults,
}

/// Faults of one kind of webhook.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct EventFaults {
    /// It is never sent.
    pub lost: Fault,
    /// It is sent twice.
    pub duplicated: Fault,
    /// It is sent late.
    pub delayed: Fault,
    /// How late.
    pub delay_ms: MsRange,
    /// It changes places with the event beside it: ring and answer are sent after the call's next event, and hangup,
    /// which has none, before the one that precedes it.
    pub reordered: Fault,
}

impl Default for EventFaults {
    fn default() -> Self {
        Self {
            lost: Fault::default(),
            duplicated: Fault::default(),
            delayed: Fault::default(),
            delay_ms: MsRange {
                min: 500,
                max: 3_000,
            },
            reordered: Fault::default(),
        }
    }
}

/// What happens to one webhook.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Fate {
    pub(super) lost: bool,
    pub(super) duplicated: bool,
    pub(super) delay: Duration,
}

impl WebhookFaults {
    fn of(&mut self, kind: EventKind) -> Option<&mut EventFaults> {
        match kind {
            EventKind::Ring => Some(&mut self.ring),
            EventKind::Answer => Some(&mut self.answer),
            EventKind::Hangup => Some(&mut self.hangup),
            EventKind::Fallback
            | EventKind::Machine
            | EventKind::Transfer
            | EventKind::Redirect => None,
        }
    }

    pub(super) fn fate(&mut self, kind: EventKind, rng: &mut StdRng) -> Fate {
        let Some(faults) = self.of(kind) else {
            return Fate::default();
        };
        Fate {
            lost: faults.lost.strikes(rng),
            duplicated: faults.duplicated.strikes(rng),
            delay: if faults.delayed.strikes(rng) {
                faults.delay_ms.draw(rng)
            } else {
                Duration::ZERO
            },
        }
    }

    /// Whether an event is kept back until the call's next one was sent; `next_is_hangup` tells which that will be.
    pub(super) fn held(&mut self, kind: EventKind, next_is_hangup: bool, rng: &mut StdRng) -> bool {
        let pushed_back = self
            .of(kind)
            .is_some_and(|faults| faults.reordered.strikes(rng));
        pushed_back || (next_is_hangup && self.hangup.reordered.strikes(rng))
    }

    pub(super) fn validate(&self) -> Result<(), OptionsError> {
        for (kind, faults) in [
            ("ring", self.ring),
            ("answer", self.answer),
            ("hangup", self.hangup),
        ] {
            for (field, fault) in [
                ("lost", faults.lost),
                ("duplicated", faults.duplicated),
                ("delayed", faults.delayed),
                ("reordered", faults.reordered),
            ] {
                fault.validate(&format!("webhookFaults.{kind}.{field}"))?;
            }
            faults
                .delay_ms
                .validate(&format!("webhookFaults.{kind}.delayMs"))?;
        }
        Ok(())
    }
}
