//! The collection `plivo-list-data`: contacts, written once by an import and read in order.
//!
//! `_id` is `{l: list, s: seq}`: the one index that every collection has anyway finds, orders and separates them, and an
//! import pays for no other. Field order matters inside such an `_id`: it is built by [`key`] only. Documents of the
//! earlier system have another kind of `_id`, and no range here reaches them.

use std::collections::BTreeMap;

use bson::oid::ObjectId;
use bson::{Bson, Document, doc};
use chrono_tz::Tz;
use futures_util::TryStreamExt;
use mongodb::IndexModel;
use serde::{Deserialize, Serialize};

use crate::domain::contact::Contact;
use crate::domain::ids::ListId;
use crate::domain::phone::PhoneNumber;

use super::within::Within;
use super::{Store, StoreResult, oid};

/// Contacts removed by one command: an election in between costs one slice, not the whole list.
const REMOVE_SLICE: i64 = 10_000;

/// A contact as stored.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ContactDoc {
    #[serde(rename = "_id")]
    key: ContactKey,
    number: PhoneNumber,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    first_name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    time_zone: Option<Tz>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    fields: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct ContactKey {
    l: ObjectId,
    s: i64,
}

/// The stored form of a place in a list; `seq` may be a bound that sorts before or behind all places.
fn key(list: ListId, seq: impl Into<Bson>) -> Document {
    doc! { "l": oid(list), "s": seq.into() }
}

fn stored_seq(seq: u64) -> i64 {
    i64::try_from(seq).unwrap_or(i64::MAX)
}

impl From<ContactDoc> for Contact {
    fn from(stored: ContactDoc) -> Self {
        Self {
            seq: u64::try_from(stored.key.s).unwrap_or_default(),
            number: stored.number,
            first_name: stored.first_name,
            time_zone: stored.time_zone,
            fields: stored.fields,
        }
    }
}

/// The indexes of this file's queries: `_id` suffices.
pub(super) fn indexes() -> Vec<IndexModel> {
    Vec::new()
}

impl Store {
    /// Writes a batch of contacts.
    ///
    /// # Errors
    /// When the database fails; some of the batch may have been written.
    pub async fn contacts_insert(&self, list: ListId, batch: Vec<Contact>) -> StoreResult<()> {
        let documents = batch.into_iter().map(|contact| ContactDoc {
            key: ContactKey {
                l: oid(list),
                s: stored_seq(contact.seq),
            },
            number: contact.number,
            first_name: contact.first_name,
            time_zone: contact.time_zone,
            fields: contact.fields,
        });
        self.contacts
            .insert_many(documents)
            .ordered(false)
            .within()
            .await?;
        Ok(())
    }

    /// At most `limit` contacts of a list in their order, beginning with `from_seq`. By `_id`.
    ///
    /// # Errors
    /// When the database fails or a document cannot be read.
    pub async fn contacts_range(
        &self,
        list: ListId,
        from_seq: u64,
        limit: u32,
    ) -> StoreResult<Vec<Contact>> {
        let filter = doc! { "_id": { "$gte": key(list, stored_seq(from_seq)), "$lt": key(list, Bson::MaxKey) } };
        let cursor = self
            .contacts
            .find(filter)
            .sort(doc! { "_id": 1 })
            .limit(i64::from(limit))
            .within()
            .await?;
        cursor.map_ok(Contact::from).try_collect().within().await
    }

    /// Removes all contacts of a list, slice by slice. By `_id`.
    ///
    /// # Errors
    /// When the database fails; the rest is removed by calling again.
    pub async fn contacts_remove(&self, list: ListId) -> StoreResult<()> {
        while let Some(first) = self.contacts_range(list, 0, 1).await?.first() {
            let first = stored_seq(first.seq);
            let slice = doc! { "$gte": key(list, first), "$lt": key(list, first.saturating_add(REMOVE_SLICE)) };
            self.contacts
                .delete_many(doc! { "_id": slice })
                .within()
                .await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::services::store::new_id;

    #[test]
    fn the_struct_and_the_bounds_agree_on_the_order_of_the_fields() {
        let list: ListId = new_id(chrono::DateTime::UNIX_EPOCH);
        let stored = bson::serialize_to_document(&ContactKey { l: oid(list), s: 7 }).unwrap();
        assert_eq!(stored, key(list, 7_i64));
        assert!(stored.keys().eq(["l", "s"]));
    }
}
