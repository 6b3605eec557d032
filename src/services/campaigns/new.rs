//! A campaign to be created, and everything that can be wrong with it.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};

use crate::domain::campaign::CallSettings;
use crate::domain::ids::{CampaignId, ListId};
use crate::domain::list::ContactList;
use crate::domain::pacing::Pacing;
use crate::domain::phone::PhoneNumber;
use crate::domain::retry::RetryPolicy;
use crate::domain::web_address::parse_warmup;
use crate::domain::window::Window;

/// Longest name of a campaign, in characters.
const LONGEST_NAME: usize = 200;

/// A campaign to be created.
#[derive(Debug, Clone)]
pub struct NewCampaign {
    /// Its id, reserved where the request carried an idempotency key.
    pub id: CampaignId,
    /// Its name.
    pub name: String,
    /// The list.
    pub list_id: ListId,
    /// How its calls are placed.
    pub calls: CallSettings,
    /// When it starts by itself, UTC; at once without.
    pub scheduled_at: Option<DateTime<Utc>>,
    /// When contacts not yet dialed are skipped, UTC.
    pub expires_at: Option<DateTime<Utc>>,
    /// When contacts may be called.
    pub window: Option<Window>,
    /// How fast.
    pub pacing: Option<Pacing>,
    /// Which outcomes deserve another attempt.
    pub retry: Option<RetryPolicy>,
    /// Its own limit of live calls.
    pub max_concurrent: Option<u32>,
}

/// Everything that is wrong with the request, each with the path of its field.
pub(super) fn faults_of(
    new: &NewCampaign,
    list: &ContactList,
    caller_ids: &[PhoneNumber],
    now: DateTime<Utc>,
) -> Vec<(String, String)> {
    let mut faults: BTreeMap<String, String> = BTreeMap::new();
    let mut fault = |path: &str, reason: &str| {
        faults.insert(path.to_owned(), reason.to_owned());
    };
    let name = new.name.trim();
    if name.is_empty() || name.chars().count() > LONGEST_NAME {
        fault("campaignName", "must have 1 to 200 characters");
    }
    if !caller_ids.is_empty() && !caller_ids.contains(&new.calls.from) {
        fault("fromNumber", "is not one of the client's caller IDs");
    }
    if let Some(url) = &new.calls.warmup_url
        && let Err(reason) = parse_warmup(url)
    {
        fault("warmupUrl", &reason);
    }
    if new.max_concurrent == Some(0) {
        fault("maxConcurrentCalls", "must be at least 1");
    }
    if new
        .calls
        .time_limit_s
        .is_some_and(|limit| !(1..=86_400).contains(&limit))
    {
        fault("timeLimitSeconds", "must be 1 to 86400");
    }
    if new
        .calls
        .ring_timeout_s
        .is_some_and(|timeout| !(1..=600).contains(&timeout))
    {
        fault("ringTimeoutSeconds", "must be 1 to 600");
    }
    if new
        .expires_at
        .is_some_and(|expires_at| expires_at <= new.scheduled_at.unwrap_or(now).max(now))
    {
        fault("expiresAt", "must lie after the campaign's start");
    }
    let nested = [
        ("answer", new.calls.answer.validate(&list.columns).err()),
        (
            "window",
            new.window
                .as_ref()
                .and_then(|window| window.validate().err()),
        ),
        (
            "pacing",
            new.pacing
                .as_ref()
                .and_then(|pacing| pacing.validate().err()),
        ),
        (
            "retry",
            new.retry.as_ref().and_then(|retry| retry.validate().err()),
        ),
    ];
    for (parent, children) in nested {
        for (path, reason) in children.into_iter().flatten() {
            let path = if path.is_empty() {
                parent.to_owned()
            } else {
                format!("{parent}.{path}")
            };
            faults.insert(path, reason);
        }
    }
    faults.into_iter().collect()
}
