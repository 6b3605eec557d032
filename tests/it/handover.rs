//! SIGTERM in mid-campaign: the process hands over and leaves in time, whatever its callers do, and another goes on at once
//! (promise P9).

use std::time::{Duration, Instant};

use futures_util::{StreamExt, TryStreamExt};
use mongodb::bson::{Document, doc};
use mongodb::change_stream::event::ChangeStreamEvent;
use ringmaster::simulator::{MsRange, SimulatorOptions};
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use crate::helpers::app::{World, quick_carrier, until};
use crate::helpers::judge::{assert_adds_up, now_ms};
use crate::helpers::mongod;
use crate::helpers::process::Served;

const CONTACTS: usize = 40;
/// What promise P9 grants.
const HANDOVER: Duration = Duration::from_secs(2);
/// For the last words to the database and the end of its connections, after the grace.
const CLOSING: Duration = Duration::from_secs(4);
/// What a machine may add that runs other tests and a compiler at the same time.
const MARGIN: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_process_dials_on_within_two_seconds() {
    let options = SimulatorOptions {
        talk_duration_ms: MsRange {
            min: 1_500,
            max: 2_500,
        },
        ..quick_carrier()
    };
    let world = World::new("handover", options).await;
    // Who had to wait for the lease to grow old would come far too late.
    let never = [("ORPHAN_DETECTION_THRESHOLD", "120000")];
    let mut leaving = world.process(&never).await;
    let (_, operator) = world
        .client(json!({ "name": "Acme", "maxConcurrentCalls": 40 }))
        .await;
    let list = operator.list_of(0, CONTACTS).await;
    let campaign = operator
        .campaign(&list, json!({ "pacing": { "intervalMs": 100 } }))
        .await;
    // The other is not there yet when the campaign starts, so it is known who drives.
    let staying = world.process(&never).await;
    until("calls are under way", async || {
        let stats = world.simulator.stats();
        stats.live >= 5 && stats.answered >= 5
    })
    .await;

    let changes = changes_of_driver(&world).await;
    let (signalled_at, signalled_at_ms) = (Instant::now(), now_ms());
    leaving.process.signal("TERM").await;
    let code = leaving.process.exit().await;
    assert_eq!(code, 0, "{}", leaving.process.output());
    // The grace of a world is 10 s; nothing here takes that long.
    assert!(signalled_at.elapsed() < Duration::from_secs(10));
    let handed_over = leaving.process.logged("campaigns handed over");
    assert_eq!(handed_over[0]["campaigns"], 1);
    world.balancer.remove(leaving.address);
    let in_flight = world.simulator.stats().live;
    assert!(in_flight > 0, "no call was left to follow");

    // However slow this machine is: the other process adopted at its first look for campaigns without a driver, or at its
    // second, since the first may have come before a majority of the database had the release; and two looks are within the
    // promise. A busy machine can only hold looks up, never bring them together, so the shortest time between two tells how
    // long the process waits.
    let [(nobody, released), (heir, adopted)] = changes.await.unwrap();
    assert_eq!(nobody, None);
    assert_eq!(heir, Some(staying.container().await));
    let mut looks = Vec::new();
    until("the other process has looked more often", async || {
        looks = looks_for_orphans(&world).await;
        looks.retain(|at| *at > released);
        looks.len() > 10
    })
    .await;
    let missed = looks.iter().filter(|at| **at < adopted).count();
    assert!(
        (1..=2).contains(&missed),
        "{released}, {looks:?}, {adopted}"
    );
    let shortest = looks.windows(2).map(|two| two[1] - two[0]).min().unwrap();
    let two_looks = Duration::from_millis(u64::try_from(2 * shortest).unwrap());
    assert!(two_looks <= HANDOVER, "two looks take {two_looks:?}");

    // By its log the other one dialed; by the carrier's books it did so in time. (Here the machine may add to it.)
    until("the other process dials", async || {
        !staying.process.logged("dialing").is_empty()
    })
    .await;
    let first = staying.process.logged("dialing")[0]["callId"].clone();
    let mut dialed_at_ms = None;
    until("the carrier has its call", async || {
        let calls = world.simulator.calls();
        let call = calls.iter().find(|call| first == call.params["call"]);
        dialed_at_ms = call.map(|call| call.requested_at_ms);
        dialed_at_ms.is_some()
    })
    .await;
    let took_ms = dialed_at_ms.unwrap() - signalled_at_ms;
    let took = Duration::from_millis(u64::try_from(took_ms).unwrap());
    assert!(took <= HANDOVER + MARGIN, "dialed after {took:?}");

    // Everybody was answered: also those whose calls the first process began.
    let progress = operator.until_status(&campaign, "completed").await;
    assert_adds_up(&progress);
    assert_eq!(progress["final"]["answered"], CONTACTS, "{progress}");
    world.assert_each_dialed_once(CONTACTS);
    world.until_idle().await;
}

