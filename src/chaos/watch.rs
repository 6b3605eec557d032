//! Readers who never stop asking: does every progress answer add up (P4), who drives what, which campaigns are over, and are
//! more slots taken than there are (P1).

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::judge::Promise;
use super::takeovers;
use super::world::{GLOBAL_LIMIT, World};

/// Pause between two questions of one reader.
const PAUSE: Duration = Duration::from_millis(25);
/// Every so many questions, one is about a campaign that is over, and one about the slots.
const SELDOM: usize = 8;

/// Asks until the run is stopped, each time at another container.
pub(super) async fn read(world: Arc<World>, mut turn: usize, stop: CancellationToken) {
    while !stop.is_cancelled() {
        turn += 1;
        if turn.is_multiple_of(SELDOM) {
            read_slots(&world, turn).await;
        } else if let Some(campaign) = choose(&world, turn) {
            read_progress(&world, turn, &campaign).await;
        }
        stop.run_until_cancelled(tokio::time::sleep(PAUSE)).await;
    }
}

fn choose(world: &World, turn: usize) -> Option<String> {
    let active = world.journal.active();
    if !active.is_empty() && !(turn + 1).is_multiple_of(SELDOM) {
        return Some(active[turn % active.len()].id.clone());
    }
    let pages = world.journal.pages();
    let count = pages.campaigns.len().max(1);
    pages
        .campaigns
        .get(turn % count)
        .map(|campaign| campaign.id.clone())
}

async fn read_progress(world: &World, turn: usize, campaign: &str) {
    let path = format!("/v1/campaigns/{campaign}/progress");
    let address = world.address(turn / 3 + turn);
    let reply = world.glancing.get(address, &path).await;
    if !reply.is_success() {
        return;
    }
    let violation = miscounted(&reply.body).map(|why| {
        format!(
            "campaign {campaign} at {}: {why}: {}",
            reply.answered_at, reply.body
        )
    });
    world.journal.check(Promise::P4, violation);
    takeovers::note_driver(world, campaign, &reply.body);
    if matches!(
        reply.body["status"].as_str(),
        Some("completed" | "cancelled")
    ) {
        world.journal.is_over(campaign);
    }
}

/// What does not add up in a progress answer.
fn miscounted(progress: &Value) -> Option<String> {
    let one = |name: &str| progress[name].as_i64();
    let many = |name: &str| -> Option<i64> {
        let counts = progress[name].as_object()?.values();
        counts.map(Value::as_i64).sum()
    };
    let parts = [
        one("pending"),
        one("waitingRetry"),
        one("inFlight"),
        one("uncertain"),
        many("final"),
        many("skipped"),
    ];
    let Some(parts) = parts.into_iter().collect::<Option<Vec<i64>>>() else {
        return Some("a count is missing".to_owned());
    };
    let (sum, total) = (parts.iter().sum::<i64>(), one("total"));
    if parts.iter().any(|count| *count < 0) {
        return Some("a count is negative".to_owned());
    }
    (Some(sum) != total).then(|| format!("the parts are {sum}, the total is {total:?}"))
}

async fn read_slots(world: &World, turn: usize) {
    let reply = world
        .glancing
        .get(world.address(turn), "/v1/utilization")
        .await;
    let Some(active) = reply.body["global"]["active"]
        .as_u64()
        .filter(|_| reply.is_success())
    else {
        return;
    };
    let violation = (active > u64::from(GLOBAL_LIMIT)).then(|| {
        format!(
            "{active} global slots are taken of {GLOBAL_LIMIT} at {}",
            reply.answered_at
        )
    });
    world.journal.check(Promise::P1, violation);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_miscount_is_seen() {
        let mut progress = json!({
            "total": 6, "pending": 1, "waitingRetry": 1, "inFlight": 1, "uncertain": 1,
            "final": { "answered": 1 }, "skipped": { "expired": 1 },
        });
        assert_eq!(miscounted(&progress), None);
        progress["pending"] = json!(2);
        assert!(miscounted(&progress).is_some());
        progress["pending"] = json!(null);
        assert!(miscounted(&progress).is_some());
        progress["pending"] = json!(-1);
        progress["inFlight"] = json!(3);
        assert!(miscounted(&progress).is_some());
    }
}
