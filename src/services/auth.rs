//! Who is asking: API keys, JSON web tokens, and the key that bootstraps (promise P7).
//!
//! Keys are kept as SHA-256 only. They have 256 bits of chance, so a plain hash is enough: there is nothing to guess, and
//! a look-up by hash tells nothing about how much of a key was right. What a key allows is cached for [`CACHE_TTL`], so a
//! revoked key or a suspended client is refused everywhere within that time.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, TimeDelta, Utc};
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use rand::RngExt;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::config;
use crate::domain::client::ClientStatus;
use crate::domain::ids::{ClientId, KeyId};
use crate::domain::role::{Principal, Role};
use crate::utils::clock::Clock;
use crate::utils::lifecycle::Lifecycle;

use super::store::{Store, StoreError};

/// How old the answer to "what does this key allow" may be. Promised is 5 s; this leaves room for a slow look-up.
const CACHE_TTL: Duration = Duration::from_secs(3);
/// Most answers kept; some 100 bytes each.
const CACHE_SIZE: usize = 10_000;
/// Between two notes that a key was used.
const USE_RESOLUTION: TimeDelta = TimeDelta::minutes(1);
/// What our keys begin with, so that people and secret scanners recognise them.
const KEY_PREFIX: &str = "rm_";
/// Longer credentials are not looked at.
const MAX_CREDENTIAL_BYTES: usize = 4096;

/// Why a caller is not let in.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// We do not know the key, or the token is not ours or no longer valid.
    #[error("the key or token is not valid")]
    Unknown,
    /// The client is suspended.
    #[error("the client is suspended")]
    Suspended,
    /// The database could not be asked.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A key that was just made. It is shown to its owner now and never again.
pub struct NewKey {
    /// The key.
    pub secret: SecretString,
    /// What we keep of it.
    pub hash: [u8; 32],
}

/// Decides who is asking. Cheap to clone.
#[derive(Clone)]
pub struct Auth {
    store: Store,
    clock: Clock,
    lifecycle: Lifecycle,
    admin_hash: Option<[u8; 32]>,
    jwt_key: Option<DecodingKey>,
    cache: Arc<Mutex<HashMap<Subject, Cached>>>,
}

/// What is looked up in the database: a key, or the client that a token names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Subject {
    Key([u8; 32]),
    Client(ClientId),
}

#[derive(Debug, Clone, Copy)]
struct Cached {
    at: Instant,
    found: Found,
}

#[derive(Debug, Clone, Copy)]
enum Found {
    Principal(Principal),
    Suspended,
}

/// The claims of our tokens.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Claims {
    client_id: Option<ClientId>,
    role: Role,
    exp: i64,
}

impl Auth {
    /// Prepares what the settings name.
    #[must_use]
    pub fn new(settings: &config::Auth, store: Store, clock: Clock, lifecycle: Lifecycle) -> Self {
        let secret_bytes = |secret: &SecretString| secret.expose_secret().as_bytes().to_vec();
        Self {
            store,
            clock,
            lifecycle,
            admin_hash: settings
                .admin_key
                .as_ref()
                .map(|key| hash(key.expose_secret())),
            jwt_key: settings
                .jwt_secret
                .as_ref()
                .map(|secret| DecodingKey::from_secret(&secret_bytes(secret))),
            cache: Arc::default(),
        }
    }

    /// Finds out who holds the credential.
    ///
    /// # Errors
    /// See [`AuthError`].
    pub async fn authenticate(&self, credential: &str) -> Result<Principal, AuthError> {
        if credential.len() > MAX_CREDENTIAL_BYTES {
            return Err(AuthError::Unknown);
        }
        let hash = hash(credential);
        // Hashes are compared: of equal length, and in constant time.
        if self
            .admin_hash
            .is_some_and(|admin| bool::from(admin.ct_eq(&hash)))
        {
            return Ok(Principal::ADMIN);
        }
        match &self.jwt_key {
            Some(key) if looks_like_token(credential) => {
                self.holder_of_token(credential, key).await
            }
            _ => self.holder_of_key(hash).await,
        }
    }

    async fn holder_of_key(&self, hash: [u8; 32]) -> Result<Principal, AuthError> {
        let subject = Subject::Key(hash);
        if let Some(found) = self.cached(subject) {
            return found.admit();
        }
        let asked = Instant::now();
        let Some(key) = self.store.key_by_hash(&hash).await? else {
            return Err(AuthError::Unknown);
        };
        let principal = Principal::new(key.client_id, key.role).ok_or(AuthError::Unknown)?;
        let found = self.with_client_status(principal).await?;
        self.remember(subject, asked, found);
        self.note_use(key.id, key.last_used_at);
        found.admit()
    }

