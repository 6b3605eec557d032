//! Calls on the wire.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::answer::{AnswerIn, MachineDetectionIn};
use crate::domain::call::{Call, CallStatus};
use crate::domain::campaign::CallSettings;
use crate::domain::ids::{CallId, CampaignId, ClientId};
use crate::domain::outcome::{Outcome, SkipReason};
use crate::domain::phone::PhoneNumber;
use crate::domain::web_address::parse_warmup;
use crate::error::FieldFault;
use crate::services::single_calls::{NewCall, rendered};

/// A single call to be made.
#[derive(Clone, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CallIn {
    /// Caller ID, E.164.
    #[schema(example = "+12025550100")]
    pub from: String,
    /// Whom to call, E.164.
    #[schema(example = "+12025550143")]
    pub to: String,
    /// What the callee hears.
    pub answer: AnswerIn,
    /// The client, for admins only.
    #[schema(value_type = Option<String>, pattern = "^[0-9a-fA-F]{24}$")]
    pub client_id: Option<ClientId>,
    /// How to greet the callee: `{{firstName}}` in the answer.
    pub first_name: Option<String>,
    /// Bot to wake before the call.
    pub warmup_url: Option<String>,
    /// `true` or `"continue"`: report an answering machine; `"hangup"`: hang up on it.
    pub machine_detection: Option<MachineDetectionIn>,
    /// Longest answered time in seconds.
    #[schema(minimum = 1, maximum = 86400)]
    pub time_limit_seconds: Option<u32>,
    /// Longest ringing in seconds.
    #[schema(minimum = 1, maximum = 600)]
    pub ring_timeout_seconds: Option<u32>,
}

impl CallIn {
    /// The call to make under `id` for `client`.
    ///
    /// # Errors
    /// All fields that cannot be used.
    pub fn into_new(self, id: CallId, client: ClientId) -> Result<NewCall, Vec<FieldFault>> {
        let mut faults = Vec::new();
        let mut number = |path: &str, text: &str| match PhoneNumber::parse(text, None) {
            Ok(number) => Some(number),
            Err(error) => {
                faults.push(FieldFault::at(path, error.to_string()));
                None
            }
        };
        let (from, to) = (number("from", &self.from), number("to", &self.to));
        let answer = self.answer.read().and_then(|answer| {
            answer.validate(&["firstName".to_owned()])?;
            Ok(answer)
        });
        let answer = answer.map_err(|found| {
            faults.extend(
                found
                    .into_iter()
                    .map(|(path, reason)| FieldFault::at(format!("answer.{path}"), reason)),
            );
        });
        if let Some(Err(reason)) = self.warmup_url.as_deref().map(parse_warmup) {
            faults.push(FieldFault::at("warmupUrl", reason));
        }
        if self
            .time_limit_seconds
            .is_some_and(|limit| !(1..=86_400).contains(&limit))
        {
            faults.push(FieldFault::at("timeLimitSeconds", "must be 1 to 86400"));
        }
        if self
            .ring_timeout_seconds
            .is_some_and(|timeout| !(1..=600).contains(&timeout))
        {
            faults.push(FieldFault::at("ringTimeoutSeconds", "must be 1 to 600"));
        }
        let (Some(from), Some(to), Ok(answer)) = (from, to, answer) else {
            return Err(faults);
        };
        let answer = rendered(&answer, &to, self.first_name);
        if answer.is_silent() {
            let reason = "has nothing to say once the names are filled in";
            faults.push(FieldFault::at("answer.text", reason));
        }
        if !faults.is_empty() {
            return Err(faults);
        }
        let settings = CallSettings {
            from,
            answer,
            warmup_url: self.warmup_url,
            machine_detection: self.machine_detection.and_then(MachineDetectionIn::wanted),
            time_limit_s: self.time_limit_seconds,
            ring_timeout_s: self.ring_timeout_seconds,
        };
        Ok(NewCall {
            id,
            client_id: client,
            to,
            settings,
        })
    }
}

