//! A container whose clock is an hour off, beside one whose clock is right: leases, pacing, windows, schedules, deadlines and
//! ids go by the database's clock, so nothing changes. Judged by the carrier's books, whose clock is right.
//!
//! The clock is faked by libfaketime (Debian: `faketime`), which `scripts/test.sh` installs.

use std::path::{Path, PathBuf};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use ringmaster::simulator::{DialRecord, MsRange, SimulatorOptions};
use serde_json::{Value, json};

use crate::helpers::app::{Api, FROM, World, contact, quick_carrier, until};
use crate::helpers::judge::{now_ms, until_passed};
use crate::helpers::process::{Served, assert_adds_up};

/// Between two calls of a client by its limit: 600 a minute.
const TURN_MS: i64 = 100;
/// What the way from the grant to the carrier may take more for one call than for the next.
const JITTER_MS: i64 = 3_000;

fn library() -> PathBuf {
    let folders = ["x86_64-linux-gnu", "aarch64-linux-gnu", ""];
    let found = folders
        .map(|folder| {
            Path::new("/usr/lib")
                .join(folder)
                .join("faketime/libfaketimeMT.so.1")
        })
        .into_iter()
        .find(|path| path.exists());
    found.expect("libfaketime is missing: install it (Debian: apt-get install faketime), or let scripts/test.sh do so")
}

fn time(ms: i64) -> DateTime<Utc> {
    DateTime::from_timestamp_millis(ms).unwrap()
}

/// A campaign of the client that begins at this container, or whenever `more` says so.
async fn begin(at: &Served, client: &str, list: &str, more: &Value) -> String {
    let mut body = json!({
        "campaignName": "test", "listId": list, "fromNumber": FROM, "clientId": client,
        "answer": { "type": "speak", "text": "Hello {{firstName}}" },
    });
    let fields = body.as_object_mut().unwrap();
    fields.extend(more.as_object().unwrap().clone());
    let campaign = at.admin().post("/v1/campaigns", &body).await.created();
    campaign["id"].as_str().unwrap().to_owned()
}

async fn completes(operator: &Api, campaign: &str, people: usize) {
    let progress = operator.until_status(campaign, "completed").await;
    assert_adds_up(&progress);
    assert_eq!(progress["final"]["answered"], people, "{progress}");
    let rate = progress["callsPerMinute"].as_u64().unwrap();
    assert!((1..=people as u64).contains(&rate), "{progress}");
}

fn dials_of(world: &World, campaign: &str) -> Vec<DialRecord> {
    let mut calls = world.simulator.calls();
    calls.retain(|call| call.params["campaign"] == campaign);
    calls
}

/// A container whose clock is off by `off` (as libfaketime takes it).
async fn container_with(world: &World, off: &str) -> Served {
    let library = library();
    let served = world
        .process(&[
            ("LD_PRELOAD", library.to_str().unwrap()),
            ("FAKETIME", off),
            ("DONT_FAKE_MONOTONIC", "1"),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
        ])
        .await;
    // The log's time stamps are the machine's own: the clock is really off.
    let stamp = served.process.logged("starting")[0]["timestamp"].clone();
    let stamp: DateTime<Utc> = stamp.as_str().unwrap().parse().unwrap();
    let is_off = (stamp - time(now_ms())).abs() > TimeDelta::minutes(50);
    assert!(is_off, "the clock was not faked: {stamp}");
    served
}

/// What a clock that is an hour off would take for expired, or for outside of the calling window.
fn soon_over(begun: DateTime<Utc>) -> Value {
    let minutes = |minutes: i64| {
        let at = begun + TimeDelta::minutes(minutes);
        at.format("%H:%M").to_string()
    };
    json!({
        "expiresAt": (begun + TimeDelta::minutes(30)).to_rfc3339(),
        "window": {
            "days": ["mon", "tue", "wed", "thu", "fri", "sat", "sun"],
            "start": minutes(-20), "end": minutes(20), "timeZone": "UTC",
        },
    })
}

