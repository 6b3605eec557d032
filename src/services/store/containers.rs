//! The registry of containers: who is alive, for people and monitoring. Nothing is decided by it; leases decide.

use std::time::Duration;

use bson::{DateTime as BsonTime, doc};
use chrono::{DateTime, Utc};
use futures_util::TryStreamExt;
use mongodb::IndexModel;
use serde::{Deserialize, Serialize};

use super::within::Within;
use super::{Store, StoreResult, millis};

/// A document of the container collection.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerDoc {
    #[serde(rename = "_id")]
    id: String,
    version: String,
    started_at: BsonTime,
    seen_at: BsonTime,
}

/// A container as the registry knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container {
    /// Its id, new at every start.
    pub id: String,
    /// Version of the program.
    pub version: String,
    /// When it registered, UTC.
    pub started_at: DateTime<Utc>,
    /// Its last sign of life, UTC.
    pub seen_at: DateTime<Utc>,
}

pub(super) fn indexes() -> Vec<IndexModel> {
    vec![super::indexes::ttl(
        "forgotten_after_a_day",
        "seenAt",
        24 * 3600,
    )]
}

impl Store {
    /// A sign of life of `id`.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn container_seen(&self, id: &str, version: &str) -> StoreResult<()> {
        let set = doc! { "version": version, "startedAt": { "$ifNull": ["$startedAt", "$$NOW"] }, "seenAt": "$$NOW" };
        self.containers
            .update_one(doc! { "_id": id }, vec![doc! { "$set": set }])
            .upsert(true)
            .within()
            .await?;
        Ok(())
    }

    /// Takes `id` off the registry.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn container_gone(&self, id: &str) -> StoreResult<()> {
        self.containers
            .delete_one(doc! { "_id": id })
            .within()
            .await?;
        Ok(())
    }

    /// The containers that were seen within `threshold` by the database's clock, the oldest first. One that was killed stays
    /// registered for a day, but does not live.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn container_list(&self, threshold: Duration) -> StoreResult<Vec<Container>> {
        let since = doc! { "$subtract": ["$$NOW", millis(threshold)] };
        let docs: Vec<ContainerDoc> = self
            .containers
            .find(doc! { "$expr": { "$gte": ["$seenAt", since] } })
            .sort(doc! { "startedAt": 1 })
            .limit(1000)
            .within()
            .await?
            .try_collect()
            .within()
            .await?;
        Ok(docs
            .into_iter()
            .map(|doc| Container {
                id: doc.id,
                version: doc.version,
                started_at: doc.started_at.to_chrono(),
                seen_at: doc.seen_at.to_chrono(),
            })
            .collect())
    }
}
