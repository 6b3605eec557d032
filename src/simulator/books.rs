//! The carrier's own books: every dial request and what became of it. What happened is proven from here, from outside of
//! the service.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde::Serialize;
use tokio::time::Instant;

use super::calls::{Call, Phase};
use super::dial::Address;
use super::hangup::Hangup;
use super::stats::{Stats, Tally};
use super::webhooks::EventKind;

/// Why a dial request left no call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Refusal {
    /// HTTP status of the answer; none where the connection was reset.
    pub status: Option<u16>,
    /// The reason, without numbers.
    pub reason: &'static str,
}

/// One thing that happened to a call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Moment {
    /// Unix milliseconds.
    pub at_ms: i64,
    /// What happened: a status, or a remark about the answer document.
    pub event: &'static str,
}

/// One attempt to deliver a webhook.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Delivery {
    /// Which webhook.
    pub kind: EventKind,
    /// When it was sent, in unix milliseconds.
    pub at_ms: i64,
    /// 0 for the first attempt, then the number of the retry.
    pub attempt: u32,
    /// Status of the receiver's answer; none if there was no answer.
    pub http_status: Option<u16>,
    /// Why there was no answer.
    pub error: Option<&'static str>,
}

impl Delivery {
    pub(super) fn lost(kind: EventKind, now: DateTime<Utc>) -> Self {
        Self {
            kind,
            at_ms: now.timestamp_millis(),
            attempt: 0,
            http_status: None,
            error: Some("lost by a fault"),
        }
    }
}

/// One dial request as the books show it.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DialRecord {
    /// When the request arrived, in unix milliseconds.
    pub requested_at_ms: i64,
    /// Whether the carrier took the call on; the client may not have heard of it.
    pub accepted: bool,
    /// Why it did not.
    pub refusal: Option<Refusal>,
    /// `RequestUUID` and `CallUUID` of an accepted call.
    pub request_uuid: Option<String>,
    /// The destination as given.
    pub to: Address,
    /// The caller id as given.
    pub from: Address,
    /// The query parameters of the answer URL: the caller's own ids.
    pub params: BTreeMap<String, String>,
    /// `refused`, where the call is, or its final `CallStatus`.
    pub status: &'static str,
    /// Whether the callee answered.
    pub answered: bool,
    /// What happened, in order.
    pub timeline: Vec<Moment>,
    /// Why it ended, once it has.
    pub hangup: Option<Hangup>,
    /// Every attempt to deliver a webhook, in the order in which they were settled.
    pub deliveries: Vec<Delivery>,
}

/// A dial request in the ledger.
struct Entry {
    requested_at: DateTime<Utc>,
    to: Address,
    from: Address,
    params: BTreeMap<String, String>,
    refusal: Option<Refusal>,
    call: Option<Call>,
    timeline: Vec<Moment>,
    deliveries: Vec<Delivery>,
}

impl Entry {
    fn record(&self) -> DialRecord {
        DialRecord {
            requested_at_ms: self.requested_at.timestamp_millis(),
            accepted: self.call.is_some(),
            refusal: self.refusal.clone(),
            request_uuid: self.call.as_ref().map(|call| call.uuid.to_string()),
            to: self.to.clone(),
            from: self.from.clone(),
            params: self.params.clone(),
            status: self.call.as_ref().map_or("refused", Call::status),
            answered: self.call.as_ref().is_some_and(Call::answered),
            timeline: self.timeline.clone(),
            hangup: self.call.as_ref().and_then(|call| call.hangup),
            deliveries: self.deliveries.clone(),
        }
    }
}

/// Every dial request in order of decision, with what is needed to find the calls that live.
#[derive(Default)]
pub(super) struct Ledger {
    entries: Vec<Entry>,
    by_uuid: HashMap<Arc<str>, usize>,
    living: BTreeSet<usize>,
    tally: Tally,
}

impl Ledger {
    /// Counts the arrival of a dial request.
    pub(super) fn arrive(&mut self, now: Instant) {
        self.tally.arrive(now);
    }

    /// Counts any other request.
    pub(super) fn look_up(&mut self) {
        self.tally.look_up();
    }

    pub(super) fn refuse(
        &mut self,
        requested_at: DateTime<Utc>,
        (from, to, params): (Address, Address, BTreeMap<String, String>),
        refusal: Refusal,
    ) {
        self.tally.refuse(refusal.status);
        self.entries.push(Entry {
            requested_at,
            to,
            from,
            params,
            refusal: Some(refusal),
            call: None,
            timeline: Vec::new(),
            deliveries: Vec::new(),
        });
    }

