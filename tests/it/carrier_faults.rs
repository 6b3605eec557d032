//! A carrier that is busy, broken, silent or against us: nobody is dialed twice, nobody is lost, no slot leaks (P2, P3, P10).

use ringmaster::simulator::{DialFaults, Fault, SimulatorOptions};
use serde_json::{Value, json};

use crate::helpers::app::{Api, World, quick_carrier, until};

const CONTACTS: usize = 24;

async fn slots_are_free(api: &Api) {
    until("all slots are free", async || {
        api.get("/v1/utilization").await.ok()["global"]["active"] == 0
    })
    .await;
}

/// A campaign of [`CONTACTS`] against a carrier with these faults: it completes, and the carrier dialed each contact exactly once.
async fn survives(name: &str, dial_faults: DialFaults) -> Value {
    let world = World::new(
        name,
        SimulatorOptions {
            dial_faults,
            ..quick_carrier()
        },
    )
    .await;
    let _container = world.container(&[]).await;
    let (_, operator) = world.client(json!({ "name": "Acme" })).await;
    let list = operator.list_of(0, CONTACTS).await;
    let campaign = operator.campaign(&list, json!({})).await;
    let progress = operator.until_status(&campaign, "completed").await;
    let stats = world.simulator.stats();
    assert_eq!(
        (stats.accepted, stats.unique_destinations),
        (CONTACTS as u64, CONTACTS),
        "{stats:?}"
    );
    assert!(
        stats.duplicates.by_call.is_empty() && stats.duplicates.by_campaign_to.is_empty(),
        "{stats:?}"
    );
    assert_eq!(progress["final"]["answered"], CONTACTS, "{progress}");
    slots_are_free(&operator).await;
    progress
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_carrier_that_throttles_is_given_time() {
    let faults = DialFaults {
        too_many_requests: Fault::next(3),
        ..DialFaults::default()
    };
    survives("throttle", faults).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_5xx_before_the_call_is_settled_by_asking() {
    let faults = DialFaults {
        error_before: Fault::next(4),
        ..DialFaults::default()
    };
    survives("before", faults).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_5xx_after_the_call_began_is_never_dialed_again() {
    let faults = DialFaults {
        error_after: Fault {
            probability: 0.5,
            next: 2,
        },
        ..DialFaults::default()
    };
    survives("after", faults).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_connection_is_never_blindly_retried() {
    let faults = DialFaults {
        reset_before: Fault::next(3),
        reset_after: Fault::next(3),
        ..DialFaults::default()
    };
    survives("reset", faults).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_time_out_after_accepting_is_found_at_the_carrier() {
    let faults = DialFaults {
        timeout_after: Fault::next(3),
        hold_ms: 15_000,
        ..DialFaults::default()
    };
    survives("timeout", faults).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_carrier_holds_no_other_contact_up() {
    let faults = DialFaults {
        slow_after: Fault {
            probability: 0.3,
            next: 2,
        },
        slow_ms: 1500,
        ..DialFaults::default()
    };
    survives("slow", faults).await;
}

/// A condition that condemns every call pauses the campaign at once, burns nobody, and mended it goes on with everybody.
async fn condemned(name: &str, broken: Value, mended: Value) {
    let world = World::new(name, quick_carrier()).await;
    let _container = world.container(&[]).await;
    let (_, operator) = world.client(json!({ "name": "Acme" })).await;
    let list = operator.list_of(0, 5).await;
    world.simulator.patch_options(&broken).unwrap();
    let campaign = operator.campaign(&list, json!({})).await;
    let progress = operator.until_status(&campaign, "paused").await;
    let settled: u64 = progress["final"]
        .as_object()
        .unwrap()
        .values()
        .filter_map(Value::as_u64)
        .sum();
    assert_eq!(settled, 0, "a contact was burned: {progress}");
    let paused = operator
        .get(&format!("/v1/campaigns/{campaign}"))
        .await
        .ok();
    assert_eq!(paused["pausedBy"], "system");
    assert!(
        paused["pauseReason"]
            .as_str()
            .is_some_and(|reason| !reason.is_empty()),
        "{paused}"
    );
    world.simulator.patch_options(&mended).unwrap();
    operator
        .post(&format!("/v1/campaigns/{campaign}/resume"), &json!({}))
        .await
        .ok();
    let progress = operator.until_status(&campaign, "completed").await;
    assert_eq!(progress["final"]["answered"], 5, "{progress}");
    assert_eq!(world.simulator.stats().accepted, 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_id_that_is_refused_pauses_the_campaign() {
    condemned(
        "callerid",
        json!({ "callerIds": ["+12025550177"] }),
        json!({ "callerIds": [] }),
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn credentials_that_are_refused_pause_the_campaign() {
    let tokens = SimulatorOptions::default().auth_tokens;
    condemned(
        "token",
        json!({ "authTokens": ["changed"] }),
        json!({ "authTokens": tokens }),
    )
    .await;
}
