//! P9: a dead driver is replaced in time.
//!
//! The time from the signal to the first answer that names another driver may be the orphan threshold, one scan, and one
//! heartbeat for the reading itself; after SIGTERM two seconds and the same heartbeat. Time in which the database or another
//! container was out of order as well does not count: nobody can take over what cannot be written.

use super::{Check, Facts};
use crate::chaos::journal::{Disturbance, Takeover};

pub(super) fn in_time(facts: &Facts) -> Check {
    let mut check = Check::default();
    let timing = facts.timing;
    let mut worst = [("dead", 0, 0), ("stopped", 0, 0)];
    for takeover in &facts.takeovers {
        let is_stopped = takeover.cause == "stopped";
        let until = takeover.seen.unwrap_or(takeover.gave_up);
        let took = until - takeover.from;
        let clean = took - disturbed(&facts.disturbances, takeover.from, until);
        let allowed = timing.heartbeat
            + if is_stopped {
                timing.hand_over
            } else {
                timing.orphan + timing.scan
            };
        let slot = &mut worst[usize::from(is_stopped)];
        if clean > slot.1 {
            *slot = (slot.0, clean, took);
        }
        check.add(
            (clean > allowed || takeover.seen.is_none())
                .then(|| describe(takeover, took, clean, allowed)),
        );
    }
    let words = worst.map(|(cause, clean, took)| {
        if clean == took {
            format!("{cause} {clean} ms")
        } else {
            format!("{cause} {clean} ms of {took} ms undisturbed")
        }
    });
    check.worst = words.join(", ");
    check
}

fn describe(takeover: &Takeover, took: i64, clean: i64, allowed: i64) -> String {
    let seen = if takeover.seen.is_some() {
        "another driver was seen"
    } else {
        "no other driver was seen"
    };
    format!(
        "campaign {}: its container was {} at {}; {seen} after {took} ms, of which {clean} ms undisturbed; {allowed} ms are allowed",
        takeover.campaign, takeover.cause, takeover.from
    )
}

/// How much of a span of time was disturbed.
fn disturbed(disturbances: &[Disturbance], from: i64, until: i64) -> i64 {
    let mut spans: Vec<(i64, i64)> = disturbances
        .iter()
        .map(|span| (span.from.max(from), span.until.min(until)))
        .filter(|(from, until)| from < until)
        .collect();
    spans.sort_unstable();
    let (mut total, mut reached) = (0, from);
    for (begin, end) in spans {
        total += (end - begin.max(reached)).max(0);
        reached = reached.max(end);
    }
    total
}
