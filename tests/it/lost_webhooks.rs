//! Webhooks that come twice, late, in the wrong order, not at all, or from somebody else (promises P6, P7, P10).

use reqwest::Method;
use ringmaster::services::carrier::plivo_signature::{NONCE_HEADER, SIGNATURE_HEADER, sign_v3};
use ringmaster::simulator::{
    EventFaults, EventKind, Fault, MsRange, SimulatorOptions, WebhookFaults,
};
use serde_json::{Value, json};

use crate::helpers::app::{Api, World, quick_carrier, until};
use crate::helpers::judge::carrier_token;

/// What stays the same whatever the order of arrival: everything but the times of receipt.
fn document(call: &Value) -> Value {
    let mut document = call.clone();
    for receipt in [
        "id",
        "callUUID",
        "startTime",
        "ringTime",
        "answerTime",
        "endTime",
        "retryAt",
        "duration",
    ] {
        document.as_object_mut().unwrap().remove(receipt);
    }
    for line in document["events"].as_array_mut().unwrap() {
        line.as_object_mut().unwrap().remove("at");
    }
    document
}

async fn calls(operator: &Api, campaign: &str) -> Vec<Value> {
    let page = operator
        .get(&format!("/v1/campaigns/{campaign}/calls?limit=500"))
        .await
        .ok();
    page["items"].as_array().unwrap().clone()
}

