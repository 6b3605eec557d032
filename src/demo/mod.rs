//! The demonstration: a whole campaign on an embedded MongoDB, the carrier simulator and the server, in one process. It uses
//! the public API as an operator would, and proves the promises from the carrier's books.

mod api;
mod proof;
mod screen;
mod world;

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context;
use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use crate::utils::clock::Clock;
use crate::utils::lifecycle::shutdown_signal;
use api::Api;
use proof::Facts;
use screen::Screen;
use world::{CALLS_PER_SECOND, CLIENT_LIMIT, GLOBAL_LIMIT, World};

/// Attempts that the campaign may make to reach one contact.
const MAX_ATTEMPTS: u64 = 3;
/// The campaign pauses for a moment when this part of it is done, in percent.
const PAUSE_AT: f64 = 30.0;
/// How long it stays paused: longer than the second that promise P5 grants.
const PAUSE: Duration = Duration::from_secs(3);
/// How often the progress is read.
const LOOK: Duration = Duration::from_millis(250);
/// Longest that the campaign may take.
const PATIENCE: Duration = Duration::from_secs(600);

/// What to show.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The MongoDB server's binary; `scripts/mongod.sh` finds or fetches one.
    #[arg(long)]
    mongod: PathBuf,
    /// The contact list, CSV.
    #[arg(long)]
    contacts: PathBuf,
    /// Country of numbers without a country code.
    #[arg(long, default_value = "US")]
    default_country: String,
    /// Port of the server; 0 picks a free one.
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// Folder for the database and the log; a new one for each run below it.
    #[arg(long, default_value = ".ringmaster/demo")]
    folder: PathBuf,
    /// Leave at the end instead of staying up until ctrl-c.
    #[arg(long)]
    exit: bool,
}

/// Runs the demonstration. The exit code is 1 where a promise was broken.
///
/// # Errors
/// What kept it from running, for people.
pub async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let stop = shutdown_signal()?;
    let mut screen = Screen::new(std::io::stdout().is_terminal());
    screen
        .say("Ringmaster demo: embedded MongoDB, carrier simulator and server in one process.")?;
    let world = World::start(&arguments.mongod, &arguments.folder, arguments.port).await?;
    screen.say(&format!("  log          {}", world.log.display()))?;
    let shown = show(&world, &arguments, &mut screen);
    let kept = tokio::select! {
        kept = shown => kept,
        () = stop => {
            world.stop().await;
            return Ok(ExitCode::FAILURE);
        }
    };
    match kept {
        Ok(kept) => {
            world.stop().await;
            Ok(if kept {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            })
        }
        Err(error) => {
            world.stop().await;
            Err(error)
        }
    }
}

/// The whole show; true when every promise was kept.
async fn show(world: &World, arguments: &Arguments, screen: &mut Screen) -> anyhow::Result<bool> {
    let admin = Api::new(&world.base, &world.admin_key)?;
    let (client, operator) = create_client(&admin).await?;
    let list = import(
        &operator,
        &arguments.contacts,
        &arguments.default_country,
        screen,
    )
    .await?;
    let begun = Instant::now();
    let campaign = create_campaign(&operator, &list).await?;
    let paused = watch(&operator, &campaign, begun, screen).await?;
    let facts = gather(world, &operator, &client, &campaign, &list, paused).await?;
    let proofs = proof::prove(&facts);
    screen.table(&proofs)?;
    screen.report(&facts.progress, begun.elapsed(), &world.simulator.stats())?;
    let kept = proofs.iter().all(|proof| proof.is_kept());
    screen.say(if kept {
        "Every promise was kept."
    } else {
        "A promise was BROKEN."
    })?;
    screen.addresses(world, &operator.key)?;
    if !arguments.exit {
        screen.say("Press ctrl-c to stop.")?;
        shutdown_signal()?.await;
    }
    Ok(kept)
}

async fn create_client(admin: &Api) -> anyhow::Result<(String, Api)> {
    let body = json!({
        "name": "Demo client", "maxConcurrentCalls": CLIENT_LIMIT, "maxCallsPerMinute": 60 * CALLS_PER_SECOND,
    });
    let client = admin.post("/v1/clients", &body).await?;
    let id = text(&client, "id")?;
    let body = json!({ "role": "operator", "label": "demo" });
    let key = admin.post(&format!("/v1/clients/{id}/keys"), &body).await?;
    Ok((id, Api::new(&admin.base, &text(&key, "key")?)?))
}

