//! The driver of one campaign: takes its contacts in file order, one step at a time, for as long as it holds the lease.
//!
//! Nothing here is remembered that the database does not know: a driver may die at any instruction and another goes on.
//! `next` decides whom to dial and whether it may be now; `dial` does it.

mod dial;
mod next;

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};
use tokio_util::sync::CancellationToken;

use next::Next;

use super::breaker;
use super::intent;
use super::parts::Parts;
use super::store::StoreResult;
use super::store::campaigns::Lease;
use crate::domain::campaign::{Campaign, CampaignStatus};
use crate::domain::contact::Contact;
use crate::domain::outcome::SkipReason;
use crate::utils::backoff;
use crate::utils::crash_points::crash_point;

/// Longest sleep of a driver: then it looks at its campaign again.
const LONGEST_NAP: Duration = Duration::from_secs(15);
/// How often a driver with nothing to dial looks whether its last calls are over.
const IDLE_POLL: Duration = Duration::from_millis(400);
/// Shortest sleep: what is due "now" by a clock that is a little ahead must not spin.
const SHORTEST_NAP: Duration = Duration::from_millis(5);
/// How often the circuit breaker looks.
const BREAKER_POLL: Duration = Duration::from_secs(1);
/// A wait this long is shown in the progress.
const NOTEWORTHY: Duration = Duration::from_secs(1);
/// For so long after the database failed calls may still end for want of an answer to their webhooks (Plivo delivers again
/// for 55 s at most).
const AFTERMATH: TimeDelta = TimeDelta::seconds(60);
/// Pause after the database failed.
const DATABASE_PAUSE: Duration = Duration::from_millis(500);

/// What a step did.
#[derive(Debug)]
enum Step {
    /// Something moved; go on at once.
    Did,
    /// Nothing can be done for this reason before about this time has passed.
    Wait(&'static str, Duration),
    /// The campaign is no longer ours to drive.
    Over,
}

/// What the campaign waits for, since when, and whether the progress page was told.
#[derive(Debug, Clone, Copy)]
struct Waiting {
    reason: &'static str,
    since: Instant,
    is_noted: bool,
}

/// The driver.
pub(super) struct Driver {
    parts: Arc<Parts>,
    lease: Lease,
    stop: CancellationToken,
    contacts: VecDeque<Contact>,
    looked_at_breaker: Instant,
    /// Ends before this time are not the campaign's fault: its webhooks could not be taken.
    troubled_until: Option<DateTime<Utc>>,
    waiting: Option<Waiting>,
}

impl Driver {
    pub(super) fn new(parts: Arc<Parts>, lease: Lease, stop: CancellationToken) -> Self {
        Self {
            parts,
            lease,
            stop,
            contacts: VecDeque::new(),
            looked_at_breaker: Instant::now(),
            troubled_until: None,
            waiting: None,
        }
    }

    /// Drives until the campaign is over, paused or taken over, or the process stops.
    pub(super) async fn run(mut self) {
        tracing::info!(campaignId = %self.lease.campaign, epoch = self.lease.epoch, "driving");
        let mut failures = 0;
        while !self.stop.is_cancelled() {
            // Made before looking, so that a call that ends in between still wakes us.
            let mut waiter = self.parts.slots.waiter();
            match self.step().await {
                Ok(Step::Did) => failures = 0,
                Ok(Step::Over) => break,
                Ok(Step::Wait(reason, wait)) => {
                    failures = 0;
                    self.note_waiting(reason, wait).await;
                    let nap = wait.clamp(SHORTEST_NAP, LONGEST_NAP);
                    self.stop.run_until_cancelled(waiter.wait(nap)).await;
                }
                Err(error) => {
                    self.note_trouble();
                    tracing::warn!(campaignId = %self.lease.campaign, %error, "a step failed");
                    let pause = backoff::exponential(DATABASE_PAUSE, failures, LONGEST_NAP);
                    failures += 1;
                    self.stop
                        .run_until_cancelled(tokio::time::sleep(pause))
                        .await;
                }
            }
        }
        tracing::info!(campaignId = %self.lease.campaign, epoch = self.lease.epoch, "no longer driving");
    }

    async fn step(&mut self) -> StoreResult<Step> {
        if self.parts.heartbeat.is_fenced() {
            self.note_trouble();
            return Ok(Step::Wait("database", DATABASE_PAUSE));
        }
        let Some(campaign) = self.ours().await? else {
            return Ok(Step::Over);
        };
        if self.breaker_trips(&campaign).await? {
            return Ok(Step::Over);
        }
        let now = self.parts.clock.now();
        if is_expired(&campaign, now) {
            return self.expire(&campaign, now).await;
        }
        let Some(next) = self.next(&campaign, now).await? else {
            return self.finish_or_wait(&campaign, now).await;
        };
        if let Next::Contact(contact) = &next
            && campaign.calls.answer.render(contact).is_silent()
        {
            let call = intent::skipped(&campaign, contact, SkipReason::Invalid, now);
            self.pass_over(&campaign, &[call]).await?;
            return Ok(Step::Did);
        }
        if let Some(step) = self.closed_window(&campaign, &next, now).await? {
            return Ok(step);
        }
        if let Some(wait) = self.interval_left(&campaign, now) {
            return Ok(Step::Wait("rate", wait));
        }
        // Boxed: a large future, which every future around it would contain.
        Box::pin(self.dial(&campaign, next)).await
    }

