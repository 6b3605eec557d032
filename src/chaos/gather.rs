//! The end of a run: everything comes to rest, and then the API is asked for all that it knows.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context;
use chrono::DateTime;
use serde_json::Value;
use tokio::time::Instant;

use super::api::Reply;
use super::judge::{ApiCall, Campaign, Facts, Idle};
use super::operators;
use super::workload::Workload;
use super::world::{TIMING, World};

/// How long everything may take to come to rest once the faults are over: a call that nobody can tell of is given up after half
/// a minute, and the campaigns under way have to be finished.
const PATIENCE: Duration = Duration::from_secs(300);
/// How often it is looked.
const LOOK: Duration = Duration::from_millis(500);
/// How often a question is asked.
const TRIES: usize = 40;
const PAGE: usize = 500;

/// Waits until every campaign is over and nobody is called any more; answers what did not come to an end.
pub(super) async fn rest(world: &World, workload: &Workload) -> Vec<String> {
    let give_up = Instant::now() + PATIENCE;
    loop {
        operators::resume_all(world, workload).await;
        let active = world.journal.active();
        let live = world.simulator.stats().live;
        if active.is_empty()
            && live == 0
            && slots(world)
                .await
                .is_ok_and(|slots| slots.values().sum::<u64>() == 0)
        {
            return Vec::new();
        }
        if Instant::now() > give_up {
            let mut unfinished = Vec::new();
            for campaign in active {
                let path = format!("/v1/campaigns/{}/progress", campaign.id);
                let progress = ask(world, &path).await.map(|reply| reply.body);
                unfinished.push(format!(
                    "campaign {} did not come to an end {} s after the last fault: {}",
                    campaign.id,
                    PATIENCE.as_secs(),
                    progress.unwrap_or_default()
                ));
            }
            return unfinished;
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// All facts. The carrier's books are closed first: what they say was answered must be in the API by now.
pub(super) async fn facts(world: &World, unfinished: Vec<String>) -> anyhow::Result<Facts> {
    let records = world.simulator.calls();
    let created = world.journal.pages().campaigns.clone();
    let mut campaigns = Vec::new();
    for created in created {
        let path = format!("/v1/campaigns/{}", created.id);
        let progress = ask(world, &format!("{path}/progress")).await?.body;
        let status = progress["status"].as_str().unwrap_or_default().to_owned();
        let calls = calls(world, &path).await?;
        campaigns.push(Campaign {
            created,
            status,
            progress,
            calls,
        });
    }
    let active = ask(world, "/v1/active-calls?includeCalls=true").await?.body;
    let idle = Idle {
        slots: slots(world).await?,
        active_calls: active["calls"].as_array().map_or(0, Vec::len) as u64,
        unfinished,
    };
    let pages = world.journal.pages();
    Ok(Facts {
        records,
        sent: world.dial_notes.all(),
        campaigns,
        limits: pages.limits.clone(),
        commands: pages.commands.clone(),
        takeovers: pages.takeovers.clone(),
        disturbances: pages.disturbances.clone(),
        idle,
        timing: TIMING,
    })
}

async fn slots(world: &World) -> anyhow::Result<BTreeMap<String, u64>> {
    let report = ask(world, "/v1/utilization").await?.body;
    let active = |level: &Value| level["active"].as_u64().context("a level without a count");
    let mut slots = BTreeMap::from([("global".to_owned(), active(&report["global"])?)]);
    for client in report["clients"].as_array().into_iter().flatten() {
        let id = client["clientId"].as_str().unwrap_or_default();
        slots.insert(format!("client/{id}"), active(client)?);
    }
    Ok(slots)
}

async fn calls(world: &World, campaign: &str) -> anyhow::Result<Vec<ApiCall>> {
    let mut calls = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = ask(world, &format!("{campaign}/calls?limit={PAGE}{cursor}")).await?;
        let items = page.body["items"]
            .as_array()
            .context("a page without items")?;
        calls.extend(items.iter().map(call));
        match page.text("nextCursor") {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return Ok(calls),
        }
    }
}

fn call(item: &Value) -> ApiCall {
    let text = |name: &str| item[name].as_str().map(str::to_owned);
    let events = item["events"].as_array().into_iter().flatten();
    let start = item["startTime"].as_str().map(DateTime::parse_from_rfc3339);
    ApiCall {
        id: text("id").unwrap_or_default(),
        uuid: text("callUUID"),
        seq: item["contactSeq"].as_i64().unwrap_or(-1),
        attempt: item["attempt"].as_u64().unwrap_or_default(),
        status: text("status").unwrap_or_default(),
        outcome: text("outcome"),
        skip_reason: text("skipReason"),
        start: start
            .and_then(Result::ok)
            .map_or(i64::MAX, |time| time.timestamp_millis()),
        answered: !item["answerTime"].is_null(),
        hangup_code: item["hangup"]["code"].as_u64(),
        events: events
            .filter_map(|event| event["event"].as_str().map(str::to_owned))
            .collect(),
    }
}

/// Asks one container after the other until one answers.
async fn ask(world: &World, path: &str) -> anyhow::Result<Reply> {
    let mut reply = Reply::default();
    for turn in 0..TRIES {
        reply = world.admin.get(world.address(turn), path).await;
        if reply.is_success() {
            return Ok(reply);
        }
        tokio::time::sleep(LOOK).await;
    }
    anyhow::bail!("{path} answered {}", reply.status)
}
