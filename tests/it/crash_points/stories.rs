//! The stories: in the middle of what a process dies, and how it goes on.

use std::time::Duration;

use mongodb::bson::{DateTime, Document, doc};
use ringmaster::services::carrier::plivo_signature::{NONCE_HEADER, SIGNATURE_HEADER, sign_v3};
use ringmaster::simulator::{
    DialFaults, EventFaults, Fault, LookupFaults, MsRange, OutcomeMix, SimulatorOptions,
    WebhookFaults,
};
use serde_json::{Value, json};

use super::Case;
use super::scene::Scene;
use crate::helpers::app::{Api, FROM, contact, quick_carrier, until};
use crate::helpers::judge::{carrier_token, nonzero};

/// In the middle of what a process dies.
#[derive(Debug, Clone, Copy)]
pub(super) enum Story {
    /// A campaign whose callees all answer; another process starts afterwards.
    Plain,
    /// As `Plain`, and the other process is there already.
    Beside,
    /// The carrier takes its time to answer dial requests.
    Slow,
    /// The carrier throttles the first dial requests.
    Throttled,
    /// The carrier refuses a dial request.
    Refused,
    /// The carrier refuses the caller ID.
    Condemned,
    /// The account has no credit.
    NoCredit,
    /// Everybody is busy and tried once more.
    Retry,
    /// The process freezes at this step first, for longer than anything may take.
    Frozen(&'static str),
    /// As `Frozen`, and the campaign is paused elsewhere meanwhile.
    PausedMeanwhile(&'static str),
    /// The commands of an operator, the last of which the process dies of.
    Command(&'static [&'static str]),
    /// A first process dies at this step; the one that adopts its campaign dies too.
    Adopted(&'static str),
    /// A campaign that starts by itself.
    Scheduled,
    /// SIGTERM.
    Stopped,
    /// No hangup webhook ever comes.
    Unheard,
    /// Calls are longer than their deadline.
    Long,
    /// The carrier fails before it has dialed.
    NeverSent,
    /// No hangup webhook comes, and the carrier cannot be asked.
    Unanswerable,
    /// No hangup webhook comes, and only the sweep notices.
    Unlisted,
    /// The upload of a list.
    Import,
    /// A campaign is created with an idempotency key.
    Once,
    /// A single call with an idempotency key.
    SingleCall,
    /// An operator hangs up a call that the carrier has only queued.
    HungUp,
    /// Nobody may be called now, wherever the sun stands.
    Skipped,
    /// The bot does not wake.
    ColdBot,
    /// A webhook that matches no call.
    Unmatched,
    /// A webhook of a dial that was withdrawn.
    Ghost,
    /// Machines answer.
    Machine,
    /// A machine is reported after the end of its call, which deserves another attempt then.
    Reopened,
}

/// Tells the story of the case to its good end.
pub(super) async fn tell(case: Case) {
    match case.story {
        Story::Plain => plain(&case, carrier(), &[], 10, json!({}), 10).await,
        Story::Beside => beside(&case).await,
        Story::Slow => {
            let faults = DialFaults {
                slow_after: Fault::ALWAYS,
                slow_ms: 800,
                ..DialFaults::default()
            };
            plain(&case, faulty(faults), &[], 8, json!({}), 8).await;
        }
        Story::Throttled => {
            let faults = DialFaults {
                too_many_requests: Fault::next(2),
                ..DialFaults::default()
            };
            plain(&case, faulty(faults), &[], 6, json!({}), 6).await;
        }
        Story::Refused => {
            let faults = DialFaults {
                forbidden: Fault::next(1),
                ..DialFaults::default()
            };
            plain(&case, faulty(faults), &[], 6, json!({}), 6).await;
        }
        Story::NeverSent => {
            let faults = DialFaults {
                error_before: Fault::next(2),
                ..DialFaults::default()
            };
            plain(&case, faulty(faults), &[], 5, json!({}), 5).await;
        }
        Story::Retry => retried(&case).await,
        Story::Machine => {
            let machines = all(OutcomeMix {
                machine: 1.0,
                ..OutcomeMix::NONE
            });
            let more = json!({ "machineDetection": true });
            plain(&case, machines, &[], 6, more, 6).await;
        }
        Story::Unheard => plain(&case, unheard(), &[], 5, json!({}), 5).await,
        Story::Long => {
            let long = SimulatorOptions {
                talk_duration_ms: MsRange::exactly(5_000),
                ..carrier()
            };
            plain(&case, long, &[], 3, json!({}), 3).await;
        }
        Story::Unlisted => {
            let settings = [("MAX_ONGOING_TIME", "60000")];
            plain(&case, unheard(), &settings, 2, json!({}), 2).await;
        }
        Story::Condemned => condemned(&case).await,
        Story::NoCredit => no_credit(&case).await,
        Story::Frozen(first) => frozen(&case, first).await,
        Story::PausedMeanwhile(first) => paused_meanwhile(&case, first).await,
        Story::Command(commands) => command(&case, commands).await,
        Story::Adopted(first) => adopted(&case, first).await,
        Story::Scheduled => scheduled(&case).await,
        Story::Stopped => stopped(&case).await,
        Story::Unanswerable => unanswerable(&case).await,
        Story::Import => import(&case).await,
        Story::Once => once(&case).await,
        Story::SingleCall => single_call(&case).await,
        Story::HungUp => hung_up(&case).await,
        Story::Skipped => skipped(&case).await,
        Story::ColdBot => cold_bot(&case).await,
        Story::Unmatched => unmatched(&case).await,
        Story::Ghost => ghost(&case).await,
        Story::Reopened => reopened(&case).await,
    }
}

/// Everybody answered, and heard what was to be said or, while no process lived that could have told it, nothing.
#[track_caller]
fn spoke(progress: &Value, people: i64) {
    let count = |outcome: &str| progress["final"][outcome].as_i64().unwrap();
    let answered = count("answered") + count("config_error");
    assert_eq!(answered, people, "{progress}");
}

/// Calls that live long enough to be caught.
fn carrier() -> SimulatorOptions {
    SimulatorOptions {
        ring_duration_ms: MsRange { min: 10, max: 40 },
        talk_duration_ms: MsRange { min: 50, max: 150 },
        ..quick_carrier()
    }
}

/// All calls end like this; a machine is known at once.
fn all(outcome_mix: OutcomeMix) -> SimulatorOptions {
    SimulatorOptions {
        outcome_mix,
        machine_detection_ms: MsRange::exactly(20),
        ..carrier()
    }
}

fn faulty(dial_faults: DialFaults) -> SimulatorOptions {
    SimulatorOptions {
        dial_faults,
        ..carrier()
    }
}

/// A carrier whose hangup webhooks are all lost.
fn unheard() -> SimulatorOptions {
    SimulatorOptions {
        webhook_faults: WebhookFaults {
            hangup: EventFaults {
                lost: Fault::ALWAYS,
                ..EventFaults::default()
            },
            ..WebhookFaults::default()
        },
        ..carrier()
    }
}

/// The driver dies in its campaign of `contacts`, a process that is started afterwards goes on, and `calls` are made in all.
async fn plain(
    case: &Case,
    carrier: SimulatorOptions,
    settings: &[(&str, &str)],
    contacts: usize,
    more: Value,
    calls: u64,
) {
    let mut scene = Scene::start(case, carrier, settings, "").await;
    scene.begin(contacts, more).await;
    scene.dies(case).await;
    let _heir = scene.heir().await;
    let campaign = scene.campaign().await;
    let progress = scene.completes(&campaign).await;
    assert_eq!(progress["uncertain"], 0, "{progress}");
    scene.dialed(calls, contacts);
    scene.world.until_idle().await;
}

async fn beside(case: &Case) {
    let mut scene = Scene::start(case, carrier(), &[], "").await;
    let heir = scene.other().await;
    heir.until_ready().await;
    scene.begin(10, json!({})).await;
    scene.dies(case).await;
    scene.world.balancer.add(heir.address);
    let campaign = scene.campaign().await;
    let progress = scene.completes(&campaign).await;
    spoke(&progress, 10);
    scene.dialed(10, 10);
    scene.world.until_idle().await;
}

async fn condemned(case: &Case) {
    let mut scene = Scene::start(case, carrier(), &[], "").await;
    let list = scene.operator.list_of(0, 5).await;
    let broken = json!({ "callerIds": ["+12025550177"] });
    scene.world.simulator.patch_options(&broken).unwrap();
    scene.begin_with(&list, json!({})).await;
    scene.dies(case).await;
    let _heir = scene.heir().await;
    let campaign = scene.campaign().await;
    scene.operator.until_status(&campaign, "paused").await;
    let mended = json!({ "callerIds": [] });
    scene.world.simulator.patch_options(&mended).unwrap();
    scene.operator.command(&campaign, "resume").await.ok();
    let progress = scene.completes(&campaign).await;
    spoke(&progress, 5);
    scene.dialed(5, 5);
    scene.world.until_idle().await;
}

async fn no_credit(case: &Case) {
    let broke = SimulatorOptions {
        out_of_credit: true,
        ..carrier()
    };
    let mut scene = Scene::start(case, broke, &[], "").await;
    let pacing = json!({ "pacing": { "intervalMs": 200 } });
    scene.begin(10, pacing).await;
    scene.dies(case).await;
    let _heir = scene.heir().await;
    let campaign = scene.campaign().await;
    scene.operator.until_status(&campaign, "paused").await;
    let mended = json!({ "outOfCredit": false });
    scene.world.simulator.patch_options(&mended).unwrap();
    scene.operator.command(&campaign, "resume").await.ok();
    scene.completes(&campaign).await;
    scene.dialed(10, 10);
    scene.world.until_idle().await;
}

async fn frozen(case: &Case, first: &str) {
    // Longer than a permission lasts and half of this time, after which an intent is made new, and shorter than it lives.
    let settings = [("MAX_PROCESSED_TIME", "4000")];
    let mut scene = Scene::start(case, carrier(), &settings, first).await;
    scene.begin(8, json!({})).await;
    let point = first.split('/').next().unwrap();
    scene.freezes(point, Duration::from_millis(2_500)).await;
    scene.dies(case).await;
    let _heir = scene.heir().await;
    let campaign = scene.campaign().await;
    let progress = scene.completes(&campaign).await;
    spoke(&progress, 8);
    scene.dialed(8, 8);
    scene.world.until_idle().await;
}

async fn paused_meanwhile(case: &Case, first: &str) {
    let mut scene = Scene::start(case, carrier(), &[], first).await;
    scene.begin(8, json!({})).await;
    scene.is_frozen(first.split('/').next().unwrap()).await;
    // The frozen one takes connections and answers none of them; nor does it on those that are open.
    scene.world.balancer.remove(scene.doomed.address);
    scene.operator = Api::new(&scene.operator.base, scene.operator.key());
    let _heir = scene.heir().await;
    let campaign = scene.campaign().await;
    scene.operator.command(&campaign, "pause").await.ok();
    scene.thaw().await;
    scene.dies(case).await;
    scene.operator.command(&campaign, "resume").await.ok();
    let progress = scene.completes(&campaign).await;
    spoke(&progress, 8);
    scene.dialed(8, 8);
    scene.world.until_idle().await;
}

async fn command(case: &Case, commands: &[&str]) {
    let mut scene = Scene::start(case, carrier(), &[], "").await;
    scene
        .begin(12, json!({ "pacing": { "intervalMs": 100 } }))
        .await;
    let campaign = scene.campaign().await;
    until("some calls were made", async || {
        scene.world.simulator.stats().accepted >= 3
    })
    .await;
    for command in commands {
        let reply = scene.operator.command(&campaign, command).await;
        assert!([200, 502].contains(&reply.status), "{reply:?}");
    }
    scene.dies(case).await;
    let _heir = scene.heir().await;
    // Nobody heard an answer: who asks again is told the truth.
    let last = commands.last().unwrap();
    let reply = scene.operator.command(&campaign, last).await.ok();
    match *last {
        "pause" => assert_eq!(reply["campaign"]["status"], "paused"),
        "resume" => assert_eq!(reply["campaign"]["status"], "running"),
        _ => assert_eq!(reply["campaign"]["status"], "cancelled"),
    }
    if *last == "cancel" {
        scene.world.until_idle().await;
        let dialed = scene.world.simulator.stats().accepted;
        scene.dialed(dialed, usize::try_from(dialed).unwrap());
        until("nothing is left open", async || {
            let progress = scene.operator.progress(&campaign).await;
            crate::helpers::judge::assert_adds_up(&progress);
            progress["inFlight"] == 0
        })
        .await;
        return;
    }
    scene.operator.command(&campaign, "resume").await.ok();
    let progress = scene.completes(&campaign).await;
    spoke(&progress, 12);
    scene.dialed(12, 12);
    scene.world.until_idle().await;
}

async fn adopted(case: &Case, first: &'static str) {
    let point = first.split('/').next().unwrap();
    let first_case = Case {
        point,
        pass: 3,
        ..*case
    };
    let mut scene = Scene::start(&first_case, carrier(), &[], "").await;
    scene.begin(8, json!({})).await;
    scene.dies(&first_case).await;
    let step = format!("{}/{}", case.point, case.pass);
    scene.doomed = scene.other_with(&[("CRASH_POINTS", step.as_str())]).await;
    scene.dies(case).await;
    let _heir = scene.heir().await;
    let campaign = scene.campaign().await;
    let progress = scene.completes(&campaign).await;
    spoke(&progress, 8);
    scene.dialed(8, 8);
    scene.world.until_idle().await;
}

async fn scheduled(case: &Case) {
    let mut scene = Scene::start(case, carrier(), &[], "").await;
    let at = chrono::DateTime::from_timestamp_millis(crate::helpers::judge::now_ms() + 1_500);
    let at = at.unwrap();
    scene
        .begin(5, json!({ "scheduledAt": at.to_rfc3339() }))
        .await;
    scene.dies(case).await;
    let _heir = scene.heir().await;
    let campaign = scene.campaign().await;
    let progress = scene.completes(&campaign).await;
    spoke(&progress, 5);
    let calls = scene.world.simulator.calls();
    let first = calls.iter().map(|call| call.requested_at_ms).min();
    assert!(first.unwrap() >= at.timestamp_millis());
    scene.dialed(5, 5);
    scene.world.until_idle().await;
}

async fn stopped(case: &Case) {
    let mut scene = Scene::start(case, carrier(), &[], "").await;
    scene
        .begin(10, json!({ "pacing": { "intervalMs": 50 } }))
        .await;
    until("some calls were made", async || {
        scene.world.simulator.stats().accepted >= 3
    })
    .await;
    scene.doomed.process.signal("TERM").await;
    scene.dies(case).await;
    let _heir = scene.heir().await;
    let campaign = scene.campaign().await;
    let progress = scene.completes(&campaign).await;
    spoke(&progress, 10);
    scene.dialed(10, 10);
    scene.world.until_idle().await;
}

async fn unanswerable(case: &Case) {
    let carrier = SimulatorOptions {
        lookup_faults: LookupFaults {
            unavailable: Fault::ALWAYS,
            ..LookupFaults::default()
        },
        ..unheard()
    };
    let settings = [
        ("MAX_ONGOING_TIME", "500"),
        ("CALL_TIMEOUT_MINUTES", "0.01"),
    ];
    let mut scene = Scene::start(case, carrier, &settings, "").await;
    scene.begin(4, json!({})).await;
    scene.dies(case).await;
    let _heir = scene.heir().await;
    let campaign = scene.campaign().await;
    let progress = scene.completes(&campaign).await;
    assert_eq!(progress["uncertain"], 4, "{progress}");
    scene.dialed(4, 4);
    scene.world.until_idle().await;
}

async fn import(case: &Case) {
    let mut scene = Scene::start(case, carrier(), &[], "").await;
    let rows: String = (0..6)
        .map(|index| format!("{},Ann\n", contact(index)))
        .collect();
    let file = format!("number,firstName\n{rows}nobody,Ann\n");
    let reply = scene.operator.upload("first", &file).await;
    assert_eq!(reply.status, 502, "{reply:?}");
    scene.dies(case).await;
    let _heir = scene.heir().await;
    let lists = scene.operator.get("/v1/lists").await.ok();
    let list = &lists["items"][0];
    // Whole or not at all.
    if case.point == "import.after_last_write" {
        assert_eq!(
            (&list["status"], &list["accepted"], &list["rejected"]),
            (&json!("ready"), &json!(6), &json!(1))
        );
    } else {
        assert_eq!(list["status"], "importing", "{list}");
        let id = list["id"].as_str().unwrap();
        let body = scene.prepare(id, &json!({})).clone();
        let refused = scene.operator.post("/v1/campaigns", &body).await;
        assert_eq!(refused.status, 409, "{refused:?}");
    }
    let again = scene.operator.upload("second", &file).await.created();
    assert_eq!(
        (&again["status"], &again["accepted"]),
        (&json!("ready"), &json!(6))
    );
    scene
        .begin_with(again["id"].as_str().unwrap(), json!({}))
        .await;
    let campaign = scene.campaign().await;
    let progress = scene.completes(&campaign).await;
    spoke(&progress, 6);
    scene.dialed(6, 6);
    scene.world.until_idle().await;
}

/// Lets a minute pass for the records of idempotency keys.
async fn let_a_minute_pass(scene: &Scene) {
    let database = &scene.world.database;
    let client = crate::helpers::mongod::client(&database.uri).await;
    let past = DateTime::from_millis(DateTime::now().timestamp_millis() - 61_000);
    client
        .database(&database.name)
        .collection::<Document>("idempotencyKeys")
        .update_many(doc! {}, doc! { "$set": { "heldAt": past } })
        .await
        .unwrap();
    client.shutdown().immediate(true).await;
}

async fn once(case: &Case) {
    let mut scene = Scene::start(case, carrier(), &[], "").await;
    let list = scene.operator.list_of(0, 6).await;
    let body = scene.prepare(&list, &json!({})).clone();
    let reply = scene.post_once("/v1/campaigns", &body).await;
    assert_eq!(reply.status, 502, "{reply:?}");
    scene.dies(case).await;
    let _heir = scene.heir().await;
    if case.point != "idempotency.after_keeping" {
        let early = scene.post_once("/v1/campaigns", &body).await;
        assert_eq!(early.status, 409, "{early:?}");
        assert!(early.headers.contains_key("retry-after"));
        let_a_minute_pass(&scene).await;
    }
    let created = scene.post_once("/v1/campaigns", &body).await.created();
    let campaign = scene.campaign().await;
    assert_eq!(created["id"], campaign.as_str());
    let progress = scene.completes(&campaign).await;
    spoke(&progress, 6);
    scene.dialed(6, 6);
    scene.world.until_idle().await;
}

async fn single_call(case: &Case) {
    let mut scene = Scene::start(case, carrier(), &[], "").await;
    let body = json!({
        "to": contact(0), "from": FROM, "answer": { "type": "speak", "text": "Hello" },
    });
    let reply = scene.post_once("/v1/calls", &body).await;
    assert_eq!(reply.status, 502, "{reply:?}");
    scene.dies(case).await;
    let _heir = scene.heir().await;
    let_a_minute_pass(&scene).await;
    let call = scene.post_once("/v1/calls", &body).await.created();
    let path = format!("/v1/calls/{}", call["id"].as_str().unwrap());
    let mut last = Value::Null;
    until("it is known what became of the call", async || {
        last = scene.operator.get(&path).await.ok();
        last["outcome"].is_string()
    })
    .await;
    let all = scene.operator.get("/v1/calls").await.ok();
    assert_eq!(all["items"].as_array().unwrap().len(), 1, "{all}");
    let dialed = scene.world.simulator.stats().accepted;
    let expected = if dialed == 1 {
        "answered"
    } else {
        "carrier_error"
    };
    assert_eq!(last["outcome"], expected, "{last}");
    scene.dialed(dialed, usize::try_from(dialed).unwrap());
    scene.world.until_idle().await;
}

async fn retried(case: &Case) {
    let busy = all(OutcomeMix {
        busy: 1.0,
        ..OutcomeMix::NONE
    });
    let retry =
        json!({ "retry": { "maxAttempts": 2, "delaysSeconds": [1], "outcomes": ["busy"] } });
    plain(case, busy, &[], 5, retry, 10).await;
}

async fn hung_up(case: &Case) {
    // One call a second leaves the carrier's queue.
    let carrier = SimulatorOptions {
        cps: 1,
        ..carrier()
    };
    let settings = [("CALL_TIMEOUT_MINUTES", "30")];
    let mut scene = Scene::start(case, carrier, &settings, "").await;
    scene.begin(4, json!({})).await;
    // Whoever is the last in the queue; should it be over before the order comes (409), the next one.
    until("the process dies of an order", async || {
        let calls = scene.operator.live_calls().await;
        let Some(last) = calls.iter().find(|call| call["status"] == "queued") else {
            return false;
        };
        let path = format!("/v1/calls/{}/hangup", last["id"].as_str().unwrap());
        scene.operator.post(&path, &json!({})).await.status == 502
    })
    .await;
    scene.dies(case).await;
    let _heir = scene.heir().await;
    let campaign = scene.campaign().await;
    let progress = scene.completes(&campaign).await;
    let ends = nonzero(&progress["final"]);
    assert_eq!(ends.values().sum::<i64>(), 4, "{progress}");
    scene.dialed(4, 4);
    scene.world.until_idle().await;
}

async fn skipped(case: &Case) {
    let mut scene = Scene::start(case, carrier(), &[], "").await;
    // Nobody's time zone is known, so nobody may be called.
    let window = json!({ "window": {
        "days": ["mon", "tue", "wed", "thu", "fri", "sat", "sun"],
        "start": "09:00", "end": "20:00", "timeZone": "contact",
    } });
    scene.begin(6, window).await;
    scene.dies(case).await;
    let _heir = scene.heir().await;
    let campaign = scene.campaign().await;
    let progress = scene.completes(&campaign).await;
    assert_eq!(
        nonzero(&progress["skipped"]),
        [("window_closed".to_owned(), 6)].into(),
        "{progress}"
    );
    scene.dialed(0, 0);
    scene.world.until_idle().await;
}

async fn cold_bot(case: &Case) {
    // Nobody listens at the carrier's path of that name.
    let settings = [
        ("BOT_WARMUP_RETRIES", "0"),
        ("BOT_WARMUP_TIMEOUT", "500"),
        ("FAILED_CALL_RATE_THRESHOLD", "100"),
    ];
    let mut scene = Scene::start(case, carrier(), &settings, "").await;
    let bot = format!("{}/no-bot", scene.world.simulator.base_url());
    scene.begin(3, json!({ "warmupUrl": bot })).await;
    scene.dies(case).await;
    let _heir = scene.heir().await;
    let campaign = scene.campaign().await;
    let progress = scene.completes(&campaign).await;
    assert_eq!(progress["final"]["bot_not_ready"], 3, "{progress}");
    scene.dialed(0, 0);
    scene.world.until_idle().await;
}

/// Sends a webhook as the carrier would; answers the status, 502 without an answer.
async fn tell_of(scene: &Scene, path: &str, fields: &[(&str, &str)]) -> u16 {
    let base = &scene.operator.base;
    let form: Vec<(String, String)> = fields
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    let nonce = "98765432109876543210";
    let signature = sign_v3(
        "POST",
        &format!("{base}{path}"),
        &form,
        nonce,
        &carrier_token(),
    );
    let carrier = crate::helpers::app::Api::new(base, "");
    let request = carrier
        .request(reqwest::Method::POST, path)
        .header(NONCE_HEADER, nonce)
        .header(SIGNATURE_HEADER, signature)
        .form(&form);
    carrier.send(request).await.status
}

async fn unmatched(case: &Case) {
    let mut scene = Scene::start(case, carrier(), &[], "").await;
    let form = [
        ("CallStatus", "busy"),
        ("CallUUID", "00000000-dead-beef-0000-000000000000"),
        ("Event", "Hangup"),
        ("HangupCauseCode", "3010"),
    ];
    let status = tell_of(&scene, "/plivo/hangup-url", &form).await;
    assert!([200, 502].contains(&status), "{status}");
    scene.dies(case).await;
    let _heir = scene.heir().await;
    assert_eq!(tell_of(&scene, "/plivo/hangup-url", &form).await, 200);
    let database = &scene.world.database;
    let client = crate::helpers::mongod::client(&database.uri).await;
    let kept = client
        .database(&database.name)
        .collection::<Document>("unmatchedWebhooks");
    assert_eq!(kept.count_documents(doc! {}).await.unwrap(), 1);
    client.shutdown().immediate(true).await;
}

async fn ghost(case: &Case) {
    let long = SimulatorOptions {
        talk_duration_ms: MsRange::exactly(3_000),
        ..carrier()
    };
    let mut scene = Scene::start(case, long, &[], "").await;
    scene.begin(2, json!({})).await;
    until("they talk", async || {
        scene.world.simulator.stats().answered == 2
    })
    .await;
    let call = scene.world.simulator.calls()[0].params["call"].clone();
    let path = format!("/plivo/ring-url?call={call}&dial=7");
    let form = [
        ("CallStatus", "ringing"),
        ("CallUUID", "00000000-dead-beef-0000-000000000000"),
        ("Event", "Ring"),
    ];
    let status = tell_of(&scene, &path, &form).await;
    assert!([200, 502].contains(&status), "{status}");
    scene.dies(case).await;
    let _heir = scene.heir().await;
    assert_eq!(tell_of(&scene, &path, &form).await, 200);
    let campaign = scene.campaign().await;
    let progress = scene.completes(&campaign).await;
    spoke(&progress, 2);
    scene.dialed(2, 2);
    scene.world.until_idle().await;
}

async fn reopened(case: &Case) {
    let mut scene = Scene::start(case, carrier(), &[], "").await;
    let more = json!({
        "pacing": { "intervalMs": 6_000 },
        "retry": { "maxAttempts": 2, "delaysSeconds": [1], "outcomes": ["voicemail"] },
    });
    scene.begin(2, more).await;
    let campaign = scene.campaign().await;
    until("the first call is over", async || {
        scene.operator.progress(&campaign).await["final"]["answered"] == 1
    })
    .await;
    let record = scene.world.simulator.calls().remove(0);
    let path = format!("/plivo/machine-url?call={}&dial=1", record.params["call"]);
    let uuid = record.request_uuid.unwrap();
    let form = [
        ("CallStatus", "in-progress"),
        ("CallUUID", uuid.as_str()),
        ("Event", "MachineDetection"),
        ("Machine", "true"),
    ];
    assert_eq!(tell_of(&scene, &path, &form).await, 502);
    scene.dies(case).await;
    let _heir = scene.heir().await;
    // A campaign that is over makes no further attempt: it must not end before the webhook is taken.
    scene.operator.command(&campaign, "pause").await.ok();
    // Until the server gives the dead process's transaction up, it is answered 5xx and delivered again.
    until("it is taken", async || {
        let status = tell_of(&scene, &path, &form).await;
        assert!([200, 503].contains(&status), "{status}");
        status == 200
    })
    .await;
    scene.operator.command(&campaign, "resume").await.ok();
    let progress = scene.completes(&campaign).await;
    spoke(&progress, 2);
    scene.dialed(3, 2);
    scene.world.until_idle().await;
}