    /// The campaign as it is now, if it is still ours to drive.
    async fn ours(&self) -> StoreResult<Option<Campaign>> {
        let found = self
            .parts
            .store
            .campaign_get(self.lease.campaign, None)
            .await?;
        Ok(found.filter(|campaign| {
            campaign.status == CampaignStatus::Running
                && campaign.epoch == self.lease.epoch
                && campaign.container_id.as_deref() == Some(&*self.lease.container)
        }))
    }

    /// With nothing left to claim: complete, if no contact needs anything any more.
    async fn finish_or_wait(&self, campaign: &Campaign, now: DateTime<Utc>) -> StoreResult<Step> {
        let store = &self.parts.store;
        if !store.call_any_open(campaign.id).await? {
            crash_point!("complete.before");
            if store.campaign_complete(&self.lease, campaign).await? {
                crash_point!("complete.after");
                tracing::info!(campaignId = %campaign.id, "campaign completed");
                return Ok(Step::Over);
            }
            return Ok(Step::Wait("retry", SHORTEST_NAP));
        }
        let first = store.call_first_waiting(campaign.id).await?;
        let due = first.and_then(|call| call.retry_at);
        let wait = match due.map(|due| until(due, now)) {
            Some(wait) if store.call_any_in_flight(campaign.id).await? => wait.min(IDLE_POLL),
            Some(wait) => wait,
            None => IDLE_POLL,
        };
        Ok(Step::Wait("retry", wait))
    }

    fn note_trouble(&mut self) {
        self.troubled_until = Some(self.parts.clock.now() + AFTERMATH);
    }

    /// What is left of the pause between two calls of the campaign.
    fn interval_left(&self, campaign: &Campaign, now: DateTime<Utc>) -> Option<Duration> {
        let default = self.parts.call_interval;
        let pacing = campaign.pacing.as_ref();
        let interval = pacing.map_or(default, |pacing| pacing.interval(default));
        let passed = (now - campaign.last_activity?).to_std().unwrap_or_default();
        interval.checked_sub(passed).filter(|left| !left.is_zero())
    }

    async fn breaker_trips(&mut self, campaign: &Campaign) -> StoreResult<bool> {
        if self.looked_at_breaker.elapsed() < BREAKER_POLL {
            return Ok(false);
        }
        self.looked_at_breaker = Instant::now();
        // Calls that the database's absence spoiled say nothing about the campaign.
        let since = campaign.resumed_at.max(self.troubled_until);
        let rule = (self.parts.failed_rate_percent, since);
        breaker::check(&self.parts.store, campaign, &self.lease, rule).await
    }

    /// Carries `work` out; once it lasts, the progress page is told that the campaign waits for `reason`.
    async fn noting<T>(&mut self, reason: &'static str, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        if let Ok(done) = tokio::time::timeout(NOTEWORTHY, &mut work).await {
            return done;
        }
        // Side by side: the work may hold what others wait for, and must go on whatever the database does.
        tokio::join!(self.note_waiting(reason, NOTEWORTHY), work).1
    }

    /// Tells the progress page what the campaign waits for, once the wait lasts: a short one is nobody's business.
    async fn note_waiting(&mut self, reason: &'static str, expected: Duration) {
        let waiting = match self.waiting {
            Some(waiting) if waiting.reason == reason => waiting,
            _ => Waiting {
                reason,
                since: Instant::now(),
                is_noted: false,
            },
        };
        let lasts = expected >= NOTEWORTHY || waiting.since.elapsed() >= NOTEWORTHY;
        let mut is_noted = waiting.is_noted;
        if lasts && !is_noted {
            match self
                .parts
                .store
                .campaign_note_waiting(&self.lease, reason)
                .await
            {
                Ok(()) => is_noted = true,
                Err(error) => {
                    tracing::debug!(campaignId = %self.lease.campaign, %error, "a wait could not be noted");
                }
            }
        }
        self.waiting = Some(Waiting {
            is_noted,
            ..waiting
        });
    }
}

fn is_expired(campaign: &Campaign, now: DateTime<Utc>) -> bool {
    campaign
        .expires_at
        .is_some_and(|expires_at| expires_at <= now)
}

/// The place of a contact, as campaigns and calls count it.
fn seq(contact: &Contact) -> i64 {
    i64::try_from(contact.seq).unwrap_or(i64::MAX)
}

fn until(at: DateTime<Utc>, now: DateTime<Utc>) -> Duration {
    (at - now).to_std().unwrap_or_default()
}
