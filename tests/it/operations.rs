//! What operations pokes and reads: the tick, the registry of containers, and how full the limits are.

use mongodb::bson::oid::ObjectId;
use mongodb::bson::{self, Bson, Document, doc};
use ringmaster::simulator::{MsRange, SimulatorOptions};
use serde_json::{Value, json};

use crate::helpers::app::{Api, FROM, World, contact, quick_carrier};
use crate::helpers::edge::{ADMIN, Edge};
use crate::helpers::judge::now_ms;
use crate::helpers::mongod::client;

/// Creates a campaign that is scheduled for a day that no test sees; answers its id.
async fn scheduled(edge: &Edge, key: &str, list: &Value) -> ObjectId {
    let body = json!({
        "campaignName": "tick", "listId": list["id"], "fromNumber": FROM,
        "answer": { "type": "speak", "text": "Hello" }, "scheduledAt": "2100-01-01T00:00:00Z",
    });
    let campaign = edge.post(key, "/v1/campaigns", &body).await.expect(201);
    assert_eq!(campaign["status"], "scheduled");
    campaign["id"].as_str().unwrap().parse().unwrap()
}

/// Nothing but the request of the tick works here: no dispatcher runs beside it.
#[tokio::test]
async fn a_tick_starts_what_is_due_and_adopts_what_nobody_drives() {
    let edge = Edge::start("tick").await;
    let (_, key) = edge.tenant("Acme").await;
    let contacts = json!({ "name": "list", "contacts": [{ "number": contact(0) }] });
    let list = edge.post(&key, "/v1/lists", &contacts).await.expect(201);
    let due = scheduled(&edge, &key, &list).await;
    let early = scheduled(&edge, &key, &list).await;
    let silent = scheduled(&edge, &key, &list).await;
    let released = scheduled(&edge, &key, &list).await;
    let driven = scheduled(&edge, &key, &list).await;
    let tick = async || {
        let done = edge.post(ADMIN, "/v1/tick", &json!({})).await.expect(200);
        (done["started"].as_i64(), done["adopted"].as_i64())
    };
    edge.post(&key, "/v1/tick", &json!({}))
        .await
        .problem(403, "forbidden");
    assert_eq!(tick().await, (Some(0), Some(0)));

    // As a container leaves them that died, that let go, that is well; the default threshold is two minutes.
    let campaigns = edge.database.collection::<Document>("plivoCampaign");
    let ago = |seconds: i64| bson::DateTime::from_millis(now_ms() - 1000 * seconds);
    let running = |container: Bson, heartbeat: bson::DateTime, epoch: i64| {
        doc! { "status": "running", "containerId": container, "heartbeat": heartbeat, "epoch": epoch }
    };
    for (id, fields) in [
        (due, doc! { "scheduledAt": ago(1) }),
        (silent, running("dead".into(), ago(121), 4)),
        (released, running(Bson::Null, ago(1), 2)),
        (driven, running("alive".into(), ago(1), 1)),
    ] {
        let update = doc! { "$set": fields };
        let updated = campaigns.update_one(doc! { "_id": id }, update).await;
        assert_eq!(updated.unwrap().modified_count, 1);
    }
    assert_eq!(tick().await, (Some(1), Some(2)));
    let this = edge.state.dispatcher.container();
    for (id, container, epoch) in [
        (due, this, 1),
        (silent, this, 5),
        (released, this, 3),
        (driven, "alive", 1),
    ] {
        let path = format!("/v1/campaigns/{id}/progress");
        let progress = edge.get(&key, &path).await.expect(200);
        assert_eq!(progress["status"], "running", "{progress}");
        assert_eq!(progress["driver"]["containerId"], container, "{progress}");
        assert_eq!(progress["driver"]["healthy"], true, "{progress}");
        let found = campaigns.find_one(doc! { "_id": id }).await.unwrap();
        assert_eq!(found.unwrap().get_i64("epoch").unwrap(), epoch);
    }
    let path = format!("/v1/campaigns/{early}");
    assert_eq!(
        edge.get(&key, &path).await.expect(200)["status"],
        "scheduled"
    );
    assert_eq!(tick().await, (Some(0), Some(0)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_is_listed_while_it_lives() {
    let world = World::new("registry", quick_carrier()).await;
    let first = world.container(&[]).await;
    let second = world.container(&[]).await;
    let admin = world.admin();
    let ids = async || -> Vec<String> {
        let listed = admin.get("/v1/containers").await.ok();
        let items = listed["items"].as_array().unwrap().iter();
        items
            .map(|item| item["id"].as_str().unwrap().to_owned())
            .collect()
    };
    let (mut known, mut expected) = (ids().await, vec![first.id.clone(), second.id.clone()]);
    known.sort();
    expected.sort();
    assert_eq!(known, expected);
    assert!(known.iter().all(|id| id.len() == 24), "{known:?}");
    // One that was killed stays registered for a day.
    let an_hour_ago = bson::DateTime::from_millis(now_ms() - 3_600_000);
    let dead = doc! {
        "_id": "0123456789abcdef01234567", "version": "0.0.0",
        "startedAt": an_hour_ago, "seenAt": an_hour_ago,
    };
    let registry = client(&world.database.uri)
        .await
        .database(&world.database.name)
        .collection::<Document>("containers");
    registry.insert_one(dead).await.unwrap();
    let listed = admin.get("/v1/containers").await.ok();
    assert_eq!(listed["items"].as_array().unwrap().len(), 2, "{listed}");
    assert_eq!(listed["nextCursor"], json!(null));
    assert!(listed.as_object().unwrap().contains_key("nextCursor"));
    world.balancer.remove(second.address);
    assert_eq!(second.stop().await, ringmaster::app::Ended::Cleanly);
    assert_eq!(ids().await, std::slice::from_ref(&first.id));
}

/// Makes a single call that lives until somebody hangs up.
async fn call(operator: &Api, index: usize) -> Value {
    let answer = json!({ "type": "speak", "text": "Hello" });
    let body = json!({ "from": FROM, "to": contact(index), "answer": answer });
    operator.post("/v1/calls", &body).await.created()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn utilization_is_told_for_the_account_and_each_client_and_marked_when_high() {
    let carrier = SimulatorOptions {
        talk_duration_ms: MsRange::exactly(600_000),
        ..quick_carrier()
    };
    let world = World::new("utilization", carrier).await;
    let limits = [
        ("GLOBAL_MAX_CALLS", "4"),
        ("HIGH_UTILIZATION_THRESHOLD", "50"),
    ];
    let _container = world.container(&limits).await;
    let two = |name: &str| json!({ "name": name, "maxConcurrentCalls": 2 });
    let (acme, acme_api) = world.client(two("Acme")).await;
    let (brick, brick_api) = world.client(two("Brick")).await;
    let level = |active: u32, max: u32, percent: u32, high: bool| json!({ "active": active, "max": max, "available": max - active, "utilization": percent, "high": high });
    let admin = world.admin();
    let of = async |api: &Api, client: &str| {
        let report = api.get("/v1/utilization").await.ok();
        let clients = report["clients"].as_array().unwrap().iter();
        let mut of_client = clients
            .clone()
            .find(|one| one["clientId"] == client)
            .cloned();
        if let Some(fields) = of_client.as_mut().and_then(Value::as_object_mut) {
            fields.remove("clientId");
        }
        (report["global"].clone(), of_client)
    };
    assert_eq!(
        of(&admin, &acme).await,
        (level(0, 4, 0, false), Some(level(0, 2, 0, false)))
    );
    let first = call(&acme_api, 1).await;
    // Below the threshold in the account, at it for the client.
    assert_eq!(
        of(&admin, &acme).await,
        (level(1, 4, 25, false), Some(level(1, 2, 50, true)))
    );
    call(&brick_api, 2).await;
    assert_eq!(
        of(&admin, &acme).await,
        (level(2, 4, 50, true), Some(level(1, 2, 50, true)))
    );
    // A client sees how full the account is, and no other client.
    assert_eq!(of(&brick_api, &acme).await, (level(2, 4, 50, true), None));

    let active = async |api: &Api, query: &str| {
        let path = format!("/v1/active-calls?includeCalls=true{query}");
        api.get(&path).await
    };
    let all = active(&admin, "").await.ok();
    assert_eq!(all["calls"].as_array().unwrap().len(), 2, "{all}");
    assert_eq!(all["client"], Value::Null);
    for (api, query) in [
        (&admin, format!("&clientId={acme}")),
        (&acme_api, format!("&clientId={acme}")),
        (&acme_api, String::new()),
    ] {
        let found = active(api, &query).await.ok();
        assert_eq!(found["global"], level(2, 4, 50, true));
        assert_eq!(found["client"], level(1, 2, 50, true));
        let calls = found["calls"].as_array().unwrap();
        assert_eq!(calls.len(), 1, "{found}");
        assert_eq!(calls[0]["id"], first["id"]);
    }
    let counted = admin
        .get(&format!("/v1/active-calls?clientId={brick}"))
        .await;
    assert_eq!(counted.ok()["calls"], Value::Null);
    active(&acme_api, &format!("&clientId={brick}"))
        .await
        .problem(404, "not_found");
    active(&admin, "&clientId=0123456789abcdef01234567")
        .await
        .problem(404, "not_found");
    active(&admin, "&clientId=nobody")
        .await
        .problem(400, "invalid_query");
}