    async fn holder_of_token(
        &self,
        token: &str,
        key: &DecodingKey,
    ) -> Result<Principal, AuthError> {
        let mut validation = Validation::new(Algorithm::HS256);
        validation.set_required_spec_claims(&["exp"]);
        // The database's clock decides, not this machine's.
        validation.validate_exp = false;
        validation.validate_aud = false;
        let claims = jsonwebtoken::decode::<Claims>(token, key, &validation)
            .map_err(|_| AuthError::Unknown)?
            .claims;
        if claims.exp <= self.clock.now().timestamp() {
            return Err(AuthError::Unknown);
        }
        let principal = Principal::new(claims.client_id, claims.role).ok_or(AuthError::Unknown)?;
        let Some(client) = principal.client() else {
            return Ok(principal);
        };
        let subject = Subject::Client(client);
        let is_suspended = match self.cached(subject) {
            Some(found) => found.admit().is_err(),
            None => {
                let asked = Instant::now();
                let found = self.with_client_status(principal).await?;
                self.remember(subject, asked, found);
                found.admit().is_err()
            }
        };
        if is_suspended {
            return Err(AuthError::Suspended);
        }
        Ok(principal)
    }

    async fn with_client_status(&self, principal: Principal) -> Result<Found, AuthError> {
        let Some(client) = principal.client() else {
            return Ok(Found::Principal(principal));
        };
        match self.store.client_get(client).await? {
            None => Err(AuthError::Unknown),
            Some(client) => Ok(match client.status {
                ClientStatus::Active => Found::Principal(principal),
                ClientStatus::Suspended => Found::Suspended,
            }),
        }
    }

    /// The age of an answer counts from before it was asked for.
    fn cached(&self, subject: Subject) -> Option<Found> {
        let cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        cache
            .get(&subject)
            .filter(|cached| cached.at.elapsed() < CACHE_TTL)
            .map(|cached| cached.found)
    }

    fn remember(&self, subject: Subject, asked: Instant, found: Found) {
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        if cache.len() >= CACHE_SIZE {
            cache.retain(|_, cached| cached.at.elapsed() < CACHE_TTL);
        }
        if cache.len() < CACHE_SIZE {
            cache.insert(subject, Cached { at: asked, found });
        }
    }

    /// In the background: nobody waits for a note, and a lost one is no harm.
    fn note_use(&self, key: KeyId, last: Option<DateTime<Utc>>) {
        let now = self.clock.now();
        if last.is_some_and(|last| now - last < USE_RESOLUTION) {
            return;
        }
        let store = self.store.clone();
        drop(self.lifecycle.spawn_work(async move {
            if let Err(error) = store.key_used(key, now).await {
                tracing::debug!(%error, keyId = %key, "the use of a key was not noted");
            }
        }));
    }
}

impl Found {
    fn admit(self) -> Result<Principal, AuthError> {
        match self {
            Self::Principal(principal) => Ok(principal),
            Self::Suspended => Err(AuthError::Suspended),
        }
    }
}

impl fmt::Debug for Auth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Auth").finish_non_exhaustive()
    }
}

impl fmt::Debug for NewKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewKey").finish_non_exhaustive()
    }
}

impl NewKey {
    /// Makes a key: `rm_` and 32 bytes of the thread's cryptographic generator, base64url.
    #[must_use]
    pub fn generate() -> Self {
        let bytes: [u8; 32] = rand::rng().random();
        let key = format!("{KEY_PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes));
        Self {
            hash: hash(&key),
            secret: key.into(),
        }
    }
}

/// What is kept of a key.
#[must_use]
pub fn hash(key: &str) -> [u8; 32] {
    Sha256::digest(key.as_bytes()).into()
}

/// Three parts with dots between them; no key of ours has a dot.
fn looks_like_token(credential: &str) -> bool {
    credential.split('.').count() == 3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_differ_have_their_form_and_do_not_print() {
        let (one, other) = (NewKey::generate(), NewKey::generate());
        assert_ne!(one.hash, other.hash);
        let text = one.secret.expose_secret();
        assert!(text.starts_with(KEY_PREFIX) && text.len() == KEY_PREFIX.len() + 43);
        assert_eq!(hash(text), one.hash);
        assert!(!looks_like_token(text));
        assert!(!format!("{one:?}").contains(text));
    }
}
