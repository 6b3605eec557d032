//! Campaigns as operators see them: create, command, watch.

mod new;
mod watch;

use chrono::{DateTime, TimeDelta, Utc};

pub use new::{AskedCalls, NewCampaign};
pub use watch::Watched;
use watch::{estimate, waiting_for};

use super::dispatcher::Dispatcher;
use super::outbound::Outbound;
use super::store::campaigns::StatusChange;
use super::store::{Store, StoreError, StoreResult};
use crate::domain::call::CallFilter;
use crate::domain::campaign::{CallSettings, Campaign, CampaignStatus, Command};
use crate::domain::client::ClientStatus;
use crate::domain::ids::{CampaignId, ClientId, ListId};
use crate::domain::list::{ContactList, ListStatus};
use crate::domain::progress::Progress;
use crate::utils::clock::Clock;
use crate::utils::crash_points::crash_point;

/// Why a campaign was not created or commanded.
#[derive(Debug, thiserror::Error)]
pub enum CampaignError {
    /// Fields that cannot be used: path and reason each.
    #[error("the campaign cannot be used as it is")]
    Invalid(Vec<(String, String)>),
    /// No such campaign (for this client).
    #[error("there is no such campaign")]
    NotFound,
    /// The list does not exist (for this client).
    #[error("there is no such list")]
    NoSuchList,
    /// The client is suspended.
    #[error("the client is suspended")]
    Suspended,
    /// The list is still being imported, or its import failed.
    #[error("the list is not ready")]
    ListNotReady,
    /// The list has no contacts.
    #[error("the list is empty")]
    EmptyList,
    /// The campaign's status does not allow the command.
    #[error("the campaign is {}", .0.as_str())]
    WrongState(CampaignStatus),
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A campaign after a command, with the calls that are still under way.
#[derive(Debug, Clone)]
pub struct Commanded {
    /// The campaign now.
    pub campaign: Campaign,
    /// Its live calls.
    pub in_flight: u64,
}

/// The service. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Campaigns {
    store: Store,
    clock: Clock,
    dispatcher: Dispatcher,
    outbound: Outbound,
    orphan_threshold: TimeDelta,
}

impl Campaigns {
    /// The service.
    #[must_use]
    pub fn new(
        store: Store,
        clock: Clock,
        dispatcher: Dispatcher,
        outbound: Outbound,
        orphan_threshold: TimeDelta,
    ) -> Self {
        Self {
            store,
            clock,
            dispatcher,
            outbound,
            orphan_threshold,
        }
    }

    /// Creates a campaign of the list's client, which must be within `scope`; it starts at once, or at its time. With an id that exists already the existing one is answered.
    ///
    /// # Errors
    /// All faults of the request at once, or those of the store; then nothing is written.
    pub async fn create(
        &self,
        scope: Option<ClientId>,
        new: NewCampaign,
    ) -> Result<Campaign, CampaignError> {
        let list = self.usable_list(scope, new.list_id).await?;
        let now = self.clock.now();
        let client = self
            .store
            .client_get(list.client_id)
            .await?
            .ok_or(CampaignError::NotFound)?;
        if client.status == ClientStatus::Suspended {
            return Err(CampaignError::Suspended);
        }
        // A request that is repeated because its answer was lost is not judged again: a name may not resolve just now, or the
        // expiry may have passed.
        if let Some(known) = self.store.campaign_get(new.id, scope).await? {
            return Ok(known);
        }
        let mut faults = new::faults_of(&new, &list, &client.caller_ids, now);
        let settings = new.calls.settings();
        if let Some(calls) = settings.as_ref().filter(|_| faults.is_empty()) {
            faults = self.outbound.faults(calls.addresses()).await;
        }
        let Some(calls) = settings.filter(|_| faults.is_empty()) else {
            return Err(CampaignError::Invalid(faults));
        };
        let campaign = self.begin(new, calls, &list, now);
        crash_point!("create.before_insert");
        match self.store.campaign_insert(&campaign).await {
            Ok(()) => {}
            Err(StoreError::Duplicate { .. }) => {
                let known = self
                    .store
                    .campaign_get(campaign.id, Some(campaign.client_id))
                    .await?;
                return known.ok_or(CampaignError::NotFound);
            }
            Err(error) => return Err(error.into()),
        }
        crash_point!("create.after_insert");
        // Whoever deletes a list hides it first and then looks for campaigns: one of the two sees the other.
        match self.usable_list(scope, campaign.list_id).await {
            Ok(_) => {}
            Err(error @ (CampaignError::NoSuchList | CampaignError::ListNotReady)) => {
                self.fail(campaign.id, "the list was deleted").await?;
                return Err(error);
            }
            Err(error) => return Err(error),
        }
        tracing::info!(campaignId = %campaign.id, status = campaign.status.as_str(), contacts = campaign.total, "campaign created");
        self.dispatcher.drive(&campaign);
        Ok(campaign)
    }

    async fn fail(&self, id: CampaignId, reason: &str) -> StoreResult<()> {
        let change = StatusChange {
            to: CampaignStatus::Failed,
            by: "system",
            reason: Some(reason),
            driver: None,
            only_under: None,
        };
        let from = [CampaignStatus::Running, CampaignStatus::Scheduled];
        self.store
            .campaign_transition(id, None, &from, change)
            .await?;
        tracing::warn!(campaignId = %id, reason, "campaign failed");
        Ok(())
    }

    async fn usable_list(
        &self,
        scope: Option<ClientId>,
        id: ListId,
    ) -> Result<ContactList, CampaignError> {
        let list = self
            .store
            .list_get(id, scope)
            .await?
            .ok_or(CampaignError::NoSuchList)?;
        if list.status != ListStatus::Ready {
            return Err(CampaignError::ListNotReady);
        }
        if list.accepted == 0 {
            return Err(CampaignError::EmptyList);
        }
        Ok(list)
    }

