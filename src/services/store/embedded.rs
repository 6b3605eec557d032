//! A private MongoDB server for `demo` and the tests: one member, one free loopback port, one data folder. Several of them as
//! one replica set are in `replica_set`, for the chaos harness.
//!
//! Duty: to start such a server as a replica set (transactions and change streams need one), to say when it can be
//! written to, and to stop it. May not: be used by `serve`, which is given a server by its environment.
//!
//! The server never outlives this process, not even after kill -9: it is on a leash (`utils::leash`).

mod replica_set;

use std::{
    ffi::OsString,
    fs::Permissions,
    net::Ipv4Addr,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::ExitStatus,
    time::Duration,
};

use bson::{Document, doc};
use mongodb::{Client, Database, error::ErrorKind, options::ClientOptions};
use tokio::{
    fs, io,
    net::{TcpListener, TcpStream},
    time::{Instant, sleep, timeout},
};

pub use replica_set::ReplicaSet;

use crate::utils::leash::{Leashed, Program};

/// From the start of the process to the first possible write. Usually 1.5 s; a loaded machine takes longer.
const START_TIME_LIMIT: Duration = Duration::from_secs(30);
/// A server that is asked to stop has this long before it is killed.
const STOP_GRACE: Duration = Duration::from_secs(10);
/// Longer than that.
const STOP_TIME_LIMIT: Duration = Duration::from_secs(15);
/// Between two looks at a server that is starting.
const POLL_INTERVAL: Duration = Duration::from_millis(25);
/// Between two attempts to start while an earlier server still holds the data folder.
const RETRY_INTERVAL: Duration = Duration::from_millis(250);

const REPLICA_SET: &str = "rs0";
/// A demo and a test need little memory and disk: by itself the server takes half of the machine's memory. What a process that
/// is killed in a transaction leaves locked is free after 10 s instead of the server's 60 s.
const OPTIONS: &str = "--replSet rs0 --bind_ip 127.0.0.1 --nounixsocket --wiredTigerCacheSizeGB 0.25 \
    --oplogSize 512 --setParameter diagnosticDataCollectionEnabled=false --setParameter transactionLifetimeLimitSeconds=10";

/// Server error codes, as in MongoDB's `error_codes.yml`.
const ALREADY_INITIALIZED: i32 = 23;
const NOT_YET_INITIALIZED: i32 = 94;
const CONFIGURATION_IN_PROGRESS: i32 = 109;

/// Exit code of a mongod whose port is taken (MongoDB's `EXIT_NET_ERROR`).
const EXIT_NET_ERROR: i32 = 48;

