//! How fast: the account's calls per second, each client's calls per window, and a rest when the carrier asks for one.
//!
//! Buckets are shared by all containers (the store). Within this process takers of one bucket queue up, so that they are
//! served in order and only one of them asks the database.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::store::rate_limits::{Grant, Receipt};
use super::store::{Store, StoreResult};
use crate::config::Config;
use crate::domain::ids::ClientId;
use crate::domain::pacing::interval_of;

/// A bucket and how often it lets a call go.
#[derive(Debug, Clone)]
struct Bucket {
    scope: String,
    interval: Duration,
}

/// Permission to dial once, from every bucket.
#[derive(Debug)]
pub struct Permit(Vec<(Bucket, Receipt)>);

type Lane = Arc<tokio::sync::Mutex<()>>;

/// The pacer. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Pacer {
    store: Store,
    account: Bucket,
    rate_window: Duration,
    lanes: Arc<Mutex<HashMap<String, Lane>>>,
    rest_until: Arc<Mutex<Option<Instant>>>,
}

impl Pacer {
    /// The pacer of the account in `config`.
    #[must_use]
    pub fn new(store: Store, config: &Config) -> Self {
        let interval = Duration::from_secs_f64(1.0 / config.carrier.calls_per_second);
        Self {
            store,
            account: Bucket {
                scope: "account/cps".to_owned(),
                interval,
            },
            rate_window: config.dialing.rate_window,
            lanes: Arc::default(),
            rest_until: Arc::default(),
        }
    }

    /// Waits for the right to dial once for `client`, which may make `per_window` calls a window. `None` when `stop` came first.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn take(
        &self,
        client: ClientId,
        per_window: u32,
        stop: &CancellationToken,
    ) -> StoreResult<Option<Permit>> {
        let of_client = Bucket {
            scope: format!("client/{client}"),
            interval: interval_of(per_window, self.rate_window),
        };
        // A rest is waited out before a turn is taken: turns that were taken during it would all be used at once after it.
        while let Some(rest) = self.resting() {
            let slept = stop.run_until_cancelled(tokio::time::sleep(rest)).await;
            if slept.is_none() {
                return Ok(None);
            }
        }
        let mut permit = Permit(Vec::new());
        // The narrow bucket first: the account's next moment is not spent on a client that may not use it yet.
        for bucket in [of_client, self.account.clone()] {
            match self.take_one(&bucket, stop).await {
                Ok(Some(receipt)) => permit.0.push((bucket, receipt)),
                Ok(None) => {
                    self.give_back(permit).await?;
                    return Ok(None);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(Some(permit))
    }

    /// Gives back a permit that was not used.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn give_back(&self, permit: Permit) -> StoreResult<()> {
        for (bucket, receipt) in permit.0 {
            self.store.rate_give_back(&bucket.scope, receipt).await?;
        }
        Ok(())
    }

    /// Lets nobody in this process dial for `rest`: the carrier is too busy with us, or away.
    pub fn rest(&self, rest: Duration) {
        let until = Instant::now() + rest;
        let mut slot = self
            .rest_until
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *slot = Some(slot.map_or(until, |known| known.max(until)));
    }

    async fn take_one(
        &self,
        bucket: &Bucket,
        stop: &CancellationToken,
    ) -> StoreResult<Option<Receipt>> {
        let lane = self.lane(&bucket.scope);
        let Some(_turn) = stop.run_until_cancelled(lane.lock()).await else {
            return Ok(None);
        };
        loop {
            let wait = match self.resting() {
                Some(rest) => rest,
                None => match self.store.rate_take(&bucket.scope, bucket.interval).await? {
                    Grant::Now(receipt) => return Ok(Some(receipt)),
                    Grant::After(wait) => wait,
                },
            };
            if stop
                .run_until_cancelled(tokio::time::sleep(wait))
                .await
                .is_none()
            {
                return Ok(None);
            }
        }
    }

    fn resting(&self) -> Option<Duration> {
        let until = *self
            .rest_until
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        until
            .and_then(|until| until.checked_duration_since(Instant::now()))
            .filter(|rest| !rest.is_zero())
    }

    fn lane(&self, scope: &str) -> Lane {
        let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(lanes.entry(scope.to_owned()).or_default())
    }
}