    pub(super) fn accept(&mut self, requested_at: DateTime<Utc>, call: Call) {
        let moment = Moment {
            at_ms: call.accepted_at.timestamp_millis(),
            event: "accepted",
        };
        self.enter(Entry {
            requested_at,
            to: call.request.to.clone(),
            from: call.request.from.clone(),
            params: call.request.params.clone(),
            refusal: None,
            call: Some(call),
            timeline: vec![moment],
            deliveries: Vec::new(),
        });
    }

    /// Adds the entry of a call that lives.
    fn enter(&mut self, entry: Entry) {
        let index = self.entries.len();
        if let Some(call) = &entry.call {
            self.by_uuid.insert(Arc::clone(&call.uuid), index);
            self.living.insert(index);
            self.tally.accept(&entry.from, &entry.to, &entry.params);
        }
        self.entries.push(entry);
    }

    pub(super) fn call(&self, uuid: &str) -> Option<&Call> {
        self.by_uuid
            .get(uuid)
            .and_then(|&index| self.entries[index].call.as_ref())
    }

    fn entry_mut(&mut self, uuid: &str) -> Option<&mut Entry> {
        self.by_uuid
            .get(uuid)
            .map(|&index| &mut self.entries[index])
    }

    /// Moves a living call on and returns it; none, and no change, for a call that is over.
    pub(super) fn advance(
        &mut self,
        uuid: &str,
        phase: Phase,
        now: DateTime<Utc>,
    ) -> Option<&Call> {
        let index = *self.by_uuid.get(uuid)?;
        let entry = &mut self.entries[index];
        let call = entry
            .call
            .as_mut()
            .filter(|call| call.phase != Phase::Ended)?;
        call.phase = phase;
        match phase {
            Phase::Queued | Phase::Ended => {}
            Phase::Initiated => call.started_at = Some(now),
            Phase::Ringing => call.rang_at = Some(now),
            Phase::InProgress => {
                call.answered_at = Some(now);
                self.tally.answer();
            }
        }
        entry.timeline.push(Moment {
            at_ms: now.timestamp_millis(),
            event: phase.as_str(),
        });
        entry.call.as_ref()
    }

    /// Ends a call; from here on it counts no more as live.
    pub(super) fn end(&mut self, uuid: &str, hangup: Hangup, now: DateTime<Utc>) {
        let Some(&index) = self.by_uuid.get(uuid) else {
            return;
        };
        if !self.living.remove(&index) {
            return;
        }
        let entry = &mut self.entries[index];
        if let Some(call) = entry.call.as_mut() {
            call.phase = Phase::Ended;
            call.hangup = Some(hangup);
            call.ended_at = Some(now);
            entry.timeline.push(Moment {
                at_ms: now.timestamp_millis(),
                event: call.status(),
            });
        }
        self.tally.end(hangup.code, &entry.from, &entry.params);
    }

    pub(super) fn mark_machine(&mut self, uuid: &str) {
        if let Some(call) = self.entry_mut(uuid).and_then(|entry| entry.call.as_mut()) {
            call.machine = true;
        }
    }

    pub(super) fn remark(&mut self, uuid: &str, remark: &'static str, now: DateTime<Utc>) {
        if let Some(entry) = self.entry_mut(uuid) {
            entry.timeline.push(Moment {
                at_ms: now.timestamp_millis(),
                event: remark,
            });
        }
    }

    pub(super) fn log_delivery(&mut self, uuid: &str, delivery: Delivery) {
        if let Some(entry) = self.entry_mut(uuid) {
            entry.deliveries.push(delivery);
        }
    }

    /// The calls that are not over, oldest first.
    pub(super) fn living(&self) -> impl Iterator<Item = &Call> {
        self.living
            .iter()
            .filter_map(|&index| self.entries[index].call.as_ref())
    }

    /// All calls, newest first.
    pub(super) fn newest_first(&self) -> impl Iterator<Item = &Call> {
        self.entries
            .iter()
            .rev()
            .filter_map(|entry| entry.call.as_ref())
    }

    /// How many dial requests there are.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn records(&self, offset: usize, limit: usize) -> Vec<DialRecord> {
        self.entries
            .iter()
            .skip(offset)
            .take(limit)
            .map(Entry::record)
            .collect()
    }

    /// Starts new books with only the calls that still live.
    pub(super) fn reset(&mut self) {
        let living = std::mem::take(&mut self.living);
        let entries = std::mem::take(&mut self.entries);
        *self = Self::default();
        for (index, entry) in entries.into_iter().enumerate() {
            if living.contains(&index) {
                self.tally
                    .carry_over(entry.call.as_ref().is_some_and(Call::answered));
                self.enter(entry);
            }
        }
    }

    pub(super) fn stats(&self) -> Stats {
        let queued = self
            .living()
            .filter(|call| call.phase == Phase::Queued)
            .count();
        self.tally.stats(queued)
    }
}
