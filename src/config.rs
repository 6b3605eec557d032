//! All settings: the only reader of the environment. Every variable is read once, at start, and every fault is named at once.

mod auth;
mod reader;

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use url::Url;

use crate::utils::telemetry;

pub use auth::Auth;
use reader::Reader;
pub use reader::{Fault, Faults};

/// A dial that left within the permission of its guard (800 ms) is far from being taken for abandoned (three times this).
const SHORTEST_PROCESSED: Duration = Duration::from_secs(1);

/// All settings of a process.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where HTTP is served.
    pub http: Http,
    /// Where the state is kept.
    pub mongo: Mongo,
    /// The carrier's account and its limits.
    pub carrier: Carrier,
    /// How calls are dialed.
    pub dialing: Dialing,
    /// How containers share campaigns.
    pub lease: Lease,
    /// Who may do what.
    pub auth: Auth,
    /// How a bot is woken before a call.
    pub warmup: Warmup,
    /// JSON log lines (true) or text for people.
    pub log_json: bool,
    /// `tracing` filter, e.g. `info,ringmaster=debug`.
    pub log_filter: String,
    /// `CRASH_POINTS`: where this process is to die or to freeze.
    #[cfg(feature = "crash-points")]
    pub crash_points: Vec<crate::utils::crash_points::Step>,
}

/// HTTP settings.
#[derive(Debug, Clone)]
pub struct Http {
    /// `HOST`: address to bind.
    pub host: IpAddr,
    /// `PORT`: port to bind; 0 picks a free one.
    pub port: u16,
    /// `ALLOWED_ORIGINS`: browser origins that may call the API.
    pub allowed_origins: Vec<String>,
    /// `ALLOW_PRIVATE_URLS`: user-given URLs may point at private addresses.
    pub allow_private_urls: bool,
}

/// MongoDB settings.
#[derive(Debug, Clone)]
pub struct Mongo {
    /// `MONGODB_URI`; absent only where no database is needed.
    pub uri: Option<SecretString>,
    /// `MONGODB_DATABASE`.
    pub database: String,
    /// `ACTIVE_CALLS_COLLECTION`.
    pub calls_collection: String,
    /// `CLIENT_COLLECTION`.
    pub clients_collection: String,
    /// `CAMPAIGN_COLLECTION`.
    pub campaigns_collection: String,
}

/// Carrier settings.
#[derive(Debug, Clone)]
pub struct Carrier {
    /// `BASE_URL`: public address of this service; signatures are checked against it. No trailing slash.
    pub base_url: Option<Url>,
    /// `PLIVO_AUTH_ID` (or `PLIVO_ACCOUNT_SID`).
    pub auth_id: Option<String>,
    /// `PLIVO_AUTH_TOKEN`: the first signs our requests, all are accepted in webhooks (rotation).
    pub auth_tokens: Vec<SecretString>,
    /// `PLIVO_API_BASE`.
    pub api_base: Url,
    /// `PLIVO_CPS`: calls per second of the account.
    pub calls_per_second: f64,
}

/// Dialing settings.
#[derive(Debug, Clone)]
pub struct Dialing {
    /// `GLOBAL_MAX_CALLS`: live calls of the account.
    pub global_max_calls: u32,
    /// `DEFAULT_CLIENT_MAX_CONCURRENT_CALLS`.
    pub default_client_max_calls: u32,
    /// `MAX_CONCURRENT_CALL_WAIT`: how long a single call waits for a slot.
    pub slot_wait: Duration,
    /// `SUBSEQUENT_CALL_WAIT`: between two calls of one campaign.
    pub call_interval: Duration,
    /// `MAX_CALLS_PER_MINUTE`: default of a client, per `rate_window`.
    pub default_calls_per_minute: u32,
    /// `RATE_LIMIT_WINDOW`.
    pub rate_window: Duration,
    /// `CALL_TIMEOUT_MINUTES`: how long past its deadline a call is asked after before it is given up as uncertain.
    pub call_timeout: Duration,
    /// `CLEANUP_INTERVAL`: between two comparisons of all live calls with the carrier's list.
    pub cleanup_interval: Duration,
    /// `MAX_PROCESSED_TIME`: a call may be dialing or queued for so long before the carrier is asked.
    pub max_processed: Duration,
    /// `MAX_RINGING_TIME`: likewise for ringing.
    pub max_ringing: Duration,
    /// `MAX_ONGOING_TIME`: likewise for an answered call.
    pub max_ongoing: Duration,
    /// `HIGH_UTILIZATION_THRESHOLD`, percent.
    pub high_utilization_percent: u32,
    /// `FAILED_CALL_RATE_THRESHOLD`, percent of the last 50 finished calls.
    pub failed_rate_percent: u32,
}

