//! The last steps before the carrier: guard, send, and write down what the carrier said. Campaigns and single calls alike.
//!
//! Between the guard and the first byte of the request's body at most [`PERMISSION`] may pass, whatever froze in between; a
//! permission that grew old is asked for again. A time-out or a 5xx is never asked again: the call stays `dialing`, and only
//! the reconciler may decide (promise P2).

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use url::Url;

use super::calls::{Calls, HUNG_UP};
use super::carrier::plivo_dial::CallbackUrls;
use super::carrier::{DialError, DialRequest, PlivoClient, Sighting};
use super::pacer::Pacer;
use super::store::campaigns::{Lease, StatusChange};
use super::store::{Store, StoreResult};
use crate::domain::call::{Call, CallStatus};
use crate::domain::call_event::{CallEvent, EventKind, FinalSource};
use crate::domain::campaign::{CallSettings, CampaignStatus};
use crate::domain::outcome::Outcome;
use crate::utils::backoff;
use crate::utils::clock::{Clock, delta};
use crate::utils::crash_points::crash_point;

/// How long a passed guard allows sending: under the second that promise P5 grants after a pause was answered.
const PERMISSION: Duration = Duration::from_millis(800);
/// An intent is renewed no more often than this while its request is on its way.
const SHORTEST_RENEWAL: Duration = Duration::from_millis(100);
/// Rest after the carrier throttled us or could not be reached.
const REST: Duration = Duration::from_secs(2);
/// Longest rest that the carrier can ask for.
const LONGEST_REST: Duration = Duration::from_secs(60);

/// Sends dial requests. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Dialer {
    store: Store,
    carrier: Arc<PlivoClient>,
    calls: Calls,
    pacer: Pacer,
    clock: Clock,
    base_url: Url,
}

impl Dialer {
    /// The dialer; the carrier calls back under `base_url`.
    #[must_use]
    pub fn new(
        store: Store,
        carrier: Arc<PlivoClient>,
        calls: Calls,
        pacer: Pacer,
        clock: Clock,
        base_url: Url,
    ) -> Self {
        Self {
            store,
            carrier,
            calls,
            pacer,
            clock,
            base_url,
        }
    }

    /// Sends the dial request of `call`, whose intent was written at `intended_at` and whose guard was passed at `guarded_at`;
    /// under `lease` for a campaign's call.
    ///
    /// # Errors
    /// Those of the store; then the intent stays for the reconciler.
    pub async fn send(
        &self,
        call: &Call,
        settings: &CallSettings,
        lease: Option<&Lease>,
        (intended_at, guarded_at): (Instant, Instant),
    ) -> StoreResult<()> {
        let request = self.request(call, settings);
        let mut allowed = (!self.is_stale(intended_at)).then_some(guarded_at);
        crash_point!("send.before");
        for is_last in [false, true] {
            let Some(since) = allowed else {
                return self.postpone_late(call).await;
            };
            let dialing = self.carrier.dial(&request, since + PERMISSION);
            match self.while_renewed(call, dialing).await {
                Ok(request_uuid) => return self.accepted(call, request_uuid).await,
                Err(DialError::NotSent(_) | DialError::Late)
                    if !is_last && since.elapsed() > PERMISSION =>
                {
                    allowed = self.permission(call, lease, intended_at).await?;
                }
                Err(error) => return self.failed(call, lease, error).await,
            }
        }
        self.postpone_late(call).await
    }

    /// Waits for the carrier's answer and keeps the intent new meanwhile: a request that is on its way must not be taken for never
    /// sent, however slow the carrier is.
    async fn while_renewed<T>(&self, call: &Call, dialing: impl Future<Output = T>) -> T {
        let half = self.calls.deadlines().processed / 2;
        let half = half
            .to_std()
            .unwrap_or(Duration::ZERO)
            .max(SHORTEST_RENEWAL);
        let mut dialing = pin!(dialing);
        loop {
            if let Ok(answer) = tokio::time::timeout(half, &mut dialing).await {
                return answer;
            }
            crash_point!("send.unanswered");
            if let Err(error) = self.calls.renew(call.id, call.dial).await {
                tracing::warn!(callId = %call.id, %error, "an intent could not be renewed");
            }
            crash_point!("send.renewed");
        }
    }

