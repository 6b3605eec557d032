//! The collection `apiKeys`: the SHA-256 of each key and what it allows. The keys themselves are stored nowhere.

use bson::oid::ObjectId;
use bson::spec::BinarySubtype;
use bson::{Binary, DateTime as BsonTime, doc};
use chrono::{DateTime, TimeDelta, Utc};
use futures_util::TryStreamExt;
use mongodb::IndexModel;
use serde::{Deserialize, Serialize};

use crate::domain::client::ApiKey;
use crate::domain::ids::{ClientId, KeyId};
use crate::domain::role::Role;

use super::indexes::{index, unique};
use super::within::Within;
use super::{Store, StoreResult, bson_time, bson_time_opt, id_of, lenient, oid};

/// `lastUsedAt` is kept to the minute: a busy key must not cost a write per request.
const USE_RESOLUTION: TimeDelta = TimeDelta::minutes(1);

/// A key's record as stored.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct KeyDoc {
    #[serde(rename = "_id")]
    id: ObjectId,
    key_hash: Binary,
    #[serde(default, deserialize_with = "lenient::id")]
    client_id: Option<ObjectId>,
    role: Role,
    label: Option<String>,
    created_at: BsonTime,
    last_used_at: Option<BsonTime>,
    revoked_at: Option<BsonTime>,
}

impl From<KeyDoc> for ApiKey {
    fn from(stored: KeyDoc) -> Self {
        Self {
            id: id_of(stored.id),
            client_id: stored.client_id.map(id_of),
            role: stored.role,
            label: stored.label,
            created_at: stored.created_at.to_chrono(),
            last_used_at: stored.last_used_at.map(BsonTime::to_chrono),
            revoked_at: stored.revoked_at.map(BsonTime::to_chrono),
        }
    }
}

fn binary(hash: &[u8; 32]) -> Binary {
    Binary {
        subtype: BinarySubtype::Generic,
        bytes: hash.to_vec(),
    }
}

/// The indexes of this file's queries.
pub(super) fn indexes() -> Vec<IndexModel> {
    vec![
        unique("keyHash_unique", doc! { "keyHash": 1 }, doc! {}),
        index("client", doc! { "clientId": 1, "_id": -1 }),
    ]
}

impl Store {
    /// Stores a key. One with the same id is replaced: its holder asked again because the first answer was lost, and
    /// never saw the first key.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn key_put(&self, key: &ApiKey, hash: &[u8; 32]) -> StoreResult<()> {
        let stored = KeyDoc {
            id: oid(key.id),
            key_hash: binary(hash),
            client_id: key.client_id.map(oid),
            role: key.role,
            label: key.label.clone(),
            created_at: bson_time(key.created_at),
            last_used_at: bson_time_opt(key.last_used_at),
            revoked_at: bson_time_opt(key.revoked_at),
        };
        self.keys
            .replace_one(doc! { "_id": oid(key.id) }, stored)
            .upsert(true)
            .within()
            .await?;
        Ok(())
    }

    /// The key with this hash, unless it was revoked. Index `keyHash_unique`.
    ///
    /// # Errors
    /// When the database fails or the document cannot be read.
    pub async fn key_by_hash(&self, hash: &[u8; 32]) -> StoreResult<Option<ApiKey>> {
        let found = self
            .keys
            .find_one(doc! { "keyHash": binary(hash), "revokedAt": null })
            .within()
            .await?;
        Ok(found.map(ApiKey::from))
    }

    /// At most `limit` keys of a client, newest first, from behind `after`; revoked ones too. Index `client`.
    ///
    /// # Errors
    /// When the database fails or a document cannot be read.
    pub async fn key_list(
        &self,
        client: ClientId,
        after: Option<KeyId>,
        limit: u32,
    ) -> StoreResult<Vec<ApiKey>> {
        let mut filter = doc! { "clientId": oid(client) };
        if let Some(after) = after {
            filter.insert("_id", doc! { "$lt": oid(after) });
        }
        let cursor = self
            .keys
            .find(filter)
            .sort(doc! { "_id": -1 })
            .limit(i64::from(limit))
            .within()
            .await?;
        cursor.map_ok(ApiKey::from).try_collect().within().await
    }

    /// Revokes a key for good; false when there is none. Idempotent, and the first time stands. By `_id`.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn key_revoke(&self, id: KeyId, now: DateTime<Utc>) -> StoreResult<bool> {
        let first = doc! { "$set": { "revokedAt": { "$ifNull": ["$revokedAt", bson_time(now)] } } };
        let updated = self
            .keys
            .update_one(doc! { "_id": oid(id) }, vec![first])
            .within()
            .await?;
        Ok(updated.matched_count == 1)
    }

    /// Notes that a key was used, at most once a minute. By `_id`.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn key_used(&self, id: KeyId, now: DateTime<Utc>) -> StoreResult<()> {
        let recently = bson_time(now - USE_RESOLUTION);
        self.keys
            .update_one(
                doc! { "_id": oid(id), "lastUsedAt": { "$not": { "$gt": recently } } },
                doc! { "$set": { "lastUsedAt": bson_time(now) } },
            )
            .within()
            .await?;
        Ok(())
    }
}
