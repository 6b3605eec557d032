//! Contact lists: importing, deleting, and sweeping up after those that died at it.
//!
//! An import reads its file as it arrives, writes batches, and makes the list usable with its last write; whatever goes
//! wrong before that, the list and its contacts are removed. Memory does not depend on the size of the file, except for
//! the set of numbers by which duplicates are known (a few bytes each).

mod rows;
mod run;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::{Semaphore, mpsc};

use crate::domain::contact::JsonContact;
use crate::domain::ids::{ClientId, ListId};
use crate::domain::list::{ContactList, ListStatus, RejectedRow, name_fault};
use crate::domain::phone::CountryCode;
use crate::utils::clock::Clock;
use crate::utils::lifecycle::Lifecycle;

use super::idempotency::ReservedId;
use super::store::lists::{RESERVATION_INDEX, Reserved, Stale};
use super::store::{self, Store, StoreError};

pub use rows::FileFault;
use rows::Intake;
use run::Run;

/// Imports that run at once in one process: each keeps a set of numbers in memory.
const MAX_IMPORTS: usize = 32;
/// Batches written at once by one process: more would slow down the writes of live calls. Uploads wait for each other
/// batch by batch, so a slow one holds nobody up.
const MAX_WRITES: usize = 2;
/// An import without a life sign for so long is dead for its own uploader, who asks again.
const RETRY_AFTER: Duration = Duration::from_secs(90);
/// An import or deletion without a life sign for so long is swept up.
const STALE_AFTER: Duration = Duration::from_secs(600);

/// What arrives of an upload. It is complete only when it ends with [`Chunk::End`].
#[derive(Debug)]
pub enum Chunk {
    /// The next bytes of the file.
    Data(Bytes),
    /// The file and all that belongs to it has arrived.
    End,
    /// It will not.
    Broken(UploadFault),
}

/// Why an upload is not complete.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UploadFault {
    /// It ended half-way, or nothing came for a minute.
    #[error("the upload ended before it was complete")]
    Incomplete,
    /// It is longer than allowed.
    #[error("the upload is longer than {0} bytes")]
    TooLarge(usize),
    /// A part of the form came behind the file, where it cannot have its effect any more.
    #[error("the part {0} must come before the file")]
    Late(String),
}

/// A list to import.
#[derive(Debug, Clone)]
pub struct NewList {
    /// Whose it will be.
    pub client: ClientId,
    /// What its owner calls it.
    pub name: String,
    /// The country of numbers without a country code.
    pub default_country: Option<CountryCode>,
    /// Lets one request make one list only.
    pub reservation: Option<ReservedId>,
}

