//! A campaign from the import to its end, judged by the carrier's books.

use serde_json::json;

use crate::helpers::app::{World, quick_carrier};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_contact_is_called_once_and_the_campaign_completes() {
    let world = World::new("flow", quick_carrier()).await;
    let _container = world.container(&[]).await;
    let (_, operator) = world.client(json!({ "name": "Acme" })).await;
    let list = operator.list_of(0, 40).await;
    let campaign = operator.campaign(&list, json!({})).await;
    let progress = operator.until_status(&campaign, "completed").await;
    assert_eq!(progress["final"]["answered"], 40, "{progress}");
    world.assert_each_dialed_once(40);
    world.until_idle().await;
}
