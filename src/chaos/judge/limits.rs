//! P1: at no instant are there more live calls than a limit allows. The carrier's books say which calls lived when.
//!
//! A call counts against the limits that its container may have read: those in force at any time from a second before its
//! intent (limits are read at most that long before it) until the carrier took it on. Raised limits count from the moment at
//! which they were asked for, lowered ones from the answer. Ghosts hold no slot and are judged under P2.

use std::collections::BTreeMap;

use super::{Calls, Check, Facts, accepted_at, ended_at, param};
use crate::simulator::DialRecord;

/// Limits are read at most this long before the intent is written (`services::driver`), and a little for clocks that differ.
const READ_BEFORE_MS: i64 = 1_100;

/// A call while it lives.
struct Life<'a> {
    record: &'a DialRecord,
    /// When its intent was written.
    intended: i64,
    from: i64,
    until: i64,
}

pub(super) fn kept(facts: &Facts, calls: &Calls<'_>) -> Check {
    let mut check = Check::default();
    let mut by_scope: BTreeMap<String, Vec<Life<'_>>> = BTreeMap::new();
    for record in facts.records.iter().filter(|record| record.accepted) {
        let Some(call) = calls.current(record) else {
            continue;
        };
        for scope in scopes(record) {
            by_scope.entry(scope).or_default().push(Life {
                record,
                intended: call.start.min(accepted_at(record)),
                from: accepted_at(record),
                until: ended_at(record),
            });
        }
    }
    let mut fullest: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    for (scope, mut lives) in by_scope {
        lives.sort_by_key(|life| life.from);
        let mut ends: Vec<i64> = Vec::new();
        for life in &lives {
            ends.retain(|until| *until > life.from);
            ends.push(life.until);
            let live = ends.len() as u64;
            let Some(limit) = limit_of(facts, &scope, life.intended - READ_BEFORE_MS, life.from)
            else {
                continue;
            };
            check.add((live > limit).then(|| {
                format!(
                    "{live} live calls of {scope}, at most {limit} allowed, at {}: {}",
                    life.from,
                    super::about(life.record)
                )
            }));
            let kind = scope.split('/').next().unwrap_or_default().to_owned();
            let fuller = fullest.entry(kind).or_default();
            if live * fuller.1.max(1) > fuller.0 * limit || fuller.1 == 0 {
                *fuller = (live, limit);
            }
        }
    }
    let parts: Vec<String> = fullest
        .iter()
        .map(|(kind, (live, limit))| format!("{kind} {live}/{limit}"))
        .collect();
    check.worst = parts.join(", ");
    check
}

fn scopes(record: &DialRecord) -> [String; 4] {
    [
        "global".to_owned(),
        format!("client/{}", param(record, "client")),
        format!("campaign/{}", param(record, "campaign")),
        format!("number/{}", record.from.digits()),
    ]
}

/// The highest limit of `scope` that may have been in force between two times; none where there is no limit.
fn limit_of(facts: &Facts, scope: &str, from: i64, until: i64) -> Option<u64> {
    let overlaps =
        |begin: i64, end: Option<i64>| begin <= until && end.is_none_or(|end| end >= from);
    facts
        .limits
        .iter()
        .filter(|span| span.scope == scope && overlaps(span.from, span.until))
        .map(|span| span.calls)
        .max()
}