/// Why there is no embedded server.
#[derive(Debug, thiserror::Error)]
pub enum EmbeddedError {
    /// The data folder or the log file could not be made, or no port could be had.
    #[error("cannot prepare the embedded MongoDB's {what}")]
    Prepare {
        /// What was being prepared.
        what: &'static str,
        /// The system's reason.
        source: io::Error,
    },
    /// The watchdog's shell could not be started, or not be waited for.
    #[error("cannot run the embedded MongoDB's watchdog")]
    Watchdog(#[source] io::Error),
    /// The server ended instead of starting.
    #[error("{} ended at start ({status}); its log says:\n{log}", program.display())]
    Exited {
        /// The server that was started.
        program: PathBuf,
        /// How it ended.
        status: ExitStatus,
        /// The last telling lines of its log.
        log: String,
    },
    /// The server listens to nobody or has no primary after 30 s.
    #[error("the MongoDB server on port {port} cannot be written to after {} s", START_TIME_LIMIT.as_secs())]
    NotWritable {
        /// The loopback port it was asked to use.
        port: u16,
    },
    /// The server refused a command of the replica set's set-up. The driver's text is kept: before the first write it
    /// can hold nobody's data.
    #[error("the replica set could not be set up")]
    SetUp(#[from] mongodb::error::Error),
    /// The members of a replica set did not find together.
    #[error("the replica set has no primary, or members that lag behind, after {} s", START_TIME_LIMIT.as_secs())]
    NoPrimary,
    /// The server was still there after 15 s.
    #[error("the embedded MongoDB did not stop within {} s", STOP_TIME_LIMIT.as_secs())]
    NotStopped,
}

/// A running private server. Dropping it, or the death of this process, ends the server without waiting for it.
#[derive(Debug)]
pub struct EmbeddedMongo {
    port: u16,
    server: Leashed,
}

impl EmbeddedMongo {
    /// Starts the server `mongod` on `data_dir` (created, readable by its owner only) and waits until it can be
    /// written to. Data of an earlier run are kept. The log is `data_dir/mongod.log`.
    ///
    /// # Errors
    /// See [`EmbeddedError`]. Where an earlier server is just leaving the folder, its end is awaited.
    pub async fn start(mongod: &Path, data_dir: &Path) -> Result<Self, EmbeddedError> {
        Self::start_with(mongod, data_dir, &[]).await
    }

    /// As [`Self::start`], with more server parameters, each `name=value`, such as `enableTestCommands=1`.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn start_with(
        mongod: &Path,
        data_dir: &Path,
        parameters: &[&str],
    ) -> Result<Self, EmbeddedError> {
        private_folder(data_dir)
            .await
            .map_err(prepare("data folder"))?;
        let give_up = Instant::now() + START_TIME_LIMIT;
        loop {
            match Self::attempt(mongod, data_dir, parameters).await {
                Err(EmbeddedError::Exited { status, log, .. })
                    if passes(status, &log) && Instant::now() < give_up =>
                {
                    sleep(RETRY_INTERVAL).await;
                }
                result => return result,
            }
        }
    }

    /// The loopback port the server listens on.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The connection string for clients.
    #[must_use]
    pub fn uri(&self) -> String {
        let port = self.port;
        format!("mongodb://127.0.0.1:{port}/?replicaSet={REPLICA_SET}")
    }

    /// Stops the server politely and waits for its end; after 10 s the watchdog kills it.
    ///
    /// # Errors
    /// [`EmbeddedError::NotStopped`] when even that did not help.
    pub async fn stop(self) -> Result<(), EmbeddedError> {
        end(self.server).await
    }

    async fn attempt(
        mongod: &Path,
        data_dir: &Path,
        parameters: &[&str],
    ) -> Result<Self, EmbeddedError> {
        let port = free_port().await.map_err(prepare("port"))?;
        let log = data_dir.join("mongod.log");
        let server = spawn(mongod, data_dir, &log, port, parameters).await?;
        let mut server = Self { port, server };
        let ready = tokio::select! {
            status = server.server.wait() => Err(exited(mongod, &log, status).await),
            ready = set_up(port, OtherMember::Replace) => ready,
        };
        match ready {
            Ok(()) => Ok(server),
            Err(error) => {
                server.stop().await?;
                Err(error)
            }
        }
    }
}

/// Starts a server that is a member of the replica set, and is not asked whether it came up.
async fn spawn(
    mongod: &Path,
    data_dir: &Path,
    log: &Path,
    port: u16,
    parameters: &[&str],
) -> Result<Leashed, EmbeddedError> {
    let log = fs::File::create(log)
        .await
        .map_err(prepare("log file"))?
        .into_std()
        .await;
    let mut arguments: Vec<OsString> = OPTIONS.split(' ').map(OsString::from).collect();
    for parameter in parameters {
        arguments.extend(["--setParameter", parameter].map(OsString::from));
    }
    arguments.extend(["--port", &port.to_string(), "--dbpath"].map(OsString::from));
    arguments.push(data_dir.join("db").into_os_string());
    let program = Program {
        path: mongod,
        arguments,
        environment: None,
    };
    Leashed::spawn(program, log, STOP_GRACE)
        .await
        .map_err(EmbeddedError::Watchdog)
}

/// Stops a server politely; after the grace the watchdog kills it.
async fn end(server: Leashed) -> Result<(), EmbeddedError> {
    match timeout(STOP_TIME_LIMIT, server.end()).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(source)) => Err(EmbeddedError::Watchdog(source)),
        Err(_) => Err(EmbeddedError::NotStopped),
    }
}

/// What to say of a server that ended instead of starting.
async fn exited(mongod: &Path, log: &Path, status: io::Result<ExitStatus>) -> EmbeddedError {
    match status {
        Ok(status) => EmbeddedError::Exited {
            program: mongod.to_owned(),
            status,
            log: telling_lines(&fs::read_to_string(log).await.unwrap_or_default()),
        },
        Err(source) => EmbeddedError::Watchdog(source),
    }
}

/// Makes the server on a loopback `port`, started with `--replSet rs0`, a one-member replica set and waits until it can
/// be written to. Any number of processes may do this at once, and again later.
///
/// # Errors
/// [`EmbeddedError::NotWritable`] or [`EmbeddedError::SetUp`].
pub async fn initiate(port: u16) -> Result<(), EmbeddedError> {
    set_up(port, OtherMember::Keep).await
}

/// What to do with a replica set whose only member has another address than the server's.
#[derive(Clone, Copy, PartialEq, Eq)]
enum OtherMember {
    /// It is somebody's own: leave it.
    Keep,
    /// It is ours, from an earlier run on another port: put the new address in its place.
    Replace,
}

async fn set_up(port: u16, other: OtherMember) -> Result<(), EmbeddedError> {
    let ready = async {
        let address = (Ipv4Addr::LOCALHOST, port);
        while TcpStream::connect(address).await.is_err() {
            sleep(POLL_INTERVAL).await;
        }
        let client = direct_client(port).await?;
        let admin = client.database("admin");
        while !is_writable(&admin).await? {
            configure(&admin, port, other).await?;
            sleep(POLL_INTERVAL).await;
        }
        client.shutdown().immediate(true).await;
        Ok(())
    };
    timeout(START_TIME_LIMIT, ready)
        .await
        .unwrap_or(Err(EmbeddedError::NotWritable { port }))
}

/// A client that talks to this server whatever its state: a replica set without a primary has no other.
async fn direct_client(port: u16) -> Result<Client, mongodb::error::Error> {
    let mut options =
        ClientOptions::parse(format!("mongodb://127.0.0.1:{port}/?directConnection=true")).await?;
    options.server_selection_timeout = Some(START_TIME_LIMIT);
    Client::with_options(options)
}

