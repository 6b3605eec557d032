//! What operations pokes and reads: the tick, and the registry of containers.

use serde_json::json;

use crate::helpers::app::{World, quick_carrier};

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
