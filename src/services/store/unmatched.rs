//! Signed webhooks that match no call: kept for 30 days, reported, and matched again by the reconciler.

use bson::oid::ObjectId;
use bson::{DateTime as BsonTime, doc};
use chrono::{DateTime, Utc};
use futures_util::TryStreamExt;
use mongodb::IndexModel;
use serde::{Deserialize, Serialize};

use super::within::Within;
use super::{Store, StoreResult, bson_time, id_of, oid};
use crate::domain::ids::CallId;

/// Before a webhook is tried again for the first time; it doubles.
const FIRST_WAIT_MS: i64 = 2000;
/// Tries at most: the last one is more than an hour after the webhook came.
const MOST_TRIES: i32 = 12;

/// A document of the collection of unmatched webhooks.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UnmatchedDoc {
    /// The same webhook delivered twice is kept once.
    #[serde(rename = "_id")]
    id: String,
    event: String,
    #[serde(default)]
    call: Option<ObjectId>,
    #[serde(default)]
    dial: Option<u32>,
    params: Vec<(String, String)>,
    received_at: BsonTime,
    tries: i32,
    next_try_at: BsonTime,
}

/// A webhook that matched no call.
#[derive(Clone, PartialEq, Eq)]
pub struct Unmatched {
    /// Digest of event and body.
    pub id: String,
    /// Which webhook it came to, e.g. `hangup`.
    pub event: String,
    /// The call that its address names.
    pub call: Option<CallId>,
    /// The dial that its address names.
    pub dial: Option<u32>,
    /// The form fields as they came.
    pub params: Vec<(String, String)>,
    /// When it came, UTC.
    pub received_at: DateTime<Utc>,
}

pub(super) fn indexes() -> Vec<IndexModel> {
    vec![
        super::indexes::ttl("kept_30_days", "receivedAt", 30 * 24 * 3600),
        super::indexes::partial(
            "next_try",
            doc! { "nextTryAt": 1 },
            doc! { "tries": { "$lt": MOST_TRIES } },
        ),
    ]
}

impl Store {
    /// Keeps a webhook; a repetition is kept once.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn unmatched_keep(&self, webhook: &Unmatched) -> StoreResult<()> {
        let params: Vec<bson::Bson> = webhook
            .params
            .iter()
            .map(|(name, value)| bson::bson!([name, value]))
            .collect();
        let (call, dial) = (webhook.call.map(oid), webhook.dial);
        let set = doc! { "event": &webhook.event, "call": call, "dial": dial, "params": params, "receivedAt": bson_time(webhook.received_at),
        "nextTryAt": bson_time(webhook.received_at), "tries": 0 };
        let update = doc! { "$setOnInsert": set };
        self.unmatched
            .update_one(doc! { "_id": &webhook.id }, update)
            .upsert(true)
            .within()
            .await?;
        Ok(())
    }

    /// Up to `limit` webhooks that are due to be tried again, unless they were tried often enough. Index `next_try`.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn unmatched_to_try(&self, limit: i64) -> StoreResult<Vec<Unmatched>> {
        let filter =
            doc! { "tries": { "$lt": MOST_TRIES }, "$expr": { "$lte": ["$nextTryAt", "$$NOW"] } };
        let docs: Vec<UnmatchedDoc> = self
            .unmatched
            .find(filter)
            .sort(doc! { "nextTryAt": 1 })
            .limit(limit)
            .within()
            .await?
            .try_collect()
            .within()
            .await?;
        Ok(docs
            .into_iter()
            .map(|doc| Unmatched {
                id: doc.id,
                event: doc.event,
                call: doc.call.map(id_of),
                dial: doc.dial,
                params: doc.params,
                received_at: doc.received_at.to_chrono(),
            })
            .collect())
    }

    /// Notes that a webhook still matches nothing; it is tried again later and later.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn unmatched_tried(&self, id: &str) -> StoreResult<()> {
        let wait = doc! { "$multiply": [FIRST_WAIT_MS, { "$pow": [2, "$tries"] }] };
        let set =
            doc! { "tries": { "$add": ["$tries", 1] }, "nextTryAt": { "$add": ["$$NOW", wait] } };
        self.unmatched
            .update_one(doc! { "_id": id }, vec![doc! { "$set": set }])
            .within()
            .await?;
        Ok(())
    }

    /// Drops a webhook that found its call.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn unmatched_matched(&self, id: &str) -> StoreResult<()> {
        self.unmatched
            .delete_one(doc! { "_id": id })
            .within()
            .await?;
        Ok(())
    }
}
