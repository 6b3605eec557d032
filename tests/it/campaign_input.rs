//! What campaigns and calls refuse: each fault has its status, its code and the path of its field, and nothing is written.

use mongodb::bson::oid::ObjectId;
use mongodb::bson::{Document, doc};
use serde_json::{Value, json};

use crate::helpers::app::{Api, FROM, World, quick_carrier, until};
use crate::helpers::edge::Edge;
use crate::helpers::mongod;

fn campaign(list: &str) -> Value {
    json!({
        "campaignName": "test", "listId": list, "fromNumber": FROM,
        "answer": { "type": "speak", "text": "Hello {{firstName}}" },
    })
}

/// The body with one field put in place of what is there.
fn with(mut body: Value, field: &str, value: Value) -> Value {
    body[field] = value;
    body
}

/// Whether the problem names this field.
fn names(problem: &Value, path: &str) -> bool {
    problem["errors"]
        .as_array()
        .is_some_and(|errors| errors.iter().any(|error| error["path"] == path))
}

async fn refused(operator: &Api, body: &Value, path: &str) {
    let reply = operator.post("/v1/campaigns", body).await;
    let problem = reply.problem(422, "invalid");
    assert!(names(&problem, path), "{path}: {problem}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_campaign_that_cannot_be_is_refused_with_the_path_of_its_fault() {
    let world = World::new("input", quick_carrier()).await;
    let _container = world.container(&[]).await;
    let (_, operator) = world
        .client(json!({ "name": "Acme", "callerIds": [FROM] }))
        .await;
    let list = operator.list_of(0, 3).await;
    let good = campaign(&list);
    for (field, value, path) in [
        ("surprise", json!(1), "surprise"),
        ("campaignName", json!(7), "campaignName"),
        ("campaignName", json!("  "), "campaignName"),
        ("listId", json!("nonsense"), "listId"),
        ("fromNumber", json!("call me"), "fromNumber"),
        ("fromNumber", json!("+12025550199"), "fromNumber"),
        (
            "answer",
            json!({ "type": "speak", "text": "Hello {{surname}}" }),
            "answer.text",
        ),
        (
            "answer",
            json!({ "type": "stream", "url": "https://example.com" }),
            "answer.url",
        ),
        (
            "answer",
            json!({ "type": "speak", "text": "Hello", "foo": 1 }),
            "answer.foo",
        ),
        (
            "answer",
            json!({ "text": 7, "type": "speak" }),
            "answer.text",
        ),
        ("answer", json!({ "text": "Hello" }), "answer.type"),
        ("answer", json!({ "type": "dance" }), "answer.type"),
        (
            "answer",
            json!({ "type": "stream", "url": "wss://h", "extraHeaders": { "a": 1 } }),
            "answer.extraHeaders.a",
        ),
        ("machineDetection", json!("perhaps"), "machineDetection"),
        ("machineDetection", json!(1), "machineDetection"),
        (
            "window",
            json!({ "days": [], "start": "09:00", "end": "17:00", "timeZone": "contact" }),
            "window.days",
        ),
        ("pacing", json!({ "interval": 1 }), "pacing.interval"),
        (
            "retry",
            json!({ "maxAttempts": 0, "delaysSeconds": [60], "outcomes": ["busy"] }),
            "retry.maxAttempts",
        ),
        (
            "pacing",
            json!({ "callsPerSecond": -1 }),
            "pacing.callsPerSecond",
        ),
        ("maxConcurrentCalls", json!(0), "maxConcurrentCalls"),
        ("timeLimitSeconds", json!(90_000), "timeLimitSeconds"),
        ("ringTimeoutSeconds", json!(0), "ringTimeoutSeconds"),
        ("expiresAt", json!("2001-01-01T00:00:00Z"), "expiresAt"),
        ("scheduledAt", json!("tomorrow"), "scheduledAt"),
    ] {
        refused(&operator, &with(good.clone(), field, value), path).await;
    }
    assert_eq!(operator.get("/v1/campaigns").await.ok()["items"], json!([]));
    assert_eq!(world.simulator.stats().requests, 0, "nobody was dialed");
}

#[tokio::test]
async fn all_faults_of_a_campaign_are_told_at_once() {
    let edge = Edge::start("input-all").await;
    let (_, key) = edge.tenant("Acme").await;
    let list = json!({ "name": "May", "contacts": [{ "number": "+14155550101" }] });
    let list = edge.post(&key, "/v1/lists", &list).await.expect(201);
    let mut all = campaign(list["id"].as_str().unwrap());
    for (field, value) in [
        ("campaignName", json!(" ")),
        ("fromNumber", json!("call me")),
        ("answer", json!({ "type": "stream", "text": "Hello" })),
        ("maxConcurrentCalls", json!(0)),
    ] {
        all = with(all, field, value);
    }
    let problem = edge.post(&key, "/v1/campaigns", &all).await;
    let problem = problem.problem(422, "invalid");
    for path in [
        "campaignName",
        "fromNumber",
        "answer.url",
        "answer.text",
        "maxConcurrentCalls",
    ] {
        assert!(names(&problem, path), "{path}: {problem}");
    }
    assert_eq!(edge.count("plivoCampaign").await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unknown_query_parameters_are_refused() {
    let world = World::new("queries", quick_carrier()).await;
    let _container = world.container(&[]).await;
    let (_, operator) = world.client(json!({ "name": "Acme" })).await;
    for query in [
        "/v1/campaigns?statuss=running",
        // Whose calls is in the path; a second campaign would be ignored.
        "/v1/campaigns/0123456789abcdef01234567/calls?campaignId=0123456789abcdef01234567",
    ] {
        operator.get(query).await.problem(400, "invalid_query");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_belongs_to_another_client_does_not_exist() {
    let world = World::new("tenants", quick_carrier()).await;
    let _container = world.container(&[]).await;
    let (_, owner) = world.client(json!({ "name": "Owner" })).await;
    let (_, other) = world.client(json!({ "name": "Other" })).await;
    let list = owner.list_of(0, 2).await;
    let problem = other
        .post("/v1/campaigns", &campaign(&list))
        .await
        .problem(404, "not_found");
    assert!(names(&problem, "listId"), "{problem}");
    let id = owner.campaign(&list, json!({})).await;
    owner.until_status(&id, "completed").await;
    let call = owner.get(&format!("/v1/campaigns/{id}/calls")).await.ok()["items"][0]["id"]
        .as_str()
        .unwrap()
        .to_owned();
    for path in [
        format!("/v1/campaigns/{id}"),
        format!("/v1/campaigns/{id}/progress"),
        format!("/v1/campaigns/{id}/calls"),
        format!("/v1/calls/{call}"),
    ] {
        other.get(&path).await.problem(404, "not_found");
        owner.get(&path).await.ok();
    }
    for command in ["pause", "resume", "cancel"] {
        other
            .post(&format!("/v1/campaigns/{id}/{command}"), &json!({}))
            .await
            .problem(404, "not_found");
    }
    other
        .post(&format!("/v1/calls/{call}/hangup"), &json!({}))
        .await
        .problem(404, "not_found");
    assert_eq!(other.get("/v1/campaigns").await.ok()["items"], json!([]));
    assert_eq!(other.get("/v1/calls").await.ok()["items"], json!([]));
    assert_eq!(
        owner.get("/v1/calls").await.ok()["items"]
            .as_array()
            .unwrap()
            .len(),
        2
    );
}

/// It wrote ids as text, and had no attempts and epochs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_earlier_system_wrote_is_found_by_its_client() {
    let world = World::new("earlier", quick_carrier()).await;
    let _container = world.container(&[]).await;
    let (client, owner) = world.client(json!({ "name": "Owner" })).await;
    let (_, other) = world.client(json!({ "name": "Other" })).await;
    let mongo = mongod::client(&world.database.uri)
        .await
        .database(&world.database.name);
    let (campaign, call) = (ObjectId::new(), ObjectId::new());
    let old_campaign = doc! {
        "_id": campaign, "clientId": &client, "listId": ObjectId::new().to_hex(), "campaignName": "Old",
        "fromNumber": "12025550100", "wssUrl": "wss://bot.example.com", "status": "completed",
    };
    let old_call = doc! {
        "_id": call, "clientId": &client, "from": "12025550100", "to": "+12015550000", "status": "completed",
    };
    for (collection, document) in [("plivoCampaign", old_campaign), ("activeCalls", old_call)] {
        let collection = mongo.collection::<Document>(collection);
        collection.insert_one(document).await.unwrap();
    }
    for (list, id) in [("/v1/campaigns", campaign), ("/v1/calls", call)] {
        let found = owner.get(list).await.ok();
        assert_eq!(found["items"][0]["id"], id.to_hex(), "{found}");
        assert_eq!(other.get(list).await.ok()["items"], json!([]));
        let path = format!("{list}/{}", id.to_hex());
        owner.get(&path).await.ok();
        other.get(&path).await.problem(404, "not_found");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_viewer_reads_masked_numbers_and_changes_nothing() {
    let world = World::new("viewer", quick_carrier()).await;
    let _container = world.container(&[]).await;
    let (client, operator) = world.client(json!({ "name": "Acme" })).await;
    let body = json!({ "role": "viewer", "label": "wall" });
    let key = world
        .admin()
        .post(&format!("/v1/clients/{client}/keys"), &body)
        .await
        .created();
    let viewer = Api::new(&operator.base, key["key"].as_str().unwrap());
    let list = operator.list_of(0, 1).await;
    viewer
        .post("/v1/campaigns", &campaign(&list))
        .await
        .problem(403, "forbidden");
    let id = operator.campaign(&list, json!({})).await;
    operator.until_status(&id, "completed").await;
    let path = format!("/v1/campaigns/{id}/calls");
    let seen = |calls: Value| calls["items"][0]["to"].as_str().unwrap().to_owned();
    assert_eq!(seen(operator.get(&path).await.ok()), "+12015550000");
    assert_eq!(seen(viewer.get(&path).await.ok()), "+*******0000");
    viewer
        .post(&format!("/v1/campaigns/{id}/pause"), &json!({}))
        .await
        .problem(403, "forbidden");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_single_call_takes_the_same_path() {
    let world = World::new("single", quick_carrier()).await;
    let _container = world
        .container(&[("MAX_CONCURRENT_CALL_WAIT", "300")])
        .await;
    let (_, operator) = world
        .client(json!({ "name": "Acme", "maxConcurrentCalls": 1 }))
        .await;
    let body =
        json!({ "from": FROM, "to": "+12015550001", "answer": { "type": "speak", "text": "Hi" } });
    for (field, value, path) in [
        ("to", json!("nobody"), "to"),
        ("from", json!(""), "from"),
        (
            "answer",
            json!({ "type": "speak", "text": "Hi {{tag}}" }),
            "answer.text",
        ),
        (
            "answer",
            json!({ "type": "speak", "text": "{{firstName}}" }),
            "answer.text",
        ),
        (
            "answer",
            json!({ "type": "speak", "text": "Hi", "url": "https://h/x" }),
            "answer.url",
        ),
        ("extra", json!(true), "extra"),
    ] {
        let problem = operator
            .post("/v1/calls", &with(body.clone(), field, value))
            .await
            .problem(422, "invalid");
        assert!(names(&problem, path), "{path}: {problem}");
    }
    // Talks long enough to fill the only slot.
    world
        .simulator
        .patch_options(&json!({ "talkDurationMs": { "min": 5000, "max": 5000 } }))
        .unwrap();
    let call = operator.post("/v1/calls", &body).await.created();
    assert!(call["callUUID"].is_string(), "{call}");
    let second = with(body.clone(), "to", json!("+12015550002"));
    let busy = operator.post("/v1/calls", &second).await;
    assert!(busy.headers.contains_key("retry-after"));
    busy.problem(429, "too_many_requests");
    assert_eq!(
        world.simulator.stats().accepted,
        1,
        "the refused call was not dialed later"
    );
    let id = call["id"].as_str().unwrap();
    operator
        .post(&format!("/v1/calls/{id}/hangup"), &json!({}))
        .await
        .ok();
    until("the call is over and its slot free", async || {
        let call = operator.get(&format!("/v1/calls/{id}")).await.ok();
        call["endTime"].is_string()
            && operator.get("/v1/utilization").await.ok()["global"]["active"] == 0
    })
    .await;
    operator
        .post(&format!("/v1/calls/{id}/hangup"), &json!({}))
        .await
        .problem(409, "wrong_state");
}
