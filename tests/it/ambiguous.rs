//! What only the carrier can tell, and what not even the carrier tells (promises P2, P3, P10).

use std::net::SocketAddr;

use ringmaster::simulator::{
    DialFaults, EventFaults, EventKind, Fault, LookupFaults, OutcomeMix, SimulatorOptions,
    WebhookFaults,
};
use serde_json::{Value, json};
use tokio::net::{TcpSocket, TcpStream};

use crate::helpers::app::{Api, World, quick_carrier, until};
use crate::helpers::judge::{assert_adds_up, nonzero, total_of};
use crate::helpers::proxy::{Proxy, Way};

const LOST: EventFaults = EventFaults {
    lost: Fault::ALWAYS,
    ..NO_FAULT
};
const NO_FAULT: EventFaults = EventFaults {
    lost: Fault::next(0),
    duplicated: Fault::next(0),
    delayed: Fault::next(0),
    delay_ms: ringmaster::simulator::MsRange::exactly(0),
    reordered: Fault::next(0),
};

/// Every hangup webhook is lost.
fn no_hangups() -> WebhookFaults {
    WebhookFaults {
        hangup: LOST,
        ..WebhookFaults::default()
    }
}

fn carrier_address(world: &World) -> SocketAddr {
    let base = world.simulator.base_url();
    base.strip_prefix("http://").unwrap().parse().unwrap()
}

