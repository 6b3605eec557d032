//! Asks the carrier what became of calls that nobody told us about, so that no slot leaks (promise P10), nobody is lost (P3)
//! and nobody is dialed twice (P2). The only one who may decide about an ambiguous call.
//!
//! Runs on one container at a time, takes no input and is idempotent: a second run right after the first changes nothing.
//! Should two run for a moment, because one lost its lease while it waited for the carrier, each write still holds only for
//! the state that it was decided on.

mod ask;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ask::Verdict;
use chrono::TimeDelta;
use futures_util::future::join_all;

use super::calls::Calls;
use super::carrier::PlivoClient;
use super::heartbeat::Heartbeat;
use super::store::{Store, StoreResult};
use super::webhooks::Webhooks;
use crate::config::Dialing;
use crate::domain::call::CallFilter;
use crate::utils::backoff;
use crate::utils::clock::{Clock, delta};
use crate::utils::crash_points::crash_point;
use crate::utils::lifecycle::Lifecycle;

/// Name of the lease that keeps it to one container.
const LEASE: &str = "reconciler";
/// The longest that the lease lasts without being renewed. Where containers are taken for dead sooner, it ends sooner too.
const LONGEST_LEASE: Duration = Duration::from_secs(15);
/// How often overdue calls are looked for.
const POLL: Duration = Duration::from_millis(800);
/// Overdue calls asked after in one round.
const BATCH: i64 = 100;
/// Calls asked after at once; the carrier's client keeps its requests apart.
const AT_ONCE: usize = 8;
/// Before this age a call that the carrier does not list is not asked after by the sweep: it may just be on its way.
const SWEEP_AGE: TimeDelta = TimeDelta::seconds(20);

/// What a round did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Round {
    /// Calls asked after.
    pub asked: usize,
    /// Calls whose end was learned.
    pub ended: usize,
    /// Dials taken back because they never reached the carrier.
    pub withdrawn: usize,
    /// Calls given up as uncertain.
    pub given_up: usize,
    /// Kept webhooks that found their call.
    pub rematched: usize,
}

/// The reconciler. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Reconciler {
    store: Store,
    calls: Calls,
    carrier: Arc<PlivoClient>,
    webhooks: Webhooks,
    heartbeat: Heartbeat,
    clock: Clock,
    life: Lifecycle,
    /// A dial that the carrier does not know is taken for never sent this long after its intent: records are written late.
    settle: TimeDelta,
    processed: TimeDelta,
    call_timeout: TimeDelta,
    cleanup_interval: Duration,
}

impl Reconciler {
    /// The reconciler with the times of `settings`.
    #[must_use]
    pub fn new(
        store: Store,
        calls: Calls,
        carrier: Arc<PlivoClient>,
        webhooks: Webhooks,
        (heartbeat, clock, life): (Heartbeat, Clock, Lifecycle),
        settings: &Dialing,
    ) -> Self {
        let processed = delta(settings.max_processed);
        Self {
            store,
            calls,
            carrier,
            webhooks,
            heartbeat,
            clock,
            life,
            settle: processed * 3,
            processed,
            call_timeout: delta(settings.call_timeout),
            cleanup_interval: settings.cleanup_interval,
        }
    }

    /// Runs until the process stops.
    pub async fn run(self) {
        let mut swept = Instant::now();
        loop {
            match self.turn(&mut swept).await {
                Ok(round) if round != Round::default() => tracing::info!(?round, "reconciled"),
                Ok(_) => {}
                Err(error) => tracing::warn!(%error, "reconciling failed"),
            }
            if !self.life.sleep(backoff::jitter(POLL)).await {
                return;
            }
        }
    }

    /// One round now, if no other container is at it.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn tick(&self) -> StoreResult<Round> {
        if !self.holds_lease().await? {
            return Ok(Round::default());
        }
        self.round().await
    }

    async fn turn(&self, swept: &mut Instant) -> StoreResult<Round> {
        if !self.holds_lease().await? {
            return Ok(Round::default());
        }
        if swept.elapsed() >= self.cleanup_interval {
            *swept = Instant::now();
            self.sweep().await?;
        }
        self.round().await
    }

    fn lease_time(&self) -> Duration {
        self.heartbeat.threshold().min(LONGEST_LEASE)
    }

    async fn holds_lease(&self) -> StoreResult<bool> {
        self.store
            .lease_take(LEASE, self.heartbeat.container(), self.lease_time())
            .await
    }

    /// Asks once after every overdue call, for as long as the lease holds. A call that cannot be settled keeps no other waiting.
    async fn round(&self) -> StoreResult<Round> {
        let mut round = Round::default();
        let overdue = self.store.call_overdue(self.clock.now(), BATCH).await?;
        for some in overdue.chunks(AT_ONCE) {
            if self.life.is_stopping() || !self.holds_lease().await? {
                return Ok(round);
            }
            round.asked += some.len();
            let mut unanswered = 0;
            for (call, verdict) in some
                .iter()
                .zip(join_all(some.iter().map(|call| self.ask(call))).await)
            {
                match verdict {
                    Ok(Verdict::Lives) => {}
                    Ok(Verdict::Ended) => round.ended += 1,
                    Ok(Verdict::Withdrawn) => round.withdrawn += 1,
                    Ok(Verdict::GivenUp) => round.given_up += 1,
                    Ok(Verdict::Unanswered) => unanswered += 1,
                    Err(error) => {
                        tracing::warn!(callId = %call.id, %error, "a call was not settled")
                    }
                }
            }
            // The carrier is away: the others would only wait for its silence, one after another.
            if unanswered == some.len() {
                break;
            }
        }
        round.rematched = self.webhooks.rematch().await?;
        Ok(round)
    }

    /// Compares all live calls with the carrier's list: one that is not in it is asked after now, however far its deadline is.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn sweep(&self) -> StoreResult<usize> {
        // The calls first: one that begins after them is in nobody's way.
        let live = self
            .store
            .call_list(
                &CallFilter {
                    live: true,
                    ..CallFilter::default()
                },
                10_000,
            )
            .await?;
        let (queued, ongoing) = match (
            self.carrier.list_live(true, None).await,
            self.carrier.list_live(false, None).await,
        ) {
            (Ok(queued), Ok(ongoing)) => (queued, ongoing),
            (Err(error), _) | (_, Err(error)) => {
                tracing::warn!(%error, "the carrier's live calls could not be listed");
                return Ok(0);
            }
        };
        let known: HashSet<&str> = queued.iter().chain(&ongoing).map(String::as_str).collect();
        let now = self.clock.now();
        let mut missing = 0;
        for call in &live {
            let is_listed = call.carrier_id().is_none_or(|uuid| known.contains(uuid));
            if !is_listed && now - call.start_time > SWEEP_AGE {
                missing += 1;
                self.calls.extend(call, now).await?;
                crash_point!("sweep.after_call");
            }
        }
        Ok(missing)
    }
}