async fn slots_are_free(api: &Api) {
    until("all slots are free", async || {
        api.get("/v1/utilization").await.ok()["global"]["active"] == 0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_order_and_any_repetition_ends_in_the_same_document() {
    let world = World::new("order", quick_carrier()).await;
    let _container = world.container(&[]).await;
    let (_, operator) = world.client(json!({ "name": "Acme" })).await;
    let list = operator.list_of(0, 1).await;
    let mut documents = Vec::new();
    for order in [
        [EventKind::Ring, EventKind::Answer, EventKind::Hangup],
        [EventKind::Hangup, EventKind::Answer, EventKind::Ring],
        [EventKind::Answer, EventKind::Hangup, EventKind::Ring],
    ] {
        // The carrier loses every webhook; the test delivers them itself, in its order and twice.
        let lost = json!({ "webhookFaults": {
            "ring": { "lost": { "probability": 1.0 } }, "hangup": { "lost": { "probability": 1.0 } },
        } });
        world.simulator.patch_options(&lost).unwrap();
        let campaign = operator
            .campaign(&list, json!({ "campaignName": "order" }))
            .await;
        until("the carrier is done with it", async || {
            world
                .simulator
                .calls()
                .iter()
                .any(|call| call.params.get("campaign") == Some(&campaign) && call.hangup.is_some())
        })
        .await;
        let uuid = world
            .simulator
            .calls()
            .into_iter()
            .find(|call| call.params.get("campaign") == Some(&campaign))
            .and_then(|call| call.request_uuid)
            .unwrap();
        for event in order.into_iter().chain(order) {
            assert_eq!(
                world.simulator.replay(&uuid, event).await.unwrap(),
                Some(200)
            );
        }
        let progress = operator.until_status(&campaign, "completed").await;
        assert_eq!(progress["final"]["answered"], 1, "{progress}");
        let call = calls(&operator, &campaign).await.remove(0);
        let mut document = document(&call);
        document.as_object_mut().unwrap().remove("campaignId");
        documents.push(document);
    }
    slots_are_free(&operator).await;
    assert_eq!(documents[0], documents[1]);
    assert_eq!(documents[0], documents[2]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lost_doubled_and_delayed_webhooks_lose_nobody_and_leak_no_slot() {
    let sometimes = Fault {
        probability: 0.3,
        next: 0,
    };
    let chaotic = EventFaults {
        lost: sometimes,
        duplicated: sometimes,
        delayed: sometimes,
        reordered: sometimes,
        delay_ms: MsRange { min: 50, max: 600 },
    };
    let options = SimulatorOptions {
        webhook_faults: WebhookFaults {
            ring: chaotic,
            answer: EventFaults::default(),
            hangup: chaotic,
        },
        ..quick_carrier()
    };
    let world = World::new("lossy", options).await;
    let _container = world.container(&[]).await;
    let (_, operator) = world.client(json!({ "name": "Acme" })).await;
    let list = operator.list_of(0, 60).await;
    let campaign = operator.campaign(&list, json!({})).await;
    let progress = operator.until_status(&campaign, "completed").await;
    assert_eq!(progress["final"]["answered"], 60, "{progress}");
    slots_are_free(&operator).await;
    let stats = world.simulator.stats();
    assert_eq!((stats.accepted, stats.unique_destinations), (60, 60));
    let records = calls(&operator, &campaign)
        .await
        .into_iter()
        .filter(|call| {
            call["events"]
                .as_array()
                .unwrap()
                .iter()
                .any(|event| event["event"] == "record")
        });
    assert!(
        records.count() > 0,
        "some ends were learned by asking the carrier"
    );
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_not_the_carrier_changes_nothing() {
    let world = World::new(
        "forged",
        SimulatorOptions {
            talk_duration_ms: MsRange::exactly(4000),
            ..quick_carrier()
        },
    )
    .await;
    let _container = world.container(&[]).await;
    let (_, operator) = world.client(json!({ "name": "Acme" })).await;
    let list = operator.list_of(0, 1).await;
    let campaign = operator.campaign(&list, json!({})).await;
    until("it is answered", async || {
        world.simulator.stats().answered == 1
    })
    .await;
    let record = world.simulator.calls().remove(0);
    let uuid = record.request_uuid.unwrap();
    let call = record.params["call"].clone();
    let path = format!("/plivo/hangup-url?call={call}&dial=1");
    let form = vec![
        ("CallStatus".to_owned(), "completed".to_owned()),
        ("CallUUID".to_owned(), uuid.clone()),
        ("Event".to_owned(), "Hangup".to_owned()),
        ("HangupCauseCode".to_owned(), "4000".to_owned()),
    ];
    let carrier = Api::new(&operator.base, "");
    let address = format!("{}{path}", operator.base);
    let post = async |headers: &[(&str, String)]| {
        let mut request = carrier.request(Method::POST, &path).form(&form);
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        carrier.send(request).await.status
    };
    until("the call is known to be answered", async || {
        operator.get(&format!("/v1/calls/{call}")).await.ok()["status"] == "in-progress"
    })
    .await;
    let before = operator.get(&format!("/v1/calls/{call}")).await.ok();
    let nonce = (NONCE_HEADER, "12345678901234567890".to_owned());
    let forged = sign_v3("POST", &address, &form, &nonce.1, "another-token");
    assert_eq!(post(&[]).await, 403, "unsigned");
    assert_eq!(
        post(&[nonce.clone(), (SIGNATURE_HEADER, forged.clone())]).await,
        403,
        "another token"
    );
    assert_eq!(
        post(&[
            ("X-Plivo-Signature-V2-Nonce", nonce.1.clone()),
            ("X-Plivo-Signature-V2", forged)
        ])
        .await,
        403,
        "V2 only"
    );
    let after = operator.get(&format!("/v1/calls/{call}")).await.ok();
    assert_eq!(
        (&before["status"], &before["events"]),
        (&after["status"], &after["events"])
    );
    operator.until_status(&campaign, "completed").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn old_tracking_is_matched_and_the_unknown_is_kept() {
    let options = SimulatorOptions {
        talk_duration_ms: MsRange::exactly(60_000),
        ..quick_carrier()
    };
    let token = carrier_token();
    let world = World::new("oldtrack", options).await;
    let _container = world.container(&[]).await;
    let (_, operator) = world.client(json!({ "name": "Acme" })).await;
    let list = operator.list_of(0, 1).await;
    let campaign = operator.campaign(&list, json!({})).await;
    until("it is answered", async || {
        world.simulator.stats().answered == 1
    })
    .await;
    let known = world.simulator.calls().remove(0).request_uuid.unwrap();
    let carrier = Api::new(&operator.base, "");
    let post = async |path: &str, uuid: &str, event: &str| {
        let form = vec![
            ("CallStatus".to_owned(), "busy".to_owned()),
            ("CallUUID".to_owned(), uuid.to_owned()),
            ("Event".to_owned(), event.to_owned()),
            ("HangupCauseCode".to_owned(), "3010".to_owned()),
        ];
        let nonce = "98765432109876543210";
        let signature = sign_v3(
            "POST",
            &format!("{}{path}", operator.base),
            &form,
            nonce,
            &token,
        );
        let request = carrier
            .request(Method::POST, path)
            .header(NONCE_HEADER, nonce)
            .header(SIGNATURE_HEADER, signature);
        let response = request.form(&form).send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    };
    // No `call` parameter: found by the carrier's id.
    assert_eq!(post("/plivo/hangup-url", &known, "Hangup").await.0, 200);
    let progress = operator.until_status(&campaign, "completed").await;
    assert_eq!(progress["final"]["busy"], 1, "{progress}");
    let (status, xml) = post(
        "/plivo/answer-url",
        "00000000-dead-beef-0000-000000000000",
        "StartApp",
    )
    .await;
    assert_eq!(status, 200);
    assert!(xml.contains("<Hangup"), "{xml}");
    let store = crate::helpers::mongod::client(&world.database.uri).await;
    let kept = store
        .database(&world.database.name)
        .collection::<mongodb::bson::Document>("unmatchedWebhooks");
    assert_eq!(
        kept.count_documents(mongodb::bson::doc! {}).await.unwrap(),
        1
    );
}
