//! The circuit breaker: a campaign whose calls mostly fail on the carrier's or our side is paused before it burns its list.

use chrono::{DateTime, Utc};

use super::store::campaigns::{Lease, StatusChange};
use super::store::{Store, StoreResult};
use crate::domain::campaign::{Campaign, CampaignStatus};

/// The breaker looks at this many of the last ended calls, and not before there are as many.
const WINDOW: usize = 50;

/// Pauses the campaign under `lease` when more than `threshold` percent of its last 50 calls that ended after `since` failed.
/// True when it did.
pub(super) async fn check(
    store: &Store,
    campaign: &Campaign,
    lease: &Lease,
    (threshold, since): (u32, Option<DateTime<Utc>>),
) -> StoreResult<bool> {
    let outcomes = store
        .call_recent_outcomes(campaign.id, since, WINDOW as i64)
        .await?;
    let failed = outcomes
        .iter()
        .filter(|outcome| outcome.counts_as_failure())
        .count();
    if outcomes.len() < WINDOW || failed * 100 <= WINDOW * threshold as usize {
        return Ok(false);
    }
    let reason = format!(
        "{failed} of the last {WINDOW} calls failed on the carrier's or our side (more than {threshold} %)"
    );
    let change = StatusChange {
        to: CampaignStatus::Paused,
        by: "system",
        reason: Some(&reason),
        driver: None,
        only_under: Some(lease),
    };
    let paused = store
        .campaign_transition(campaign.id, None, &[CampaignStatus::Running], change)
        .await?
        .is_some();
    if paused {
        tracing::warn!(campaignId = %campaign.id, failed, window = WINDOW, "campaign paused by the circuit breaker");
    }
    Ok(paused)
}
