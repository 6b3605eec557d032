//! A driver that freezes for longer than the orphan threshold, is replaced, and thaws (Cloud Run throttles CPU): it dials
//! nobody that it should not, and works on as any other (promises P2 and P9).

use std::time::Duration;

use chrono::{TimeDelta, Utc};
use ringmaster::simulator::{DialRecord, MsRange, SimulatorOptions};
use serde_json::json;

use crate::helpers::app::{World, quick_carrier, until};
use crate::helpers::judge::{assert_adds_up, now_ms};

const CONTACTS: usize = 120;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thawed_driver_dials_nobody_twice_and_works_on() {
    let options = SimulatorOptions {
        ring_duration_ms: MsRange { min: 10, max: 40 },
        talk_duration_ms: MsRange { min: 50, max: 200 },
        ..quick_carrier()
    };
    let world = World::new("zombie", options).await;
    let mut processes = vec![world.process(&[]).await, world.process(&[]).await];
    let (client, operator) = world
        .client(json!({ "name": "Acme", "maxConcurrentCalls": 6 }))
        .await;
    let list = operator.list_of(0, CONTACTS).await;
    let campaign = operator
        .campaign(&list, json!({ "pacing": { "intervalMs": 30 } }))
        .await;

    for _ in 0..2 {
        let progress = processes[0].admin().progress(&campaign).await;
        if progress["driver"]["containerId"] != processes[0].container().await.as_str() {
            processes.swap(0, 1);
        }
        let after = world.simulator.stats().accepted + rand::random_range(5..20);
        until("some calls were dialed", async || {
            world.simulator.stats().accepted >= after
        })
        .await;
        tokio::time::sleep(Duration::from_millis(rand::random_range(0..40))).await;

        processes[0].process.signal("STOP").await;
        // As a load balancer does whose health checks fail. Connections to it stay open, and what is sent on them waits.
        world.balancer.remove(processes[0].address);
        let (frozen, heir) = (processes[0].container().await, &processes[1]);
        let name = heir.container().await;
        until("the other one drives", async || {
            let progress = heir.admin().progress(&campaign).await;
            assert_adds_up(&progress);
            progress["driver"]["containerId"] == name.as_str()
        })
        .await;
        let before = world.simulator.stats().accepted;
        until("the other one dials on", async || {
            world.simulator.stats().accepted >= before + 5
        })
        .await;
        processes[0].process.signal("CONT").await;
        world.balancer.add(processes[0].address);
        until("the thawed one has noticed", async || {
            let noticed = processes[0].process.logged("no longer driving");
            noticed.len() == processes[0].process.logged("driving").len()
        })
        .await;
        let containers = processes[1].admin().get("/v1/containers").await.ok();
        let drives = |id: &str| {
            let items = containers["items"].as_array().unwrap().iter();
            items
                .clone()
                .any(|item| item["id"] == id && item["campaigns"] == 1)
        };
        assert!(drives(&name) && !drives(&frozen), "{containers}");
    }

    let progress = operator.until_status(&campaign, "completed").await;
    assert_adds_up(&progress);
    world.assert_each_dialed_once(CONTACTS);
    let stats = world.simulator.stats();
    assert!(stats.by_client[&client].peak_live <= 6, "{stats:?}");

    // Each of them still drives a campaign from its beginning to its end.
    let list = operator.list_of(CONTACTS, 5).await;
    for process in &processes {
        let body = json!({
            "campaignName": "after", "listId": list, "fromNumber": crate::helpers::app::FROM,
            "clientId": client,
            "answer": { "type": "speak", "text": "Hello {{firstName}}" },
        });
        let campaign = process.admin().post("/v1/campaigns", &body).await.created();
        let campaign = campaign["id"].as_str().unwrap();
        operator.until_status(campaign, "completed").await;
        let drove = process.process.logged("driving");
        assert!(drove.iter().any(|line| line["campaignId"] == campaign));
    }
}

/// What a container did with a dial at which it froze, after its campaign was adopted and it thawed.
struct Thawed {
    /// Dials of that attempt by the carrier's books, in their order.
    dials: Vec<DialRecord>,
    /// When it thawed, unix ms.
    at_ms: i64,
    /// How long it was frozen, ms.
    frozen_ms: i64,
}

