//! The demo's three parts: database, carrier, server; started in this order and stopped in the other.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use anyhow::Context;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tracing_subscriber::EnvFilter;

use crate::app::{Application, Ended};
use crate::config::Config;
use crate::services::store::embedded::EmbeddedMongo;
use crate::simulator::{ApiLimit, MsRange, Simulator, SimulatorOptions};
use crate::utils::lifecycle::Lifecycle;

/// Live calls of the account.
pub(super) const GLOBAL_LIMIT: u64 = 40;
/// Live calls of the demo's client.
pub(super) const CLIENT_LIMIT: u64 = 30;
/// Calls started per second.
pub(super) const CALLS_PER_SECOND: u64 = 25;
/// The account's caller ID, fictitious.
pub(super) const CALLER_ID: &str = "+12025550100";
/// How long the server may take to be ready.
const START_TIME: Duration = Duration::from_secs(30);

/// The running parts.
pub(super) struct World {
    pub(super) base: String,
    pub(super) admin_key: String,
    pub(super) log: PathBuf,
    pub(super) simulator: Simulator,
    mongo: EmbeddedMongo,
    folder: PathBuf,
    stop: oneshot::Sender<()>,
    server: JoinHandle<Ended>,
}

impl World {
    pub(super) async fn start(mongod: &Path, parent: &Path, port: u16) -> anyhow::Result<Self> {
        let folder = parent.join(uuid::Uuid::new_v4().to_string());
        fs::create_dir_all(&folder)
            .with_context(|| format!("{} cannot be made", folder.display()))?;
        let folder = fs::canonicalize(folder)?;
        let log = parent.join("demo.log");
        log_to(&log)?;
        let mongo = EmbeddedMongo::start(mongod, &folder.join("mongo"))
            .await
            .context("mongod could not be started")?;
        let simulator =
            Simulator::start(TcpListener::bind("127.0.0.1:0").await?, carrier()).await?;
        let listener = TcpListener::bind(("127.0.0.1", port))
            .await
            .context("the port cannot be bound")?;
        let base = format!("http://{}", listener.local_addr()?);
        let admin_key = uuid::Uuid::new_v4().to_string();
        let config = settings(&base, &admin_key, &mongo.uri(), &simulator)?;
        let application = Box::pin(Application::build(config, listener)).await?;
        let (stop, stopped) = oneshot::channel::<()>();
        let server = Lifecycle::default().spawn_work(async move {
            // A sender that is gone means stop as well.
            Box::pin(application.run(async move { stopped.await.unwrap_or_default() })).await
        });
        let world = Self {
            base,
            admin_key,
            log,
            simulator,
            mongo,
            folder,
            stop,
            server,
        };
        world.until_ready().await?;
        Ok(world)
    }

    async fn until_ready(&self) -> anyhow::Result<()> {
        let http = reqwest::Client::builder()
            .timeout(START_TIME)
            .no_proxy()
            .build()?;
        let url = format!("{}/health/ready", self.base);
        let ready = async {
            while !http
                .get(&url)
                .send()
                .await
                .is_ok_and(|answer| answer.status().is_success())
            {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(START_TIME, ready)
            .await
            .context("the server did not become ready")
    }

    /// Stops the server, then the carrier, then the database, and removes the database's files.
    pub(super) async fn stop(self) {
        if self.stop.send(()).is_err() {
            tracing::warn!("the server had stopped already");
        }
        if let Err(error) = self.server.await {
            tracing::error!(%error, "the server died");
        }
        self.simulator.stop().await;
        if let Err(error) = self.mongo.stop().await {
            tracing::warn!(%error, "mongod did not stop by itself");
        }
        if let Err(error) = fs::remove_dir_all(&self.folder) {
            tracing::warn!(%error, "the database's files are left");
        }
    }
}

/// A carrier with a plausible mix of outcomes whose calls take seconds, not minutes; the same at every run.
fn carrier() -> SimulatorOptions {
    SimulatorOptions {
        cps: 0,
        api_limit: ApiLimit {
            requests: 3000,
            window_ms: 5000,
        },
        caller_ids: vec![CALLER_ID.to_owned()],
        seed: Some(42),
        ring_delay_ms: MsRange { min: 50, max: 200 },
        ring_duration_ms: MsRange { min: 200, max: 900 },
        talk_duration_ms: MsRange {
            min: 300,
            max: 1400,
        },
        machine_detection_ms: MsRange { min: 200, max: 400 },
        cdr_delay_ms: 200,
        ..SimulatorOptions::default()
    }
}

fn settings(
    base: &str,
    admin_key: &str,
    mongo: &str,
    simulator: &Simulator,
) -> anyhow::Result<Config> {
    let account = SimulatorOptions::default();
    let (cps, global) = (CALLS_PER_SECOND.to_string(), GLOBAL_LIMIT.to_string());
    let api = simulator.base_url();
    let variables = [
        ("MONGODB_URI", mongo),
        ("MONGODB_DATABASE", "demo"),
        ("BASE_URL", base),
        ("PLIVO_AUTH_ID", &account.auth_id),
        ("PLIVO_AUTH_TOKEN", &account.auth_tokens[0]),
        ("PLIVO_API_BASE", &api),
        ("PLIVO_CPS", &cps),
        ("GLOBAL_MAX_CALLS", &global),
        ("ADMIN_API_KEY", admin_key),
        ("SUBSEQUENT_CALL_WAIT", "0"),
        ("MAX_PROCESSED_TIME", "5000"),
        ("MAX_RINGING_TIME", "10000"),
        ("MAX_ONGOING_TIME", "15000"),
        ("HEARTBEAT_INTERVAL", "1000"),
        ("ORPHAN_DETECTION_THRESHOLD", "5000"),
        // Some calls fail on purpose; the demo is about the rest.
        ("FAILED_CALL_RATE_THRESHOLD", "60"),
    ];
    let variables: BTreeMap<String, String> = variables
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    Ok(Config::from_map(&variables)?)
}

/// The service's log goes to a file: the screen belongs to the show.
fn log_to(path: &Path) -> anyhow::Result<()> {
    let file =
        File::create(path).with_context(|| format!("{} cannot be written", path.display()))?;
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new("info"))
        .json()
        .with_writer(Mutex::new(file))
        .try_init()
        .map_err(|_| anyhow::anyhow!("the log is set up already"))
}