/// A call: one attempt to reach one contact.
#[derive(Clone, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CallOut {
    /// Its id.
    #[schema(value_type = String)]
    pub id: CallId,
    /// The carrier's id; null until the carrier accepted it.
    #[serde(rename = "callUUID")]
    pub call_uuid: Option<String>,
    /// The client.
    #[schema(value_type = String)]
    pub client_id: ClientId,
    /// The campaign; null for a single call.
    #[schema(value_type = Option<String>)]
    pub campaign_id: Option<CampaignId>,
    /// Position of the contact in the list.
    pub contact_seq: Option<i64>,
    /// Which attempt to reach the contact, from 1.
    pub attempt: u32,
    /// Caller ID; masked for viewers.
    pub from: String,
    /// Whom; masked for viewers.
    pub to: String,
    /// Where it stands.
    #[schema(value_type = String, example = "in-progress")]
    pub status: CallStatus,
    /// Classification once it is over.
    pub outcome: Option<Outcome>,
    /// Why it was never dialed.
    pub skip_reason: Option<SkipReason>,
    /// When the intent to dial was written.
    pub start_time: DateTime<Utc>,
    /// When it rang.
    pub ring_time: Option<DateTime<Utc>>,
    /// When it was answered.
    pub answer_time: Option<DateTime<Utc>>,
    /// When it ended.
    pub end_time: Option<DateTime<Utc>>,
    /// Answered seconds.
    pub duration: Option<i64>,
    /// Billed seconds.
    pub bill_duration: Option<i64>,
    /// Cost, a decimal in the account's currency.
    pub total_cost: Option<String>,
    /// Why and by whom it was hung up.
    pub hangup: Option<HangupOut>,
    /// Why it failed.
    pub failure_reason: Option<String>,
    /// An answering machine took it.
    pub machine: bool,
    /// Where the carrier keeps the recording.
    pub recording_url: Option<String>,
    /// When the contact is dialed (again).
    pub retry_at: Option<DateTime<Utc>>,
    /// History.
    pub events: Vec<EventOut>,
}

/// How a call was hung up, in the carrier's words.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct HangupOut {
    /// E.g. `USER_BUSY`.
    pub cause: Option<String>,
    /// E.g. 3010.
    pub code: Option<u32>,
    /// E.g. `Busy Line`.
    pub name: Option<String>,
    /// E.g. `Callee`.
    pub source: Option<String>,
}

/// A line of a call's history.
#[derive(Clone, Serialize, ToSchema)]
pub struct EventOut {
    /// What happened: `accepted`, `ring`, `answer`, `machine`, `recording`, `hangup`, `record`, `refused`, `canceled`, `gave-up`.
    pub event: String,
    /// When.
    pub at: DateTime<Utc>,
}

impl CallOut {
    /// The call for somebody who may or may not see phone numbers.
    #[must_use]
    pub fn of(call: Call, may_see_numbers: bool) -> Self {
        let end = call.end.as_ref();
        Self {
            id: call.id,
            call_uuid: call.carrier_id().map(str::to_owned),
            client_id: call.client_id,
            campaign_id: call.campaign_id,
            contact_seq: call.contact_seq,
            attempt: call.attempt,
            from: super::number(&call.from, may_see_numbers),
            to: super::number(&call.to, may_see_numbers),
            status: call.status,
            outcome: call.outcome,
            skip_reason: call.skip_reason,
            start_time: call.start_time,
            ring_time: call.ring_time,
            answer_time: call.answer_time,
            end_time: end.map(|end| end.ended_at),
            duration: end.and_then(|end| end.duration_s),
            bill_duration: end.and_then(|end| end.bill_duration_s),
            total_cost: end.and_then(|end| end.total_cost.clone()),
            hangup: end
                .filter(|end| end.hangup_code.is_some() || end.hangup_cause.is_some())
                .map(|end| HangupOut {
                    cause: end.hangup_cause.clone(),
                    code: end.hangup_code,
                    name: end.hangup_name.clone(),
                    source: end.hangup_source.clone(),
                }),
            failure_reason: end.and_then(|end| end.failure_reason.clone()),
            machine: call.machine,
            recording_url: call.recording_url.clone(),
            retry_at: call.retry_at,
            events: call
                .events
                .into_iter()
                .map(|line| EventOut {
                    event: line.event,
                    at: line.at,
                })
                .collect(),
        }
    }
}

/// A call after it was asked to be hung up.
#[derive(Clone, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct HungUpOut {
    /// The call now; its end follows by webhook.
    pub call: CallOut,
    /// The carrier took the order; false when it no longer had the call.
    pub hung_up: bool,
}

/// Which calls of a campaign to list.
#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct CampaignCallQuery {
    /// Items of the page, 1 to 500; 50 if not given.
    pub limit: Option<u32>,
    /// `nextCursor` of the page before.
    pub cursor: Option<String>,
    /// Only with this outcome.
    pub outcome: Option<Outcome>,
    /// Only with this status.
    #[param(value_type = Option<String>)]
    pub status: Option<CallStatus>,
}

/// Which calls to list.
#[derive(Clone, Default, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct CallQuery {
    /// Items of the page, 1 to 500; 50 if not given.
    pub limit: Option<u32>,
    /// `nextCursor` of the page before.
    pub cursor: Option<String>,
    /// Only with this outcome.
    pub outcome: Option<Outcome>,
    /// Only with this status.
    #[param(value_type = Option<String>)]
    pub status: Option<CallStatus>,
    /// Only this campaign's.
    #[param(value_type = Option<String>)]
    pub campaign_id: Option<CampaignId>,
    /// Only this client's, for admins.
    #[param(value_type = Option<String>)]
    pub client_id: Option<ClientId>,
}
