//! What can happen to a call, and the lines that it leaves in the call's history.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::call::CallStatus;
use super::outcome::Outcome;

/// Who says that a call is over, from the weakest to the strongest word. A stronger one replaces what a weaker one said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FinalSource {
    /// The reconciler, after the carrier could not be asked for too long.
    GaveUp,
    /// We ended it before the carrier had it, or the carrier confirmed our cancellation.
    Local,
    /// The carrier refused the dial request.
    Refusal,
    /// The carrier's call detail record.
    Record,
    /// The carrier's hangup webhook.
    Webhook,
}

/// How a call ended, as one source tells it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct EndFacts {
    /// Who says so.
    pub source: FinalSource,
    /// The final status.
    pub status: CallStatus,
    /// The classification without regard to answering machines, which arrive as an event of their own.
    pub outcome: Outcome,
    /// When the callee answered, UTC; `None` = never, where the source knows.
    pub answered_at: Option<DateTime<Utc>>,
    /// When it ended, UTC.
    pub ended_at: DateTime<Utc>,
    /// Answered time in seconds.
    pub duration_s: Option<i64>,
    /// Billed time in seconds (rounded up by the carrier).
    pub bill_duration_s: Option<i64>,
    /// Cost as the carrier writes it, a decimal in the account's currency.
    pub total_cost: Option<String>,
    /// Switch's name of the cause, e.g. `USER_BUSY`.
    pub hangup_cause: Option<String>,
    /// Plivo's code of the cause (REFERENCE section 3).
    pub hangup_code: Option<u32>,
    /// Plivo's name of the cause.
    pub hangup_name: Option<String>,
    /// Who hung up, in the carrier's words.
    pub hangup_source: Option<String>,
    /// Why it failed, in ours.
    pub failure_reason: Option<String>,
}

/// Something that happened to a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EventKind {
    /// The carrier accepted the dial request.
    Accepted,
    /// The destination rings.
    Ring,
    /// The callee (or a machine) answered.
    Answer,
    /// An answering machine was detected.
    Machine,
    /// A recording is ready.
    Recording {
        /// Where the carrier keeps it.
        url: String,
    },
    /// It is over.
    End(Box<EndFacts>),
}

impl EventKind {
    /// Name in a call's history.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Ring => "ring",
            Self::Answer => "answer",
            Self::Machine => "machine",
            Self::Recording { .. } => "recording",
            Self::End(facts) => match facts.source {
                FinalSource::GaveUp => "gave-up",
                FinalSource::Local => "canceled",
                FinalSource::Refusal => "refused",
                FinalSource::Record => "record",
                FinalSource::Webhook => "hangup",
            },
        }
    }

    fn order(&self) -> u8 {
        match self {
            Self::Accepted => 0,
            Self::Ring => 1,
            Self::Answer => 2,
            Self::Machine => 3,
            Self::Recording { .. } => 4,
            Self::End(_) => 5,
        }
    }
}

/// An event with what it says about whose it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallEvent {
    /// What happened.
    pub kind: EventKind,
    /// When: by the event's own word, else when it arrived. UTC.
    pub at: DateTime<Utc>,
    /// The dial number that the event's callback URL carried; `None` for old tracking and for look-ups by UUID.
    pub dial: Option<u32>,
    /// The carrier's id of the call.
    pub call_uuid: Option<String>,
    /// The carrier's id of the request.
    pub request_uuid: Option<String>,
    /// Digest of the event's raw body: tells a repetition from a second event.
    pub digest: u32,
}

/// A line of a call's history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventRecord {
    /// Place of the kind in a call's life; history is sorted by it.
    pub order: u8,
    /// What happened, see [`EventKind::name`].
    pub event: String,
    /// Digest of the event's raw body.
    pub digest: u32,
    /// When, UTC: the earliest arrival if it came several times.
    pub at: DateTime<Utc>,
}

impl EndFacts {
    /// An end that nobody but us knows of, for `reason`.
    #[must_use]
    pub fn told_by_us(
        source: FinalSource,
        status: CallStatus,
        outcome: Outcome,
        ended_at: DateTime<Utc>,
        reason: &str,
    ) -> Self {
        Self {
            source,
            status,
            outcome,
            answered_at: None,
            ended_at,
            duration_s: None,
            bill_duration_s: None,
            total_cost: None,
            hangup_cause: None,
            hangup_code: None,
            hangup_name: None,
            hangup_source: None,
            failure_reason: Some(reason.to_owned()),
        }
    }
}

impl CallEvent {
    /// What we learned ourselves of the dial number `dial`, rather than from a webhook; with the carrier's id, where it was new.
    #[must_use]
    pub fn learned(
        kind: EventKind,
        at: DateTime<Utc>,
        dial: u32,
        request_uuid: Option<String>,
    ) -> Self {
        Self {
            kind,
            at,
            dial: Some(dial),
            call_uuid: None,
            request_uuid,
            digest: 0,
        }
    }
}

impl EventRecord {
    /// The history line of `event`.
    #[must_use]
    pub fn of(event: &CallEvent) -> Self {
        Self {
            order: event.kind.order(),
            event: event.kind.name().to_owned(),
            digest: event.digest,
            at: event.at,
        }
    }

    /// What makes two lines the same line, in the order of the history.
    #[must_use]
    pub fn key(&self) -> (u8, &str, u32) {
        (self.order, &self.event, self.digest)
    }
}
