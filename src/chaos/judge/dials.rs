//! P2: an attempt reaches the carrier once. P5: nobody is dialed after a pause.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{Calls, Check, Facts, about, accepted_at, ended_at, moment, param};
use crate::chaos::journal::{Command, Order};
use crate::simulator::{DialRecord, EventKind};

/// A command that nobody answered may take effect for so long, in ms: the store's longest wait, and some.
const LATE_EFFECT_MS: i64 = 30_000;

/// A withdrawn dial that showed up at the carrier after all.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::chaos) struct Ghost {
    pub(in crate::chaos) call: String,
    pub(in crate::chaos) dial: String,
    /// How far it got.
    pub(in crate::chaos) reached: String,
    /// From its acceptance to its end, in ms.
    pub(in crate::chaos) lived_ms: i64,
}

/// P2. Every accepted dial is either the one that its call is known by, or a ghost. A ghost is a violation
/// * if it is the same dial sent twice,
/// * if its phone rang before the same attempt was dialed again, unless the carrier took the dial up so late that it had said for
///   long that it knew nothing of it,
/// * if somebody who answered it heard more than the end of the call.
pub(super) fn once(facts: &Facts, calls: &Calls<'_>) -> (Check, Vec<Ghost>) {
    let mut check = Check::default();
    let mut ghosts = Vec::new();
    let mut by_call: BTreeMap<&str, Vec<&DialRecord>> = BTreeMap::new();
    for record in facts.records.iter().filter(|record| record.accepted) {
        by_call
            .entry(param(record, "call"))
            .or_default()
            .push(record);
    }
    let mut attempts: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    for records in by_call.values() {
        for (index, record) in records.iter().enumerate() {
            let is_repeated = records[..index]
                .iter()
                .any(|earlier| param(earlier, "dial") == param(record, "dial"));
            let mut violation =
                is_repeated.then(|| format!("the same dial twice: {}", about(record)));
            if calls.current(record).is_some() {
                let to = record.to.digits();
                *attempts.entry((param(record, "campaign"), to)).or_default() += 1;
            } else {
                ghosts.push(ghost(record));
                violation = violation.or_else(|| haunts(record, records, facts));
            }
            check.add(violation);
        }
    }
    for campaign in &facts.campaigns {
        let most = campaign.created.max_attempts;
        let over = attempts
            .iter()
            .filter(|((id, _), count)| *id == campaign.created.id && **count > most);
        for (_, count) in over {
            check.violations.push(format!(
                "a contact of campaign {} was dialed {count} times, {most} attempts are allowed",
                campaign.created.id
            ));
        }
        check.violations.extend(repeated_attempts(campaign));
    }
    let rang = ghosts
        .iter()
        .filter(|ghost| ghost.reached != "did not ring");
    check.worst = format!("{} ghosts, {} rang", ghosts.len(), rang.count());
    (check, ghosts)
}

fn repeated_attempts(campaign: &super::Campaign) -> Vec<String> {
    let mut seen: BTreeMap<(i64, u64), &str> = BTreeMap::new();
    let twice = campaign.calls.iter().filter_map(|call| {
        let other = seen.insert((call.seq, call.attempt), &call.id)?;
        Some(format!(
            "attempt {} to reach contact {} of campaign {} is two calls: {other} and {}",
            call.attempt, call.seq, campaign.created.id, call.id
        ))
    });
    twice.collect()
}

fn ghost(record: &DialRecord) -> Ghost {
    Ghost {
        call: param(record, "call").to_owned(),
        dial: param(record, "dial").to_owned(),
        reached: how_far(record),
        lived_ms: ended_at(record).saturating_sub(accepted_at(record)),
    }
}

fn how_far(record: &DialRecord) -> String {
    let end = ended_at(record);
    if let Some(answered) = moment(record, "in-progress") {
        let heard = if was_ended_by_us(record) {
            "hung up after"
        } else if was_given_words(record) {
            "TALKED for"
        } else {
            "heard nothing for"
        };
        return format!("answered, {heard} {} ms", end.saturating_sub(answered));
    }
    match moment(record, "ringing") {
        Some(rang) => format!("rang for {} ms", end.saturating_sub(rang)),
        None => "did not ring".to_owned(),
    }
}

