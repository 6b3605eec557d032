//! What is going on now, for people and dashboards.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Mutex;

use super::heartbeat::Heartbeat;
use super::store::Trouble;
use super::store::containers::Container;
use super::store::{Store, StoreResult};
use crate::config::Config;
use crate::domain::call::{Call, CallFilter};
use crate::domain::client::Client;
use crate::domain::ids::ClientId;
use crate::domain::slots::numbers_of;

/// Calls listed at most beside their number.
const MOST_CALLS: i64 = 500;
/// Clients reported at most.
const MOST_CLIENTS: u32 = 500;

/// How full a limit is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Utilization {
    /// Live calls.
    pub active: u32,
    /// The limit.
    pub max: u32,
    /// At or above the threshold that is worth a look.
    pub is_high: bool,
}

impl Utilization {
    /// Free slots.
    #[must_use]
    pub fn available(self) -> u32 {
        self.max.saturating_sub(self.active)
    }

    /// Live calls in percent of the limit, rounded down.
    #[must_use]
    pub fn percent(self) -> u32 {
        u32::try_from(u64::from(self.active) * 100 / u64::from(self.max.max(1))).unwrap_or(u32::MAX)
    }
}

/// Live calls: how many against the limits, and which.
#[derive(Debug, Clone)]
pub struct ActiveCalls {
    /// Of the account.
    pub global: Utilization,
    /// Of the client asked for.
    pub client: Option<Utilization>,
    /// The calls, newest first, if asked for.
    pub calls: Option<Vec<Call>>,
}

/// A container and how many campaigns it drives.
#[derive(Debug, Clone)]
pub struct Driving {
    /// The container.
    pub container: Container,
    /// Campaigns that it drives.
    pub campaigns: i64,
}

/// What is the matter with the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DatabaseProblem {
    /// It has no room left: it can be read, and every write fails.
    Full,
    /// It takes no writes: there is no primary, or it is stepping down or shutting down.
    ReadOnly,
    /// It does not answer, or not in time.
    Away,
}

impl From<Trouble> for DatabaseProblem {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::Full => Self::Full,
            Trouble::ReadOnly => Self::ReadOnly,
            Trouble::Away => Self::Away,
        }
    }
}

/// The last answer of the database, and when it came.
type Probed = (Instant, Result<(), DatabaseProblem>);

/// The database is not asked again so soon.
const PROBE_AGE: Duration = Duration::from_secs(1);

/// The service. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Monitoring {
    store: Store,
    heartbeat: Heartbeat,
    probed: Arc<Mutex<Option<Probed>>>,
    global_max: u32,
    high_percent: u32,
    orphan_threshold: Duration,
}

impl Monitoring {
    /// The service.
    #[must_use]
    pub fn new(store: Store, heartbeat: Heartbeat, settings: &Config) -> Self {
        Self {
            store,
            heartbeat,
            probed: Arc::default(),
            global_max: settings.dialing.global_max_calls,
            high_percent: settings.dialing.high_utilization_percent,
            orphan_threshold: settings.lease.orphan_threshold,
        }
    }

    /// Live calls of the account and of `client`, with the calls themselves if wanted (of `client` only, where one is given).
    ///
    /// # Errors
    /// Those of the store.
    pub async fn active_calls(
        &self,
        client: Option<&Client>,
        with_calls: bool,
    ) -> StoreResult<ActiveCalls> {
        let taken = self.store.slots_taken().await?;
        let count =
            |scope: &str| u32::try_from(numbers_of(scope, &taken).len()).unwrap_or(u32::MAX);
        let filter = CallFilter {
            client: client.map(|client| client.id),
            live: true,
            ..CallFilter::default()
        };
        Ok(ActiveCalls {
            global: self.level(count("global"), self.global_max),
            client: client.map(|client| {
                self.level(
                    count(&format!("client/{}", client.id)),
                    client.max_concurrent_calls,
                )
            }),
            calls: if with_calls {
                Some(self.store.call_list(&filter, MOST_CALLS).await?)
            } else {
                None
            },
        })
    }

    /// Asks the database whether it answers and, where it `is_prepared` for this program, takes writes.
    ///
    /// # Errors
    /// What is the matter when not.
    pub async fn probe(&self, is_prepared: bool) -> Result<(), DatabaseProblem> {
        // Anybody may ask, and each question costs a write: whoever asks at the same time shares one.
        let mut probed = self.probed.lock().await;
        if let Some((at, answer)) = *probed
            && at.elapsed() < PROBE_AGE
        {
            return answer;
        }
        let asked = if is_prepared {
            self.heartbeat.probe().await
        } else {
            self.heartbeat.follow_clock().await
        };
        let answer = asked.map(drop).map_err(|error| {
            tracing::warn!(%error, "the database cannot be used");
            error.trouble().into()
        });
        *probed = Some((Instant::now(), answer));
        answer
    }

    /// How full the account is, and each client: only `client` where one is given, else the first 500.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn utilization(
        &self,
        client: Option<ClientId>,
    ) -> StoreResult<(Utilization, Vec<(ClientId, Utilization)>)> {
        let clients = match client {
            Some(id) => self.store.client_get(id).await?.into_iter().collect(),
            None => self.store.client_list(None, MOST_CLIENTS).await?,
        };
        let taken = self.store.slots_taken().await?;
        let count =
            |scope: &str| u32::try_from(numbers_of(scope, &taken).len()).unwrap_or(u32::MAX);
        let each = clients.iter().map(|client| {
            let active = count(&format!("client/{}", client.id));
            (client.id, self.level(active, client.max_concurrent_calls))
        });
        Ok((self.level(count("global"), self.global_max), each.collect()))
    }

    /// The containers that are alive, and what they drive.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn containers(&self) -> StoreResult<Vec<Driving>> {
        let driving = self.store.campaign_drivers().await?;
        let containers = self.store.container_list(self.orphan_threshold).await?;
        Ok(containers
            .into_iter()
            .map(|container| {
                let campaigns = driving
                    .iter()
                    .find(|(id, _)| *id == container.id)
                    .map_or(0, |(_, campaigns)| *campaigns);
                Driving {
                    container,
                    campaigns,
                }
            })
            .collect())
    }

    fn level(&self, active: u32, max: u32) -> Utilization {
        let plain = Utilization {
            active,
            max,
            is_high: false,
        };
        Utilization {
            is_high: plain.percent() >= self.high_percent,
            ..plain
        }
    }
}
