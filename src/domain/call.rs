//! A call: one attempt to reach one contact, from the intent to dial to its end.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::answer::Answer;
use super::call_event::{EndFacts, EventRecord};
use super::ids::{CallId, CampaignId, ClientId};
use super::outcome::{Outcome, SkipReason};
use super::phone::PhoneNumber;

/// Where a call stands. It only moves forward by [`CallStatus::rank`], with one exception: a dial that provably never
/// reached the carrier is withdrawn (`Dialing` to `Waiting`), and its number in [`Call::dial`] is never used again.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    utoipa::ToSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum CallStatus {
    /// Not dialed yet, to be dialed at `retry_at`: deferred, or withdrawn because the carrier never got it.
    Waiting,
    /// The intent is written; the carrier is being asked, or may have been asked.
    Dialing,
    /// The carrier accepted the call.
    Queued,
    /// The destination rings.
    Ringing,
    /// Answered.
    InProgress,
    /// Answered and over.
    Completed,
    /// The line was busy.
    Busy,
    /// Nobody answered.
    NoAnswer,
    /// The callee or its network declined.
    Rejected,
    /// Ended by us before it was answered.
    Canceled,
    /// The carrier or our own set-up failed.
    Failed,
    /// The carrier gave up with a time-out.
    Timeout,
    /// The carrier could not tell what became of it: listed, never hidden, never dialed again by itself.
    Uncertain,
    /// Never to be dialed, for [`Call::skip_reason`].
    Skipped,
}

impl CallStatus {
    /// All of them, in the order of their ranks.
    pub const ALL: [Self; 14] = [
        Self::Waiting,
        Self::Dialing,
        Self::Queued,
        Self::Ringing,
        Self::InProgress,
        Self::Completed,
        Self::Busy,
        Self::NoAnswer,
        Self::Rejected,
        Self::Canceled,
        Self::Failed,
        Self::Timeout,
        Self::Uncertain,
        Self::Skipped,
    ];

    /// The name on the wire and in documents.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Dialing => "dialing",
            Self::Queued => "queued",
            Self::Ringing => "ringing",
            Self::InProgress => "in-progress",
            Self::Completed => "completed",
            Self::Busy => "busy",
            Self::NoAnswer => "no-answer",
            Self::Rejected => "rejected",
            Self::Canceled => "canceled",
            Self::Failed => "failed",
            Self::Timeout => "timeout",
            Self::Uncertain => "uncertain",
            Self::Skipped => "skipped",
        }
    }

    /// The status with this name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == name)
    }

    /// How far along the call is; all ends are equally far.
    #[must_use]
    pub fn rank(self) -> u8 {
        match self {
            Self::Waiting => 0,
            Self::Dialing => 5,
            Self::Queued => 10,
            Self::Ringing => 20,
            Self::InProgress => 30,
            Self::Completed
            | Self::Busy
            | Self::NoAnswer
            | Self::Rejected
            | Self::Canceled
            | Self::Failed
            | Self::Timeout
            | Self::Uncertain
            | Self::Skipped => 40,
        }
    }

    /// True for a call that holds slots: the carrier may be busy with it.
    #[must_use]
    pub fn is_live(self) -> bool {
        matches!(
            self,
            Self::Dialing | Self::Queued | Self::Ringing | Self::InProgress
        )
    }

    /// True for a call that is over (or was never to be).
    #[must_use]
    pub fn is_final(self) -> bool {
        self.rank() == 40
    }
}

/// When and for which outcomes this attempt is followed by another; fixed when the attempt begins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RetryPlan {
    /// Outcomes that deserve another attempt.
    pub outcomes: Vec<Outcome>,
    /// Seconds between this attempt's end and the next.
    pub delay_s: i64,
}

/// Which calls to list.
#[derive(Debug, Clone, Default)]
pub struct CallFilter {
    /// Only this client's.
    pub client: Option<ClientId>,
    /// Only this campaign's.
    pub campaign: Option<CampaignId>,
    /// Only with this outcome.
    pub outcome: Option<Outcome>,
    /// Only with this status.
    pub status: Option<CallStatus>,
    /// Only live ones.
    pub live: bool,
    /// Only older than this one.
    pub before: Option<CallId>,
}

