//! The judgement: every promise, from the carrier's books, the API's answers, and what the harness did. Pure.

mod contacts;
mod dials;
mod limits;
mod takeovers;

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

pub(super) use dials::Ghost;

use super::journal::{Command, Created, Disturbance, LimitSpan, Takeover};
use crate::simulator::DialRecord;

/// A promise of CALL_LOGIC.md, section 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(super) enum Promise {
    P1,
    P2,
    P3,
    P4,
    P5,
    P6,
    P7,
    P9,
    P10,
}

impl Promise {
    pub(super) const ALL: [Self; 9] = [
        Self::P1,
        Self::P2,
        Self::P3,
        Self::P4,
        Self::P5,
        Self::P6,
        Self::P7,
        Self::P9,
        Self::P10,
    ];

    /// The promise in a few words.
    pub(super) fn text(self) -> &'static str {
        match self {
            Self::P1 => "limits are never exceeded",
            Self::P2 => "nobody is dialed twice",
            Self::P3 => "nobody is lost",
            Self::P4 => "counts add up",
            Self::P5 => "pause bites",
            Self::P6 => "webhooks answered 200 stay",
            Self::P7 => "nobody gets in",
            Self::P9 => "dead containers are replaced",
            Self::P10 => "no slot is leaked",
        }
    }
}

/// How often a promise was checked, and what was found.
#[derive(Debug, Clone, Default, Serialize)]
pub(super) struct Check {
    pub(super) checked: u64,
    pub(super) violations: Vec<String>,
    /// The case that came closest to a violation.
    pub(super) worst: String,
}

impl Check {
    /// Adds one check.
    pub(super) fn add(&mut self, violation: Option<String>) {
        self.checked += 1;
        self.violations.extend(violation);
    }

    /// Adds what another found.
    pub(super) fn merge(&mut self, other: Self) {
        self.checked += other.checked;
        self.violations.extend(other.violations);
        if !other.worst.is_empty() {
            self.worst = other.worst;
        }
    }
}

/// The times that the promises speak of, as configured, in ms.
#[derive(Debug, Clone, Copy)]
pub(super) struct Timing {
    pub(super) orphan: i64,
    pub(super) heartbeat: i64,
    /// From one scan for orphans to the next, at most.
    pub(super) scan: i64,
    /// A politely stopped container's campaigns have another driver after this time.
    pub(super) hand_over: i64,
    /// After pause or cancel was answered dials may still arrive for this time.
    pub(super) pause: i64,
    /// A dial that the carrier does not know this long after it was sent is taken for never sent.
    pub(super) settle: i64,
}

/// A call as the API shows it.
#[derive(Debug, Clone, Default)]
pub(super) struct ApiCall {
    pub(super) id: String,
    pub(super) uuid: Option<String>,
    pub(super) seq: i64,
    pub(super) attempt: u64,
    pub(super) status: String,
    pub(super) outcome: Option<String>,
    pub(super) skip_reason: Option<String>,
    /// When its (last) intent was written, unix ms.
    pub(super) start: i64,
    pub(super) answered: bool,
    pub(super) hangup_code: Option<u64>,
    /// The names of its history.
    pub(super) events: Vec<String>,
}

/// A campaign as the API shows it at the end.
#[derive(Debug, Clone)]
pub(super) struct Campaign {
    pub(super) created: Created,
    pub(super) status: String,
    pub(super) progress: Value,
    pub(super) calls: Vec<ApiCall>,
}

/// What the API says when everything is over.
#[derive(Debug, Clone, Default)]
pub(super) struct Idle {
    /// Slots taken, by scope.
    pub(super) slots: BTreeMap<String, u64>,
    /// Live calls listed.
    pub(super) active_calls: u64,
    /// What did not come to an end; empty if all did.
    pub(super) unfinished: Vec<String>,
}

/// Everything that the judgement rests on.
#[derive(Debug, Clone)]
pub(super) struct Facts {
    pub(super) records: Vec<DialRecord>,
    /// When each dial left its container, by call id and dial number.
    pub(super) sent: BTreeMap<(String, String), i64>,
    pub(super) campaigns: Vec<Campaign>,
    pub(super) limits: Vec<LimitSpan>,
    pub(super) commands: Vec<Command>,
    pub(super) takeovers: Vec<Takeover>,
    pub(super) disturbances: Vec<Disturbance>,
    pub(super) idle: Idle,
    pub(super) timing: Timing,
}

