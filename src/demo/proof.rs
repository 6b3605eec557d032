//! The promises, checked from outside: the carrier's books against the API's answers. Pure.

use serde_json::Value;

use crate::simulator::Stats;

/// Everything that the proofs rest on.
#[derive(Debug, Clone, Default)]
pub(super) struct Facts {
    /// Contacts that the import accepted.
    pub(super) contacts: u64,
    pub(super) client: String,
    pub(super) client_limit: u64,
    pub(super) global_limit: u64,
    pub(super) max_attempts: u64,
    /// Slots still taken at the end, as the API says.
    pub(super) slots_left: u64,
    /// When the pause was answered and when the campaign was resumed, unix ms.
    pub(super) paused: Option<(i64, i64)>,
    /// When the carrier got each dial request, unix ms.
    pub(super) dialed_at_ms: Vec<i64>,
    /// The carrier's books.
    pub(super) stats: Stats,
    /// The last progress that the API answered.
    pub(super) progress: Value,
}

/// A promise and what became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Proof {
    /// The promise, in a few words.
    pub(super) promise: &'static str,
    /// What was compared.
    pub(super) checked: String,
    /// What is wrong; nothing if it was kept.
    pub(super) violation: Option<String>,
}

impl Proof {
    pub(super) fn is_kept(&self) -> bool {
        self.violation.is_none()
    }
}

/// Checks every promise that one campaign can show.
pub(super) fn prove(facts: &Facts) -> Vec<Proof> {
    vec![
        limits(facts),
        once(facts),
        nobody_lost(facts),
        adds_up(facts),
        pause_bites(facts),
        no_leak(facts),
    ]
}

fn proof(
    promise: &'static str,
    checked: String,
    is_kept: bool,
    violation: impl FnOnce() -> String,
) -> Proof {
    Proof {
        promise,
        checked,
        violation: (!is_kept).then(violation),
    }
}

fn limits(facts: &Facts) -> Proof {
    let client = facts
        .stats
        .by_client
        .get(&facts.client)
        .map_or(0, |usage| usage.peak_live);
    let global = facts.stats.peak_live;
    let checked = format!(
        "peak {client} of {} for the client, {global} of {} in all",
        facts.client_limit, facts.global_limit
    );
    let is_kept = client <= facts.client_limit && global <= facts.global_limit;
    proof("P1 limits are never exceeded", checked, is_kept, || {
        "more calls lived at once than allowed".to_owned()
    })
}

fn once(facts: &Facts) -> Proof {
    let duplicates = &facts.stats.duplicates;
    let twice = duplicates.by_call.len() + duplicates.by_call_dial.len();
    let most = duplicates
        .by_campaign_to
        .values()
        .flat_map(|numbers| numbers.values())
        .copied()
        .max()
        .unwrap_or(1);
    let checked = format!(
        "{} calls, {twice} attempts dialed twice, at most {most} attempts a contact",
        facts.stats.accepted
    );
    let is_kept = twice == 0 && most <= facts.max_attempts;
    proof("P2 nobody is dialed twice", checked, is_kept, || {
        "an attempt reached the carrier more than once".to_owned()
    })
}

fn nobody_lost(facts: &Facts) -> Proof {
    let settled = sum(&facts.progress["final"])
        + sum(&facts.progress["skipped"])
        + number(&facts.progress, "uncertain");
    let reached = facts.stats.unique_destinations as u64;
    let checked = format!(
        "{settled} of {} contacts settled, {reached} numbers dialed",
        facts.contacts
    );
    let is_kept =
        settled == facts.contacts && reached + sum(&facts.progress["skipped"]) >= facts.contacts;
    proof("P3 nobody is lost", checked, is_kept, || {
        "a contact has no final disposition".to_owned()
    })
}

