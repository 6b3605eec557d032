//! A carrier that is busy, broken, silent or away when it is asked to dial: nobody is dialed twice, nobody is lost, no slot
//! leaks (promises P2, P3, P10).

use std::net::SocketAddr;

use ringmaster::simulator::{
    DialFaults, EventFaults, Fault, MsRange, OutcomeMix, SimulatorOptions, WebhookFaults,
};
use serde_json::{Value, json};
use tokio::net::{TcpSocket, TcpStream};

use crate::helpers::app::{Api, World, quick_carrier, until};
use crate::helpers::judge::assert_adds_up;
use crate::helpers::proxy::{Proxy, Way};

const CONTACTS: usize = 24;

/// A campaign of [`CONTACTS`] against a carrier with these faults: it completes, and the carrier dialed each contact exactly once.
async fn survives(name: &str, dial_faults: DialFaults) {
    let carrier = SimulatorOptions {
        dial_faults,
        ..quick_carrier()
    };
    let world = World::new(name, carrier).await;
    let _container = world.container(&[]).await;
    let (_, operator) = world.client(json!({ "name": "Acme" })).await;
    let campaign = operator
        .campaign(&operator.list_of(0, CONTACTS).await, json!({}))
        .await;
    let progress = operator.until_status(&campaign, "completed").await;
    assert_eq!(progress["final"]["answered"], CONTACTS, "{progress}");
    world.assert_each_dialed_once(CONTACTS);
    world.until_idle().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_carrier_that_throttles_is_given_time() {
    let faults = DialFaults {
        too_many_requests: Fault::next(3),
        ..DialFaults::default()
    };
    survives("throttle", faults).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_connection_is_never_blindly_retried() {
    let faults = DialFaults {
        reset_before: Fault::next(3),
        reset_after: Fault::next(3),
        ..DialFaults::default()
    };
    survives("reset", faults).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_time_out_after_accepting_is_found_at_the_carrier() {
    // Nothing rings and the ends are not told, so only the carrier's records know of the calls.
    let carrier = SimulatorOptions {
        dial_faults: DialFaults {
            timeout_after: Fault::next(3),
            ..DialFaults::default()
        },
        outcome_mix: OutcomeMix {
            busy: 1.0,
            ..OutcomeMix::NONE
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
    let world = World::new("timeout", carrier).await;
    let served = world.process(&[]).await;
    let (_, operator) = world.client(json!({ "name": "Acme" })).await;
    let campaign = operator
        .campaign(&operator.list_of(0, 6).await, json!({}))
        .await;
    let progress = operator.until_status(&campaign, "completed").await;
    assert_eq!(progress["final"]["busy"], 6, "{progress}");
    let known = operator.calls_of(&campaign).await;

    // Their records were found before the requests timed out, which then changes nothing.
    until("the requests time out", async || {
        let failed = served.process.logged("dial request failed");
        let is_time_out = |line: &Value| line["error"].as_str().unwrap().contains("time-out");
        assert!(failed.iter().all(is_time_out), "{failed:?}");
        failed.len() == 3
    })
    .await;
    assert_eq!(operator.calls_of(&campaign).await, known);
    assert_eq!(world.simulator.stats().requests, 6);
    world.assert_each_dialed_once(6);
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

fn carrier_address(world: &World) -> SocketAddr {
    let base = world.simulator.base_url();
    base.strip_prefix("http://").unwrap().parse().unwrap()
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
async fn a_ghost_is_hung_up_even_if_the_carrier_takes_no_orders_for_a_while() {
    // Taken up so late that the dial is withdrawn before; then it rings for a minute.
    let carrier = SimulatorOptions {
        dial_faults: DialFaults {
            slow_before: Fault::next(1),
            slow_ms: 8000,
            ..DialFaults::default()
        },
        ring_duration_ms: MsRange::exactly(60_000),
        ..quick_carrier()
    };
    let world = World::new("insisting", carrier).await;
    let way = Way::Through(carrier_address(&world));
    let gate = Proxy::start(way).await;
    let base = format!("http://{}", gate.address);
    // No sweep asks in between.
    let settings = [
        ("PLIVO_API_BASE", base.as_str()),
        ("CLEANUP_INTERVAL", "600000"),
    ];
    let _container = world.container(&settings).await;
    let (_, operator) = world.client(json!({ "name": "Acme" })).await;
    let list = operator.list_of(0, 1).await;
    let campaign = operator.campaign(&list, json!({})).await;
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
    let away = |probability: f64| json!({ "lookupFaults": { "unavailable": { "probability": probability } } });
    world.simulator.patch_options(&away(1.0)).unwrap();
    let before = world.simulator.stats().lookups;
    until("it is told to hang up, often", async || {
        world.simulator.stats().lookups >= before + 9
    })
    .await;
    assert_eq!(world.simulator.stats().live, 1);
    world.simulator.patch_options(&away(0.0)).unwrap();
    until("the ghost is gone", async || {
        world.simulator.stats().ended == 1
    })
    .await;
    let ghost = world.simulator.calls().remove(0);
    assert!(!ghost.answered, "{ghost:?}");
    world.until_idle().await;
}
