//! The only writer of a call's state after its intent: reads the call, asks the pure state machine, writes once, guarded.

mod ghosts;

use std::sync::Arc;

use chrono::{DateTime, Utc};

use super::carrier::PlivoClient;
use super::store::{Store, StoreError, StoreResult};
use super::wake::Wake;
use crate::domain::call::{Call, CallFilter, CallStatus};
use crate::domain::call_event::{CallEvent, EndFacts, EventKind, FinalSource};
use crate::domain::ids::CallId;
use crate::domain::outcome::Outcome;
use crate::domain::transition::{self, Applied, Deadlines};
use crate::utils::clock::Clock;
use crate::utils::lifecycle::Lifecycle;

/// How often a change is decided anew when another writer was faster. Each loss means that somebody else got on.
const MAX_TRIES: usize = 16;
/// Why a call ended that the carrier had only queued.
pub const HUNG_UP: &str = "hung up by an operator";

/// What became of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Disposition {
    /// The call is now as given.
    Applied(Box<Call>),
    /// The call knew it already.
    Known(Box<Call>),
    /// It belongs to a withdrawn dial; the carrier is told to hang up.
    Ghost,
    /// No call matches.
    Unknown,
}

/// Changes calls. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Calls {
    store: Store,
    carrier: Arc<PlivoClient>,
    deadlines: Deadlines,
    wake: Wake,
    clock: Clock,
    life: Lifecycle,
}

impl Calls {
    /// The service; `wake` rings when a call ends.
    #[must_use]
    pub fn new(
        store: Store,
        carrier: Arc<PlivoClient>,
        deadlines: Deadlines,
        wake: Wake,
        clock: Clock,
        life: Lifecycle,
    ) -> Self {
        Self {
            store,
            carrier,
            deadlines,
            wake,
            clock,
            life,
        }
    }

    /// How long calls may stay in each status.
    #[must_use]
    pub fn deadlines(&self) -> &Deadlines {
        &self.deadlines
    }

    /// Applies `event` to the call `id`, else to the call that the carrier's ids in it name.
    ///
    /// # Errors
    /// Those of the store; then nothing is written and the event must be delivered again.
    pub async fn apply(&self, id: Option<CallId>, event: &CallEvent) -> StoreResult<Disposition> {
        // A callee is hung up on only for what is sure: right after a failover a read may miss the latest writes.
        let mut is_sure = id.is_none();
        let mut is_hung_up = false;
        for _ in 0..MAX_TRIES {
            let found = match id {
                Some(id) if is_sure => self.store.call_get_surely(id).await?,
                Some(id) => self.store.call_get(id).await?,
                None => self.find(event).await?,
            };
            let Some(call) = found else {
                if is_sure {
                    return Ok(Disposition::Unknown);
                }
                is_sure = true;
                continue;
            };
            match transition::apply(&call, event, &self.deadlines) {
                Applied::Unchanged => return Ok(Disposition::Known(Box::new(call))),
                Applied::Ghost(_) if !is_sure => is_sure = true,
                Applied::Ghost(haunted) => {
                    if !is_hung_up {
                        self.hang_up_ghost(&call, event);
                        is_hung_up = true;
                    }
                    let is_remembered = match haunted {
                        Some(haunted) => self.store.call_replace(&call, &haunted).await?,
                        None => true,
                    };
                    if is_remembered {
                        return Ok(Disposition::Ghost);
                    }
                }
                Applied::Changed(next) => {
                    if let Some(written) = self.write(&call, *next).await? {
                        self.report(&call, &written, event);
                        return Ok(Disposition::Applied(Box::new(written)));
                    }
                }
            }
        }
        // Only a storm of writes on one call comes here; the carrier delivers the event again.
        Err(StoreError::Unavailable { code: None })
    }

