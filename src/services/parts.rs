//! What drivers work with; built once by the composition root.

use std::time::Duration;

use super::calls::Calls;
use super::dialer::Dialer;
use super::heartbeat::Heartbeat;
use super::outbound::Outbound;
use super::pacer::Pacer;
use super::slots::Slots;
use super::store::Store;
use super::wake::Wake;
use super::warmup::Warmup;
use crate::utils::clock::Clock;
use crate::utils::lifecycle::Lifecycle;

/// See the module.
pub struct Parts {
    /// The database.
    pub store: Store,
    /// Follows the database's clock.
    pub clock: Clock,
    /// Start and stop.
    pub life: Lifecycle,
    /// Changes calls.
    pub calls: Calls,
    /// Sends dial requests.
    pub dialer: Dialer,
    /// Chooses slots.
    pub slots: Slots,
    /// Paces.
    pub pacer: Pacer,
    /// Judges addresses that users name.
    pub outbound: Outbound,
    /// Wakes bots.
    pub warmup: Warmup,
    /// Says who we are, and whether our leases hold.
    pub heartbeat: Heartbeat,
    /// Wakes drivers.
    pub wake: Wake,
    /// Default pause between two calls of a campaign.
    pub call_interval: Duration,
    /// Threshold of the circuit breaker, percent.
    pub failed_rate_percent: u32,
}