async fn is_writable(admin: &Database) -> Result<bool, mongodb::error::Error> {
    let hello = admin.run_command(doc! { "hello": 1 }).await?;
    Ok(hello.get_bool("isWritablePrimary").unwrap_or(false))
}

/// Gives the server a configuration that fits it, where it has none; harmless when repeated.
async fn configure(
    admin: &Database,
    port: u16,
    other: OtherMember,
) -> Result<(), mongodb::error::Error> {
    let host = format!("127.0.0.1:{port}");
    let outcome = match admin.run_command(doc! { "replSetGetConfig": 1 }).await {
        Ok(answer) if other == OtherMember::Replace => match moved(&answer, &host) {
            Some(config) => {
                admin
                    .run_command(doc! { "replSetReconfig": config, "force": true })
                    .await
            }
            None => return Ok(()),
        },
        Ok(_) => return Ok(()),
        Err(error) if code(&error) == Some(NOT_YET_INITIALIZED) => {
            let config = doc! { "_id": REPLICA_SET, "members": [{ "_id": 0, "host": host }] };
            admin.run_command(doc! { "replSetInitiate": config }).await
        }
        Err(error) => Err(error),
    };
    match outcome {
        // Somebody else is doing the same, or the server is still reading its old configuration.
        Err(error)
            if matches!(
                code(&error),
                Some(ALREADY_INITIALIZED | CONFIGURATION_IN_PROGRESS)
            ) =>
        {
            Ok(())
        }
        outcome => outcome.map(drop),
    }
}

/// The configuration in `answer` with its only member at `host`, or nothing where it is there already.
fn moved(answer: &Document, host: &str) -> Option<Document> {
    let old = answer.get_document("config").ok()?;
    let members = old.get_array("members").ok()?;
    if members
        .iter()
        .any(|member| member.as_document().and_then(|m| m.get_str("host").ok()) == Some(host))
    {
        return None;
    }
    let version = old.get_i32("version").unwrap_or(1);
    Some(
        doc! { "_id": REPLICA_SET, "version": version + 1, "members": [{ "_id": 0, "host": host }] },
    )
}

fn code(error: &mongodb::error::Error) -> Option<i32> {
    let ErrorKind::Command(command) = error.kind.as_ref() else {
        return None;
    };
    Some(command.code)
}

/// Whether the reason of a failed start goes away by itself: the port was snatched, or an earlier server is leaving.
fn passes(status: ExitStatus, log: &str) -> bool {
    status.code() == Some(EXIT_NET_ERROR) || log.contains("DBPathInUse")
}

/// The last five lines that are errors or no log lines at all (a missing library, a bad option), else the last five.
fn telling_lines(log: &str) -> String {
    let last_five = |lines: Vec<&str>| lines[lines.len().saturating_sub(5)..].join("\n");
    let is_telling = |line: &&str| {
        !line.starts_with('{') || line.contains(r#""s":"E""#) || line.contains(r#""s":"F""#)
    };
    let lines: Vec<&str> = log.lines().filter(|line| !line.trim().is_empty()).collect();
    let telling: Vec<&str> = lines.iter().copied().filter(is_telling).collect();
    last_five(if telling.is_empty() { lines } else { telling })
}

fn prepare(what: &'static str) -> impl FnOnce(io::Error) -> EmbeddedError {
    move |source| EmbeddedError::Prepare { what, source }
}

/// Makes the folder and the server's own folder in it, or closes an existing one to other users.
async fn private_folder(data_dir: &Path) -> io::Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(data_dir.join("db"))
        .await?;
    fs::set_permissions(data_dir, Permissions::from_mode(0o700)).await
}

async fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .await?
        .local_addr()?
        .port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn telling_lines_are_the_errors() {
        let log = "{\"s\":\"I\"}\n{\"s\":\"E\",\"msg\":\"DBPathInUse\"}\n{\"s\":\"I\"}\n\n";
        assert_eq!(telling_lines(log), "{\"s\":\"E\",\"msg\":\"DBPathInUse\"}");
    }

    #[test]
    fn telling_lines_are_the_last_ones_without_errors() {
        assert_eq!(
            telling_lines("{\"n\":1}\n{\"n\":2}\n{\"n\":3}\n{\"n\":4}\n{\"n\":5}\n{\"n\":6}")
                .lines()
                .count(),
            5
        );
        assert_eq!(
            telling_lines("sh: 1: mongod: not found"),
            "sh: 1: mongod: not found"
        );
        assert_eq!(telling_lines(""), "");
    }

    #[test]
    fn a_member_elsewhere_is_moved_here() {
        let answer =
            doc! { "config": { "version": 4, "members": [{ "_id": 0, "host": "127.0.0.1:1" }] } };
        assert_eq!(moved(&answer, "127.0.0.1:1"), None);
        let config = moved(&answer, "127.0.0.1:2").unwrap();
        assert_eq!(config.get_i32("version").unwrap(), 5);
    }
}