/// Lease settings.
#[derive(Debug, Clone)]
pub struct Lease {
    /// `HEARTBEAT_INTERVAL`.
    pub heartbeat_interval: Duration,
    /// `ORPHAN_DETECTION_THRESHOLD`: a driver silent for so long is taken for dead.
    pub orphan_threshold: Duration,
    /// `CONTAINER_SHUTDOWN_GRACE`.
    pub shutdown_grace: Duration,
}

/// Warm-up settings.
#[derive(Clone)]
pub struct Warmup {
    /// `BOT_WARMUP_ENABLED`.
    pub enabled: bool,
    /// `BOT_WARMUP_URL`: for campaigns that name none.
    pub url: Option<Url>,
    /// `BOT_WARMUP_TIMEOUT` of one try.
    pub timeout: Duration,
    /// `BOT_WARMUP_RETRIES`: further tries after the first.
    pub retries: u32,
    /// `BOT_WARMUP_TTL`: for so long a bot that answered counts as warm.
    pub ttl: Duration,
}

/// Without the address, which may hold a token.
impl fmt::Debug for Warmup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Warmup")
            .field("enabled", &self.enabled)
            .finish_non_exhaustive()
    }
}

impl Config {
    /// Reads the process's environment.
    ///
    /// # Errors
    /// All variables that cannot be used.
    pub fn from_env() -> Result<Self, Faults> {
        Self::read(environment).checked(|_| Vec::new())
    }

    /// Reads the environment of a process that is to serve.
    ///
    /// # Errors
    /// All variables that cannot be used, and all that [`Config::require_serve`] misses.
    pub fn from_env_to_serve() -> Result<Self, Faults> {
        Self::read(environment).checked(Self::missing_to_serve)
    }

    /// The settings given by `variables` alone; everything else has its default.
    ///
    /// # Errors
    /// All variables that cannot be used.
    pub fn from_map(variables: &BTreeMap<String, String>) -> Result<Self, Faults> {
        Self::read(|name| variables.get(name).cloned()).checked(|_| Vec::new())
    }

    fn read(lookup: impl Fn(&str) -> Option<String>) -> Draft {
        let mut env = Reader::new(&lookup);
        let config = Self {
            http: Http {
                host: env.parse("HOST", IpAddr::from([0, 0, 0, 0])),
                port: env.parse("PORT", 8080),
                allowed_origins: env.origins("ALLOWED_ORIGINS"),
                allow_private_urls: env.parse("ALLOW_PRIVATE_URLS", false),
            },
            mongo: read_mongo(&mut env),
            carrier: read_carrier(&mut env),
            dialing: read_dialing(&mut env),
            lease: Lease {
                heartbeat_interval: env.millis("HEARTBEAT_INTERVAL", 30_000),
                orphan_threshold: env.millis("ORPHAN_DETECTION_THRESHOLD", 120_000),
                shutdown_grace: env.millis("CONTAINER_SHUTDOWN_GRACE", 10_000),
            },
            auth: Auth {
                admin_key: env.secret("ADMIN_API_KEY"),
                jwt_secret: env.secret("JWT_SECRET"),
            },
            warmup: Warmup {
                enabled: env.parse("BOT_WARMUP_ENABLED", true),
                url: env.url("BOT_WARMUP_URL"),
                timeout: env.some_millis("BOT_WARMUP_TIMEOUT", 60_000),
                retries: env.parse("BOT_WARMUP_RETRIES", 3),
                ttl: env.millis("BOT_WARMUP_TTL", 30_000),
            },
            log_json: env.choice("LOG_FORMAT", &["json", "text"]) == "json",
            log_filter: env.text("RUST_LOG").unwrap_or_else(|| "info".to_owned()),
            #[cfg(feature = "crash-points")]
            crash_points: env.parsed_list("CRASH_POINTS"),
        };
        config.cross_check(&mut env.faults);
        Draft {
            config,
            faults: env.faults,
        }
    }

