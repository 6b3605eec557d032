//! What becomes of a dial request: refused, queued, or a call with the outcome that was chosen for it.

use std::collections::{BTreeMap, BTreeSet};

use axum::http::Method;
use ringmaster::simulator::{ApiLimit, Outcome, OutcomeMix, SimulatorOptions};
use serde_json::{Value, json};

use super::{AUTH_ID, FROM, TOKEN, World, options, ringing, talking};

#[tokio::test]
async fn the_outcome_of_a_number_is_chosen_exactly() {
    let cases = [
        (
            "15550100011",
            Outcome::Busy,
            (3010, "Carrier", "busy"),
            false,
        ),
        (
            "15550100012",
            Outcome::NoAnswer,
            (3000, "Carrier", "no-answer"),
            true,
        ),
        (
            "15550100013",
            Outcome::RingTimeout,
            (6010, "Plivo", "timeout"),
            true,
        ),
        (
            "15550100014",
            Outcome::Rejected,
            (3020, "Carrier", "failed"),
            true,
        ),
        (
            "15550100015",
            Outcome::Invalid,
            (2000, "Carrier", "failed"),
            false,
        ),
        (
            "15550100016",
            Outcome::Unreachable,
            (2010, "Carrier", "failed"),
            false,
        ),
        (
            "15550100017",
            Outcome::Failed,
            (3080, "Carrier", "failed"),
            false,
        ),
        (
            "15550100018",
            Outcome::Cause(3130),
            (3130, "Carrier", "failed"),
            false,
        ),
        (
            "15550100019",
            Outcome::Machine,
            (4010, "Plivo", "completed"),
            true,
        ),
    ];
    let outcome_by_number = cases
        .iter()
        .map(|case| (format!("+{}", case.0), case.1))
        .collect();
    let world = World::with(SimulatorOptions {
        outcome_by_number,
        ..options()
    })
    .await;
    for (to, outcome, expected, rings) in cases {
        let ring_url = format!("{}/ring-{to}", world.receiver.base);
        let changes = json!({"to": to, "ring_url": ring_url, "ring_timeout": if outcome == Outcome::RingTimeout { 0 } else { 60 }});
        assert_eq!(world.outcome(changes).await, expected, "{outcome:?}");
        if rings {
            world.receiver.wait_for(&format!("/ring-{to}"), 1).await;
        } else {
            assert!(world.receiver.at(&format!("/ring-{to}")).is_empty());
        }
    }
}

#[tokio::test]
async fn the_mix_follows_its_seed() {
    let mix = OutcomeMix {
        answered: 1.0,
        busy: 1.0,
        invalid: 1.0,
        ..OutcomeMix::NONE
    };
    let mut runs = Vec::new();
    for _ in 0..2 {
        let world = World::with(SimulatorOptions {
            outcome_mix: mix,
            ..options()
        })
        .await;
        let mut codes = Vec::new();
        for _ in 0..12 {
            codes.push(world.outcome(json!({})).await.0);
        }
        runs.push(codes);
    }
    assert_eq!(runs[0], runs[1]);
    assert!(runs[0].iter().collect::<BTreeSet<_>>().len() > 1);
}

#[tokio::test]
async fn what_plivo_refuses_is_refused_and_written_down() {
    let world = World::with(SimulatorOptions {
        caller_ids: vec![FROM.to_owned(), "+15550100008".to_owned()],
        pending_caller_ids: vec!["+15550100008".to_owned()],
        ..options()
    })
    .await;
    for field in ["from", "to", "answer_url"] {
        let refusal = world.refused(json!({field: null})).await;
        assert_eq!(refusal, (400, format!("{field} parameter is missing")));
    }
    let (status, text) = world.refused(json!({"from": "+15550100009"})).await;
    assert!(status == 400 && text.starts_with("from parameter is invalid."));
    let (status, text) = world.refused(json!({"from": "+15550100008"})).await;
    assert!(status == 400 && text.contains("compliance application"));
    for changes in [
        json!({"to": FROM}),
        json!({"to": "15550100002<15550100003"}),
        json!({"to": "12"}),
        json!({"answer_url": "nowhere"}),
        json!({"time_limit": 0}),
    ] {
        assert_eq!(world.refused(changes).await.0, 400);
    }

    let send = |id: &'static str, token: &'static str, account: &'static str| {
        let url = format!("{}/v1/Account/{account}/Call/", world.carrier.base_url());
        world
            .client
            .post(url)
            .basic_auth(id, Some(token))
            .json(&world.body(&json!({})))
            .send()
    };
    for (id, token, account) in [
        (AUTH_ID, "wrong", AUTH_ID),
        ("MAOTHER", TOKEN, AUTH_ID),
        (AUTH_ID, TOKEN, "MAOTHER"),
    ] {
        assert_eq!(send(id, token, account).await.unwrap().status(), 401);
    }
    let no_auth = world
        .client
        .post(world.url("Call/"))
        .json(&world.body(&json!({})))
        .send()
        .await
        .unwrap();
    assert_eq!(no_auth.status(), 401);
    let form = world
        .client
        .post(world.url("Call/"))
        .basic_auth(AUTH_ID, Some(TOKEN))
        .form(&[("from", FROM)])
        .send();
    assert_eq!(form.await.unwrap().status(), 400);
    assert_eq!(world.get("Nothing/").await.0, 404);
    assert_eq!(world.api(Method::PUT, "Call/").await.0, 405);

    let stats = world.carrier.stats();
    assert_eq!((stats.requests, stats.accepted, stats.refused), (15, 0, 15));
    assert_eq!(
        stats.refused_by_status,
        BTreeMap::from([("400".to_owned(), 11), ("401".to_owned(), 4)])
    );
    let reasons: BTreeSet<&str> = world
        .carrier
        .calls()
        .iter()
        .map(|record| record.refusal.as_ref().unwrap().reason)
        .collect();
    assert_eq!(
        reasons,
        BTreeSet::from(["authentication", "caller id", "invalid request"])
    );
    assert!(world.receiver.hooks().is_empty());
}

