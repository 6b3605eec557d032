//! Death at every step: for each crash point in the code a process dies there in the middle of its work, another one goes on,
//! and nobody is dialed twice, nobody is lost, the counts add up all the while and no slot leaks (promises P2, P3, P4, P10).
//!
//! The points are read from the code. One that no story reaches fails the test, and so does a write without a point beside it.

mod scene;
mod stories;

use std::collections::{BTreeMap, BTreeSet};
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::time::Instant;

use futures_util::{FutureExt, StreamExt};

use self::stories::Story;

/// Stories that go on at the same time. Most of their time they wait.
const AT_ONCE: usize = 6;

/// A point, at which pass the process dies there, and in the middle of what.
#[derive(Debug, Clone, Copy)]
struct Case {
    point: &'static str,
    pass: u32,
    story: Story,
}

const fn case(point: &'static str, pass: u32, story: Story) -> Case {
    Case { point, pass, story }
}

/// Those that take longest come first.
const CASES: &[Case] = &[
    case("sweep.after_call", 1, Story::Unlisted),
    case("reopen.between_writes", 1, Story::Reopened),
    case("retry.between_writes", 2, Story::Retry),
    case("reconcile.before_confirming", 1, Story::Long),
    case("reconcile.before_giving_up", 1, Story::Unanswerable),
    case("reconcile.before_withdraw", 1, Story::NeverSent),
    case("reconcile.after_withdraw", 1, Story::NeverSent),
    case("reconcile.after_question", 2, Story::Unheard),
    case("reconcile.after_end", 2, Story::Unheard),
    case("bot_not_ready.before_end", 2, Story::ColdBot),
    case(
        "claimed_already.before_passing_over",
        1,
        Story::Adopted("dial.after_intent/3"),
    ),
    case(
        "claimed_already.before_withdraw",
        1,
        Story::Adopted("dial.after_intent/3"),
    ),
    case("adopt.before", 1, Story::Adopted("dial.after_guard/3")),
    case("adopt.after", 1, Story::Adopted("dial.before_guard/3")),
    case("create.before_insert", 1, Story::Once),
    case("create.after_insert", 1, Story::Once),
    case("idempotency.after_reserving", 1, Story::Once),
    case("idempotency.before_keeping", 1, Story::Once),
    case("idempotency.after_keeping", 1, Story::Once),
    case("create.after_insert", 1, Story::Plain),
    case("dial.before_intent", 4, Story::Plain),
    case("dial.after_intent", 4, Story::Plain),
    case("dial.before_guard", 4, Story::Beside),
    case("dial.after_guard", 4, Story::Plain),
    case("send.before", 4, Story::Plain),
    case("send.body_taken", 4, Story::Beside),
    case("send.unanswered", 2, Story::Slow),
    case("send.renewed", 2, Story::Slow),
    case("send.accepted", 4, Story::Plain),
    case("send.accepted", 4, Story::Beside),
    case("send.recorded", 4, Story::Beside),
    case(
        "send.before_renewing",
        1,
        Story::Frozen("send.before/3/freeze"),
    ),
    case(
        "send.permitted_again",
        1,
        Story::Frozen("send.before/3/freeze"),
    ),
    case("send.failed", 1, Story::Throttled),
    case("withdraw.before", 1, Story::Throttled),
    case("withdraw.after", 1, Story::Throttled),
    case("redial.before_intent", 1, Story::Throttled),
    case("redial.after_intent", 1, Story::Throttled),
    case("refused.before_end", 1, Story::Refused),
    case("condemned.before_pause", 1, Story::Condemned),
    case("condemned.after_pause", 1, Story::Condemned),
    case("retry.before_intent", 2, Story::Retry),
    case("retry.after_intent", 2, Story::Retry),
    case(
        "take_back.before",
        1,
        Story::PausedMeanwhile("dial.after_intent/3/freeze"),
    ),
    case(
        "take_back.after",
        1,
        Story::PausedMeanwhile("dial.after_intent/3/freeze"),
    ),
    case("undialed.before_passing_over", 3, Story::Skipped),
    case("webhook.before_write", 5, Story::Plain),
    case("webhook.after_write", 5, Story::Beside),
    case("webhook.before_answer", 5, Story::Plain),
    case("webhook.between_machine_and_event", 2, Story::Machine),
    case("webhook.before_pausing", 1, Story::NoCredit),
    case("webhook.kept", 1, Story::Unmatched),
    case("rematch.before_note", 1, Story::Unmatched),
    case("ghost.before_hanging_up", 1, Story::Ghost),
    case("command.before_transition", 1, Story::Command(&["pause"])),
    case("command.after_transition", 1, Story::Command(&["pause"])),
    case(
        "command.before_transition",
        2,
        Story::Command(&["pause", "resume"]),
    ),
    case(
        "command.after_transition",
        2,
        Story::Command(&["pause", "resume"]),
    ),
    case("command.before_transition", 1, Story::Command(&["cancel"])),
    case("command.after_transition", 1, Story::Command(&["cancel"])),
    case("schedule.before_start", 1, Story::Scheduled),
    case("schedule.after_start", 1, Story::Scheduled),
    case("hand_over.stopping", 1, Story::Stopped),
    case("hand_over.before_release", 1, Story::Stopped),
    case("hand_over.between_leases", 1, Story::Stopped),
    case("hand_over.after_release", 1, Story::Stopped),
    case("complete.before", 1, Story::Plain),
    case("complete.after", 1, Story::Plain),
    case("import.before_last_write", 1, Story::Import),
    case("import.after_rejects", 1, Story::Import),
    case("import.after_last_write", 1, Story::Import),
    case("hang_up.before_order", 1, Story::HungUp),
    case("hang_up.after_order", 1, Story::HungUp),
    case("single_call.before_intent", 1, Story::SingleCall),
    case("single_call.after_intent", 1, Story::SingleCall),
    case("send.body_taken", 1, Story::SingleCall),
    case("send.accepted", 1, Story::SingleCall),
];

