//! Clients and their keys: creating and changing them within the rules.

use secrecy::SecretString;

use crate::config::Dialing;
use crate::domain::client::{ApiKey, Client, ClientPatch, ClientStatus, Fault, label_fault};
use crate::domain::ids::{ClientId, KeyId};
use crate::domain::phone::PhoneNumber;
use crate::domain::role::{Principal, Role};
use crate::utils::clock::Clock;

use super::auth::NewKey;
use super::store::clients::ClientChange;
use super::store::{Store, StoreError, StoreResult};

/// Why a client or key was not created or changed. Then nothing was written.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// There is no such client.
    #[error("no such client")]
    NotFound,
    /// Values that cannot be.
    #[error("{} value(s) cannot be used", .0.len())]
    Invalid(Vec<Fault>),
    /// The guarantees of all clients together would be more than GLOBAL_MAX_CALLS.
    #[error("only {free} calls are left to guarantee")]
    OverGuaranteed {
        /// What could be guaranteed to this client at most.
        free: u32,
    },
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A client to create; what is left out has the deployment's default.
#[derive(Debug, Clone)]
pub struct NewClient {
    /// See [`Client::name`].
    pub name: String,
    /// See [`Client::company`].
    pub company: Option<String>,
    /// See [`Client::email`].
    pub email: Option<String>,
    /// See [`Client::max_concurrent_calls`].
    pub max_concurrent_calls: Option<u32>,
    /// See [`Client::max_calls_per_minute`].
    pub max_calls_per_minute: Option<u32>,
    /// See [`Client::guaranteed_calls`].
    pub guaranteed_calls: u32,
    /// See [`Client::caller_ids`].
    pub caller_ids: Vec<PhoneNumber>,
    /// See [`Client::max_calls_per_caller_id`].
    pub max_calls_per_caller_id: Option<u32>,
}

/// Creates and changes clients and keys. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Clients {
    store: Store,
    clock: Clock,
    default_max_calls: u32,
    default_calls_per_minute: u32,
    global_max_calls: u32,
}

impl Clients {
    /// Takes the defaults and the global limit from the settings.
    #[must_use]
    pub fn new(settings: &Dialing, store: Store, clock: Clock) -> Self {
        Self {
            store,
            clock,
            default_max_calls: settings.default_client_max_calls,
            default_calls_per_minute: settings.default_calls_per_minute,
            global_max_calls: settings.global_max_calls,
        }
    }

    /// Creates a client. When the id exists already, an earlier try has created it, and it is returned as it is. `found` is
    /// what was wrong with the request already: then it is refused, with what else is wrong.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn create(
        &self,
        id: ClientId,
        new: NewClient,
        found: Vec<Fault>,
    ) -> Result<Client, ClientError> {
        let guaranteed = new.guaranteed_calls;
        let client = Client {
            id,
            name: new.name.trim().to_owned(),
            company: new.company,
            email: new.email,
            max_concurrent_calls: new
                .max_concurrent_calls
                .unwrap_or_else(|| self.default_max_calls.max(guaranteed)),
            max_calls_per_minute: new
                .max_calls_per_minute
                .unwrap_or(self.default_calls_per_minute),
            guaranteed_calls: guaranteed,
            caller_ids: new.caller_ids,
            max_calls_per_caller_id: new.max_calls_per_caller_id,
            status: ClientStatus::Active,
            created_at: self.clock.now(),
        };
        self.change(id, &found, |stored| {
            Ok(stored.unwrap_or_else(|| client.clone()))
        })
        .await
    }

    /// The client, if there is one.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn get(&self, id: ClientId) -> StoreResult<Option<Client>> {
        self.store.client_get(id).await
    }

    /// At most `limit` clients, newest first, from behind `after`.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn list(&self, after: Option<ClientId>, limit: u32) -> StoreResult<Vec<Client>> {
        self.store.client_list(after, limit).await
    }

    /// At most `limit` keys of a client, newest first, from behind `after`; `None` when there is no such client.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn list_keys(
        &self,
        client: ClientId,
        after: Option<KeyId>,
        limit: u32,
    ) -> StoreResult<Option<Vec<ApiKey>>> {
        if self.store.client_get(client).await?.is_none() {
            return Ok(None);
        }
        self.store.key_list(client, after, limit).await.map(Some)
    }

    /// Changes a client. `found` is what was wrong with the request already: then it is refused, with what else is wrong.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn patch(
        &self,
        id: ClientId,
        patch: ClientPatch,
        found: Vec<Fault>,
    ) -> Result<Client, ClientError> {
        self.change(id, &found, |stored| {
            let stored = stored.ok_or(ClientError::NotFound)?;
            Ok(patch.clone().apply(stored))
        })
        .await
    }

    async fn change(
        &self,
        id: ClientId,
        found: &[Fault],
        change: impl Fn(Option<Client>) -> Result<Client, ClientError> + Send + Sync,
    ) -> Result<Client, ClientError> {
        let checked = |stored| {
            let client = change(stored)?;
            let mut faults = found.to_vec();
            faults.extend(client.faults());
            if faults.is_empty() {
                Ok(client)
            } else {
                Err(ClientError::Invalid(faults))
            }
        };
        let change = self
            .store
            .client_change(id, self.global_max_calls, checked)
            .await?;
        match change {
            ClientChange::Made(client) => Ok(client),
            ClientChange::Refused(error) => Err(error),
            ClientChange::OverCap { free } => Err(ClientError::OverGuaranteed { free }),
        }
    }

    /// Makes a key for a client. The key itself is in this answer only. With an id that exists already, an earlier answer
    /// was lost, and the key in it is replaced.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn create_key(
        &self,
        id: KeyId,
        client: ClientId,
        role: Role,
        label: Option<String>,
    ) -> Result<(ApiKey, SecretString), ClientError> {
        let mut faults: Vec<Fault> = label.as_deref().and_then(label_fault).into_iter().collect();
        if Principal::new(Some(client), role).is_none() {
            let reason = "a client's key is for an operator or a viewer";
            faults.push(Fault::new("role", reason));
        }
        if !faults.is_empty() {
            return Err(ClientError::Invalid(faults));
        }
        if self.store.client_get(client).await?.is_none() {
            return Err(ClientError::NotFound);
        }
        let new = NewKey::generate();
        let key = ApiKey {
            id,
            client_id: Some(client),
            role,
            label,
            created_at: self.clock.now(),
            last_used_at: None,
            revoked_at: None,
        };
        self.store.key_put(&key, &new.hash).await?;
        Ok((key, new.secret))
    }

    /// Revokes a key; it is refused everywhere within 5 s.
    ///
    /// # Errors
    /// [`ClientError::NotFound`] when there is no such key.
    pub async fn revoke_key(&self, id: KeyId) -> Result<(), ClientError> {
        match self.store.key_revoke(id, self.clock.now()).await? {
            true => Ok(()),
            false => Err(ClientError::NotFound),
        }
    }
}
