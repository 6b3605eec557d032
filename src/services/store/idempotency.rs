//! The collection `idempotencyKeys`: which answer a caller's key has had, for a day.
//!
//! A record is held by whoever inserted it or took it over; every later write names the holder, so that one who was
//! overtaken changes nothing.

use std::time::Duration;

use bson::oid::ObjectId;
use bson::spec::BinarySubtype;
use bson::{Binary, DateTime as BsonTime, doc};
use chrono::{DateTime, Utc};
use mongodb::IndexModel;
use serde::{Deserialize, Serialize};

use super::indexes::ttl;
use super::within::Within;
use super::{Store, StoreResult, bson_time, millis, new_oid};

/// How long an answer is kept, seconds.
const LIFETIME: u64 = 24 * 3600;

/// A record as stored.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct IdempotencyDoc {
    /// SHA-256 of scope and key, in hex.
    #[serde(rename = "_id")]
    id: String,
    /// SHA-256 of what was asked, in hex.
    digest: String,
    holder: ObjectId,
    resource_id: ObjectId,
    answer: Option<AnswerDoc>,
    created_at: BsonTime,
    held_at: BsonTime,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct AnswerDoc {
    status: i32,
    content_type: Option<String>,
    body: Option<Binary>,
}

/// An answer to be given again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredAnswer {
    /// The HTTP status.
    pub status: u16,
    /// The body's type.
    pub content_type: Option<String>,
    /// The body; absent when it may be shown once only.
    pub body: Option<Vec<u8>>,
}

/// A record that is there already.
#[derive(Debug)]
pub struct KnownRequest {
    /// What was asked with the key.
    pub digest: String,
    /// The id reserved for what is to be created.
    pub reserved: [u8; 12],
    /// The answer, once there is one.
    pub answer: Option<StoredAnswer>,
}

/// The right to answer a request: the record and its holder.
#[derive(Debug, Clone)]
pub struct Hold {
    id: String,
    holder: ObjectId,
    /// The id reserved for what is to be created.
    pub reserved: [u8; 12],
}

/// The indexes of this file: the one that forgets. All queries go by `_id`.
pub(super) fn indexes() -> Vec<IndexModel> {
    vec![ttl("forget", "createdAt", LIFETIME)]
}

impl Store {
    /// Inserts the record of a request.
    ///
    /// # Errors
    /// `Duplicate` of `_id_` when there is one.
    pub async fn idempotency_begin(
        &self,
        id: &str,
        digest: &str,
        now: DateTime<Utc>,
    ) -> StoreResult<Hold> {
        let (holder, reserved) = (ObjectId::new(), new_oid(now));
        let document = IdempotencyDoc {
            id: id.to_owned(),
            digest: digest.to_owned(),
            holder,
            resource_id: reserved,
            answer: None,
            created_at: bson_time(now),
            held_at: bson_time(now),
        };
        self.idempotency.insert_one(document).within().await?;
        Ok(Hold {
            id: id.to_owned(),
            holder,
            reserved: reserved.bytes(),
        })
    }

    /// The record, if there is one.
    ///
    /// # Errors
    /// When the database fails or the document cannot be read.
    pub async fn idempotency_get(&self, id: &str) -> StoreResult<Option<KnownRequest>> {
        let found = self
            .idempotency
            .find_one(doc! { "_id": id })
            .within()
            .await?;
        Ok(found.map(|document| KnownRequest {
            digest: document.digest,
            reserved: document.resource_id.bytes(),
            answer: document.answer.map(|answer| StoredAnswer {
                status: u16::try_from(answer.status).unwrap_or(500),
                content_type: answer.content_type,
                body: answer.body.map(|body| body.bytes),
            }),
        }))
    }

    /// Takes over an unanswered request whose holder has not been heard of for `silence`, with the id that it reserved.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn idempotency_take_over(
        &self,
        id: &str,
        silence: Duration,
    ) -> StoreResult<Option<Hold>> {
        let holder = ObjectId::new();
        let silent = doc! { "$lt": ["$heldAt", { "$subtract": ["$$NOW", millis(silence)] }] };
        let taken = self
            .idempotency
            .find_one_and_update(
                doc! { "_id": id, "answer": null, "$expr": silent },
                doc! { "$set": { "holder": holder }, "$currentDate": { "heldAt": true } },
            )
            .within()
            .await?;
        Ok(taken.map(|document| Hold {
            id: document.id,
            holder,
            reserved: document.resource_id.bytes(),
        }))
    }

    /// The holder's life sign.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn idempotency_touch(&self, hold: &Hold) -> StoreResult<()> {
        self.idempotency
            .update_one(
                doc! { "_id": &hold.id, "holder": hold.holder },
                doc! { "$currentDate": { "heldAt": true } },
            )
            .within()
            .await?;
        Ok(())
    }

    /// Makes the holder silent since ever, so that the next request with the key takes over.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn idempotency_abandon(&self, hold: &Hold) -> StoreResult<()> {
        let filter = doc! { "_id": &hold.id, "holder": hold.holder };
        let update = doc! { "$set": { "heldAt": bson::DateTime::from_millis(0) } };
        self.idempotency.update_one(filter, update).within().await?;
        Ok(())
    }

    /// Keeps the answer.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn idempotency_complete(&self, hold: &Hold, answer: StoredAnswer) -> StoreResult<()> {
        let stored = AnswerDoc {
            status: i32::from(answer.status),
            content_type: answer.content_type,
            body: answer.body.map(|bytes| Binary {
                subtype: BinarySubtype::Generic,
                bytes,
            }),
        };
        self.idempotency
            .update_one(
                doc! { "_id": &hold.id, "holder": hold.holder },
                doc! { "$set": { "answer": bson::serialize_to_document(&stored).map_err(mongodb::error::Error::from)? } },
            )
            .within().await?;
        Ok(())
    }

    /// Forgets a request that created nothing, so that it may be tried again.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn idempotency_release(&self, hold: &Hold) -> StoreResult<()> {
        self.idempotency
            .delete_one(doc! { "_id": &hold.id, "holder": hold.holder })
            .within()
            .await?;
        Ok(())
    }
}
