//! Every index of the database, in one place; created by `ringmaster migrate` and at start.

use std::future::IntoFuture;
use std::time::Duration;

use bson::{Bson, Document, doc};
use futures_util::TryStreamExt;
use mongodb::IndexModel;
use mongodb::options::IndexOptions;
use tokio::time::timeout;

use super::within::{Within, limited_to};
use super::{
    Store, StoreError, StoreResult, calls, campaigns, clients, contacts, containers, idempotency,
    keys, lists, unmatched,
};

/// Longest wait for the indexes of one collection: an index of millions of documents takes minutes. It is built on in the
/// background if nobody waits any more.
const LONGEST_BUILD: Duration = Duration::from_secs(30 * 60);
/// A build that takes longer is told in the log.
const NOTEWORTHY: Duration = Duration::from_secs(5);

/// Version of the database's form. A database with a higher one was written by a newer Ringmaster.
pub const SCHEMA_VERSION: i32 = 1;

pub(super) fn index(name: &str, keys: Document) -> IndexModel {
    IndexModel::builder()
        .keys(keys)
        .options(IndexOptions::builder().name(name.to_owned()).build())
        .build()
}

pub(super) fn unique(name: &str, keys: Document, only: Document) -> IndexModel {
    let options = IndexOptions::builder().name(name.to_owned()).unique(true);
    let options = if only.is_empty() {
        options.build()
    } else {
        options.partial_filter_expression(only).build()
    };
    IndexModel::builder().keys(keys).options(options).build()
}

pub(super) fn partial(name: &str, keys: Document, only: Document) -> IndexModel {
    IndexModel::builder()
        .keys(keys)
        .options(
            IndexOptions::builder()
                .name(name.to_owned())
                .partial_filter_expression(only)
                .build(),
        )
        .build()
}

pub(super) fn ttl(name: &str, field: &str, seconds: u64) -> IndexModel {
    let options = IndexOptions::builder()
        .name(name.to_owned())
        .expire_after(Duration::from_secs(seconds))
        .build();
    IndexModel::builder()
        .keys(doc! { field: 1 })
        .options(options)
        .build()
}

impl Store {
    fn wanted_indexes(&self) -> Vec<(&str, Vec<IndexModel>)> {
        vec![
            (self.clients.name(), clients::indexes()),
            (self.keys.name(), keys::indexes()),
            (self.lists.name(), lists::indexes()),
            (self.contacts.name(), contacts::indexes()),
            (self.campaigns.name(), campaigns::indexes()),
            (self.calls.name(), calls::indexes()),
            (self.unmatched.name(), unmatched::indexes()),
            (self.containers.name(), containers::indexes()),
            (self.idempotency.name(), idempotency::indexes()),
        ]
    }

