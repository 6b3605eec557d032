//! Its webhooks: Plivo's words, in Plivo's form, signed, and tried again as the address asks.

use ringmaster::simulator::{EventKind, OutcomeMix, SimulatorOptions};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use url::form_urlencoded;

use super::{
    AUTH_ID, Answer, FROM, Hook, TO, TOKEN, World, fixture_names, names, options, ringing, until,
};

fn assert_byte_sorted(encoded: &str) {
    let pairs: Vec<(String, String)> = form_urlencoded::parse(encoded.as_bytes())
        .into_owned()
        .collect();
    assert!(pairs.is_sorted(), "not sorted: {encoded}");
}

#[tokio::test]
async fn an_answered_call_tells_its_life_in_plivos_words() {
    let world = World::with(options()).await;
    let response = world
        .dial_raw(json!({"caller_name": "Ring Master"}))
        .await
        .unwrap();
    assert_eq!(response.status(), 201);
    let body: Value = response.json().await.unwrap();
    assert_eq!(body["message"], "call fired");
    assert!(body["api_id"].is_string());
    let uuid = body["request_uuid"].as_str().unwrap();
    let record = world.ended(uuid).await;
    world.receiver.wait_for("/hangup", 1).await;

    let ring = &world.receiver.at("/ring")[0];
    let answer = &world.receiver.at("/answer")[0];
    let hangup = &world.receiver.at("/hangup")[0];
    for hook in [ring, answer, hangup] {
        assert!(hook.signed, "{} is not signed", hook.path);
        assert_eq!(
            (hook.method.as_str(), hook.content_type.as_str()),
            ("POST", "application/x-www-form-urlencoded")
        );
        assert_byte_sorted(&hook.body);
        let params = hook.params();
        assert_eq!(
            (params["CallUUID"].as_str(), params["RequestUUID"].as_str()),
            (uuid, uuid)
        );
        assert_eq!(
            (params["To"].as_str(), params["ParentAuthID"].as_str()),
            (TO, AUTH_ID)
        );
    }
    assert_eq!(answer.query, "call=c1&dial=d1&client=cl1&campaign=ca1");
    assert_eq!(names(ring), fixture_names("ring_POST"));
    let mut india = fixture_names("answer_POST");
    india.extend([
        "ComplianceApplicationId".to_owned(),
        "ComplianceStatus".to_owned(),
    ]);
    assert_eq!(names(answer), india);
    assert_eq!(names(hangup), fixture_names("hangup_answered_callee_POST"));

    // The `+` comes and goes; the clock of the session is UTC and that of the call is the account's.
    assert_eq!(ring.params()["From"], FROM);
    assert_eq!(answer.params()["From"], FROM.trim_start_matches('+'));
    assert_eq!(hangup.params()["From"], FROM.trim_start_matches('+'));
    assert_eq!(ring.params()["CallerName"], "Ring Master");
    let time = |text: &str, form| chrono::NaiveDateTime::parse_from_str(text, form).unwrap();
    let params = hangup.params();
    let session = time(&params["SessionStart"], "%Y-%m-%d %H:%M:%S%.6f");
    let start = time(&params["StartTime"], "%Y-%m-%d %H:%M:%S");
    assert_eq!(
        (start - session).num_minutes(),
        330 - i64::from(session.and_utc().timestamp_subsec_micros() > 0)
    );
    time(&params["AnswerTime"], "%Y-%m-%d %H:%M:%S");
    assert_eq!(
        (params["Duration"].as_str(), params["BillDuration"].as_str()),
        ("1", "60")
    );
    assert_eq!(
        (params["TotalCost"].as_str(), params["BillRate"].as_str()),
        ("0.00500", "0.005")
    );
    assert_eq!(params["HangupCauseCode"], "4010");
    assert_eq!(params["HangupCauseName"], "End Of XML Instructions");
    assert_eq!(params["CallStatus"], "completed");

    let happened: Vec<&str> = record.timeline.iter().map(|moment| moment.event).collect();
    assert_eq!(
        happened,
        [
            "accepted",
            "initiated",
            "ringing",
            "in-progress",
            "completed"
        ]
    );
    assert!(record.timeline.is_sorted_by_key(|moment| moment.at_ms));
    assert!(record.answered && record.accepted && record.requested_at_ms > 0);
    assert_eq!(record.params["campaign"], "ca1");
}

