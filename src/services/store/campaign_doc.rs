//! The stored form of a campaign. Documents of the earlier system load as well: ids may be text, new fields may be missing.

use bson::DateTime as BsonTime;
use bson::oid::ObjectId;
use serde::{Deserialize, Deserializer, Serialize};

use super::{StoreError, bson_time, bson_time_opt, id_of, lenient, oid};
use crate::domain::answer::Answer;
use crate::domain::campaign::{CallSettings, Campaign, CampaignStatus, MachineDetection};
use crate::domain::pacing::Pacing;
use crate::domain::retry::RetryPolicy;
use crate::domain::window::Window;

/// A document of the campaign collection.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CampaignDoc {
    #[serde(rename = "_id")]
    id: ObjectId,
    campaign_name: String,
    #[serde(deserialize_with = "text_or_oid")]
    client_id: ObjectId,
    #[serde(deserialize_with = "text_or_oid")]
    list_id: ObjectId,
    from_number: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    answer: Option<Answer>,
    /// The earlier system's only answer: a stream to this address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    wss_url: Option<String>,
    #[serde(default = "ended")]
    status: CampaignStatus,
    #[serde(default)]
    current_index: i64,
    #[serde(default)]
    total_contacts: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    max_concurrent_calls: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    window: Option<Window>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pacing: Option<Pacing>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    retry: Option<RetryPolicy>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    warmup_url: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    machine_detection: Option<MachineDetection>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    time_limit_seconds: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ring_timeout_seconds: Option<u32>,
    #[serde(default, alias = "scheduledTime")]
    scheduled_at: Option<BsonTime>,
    #[serde(default)]
    expires_at: Option<BsonTime>,
    #[serde(default)]
    paused_at: Option<BsonTime>,
    #[serde(default)]
    paused_by: Option<String>,
    #[serde(default)]
    pause_reason: Option<String>,
    #[serde(default)]
    resumed_at: Option<BsonTime>,
    #[serde(default = "long_ago")]
    created_at: BsonTime,
    #[serde(default)]
    completed_at: Option<BsonTime>,
    #[serde(default)]
    last_activity: Option<BsonTime>,
    #[serde(default)]
    heartbeat: Option<BsonTime>,
    #[serde(default)]
    container_id: Option<String>,
    #[serde(default)]
    waiting_for: Option<String>,
    #[serde(default)]
    epoch: i64,
    #[serde(default)]
    reopened: i64,
}

/// A campaign of the earlier system without a status is over.
fn ended() -> CampaignStatus {
    CampaignStatus::Completed
}

pub(super) fn long_ago() -> BsonTime {
    BsonTime::from_millis(0)
}

/// Reads an id that the earlier system stored as text.
pub(super) fn text_or_oid<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<ObjectId, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Either {
        Oid(ObjectId),
        Text(String),
    }
    match Either::deserialize(deserializer)? {
        Either::Oid(oid) => Ok(oid),
        Either::Text(text) => ObjectId::parse_str(text).map_err(serde::de::Error::custom),
    }
}

impl From<&Campaign> for CampaignDoc {
    fn from(campaign: &Campaign) -> Self {
        Self {
            id: oid(campaign.id),
            campaign_name: campaign.name.clone(),
            client_id: oid(campaign.client_id),
            list_id: oid(campaign.list_id),
            from_number: campaign.calls.from.as_str().to_owned(),
            answer: Some(campaign.calls.answer.clone()),
            wss_url: None,
            status: campaign.status,
            current_index: campaign.current_index,
            total_contacts: campaign.total,
            max_concurrent_calls: campaign.max_concurrent,
            window: campaign.window.clone(),
            pacing: campaign.pacing,
            retry: campaign.retry.clone(),
            warmup_url: campaign.calls.warmup_url.clone(),
            machine_detection: campaign.calls.machine_detection,
            time_limit_seconds: campaign.calls.time_limit_s,
            ring_timeout_seconds: campaign.calls.ring_timeout_s,
            scheduled_at: bson_time_opt(campaign.scheduled_at),
            expires_at: bson_time_opt(campaign.expires_at),
            paused_at: bson_time_opt(campaign.paused_at),
            paused_by: campaign.paused_by.clone(),
            pause_reason: campaign.pause_reason.clone(),
            resumed_at: bson_time_opt(campaign.resumed_at),
            created_at: bson_time(campaign.created_at),
            completed_at: bson_time_opt(campaign.completed_at),
            last_activity: bson_time_opt(campaign.last_activity),
            heartbeat: bson_time_opt(campaign.heartbeat),
            container_id: campaign.container_id.clone(),
            waiting_for: campaign.waiting_for.clone(),
            epoch: campaign.epoch,
            reopened: campaign.reopened,
        }
    }
}

