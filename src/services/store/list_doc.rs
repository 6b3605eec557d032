//! The stored form of a contact list.

use bson::DateTime as BsonTime;
use bson::oid::ObjectId;
use serde::{Deserialize, Serialize};

use super::{StoreError, StoreResult, id_of, lenient};
use crate::domain::list::{ContactList, ListStatus, RejectedRow};
use crate::domain::phone::CountryCode;

/// A list as stored. The earlier system knew `name`, `clientId` (as text), `contactCount` and `createdAt` only.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ListDoc {
    #[serde(rename = "_id")]
    pub(super) id: ObjectId,
    #[serde(default, deserialize_with = "lenient::id")]
    pub(super) client_id: Option<ObjectId>,
    #[serde(alias = "listName")]
    pub(super) name: Option<String>,
    pub(super) status: Option<Status>,
    #[serde(default, deserialize_with = "lenient::number")]
    pub(super) contact_count: Option<u32>,
    #[serde(default)]
    pub(super) total: i64,
    #[serde(default)]
    pub(super) duplicates: i64,
    #[serde(default)]
    pub(super) rejected: i64,
    #[serde(default)]
    pub(super) errors: Vec<RejectedRow>,
    pub(super) default_country: Option<CountryCode>,
    #[serde(default)]
    pub(super) columns: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) reservation: Option<ObjectId>,
    /// Digest of the form that it was made from, where one request was to make one list only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) form: Option<String>,
    #[serde(default, deserialize_with = "lenient::time")]
    pub(super) created_at: Option<BsonTime>,
    pub(super) updated_at: Option<BsonTime>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Status {
    Importing,
    Ready,
    Deleting,
}

impl TryFrom<ListDoc> for ContactList {
    type Error = StoreError;

    fn try_from(doc: ListDoc) -> StoreResult<Self> {
        let accepted = u64::from(doc.contact_count.unwrap_or(0));
        let status = match doc.status {
            Some(Status::Importing) => ListStatus::Importing,
            Some(Status::Ready) => ListStatus::Ready,
            Some(Status::Deleting) | None => ListStatus::Failed,
        };
        Ok(Self {
            id: id_of(doc.id),
            client_id: doc.client_id.map(id_of).ok_or(StoreError::Corrupt {
                what: "a list's clientId",
            })?,
            name: doc.name.unwrap_or_default(),
            status,
            total: count(doc.total).max(accepted),
            accepted,
            duplicates: count(doc.duplicates),
            rejected: count(doc.rejected),
            errors: doc.errors,
            default_country: doc.default_country,
            columns: doc.columns,
            created_at: doc
                .created_at
                .unwrap_or_else(|| doc.id.timestamp())
                .to_chrono(),
        })
    }
}

fn count(value: i64) -> u64 {
    u64::try_from(value).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use bson::doc;

    #[test]
    fn a_list_of_the_earlier_system_loads_but_cannot_be_dialed() {
        let client = ObjectId::new();
        let old = doc! { "_id": ObjectId::new(), "name": "May", "clientId": client.to_hex(), "contactCount": 3 };
        let document: ListDoc = bson::deserialize_from_document(old).unwrap();
        let list = ContactList::try_from(document).unwrap();
        assert_eq!(
            (list.client_id, list.status, list.accepted),
            (id_of(client), ListStatus::Failed, 3)
        );
        let foreign = doc! { "_id": ObjectId::new(), "listName": "x" };
        let document: ListDoc = bson::deserialize_from_document(foreign).unwrap();
        assert!(ContactList::try_from(document).is_err());
    }
}