#[tokio::test]
async fn above_cps_calls_are_queued_and_can_be_cancelled() {
    let world = World::with(SimulatorOptions {
        cps: 1,
        ..ringing()
    })
    .await;
    let mut messages = Vec::new();
    let mut uuids = Vec::new();
    for _ in 0..20 {
        let body: Value = world
            .dial_raw(json!({}))
            .await
            .unwrap()
            .json()
            .await
            .unwrap();
        messages.push(body["message"].clone());
        uuids.push(body["request_uuid"].as_str().unwrap().to_owned());
    }
    assert_eq!(messages[0], "call fired");
    assert_eq!(messages[19], "call queued");
    let (last, before, first_cancelled) = (&uuids[19], &uuids[18], &uuids[17]);
    let (status, view) = world.get(&format!("Call/{last}/?status=queued")).await;
    assert_eq!(
        (status, &view["call_status"], &view["call_uuid"]),
        (200, &json!("queued"), &json!(last))
    );
    assert_eq!(world.get(&format!("Call/{last}/?status=live")).await.0, 404);
    let (_, queued) = world.get("Call/?status=queued").await;
    assert!(queued["calls"].as_array().unwrap().contains(&json!(last)));

    // The second one starts by itself when its turn comes.
    world.reached(&uuids[1], "ringing").await;

    assert_eq!(world.delete(&format!("Request/{last}/")).await, 204);
    assert_eq!(world.delete(&format!("Call/{before}/")).await, 204);
    for uuid in [last, before] {
        let record = world.ended(uuid).await;
        let hangup = record.hangup.unwrap();
        assert_eq!(
            (hangup.code, hangup.source, record.status),
            (1000, "API Request", "cancel")
        );
    }
    assert_eq!(world.delete(&format!("Request/{last}/")).await, 404);
    assert_eq!(world.delete(&format!("Request/{}/", uuids[0])).await, 404);

    world
        .carrier
        .patch_options(&json!({"hangupWebhookForQueued": false}))
        .unwrap();
    assert_eq!(world.delete(&format!("Call/{first_cancelled}/")).await, 204);
    assert_eq!(world.delete(&format!("Call/{}/", uuids[0])).await, 204);
    world.ended(&uuids[0]).await;
    assert!(world.record(first_cancelled).deliveries.is_empty());
    assert_eq!(world.carrier.stats().peak_live, 20);
}

#[tokio::test]
async fn over_the_api_limit_is_429_for_dials_and_look_ups() {
    let world = World::with(SimulatorOptions {
        api_limit: ApiLimit {
            requests: 2,
            window_ms: 3_600_000,
        },
        ..options()
    })
    .await;
    world.dial(json!({})).await;
    assert_eq!(world.get("Call/?status=live").await.0, 200);
    assert_eq!(
        world.refused(json!({})).await,
        (429, "Too Many Requests".to_owned())
    );
    assert_eq!(world.get("Call/?status=live").await.0, 429);
    assert_eq!(
        world.carrier.stats().refused_by_status,
        BTreeMap::from([("429".to_owned(), 1)])
    );
}

#[tokio::test]
async fn the_concurrency_limit_refuses_or_breaks_queued_calls() {
    let world = World::with(SimulatorOptions {
        cps: 1,
        ..ringing()
    })
    .await;
    let mut uuids = Vec::new();
    for _ in 0..5 {
        uuids.push(world.dial(json!({})).await);
    }
    world
        .carrier
        .patch_options(&json!({"concurrencyLimit": 1}))
        .unwrap();
    let record = world.ended(&uuids[4]).await;
    assert_eq!(
        (record.hangup.unwrap().code, record.status),
        (5030, "failed")
    );
    assert_eq!(
        world.refused(json!({})).await,
        (403, "Concurrency Limit Breached".to_owned())
    );
    assert_eq!(world.delete("Call/").await, 204);
    world.dial(json!({})).await;
}

#[tokio::test]
async fn without_credit_every_call_ends_at_once() {
    let world = World::with(SimulatorOptions {
        out_of_credit: true,
        ..options()
    })
    .await;
    assert_eq!(world.outcome(json!({})).await, (1010, "Plivo", "failed"));
}

#[tokio::test]
async fn limits_of_the_request_end_the_call() {
    let world = World::with(ringing()).await;
    assert_eq!(
        world.outcome(json!({"ring_timeout": 0})).await,
        (6010, "Plivo", "timeout")
    );
    assert_eq!(
        world.outcome(json!({"hangup_on_ring": 0})).await,
        (6000, "Plivo", "timeout")
    );
    let world = World::with(talking()).await;
    assert_eq!(
        world.outcome(json!({"time_limit": 1})).await,
        (6000, "Plivo", "completed")
    );
}
