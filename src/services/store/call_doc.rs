//! The stored form of a call. Calls of the earlier system load as well: fields that it did not have stand at their defaults. `open` and `standing` repeat what follows from the rest, so that indexes can hold it.

use bson::DateTime as BsonTime;
use bson::oid::ObjectId;
use serde::{Deserialize, Serialize};

use super::campaign_doc::{long_ago, text_or_oid};
use super::{StoreError, bson_time, bson_time_opt, id_of, lenient, oid};
use crate::domain::answer::Answer;
use crate::domain::call::{Call, CallStatus, RetryPlan};
use crate::domain::call_event::{EndFacts, EventRecord, FinalSource};
use crate::domain::outcome::{Outcome, SkipReason};

/// A document of the call collection.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CallDoc {
    #[serde(rename = "_id")]
    id: ObjectId,
    #[serde(deserialize_with = "text_or_oid")]
    client_id: ObjectId,
    #[serde(default, deserialize_with = "lenient::id")]
    campaign_id: Option<ObjectId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    contact_seq: Option<i64>,
    #[serde(default = "first")]
    attempt: u32,
    #[serde(default = "first")]
    dial: u32,
    from: String,
    to: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    answer: Option<Answer>,
    status: CallStatus,
    #[serde(default)]
    outcome: Option<Outcome>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    skip_reason: Option<SkipReason>,
    #[serde(default, rename = "callUUID", skip_serializing_if = "Option::is_none")]
    call_uuid: Option<String>,
    #[serde(
        default,
        rename = "requestUUID",
        skip_serializing_if = "Option::is_none"
    )]
    request_uuid: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    ghosts: Vec<String>,
    #[serde(default = "long_ago")]
    start_time: BsonTime,
    #[serde(default)]
    ring_time: Option<BsonTime>,
    #[serde(default)]
    answer_time: Option<BsonTime>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    end_time: Option<BsonTime>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    confirmed_at: Option<BsonTime>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    missing_since: Option<BsonTime>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    hangup_requested_at: Option<BsonTime>,
    #[serde(default)]
    machine: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    recording_url: Option<String>,
    #[serde(flatten)]
    end: EndDoc,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    retry: Option<RetryPlan>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    retry_at: Option<BsonTime>,
    #[serde(default)]
    superseded: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    deadline: Option<BsonTime>,
    #[serde(default)]
    events: Vec<EventDoc>,
    #[serde(default)]
    owner: String,
    #[serde(default)]
    epoch: i64,
    /// Absent unless live: the unique index holds only documents that have it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    slots: Vec<String>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    open: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    standing: Option<String>,
    #[serde(default)]
    version: i64,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct EndDoc {
    #[serde(default)]
    end_source: Option<FinalSource>,
    #[serde(default)]
    end_outcome: Option<Outcome>,
    #[serde(default)]
    answered_at: Option<BsonTime>,
    #[serde(default)]
    duration: Option<i64>,
    #[serde(default)]
    bill_duration: Option<i64>,
    #[serde(default)]
    total_cost: Option<String>,
    #[serde(default)]
    hangup_cause: Option<String>,
    #[serde(default)]
    hangup_cause_code: Option<u32>,
    #[serde(default)]
    hangup_cause_name: Option<String>,
    #[serde(default)]
    hangup_source: Option<String>,
    #[serde(default)]
    failure_reason: Option<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct EventDoc {
    order: i32,
    event: String,
    digest: i64,
    at: BsonTime,
}

fn first() -> u32 {
    1
}

impl From<&Call> for CallDoc {
    fn from(call: &Call) -> Self {
        Self {
            id: oid(call.id),
            client_id: oid(call.client_id),
            campaign_id: call.campaign_id.map(oid),
            contact_seq: call.contact_seq,
            attempt: call.attempt,
            dial: call.dial,
            from: call.from.as_str().to_owned(),
            to: call.to.as_str().to_owned(),
            answer: call.answer.clone(),
            status: call.status,
            outcome: call.outcome,
            skip_reason: call.skip_reason,
            call_uuid: call.call_uuid.clone(),
            request_uuid: call.request_uuid.clone(),
            ghosts: call.ghosts.clone(),
            start_time: bson_time(call.start_time),
            ring_time: bson_time_opt(call.ring_time),
            answer_time: bson_time_opt(call.answer_time),
            end_time: call.end.as_ref().map(|end| bson_time(end.ended_at)),
            confirmed_at: bson_time_opt(call.confirmed_at),
            missing_since: bson_time_opt(call.missing_since),
            hangup_requested_at: bson_time_opt(call.hangup_requested_at),
            machine: call.machine,
            recording_url: call.recording_url.clone(),
            end: call.end.as_ref().map(EndDoc::from).unwrap_or_default(),
            retry: call.retry.clone(),
            retry_at: bson_time_opt(call.retry_at),
            superseded: call.superseded,
            deadline: bson_time_opt(call.deadline),
            events: call.events.iter().map(EventDoc::from).collect(),
            owner: call.owner.clone(),
            epoch: call.epoch,
            slots: call.slots.clone(),
            open: call.is_open(),
            standing: call.standing().map(|standing| standing.to_stored()),
            version: call.version,
        }
    }
}

impl TryFrom<CallDoc> for Call {
    type Error = StoreError;

    fn try_from(doc: CallDoc) -> Result<Self, StoreError> {
        let number = |text: &str, what| lenient::phone(text).ok_or(StoreError::Corrupt { what });
        let time = |time: Option<BsonTime>| time.map(BsonTime::to_chrono);
        Ok(Self {
            id: id_of(doc.id),
            client_id: id_of(doc.client_id),
            campaign_id: doc.campaign_id.map(id_of),
            contact_seq: doc.contact_seq,
            attempt: doc.attempt,
            dial: doc.dial,
            from: number(&doc.from, "call.from")?,
            to: number(&doc.to, "call.to")?,
            answer: doc.answer,
            end: doc.end.facts(doc.status, doc.end_time),
            status: doc.status,
            outcome: doc.outcome,
            skip_reason: doc.skip_reason,
            call_uuid: doc.call_uuid,
            request_uuid: doc.request_uuid,
            ghosts: doc.ghosts,
            start_time: doc.start_time.to_chrono(),
            ring_time: time(doc.ring_time),
            answer_time: time(doc.answer_time),
            confirmed_at: time(doc.confirmed_at),
            missing_since: time(doc.missing_since),
            hangup_requested_at: time(doc.hangup_requested_at),
            machine: doc.machine,
            recording_url: doc.recording_url,
            retry: doc.retry,
            retry_at: time(doc.retry_at),
            superseded: doc.superseded,
            deadline: time(doc.deadline),
            events: doc.events.into_iter().map(EventRecord::from).collect(),
            owner: doc.owner,
            epoch: doc.epoch,
            slots: doc.slots,
            version: doc.version,
        })
    }
}

impl From<&EndFacts> for EndDoc {
    fn from(facts: &EndFacts) -> Self {
        Self {
            end_source: Some(facts.source),
            end_outcome: Some(facts.outcome),
            answered_at: bson_time_opt(facts.answered_at),
            duration: facts.duration_s,
            bill_duration: facts.bill_duration_s,
            total_cost: facts.total_cost.clone(),
            hangup_cause: facts.hangup_cause.clone(),
            hangup_cause_code: facts.hangup_code,
            hangup_cause_name: facts.hangup_name.clone(),
            hangup_source: facts.hangup_source.clone(),
            failure_reason: facts.failure_reason.clone(),
        }
    }
}

impl EndDoc {
    /// The facts of the end; `None` while the call is not over.
    fn facts(self, status: CallStatus, end_time: Option<BsonTime>) -> Option<EndFacts> {
        Some(EndFacts {
            source: self.end_source?,
            status,
            outcome: self.end_outcome?,
            answered_at: self.answered_at.map(BsonTime::to_chrono),
            ended_at: end_time?.to_chrono(),
            duration_s: self.duration,
            bill_duration_s: self.bill_duration,
            total_cost: self.total_cost,
            hangup_cause: self.hangup_cause,
            hangup_code: self.hangup_cause_code,
            hangup_name: self.hangup_cause_name,
            hangup_source: self.hangup_source,
            failure_reason: self.failure_reason,
        })
    }
}

impl From<&EventRecord> for EventDoc {
    fn from(line: &EventRecord) -> Self {
        Self {
            order: i32::from(line.order),
            event: line.event.clone(),
            digest: i64::from(line.digest),
            at: bson_time(line.at),
        }
    }
}

impl From<EventDoc> for EventRecord {
    fn from(doc: EventDoc) -> Self {
        Self {
            order: u8::try_from(doc.order).unwrap_or(u8::MAX),
            event: doc.event,
            digest: u32::try_from(doc.digest).unwrap_or(u32::MAX),
            at: doc.at.to_chrono(),
        }
    }
}

#[cfg(test)]
mod tests {
    use bson::doc;

    use super::*;

    #[test]
    fn a_call_of_the_earlier_system_loads() {
        let (client, campaign) = (ObjectId::new(), ObjectId::new());
        let old = doc! {
            "_id": ObjectId::new(), "clientId": client.to_hex(), "campaignId": campaign.to_hex(),
            "from": "12025550100", "to": "+14155550123", "status": "completed", "callUUID": "u-1",
        };
        let document: CallDoc = bson::deserialize_from_document(old).unwrap();
        let call = Call::try_from(document).unwrap();
        assert_eq!(call.client_id, id_of(client));
        assert_eq!(call.campaign_id, Some(id_of(campaign)));
        assert_eq!(call.from.as_str(), "+12025550100");
        assert_eq!(
            (call.attempt, call.dial, call.owner.as_str(), call.epoch),
            (1, 1, "", 0)
        );
    }
}
