//! MongoDB goes away under a running service, in every way that it can: killed, frozen, cut off, or not there yet. While it is
//! away nothing is let in and nobody is dialed, no webhook is answered 200 (promise P6), and everything goes on by itself
//! when it is back.

use std::time::{Duration, Instant};

use ringmaster::services::store::embedded::EmbeddedMongo;
use ringmaster::simulator::{EventKind, MsRange, SimulatorOptions};
use serde_json::json;

use crate::helpers::app::{ADMIN_KEY, Api, Reply, World, quick_carrier, until};
use crate::helpers::judge::{assert_adds_up, now_ms};
use crate::helpers::mongod::{TestDatabase, data_dir, mongod, process_id};
use crate::helpers::process::{Served, signal};
use crate::helpers::proxy::{Proxy, Way};

const CONTACTS: usize = 50;
/// The longest that a request may take, and what a busy machine may add.
const TIME_LIMIT: Duration = Duration::from_secs(30 + 3);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_and_started_again() {
    let folder = data_dir();
    let server = EmbeddedMongo::start(&mongod(), &folder).await.unwrap();
    let proxy = Proxy::start(through(&server)).await;
    let case = Case::start("away-killed", proxy.uri()).await;

    signal(process_id(&server.uri()).await, "KILL").await;
    let since = now_ms();
    // Waits for the end of the watchdog, which is that of the server.
    server.stop().await.unwrap();
    proxy.set(Way::Closed);
    let admin = case.process.admin();
    let late = json!({ "name": "Late" });
    let (write, ()) = tokio::join!(admin.post("/v1/clients", &late), case.is_away(since));
    is_unavailable(write);

    // Elsewhere than before: only the proxy's address stays the same.
    let server = EmbeddedMongo::start(&mongod(), &folder).await.unwrap();
    proxy.set(through(&server));
    case.goes_on().await;
    drop(case);
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frozen_and_thawed() {
    let server = EmbeddedMongo::start(&mongod(), &data_dir()).await.unwrap();
    let case = Case::start("away-frozen", server.uri()).await;
    let pid = process_id(&server.uri()).await;
    signal(pid, "STOP").await;
    case.is_away(now_ms()).await;
    signal(pid, "CONT").await;
    case.goes_on().await;
    drop(case);
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cut_off_by_a_network_that_swallows_everything() {
    let server = EmbeddedMongo::start(&mongod(), &data_dir()).await.unwrap();
    let proxy = Proxy::start(through(&server)).await;
    let case = Case::start("away-swallowed", proxy.uri()).await;
    proxy.set(Way::Swallowed);
    case.is_away(now_ms()).await;
    proxy.set(through(&server));
    case.goes_on().await;
    drop(case);
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_starts_first_begins_when_it_comes() {
    const GRACE: Duration = Duration::from_secs(3);
    let proxy = Proxy::start(Way::Closed).await;
    let world = World::on(database("away-start", proxy.uri()), quick_carrier()).await;
    let settings = world.settings(&[("CONTAINER_SHUTDOWN_GRACE", "3000")]);
    let mut impatient = Served::start(settings.clone()).await;
    let waiting = Served::start(settings).await;
    for process in [&impatient, &waiting] {
        until("it serves", async || {
            process.admin().get("/health/live").await.status == 200
        })
        .await;
        let ready = process.admin().get("/health/ready").await;
        assert_eq!(ready.status, 503, "{}", ready.body);
        is_unavailable(process.admin().get("/v1/campaigns").await);
    }

    // Nor does a service that is asked to stop meanwhile wait for the database.
    let signalled_at = Instant::now();
    impatient.process.signal("TERM").await;
    assert_eq!(impatient.process.exit().await, 0);
    let took = signalled_at.elapsed();
    assert!(
        took < GRACE + Duration::from_secs(4),
        "exited after {took:?}"
    );

    let server = EmbeddedMongo::start(&mongod(), &data_dir()).await.unwrap();
    proxy.set(through(&server));
    waiting.until_ready().await;
    assert_eq!(waiting.admin().get("/health/ready").await.status, 200);
    world.balancer.add(waiting.address);
    let (_, operator) = world.client(json!({ "name": "Acme" })).await;
    let list = operator.list_of(0, 3).await;
    let campaign = operator.campaign(&list, json!({})).await;
    operator.until_status(&campaign, "completed").await;
    drop(world);
    server.stop().await.unwrap();
}

/// A campaign in its middle.
struct Case {
    world: World,
    process: Served,
    operator: Api,
    campaign: String,
}

impl Case {
    async fn start(name: &str, uri: String) -> Self {
        let options = SimulatorOptions {
            talk_duration_ms: MsRange {
                min: 200,
                max: 1_500,
            },
            ..quick_carrier()
        };
        let world = World::on(database(name, uri), options).await;
        // Calls that are answered while the database is away have nothing to say to the callee: they are no reason to pause.
        let process = world
            .process(&[("FAILED_CALL_RATE_THRESHOLD", "100")])
            .await;
        let limits = json!({ "name": "Acme", "maxConcurrentCalls": 12 });
        let (_, operator) = world.client(limits).await;
        let list = operator.list_of(0, CONTACTS).await;
        let campaign = operator.campaign(&list, json!({})).await;
        until("calls are under way", async || {
            let stats = world.simulator.stats();
            stats.ended >= 5 && stats.live >= 5
        })
        .await;
        Self {
            world,
            process,
            operator,
            campaign,
        }
    }

    /// Checks the service while its database is away, which it has been since `since` (unix milliseconds).
    async fn is_away(&self, since: i64) {
        let admin = self.process.admin();
        until("it says that it is not ready", async || {
            admin.get("/health/ready").await.status == 503
        })
        .await;
        assert_eq!(admin.get("/health/live").await.status, 200);
        let dialed = self.world.simulator.stats().requests;

        let call = self.world.simulator.calls()[0]
            .request_uuid
            .clone()
            .unwrap();
        let progress = format!("/v1/campaigns/{}/progress", self.campaign);
        let asked_at = Instant::now();
        let (read, webhook) = tokio::join!(
            admin.get(&progress),
            self.world.simulator.replay(&call, EventKind::Hangup),
        );
        let took = asked_at.elapsed();
        assert!(took < TIME_LIMIT, "answered after {took:?}");
        is_unavailable(read);
        assert_eq!(webhook, Ok(Some(503)));

        // The signal, and what was written just before it, may take a moment.
        let surely = since + 200;
        for call in self.world.simulator.calls() {
            for delivery in call.deliveries.iter().filter(|one| one.at_ms > surely) {
                assert_ne!(delivery.http_status, Some(200), "{delivery:?}");
            }
        }
        let stats = self.world.simulator.stats();
        assert_eq!(stats.requests, dialed, "it dialed without its database");
        assert!(stats.accepted < CONTACTS as u64, "nobody was left to dial");
    }

    /// Checks that everything goes on by itself.
    async fn goes_on(&self) {
        let progress = self
            .operator
            .until_status(&self.campaign, "completed")
            .await;
        assert_adds_up(&progress);
        let ready = self.process.admin().get("/health/ready").await;
        assert_eq!(ready.status, 200, "{}", ready.body);
        self.world.assert_each_dialed_once(CONTACTS);
        self.world.until_idle().await;
    }
}

/// A database of a server of the test's own.
fn database(name: &str, uri: String) -> TestDatabase {
    TestDatabase {
        uri,
        name: format!("ringmaster-{name}"),
    }
}

fn through(server: &EmbeddedMongo) -> Way {
    Way::Through(([127, 0, 0, 1], server.port()).into())
}

/// A problem that says when to come back.
#[track_caller]
fn is_unavailable(reply: Reply) {
    let retry_after = reply.headers.get("retry-after").map(|value| value.to_str());
    let seconds: u32 = retry_after.unwrap().unwrap().parse().unwrap();
    assert!((1..=60).contains(&seconds));
    let problem = reply.problem(503, "unavailable");
    assert!(!problem.to_string().contains(ADMIN_KEY));
}
