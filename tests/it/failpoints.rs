//! MongoDB fails in every way that its server can be told to, at every class of command: errors, lost connections, writes that
//! are done and reported as failed, commands that hang. A campaign in progress ends complete all the same with everybody dialed
//! once (promises P2, P3, P4, P10), webhooks are durable or answered 5xx (P6), and callers are told to come back (P8).
//!
//! `failCommand` exists once a server, so each test has a server of its own; it strikes the service only, by its `appName`.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use mongodb::Client;
use mongodb::bson::{Bson, Document, doc};
use ringmaster::services::store::embedded::EmbeddedMongo;
use ringmaster::simulator::{
    Delivery, DialRecord, EventKind, MsRange, OutcomeMix, SimulatorOptions,
};
use serde_json::{Value, json};

use crate::helpers::app::{Api, Container, Reply, World, contact, quick_carrier, until};
use crate::helpers::judge::{assert_adds_up, total_of};
use crate::helpers::mongod::{TEST_PARAMETERS, TestDatabase, client, data_dir, mongod};

/// What the service calls itself.
const APP: &str = "ringmaster";
/// Contacts of each campaign.
const CONTACTS: usize = 40;
/// Every class of command that the store sends, with how it comes about.
const CLASSES: [&[&str]; 7] = [
    // Intents, imports.
    &["insert"],
    // Calls (replaced), guards, heartbeats.
    &["update"],
    // Transitions, adoption, rates, leases.
    &["findAndModify"],
    &["find"],
    // Progress, counts.
    &["aggregate"],
    // The second batch of contacts.
    &["getMore"],
    // The intents of retries.
    &["commitTransaction"],
];

/// A world whose database can be told to fail.
struct Shaky {
    world: World,
    server: EmbeddedMongo,
    control: Client,
}

impl Shaky {
    async fn start(name: &str, options: SimulatorOptions) -> Self {
        let server = EmbeddedMongo::start_with(&mongod(), &data_dir(), &TEST_PARAMETERS)
            .await
            .unwrap();
        let database = TestDatabase {
            uri: server.uri(),
            name: format!("ringmaster-{name}"),
        };
        Self {
            control: client(&server.uri()).await,
            world: World::on(database, options).await,
            server,
        }
    }

    /// Lets these commands of the service fail as `fault` says.
    async fn fail(&self, commands: &[&str], mode: impl Into<Bson>, fault: Document) {
        let mut data = doc! { "failCommands": commands.to_vec(), "appName": APP };
        data.extend(fault);
        let order = doc! { "configureFailPoint": "failCommand", "mode": mode.into(), "data": data };
        let admin = self.control.database("admin");
        admin.run_command(order).await.unwrap();
    }

    /// Waits until this many commands have failed in all; `false` if `patience` was too short.
    async fn has_failed(&self, times: i64, patience: Duration) -> bool {
        let order = doc! {
            "waitForFailPoint": "failCommand", "timesEntered": times,
            "maxTimeMS": i64::try_from(patience.as_millis()).unwrap(),
        };
        let admin = self.control.database("admin");
        admin.run_command(order).await.is_ok()
    }

    /// Ends the failing; answers how many commands have failed so far, in all.
    async fn mend(&self) -> i64 {
        let order = doc! { "configureFailPoint": "failCommand", "mode": "off" };
        let admin = self.control.database("admin");
        let told = admin.run_command(order).await.unwrap();
        match told.get("count") {
            Some(Bson::Int32(count)) => i64::from(*count),
            Some(Bson::Int64(count)) => *count,
            other => panic!("no count: {other:?}"),
        }
    }

    async fn stop(self) {
        drop(self.world);
        self.control.shutdown().immediate(true).await;
        self.server.stop().await.unwrap();
    }
}