/// Functions that write calls or campaigns and need no point of their own, and why.
const POINTLESS: &[(&str, &str)] = &[
    (
        "calls.rs:withdraw",
        "the writer of calls: whoever calls it has points around it",
    ),
    ("calls.rs:withdraw_seen", "as withdraw"),
    ("calls.rs:apply", "as withdraw"),
    ("calls.rs:missed", "as withdraw"),
    ("calls.rs:note_hangup", "as withdraw"),
    ("calls.rs:renew", "as withdraw"),
    ("calls.rs:extend", "as withdraw"),
    ("calls.rs:confirm", "as withdraw"),
    ("calls.rs:write", "as withdraw"),
    (
        "heartbeat.rs:beat",
        "dying between two beats is dying anywhere",
    ),
    ("driver/mod.rs:note_waiting", "a remark for people"),
    (
        "breaker.rs:check",
        "one write, which the next driver's look repeats",
    ),
    ("driver/dial.rs:client", "as check"),
    ("driver/next.rs:closed_window", "as check"),
    ("driver/next.rs:give_up", "as check"),
    (
        "campaigns.rs:fail",
        "the list is gone: nothing can be dialed before or after it",
    ),
    (
        "single_calls.rs:not_ready",
        "a call without slots that never leaves; as bot_not_ready",
    ),
];

/// The files under a folder of src, with what they hold outside of their tests.
fn code_under(folder: &str) -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let (mut found, mut folders) = (Vec::new(), vec![root.join(folder)]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let name = path.strip_prefix(&root).unwrap().display().to_string();
            let text = std::fs::read_to_string(&path).unwrap();
            let code = text.split("#[cfg(test)]").next().unwrap();
            found.push((name, code.to_owned()));
        }
    }
    found
}

