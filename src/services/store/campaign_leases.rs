//! Who drives a campaign: the lease, its heartbeat, adoption, and the guard before every dial. Each is one guarded write.
//!
//! Times are the database's (`$$NOW`), never a container's. One document that cannot be read never keeps the others from
//! being driven.

use std::time::Duration;

use bson::{Bson, Document, doc};
use futures_util::TryStreamExt;

use super::campaign_doc::CampaignDoc;
use super::campaigns::literal;
use super::within::Within;
use super::{Store, StoreResult, millis, oid, readable};
use crate::domain::campaign::Campaign;
use crate::domain::ids::CampaignId;

/// The right to drive one campaign: who, and since which change of driver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// The campaign.
    pub campaign: CampaignId,
    /// The driving container.
    pub container: String,
    /// Its epoch.
    pub epoch: i64,
}

impl Lease {
    /// Matches the campaign only while it runs and this lease is the newest.
    fn filter(&self) -> Document {
        doc! { "_id": oid(self.campaign), "status": "running", "containerId": &self.container, "epoch": self.epoch }
    }
}

impl Store {
    /// Completes the campaign under `lease`, if nothing was claimed or reopened since it was read as `seen`.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn campaign_complete(&self, lease: &Lease, seen: &Campaign) -> StoreResult<bool> {
        let mut filter = lease.filter();
        filter.insert("currentIndex", seen.current_index);
        filter.insert("reopened", doc! { "$in": [seen.reopened, if seen.reopened == 0 { Bson::Null } else { seen.reopened.into() }] });
        let set = doc! { "status": "completed", "completedAt": "$$NOW", "containerId": Bson::Null };
        Ok(self.campaign_update(filter, set).await?.is_some())
    }

    /// The guard before a dial: matches only while the campaign runs under `lease`, and moves `currentIndex` past a newly claimed contact.
    /// False means that it was paused, cancelled or taken over: nothing may be dialed.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn campaign_guard(&self, lease: &Lease, claimed: Option<i64>) -> StoreResult<bool> {
        let mut filter = lease.filter();
        let mut set = doc! { "lastActivity": "$$NOW", "waitingFor": Bson::Null };
        if let Some(seq) = claimed {
            filter.insert("currentIndex", seq);
            set.insert("currentIndex", seq + 1);
            set.insert("processedContacts", seq + 1);
        }
        let result = self
            .campaigns
            .update_one(filter, vec![doc! { "$set": set }])
            .within()
            .await?;
        Ok(result.matched_count == 1)
    }

    /// Notes what the campaign under `lease` waits for; the next dial takes the note away.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn campaign_note_waiting(&self, lease: &Lease, reason: &str) -> StoreResult<()> {
        self.campaigns
            .update_one(lease.filter(), doc! { "$set": { "waitingFor": reason } })
            .within()
            .await?;
        Ok(())
    }

    /// Moves `currentIndex` from `from` to `to` without dialing, for contacts that are claimed already or skipped.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn campaign_pass_over(&self, lease: &Lease, from: i64, to: i64) -> StoreResult<bool> {
        let mut filter = lease.filter();
        filter.insert("currentIndex", from);
        let update = doc! { "$set": { "currentIndex": to, "processedContacts": to } };
        Ok(self
            .campaigns
            .update_one(filter, update)
            .within()
            .await?
            .matched_count
            == 1)
    }

    /// Campaigns that run without a live driver: released ones, and those whose heartbeat is older than `threshold`. Those of
    /// `container` itself, which asks, only need its next heartbeat. Index `status`.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn campaign_orphans(
        &self,
        container: &str,
        threshold: Duration,
    ) -> StoreResult<Vec<Campaign>> {
        // Campaigns of the earlier system have no epoch: they are left alone until they are migrated.
        let mut filter = doc! { "status": "running", "epoch": { "$exists": true }, "containerId": { "$ne": container } };
        filter.extend(orphaned(threshold));
        let docs: Vec<Document> = self
            .campaigns
            .clone_with_type()
            .find(filter)
            .limit(100)
            .within()
            .await?
            .try_collect()
            .within()
            .await?;
        Ok(readable::<CampaignDoc, _>("campaign", docs))
    }

    /// Running campaigns whose lease is `container`'s. Index `driver`.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn campaigns_of(&self, container: &str) -> StoreResult<Vec<Campaign>> {
        let filter = doc! { "containerId": container, "status": "running" };
        let docs: Vec<Document> = self
            .campaigns
            .clone_with_type()
            .find(filter)
            .within()
            .await?
            .try_collect()
            .within()
            .await?;
        Ok(readable::<CampaignDoc, _>("campaign", docs))
    }

    /// Takes over an orphan, if it still is one at the epoch that was seen.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn campaign_adopt(
        &self,
        seen: &Campaign,
        container: &str,
        threshold: Duration,
    ) -> StoreResult<Option<Campaign>> {
        let mut filter = doc! { "_id": oid(seen.id), "status": "running" };
        filter.insert("epoch", doc! { "$in": [seen.epoch, if seen.epoch == 0 { Bson::Null } else { seen.epoch.into() }] });
        filter.extend(orphaned(threshold));
        let set = doc! { "containerId": literal(Some(container)), "heartbeat": "$$NOW", "epoch": next_epoch() };
        self.campaign_update(filter, set).await
    }

    /// Scheduled campaigns whose time has come by the database's clock. Index `status`.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn campaign_due(&self) -> StoreResult<Vec<Campaign>> {
        let filter = doc! {
            "status": "scheduled",
            // One of the earlier system has its time elsewhere; without a time of ours nothing is due.
            "scheduledAt": { "$type": "date" },
            "$expr": { "$lte": ["$scheduledAt", "$$NOW"] },
        };
        let docs: Vec<Document> = self
            .campaigns
            .clone_with_type()
            .find(filter)
            .limit(100)
            .within()
            .await?
            .try_collect()
            .within()
            .await?;
        Ok(readable::<CampaignDoc, _>("campaign", docs))
    }

    /// Renews every lease of `container` in one write. Index `driver`.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn campaign_heartbeat(&self, container: &str) -> StoreResult<u64> {
        let filter = doc! { "containerId": container, "status": "running" };
        Ok(self
            .campaigns
            .update_many(filter, vec![doc! { "$set": { "heartbeat": "$$NOW" } }])
            .within()
            .await?
            .matched_count)
    }

    /// Gives every lease of `container` back, so that others adopt at once. Index `driver`.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn campaign_release_all(&self, container: &str) -> StoreResult<u64> {
        let filter = doc! { "containerId": container, "status": "running" };
        Ok(self
            .campaigns
            .update_many(filter, doc! { "$set": { "containerId": Bson::Null } })
            .within()
            .await?
            .matched_count)
    }

    /// How many campaigns each container drives. Index `driver`.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn campaign_drivers(&self) -> StoreResult<Vec<(String, i64)>> {
        let filter = doc! { "status": "running", "containerId": { "$type": "string" } };
        let pipeline = vec![
            doc! { "$match": filter },
            doc! { "$group": { "_id": "$containerId", "campaigns": { "$sum": 1 } } },
        ];
        let rows: Vec<Document> = self
            .campaigns
            .aggregate(pipeline)
            .within()
            .await?
            .try_collect()
            .within()
            .await?;
        Ok(rows
            .iter()
            .filter_map(|row| {
                Some((
                    row.get_str("_id").ok()?.to_owned(),
                    super::whole(row.get("campaigns")),
                ))
            })
            .collect())
    }
}

pub(super) fn next_epoch() -> Bson {
    Bson::Document(doc! { "$add": [{ "$ifNull": ["$epoch", 0_i64] }, 1_i64] })
}

/// Without a driver, or with one that was silent for `threshold` by the database's clock.
fn orphaned(threshold: Duration) -> Document {
    doc! { "$or": [
        { "containerId": Bson::Null },
        { "$expr": { "$lt": ["$heartbeat", { "$subtract": ["$$NOW", millis(threshold)] }] } },
    ] }
}