    fn cross_check(&self, faults: &mut Vec<Fault>) {
        let mut fault = |name, reason: &str| {
            faults.push(Fault {
                name,
                reason: reason.to_owned(),
            })
        };
        if !self.mongo.uri.as_ref().is_none_or(is_mongodb) {
            fault(
                "MONGODB_URI",
                "must begin with mongodb:// or mongodb+srv://",
            );
        }
        if !telemetry::is_filter(&self.log_filter) {
            fault("RUST_LOG", "must be a filter such as info,ringmaster=debug");
        }
        if self.lease.heartbeat_interval * 2 > self.lease.orphan_threshold {
            fault(
                "HEARTBEAT_INTERVAL",
                "must be at most half of ORPHAN_DETECTION_THRESHOLD, or a healthy driver loses its campaigns",
            );
        }
        if !(self.carrier.calls_per_second > 0.0 && self.carrier.calls_per_second <= 10_000.0) {
            fault(
                "PLIVO_CPS",
                "must be above 0 and at most 10000 calls per second",
            );
        }
        if !(1..=100_000).contains(&self.dialing.global_max_calls) {
            fault("GLOBAL_MAX_CALLS", "must be 1 to 100000");
        }
        if self.dialing.default_client_max_calls == 0 {
            fault("DEFAULT_CLIENT_MAX_CONCURRENT_CALLS", "must be at least 1");
        }
        if self.dialing.default_calls_per_minute == 0 {
            fault("MAX_CALLS_PER_MINUTE", "must be at least 1");
        }
        if self.dialing.rate_window.is_zero() {
            fault("RATE_LIMIT_WINDOW", "must be at least 1 ms");
        }
        if self.dialing.max_processed < SHORTEST_PROCESSED {
            fault(
                "MAX_PROCESSED_TIME",
                "must be at least 1000 ms: a dial request on its way must not be taken for never sent",
            );
        }
        if self.lease.heartbeat_interval.is_zero() {
            fault("HEARTBEAT_INTERVAL", "must be at least 1 ms");
        }
    }

    /// The faults that only matter to a process that serves: what `serve` cannot do without.
    ///
    /// # Errors
    /// All variables that are missing.
    pub fn require_serve(&self) -> Result<(), Faults> {
        let missing = self.missing_to_serve();
        if missing.is_empty() {
            Ok(())
        } else {
            Err(Faults(missing))
        }
    }

    fn missing_to_serve(&self) -> Vec<Fault> {
        [
            ("MONGODB_URI", self.mongo.uri.is_none()),
            ("BASE_URL", self.carrier.base_url.is_none()),
            ("PLIVO_AUTH_ID", self.carrier.auth_id.is_none()),
            ("PLIVO_AUTH_TOKEN", self.carrier.auth_tokens.is_empty()),
        ]
        .into_iter()
        .filter(|(_, is_missing)| *is_missing)
        .map(|(name, _)| Fault {
            name,
            reason: "is required".to_owned(),
        })
        .collect()
    }
}

/// Settings as far as they could be read, with all that is wrong so far.
struct Draft {
    config: Config,
    faults: Vec<Fault>,
}

