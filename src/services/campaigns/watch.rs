//! What is told about a campaign to those who watch it.

use chrono::{DateTime, TimeDelta, Utc};

use crate::domain::campaign::{Campaign, CampaignStatus};
use crate::domain::progress::Progress;

/// Progress as operators see it.
#[derive(Debug, Clone)]
pub struct Watched {
    /// The campaign.
    pub campaign: Campaign,
    /// Every contact under one heading.
    pub progress: Progress,
    /// Calls begun in the last minute.
    pub calls_per_minute: u64,
    /// When it will be done at this rate, UTC.
    pub estimated_completion: Option<DateTime<Utc>>,
    /// What it waits for now.
    pub waiting_for: Option<String>,
    /// Age of its driver's last heartbeat.
    pub heartbeat_age: Option<TimeDelta>,
    /// The driver is alive.
    pub is_driven: bool,
}

/// What the campaign waits for, as far as its status leaves anything to wait for.
pub(super) fn waiting_for(campaign: &Campaign) -> Option<String> {
    match campaign.status {
        CampaignStatus::Scheduled => Some("schedule".to_owned()),
        CampaignStatus::Running => campaign.waiting_for.clone(),
        CampaignStatus::Paused
        | CampaignStatus::Completed
        | CampaignStatus::Cancelled
        | CampaignStatus::Failed => None,
    }
}

pub(super) fn estimate(
    left: i64,
    calls_per_minute: u64,
    now: DateTime<Utc>,
) -> Option<DateTime<Utc>> {
    let rate = i64::try_from(calls_per_minute)
        .ok()
        .filter(|rate| *rate > 0)?;
    now.checked_add_signed(TimeDelta::seconds(left.saturating_mul(60) / rate))
}
