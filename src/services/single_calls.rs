//! Single calls: one call by the same path as a campaign's, for a caller who waits for the answer.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::dialer::HangUpError;
use super::pacer::Permit;
use super::parts::Parts;
use super::slots::Limits;
use super::store::calls::{ID_INDEX, SLOTS_INDEX};
use super::store::{StoreError, StoreResult};
use crate::domain::answer::Answer;
use crate::domain::call::{Call, CallStatus};
use crate::domain::call_event::FinalSource;
use crate::domain::campaign::CallSettings;
use crate::domain::client::{Client, ClientStatus};
use crate::domain::ids::{CallId, ClientId};
use crate::domain::outcome::Outcome;
use crate::domain::phone::PhoneNumber;
use crate::utils::crash_points::crash_point;

/// A call that was not looked at for so long after it was written may be known to who asked for it again.
const UNSEEN_TIME: Duration = Duration::from_secs(5);

/// A call to be made.
#[derive(Clone)]
pub struct NewCall {
    /// Its id, reserved where the request carried an idempotency key.
    pub id: CallId,
    /// The tenant.
    pub client_id: ClientId,
    /// Whom to call.
    pub to: PhoneNumber,
    /// How; the answer is rendered already.
    pub settings: CallSettings,
}

/// Why a call was not made. Nothing was dialed.
#[derive(Debug, thiserror::Error)]
pub enum SingleCallError {
    /// No such client.
    #[error("there is no such client")]
    NoSuchClient,
    /// The client is suspended.
    #[error("the client is suspended")]
    Suspended,
    /// The client may not use this caller ID.
    #[error("the number is not one of the client's caller IDs")]
    CallerId,
    /// Addresses that may not be asked: path of the field and reason each.
    #[error("the call names a server that may not be asked")]
    Addresses(Vec<(String, String)>),
    /// No slot, or no turn within the rate limits, became free in time.
    #[error("no {0} became free in time")]
    Busy(&'static str),
    /// The process is stopping.
    #[error("the service is stopping")]
    Stopping,
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The service. Cheap to clone.
#[derive(Clone)]
pub struct SingleCalls {
    parts: Arc<Parts>,
    slot_wait: Duration,
}

impl std::fmt::Debug for SingleCalls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SingleCalls")
            .field("slot_wait", &self.slot_wait)
            .finish_non_exhaustive()
    }
}

impl SingleCalls {
    /// The service; a call waits for `slot_wait` for a slot and its turn.
    #[must_use]
    pub fn new(parts: Arc<Parts>, slot_wait: Duration) -> Self {
        Self { parts, slot_wait }
    }

    /// Makes the call and answers it as it stands after the carrier was asked. With an id that exists already the existing call is answered.
    ///
    /// # Errors
    /// A [`SingleCallError`]: then nothing was dialed and nothing is left behind.
    pub async fn make(&self, new: NewCall) -> Result<Call, SingleCallError> {
        if let Some(known) = self.parts.store.call_get(new.id).await? {
            return Ok(known);
        }
        self.client(&new).await?;
        let faults = self.parts.outbound.faults(new.settings.addresses()).await;
        if !faults.is_empty() {
            return Err(SingleCallError::Addresses(faults));
        }
        if let Some(address) = self
            .parts
            .warmup
            .address(new.settings.warmup_url.as_deref())
        {
            let stop = self.parts.life.token();
            let warmth = stop.run_until_cancelled(self.parts.warmup.ensure(&address));
            let warmth = warmth.await.ok_or(SingleCallError::Stopping)?;
            if !warmth.warm {
                return self.not_ready(&new).await;
            }
        }
        let (call, intended_at) = match self.claim(&new).await {
            Ok(claimed) => claimed,
            // The same request elsewhere was faster.
            Err(SingleCallError::Store(error)) if error.is_duplicate_of(ID_INDEX) => {
                let known = self.parts.store.call_get(new.id).await?;
                return known.ok_or(SingleCallError::Store(error));
            }
            Err(error) => return Err(error),
        };
        crash_point!("single_call.after_intent");
        let times = (intended_at, Instant::now());
        // The request may have left: whatever goes wrong now, the answer is the call, and what became of it follows.
        if let Err(error) = self
            .parts
            .dialer
            .send(&call, &new.settings, None, times)
            .await
        {
            tracing::error!(callId = %call.id, %error, "what the carrier said was not written down; the reconciler will ask");
        }
        Ok(self
            .parts
            .store
            .call_get(call.id)
            .await
            .ok()
            .flatten()
            .unwrap_or(call))
    }

