//! A campaign's rules as they are sent: the same as those of the domain, except that unknown fields are refused. Stored ones
//! must load when a newer container has written a field that this one does not know.

use serde::Deserialize;
use utoipa::ToSchema;

use crate::domain::outcome::Outcome;
use crate::domain::pacing::Pacing;
use crate::domain::retry::RetryPolicy;
use crate::domain::window::{Day, TimeOfDay, Window, WindowZone};

/// Days and hours in which calls may start.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WindowIn {
    /// The days on which the window opens, at least one.
    days: Vec<Day>,
    /// When it opens, `HH:MM`.
    #[schema(value_type = String, example = "09:00")]
    start: TimeOfDay,
    /// When it closes, `HH:MM`; a time before the start means on the following day, `24:00` is the end of the day. A
    /// call that started in time may go on.
    #[schema(value_type = String, example = "18:00")]
    end: TimeOfDay,
    /// Whose clock: `contact` or an IANA name.
    #[schema(value_type = String, example = "Asia/Kolkata")]
    time_zone: WindowZone,
}

impl From<WindowIn> for Window {
    fn from(window: WindowIn) -> Self {
        Self {
            days: window.days,
            start: window.start,
            end: window.end,
            time_zone: window.time_zone,
        }
    }
}

/// A campaign's own pace. Both fields may be given; the slower one counts.
#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PacingIn {
    /// Milliseconds from one call's start to the next: 0 to one hour.
    interval_ms: Option<u64>,
    /// Calls a second: one an hour (1/3600) to 1,000.
    calls_per_second: Option<f64>,
}

impl From<PacingIn> for Pacing {
    fn from(pacing: PacingIn) -> Self {
        Self {
            interval_ms: pacing.interval_ms,
            calls_per_second: pacing.calls_per_second,
        }
    }
}

/// When and how often a contact is dialed again.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RetryIn {
    /// Attempts in all, the first one included: 1 to 10.
    max_attempts: u32,
    /// Seconds to wait before the second attempt, the third and so on; the last one repeats. Each 1 second to 7 days.
    delays_seconds: Vec<u32>,
    /// The outcomes that are retried.
    outcomes: Vec<Outcome>,
}

impl From<RetryIn> for RetryPolicy {
    fn from(retry: RetryIn) -> Self {
        Self {
            max_attempts: retry.max_attempts,
            delays_seconds: retry.delays_seconds,
            outcomes: retry.outcomes,
        }
    }
}
