//! One import at work: reads rows as they come, writes them in batches, says now and then that it lives.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, mpsc};

use super::rows::{CsvRows, Intake, JsonRows};
use super::{Chunk, FileFault, ImportError, UploadEnd, UploadFault};
use crate::domain::contact::{ContactDraft, JsonContact};
use crate::domain::list::{ContactList, ListStatus, name_fault};
use crate::domain::phone::CountryCode;
use crate::services::idempotency::FormSaid;
use crate::services::store::Store;
use crate::utils::crash_points::crash_point;
use crate::utils::lifecycle::Lifecycle;

/// The uploader may be silent for so long.
const MAX_SILENCE: Duration = Duration::from_secs(60);
/// Bytes parsed before other tasks get their turn.
const PIECE: usize = 16 * 1024;
/// Contacts written by one command.
const BATCH: usize = 1000;
/// Between two life signs of an import.
const LIFE_SIGN_INTERVAL: Duration = Duration::from_secs(5);
/// Rejected rows that the list itself shows.
const SHOWN_REJECTS: usize = 100;

/// One import at work.
pub(super) struct Run {
    pub(super) store: Store,
    pub(super) lifecycle: Lifecycle,
    /// Turns to write a batch.
    pub(super) writes: Arc<Semaphore>,
    pub(super) list: ContactList,
    /// What the form said that it is made from.
    pub(super) said: Option<FormSaid>,
    pub(super) intake: Intake,
    pub(super) last_sign: Instant,
}

impl Run {
    pub(super) async fn read_csv(
        &mut self,
        mut upload: mpsc::Receiver<Chunk>,
        default_country: Option<CountryCode>,
    ) -> Result<(), ImportError> {
        let mut rows = CsvRows::new(default_country);
        loop {
            let chunk = tokio::select! {
                next = next_chunk(&mut upload) => next,
                () = self.lifecycle.stopping() => return Err(ImportError::Stopping),
            };
            match chunk {
                Some(Chunk::Data(bytes)) => {
                    for piece in bytes.chunks(PIECE) {
                        rows.feed(piece, &mut self.intake)?;
                        self.write_full_batches().await?;
                        tokio::task::yield_now().await;
                    }
                }
                Some(Chunk::End(end)) => {
                    self.take_end(end)?;
                    return Ok(rows.finish(&mut self.intake)?);
                }
                Some(Chunk::Broken(fault)) => return Err(fault.into()),
                None => return Err(UploadFault::Incomplete.into()),
            }
        }
    }

    fn take_end(&mut self, end: UploadEnd) -> Result<(), ImportError> {
        self.said = end.said;
        if let Some(name) = end.name {
            if let Some(fault) = name_fault(&name) {
                return Err(ImportError::Name(fault));
            }
            self.list.name = name.trim().to_owned();
        }
        if self.list.name.is_empty() {
            return Err(ImportError::Name("is missing".to_owned()));
        }
        Ok(())
    }

    pub(super) async fn read_json(
        &mut self,
        contacts: Vec<JsonContact>,
        default_country: Option<CountryCode>,
    ) -> Result<(), ImportError> {
        let mut rows = JsonRows::default();
        for (place, contact) in contacts.into_iter().enumerate() {
            if place % BATCH == 0 {
                tokio::task::yield_now().await;
            }
            let draft = ContactDraft::from_json_fields(contact, default_country);
            rows.take(draft, &mut self.intake)?;
            self.write_full_batches().await?;
        }
        rows.finish(&mut self.intake);
        Ok(())
    }

    async fn write_full_batches(&mut self) -> Result<(), ImportError> {
        if self.last_sign.elapsed() >= LIFE_SIGN_INTERVAL {
            self.give_life_sign().await?;
        }
        if self.intake.batch.len() >= BATCH {
            self.write_batch().await?;
        }
        Ok(())
    }

    async fn write_batch(&mut self) -> Result<(), ImportError> {
        if self.lifecycle.is_stopping() {
            return Err(ImportError::Stopping);
        }
        let batch = std::mem::take(&mut self.intake.batch);
        if !batch.is_empty() {
            // The semaphore is never closed: with or without a turn, the batch is written.
            let _turn = self.writes.acquire().await.ok();
            self.store.contacts_insert(self.list.id, batch).await?;
        }
        Ok(())
    }

    /// Asks at the same time whether the list is still ours: after a long sleep it may have been swept up.
    async fn give_life_sign(&mut self) -> Result<(), ImportError> {
        if !self.store.list_heartbeat(self.list.id).await? {
            return Err(ImportError::Removed);
        }
        self.last_sign = Instant::now();
        Ok(())
    }

    pub(super) async fn finish(mut self: Box<Self>) -> Result<ContactList, ImportError> {
        if self.intake.report.total == 0 {
            return Err(FileFault::NoRows.into());
        }
        self.write_batch().await?;
        let report = self.intake.report;
        let rejects = report.rejects;
        let errors: Vec<_> = rejects.iter().take(SHOWN_REJECTS).cloned().collect();
        if report.accepted == 0 {
            return Err(ImportError::NothingUsable {
                total: report.total,
                errors,
            });
        }
        let list = ContactList {
            status: ListStatus::Ready,
            total: report.total,
            accepted: report.accepted,
            duplicates: report.duplicates,
            rejected: report.rejected,
            errors,
            columns: report.names,
            ..self.list
        };
        let said = self.said.map(|FormSaid(said)| said);
        crash_point!("import.before_last_write");
        let is_ours = self.store.list_finish(&list, said, rejects).await?;
        crash_point!("import.after_last_write");
        match is_ours {
            true => Ok(list),
            false => Err(ImportError::Removed),
        }
    }
}

/// The next of an upload; `None` when it was silent for too long, or its reader is gone.
pub(super) async fn next_chunk(upload: &mut mpsc::Receiver<Chunk>) -> Option<Chunk> {
    tokio::time::timeout(MAX_SILENCE, upload.recv())
        .await
        .ok()
        .flatten()
}
