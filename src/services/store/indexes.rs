//! Every index of the database, in one place; created by `ringmaster migrate` and at start.

use bson::{Document, doc};
use mongodb::IndexModel;
use mongodb::options::IndexOptions;

use super::within::Within;
use super::{
    Store, StoreResult, calls, campaigns, clients, contacts, containers, error, idempotency, keys,
    lists, unmatched,
};

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
        .expire_after(std::time::Duration::from_secs(seconds))
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

    /// What `migrate` would do: one line each for a missing index or an older schema. Empty when the database is up to date.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn migration_plan(&self) -> StoreResult<Vec<String>> {
        let mut plan = Vec::new();
        for (collection, wanted) in self.wanted_indexes() {
            let present = self.index_names(collection).await?;
            for name in wanted
                .iter()
                .filter_map(name_of)
                .filter(|name| !present.iter().any(|known| known == name))
            {
                plan.push(format!("{collection}: create index {name}"));
            }
        }
        match self.schema_version().await? {
            Some(SCHEMA_VERSION) => {}
            Some(newer) if newer > SCHEMA_VERSION => plan.push(format!("schema version {newer} is newer than this program's {SCHEMA_VERSION}: run the newer program")),
            older => plan.push(format!("schema version: {} to {SCHEMA_VERSION}", older.map_or("none".to_owned(), |version| version.to_string()))),
        }
        Ok(plan)
    }

    /// Creates what is missing; safe to repeat and to run on several containers at once. A newer schema version is left alone.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn migrate(&self) -> StoreResult<()> {
        for (collection, wanted) in self.wanted_indexes() {
            if !wanted.is_empty() {
                self.database
                    .collection::<Document>(collection)
                    .create_indexes(wanted)
                    .within()
                    .await?;
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

    async fn index_names(&self, collection: &str) -> StoreResult<Vec<String>> {
        match self
            .database
            .collection::<Document>(collection)
            .list_index_names()
            .await
        {
            Ok(names) => Ok(names),
            // NamespaceNotFound: the collection does not exist yet, hence has no index.
            Err(error) if error::code_of(&error) == Some(26) => Ok(Vec::new()),
            Err(error) => Err(error.into()),
        }
    }
}

fn name_of(model: &IndexModel) -> Option<&str> {
    model
        .options
        .as_ref()
        .and_then(|options| options.name.as_deref())
}
