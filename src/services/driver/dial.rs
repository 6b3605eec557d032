//! Dialing one: bot, slot, turn, intent, guard, and the request on its way.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::next::Next;
use super::{Driver, Step, is_expired, seq};
use crate::domain::call::{Call, CallStatus};
use crate::domain::call_event::FinalSource;
use crate::domain::campaign::{Campaign, CampaignStatus};
use crate::domain::client::{Client, ClientStatus};
use crate::domain::outcome::Outcome;
use crate::domain::transition::{Dialer, rearm};
use crate::services::intent;
use crate::services::slots::Limits;
use crate::services::store::calls::{ATTEMPT_INDEX, SLOTS_INDEX};
use crate::services::store::campaigns::StatusChange;
use crate::services::store::{StoreError, StoreResult};
use crate::utils::crash_points::crash_point;

/// An intent that was written.
struct Claimed {
    call: Call,
    /// Place of the contact, where it was never claimed before.
    seq: Option<i64>,
    /// When the intent was written, at the latest.
    intended_at: Instant,
}

impl Driver {
    pub(super) async fn dial(&mut self, campaign: &Campaign, next: Next) -> StoreResult<Step> {
        let parts = Arc::clone(&self.parts);
        if let Some(address) = parts.warmup.address(campaign.calls.warmup_url.as_deref()) {
            let stop = self.stop.clone();
            let ensure = stop.run_until_cancelled(parts.warmup.ensure(&address));
            let Some(warmth) = self.noting("warmup", ensure).await else {
                return Ok(Step::Over);
            };
            if !warmth.warm {
                return self.bot_not_ready(campaign, &next).await;
            }
        }
        let Some(client) = self.client(campaign).await? else {
            return Ok(Step::Over);
        };
        let mut waiter = parts.slots.waiter();
        if parts
            .slots
            .choose(&limits(campaign, &client))
            .await?
            .is_none()
        {
            self.note_waiting("slot", Duration::ZERO).await;
            self.stop
                .run_until_cancelled(parts.slots.wait(&mut waiter))
                .await;
            return Ok(Step::Did);
        }
        let (stop, per_window) = (self.stop.clone(), client.max_calls_per_minute);
        let take = parts.pacer.take(client.id, per_window, &stop);
        let Some(permit) = self.noting("rate", take).await? else {
            return Ok(Step::Over);
        };
        // Boxed: a large future, which every future around it would contain.
        match Box::pin(self.claim_now(&next)).await {
            Ok(Some((campaign, claimed))) => self.guard_and_send(&campaign, claimed).await,
            Ok(None) => {
                parts.pacer.give_back(permit).await?;
                Ok(Step::Did)
            }
            Err(StoreError::Duplicate { index }) if index == SLOTS_INDEX => {
                parts.pacer.give_back(permit).await?;
                Ok(Step::Did)
            }
            Err(StoreError::Duplicate { index }) if index == ATTEMPT_INDEX => {
                parts.pacer.give_back(permit).await?;
                self.claimed_already(campaign, &next).await
            }
            Err(error) => Err(error),
        }
    }

    /// The campaign's client; a suspended one's campaign is paused.
    async fn client(&self, campaign: &Campaign) -> StoreResult<Option<Client>> {
        let store = &self.parts.store;
        let found = store.client_get(campaign.client_id).await?;
        let active = found.filter(|client| client.status == ClientStatus::Active);
        if active.is_none() {
            let change = StatusChange {
                to: CampaignStatus::Paused,
                by: "system",
                reason: Some("the client is suspended"),
                driver: None,
                only_under: Some(&self.lease),
            };
            store
                .campaign_transition(campaign.id, None, &[CampaignStatus::Running], change)
                .await?;
            tracing::warn!(campaignId = %campaign.id, "campaign paused: its client is suspended");
        }
        Ok(active)
    }