/// A container freezes exactly at `point` of its third dial, another one adopts its campaign, gives the dial up, and dials that
/// contact again; then the first one thaws.
async fn frozen_at(point: &str) -> Thawed {
    let options = SimulatorOptions {
        ring_duration_ms: MsRange { min: 300, max: 500 },
        talk_duration_ms: MsRange { min: 50, max: 100 },
        ..quick_carrier()
    };
    let world = World::new("frozen", options).await;
    let steps = format!("{point}/3/freeze");
    let mut zombie = world.process(&[("CRASH_POINTS", steps.as_str())]).await;
    let (_, operator) = world
        .client(json!({ "name": "Acme", "maxConcurrentCalls": 2 }))
        .await;
    let list = operator.list_of(0, 8).await;
    let campaign = operator.campaign(&list, json!({})).await;
    until("it is frozen", async || {
        zombie.process.is_stopped() && zombie.process.stderr().contains(point)
    })
    .await;
    let frozen_at = now_ms();
    world.balancer.remove(zombie.address);
    let heir = world.process(&[]).await;
    // Connections that were open lead to the frozen one still.
    let operator = heir.admin();
    let progress = operator.until_status(&campaign, "completed").await;
    assert_adds_up(&progress);
    let before = world.simulator.stats().requests;
    assert_eq!(before, 8, "{progress}");

    let at_ms = now_ms();
    zombie.process.signal("CONT").await;
    world.balancer.add(zombie.address);
    until("the thawed one has noticed", async || {
        let process = &zombie.process;
        process.logged("no longer driving").len() == process.logged("driving").len()
    })
    .await;
    // Its work on the way is done when it has stopped, which waits for it.
    zombie.process.signal("TERM").await;
    zombie.process.exit().await;
    world.balancer.remove(zombie.address);
    world.until_idle().await;
    let after = operator.progress(&campaign).await;
    assert_eq!(
        after["final"], progress["final"],
        "a ghost changed something"
    );
    let (mut dials, mut others) = (world.simulator.calls(), 0);
    let held = dials.iter().find(|dial| dial.params["dial"] != "1");
    let held = held.expect("it was dialed anew").params["call"].clone();
    dials.retain(|dial| {
        others += usize::from(dial.params["call"] != held);
        dial.params["call"] == held
    });
    assert_eq!(others, 7, "others were dialed twice");
    Thawed {
        dials,
        at_ms,
        frozen_ms: at_ms - frozen_at,
    }
}

/// Frozen between guard and send: it never dials. Before the send is begun, and where the client is about to send.
#[expect(clippy::print_stderr, reason = "a measurement")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frozen_between_guard_and_send_it_never_dials() {
    for point in ["dial.after_guard", "send.before"] {
        let thawed = frozen_at(point).await;
        let by_books: Vec<_> = thawed
            .dials
            .iter()
            .map(|dial| &*dial.params["dial"])
            .collect();
        assert_eq!(by_books, ["2"], "the zombie dialed");
        eprintln!(
            "frozen at {point} for {} ms: 0 dials after the thaw",
            thawed.frozen_ms
        );
    }
}

/// Frozen when the HTTP client had taken the body already: nothing can call it back. The carrier dials, and the call, whose
/// number was given up, is hung up at once.
#[expect(clippy::print_stderr, reason = "a measurement")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frozen_with_the_body_on_its_way_its_ghost_is_hung_up_at_once() {
    let thawed = frozen_at("send.body_taken").await;
    let by_books: Vec<_> = thawed
        .dials
        .iter()
        .map(|dial| &*dial.params["dial"])
        .collect();
    assert_eq!(by_books, ["2", "1"], "{:?}", thawed.dials);
    let ghost = &thawed.dials[1];
    let (first, last) = (
        ghost.timeline.first().unwrap().at_ms,
        ghost.timeline.last().unwrap().at_ms,
    );
    assert!(first >= thawed.at_ms);
    assert!(!ghost.answered, "somebody heard the ghost: {ghost:?}");
    let lived = last - first;
    assert!(lived < 2_000, "the ghost lived for {lived} ms");
    eprintln!(
        "frozen with the body taken for {} ms: dialed {} ms after the thaw, hung up {lived} ms later, unanswered",
        thawed.frozen_ms,
        first - thawed.at_ms
    );
}

/// Alone, frozen over the campaign's end, with nobody to take its dial back: what it meant to send belongs to the past.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_expired_while_its_driver_was_frozen_is_not_dialed() {
    for point in ["dial.before_guard", "dial.after_guard", "send.before"] {
        frozen_over_the_end(point).await;
    }
}

async fn frozen_over_the_end(point: &str) {
    let world = World::new("expired", quick_carrier()).await;
    let steps = format!("{point}/3/freeze");
    let mut process = world.process(&[("CRASH_POINTS", steps.as_str())]).await;
    let (_, operator) = world
        .client(json!({ "name": "Acme", "maxConcurrentCalls": 1 }))
        .await;
    let list = operator.list_of(0, 6).await;
    let expires = Utc::now() + TimeDelta::seconds(15);
    let campaign = operator
        .campaign(&list, json!({ "expiresAt": expires }))
        .await;
    until("it is frozen", async || {
        process.process.is_stopped() && process.process.stderr().contains(point)
    })
    .await;
    // For long enough besides that its intent is none any more: MAX_PROCESSED_TIME is a second here.
    let thaw_at = expires.max(Utc::now() + TimeDelta::seconds(2)) + TimeDelta::milliseconds(200);
    until("the campaign has expired", async || Utc::now() > thaw_at).await;
    process.process.signal("CONT").await;
    let progress = operator.until_status(&campaign, "completed").await;
    assert_adds_up(&progress);
    // The third dial is the one that froze.
    let (dialed, skipped) = (
        world.simulator.stats().requests,
        progress["skipped"]["expired"].as_u64().unwrap(),
    );
    assert!(dialed <= 2 && dialed + skipped == 6, "{point}: {progress}");
    world.until_idle().await;
}