/// The next two changes of who drives the only campaign: the driver's container, and when the database wrote it (unix
/// milliseconds by its own clock). From now on it also notes when somebody looks for campaigns without a driver.
async fn changes_of_driver(world: &World) -> JoinHandle<[(Option<String>, i64); 2]> {
    let client = mongod::client(&world.database.uri).await;
    let database = client.database(&world.database.name);
    let of_looks = doc! { "command.filter.epoch": { "$exists": true } };
    let profile = doc! { "profile": 1, "filter": of_looks };
    database.run_command(profile).await.unwrap();

    let campaigns = database.collection::<Document>("plivoCampaign");
    let of_driver = doc! { "updateDescription.updatedFields.containerId": { "$exists": true } };
    let watched = campaigns.watch().pipeline([doc! { "$match": of_driver }]);
    let mut changes = watched.await.unwrap();
    let change = |event: ChangeStreamEvent<Document>| {
        let fields = event.update_description.unwrap().updated_fields;
        let container = fields.get_str("containerId").ok().map(str::to_owned);
        (container, event.wall_time.unwrap().timestamp_millis())
    };
    tokio::spawn(async move {
        let released = change(changes.next().await.unwrap().unwrap());
        [released, change(changes.next().await.unwrap().unwrap())]
    })
}

/// When each look for campaigns without a driver began (unix milliseconds by the database's clock), oldest first.
async fn looks_for_orphans(world: &World) -> Vec<i64> {
    let client = mongod::client(&world.database.uri).await;
    let profile = client.database(&world.database.name);
    let profile = profile.collection::<Document>("system.profile");
    let looks = profile.find(doc! { "op": "query" }).sort(doc! { "ts": 1 });
    let looks: Vec<Document> = looks.await.unwrap().try_collect().await.unwrap();
    let began = |look: &Document| {
        let took = i64::from(look.get_i32("millis").unwrap());
        look.get_datetime("ts").unwrap().timestamp_millis() - took
    };
    looks.iter().map(began).collect()
}

/// axum's own server waits for such a connection for ever (tokio-rs/axum#3478).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_half_sent_request_does_not_keep_it() {
    const GRACE: Duration = Duration::from_secs(2);
    let world = World::new("handover-half", quick_carrier()).await;
    let mut process = world.process(&[("CONTAINER_SHUTDOWN_GRACE", "2000")]).await;
    let _connection = half_a_request(&process).await;
    let signalled_at = Instant::now();
    process.process.signal("TERM").await;
    assert_eq!(process.process.exit().await, 0);
    let took = signalled_at.elapsed();
    assert!(took < GRACE + CLOSING + MARGIN, "exited after {took:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_signal_ends_it_at_once() {
    let world = World::new("handover-twice", quick_carrier()).await;
    let mut process = world
        .process(&[("CONTAINER_SHUTDOWN_GRACE", "60000")])
        .await;
    let _connection = half_a_body(&process).await;
    process.process.signal("TERM").await;
    until("it is stopping", async || {
        !process.process.logged("stopping").is_empty()
    })
    .await;
    let signalled_at = Instant::now();
    process.process.signal("TERM").await;
    assert_eq!(process.process.exit().await, 130);
    assert!(signalled_at.elapsed() < MARGIN);
}

/// A connection whose request never comes to its end.
async fn half_a_request(process: &Served) -> TcpStream {
    send(process, b"GET /health/live HTTP/1.1\r\nHost: ").await
}

/// Likewise, with a request that is under way: its body is being read.
async fn half_a_body(process: &Served) -> TcpStream {
    let head = "POST /plivo/ring-url HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\na=";
    send(process, head.as_bytes()).await
}

/// A connection that says so much and no more, and one that works, so that the first was surely accepted.
async fn send(process: &Served, bytes: &[u8]) -> TcpStream {
    let mut connection = TcpStream::connect(process.address).await.unwrap();
    connection.write_all(bytes).await.unwrap();
    process.admin().get("/health/live").await.ok();
    connection
}