/// What a command can meet. Retryable ones carry the label that a server would give them.
fn faults() -> Vec<Document> {
    let error = |code: i32| doc! { "errorCode": code };
    let labelled = |code: i32, label: &str| doc! { "errorCode": code, "errorLabels": [label] };
    vec![
        // NotWritablePrimary, InterruptedAtShutdown, OutOfDiskSpace, ExceededTimeLimit.
        labelled(10_107, "RetryableWriteError"),
        labelled(11_600, "RetryableWriteError"),
        error(14_031),
        error(262),
        labelled(112, "TransientTransactionError"),
        doc! { "closeConnection": true },
        doc! { "blockConnection": true, "blockTimeMS": 300 },
        // Done, and reported as failed.
        doc! { "writeConcernError": { "code": 64, "errmsg": "waiting for replication timed out" } },
        doc! { "writeConcernError": { "code": 91, "errmsg": "shutting down", "errorLabels": ["RetryableWriteError"] } },
    ]
}

/// Some callees are busy and tried again, so that there are transactions.
fn carrier() -> SimulatorOptions {
    SimulatorOptions {
        outcome_mix: OutcomeMix {
            answered: 2.0,
            busy: 1.0,
            ..OutcomeMix::NONE
        },
        talk_duration_ms: MsRange { min: 30, max: 120 },
        // While the database is away, calls hear nothing and webhooks are delivered again.
        webhook_retry_spacing_ms: 400,
        ..quick_carrier()
    }
}

/// Settings under which only the database's failures matter.
const SETTINGS: [(&str, &str); 3] = [
    ("MAX_CONCURRENT_CALL_WAIT", "20000"),
    ("FAILED_CALL_RATE_THRESHOLD", "100"),
    ("CALL_TIMEOUT_MINUTES", "2"),
];

/// Either the answer, or a problem that says when to come back and nothing about what is inside.
#[track_caller]
fn answered(reply: Reply) -> Option<Value> {
    if reply.status == 200 {
        return Some(reply.body);
    }
    let retry_after = reply.headers.get("retry-after").map(|value| value.to_str());
    let seconds: u32 = retry_after.unwrap().unwrap().parse().unwrap();
    assert!((1..=60).contains(&seconds));
    let problem = reply.problem(503, "unavailable");
    let text = problem.to_string().to_lowercase();
    for inside in [
        "mongo",
        "failpoint",
        "failcommand",
        "disk",
        "primary",
        "code ",
    ] {
        assert!(!text.contains(inside), "{inside} in {text}");
    }
    None
}

/// Reads the campaign's progress until it is completed; every answer adds up.
async fn watch(operator: &Api, campaign: &str) -> Value {
    let path = format!("/v1/campaigns/{campaign}/progress");
    let mut last = Value::Null;
    until("the campaign is completed", async || {
        if let Some(progress) = answered(operator.get(&path).await) {
            assert_adds_up(&progress);
            last = progress;
        }
        last["status"] == "completed"
    })
    .await;
    last
}

async fn begin(operator: &Api, first: usize, contacts: usize) -> String {
    let list = operator.list_of(first, contacts).await;
    start(operator, &list).await
}

async fn start(operator: &Api, list: &str) -> String {
    let more = json!({ "retry": { "maxAttempts": 2, "delaysSeconds": [1], "outcomes": ["busy"] } });
    operator.campaign(list, more).await
}