/// A call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// Our id.
    pub id: CallId,
    /// The tenant.
    pub client_id: ClientId,
    /// The campaign; `None` for a single call.
    pub campaign_id: Option<CampaignId>,
    /// Position of the contact in the list.
    pub contact_seq: Option<i64>,
    /// Which attempt to reach the contact, from 1.
    pub attempt: u32,
    /// Which dial of this attempt, from 1; more than one only where earlier ones provably never reached the carrier.
    pub dial: u32,
    /// Caller ID.
    pub from: PhoneNumber,
    /// The contact's number.
    pub to: PhoneNumber,
    /// What the callee hears, rendered for this contact.
    pub answer: Option<Answer>,
    /// Where it stands.
    pub status: CallStatus,
    /// Classification once it is over.
    pub outcome: Option<Outcome>,
    /// Why it was never dialed.
    pub skip_reason: Option<SkipReason>,
    /// The carrier's id of the call.
    pub call_uuid: Option<String>,
    /// The carrier's id of the dial request.
    pub request_uuid: Option<String>,
    /// The carrier's ids of withdrawn dials of this attempt that showed up after all, sorted, at most [`Call::MAX_GHOSTS`]. None of
    /// them is this call, whatever else fits.
    pub ghosts: Vec<String>,
    /// When the intent to dial was written, UTC.
    pub start_time: DateTime<Utc>,
    /// When it rang, UTC.
    pub ring_time: Option<DateTime<Utc>>,
    /// When it was answered, UTC.
    pub answer_time: Option<DateTime<Utc>>,
    /// When the carrier last confirmed that it lives, UTC.
    pub confirmed_at: Option<DateTime<Utc>>,
    /// Since when the carrier, asked after a dial that is ambiguous or was hung up in its queue, has known nothing of it, UTC.
    pub missing_since: Option<DateTime<Utc>>,
    /// When an operator had it hung up while it was queued, UTC. The carrier keeps nothing of a call that ends in its queue.
    pub hangup_requested_at: Option<DateTime<Utc>>,
    /// An answering machine took it.
    pub machine: bool,
    /// Where the carrier keeps the recording.
    pub recording_url: Option<String>,
    /// How it ended.
    pub end: Option<EndFacts>,
    /// Whether and when another attempt follows.
    pub retry: Option<RetryPlan>,
    /// When to dial (again), UTC: only in `Waiting`, or after an end that deserves another attempt.
    pub retry_at: Option<DateTime<Utc>>,
    /// A newer attempt speaks for the contact.
    pub superseded: bool,
    /// When the carrier is asked what became of it, UTC; only while live.
    pub deadline: Option<DateTime<Utc>>,
    /// History, sorted, at most [`Call::MAX_EVENTS`] lines.
    pub events: Vec<EventRecord>,
    /// Container that dialed it.
    pub owner: String,
    /// Epoch of the campaign's lease under which it was dialed.
    pub epoch: i64,
    /// The numbered slots that it holds; empty unless live.
    pub slots: Vec<String>,
    /// Counts the writes of its document; every write names the one that it builds on.
    pub version: i64,
}

impl Call {
    /// Longest history.
    pub const MAX_EVENTS: usize = 24;
    /// Most ids of withdrawn dials that are kept.
    pub const MAX_GHOSTS: usize = 24;

    /// True while the contact still needs something: a live call, or a (re)dial to come. A campaign with such a call is not complete.
    #[must_use]
    pub fn is_open(&self) -> bool {
        !self.superseded && (!self.status.is_final() || self.retry_at.is_some())
    }

    /// The carrier's id to ask after: that of the call, else that of the request (equal in all recent captures).
    #[must_use]
    pub fn carrier_id(&self) -> Option<&str> {
        self.call_uuid.as_deref().or(self.request_uuid.as_deref())
    }

    /// When the carrier or its webhooks last told of it, UTC.
    #[must_use]
    pub fn last_news(&self) -> DateTime<Utc> {
        let told = self.events.iter().map(|line| line.at);
        told.chain(self.confirmed_at)
            .fold(self.start_time, DateTime::max)
    }

    /// What the contact counts as while this is its newest call; `None` once superseded.
    #[must_use]
    pub fn standing(&self) -> Option<Standing> {
        if self.superseded {
            return None;
        }
        Some(match self.status {
            CallStatus::Waiting => Standing::WaitingRetry,
            _ if self.retry_at.is_some() && self.status.is_final() => Standing::WaitingRetry,
            CallStatus::Dialing
            | CallStatus::Queued
            | CallStatus::Ringing
            | CallStatus::InProgress => Standing::InFlight,
            CallStatus::Uncertain => Standing::Uncertain,
            CallStatus::Skipped => {
                Standing::Skipped(self.skip_reason.unwrap_or(SkipReason::Invalid))
            }
            CallStatus::Completed
            | CallStatus::Busy
            | CallStatus::NoAnswer
            | CallStatus::Rejected
            | CallStatus::Canceled
            | CallStatus::Failed
            | CallStatus::Timeout => Standing::Final(self.outcome.unwrap_or(Outcome::Uncertain)),
        })
    }
}

/// The one heading under which a contact is counted (promise P4): stored with its newest call, so that headings cannot overlap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// To be dialed (again) later.
    WaitingRetry,
    /// A live call.
    InFlight,
    /// Over, with this outcome.
    Final(Outcome),
    /// Never to be dialed.
    Skipped(SkipReason),
    /// The carrier could not tell.
    Uncertain,
}

impl Standing {
    /// The stored form, e.g. `final:busy`.
    #[must_use]
    pub fn to_stored(self) -> String {
        match self {
            Self::WaitingRetry => "waiting_retry".to_owned(),
            Self::InFlight => "in_flight".to_owned(),
            Self::Final(outcome) => format!("final:{}", outcome.as_str()),
            Self::Skipped(reason) => format!("skipped:{}", reason.as_str()),
            Self::Uncertain => "uncertain".to_owned(),
        }
    }

    /// Reads the stored form.
    #[must_use]
    pub fn from_stored(text: &str) -> Option<Self> {
        match text.split_once(':') {
            None if text == "waiting_retry" => Some(Self::WaitingRetry),
            None if text == "in_flight" => Some(Self::InFlight),
            None if text == "uncertain" => Some(Self::Uncertain),
            Some(("final", outcome)) => Outcome::parse(outcome).ok().map(Self::Final),
            Some(("skipped", reason)) => SkipReason::ALL
                .into_iter()
                .find(|known| known.as_str() == reason)
                .map(Self::Skipped),
            _ => None,
        }
    }
}
