//! Campaigns: creation and the operators' commands. Each is one guarded write. Who drives them: `campaign_leases`.

use bson::{Bson, Document, doc};
use futures_util::TryStreamExt;
use mongodb::IndexModel;
use mongodb::options::ReturnDocument;

pub use super::campaign_doc::CampaignDoc;
pub use super::campaign_leases::Lease;
use super::campaign_leases::next_epoch;
use super::within::Within;
use super::{Store, StoreResult, lenient, oid};
use crate::domain::campaign::{Campaign, CampaignStatus};
use crate::domain::ids::{CampaignId, ClientId};

pub(super) fn indexes() -> Vec<IndexModel> {
    let index = super::indexes::index;
    vec![
        index("client_newest", doc! { "clientId": 1, "_id": -1 }),
        index("status", doc! { "status": 1, "scheduledAt": 1 }),
        index("driver", doc! { "containerId": 1, "status": 1 }),
        index("list", doc! { "listId": 1, "status": 1 }),
    ]
}

impl Store {
    /// Writes a new campaign.
    ///
    /// # Errors
    /// `Duplicate` of `_id_` when a campaign with this id exists already.
    pub async fn campaign_insert(&self, campaign: &Campaign) -> StoreResult<()> {
        self.campaigns
            .insert_one(CampaignDoc::from(campaign))
            .within()
            .await?;
        Ok(())
    }

    /// The campaign, if it exists (and belongs to `scope`, where one is given).
    ///
    /// # Errors
    /// Those of the store.
    pub async fn campaign_get(
        &self,
        id: CampaignId,
        scope: Option<ClientId>,
    ) -> StoreResult<Option<Campaign>> {
        self.campaigns
            .find_one(scoped(id, scope))
            .within()
            .await?
            .map(Campaign::try_from)
            .transpose()
    }

    /// Up to `limit` campaigns, newest first, of `scope` (all clients without one) and `status`, older than `before`. Index `client_newest`.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn campaign_list(
        &self,
        scope: Option<ClientId>,
        status: Option<CampaignStatus>,
        before: Option<CampaignId>,
        limit: i64,
    ) -> StoreResult<Vec<Campaign>> {
        let mut filter = lenient::owned_by(scope);
        if let Some(status) = status {
            filter.insert("status", status.as_str());
        }
        if let Some(before) = before {
            filter.insert("_id", doc! { "$lt": oid(before) });
        }
        let docs: Vec<CampaignDoc> = self
            .campaigns
            .find(filter)
            .sort(doc! { "_id": -1 })
            .limit(limit)
            .within()
            .await?
            .try_collect()
            .within()
            .await?;
        docs.into_iter().map(Campaign::try_from).collect()
    }

    /// Moves the campaign to `to` if it is in one of `from` now. Leaving `running` frees the lease; entering it takes the
    /// lease for `driver` and begins a new epoch. `None` when the campaign was in none of them (or is not `scope`'s).
    ///
    /// # Errors
    /// Those of the store.
    pub async fn campaign_transition(
        &self,
        id: CampaignId,
        scope: Option<ClientId>,
        from: &[CampaignStatus],
        change: StatusChange<'_>,
    ) -> StoreResult<Option<Campaign>> {
        let mut filter = scoped(id, scope);
        filter.insert(
            "status",
            doc! { "$in": from.iter().map(|status| status.as_str()).collect::<Vec<_>>() },
        );
        if let Some(lease) = change.only_under {
            filter.insert("containerId", &lease.container);
            filter.insert("epoch", lease.epoch);
        }
        let mut set = doc! { "status": change.to.as_str(), "containerId": Bson::Null, "waitingFor": Bson::Null };
        match change.to {
            CampaignStatus::Paused => {
                set.insert("pausedAt", "$$NOW");
                set.insert("pausedBy", change.by);
                set.insert("pauseReason", literal(change.reason));
            }
            CampaignStatus::Running => {
                set.insert("resumedAt", "$$NOW");
                set.insert("pauseReason", Bson::Null);
                set.insert("containerId", literal(change.driver));
                set.insert("heartbeat", "$$NOW");
                set.insert("epoch", next_epoch());
            }
            CampaignStatus::Cancelled | CampaignStatus::Completed | CampaignStatus::Failed => {
                set.insert("completedAt", "$$NOW");
            }
            CampaignStatus::Scheduled => {}
        }
        self.campaign_update(filter, set).await
    }

    pub(super) async fn campaign_update(
        &self,
        filter: Document,
        set: Document,
    ) -> StoreResult<Option<Campaign>> {
        let update = vec![doc! { "$set": set }];
        let after = self
            .campaigns
            .find_one_and_update(filter, update)
            .return_document(ReturnDocument::After)
            .within()
            .await?;
        after.map(Campaign::try_from).transpose()
    }
}

/// A change of a campaign's status.
#[derive(Debug, Clone, Copy)]
pub struct StatusChange<'a> {
    /// The status to move to.
    pub to: CampaignStatus,
    /// Who asks: `operator` or `system`.
    pub by: &'a str,
    /// Why, for people.
    pub reason: Option<&'a str>,
    /// The container that drives it from now on, when it is to run.
    pub driver: Option<&'a str>,
    /// Only while this lease holds.
    pub only_under: Option<&'a Lease>,
}

fn scoped(id: CampaignId, scope: Option<ClientId>) -> Document {
    let mut filter = lenient::owned_by(scope);
    filter.insert("_id", oid(id));
    filter
}

/// A text as a literal: in a pipeline a text that begins with `$` would be read as a field.
pub(super) fn literal(text: Option<&str>) -> Bson {
    text.map_or(Bson::Null, |text| Bson::Document(doc! { "$literal": text }))
}
