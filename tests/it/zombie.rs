//! A driver that freezes for longer than the orphan threshold, is replaced, and thaws (Cloud Run throttles CPU): it dials
//! nobody that it should not, and works on as any other (promises P2 and P9).

use std::time::Duration;

use ringmaster::simulator::{MsRange, SimulatorOptions};
use serde_json::json;

use crate::helpers::app::{World, quick_carrier, until};
use crate::helpers::judge::assert_adds_up;

const CONTACTS: usize = 120;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thawed_driver_dials_nobody_twice_and_works_on() {
    let options = SimulatorOptions {
        ring_duration_ms: MsRange { min: 10, max: 40 },
        talk_duration_ms: MsRange { min: 50, max: 200 },
        ..quick_carrier()
    };
    let world = World::new("zombie", options).await;
    let mut processes = vec![world.process(&[]).await, world.process(&[]).await];
    let (client, operator) = world
        .client(json!({ "name": "Acme", "maxConcurrentCalls": 6 }))
        .await;
    let list = operator.list_of(0, CONTACTS).await;
    let campaign = operator
        .campaign(&list, json!({ "pacing": { "intervalMs": 30 } }))
        .await;

    for _ in 0..2 {
        let progress = processes[0].admin().progress(&campaign).await;
        if progress["driver"]["containerId"] != processes[0].container().await.as_str() {
            processes.swap(0, 1);
        }
        let after = world.simulator.stats().accepted + rand::random_range(5..20);
        until("some calls were dialed", async || {
            world.simulator.stats().accepted >= after
        })
        .await;
        tokio::time::sleep(Duration::from_millis(rand::random_range(0..40))).await;

        processes[0].process.signal("STOP").await;
        // As a load balancer does whose health checks fail. Connections to it stay open, and what is sent on them waits.
        world.balancer.remove(processes[0].address);
        let (frozen, heir) = (processes[0].container().await, &processes[1]);
        let name = heir.container().await;
        until("the other one drives", async || {
            let progress = heir.admin().progress(&campaign).await;
            assert_adds_up(&progress);
            progress["driver"]["containerId"] == name.as_str()
        })
        .await;
        let before = world.simulator.stats().accepted;
        until("the other one dials on", async || {
            world.simulator.stats().accepted >= before + 5
        })
        .await;
        processes[0].process.signal("CONT").await;
        world.balancer.add(processes[0].address);
        until("the thawed one has noticed", async || {
            let noticed = processes[0].process.logged("no longer driving");
            noticed.len() == processes[0].process.logged("driving").len()
        })
        .await;
        let containers = processes[1].admin().get("/v1/containers").await.ok();
        let drives = |id: &str| {
            let items = containers["items"].as_array().unwrap().iter();
            items
                .clone()
                .any(|item| item["id"] == id && item["campaigns"] == 1)
        };
        assert!(drives(&name) && !drives(&frozen), "{containers}");
    }

    let progress = operator.until_status(&campaign, "completed").await;
    assert_adds_up(&progress);
    world.assert_each_dialed_once(CONTACTS);
    let stats = world.simulator.stats();
    assert!(stats.by_client[&client].peak_live <= 6, "{stats:?}");

    // Each of them still drives a campaign from its beginning to its end.
    let list = operator.list_of(CONTACTS, 5).await;
    for process in &processes {
        let body = json!({
            "campaignName": "after", "listId": list, "fromNumber": crate::helpers::app::FROM,
            "clientId": client,
            "answer": { "type": "speak", "text": "Hello {{firstName}}" },
        });
        let campaign = process.admin().post("/v1/campaigns", &body).await.created();
        let campaign = campaign["id"].as_str().unwrap();
        operator.until_status(campaign, "completed").await;
        let drove = process.process.logged("driving");
        assert!(drove.iter().any(|line| line["campaignId"] == campaign));
    }
}
