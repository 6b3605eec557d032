//! Calls by the API: live ones, queued ones and records, and what can be done to a live one.

use ringmaster::simulator::SimulatorOptions;
use serde_json::{Value, json};
use url::form_urlencoded;

use super::{AUTH_ID, Answer, FROM, TO, TOKEN, World, options, ringing, talking};

#[tokio::test]
async fn live_calls_can_be_listed_and_looked_at() {
    let world = World::with(ringing()).await;
    let mut uuids = Vec::new();
    for index in 0..23 {
        uuids.push(
            world
                .dial(json!({"to": format!("155501002{index:02}")}))
                .await,
        );
    }
    world.reached(&uuids[0], "ringing").await;
    let (status, view) = world.get(&format!("Call/{}/?status=live", uuids[0])).await;
    assert_eq!(status, 200);
    assert_eq!(
        (&view["call_status"], &view["direction"]),
        (&json!("ringing"), &json!("outbound"))
    );
    assert_eq!(
        (&view["from"], &view["to"]),
        (&json!(FROM), &json!("15550100200"))
    );
    assert_eq!(view["request_uuid"], json!(uuids[0]));
    assert!(view["session_start"].is_string());

    let listed = |body: Value| body["calls"].as_array().unwrap().len();
    assert_eq!(listed(world.get("Call/?status=live").await.1), 20);
    assert_eq!(listed(world.get("Call/?status=live&offset=20").await.1), 3);
    assert_eq!(
        listed(world.get("Call/?status=live&limit=5&offset=1").await.1),
        5
    );
    assert_eq!(listed(world.get("Call/?status=queued").await.1), 0);
    assert_eq!(
        listed(world.get("Call/?status=live&to_number=15550100207").await.1),
        1
    );
    assert_eq!(
        listed(
            world
                .get("Call/?status=live&from_number=%2B15550100001&limit=1")
                .await
                .1
        ),
        1
    );
    assert_eq!(
        listed(
            world
                .get("Call/?status=live&call_direction=inbound")
                .await
                .1
        ),
        0
    );
    for bad in ["limit=21", "limit=0", "limit=x", "offset=-1", "status=dead"] {
        assert_eq!(
            world
                .get(&format!("Call/?status=live&{bad}").replace("live&status=", ""))
                .await
                .0,
            400,
            "{bad}"
        );
    }
    assert_eq!(world.get(&format!("Call/{}/", uuids[0])).await.0, 404);
    assert_eq!(world.get("Call/unknown/?status=live").await.0, 404);
}

/// One call that was answered, then one to a busy line.
async fn two_ended_calls(world: &World) -> (String, String) {
    let answered = world.dial(json!({})).await;
    world.ended(&answered).await;
    world
        .carrier
        .patch_options(&json!({"outcomeByNumber": {"15550100077": "busy"}}))
        .unwrap();
    let busy = world.dial(json!({"to": "15550100077"})).await;
    world.ended(&busy).await;
    (answered, busy)
}

#[tokio::test]
async fn detail_records_come_late_and_say_how_it_was() {
    let world = World::with(SimulatorOptions {
        cdr_delay_ms: 3_600_000,
        ..options()
    })
    .await;
    let (answered, busy) = two_ended_calls(&world).await;
    assert_eq!(world.get(&format!("Call/{answered}/")).await.0, 404);
    assert_eq!(world.get("Call/").await.1["meta"]["total_count"], 0);

    world
        .carrier
        .patch_options(&json!({"cdrDelayMs": 0}))
        .unwrap();
    let (status, cdr) = world.get(&format!("Call/{answered}/")).await;
    assert_eq!(status, 200);
    let fixtures: Value = serde_json::from_str(include_str!("../../data/fixtures.json")).unwrap();
    for name in fixtures["api_responses"]["cdr_unanswered"]["body"]
        .as_object()
        .unwrap()
        .keys()
    {
        assert!(cdr.get(name).is_some(), "{name} is missing");
    }
    assert_eq!(
        (&cdr["hangup_cause_code"], &cdr["hangup_source"]),
        (&json!(4010), &json!("Plivo"))
    );
    assert_eq!(
        (&cdr["bill_duration"], &cdr["billed_duration"]),
        (&json!(1), &json!(60))
    );
    assert_eq!(
        (&cdr["from_number"], &cdr["to_number"]),
        (&json!(FROM), &json!(TO))
    );
    assert_eq!(
        (&cdr["total_amount"], &cdr["total_rate"]),
        (&json!("0.00500"), &json!("0.00500"))
    );
    assert!(cdr["answer_time"].as_str().unwrap().ends_with("+05:30"));
    assert!(cdr.get("request_uuid").is_none());
    let (_, unanswered) = world.get(&format!("Call/{busy}/")).await;
    assert_eq!(
        (&unanswered["answer_time"], &unanswered["call_duration"]),
        (&Value::Null, &json!(0))
    );
}

