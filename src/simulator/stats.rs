//! The books in numbers, counted as things happen.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;

use super::calls::param;
use super::dial::Address;

/// Running counts, so that reading the stats costs little however long the books are.
#[derive(Default)]
pub(super) struct Tally {
    requests: u64,
    lookups: u64,
    refused: BTreeMap<String, u64>,
    answered: u64,
    ended: BTreeMap<u16, u64>,
    total: Usage,
    by_client: BTreeMap<String, Usage>,
    by_campaign: BTreeMap<String, Usage>,
    by_from: BTreeMap<Address, Usage>,
    by_to: HashMap<Address, u64>,
    by_call: HashMap<String, u64>,
    by_call_dial: HashMap<String, u64>,
    by_campaign_to: HashMap<(String, Address), u64>,
    arrivals: VecDeque<Instant>,
    peak_arrivals: usize,
}

impl Tally {
    pub(super) fn arrive(&mut self, now: Instant) {
        self.requests += 1;
        self.arrivals.push_back(now);
        while self
            .arrivals
            .front()
            .is_some_and(|&first| now.duration_since(first) >= Duration::from_secs(1))
        {
            self.arrivals.pop_front();
        }
        self.peak_arrivals = self.peak_arrivals.max(self.arrivals.len());
    }

    pub(super) fn look_up(&mut self) {
        self.lookups += 1;
    }

    /// Counts a living call in new books; its request arrived in the old ones, so it makes no rate.
    pub(super) fn carry_over(&mut self, answered: bool) {
        self.requests += 1;
        self.answered += u64::from(answered);
    }

    pub(super) fn refuse(&mut self, status: Option<u16>) {
        let key = status.map_or_else(|| "reset".to_owned(), |status| status.to_string());
        *self.refused.entry(key).or_default() += 1;
    }

    pub(super) fn accept(
        &mut self,
        from: &Address,
        to: &Address,
        params: &BTreeMap<String, String>,
    ) {
        self.usages(from, params, Usage::begin);
        let to = Address::from(to.digits());
        if let Some(call) = param(params, "call") {
            let dial = param(params, "dial").unwrap_or_default();
            *self.by_call.entry(call.to_owned()).or_default() += 1;
            *self
                .by_call_dial
                .entry(format!("{call}/{dial}"))
                .or_default() += 1;
        }
        if let Some(campaign) = param(params, "campaign") {
            *self
                .by_campaign_to
                .entry((campaign.to_owned(), to.clone()))
                .or_default() += 1;
        }
        *self.by_to.entry(to).or_default() += 1;
    }

    pub(super) fn answer(&mut self) {
        self.answered += 1;
    }

    pub(super) fn end(&mut self, cause: u16, from: &Address, params: &BTreeMap<String, String>) {
        *self.ended.entry(cause).or_default() += 1;
        self.usages(from, params, Usage::finish);
    }

    fn usages(
        &mut self,
        from: &Address,
        params: &BTreeMap<String, String>,
        change: fn(&mut Usage),
    ) {
        change(&mut self.total);
        change(
            self.by_from
                .entry(Address::from(from.digits()))
                .or_default(),
        );
        if let Some(client) = param(params, "client") {
            change(self.by_client.entry(client.to_owned()).or_default());
        }
        if let Some(campaign) = param(params, "campaign") {
            change(self.by_campaign.entry(campaign.to_owned()).or_default());
        }
    }

    pub(super) fn stats(&self, queued: usize) -> Stats {
        Stats {
            requests: self.requests,
            lookups: self.lookups,
            accepted: self.total.accepted,
            refused: self.refused.values().sum(),
            refused_by_status: self.refused.clone(),
            unique_destinations: self.by_to.len(),
            duplicates: Duplicates {
                by_call: repeated(&self.by_call),
                by_call_dial: repeated(&self.by_call_dial),
                by_campaign_to: self.repeated_destinations(),
            },
            live: self.total.live,
            queued,
            peak_live: self.total.peak_live,
            by_client: self.by_client.clone(),
            by_campaign: self.by_campaign.clone(),
            by_from: self.by_from.clone(),
            peak_requests_per_second: self.peak_arrivals,
            answered: self.answered,
            ended: self.ended.values().sum(),
            ended_by_cause: self.ended.clone(),
        }
    }

    fn repeated_destinations(&self) -> BTreeMap<String, BTreeMap<Address, u64>> {
        let mut repeated: BTreeMap<String, BTreeMap<Address, u64>> = BTreeMap::new();
        for ((campaign, to), count) in self.by_campaign_to.iter().filter(|(_, count)| **count > 1) {
            repeated
                .entry(campaign.clone())
                .or_default()
                .insert(to.clone(), *count);
        }
        repeated
    }
}

fn repeated(counts: &HashMap<String, u64>) -> BTreeMap<String, u64> {
    counts
        .iter()
        .filter(|(_, count)| **count > 1)
        .map(|(key, count)| (key.clone(), *count))
        .collect()
}

/// How many calls of one kind there were, are, and were at once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Usage {
    /// Calls accepted so far.
    pub accepted: u64,
    /// Calls that are queued, under way, ringing or in progress now: from acceptance to end.
    pub live: u64,
    /// Most calls that were live at once.
    pub peak_live: u64,
}

impl Usage {
    fn begin(&mut self) {
        self.accepted += 1;
        self.live += 1;
        self.peak_live = self.peak_live.max(self.live);
    }

    fn finish(&mut self) {
        self.live = self.live.saturating_sub(1);
    }
}

/// The books in numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Stats {
    /// Dial requests that arrived.
    pub requests: u64,
    /// Requests of every other kind: look-ups, lists, hangups.
    pub lookups: u64,
    /// Calls taken on, whether or not the client heard of it.
    pub accepted: u64,
    /// Dial requests that left no call.
    pub refused: u64,
    /// Those by HTTP status, or `reset`.
    pub refused_by_status: BTreeMap<String, u64>,
    /// Different destinations of accepted calls.
    pub unique_destinations: usize,
    /// What was accepted more than once.
    pub duplicates: Duplicates,
    /// Calls that live now, queued ones included.
    pub live: u64,
    /// Calls that wait for their turn under the CPS limit.
    pub queued: usize,
    /// Most calls that lived at once.
    pub peak_live: u64,
    /// Calls by the `client` parameter of their answer URL.
    pub by_client: BTreeMap<String, Usage>,
    /// Calls by the `campaign` parameter of their answer URL.
    pub by_campaign: BTreeMap<String, Usage>,
    /// Calls by caller id, without `+`.
    pub by_from: BTreeMap<Address, Usage>,
    /// Most dial requests that arrived within any second.
    pub peak_requests_per_second: usize,
    /// Calls that were answered.
    pub answered: u64,
    /// Calls that are over.
    pub ended: u64,
    /// Those by hangup cause code.
    pub ended_by_cause: BTreeMap<u16, u64>,
}

/// Keys that were accepted more than once, with how often.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Duplicates {
    /// By the `call` parameter: one attempt to reach one contact. Never right.
    pub by_call: BTreeMap<String, u64>,
    /// By `call` and `dial`: the same dial sent twice. Never right.
    pub by_call_dial: BTreeMap<String, u64>,
    /// By `campaign` and destination (without `+`): right only for retries.
    pub by_campaign_to: BTreeMap<String, BTreeMap<Address, u64>>,
}