    /// A process that was frozen since the intent must not revive it: others may have taken the call for never sent, and the
    /// window in which it was allowed may be over.
    fn is_stale(&self, intended_at: Instant) -> bool {
        delta(intended_at.elapsed()) > self.calls.deadlines().processed
    }

    /// The machine or the database was too slow, not the carrier: others need not wait. This call does, lest it is tried again
    /// and again while the database is slow.
    async fn postpone_late(&self, call: &Call) -> StoreResult<()> {
        let (outcome, reason) = (Outcome::CarrierError, "the call was not sent in time");
        self.postpone(call, REST, outcome, reason).await
    }

    /// A new permission to send: the campaign must still be ours, and the intent must still stand. One that grows old is made
    /// new, so that nobody takes it for abandoned while it is on its way; nobody does so with a young one under our lease.
    async fn permission(
        &self,
        call: &Call,
        lease: Option<&Lease>,
        intended_at: Instant,
    ) -> StoreResult<Option<Instant>> {
        let since = Instant::now();
        if let Some(lease) = lease
            && !self.store.campaign_guard(lease, None).await?
        {
            return Ok(None);
        }
        if self.is_stale(intended_at) {
            return Ok(None);
        }
        let is_young = delta(intended_at.elapsed()) < self.calls.deadlines().processed / 2;
        if is_young {
            return Ok(Some(since));
        }
        crash_point!("send.before_renewing");
        let stands = self.calls.renew(call.id, call.dial).await?;
        crash_point!("send.permitted_again");
        Ok(stands.then_some(since))
    }

    fn request(&self, call: &Call, settings: &CallSettings) -> DialRequest {
        let mut parameters = vec![
            ("call", call.id.to_string()),
            ("client", call.client_id.to_string()),
            ("dial", call.dial.to_string()),
        ];
        if let Some(campaign) = call.campaign_id {
            parameters.push(("campaign", campaign.to_string()));
        }
        DialRequest {
            from: call.from.clone(),
            to: call.to.clone(),
            callbacks: CallbackUrls::new(&self.base_url, &parameters),
            machine_detection: settings.machine_detection,
            time_limit_s: settings.time_limit_s,
            ring_timeout_s: settings.ring_timeout_s,
        }
    }

    async fn accepted(&self, call: &Call, request_uuid: String) -> StoreResult<()> {
        let (now, uuid) = (self.clock.now(), Some(request_uuid));
        let event = CallEvent::learned(EventKind::Accepted, now, call.dial, uuid);
        crash_point!("send.accepted");
        self.calls.apply(Some(call.id), &event).await?;
        crash_point!("send.recorded");
        Ok(())
    }

    async fn failed(
        &self,
        call: &Call,
        lease: Option<&Lease>,
        error: DialError,
    ) -> StoreResult<()> {
        tracing::warn!(callId = %call.id, campaignId = call.campaign_id.map(tracing::field::display), %error, "dial request failed");
        crash_point!("send.failed");
        match error {
            DialError::Ambiguous(_) => Ok(()),
            DialError::Late => self.postpone_late(call).await,
            DialError::NotSent(_) => {
                self.pacer.rest(REST);
                self.postpone(
                    call,
                    REST,
                    Outcome::CarrierError,
                    "the carrier could not be reached",
                )
                .await
            }
            DialError::Throttled { retry_after } => {
                let rest = retry_after.unwrap_or(REST).min(LONGEST_REST);
                self.pacer.rest(rest);
                self.postpone(
                    call,
                    rest,
                    Outcome::Throttled,
                    "the carrier is too busy with this account",
                )
                .await
            }
            DialError::Condemned(reason) => {
                if let Some(lease) = lease {
                    self.pause(lease, reason).await?;
                }
                crash_point!("condemned.after_pause");
                self.postpone(call, Duration::ZERO, Outcome::ConfigError, reason)
                    .await
            }
            DialError::Refused {
                status,
                destination,
            } => {
                let outcome = if destination {
                    Outcome::InvalidNumber
                } else {
                    Outcome::ConfigError
                };
                let reason = format!("the carrier refused the call (HTTP {status})");
                crash_point!("refused.before_end");
                self.calls
                    .end(
                        call,
                        FinalSource::Refusal,
                        CallStatus::Failed,
                        outcome,
                        &reason,
                    )
                    .await?;
                Ok(())
            }
        }
    }

