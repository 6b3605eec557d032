//! The composition root: the only place that knows all parts. Builds them, starts them in order, stops them in order.

mod serve;

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::net::TcpListener;

use crate::config::{Config, Faults};
use crate::domain::ids::ContainerId;
use crate::domain::transition::Deadlines;
use crate::router::router;
use crate::services::auth::Auth;
use crate::services::calls::Calls;
use crate::services::campaigns::Campaigns;
use crate::services::carrier::PlivoClient;
use crate::services::clients::Clients;
use crate::services::dialer::Dialer;
use crate::services::dispatcher::Dispatcher;
use crate::services::heartbeat::Heartbeat;
use crate::services::idempotency::Idempotency;
use crate::services::imports::Imports;
use crate::services::lists::Lists;
use crate::services::monitoring::Monitoring;
use crate::services::outbound::Outbound;
use crate::services::pacer::Pacer;
use crate::services::parts::Parts;
use crate::services::reconciler::Reconciler;
use crate::services::single_calls::SingleCalls;
use crate::services::slots::Slots;
use crate::services::store::{self, Store, StoreError};
use crate::services::wake::Wake;
use crate::services::warmup::Warmup;
use crate::services::webhooks::Webhooks;
use crate::state::AppState;
use crate::utils::backoff;
use crate::utils::clock::{Clock, delta};
use crate::utils::crash_points::crash_point;
use crate::utils::lifecycle::Lifecycle;

/// Longest pause between two tries to prepare the database at start.
const PREPARE_PAUSE: Duration = Duration::from_secs(5);
/// Time for closing the database's connections, the last thing.
const CLOSE_TIME: Duration = Duration::from_secs(2);

