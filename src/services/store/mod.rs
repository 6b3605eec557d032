//! The only module that knows MongoDB. One concrete [`Store`]; a file per collection.
//!
//! Every state change is one guarded write; a write is acknowledged only when a majority has it in its journal. Error
//! texts of the driver never leave [`error`]: they repeat key values, and those are phone numbers.

pub mod embedded;
pub mod error;

pub mod indexes;

mod within;

mod call_doc;
mod call_reads;
mod campaign_doc;
mod campaign_leases;
mod lenient;
mod list_doc;

pub mod calls;
pub mod campaigns;
pub mod clients;
pub mod contacts;
pub mod containers;
pub mod idempotency;
pub mod keys;
pub mod leases;
pub mod lists;
pub mod rate_limits;
pub mod unmatched;

use std::time::{Duration, Instant};

use bson::oid::ObjectId;
use bson::{DateTime as BsonTime, Document, doc};
use chrono::{DateTime, Utc};
use mongodb::options::{
    Acknowledgment, ClientOptions, ReadConcern, SelectionCriteria, WriteConcern,
};
use mongodb::{Client, Collection, Database};
use secrecy::ExposeSecret;
use serde::de::DeserializeOwned;

use crate::config::Mongo;
use crate::domain::ids::Id;
use crate::utils::clock::Clock;
use within::Within;

pub use error::{StoreError, StoreResult, Trouble};

/// The longest that the server waits for a majority.
const MAX_MAJORITY_TIME: Duration = Duration::from_secs(10);

/// The database of one Ringmaster. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Store {
    client: Client,
    database: Database,
    clients: Collection<clients::ClientDoc>,
    keys: Collection<keys::KeyDoc>,
    lists: Collection<lists::ListDoc>,
    contacts: Collection<contacts::ContactDoc>,
    campaigns: Collection<campaigns::CampaignDoc>,
    calls: Collection<calls::CallDoc>,
    unmatched: Collection<unmatched::UnmatchedDoc>,
    rate_limits: Collection<rate_limits::RateDoc>,
    containers: Collection<containers::ContainerDoc>,
    leases: Collection<leases::LeaseDoc>,
    idempotency: Collection<idempotency::IdempotencyDoc>,
}

impl Store {
    /// Prepares the connection pool; the first operation connects.
    ///
    /// # Errors
    /// When the URI cannot be used.
    pub async fn connect(settings: &Mongo) -> StoreResult<Self> {
        let uri = settings
            .uri
            .as_ref()
            .map(|uri| uri.expose_secret())
            .unwrap_or_default();
        let mut options = ClientOptions::parse(uri).within().await?;
        options
            .app_name
            .get_or_insert_with(|| "ringmaster".to_owned());
        options.max_pool_size.get_or_insert(64);
        options
            .server_selection_timeout
            .get_or_insert(Duration::from_secs(3));
        options
            .connect_timeout
            .get_or_insert(Duration::from_secs(3));
        options.write_concern = Some(
            WriteConcern::builder()
                .w(Acknowledgment::Majority)
                .journal(true)
                .w_timeout(MAX_MAJORITY_TIME)
                .build(),
        );
        options.read_concern = Some(ReadConcern::majority());
        options.selection_criteria = Some(SelectionCriteria::ReadPreference(
            mongodb::options::ReadPreference::Primary,
        ));
        let client = Client::with_options(options)?;
        let database = client.database(&settings.database);
        Ok(Self {
            clients: database.collection(&settings.clients_collection),
            keys: database.collection("apiKeys"),
            lists: database.collection("plivo-list"),
            contacts: database.collection("plivo-list-data"),
            campaigns: database.collection(&settings.campaigns_collection),
            calls: database.collection(&settings.calls_collection),
            unmatched: database.collection("unmatchedWebhooks"),
            rate_limits: database.collection("rateLimits"),
            containers: database.collection("containers"),
            leases: database.collection("leases"),
            idempotency: database.collection("idempotencyKeys"),
            client,
            database,
        })
    }

    /// Asks the primary for its time and takes it over into `clock`. False when the answer took too long to be of use.
    ///
    /// # Errors
    /// When no primary answers.
    pub async fn ping(&self, clock: &Clock) -> StoreResult<bool> {
        let asked = Instant::now();
        let hello: Document = self
            .database
            .run_command(doc! { "hello": 1 })
            .within()
            .await?;
        let local = hello
            .get_datetime("localTime")
            .map_err(|_| StoreError::Corrupt {
                what: "hello.localTime",
            })?;
        if !hello.get_bool("isWritablePrimary").unwrap_or(false) {
            return Err(StoreError::Unavailable {
                code: Some(error::NOT_WRITABLE_PRIMARY),
            });
        }
        Ok(clock.sync(local.to_chrono(), asked))
    }

    /// Closes the connections; the last thing a process does with its store. A connection that swallows packets does not keep
    /// it from ending.
    pub async fn shutdown(self) {
        if within::limited(self.client.shutdown().into_future())
            .await
            .is_err()
        {
            tracing::debug!("the database's connections did not close in time");
        }
    }
}

/// A new id of any kind. It begins with the second `now`, which is the database's: ids are in the order of their making
/// whatever the clocks of the containers say.
#[must_use]
pub fn new_id<T: Id>(now: DateTime<Utc>) -> T {
    T::from_bytes(new_oid(now).bytes())
}

/// As [`new_id`], in its stored form.
pub(super) fn new_oid(now: DateTime<Utc>) -> ObjectId {
    let mut bytes = ObjectId::new().bytes();
    let seconds = u32::try_from(now.timestamp()).unwrap_or(0);
    bytes[..4].copy_from_slice(&seconds.to_be_bytes());
    ObjectId::from_bytes(bytes)
}

/// The stored form of an id.
pub(super) fn oid(id: impl Id) -> ObjectId {
    ObjectId::from_bytes(id.bytes())
}

/// The id in its stored form.
pub(super) fn id_of<T: Id>(oid: ObjectId) -> T {
    T::from_bytes(oid.bytes())
}

/// The stored form of a time: a BSON date, so that ranges, sorting and TTL indexes work.
pub(super) fn bson_time(time: DateTime<Utc>) -> BsonTime {
    BsonTime::from_chrono(time)
}

/// The stored form of a time that may be absent.
pub(super) fn bson_time_opt(time: Option<DateTime<Utc>>) -> Option<BsonTime> {
    time.map(bson_time)
}

/// A duration as the milliseconds that pipelines add to dates.
pub(super) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// A count as the server gives it: 32 or 64 bits wide, by its size.
pub(super) fn whole(value: Option<&bson::Bson>) -> i64 {
    match value {
        Some(bson::Bson::Int32(count)) => i64::from(*count),
        Some(bson::Bson::Int64(count)) => *count,
        _ => 0,
    }
}

/// The documents that can be read; the others are reported. For work that must go on past a document that is broken.
pub(super) fn readable<D: DeserializeOwned, T: TryFrom<D, Error = StoreError>>(
    what: &'static str,
    docs: Vec<Document>,
) -> Vec<T> {
    let read = |doc: Document| {
        let id = doc.get_object_id("_id").ok();
        let value = bson::deserialize_from_document::<D>(doc)
            .map_err(|_| StoreError::Corrupt { what })
            .and_then(T::try_from);
        value
            .inspect_err(
                |error| tracing::error!(id = id.map(tracing::field::display), %error, "skipped"),
            )
            .ok()
    };
    docs.into_iter().filter_map(read).collect()
}