    /// Claims with everything read anew: the wait for the permit may have been long, and meanwhile the campaign may have been
    /// paused, its window may have closed, limits may have been lowered. `None` when it may not be (or somebody was faster).
    async fn claim_now(&self, next: &Next) -> StoreResult<Option<(Campaign, Claimed)>> {
        let Some((campaign, client)) = self.allowed(next).await? else {
            return Ok(None);
        };
        // Somebody else may have moved the campaign on, or a new primary may not know yet how far it is.
        if let Next::Contact(contact) = next
            && campaign.current_index != seq(contact)
        {
            return Ok(None);
        }
        let Some(slots) = self.parts.slots.choose(&limits(&campaign, &client)).await? else {
            return Ok(None);
        };
        let Some(claimed) = self.claim(&campaign, next, slots).await? else {
            return Ok(None);
        };
        match self.confirmed(next).await {
            Ok(Some(campaign)) => Ok(Some((campaign, claimed))),
            Ok(None) => {
                tracing::info!(callId = %claimed.call.id, "claim taken back: limits, window or driver changed meanwhile");
                self.take_back(&claimed).await?;
                Ok(None)
            }
            Err(error) => {
                self.take_back(&claimed).await?;
                Err(error)
            }
        }
    }

    /// Looks once more at all that allows the dial, after the slots were taken. Whoever chose its slots under a limit that was
    /// lowered meanwhile, or was frozen in between, finds out here: of all the calls of a scope, the one that came last sees
    /// all the others, so that together they never exceed the limit (promise P1).
    async fn confirmed(&self, next: &Next) -> StoreResult<Option<Campaign>> {
        let Some((campaign, client)) = self.allowed(next).await? else {
            return Ok(None);
        };
        let is_within = self
            .parts
            .slots
            .is_within(&limits(&campaign, &client))
            .await?;
        Ok(is_within.then_some(campaign))
    }

    /// The campaign and its client as they are now, if they allow the next dial at this time.
    async fn allowed(&self, next: &Next) -> StoreResult<Option<(Campaign, Client)>> {
        let Some(campaign) = self.ours().await? else {
            return Ok(None);
        };
        let now = self.parts.clock.now();
        if is_expired(&campaign, now) || self.is_closed(&campaign, next, now).await? {
            return Ok(None);
        }
        let client = self.client(&campaign).await?;
        Ok(client.map(|client| (campaign, client)))
    }

    /// Writes the intent: the claim, the slots and the limit check in one write.
    async fn claim(
        &self,
        campaign: &Campaign,
        next: &Next,
        slots: Vec<String>,
    ) -> StoreResult<Option<Claimed>> {
        let (parts, lease) = (&self.parts, &self.lease);
        let intended_at = Instant::now();
        let claimed = |call, seq| Claimed {
            call,
            seq,
            intended_at,
        };
        match next {
            Next::Contact(contact) => {
                let call = intent::of_contact(parts, campaign, contact, slots, lease);
                crash_point!("dial.before_intent");
                parts.store.call_insert(&call).await?;
                crash_point!("dial.after_intent");
                Ok(Some(claimed(call, Some(seq(contact)))))
            }
            Next::Due(waiting) if waiting.status == CallStatus::Waiting => {
                let dialer = Dialer {
                    owner: lease.container.clone(),
                    epoch: lease.epoch,
                    now: parts.clock.now(),
                };
                let Some(mut call) = rearm(waiting, slots, dialer, parts.calls.deadlines()) else {
                    return Ok(None);
                };
                crash_point!("redial.before_intent");
                let is_ours = parts.store.call_replace(waiting, &call).await?;
                crash_point!("redial.after_intent");
                call.version = waiting.version + 1;
                Ok(is_ours.then(|| claimed(call, None)))
            }
            Next::Due(ended) => {
                let call = intent::next_attempt(parts, campaign, ended, slots, lease);
                crash_point!("retry.before_intent");
                let is_ours = parts.store.call_insert_next(ended, &call).await?;
                crash_point!("retry.after_intent");
                Ok(is_ours.then(|| claimed(call, None)))
            }
        }
    }

