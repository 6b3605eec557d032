//! kill -9 of the driving process in mid-campaign, again and again: nobody is dialed twice, nobody is lost, no slot leaks,
//! the counts add up all the while, and another process goes on in time (promises P2, P3, P4, P9, P10).

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ringmaster::simulator::{
    DialFaults, EventFaults, Fault, MsRange, OutcomeMix, SimulatorOptions, WebhookFaults,
};
use serde_json::json;

use crate::helpers::app::{World, quick_carrier, until};
use crate::helpers::judge::assert_adds_up;
use crate::helpers::process::Served;

const CONTACTS: usize = 160;
const KILLS: u64 = 3;
/// `ORPHAN_DETECTION_THRESHOLD` of a world.
const THRESHOLD: Duration = Duration::from_secs(2);
/// The longest pause between two scans for orphans.
const SCAN: Duration = Duration::from_millis(840);
/// What a machine may add that runs other tests and a compiler at the same time.
const MARGIN: Duration = Duration::from_secs(5);

/// Calls that live long enough to be caught by a crash, and some dial requests that are caught on their way: before the
/// carrier has taken them up, and before it has answered.
fn carrier() -> SimulatorOptions {
    let sometimes = Fault {
        probability: 0.3,
        next: 0,
    };
    SimulatorOptions {
        ring_duration_ms: MsRange { min: 10, max: 40 },
        talk_duration_ms: MsRange { min: 50, max: 150 },
        dial_faults: DialFaults {
            slow_before: sometimes,
            slow_after: sometimes,
            slow_ms: 80,
            ..DialFaults::default()
        },
        ..quick_carrier()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_again_and_again_each_contact_is_dialed_once() {
    let world = World::new("crash", carrier()).await;
    let mut processes = vec![world.process(&[]).await, world.process(&[]).await];
    let (client, operator) = world
        .client(json!({ "name": "Acme", "maxConcurrentCalls": 8 }))
        .await;
    let list = operator.list_of(0, CONTACTS).await;
    let campaign = operator.campaign(&list, json!({})).await;
    let done = AtomicBool::new(false);
    let crashes = async {
        for kill in 0..KILLS {
            kill_the_driver(&world, &mut processes, &campaign).await;
            if kill + 1 < KILLS {
                processes.push(world.process(&[]).await);
            }
        }
        let progress = operator.until_status(&campaign, "completed").await;
        done.store(true, Ordering::SeqCst);
        progress
    };
    let (reads, progress) = tokio::join!(watch(&world, &campaign, &done), crashes);

    assert!(reads > 10, "progress was hardly ever read");
    assert_adds_up(&progress);
    let left = ["pending", "waitingRetry", "inFlight"].map(|name| progress[name].as_u64());
    assert_eq!(left, [Some(0); 3], "{progress}");
    world.assert_each_dialed_once(CONTACTS);
    world.until_idle().await;
    let stats = world.simulator.stats();
    assert!(stats.by_client[&client].peak_live <= 8, "{stats:?}");
    let utilization = operator.get("/v1/utilization").await.ok();
    assert_eq!(utilization["clients"][0]["active"], 0, "{utilization}");
}

/// Kills the process that drives, at a random moment soon, and sees the other one adopt the campaign in time.
async fn kill_the_driver(world: &World, processes: &mut Vec<Served>, campaign: &str) {
    let after = world.simulator.stats().accepted + rand::random_range(5..35);
    until("some calls were dialed", async || {
        world.simulator.stats().accepted >= after
    })
    .await;
    tokio::time::sleep(Duration::from_millis(rand::random_range(0..40))).await;
    let driver = driver(processes, campaign).await;
    let mut killed = processes.remove(driver);
    killed.process.signal("KILL").await;
    let killed_at = Instant::now();
    world.balancer.remove(killed.address);
    assert_eq!(killed.process.exit().await, 128 + 9);

    let (admin, heir) = (processes[0].admin(), processes[0].container().await);
    until("the survivor drives", async || {
        admin.progress(campaign).await["driver"]["containerId"] == heir.as_str()
    })
    .await;
    let took = killed_at.elapsed();
    assert!(took <= THRESHOLD + SCAN + MARGIN, "adopted after {took:?}");
}

/// Killed between the carrier's acceptance and its answer, and no webhook ever comes: nobody here knows whether the carrier
/// took the calls. They are not dialed again; the carrier is asked.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_before_the_carriers_answer_the_call_is_found_again() {
    let options = SimulatorOptions {
        // They never ring: but for the end, which is not told, there is nothing to tell.
        outcome_mix: OutcomeMix {
            busy: 1.0,
            ..OutcomeMix::NONE
        },
        dial_faults: DialFaults {
            slow_after: Fault::ALWAYS,
            slow_ms: 5_000,
            ..DialFaults::default()
        },
        webhook_faults: WebhookFaults {
            hangup: EventFaults {
                lost: Fault::ALWAYS,
                ..EventFaults::default()
            },
            ..WebhookFaults::default()
        },
        ..quick_carrier()
    };
    let world = World::new("crash-ambiguous", options).await;
    let mut doomed = world.process(&[]).await;
    let survivor = Served::start(world.settings(&[])).await;
    survivor.until_ready().await;
    let (_, operator) = world
        .client(json!({ "name": "Acme", "maxConcurrentCalls": 3 }))
        .await;
    let list = operator.list_of(0, 3).await;
    let campaign = operator.campaign(&list, json!({})).await;
    until("the carrier has all calls", async || {
        world.simulator.stats().accepted == 3
    })
    .await;
    doomed.process.signal("KILL").await;
    world.balancer.remove(doomed.address);
    world.balancer.add(survivor.address);

    let operator = survivor.admin();
    let progress = operator.until_status(&campaign, "completed").await;
    assert_adds_up(&progress);
    assert_eq!(progress["final"]["busy"], 3, "{progress}");
    world.assert_each_dialed_once(3);
    world.until_idle().await;
}

/// The process that drives the campaign.
async fn driver(processes: &[Served], campaign: &str) -> usize {
    let progress = processes[0].admin().progress(campaign).await;
    for (index, process) in processes.iter().enumerate() {
        if progress["driver"]["containerId"] == process.container().await.as_str() {
            return index;
        }
    }
    panic!("nobody drives: {progress}");
}

/// Reads progress all the time, through whoever answers, and checks it: by itself, and against the carrier's books. Returns
/// how often it was read.
async fn watch(world: &World, campaign: &str, done: &AtomicBool) -> usize {
    let (admin, path) = (world.admin(), format!("/v1/campaigns/{campaign}/progress"));
    let mut reads = 0;
    while !done.load(Ordering::SeqCst) {
        let accepted = world.simulator.stats().accepted;
        let reply = admin.get(&path).await;
        // A connection to a process that was just killed has no answer.
        if reply.status != 502 {
            let progress = reply.ok();
            assert_adds_up(&progress);
            assert_eq!(progress["total"], CONTACTS);
            let pending = progress["pending"].as_u64().unwrap();
            let finals = progress["final"].as_object().unwrap().values();
            let over: u64 = finals.map(|count| count.as_u64().unwrap()).sum();
            let ended = world.simulator.stats().ended;
            // The intent comes before the call, and the call's end before its outcome.
            assert!(
                CONTACTS as u64 - pending >= accepted,
                "{accepted} of {progress}"
            );
            assert!(over <= ended, "{ended} of {progress}");
            reads += 1;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    reads
}
