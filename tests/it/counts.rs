//! Promises P3 and P4: whoever asks, whenever: every contact is under one heading; in the end it has one disposition.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use ringmaster::simulator::{OutcomeMix, SimulatorOptions};
use serde_json::{Value, json};

use crate::helpers::app::{World, quick_carrier};
use crate::helpers::judge::{assert_adds_up, nonzero, total_of};

#[track_caller]
fn assert_waits_for_what_is_agreed(progress: &Value) {
    let words = ["slot", "rate", "window", "warmup", "schedule"].map(Value::from);
    let waits_for = &progress["waitingFor"];
    assert!(
        waits_for.is_null() || words.contains(waits_for),
        "{progress}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_answer_adds_up_through_a_whole_campaign_with_retries() {
    const CONTACTS: usize = 40;
    let carrier = SimulatorOptions {
        outcome_mix: OutcomeMix {
            answered: 40.0,
            busy: 25.0,
            no_answer: 15.0,
            rejected: 10.0,
            unreachable: 5.0,
            invalid: 5.0,
            ..OutcomeMix::NONE
        },
        ..quick_carrier()
    };
    let world = World::new("counts", carrier).await;
    let (one, two) = (world.container(&[]).await, world.container(&[]).await);
    let (_, operator) = world
        .client(json!({ "name": "Acme", "maxConcurrentCalls": 30 }))
        .await;
    let list = operator.list_of(0, CONTACTS).await;
    let retry = json!({ "retry": {
        "maxAttempts": 3, "delaysSeconds": [1], "outcomes": ["busy", "no_answer", "unreachable"],
    } });
    let campaign = operator.at(&one).campaign(&list, retry).await;

    let (is_over, answers) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicUsize::new(0)),
    );
    let readers: Vec<_> = [&one, &two, &two]
        .map(|container| {
            let (api, campaign) = (operator.at(container), campaign.clone());
            let (is_over, answers) = (Arc::clone(&is_over), Arc::clone(&answers));
            tokio::spawn(async move {
                while !is_over.load(Ordering::Relaxed) {
                    let progress = api.progress(&campaign).await;
                    assert_adds_up(&progress);
                    assert_eq!(progress["total"], CONTACTS);
                    assert_waits_for_what_is_agreed(&progress);
                    answers.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .into();
    let last = operator.until_status(&campaign, "completed").await;
    is_over.store(true, Ordering::Relaxed);
    for reader in readers {
        reader.await.unwrap();
    }
    assert!(answers.load(Ordering::Relaxed) > 50);

    assert_adds_up(&last);
    assert_eq!(total_of(&last["final"]), CONTACTS as i64, "{last}");
    assert_eq!(total_of(&last["skipped"]), 0, "{last}");
    assert_eq!(last["percent"], 100.0);
    let attempts = attempts_of(&operator.calls_of(&campaign).await);
    assert_eq!(attempts.len(), CONTACTS);
    let mut finals: BTreeMap<String, i64> = BTreeMap::new();
    for (seq, outcomes) in &attempts {
        assert!(outcomes.len() <= 3, "contact {seq}: {outcomes:?}");
        let (newest, earlier) = outcomes.split_last().unwrap();
        *finals.entry(newest.clone()).or_default() += 1;
        let retried = ["busy", "no_answer", "unreachable"];
        // Another attempt follows exactly those that deserve one.
        assert!(
            earlier.iter().all(|outcome| retried.contains(&&**outcome)),
            "contact {seq}: {outcomes:?}"
        );
        assert!(
            outcomes.len() == 3 || !retried.contains(&&**newest),
            "contact {seq}: {outcomes:?}"
        );
    }
    assert_eq!(finals, nonzero(&last["final"]));
    let stats = world.simulator.stats();
    let made: usize = attempts.values().map(Vec::len).sum();
    assert_eq!((stats.requests, stats.accepted), (made as u64, made as u64));
    assert!(stats.duplicates.by_call.is_empty(), "{stats:?}");
    assert_eq!(stats.unique_destinations, CONTACTS);
    world.until_idle().await;
}

/// The outcomes of each contact's attempts, which must be numbered from 1 without a gap.
fn attempts_of(calls: &[Value]) -> BTreeMap<i64, Vec<String>> {
    let mut attempts: BTreeMap<i64, Vec<String>> = BTreeMap::new();
    // Newest first on the wire.
    for call in calls.iter().rev() {
        let outcomes = attempts
            .entry(call["contactSeq"].as_i64().unwrap())
            .or_default();
        outcomes.push(call["outcome"].as_str().unwrap().to_owned());
        assert_eq!(call["attempt"], outcomes.len(), "{call}");
    }
    attempts
}