    /// A call that was certainly not dialed: a campaign dials its contact again later; a single call has nobody to do so and is over.
    async fn postpone(
        &self,
        call: &Call,
        wait: Duration,
        outcome: Outcome,
        reason: &str,
    ) -> StoreResult<()> {
        if call.campaign_id.is_some() {
            return self.withdraw(call, backoff::jitter(wait)).await;
        }
        self.calls
            .end(
                call,
                FinalSource::Refusal,
                CallStatus::Failed,
                outcome,
                reason,
            )
            .await?;
        Ok(())
    }

    async fn withdraw(&self, call: &Call, wait: Duration) -> StoreResult<()> {
        let retry_at = self.clock.now() + delta(wait);
        crash_point!("withdraw.before");
        self.calls.withdraw(call.id, call.dial, retry_at).await?;
        crash_point!("withdraw.after");
        Ok(())
    }

    async fn pause(&self, lease: &Lease, reason: &str) -> StoreResult<()> {
        crash_point!("condemned.before_pause");
        let change = StatusChange {
            to: CampaignStatus::Paused,
            by: "system",
            reason: Some(reason),
            driver: None,
            only_under: Some(lease),
        };
        if self
            .store
            .campaign_transition(lease.campaign, None, &[CampaignStatus::Running], change)
            .await?
            .is_some()
        {
            tracing::warn!(campaignId = %lease.campaign, reason, "campaign paused: every call would fail");
        }
        Ok(())
    }

    /// Hangs up a call. True when the carrier ended or cancelled it. No webhook is promised for one that it had only queued: that is
    /// over once the carrier knows nothing of it any more. Should it not answer now, the reconciler asks again.
    ///
    /// # Errors
    /// The carrier's or the store's.
    pub async fn hang_up(&self, call: &Call) -> Result<bool, HangUpError> {
        let noted = self.calls.note_hangup(call.id).await?;
        let Some((call, uuid)) = noted
            .as_ref()
            .and_then(|call| Some((call, call.carrier_id()?)))
        else {
            return Ok(false);
        };
        crash_point!("hang_up.before_order");
        let done = self
            .carrier
            .hang_up(uuid)
            .await
            .map_err(HangUpError::Carrier)?;
        crash_point!("hang_up.after_order");
        if call.status != CallStatus::Queued {
            return Ok(done);
        }
        // It may have left the queue just before, and live for another moment. Where the order found nothing, the carrier may
        // not see the call yet: that is for the reconciler to find out.
        if done && matches!(self.carrier.look_up(uuid).await, Ok(Sighting::Nothing)) {
            let (source, status, outcome) =
                (FinalSource::Local, CallStatus::Canceled, Outcome::Canceled);
            let ended = self.calls.end_seen(call, source, status, outcome, HUNG_UP);
            if ended.await? {
                return Ok(true);
            }
        }
        self.calls.extend(call, self.clock.now()).await?;
        Ok(done)
    }
}

/// Why a call could not be hung up.
#[derive(Debug, thiserror::Error)]
pub enum HangUpError {
    /// The carrier could not be asked.
    #[error(transparent)]
    Carrier(super::carrier::LookupError),
    /// The database could not be written.
    #[error(transparent)]
    Store(#[from] super::store::StoreError),
}