impl Draft {
    /// The settings, if nothing is wrong with them and nothing is `missing`. What is there and unusable is not missing as well.
    fn checked(mut self, missing: impl Fn(&Config) -> Vec<Fault>) -> Result<Config, Faults> {
        for fault in missing(&self.config) {
            if !self.faults.iter().any(|known| known.name == fault.name) {
                self.faults.push(fault);
            }
        }
        if self.faults.is_empty() {
            Ok(self.config)
        } else {
            Err(Faults(self.faults))
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the one place that reads the environment"
)]
fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

fn is_mongodb(uri: &SecretString) -> bool {
    let uri = uri.expose_secret();
    uri.starts_with("mongodb://") || uri.starts_with("mongodb+srv://")
}

fn read_mongo(env: &mut Reader<'_>) -> Mongo {
    Mongo {
        uri: env.secret("MONGODB_URI"),
        database: env.name("MONGODB_DATABASE", "ringmaster"),
        calls_collection: env.name("ACTIVE_CALLS_COLLECTION", "activeCalls"),
        clients_collection: env.name("CLIENT_COLLECTION", "client"),
        campaigns_collection: env.name("CAMPAIGN_COLLECTION", "plivoCampaign"),
    }
}

fn read_carrier(env: &mut Reader<'_>) -> Carrier {
    let default_api = || Url::parse("https://api.plivo.com").ok();
    Carrier {
        base_url: env.base_url("BASE_URL"),
        auth_id: env
            .text("PLIVO_AUTH_ID")
            .or_else(|| env.text("PLIVO_ACCOUNT_SID")),
        auth_tokens: env
            .list("PLIVO_AUTH_TOKEN")
            .into_iter()
            .map(SecretString::from)
            .collect(),
        api_base: env
            .base_url("PLIVO_API_BASE")
            .or_else(default_api)
            .unwrap_or_else(|| unreachable!("a constant URL parses")),
        calls_per_second: env.parse("PLIVO_CPS", 2.0),
    }
}

fn read_dialing(env: &mut Reader<'_>) -> Dialing {
    Dialing {
        global_max_calls: env.parse("GLOBAL_MAX_CALLS", 50),
        default_client_max_calls: env.parse("DEFAULT_CLIENT_MAX_CONCURRENT_CALLS", 10),
        slot_wait: env.millis("MAX_CONCURRENT_CALL_WAIT", 5000),
        call_interval: env.millis("SUBSEQUENT_CALL_WAIT", 6000),
        default_calls_per_minute: env.parse("MAX_CALLS_PER_MINUTE", 10),
        rate_window: env.millis("RATE_LIMIT_WINDOW", 60_000),
        call_timeout: Duration::from_secs_f64(60.0 * env.positive("CALL_TIMEOUT_MINUTES", 10.0)),
        cleanup_interval: env.some_millis("CLEANUP_INTERVAL", 300_000),
        max_processed: env.millis("MAX_PROCESSED_TIME", 60_000),
        max_ringing: env.some_millis("MAX_RINGING_TIME", 180_000),
        max_ongoing: env.some_millis("MAX_ONGOING_TIME", 3_600_000),
        high_utilization_percent: env.percent("HIGH_UTILIZATION_THRESHOLD", 80),
        failed_rate_percent: env.percent("FAILED_CALL_RATE_THRESHOLD", 25),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<Config, Faults> {
        Config::from_map(
            &pairs
                .iter()
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                .collect(),
        )
    }

    #[test]
    fn defaults_stand_and_serve_names_what_is_missing() {
        let config = read(&[]).unwrap();
        assert_eq!(config.dialing.call_interval, Duration::from_secs(6));
        let missing: Vec<_> = config
            .require_serve()
            .unwrap_err()
            .0
            .iter()
            .map(|fault| fault.name)
            .collect();
        assert_eq!(
            missing,
            [
                "MONGODB_URI",
                "BASE_URL",
                "PLIVO_AUTH_ID",
                "PLIVO_AUTH_TOKEN"
            ]
        );
    }

    #[test]
    fn every_fault_is_named_at_once_and_no_value_is_repeated() {
        let faults = read(&[
            ("PORT", "http"),
            ("PLIVO_CPS", "0"),
            ("LOG_FORMAT", "xml"),
            ("HEARTBEAT_INTERVAL", "90000"),
            ("BASE_URL", "s3cret"),
        ])
        .unwrap_err();
        let mut names: Vec<_> = faults.0.iter().map(|fault| fault.name).collect();
        names.sort_unstable();
        assert_eq!(
            names,
            [
                "BASE_URL",
                "HEARTBEAT_INTERVAL",
                "LOG_FORMAT",
                "PLIVO_CPS",
                "PORT"
            ]
        );
        assert!(!faults.to_string().contains("s3cret"));
    }

    #[test]
    fn times_of_nothing_and_addresses_that_never_match_are_faults() {
        for (name, value) in [
            ("MAX_RINGING_TIME", "0"),
            ("MAX_ONGOING_TIME", "0"),
            ("CLEANUP_INTERVAL", "0"),
            ("BOT_WARMUP_TIMEOUT", "0"),
            ("ALLOWED_ORIGINS", "https://a.example,app.example"),
            ("ALLOWED_ORIGINS", "https://a.example/"),
            ("ALLOWED_ORIGINS", "https://a.example/app"),
            ("ALLOWED_ORIGINS", "https://A.example"),
            ("ALLOWED_ORIGINS", "https://a.example:443"),
            ("ALLOWED_ORIGINS", "null"),
            ("BASE_URL", "https://a.example/?x=1"),
            ("BASE_URL", "https://a.example/#x"),
            ("PLIVO_API_BASE", "https://a.example?x=1"),
        ] {
            let faults = read(&[(name, value)]).unwrap_err().0;
            let names: Vec<_> = faults.iter().map(|fault| fault.name).collect();
            assert_eq!(names, [name], "{value}");
        }
        for origins in ["*", "https://a.example, http://localhost:3000", ""] {
            assert!(read(&[("ALLOWED_ORIGINS", origins)]).is_ok(), "{origins}");
        }
    }

    #[test]
    fn what_is_missing_is_named_with_what_is_wrong() {
        let pairs = [
            ("BASE_URL", "nowhere"),
            ("MONGODB_URI", "localhost:27017"),
            ("RUST_LOG", "info,=,"),
            ("PLIVO_AUTH_ID", "MA1"),
        ];
        let lookup = |name: &str| {
            let found = pairs.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        let faults = Config::read(lookup).checked(Config::missing_to_serve);
        let mut names: Vec<_> = faults.unwrap_err().0.iter().map(|f| f.name).collect();
        names.sort_unstable();
        assert_eq!(
            names,
            ["BASE_URL", "MONGODB_URI", "PLIVO_AUTH_TOKEN", "RUST_LOG"]
        );
    }

    #[test]
    fn secrets_do_not_print() {
        let config = read(&[
            ("ADMIN_API_KEY", "hunter2"),
            ("PLIVO_AUTH_TOKEN", "sesame-a,sesame-b"),
        ])
        .unwrap();
        assert_eq!(config.carrier.auth_tokens.len(), 2);
        let printed = format!("{config:?}");
        assert!(
            !printed.contains("hunter2")
                && !printed.contains("sesame-a")
                && !printed.contains("sesame-b")
        );
    }
}