/// Everybody is accounted for, and each attempt was made once by the carrier's books.
async fn judge(shaky: &Shaky, operator: &Api, campaign: &str, progress: &Value, contacts: usize) {
    let total = i64::try_from(contacts).unwrap();
    assert_eq!(total_of(&progress["final"]), total, "{progress}");
    let attempts = operator.calls_of(campaign).await.len();
    let stats = shaky.world.simulator.stats();
    assert_eq!(stats.duplicates.by_call, Default::default());
    let accepted = stats.by_campaign[campaign].accepted;
    assert_eq!(accepted, attempts as u64, "{stats:?}");
    shaky.world.until_idle().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_campaign_meets_every_failure_of_every_command_and_ends_complete() {
    let shaky = Shaky::start("failures", carrier()).await;
    let _containers: [Container; 2] = [
        shaky.world.container(&SETTINGS).await,
        shaky.world.container(&SETTINGS).await,
    ];
    let limits = json!({ "name": "Acme", "maxConcurrentCalls": 6 });
    let (_, operator) = shaky.world.client(limits).await;
    for (turn, commands) in CLASSES.iter().enumerate() {
        let before = shaky.mend().await;
        let contacts;
        let campaign;
        if commands.contains(&"getMore") {
            // Contacts are read ahead as soon as the campaign runs, so it must fail by then.
            contacts = 2 * CONTACTS + 30;
            let list = operator.list_of(turn * 1_000, contacts).await;
            let first = faults().swap_remove(0);
            shaky.fail(commands, doc! { "times": 3 }, first).await;
            campaign = start(&operator, &list).await;
            let patience = Duration::from_secs(30);
            assert!(
                shaky.has_failed(before + 1, patience).await,
                "one batch was enough"
            );
        } else {
            contacts = CONTACTS;
            campaign = begin(&operator, turn * 1_000, contacts).await;
        }
        let is_over = AtomicBool::new(false);
        let failing = async {
            for fault in faults() {
                let failed = shaky.mend().await;
                // More often than the driver tries by itself.
                shaky.fail(commands, doc! { "times": 3 }, fault).await;
                // Not every fault is met by every command within that time.
                let _is_met = shaky.has_failed(failed + 3, Duration::from_secs(1)).await;
                if is_over.load(Ordering::SeqCst) {
                    break;
                }
            }
            shaky.mend().await
        };
        let watching = async {
            let progress = watch(&operator, &campaign).await;
            is_over.store(true, Ordering::SeqCst);
            progress
        };
        let (failed, progress) = tokio::join!(failing, watching);
        assert!(failed > before, "never sent: {commands:?}");
        judge(&shaky, &operator, &campaign, &progress, contacts).await;
    }
    shaky.stop().await;
}

/// The server takes commands and does not answer, for longer than the service waits for anything (20 s).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_that_hang_hold_nobody_up_for_ever() {
    let shaky = Shaky::start("hanging", carrier()).await;
    let _container = shaky.world.container(&SETTINGS).await;
    let limits = json!({ "name": "Acme", "maxConcurrentCalls": 4 });
    let (_, operator) = shaky.world.client(limits).await;
    let campaign = begin(&operator, 0, CONTACTS).await;
    until("calls are made", async || {
        shaky.world.simulator.stats().accepted >= 5
    })
    .await;
    let commands = ["insert", "update", "findAndModify", "find", "aggregate"];
    let hang = doc! { "blockConnection": true, "blockTimeMS": 22_000 };
    shaky.fail(&commands, doc! { "times": 12 }, hang).await;
    let progress = watch(&operator, &campaign).await;
    shaky.mend().await;
    judge(&shaky, &operator, &campaign, &progress, CONTACTS).await;
    shaky.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_webhook_whose_write_fails_is_answered_5xx_and_settled_when_it_comes_again() {
    let options = SimulatorOptions {
        outcome_mix: OutcomeMix::ANSWERED,
        talk_duration_ms: MsRange::exactly(3_000),
        ..carrier()
    };
    let shaky = Shaky::start("webhook", options).await;
    // The carrier is not asked meanwhile: what is known of the calls' ends comes from the webhooks.
    let settings = [
        ("MAX_PROCESSED_TIME", "600000"),
        ("MAX_RINGING_TIME", "600000"),
        ("MAX_ONGOING_TIME", "600000"),
        ("CLEANUP_INTERVAL", "600000"),
    ];
    let container = shaky.world.container(&settings).await;
    let (_, operator) = shaky.world.client(json!({ "name": "Acme" })).await;
    for (turn, fault) in faults().into_iter().enumerate() {
        shaky.world.simulator.reset();
        let list = operator.list_of(turn * 10, 4).await;
        let campaign = operator.campaign(&list, json!({})).await;
        until("they talk", async || {
            let calls = operator.live_calls().await;
            calls.len() == 4 && calls.iter().all(|call| call["status"] == "in-progress")
        })
        .await;
        shaky.fail(&["update"], "alwaysOn", fault.clone()).await;
        until("the ends are told", async || {
            let calls = shaky.world.simulator.calls();
            calls.iter().all(|call| hangups(call).next().is_some())
        })
        .await;
        shaky.mend().await;
        let progress = watch(&operator, &campaign).await;
        assert_eq!(progress["final"]["answered"], 4, "{fault}: {progress}");
        until("every webhook was taken", async || {
            let calls = shaky.world.simulator.calls();
            let taken = |call| hangups(call).any(|one| one.http_status == Some(200));
            calls.iter().all(taken)
        })
        .await;
        // With a command that is merely slow nothing fails.
        let expected = if fault.contains_key("blockConnection") {
            200
        } else {
            503
        };
        for call in shaky.world.simulator.calls() {
            let first = hangups(&call).next().unwrap().http_status;
            assert_eq!(first, Some(expected), "{fault}");
        }
        for call in operator.calls_of(&campaign).await {
            let mut events = call["events"].as_array().unwrap().iter();
            assert!(events.any(|line| line["event"] == "hangup"), "{call}");
        }
        shaky.world.until_idle().await;
        shaky.world.assert_each_dialed_once(4);
    }
    drop(container);
    shaky.stop().await;
}

fn hangups(call: &DialRecord) -> impl Iterator<Item = &Delivery> {
    let deliveries = call.deliveries.iter();
    deliveries.filter(|one| one.kind == EventKind::Hangup)
}

/// Whatever the database says, callers are told to come back, and nothing of what it says. What they sent again is done once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_api_says_when_to_come_back_and_nothing_of_what_is_inside() {
    let shaky = Shaky::start("api", carrier()).await;
    let container = shaky.world.container(&SETTINGS).await;
    let (id, operator) = shaky.world.client(json!({ "name": "Acme" })).await;
    let list = operator.list_of(0, 3).await;
    let body = json!({
        "campaignName": "test", "listId": list, "fromNumber": crate::helpers::app::FROM,
        "answer": { "type": "speak", "text": "Hello" },
        "scheduledAt": "2099-01-01T00:00:00Z",
    });
    let campaign = operator.campaign(&list, body.clone()).await;
    let reads = [
        "/v1/campaigns".to_owned(),
        "/v1/lists".to_owned(),
        format!("/v1/lists/{list}/contacts"),
        format!("/v1/campaigns/{campaign}"),
        format!("/v1/campaigns/{campaign}/progress"),
        format!("/v1/campaigns/{campaign}/calls"),
        "/v1/calls".to_owned(),
        "/v1/active-calls".to_owned(),
        "/v1/utilization".to_owned(),
    ];
    let (all_reads, all_writes) = (
        ["find", "aggregate", "getMore"],
        ["insert", "update", "findAndModify", "delete"],
    );
    let failing = faults().into_iter().filter(|fault| {
        // What is slow is no failure, and a read has no write concern.
        !fault.contains_key("blockConnection")
    });
    for (turn, fault) in failing.enumerate() {
        let unused = operator.list_of(100 + turn, 1).await;
        if !fault.contains_key("writeConcernError") {
            shaky.fail(&all_reads, "alwaysOn", fault.clone()).await;
            let replies = join_all(reads.iter().map(|path| operator.get(path))).await;
            for (path, reply) in reads.iter().zip(replies) {
                assert_eq!(answered(reply), None, "{path} {fault}");
            }
            shaky.mend().await;
        }
        shaky.fail(&all_writes, "alwaysOn", fault.clone()).await;
        let single = json!({
            "to": contact(7), "from": crate::helpers::app::FROM, "answer": { "type": "speak", "text": "Hello" },
        });
        let client = format!("/v1/clients/{id}");
        let rows = format!("number,firstName\n{},Ann\n", contact(8));
        let admin = shaky.world.admin();
        let (path, one, two) = (
            format!("/v1/lists/{unused}"),
            json!({ "name": "Other" }),
            json!({ "company": "Acme" }),
        );
        let replies = tokio::join!(
            operator.post("/v1/campaigns", &body),
            operator.command(&campaign, "pause"),
            operator.post("/v1/calls", &single),
            operator.upload("list", &rows),
            operator.delete(&path),
            admin.post("/v1/clients", &one),
            admin.patch(&client, &two),
        );
        let replies = <[Reply; 7]>::from(replies);
        for reply in replies {
            assert_eq!(answered(reply), None, "{fault}");
        }
        shaky.mend().await;
        until("it works again", async || {
            operator.get("/v1/utilization").await.status == 200
        })
        .await;
        operator.command(&campaign, "resume").await.ok();
    }
    assert_eq!(shaky.world.simulator.stats().accepted, 0);
    container.stop().await;
    shaky.stop().await;
}

