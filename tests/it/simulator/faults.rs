//! Its faults, each exactly as often as it was told.

use std::time::Duration;

use reqwest::Client;
use ringmaster::simulator::{
    DialFaults, EventFaults, Fault, LookupFaults, MsRange, OutcomeMix, SimulatorOptions,
    WebhookFaults,
};
use serde_json::json;

use super::{AUTH_ID, TOKEN, World, options, ringing, until};

fn faulty(change: impl FnOnce(&mut WebhookFaults)) -> SimulatorOptions {
    let mut options = options();
    change(&mut options.webhook_faults);
    options
}

#[tokio::test]
async fn webhooks_get_lost() {
    let always = EventFaults {
        lost: Fault::ALWAYS,
        ..EventFaults::default()
    };
    let world = World::with(faulty(|faults| {
        (faults.ring, faults.hangup) = (always, always)
    }))
    .await;
    let uuid = world.dial(json!({})).await;
    let record = world.ended(&uuid).await;
    assert_eq!(record.status, "completed");
    assert_eq!(
        record
            .deliveries
            .iter()
            .filter(|delivery| delivery.error == Some("lost by a fault"))
            .count(),
        2
    );
    assert_eq!(world.receiver.events(), ["StartApp"]);

    let world = World::with(faulty(|faults| faults.answer.lost = Fault::next(1))).await;
    assert_eq!(world.outcome(json!({})).await, (7011, "Error", "completed"));
    assert_eq!(world.outcome(json!({})).await.0, 4010);
}

#[tokio::test]
async fn webhooks_are_sent_twice() {
    let twice = EventFaults {
        duplicated: Fault::ALWAYS,
        ..EventFaults::default()
    };
    let faults = WebhookFaults {
        ring: twice,
        answer: twice,
        hangup: twice,
    };
    let world = World::with(SimulatorOptions {
        webhook_faults: faults,
        ..options()
    })
    .await;
    world.outcome(json!({})).await;
    for path in ["/ring", "/answer", "/hangup"] {
        let hooks = world.receiver.wait_for(path, 2).await;
        assert!(hooks[0].body == hooks[1].body && hooks[1].signed);
    }
}

#[tokio::test]
async fn webhooks_are_late_and_change_places() {
    let late = EventFaults {
        delayed: Fault::ALWAYS,
        delay_ms: MsRange::exactly(2_000),
        ..EventFaults::default()
    };
    let world = World::with(faulty(|faults| faults.ring = late)).await;
    world.outcome(json!({})).await;
    world.receiver.wait_for("/ring", 1).await;
    assert_eq!(world.receiver.events(), ["StartApp", "Hangup", "Ring"]);

    let moved = EventFaults {
        reordered: Fault::ALWAYS,
        ..EventFaults::default()
    };
    let world = World::with(faulty(|faults| faults.ring = moved)).await;
    world.outcome(json!({})).await;
    world.receiver.wait_for("/ring", 1).await;
    assert_eq!(world.receiver.events()[0], "StartApp");

    for change in [
        |faults: &mut WebhookFaults, moved| faults.answer = moved,
        |faults: &mut WebhookFaults, moved| faults.hangup = moved,
    ] {
        let world = World::with(faulty(|faults| change(faults, moved))).await;
        assert_eq!(
            world.outcome(json!({})).await,
            (4000, "Callee", "completed")
        );
        world.receiver.wait_for("/answer", 1).await;
        assert_eq!(world.receiver.events(), ["Ring", "Hangup", "StartApp"]);
    }
    let mut unanswered = faulty(|faults| faults.hangup = moved);
    unanswered.outcome_mix = OutcomeMix {
        no_answer: 1.0,
        ..OutcomeMix::NONE
    };
    let world = World::with(unanswered).await;
    world.outcome(json!({})).await;
    world.receiver.wait_for("/ring", 1).await;
    assert_eq!(world.receiver.events(), ["Hangup", "Ring"]);
}