/// One of two containers is off by `off`: both drive a campaign of the same client, a third campaign begins by itself.
async fn changes_nothing(off: &str) {
    let options = SimulatorOptions {
        talk_duration_ms: MsRange { min: 100, max: 300 },
        ..quick_carrier()
    };
    let world = World::new("clock", options).await;
    let wrong = container_with(&world, off).await;
    let right = world.process(&[]).await;
    let limits = json!({ "name": "Acme", "maxConcurrentCalls": 8, "maxCallsPerMinute": 600 });
    let (client, operator) = world.client(limits).await;
    let begun = time(now_ms());
    let lists = [
        operator.list_of(0, 25).await,
        operator.list_of(100, 25).await,
        operator.list_of(200, 5).await,
    ];
    let due = now_ms() + 3_000;
    let at_its_time = json!({ "scheduledAt": time(due).to_rfc3339() });
    let later = begin(&wrong, &client, &lists[2], &at_its_time).await;
    // Ids are in order by the second.
    until_passed(now_ms(), Duration::from_millis(1_100)).await;
    let more = soon_over(begun);
    let (one, other) = tokio::join!(
        begin(&wrong, &client, &lists[0], &more),
        begin(&right, &client, &lists[1], &more),
    );
    completes(&operator, &one, 25).await;
    completes(&operator, &other, 25).await;
    completes(&operator, &later, 5).await;
    for process in [&wrong, &right] {
        assert!(process.process.logged("campaign adopted").is_empty());
        assert!(process.process.logged("ghost call").is_empty());
    }
    let first = dials_of(&world, &later)[0].requested_at_ms;
    assert!(first >= due, "{} ms too early", due - first);
    assert!(first < due + 10_000, "{} ms too late", first - due);
    for (campaign, from) in [(&one, 0), (&other, 100)] {
        let dials = dials_of(&world, campaign);
        let order: Vec<_> = dials
            .iter()
            .map(|dial| dial.to.as_str().to_owned())
            .collect();
        let expected: Vec<_> = (from..from + 25).map(contact).collect();
        assert_eq!(order, expected);
    }
    kept_the_pace(&world);
    told_the_time(&operator, begun).await;
    let listed = operator.get("/v1/campaigns").await.ok();
    let oldest = listed["items"].as_array().unwrap().last().unwrap();
    assert_eq!(oldest["id"], later.as_str(), "ids are not in order");
    world.assert_each_dialed_once(55);

    // Who is off dies: it is replaced when its lease is old, and not before.
    let list = operator.list_of(300, 30).await;
    let campaign = begin(
        &wrong,
        &client,
        &list,
        &json!({ "pacing": { "intervalMs": 150 } }),
    )
    .await;
    until("it dials", async || !dials_of(&world, &campaign).is_empty()).await;
    is_replaced(&world, wrong, &right).await;
    completes(&operator, &campaign, 30).await;
    world.assert_each_dialed_once(85);
    world.until_idle().await;
}

/// All calls together kept to the client's limit, by the books.
fn kept_the_pace(world: &World) {
    let calls = world.simulator.calls();
    let at = || calls.iter().map(|dial| dial.requested_at_ms);
    let took = at().max().unwrap() - at().min().unwrap();
    let least = (i64::try_from(calls.len()).unwrap() - 1) * TURN_MS;
    assert!(
        took + JITTER_MS >= least,
        "{} calls in {took} ms",
        calls.len()
    );
}

/// The API's times are the database's.
async fn told_the_time(operator: &Api, begun: DateTime<Utc>) {
    let calls = operator.get("/v1/calls?limit=100").await.ok();
    let possible = begun - TimeDelta::seconds(2)..time(now_ms() + 2_000);
    for call in calls["items"].as_array().unwrap() {
        let started: DateTime<Utc> = call["startTime"].as_str().unwrap().parse().unwrap();
        assert!(possible.contains(&started), "{call}");
    }
}

/// Kills `doomed`: `heir` adopts its campaign when its lease is old, 2 s after its last heartbeat, and not before.
async fn is_replaced(world: &World, mut doomed: Served, heir: &Served) {
    assert!(heir.process.logged("campaign adopted").is_empty());
    doomed.process.signal("KILL").await;
    world.balancer.remove(doomed.address);
    let died = now_ms();
    until("it is adopted", async || {
        !heir.process.logged("campaign adopted").is_empty()
    })
    .await;
    let took = now_ms() - died;
    assert!(took > 1_000, "adopted after {took} ms");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_hour_ahead_changes_nothing() {
    changes_nothing("+3600").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_hour_behind_changes_nothing() {
    changes_nothing("-3600").await;
}

/// The one whose clock is off takes over when the other one dies, and not before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_an_hour_off_replaces_the_dead_and_nobody_else() {
    for off in ["+3600", "-3600"] {
        let world = World::new("clock-heir", quick_carrier()).await;
        let right = world.process(&[]).await;
        let wrong = container_with(&world, off).await;
        let (client, operator) = world.client(json!({ "name": "Acme" })).await;
        let list = operator.list_of(0, 40).await;
        let pacing = json!({ "pacing": { "intervalMs": 150 } });
        let campaign = begin(&right, &client, &list, &pacing).await;
        // Longer than the threshold.
        until("it dials for a while", async || {
            dials_of(&world, &campaign).len() >= 18
        })
        .await;
        is_replaced(&world, right, &wrong).await;
        completes(&operator, &campaign, 40).await;
        world.assert_each_dialed_once(40);
        world.until_idle().await;
    }
}
