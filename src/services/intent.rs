//! The intent to dial: the call as it stands before the carrier is asked.

use chrono::{DateTime, Utc};

use super::parts::Parts;
use super::store::campaigns::Lease;
use super::store::new_id;
use crate::domain::call::{Call, CallStatus, RetryPlan};
use crate::domain::campaign::Campaign;
use crate::domain::contact::Contact;
use crate::domain::outcome::{Outcome, SkipReason};
use crate::domain::retry::RetryPolicy;

/// A contact's first attempt, holding `slots`.
pub(super) fn of_contact(
    parts: &Parts,
    campaign: &Campaign,
    contact: &Contact,
    slots: Vec<String>,
    lease: &Lease,
) -> Call {
    let now = parts.clock.now();
    Call {
        answer: Some(campaign.calls.answer.render(contact)),
        status: CallStatus::Dialing,
        retry: plan(campaign.retry.as_ref(), 1),
        deadline: parts.calls.deadlines().of(CallStatus::Dialing, now),
        owner: lease.container.clone(),
        epoch: lease.epoch,
        slots,
        ..blank(campaign, contact, now)
    }
}

/// The attempt after `ended`, holding `slots`.
pub(super) fn next_attempt(
    parts: &Parts,
    campaign: &Campaign,
    ended: &Call,
    slots: Vec<String>,
    lease: &Lease,
) -> Call {
    let now = parts.clock.now();
    let attempt = ended.attempt + 1;
    Call {
        id: new_id(now),
        attempt,
        dial: 1,
        status: CallStatus::Dialing,
        outcome: None,
        call_uuid: None,
        request_uuid: None,
        ghosts: Vec::new(),
        start_time: now,
        ring_time: None,
        answer_time: None,
        confirmed_at: None,
        missing_since: None,
        hangup_requested_at: None,
        machine: false,
        recording_url: None,
        end: None,
        retry: plan(campaign.retry.as_ref(), attempt),
        retry_at: None,
        deadline: parts.calls.deadlines().of(CallStatus::Dialing, now),
        events: Vec::new(),
        owner: lease.container.clone(),
        epoch: lease.epoch,
        slots,
        version: 0,
        ..ended.clone()
    }
}

/// A contact that is never dialed.
pub(super) fn skipped(
    campaign: &Campaign,
    contact: &Contact,
    reason: SkipReason,
    now: DateTime<Utc>,
) -> Call {
    Call {
        status: CallStatus::Skipped,
        skip_reason: Some(reason),
        ..blank(campaign, contact, now)
    }
}

/// Whether and when another attempt follows `attempt`, for each outcome that deserves one.
pub(super) fn plan(policy: Option<&RetryPolicy>, attempt: u32) -> Option<RetryPlan> {
    let policy = policy?;
    let outcomes: Vec<Outcome> = policy
        .outcomes
        .iter()
        .copied()
        .filter(|outcome| policy.next(*outcome, attempt).is_some())
        .collect();
    let delay = policy.next(*outcomes.first()?, attempt)?;
    Some(RetryPlan {
        outcomes,
        delay_s: delay.num_seconds(),
    })
}

fn blank(campaign: &Campaign, contact: &Contact, now: DateTime<Utc>) -> Call {
    Call {
        id: new_id(now),
        client_id: campaign.client_id,
        campaign_id: Some(campaign.id),
        contact_seq: Some(i64::try_from(contact.seq).unwrap_or(i64::MAX)),
        attempt: 1,
        dial: 1,
        from: campaign.calls.from.clone(),
        to: contact.number.clone(),
        answer: None,
        status: CallStatus::Waiting,
        outcome: None,
        skip_reason: None,
        call_uuid: None,
        request_uuid: None,
        ghosts: Vec::new(),
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
        superseded: false,
        deadline: None,
        events: Vec::new(),
        owner: String::new(),
        epoch: campaign.epoch,
        slots: Vec::new(),
        version: 0,
    }
}
