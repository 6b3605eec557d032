//! What keeps a campaign from dialing though it runs: the circuit breaker, its hours, its end, its start, its bot.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use chrono::{DateTime, TimeDelta, Utc};
use ringmaster::simulator::{MsRange, Outcome, OutcomeMix, SimulatorOptions};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::Notify;

use crate::helpers::app::{World, contact, quick_carrier, until};
use crate::helpers::judge::{assert_adds_up, nonzero, now_ms, total_of};

fn in_seconds(seconds: i64) -> DateTime<Utc> {
    DateTime::from_timestamp_millis(now_ms()).unwrap() + TimeDelta::seconds(seconds)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_campaign_whose_calls_mostly_fail_is_paused_with_the_reason() {
    let carrier = SimulatorOptions {
        outcome_mix: OutcomeMix {
            failed: 1.0,
            ..OutcomeMix::NONE
        },
        ..quick_carrier()
    };
    let world = World::new("breaker", carrier).await;
    let _container = world.container(&[]).await;
    let (_, operator) = world
        .client(json!({ "name": "Acme", "maxConcurrentCalls": 20 }))
        .await;
    let list = operator.list_of(0, 300).await;
    let campaign = operator
        .campaign(&list, json!({ "pacing": { "intervalMs": 10 } }))
        .await;
    operator.until_status(&campaign, "paused").await;
    world.until_idle().await;
    let path = format!("/v1/campaigns/{campaign}");
    let paused = operator.get(&path).await.ok();
    assert_eq!(paused["pausedBy"], "system");
    let reason = paused["pauseReason"].as_str().unwrap();
    assert!(reason.contains("of the last 50 calls failed"), "{reason}");
    let dialed = world.simulator.stats().accepted;
    assert!((50..300).contains(&dialed), "{dialed} dialed");

    // Mended and resumed, it looks at new calls only.
    let mended = json!({ "outcomeMix": { "failed": 0.0, "answered": 1.0 } });
    world.simulator.patch_options(&mended).unwrap();
    operator.command(&campaign, "resume").await.ok();
    let progress = operator.until_status(&campaign, "completed").await;
    assert_eq!(total_of(&progress["final"]), 300, "{progress}");
    assert_eq!(progress["final"]["carrier_error"], dialed, "{progress}");
    world.assert_each_dialed_once(300);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_few_failures_and_callees_who_do_not_answer_trip_nothing() {
    // Every fifth fails: 20 percent of any 50, below the threshold of 25. All the others are busy.
    let failing = (0..70)
        .step_by(5)
        .map(|index| (contact(index), Outcome::Failed));
    let carrier = SimulatorOptions {
        outcome_mix: OutcomeMix {
            busy: 1.0,
            ..OutcomeMix::NONE
        },
        outcome_by_number: failing.collect(),
        ..quick_carrier()
    };
    let world = World::new("below", carrier).await;
    let _container = world.container(&[]).await;
    let (_, operator) = world.client(json!({ "name": "Acme" })).await;
    let campaign = operator
        .campaign(&operator.list_of(0, 70).await, json!({}))
        .await;
    let progress = operator.until_status(&campaign, "completed").await;
    assert_eq!(progress["final"]["carrier_error"], 14, "{progress}");
    assert_eq!(progress["final"]["busy"], 56, "{progress}");
}

/// A condition that condemns every call pauses the campaign at once, burns nobody, and mended it goes on with everybody.
async fn condemned(name: &str, broken: Value, mended: Value) {
    let world = World::new(name, quick_carrier()).await;
    let _container = world.container(&[]).await;
    let (_, operator) = world.client(json!({ "name": "Acme" })).await;
    let list = operator.list_of(0, 5).await;
    world.simulator.patch_options(&broken).unwrap();
    let campaign = operator.campaign(&list, json!({})).await;
    let progress = operator.until_status(&campaign, "paused").await;
    assert_eq!(total_of(&progress["final"]), 0, "burned: {progress}");
    let path = format!("/v1/campaigns/{campaign}");
    let paused = operator.get(&path).await.ok();
    assert_eq!(paused["pausedBy"], "system");
    let reason = paused["pauseReason"].as_str();
    assert!(reason.is_some_and(|reason| !reason.is_empty()), "{paused}");
    world.simulator.patch_options(&mended).unwrap();
    operator.command(&campaign, "resume").await.ok();
    let progress = operator.until_status(&campaign, "completed").await;
    assert_eq!(progress["final"]["answered"], 5, "{progress}");
    world.assert_each_dialed_once(5);
    world.until_idle().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_id_that_is_refused_pauses_the_campaign() {
    condemned(
        "callerid",
        json!({ "callerIds": ["+12025550177"] }),
        json!({ "callerIds": [] }),
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn credentials_that_are_refused_pause_the_campaign() {
    let tokens = SimulatorOptions::default().auth_tokens;
    condemned(
        "token",
        json!({ "authTokens": ["changed"] }),
        json!({ "authTokens": tokens }),
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_account_without_credit_pauses_the_campaign_at_once() {
    let carrier = SimulatorOptions {
        out_of_credit: true,
        ..quick_carrier()
    };
    let world = World::new("credit", carrier).await;
    let _container = world.container(&[]).await;
    let (_, operator) = world
        .client(json!({ "name": "Acme", "maxConcurrentCalls": 1 }))
        .await;
    let campaign = operator
        .campaign(&operator.list_of(0, 20).await, json!({}))
        .await;
    let progress = operator.until_status(&campaign, "paused").await;
    let path = format!("/v1/campaigns/{campaign}");
    let paused = operator.get(&path).await.ok();
    assert_eq!(paused["pausedBy"], "system");
    let reason = paused["pauseReason"].as_str().unwrap();
    assert!(reason.contains("1010"), "{reason}");
    // The call that told us is spent, and perhaps one that was on its way.
    assert!(total_of(&progress["final"]) <= 2, "{progress}");

    let mended = json!({ "outOfCredit": false });
    world.simulator.patch_options(&mended).unwrap();
    operator.command(&campaign, "resume").await.ok();
    let progress = operator.until_status(&campaign, "completed").await;
    assert_adds_up(&progress);
    let finals = nonzero(&progress["final"]);
    assert!(finals["answered"] >= 18, "{progress}");
    world.assert_each_dialed_once(20);
    world.until_idle().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_campaign_of_a_suspended_client_is_paused_until_somebody_resumes_it() {
    let world = World::new("suspended", quick_carrier()).await;
    let _container = world.container(&[]).await;
    let (client, operator) = world.client(json!({ "name": "Acme" })).await;
    let slowly = json!({ "pacing": { "intervalMs": 50 } });
    let campaign = operator
        .campaign(&operator.list_of(0, 40).await, slowly)
        .await;
    until("it dials", async || world.simulator.stats().accepted >= 3).await;
    let admin = world.admin();
    let path = format!("/v1/clients/{client}");
    let set = async |status: &str| {
        let changed = admin.patch(&path, &json!({ "status": status })).await.ok();
        assert_eq!(changed["status"], status);
    };
    let paused = async || {
        admin.until_status(&campaign, "paused").await;
        let paused = admin.get(&format!("/v1/campaigns/{campaign}")).await.ok();
        assert_eq!(paused["pausedBy"], "system");
        assert_eq!(paused["pauseReason"], "the client is suspended");
    };
    set("suspended").await;
    let suspended_ms = now_ms();
    paused().await;
    world.until_idle().await;
    let calls = world.simulator.calls();
    let last = calls.iter().map(|call| call.requested_at_ms).max().unwrap();
    assert!(last <= suspended_ms + 1000, "dialed on");
    let dialed = world.simulator.stats().requests;
    assert!(dialed < 40, "suspended too late");

    // Resumed too soon, it dials nobody.
    admin.command(&campaign, "resume").await.ok();
    paused().await;
    assert_eq!(world.simulator.stats().requests, dialed);
    set("active").await;
    admin.command(&campaign, "resume").await.ok();
    let progress = admin.until_status(&campaign, "completed").await;
    assert_eq!(progress["final"]["answered"], 40, "{progress}");
    world.assert_each_dialed_once(40);
    world.until_idle().await;
}

/// A daily window around this moment moved by `minutes`, an hour to each side.
fn window(at: DateTime<Utc>, minutes: i64, time_zone: &str) -> Value {
    let clock = |time: DateTime<Utc>| time.format("%H:%M").to_string();
    let middle = at + TimeDelta::minutes(minutes);
    json!({ "window": {
        "days": ["mon", "tue", "wed", "thu", "fri", "sat", "sun"],
        "start": clock(middle - TimeDelta::hours(1)), "end": clock(middle + TimeDelta::hours(1)),
        "timeZone": time_zone,
    } })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_is_called_outside_the_window() {
    let world = World::new("window", quick_carrier()).await;
    let _container = world.container(&[]).await;
    let (_, operator) = world.client(json!({ "name": "Acme" })).await;
    let list = operator.list_of(0, 5).await;
    let closed = operator
        .campaign(&list, window(in_seconds(0), 180, "UTC"))
        .await;
    until("it waits for its window", async || {
        operator.progress(&closed).await["waitingFor"] == "window"
    })
    .await;
    assert_eq!(world.simulator.stats().requests, 0);
    let open = operator
        .campaign(&list, window(in_seconds(0), 0, "UTC"))
        .await;
    operator.until_status(&open, "completed").await;
    assert_eq!(operator.progress(&closed).await["pending"], 5);
    world.assert_each_dialed_once(5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_window_on_the_contacts_clock_lets_some_through_while_others_wait() {
    let world = World::new("zones", quick_carrier()).await;
    let _container = world.container(&[]).await;
    let (_, operator) = world.client(json!({ "name": "Acme" })).await;
    // The clocks of the first two are twelve hours or more apart, wherever the sun stands.
    let zones = ["America/Los_Angeles", "Asia/Kolkata", ""];
    let rows: String = (0..6)
        .map(|index| format!("{},{},Ann\n", contact(index), zones[index % 3]))
        .collect();
    let list = operator
        .upload("zones", &format!("number,timezone,firstName\n{rows}"))
        .await
        .created();
    let kolkata = 5 * 60 + 30;
    let campaign = operator
        .campaign(
            list["id"].as_str().unwrap(),
            window(in_seconds(0), kolkata, "contact"),
        )
        .await;
    until("those who may be called are called", async || {
        let progress = operator.progress(&campaign).await;
        assert_adds_up(&progress);
        progress["final"]["answered"] == 2 && progress["pending"] == 0
    })
    .await;
    let progress = operator.progress(&campaign).await;
    assert_eq!(progress["status"], "running");
    assert_eq!(progress["waitingRetry"], 2, "{progress}");
    assert_eq!(
        nonzero(&progress["skipped"]),
        [("window_closed".to_owned(), 2)].into(),
        "{progress}"
    );
    let dialed: Vec<String> = world
        .simulator
        .calls()
        .iter()
        .map(|call| {
            serde_json::to_value(&call.to)
                .unwrap()
                .as_str()
                .unwrap()
                .to_owned()
        })
        .collect();
    assert_eq!(dialed, [contact(1), contact(4)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_was_not_dialed_when_the_campaign_expires_is_skipped() {
    let carrier = SimulatorOptions {
        talk_duration_ms: MsRange::exactly(1000),
        ..quick_carrier()
    };
    let world = World::new("expires", carrier).await;
    let _container = world.container(&[]).await;
    let (_, operator) = world
        .client(json!({ "name": "Acme", "maxConcurrentCalls": 1 }))
        .await;
    let list = operator.list_of(0, 30).await;
    let expires = in_seconds(6);
    let campaign = operator
        .campaign(&list, json!({ "expiresAt": expires }))
        .await;
    let progress = operator.until_status(&campaign, "completed").await;
    assert_adds_up(&progress);
    let dialed = world.simulator.stats().accepted;
    assert_eq!(progress["final"]["answered"], dialed, "{progress}");
    assert_eq!(progress["skipped"]["expired"], 30 - dialed, "{progress}");
    assert!((1..30).contains(&dialed), "{dialed} dialed");
    let calls = world.simulator.calls();
    let last = calls.iter().map(|call| call.requested_at_ms).max();
    assert!(last.unwrap() < expires.timestamp_millis() + 1000);
    world.until_idle().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scheduled_campaign_starts_by_itself_and_not_before() {
    let world = World::new("schedule", quick_carrier()).await;
    let (_one, _two) = (world.container(&[]).await, world.container(&[]).await);
    let (_, operator) = world.client(json!({ "name": "Acme" })).await;
    let list = operator.list_of(0, 6).await;
    let at = in_seconds(5);
    let campaign = operator.campaign(&list, json!({ "scheduledAt": at })).await;
    let progress = operator.progress(&campaign).await;
    assert_eq!(progress["status"], "scheduled");
    assert_eq!(progress["waitingFor"], "schedule");
    assert_eq!(progress["pending"], 6);
    operator.until_status(&campaign, "completed").await;
    let calls = world.simulator.calls();
    let first = calls.iter().map(|call| call.requested_at_ms).min().unwrap();
    assert!(first >= at.timestamp_millis(), "dialed before its time");
    world.assert_each_dialed_once(6);
}

/// A bot that answers requests as told by their number, from 0.
struct Bot {
    url: String,
    woken: Arc<AtomicUsize>,
}

impl Bot {
    async fn start<F>(answer: impl Fn(usize) -> F + Clone + Send + Sync + 'static) -> Self
    where
        F: Future<Output = StatusCode> + Send,
    {
        let woken = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&woken);
        let wake = move || answer(count.fetch_add(1, Ordering::SeqCst));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/wake", listener.local_addr().unwrap());
        let router = Router::new().route("/wake", get(wake));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { url, woken }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bot_is_woken_once_for_all_before_anybody_is_called() {
    let awake_at = Arc::new(AtomicUsize::new(0));
    let noted = Arc::clone(&awake_at);
    let bot = Bot::start(move |request| {
        let noted = Arc::clone(&noted);
        async move {
            if request < 2 {
                return StatusCode::SERVICE_UNAVAILABLE;
            }
            noted.store(usize::try_from(now_ms()).unwrap(), Ordering::SeqCst);
            StatusCode::OK
        }
    })
    .await;
    let world = World::new("warm", quick_carrier()).await;
    let _container = world.container(&[]).await;
    let (_, operator) = world.client(json!({ "name": "Acme" })).await;
    let list = operator.list_of(0, 10).await;
    let campaign = operator
        .campaign(&list, json!({ "warmupUrl": bot.url }))
        .await;
    let progress = operator.until_status(&campaign, "completed").await;
    assert_eq!(progress["final"]["answered"], 10, "{progress}");
    assert_eq!(bot.woken.load(Ordering::SeqCst), 3);
    let calls = world.simulator.calls();
    let first = calls.iter().map(|call| call.requested_at_ms).min().unwrap();
    assert!(first >= i64::try_from(awake_at.load(Ordering::SeqCst)).unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bot_that_does_not_wake_fails_the_call_without_calling_anybody() {
    let bot = Bot::start(|_| async { StatusCode::INTERNAL_SERVER_ERROR }).await;
    let world = World::new("cold", quick_carrier()).await;
    let _container = world.container(&[("BOT_WARMUP_RETRIES", "1")]).await;
    let (_, operator) = world.client(json!({ "name": "Acme" })).await;
    let list = operator.list_of(0, 4).await;
    let campaign = operator
        .campaign(&list, json!({ "warmupUrl": bot.url }))
        .await;
    let progress = operator.until_status(&campaign, "completed").await;
    assert_eq!(progress["final"]["bot_not_ready"], 4, "{progress}");
    for call in operator.calls_of(&campaign).await {
        assert_eq!(call["status"], "failed");
        assert_eq!(call["failureReason"], "bot_not_ready");
    }
    assert_eq!(world.simulator.stats().requests, 0);
    world.until_idle().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_a_bot_wakes_no_slot_is_held_and_the_progress_says_so() {
    let release = Arc::new(Notify::new());
    let held = Arc::clone(&release);
    let bot = Bot::start(move |_| {
        let held = Arc::clone(&held);
        async move {
            held.notified().await;
            StatusCode::OK
        }
    })
    .await;
    let world = World::new("waking", quick_carrier()).await;
    let _container = world.container(&[]).await;
    let (_, operator) = world.client(json!({ "name": "Acme" })).await;
    let list = operator.list_of(0, 5).await;
    let campaign = operator
        .campaign(&list, json!({ "warmupUrl": bot.url }))
        .await;
    until("it waits for the bot", async || {
        operator.progress(&campaign).await["waitingFor"] == "warmup"
    })
    .await;
    assert_eq!(operator.slots_taken().await, 0);
    assert_eq!(world.simulator.stats().requests, 0);
    release.notify_one();
    operator.until_status(&campaign, "completed").await;
    assert_eq!(bot.woken.load(Ordering::SeqCst), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_without_turns_left_waits_and_the_progress_says_so() {
    let world = World::new("rate", quick_carrier()).await;
    let _container = world.container(&[("RATE_LIMIT_WINDOW", "60000")]).await;
    let (_, operator) = world
        .client(json!({ "name": "Acme", "maxCallsPerMinute": 2 }))
        .await;
    let campaign = operator
        .campaign(&operator.list_of(0, 5).await, json!({}))
        .await;
    until("it waits for its turn", async || {
        operator.progress(&campaign).await["waitingFor"] == "rate"
    })
    .await;
    assert_eq!(world.simulator.stats().requests, 1);
}
