//! The commands of the binary: `serve`, `migrate`, `demo`, `chaos`, `simulate`, `openapi`, `healthcheck`.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::Subcommand;
use secrecy::ExposeSecret;
use tokio::net::TcpListener;

use crate::app::{Application, Ended};
use crate::config::{Carrier, Config};
use crate::services::store::Store;
use crate::simulator::{Simulator, SimulatorOptions};
use crate::utils::lifecycle::shutdown_signal;
use crate::utils::telemetry;
use crate::{chaos, demo, routes};

/// How long a health check waits.
const HEALTH_TIME: Duration = Duration::from_secs(3);

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve: API, webhooks and dialing.
    Serve,
    /// Bring the database up to date; safe to repeat, also beside a running service.
    Migrate {
        /// Only say what would be done; exit code 1 if anything would.
        #[arg(long)]
        check: bool,
    },
    /// Run a whole campaign on an embedded MongoDB and the carrier simulator, and prove its promises.
    Demo(demo::Arguments),
    /// Torment three containers and a replica set with faults of every kind, and judge every promise.
    Chaos(chaos::Arguments),
    /// Serve the carrier simulator. Its account is PLIVO_AUTH_ID with PLIVO_AUTH_TOKEN where they are set, else that of its options.
    Simulate {
        /// Address to listen at.
        #[arg(long, default_value = "127.0.0.1:9090")]
        listen: SocketAddr,
        /// A file of options in JSON; see the simulator's documentation.
        #[arg(long)]
        options: Option<PathBuf>,
    },
    /// Print the API's OpenAPI document.
    Openapi,
    /// Ask the service on this machine whether it lives; exit code 0 if it does.
    Healthcheck,
}

/// Runs a command.
///
/// # Errors
/// What kept it from being carried out, for people.
pub async fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Serve => Box::pin(serve()).await,
        Command::Migrate { check } => migrate(check).await,
        Command::Demo(arguments) => Box::pin(demo::run(arguments)).await,
        Command::Chaos(arguments) => Box::pin(chaos::run(arguments)).await,
        Command::Simulate { listen, options } => simulate(listen, options).await,
        Command::Openapi => {
            print(&routes::document().to_pretty_json()?)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Healthcheck => healthcheck().await,
    }
}

/// Tells why a command was not carried out.
pub fn fail(error: &anyhow::Error) -> ExitCode {
    // Nothing more can be done when even this cannot be written; the exit code says the same.
    drop(writeln!(std::io::stderr(), "ringmaster: {error:#}"));
    ExitCode::FAILURE
}

async fn serve() -> anyhow::Result<ExitCode> {
    let config = Config::from_env_to_serve()?;
    telemetry::init(&config.log_filter, config.log_json)?;
    #[cfg(feature = "crash-points")]
    crate::utils::crash_points::arm(config.crash_points.clone());
    let listener = TcpListener::bind((config.http.host, config.http.port))
        .await
        .context("the port cannot be bound")?;
    let application = Application::build(config, listener).await?;
    let shutdown = shutdown_signal()?;
    Ok(match Box::pin(application.run(shutdown)).await {
        Ended::Cleanly | Ended::Late => ExitCode::SUCCESS,
        Ended::Crashed => ExitCode::FAILURE,
    })
}

async fn migrate(check: bool) -> anyhow::Result<ExitCode> {
    let config = Config::from_env()?;
    anyhow::ensure!(config.mongo.uri.is_some(), "MONGODB_URI is required");
    let store = Store::connect(&config.mongo).await?;
    let plan = store.migration_plan().await?;
    for line in &plan {
        print(line)?;
    }
    let is_up_to_date = plan.is_empty();
    if check {
        print(if is_up_to_date {
            "The database is up to date."
        } else {
            "The database is not up to date: run `ringmaster migrate`."
        })?;
    } else {
        store.migrate().await?;
        print("The database is up to date.")?;
    }
    store.shutdown().await;
    Ok(if check && !is_up_to_date {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

async fn simulate(listen: SocketAddr, options: Option<PathBuf>) -> anyhow::Result<ExitCode> {
    let config = Config::from_env()?;
    telemetry::init(&config.log_filter, config.log_json)?;
    let mut options: SimulatorOptions = match options {
        Some(path) => {
            let text = std::fs::read_to_string(&path)
                .with_context(|| format!("{} cannot be read", path.display()))?;
            serde_json::from_str(&text)
                .with_context(|| format!("{} is not a file of options", path.display()))?
        }
        None => SimulatorOptions::default(),
    };
    use_account(&config.carrier, &mut options);
    let (account, is_default) = (options.auth_id.clone(), has_default_token(&options));
    let simulator = Simulator::start(TcpListener::bind(listen).await?, options).await?;
    let base = simulator.base_url();
    let token = if is_default {
        SimulatorOptions::DEFAULT_TOKEN
    } else {
        "(the token that you chose)"
    };
    print(&format!(
        "The carrier simulator listens at {base} for the account {account}; its books are at {base}/simulator/stats and \
         {base}/simulator/calls.\nFor `serve`: PLIVO_API_BASE={base} PLIVO_AUTH_ID={account} PLIVO_AUTH_TOKEN={token}"
    ))?;
    shutdown_signal()?.await;
    simulator.stop().await;
    Ok(ExitCode::SUCCESS)
}

/// The account that the environment names wins over the one of the options: the same settings then fit `serve`.
fn use_account(carrier: &Carrier, options: &mut SimulatorOptions) {
    if let Some(auth_id) = &carrier.auth_id {
        options.auth_id.clone_from(auth_id);
    }
    if !carrier.auth_tokens.is_empty() {
        let tokens = carrier.auth_tokens.iter();
        options.auth_tokens = tokens
            .map(|token| token.expose_secret().to_owned())
            .collect();
    }
}

fn has_default_token(options: &SimulatorOptions) -> bool {
    options.auth_tokens == [SimulatorOptions::DEFAULT_TOKEN]
}

async fn healthcheck() -> anyhow::Result<ExitCode> {
    let config = Config::from_env()?;
    let http = reqwest::Client::builder()
        .timeout(HEALTH_TIME)
        .no_proxy()
        .build()?;
    let address = SocketAddr::new(own_address(config.http.host), config.http.port);
    let answer = http
        .get(format!("http://{address}/health/live"))
        .send()
        .await?;
    Ok(if answer.status().is_success() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Where a service that is bound to `host` can be asked from its own machine.
fn own_address(host: IpAddr) -> IpAddr {
    match host {
        IpAddr::V4(any) if any.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(any) if any.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        IpAddr::V4(_) | IpAddr::V6(_) => host,
    }
}

fn print(line: &str) -> std::io::Result<()> {
    writeln!(std::io::stdout(), "{line}")
}
