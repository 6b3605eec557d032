//! Contact lists as their owners see them: read, and delete.

use super::store::{Store, StoreError, StoreResult};
use crate::domain::contact::Contact;
use crate::domain::ids::{ClientId, ListId};
use crate::domain::list::{ContactList, ListStatus, RejectedRow};
use crate::utils::lifecycle::Lifecycle;

/// Why a list was not deleted, or its contacts not shown.
#[derive(Debug, thiserror::Error)]
pub enum ListError {
    /// There is none.
    #[error("no such list")]
    NotFound,
    /// It is in this status; only ready ones can be deleted, and only their contacts are complete.
    #[error("the list is not ready")]
    NotReady(ListStatus),
    /// A campaign that has not ended uses it.
    #[error("a campaign uses the list")]
    InUse,
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The service. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Lists {
    store: Store,
    lifecycle: Lifecycle,
}

impl Lists {
    /// The service.
    #[must_use]
    pub fn new(store: Store, lifecycle: Lifecycle) -> Self {
        Self { store, lifecycle }
    }

    /// The list, if there is one (of `scope`, where given).
    ///
    /// # Errors
    /// Those of the store.
    pub async fn get(
        &self,
        id: ListId,
        scope: Option<ClientId>,
    ) -> StoreResult<Option<ContactList>> {
        self.store.list_get(id, scope).await
    }

    /// At most `limit` lists, newest first, from behind `after`, without their errors.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn list(
        &self,
        scope: Option<ClientId>,
        after: Option<ListId>,
        limit: u32,
    ) -> StoreResult<Vec<ContactList>> {
        self.store.list_page(scope, after, limit).await
    }

    /// At most `limit` contacts in the order of dialing, from `from_seq`. Of a list that is still imported none: it may
    /// come to nothing, and its contacts with it.
    ///
    /// # Errors
    /// `NotReady`, or those of the store.
    pub async fn contacts(
        &self,
        list: &ContactList,
        from_seq: u64,
        limit: u32,
    ) -> Result<Vec<Contact>, ListError> {
        if list.status != ListStatus::Ready {
            return Err(ListError::NotReady(list.status));
        }
        Ok(self.store.contacts_range(list.id, from_seq, limit).await?)
    }

    /// The rows that the import refused, as many as are kept.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn rejects(&self, id: ListId) -> StoreResult<Vec<RejectedRow>> {
        self.store.list_rejects(id).await
    }

    /// Deletes a list; its contacts go in the background.
    ///
    /// # Errors
    /// See [`ListError`].
    pub async fn delete(&self, list: &ContactList) -> Result<(), ListError> {
        let id = list.id;
        if list.status != ListStatus::Ready {
            return Err(ListError::NotReady(list.status));
        }
        if !self.store.list_hide(id).await? {
            return Err(ListError::NotFound);
        }
        if self.store.list_in_use(id).await? {
            self.store.list_unhide(id).await?;
            return Err(ListError::InUse);
        }
        let store = self.store.clone();
        drop(self.lifecycle.spawn_work(async move {
            if let Err(error) = store.list_remove(id).await {
                tracing::warn!(%error, listId = %id, "a deleted list is left for the sweep");
            }
        }));
        Ok(())
    }
}