/// The names of the points in the code, with where they stand.
fn points() -> BTreeMap<String, Vec<String>> {
    let mut found = BTreeMap::<String, Vec<String>>::new();
    for (file, code) in code_under("") {
        for (index, line) in code.lines().enumerate() {
            let name = line.trim().strip_prefix("crash_point!(\"");
            if let Some(name) = name.and_then(|rest| rest.strip_suffix("\");")) {
                let place = format!("{file}:{}", index + 1);
                found.entry(name.to_owned()).or_default().push(place);
            }
        }
    }
    found
}

/// The functions of a text by name, each with all up to the next one.
fn functions(code: &str) -> impl Iterator<Item = (&str, &str)> {
    code.split("fn ").skip(1).map(|rest| {
        let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_');
        (&rest[..end.unwrap_or(rest.len())], rest)
    })
}

/// The store's functions that write calls or campaigns.
fn writers() -> BTreeSet<String> {
    const VERBS: [&str; 6] = [
        ".insert_",
        ".replace_one",
        ".update_",
        "_and_update",
        ".delete_",
        ".campaign_update(",
    ];
    let code = code_under("services/store");
    let all = code.iter().flat_map(|(_, code)| functions(code));
    all.filter(|(name, _)| name.starts_with("call_") || name.starts_with("campaign_"))
        .filter(|(_, body)| VERBS.iter().any(|verb| body.contains(verb)))
        .map(|(name, _)| name.to_owned())
        .collect()
}

#[test]
fn every_write_of_a_call_or_a_campaign_has_a_point_beside_it() {
    let writers = writers();
    assert!(writers.len() > 12, "{writers:?}");
    let mut without = BTreeSet::new();
    for (file, code) in code_under("services") {
        if file.starts_with("services/store/") {
            continue;
        }
        let file = file.trim_start_matches("services/");
        for (name, body) in functions(&code) {
            let writes = writers
                .iter()
                .any(|writer| body.contains(&format!(".{writer}(")));
            if writes && !body.contains("crash_point!") {
                without.insert(format!("{file}:{name}"));
            }
        }
    }
    let allowed: BTreeSet<String> = POINTLESS
        .iter()
        .map(|(place, _)| (*place).to_owned())
        .collect();
    assert_eq!(
        without, allowed,
        "functions that write without a crash point"
    );
}

#[test]
fn every_point_of_the_code_has_a_story_and_one_place() {
    let points = points();
    let told: BTreeSet<&str> = CASES.iter().map(|case| case.point).collect();
    let untold: Vec<_> = points
        .iter()
        .filter(|(name, _)| !told.contains(name.as_str()))
        .collect();
    assert!(untold.is_empty(), "no story reaches {untold:?}");
    let twice: Vec<_> = points.iter().filter(|(_, at)| at.len() > 1).collect();
    assert!(twice.is_empty(), "one name, several places: {twice:?}");
    let gone: Vec<_> = told
        .iter()
        .filter(|name| !points.contains_key(**name))
        .collect();
    assert!(gone.is_empty(), "no longer in the code: {gone:?}");
}

/// `CRASH_POINT=name` tells the stories of that point only.
#[expect(
    clippy::disallowed_methods,
    clippy::print_stderr,
    reason = "for people who look for a fault"
)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_dies_at_any_step_is_survived() {
    let only = std::env::var("CRASH_POINT").ok();
    let chosen = CASES
        .iter()
        .filter(|case| only.as_ref().is_none_or(|only| case.point == only));
    let begun = Instant::now();
    let told: Vec<Option<String>> = futures_util::stream::iter(chosen)
        .map(|case| async move {
            let begun = Instant::now();
            let told = AssertUnwindSafe(stories::tell(*case)).catch_unwind().await;
            eprintln!("{:6.1} s {case:?}", begun.elapsed().as_secs_f64());
            told.err().map(|_| format!("{case:?}"))
        })
        .buffer_unordered(AT_ONCE)
        .collect()
        .await;
    let failed: Vec<String> = told.into_iter().flatten().collect();
    eprintln!("{:6.1} s in all", begun.elapsed().as_secs_f64());
    assert!(failed.is_empty(), "not survived: {failed:#?}");
}
