//! The carrier's webhooks: find the call, apply the event, and only then answer. What matches no call is kept.

use chrono::{DateTime, Utc};
use sha2::{Digest, Sha256};

use super::calls::{Calls, Disposition};
use super::carrier::plivo_event::{Hook, Params, says_machine, webhook_event};
use super::store::campaigns::StatusChange;
use super::store::unmatched::Unmatched;
use super::store::{Store, StoreResult};
use crate::domain::answer::Answer;
use crate::domain::call::Call;
use crate::domain::call_event::{CallEvent, EventKind};
use crate::domain::campaign::CampaignStatus;
use crate::domain::ids::CallId;
use crate::domain::outcome::condemns;
use crate::utils::clock::Clock;
use crate::utils::crash_points::crash_point;

/// The fields of a webhook whose signature was verified, in the order of arrival.
#[derive(Clone)]
pub struct SignedForm(pub Vec<(String, String)>);

/// A verified webhook.
#[derive(Clone)]
pub struct Webhook {
    /// Which of our addresses it came to.
    pub hook: Hook,
    /// The call that its address names; old tracking has none.
    pub call: Option<CallId>,
    /// The dial that its address names.
    pub dial: Option<u32>,
    /// The form fields.
    pub params: Vec<(String, String)>,
}

/// What the carrier is to do with the call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Instruction {
    /// Nothing was asked.
    None,
    /// Play this to the callee.
    Play(Box<Answer>),
    /// End the call: it should not exist.
    HangUp,
}

/// The service. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Webhooks {
    store: Store,
    calls: Calls,
    clock: Clock,
}

impl Webhooks {
    /// The service.
    #[must_use]
    pub fn new(store: Store, calls: Calls, clock: Clock) -> Self {
        Self {
            store,
            calls,
            clock,
        }
    }

    /// Takes a webhook. When this returns without an error, what it said is durable (promise P6).
    ///
    /// # Errors
    /// Those of the store; the carrier must deliver the webhook again.
    pub async fn take(&self, webhook: &Webhook) -> StoreResult<Instruction> {
        let asks = matches!(webhook.hook, Hook::Answer | Hook::Fallback);
        let now = self.clock.now();
        let Some(event) = webhook_event(webhook.hook, &webhook.params, webhook.dial, now) else {
            return Ok(Instruction::None);
        };
        let is_over = matches!(event.kind, EventKind::End(_));
        crash_point!("webhook.before_write");
        let call = match self.settle(webhook, &event, now).await? {
            Disposition::Applied(call) | Disposition::Known(call) => call,
            Disposition::Ghost if asks && !is_over => return Ok(Instruction::HangUp),
            Disposition::Ghost => return Ok(Instruction::None),
            Disposition::Unknown => {
                self.keep(webhook, &event).await?;
                return Ok(if asks && !is_over {
                    Instruction::HangUp
                } else {
                    Instruction::None
                });
            }
        };
        Ok(match call.answer {
            Some(answer) if asks && !is_over => Instruction::Play(Box::new(answer)),
            None if asks && !is_over => Instruction::HangUp,
            _ => Instruction::None,
        })
    }

