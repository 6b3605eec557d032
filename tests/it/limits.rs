//! Promise P1 from the carrier's books: at no instant are there more live calls than any limit allows, and limits are used.

use ringmaster::simulator::{Address, MsRange, SimulatorOptions};
use serde_json::json;

use crate::helpers::app::{Api, FROM, World, quick_carrier, until};
use crate::helpers::judge::{accepted_at, live_at, now_ms};

/// Longer than any test: who talks so long is hung up on.
const ENDLESS: MsRange = MsRange::exactly(600_000);

fn talkative() -> SimulatorOptions {
    SimulatorOptions {
        talk_duration_ms: ENDLESS,
        ..quick_carrier()
    }
}

impl World {
    /// Calls that begin from now on are short.
    fn talk_briefly(&self) {
        let patch = json!({ "talkDurationMs": { "min": 20, "max": 60 } });
        self.simulator.patch_options(&patch).unwrap();
    }

    fn live_of(&self, client: &str) -> u64 {
        let stats = self.simulator.stats();
        stats.by_client.get(client).map_or(0, |usage| usage.live)
    }
}

/// Hangs up on everybody that the caller is talking to.
async fn hang_up_all(operator: &Api) {
    for call in operator.live_calls().await {
        let path = format!("/v1/calls/{}/hangup", call["id"].as_str().unwrap());
        operator.post(&path, &json!({})).await.ok();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn peaks_are_exactly_the_limits_and_never_more() {
    let carrier = SimulatorOptions {
        talk_duration_ms: MsRange::exactly(1500),
        ..quick_carrier()
    };
    let world = World::new("limits", carrier).await;
    let global = [("GLOBAL_MAX_CALLS", "8")];
    let (one, two) = (
        world.container(&global).await,
        world.container(&global).await,
    );
    let (acme, acme_api) = world
        .client(json!({ "name": "Acme", "maxConcurrentCalls": 5 }))
        .await;
    let (brick, brick_api) = world
        .client(json!({ "name": "Brick", "maxConcurrentCalls": 5 }))
        .await;
    let lists = [
        brick_api.list_of(0, 300).await,
        acme_api.list_of(300, 300).await,
        acme_api.list_of(600, 300).await,
    ];
    // Long calls first, so that each limit is met for certain; short ones then, to meet them again and again.
    let first = brick_api.at(&one).campaign(&lists[0], json!({})).await;
    until("one client alone uses all that it may", async || {
        world.live_of(&brick) == 5
    })
    .await;
    let second = acme_api.at(&one).campaign(&lists[1], json!({})).await;
    let third = acme_api.at(&two).campaign(&lists[2], json!({})).await;
    until("both clients use all that there is", async || {
        world.simulator.stats().peak_live == 8
    })
    .await;
    world.talk_briefly();

    // In steps, each with its own patience: on a busy machine 900 calls take a while.
    for ended in [300, 600, 900] {
        until("calls end", async || world.simulator.stats().ended >= ended).await;
    }
    for (api, campaign) in [
        (&brick_api, &first),
        (&acme_api, &second),
        (&acme_api, &third),
    ] {
        let progress = api.until_status(campaign, "completed").await;
        assert_eq!(progress["final"]["answered"], 300, "{progress}");
    }
    let stats = world.simulator.stats();
    assert_eq!(stats.peak_live, 8);
    assert_eq!(stats.by_client[&brick].peak_live, 5);
    assert_eq!(stats.by_client[&acme].peak_live, 5);
    assert_eq!(stats.requests, 900, "{stats:?}");
    world.assert_each_dialed_once(900);
    world.until_idle().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_campaign_and_a_caller_id_have_limits_of_their_own() {
    let world = World::new("narrow", talkative()).await;
    let (one, two) = (world.container(&[]).await, world.container(&[]).await);
    let (_, acme) = world
        .client(json!({ "name": "Acme", "maxConcurrentCalls": 20 }))
        .await;
    let (_, brick) = world
        .client(json!({ "name": "Brick", "maxConcurrentCalls": 20, "maxCallsPerCallerId": 2 }))
        .await;
    let capped = acme
        .at(&one)
        .campaign(
            &acme.list_of(0, 30).await,
            json!({ "maxConcurrentCalls": 3, "fromNumber": "+12025550190" }),
        )
        .await;
    // Two campaigns in two containers share one caller ID; a third one has another.
    let list = brick.list_of(100, 30).await;
    let shared = [&one, &two].map(|container| brick.at(container));
    let mut campaigns = vec![
        shared[0].campaign(&list, json!({})).await,
        shared[1].campaign(&list, json!({})).await,
    ];
    let other = json!({ "fromNumber": "+12025550101" });
    campaigns.push(brick.campaign(&list, other).await);

    until("all limits are met", async || {
        world.simulator.stats().live == 3 + 2 + 2
    })
    .await;
    world.talk_briefly();
    hang_up_all(&acme).await;
    hang_up_all(&brick).await;
    acme.until_status(&capped, "completed").await;
    for campaign in &campaigns {
        brick.until_status(campaign, "completed").await;
    }
    let stats = world.simulator.stats();
    assert_eq!(stats.by_campaign[&capped].peak_live, 3);
    let peaks: Vec<u64> = [FROM, "+12025550101"]
        .iter()
        .map(|number| {
            let digits = Address::from(number.trim_start_matches('+'));
            stats.by_from[&digits].peak_live
        })
        .collect();
    assert_eq!(peaks, [2, 2]);
    assert_eq!(stats.requests, 30 + 3 * 30);
    assert!(stats.duplicates.by_campaign_to.is_empty());
    world.until_idle().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_call_starts_above_a_lowered_limit() {
    let world = World::new("lowered", talkative()).await;
    let (one, two) = (world.container(&[]).await, world.container(&[]).await);
    let (client, operator) = world
        .client(json!({ "name": "Acme", "maxConcurrentCalls": 6 }))
        .await;
    let first = operator.list_of(0, 20).await;
    let second = operator.list_of(20, 20).await;
    let campaigns = [
        operator.at(&one).campaign(&first, json!({})).await,
        operator.at(&two).campaign(&second, json!({})).await,
    ];
    until("the limit is met", async || world.live_of(&client) == 6).await;

    world
        .admin()
        .patch(
            &format!("/v1/clients/{client}"),
            &json!({ "maxConcurrentCalls": 2 }),
        )
        .await
        .ok();
    let lowered_at = now_ms();
    world.talk_briefly();
    hang_up_all(&operator).await;
    for campaign in &campaigns {
        operator.until_status(campaign, "completed").await;
    }

    world.assert_each_dialed_once(40);
    let calls = world.simulator.calls();
    let later: Vec<i64> = calls
        .iter()
        .filter_map(accepted_at)
        .filter(|begun| *begun >= lowered_at)
        .collect();
    assert_eq!(later.len(), 34);
    let most = later.iter().map(|begun| live_at(&calls, *begun)).max();
    assert_eq!(most, Some(2));
    world.until_idle().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_limit_lowered_while_a_call_waits_for_its_turn_holds_for_that_call() {
    let world = World::new("turn", talkative()).await;
    let _container = world.container(&[("RATE_LIMIT_WINDOW", "3000")]).await;
    let (client, operator) = world
        .client(json!({ "name": "Acme", "maxConcurrentCalls": 6, "maxCallsPerMinute": 1 }))
        .await;
    let list = operator.list_of(0, 10).await;
    let campaign = operator.campaign(&list, json!({})).await;
    until("one call lives", async || world.live_of(&client) == 1).await;
    // The second one waits three seconds for its turn, with slots in sight.
    let body = json!({ "maxConcurrentCalls": 1, "maxCallsPerMinute": 100 });
    let path = format!("/v1/clients/{client}");
    world.admin().patch(&path, &body).await.ok();
    until("the campaign waits for a slot", async || {
        operator.progress(&campaign).await["waitingFor"] == "slot"
    })
    .await;
    assert_eq!(world.simulator.stats().requests, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_raised_limit_is_used_before_any_call_ends() {
    let world = World::new("raised", talkative()).await;
    let _container = world.container(&[]).await;
    let (client, operator) = world
        .client(json!({ "name": "Acme", "maxConcurrentCalls": 1 }))
        .await;
    let campaign = operator
        .campaign(&operator.list_of(0, 10).await, json!({}))
        .await;
    until("the campaign waits for a slot", async || {
        operator.progress(&campaign).await["waitingFor"] == "slot"
    })
    .await;
    assert_eq!(world.live_of(&client), 1);

    let path = format!("/v1/clients/{client}");
    let body = json!({ "maxConcurrentCalls": 4 });
    world.admin().patch(&path, &body).await.ok();
    until("the new limit is met", async || world.live_of(&client) == 4).await;
    assert_eq!(world.simulator.stats().ended, 0);
    assert_eq!(world.simulator.stats().by_client[&client].peak_live, 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn guaranteed_calls_keep_room_for_their_client() {
    let world = World::new("guarantee", talkative()).await;
    let _container = world.container(&[("GLOBAL_MAX_CALLS", "8")]).await;
    let (greedy, greedy_api) = world
        .client(json!({ "name": "Greedy", "maxConcurrentCalls": 100 }))
        .await;
    let (modest, modest_api) = world
        .client(json!({ "name": "Modest", "maxConcurrentCalls": 100, "guaranteedCalls": 3 }))
        .await;
    let first = greedy_api
        .campaign(&greedy_api.list_of(0, 20).await, json!({}))
        .await;
    until("the greedy client has to wait", async || {
        greedy_api.progress(&first).await["waitingFor"] == "slot"
    })
    .await;
    assert_eq!(world.live_of(&greedy), 5);

    modest_api
        .campaign(&modest_api.list_of(20, 20).await, json!({}))
        .await;
    until("the modest client has its room", async || {
        world.live_of(&modest) == 3
    })
    .await;
    let stats = world.simulator.stats();
    assert_eq!((stats.ended, stats.peak_live), (0, 8));
    assert_eq!(world.live_of(&greedy), 5);
}
