//! A campaign: a list of contacts to be called once each, within limits, by whichever container holds its lease.

use std::fmt;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use url::Url;

use super::answer::Answer;
use super::ids::{CampaignId, ClientId, ListId};
use super::pacing::Pacing;
use super::phone::PhoneNumber;
use super::retry::RetryPolicy;
use super::window::Window;

/// Where a campaign stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum CampaignStatus {
    /// Starts by itself at its time.
    Scheduled,
    /// Being dialed, or waiting for a container to do so.
    Running,
    /// Stopped until resumed.
    Paused,
    /// Every contact has its final disposition.
    Completed,
    /// Stopped for good by an operator.
    Cancelled,
    /// Stopped for good by a fault.
    Failed,
}

impl CampaignStatus {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Scheduled,
        Self::Running,
        Self::Paused,
        Self::Completed,
        Self::Cancelled,
        Self::Failed,
    ];

    /// The name on the wire and in documents.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Scheduled => "scheduled",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Completed => "completed",
            Self::Cancelled => "cancelled",
            Self::Failed => "failed",
        }
    }

    /// The status with this name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == name)
    }
}

/// What an operator may ask of a campaign.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// Stop dialing until resumed.
    Pause,
    /// Go on.
    Resume,
    /// Stop dialing for good.
    Cancel,
}

impl Command {
    /// The status that the command leads to.
    #[must_use]
    pub fn target(self) -> CampaignStatus {
        match self {
            Self::Pause => CampaignStatus::Paused,
            Self::Resume => CampaignStatus::Running,
            Self::Cancel => CampaignStatus::Cancelled,
        }
    }

    /// The statuses from which the command leads there. From anywhere else it is impossible, except from the target itself, where it changes nothing.
    #[must_use]
    pub fn sources(self) -> &'static [CampaignStatus] {
        match self {
            Self::Pause => &[CampaignStatus::Running, CampaignStatus::Scheduled],
            Self::Resume => &[CampaignStatus::Paused],
            Self::Cancel => &[
                CampaignStatus::Running,
                CampaignStatus::Scheduled,
                CampaignStatus::Paused,
            ],
        }
    }
}

/// Answering-machine detection by the carrier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum MachineDetection {
    /// Report machines and go on with the call.
    Continue,
    /// Hang up on machines.
    Hangup,
}

/// How each call of a campaign (or a single call) is placed.
#[derive(Clone, PartialEq)]
pub struct CallSettings {
    /// Caller ID.
    pub from: PhoneNumber,
    /// What the callee hears; templates not yet rendered.
    pub answer: Answer,
    /// Bot to wake before dialing.
    pub warmup_url: Option<String>,
    /// Answering-machine detection; `None` = off.
    pub machine_detection: Option<MachineDetection>,
    /// Longest answered time in seconds; `None` = the carrier's default (4 h).
    pub time_limit_s: Option<u32>,
    /// Longest ringing in seconds; `None` = the carrier's default (120 s).
    pub ring_timeout_s: Option<u32>,
}

/// Without the bot's address, which may hold a token.
impl fmt::Debug for CallSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CallSettings")
            .field("from", &self.from)
            .field("answer", &self.answer)
            .field("warmed_up", &self.warmup_url.is_some())
            .field("machine_detection", &self.machine_detection)
            .finish_non_exhaustive()
    }
}

impl CallSettings {
    /// The servers that these calls name, each with the path of its field.
    #[must_use]
    pub fn addresses(&self) -> Vec<(&'static str, Url)> {
        let warmup = self.warmup_url.as_deref().map(Url::parse);
        let named = [
            ("answer.url", self.answer.address()),
            ("warmupUrl", warmup.and_then(Result::ok)),
        ];
        let of = |(path, url): (_, Option<Url>)| url.map(|url| (path, url));
        named.into_iter().filter_map(of).collect()
    }
}

/// A campaign.
#[derive(Debug, Clone, PartialEq)]
pub struct Campaign {
    /// Its id.
    pub id: CampaignId,
    /// The tenant.
    pub client_id: ClientId,
    /// The list.
    pub list_id: ListId,
    /// Its name.
    pub name: String,
    /// How its calls are placed.
    pub calls: CallSettings,
    /// Where it stands.
    pub status: CampaignStatus,
    /// Position of the next contact never claimed; it only grows.
    pub current_index: i64,
    /// Contacts in the list.
    pub total: i64,
    /// Its own limit of live calls.
    pub max_concurrent: Option<u32>,
    /// When contacts may be called.
    pub window: Option<Window>,
    /// How fast.
    pub pacing: Option<Pacing>,
    /// Which outcomes deserve another attempt.
    pub retry: Option<RetryPolicy>,
    /// When it starts by itself, UTC.
    pub scheduled_at: Option<DateTime<Utc>>,
    /// When contacts not yet dialed are skipped, UTC.
    pub expires_at: Option<DateTime<Utc>>,
    /// When it was paused last, UTC.
    pub paused_at: Option<DateTime<Utc>>,
    /// Who paused it: `operator` or `system`.
    pub paused_by: Option<String>,
    /// Why, for people.
    pub pause_reason: Option<String>,
    /// When it was resumed last, UTC.
    pub resumed_at: Option<DateTime<Utc>>,
    /// When it was created, UTC.
    pub created_at: DateTime<Utc>,
    /// When it was completed or cancelled, UTC.
    pub completed_at: Option<DateTime<Utc>>,
    /// When its driver dialed last, UTC.
    pub last_activity: Option<DateTime<Utc>>,
    /// When its driver renewed the lease last, UTC.
    pub heartbeat: Option<DateTime<Utc>>,
    /// The container that drives it; `None` = free to adopt.
    pub container_id: Option<String>,
    /// What its driver waits for, for people: `slot`, `rate`, `window`, `warmup`, `retry` or `database`.
    pub waiting_for: Option<String>,
    /// Grows with every change of driver: writes of an older driver do not match.
    pub epoch: i64,
    /// Grows when an ended call is reopened for another attempt: a completion that did not see it does not match.
    pub reopened: i64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_command_leads_out_of_an_ended_campaign() {
        for command in [Command::Pause, Command::Resume, Command::Cancel] {
            for ended in [
                CampaignStatus::Completed,
                CampaignStatus::Cancelled,
                CampaignStatus::Failed,
            ] {
                assert!(!command.sources().contains(&ended));
            }
            assert!(!command.sources().contains(&command.target()));
        }
    }
}
