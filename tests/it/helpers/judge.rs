//! What promises are judged by: the carrier's books, and what the API says to everybody who asks.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mongodb::bson::{Document, doc};
use reqwest::Method;
use ringmaster::simulator::{DialRecord, SimulatorOptions};
use serde_json::Value;

use super::app::{Api, Container, Reply, World, until};

impl Api {
    /// The same caller, talking to this container only.
    pub(crate) fn at(&self, container: &Container) -> Self {
        let mut api = self.clone();
        api.base = format!("http://{}", container.address);
        api
    }

    /// `pause`, `resume` or `cancel`.
    pub(crate) async fn command(&self, campaign: &str, command: &str) -> Reply {
        let path = format!("/v1/campaigns/{campaign}/{command}");
        self.send(self.request(Method::POST, &path)).await
    }

    /// Every call of the campaign, page by page.
    pub(crate) async fn calls_of(&self, campaign: &str) -> Vec<Value> {
        let mut calls = Vec::new();
        let mut cursor = String::new();
        loop {
            let path = format!("/v1/campaigns/{campaign}/calls?limit=100{cursor}");
            let page = self.get(&path).await.ok();
            calls.extend(page["items"].as_array().unwrap().iter().cloned());
            match page["nextCursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return calls,
            }
        }
    }

    /// The live calls that the caller may see.
    pub(crate) async fn live_calls(&self) -> Vec<Value> {
        let found = self.get("/v1/active-calls?includeCalls=true").await.ok();
        found["calls"].as_array().unwrap().clone()
    }

    /// Slots of the account that are taken now.
    pub(crate) async fn slots_taken(&self) -> u64 {
        let report = self.get("/v1/utilization").await.ok();
        report["global"]["active"].as_u64().unwrap()
    }
}

impl World {
    /// Waits until the carrier has no call, and checks that the service then gives every slot back.
    pub(crate) async fn until_idle(&self) {
        until("no call lives", async || self.simulator.stats().live == 0).await;
        let admin = self.admin();
        until("every slot is free", async || {
            admin.slots_taken().await == 0
        })
        .await;
    }

    /// The campaign's calls were accepted by the carrier once for each of `contacts` destinations.
    #[track_caller]
    pub(crate) fn assert_each_dialed_once(&self, contacts: usize) {
        let stats = self.simulator.stats();
        assert_eq!(
            (stats.accepted, stats.unique_destinations),
            (contacts as u64, contacts),
            "{stats:?}"
        );
        assert!(stats.duplicates.by_call.is_empty(), "{stats:?}");
        assert!(stats.duplicates.by_campaign_to.is_empty(), "{stats:?}");
    }
}

/// What must hold in every world, whatever happened in it: no dial was sent twice (promise P2), and whoever does not live
/// holds no slot (promise P10).
impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        let duplicates = self.simulator.stats().duplicates;
        assert!(duplicates.by_call_dial.is_empty(), "{duplicates:?}");
        let live = ["dialing", "queued", "ringing", "in-progress"];
        let leaked = doc! { "slots": { "$exists": true }, "status": { "$nin": live } };
        let found = self.database.blocking(async |database| {
            let calls = database.collection::<Document>("activeCalls");
            calls.find_one(leaked).await.ok().flatten()
        });
        assert_eq!(found.flatten(), None, "a call that is over holds slots");
    }
}

/// The token that the simulator signs with.
pub(crate) fn carrier_token() -> String {
    SimulatorOptions::default().auth_tokens[0].clone()
}

/// Milliseconds since 1970 by the wall clock, which the carrier's books go by as well.
pub(crate) fn now_ms() -> i64 {
    let passed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    i64::try_from(passed.as_millis()).unwrap()
}

/// Promise P4: every contact is under exactly one heading.
#[track_caller]
pub(crate) fn assert_adds_up(progress: &Value) {
    let number = |name: &str| {
        let count = progress[name].as_u64();
        let count = count.unwrap_or_else(|| panic!("{name} is no count: {progress}"));
        i64::try_from(count).unwrap()
    };
    let single = ["pending", "waitingRetry", "inFlight", "uncertain"].map(number);
    let grouped = ["final", "skipped"].map(|name| total_of(&progress[name]));
    let sum = single.iter().chain(&grouped).sum::<i64>();
    assert_eq!(number("total"), sum, "{progress}");
}

/// The sum of an object's counts.
#[track_caller]
pub(crate) fn total_of(object: &Value) -> i64 {
    let counts = object.as_object().unwrap().values();
    let counts = counts.map(|count| count.as_u64().unwrap_or_else(|| panic!("{object}")));
    i64::try_from(counts.sum::<u64>()).unwrap()
}

/// The numbers of an object that are not 0.
pub(crate) fn nonzero(object: &Value) -> BTreeMap<String, i64> {
    let fields = object.as_object().unwrap().iter();
    fields
        .map(|(name, count)| (name.clone(), count.as_i64().unwrap()))
        .filter(|(_, count)| *count != 0)
        .collect()
}

/// When the carrier took the call on.
pub(crate) fn accepted_at(record: &DialRecord) -> Option<i64> {
    record.accepted.then(|| record.timeline[0].at_ms)
}

/// How many of the calls lived at the carrier at this moment.
pub(crate) fn live_at(calls: &[DialRecord], at_ms: i64) -> usize {
    let lives = |record: &&DialRecord| {
        let is_over = record.hangup.is_some()
            && record
                .timeline
                .last()
                .is_some_and(|moment| moment.at_ms <= at_ms);
        accepted_at(record).is_some_and(|begun| begun <= at_ms) && !is_over
    };
    calls.iter().filter(lives).count()
}

/// Waits until this much time has passed since `from_ms`: for what must not happen meanwhile.
pub(crate) async fn until_passed(from_ms: i64, time: Duration) {
    let until_ms = from_ms + i64::try_from(time.as_millis()).unwrap();
    until("time passes", async || now_ms() > until_ms).await;
}
