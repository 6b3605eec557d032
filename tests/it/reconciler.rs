//! What only the carrier can tell, and what not even the carrier tells: it is asked, nobody is dialed twice, nobody is lost,
//! no slot leaks (promises P2, P3, P10).

use std::sync::Mutex;
use std::time::Duration;

use ringmaster::simulator::{
    DialFaults, EventFaults, EventKind, Fault, LookupFaults, MsRange, Outcome, OutcomeMix,
    Simulator, SimulatorOptions, WebhookFaults,
};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::helpers::app::{FROM, World, contact, quick_carrier, until};
use crate::helpers::edge::{ADMIN, Edge};
use crate::helpers::judge::{assert_adds_up, now_ms, total_of, until_passed};

/// Every hangup webhook is lost.
fn no_hangups() -> WebhookFaults {
    WebhookFaults {
        hangup: EventFaults {
            lost: Fault::ALWAYS,
            ..EventFaults::default()
        },
        ..WebhookFaults::default()
    }
}

fn event_names(call: &Value) -> Vec<&str> {
    let events = call["events"].as_array().unwrap().iter();
    events.map(|line| line["event"].as_str().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_5xx_before_the_call_is_settled_by_asking() {
    let carrier = SimulatorOptions {
        dial_faults: DialFaults {
            error_before: Fault::next(4),
            ..DialFaults::default()
        },
        ..quick_carrier()
    };
    let world = World::new("before", carrier).await;
    let _container = world.container(&[]).await;
    let (_, operator) = world.client(json!({ "name": "Acme" })).await;
    let campaign = operator
        .campaign(&operator.list_of(0, 24).await, json!({}))
        .await;
    let progress = operator.until_status(&campaign, "completed").await;
    assert_eq!(progress["final"]["answered"], 24, "{progress}");
    assert_eq!(world.simulator.stats().requests, 24 + 4);
    world.assert_each_dialed_once(24);
    world.until_idle().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nobody_told_us_is_learned_from_the_carrier() {
    // Dialed, though it answered 5xx; busy, so that nothing rings; and the hangup is lost: no word ever reaches us.
    let carrier = SimulatorOptions {
        dial_faults: DialFaults {
            error_after: Fault::ALWAYS,
            ..DialFaults::default()
        },
        outcome_mix: OutcomeMix {
            busy: 1.0,
            ..OutcomeMix::NONE
        },
        webhook_faults: no_hangups(),
        ..quick_carrier()
    };
    let world = World::new("untold", carrier).await;
    let (_one, _two) = (world.container(&[]).await, world.container(&[]).await);
    let (_, operator) = world.client(json!({ "name": "Acme" })).await;
    let campaign = operator
        .campaign(&operator.list_of(0, 12).await, json!({}))
        .await;
    let progress = operator.until_status(&campaign, "completed").await;
    assert_eq!(progress["final"]["busy"], 12, "{progress}");
    assert_eq!(world.simulator.stats().requests, 12);
    world.assert_each_dialed_once(12);
    for call in operator.calls_of(&campaign).await {
        assert_eq!(event_names(&call), ["record"], "{call}");
        assert_eq!(call["hangup"]["code"], 3010);
    }
    world.until_idle().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_carrier_cannot_be_asked_about_is_uncertain_and_listed() {
    let carrier = SimulatorOptions {
        webhook_faults: no_hangups(),
        lookup_faults: LookupFaults {
            unavailable: Fault::ALWAYS,
            ..LookupFaults::default()
        },
        ..quick_carrier()
    };
    let world = World::new("uncertain", carrier).await;
    let settings = [
        ("MAX_ONGOING_TIME", "500"),
        ("CALL_TIMEOUT_MINUTES", "0.01"),
    ];
    let _container = world.container(&settings).await;
    let (_, operator) = world.client(json!({ "name": "Acme" })).await;
    let retry = json!({ "retry": { "maxAttempts": 3, "delaysSeconds": [1], "outcomes": ["busy", "no_answer"] } });
    let campaign = operator
        .campaign(&operator.list_of(0, 4).await, retry)
        .await;
    let progress = operator.until_status(&campaign, "completed").await;
    assert_adds_up(&progress);
    assert_eq!(progress["uncertain"], 4, "{progress}");
    assert_eq!(total_of(&progress["final"]), 0, "{progress}");
    let path = format!("/v1/campaigns/{campaign}/calls?outcome=uncertain");
    let listed = operator.get(&path).await.ok();
    assert_eq!(listed["items"].as_array().unwrap().len(), 4);
    world.until_idle().await;
    world.assert_each_dialed_once(4);

    // A word that comes after all is stronger than our giving up.
    let uuid = world.simulator.calls().remove(0).request_uuid.unwrap();
    let told = world.simulator.replay(&uuid, EventKind::Hangup).await;
    assert_eq!(told.unwrap(), Some(200));
    let progress = operator.progress(&campaign).await;
    assert_adds_up(&progress);
    assert_eq!(progress["uncertain"], 3);
    assert_eq!(progress["final"]["answered"], 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_call_keeps_its_slot_while_the_carrier_says_that_it_lives() {
    let world = World::new(
        "long",
        SimulatorOptions {
            talk_duration_ms: MsRange::exactly(9000),
            ..quick_carrier()
        },
    )
    .await;
    // An answered call is asked after every second here, so it is confirmed several times.
    let _container = world
        .container(&[
            ("MAX_ONGOING_TIME", "1000"),
            ("CALL_TIMEOUT_MINUTES", "0.02"),
        ])
        .await;
    let (_, operator) = world.client(json!({ "name": "Acme" })).await;
    let list = operator.list_of(0, 1).await;
    let campaign = operator.campaign(&list, json!({})).await;
    until("it is answered", async || {
        world.simulator.stats().answered == 1
    })
    .await;
    while world.simulator.stats().live == 1 {
        // Read before and after: the carrier's end may fall in between.
        let active = operator.get("/v1/utilization").await.ok()["global"]["active"].clone();
        assert!(
            active == 1 || world.simulator.stats().live == 0,
            "the slot was given up while the call lives"
        );
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    let progress = operator.until_status(&campaign, "completed").await;
    assert_eq!(progress["final"]["answered"], 1, "{progress}");
}

/// The first usable answer comes when the call is over and its record is not written yet: for a moment the carrier knows nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_nothing_from_the_carrier_does_not_prove_that_nobody_was_dialed() {
    let carrier = SimulatorOptions {
        dial_faults: DialFaults {
            error_after: Fault::ALWAYS,
            ..DialFaults::default()
        },
        outcome_mix: OutcomeMix {
            busy: 1.0,
            ..OutcomeMix::NONE
        },
        webhook_faults: no_hangups(),
        lookup_faults: LookupFaults {
            unavailable: Fault::ALWAYS,
            ..LookupFaults::default()
        },
        cdr_delay_ms: 5_000,
        ..quick_carrier()
    };
    let world = World::new("unrecorded", carrier).await;
    // A dial that the carrier does not know is never sent after 3 s, and when that was said for 2 s.
    let _container = world.container(&[]).await;
    let (_, operator) = world.client(json!({ "name": "Acme" })).await;
    let campaign = operator
        .campaign(&operator.list_of(0, 1).await, json!({}))
        .await;
    until("it is dialed", async || {
        world.simulator.stats().accepted == 1
    })
    .await;
    let dialed = world.simulator.calls()[0].requested_at_ms;
    until_passed(dialed, Duration::from_millis(4_000)).await;
    let answering = json!({ "lookupFaults": { "unavailable": { "probability": 0.0 } } });
    world.simulator.patch_options(&answering).unwrap();
    let progress = operator.until_status(&campaign, "completed").await;
    assert_eq!(progress["final"]["busy"], 1, "{progress}");
    assert_eq!(world.simulator.stats().requests, 1);
    world.until_idle().await;
}

/// One round after another, with nothing else that could change a call: no webhook comes through, and no round runs by itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_round_right_after_the_first_changes_nothing() {
    let carrier = SimulatorOptions {
        outcome_by_number: [(contact(0), Outcome::Busy)].into(),
        ..quick_carrier()
    };
    let (auth_id, token) = (carrier.auth_id.clone(), carrier.auth_tokens[0].clone());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let carrier = Simulator::start(listener, carrier).await.unwrap();
    let base = carrier.base_url();
    let settings = [
        ("PLIVO_API_BASE", base.as_str()),
        ("PLIVO_AUTH_ID", auth_id.as_str()),
        ("PLIVO_AUTH_TOKEN", token.as_str()),
        ("PLIVO_CPS", "1000"),
        ("MAX_CALLS_PER_MINUTE", "60000"),
        ("MAX_PROCESSED_TIME", "1000"),
        // A call that rings is asked after in every round.
        ("MAX_RINGING_TIME", "1"),
        ("CALL_TIMEOUT_MINUTES", "10"),
    ];
    let edge = Edge::start_with("rounds", &settings, |_, router| router).await;
    let (_, key) = edge.tenant("Acme").await;
    let mut calls = Vec::new();
    let patches = [
        json!({}),
        json!({ "ringDurationMs": { "min": 600_000, "max": 600_000 } }),
        json!({ "dialFaults": { "errorBefore": { "next": 1 } } }),
    ];
    for (index, patch) in patches.iter().enumerate() {
        carrier.patch_options(patch).unwrap();
        let answer = json!({ "type": "speak", "text": "Hello" });
        let body = json!({ "from": FROM, "to": contact(index), "answer": answer });
        let call = edge.post(&key, "/v1/calls", &body).await.expect(201);
        assert_ne!(call["status"], "failed", "{call}");
        calls.push(format!("/v1/calls/{}", call["id"].as_str().unwrap()));
    }
    until("one has ended and one rings", async || {
        let live = carrier.calls().into_iter().filter(|call| call.accepted);
        let mut statuses: Vec<_> = live.map(|call| call.status).collect();
        statuses.sort_unstable();
        statuses == ["busy", "ringing"]
    })
    .await;
    // Only after three times MAX_PROCESSED_TIME, and when it was said twice, a dial that the carrier does not know was never sent.
    until_passed(now_ms(), Duration::from_secs(3)).await;
    let round = async || {
        let done = edge.post(ADMIN, "/v1/tick", &json!({})).await.expect(200);
        ["asked", "ended", "withdrawn", "givenUp"].map(|name| done[name].as_u64().unwrap())
    };
    let read = async || {
        let read = calls
            .iter()
            .map(async |path| edge.get(&key, path).await.expect(200));
        futures_util::future::join_all(read).await
    };
    assert_eq!(round().await, [3, 1, 0, 0]);
    assert_eq!(round().await, [1, 0, 0, 0]);
    until_passed(now_ms(), Duration::from_secs(2)).await;
    assert_eq!(round().await, [2, 1, 0, 0]);
    let after = read().await;
    let seen: Vec<_> = after
        .iter()
        .map(|call| (call["status"].as_str().unwrap(), &call["outcome"]))
        .collect();
    let expected = [
        ("busy", &json!("busy")),
        ("ringing", &Value::Null),
        ("failed", &json!("carrier_error")),
    ];
    assert_eq!(seen, expected);
    for _ in 0..2 {
        assert_eq!(round().await, [1, 0, 0, 0]);
        assert_eq!(read().await, after);
    }
    assert_eq!(carrier.stats().requests, 3);
}

/// As an order of ours that is carried out while its answer is lost.
async fn cancel_at_the_carrier(world: &World, uuid: &str) {
    let account = SimulatorOptions::default();
    let url = format!(
        "{}/v1/Account/{}/Call/{uuid}/",
        world.simulator.base_url(),
        account.auth_id
    );
    let told = reqwest::Client::new()
        .delete(url)
        .basic_auth(&account.auth_id, Some(SimulatorOptions::DEFAULT_TOKEN))
        .send();
    assert_eq!(told.await.unwrap().status(), 204);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queued_call_that_was_hung_up_ends_though_the_carrier_could_not_be_asked_then() {
    // One call a second leaves the queue.
    let carrier = SimulatorOptions {
        cps: 1,
        // Of a call that ends in the queue there is neither a webhook nor a record.
        hangup_webhook_for_queued: false,
        cdr_delay_ms: 3_600_000,
        ..quick_carrier()
    };
    let world = World::new("queued", carrier).await;
    // It would hold its slot for half an hour.
    let settings = [("CALL_TIMEOUT_MINUTES", "30")];
    let _container = world.container(&settings).await;
    let (_, operator) = world.client(json!({ "name": "Acme" })).await;
    let list = operator.list_of(0, 20).await;
    let campaign = operator.campaign(&list, json!({})).await;
    let last = Mutex::new(Value::Null);
    until("the last one is queued", async || {
        let calls = operator.calls_of(&campaign).await;
        let of_last = |call: &Value| call["contactSeq"] == 19 && call["status"] == "queued";
        let found = calls.into_iter().find(of_last);
        found.is_some_and(|call| {
            *last.lock().unwrap() = call;
            true
        })
    })
    .await;
    let last = last.into_inner().unwrap();
    let away = |probability: f64| json!({ "lookupFaults": { "unavailable": { "probability": probability } } });
    world.simulator.patch_options(&away(1.0)).unwrap();
    let path = format!("/v1/calls/{}/hangup", last["id"].as_str().unwrap());
    let told = operator.post(&path, &json!({})).await;
    told.problem(503, "unavailable");
    world.simulator.patch_options(&away(0.0)).unwrap();
    cancel_at_the_carrier(&world, last["callUUID"].as_str().unwrap()).await;

    let progress = operator.until_status(&campaign, "completed").await;
    assert_eq!(progress["final"]["canceled"], 1, "{progress}");
    assert_eq!(progress["final"]["answered"], 19, "{progress}");
    world.until_idle().await;
    world.assert_each_dialed_once(20);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_to_the_same_number_that_is_made_while_the_carrier_is_asked_keeps_its_own_id() {
    // The first dial leaves no call. The carrier answers every question slowly.
    let carrier = SimulatorOptions {
        dial_faults: DialFaults {
            error_before: Fault::next(1),
            slow_ms: 7_000,
            ..DialFaults::default()
        },
        lookup_faults: LookupFaults {
            slow_ms: 1_000,
            ..LookupFaults::default()
        },
        ring_duration_ms: MsRange::exactly(14_000),
        webhook_faults: WebhookFaults {
            ring: EventFaults {
                lost: Fault::ALWAYS,
                ..EventFaults::default()
            },
            ..WebhookFaults::default()
        },
        ..quick_carrier()
    };
    let world = World::new("double", carrier).await;
    // No sweep asks in between.
    let settings = [
        ("CALL_TIMEOUT_MINUTES", "2"),
        ("CLEANUP_INTERVAL", "600000"),
    ];
    let _container = world.container(&settings).await;
    let (_, operator) = world.client(json!({ "name": "Acme" })).await;
    let body = json!({
        "to": contact(0), "from": FROM, "answer": { "type": "speak", "text": "Hello" },
    });
    let first = operator.post("/v1/calls", &body).await.body;
    assert_eq!(world.simulator.stats().requests, 1);
    // The second one rings while its dial is not answered yet, and nothing has told us its id.
    let slow = json!({ "dialFaults": { "slowAfter": { "next": 1 } } });
    world.simulator.patch_options(&slow).unwrap();
    until("the carrier is being asked", async || {
        world.simulator.stats().lookups > 0
    })
    .await;
    let second = operator.post("/v1/calls", &body).await.body;
    let outcome = async |call: &Value| {
        let path = format!("/v1/calls/{}", call["id"].as_str().unwrap());
        operator.get(&path).await.ok()
    };
    until("both are over", async || {
        let calls = [outcome(&first).await, outcome(&second).await];
        calls.iter().all(|call| call["outcome"].is_string())
    })
    .await;
    let (first, second) = (outcome(&first).await, outcome(&second).await);
    let uuid = world.simulator.calls().pop().unwrap().request_uuid;
    assert_eq!(second["callUUID"].as_str(), uuid.as_deref(), "{second}");
    assert_eq!(second["outcome"], "answered");
    assert_ne!(first["callUUID"], second["callUUID"]);
    assert_eq!(first["outcome"], "carrier_error", "{first}");
    world.until_idle().await;
}