    /// Matches kept webhooks again; answers how many found their call.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn rematch(&self) -> StoreResult<usize> {
        const BATCH: i64 = 50;
        let mut matched = 0;
        for kept in self.store.unmatched_to_try(BATCH).await? {
            let Some(hook) = Hook::parse(&kept.event) else {
                self.store.unmatched_tried(&kept.id).await?;
                continue;
            };
            let event = webhook_event(hook, &kept.params, kept.dial, kept.received_at);
            let webhook = Webhook {
                hook,
                call: kept.call,
                dial: kept.dial,
                params: kept.params,
            };
            let disposition = match event {
                Some(event) => self.settle(&webhook, &event, kept.received_at).await,
                None => Ok(Disposition::Unknown),
            };
            crash_point!("rematch.before_note");
            match disposition {
                Ok(Disposition::Unknown) => self.store.unmatched_tried(&kept.id).await?,
                Ok(_) => {
                    self.store.unmatched_matched(&kept.id).await?;
                    matched += 1;
                }
                // One that cannot be applied must not keep the others from their turn.
                Err(error) => {
                    tracing::warn!(webhook = kept.id, %error, "a kept webhook was not applied");
                    self.store.unmatched_tried(&kept.id).await?;
                }
            }
        }
        Ok(matched)
    }

    /// Applies the event, and what follows from it for the campaign.
    async fn settle(
        &self,
        webhook: &Webhook,
        event: &CallEvent,
        now: DateTime<Utc>,
    ) -> StoreResult<Disposition> {
        let disposition = self.apply(webhook, event, now).await?;
        crash_point!("webhook.after_write");
        // Also when it is known: the pause may be what failed the first time.
        if let Disposition::Applied(call) | Disposition::Known(call) = &disposition {
            self.pause_if_condemned(call, event).await?;
        }
        Ok(disposition)
    }

    /// The event itself, and the machine that another webhook's form may mention (synchronous detection).
    async fn apply(
        &self,
        webhook: &Webhook,
        event: &CallEvent,
        now: DateTime<Utc>,
    ) -> StoreResult<Disposition> {
        if says_machine(&webhook.params) && event.kind != EventKind::Machine {
            let machine = CallEvent {
                kind: EventKind::Machine,
                at: now,
                digest: 0,
                ..event.clone()
            };
            self.calls.apply(webhook.call, &machine).await?;
            crash_point!("webhook.between_machine_and_event");
        }
        self.calls.apply(webhook.call, event).await
    }

    /// A hangup that condemns every further call (no credit, bad caller ID) pauses the campaign at once.
    async fn pause_if_condemned(&self, call: &Call, event: &CallEvent) -> StoreResult<()> {
        let EventKind::End(facts) = &event.kind else {
            return Ok(());
        };
        let (Some(id), Some(reason)) = (call.campaign_id, condemns(facts.hangup_code)) else {
            return Ok(());
        };
        // Whoever resumed it since knew of this end.
        let campaign = self.store.campaign_get(id, None).await?;
        let is_news =
            |resumed_at: Option<DateTime<Utc>>| resumed_at.is_none_or(|at| at < facts.ended_at);
        if !campaign.is_some_and(|campaign| is_news(campaign.resumed_at)) {
            return Ok(());
        }
        crash_point!("webhook.before_pausing");
        let change = StatusChange {
            to: CampaignStatus::Paused,
            by: "system",
            reason: Some(reason),
            driver: None,
            only_under: None,
        };
        let paused = self
            .store
            .campaign_transition(id, None, &[CampaignStatus::Running], change)
            .await?;
        if paused.is_some() {
            tracing::warn!(campaignId = %id, callId = %call.id, reason, "campaign paused: every call would fail");
        }
        Ok(())
    }

    async fn keep(&self, webhook: &Webhook, event: &CallEvent) -> StoreResult<()> {
        tracing::warn!(
            event = event.kind.name(),
            callId = webhook.call.map(tracing::field::display),
            "webhook matches no call: kept"
        );
        let unmatched = Unmatched {
            id: key_of(webhook.hook, &webhook.params),
            event: webhook.hook.as_str().to_owned(),
            call: webhook.call,
            dial: webhook.dial,
            params: webhook.params.clone(),
            received_at: event.at,
        };
        self.store.unmatched_keep(&unmatched).await?;
        crash_point!("webhook.kept");
        Ok(())
    }
}

fn key_of(hook: Hook, params: &Params) -> String {
    let mut hasher = Sha256::new();
    hasher.update(hook.as_str());
    for (name, value) in params {
        hasher.update([0]);
        hasher.update(name);
        hasher.update([1]);
        hasher.update(value);
    }
    hasher
        .finalize()
        .iter()
        .take(16)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}
