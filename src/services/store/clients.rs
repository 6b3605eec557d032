//! The collection `client`: tenants and their limits.

use std::collections::BTreeMap;

use bson::oid::ObjectId;
use bson::{DateTime as BsonTime, Document, doc};
use futures_util::{FutureExt, TryStreamExt};
use mongodb::{ClientSession, IndexModel};
use serde::{Deserialize, Serialize};

use crate::domain::client::{Client, ClientStatus};
use crate::domain::ids::ClientId;
use crate::domain::phone::PhoneNumber;

use super::within::{Within, limited};
use super::{Store, StoreResult, bson_time, id_of, lenient, oid};

/// What a client of the earlier system without limits of its own had.
const OLD_LIMIT: u32 = 10;
/// The one document that all changes of clients touch in their transaction, so that no two of them run at once.
const GUARD: &str = "clients";

/// A client as stored. Fields that the earlier system kept beside these stay in the document and are not read.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ClientDoc {
    #[serde(rename = "_id")]
    id: ObjectId,
    name: Option<String>,
    company: Option<String>,
    email: Option<String>,
    #[serde(default, deserialize_with = "lenient::number")]
    max_concurrent_calls: Option<u32>,
    #[serde(default, deserialize_with = "lenient::number")]
    max_calls_per_minute: Option<u32>,
    #[serde(default, deserialize_with = "lenient::number")]
    guaranteed_calls: Option<u32>,
    #[serde(default)]
    caller_ids: Vec<PhoneNumber>,
    #[serde(default, deserialize_with = "lenient::number")]
    max_calls_per_caller_id: Option<u32>,
    status: Option<String>,
    #[serde(default, deserialize_with = "lenient::time")]
    created_at: Option<BsonTime>,
}

impl From<&Client> for ClientDoc {
    fn from(client: &Client) -> Self {
        let status = match client.status {
            ClientStatus::Active => "active",
            ClientStatus::Suspended => "suspended",
        };
        Self {
            id: oid(client.id),
            name: Some(client.name.clone()),
            company: client.company.clone(),
            email: client.email.clone(),
            max_concurrent_calls: Some(client.max_concurrent_calls),
            max_calls_per_minute: Some(client.max_calls_per_minute),
            guaranteed_calls: Some(client.guaranteed_calls),
            caller_ids: client.caller_ids.clone(),
            max_calls_per_caller_id: client.max_calls_per_caller_id,
            status: Some(status.to_owned()),
            created_at: Some(bson_time(client.created_at)),
        }
    }
}

impl From<ClientDoc> for Client {
    fn from(stored: ClientDoc) -> Self {
        let status = match stored.status.as_deref() {
            Some("suspended") => ClientStatus::Suspended,
            _ => ClientStatus::Active,
        };
        Self {
            id: id_of(stored.id),
            name: stored.name.unwrap_or_default(),
            company: stored.company,
            email: stored.email,
            max_concurrent_calls: stored.max_concurrent_calls.unwrap_or(OLD_LIMIT),
            max_calls_per_minute: stored.max_calls_per_minute.unwrap_or(OLD_LIMIT),
            guaranteed_calls: stored.guaranteed_calls.unwrap_or(0),
            caller_ids: stored.caller_ids,
            max_calls_per_caller_id: stored.max_calls_per_caller_id,
            status,
            created_at: stored
                .created_at
                .unwrap_or_else(|| stored.id.timestamp())
                .to_chrono(),
        }
    }
}

/// How a change of a client ended.
#[derive(Debug)]
pub enum ClientChange<E> {
    /// It was made; the client as it is now.
    Made(Client),
    /// The caller's own rules refused it.
    Refused(E),
    /// The guarantees of all clients together would be more than there are calls.
    OverCap {
        /// What could be guaranteed to this client at most.
        free: u32,
    },
}

/// The indexes of this file's queries: those by `_id` suffice.
pub(super) fn indexes() -> Vec<IndexModel> {
    Vec::new()
}

impl Store {
    /// Creates or changes a client by `change`, which is given what is stored. The guarantees of all clients together
    /// stay within `cap`, whoever else changes clients at the same time. `change` may be called more than once.
    ///
    /// # Errors
    /// When the database fails; then nothing was changed.
    pub async fn client_change<E: Send>(
        &self,
        id: ClientId,
        cap: u32,
        change: impl Fn(Option<Client>) -> Result<Client, E> + Send + Sync,
    ) -> StoreResult<ClientChange<E>> {
        let mut session = self.client.start_session().within().await?;
        let made = session
            .start_transaction()
            .and_run((self, id, &change), |session, (store, id, change)| {
                store.change_in(session, *id, cap, *change).boxed()
            });
        Ok(limited(made).await??)
    }

