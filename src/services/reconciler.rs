//! Asks the carrier what became of calls that nobody told us about, so that no slot leaks (promise P10), nobody is lost (P3)
//! and nobody is dialed twice (P2). The only one who may decide about an ambiguous call.
//!
//! Runs on one container at a time, takes no input and is idempotent: a second run right after the first changes nothing.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::TimeDelta;

use super::calls::{Calls, delta};
use super::carrier::{LookupError, PlivoClient, Sighting};
use super::heartbeat::Heartbeat;
use super::store::{Store, StoreResult};
use super::webhooks::Webhooks;
use crate::config::Dialing;
use crate::domain::call::{Call, CallFilter, CallStatus};
use crate::domain::call_event::{CallEvent, EventKind, FinalSource};
use crate::domain::outcome::Outcome;
use crate::utils::backoff;
use crate::utils::clock::Clock;
use crate::utils::lifecycle::Lifecycle;

/// Name and length of the lease that keeps it to one container.
const LEASE: (&str, Duration) = ("reconciler", Duration::from_secs(15));
/// How often overdue calls are looked for.
const POLL: Duration = Duration::from_millis(800);
/// Overdue calls asked after in one round.
const BATCH: i64 = 100;
/// Pause between two questions: with up to three requests each, well under the carrier's 300 requests in 5 s.
const BETWEEN_QUESTIONS: Duration = Duration::from_millis(60);
/// Before this age a call that the carrier does not list is not asked after by the sweep: it may just be on its way.
const SWEEP_AGE: TimeDelta = TimeDelta::seconds(20);
/// The carrier's clock and ours may differ by this much when a call is looked for by number and time.
const CLOCK_SLACK: TimeDelta = TimeDelta::seconds(90);

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
        (heartbeat, clock): (Heartbeat, Clock),
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
            settle: processed * 3,
            processed,
            call_timeout: delta(settings.call_timeout),
            cleanup_interval: settings.cleanup_interval,
        }
    }

    /// Runs until the process stops.
    pub async fn run(self, life: Lifecycle) {
        let mut swept = Instant::now();
        loop {
            match self.turn(&mut swept).await {
                Ok(round) if round != Round::default() => tracing::info!(?round, "reconciled"),
                Ok(_) => {}
                Err(error) => tracing::warn!(%error, "reconciling failed"),
            }
            if !life.sleep(backoff::jitter(POLL)).await {
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

    async fn holds_lease(&self) -> StoreResult<bool> {
        let (name, time) = LEASE;
        self.store
            .lease_take(name, self.heartbeat.container(), time)
            .await
    }

    /// Asks once after every overdue call, for as long as the lease holds. A call that cannot be settled keeps no other waiting.
    async fn round(&self) -> StoreResult<Round> {
        let mut round = Round::default();
        let mut renewed = Instant::now();
        for call in self.store.call_overdue(self.clock.now(), BATCH).await? {
            if renewed.elapsed() > LEASE.1 / 4 {
                if !self.holds_lease().await? {
                    return Ok(round);
                }
                renewed = Instant::now();
            }
            round.asked += 1;
            match self.ask(&call).await {
                Ok(Verdict::Lives) => {}
                Ok(Verdict::Ended) => round.ended += 1,
                Ok(Verdict::Withdrawn) => round.withdrawn += 1,
                Ok(Verdict::GivenUp) => round.given_up += 1,
                Err(error) => tracing::warn!(callId = %call.id, %error, "a call was not settled"),
            }
            tokio::time::sleep(BETWEEN_QUESTIONS).await;
        }
        round.rematched = self.webhooks.rematch().await?;
        Ok(round)
    }

    async fn ask(&self, call: &Call) -> StoreResult<Verdict> {
        match call.carrier_id() {
            Some(uuid) => self.ask_by_id(call, uuid).await,
            None => self.ask_by_number(call).await,
        }
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
            }
        }
        Ok(missing)
    }

    async fn ask_by_id(&self, call: &Call, uuid: &str) -> StoreResult<Verdict> {
        match self.carrier.look_up(uuid).await {
            Ok(sighting) => self.conclude(call, sighting).await,
            Err(error) => self.unanswered(call, error).await,
        }
    }

    /// An ambiguous call: nobody knows its id, so it is looked for by destination, caller ID and time.
    async fn ask_by_number(&self, call: &Call) -> StoreResult<Verdict> {
        if self.store.call_has_double(call).await? {
            return self
                .wait_or_give_up(call, "another call to the same number is as uncertain")
                .await;
        }
        match self.find_by_number(call).await? {
            Ok(Some(sighting)) => self.conclude(call, sighting).await,
            Ok(None) => self.never_dialed(call).await,
            Err(error) => self.unanswered(call, error).await,
        }
    }

    async fn find_by_number(
        &self,
        call: &Call,
    ) -> StoreResult<Result<Option<Sighting>, LookupError>> {
        let mut uuids = Vec::new();
        // In the order of a call's life, so that one that moves on between two questions is not missed.
        for queued in [true, false] {
            match self.carrier.list_live(queued, Some(&call.to)).await {
                Ok(found) => uuids.extend(found),
                Err(error) => return Ok(Err(error)),
            }
        }
        for uuid in uuids {
            if self.store.call_by_uuid(&uuid).await?.is_some() {
                continue;
            }
            match self.carrier.look_up(&uuid).await {
                Ok(sighting) if is_of(&sighting, call) => return Ok(Ok(Some(sighting))),
                Ok(_) => {}
                Err(error) => return Ok(Err(error)),
            }
        }
        let records = match self
            .carrier
            .records_to(&call.to, call.start_time - CLOCK_SLACK)
            .await
        {
            Ok(records) => records,
            Err(error) => return Ok(Err(error)),
        };
        for record in records {
            let uuid = record.call_uuid.clone();
            let sighting = Sighting::Ended(Box::new(record));
            if is_of(&sighting, call) && self.store.call_by_uuid(&uuid).await?.is_none() {
                return Ok(Ok(Some(sighting)));
            }
        }
        Ok(Ok(None))
    }

    async fn conclude(&self, call: &Call, sighting: Sighting) -> StoreResult<Verdict> {
        let now = self.clock.now();
        let (kind, uuid) = match sighting {
            Sighting::Queued(queued) => (EventKind::Accepted, queued.call_uuid),
            Sighting::Live(live) if live.in_progress => (EventKind::Answer, live.call_uuid),
            Sighting::Live(live) => (EventKind::Ring, live.call_uuid),
            Sighting::Ended(record) => (EventKind::End(Box::new(record.end)), record.call_uuid),
            Sighting::Nothing => {
                return self
                    .wait_or_give_up(call, "the carrier no longer knows the call")
                    .await;
            }
        };
        let is_over = matches!(kind, EventKind::End(_));
        let known = match kind {
            EventKind::Answer => CallStatus::InProgress,
            EventKind::Ring => CallStatus::Ringing,
            EventKind::Accepted
            | EventKind::Machine
            | EventKind::Recording { .. }
            | EventKind::End(_) => CallStatus::Queued,
        };
        // A call that webhooks told of already needs no invented event, only time.
        if is_over || call.status.rank() < known.rank() || call.carrier_id().is_none() {
            let event = CallEvent {
                kind,
                at: now,
                dial: Some(call.dial),
                call_uuid: None,
                request_uuid: Some(uuid),
                digest: 0,
            };
            self.calls.apply(Some(call.id), &event).await?;
        }
        if is_over {
            return Ok(Verdict::Ended);
        }
        self.calls.confirm(call.id, now).await?;
        Ok(Verdict::Lives)
    }

    /// Long enough after the intent, with the carrier answering and knowing of nothing: it was never sent.
    async fn never_dialed(&self, call: &Call) -> StoreResult<Verdict> {
        let now = self.clock.now();
        if now - call.start_time < self.settle {
            self.calls.extend(call, now + self.processed).await?;
            return Ok(Verdict::Lives);
        }
        if call.campaign_id.is_some() {
            let withdrawn = self.calls.withdraw_seen(call, now).await?;
            return Ok(if withdrawn {
                Verdict::Withdrawn
            } else {
                Verdict::Lives
            });
        }
        self.calls
            .end(
                call,
                FinalSource::Local,
                CallStatus::Failed,
                Outcome::CarrierError,
                "the call never reached the carrier",
            )
            .await?;
        Ok(Verdict::Ended)
    }

    async fn unanswered(&self, call: &Call, error: LookupError) -> StoreResult<Verdict> {
        tracing::warn!(callId = %call.id, %error, "the carrier could not be asked");
        self.wait_or_give_up(call, "the carrier could not be asked")
            .await
    }

    async fn wait_or_give_up(&self, call: &Call, reason: &str) -> StoreResult<Verdict> {
        let now = self.clock.now();
        let allowed = self
            .calls
            .deadlines()
            .of(call.status, call.last_news())
            .unwrap_or(now)
            + self.call_timeout;
        if now > allowed {
            self.calls
                .end(
                    call,
                    FinalSource::GaveUp,
                    CallStatus::Uncertain,
                    Outcome::Uncertain,
                    reason,
                )
                .await?;
            return Ok(Verdict::GivenUp);
        }
        let again =
            (self.processed / 4).clamp(TimeDelta::milliseconds(200), TimeDelta::seconds(30));
        self.calls.extend(call, now + again).await?;
        Ok(Verdict::Lives)
    }
}

/// Whether what the carrier knows may be this call: caller ID and time must fit, where the carrier tells them.
fn is_of(sighting: &Sighting, call: &Call) -> bool {
    let is_from = |from: &str| from.is_empty() || from == call.from.digits();
    match sighting {
        Sighting::Queued(found) | Sighting::Live(found) => is_from(&found.from),
        Sighting::Ended(record) => {
            let since = call.start_time - CLOCK_SLACK;
            is_from(record.from.as_deref().unwrap_or_default())
                && record
                    .initiated_at
                    .is_none_or(|initiated| initiated >= since)
        }
        Sighting::Nothing => false,
    }
}

/// What a question brought.
enum Verdict {
    Lives,
    Ended,
    Withdrawn,
    GivenUp,
}
