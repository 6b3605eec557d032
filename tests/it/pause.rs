//! Promise P5 from the carrier's books: what was paused or cancelled does not dial, and resuming dials exactly the rest.

use std::time::Duration;

use mongodb::bson::{self, Document, doc};
use ringmaster::simulator::{MsRange, SimulatorOptions};
use serde_json::{Value, json};

use crate::helpers::app::{Api, World, quick_carrier, until};
use crate::helpers::judge::{assert_adds_up, now_ms, total_of, until_passed};
use crate::helpers::mongod;

/// What promise P5 grants after the answer.
const GRACE: Duration = Duration::from_secs(1);

impl World {
    /// Waits out the grace and more, and checks that the carrier was asked for nothing beyond it.
    async fn assert_silent_after(&self, answered_ms: i64) {
        until_passed(answered_ms, GRACE * 2).await;
        let last = self
            .simulator
            .calls()
            .iter()
            .map(|call| call.requested_at_ms)
            .max();
        let late = last.unwrap_or(0) - answered_ms;
        assert!(late <= 1000, "a call was dialed {late} ms after the answer");
    }
}

/// A client that may do much at once, and a campaign of so many contacts, driven by one container.
async fn busy(world: &World, driver: &Api, contacts: usize) -> (Api, String) {
    let (_, operator) = world
        .client(json!({ "name": "Acme", "maxConcurrentCalls": 50 }))
        .await;
    let list = operator.list_of(0, contacts).await;
    let mut local = operator.clone();
    local.base.clone_from(&driver.base);
    let campaign = local.campaign(&list, json!({})).await;
    (operator, campaign)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pause_bites_at_once_and_resuming_dials_exactly_the_rest() {
    let world = World::new("pause", quick_carrier()).await;
    let (one, two) = (world.container(&[]).await, world.container(&[]).await);
    let (operator, campaign) = busy(&world, &world.admin().at(&one), 120).await;
    // The container that drives, and one that does not know the driver.
    for (container, dialed) in [(&two, 20), (&one, 60)] {
        until("it dials fast", async || {
            world.simulator.stats().accepted >= dialed
        })
        .await;
        let paused = operator
            .at(container)
            .command(&campaign, "pause")
            .await
            .ok();
        let answered = now_ms();
        assert_eq!(paused["campaign"]["status"], "paused");
        assert!(paused["inFlight"].as_u64().unwrap() <= 50, "{paused}");
        world.assert_silent_after(answered).await;
        assert!(world.simulator.stats().accepted < 120, "paused too late");
        let progress = operator.progress(&campaign).await;
        assert_eq!(progress["status"], "paused");
        assert_adds_up(&progress);
        operator.at(&two).command(&campaign, "resume").await.ok();
    }
    let progress = operator.until_status(&campaign, "completed").await;
    assert_eq!(progress["final"]["answered"], 120, "{progress}");
    world.assert_each_dialed_once(120);
    world.until_idle().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_answer_says_how_many_calls_are_in_flight() {
    let carrier = SimulatorOptions {
        talk_duration_ms: MsRange::exactly(600_000),
        ..quick_carrier()
    };
    let world = World::new("inflight", carrier).await;
    let (one, two) = (world.container(&[]).await, world.container(&[]).await);
    let (operator, campaign) = busy(&world, &world.admin().at(&one), 50).await;
    until("some calls live", async || {
        world.simulator.stats().live >= 10
    })
    .await;
    let paused = operator.at(&two).command(&campaign, "pause").await.ok();
    let answered = now_ms();
    world.assert_silent_after(answered).await;

    // Nobody hangs up, so every call that was ever dialed is in flight. One more may have been counted: the contact that
    // was claimed when the pause came, and given back.
    let told = paused["inFlight"].as_u64().unwrap();
    let live = world.simulator.stats().live;
    assert!(told == live || told == live + 1, "told {told}, live {live}");
    let again = operator.command(&campaign, "pause").await.ok();
    assert_eq!(again["inFlight"], live);
    assert_eq!(operator.progress(&campaign).await["inFlight"], live);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancel_bites_at_once_too() {
    let world = World::new("cancel", quick_carrier()).await;
    let (one, two) = (world.container(&[]).await, world.container(&[]).await);
    let (operator, campaign) = busy(&world, &world.admin().at(&one), 150).await;
    until("it dials fast", async || {
        world.simulator.stats().accepted >= 20
    })
    .await;
    let cancelled = operator.at(&two).command(&campaign, "cancel").await.ok();
    let answered = now_ms();
    assert_eq!(cancelled["campaign"]["status"], "cancelled");
    world.assert_silent_after(answered).await;
    world.until_idle().await;

    let progress = operator.progress(&campaign).await;
    assert_adds_up(&progress);
    let dialed = world.simulator.stats().accepted;
    assert!(dialed < 150, "cancelled too late");
    assert_eq!(total_of(&progress["final"]), i64::try_from(dialed).unwrap());
    assert_eq!(progress["inFlight"], 0);
    let again = operator.command(&campaign, "cancel").await.ok();
    assert_eq!(again["campaign"], cancelled["campaign"]);
    for command in ["pause", "resume"] {
        let problem = operator
            .command(&campaign, command)
            .await
            .problem(409, "wrong_state");
        assert_names(&problem, "cancelled");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pausing_and_resuming_from_everywhere_at_once_dials_nobody_twice() {
    let world = World::new("storm", quick_carrier()).await;
    let (one, two) = (world.container(&[]).await, world.container(&[]).await);
    let (operator, campaign) = busy(&world, &world.admin().at(&one), 80).await;
    let (here, there) = (operator.at(&one), operator.at(&two));
    for round in 1..=8 {
        until("it dials", async || {
            world.simulator.stats().accepted >= round * 5
        })
        .await;
        let replies = tokio::join!(
            here.command(&campaign, "pause"),
            there.command(&campaign, "resume"),
            there.command(&campaign, "pause"),
            here.command(&campaign, "resume"),
            there.command(&campaign, "pause"),
            there.command(&campaign, "resume"),
        );
        for reply in <[_; 6]>::from(replies) {
            // A running campaign can be paused and a paused one resumed, whatever others ask meanwhile.
            let status = reply.ok()["campaign"]["status"].clone();
            assert!(status == "paused" || status == "running", "{status}");
        }
        assert_adds_up(&here.progress(&campaign).await);
        there.command(&campaign, "resume").await.ok();
    }
    let progress = operator.until_status(&campaign, "completed").await;
    assert_eq!(progress["final"]["answered"], 80, "{progress}");
    world.assert_each_dialed_once(80);
    world.until_idle().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn asking_twice_changes_nothing_and_the_impossible_names_the_status() {
    let world = World::new("twice", quick_carrier()).await;
    let _container = world.container(&[]).await;
    let (_, operator) = world.client(json!({ "name": "Acme" })).await;
    let list = operator.list_of(0, 5).await;
    let slowly = json!({ "pacing": { "intervalMs": 600_000 } });
    let campaign = operator.campaign(&list, slowly).await;
    let running = operator.command(&campaign, "resume").await.ok();
    assert_eq!(running["campaign"]["status"], "running");
    assert_eq!(running["campaign"]["resumedAt"], Value::Null);

    let paused = operator.command(&campaign, "pause").await.ok();
    let again = operator.command(&campaign, "pause").await.ok();
    assert_eq!(again["campaign"], paused["campaign"]);
    assert_eq!(again["campaign"]["pausedBy"], "operator");
    operator.command(&campaign, "cancel").await.ok();
    let problem = operator
        .command(&campaign, "resume")
        .await
        .problem(409, "wrong_state");
    assert_names(&problem, "cancelled");

    let done = operator.campaign(&list, json!({})).await;
    operator.until_status(&done, "completed").await;
    for command in ["pause", "resume", "cancel"] {
        let problem = operator
            .command(&done, command)
            .await
            .problem(409, "wrong_state");
        assert_names(&problem, "completed");
    }
    assert_eq!(operator.progress(&done).await["status"], "completed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn resumed_before_its_time_a_campaign_waits_for_it_again() {
    let world = World::new("early", quick_carrier()).await;
    let _container = world.container(&[]).await;
    let (_, operator) = world.client(json!({ "name": "Acme" })).await;
    let at = json!({ "scheduledAt": "2100-01-01T00:00:00Z" });
    let campaign = operator
        .campaign(&operator.list_of(0, 3).await, at.clone())
        .await;
    let paused = operator.command(&campaign, "pause").await.ok();
    assert_eq!(paused["campaign"]["status"], "paused");
    for _ in 0..2 {
        let resumed = operator.command(&campaign, "resume").await.ok();
        assert_eq!(resumed["campaign"]["status"], "scheduled");
        assert_eq!(resumed["campaign"]["scheduledAt"], at["scheduledAt"]);
    }
    let progress = operator.progress(&campaign).await;
    assert_eq!(progress["waitingFor"], "schedule");
    assert_eq!(world.simulator.stats().requests, 0);

    // Its time comes.
    let client = mongod::client(&world.database.uri).await;
    let campaigns = client.database(&world.database.name);
    let campaigns = campaigns.collection::<Document>("plivoCampaign");
    let come = doc! { "$set": { "scheduledAt": bson::DateTime::now() } };
    campaigns.update_one(doc! {}, come).await.unwrap();
    operator.until_status(&campaign, "completed").await;
    world.assert_each_dialed_once(3);
    world.until_idle().await;
}

#[track_caller]
fn assert_names(problem: &Value, status: &str) {
    let detail = problem["detail"].as_str().unwrap();
    assert!(detail.contains(status), "{detail}");
}