#[tokio::test]
async fn detail_records_are_listed_by_utc_time() {
    let world = World::with(options()).await;
    let (answered, busy) = two_ended_calls(&world).await;
    let (_, cdr) = world.get(&format!("Call/{answered}/")).await;
    let ended_at =
        chrono::DateTime::parse_from_str(cdr["end_time"].as_str().unwrap(), "%Y-%m-%d %H:%M:%S%:z")
            .unwrap();
    let utc = |minutes: i64| {
        let time = ended_at.to_utc() + chrono::TimeDelta::minutes(minutes);
        form_urlencoded::byte_serialize(time.format("%Y-%m-%d %H:%M:%S").to_string().as_bytes())
            .collect::<String>()
    };
    let count = async |query: String| {
        let (status, body) = world.get(&format!("Call/?{query}")).await;
        assert_eq!(status, 200, "{query}");
        body["meta"]["total_count"].as_u64().unwrap()
    };
    assert_eq!(count(String::new()).await, 2);
    assert_eq!(count(format!("to_number={TO}")).await, 1);
    assert_eq!(count("to_number=155501".to_owned()).await, 2);
    assert_eq!(count("from_number=15550100009".to_owned()).await, 0);
    assert_eq!(
        count(format!("end_time__gt={}&end_time__lt={}", utc(-5), utc(5))).await,
        2
    );
    assert_eq!(count(format!("end_time__gte={}", utc(5))).await, 0);
    assert_eq!(count(format!("end_time__lte={}", utc(-5))).await, 0);
    assert_eq!(count("hangup_cause_code=3010".to_owned()).await, 1);
    assert_eq!(count("hangup_source=Carrier".to_owned()).await, 1);
    assert_eq!(count("bill_duration__gt=0".to_owned()).await, 1);
    assert_eq!(count("bill_duration=0".to_owned()).await, 1);
    let too_wide = format!(
        "Call/?end_time__gt={}&end_time__lt={}",
        utc(-40 * 1440),
        utc(0)
    );
    for bad in [
        too_wide.as_str(),
        "Call/?end_time__gt=yesterday",
        "Call/?limit=100",
        "Call/?bill_duration__lt=x",
    ] {
        assert_eq!(world.get(bad).await.0, 400, "{bad}");
    }
    let (_, page) = world.get("Call/?limit=1&offset=0").await;
    assert_eq!(page["objects"][0]["call_uuid"], json!(busy));
    assert!(page["meta"]["next"].is_string() && page["meta"]["previous"].is_null());
    let (_, page) = world.get("Call/?limit=1&offset=1").await;
    assert!(page["meta"]["next"].is_null() && page["meta"]["previous"].is_string());
}

#[tokio::test]
async fn the_api_hangs_up_before_and_after_the_answer() {
    let world = World::with(ringing()).await;
    let uuid = world.dial(json!({})).await;
    world.reached(&uuid, "ringing").await;
    assert_eq!(world.delete(&format!("Call/{uuid}/")).await, 204);
    assert_eq!(world.delete(&format!("Call/{uuid}/")).await, 404);
    let record = world.ended(&uuid).await;
    assert_eq!(
        (record.hangup.unwrap().code, record.status),
        (1000, "cancel")
    );

    let world = World::with(talking()).await;
    let uuid = world.dial(json!({})).await;
    world.reached(&uuid, "in-progress").await;
    assert_eq!(
        world.get(&format!("Call/{uuid}/?status=live")).await.1["call_status"],
        "in-progress"
    );
    assert_eq!(world.delete(&format!("Call/{uuid}/")).await, 204);
    assert_eq!(world.get(&format!("Call/{uuid}/?status=live")).await.0, 404);
    let record = world.ended(&uuid).await;
    let hangup = record.hangup.unwrap();
    assert_eq!(
        (hangup.code, hangup.source, record.status),
        (4000, "API Request", "completed")
    );
}

#[tokio::test]
async fn hanging_up_an_empty_id_hangs_up_everything() {
    for path in ["Call/", "Call//"] {
        let world = World::with(ringing()).await;
        let uuids = [
            world.dial(json!({})).await,
            world.dial(json!({"to": "15550100003"})).await,
        ];
        assert_eq!(world.delete(path).await, 204);
        for uuid in &uuids {
            assert_eq!(world.ended(uuid).await.hangup.unwrap().code, 0);
        }
        assert_eq!(world.carrier.stats().live, 0);
    }
}

#[tokio::test]
async fn a_call_in_progress_can_be_transferred() {
    let world = World::with(talking()).await;
    let transfer = async |uuid: &str, body: Value| {
        let url = world.url(&format!("Call/{uuid}/"));
        let sent = world
            .client
            .post(url)
            .basic_auth(AUTH_ID, Some(TOKEN))
            .json(&body)
            .send();
        sent.await.unwrap().status().as_u16()
    };
    world.receiver.answers("/new", [Answer::xml("<Hangup/>")]);
    world.receiver.answers("/gone", [Answer::status(404)]);
    for (path, expected) in [("new", (4000, "Answer XML")), ("gone", (7013, "Error"))] {
        let uuid = world.dial(json!({})).await;
        world.reached(&uuid, "in-progress").await;
        let to = format!("{}/{path}", world.receiver.base);
        assert_eq!(
            transfer(&uuid, json!({"legs": "aleg", "aleg_url": "nowhere"})).await,
            400
        );
        assert_eq!(
            transfer(&uuid, json!({"legs": "bleg", "bleg_url": to})).await,
            400
        );
        assert_eq!(
            transfer(&uuid, json!({"legs": "aleg", "aleg_url": to})).await,
            202
        );
        let hangup = world.ended(&uuid).await.hangup.unwrap();
        assert_eq!((hangup.code, hangup.source), expected);
        assert_eq!(transfer(&uuid, json!({"aleg_url": to})).await, 404);
    }
}
