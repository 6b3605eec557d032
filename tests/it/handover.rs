//! SIGTERM in mid-campaign: the process hands over and leaves in time, whatever its callers do, and another goes on at once
//! (promise P9).

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ringmaster::simulator::{MsRange, SimulatorOptions};
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::helpers::app::{World, quick_carrier, until};
use crate::helpers::process::{Served, assert_adds_up};

const CONTACTS: usize = 40;
/// What promise P9 grants from the signal to the next dial.
const HANDOVER: Duration = Duration::from_secs(2);
/// For the last words to the database and the end of its connections, after the grace.
const CLOSING: Duration = Duration::from_secs(4);
/// What a machine may add that runs other tests and a compiler at the same time.
const MARGIN: Duration = Duration::from_secs(4);

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

    let (signalled_at, signalled_at_ms) = (Instant::now(), unix_ms());
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

    // By its log the other one dialed; by the carrier's books it did so in time.
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
    let stats = world.simulator.stats();
    assert_eq!(
        (stats.accepted, stats.unique_destinations),
        (CONTACTS as u64, CONTACTS)
    );
    assert_eq!(stats.duplicates, Default::default());
    let active = operator.get("/v1/active-calls").await.ok();
    assert_eq!(active["global"]["active"], 0, "{active}");
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

fn unix_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    i64::try_from(since.as_millis()).unwrap()
}