    fn begin(
        &self,
        new: NewCampaign,
        calls: CallSettings,
        list: &ContactList,
        now: DateTime<Utc>,
    ) -> Campaign {
        let starts_now = new.scheduled_at.is_none();
        let driver = self.dispatcher.as_driver().filter(|_| starts_now);
        Campaign {
            id: new.id,
            client_id: list.client_id,
            list_id: new.list_id,
            name: new.name.trim().to_owned(),
            calls,
            status: if starts_now {
                CampaignStatus::Running
            } else {
                CampaignStatus::Scheduled
            },
            current_index: 0,
            total: i64::try_from(list.accepted).unwrap_or(i64::MAX),
            max_concurrent: new.max_concurrent,
            window: new.window,
            pacing: new.pacing,
            retry: new.retry,
            scheduled_at: new.scheduled_at,
            expires_at: new.expires_at,
            paused_at: None,
            paused_by: None,
            pause_reason: None,
            resumed_at: None,
            created_at: now,
            completed_at: None,
            last_activity: None,
            heartbeat: driver.map(|_| now),
            container_id: driver.map(str::to_owned),
            waiting_for: None,
            epoch: i64::from(starts_now),
            reopened: 0,
        }
    }

    /// Pauses, resumes or cancels. A campaign that is there already is answered unchanged.
    ///
    /// # Errors
    /// `WrongState` naming the current status, `NotFound`, or those of the store.
    pub async fn command(
        &self,
        id: CampaignId,
        scope: Option<ClientId>,
        command: Command,
    ) -> Result<Commanded, CampaignError> {
        let to = match command {
            // A campaign that was paused before its time comes back to wait for it.
            Command::Resume if self.is_early(id, scope).await? => CampaignStatus::Scheduled,
            Command::Pause | Command::Resume | Command::Cancel => command.target(),
        };
        let change = StatusChange {
            to,
            by: "operator",
            reason: None,
            driver: self.dispatcher.as_driver(),
            only_under: None,
        };
        let campaign = self.carry_out(id, scope, command, change).await?;
        let in_flight = self
            .store
            .call_count(&CallFilter {
                campaign: Some(id),
                live: true,
                ..CallFilter::default()
            })
            .await?;
        Ok(Commanded {
            campaign,
            in_flight,
        })
    }

    /// Tries until the campaign was changed or its status says that it cannot be: others may command it at the same time.
    async fn carry_out(
        &self,
        id: CampaignId,
        scope: Option<ClientId>,
        command: Command,
        change: StatusChange<'_>,
    ) -> Result<Campaign, CampaignError> {
        loop {
            crash_point!("command.before_transition");
            let changed = self
                .store
                .campaign_transition(id, scope, command.sources(), change)
                .await?;
            if let Some(campaign) = changed {
                crash_point!("command.after_transition");
                tracing::info!(campaignId = %id, status = change.to.as_str(), "campaign status changed by an operator");
                if command != Command::Resume {
                    self.dispatcher.let_go(&campaign);
                }
                self.dispatcher.drive(&campaign);
                return Ok(campaign);
            }
            let current = self.get(id, scope).await?;
            if current.status == change.to {
                return Ok(current);
            }
            if !command.sources().contains(&current.status) {
                return Err(CampaignError::WrongState(current.status));
            }
        }
    }

    async fn is_early(&self, id: CampaignId, scope: Option<ClientId>) -> StoreResult<bool> {
        let campaign = self.store.campaign_get(id, scope).await?;
        let now = self.clock.now();
        Ok(campaign.is_some_and(|campaign| campaign.scheduled_at.is_some_and(|at| at > now)))
    }

    /// The campaign.
    ///
    /// # Errors
    /// `NotFound`, or those of the store.
    pub async fn get(
        &self,
        id: CampaignId,
        scope: Option<ClientId>,
    ) -> Result<Campaign, CampaignError> {
        self.store
            .campaign_get(id, scope)
            .await?
            .ok_or(CampaignError::NotFound)
    }

    /// Campaigns, newest first.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn list(
        &self,
        scope: Option<ClientId>,
        status: Option<CampaignStatus>,
        before: Option<CampaignId>,
        limit: i64,
    ) -> StoreResult<Vec<Campaign>> {
        self.store.campaign_list(scope, status, before, limit).await
    }

    /// The campaign's progress.
    ///
    /// # Errors
    /// `NotFound`, or those of the store.
    pub async fn progress(
        &self,
        id: CampaignId,
        scope: Option<ClientId>,
    ) -> Result<Watched, CampaignError> {
        let campaign = self.get(id, scope).await?;
        let now = self.clock.now();
        let standings = self.store.call_standings(id).await?;
        let progress = Progress::count(campaign.total, standings);
        let calls_per_minute = self
            .store
            .call_dialed_since(id, now - TimeDelta::minutes(1))
            .await?;
        let left = progress.pending + progress.waiting_retry + progress.in_flight;
        let is_running = campaign.status == CampaignStatus::Running;
        let heartbeat_age = campaign
            .heartbeat
            .filter(|_| is_running)
            .map(|heartbeat| now - heartbeat);
        Ok(Watched {
            estimated_completion: estimate(left, calls_per_minute, now).filter(|_| is_running),
            waiting_for: waiting_for(&campaign),
            is_driven: campaign.container_id.is_some()
                && heartbeat_age.is_some_and(|age| age < self.orphan_threshold),
            campaign,
            progress,
            calls_per_minute,
            heartbeat_age,
        })
    }
}