/// Hung up by our order or our document, or never given a document at all.
fn was_ended_by_us(record: &DialRecord) -> bool {
    record.hangup.is_some_and(|hangup| {
        matches!(hangup.source, "Answer XML" | "API Request") || matches!(hangup.code, 7011 | 8011)
    })
}

/// Whether the carrier had a document while the call lived: nobody hears anything before. One that came in time and was to hang
/// up ended the call, see [`was_ended_by_us`].
fn was_given_words(record: &DialRecord) -> bool {
    let end = ended_at(record);
    record
        .deliveries
        .iter()
        .any(|one| one.kind == EventKind::Answer && one.http_status == Some(200) && one.at_ms < end)
}

fn haunts(record: &DialRecord, of_call: &[&DialRecord], facts: &Facts) -> Option<String> {
    if record.answered && !was_ended_by_us(record) && was_given_words(record) {
        return Some(format!("a ghost reached a person: {}", about(record)));
    }
    let rang = moment(record, "ringing")?;
    if accepted_at(record) - sent_at(record, facts) >= facts.timing.settle {
        return None;
    }
    let again = of_call
        .iter()
        .find(|other| accepted_at(other) > rang && other.request_uuid != record.request_uuid)?;
    Some(format!(
        "dialed again at {} though the phone had rung at {rang}: {}",
        accepted_at(again),
        about(record)
    ))
}

/// When a dial left its container: what a proxy or the carrier held back is not the container's delay.
fn sent_at(record: &DialRecord, facts: &Facts) -> i64 {
    let key = (
        param(record, "call").to_owned(),
        param(record, "dial").to_owned(),
    );
    let arrived = record.requested_at_ms;
    facts
        .sent
        .get(&key)
        .map_or(arrived, |sent| arrived.min(*sent))
}

/// P5. A dial counts at the time at which it left its container. Judged from a second after the answer until somebody asked
/// to resume; not at all where a request to resume was under way when the pause was asked for.
pub(super) fn pause_bites(facts: &Facts) -> Check {
    let mut check = Check::default();
    let mut worst: Option<i64> = None;
    let mut dials: BTreeMap<&str, Vec<(i64, &DialRecord)>> = BTreeMap::new();
    for record in &facts.records {
        let sent = sent_at(record, facts);
        dials
            .entry(param(record, "campaign"))
            .or_default()
            .push((sent, record));
    }
    for command in facts.commands.iter().filter(|command| {
        command.status == 200 && matches!(command.order, Order::Pause | Order::Cancel)
    }) {
        let Some(until) = undisputed_until(facts, command) else {
            continue;
        };
        let of_campaign = dials.get(command.campaign.as_str()).into_iter().flatten();
        let late = of_campaign.filter(|(sent, _)| (command.done_at + 1..until).contains(sent));
        let last = late.max_by_key(|(sent, _)| *sent);
        let after = last.map(|(sent, _)| sent - command.done_at);
        worst = worst.max(after.or(Some(0)));
        check.add(
            last.filter(|_| after > Some(facts.timing.pause))
                .map(|(sent, record)| {
                    format!(
                        "dialed {} ms after {:?} was answered at {} (sent at {sent}): {}",
                        sent - command.done_at,
                        command.order,
                        command.done_at,
                        about(record)
                    )
                }),
        );
    }
    check.worst = format!(
        "last dial {} ms after the answer",
        worst.unwrap_or_default()
    );
    check
}

/// Until when the campaign must stay quiet after `command`: the next request to resume. None where one was under way.
fn undisputed_until(facts: &Facts, command: &Command) -> Option<i64> {
    let resumes = facts
        .commands
        .iter()
        .filter(|other| other.campaign == command.campaign && other.order == Order::Resume);
    let mut until = i64::MAX;
    for resume in resumes {
        let is_sure = (200..500).contains(&resume.status);
        let done = resume.done_at + if is_sure { 0 } else { LATE_EFFECT_MS };
        if resume.sent_at <= command.done_at && done >= command.sent_at {
            return None;
        }
        if resume.sent_at > command.done_at {
            until = until.min(resume.sent_at);
        }
    }
    Some(until)
}
