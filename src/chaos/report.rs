//! The result: one table, the figures of the run, and everything needed to look into a violation.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context;
use serde::Serialize;

use super::journal::{Memory, Takeover};
use super::judge::{Facts, Ghost, Judgement, Promise};
use super::pulse::Pulse;
use super::schedule::Faults;
use super::screen::Screen;
use crate::simulator::Stats;

/// Violations shown of each promise.
const SHOWN: usize = 8;

/// The figures of a run.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Report {
    seed: u64,
    minutes: u64,
    /// When the run began, unix ms, as all times in the violations.
    begun_at: i64,
    promises: Vec<Row>,
    campaigns: u64,
    contacts: u64,
    /// Calls that the carrier took on.
    calls: u64,
    answered: u64,
    dial_requests: u64,
    refused_by_status: BTreeMap<String, u64>,
    faults: BTreeMap<&'static str, u64>,
    /// Dials that nobody knew the fate of at first, by how they were settled.
    ambiguous: BTreeMap<&'static str, u64>,
    ghosts: Vec<Ghost>,
    takeovers: Vec<Takeover>,
    memory: Vec<Memory>,
    pulses: Vec<Pulse>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    promise: Promise,
    text: &'static str,
    checked: u64,
    /// Whether the run's faults call upon it at all.
    called_upon: bool,
    violations: Vec<String>,
    worst: String,
}

/// What a run was.
#[derive(Debug, Clone, Copy)]
pub(super) struct Run {
    pub(super) seed: u64,
    pub(super) minutes: u64,
    pub(super) faults: Faults,
}

/// What was counted while it lasted.
pub(super) struct Counts {
    pub(super) faults: BTreeMap<&'static str, u64>,
    pub(super) memory: Vec<Memory>,
    pub(super) pulses: Vec<Pulse>,
}

impl Report {
    pub(super) fn new(
        run: Run,
        begun_at: i64,
        facts: &Facts,
        judgement: Judgement,
        stats: Stats,
        counts: Counts,
    ) -> Self {
        let mut checks = judgement.checks;
        let promises = Promise::ALL.map(|promise| {
            let check = checks.remove(&promise).unwrap_or_default();
            Row {
                promise,
                text: promise.text(),
                checked: check.checked,
                called_upon: run.faults.call_upon(promise),
                violations: check.violations,
                worst: if check.worst.is_empty() {
                    "-".to_owned()
                } else {
                    check.worst
                },
            }
        });
        let contacts = facts
            .campaigns
            .iter()
            .map(|campaign| campaign.created.contacts);
        Self {
            seed: run.seed,
            minutes: run.minutes,
            begun_at,
            promises: promises.into(),
            campaigns: facts.campaigns.len() as u64,
            contacts: contacts.sum(),
            calls: stats.accepted,
            answered: stats.answered,
            dial_requests: stats.requests,
            refused_by_status: stats.refused_by_status,
            faults: counts.faults,
            ambiguous: ambiguous(facts),
            ghosts: judgement.ghosts,
            takeovers: facts.takeovers.clone(),
            memory: counts.memory,
            pulses: counts.pulses,
        }
    }

    /// Every promise that was called upon was checked, and none was broken.
    pub(super) fn is_kept(&self) -> bool {
        let is_kept =
            |row: &Row| row.violations.is_empty() && (row.checked > 0 || !row.called_upon);
        self.promises.iter().all(is_kept)
    }

    pub(super) fn write(&self, file: &Path) -> anyhow::Result<()> {
        let text = serde_json::to_string_pretty(self)?;
        std::fs::write(file, text + "\n")
            .with_context(|| format!("{} cannot be written", file.display()))
    }

    pub(super) fn show(&self, screen: &Screen, logs: &Path) {
        screen.say("");
        screen.say(&format!(
            "  {:<36}{:>8}  {:>10}  worst case",
            "promise", "checked", "violations"
        ));
        for row in &self.promises {
            let name = format!("{:?}", row.promise);
            screen.say(&format!(
                "  {name:<4}{:<32}{:>8}  {:>10}  {}",
                row.text,
                row.checked,
                row.violations.len(),
                row.worst
            ));
        }
        screen.say("");
        screen.say(&format!(
            "  {} campaigns, {} contacts, {} dial requests, {} calls, {} answered",
            self.campaigns, self.contacts, self.dial_requests, self.calls, self.answered
        ));
        screen.say("  faults:");
        for (kind, count) in &self.faults {
            screen.say(&format!("    {count:>5}  {kind}"));
        }
        screen.say("  dials that were uncertain at first, and how they were settled:");
        for (how, count) in &self.ambiguous {
            screen.say(&format!("    {count:>5}  {how}"));
        }
        for ghost in &self.ghosts {
            screen.say(&format!(
                "    ghost: call {} dial {}: {}, lived {} ms",
                ghost.call, ghost.dial, ghost.reached, ghost.lived_ms
            ));
        }
        for line in memory_lines(&self.memory) {
            screen.say(&line);
        }
        self.show_violations(screen);
        screen.say(&format!(
            "  times are unix ms; the run began at {}; logs: {}",
            self.begun_at,
            logs.display()
        ));
    }

    fn show_violations(&self, screen: &Screen) {
        for row in &self.promises {
            if row.checked == 0 && row.called_upon {
                screen.say(&format!("  {:?} was never checked", row.promise));
            }
            for violation in row.violations.iter().take(SHOWN) {
                screen.say(&format!("  {:?} BROKEN: {violation}", row.promise));
            }
            if row.violations.len() > SHOWN {
                let more = row.violations.len() - SHOWN;
                screen.say(&format!("  {:?} BROKEN: and {more} more", row.promise));
            }
        }
    }
}

fn memory_lines(memory: &[Memory]) -> Vec<String> {
    let mut by_container: BTreeMap<usize, Vec<String>> = BTreeMap::new();
    for weighed in memory {
        let words = format!(
            "{} {:.1} MiB",
            weighed.when,
            weighed.rss_kib as f64 / 1024.0
        );
        by_container
            .entry(weighed.container)
            .or_default()
            .push(words);
    }
    let line = |(container, words): (usize, Vec<String>)| {
        format!("  memory of container {container}: {}", words.join(", "))
    };
    by_container.into_iter().map(line).collect()
}

/// Dials whose answer never came, by how it became known what happened to them.
fn ambiguous(facts: &Facts) -> BTreeMap<&'static str, u64> {
    let mut settled: BTreeMap<&'static str, u64> = BTreeMap::new();
    let calls = facts.campaigns.iter().flat_map(|campaign| &campaign.calls);
    for call in calls {
        let has = |name: &str| call.events.iter().any(|event| event == name);
        let how = if call.status == "uncertain" {
            "uncertain: the carrier could not tell in time"
        } else if call.uuid.is_none() || has("accepted") {
            continue;
        } else if has("ring") || has("answer") || has("hangup") {
            "dialed: the carrier's webhooks or list told"
        } else {
            "dialed: found in the carrier's records"
        };
        *settled.entry(how).or_default() += 1;
    }
    let unheard = facts.records.iter().filter(|record| {
        let status = record.refusal.as_ref().map(|refusal| refusal.status);
        status.is_some_and(|status| status.is_none_or(|status| status >= 500))
    });
    let never = unheard.count() as u64;
    if never > 0 {
        settled.insert(
            "not dialed: 5xx or reset, dialed again once that was sure",
            never,
        );
    }
    settled
}
