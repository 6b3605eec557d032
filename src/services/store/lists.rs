//! The collection `plivo-list`: contact lists, and `listRejects` with the rows that their imports refused.
//!
//! A list is `importing` until its last contact is written, and only the guarded write of [`Store::list_finish`] makes it
//! `ready`. Deleting begins with the hidden status `deleting`, so that nobody can start to use it while its contacts go.
//! An import or a deletion whose process died is found by its old `updatedAt` ([`Store::list_stale`]).

use std::time::Duration;

use bson::oid::ObjectId;
use bson::{Document, doc};
use futures_util::TryStreamExt;
use mongodb::IndexModel;
use serde::{Deserialize, Serialize};

use crate::domain::ids::{ClientId, ListId};
use crate::domain::list::{ContactList, RejectedRow};
use crate::utils::crash_points::crash_point;

use super::indexes::{index, partial, unique};
pub(super) use super::list_doc::ListDoc;
use super::list_doc::Status;
use super::within::Within;
use super::{Store, StoreError, StoreResult, bson_time, id_of, lenient, millis, oid};

/// The index that lets one reserved id make one list only.
pub const RESERVATION_INDEX: &str = "reservation_unique";

/// Campaigns in these statuses may still read their list.
const USING: [&str; 3] = ["scheduled", "running", "paused"];

/// All rows that an import refused and kept, in one document.
#[derive(Debug, Serialize, Deserialize)]
struct RejectsDoc {
    #[serde(rename = "_id")]
    id: ObjectId,
    rows: Vec<RejectedRow>,
}

/// An import that began and was not finished.
#[derive(Debug)]
pub struct Reserved {
    /// The list as it is.
    pub list: ContactList,
    /// Digest of the form that it was made from.
    pub said: Option<String>,
    /// False when its importer has not been heard of for longer than asked.
    pub alive: bool,
}

/// A list that a dead process left behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stale {
    /// An import that never ended.
    Import(ListId),
    /// A deletion that never ended.
    Deletion(ListId),
}

