//! Named leases for work that one container does at a time, such as reconciling; by the database's clock.

use std::time::Duration;

use bson::doc;
use mongodb::options::ReturnDocument;
use serde::{Deserialize, Serialize};

use super::within::Within;
use super::{Store, StoreResult, millis};

/// A document of the lease collection.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LeaseDoc {
    #[serde(rename = "_id")]
    name: String,
    holder: Option<String>,
    expires_at: bson::DateTime,
}

impl Store {
    /// Takes or renews the lease `name` for `holder` for `time`. False when another holds it.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn lease_take(&self, name: &str, holder: &str, time: Duration) -> StoreResult<bool> {
        let is_free = doc! { "$or": [
            { "$eq": ["$holder", { "$literal": holder }] },
            { "$lte": [{ "$ifNull": ["$expiresAt", "$$NOW"] }, "$$NOW"] },
        ] };
        let update = vec![
            doc! { "$set": { "isFree": is_free } },
            doc! { "$set": {
                "holder": { "$cond": ["$isFree", { "$literal": holder }, "$holder"] },
                "expiresAt": { "$cond": ["$isFree", { "$add": ["$$NOW", millis(time)] }, "$expiresAt"] },
            } },
            doc! { "$unset": "isFree" },
        ];
        let lease = self
            .leases
            .find_one_and_update(doc! { "_id": name }, update)
            .upsert(true)
            .return_document(ReturnDocument::After)
            .within()
            .await?;
        Ok(lease.is_some_and(|lease| lease.holder.as_deref() == Some(holder)))
    }

    /// Gives every lease of `holder` back.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn lease_release_all(&self, holder: &str) -> StoreResult<()> {
        self.leases
            .delete_many(doc! { "holder": holder })
            .within()
            .await?;
        Ok(())
    }
}
