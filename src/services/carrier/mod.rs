//! The only module that knows Plivo: its API, its webhooks' form, its signatures and its XML.

pub mod client;
pub mod plivo_dial;
pub mod plivo_event;
pub mod plivo_signature;
pub mod plivo_xml;
pub mod sealed_body;

pub use client::PlivoClient;

use std::time::Duration;

use chrono::{DateTime, Utc};

use crate::domain::call::Call;
use crate::domain::call_event::EndFacts;
use crate::domain::campaign::MachineDetection;
use crate::domain::phone::PhoneNumber;

/// What the carrier is asked to dial.
#[derive(Debug, Clone)]
pub struct DialRequest {
    /// Caller ID.
    pub from: PhoneNumber,
    /// Destination.
    pub to: PhoneNumber,
    /// Where it calls back, without and with our parameters; see [`plivo_dial::CallbackUrls`].
    pub callbacks: plivo_dial::CallbackUrls,
    /// Answering-machine detection.
    pub machine_detection: Option<MachineDetection>,
    /// Longest answered time, seconds.
    pub time_limit_s: Option<u32>,
    /// Longest ringing, seconds.
    pub ring_timeout_s: Option<u32>,
}

/// Why a dial request did not bring a call, and above all: whether the carrier may have dialed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DialError {
    /// The carrier could not be reached, so not a byte of the request's body left us: certainly not dialed.
    #[error("the dial request did not leave: {0}")]
    NotSent(&'static str),
    /// The body was not sent in the time that was allowed: certainly not dialed.
    #[error("the dial request was not sent in time")]
    Late,
    /// The carrier is too busy with us: certainly not dialed.
    #[error("the carrier throttles us")]
    Throttled {
        /// How long it asks us to wait, if it says so.
        retry_after: Option<Duration>,
    },
    /// The carrier refuses this call: certainly not dialed, and asking again would not help.
    #[error("the carrier refused the call with status {status}")]
    Refused {
        /// HTTP status.
        status: u16,
        /// True when the destination is at fault rather than our set-up.
        destination: bool,
    },
    /// The carrier refuses every call that is made like this one (caller ID, credentials, credit): certainly not dialed.
    #[error("the carrier refuses all such calls: {0}")]
    Condemned(&'static str),
    /// It may or may not have been dialed: only the reconciler may decide, by asking.
    #[error("no telling whether the carrier dialed: {0}")]
    Ambiguous(&'static str),
}

/// A question to the carrier that got no usable answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LookupError {
    /// It could not be reached, or answered with a fault of its own.
    #[error("the carrier cannot be asked ({0})")]
    Unavailable(&'static str),
    /// It refuses our credentials.
    #[error("the carrier refuses our credentials")]
    Unauthorized,
}

/// How the carrier sees a live call.
#[derive(Clone, PartialEq, Eq)]
pub struct LiveCall {
    /// The call's id.
    pub call_uuid: String,
    /// Answered already.
    pub in_progress: bool,
    /// Caller ID, digits only.
    pub from: String,
    /// Destination, digits only.
    pub to: String,
}

/// A call detail record.
#[derive(Clone, PartialEq, Eq)]
pub struct CallRecord {
    /// The call's id.
    pub call_uuid: String,
    /// Caller ID, digits only; empty where the record does not tell it.
    pub from: String,
    /// Destination, digits only; empty where the record does not tell it.
    pub to: String,
    /// When it was begun, UTC.
    pub initiated_at: Option<DateTime<Utc>>,
    /// How it ended.
    pub end: EndFacts,
}

/// What the carrier knows of a call.
#[derive(Clone, PartialEq, Eq)]
pub enum Sighting {
    /// It lives.
    Live(LiveCall),
    /// It waits in the carrier's own queue.
    Queued(LiveCall),
    /// It is over.
    Ended(Box<CallRecord>),
    /// The carrier knows of no such call (yet: records are written with a delay).
    Nothing,
}

impl Sighting {
    /// The carrier's id of what it knows.
    #[must_use]
    pub fn uuid(&self) -> Option<&str> {
        match self {
            Self::Live(found) | Self::Queued(found) => Some(&found.call_uuid),
            Self::Ended(record) => Some(&record.call_uuid),
            Self::Nothing => None,
        }
    }

    /// Whether what the carrier knows may be `call`: caller ID, destination and time (not before `since`) must fit, where the
    /// carrier tells them. Its filter by destination also finds numbers that only begin with ours.
    #[must_use]
    pub fn may_be(&self, call: &Call, since: DateTime<Utc>) -> bool {
        let fits = |told: &str, ours: &PhoneNumber| told.is_empty() || told == ours.digits();
        match self {
            Self::Queued(found) | Self::Live(found) => {
                fits(&found.from, &call.from) && fits(&found.to, &call.to)
            }
            Self::Ended(record) => {
                fits(&record.from, &call.from)
                    && fits(&record.to, &call.to)
                    && record
                        .initiated_at
                        .is_none_or(|initiated| initiated >= since)
            }
            Self::Nothing => false,
        }
    }
}