async fn import(
    operator: &Api,
    file: &Path,
    country: &str,
    screen: &mut Screen,
) -> anyhow::Result<Value> {
    let csv = tokio::fs::read(file).await;
    let csv = csv.with_context(|| format!("{} cannot be read", file.display()))?;
    let begun = Instant::now();
    let list = operator.upload("Demo contacts", country, csv).await?;
    screen.imported(&list, begun.elapsed())?;
    Ok(list)
}

async fn create_campaign(operator: &Api, list: &Value) -> anyhow::Result<String> {
    let body = json!({
        "campaignName": "Demo campaign",
        "listId": text(list, "id")?,
        "fromNumber": world::CALLER_ID,
        "answer": { "type": "speak", "text": "Hello {{firstName}}, this is a demonstration." },
        "pacing": { "callsPerSecond": CALLS_PER_SECOND },
        "retry": {
            "maxAttempts": MAX_ATTEMPTS, "delaysSeconds": [1], "outcomes": ["busy", "no_answer"],
        },
    });
    text(&operator.post("/v1/campaigns", &body).await?, "id")
}

/// When the pause was answered, and when the campaign was resumed.
#[derive(Debug, Clone, Copy)]
struct Pause {
    answered_at: DateTime<Utc>,
    resumed_at: DateTime<Utc>,
}

/// Follows the campaign to its end, with one pause on the way.
async fn watch(
    operator: &Api,
    campaign: &str,
    begun: Instant,
    screen: &mut Screen,
) -> anyhow::Result<Option<Pause>> {
    let path = format!("/v1/campaigns/{campaign}");
    let mut paused = None;
    loop {
        let progress = operator.get(&format!("{path}/progress")).await?;
        let status = text(&progress, "status")?;
        screen.progress(&progress, begun.elapsed())?;
        if status == "completed" {
            screen.finish()?;
            return Ok(paused);
        }
        anyhow::ensure!(
            status == "running",
            "the campaign is {status}: {}",
            reason(operator, &path).await?
        );
        anyhow::ensure!(
            begun.elapsed() < PATIENCE,
            "the campaign did not end in time"
        );
        if paused.is_none()
            && progress["percent"]
                .as_f64()
                .is_some_and(|percent| percent >= PAUSE_AT)
        {
            paused = Some(pause(operator, &path, screen).await?);
        }
        tokio::time::sleep(LOOK).await;
    }
}

async fn reason(operator: &Api, path: &str) -> anyhow::Result<String> {
    let campaign = operator.get(path).await?;
    Ok(campaign["pauseReason"]
        .as_str()
        .unwrap_or("no reason given")
        .to_owned())
}

async fn pause(operator: &Api, path: &str, screen: &mut Screen) -> anyhow::Result<Pause> {
    let clock = Clock::system();
    let answer = operator.post(&format!("{path}/pause"), &json!({})).await?;
    let answered_at = clock.now();
    let in_flight = answer["inFlight"].as_u64().unwrap_or_default();
    screen.note(&format!(
        "paused: {in_flight} calls still under way, no new ones"
    ))?;
    tokio::time::sleep(PAUSE).await;
    let resumed_at = clock.now();
    operator.post(&format!("{path}/resume"), &json!({})).await?;
    screen.note("resumed: it goes on with the first contact that was never dialed")?;
    Ok(Pause {
        answered_at,
        resumed_at,
    })
}

async fn gather(
    world: &World,
    operator: &Api,
    client: &str,
    campaign: &str,
    list: &Value,
    paused: Option<Pause>,
) -> anyhow::Result<Facts> {
    let progress = operator
        .get(&format!("/v1/campaigns/{campaign}/progress"))
        .await?;
    let utilization = operator.get("/v1/utilization").await?;
    Ok(Facts {
        contacts: list["accepted"].as_u64().context("the list has no count")?,
        client: client.to_owned(),
        client_limit: CLIENT_LIMIT,
        global_limit: GLOBAL_LIMIT,
        max_attempts: MAX_ATTEMPTS,
        slots_left: utilization["global"]["active"]
            .as_u64()
            .context("no utilization")?,
        paused: paused.map(|pause| {
            (
                pause.answered_at.timestamp_millis(),
                pause.resumed_at.timestamp_millis(),
            )
        }),
        dialed_at_ms: world
            .simulator
            .calls()
            .iter()
            .map(|call| call.requested_at_ms)
            .collect(),
        stats: world.simulator.stats(),
        progress,
    })
}

fn text(value: &Value, name: &str) -> anyhow::Result<String> {
    value[name]
        .as_str()
        .map(str::to_owned)
        .with_context(|| format!("the answer has no {name}"))
}
