//! Each kind of violation is seen, and what is none is not taken for one.

use serde_json::json;

use super::*;
use crate::chaos::journal::Order;
use crate::simulator::{Address, Delivery, EventKind, Hangup, Moment, Refusal};

const TIMING: Timing = Timing {
    orphan: 4_000,
    heartbeat: 1_000,
    scan: 840,
    hand_over: 2_000,
    pause: 1_000,
    settle: 6_000,
};

fn hangup(code: u16, source: &'static str) -> Hangup {
    Hangup::of(code).by(source)
}

/// The dial `dial` of call `call` of campaign c1, accepted at `at`, answered and over half a second later.
fn record(call: &str, dial: &str, at: i64) -> DialRecord {
    let params = [
        ("call", call),
        ("dial", dial),
        ("campaign", "c1"),
        ("client", "k1"),
    ];
    let moment = |event, after| Moment {
        at_ms: at + after,
        event,
    };
    DialRecord {
        requested_at_ms: at,
        accepted: true,
        refusal: None,
        request_uuid: Some(format!("{call}-{dial}-{at}")),
        to: Address::from(call),
        from: Address::from("100"),
        params: params
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into(),
        status: "completed",
        answered: true,
        timeline: vec![
            moment("accepted", 0),
            moment("ringing", 100),
            moment("in-progress", 200),
            moment("completed", 500),
        ],
        hangup: Some(hangup(4000, "Callee")),
        deliveries: vec![Delivery {
            kind: EventKind::Hangup,
            at_ms: at + 510,
            attempt: 0,
            http_status: Some(200),
            error: None,
        }],
    }
}

/// The API's view of a record: answered and over.
fn known(record: &DialRecord, seq: i64) -> ApiCall {
    ApiCall {
        id: param(record, "call").to_owned(),
        uuid: record.request_uuid.clone(),
        seq,
        attempt: 1,
        status: "completed".to_owned(),
        outcome: Some("answered".to_owned()),
        start: record.requested_at_ms,
        answered: true,
        hangup_code: Some(4000),
        ..ApiCall::default()
    }
}

/// Two contacts, called one after the other.
fn facts() -> Facts {
    let records = vec![record("a", "1", 1_000), record("b", "1", 2_000)];
    let calls = records
        .iter()
        .zip(0..)
        .map(|(record, seq)| known(record, seq));
    Facts {
        campaigns: vec![Campaign {
            created: Created {
                id: "c1".to_owned(),
                client: 0,
                contacts: 2,
                max_attempts: 1,
                is_over: true,
            },
            status: "completed".to_owned(),
            progress: json!({ "pending": 0, "waitingRetry": 0, "inFlight": 0, "uncertain": 0, "final": { "answered": 2, "busy": 0 }, "skipped": {} }),
            calls: calls.collect(),
        }],
        records,
        sent: BTreeMap::new(),
        limits: vec![limit("global", 1, 0, None)],
        commands: Vec::new(),
        takeovers: Vec::new(),
        disturbances: Vec::new(),
        idle: Idle::default(),
        timing: TIMING,
    }
}

fn limit(scope: &str, calls: u64, from: i64, until: Option<i64>) -> LimitSpan {
    LimitSpan {
        scope: scope.to_owned(),
        calls,
        from,
        until,
        lingers: from,
    }
}

fn command(order: Order, sent_at: i64, done_at: i64, status: u16) -> Command {
    Command {
        campaign: "c1".to_owned(),
        order,
        sent_at,
        done_at,
        status,
    }
}

/// Which promises are broken once the facts are changed.
#[track_caller]
fn assert_broken(change: impl FnOnce(&mut Facts), expected: &[Promise]) {
    let mut facts = facts();
    change(&mut facts);
    let judgement = judge(&facts, BTreeMap::new());
    let broken: Vec<Promise> = judgement
        .checks
        .iter()
        .filter(|(_, check)| !check.violations.is_empty())
        .map(|(promise, _)| *promise)
        .collect();
    assert_eq!(broken, expected, "{:?}", judgement.checks);
}

#[test]
fn a_quiet_run_keeps_every_promise() {
    assert_broken(|_| {}, &[]);
}

#[test]
fn one_call_too_many_is_seen() {
    let at_once = |facts: &mut Facts| {
        facts.records[1] = record("b", "1", 1_300);
        facts.campaigns[0].calls[1] = known(&facts.records[1], 1);
    };
    assert_broken(at_once, &[Promise::P1]);
    // A limit that may have been read before it was lowered counts, one that was lowered long ago does not.
    let lowered = |until| {
        move |facts: &mut Facts| {
            at_once(facts);
            facts.limits.push(limit("global", 2, 0, Some(until)));
        }
    };
    assert_broken(lowered(900), &[]);
    assert_broken(lowered(100), &[Promise::P1]);
    // Raised a moment before.
    assert_broken(
        |facts| {
            at_once(facts);
            facts.limits.push(limit("global", 2, 1_290, None));
        },
        &[],
    );
    for scope in ["client/k1", "campaign/c1", "number/100"] {
        assert_broken(
            |facts| {
                at_once(facts);
                facts.limits = vec![limit(scope, 1, 0, None)];
            },
            &[Promise::P1],
        );
    }
}

