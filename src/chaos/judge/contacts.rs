//! P3: a completed campaign accounts for each contact exactly once, and every call that the carrier took on is known. P6: what
//! a webhook said that was answered 200 is there.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{ApiCall, Calls, Campaign, Check, Facts, about, param};
use crate::simulator::EventKind;

pub(super) fn nobody_lost(facts: &Facts, calls: &Calls<'_>) -> Check {
    let mut check = Check::default();
    for unfinished in &facts.idle.unfinished {
        check.add(Some(unfinished.clone()));
    }
    let mut uncertain = 0;
    for campaign in &facts.campaigns {
        uncertain += number(&campaign.progress, "uncertain");
        if campaign.status == "completed" {
            for violation in settled(campaign) {
                check.violations.push(violation);
            }
            check.checked += campaign.created.contacts;
        }
    }
    for record in facts.records.iter().filter(|record| record.accepted) {
        let is_known = calls.get(param(record, "call")).is_some();
        check.add((!is_known).then(|| format!("the API does not know a call: {}", about(record))));
    }
    check.worst = format!("{uncertain} uncertain, none hidden");
    check
}

/// What is wrong with the contacts of a completed campaign.
fn settled(campaign: &Campaign) -> Vec<String> {
    let id = &campaign.created.id;
    let total = campaign.created.contacts;
    let mut violations = Vec::new();
    for name in ["pending", "waitingRetry", "inFlight"] {
        let count = number(&campaign.progress, name);
        if count > 0 {
            violations.push(format!("campaign {id} is completed with {count} {name}"));
        }
    }
    // The last attempt speaks for its contact.
    let mut last: BTreeMap<i64, &ApiCall> = BTreeMap::new();
    for call in &campaign.calls {
        let known = last.entry(call.seq).or_insert(call);
        if call.attempt > known.attempt {
            *known = call;
        }
    }
    let missing: Vec<i64> = (0..i64::try_from(total).unwrap_or(i64::MAX))
        .filter(|seq| !last.contains_key(seq))
        .collect();
    if !missing.is_empty() || last.len() as u64 != total {
        violations.push(format!(
            "campaign {id}: {} of {total} contacts have a call; missing: {missing:?}",
            last.len()
        ));
    }
    let mut counted: BTreeMap<String, u64> = BTreeMap::new();
    for call in last.values() {
        match heading(call) {
            Some(heading) => *counted.entry(heading).or_default() += 1,
            None => violations.push(format!(
                "campaign {id} is completed, but call {} of contact {} is {}",
                call.id, call.seq, call.status
            )),
        }
    }
    let said = headings(&campaign.progress);
    if said != counted {
        violations.push(format!(
            "campaign {id}: the progress says {said:?}, its calls say {counted:?}"
        ));
    }
    violations
}

/// Where a contact stands whose last call this is; none while the call is not over.
fn heading(call: &ApiCall) -> Option<String> {
    match (call.status.as_str(), &call.outcome, &call.skip_reason) {
        ("skipped", _, reason) => Some(format!("skipped:{}", reason.as_deref()?)),
        ("uncertain", _, _) => Some("uncertain".to_owned()),
        ("dialing" | "queued" | "ringing" | "in-progress" | "waiting", _, _) => None,
        (_, outcome, _) => Some(format!("final:{}", outcome.as_deref()?)),
    }
}

/// The headings of a progress answer that count somebody.
fn headings(progress: &Value) -> BTreeMap<String, u64> {
    let mut all = BTreeMap::new();
    for name in ["final", "skipped"] {
        for (reason, count) in progress[name].as_object().into_iter().flatten() {
            all.insert(
                format!("{name}:{reason}"),
                count.as_u64().unwrap_or_default(),
            );
        }
    }
    all.insert("uncertain".to_owned(), number(progress, "uncertain"));
    all.retain(|_, count| *count > 0);
    all
}

fn number(value: &Value, name: &str) -> u64 {
    value[name].as_u64().unwrap_or_default()
}

pub(super) fn webhooks_stay(facts: &Facts, calls: &Calls<'_>) -> Check {
    let mut check = Check::default();
    let mut latest = 0;
    for record in &facts.records {
        let (Some(hangup), Some(call)) = (record.hangup, calls.current(record)) else {
            continue;
        };
        let was_taken = record
            .deliveries
            .iter()
            .find(|sent| sent.kind == EventKind::Hangup && sent.http_status == Some(200));
        let Some(delivery) = was_taken else { continue };
        latest = latest.max(delivery.at_ms - super::ended_at(record));
        let is_there = call.hangup_code == Some(u64::from(hangup.code))
            && call.answered == record.answered
            && heading(call).is_some();
        check.add((!is_there).then(|| {
            format!(
                "a hangup webhook of {} (answered: {}) was answered 200 at {}, but the API says {} with code {:?} (answered: {}): {}",
                hangup.code,
                record.answered,
                delivery.at_ms,
                call.status,
                call.hangup_code,
                call.answered,
                about(record)
            )
        }));
    }
    check.worst = format!("latest webhook {latest} ms after the end");
    check
}