    async fn change_in<E>(
        &self,
        session: &mut ClientSession,
        id: ClientId,
        cap: u32,
        change: &(impl Fn(Option<Client>) -> Result<Client, E> + Send + Sync),
    ) -> mongodb::error::Result<ClientChange<E>> {
        self.database
            .collection::<Document>("guards")
            .update_one(doc! { "_id": GUARD }, doc! { "$inc": { "version": 1_i64 } })
            .upsert(true)
            .session(&mut *session)
            .await?;
        let stored = self
            .clients
            .find_one(doc! { "_id": oid(id) })
            .session(&mut *session)
            .await?;
        let before = stored.as_ref().and_then(|stored| stored.guaranteed_calls);
        let client = match change(stored.map(Client::from)) {
            Ok(client) => client,
            Err(refusal) => return Ok(ClientChange::Refused(refusal)),
        };
        if client.guaranteed_calls > before.unwrap_or(0) {
            let others = self.guaranteed_to_others(session, id).await?;
            let free = cap.saturating_sub(others);
            if client.guaranteed_calls > free {
                return Ok(ClientChange::OverCap { free });
            }
        }
        let mut fields = bson::serialize_to_document(&ClientDoc::from(&client))?;
        fields.remove("_id");
        self.clients
            .update_one(doc! { "_id": oid(id) }, doc! { "$set": fields })
            .upsert(true)
            .session(session)
            .await?;
        Ok(ClientChange::Made(client))
    }

    async fn guaranteed_to_others(
        &self,
        session: &mut ClientSession,
        id: ClientId,
    ) -> mongodb::error::Result<u32> {
        let mut cursor = self
            .clients
            .find(doc! { "_id": { "$ne": oid(id) }, "guaranteedCalls": { "$gt": 0 } })
            .session(&mut *session)
            .await?;
        let mut sum = 0_u32;
        while let Some(other) = cursor.next(session).await.transpose()? {
            sum = sum.saturating_add(other.guaranteed_calls.unwrap_or(0));
        }
        Ok(sum)
    }

    /// The client, if there is one. By `_id`.
    ///
    /// # Errors
    /// When the database fails or the document cannot be read.
    pub async fn client_get(&self, id: ClientId) -> StoreResult<Option<Client>> {
        let found = self
            .clients
            .find_one(doc! { "_id": oid(id) })
            .within()
            .await?;
        Ok(found.map(Client::from))
    }

    /// At most `limit` clients, newest first, from behind `after`. By `_id`.
    ///
    /// # Errors
    /// When the database fails or a document cannot be read.
    pub async fn client_list(
        &self,
        after: Option<ClientId>,
        limit: u32,
    ) -> StoreResult<Vec<Client>> {
        let filter = after.map_or_else(Document::new, |id| doc! { "_id": { "$lt": oid(id) } });
        let cursor = self
            .clients
            .find(filter)
            .sort(doc! { "_id": -1 })
            .limit(i64::from(limit))
            .within()
            .await?;
        cursor.map_ok(Client::from).try_collect().within().await
    }

    /// The calls guaranteed to each client that has a guarantee, suspended ones too: their live calls go on. Reads all
    /// clients, of which there are few.
    ///
    /// # Errors
    /// When the database fails or a document cannot be read.
    pub async fn client_guarantees(&self) -> StoreResult<BTreeMap<ClientId, u32>> {
        let cursor = self
            .clients
            .find(doc! { "guaranteedCalls": { "$gt": 0 } })
            .projection(doc! { "guaranteedCalls": 1 })
            .within()
            .await?;
        cursor
            .map_ok(|stored| (id_of(stored.id), stored.guaranteed_calls.unwrap_or(0)))
            .try_collect()
            .within()
            .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_of_the_earlier_system_loads_with_defaults() {
        let id = ObjectId::new();
        let old = doc! { "_id": id, "name": "Acme", "apiKey": "plain", "password": "x", "maxConcurrentCalls": 4.0 };
        let client = Client::from(bson::deserialize_from_document::<ClientDoc>(old).unwrap());
        assert_eq!(
            (client.max_concurrent_calls, client.max_calls_per_minute),
            (4, 10)
        );
        assert_eq!(client.status, ClientStatus::Active);
        assert_eq!(client.created_at, id.timestamp().to_chrono());
    }

    #[test]
    fn a_client_goes_round() {
        let client = Client {
            id: id_of(ObjectId::new()),
            name: "Acme".to_owned(),
            company: Some("Acme Ltd".to_owned()),
            email: None,
            max_concurrent_calls: 5,
            max_calls_per_minute: 60,
            guaranteed_calls: 2,
            caller_ids: vec![PhoneNumber::parse("+14155550100", None).unwrap()],
            max_calls_per_caller_id: Some(1),
            status: ClientStatus::Suspended,
            created_at: BsonTime::from_millis(1_700_000_000_123).to_chrono(),
        };
        let stored = bson::serialize_to_document(&ClientDoc::from(&client)).unwrap();
        assert!(stored.get_datetime("createdAt").is_ok());
        let back: ClientDoc = bson::deserialize_from_document(stored).unwrap();
        assert_eq!(Client::from(back), client);
    }
}
