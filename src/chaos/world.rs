//! The parts of a run: database, carrier, proxies, load balancer and containers; started in this order and stopped in the
//! other.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use tokio::net::TcpListener;
use tokio::sync::Mutex;

use super::api::Api;
use super::containers::Container;
use super::journal::{Journal, Memory};
use super::judge::Timing;
use super::proxy::{APP_NAME, DialNotes, Duty, Proxy};
use super::schedule::{CONTAINERS, MEMBERS};
use super::screen::Screen;
use super::takeovers;
use super::trap::Trap;
use crate::services::store::embedded::ReplicaSet;
use crate::simulator::{ApiLimit, MsRange, Simulator, SimulatorOptions};
use crate::utils::clock::Clock;
use crate::utils::leash::Signal;
use crate::utils::lifecycle::Lifecycle;

/// Live calls of the account: less than all clients together may have.
pub(super) const GLOBAL_LIMIT: u32 = 20;
/// Calls that the account may start in a second.
const CALLS_PER_SECOND: u32 = 40;
/// Settings of the containers that the promises speak of, in ms.
const HEARTBEAT_MS: i64 = 1_000;
const ORPHAN_MS: i64 = 4_000;
const PROCESSED_MS: i64 = 4_000;
/// A container that is asked to stop has this long; see also [`STOP_PATIENCE`].
const GRACE_MS: u64 = 5_000;
/// The same, for waiting: the grace and what comes after it.
pub(super) const STOP_PATIENCE: Duration = Duration::from_secs(12);
/// How long a container may take to let requests in when nothing is wrong.
const START_TIME: Duration = Duration::from_secs(60);
/// How long ordinary callers wait for an answer.
const PATIENCE: Duration = Duration::from_secs(25);
/// How long those wait who look again and again.
const GLANCE: Duration = Duration::from_millis(1_500);

/// What the promises' times are, by these settings. The reconciler believes after three times MAX_PROCESSED_TIME that a dial never
/// arrived; the scan is every 0.7 s, a fifth more or less (`services::dispatcher`).
pub(super) const TIMING: Timing = Timing {
    orphan: ORPHAN_MS,
    heartbeat: HEARTBEAT_MS,
    scan: 840,
    hand_over: 2_000,
    pause: 1_000,
    settle: 3 * PROCESSED_MS,
};

/// The running parts.
pub(super) struct World {
    pub(super) clock: Clock,
    pub(super) life: Lifecycle,
    pub(super) journal: Journal,
    pub(super) screen: Screen,
    /// Where the database is.
    pub(super) database_folder: PathBuf,
    pub(super) admin: Api,
    /// The same, who does not wait long for an answer and rather asks the next container.
    pub(super) glancing: Api,
    pub(super) simulator: Simulator,
    pub(super) containers: Vec<Container>,
    pub(super) database: Mutex<ReplicaSet>,
    /// In front of each member of the database.
    pub(super) member_proxies: Vec<Proxy>,
    /// In front of the carrier, one a container.
    pub(super) carrier_proxies: Vec<Proxy>,
    /// The public address.
    pub(super) balancer: Proxy,
    pub(super) dial_notes: DialNotes,
    pub(super) trap: Trap,
}

impl World {
    pub(super) async fn start(
        mongod: &Path,
        [folder, database_folder]: [&Path; 2],
        seed: u64,
        screen: Screen,
    ) -> anyhow::Result<Self> {
        let (life, clock) = (Lifecycle::default(), Clock::system());
        let database = ReplicaSet::start(mongod, database_folder, MEMBERS)
            .await
            .context("the database could not be started")?;
        let trap = Trap::default();
        let mut member_proxies = Vec::new();
        for address in database.addresses() {
            member_proxies
                .push(Proxy::start(&life, vec![address], Duty::Recognise(trap.clone())).await?);
        }
        let hosts: Vec<SocketAddr> = member_proxies.iter().map(|proxy| proxy.address).collect();
        database
            .initiate(&hosts)
            .await
            .context("the replica set could not be set up")?;
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let carrier_address = listener.local_addr()?;
        let simulator = Simulator::start(listener, carrier(seed)).await?;
        let dial_notes = DialNotes::default();
        let mut carrier_proxies = Vec::new();
        let mut containers = Vec::new();
        for index in 0..CONTAINERS {
            let duty = Duty::NoteDials(dial_notes.clone());
            carrier_proxies.push(Proxy::start(&life, vec![carrier_address], duty).await?);
            containers.push(Container::new(index, folder)?);
        }
        let addresses = containers.iter().map(|place| place.address).collect();
        let balancer = Proxy::start(&life, addresses, Duty::Pass).await?;
        let admin_key = uuid::Uuid::new_v4().to_string();
        for (container, carrier) in containers.iter_mut().zip(&carrier_proxies) {
            let name = format!("{APP_NAME}{}", container.index);
            let database = format!("{}&appName={name}", ReplicaSet::uri(&hosts));
            let addresses = [balancer.address, carrier.address];
            container.configure(settings(&database, addresses, &admin_key));
            container.start().await?;
        }
        let admin = Api::new(Some(&admin_key), &clock, PATIENCE)?;
        let world = Self {
            glancing: admin.with_patience(GLANCE)?,
            admin,
            clock,
            life,
            journal: Journal::default(),
            screen,
            database_folder: database_folder.to_owned(),
            simulator,
            containers,
            database: Mutex::new(database),
            member_proxies,
            carrier_proxies,
            balancer,
            dial_notes,
            trap,
        };
        for container in &world.containers {
            let ready = container.until_ready(&world.admin, START_TIME).await;
            let id = ready.with_context(|| {
                let (number, folder) = (container.index + 1, folder.display());
                format!("container {number} did not become ready; its log is in {folder}")
            })?;
            takeovers::is_now(&world, container.index, Some(id));
        }
        world.weigh("start").await;
        Ok(world)
    }

