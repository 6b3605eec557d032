//! Rate limits shared by all containers: one GCRA bucket a scope, in one document, by the database's clock.
//!
//! A bucket holds the *theoretical arrival time* of the next call. A call may go when that time has passed; it then moves
//! one interval on. There is no burst: in any window of n intervals at most n calls go.

use std::time::Duration;

use bson::{Document, doc};
use mongodb::options::ReturnDocument;
use serde::{Deserialize, Serialize};

use super::within::Within;
use super::{Store, StoreError, StoreResult};

/// A document of the rate-limit collection.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RateDoc {
    #[serde(rename = "_id")]
    id: String,
    /// Theoretical arrival time of the next call, ms since 1970 by the database's clock.
    tat: f64,
    granted: bool,
    /// How long to wait before the next try, ms.
    wait_ms: f64,
}

/// What a bucket answered.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Grant {
    /// Go. The receipt gives an unused grant back.
    Now(Receipt),
    /// Not yet: ask again after this time.
    After(Duration),
}

/// Proof of a grant.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Receipt {
    tat: f64,
    interval_ms: f64,
}

impl Store {
    /// Takes one call from the bucket `scope`, which lets one go every `interval`.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn rate_take(&self, scope: &str, interval: Duration) -> StoreResult<Grant> {
        let interval_ms = interval.as_secs_f64() * 1000.0;
        let now = doc! { "$toDouble": { "$toLong": "$$NOW" } };
        // Never further ahead than one interval: a primary whose clock is behind must not stop the dialing.
        let tat =
            doc! { "$min": [{ "$ifNull": ["$tat", 0.0] }, { "$add": [now.clone(), interval_ms] }] };
        let update: Vec<Document> = vec![
            doc! { "$set": { "granted": { "$lte": [tat.clone(), now.clone()] }, "waitMs": { "$subtract": [tat.clone(), now.clone()] } } },
            doc! { "$set": { "tat": { "$cond": ["$granted", { "$add": [now, interval_ms] }, tat] } } },
        ];
        let filter = doc! { "_id": scope };
        let bucket = self
            .rate_limits
            .find_one_and_update(filter, update)
            .upsert(true)
            .return_document(ReturnDocument::After)
            .within()
            .await?
            .ok_or(StoreError::Corrupt {
                what: "rate limit after upsert",
            })?;
        if bucket.granted {
            return Ok(Grant::Now(Receipt {
                tat: bucket.tat,
                interval_ms,
            }));
        }
        Ok(Grant::After(Duration::from_secs_f64(
            (bucket.wait_ms / 1000.0).clamp(0.0005, 3600.0),
        )))
    }

    /// Gives an unused grant back, unless another was given since.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn rate_give_back(&self, scope: &str, receipt: Receipt) -> StoreResult<()> {
        let filter = doc! { "_id": scope, "tat": receipt.tat };
        let update = doc! { "$set": { "tat": receipt.tat - receipt.interval_ms } };
        self.rate_limits.update_one(filter, update).within().await?;
        Ok(())
    }
}