/// Why the service could not be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// Settings are missing.
    #[error(transparent)]
    Settings(#[from] Faults),
    /// The database's address cannot be used.
    #[error("MONGODB_URI cannot be used: {0}")]
    Store(#[from] StoreError),
    /// The HTTP client cannot be built.
    #[error("the HTTP client cannot be built")]
    Http(#[from] reqwest::Error),
    /// The port cannot be bound.
    #[error("the address cannot be bound: {0}")]
    Listen(#[from] std::io::Error),
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// It was asked to stop, and everything finished.
    Cleanly,
    /// It was asked to stop, and something did not finish in time.
    Late,
    /// A part died on its own.
    Crashed,
}

/// The service, built but not yet running.
pub struct Application {
    listener: TcpListener,
    assembly: Assembly,
}

/// All parts, none of them started.
#[derive(Debug, Clone)]
pub struct Assembly {
    /// What the HTTP edge reaches.
    pub state: AppState,
    /// The database.
    pub store: Store,
    heartbeat: Heartbeat,
}

impl Application {
    /// Builds the service on `listener`. Nothing is sent anywhere yet.
    ///
    /// # Errors
    /// A [`BuildError`].
    pub async fn build(config: Config, listener: TcpListener) -> Result<Self, BuildError> {
        for variable in config.auth.short_secrets() {
            tracing::warn!(
                variable,
                "secret shorter than 32 bytes: it could be guessed"
            );
        }
        let assembly = assemble(config).await?;
        Ok(Self { listener, assembly })
    }

    /// The address that it listens at.
    ///
    /// # Errors
    /// Those of the socket.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// This container's id.
    #[must_use]
    pub fn container(&self) -> &str {
        self.assembly.heartbeat.container()
    }

    /// Serves until `shutdown` resolves or a part dies, then stops in order: no new work, campaigns handed over, work under
    /// way finished, connections closed.
    pub async fn run(self, shutdown: impl Future<Output = ()> + Send + 'static) -> Ended {
        let Self { listener, assembly } = self;
        let life = assembly.state.lifecycle.clone();
        tracing::info!(
            containerId = assembly.heartbeat.container(),
            version = env!("CARGO_PKG_VERSION"),
            "starting"
        );
        life.spawn_background("start", start(assembly.clone()));
        // Should it end or panic by itself, the process stops, and its exit code says so.
        let server = serve::serve(listener, router(&assembly.state), life.clone());
        life.spawn_background("server", server);
        tokio::select! {
            () = shutdown => {}
            () = life.stopping() => {}
        }
        stop(assembly).await
    }
}

async fn stop(assembly: Assembly) -> Ended {
    tracing::info!("stopping");
    let begun = Instant::now();
    let life = assembly.state.lifecycle.clone();
    let grace = assembly.state.config.lease.shutdown_grace;
    life.stop();
    let is_handed_over = tokio::time::timeout(grace, hand_over(&assembly))
        .await
        .is_ok();
    // A request may take longer than we have: the drain is bounded here.
    let is_drained = life.drain(grace.saturating_sub(begun.elapsed())).await;
    // A request that was under way may have taken a lease meanwhile.
    if tokio::time::timeout(CLOSE_TIME, release(&assembly))
        .await
        .is_err()
    {
        tracing::warn!("leases may be left; others adopt them when they grow old");
    }
    if tokio::time::timeout(CLOSE_TIME, assembly.store.shutdown())
        .await
        .is_err()
    {
        tracing::debug!("the database's connections did not close in time");
    }
    let ended = match (life.has_crashed(), is_handed_over && is_drained) {
        (true, _) => Ended::Crashed,
        (false, true) => Ended::Cleanly,
        (false, false) => Ended::Late,
    };
    tracing::info!(?ended, elapsed_ms = begun.elapsed().as_millis(), "stopped");
    ended
}

/// Builds all parts, without starting any.
///
/// # Errors
/// A [`BuildError`].
pub async fn assemble(config: Config) -> Result<Assembly, BuildError> {
    config.require_serve()?;
    let config = Arc::new(config);
    let store = Store::connect(&config.mongo).await?;
    let (clock, life) = (Clock::system(), Lifecycle::default());
    let carrier = Arc::new(PlivoClient::new(&config.carrier)?);
    let parts = Arc::new(parts(&config, &store, &clock, &life, &carrier)?);
    let (calls, heartbeat) = (parts.calls.clone(), parts.heartbeat.clone());
    let dialing = &config.dialing;
    let dispatcher = Dispatcher::new(Arc::clone(&parts));
    let webhooks = Webhooks::new(store.clone(), calls.clone(), clock.clone());
    let orphan_threshold = delta(config.lease.orphan_threshold);
    let watch = (heartbeat.clone(), clock.clone(), life.clone());
    let state = AppState {
        auth: Auth::new(&config.auth, store.clone(), clock.clone(), life.clone()),
        clients: Clients::new(dialing, store.clone(), clock.clone()),
        imports: Imports::new(store.clone(), clock.clone(), life.clone()),
        lists: Lists::new(store.clone(), life.clone()),
        idempotency: Idempotency::new(store.clone(), clock.clone()),
        campaigns: Campaigns::new(
            store.clone(),
            clock.clone(),
            dispatcher.clone(),
            parts.outbound.clone(),
            orphan_threshold,
        ),
        reconciler: Reconciler::new(
            store.clone(),
            calls.clone(),
            carrier,
            webhooks.clone(),
            watch,
            dialing,
        ),
        monitoring: Monitoring::new(store.clone(), heartbeat.clone(), &config),
        single_calls: SingleCalls::new(parts, dialing.slot_wait),
        calls,
        dispatcher,
        webhooks,
        lifecycle: life,
        started: Instant::now(),
        is_prepared: Arc::default(),
        config,
        clock,
    };
    Ok(Assembly {
        state,
        store,
        heartbeat,
    })
}

/// What dials.
fn parts(
    config: &Config,
    store: &Store,
    clock: &Clock,
    life: &Lifecycle,
    carrier: &Arc<PlivoClient>,
) -> Result<Parts, BuildError> {
    let dialing = &config.dialing;
    let deadlines = Deadlines {
        processed: delta(dialing.max_processed),
        ringing: delta(dialing.max_ringing),
        ongoing: delta(dialing.max_ongoing),
    };
    let wake = Wake::default();
    let calls = Calls::new(
        store.clone(),
        Arc::clone(carrier),
        deadlines,
        wake.clone(),
        clock.clone(),
        life.clone(),
    );
    let pacer = Pacer::new(store.clone(), config);
    let base_url = config.carrier.base_url.clone();
    let dialer = Dialer::new(
        store.clone(),
        Arc::clone(carrier),
        calls.clone(),
        pacer.clone(),
        clock.clone(),
        base_url.unwrap_or_else(|| unreachable!("require_serve saw it")),
    );
    let container = store::new_id::<ContainerId>(clock.now()).to_string();
    let outbound = Outbound::new(config.http.allow_private_urls);
    Ok(Parts {
        slots: Slots::new(store.clone(), dialing.global_max_calls, wake.clone()),
        warmup: Warmup::new(config.warmup.clone(), outbound.clone())?,
        outbound,
        heartbeat: Heartbeat::new(
            store.clone(),
            clock.clone(),
            config.lease.clone(),
            &container,
        ),
        call_interval: dialing.call_interval,
        failed_rate_percent: dialing.failed_rate_percent,
        store: store.clone(),
        clock: clock.clone(),
        life: life.clone(),
        calls,
        dialer,
        pacer,
        wake,
    })
}

/// Prepares the database, however long it is away, and only then starts what dials: without its unique indexes no limit holds.
async fn start(assembly: Assembly) {
    let life = assembly.state.lifecycle.clone();
    let stop = life.token();
    let mut tries = 0;
    loop {
        match stop.run_until_cancelled(prepare(&assembly)).await {
            None => return,
            Some(Ok(())) => break,
            Some(Err(error)) => tracing::warn!(%error, "the database is not ready"),
        }
        let pause = backoff::exponential(Duration::from_millis(200), tries, PREPARE_PAUSE);
        if !life.sleep(pause).await {
            return;
        }
        tries += 1;
    }
    let Assembly {
        state, heartbeat, ..
    } = assembly;
    state.is_prepared.store(true, Ordering::Release);
    tracing::info!("ready");
    life.spawn_background("heartbeat", heartbeat.run(life.clone()));
    life.spawn_background("dispatcher", state.dispatcher.run());
    life.spawn_background("reconciler", state.reconciler.run());
    life.spawn_background("import sweeper", sweep_imports(state.imports, life.clone()));
    life.stopping().await;
}

/// Indexes, and the database's time: until it was read once, deadlines would follow this machine's clock.
async fn prepare(assembly: &Assembly) -> Result<(), StoreError> {
    assembly.store.migrate().await?;
    if assembly.heartbeat.beat().await? {
        Ok(())
    } else {
        Err(StoreError::Unavailable { code: None })
    }
}

/// Removes what imports left behind whose process died.
async fn sweep_imports(imports: Imports, life: Lifecycle) {
    const EVERY: Duration = Duration::from_secs(60);
    loop {
        match imports.sweep_stale().await {
            Ok(0) => {}
            Ok(removed) => tracing::info!(removed, "imports of dead processes removed"),
            Err(error) => tracing::warn!(%error, "sweeping imports failed"),
        }
        if !life.sleep(backoff::jitter(EVERY)).await {
            return;
        }
    }
}

/// Lets go of every lease, so that others need not wait for them to grow old.
async fn hand_over(assembly: &Assembly) {
    crash_point!("hand_over.stopping");
    assembly.state.dispatcher.until_idle().await;
    crash_point!("hand_over.before_release");
    release(assembly).await;
    crash_point!("hand_over.after_release");
}

async fn release(assembly: &Assembly) {
    let (store, container) = (&assembly.store, assembly.heartbeat.container());
    match store.campaign_release_all(container).await {
        Ok(campaigns) => tracing::info!(campaigns, "campaigns handed over"),
        Err(error) => {
            tracing::warn!(%error, "campaigns were not handed over; others adopt them when the leases grow old");
        }
    }
    crash_point!("hand_over.between_leases");
    let released = store.lease_release_all(container).await;
    if let Err(error) = released.and(store.container_gone(container).await) {
        tracing::warn!(%error, "the registry was not told");
    }
}