#[test]
fn a_dial_sent_again_is_seen() {
    let again = |facts: &mut Facts| facts.records.push(record("a", "1", 5_000));
    assert_broken(again, &[Promise::P2]);
    // The first one's phone had rung before the attempt was dialed again.
    let redialed = |facts: &mut Facts| {
        facts.records.push(record("a", "2", 5_000));
        facts.campaigns[0].calls[0].uuid = facts.records[2].request_uuid.clone();
        facts.records[0].hangup = Some(hangup(1000, "API Request"));
    };
    assert_broken(redialed, &[Promise::P2]);
    // The carrier had taken it up so late that it said for long that it knew nothing of it.
    assert_broken(
        |facts| {
            redialed(facts);
            facts.records[0].requested_at_ms -= 6_000;
        },
        &[],
    );
}

/// The same, whose document was asked for at `at`.
fn with_document(mut record: DialRecord, at: i64) -> DialRecord {
    record.deliveries.push(Delivery {
        kind: EventKind::Answer,
        at_ms: at,
        attempt: 0,
        http_status: Some(200),
        error: None,
    });
    record
}

#[test]
fn a_ghost_may_ring_but_not_talk() {
    // The withdrawn dial 1 shows up after dial 2.
    let ghost = |end: Hangup, document_at: i64| {
        move |facts: &mut Facts| {
            let mut late = with_document(record("a", "1", 6_000), document_at);
            late.hangup = Some(end);
            facts.records[0] = record("a", "2", 1_000);
            facts.campaigns[0].calls[0] = known(&facts.records[0], 0);
            facts.records.push(late);
        }
    };
    let (in_time, late) = (6_210, 6_505);
    assert_broken(ghost(hangup(4010, "Answer XML"), in_time), &[]);
    assert_broken(ghost(hangup(1000, "API Request"), in_time), &[]);
    assert_broken(ghost(hangup(4000, "Callee"), in_time), &[Promise::P2]);
    // The carrier asked for the document after the callee had hung up: nobody said anything.
    assert_broken(ghost(hangup(4000, "Callee"), late), &[]);
}

#[test]
fn lost_contacts_and_calls_are_seen() {
    assert_broken(
        |facts| facts.campaigns[0].created.contacts = 3,
        &[Promise::P3],
    );
    assert_broken(
        |facts| facts.campaigns[0].progress["final"]["answered"] = json!(1),
        &[Promise::P3],
    );
    assert_broken(
        |facts| {
            let unknown = with_document(record("unknown", "1", 9_000), 9_210);
            facts.records.push(unknown);
        },
        &[Promise::P2, Promise::P3],
    );
    assert_broken(
        |facts| facts.idle.unfinished.push("campaign".to_owned()),
        &[Promise::P3],
    );
}

#[test]
fn a_dial_after_a_pause_is_seen() {
    let paused = |answered| {
        move |facts: &mut Facts| {
            facts
                .commands
                .push(command(Order::Pause, answered - 50, answered, 200))
        }
    };
    assert_broken(paused(999), &[Promise::P5]);
    assert_broken(paused(1_000), &[]);
    // It had left the container in time, and something of ours held it up.
    assert_broken(
        |facts| {
            paused(900)(facts);
            facts.sent.insert(("b".to_owned(), "1".to_owned()), 1_850);
        },
        &[],
    );
    // Resumed before; or a request to resume was under way.
    for (sent, done, status) in [(1_500, 1_600, 200), (880, 890, 200), (500, 600, 0)] {
        assert_broken(
            |facts| {
                paused(900)(facts);
                facts
                    .commands
                    .push(command(Order::Resume, sent, done, status));
            },
            &[],
        );
    }
}

#[test]
fn a_webhook_that_was_forgotten_is_seen() {
    let forgotten = |facts: &mut Facts| facts.campaigns[0].calls[0].hangup_code = None;
    assert_broken(forgotten, &[Promise::P6]);
    assert_broken(
        |facts| {
            forgotten(facts);
            facts.records[0].deliveries[0].http_status = Some(503);
        },
        &[],
    );
}

#[test]
fn a_late_takeover_is_seen_and_disturbances_do_not_count() {
    let takeover = |cause, seen| {
        move |facts: &mut Facts| {
            facts.takeovers.push(Takeover {
                campaign: "c1".to_owned(),
                cause,
                from: 10_000,
                seen,
                gave_up: 70_000,
            });
        }
    };
    assert_broken(takeover("killed", Some(15_840)), &[]);
    assert_broken(takeover("killed", Some(15_841)), &[Promise::P9]);
    assert_broken(takeover("stopped", Some(13_000)), &[]);
    assert_broken(takeover("stopped", Some(13_001)), &[Promise::P9]);
    assert_broken(takeover("frozen", None), &[Promise::P9]);
    assert_broken(
        |facts| {
            takeover("killed", Some(20_000))(facts);
            let overlapping = [(9_000, 13_000), (12_000, 14_500)];
            facts
                .disturbances
                .extend(overlapping.map(|(from, until)| Disturbance { from, until }));
        },
        &[],
    );
}

#[test]
fn a_leaked_slot_is_seen() {
    assert_broken(
        |facts| {
            facts.idle.slots.insert("global".to_owned(), 1);
        },
        &[Promise::P10],
    );
    assert_broken(|facts| facts.idle.active_calls = 1, &[Promise::P10]);
}

#[test]
fn a_refused_dial_is_no_call() {
    assert_broken(
        |facts| {
            let mut refused = record("a", "1", 500);
            refused.accepted = false;
            refused.request_uuid = None;
            refused.refusal = Some(Refusal {
                status: Some(503),
                reason: "",
            });
            facts.records.push(refused);
        },
        &[],
    );
}