impl TryFrom<CampaignDoc> for Campaign {
    type Error = StoreError;

    fn try_from(doc: CampaignDoc) -> Result<Self, StoreError> {
        let stream = doc.wss_url.map(|url| Answer::Stream {
            url,
            content_type: None,
            extra_headers: None,
        });
        let time = |time: Option<BsonTime>| time.map(BsonTime::to_chrono);
        Ok(Self {
            id: id_of(doc.id),
            client_id: id_of(doc.client_id),
            list_id: id_of(doc.list_id),
            name: doc.campaign_name,
            calls: CallSettings {
                from: lenient::phone(&doc.from_number).ok_or(StoreError::Corrupt {
                    what: "campaign.fromNumber",
                })?,
                answer: doc.answer.or(stream).ok_or(StoreError::Corrupt {
                    what: "campaign.answer",
                })?,
                warmup_url: doc.warmup_url,
                machine_detection: doc.machine_detection,
                time_limit_s: doc.time_limit_seconds,
                ring_timeout_s: doc.ring_timeout_seconds,
            },
            status: doc.status,
            current_index: doc.current_index,
            total: doc.total_contacts,
            max_concurrent: doc.max_concurrent_calls,
            window: doc.window,
            pacing: doc.pacing,
            retry: doc.retry,
            scheduled_at: time(doc.scheduled_at),
            expires_at: time(doc.expires_at),
            paused_at: time(doc.paused_at),
            paused_by: doc.paused_by,
            pause_reason: doc.pause_reason,
            resumed_at: time(doc.resumed_at),
            created_at: doc.created_at.to_chrono(),
            completed_at: time(doc.completed_at),
            last_activity: time(doc.last_activity),
            heartbeat: time(doc.heartbeat),
            container_id: doc.container_id,
            waiting_for: doc.waiting_for,
            epoch: doc.epoch,
            reopened: doc.reopened,
        })
    }
}

#[cfg(test)]
mod tests {
    use bson::{Document, doc};

    use super::*;

    fn read(document: Document) -> Result<Campaign, StoreError> {
        let document: CampaignDoc = bson::deserialize_from_document(document).unwrap();
        document.try_into()
    }

    #[test]
    fn a_campaign_of_the_earlier_system_loads() {
        let client = ObjectId::new();
        let campaign = read(doc! {
            "_id": ObjectId::new(), "campaignName": "May", "clientId": client.to_hex(),
            "listId": ObjectId::new().to_hex(), "fromNumber": "1 202 555 0100", "wssUrl": "wss://bot.example.com",
        })
        .unwrap();
        assert_eq!(campaign.client_id, id_of(client));
        assert_eq!(campaign.calls.from.as_str(), "+12025550100");
        assert_eq!(campaign.status, CampaignStatus::Completed);
    }

    /// During a roll-out a newer container may have written it.
    #[test]
    fn fields_that_this_program_does_not_know_do_no_harm() {
        let campaign = read(doc! {
            "_id": ObjectId::new(), "campaignName": "May", "clientId": ObjectId::new(), "listId": ObjectId::new(),
            "fromNumber": "+12025550100", "new": 1,
            "answer": { "type": "speak", "text": "Hi", "new": 1 },
            "window": { "days": ["mon"], "start": "09:00", "end": "17:00", "timeZone": "contact", "new": 1 },
            "pacing": { "intervalMs": 5_i64, "new": 1 },
            "retry": { "maxAttempts": 2, "delaysSeconds": [60], "outcomes": ["busy"], "new": 1 },
        })
        .unwrap();
        assert!(campaign.window.is_some() && campaign.pacing.is_some() && campaign.retry.is_some());
    }
}
