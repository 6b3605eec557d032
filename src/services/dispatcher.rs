//! Which campaigns this process drives: it takes those created and resumed here, starts scheduled ones when they are due,
//! and adopts those whose driver died or let go.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::driver::Driver;
use super::parts::Parts;
use super::store::StoreResult;
use super::store::campaigns::{Lease, StatusChange};
use crate::domain::campaign::{Campaign, CampaignStatus};
use crate::domain::ids::CampaignId;
use crate::utils::backoff;
use crate::utils::crash_points::crash_point;

/// How often orphans and due schedules are looked for. A politely stopped container's campaigns wait no longer than this.
const SCAN: Duration = Duration::from_millis(700);

/// What a scan did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Scan {
    /// Orphans adopted.
    pub adopted: usize,
    /// Scheduled campaigns started.
    pub started: usize,
}

/// The dispatcher. Cheap to clone.
#[derive(Clone)]
pub struct Dispatcher {
    parts: Arc<Parts>,
    driving: Arc<Mutex<HashMap<CampaignId, (i64, CancellationToken)>>>,
}

impl std::fmt::Debug for Dispatcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dispatcher")
            .field("driving", &self.driving)
            .finish_non_exhaustive()
    }
}

impl Dispatcher {
    /// A dispatcher that drives nothing yet.
    #[must_use]
    pub fn new(parts: Arc<Parts>) -> Self {
        Self {
            parts,
            driving: Arc::default(),
        }
    }

    /// This container's id.
    #[must_use]
    pub fn container(&self) -> &str {
        self.parts.heartbeat.container()
    }

    /// This container as the driver of a campaign that starts now; `None` when it is about to stop: then another adopts it.
    #[must_use]
    pub fn as_driver(&self) -> Option<&str> {
        (!self.parts.life.is_stopping()).then(|| self.container())
    }

    /// Drives `campaign`, if its lease is this container's. An older driver of it here stops.
    pub fn drive(&self, campaign: &Campaign) {
        let ours = campaign.status == CampaignStatus::Running
            && campaign.container_id.as_deref() == Some(self.container());
        if !ours || self.parts.life.is_stopping() {
            return;
        }
        let stop = self.parts.life.token();
        {
            let mut driving = self.driving.lock().unwrap_or_else(PoisonError::into_inner);
            if driving
                .get(&campaign.id)
                .is_some_and(|(epoch, _)| *epoch >= campaign.epoch)
            {
                return;
            }
            if let Some((_, older)) = driving.insert(campaign.id, (campaign.epoch, stop.clone())) {
                older.cancel();
            }
        }
        let lease = Lease {
            campaign: campaign.id,
            container: self.container().to_owned(),
            epoch: campaign.epoch,
        };
        let driver = Driver::new(Arc::clone(&self.parts), lease.clone(), stop);
        // Forgotten however the driver ends, a panic included: the next scan then sees a campaign of ours without a driver.
        let entry = Entry {
            dispatcher: self.clone(),
            lease,
        };
        self.parts.life.spawn_work(async move {
            driver.run().await;
            drop(entry);
        });
    }

    /// Stops the driver of a campaign that was paused or cancelled here; those elsewhere fail their guard. One that came after
    /// `campaign` was seen, since it was resumed meanwhile, goes on.
    pub fn let_go(&self, campaign: &Campaign) {
        let driving = self.driving.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((epoch, stop)) = driving.get(&campaign.id)
            && *epoch <= campaign.epoch
        {
            stop.cancel();
        }
    }

    /// Adopts orphans and starts due schedules, once.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn scan(&self) -> StoreResult<Scan> {
        let (store, threshold) = (&self.parts.store, self.parts.heartbeat.threshold());
        let mut scan = Scan::default();
        if self.parts.life.is_stopping() {
            return Ok(scan);
        }
        for due in store.campaign_due().await? {
            let driver = self.as_driver();
            let change = StatusChange {
                to: CampaignStatus::Running,
                by: "system",
                reason: None,
                driver,
                only_under: None,
            };
            crash_point!("schedule.before_start");
            if let Some(campaign) = store
                .campaign_transition(due.id, None, &[CampaignStatus::Scheduled], change)
                .await?
            {
                crash_point!("schedule.after_start");
                tracing::info!(campaignId = %campaign.id, "scheduled campaign started");
                scan.started += 1;
                self.drive(&campaign);
            }
        }
        for ours in store.campaigns_of(self.container()).await? {
            self.drive(&ours);
        }
        for orphan in store.campaign_orphans(self.container(), threshold).await? {
            crash_point!("adopt.before");
            if let Some(campaign) = store
                .campaign_adopt(&orphan, self.container(), threshold)
                .await?
            {
                crash_point!("adopt.after");
                tracing::info!(campaignId = %campaign.id, from = orphan.container_id, epoch = campaign.epoch, "campaign adopted");
                scan.adopted += 1;
                self.drive(&campaign);
            }
        }
        Ok(scan)
    }

    /// Scans until the process stops.
    pub async fn run(self) {
        let life = self.parts.life.clone();
        loop {
            if let Err(error) = self.scan().await {
                tracing::warn!(%error, "scan for orphans failed");
            }
            if !life.sleep(backoff::jitter(SCAN)).await {
                return;
            }
        }
    }

    /// Waits until no driver is left here; they end by themselves once the process is stopping.
    pub async fn until_idle(&self) {
        let mut waiter = self.parts.wake.waiter();
        while !self
            .driving
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .is_empty()
        {
            waiter.wait(SCAN).await;
        }
    }

    fn forget(&self, lease: &Lease) {
        let mut driving = self.driving.lock().unwrap_or_else(PoisonError::into_inner);
        if driving
            .get(&lease.campaign)
            .is_some_and(|(epoch, _)| *epoch == lease.epoch)
        {
            driving.remove(&lease.campaign);
        }
        drop(driving);
        self.parts.wake.ring();
    }
}

/// A driver's place in the list of those at work.
struct Entry {
    dispatcher: Dispatcher,
    lease: Lease,
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.dispatcher.forget(&self.lease);
    }
}
