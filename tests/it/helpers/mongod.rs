//! A real MongoDB for the tests: the one in `TEST_MONGODB_URI`, else one server for each test process.
//!
//! Every test takes a database of its own. A `mongodb::Client` belongs to the runtime that made it, and every
//! `#[tokio::test]` has its own runtime: share the address, never a client.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use mongodb::{Client, bson::doc, options::ClientOptions};
use ringmaster::services::store::embedded::{EmbeddedMongo, initiate};
use tokio::sync::OnceCell;
use url::Url;

/// Server parameters that tests need: fail points (`failCommand`), and that a dead process's transaction is given up soon.
pub(crate) const TEST_PARAMETERS: [&str; 2] =
    ["enableTestCommands=1", "transactionLifetimeLimitSeconds=10"];
/// Databases of tests that died are dropped by later ones when they are older than this.
const LEFTOVER_AGE: Duration = Duration::from_secs(3600);
/// For the helpers' own commands: a missing server must fail a test soon, and say so.
const TIME_LIMIT: Duration = Duration::from_secs(10);

/// The connection string of a replica set that can be written to.
pub(crate) async fn uri() -> String {
    static SHARED: OnceCell<String> = OnceCell::const_new();
    static PRIVATE: OnceCell<EmbeddedMongo> = OnceCell::const_new();

    let uri = SHARED.get_or_init(|| async {
        if let Some(uri) = environment("TEST_MONGODB_URI") {
            initiate_loopback(&uri).await;
            return uri;
        }
        let server = PRIVATE.get_or_init(|| async {
            EmbeddedMongo::start_with(&mongod(), &data_dir(), &TEST_PARAMETERS)
                .await
                .unwrap()
        });
        server.await.uri()
    });
    uri.await.clone()
}

/// The path of a MongoDB server: what `scripts/mongod.sh` finds or fetches.
pub(crate) fn mongod() -> PathBuf {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/mongod.sh");
    let output = Command::new(script).output().unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    PathBuf::from(String::from_utf8(output.stdout).unwrap().trim())
}

/// An unused, empty folder for this test process under `target/`; those of dead processes are removed.
pub(crate) fn data_dir() -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let parent = Path::new(env!("CARGO_TARGET_TMPDIR"));
    for entry in std::fs::read_dir(parent).unwrap().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let owner = name
            .strip_prefix("mongod-")
            .and_then(|rest| rest.split('-').next());
        if owner.is_some_and(|process| !Path::new("/proc").join(process).exists()) {
            // Another test process may be sweeping too: what it has removed already is no error.
            std::fs::remove_dir_all(entry.path()).ok();
        }
    }
    parent.join(format!(
        "mongod-{}-{}",
        std::process::id(),
        NEXT.fetch_add(1, Ordering::Relaxed)
    ))
}

/// A database that no other test has; dropped with this value, also when the test fails.
pub(crate) struct TestDatabase {
    pub(crate) uri: String,
    pub(crate) name: String,
}

/// Names a new, empty database, and drops leftovers of tests that died.
pub(crate) async fn fresh_database(prefix: &str) -> TestDatabase {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    static SWEPT: OnceCell<()> = OnceCell::const_new();

    let uri = uri().await;
    SWEPT.get_or_init(|| sweep(&uri)).await;
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let name = format!(
        "rmtest-{prefix}-{}-{}-{number}",
        unix_seconds(),
        std::process::id()
    );
    assert!(
        name.len() < 64,
        "MongoDB takes database names of at most 63 bytes: {name}"
    );
    TestDatabase { uri, name }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        let (uri, name) = (self.uri.clone(), self.name.clone());
        // Neither the test's runtime nor its clients can be used here: a runtime must not be blocked on from within.
        let dropped = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let client = client(&uri).await;
                // A test may have stopped the server: then there is nothing to drop.
                client.database(&name).drop().await.ok();
                client.shutdown().immediate(true).await;
            });
        });
        dropped.join().ok();
    }
}

/// A short-lived client with short time-outs; to be used in the runtime that made it only.
pub(crate) async fn client(uri: &str) -> Client {
    let mut options = ClientOptions::parse(uri).await.unwrap();
    options.server_selection_timeout = Some(TIME_LIMIT);
    options.connect_timeout = Some(TIME_LIMIT);
    Client::with_options(options).unwrap()
}

/// `scripts/test.sh` starts a server without a replica-set configuration, which bash cannot give it.
async fn initiate_loopback(uri: &str) {
    let address = Url::parse(uri).unwrap();
    if address.host_str() == Some("127.0.0.1")
        && address
            .query()
            .is_some_and(|query| query.contains("replicaSet=rs0"))
    {
        initiate(address.port().unwrap_or(27017)).await.unwrap();
    }
}

/// The process id of the server, to freeze or to kill it.
pub(crate) async fn process_id(uri: &str) -> u32 {
    let client = client(uri).await;
    let admin = client.database("admin");
    let status = admin.run_command(doc! { "serverStatus": 1 }).await.unwrap();
    client.shutdown().immediate(true).await;
    u32::try_from(status.get_i64("pid").unwrap()).unwrap()
}

async fn sweep(uri: &str) {
    let client = client(uri).await;
    let names = client
        .list_database_names()
        .filter(doc! { "name": { "$regex": "^rmtest-" } })
        .await
        .unwrap();
    for name in names
        .iter()
        .filter(|name| is_leftover(name, unix_seconds()))
    {
        client.database(name).drop().await.unwrap();
    }
    client.shutdown().immediate(true).await;
}

/// Whether a database's name says that it is a test's, and old. Names end with the time, the process and a number.
fn is_leftover(name: &str, now: u64) -> bool {
    let mut parts = name.rsplit('-').skip(2);
    let born = parts.next().and_then(|seconds| seconds.parse::<u64>().ok());
    name.starts_with("rmtest-") && born.is_some_and(|born| born + LEFTOVER_AGE.as_secs() < now)
}

fn unix_seconds() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs()
}

#[expect(
    clippy::disallowed_methods,
    reason = "scripts/test.sh tells the tests about its server this way"
)]
fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

#[test]
fn leftovers_are_old_test_databases() {
    assert!(is_leftover("rmtest-two-words-1000-77-0", 1000 + 3601));
    assert!(!is_leftover("rmtest-two-words-1000-77-0", 1000 + 3599));
    assert!(!is_leftover("ringmaster-1000-77-0", 1_000_000));
    assert!(!is_leftover("rmtest-x", 1_000_000));
}
