//! What every handler can reach: the services, built once by the composition root.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use crate::config::Config;
use crate::services::auth::Auth;
use crate::services::calls::Calls;
use crate::services::campaigns::Campaigns;
use crate::services::clients::Clients;
use crate::services::dispatcher::Dispatcher;
use crate::services::idempotency::Idempotency;
use crate::services::imports::Imports;
use crate::services::lists::Lists;
use crate::services::monitoring::Monitoring;
use crate::services::reconciler::Reconciler;
use crate::services::single_calls::SingleCalls;
use crate::services::webhooks::Webhooks;
use crate::utils::clock::Clock;
use crate::utils::lifecycle::Lifecycle;

/// The services behind the HTTP edge. Cheap to clone; all clones share them.
#[derive(Debug, Clone)]
pub struct AppState {
    /// The settings.
    pub config: Arc<Config>,
    /// The database's time.
    pub clock: Clock,
    /// Where work runs that must outlive its connection.
    pub lifecycle: Lifecycle,
    /// Who is asking.
    pub auth: Auth,
    /// Clients and keys.
    pub clients: Clients,
    /// Imports of contact lists.
    pub imports: Imports,
    /// Contact lists.
    pub lists: Lists,
    /// One answer for one request.
    pub idempotency: Idempotency,
    /// Campaigns, as operators see them.
    pub campaigns: Campaigns,
    /// Single calls.
    pub single_calls: SingleCalls,
    /// Calls, as operators list them.
    pub calls: Calls,
    /// The carrier's webhooks.
    pub webhooks: Webhooks,
    /// What is going on now.
    pub monitoring: Monitoring,
    /// Which campaigns this container drives.
    pub dispatcher: Dispatcher,
    /// Asks the carrier.
    pub reconciler: Reconciler,
    /// When this process began to serve.
    pub started: Instant,
    /// The database has its indexes; before that nothing that writes is let in.
    pub is_prepared: Arc<AtomicBool>,
}

impl AppState {
    /// True once the database was prepared by this process.
    #[must_use]
    pub fn is_prepared(&self) -> bool {
        self.is_prepared.load(Ordering::Acquire)
    }
}