    /// The call, of `scope` where given.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn get(&self, id: CallId, scope: Option<ClientId>) -> StoreResult<Option<Call>> {
        let found = self.parts.store.call_get(id).await?;
        Ok(found.filter(|call| scope.is_none_or(|client| client == call.client_id)))
    }

    /// Hangs up a live call. False when the carrier no longer has it.
    ///
    /// # Errors
    /// Those of carrier and store.
    pub async fn hang_up(&self, call: &Call) -> Result<bool, HangUpError> {
        self.parts.dialer.hang_up(call).await
    }

    /// Takes a slot and a turn for the call, within the time that it may wait. The client's limits are read anew before each try.
    async fn claim(&self, new: &NewCall) -> Result<(Call, Instant), SingleCallError> {
        let until = Instant::now() + self.slot_wait;
        let mut waits_for = "slot";
        loop {
            if self.parts.life.is_stopping() {
                return Err(SingleCallError::Stopping);
            }
            if Instant::now() >= until {
                return Err(SingleCallError::Busy(waits_for));
            }
            let mut waiter = self.parts.slots.waiter();
            let client = self.client(new).await?;
            if self
                .parts
                .slots
                .choose(&limits(new, &client))
                .await?
                .is_none()
            {
                waits_for = "slot";
                self.parts.slots.wait(&mut waiter).await;
                continue;
            }
            waits_for = "turn within the rate limits";
            let Some(permit) = self.turn(&client, until).await? else {
                continue;
            };
            if let Some(claimed) = self.claim_now(new).await? {
                return Ok(claimed);
            }
            self.parts.pacer.give_back(permit).await?;
        }
    }

    /// Takes the slots, with limits read just before and once more after it, for the reason that the driver has (promise P1).
    /// `None` when they are full.
    async fn claim_now(&self, new: &NewCall) -> Result<Option<(Call, Instant)>, SingleCallError> {
        let intended_at = Instant::now();
        let client = self.client(new).await?;
        let Some(slots) = self.parts.slots.choose(&limits(new, &client)).await? else {
            return Ok(None);
        };
        let call = self.intent(new, slots);
        crash_point!("single_call.before_intent");
        match self.parts.store.call_insert(&call).await {
            Ok(()) => {}
            Err(error) if error.is_duplicate_of(SLOTS_INDEX) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
        let is_allowed = self.is_within_limits(new).await;
        if let Ok(true) = is_allowed {
            return Ok(Some((call, intended_at)));
        }
        if intended_at.elapsed() < UNSEEN_TIME {
            self.parts.store.call_remove_unsent(&call).await?;
        } else {
            let (status, outcome) = (CallStatus::Failed, Outcome::Throttled);
            let reason = "the limits were lowered meanwhile";
            self.parts
                .calls
                .end_seen(&call, FinalSource::Local, status, outcome, reason)
                .await?;
        }
        is_allowed.map(|_| None)
    }

    async fn is_within_limits(&self, new: &NewCall) -> Result<bool, SingleCallError> {
        let client = self.client(new).await?;
        Ok(self.parts.slots.is_within(&limits(new, &client)).await?)
    }

    /// The client, if it may make this call.
    async fn client(&self, new: &NewCall) -> Result<Client, SingleCallError> {
        let client = self.parts.store.client_get(new.client_id).await?;
        let client = client.ok_or(SingleCallError::NoSuchClient)?;
        if client.status == ClientStatus::Suspended {
            return Err(SingleCallError::Suspended);
        }
        if !client.caller_ids.is_empty() && !client.caller_ids.contains(&new.settings.from) {
            return Err(SingleCallError::CallerId);
        }
        Ok(client)
    }

    async fn turn(&self, client: &Client, until: Instant) -> StoreResult<Option<Permit>> {
        let token = self.parts.life.token();
        let mut take = std::pin::pin!(self.parts.pacer.take(
            client.id,
            client.max_calls_per_minute,
            &token
        ));
        tokio::select! {
            taken = &mut take => return taken,
            () = tokio::time::sleep_until(until.into()) => token.cancel(),
        }
        take.await
    }

    fn intent(&self, new: &NewCall, slots: Vec<String>) -> Call {
        let now = self.parts.clock.now();
        Call {
            id: new.id,
            client_id: new.client_id,
            campaign_id: None,
            contact_seq: None,
            attempt: 1,
            dial: 1,
            from: new.settings.from.clone(),
            to: new.to.clone(),
            answer: Some(new.settings.answer.clone()),
            status: CallStatus::Dialing,
            outcome: None,
            skip_reason: None,
            call_uuid: None,
            request_uuid: None,
            start_time: now,
            ring_time: None,
            answer_time: None,
            confirmed_at: None,
            missing_since: None,
            hangup_requested_at: None,
            machine: false,
            recording_url: None,
            end: None,
            retry: None,
            retry_at: None,
            ghosts: Vec::new(),
            superseded: false,
            deadline: self.parts.calls.deadlines().of(CallStatus::Dialing, now),
            events: Vec::new(),
            owner: self.parts.heartbeat.container().to_owned(),
            epoch: 0,
            slots,
            version: 0,
        }
    }

    /// The bot does not wake: recorded as failed without a call.
    async fn not_ready(&self, new: &NewCall) -> Result<Call, SingleCallError> {
        let call = self.intent(new, Vec::new());
        self.parts.store.call_insert(&call).await?;
        self.parts
            .calls
            .end(
                &call,
                FinalSource::Local,
                CallStatus::Failed,
                Outcome::BotNotReady,
                "bot_not_ready",
            )
            .await?;
        Ok(self.parts.store.call_get(call.id).await?.unwrap_or(call))
    }
}

fn limits(new: &NewCall, client: &Client) -> Limits {
    Limits {
        client: (client.id, client.max_concurrent_calls),
        campaign: None,
        number: (new.settings.from.clone(), client.max_calls_per_caller_id),
    }
}

/// A rendered answer for a call to a person of whom only the first name is known.
#[must_use]
pub fn rendered(answer: &Answer, to: &PhoneNumber, first_name: Option<String>) -> Answer {
    let contact = crate::domain::contact::Contact {
        seq: 0,
        number: to.clone(),
        first_name,
        time_zone: None::<chrono_tz::Tz>,
        fields: std::collections::BTreeMap::new(),
    };
    answer.render(&contact)
}