fn stored(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// The indexes of this file's queries.
pub(super) fn indexes() -> Vec<IndexModel> {
    vec![
        index("client_newest", doc! { "clientId": 1, "_id": -1 }),
        partial(
            "unfinished",
            doc! { "status": 1, "updatedAt": 1 },
            doc! { "status": { "$in": ["importing", "deleting"] } },
        ),
        unique(
            RESERVATION_INDEX,
            doc! { "reservation": 1 },
            doc! { "reservation": { "$exists": true } },
        ),
    ]
}

/// Not being deleted.
fn visible(scope: Option<ClientId>) -> Document {
    let mut filter = lenient::owned_by(scope);
    filter.insert("status", doc! { "$ne": "deleting" });
    filter
}

impl Store {
    fn rejects(&self) -> mongodb::Collection<RejectsDoc> {
        self.database.collection("listRejects")
    }

    /// Writes an empty list that is being imported.
    ///
    /// # Errors
    /// `Duplicate` of [`RESERVATION_INDEX`] when this reservation has made a list before.
    pub async fn list_begin(
        &self,
        list: &ContactList,
        reservation: Option<[u8; 12]>,
    ) -> StoreResult<()> {
        let document = ListDoc {
            id: oid(list.id),
            client_id: Some(oid(list.client_id)),
            name: Some(list.name.clone()),
            status: Some(Status::Importing),
            contact_count: Some(0),
            total: 0,
            duplicates: 0,
            rejected: 0,
            errors: Vec::new(),
            default_country: list.default_country,
            columns: Vec::new(),
            reservation: reservation.map(ObjectId::from_bytes),
            form: None,
            created_at: Some(bson_time(list.created_at)),
            updated_at: Some(bson_time(list.created_at)),
        };
        self.lists.insert_one(document).within().await?;
        Ok(())
    }

    /// The list that a reservation has made, with its importer's life sign within `silence`. Index [`RESERVATION_INDEX`].
    ///
    /// # Errors
    /// When the database fails or the document cannot be read.
    pub async fn list_of_reservation(
        &self,
        reservation: [u8; 12],
        silence: Duration,
    ) -> StoreResult<Option<Reserved>> {
        let filter = doc! { "reservation": ObjectId::from_bytes(reservation) };
        let Some(found) = self.lists.find_one(filter).within().await? else {
            return Ok(None);
        };
        let unheard = doc! { "_id": found.id, "$expr": older_than(silence) };
        let alive = self.lists.find_one(unheard).within().await?.is_none();
        Ok(Some(Reserved {
            said: found.form.clone(),
            list: found.try_into()?,
            alive,
        }))
    }

    /// The importer's life sign; false when the list is gone or no longer being imported: then the import must stop.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn list_heartbeat(&self, id: ListId) -> StoreResult<bool> {
        let updated = self
            .lists
            .update_one(
                doc! { "_id": oid(id), "status": "importing" },
                doc! { "$currentDate": { "updatedAt": true } },
            )
            .within()
            .await?;
        Ok(updated.matched_count == 1)
    }

    /// Makes an imported list usable; false when it was removed meanwhile. `said` is the digest of its form.
    ///
    /// # Errors
    /// When the database fails: then the list is still importing.
    pub async fn list_finish(
        &self,
        list: &ContactList,
        said: Option<String>,
        rejects: Vec<RejectedRow>,
    ) -> StoreResult<bool> {
        if !rejects.is_empty() {
            let id = oid(list.id);
            let document = RejectsDoc { id, rows: rejects };
            self.rejects()
                .replace_one(doc! { "_id": id }, document)
                .upsert(true)
                .within()
                .await?;
        }
        crash_point!("import.after_rejects");
        let report = doc! {
            "status": "ready",
            "name": &list.name,
            "form": said,
            "contactCount": stored(list.accepted),
            "total": stored(list.total),
            "duplicates": stored(list.duplicates),
            "rejected": stored(list.rejected),
            "errors": bson::serialize_to_bson(&list.errors).map_err(|_| StoreError::Corrupt { what: "a report" })?,
            "columns": list.columns.clone(),
        };
        let updated = self
            .lists
            .update_one(
                doc! { "_id": oid(list.id), "status": "importing" },
                doc! { "$set": report, "$currentDate": { "updatedAt": true } },
            )
            .within()
            .await?;
        Ok(updated.matched_count == 1)
    }

    /// The list, if there is one within the scope. By `_id`.
    ///
    /// # Errors
    /// When the database fails or the document cannot be read.
    pub async fn list_get(
        &self,
        id: ListId,
        scope: Option<ClientId>,
    ) -> StoreResult<Option<ContactList>> {
        let mut filter = visible(scope);
        filter.insert("_id", oid(id));
        let found = self.lists.find_one(filter).within().await?;
        found.map(ContactList::try_from).transpose()
    }

    /// At most `limit` lists, newest first, from behind `after`, without their errors. Index `client_newest`, or `_id`.
    ///
    /// # Errors
    /// When the database fails or a document cannot be read.
    pub async fn list_page(
        &self,
        scope: Option<ClientId>,
        after: Option<ListId>,
        limit: u32,
    ) -> StoreResult<Vec<ContactList>> {
        let mut filter = visible(scope);
        if let Some(after) = after {
            filter.insert("_id", doc! { "$lt": oid(after) });
        }
        let cursor = self
            .lists
            .find(filter)
            .projection(doc! { "errors": 0 })
            .sort(doc! { "_id": -1 })
            .limit(i64::from(limit))
            .within()
            .await?;
        let found: Vec<ListDoc> = cursor.try_collect().within().await?;
        found.into_iter().map(ContactList::try_from).collect()
    }

    /// The rows that a list's import refused and kept.
    ///
    /// # Errors
    /// When the database fails or the document cannot be read.
    pub async fn list_rejects(&self, id: ListId) -> StoreResult<Vec<RejectedRow>> {
        let found = self
            .rejects()
            .find_one(doc! { "_id": oid(id) })
            .within()
            .await?;
        Ok(found.map(|document| document.rows).unwrap_or_default())
    }

    /// Whether a campaign that has not ended uses the list. Index `list` of the campaigns.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn list_in_use(&self, id: ListId) -> StoreResult<bool> {
        let campaigns = self.campaigns.clone_with_type::<Document>();
        let using = doc! { "listId": lenient::either(id), "status": { "$in": USING.to_vec() } };
        let found = campaigns
            .find_one(using)
            .projection(doc! { "_id": 1 })
            .within()
            .await?;
        Ok(found.is_some())
    }

    /// Hides a list that is to be deleted; false when it is not ready, or gone. Whoever starts to
    /// use a list must look again that it is ready after having said so (a campaign's document): then either this side
    /// sees the use, or that side sees the deletion.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn list_hide(&self, id: ListId) -> StoreResult<bool> {
        let updated = self
            .lists
            .update_one(
                doc! { "_id": oid(id), "status": "ready" },
                doc! { "$set": { "status": "deleting" }, "$currentDate": { "updatedAt": true } },
            )
            .within()
            .await?;
        Ok(updated.matched_count == 1)
    }

    /// Shows a hidden list again.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn list_unhide(&self, id: ListId) -> StoreResult<()> {
        self.lists
            .update_one(
                doc! { "_id": oid(id), "status": "deleting" },
                doc! { "$set": { "status": "ready" } },
            )
            .within()
            .await?;
        Ok(())
    }

    /// Removes a list with all that belongs to it; the list itself last, so that what fails half-way is found again.
    ///
    /// # Errors
    /// When the database fails; the rest is removed by calling again.
    pub async fn list_remove(&self, id: ListId) -> StoreResult<()> {
        self.contacts_remove(id).await?;
        self.rejects()
            .delete_one(doc! { "_id": oid(id) })
            .within()
            .await?;
        self.lists
            .delete_one(doc! { "_id": oid(id) })
            .within()
            .await?;
        Ok(())
    }

    /// The imports and deletions without a life sign for `silence`, by the database's clock. Index `unfinished`.
    ///
    /// # Errors
    /// When the database fails or a document cannot be read.
    pub async fn list_stale(&self, silence: Duration) -> StoreResult<Vec<Stale>> {
        let filter =
            doc! { "status": { "$in": ["importing", "deleting"] }, "$expr": older_than(silence) };
        let cursor = self
            .lists
            .find(filter)
            .projection(doc! { "status": 1 })
            .limit(100)
            .within()
            .await?;
        let found: Vec<ListDoc> = cursor.try_collect().within().await?;
        let stale = |document: &ListDoc| match document.status {
            Some(Status::Importing) => Some(Stale::Import(id_of(document.id))),
            Some(Status::Deleting) => Some(Stale::Deletion(id_of(document.id))),
            Some(Status::Ready) | None => None,
        };
        Ok(found.iter().filter_map(stale).collect())
    }

    /// Takes a dead import away from its importer, should that one wake up: from now on its life sign fails.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn list_abandon(&self, id: ListId, silence: Duration) -> StoreResult<bool> {
        let updated = self
            .lists
            .update_one(
                doc! { "_id": oid(id), "status": "importing", "$expr": older_than(silence) },
                doc! { "$set": { "status": "deleting" }, "$unset": { "reservation": "" } },
            )
            .within()
            .await?;
        Ok(updated.matched_count == 1)
    }
}

fn older_than(silence: Duration) -> Document {
    doc! { "$lt": ["$updatedAt", { "$subtract": ["$$NOW", millis(silence)] }] }
}
