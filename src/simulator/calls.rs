//! One accepted call: where it is in its life, and what Plivo's API says of it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, FixedOffset, Utc};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::dial::{Callback, DialRequest};
use super::hangup::Hangup;
use super::options::SimulatorOptions;

/// Where a call is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    /// Accepted, waiting for its turn under the CPS limit.
    Queued,
    /// Under way to the callee's network.
    Initiated,
    /// The callee's phone rings.
    Ringing,
    /// Answered.
    InProgress,
    /// Over.
    Ended,
}

impl Phase {
    /// As the books and the live-call API spell it; an ended call has a final status instead.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Initiated => "initiated",
            Self::Ringing => "ringing",
            Self::InProgress => "in-progress",
            Self::Ended => "ended",
        }
    }
}

/// What the API asks of a call that lives.
pub(super) enum Command {
    /// End it for this reason.
    Hangup(Hangup),
    /// Go on with another document.
    Transfer(Callback),
}

/// A call that the carrier accepted.
#[derive(Clone)]
pub(super) struct Call {
    /// Both `CallUUID` and `RequestUUID`, which are equal in every capture since 2020.
    pub(super) uuid: Arc<str>,
    pub(super) request: Arc<DialRequest>,
    pub(super) phase: Phase,
    pub(super) accepted_at: DateTime<Utc>,
    pub(super) started_at: Option<DateTime<Utc>>,
    pub(super) rang_at: Option<DateTime<Utc>>,
    pub(super) answered_at: Option<DateTime<Utc>>,
    pub(super) ended_at: Option<DateTime<Utc>>,
    pub(super) hangup: Option<Hangup>,
    /// A machine was detected and the caller had asked for detection.
    pub(super) machine: bool,
    pub(super) commands: mpsc::UnboundedSender<Command>,
}

impl Call {
    pub(super) fn new(
        uuid: Arc<str>,
        request: Arc<DialRequest>,
        accepted_at: DateTime<Utc>,
        commands: mpsc::UnboundedSender<Command>,
    ) -> Self {
        Self {
            uuid,
            request,
            phase: Phase::Queued,
            accepted_at,
            started_at: None,
            rang_at: None,
            answered_at: None,
            ended_at: None,
            hangup: None,
            machine: false,
            commands,
        }
    }

    pub(super) fn answered(&self) -> bool {
        self.answered_at.is_some()
    }

    /// Started and not over: what Plivo lists as live.
    pub(super) fn is_live(&self) -> bool {
        matches!(
            self.phase,
            Phase::Initiated | Phase::Ringing | Phase::InProgress
        )
    }

    /// The final `CallStatus`, or where the call is.
    pub(super) fn status(&self) -> &'static str {
        self.hangup.map_or(self.phase.as_str(), |hangup| {
            hangup.call_status(self.answered())
        })
    }

    /// When the call began; a call that is still queued begins when it was accepted.
    pub(super) fn start(&self) -> DateTime<Utc> {
        self.started_at.unwrap_or(self.accepted_at)
    }

    /// Answered time in milliseconds, up to now for a call that lives.
    fn talked_ms(&self, now: DateTime<Utc>) -> u64 {
        self.answered_at.map_or(0, |answered_at| {
            let talked = self
                .ended_at
                .unwrap_or(now)
                .signed_duration_since(answered_at);
            u64::try_from(talked.num_milliseconds()).unwrap_or(0)
        })
    }

    /// Answered time in started seconds, as captures show it; at least one for a call that was answered.
    pub(super) fn duration_seconds(&self, now: DateTime<Utc>) -> u64 {
        if self.answered() {
            self.talked_ms(now).div_ceil(1_000).max(1)
        } else {
            0
        }
    }

    /// Answered time rounded up to started minutes, in seconds.
    pub(super) fn billed_seconds(&self, now: DateTime<Utc>) -> u64 {
        self.duration_seconds(now).div_ceil(60) * 60
    }

    /// The price with five decimals.
    pub(super) fn total_cost(&self, options: &SimulatorOptions, now: DateTime<Utc>) -> String {
        let minutes = u32::try_from(self.billed_seconds(now) / 60).unwrap_or(u32::MAX);
        format!("{:.5}", options.bill_rate * f64::from(minutes))
    }

    /// `GET Call/{uuid}/?status=live` and `?status=queued`, without `api_id`. A call on its way to the callee is shown as
    /// ringing: the API has no third status.
    pub(super) fn live_view(&self) -> Value {
        let status = if self.phase == Phase::Initiated {
            Phase::Ringing
        } else {
            self.phase
        };
        let mut view = json!({
            "call_status": status.as_str(),
            "call_uuid": *self.uuid,
            "caller_name": self.request.caller_name,
            "direction": "outbound",
            "from": self.request.from.with_plus(),
            "request_uuid": *self.uuid,
            "to": self.request.to.digits(),
        });
        if self.phase != Phase::Queued {
            view["session_start"] = json!(self.start().format("%Y-%m-%d %H:%M:%S%.6f").to_string());
            view["stir_verification"] = json!("Not Applicable");
            view["stir_attestation"] = json!("");
        }
        view
    }

    /// When the detail record can be read; none while the call lives.
    pub(super) fn recorded_at(&self, options: &SimulatorOptions) -> Option<DateTime<Utc>> {
        self.ended_at
            .map(|ended_at| ended_at + Duration::from_millis(options.cdr_delay_ms))
    }

    /// The call detail record, without `api_id`. Times are in the account's zone, with its offset.
    pub(super) fn detail_record(&self, options: &SimulatorOptions, now: DateTime<Utc>) -> Value {
        let zone = account_zone(options);
        let local = |time: DateTime<Utc>| {
            time.with_timezone(&zone)
                .format("%Y-%m-%d %H:%M:%S%:z")
                .to_string()
        };
        let hangup = self.hangup.unwrap_or_else(|| Hangup::of(0));
        json!({
            "answer_time": self.answered_at.map(local),
            "bill_duration": self.duration_seconds(now),
            "billed_duration": self.billed_seconds(now),
            "call_direction": "outbound",
            "call_duration": self.duration_seconds(now),
            "call_state": if self.answered() { "ANSWER" } else { hangup.cause },
            "call_uuid": *self.uuid,
            "cnam_lookup": "",
            "conference_uuid": null,
            "end_time": self.ended_at.map(local),
            "from_number": self.request.from.with_plus(),
            "hangup_cause_code": hangup.code,
            "hangup_cause_name": hangup.name,
            "hangup_source": hangup.source,
            "initiation_time": local(self.start()),
            "parent_call_uuid": null,
            "resource_uri": format!("/v1/Account/{}/Call/{}/", options.auth_id, self.uuid),
            "source_ip": "",
            "stir_attestation": "",
            "stir_verification": "Not Applicable",
            "to_number": self.request.to.digits(),
            "total_amount": self.total_cost(options, now),
            "total_rate": format!("{:.5}", options.bill_rate),
            "voice_network_group": "Simulated Network",
        })
    }
}

/// The zone in which the account's console, webhooks and detail records speak.
pub(super) fn account_zone(options: &SimulatorOptions) -> FixedOffset {
    FixedOffset::east_opt(options.utc_offset_minutes * 60).unwrap_or_else(utc_zone)
}

fn utc_zone() -> FixedOffset {
    use chrono::Offset as _;
    Utc.fix()
}

/// A caller's own id from the query of its answer URL.
pub(super) fn param<'a>(params: &'a BTreeMap<String, String>, name: &str) -> Option<&'a str> {
    params
        .get(name)
        .map(String::as_str)
        .filter(|value| !value.is_empty())
}