#[tokio::test]
async fn an_unanswered_call_keeps_the_plus_and_has_no_answer_time() {
    let world = World::with(SimulatorOptions {
        outcome_mix: OutcomeMix {
            busy: 1.0,
            ..OutcomeMix::NONE
        },
        ..options()
    })
    .await;
    assert_eq!(world.outcome(json!({})).await, (3010, "Carrier", "busy"));
    let hangup = &world.receiver.wait_for("/hangup", 1).await[0];
    assert!(hangup.signed && hangup.body.contains("AnswerTime=&"));
    assert_eq!(names(hangup), fixture_names("hangup_busy_unanswered_POST"));
    assert_eq!(hangup.params()["From"], FROM);
    assert_eq!(hangup.params()["TotalCost"], "0.00000");
    assert_eq!(world.receiver.events(), ["Hangup"]);
}

#[tokio::test]
async fn get_callbacks_merge_their_parameters_into_the_query() {
    let world = World::with(options()).await;
    let answer_url = format!("{}/answer?call=c1&z=%2B1+2&Duration=x", world.receiver.base);
    world.outcome(json!({"answer_url": answer_url, "answer_method": "GET", "hangup_method": "get", "ring_url": null})).await;
    for path in ["/answer", "/hangup"] {
        let hook = &world.receiver.wait_for(path, 1).await[0];
        assert!(hook.signed && hook.body.is_empty());
        assert_eq!(hook.method, "GET");
        assert_byte_sorted(&hook.query);
        assert_eq!(hook.params()["call"], "c1");
    }
    let params = world.receiver.at("/answer")[0].params();
    assert_eq!(
        (params["z"].as_str(), params["Event"].as_str()),
        ("+1 2", "StartApp")
    );
    assert!(world.receiver.at("/answer")[0].query.contains("z=%2B1+2"));
}

#[tokio::test]
async fn the_hangup_goes_to_the_answer_url_if_it_has_none_of_its_own() {
    let world = World::with(options()).await;
    world
        .outcome(json!({"hangup_url": null, "ring_url": null}))
        .await;
    let hooks = world.receiver.wait_for("/answer", 2).await;
    let events: Vec<String> = hooks.iter().map(Hook::event).collect();
    assert_eq!(events, ["StartApp", "Hangup"]);
}

#[tokio::test]
async fn sip_headers_ride_on_every_webhook() {
    let world = World::with(options()).await;
    world.outcome(json!({"sip_headers": "attempt=7"})).await;
    world.receiver.wait_for("/hangup", 1).await;
    assert!(
        world
            .receiver
            .hooks()
            .iter()
            .all(|hook| hook.params()["X-PH-attempt"] == "7" && hook.signed)
    );
}

#[tokio::test]
async fn every_active_token_signs_and_is_accepted() {
    let world = World::with(SimulatorOptions {
        auth_tokens: vec!["older-token".to_owned(), TOKEN.to_owned()],
        ..options()
    })
    .await;
    world.outcome(json!({})).await;
    let hook = &world.receiver.wait_for("/hangup", 1).await[0];
    assert!(hook.signed);
    assert_eq!(hook.signature.split(',').count(), 2);
}