    /// Takes back a dial that provably never reached the carrier; the contact is dialed again at `retry_at`. False when the call moved on.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn withdraw(
        &self,
        id: CallId,
        dial: u32,
        retry_at: DateTime<Utc>,
    ) -> StoreResult<bool> {
        for _ in 0..MAX_TRIES {
            let Some(call) = self.store.call_get(id).await? else {
                return Ok(false);
            };
            if call.dial != dial {
                return Ok(false);
            }
            let Some(next) = transition::withdraw(&call, retry_at) else {
                return Ok(false);
            };
            if self.store.call_replace(&call, &next).await? {
                self.report_withdrawal(&call);
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Takes back the dial of `seen`, if nothing happened to it since it was read. For the reconciler: what it learned from the
    /// carrier holds for that state only.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn withdraw_seen(&self, seen: &Call, retry_at: DateTime<Utc>) -> StoreResult<bool> {
        let Some(next) = transition::withdraw(seen, retry_at) else {
            return Ok(false);
        };
        let done = self.store.call_replace(seen, &next).await?;
        if done {
            self.report_withdrawal(seen);
        }
        Ok(done)
    }

    /// Makes the intent of a dial that was held up new again. False when it was withdrawn or ended meanwhile: nothing may be sent.
    ///
    /// # Errors
    /// Those of the store; then nothing may be sent either.
    pub async fn renew(&self, id: CallId, dial: u32) -> StoreResult<bool> {
        for _ in 0..MAX_TRIES {
            let Some(call) = self.store.call_get(id).await? else {
                return Ok(false);
            };
            let Some(next) = transition::renew(&call, dial, self.clock.now(), &self.deadlines)
            else {
                return Ok(false);
            };
            if self.store.call_replace(&call, &next).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Gives a live call until `deadline` before the carrier is asked again.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn extend(&self, call: &Call, deadline: DateTime<Utc>) -> StoreResult<()> {
        let mut next = call.clone();
        next.deadline = Some(deadline);
        // A lost race means that something happened to the call, which set a deadline of its own.
        self.store.call_replace(call, &next).await.map(drop)
    }

    /// Notes that a queued call is about to be hung up, so that the carrier's silence about it can be understood later, whatever
    /// becomes of this process. Answers the call as it is then.
    ///
    /// # Errors
    /// Those of the store; then the order is not to be given.
    pub async fn note_hangup(&self, id: CallId) -> StoreResult<Option<Call>> {
        for _ in 0..MAX_TRIES {
            let Some(call) = self.store.call_get(id).await? else {
                return Ok(None);
            };
            if call.status != CallStatus::Queued || call.hangup_requested_at.is_some() {
                return Ok(Some(call));
            }
            let mut next = call.clone();
            next.hangup_requested_at = Some(self.clock.now());
            if self.store.call_replace(&call, &next).await? {
                next.version = call.version + 1;
                return Ok(Some(next));
            }
        }
        Err(StoreError::Unavailable { code: None })
    }

    /// The carrier knows nothing of a call, ambiguous or hung up in the queue: notes since when, and asks again at `deadline`.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn missed(
        &self,
        call: &Call,
        since: DateTime<Utc>,
        deadline: DateTime<Utc>,
    ) -> StoreResult<()> {
        let mut next = call.clone();
        next.missing_since = Some(since);
        next.deadline = Some(deadline);
        self.store.call_replace(call, &next).await.map(drop)
    }

    /// Applies what the carrier said about the call as it was read as `seen`. False when something happened to the call
    /// meanwhile: then what was said may be about another one.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn apply_seen(&self, seen: &Call, event: &CallEvent) -> StoreResult<bool> {
        let Applied::Changed(next) = transition::apply(seen, event, &self.deadlines) else {
            return Ok(false);
        };
        let written = self.write(seen, *next).await?;
        if let Some(written) = &written {
            self.report(seen, written, event);
        }
        Ok(written.is_some())
    }

    /// The carrier says at `now` that the call lives: it keeps its slot, and is asked after again later.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn confirm(&self, id: CallId, now: DateTime<Utc>) -> StoreResult<()> {
        let Some(call) = self.store.call_get(id).await? else {
            return Ok(());
        };
        let Some(deadline) = self.deadlines.of(call.status, now) else {
            return Ok(());
        };
        let mut next = call.clone();
        next.confirmed_at = Some(now);
        next.missing_since = None;
        next.deadline = Some(deadline);
        self.store.call_replace(&call, &next).await.map(drop)
    }

    /// Ends a call by our own word: `source` says how strong that word is.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn end(
        &self,
        call: &Call,
        source: FinalSource,
        status: CallStatus,
        outcome: Outcome,
        reason: &str,
    ) -> StoreResult<Disposition> {
        let event = self.own_word(call, source, status, outcome, reason);
        self.apply(Some(call.id), &event).await
    }

    /// As [`Calls::end`], if nothing happened to the call since it was read as `seen`. False when something did. For the
    /// reconciler: that nobody knows of a call is no news about one that rings meanwhile.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn end_seen(
        &self,
        seen: &Call,
        source: FinalSource,
        status: CallStatus,
        outcome: Outcome,
        reason: &str,
    ) -> StoreResult<bool> {
        let event = self.own_word(seen, source, status, outcome, reason);
        self.apply_seen(seen, &event).await
    }

    /// Calls by filter, newest first.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn list(&self, wanted: &CallFilter, limit: i64) -> StoreResult<Vec<Call>> {
        self.store.call_list(wanted, limit).await
    }

    fn own_word(
        &self,
        call: &Call,
        source: FinalSource,
        status: CallStatus,
        outcome: Outcome,
        reason: &str,
    ) -> CallEvent {
        let now = self.clock.now();
        let facts = EndFacts::told_by_us(source, status, outcome, now, reason);
        CallEvent::learned(EventKind::End(Box::new(facts)), now, call.dial, None)
    }

    /// The call that the carrier's ids name.
    async fn find(&self, event: &CallEvent) -> StoreResult<Option<Call>> {
        for uuid in [&event.request_uuid, &event.call_uuid]
            .into_iter()
            .flatten()
        {
            if let Some(call) = self.store.call_by_uuid(uuid).await? {
                return Ok(Some(call));
            }
        }
        Ok(None)
    }

    /// Writes `next` over `seen`. `None` when another writer was faster.
    async fn write(&self, seen: &Call, mut next: Call) -> StoreResult<Option<Call>> {
        let reopened = seen.status.is_final() && !seen.is_open() && next.is_open();
        let written = match next.campaign_id {
            Some(campaign) if reopened => {
                if !self
                    .store
                    .call_replace_reopening(seen, &next, campaign)
                    .await?
                {
                    // Either the call moved on, or its campaign is over and nobody would make the attempt.
                    next.retry = None;
                    next.retry_at = None;
                    self.store.call_replace(seen, &next).await?
                } else {
                    true
                }
            }
            _ => self.store.call_replace(seen, &next).await?,
        };
        next.version = seen.version + 1;
        Ok(written.then_some(next))
    }

    fn report(&self, before: &Call, after: &Call, event: &CallEvent) {
        if before.status != after.status {
            tracing::info!(
                callId = %after.id,
                campaignId = after.campaign_id.map(tracing::field::display),
                from = before.status.as_str(),
                to = after.status.as_str(),
                event = event.kind.name(),
                outcome = after.outcome.map(Outcome::as_str),
                "call status changed"
            );
        }
        if before.status.is_live() && !after.status.is_live() {
            self.wake.ring();
        }
    }

    fn report_withdrawal(&self, call: &Call) {
        tracing::info!(
            callId = %call.id,
            campaignId = call.campaign_id.map(tracing::field::display),
            dial = call.dial,
            "dial withdrawn: the carrier never had it"
        );
        self.wake.ring();
    }
}
