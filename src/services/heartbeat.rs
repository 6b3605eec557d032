//! One heartbeat a process: renews all its leases with one write, and lets drivers know when it could not.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::store::{Store, StoreResult};
use crate::config::Lease as Settings;
use crate::utils::backoff;
use crate::utils::clock::Clock;
use crate::utils::lifecycle::Lifecycle;

/// After a failed renewal the next one is tried this soon.
const AGAIN: Duration = Duration::from_secs(1);

/// Who this process is and whether its leases are surely its own. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Heartbeat {
    store: Store,
    clock: Clock,
    settings: Settings,
    container: Arc<str>,
    renewed: Arc<Mutex<Instant>>,
}

impl Heartbeat {
    /// The heartbeat of the process `container`.
    #[must_use]
    pub fn new(store: Store, clock: Clock, settings: Settings, container: &str) -> Self {
        Self {
            store,
            clock,
            settings,
            container: container.into(),
            renewed: Arc::new(Mutex::new(Instant::now())),
        }
    }

    /// This process's id, new at every start.
    #[must_use]
    pub fn container(&self) -> &str {
        &self.container
    }

    /// After this time of silence others take a driver for dead.
    #[must_use]
    pub fn threshold(&self) -> Duration {
        self.settings.orphan_threshold
    }

    /// True when leases could not be renewed for half of the time after which others may take them: nothing may be dialed.
    #[must_use]
    pub fn is_fenced(&self) -> bool {
        let renewed = *self.renewed.lock().unwrap_or_else(PoisonError::into_inner);
        renewed.elapsed() > self.settings.orphan_threshold / 2
    }

    /// Asks the database for its time. False when the clock could not be followed this time.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn follow_clock(&self) -> StoreResult<bool> {
        self.store.ping(&self.clock).await
    }

    /// Asks the database for its time, and whether it takes a write: this container's sign of life. False when the clock could
    /// not be followed this time.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn probe(&self) -> StoreResult<bool> {
        let is_in_time = self.follow_clock().await?;
        self.store
            .container_seen(&self.container, env!("CARGO_PKG_VERSION"))
            .await?;
        Ok(is_in_time)
    }

    /// Renews all leases once, and follows the database's clock. False when the clock could not be followed this time.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn beat(&self) -> StoreResult<bool> {
        // Counted from here at the earliest: the write may take effect at any time until it is answered. What else a beat
        // does comes later, so that a slow database does not age the leases.
        let begun = Instant::now();
        self.store.campaign_heartbeat(&self.container).await?;
        *self.renewed.lock().unwrap_or_else(PoisonError::into_inner) = begun;
        self.probe().await
    }

    /// Beats until the process stops.
    pub async fn run(self, life: Lifecycle) {
        loop {
            let wait = match self.beat().await {
                Ok(_) => self.settings.heartbeat_interval,
                Err(error) => {
                    tracing::warn!(%error, fenced = self.is_fenced(), "heartbeat failed");
                    self.settings.heartbeat_interval.min(AGAIN)
                }
            };
            if !life.sleep(backoff::jitter(wait).min(wait)).await {
                return;
            }
        }
    }
}
