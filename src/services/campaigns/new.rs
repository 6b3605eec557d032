//! A campaign to be created, and everything that can be wrong with it.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};

use crate::domain::answer::Answer;
use crate::domain::campaign::{CallSettings, MachineDetection};
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
#[derive(Clone)]
pub struct NewCampaign {
    /// Its id, reserved where the request carried an idempotency key.
    pub id: CampaignId,
    /// Its name.
    pub name: String,
    /// The list.
    pub list_id: ListId,
    /// How its calls are to be placed.
    pub calls: AskedCalls,
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

/// How calls are to be placed, as far as that could be read: what could not be is told with all other faults.
#[derive(Clone)]
pub struct AskedCalls {
    /// Caller ID, or why the text is none.
    pub from: Result<PhoneNumber, String>,
    /// What the callee hears, or the path (within the answer) and reason of each of its faults.
    pub answer: Result<Answer, Vec<(String, String)>>,
    /// See [`CallSettings::warmup_url`].
    pub warmup_url: Option<String>,
    /// See [`CallSettings::machine_detection`].
    pub machine_detection: Option<MachineDetection>,
    /// See [`CallSettings::time_limit_s`].
    pub time_limit_s: Option<u32>,
    /// See [`CallSettings::ring_timeout_s`].
    pub ring_timeout_s: Option<u32>,
}

impl AskedCalls {
    /// The settings, if all of them could be read.
    pub(super) fn settings(&self) -> Option<CallSettings> {
        Some(CallSettings {
            from: self.from.clone().ok()?,
            answer: self.answer.clone().ok()?,
            warmup_url: self.warmup_url.clone(),
            machine_detection: self.machine_detection,
            time_limit_s: self.time_limit_s,
            ring_timeout_s: self.ring_timeout_s,
        })
    }
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
    match &new.calls.from {
        Err(reason) => fault("fromNumber", reason),
        Ok(from) if !caller_ids.is_empty() && !caller_ids.contains(from) => {
            fault("fromNumber", "is not one of the client's caller IDs");
        }
        Ok(_) => {}
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
        (
            "answer",
            match &new.calls.answer {
                Ok(answer) => answer.validate(&list.columns).err(),
                Err(faults) => Some(faults.clone()),
            },
        ),
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