    /// What `migrate` would do, or could not: one line each for an index that is missing or another, and for another schema.
    /// Empty when the database is up to date.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn migration_plan(&self) -> StoreResult<Vec<String>> {
        let mut plan = Vec::new();
        for (collection, wanted) in self.wanted_indexes() {
            let present = self.indexes_of(collection).await?;
            for model in &wanted {
                let name = name_of(model).unwrap_or_default();
                match present.iter().find(|known| name_of(known) == Some(name)) {
                    None => plan.push(format!("{collection}: create index {name}")),
                    Some(known) if is_same(known, model) => {}
                    Some(_) => plan.push(format!(
                        "{collection}: index {name} has other keys or options than this program needs: drop it, then migrate"
                    )),
                }
            }
        }
        match self.schema_version().await? {
            Some(SCHEMA_VERSION) => {}
            Some(newer) if newer > SCHEMA_VERSION => plan.push(format!("schema version {newer} is newer than this program's {SCHEMA_VERSION}: run the newer program")),
            older => plan.push(format!("schema version: {} to {SCHEMA_VERSION}", older.map_or("none".to_owned(), |version| version.to_string()))),
        }
        Ok(plan)
    }

    /// Creates what is missing; safe to repeat and to run on several containers at once.
    ///
    /// # Errors
    /// `Newer` when a newer program has prepared the database: then nothing is changed. Else those of the store.
    pub async fn migrate(&self) -> StoreResult<()> {
        if let Some(stored) = self.schema_version().await?
            && stored > SCHEMA_VERSION
        {
            let known = SCHEMA_VERSION;
            return Err(StoreError::Newer { stored, known });
        }
        for (collection, wanted) in self.wanted_indexes() {
            if !wanted.is_empty() {
                let handle = self.database.collection::<Document>(collection);
                let mut building = handle.create_indexes(wanted).into_future();
                let built = match timeout(NOTEWORTHY, &mut building).await {
                    Ok(built) => built,
                    Err(_) => {
                        tracing::info!(collection, "indexes are being built");
                        limited_to(LONGEST_BUILD, building).await?
                    }
                };
                built?;
            }
        }
        let filter = doc! { "_id": "schema" };
        let update = doc! { "$max": { "version": SCHEMA_VERSION } };
        self.database
            .collection::<Document>("schema")
            .update_one(filter, update)
            .upsert(true)
            .within()
            .await?;
        Ok(())
    }

    async fn schema_version(&self) -> StoreResult<Option<i32>> {
        let found = self
            .database
            .collection::<Document>("schema")
            .find_one(doc! { "_id": "schema" })
            .within()
            .await?;
        Ok(found.and_then(|document| document.get_i32("version").ok()))
    }

    async fn indexes_of(&self, collection: &str) -> StoreResult<Vec<IndexModel>> {
        let collection = self.database.collection::<Document>(collection);
        match collection.list_indexes().within().await {
            Ok(cursor) => cursor.try_collect().within().await,
            // NamespaceNotFound: the collection does not exist yet, hence has no index.
            Err(StoreError::Internal { code: Some(26), .. }) => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }
}

/// Whether a stored index does what the wanted one would.
fn is_same(stored: &IndexModel, wanted: &IndexModel) -> bool {
    let of = |model: &IndexModel| {
        let options = model.options.clone().unwrap_or_default();
        (
            keys_of(&model.keys),
            options.unique.unwrap_or(false),
            options.sparse.unwrap_or(false),
            options.expire_after,
            options.partial_filter_expression,
        )
    };
    of(stored) == of(wanted)
}

/// The keys in their order; 1, 1.0 and a long 1 are the same direction.
fn keys_of(keys: &Document) -> Vec<(String, String)> {
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "a foreign, non-exhaustive enum"
    )]
    let direction = |value: &Bson| match value {
        Bson::Int32(value) => value.to_string(),
        Bson::Int64(value) => value.to_string(),
        Bson::Double(value) => value.to_string(),
        other => other.to_string(),
    };
    keys.iter()
        .map(|(field, value)| (field.clone(), direction(value)))
        .collect()
}

fn name_of(model: &IndexModel) -> Option<&str> {
    model
        .options
        .as_ref()
        .and_then(|options| options.name.as_deref())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_is_known_by_what_it_does() {
        let wanted = unique("u", doc! { "a": 1, "b": -1 }, doc! {});
        let by_hand = unique("u", doc! { "a": 1.0, "b": -1_i64 }, doc! {});
        assert!(is_same(&by_hand, &wanted));
        for other in [
            index("u", doc! { "a": 1, "b": -1 }),
            unique("u", doc! { "b": -1, "a": 1 }, doc! {}),
            unique("u", doc! { "a": 1, "b": 1 }, doc! {}),
            unique(
                "u",
                doc! { "a": 1, "b": -1 },
                doc! { "a": { "$exists": true } },
            ),
        ] {
            assert!(!is_same(&other, &wanted), "{other:?}");
        }
        assert!(!is_same(&ttl("t", "a", 1), &ttl("t", "a", 2)));
    }
}