fn adds_up(facts: &Facts) -> Proof {
    let progress = &facts.progress;
    let parts =
        ["pending", "waitingRetry", "inFlight", "uncertain"].map(|name| number(progress, name));
    let total = parts.iter().sum::<u64>() + sum(&progress["final"]) + sum(&progress["skipped"]);
    let checked = format!("{total} = {}", number(progress, "total"));
    proof(
        "P4 counts add up",
        checked,
        total == number(progress, "total"),
        || "the headings do not sum up to the total".to_owned(),
    )
}

fn pause_bites(facts: &Facts) -> Proof {
    let Some((answered, resumed)) = facts.paused else {
        return proof(
            "P5 pause bites",
            "the campaign was too short to pause".to_owned(),
            true,
            String::new,
        );
    };
    let during = facts
        .dialed_at_ms
        .iter()
        .filter(|at| **at > answered && **at < resumed);
    let last = during.map(|at| at - answered).max();
    let checked = last.map_or_else(
        || "no dial after the answer".to_owned(),
        |last| format!("last dial {last} ms after the answer"),
    );
    proof(
        "P5 pause bites",
        checked,
        last.is_none_or(|last| last <= 1000),
        || "a dial came later than 1 s".to_owned(),
    )
}

fn no_leak(facts: &Facts) -> Proof {
    let checked = format!(
        "{} slots taken, {} calls live at the carrier",
        facts.slots_left, facts.stats.live
    );
    proof(
        "P10 no slot is leaked",
        checked,
        facts.slots_left == 0,
        || "slots are taken though nobody is called".to_owned(),
    )
}

fn number(value: &Value, name: &str) -> u64 {
    value[name].as_u64().unwrap_or_default()
}

fn sum(headings: &Value) -> u64 {
    headings
        .as_object()
        .map(|headings| headings.values().filter_map(Value::as_u64).sum())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulator::Usage;
    use serde_json::json;

    fn kept() -> Facts {
        let mut facts = Facts {
            contacts: 3,
            client: "c".to_owned(),
            client_limit: 2,
            global_limit: 2,
            max_attempts: 2,
            paused: Some((1000, 4000)),
            dialed_at_ms: vec![900, 1500, 4100],
            progress: json!({ "total": 3, "pending": 0, "waitingRetry": 0, "inFlight": 0, "uncertain": 0, "final": { "answered": 3 }, "skipped": {} }),
            ..Facts::default()
        };
        facts.stats.accepted = 3;
        facts.stats.unique_destinations = 3;
        facts.stats.peak_live = 2;
        facts.stats.by_client.insert(
            "c".to_owned(),
            Usage {
                accepted: 3,
                live: 0,
                peak_live: 2,
            },
        );
        facts
    }

    fn broken(change: impl FnOnce(&mut Facts)) -> Vec<&'static str> {
        let mut facts = kept();
        change(&mut facts);
        prove(&facts)
            .into_iter()
            .filter(|proof| !proof.is_kept())
            .map(|proof| proof.promise)
            .collect()
    }

    #[test]
    fn each_violation_is_seen() {
        assert_eq!(broken(|_| {}), [""; 0]);
        assert_eq!(
            broken(|facts| facts.stats.peak_live = 3),
            ["P1 limits are never exceeded"]
        );
        assert_eq!(
            broken(|facts| facts.client_limit = 1),
            ["P1 limits are never exceeded"]
        );
        let twice = |facts: &mut Facts| {
            let duplicates = &mut facts.stats.duplicates;
            duplicates.by_call_dial.insert("a/1".to_owned(), 2);
        };
        assert_eq!(broken(twice), ["P2 nobody is dialed twice"]);
        assert_eq!(broken(|facts| facts.contacts = 4), ["P3 nobody is lost"]);
        assert_eq!(
            broken(|facts| facts.progress["pending"] = json!(1)),
            ["P4 counts add up"]
        );
        assert_eq!(
            broken(|facts| facts.dialed_at_ms.push(2001)),
            ["P5 pause bites"]
        );
        assert_eq!(
            broken(|facts| facts.slots_left = 1),
            ["P10 no slot is leaked"]
        );
    }
}