/// A database that can be read and not written is said to be so, by name; and all is well again when it is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_or_read_only_database_is_told_by_the_health() {
    let shaky = Shaky::start("health", carrier()).await;
    let _container = shaky.world.container(&SETTINGS).await;
    let limits = json!({ "name": "Acme", "maxConcurrentCalls": 3 });
    let (_, operator) = shaky.world.client(limits).await;
    let campaign = begin(&operator, 0, CONTACTS).await;
    let writes = ["insert", "update", "findAndModify", "delete"];
    for (code, problem) in [(14_031, "full"), (10_107, "read_only"), (262, "away")] {
        until("it is ready", async || {
            operator.get("/health/ready").await.status == 200
        })
        .await;
        assert!(operator.get("/health").await.ok()["databaseProblem"].is_null());
        shaky
            .fail(&writes, "alwaysOn", doc! { "errorCode": code })
            .await;
        until("it says what is the matter", async || {
            let ready = operator.get("/health/ready").await;
            ready.status == 503 && ready.body["databaseProblem"] == problem
        })
        .await;
        let details = operator.get("/health").await.ok();
        assert_eq!(
            (
                &details["status"],
                &details["database"],
                &details["databaseProblem"]
            ),
            (&json!("unavailable"), &json!(false), &json!(problem))
        );
        // Alive, and not to be restarted: that would not help.
        assert_eq!(operator.get("/health/live").await.status, 200);
        let dialed = shaky.world.simulator.stats().accepted;
        let path = format!("/v1/campaigns/{campaign}/progress");
        until("progress can be read", async || {
            answered(operator.get(&path).await).is_some()
        })
        .await;
        // What was on its way when the writes began to fail has arrived by now.
        until("nothing lives", async || {
            shaky.world.simulator.stats().live == 0
        })
        .await;
        let accepted = shaky.world.simulator.stats().accepted;
        assert!(accepted <= dialed + 1, "it dialed on: {dialed}, {accepted}");
        shaky.mend().await;
    }
    let progress = watch(&operator, &campaign).await;
    judge(&shaky, &operator, &campaign, &progress, CONTACTS).await;
    tokio::time::timeout(Duration::from_secs(60), shaky.stop())
        .await
        .unwrap();
}