/// The judgement.
#[derive(Debug, Clone, Default)]
pub(super) struct Judgement {
    pub(super) checks: BTreeMap<Promise, Check>,
    /// Withdrawn dials that showed up at the carrier, and how far they got.
    pub(super) ghosts: Vec<Ghost>,
}

/// Judges a run. `seen` is what was checked while it lasted.
pub(super) fn judge(facts: &Facts, seen: BTreeMap<Promise, Check>) -> Judgement {
    let calls = Calls::of(facts);
    let (twice, ghosts) = dials::once(facts, &calls);
    let found = [
        (Promise::P1, limits::kept(facts, &calls)),
        (Promise::P2, twice),
        (Promise::P3, contacts::nobody_lost(facts, &calls)),
        (Promise::P5, dials::pause_bites(facts)),
        (Promise::P6, contacts::webhooks_stay(facts, &calls)),
        (Promise::P9, takeovers::in_time(facts)),
        (Promise::P10, no_leak(facts)),
    ];
    let mut checks = seen;
    for (promise, check) in found {
        checks.entry(promise).or_default().merge(check);
    }
    Judgement { checks, ghosts }
}

fn no_leak(facts: &Facts) -> Check {
    let mut check = Check::default();
    for (scope, taken) in &facts.idle.slots {
        check.add(
            (*taken > 0)
                .then(|| format!("{taken} slots of {scope} are taken though nobody is called")),
        );
    }
    let active = facts.idle.active_calls;
    check.add(
        (active > 0).then(|| format!("{active} calls are listed as live though nobody is called")),
    );
    let taken: u64 = facts.idle.slots.values().sum();
    check.worst = format!("{taken} slots, {active} calls at the end");
    check
}

/// The API's calls by their id.
pub(super) struct Calls<'a>(BTreeMap<&'a str, (&'a Campaign, &'a ApiCall)>);

impl<'a> Calls<'a> {
    fn of(facts: &'a Facts) -> Self {
        let all = facts.campaigns.iter().flat_map(|campaign| {
            let with = move |call: &'a ApiCall| (call.id.as_str(), (campaign, call));
            campaign.calls.iter().map(with)
        });
        Self(all.collect())
    }

    fn get(&self, id: &str) -> Option<(&'a Campaign, &'a ApiCall)> {
        self.0.get(id).copied()
    }

    /// The call that `record` is the dial of, if the API knows it under the carrier's id. A dial of a call that has another
    /// carrier's id, or none, is a ghost.
    fn current(&self, record: &DialRecord) -> Option<&'a ApiCall> {
        let (_, call) = self.get(param(record, "call"))?;
        (call.uuid.is_some() && call.uuid == record.request_uuid).then_some(call)
    }
}

/// One of our own ids in a dial's callback addresses.
fn param<'a>(record: &'a DialRecord, name: &str) -> &'a str {
    record.params.get(name).map_or("", String::as_str)
}

/// When something happened to a call, unix ms.
fn moment(record: &DialRecord, event: &str) -> Option<i64> {
    let found = record.timeline.iter().find(|moment| moment.event == event);
    found.map(|moment| moment.at_ms)
}

/// When the carrier took a call on.
fn accepted_at(record: &DialRecord) -> i64 {
    moment(record, "accepted").unwrap_or(record.requested_at_ms)
}

/// When a call ended; never, while it lives.
fn ended_at(record: &DialRecord) -> i64 {
    let last = record.timeline.last().map(|moment| moment.at_ms);
    last.filter(|_| record.hangup.is_some()).unwrap_or(i64::MAX)
}

/// What to look for in the logs.
fn about(record: &DialRecord) -> String {
    let uuid = record.request_uuid.as_deref().unwrap_or("-");
    format!(
        "campaign {} call {} dial {} carrier's id {uuid} requested at {}",
        param(record, "campaign"),
        param(record, "call"),
        param(record, "dial"),
        record.requested_at_ms,
    )
}

#[cfg(test)]
mod tests;