    /// Unix ms.
    pub(super) fn now(&self) -> i64 {
        self.clock.now().timestamp_millis()
    }

    /// The caller with `key`.
    pub(super) fn api(&self, key: &str) -> anyhow::Result<Api> {
        Api::new(Some(key), &self.clock, PATIENCE)
    }

    /// The address of the container that `pick` falls on.
    pub(super) fn address(&self, pick: usize) -> SocketAddr {
        self.containers[pick % self.containers.len()].address
    }

    /// Writes down how much memory each container has.
    pub(super) async fn weigh(&self, when: &'static str) {
        for container in &self.containers {
            if let Some(rss_kib) = container.rss_kib().await {
                self.journal.pages().memory.push(Memory {
                    when,
                    container: container.index + 1,
                    rss_kib,
                });
            }
        }
    }

    /// Stops everything. The database's files are removed unless they are to be `kept`.
    pub(super) async fn stop(self, kept: bool) {
        for container in &self.containers {
            let thawed = container.signal(Signal::Thaw).await;
            let ended = container.end(Signal::Terminate, STOP_PATIENCE).await;
            if let Err(error) = thawed.and(ended) {
                tracing::warn!(%error, container = container.index + 1, "a container did not stop by itself");
            }
        }
        self.simulator.stop().await;
        self.life.drain(Duration::from_secs(2)).await;
        if let Err(error) = self.database.into_inner().stop().await {
            tracing::warn!(%error, "the database did not stop by itself");
        }
        if !kept && let Err(error) = std::fs::remove_dir_all(&self.database_folder) {
            tracing::warn!(%error, "the database's files are left");
        }
    }
}

/// A carrier whose calls take seconds, not minutes, with a plausible mix of outcomes.
fn carrier(seed: u64) -> SimulatorOptions {
    SimulatorOptions {
        cps: 0,
        api_limit: ApiLimit {
            requests: 3_000,
            window_ms: 5_000,
        },
        seed: Some(seed),
        ring_delay_ms: MsRange { min: 50, max: 300 },
        ring_duration_ms: MsRange { min: 100, max: 900 },
        talk_duration_ms: MsRange {
            min: 200,
            max: 2_500,
        },
        machine_detection_ms: MsRange { min: 100, max: 400 },
        cdr_delay_ms: 200,
        webhook_retry_spacing_ms: 300,
        ..SimulatorOptions::default()
    }
}

fn settings(
    database: &str,
    [public, carrier]: [SocketAddr; 2],
    admin_key: &str,
) -> BTreeMap<String, String> {
    let account = SimulatorOptions::default();
    let variables = [
        ("MONGODB_URI", database.to_owned()),
        ("MONGODB_DATABASE", "chaos".to_owned()),
        ("BASE_URL", format!("http://{public}")),
        ("PLIVO_AUTH_ID", account.auth_id),
        ("PLIVO_AUTH_TOKEN", account.auth_tokens.join(",")),
        ("PLIVO_API_BASE", format!("http://{carrier}")),
        ("PLIVO_CPS", CALLS_PER_SECOND.to_string()),
        ("GLOBAL_MAX_CALLS", GLOBAL_LIMIT.to_string()),
        ("ADMIN_API_KEY", admin_key.to_owned()),
        ("SUBSEQUENT_CALL_WAIT", "0".to_owned()),
        ("MAX_PROCESSED_TIME", PROCESSED_MS.to_string()),
        ("MAX_RINGING_TIME", "4000".to_owned()),
        ("MAX_ONGOING_TIME", "6000".to_owned()),
        ("CALL_TIMEOUT_MINUTES", "0.5".to_owned()),
        ("CLEANUP_INTERVAL", "5000".to_owned()),
        ("HEARTBEAT_INTERVAL", HEARTBEAT_MS.to_string()),
        ("ORPHAN_DETECTION_THRESHOLD", ORPHAN_MS.to_string()),
        ("CONTAINER_SHUTDOWN_GRACE", GRACE_MS.to_string()),
        // Calls fail on purpose here; whoever operates a campaign that the breaker paused would resume it all the time.
        ("FAILED_CALL_RATE_THRESHOLD", "100".to_owned()),
        ("RUST_LOG", "info".to_owned()),
    ];
    let named = |(name, value): (&str, String)| (name.to_owned(), value);
    variables.into_iter().map(named).collect()
}