/// Why there is no new list. Then nothing of it is left.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The name cannot be one.
    #[error("the name cannot be used")]
    Name(String),
    /// There is no such client.
    #[error("no such client")]
    NoClient,
    /// The upload is not complete.
    #[error(transparent)]
    Upload(#[from] UploadFault),
    /// The file cannot be a list.
    #[error(transparent)]
    File(#[from] FileFault),
    /// No row can be dialed.
    #[error("none of the {total} rows can be dialed")]
    NothingUsable {
        /// How many rows there are.
        total: u64,
        /// The first of them, with their faults.
        errors: Vec<RejectedRow>,
    },
    /// The same request is being worked on.
    #[error("the same upload is being imported")]
    InProgress,
    /// Enough imports are running.
    #[error("too many imports are running")]
    Busy,
    /// This process is about to stop.
    #[error("the process is stopping")]
    Stopping,
    /// The list was taken for dead and removed while it was being imported.
    #[error("the import was taken for dead")]
    Removed,
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Imports lists. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Imports {
    store: Store,
    clock: Clock,
    lifecycle: Lifecycle,
    places: Arc<Semaphore>,
    writes: Arc<Semaphore>,
}

enum Source {
    Csv(mpsc::Receiver<Chunk>),
    Json(Vec<JsonContact>),
}

impl Imports {
    /// Works on the store.
    #[must_use]
    pub fn new(store: Store, clock: Clock, lifecycle: Lifecycle) -> Self {
        Self {
            store,
            clock,
            lifecycle,
            places: Arc::new(Semaphore::new(MAX_IMPORTS)),
            writes: Arc::new(Semaphore::new(MAX_WRITES)),
        }
    }

    /// Imports a CSV file while it is being uploaded. To be run on [`Lifecycle::spawn_work`]: when the uploader goes away,
    /// there is still something to remove.
    ///
    /// # Errors
    /// See [`ImportError`].
    pub async fn import_csv(
        &self,
        new: NewList,
        upload: mpsc::Receiver<Chunk>,
    ) -> Result<ContactList, ImportError> {
        self.import(new, Source::Csv(upload)).await
    }

    /// Imports contacts that came as JSON; see [`Imports::import_csv`].
    ///
    /// # Errors
    /// See [`ImportError`].
    pub async fn import_json(
        &self,
        new: NewList,
        contacts: Vec<JsonContact>,
    ) -> Result<ContactList, ImportError> {
        self.import(new, Source::Json(contacts)).await
    }

    async fn import(&self, new: NewList, source: Source) -> Result<ContactList, ImportError> {
        if let Some(fault) = name_fault(&new.name) {
            return Err(ImportError::Name(fault));
        }
        let _place = self.places.try_acquire().map_err(|_| ImportError::Busy)?;
        if self.store.client_get(new.client).await?.is_none() {
            return Err(ImportError::NoClient);
        }
        let default_country = new.default_country;
        let mut run = match self.begin(new).await? {
            Begun::Earlier(list) => return Ok(list),
            Begun::New(run) => run,
        };
        let read = match source {
            Source::Csv(upload) => run.read_csv(upload, default_country).await,
            Source::Json(contacts) => run.read_json(contacts, default_country).await,
        };
        let id = run.list.id;
        let outcome = match read {
            Ok(()) => run.finish().await,
            Err(error) => Err(error),
        };
        if outcome.is_err()
            && let Err(error) = self.store.list_remove(id).await
        {
            tracing::warn!(%error, list.id = %id, "a failed import is left for the sweep");
        }
        outcome
    }

    /// Writes the list, unless the same request has already made one.
    async fn begin(&self, new: NewList) -> Result<Begun, ImportError> {
        let reservation = new.reservation.map(|ReservedId(bytes)| bytes);
        // Never the reserved id itself: a sleeper that wakes up may clean up only what is its own.
        let list = ContactList {
            id: store::new_id(self.clock.now()),
            client_id: new.client,
            name: new.name.trim().to_owned(),
            status: ListStatus::Importing,
            total: 0,
            accepted: 0,
            duplicates: 0,
            rejected: 0,
            errors: Vec::new(),
            default_country: new.default_country,
            columns: Vec::new(),
            created_at: self.clock.now(),
        };
        loop {
            match self.store.list_begin(&list, reservation).await {
                Ok(()) => {
                    return Ok(Begun::New(Box::new(Run {
                        store: self.store.clone(),
                        lifecycle: self.lifecycle.clone(),
                        writes: self.writes.clone(),
                        list,
                        intake: Intake::default(),
                        last_sign: Instant::now(),
                    })));
                }
                Err(error) if error.is_duplicate_of(RESERVATION_INDEX) => {}
                Err(error) => return Err(error.into()),
            }
            let earlier = reservation.unwrap_or_default();
            match self.store.list_of_reservation(earlier, RETRY_AFTER).await? {
                Some(Reserved { list, .. }) if list.status == ListStatus::Ready => {
                    return Ok(Begun::Earlier(list));
                }
                Some(Reserved { alive: true, .. }) => return Err(ImportError::InProgress),
                Some(Reserved { list, .. }) => {
                    self.remove_dead_import(list.id, RETRY_AFTER).await?;
                }
                None => {}
            }
        }
    }

    /// Removes what dead processes left of imports and deletions; returns how many lists. Idempotent, and safe on several
    /// containers at once.
    ///
    /// # Errors
    /// When the database fails; the next sweep goes on.
    pub async fn sweep_stale(&self) -> Result<u64, StoreError> {
        let mut swept = 0;
        for stale in self.store.list_stale(STALE_AFTER).await? {
            match stale {
                Stale::Import(id) => self.remove_dead_import(id, STALE_AFTER).await?,
                Stale::Deletion(id) if self.store.list_in_use(id).await? => {
                    self.store.list_unhide(id).await?;
                }
                Stale::Deletion(id) => self.store.list_remove(id).await?,
            }
            swept += 1;
        }
        Ok(swept)
    }

    async fn remove_dead_import(&self, id: ListId, silence: Duration) -> Result<(), StoreError> {
        if self.store.list_abandon(id, silence).await? {
            self.store.list_remove(id).await?;
        }
        Ok(())
    }
}

enum Begun {
    New(Box<Run>),
    Earlier(ContactList),
}
