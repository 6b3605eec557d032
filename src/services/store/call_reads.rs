//! Reading calls: one, those that are due or overdue, the slots that they hold, and where contacts stand.

use std::collections::BTreeSet;
use std::time::Duration;

use bson::{Bson, Document, doc};
use chrono::{DateTime, Utc};
use futures_util::TryStreamExt;
use mongodb::options::{ReadConcern, ReadPreference, SelectionCriteria};

use super::call_doc::CallDoc;
use super::calls::SLOTS_INDEX;
use super::within::Within;
use super::{Store, StoreError, StoreResult, bson_time, lenient, oid, readable};
use crate::domain::call::{Call, CallFilter, Standing};
use crate::domain::ids::{CallId, CampaignId};
use crate::domain::outcome::Outcome;

/// Longest time that a primary may take to make sure that it is one.
const SURE_TIME: Duration = Duration::from_secs(5);

impl Store {
    /// The call with this id.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn call_get(&self, id: CallId) -> StoreResult<Option<Call>> {
        self.calls
            .find_one(doc! { "_id": oid(id) })
            .within()
            .await?
            .map(Call::try_from)
            .transpose()
    }

    /// The call with this id as it surely is: a primary that was just deposed, or just elected, may show an older state, and
    /// does not answer this before a majority has confirmed that it leads. Slower than [`Store::call_get`].
    ///
    /// # Errors
    /// Those of the store.
    pub async fn call_get_surely(&self, id: CallId) -> StoreResult<Option<Call>> {
        self.calls
            .find_one(doc! { "_id": oid(id) })
            .read_concern(ReadConcern::linearizable())
            .max_time(SURE_TIME)
            .within()
            .await?
            .map(Call::try_from)
            .transpose()
    }

    /// The call that the carrier knows by `uuid`. Indexes `call_uuid`, `request_uuid`.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn call_by_uuid(&self, uuid: &str) -> StoreResult<Option<Call>> {
        let filter = doc! { "$or": [{ "callUUID": uuid }, { "requestUUID": uuid }] };
        self.calls
            .find_one(filter)
            .within()
            .await?
            .map(Call::try_from)
            .transpose()
    }

    /// Whether the carrier's id `uuid` belongs to a call, or to a withdrawn dial of one. Indexes `call_uuid`, `request_uuid`, `ghosts`.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn call_uuid_is_known(&self, uuid: &str) -> StoreResult<bool> {
        let filter =
            doc! { "$or": [{ "callUUID": uuid }, { "requestUUID": uuid }, { "ghosts": uuid }] };
        let found = self
            .calls
            .clone_with_type::<Document>()
            .find_one(filter)
            .projection(doc! { "_id": 1 })
            .within()
            .await?;
        Ok(found.is_some())
    }

    /// The call of this attempt. Index `attempt_unique`.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn call_of_attempt(
        &self,
        campaign: CampaignId,
        seq: i64,
        attempt: u32,
    ) -> StoreResult<Option<Call>> {
        let filter = doc! { "campaignId": oid(campaign), "contactSeq": seq, "attempt": attempt };
        self.calls
            .find_one(filter)
            .within()
            .await?
            .map(Call::try_from)
            .transpose()
    }

    /// The slots that are taken now, of every scope. Index [`SLOTS_INDEX`].
    ///
    /// # Errors
    /// Those of the store.
    pub async fn slots_taken(&self) -> StoreResult<BTreeSet<String>> {
        #[derive(serde::Deserialize)]
        struct Slots {
            slots: Vec<String>,
        }
        let calls = self.calls.clone_with_type::<Slots>();
        let filter = doc! { "slots": { "$exists": true } };
        let cursor = calls
            .find(filter)
            .projection(doc! { "slots": 1, "_id": 0 })
            .hint(hint(SLOTS_INDEX))
            .batch_size(1000)
            .within()
            .await?;
        let rows: Vec<Slots> = cursor.try_collect().within().await?;
        Ok(rows.into_iter().flat_map(|row| row.slots).collect())
    }

    /// The first waiting or ended call of the campaign whose time to be dialed (again) has come by `now`. Index `retry_due`.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn call_due(
        &self,
        campaign: CampaignId,
        now: DateTime<Utc>,
    ) -> StoreResult<Option<Call>> {
        let filter = doc! { "campaignId": oid(campaign), "retryAt": { "$lte": bson_time(now) } };
        self.calls
            .find_one(filter)
            .sort(doc! { "retryAt": 1 })
            .hint(hint("retry_due"))
            .within()
            .await?
            .map(Call::try_from)
            .transpose()
    }

    /// The call of the campaign that is to be dialed (again) first, due or not. Index `retry_due`.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn call_first_waiting(&self, campaign: CampaignId) -> StoreResult<Option<Call>> {
        let filter = doc! { "campaignId": oid(campaign), "retryAt": { "$exists": true } };
        let first = self
            .calls
            .find_one(filter)
            .sort(doc! { "retryAt": 1 })
            .hint(hint("retry_due"))
            .within()
            .await?;
        first.map(Call::try_from).transpose()
    }

    /// True while any contact of the campaign still needs something. Index `open`: a call keeps its place in it from the
    /// intent to the last retry, so that the look-up cannot miss one that is just moving on.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn call_any_open(&self, campaign: CampaignId) -> StoreResult<bool> {
        let filter = doc! { "campaignId": oid(campaign), "open": true };
        let found = self
            .calls
            .clone_with_type::<Document>()
            .find_one(filter)
            .projection(doc! { "_id": 1 })
            .hint(hint("open"))
            .within()
            .await?;
        Ok(found.is_some())
    }

    /// True while any call of the campaign is live. Index `standing`.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn call_any_in_flight(&self, campaign: CampaignId) -> StoreResult<bool> {
        let filter = doc! { "campaignId": oid(campaign), "standing": "in_flight" };
        let found = self
            .calls
            .clone_with_type::<Document>()
            .find_one(filter)
            .projection(doc! { "_id": 1 })
            .hint(hint("standing"))
            .within()
            .await?;
        Ok(found.is_some())
    }

    /// Live calls whose deadline has passed by `now`, the longest overdue first. Index `deadline`.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn call_overdue(&self, now: DateTime<Utc>, limit: i64) -> StoreResult<Vec<Call>> {
        let filter = doc! { "deadline": { "$lte": bson_time(now) } };
        let docs: Vec<Document> = self
            .calls
            .clone_with_type()
            .find(filter)
            .sort(doc! { "deadline": 1 })
            .limit(limit)
            .within()
            .await?
            .try_collect()
            .within()
            .await?;
        Ok(readable::<CallDoc, _>("call", docs))
    }

    /// True when another call to the same number from the same caller ID is ambiguous as well: then nobody can tell whose a
    /// call is that the carrier knows. Among live calls, by index `deadline`.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn call_has_double(&self, call: &Call) -> StoreResult<bool> {
        let filter = doc! {
            "deadline": { "$exists": true },
            "_id": { "$ne": oid(call.id) },
            "to": call.to.as_str(),
            "from": call.from.as_str(),
            "status": "dialing",
            "callUUID": Bson::Null,
            "requestUUID": Bson::Null,
        };
        let calls = self.calls.clone_with_type::<Document>();
        let found = calls
            .find_one(filter)
            .projection(doc! { "_id": 1 })
            .hint(hint("deadline"))
            .within()
            .await?;
        Ok(found.is_some())
    }

    /// Calls by filter, newest first. Indexes `client_newest`, `standing`.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn call_list(&self, wanted: &CallFilter, limit: i64) -> StoreResult<Vec<Call>> {
        let docs: Vec<Document> = self
            .calls
            .clone_with_type()
            .find(wanted.document())
            .sort(doc! { "_id": -1 })
            .limit(limit)
            .within()
            .await?
            .try_collect()
            .within()
            .await?;
        Ok(readable::<CallDoc, _>("call", docs))
    }

    /// How many calls match. Live ones are few; anything else may take long.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn call_count(&self, wanted: &CallFilter) -> StoreResult<u64> {
        self.calls.count_documents(wanted.document()).within().await
    }

    /// How many contacts of the campaign stand where, in one snapshot. Index `standing` (covered).
    ///
    /// # Errors
    /// Those of the store.
    pub async fn call_standings(&self, campaign: CampaignId) -> StoreResult<Vec<(Standing, i64)>> {
        let pipeline = vec![
            doc! { "$match": { "campaignId": oid(campaign), "standing": { "$gt": "" } } },
            doc! { "$group": { "_id": "$standing", "contacts": { "$sum": 1 } } },
        ];
        let mut session = self.client.start_session().snapshot(true).within().await?;
        let counted = async {
            let mut cursor = self
                .calls
                .aggregate(pipeline)
                .selection_criteria(SelectionCriteria::ReadPreference(ReadPreference::Primary))
                .hint(hint("standing"))
                .session(&mut session)
                .await?;
            let mut rows = Vec::new();
            while let Some(row) = cursor.next(&mut session).await.transpose()? {
                rows.push(row);
            }
            Ok(rows)
        };
        let mut standings = Vec::new();
        for row in counted.within().await? {
            let name = row.get_str("_id").map_err(|_| StoreError::Corrupt {
                what: "call.standing",
            })?;
            let standing = Standing::from_stored(name).ok_or(StoreError::Corrupt {
                what: "call.standing",
            })?;
            standings.push((standing, super::whole(row.get("contacts"))));
        }
        Ok(standings)
    }

    /// Outcomes of the campaign's last `limit` ended calls, ended after `since`. Index `recent_ends`.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn call_recent_outcomes(
        &self,
        campaign: CampaignId,
        since: Option<DateTime<Utc>>,
        limit: i64,
    ) -> StoreResult<Vec<Outcome>> {
        let since = since.map_or_else(
            || Bson::DateTime(bson::DateTime::from_millis(0)),
            |since| bson_time(since).into(),
        );
        let filter = doc! { "campaignId": oid(campaign), "endTime": { "$gt": since } };
        let calls = self.calls.clone_with_type::<Document>();
        let rows: Vec<Document> = calls
            .find(filter)
            .sort(doc! { "endTime": -1 })
            .projection(doc! { "outcome": 1, "_id": 0 })
            .limit(limit)
            .within()
            .await?
            .try_collect()
            .within()
            .await?;
        Ok(rows
            .iter()
            .filter_map(|row| Outcome::parse(row.get_str("outcome").ok()?).ok())
            .collect())
    }

    /// Number of the campaign's calls that were dialed since `since`, for the rate in its progress. Indexes `recent_ends`,
    /// `standing`.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn call_dialed_since(
        &self,
        campaign: CampaignId,
        since: DateTime<Utc>,
    ) -> StoreResult<u64> {
        let (campaign, since) = (oid(campaign), bson_time(since));
        // What was begun since then has ended since then, or lives.
        let filter = doc! {
            "$or": [
                { "campaignId": campaign, "endTime": { "$gte": since } },
                { "campaignId": campaign, "standing": "in_flight" },
            ],
            "startTime": { "$gte": since },
            "outcome": { "$ne": "bot_not_ready" },
        };
        self.calls.count_documents(filter).within().await
    }
}

impl CallFilter {
    fn document(&self) -> Document {
        let mut filter = Document::new();
        if let Some(client) = self.client {
            filter.insert("clientId", lenient::either(client));
        }
        if let Some(campaign) = self.campaign {
            filter.insert("campaignId", oid(campaign));
        }
        if let Some(outcome) = self.outcome {
            filter.insert("outcome", outcome.as_str());
        }
        if let Some(status) = self.status {
            filter.insert("status", status.as_str());
        }
        if self.live {
            filter.insert("slots", doc! { "$exists": true });
        }
        if let Some(before) = self.before {
            filter.insert("_id", doc! { "$lt": oid(before) });
        }
        filter
    }
}

fn hint(index: &str) -> mongodb::options::Hint {
    mongodb::options::Hint::Name(index.to_owned())
}
