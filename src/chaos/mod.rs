//! The chaos harness: three containers, a three-member MongoDB replica set and the carrier simulator under faults of every
//! kind, from a schedule that a seed makes. At the end every promise is judged from the carrier's books and from the API alone.
//!
//! Where to look: `schedule` says what is done when, `action` names it, `faults` and `operators` do it; `world` is what it is
//! done to, with `containers`, `proxy` and `trap`; `workload` is the work meanwhile; `watch`, `takeovers`, `prober` and `pulse` look on
//! and write in the `journal`; `gather` collects the facts, `judge` judges them, `report` tells.

mod action;
mod api;
mod containers;
mod faults;
mod gather;
mod journal;
mod judge;
mod operators;
mod prober;
mod proxy;
mod pulse;
mod report;
mod schedule;
mod screen;
mod takeovers;
mod trap;
mod watch;
mod workload;
mod world;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Context;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

use crate::utils::lifecycle::shutdown_signal;
use action::Event;
use report::{Report, Run};
use schedule::Faults;
use screen::Screen;
use workload::Workload;
use world::World;

/// Readers at the same time.
const READERS: usize = 2;
/// After the faults everything may still be late by this much.
const QUIET: Duration = Duration::from_secs(3);
/// How often the figures so far are shown.
const FIGURES: Duration = Duration::from_secs(15);

/// How long, and which run.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The MongoDB server's binary; `scripts/mongod.sh` finds or fetches one.
    #[arg(long)]
    mongod: PathBuf,
    /// How long faults are injected, in minutes; coming to rest takes another one or two.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=1440))]
    minutes: u64,
    /// The same seed and length make the same schedule; a random seed without it.
    #[arg(long)]
    seed: Option<u64>,
    /// No faults: more work than there are slots for, and every minute how it goes.
    #[arg(long)]
    calm: bool,
    /// An empty folder of a small file system of its own (some hundred MiB), for the database: it is filled up again and again. No other
    /// faults but operators. `scripts/chaos.sh --full-disk` makes one.
    #[arg(long, conflicts_with = "calm")]
    full_disk: Option<PathBuf>,
    /// Only print the schedule.
    #[arg(long)]
    schedule: bool,
    /// Write the figures to this file, as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Folder for logs and database; a new one for each run below it.
    #[arg(long, default_value = ".ringmaster/chaos")]
    folder: PathBuf,
}