    /// The guard, then the request on its way as work of its own, so that a slow carrier does not hold the next contact up.
    async fn guard_and_send(&mut self, campaign: &Campaign, claimed: Claimed) -> StoreResult<Step> {
        let guarded_at = Instant::now();
        crash_point!("dial.before_guard");
        match self
            .parts
            .store
            .campaign_guard(&self.lease, claimed.seq)
            .await
        {
            Ok(true) => {}
            Ok(false) => {
                self.take_back(&claimed).await?;
                return Ok(Step::Over);
            }
            Err(error) => {
                // Whether the guard was passed is unknown, but nothing was sent.
                self.take_back(&claimed).await?;
                return Err(error);
            }
        }
        crash_point!("dial.after_guard");
        self.waiting = None;
        let Claimed {
            call, intended_at, ..
        } = claimed;
        tracing::info!(
            campaignId = %campaign.id, callId = %call.id, seq = call.contact_seq, attempt = call.attempt, dial = call.dial,
            "dialing"
        );
        let (parts, settings, lease) = (
            Arc::clone(&self.parts),
            campaign.calls.clone(),
            self.lease.clone(),
        );
        self.parts.life.spawn_work(async move {
            let times = (intended_at, guarded_at);
            if let Err(error) = parts.dialer.send(&call, &settings, Some(&lease), times).await {
                tracing::error!(callId = %call.id, %error, "what the carrier said was not written down; the reconciler will ask");
            }
        });
        Ok(Step::Did)
    }

    /// Not to be sent after all: the contact waits to be dialed. Its call is never removed: another driver may have passed over the
    /// contact because of it, and it would be lost (promise P3).
    async fn take_back(&self, claimed: &Claimed) -> StoreResult<()> {
        crash_point!("take_back.before");
        let now = self.parts.clock.now();
        let (id, dial) = (claimed.call.id, claimed.call.dial);
        // Nobody but this driver sends this dial, whatever else was written of the call meanwhile.
        self.parts.calls.withdraw(id, dial, now).await?;
        crash_point!("take_back.after");
        Ok(())
    }

    /// The contact at `currentIndex` has a call already. If that is a first dial of our epoch or an older one, nothing was
    /// sent for it: a driver died, or the answer to its write was lost, before the guard (which would have moved the index). It is
    /// taken back and dialed again as due. Any other call speaks for its contact. Either way the contact is passed over.
    ///
    /// The index moves first: only the write that moves it proves that no guard did, not the index that was read. Should
    /// this process die in between, the reconciler takes the call back.
    async fn claimed_already(&mut self, campaign: &Campaign, next: &Next) -> StoreResult<Step> {
        let Next::Contact(contact) = next else {
            return Ok(Step::Did);
        };
        let store = &self.parts.store;
        let found = store.call_of_attempt(campaign.id, seq(contact), 1).await?;
        let Some(found) = found else {
            return Ok(Step::Did);
        };
        let index = seq(contact);
        crash_point!("claimed_already.before_passing_over");
        let is_unsent = store
            .campaign_pass_over(&self.lease, index, index + 1)
            .await?
            && found.status == CallStatus::Dialing
            && found.dial == 1
            && found.epoch <= self.lease.epoch;
        if is_unsent {
            crash_point!("claimed_already.before_withdraw");
            let now = self.parts.clock.now();
            self.parts.calls.withdraw_seen(&found, now).await?;
        }
        Ok(Step::Did)
    }

    /// The bot does not wake: the attempt is recorded as failed without a call.
    async fn bot_not_ready(&mut self, campaign: &Campaign, next: &Next) -> StoreResult<Step> {
        let claimed = match self.claim(campaign, next, Vec::new()).await {
            Ok(Some(claimed)) => claimed,
            Ok(None) => return Ok(Step::Did),
            Err(error) if error.is_duplicate_of(ATTEMPT_INDEX) => {
                return self.claimed_already(campaign, next).await;
            }
            Err(error) => return Err(error),
        };
        if !self
            .parts
            .store
            .campaign_guard(&self.lease, claimed.seq)
            .await?
        {
            self.take_back(&claimed).await?;
            return Ok(Step::Over);
        }
        crash_point!("bot_not_ready.before_end");
        let (calls, reason) = (&self.parts.calls, "bot_not_ready");
        calls
            .end(
                &claimed.call,
                FinalSource::Local,
                CallStatus::Failed,
                Outcome::BotNotReady,
                reason,
            )
            .await?;
        Ok(Step::Did)
    }
}

fn limits(campaign: &Campaign, client: &Client) -> Limits {
    Limits {
        client: (client.id, client.max_concurrent_calls),
        campaign: Some((campaign.id, campaign.max_concurrent)),
        number: (campaign.calls.from.clone(), client.max_calls_per_caller_id),
    }
}
