//! What operations pokes and reads: the tick, and the registry of containers.

use mongodb::bson::{DateTime, Document, doc};
use serde_json::json;

use crate::helpers::app::{World, quick_carrier};
use crate::helpers::mongod::client;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tick_wakes_what_is_due_and_a_container_is_listed_while_it_lives() {
    let world = World::new("tick", quick_carrier()).await;
    let first = world.container(&[]).await;
    let second = world.container(&[]).await;
    let (_, operator) = world.client(json!({ "name": "Acme" })).await;
    let admin = world.admin();
    let ids = async || -> Vec<String> {
        let listed = admin.get("/v1/containers").await.ok();
        listed["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|item| item["id"].as_str().unwrap().to_owned())
            .collect()
    };
    let (mut known, mut expected) = (ids().await, vec![first.id.clone(), second.id.clone()]);
    known.sort();
    expected.sort();
    assert_eq!(known, expected);
    assert!(known.iter().all(|id| id.len() == 24), "{known:?}");
    // One that was killed stays registered for a day.
    let an_hour_ago = DateTime::from_millis(DateTime::now().timestamp_millis() - 3_600_000);
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
    operator
        .post("/v1/tick", &json!({}))
        .await
        .problem(403, "forbidden");
    assert!(admin.post("/v1/tick", &json!({})).await.ok()["timestamp"].is_string());
    world.balancer.remove(second.address);
    let gone = second.id.clone();
    assert_eq!(second.stop().await, ringmaster::app::Ended::Cleanly);
    assert!(!ids().await.contains(&gone));
    let list = operator.list_of(0, 1).await;
    assert_eq!(
        operator.delete(&format!("/v1/lists/{list}")).await.status,
        204
    );
    operator
        .get(&format!("/v1/lists/{list}"))
        .await
        .problem(404, "not_found");
}
