//! The system's pulse, taken every minute: how much it does, what piles up, how fast it answers, how much memory it takes. A system
//! that leaks or falls behind shows it here, however well it keeps its promises meanwhile.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval_at};
use tokio_util::sync::CancellationToken;

use super::world::World;

/// How often it is taken.
const EVERY: Duration = Duration::from_secs(60);
/// Progress answers whose median is taken.
const ANSWERS: usize = 21;

/// One reading.
#[derive(Debug, Clone, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Pulse {
    /// Minutes since the run began.
    pub(super) minute: u64,
    /// Calls that the carrier took on since the last reading.
    pub(super) calls: u64,
    /// Calls that live by the carrier's books.
    pub(super) live: u64,
    /// Slots that are taken by the API's word; more than live calls, by those being dialed and those whose end is not known yet.
    pub(super) slots_taken: Option<u64>,
    /// Campaigns that are not over.
    pub(super) campaigns: usize,
    /// Median of progress answers, in microseconds.
    pub(super) progress_us: Option<u128>,
    /// Memory of each container, in KiB.
    pub(super) rss_kib: Vec<u64>,
}

impl Pulse {
    /// For people.
    pub(super) fn line(&self) -> String {
        let mib = |kib: &u64| format!("{:.1}", *kib as f64 / 1024.0);
        let memory: Vec<String> = self.rss_kib.iter().map(mib).collect();
        let or_none = |number: Option<String>| number.unwrap_or_else(|| "?".to_owned());
        format!(
            "minute {:>2}: {:>4} calls, {:>2} live, {:>2} slots taken, {} campaigns open, progress in {} ms, memory {} MiB",
            self.minute,
            self.calls,
            self.live,
            or_none(self.slots_taken.map(|taken| taken.to_string())),
            self.campaigns,
            or_none(
                self.progress_us
                    .map(|us| format!("{:.1}", us as f64 / 1_000.0))
            ),
            memory.join(", "),
        )
    }
}

/// Takes it until the run is stopped.
pub(super) async fn take(world: Arc<World>, stop: CancellationToken) {
    let mut clock = interval_at(Instant::now() + EVERY, EVERY);
    clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut before = 0;
    for minute in 1.. {
        if stop.run_until_cancelled(clock.tick()).await.is_none() {
            return;
        }
        let pulse = read(&world, minute, before).await;
        before += pulse.calls;
        world.screen.note(&pulse.line());
        world.journal.pages().pulses.push(pulse);
    }
}

async fn read(world: &World, minute: u64, before: u64) -> Pulse {
    let active = world.journal.active();
    let mut answers = Vec::new();
    for (turn, campaign) in active.iter().cycle().take(ANSWERS).enumerate() {
        let path = format!("/v1/campaigns/{}/progress", campaign.id);
        let asked = Instant::now();
        if world
            .glancing
            .get(world.address(turn), &path)
            .await
            .is_success()
        {
            answers.push(asked.elapsed().as_micros());
        }
    }
    answers.sort_unstable();
    let mut rss_kib = Vec::new();
    for container in &world.containers {
        rss_kib.extend(container.rss_kib().await);
    }
    let report = world
        .glancing
        .get(world.address(0), "/v1/utilization")
        .await;
    let stats = world.simulator.stats();
    Pulse {
        minute,
        calls: stats.accepted.saturating_sub(before),
        live: stats.live,
        slots_taken: report.body["global"]["active"].as_u64(),
        campaigns: active.len(),
        progress_us: answers.get(answers.len() / 2).copied(),
        rss_kib,
    }
}