/// Calls that ended because the database was away and nobody could answer the carrier say nothing about their campaign: it is
/// not paused as one that fails.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_that_the_databases_absence_spoiled_do_not_pause_their_campaign() {
    let options = SimulatorOptions {
        outcome_mix: OutcomeMix::ANSWERED,
        ring_duration_ms: MsRange::exactly(10_000),
        webhook_retry_spacing_ms: 50,
        ..carrier()
    };
    let shaky = Shaky::start("spoiled", options).await;
    let settings = [("GLOBAL_MAX_CALLS", "60"), ("CALL_TIMEOUT_MINUTES", "2")];
    let _container = shaky.world.container(&settings).await;
    let limits = json!({ "name": "Acme", "maxConcurrentCalls": 60 });
    let (_, operator) = shaky.world.client(limits).await;
    let list = operator.list_of(0, 80).await;
    let campaign = operator.campaign(&list, json!({})).await;
    until("they ring", async || {
        shaky.world.simulator.stats().live == 60
    })
    .await;
    let commands = ["insert", "update", "findAndModify", "find", "aggregate"];
    let fault = doc! { "errorCode": 10_107 };
    let ended = shaky.world.simulator.stats().ended;
    shaky.fail(&commands, "alwaysOn", fault).await;
    until("nobody answered the carrier", async || {
        shaky.world.simulator.stats().ended >= ended + 60
    })
    .await;
    shaky.mend().await;
    let progress = watch(&operator, &campaign).await;
    let spoiled = progress["final"]["config_error"].as_i64().unwrap();
    // More than the breaker needs.
    assert!(spoiled > 50, "{progress}");
    shaky.stop().await;
}