/// Runs the harness. The exit code is 1 where a promise was broken.
///
/// # Errors
/// What kept it from running, for people.
pub async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let run = Run {
        seed: arguments
            .seed
            .unwrap_or_else(|| u64::from(rand::random::<u32>())),
        minutes: arguments.minutes,
        faults: match &arguments.full_disk {
            Some(_) => Faults::FullDisk,
            None if arguments.calm => Faults::None,
            None => Faults::Usual,
        },
    };
    let length = Duration::from_secs(60 * run.minutes);
    let events = schedule::schedule(run.seed, length, run.faults);
    let screen = Screen::default();
    screen.say(&format!(
        "Chaos: seed {}, {} minutes, {} faults. Again: {}--seed {0} --minutes {1}",
        run.seed,
        run.minutes,
        events.len(),
        match run.faults {
            Faults::Usual => "",
            Faults::FullDisk => "--full-disk ",
            Faults::None => "--calm ",
        }
    ));
    if arguments.schedule {
        for event in &events {
            screen.say(&describe(event));
        }
        return Ok(ExitCode::SUCCESS);
    }
    let stop = shutdown_signal()?;
    let folder = prepare(&arguments.folder, run, &events)?;
    screen.say(&format!("  logs: {}", folder.display()));
    let database = match arguments.full_disk {
        Some(small) => small.join("mongo"),
        None => folder.join("mongo"),
    };
    let folders = [&*folder, &database];
    let world = World::start(&arguments.mongod, folders, run.seed, screen.clone()).await?;
    screen.say("  ready: 3 containers, 3 database members, 1 carrier");
    let world = Arc::new(world);
    let report = tokio::select! {
        report = torment(&world, run, events, length) => Some(report),
        () = stop => None,
    };
    let is_kept = matches!(&report, Some(Ok(report)) if report.is_kept());
    world.life.stop();
    let ended = world.life.drain(QUIET).await;
    if let Ok(world) = Arc::try_unwrap(world) {
        world.stop(!is_kept).await;
    } else {
        tracing::warn!(
            ended,
            "somebody still holds the world: its processes end with this one"
        );
    }
    let Some(report) = report else {
        screen.say("Stopped before the end: nothing is proven.");
        return Ok(ExitCode::FAILURE);
    };
    let report = report?;
    report.show(&screen, &folder);
    if let Some(file) = &arguments.json {
        report.write(file)?;
    }
    screen.say(if is_kept {
        "Every promise was kept."
    } else {
        "A promise was BROKEN."
    });
    Ok(if is_kept {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn describe(event: &Event) -> String {
    format!("{:>7.1} s  {}", event.at.as_secs_f64(), event.action)
}

/// Makes the folder of the run, with its schedule in it, and sends our own log there: the screen belongs to the run.
fn prepare(parent: &Path, run: Run, events: &[Event]) -> anyhow::Result<PathBuf> {
    let name = format!("seed-{}-{}", run.seed, uuid::Uuid::new_v4().simple());
    let folder = parent.join(name);
    fs::create_dir_all(&folder).with_context(|| format!("{} cannot be made", folder.display()))?;
    let folder = fs::canonicalize(folder)?;
    let lines: Vec<String> = events.iter().map(describe).collect();
    fs::write(folder.join("schedule.txt"), lines.join("\n") + "\n")?;
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new("info"))
        .json()
        .with_writer(Mutex::new(File::create(folder.join("harness.log"))?))
        .try_init()
        .map_err(|_| anyhow::anyhow!("the log is set up already"))?;
    Ok(folder)
}

/// The run itself: work, faults, rest, judgement.
async fn torment(
    world: &Arc<World>,
    run: Run,
    events: Vec<Event>,
    length: Duration,
) -> anyhow::Result<Report> {
    let at_once = match run.faults {
        Faults::Usual | Faults::FullDisk => workload::AT_ONCE,
        Faults::None => workload::MANY_AT_ONCE,
    };
    let workload = Arc::new(Workload::begin(world, at_once).await?);
    let (working, watching) = (CancellationToken::new(), CancellationToken::new());
    let (begun, begun_at) = (Instant::now(), world.now());
    world.screen.begin();
    let life = &world.life;
    let work = life.spawn_work(Arc::clone(&workload).run(Arc::clone(world), working.clone()));
    let mut watchers = Vec::new();
    for reader in 0..READERS {
        let reading = watch::read(Arc::clone(world), reader * 5, watching.clone());
        watchers.push(life.spawn_work(reading));
    }
    let probing = prober::probe(Arc::clone(world), Arc::clone(&workload), watching.clone());
    watchers.push(life.spawn_work(probing));
    if run.faults == Faults::None {
        watchers.push(life.spawn_work(pulse::take(Arc::clone(world), working.clone())));
    } else {
        watchers.push(life.spawn_work(show_figures(Arc::clone(world), watching.clone())));
    }
    let mut under_way = Vec::new();
    let mut is_weighed = false;
    for event in events {
        sleep_until(begun + event.at).await;
        if !is_weighed && event.at >= length / 2 {
            is_weighed = true;
            world.weigh("middle").await;
        }
        let (world, workload) = (Arc::clone(world), Arc::clone(&workload));
        let carrying_out = faults::carry_out(world, workload, event.action);
        under_way.push(life.spawn_work(carrying_out));
    }
    sleep_until(begun + length).await;
    world
        .screen
        .note("no more faults, no new work: everything comes to rest");
    working.cancel();
    work.await?;
    for fault in under_way {
        fault.await?;
    }
    faults::end_all(world)?;
    let calm = Instant::now();
    operators::restore_limits(world, &workload).await;
    let unfinished = gather::rest(world, &workload).await;
    // Webhooks and dials that a fault has put off may still be on their way.
    sleep_until(calm + schedule::latest(length) + QUIET).await;
    let late = gather::rest(world, &workload).await;
    watching.cancel();
    for watcher in watchers {
        watcher.await?;
    }
    world.weigh("end").await;
    let unfinished = if unfinished.is_empty() {
        late
    } else {
        unfinished
    };
    let facts = gather::facts(world, unfinished).await?;
    let (checks, counts) = {
        let pages = world.journal.pages();
        (
            pages.checks.clone(),
            report::Counts {
                faults: pages.faults.clone(),
                memory: pages.memory.clone(),
                pulses: pages.pulses.clone(),
            },
        )
    };
    let judgement = judge::judge(&facts, checks);
    let stats = world.simulator.stats();
    Ok(Report::new(run, begun_at, &facts, judgement, stats, counts))
}

/// Tells from time to time how far the work is.
async fn show_figures(world: Arc<World>, stop: CancellationToken) {
    while stop
        .run_until_cancelled(tokio::time::sleep(FIGURES))
        .await
        .is_some()
    {
        let stats = world.simulator.stats();
        let (campaigns, active) = {
            let active = world.journal.active().len();
            (world.journal.pages().campaigns.len(), active)
        };
        world.screen.note(&format!(
            "   {} calls, {} live; {campaigns} campaigns, {active} not over",
            stats.accepted, stats.live
        ));
    }
}
