//! The work under test: clients with limits of their own, and campaigns that are created for as long as the run lasts.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::Context;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use serde_json::{Value, json};
use tokio::sync::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::api::{Api, Reply};
use super::journal::Created;
use super::world::{GLOBAL_LIMIT, World};

/// Campaigns that run at the same time, at least: as many as come to an end now and then in spite of all faults.
pub(super) const AT_ONCE: usize = 7;
/// The same where every slot is to be wanted by somebody at any time.
pub(super) const MANY_AT_ONCE: usize = 18;
/// How often it is looked whether there are enough.
const LOOK: Duration = Duration::from_millis(300);
/// For how long a request that nobody answered is sent again: the Idempotency-Key of one whose container died is free after a
/// minute of silence.
const PATIENCE: Duration = Duration::from_secs(150);
/// Pause between two tries.
const PAUSE: Duration = Duration::from_millis(250);
/// Area codes of the contacts' numbers, all fictitious (555).
const AREAS: [u32; 24] = [
    201, 202, 203, 205, 206, 207, 208, 209, 210, 212, 213, 214, 215, 216, 217, 218, 219, 224, 225,
    228, 229, 231, 234, 239,
];

/// A client as it is created.
struct Plan {
    name: &'static str,
    calls: u32,
    caller_id: &'static str,
    /// Where there is none, the account's limit is the only one.
    calls_per_caller_id: Option<u32>,
    guaranteed: u32,
}

const PLANS: [Plan; 4] = [
    Plan {
        name: "Wide",
        calls: 10,
        caller_id: "+12025550100",
        calls_per_caller_id: None,
        guaranteed: 0,
    },
    Plan {
        name: "Narrow",
        calls: 4,
        caller_id: "+12025550101",
        calls_per_caller_id: Some(3),
        guaranteed: 0,
    },
    Plan {
        name: "Guaranteed",
        calls: 8,
        caller_id: "+12025550102",
        calls_per_caller_id: Some(8),
        guaranteed: 4,
    },
    Plan {
        name: "Single",
        calls: 6,
        caller_id: "+12025550103",
        calls_per_caller_id: Some(5),
        guaranteed: 0,
    },
];

/// A client of the run.
pub(super) struct Client {
    pub(super) id: String,
    pub(super) caller_id: &'static str,
    /// Its limit may not be less than what is guaranteed.
    pub(super) least_calls: u32,
    /// Live calls, and those with one caller ID.
    pub(super) first_limits: (u32, u32),
    /// Held by whoever changes its limits.
    pub(super) changing: Mutex<()>,
    pub(super) operator: Api,
    pub(super) viewer: Api,
}

impl Client {
    /// Names of its limits, as the slots have them.
    pub(super) fn scope(&self) -> String {
        format!("client/{}", self.id)
    }

    pub(super) fn caller_id_scope(&self) -> String {
        format!("number/{}", self.caller_id.trim_start_matches('+'))
    }
}

/// The clients, and what was created for them.
pub(super) struct Workload {
    pub(super) clients: Vec<Client>,
    at_once: usize,
    /// Campaigns and contacts so far.
    campaigns: AtomicUsize,
    contacts: AtomicUsize,
}

impl Workload {
    /// Creates the clients. Nothing is wrong yet.
    pub(super) async fn begin(world: &World, at_once: usize) -> anyhow::Result<Self> {
        let mut clients = Vec::new();
        for plan in &PLANS {
            clients.push(create_client(world, plan).await?);
        }
        Ok(Self {
            clients,
            at_once,
            campaigns: AtomicUsize::new(0),
            contacts: AtomicUsize::new(0),
        })
    }

