//! One question: what became of a call, and what follows from the carrier's answer.

use chrono::{DateTime, TimeDelta, Utc};

use super::Reconciler;
use crate::domain::call::{Call, CallStatus};
use crate::domain::call_event::{CallEvent, EventKind, FinalSource};
use crate::domain::outcome::Outcome;
use crate::services::calls::HUNG_UP;
use crate::services::carrier::{LookupError, Sighting};
use crate::services::store::StoreResult;
use crate::utils::crash_points::crash_point;

/// The carrier's clock and ours may differ by this much when a call is looked for by number and time.
const CLOCK_SLACK: TimeDelta = TimeDelta::seconds(90);

/// What a question brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It lives, or is to be asked after again.
    Lives,
    /// Its end was learned.
    Ended,
    /// It was never sent.
    Withdrawn,
    /// Nobody will ever know.
    GivenUp,
    /// The carrier could not be asked.
    Unanswered,
}

impl Reconciler {
    /// Asks after an overdue call, unless something happened to it since it was read.
    pub(super) async fn ask(&self, overdue: &Call) -> StoreResult<Verdict> {
        let found = self.store.call_get(overdue.id).await?;
        let Some(call) = found.filter(|call| call.version == overdue.version) else {
            return Ok(Verdict::Lives);
        };
        match call.carrier_id() {
            Some(uuid) => self.ask_by_id(&call, uuid).await,
            None => self.ask_by_number(&call).await,
        }
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
            Ok(Some(sighting)) => self.conclude_found(call, sighting).await,
            Ok(None) => self.never_dialed(call).await,
            Err(error) => self.unanswered(call, error).await,
        }
    }

    /// What was found by number is this call's, unless another one to the same number was dialed while the carrier was asked.
    /// First the doubles, then the ids: a double that got its id in between is no double any more, and its id is known.
    async fn conclude_found(&self, call: &Call, sighting: Sighting) -> StoreResult<Verdict> {
        let is_doubtful = self.store.call_has_double(call).await?;
        let is_anothers = match sighting.uuid() {
            Some(uuid) => self.store.call_uuid_is_known(uuid).await?,
            None => false,
        };
        if is_doubtful || is_anothers {
            let reason = "another call to the same number was made meanwhile";
            return self.wait_or_give_up(call, reason).await;
        }
        self.conclude(call, sighting).await
    }

    async fn find_by_number(
        &self,
        call: &Call,
    ) -> StoreResult<Result<Option<Sighting>, LookupError>> {
        let since = call.start_time - CLOCK_SLACK;
        let mut uuids = Vec::new();
        // In the order of a call's life, so that one that moves on between two questions is not missed.
        for queued in [true, false] {
            match self.carrier.list_live(queued, Some(&call.to)).await {
                Ok(found) => uuids.extend(found),
                Err(error) => return Ok(Err(error)),
            }
        }
        for uuid in uuids {
            if self.store.call_uuid_is_known(&uuid).await? {
                continue;
            }
            match self.carrier.look_up(&uuid).await {
                Ok(sighting) if sighting.may_be(call, since) => return Ok(Ok(Some(sighting))),
                Ok(_) => {}
                Err(error) => return Ok(Err(error)),
            }
        }
        let records = match self.carrier.records_to(&call.to, since).await {
            Ok(records) => records,
            Err(error) => return Ok(Err(error)),
        };
        for record in records {
            let uuid = record.call_uuid.clone();
            let sighting = Sighting::Ended(Box::new(record));
            if sighting.may_be(call, since) && !self.store.call_uuid_is_known(&uuid).await? {
                return Ok(Ok(Some(sighting)));
            }
        }
        Ok(Ok(None))
    }

    async fn conclude(&self, call: &Call, sighting: Sighting) -> StoreResult<Verdict> {
        crash_point!("reconcile.after_question");
        let now = self.clock.now();
        let (kind, uuid) = match sighting {
            Sighting::Queued(queued) => (EventKind::Accepted, queued.call_uuid),
            Sighting::Live(live) if live.in_progress => (EventKind::Answer, live.call_uuid),
            Sighting::Live(live) => (EventKind::Ring, live.call_uuid),
            Sighting::Ended(record) => (EventKind::End(Box::new(record.end)), record.call_uuid),
            Sighting::Nothing => {
                let in_queue = call.status == CallStatus::Queued;
                return match call.hangup_requested_at.filter(|_| in_queue) {
                    Some(requested_at) => self.gone_from_queue(call, requested_at).await,
                    None => {
                        self.wait_or_give_up(call, "the carrier no longer knows the call")
                            .await
                    }
                };
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
            let event = CallEvent::learned(kind, now, call.dial, Some(uuid));
            if call.carrier_id().is_none() {
                // Found by number: should the call have learned its own id meanwhile, this may be another one.
                if !self.calls.apply_seen(call, &event).await? {
                    return Ok(Verdict::Lives);
                }
            } else {
                self.calls.apply(Some(call.id), &event).await?;
            }
        }
        if is_over {
            crash_point!("reconcile.after_end");
            return Ok(Verdict::Ended);
        }
        crash_point!("reconcile.before_confirming");
        self.calls.confirm(call.id, now).await?;
        Ok(Verdict::Lives)
    }

    /// Long enough after the intent, with the carrier answering and knowing of nothing: it was never sent. It must have said
    /// so before, longer ago than it takes to write a record: a call that ended just now is neither live nor recorded.
    async fn never_dialed(&self, call: &Call) -> StoreResult<Verdict> {
        let now = self.clock.now();
        let missing_since = call.missing_since.unwrap_or(now);
        let is_settled = now - call.start_time >= self.settle
            && now - missing_since >= self.settle - self.processed;
        if !is_settled {
            self.calls
                .missed(call, missing_since, now + self.processed)
                .await?;
            return Ok(Verdict::Lives);
        }
        if call.campaign_id.is_some() {
            crash_point!("reconcile.before_withdraw");
            let withdrawn = self.calls.withdraw_seen(call, now).await?;
            crash_point!("reconcile.after_withdraw");
            return Ok(if withdrawn {
                Verdict::Withdrawn
            } else {
                Verdict::Lives
            });
        }
        let end = (
            FinalSource::Local,
            CallStatus::Failed,
            Outcome::CarrierError,
        );
        let reason = "the call never reached the carrier";
        self.end_as(call, end, reason, Verdict::Ended).await
    }

    /// A queued call was to be hung up, and the carrier knows nothing of it: it was cancelled, unless it left the queue just before
    /// and has ended since. Then its record follows, so the carrier must have said "nothing" for long enough.
    async fn gone_from_queue(
        &self,
        call: &Call,
        requested_at: DateTime<Utc>,
    ) -> StoreResult<Verdict> {
        let now = self.clock.now();
        let missing_since = call.missing_since.filter(|since| *since >= requested_at);
        let missing_since = missing_since.unwrap_or(now);
        if now - missing_since < self.settle - self.processed {
            let again = now + self.processed;
            self.calls.missed(call, missing_since, again).await?;
            return Ok(Verdict::Lives);
        }
        let end = (FinalSource::Local, CallStatus::Canceled, Outcome::Canceled);
        self.end_as(call, end, HUNG_UP, Verdict::Ended).await
    }

    /// Ends the call by our own word; `verdict`, unless something happened to it since it was read.
    async fn end_as(
        &self,
        call: &Call,
        (source, status, outcome): (FinalSource, CallStatus, Outcome),
        reason: &str,
        verdict: Verdict,
    ) -> StoreResult<Verdict> {
        let ended = self.calls.end_seen(call, source, status, outcome, reason);
        Ok(if ended.await? {
            verdict
        } else {
            Verdict::Lives
        })
    }

    async fn unanswered(&self, call: &Call, error: LookupError) -> StoreResult<Verdict> {
        tracing::warn!(callId = %call.id, %error, "the carrier could not be asked");
        let verdict = self
            .wait_or_give_up(call, "the carrier could not be asked")
            .await?;
        let is_settled = verdict == Verdict::GivenUp;
        Ok(if is_settled {
            verdict
        } else {
            Verdict::Unanswered
        })
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
            crash_point!("reconcile.before_giving_up");
            let end = (
                FinalSource::GaveUp,
                CallStatus::Uncertain,
                Outcome::Uncertain,
            );
            return self.end_as(call, end, reason, Verdict::GivenUp).await;
        }
        let again =
            (self.processed / 4).clamp(TimeDelta::milliseconds(200), TimeDelta::seconds(30));
        self.calls.extend(call, now + again).await?;
        Ok(Verdict::Lives)
    }
}
