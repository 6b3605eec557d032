//! Campaigns on the wire.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::answer::{AnswerIn, MachineDetectionIn};
use super::rules::{PacingIn, RetryIn, WindowIn};
use crate::domain::answer::Answer;
use crate::domain::campaign::{Campaign, CampaignStatus, MachineDetection};
use crate::domain::ids::{CampaignId, ClientId, ListId};
use crate::domain::pacing::Pacing;
use crate::domain::phone::PhoneNumber;
use crate::domain::retry::RetryPolicy;
use crate::domain::window::Window;
use crate::services::campaigns::{AskedCalls, Commanded, NewCampaign, Watched};

/// A campaign to be created. It starts at once, or at `scheduledAt`.
#[derive(Clone, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CampaignIn {
    /// What people call it.
    #[schema(example = "March reminders", min_length = 1, max_length = 200)]
    pub campaign_name: String,
    /// The list; it must be `ready` and of the same client.
    #[schema(value_type = String, example = "65f0c0ffee0000000000c0de", pattern = "^[0-9a-fA-F]{24}$")]
    pub list_id: ListId,
    /// The client, for admins only; the list's client without it.
    #[schema(value_type = Option<String>, pattern = "^[0-9a-fA-F]{24}$")]
    pub client_id: Option<ClientId>,
    /// Caller ID, E.164.
    #[schema(example = "+12025550100")]
    pub from_number: String,
    /// What the callee hears.
    pub answer: AnswerIn,
    /// Start by itself at this time.
    pub scheduled_at: Option<DateTime<Utc>>,
    /// Contacts not dialed by then are skipped.
    pub expires_at: Option<DateTime<Utc>>,
    /// When contacts may be called.
    pub window: Option<WindowIn>,
    /// How fast; SUBSEQUENT_CALL_WAIT between two calls without it.
    pub pacing: Option<PacingIn>,
    /// Which outcomes deserve another attempt; none without it.
    pub retry: Option<RetryIn>,
    /// Bot to wake before each call.
    pub warmup_url: Option<String>,
    /// The campaign's own limit of live calls.
    #[schema(minimum = 1)]
    pub max_concurrent_calls: Option<u32>,
    /// `true` or `"continue"`: report answering machines; `"hangup"`: hang up on them.
    pub machine_detection: Option<MachineDetectionIn>,
    /// Longest answered time of a call in seconds.
    #[schema(minimum = 1, maximum = 86400)]
    pub time_limit_seconds: Option<u32>,
    /// Longest ringing in seconds.
    #[schema(minimum = 1, maximum = 600)]
    pub ring_timeout_seconds: Option<u32>,
}

impl CampaignIn {
    /// The campaign to create under `id`, with what is wrong with its fields.
    #[must_use]
    pub fn into_new(self, id: CampaignId) -> NewCampaign {
        NewCampaign {
            id,
            name: self.campaign_name,
            list_id: self.list_id,
            calls: AskedCalls {
                from: PhoneNumber::parse(&self.from_number, None)
                    .map_err(|error| error.to_string()),
                answer: self.answer.read(),
                warmup_url: self.warmup_url,
                machine_detection: self.machine_detection.and_then(MachineDetectionIn::wanted),
                time_limit_s: self.time_limit_seconds,
                ring_timeout_s: self.ring_timeout_seconds,
            },
            scheduled_at: self.scheduled_at,
            expires_at: self.expires_at,
            window: self.window.map(Window::from),
            pacing: self.pacing.map(Pacing::from),
            retry: self.retry.map(RetryPolicy::from),
            max_concurrent: self.max_concurrent_calls,
        }
    }
}

/// A campaign.
#[derive(Clone, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CampaignOut {
    /// Its id.
    #[schema(value_type = String, example = "65f0c0ffee0000000000c0de")]
    pub id: CampaignId,
    /// What people call it.
    pub campaign_name: String,
    /// The client.
    #[schema(value_type = String)]
    pub client_id: ClientId,
    /// The list.
    #[schema(value_type = String)]
    pub list_id: ListId,
    /// Caller ID.
    pub from_number: String,
    /// What the callee hears.
    pub answer: Answer,
    /// Where it stands.
    pub status: CampaignStatus,
    /// Position of the next contact never dialed.
    pub current_index: i64,
    /// Contacts in the list.
    pub total_contacts: i64,
    /// Contacts claimed so far.
    pub processed_contacts: i64,
    /// When it starts by itself.
    pub scheduled_at: Option<DateTime<Utc>>,
    /// When contacts not yet dialed are skipped.
    pub expires_at: Option<DateTime<Utc>>,
    /// When contacts may be called.
    pub window: Option<Window>,
    /// How fast.
    pub pacing: Option<Pacing>,
    /// Which outcomes deserve another attempt.
    pub retry: Option<RetryPolicy>,
    /// Bot to wake before each call.
    pub warmup_url: Option<String>,
    /// Its own limit of live calls.
    pub max_concurrent_calls: Option<u32>,
    /// What is done about answering machines.
    pub machine_detection: Option<MachineDetection>,
    /// Longest answered time in seconds.
    pub time_limit_seconds: Option<u32>,
    /// Longest ringing in seconds.
    pub ring_timeout_seconds: Option<u32>,
    /// When it was paused last.
    pub paused_at: Option<DateTime<Utc>>,
    /// `operator` or `system`.
    pub paused_by: Option<String>,
    /// Why it was paused.
    pub pause_reason: Option<String>,
    /// When it was resumed last.
    pub resumed_at: Option<DateTime<Utc>>,
    /// When it was created.
    pub created_at: DateTime<Utc>,
    /// When it was completed or cancelled.
    pub completed_at: Option<DateTime<Utc>>,
}