    /// Keeps enough campaigns going until the run is stopped, then waits for those that are being created.
    pub(super) async fn run(self: Arc<Self>, world: Arc<World>, stop: CancellationToken) {
        let mut creating = FuturesUnordered::new();
        let mut begun = vec![0; self.clients.len()];
        while !stop.is_cancelled() || !creating.is_empty() {
            let mut open = begun.clone();
            for campaign in world.journal.active() {
                open[campaign.client] += 1;
            }
            if !stop.is_cancelled() && open.iter().sum::<usize>() < self.at_once {
                // Whoever has the fewest, or those of the clients with the lowest limits would pile up and leave slots unused.
                let client = (0..open.len()).min_by_key(|client| open[*client]);
                let client = client.unwrap_or_default();
                begun[client] += 1;
                let number = self.campaigns.fetch_add(1, Ordering::Relaxed);
                let (this, world) = (&self, &world);
                creating.push(async move { (client, this.create(world, number, client).await) });
                continue;
            }
            tokio::select! {
                Some((client, created)) = creating.next() => {
                    begun[client] -= 1;
                    if let Err(error) = created {
                        world.screen.note(&format!("a campaign was not created: {error:#}"));
                    }
                }
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }

    async fn create(&self, world: &World, number: usize, index: usize) -> anyhow::Result<()> {
        let client = &self.clients[index];
        let count = 12 + (number * 7) % 40;
        let first = self.contacts.fetch_add(count, Ordering::Relaxed);
        let contacts: Vec<Value> = (first..first + count)
            .map(|index| json!({ "number": contact(index), "firstName": format!("Name{index}") }))
            .collect();
        let list = json!({ "name": format!("List {number}"), "contacts": contacts });
        let list = insist(world, &client.operator, "/v1/lists", &list).await?;
        let list = list.text("id").context("a list without id")?;
        let (body, max_attempts, limit) = campaign(number, &list, client.caller_id);
        let made = insist(world, &client.operator, "/v1/campaigns", &body).await?;
        let id = made.text("id").context("a campaign without id")?;
        if let Some(limit) = limit {
            world
                .journal
                .limit_asked(&format!("campaign/{id}"), limit, 0);
        }
        let mut pages = world.journal.pages();
        pages.campaigns.push(Created {
            id,
            client: index,
            contacts: count as u64,
            max_attempts,
            is_over: false,
        });
        Ok(())
    }
}

/// A campaign's body, how often it may dial a contact, and its own limit. Every kind of campaign comes again after a while.
fn campaign(number: usize, list: &str, caller_id: &str) -> (Value, u64, Option<u64>) {
    let mut body = json!({
        "campaignName": format!("Campaign {number}"),
        "listId": list,
        "fromNumber": caller_id,
        "answer": { "type": "speak", "text": "Hello {{firstName}}, this is a test." },
    });
    let max_attempts = match number % 3 {
        0 => 1,
        attempts => attempts as u64 + 1,
    };
    if max_attempts > 1 {
        body["retry"] = json!({
            "maxAttempts": max_attempts, "delaysSeconds": [1, 2],
            "outcomes": ["busy", "no_answer", "unreachable", "carrier_error"],
        });
    }
    match number % 5 {
        1 => body["pacing"] = json!({ "callsPerSecond": 4 }),
        3 => body["pacing"] = json!({ "intervalMs": 120 }),
        _ => {}
    }
    if number % 7 == 4 {
        body["machineDetection"] = json!("hangup");
    }
    let limit = (number % 4 == 2).then_some(3 + number as u64 % 3);
    if let Some(limit) = limit {
        body["maxConcurrentCalls"] = json!(limit);
    }
    (body, max_attempts, limit)
}

/// The number of a contact, fictitious, different for each index below 240,000.
fn contact(index: usize) -> String {
    let area = AREAS[index / 10_000 % AREAS.len()];
    format!("+1{area}555{:04}", index % 10_000)
}

async fn create_client(world: &World, plan: &Plan) -> anyhow::Result<Client> {
    let body = json!({
        "name": plan.name,
        "maxConcurrentCalls": plan.calls,
        "maxCallsPerMinute": 60_000,
        "guaranteedCalls": plan.guaranteed,
        "maxCallsPerCallerId": plan.calls_per_caller_id,
    });
    let made = insist(world, &world.admin, "/v1/clients", &body).await?;
    let id = made.text("id").context("a client without id")?;
    let mut keys = Vec::new();
    for role in ["operator", "viewer"] {
        let path = format!("/v1/clients/{id}/keys");
        let body = json!({ "role": role, "label": "chaos" });
        let made = insist(world, &world.admin, &path, &body).await?;
        keys.push(world.api(&made.text("key").context("a key without key")?)?);
    }
    let [operator, viewer] =
        <[Api; 2]>::try_from(keys).map_err(|_| anyhow::anyhow!("two keys were asked for"))?;
    let client = Client {
        id,
        caller_id: plan.caller_id,
        least_calls: plan.guaranteed,
        first_limits: (plan.calls, plan.calls_per_caller_id.unwrap_or(GLOBAL_LIMIT)),
        changing: Mutex::default(),
        operator,
        viewer,
    };
    let (calls, per_caller_id) = client.first_limits;
    let journal = &world.journal;
    journal.limit_asked(&client.scope(), calls.into(), 0);
    journal.limit_asked(&client.caller_id_scope(), per_caller_id.into(), 0);
    Ok(client)
}

/// Sends a request that creates something until it is answered, at one container after the other. Its Idempotency-Key sees to
/// it that only one thing is created.
async fn insist(world: &World, api: &Api, path: &str, body: &Value) -> anyhow::Result<Reply> {
    let key = uuid::Uuid::new_v4().to_string();
    let begun = Instant::now();
    let mut turn = 0;
    let reply = loop {
        let reply = api.post(world.address(turn), path, body, Some(&key)).await;
        // 409: an earlier try is still being worked on.
        let is_open = reply.is_uncertain() || reply.status == 409;
        if !is_open || begun.elapsed() > PATIENCE {
            break reply;
        }
        turn += 1;
        tokio::time::sleep(PAUSE).await;
    };
    anyhow::ensure!(
        reply.is_success(),
        "{path} answered {}: {}",
        reply.status,
        reply.body["detail"].as_str().unwrap_or("nothing")
    );
    Ok(reply)
}