fn dial_faulty(change: impl FnOnce(&mut DialFaults)) -> SimulatorOptions {
    let mut options = options();
    change(&mut options.dial_faults);
    options
}

#[tokio::test]
async fn faults_before_accepting_leave_no_call() {
    let world = World::with(dial_faulty(|faults| {
        faults.too_many_requests = Fault::next(1);
        faults.retry_after_seconds = Some(3);
        faults.forbidden = Fault::next(1);
        faults.error_before = Fault::next(1);
        faults.error_status = 503;
        faults.reset_before = Fault::next(1);
    }))
    .await;
    let throttled = world.dial_raw(json!({})).await.unwrap();
    assert_eq!(
        (
            throttled.status().as_u16(),
            throttled.headers()["retry-after"].to_str().unwrap()
        ),
        (429, "3")
    );
    assert_eq!(world.refused(json!({})).await.0, 403);
    assert_eq!(world.refused(json!({})).await.0, 503);
    let error = world.dial_raw(json!({})).await.unwrap_err();
    assert!(!error.is_timeout() && error.status().is_none());
    let stats = world.carrier.stats();
    assert_eq!((stats.requests, stats.accepted, stats.refused), (4, 0, 4));
    assert_eq!(
        stats.refused_by_status.keys().collect::<Vec<_>>(),
        ["403", "429", "503", "reset"]
    );
    world.dial(json!({})).await;
}

#[tokio::test]
async fn faults_after_accepting_leave_a_call_that_nobody_was_told_of() {
    let world = World::with(dial_faulty(|faults| {
        faults.error_after = Fault::next(1);
        faults.timeout_after = Fault::next(1);
        faults.hold_ms = 50;
        faults.reset_after = Fault::next(1);
    }))
    .await;
    assert_eq!(world.refused(json!({})).await.0, 500);
    for _ in 0..2 {
        let error = world.dial_raw(json!({})).await.unwrap_err();
        assert!(!error.is_timeout() && error.status().is_none());
    }
    let stats = world.carrier.stats();
    assert_eq!((stats.accepted, stats.refused), (3, 0));
    until("three whole calls", || world.carrier.stats().ended == 3).await;
    world.receiver.wait_for("/hangup", 3).await;
}

#[tokio::test]
async fn a_client_that_gives_up_gets_its_call_all_the_same() {
    // A request that is carried out late, and one whose answer never comes.
    for (slow_before, slow_ms) in [(true, 2_000), (false, 3_600_000)] {
        let world = World::with(dial_faulty(|faults| {
            let slow = if slow_before {
                &mut faults.slow_before
            } else {
                &mut faults.slow_after
            };
            *slow = Fault::next(1);
            faults.slow_ms = slow_ms;
        }))
        .await;
        let impatient = Client::builder()
            .no_proxy()
            .timeout(Duration::from_secs(1))
            .build()
            .unwrap();
        let request = impatient
            .post(world.url("Call/"))
            .basic_auth(AUTH_ID, Some(TOKEN))
            .json(&world.body(&json!({})));
        assert!(request.send().await.unwrap_err().is_timeout());
        until("the call", || world.carrier.stats().ended == 1).await;
        world.dial(json!({})).await;
    }
}

#[tokio::test]
async fn look_ups_fail_when_told_to() {
    let unavailable = LookupFaults {
        unavailable: Fault::next(2),
        slow_ms: 1,
    };
    let world = World::with(SimulatorOptions {
        lookup_faults: unavailable,
        ..ringing()
    })
    .await;
    let uuid = world.dial(json!({})).await;
    assert_eq!(world.get(&format!("Call/{uuid}/?status=live")).await.0, 503);
    assert_eq!(world.delete(&format!("Call/{uuid}/")).await, 503);
    assert_eq!(world.get(&format!("Call/{uuid}/?status=live")).await.0, 200);
}