impl CampaignOut {
    /// The campaign for somebody who may or may not see phone numbers.
    #[must_use]
    pub fn of(campaign: Campaign, may_see_numbers: bool) -> Self {
        Self {
            id: campaign.id,
            campaign_name: campaign.name,
            client_id: campaign.client_id,
            list_id: campaign.list_id,
            from_number: super::number(&campaign.calls.from, may_see_numbers),
            answer: campaign.calls.answer,
            status: campaign.status,
            current_index: campaign.current_index,
            total_contacts: campaign.total,
            processed_contacts: campaign.current_index,
            scheduled_at: campaign.scheduled_at,
            expires_at: campaign.expires_at,
            window: campaign.window,
            pacing: campaign.pacing,
            retry: campaign.retry,
            warmup_url: campaign.calls.warmup_url,
            max_concurrent_calls: campaign.max_concurrent,
            machine_detection: campaign.calls.machine_detection,
            time_limit_seconds: campaign.calls.time_limit_s,
            ring_timeout_seconds: campaign.calls.ring_timeout_s,
            paused_at: campaign.paused_at,
            paused_by: campaign.paused_by,
            pause_reason: campaign.pause_reason,
            resumed_at: campaign.resumed_at,
            created_at: campaign.created_at,
            completed_at: campaign.completed_at,
        }
    }
}

/// A campaign after a command.
#[derive(Clone, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CommandedOut {
    /// The campaign now.
    pub campaign: CampaignOut,
    /// Calls that are still under way; they end by themselves.
    pub in_flight: u64,
}

impl CommandedOut {
    /// The answer to a command.
    #[must_use]
    pub fn of(commanded: Commanded, may_see_numbers: bool) -> Self {
        Self {
            campaign: CampaignOut::of(commanded.campaign, may_see_numbers),
            in_flight: commanded.in_flight,
        }
    }
}

/// Which campaigns to list.
#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct CampaignQuery {
    /// Items of the page, 1 to 500; 50 if not given.
    pub limit: Option<u32>,
    /// `nextCursor` of the page before.
    pub cursor: Option<String>,
    /// Only campaigns with this status.
    pub status: Option<CampaignStatus>,
    /// Only this client's, for admins.
    #[param(value_type = Option<String>)]
    pub client_id: Option<ClientId>,
}

/// Progress: every contact under exactly one heading, so that
/// `total = pending + waitingRetry + inFlight + sum(final) + sum(skipped) + uncertain` in every answer.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProgressOut {
    /// Where the campaign stands.
    pub status: CampaignStatus,
    /// Contacts in the list.
    pub total: i64,
    /// Not dialed yet.
    pub pending: i64,
    /// To be dialed (again) later.
    pub waiting_retry: i64,
    /// Live calls.
    pub in_flight: i64,
    /// Over, by outcome.
    #[serde(rename = "final")]
    #[schema(value_type = BTreeMap<String, i64>)]
    pub finals: BTreeMap<&'static str, i64>,
    /// Never to be dialed, by reason.
    #[schema(value_type = BTreeMap<String, i64>)]
    pub skipped: BTreeMap<&'static str, i64>,
    /// The carrier could not tell.
    pub uncertain: i64,
    /// Contacts with a final disposition, in percent.
    pub percent: f64,
    /// Calls begun in the last minute.
    pub calls_per_minute: u64,
    /// When it will be done at this rate; null when that cannot be told.
    pub estimated_completion_at: Option<DateTime<Utc>>,
    /// What it waits for; null when for nothing, or for a retry's time, which `waitingRetry` tells.
    pub waiting_for: Option<WaitingFor>,
    /// The container that drives it.
    pub driver: DriverOut,
}

/// What a campaign can wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum WaitingFor {
    /// A free slot.
    Slot,
    /// Its turn within the rate limits.
    Rate,
    /// The calling window.
    Window,
    /// The bot.
    Warmup,
    /// Its time to start.
    Schedule,
}

impl WaitingFor {
    /// What the driver wrote, where the contract has a word for it.
    fn of(written: &str) -> Option<Self> {
        match written {
            "slot" => Some(Self::Slot),
            "rate" => Some(Self::Rate),
            "window" => Some(Self::Window),
            "warmup" => Some(Self::Warmup),
            "schedule" => Some(Self::Schedule),
            // The driver also notes that it waits for a retry or for the database.
            _ => None,
        }
    }
}

/// Who drives a campaign.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct DriverOut {
    /// The container; null = none.
    pub container_id: Option<String>,
    /// Age of its last heartbeat in milliseconds.
    pub heartbeat_age_ms: Option<i64>,
    /// It is alive.
    pub healthy: bool,
}

impl From<Watched> for ProgressOut {
    fn from(watched: Watched) -> Self {
        let progress = &watched.progress;
        Self {
            status: watched.campaign.status,
            total: progress.total,
            pending: progress.pending,
            waiting_retry: progress.waiting_retry,
            in_flight: progress.in_flight,
            finals: progress.finals_complete(),
            skipped: progress.skipped_complete(),
            uncertain: progress.uncertain,
            percent: progress.percent(),
            calls_per_minute: watched.calls_per_minute,
            estimated_completion_at: watched.estimated_completion,
            waiting_for: watched.waiting_for.as_deref().and_then(WaitingFor::of),
            driver: DriverOut {
                container_id: watched.campaign.container_id,
                heartbeat_age_ms: watched
                    .heartbeat_age
                    .map(|age| age.num_milliseconds().max(0)),
                healthy: watched.is_driven,
            },
        }
    }
}
