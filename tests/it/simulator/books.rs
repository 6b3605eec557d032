//! Its books, its options, its start and its end.

use std::collections::BTreeMap;
use std::time::Duration;

use ringmaster::simulator::{Outcome, OutcomeMix, Simulator, SimulatorError, SimulatorOptions};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::{FROM, TO, World, options, ringing};

#[tokio::test]
async fn the_books_count_peaks_and_duplicates() {
    let world = World::with(ringing()).await;
    let base = &world.receiver.base;
    let url = |client: &str, campaign: &str, call: &str, dial: &str| {
        json!(format!(
            "{base}/answer?client={client}&campaign={campaign}&call={call}&dial={dial}"
        ))
    };
    let first = world
        .dial(json!({"answer_url": url("a", "x", "1", "t1")}))
        .await;
    world
        .dial(json!({"answer_url": url("a", "y", "2", "t2")}))
        .await;
    assert_eq!(world.delete(&format!("Call/{first}/")).await, 204);
    world.dial(json!({"answer_url": url("b", "x", "3", "t3"), "to": "15550100003", "from": "+15550100005"})).await;
    let stats = world.carrier.stats();
    assert_eq!(
        (stats.requests, stats.accepted, stats.unique_destinations),
        (3, 3, 2)
    );
    assert_eq!(
        (stats.live, stats.peak_live, stats.queued, stats.ended),
        (2, 2, 0, 1)
    );
    let usage =
        |usage: &ringmaster::simulator::Usage| (usage.accepted, usage.live, usage.peak_live);
    assert_eq!(
        (usage(&stats.by_client["a"]), usage(&stats.by_client["b"])),
        ((2, 1, 2), (1, 1, 1))
    );
    assert_eq!(
        (
            usage(&stats.by_campaign["x"]),
            usage(&stats.by_campaign["y"])
        ),
        ((2, 1, 1), (1, 1, 1))
    );
    assert_eq!(usage(&stats.by_from["15550100001"]), (2, 1, 2));
    assert!((1..=3).contains(&stats.peak_requests_per_second));
    assert_eq!(
        stats.duplicates,
        ringmaster::simulator::Duplicates::default()
    );

    // The same dial again, then the same attempt with another token, then the same contact by another attempt.
    world
        .dial(json!({"answer_url": url("a", "x", "1", "t1")}))
        .await;
    world
        .dial(json!({"answer_url": url("a", "y", "2", "t9")}))
        .await;
    world
        .dial(json!({"answer_url": url("b", "x", "4", "t4"), "to": "+15550100003"}))
        .await;
    let duplicates = world.carrier.stats().duplicates;
    assert_eq!(
        duplicates.by_call,
        BTreeMap::from([("1".to_owned(), 2), ("2".to_owned(), 2)])
    );
    assert_eq!(
        duplicates.by_call_dial,
        BTreeMap::from([("1/t1".to_owned(), 2)])
    );
    assert_eq!(duplicates.by_campaign_to["x"]["15550100003"], 2);
    assert!(
        !format!("{:?}", world.carrier.stats()).contains("5550100"),
        "Debug shows numbers"
    );
    assert!(
        !format!("{:?}", world.carrier.calls()).contains("5550100"),
        "Debug shows numbers"
    );
}

#[tokio::test]
async fn new_books_start_with_the_calls_that_live() {
    let world = World::with(ringing()).await;
    let ended = world.dial(json!({})).await;
    world.dial(json!({"to": "15550100003"})).await;
    assert_eq!(world.delete(&format!("Call/{ended}/")).await, 204);
    assert_eq!(world.carrier.stats().lookups, 1);
    world.carrier.reset();
    let stats = world.carrier.stats();
    assert_eq!(
        (stats.requests, stats.accepted, stats.live, stats.ended),
        (1, 1, 1, 0)
    );
    assert_eq!((stats.peak_live, stats.peak_requests_per_second), (1, 0));
    assert_eq!(world.carrier.calls().len(), 1);
}