#[tokio::test]
async fn the_fragment_decides_on_retries_and_is_not_sent() {
    let world = World::with(options()).await;
    let base = world.receiver.base.clone();
    for (path, fragment, attempts) in [
        ("once", "", 1),
        ("thrice", "#rc=2&rp=ct,rt,5xx", 3),
        ("not-4xx", "#rc=5&rp=4xx", 1),
        ("never", "#rc=0&rp=all", 1),
    ] {
        world
            .receiver
            .answers(&format!("/{path}"), [Answer::status(503)]);
        let uuid = world
            .dial(json!({"hangup_url": format!("{base}/{path}?call=1{fragment}")}))
            .await;
        let tried = || {
            world
                .record(&uuid)
                .deliveries
                .iter()
                .filter(|delivery| delivery.kind == EventKind::Hangup)
                .count()
        };
        until("all attempts", || tried() == attempts).await;
    }
    // One more whole call, after which a retry too many would have shown.
    let uuid = world.dial(json!({})).await;
    world.ended(&uuid).await;
    for (path, attempts) in [("/once", 1), ("/thrice", 3), ("/not-4xx", 1), ("/never", 1)] {
        let hooks = world.receiver.at(path);
        assert_eq!(hooks.len(), attempts, "{path}");
        assert!(
            hooks
                .iter()
                .all(|hook| hook.signed && hook.query == "call=1")
        );
    }

    world
        .receiver
        .answers("/recovers", [Answer::status(500), Answer::xml("<Hangup/>")]);
    let changes = json!({"answer_url": format!("{base}/recovers#rc=1&rp=5xx")});
    assert_eq!(world.outcome(changes).await.1, "Answer XML");

    // Nobody listens at port 1, and nobody answers where connections are never accepted.
    let deaf = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let deaf_url = format!("http://{}/hangup#rt=100", deaf.local_addr().unwrap());
    for (url, error) in [
        ("http://127.0.0.1:1/hangup", "not connected"),
        (deaf_url.as_str(), "no answer"),
    ] {
        let uuid = world.dial(json!({"hangup_url": url})).await;
        let failed = || {
            world
                .record(&uuid)
                .deliveries
                .iter()
                .filter(|delivery| delivery.error == Some(error))
                .count()
        };
        until("two attempts", || failed() == 2).await;
    }
}

#[tokio::test]
async fn a_webhook_can_be_sent_again_by_hand() {
    let world = World::with(ringing()).await;
    let uuid = world.dial(json!({})).await;
    world.reached(&uuid, "ringing").await;
    world.receiver.wait_for("/ring", 1).await;
    let replay = async |uuid: &str, kind: &str| {
        let url = format!(
            "{}/simulator/calls/{uuid}/webhooks/{kind}",
            world.carrier.base_url()
        );
        let response = world.client.post(url).send().await.unwrap();
        (
            response.status().as_u16(),
            response.json::<Value>().await.unwrap()["httpStatus"].clone(),
        )
    };
    assert_eq!(replay(&uuid, "ring").await, (200, json!(200)));
    let rings = world.receiver.at("/ring");
    assert!(
        rings[0].body == rings[1].body
            && rings[0].signature != rings[1].signature
            && rings[1].signed
    );
    // An answer before its time.
    assert_eq!(replay(&uuid, "answer").await, (200, json!(200)));
    assert_eq!(replay(&uuid, "hangup").await.0, 409);
    assert_eq!(replay(&uuid, "nonsense").await.0, 404);
    assert_eq!(replay("unknown", "ring").await.0, 404);

    assert_eq!(world.delete(&format!("Call/{uuid}/")).await, 204);
    world.ended(&uuid).await;
    world.receiver.answers("/hangup", [Answer::status(503)]);
    assert_eq!(replay(&uuid, "hangup").await, (200, json!(503)));
    assert_eq!(
        world.carrier.replay(&uuid, EventKind::Hangup).await,
        Ok(Some(503))
    );
    assert_eq!(
        world
            .record(&uuid)
            .deliveries
            .iter()
            .filter(|delivery| delivery.kind == EventKind::Hangup)
            .count(),
        3
    );

    let uuid = world.dial(json!({"ring_url": null})).await;
    assert_eq!(replay(&uuid, "ring").await.0, 409);
}
