//! One answer for one `Idempotency-Key`, however often the request comes.
//!
//! The record is written before the work and carries the id reserved for what the work creates. A retry after the answer
//! gets the same answer again. A retry while the work goes on is told to wait. A retry after the worker died (no life
//! sign for [`SILENCE`]) does the work again *with the same id*, so that what the dead one may have created is found by
//! its duplicate `_id` instead of being created twice; so does a retry after a failure (5xx), behind which a write may have
//! succeeded. Only answers that created something (2xx) are kept: a refused request (4xx) wrote nothing, and its key is
//! free again.

use std::time::Duration;

use chrono::{DateTime, Utc};
use sha2::{Digest, Sha256};

use crate::domain::ids::Id;
use crate::domain::role::Principal;
use crate::utils::clock::Clock;

use super::store::idempotency::Hold;
use super::store::{self, Store, StoreError};

pub use super::store::idempotency::StoredAnswer;

/// A worker that has given no life sign for so long is taken for dead.
const SILENCE: Duration = Duration::from_secs(60);
/// Between two life signs of a worker.
pub const LIFE_SIGN_INTERVAL: Duration = Duration::from_secs(15);

/// The id reserved for what a request creates, in the request's extensions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReservedId(pub [u8; 12]);

/// Marks an answer, in its extensions, that holds a secret: it is shown once and never stored.
#[derive(Debug, Clone, Copy)]
pub struct ShownOnce;

/// What to do with a request that has a key.
#[derive(Debug)]
pub enum Turn {
    /// Do the work; then say how it ended.
    Work(Work),
    /// Give this answer again.
    Replay(StoredAnswer),
    /// Someone is at it.
    InProgress,
    /// The key was used for another request.
    Mismatch,
}

/// The right and the duty to answer a request.
#[derive(Debug)]
pub struct Work {
    store: Store,
    hold: Hold,
}

/// Keeps the records. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Idempotency {
    store: Store,
    clock: Clock,
}

impl Idempotency {
    /// Works on the store's records.
    #[must_use]
    pub fn new(store: Store, clock: Clock) -> Self {
        Self { store, clock }
    }

    /// Decides what to do with a request: `parts` are what makes it the same request.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn begin(
        &self,
        principal: Principal,
        key: &str,
        parts: &[&[u8]],
    ) -> Result<Turn, StoreError> {
        let scope = principal
            .client()
            .map_or_else(|| "admin".to_owned(), |client| client.to_string());
        let id = digest(&[scope.as_bytes(), key.as_bytes()]);
        let asked = digest(parts);
        loop {
            match self
                .store
                .idempotency_begin(&id, &asked, self.clock.now())
                .await
            {
                Ok(hold) => return Ok(self.work(hold)),
                Err(error) if error.is_duplicate_of("_id_") => {}
                Err(error) => return Err(error),
            }
            let Some(known) = self.store.idempotency_get(&id).await? else {
                // Released in between: the key is free again.
                continue;
            };
            if known.digest != asked {
                return Ok(Turn::Mismatch);
            }
            if let Some(answer) = known.answer {
                return Ok(Turn::Replay(answer));
            }
            let taken = self.store.idempotency_take_over(&id, SILENCE).await?;
            return Ok(taken.map_or(Turn::InProgress, |hold| self.work(hold)));
        }
    }

    fn work(&self, hold: Hold) -> Turn {
        Turn::Work(Work {
            store: self.store.clone(),
            hold,
        })
    }
}

impl Work {
    /// The id for what the request creates.
    #[must_use]
    pub fn reserved(&self) -> ReservedId {
        ReservedId(self.hold.reserved)
    }

    /// Says that the work goes on.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn touch(&self) -> Result<(), StoreError> {
        self.store.idempotency_touch(&self.hold).await
    }

    /// Keeps the answer for a day.
    ///
    /// # Errors
    /// When the database fails: then a retry does the work again with the same id.
    pub async fn complete(&self, answer: StoredAnswer) -> Result<(), StoreError> {
        self.store.idempotency_complete(&self.hold, answer).await
    }

    /// Lets a retry take the work over at once, with the same id: it failed, and may have been carried out all the same.
    ///
    /// # Errors
    /// When the database fails: then a retry takes over once the work was silent for a while.
    pub async fn abandon(&self) -> Result<(), StoreError> {
        self.store.idempotency_abandon(&self.hold).await
    }

    /// Frees the key: the request was refused, and nothing was created.
    ///
    /// # Errors
    /// When the database fails: then the key is free after [`SILENCE`].
    pub async fn release(&self) -> Result<(), StoreError> {
        self.store.idempotency_release(&self.hold).await
    }
}

/// The reserved id where there is one, else a new one.
#[must_use]
pub fn reserved_or_new<T: Id>(reserved: Option<ReservedId>, now: DateTime<Utc>) -> T {
    reserved.map_or_else(
        || store::new_id(now),
        |ReservedId(bytes)| T::from_bytes(bytes),
    )
}

/// SHA-256 in hex of the parts, each with its length, so that no two lists of parts run into the same text.
fn digest(parts: &[&[u8]]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part.len().to_be_bytes());
        hash.update(part);
    }
    hash.finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_do_not_run_into_each_other() {
        assert_ne!(digest(&[b"ab", b"c"]), digest(&[b"a", b"bc"]));
        assert_eq!(digest(&[b"ab"]).len(), 64);
    }
}