#[tokio::test]
async fn the_books_are_open_over_http() {
    let world = World::with(options()).await;
    let base = world.carrier.base_url();
    let get = async |path: &str| {
        let response = world
            .client
            .get(format!("{base}/simulator/{path}"))
            .send()
            .await
            .unwrap();
        (
            response.status().as_u16(),
            response.json::<Value>().await.unwrap(),
        )
    };
    for _ in 0..3 {
        world.outcome(json!({})).await;
    }
    let (status, books) = get("calls").await;
    assert_eq!((status, &books["total"]), (200, &json!(3)));
    let call = &books["calls"][0];
    assert_eq!(
        (&call["to"], &call["from"], &call["accepted"]),
        (&json!(TO), &json!(FROM), &json!(true))
    );
    assert_eq!(
        (&call["params"]["call"], &call["status"]),
        (&json!("c1"), &json!("completed"))
    );
    assert_eq!(
        (&call["hangup"]["code"], &call["refusal"]),
        (&json!(4010), &Value::Null)
    );
    let ring = call["deliveries"]
        .as_array()
        .unwrap()
        .iter()
        .find(|delivery| delivery["kind"] == "ring")
        .unwrap();
    assert_eq!(
        (&ring["httpStatus"], &ring["attempt"]),
        (&json!(200), &json!(0))
    );
    let (_, page) = get("calls?limit=1&offset=2").await;
    assert_eq!(
        (page["calls"].as_array().unwrap().len(), &page["total"]),
        (1, &json!(3))
    );
    assert_eq!(get("calls?limit=many").await.0, 400);
    assert_eq!(get("calls?page=1").await.0, 400);
    let (_, stats) = get("stats").await;
    assert_eq!(
        (&stats["accepted"], &stats["byClient"]["cl1"]["accepted"]),
        (&json!(3), &json!(3))
    );
    let reset = world
        .client
        .post(format!("{base}/simulator/reset"))
        .send()
        .await
        .unwrap();
    assert_eq!(reset.status(), 204);
    assert_eq!(get("calls").await.1["total"], 0);
}

#[tokio::test]
async fn options_can_be_changed_over_http() {
    let world = World::with(options()).await;
    let base = world.carrier.base_url();
    let patch = async |body: Value| {
        let sent = world
            .client
            .patch(format!("{base}/simulator/options"))
            .json(&body)
            .send();
        sent.await.unwrap().status().as_u16()
    };
    assert_eq!(patch(json!({"outcomeMix": {"answered": 0, "busy": 1}, "dialFaults": {"errorBefore": {"next": 1}}})).await, 204);
    assert_eq!(world.refused(json!({})).await.0, 500);
    assert_eq!(world.outcome(json!({})).await.0, 3010);
    assert_eq!(
        patch(json!({"outcomeMix": null, "talkDurationMs": {"max": 40}})).await,
        204
    );
    for bad in [
        json!({"nonsense": 1}),
        json!({"outcomeMix": {"answered": -1}}),
        json!({"talkDurationMs": {"min": 50}}),
        json!({"dialFaults": {"errorBefore": {"probability": 2}}}),
        json!({"dialFaults": {"errorStatus": 404}}),
        json!({"webhookFaults": {"ring": {"lost": {"probability": -1}}}}),
        json!({"lookupFaults": {"unavailable": {"probability": 7}}}),
        json!({"outcomeByNumber": {"15550100002": {"cause": 1}}}),
        json!({"authTokens": []}),
        json!({"utcOffsetMinutes": 9999}),
        json!([]),
    ] {
        assert_eq!(patch(bad.clone()).await, 400, "{bad}");
    }
}

#[tokio::test]
async fn a_carrier_that_is_stopped_or_dropped_is_gone() {
    for stopped in [true, false] {
        // An address of its own, so that no other test's server takes over its port.
        let World {
            carrier,
            receiver,
            client,
        } = World::at("127.0.0.2:0", options()).await;
        let url = carrier.base_url();
        let status = client
            .get(format!("{url}/simulator/stats"))
            .send()
            .await
            .unwrap()
            .status();
        assert_eq!(status, 200);
        if stopped {
            carrier.stop().await;
        } else {
            drop(carrier);
        }
        let address = url.trim_start_matches("http://").to_owned();
        let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
        while tokio::net::TcpStream::connect(&address).await.is_ok() {
            assert!(tokio::time::Instant::now() < deadline, "still listening");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert!(
            client
                .get(format!("{url}/simulator/stats"))
                .send()
                .await
                .is_err()
        );
        assert!(receiver.hooks().is_empty());
    }
}

#[tokio::test]
async fn options_that_make_no_sense_do_not_start() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let bad = SimulatorOptions {
        outcome_mix: OutcomeMix::NONE,
        ..options()
    };
    assert!(matches!(
        Simulator::start(listener, bad).await,
        Err(SimulatorError::Options(_))
    ));
    assert!(serde_json::from_value::<SimulatorOptions>(json!({"cpss": 3})).is_err());
    let read: SimulatorOptions = serde_json::from_value(
        json!({"cps": 3, "outcomeByNumber": {"15550100002": {"cause": 3130}}}),
    )
    .unwrap();
    assert_eq!(
        (read.cps, read.outcome_by_number["15550100002"]),
        (3, Outcome::Cause(3130))
    );
    assert!(!format!("{read:?}").contains("token"));
}