fn event_names(call: &Value) -> Vec<&str> {
    let events = call["events"].as_array().unwrap().iter();
    events.map(|line| line["event"].as_str().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nobody_told_us_is_learned_from_the_carrier() {
    // Dialed, though it answered 5xx; busy, so that nothing rings; and the hangup is lost: no word ever reaches us.
    let carrier = SimulatorOptions {
        dial_faults: DialFaults {
            error_after: Fault::ALWAYS,
            ..DialFaults::default()
        },
        outcome_mix: OutcomeMix {
            busy: 1.0,
            ..OutcomeMix::NONE
        },
        webhook_faults: no_hangups(),
        ..quick_carrier()
    };
    let world = World::new("untold", carrier).await;
    let (_one, _two) = (world.container(&[]).await, world.container(&[]).await);
    let (_, operator) = world.client(json!({ "name": "Acme" })).await;
    let campaign = operator
        .campaign(&operator.list_of(0, 12).await, json!({}))
        .await;
    let progress = operator.until_status(&campaign, "completed").await;
    assert_eq!(progress["final"]["busy"], 12, "{progress}");
    assert_eq!(world.simulator.stats().requests, 12);
    world.assert_each_dialed_once(12);
    for call in operator.calls_of(&campaign).await {
        assert_eq!(event_names(&call), ["record"], "{call}");
        assert_eq!(call["hangup"]["code"], 3010);
    }
    world.until_idle().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_takes_long_is_not_taken_for_never_sent() {
    // Longer than a dial that the carrier does not know is waited for here (three times MAX_PROCESSED_TIME).
    let carrier = SimulatorOptions {
        dial_faults: DialFaults {
            slow_before: Fault::next(3),
            slow_ms: 6000,
            ..DialFaults::default()
        },
        ..quick_carrier()
    };
    let world = World::new("hanging", carrier).await;
    let _container = world.container(&[]).await;
    let (_, operator) = world.client(json!({ "name": "Acme" })).await;
    let campaign = operator
        .campaign(&operator.list_of(0, 8).await, json!({}))
        .await;
    until("the others are through", async || {
        world.simulator.stats().ended == 5
    })
    .await;
    let progress = operator.until_status(&campaign, "completed").await;
    assert_eq!(progress["final"]["answered"], 8, "{progress}");
    until("every request was carried out", async || {
        let stats = world.simulator.stats();
        stats.requests == stats.accepted + stats.refused
    })
    .await;
    world.assert_each_dialed_once(8);
    world.until_idle().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_carrier_cannot_be_asked_about_is_uncertain_and_listed() {
    let carrier = SimulatorOptions {
        webhook_faults: no_hangups(),
        lookup_faults: LookupFaults {
            unavailable: Fault::ALWAYS,
            ..LookupFaults::default()
        },
        ..quick_carrier()
    };
    let world = World::new("uncertain", carrier).await;
    let settings = [
        ("MAX_ONGOING_TIME", "500"),
        ("CALL_TIMEOUT_MINUTES", "0.01"),
    ];
    let _container = world.container(&settings).await;
    let (_, operator) = world.client(json!({ "name": "Acme" })).await;
    let retry = json!({ "retry": { "maxAttempts": 3, "delaysSeconds": [1], "outcomes": ["busy", "no_answer"] } });
    let campaign = operator
        .campaign(&operator.list_of(0, 4).await, retry)
        .await;
    let progress = operator.until_status(&campaign, "completed").await;
    assert_adds_up(&progress);
    assert_eq!(progress["uncertain"], 4, "{progress}");
    assert_eq!(total_of(&progress["final"]), 0, "{progress}");
    let path = format!("/v1/campaigns/{campaign}/calls?outcome=uncertain");
    let listed = operator.get(&path).await.ok();
    assert_eq!(listed["items"].as_array().unwrap().len(), 4);
    world.until_idle().await;
    world.assert_each_dialed_once(4);

    // A word that comes after all is stronger than our giving up.
    let uuid = world.simulator.calls().remove(0).request_uuid.unwrap();
    let told = world.simulator.replay(&uuid, EventKind::Hangup).await;
    assert_eq!(told.unwrap(), Some(200));
    let progress = operator.progress(&campaign).await;
    assert_adds_up(&progress);
    assert_eq!(progress["uncertain"], 3);
    assert_eq!(progress["final"]["answered"], 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ghost_is_not_taken_for_the_dial_after_it() {
    // Taken up so late that the dial is withdrawn before.
    let carrier = SimulatorOptions {
        dial_faults: DialFaults {
            slow_before: Fault::next(1),
            slow_ms: 8000,
            ..DialFaults::default()
        },
        ..quick_carrier()
    };
    let world = World::new("ghost", carrier).await;
    let way = Way::Through(carrier_address(&world));
    let gate = Proxy::start(way).await;
    let base = format!("http://{}", gate.address);
    let _container = world.container(&[("PLIVO_API_BASE", &base)]).await;
    let (_, operator) = world.client(json!({ "name": "Acme" })).await;
    let campaign = operator
        .campaign(&operator.list_of(0, 1).await, json!({}))
        .await;
    until("the dial is on its way", async || {
        world.simulator.stats().requests == 1
    })
    .await;
    gate.set(Way::Closed);
    gate.set(way);
    operator.command(&campaign, "pause").await.ok();
    until("the dial is withdrawn", async || {
        operator.calls_of(&campaign).await[0]["status"] == "waiting"
    })
    .await;
    until("it has come and gone as a ghost", async || {
        world.simulator.stats().ended == 1
    })
    .await;

    // The next dial leaves no call and no word: all that the carrier knows for this number is the ghost.
    let reset = json!({ "dialFaults": { "resetBefore": { "next": 1 } } });
    world.simulator.patch_options(&reset).unwrap();
    operator.command(&campaign, "resume").await.ok();
    operator.until_status(&campaign, "completed").await;
    let dials = world.simulator.calls();
    let accepted: Vec<bool> = dials.iter().map(|dial| dial.accepted).collect();
    assert_eq!(accepted, [true, false, true]);
    let calls = operator.calls_of(&campaign).await;
    assert_eq!(calls.len(), 1);
    assert_eq!(
        calls[0]["callUUID"].as_str(),
        dials[2].request_uuid.as_deref()
    );
    assert_eq!(calls[0]["outcome"], "answered");
    world.until_idle().await;
}

/// A campaign that began while the carrier was away completes, with everybody dialed once, when the carrier is back.
async fn goes_on_when_the_carrier_is_back(world: &World, operator: &Api, back: impl AsyncFnOnce()) {
    let campaign = operator
        .campaign(&operator.list_of(0, 8).await, json!({}))
        .await;
    until("a dial has failed", async || {
        let progress = operator.progress(&campaign).await;
        assert_adds_up(&progress);
        progress["waitingRetry"] != 0 || progress["inFlight"] != 0
    })
    .await;
    assert_eq!(world.simulator.stats().requests, 0);
    back().await;
    let progress = operator.until_status(&campaign, "completed").await;
    assert_eq!(progress["final"]["answered"], 8, "{progress}");
    world.assert_each_dialed_once(8);
    world.until_idle().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_carrier_that_closes_connections_is_waited_for() {
    let world = World::new("closed", quick_carrier()).await;
    let gate = Proxy::start(Way::Closed).await;
    let base = format!("http://{}", gate.address);
    let settings = [
        ("PLIVO_API_BASE", base.as_str()),
        ("CALL_TIMEOUT_MINUTES", "2"),
    ];
    let _container = world.container(&settings).await;
    let (_, operator) = world.client(json!({ "name": "Acme" })).await;
    let way = Way::Through(carrier_address(&world));
    goes_on_when_the_carrier_is_back(&world, &operator, async || gate.set(way)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_carrier_that_refuses_connections_is_waited_for() {
    let world = World::new("refused", quick_carrier()).await;
    // Bound and not yet listening: nobody else gets the port, and connections are refused.
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let base = format!("http://{}", socket.local_addr().unwrap());
    let settings = [
        ("PLIVO_API_BASE", base.as_str()),
        ("CALL_TIMEOUT_MINUTES", "2"),
    ];
    let _container = world.container(&settings).await;
    let (_, operator) = world.client(json!({ "name": "Acme" })).await;
    let carrier = carrier_address(&world);
    let listen = async || {
        let listener = socket.listen(128).unwrap();
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let mut server = TcpStream::connect(carrier).await.unwrap();
                tokio::spawn(async move {
                    tokio::io::copy_bidirectional(&mut client, &mut server)
                        .await
                        .ok();
                });
            }
        });
    };
    goes_on_when_the_carrier_is_back(&world, &operator, listen).await;
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
