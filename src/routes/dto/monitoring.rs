//! What is going on now, on the wire.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::call::CallOut;
use crate::domain::ids::ClientId;
use crate::services::monitoring::{Driving, Utilization};

/// Whose live calls to count, and whether to list them.
#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ActiveCallsQuery {
    /// The client; one's own without it.
    #[param(value_type = Option<String>)]
    pub client_id: Option<ClientId>,
    /// List the calls as well, at most 500.
    pub include_calls: Option<bool>,
}

/// How full a limit is.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
pub struct UtilizationOut {
    /// Live calls.
    pub active: u32,
    /// The limit.
    pub max: u32,
    /// Free slots.
    pub available: u32,
    /// Live calls in percent of the limit.
    pub utilization: u32,
    /// At or above HIGH_UTILIZATION_THRESHOLD.
    pub high: bool,
}

impl From<Utilization> for UtilizationOut {
    fn from(utilization: Utilization) -> Self {
        Self {
            active: utilization.active,
            max: utilization.max,
            available: utilization.available(),
            utilization: utilization.percent(),
            high: utilization.is_high,
        }
    }
}

/// Live calls.
#[derive(Clone, Serialize, ToSchema)]
pub struct ActiveCallsOut {
    /// When this was read.
    pub timestamp: DateTime<Utc>,
    /// Of the account.
    pub global: UtilizationOut,
    /// Of the client.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client: Option<UtilizationOut>,
    /// The calls, if asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub calls: Option<Vec<CallOut>>,
}

/// How full the account and each client is.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct UtilizationReport {
    /// When this was read.
    pub timestamp: DateTime<Utc>,
    /// The account.
    pub global: UtilizationOut,
    /// The clients that the caller may see.
    pub clients: Vec<ClientUtilization>,
}

/// How full a client is.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClientUtilization {
    /// The client.
    #[schema(value_type = String)]
    pub client_id: ClientId,
    /// Its limit.
    #[serde(flatten)]
    pub utilization: UtilizationOut,
}

/// A container.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ContainerOut {
    /// Its id, new at every start.
    #[schema(example = "0123456789abcdef01234567")]
    pub id: String,
    /// Version of the program.
    pub version: String,
    /// When it started.
    pub started_at: DateTime<Utc>,
    /// Its last sign of life.
    pub seen_at: DateTime<Utc>,
    /// Campaigns that it drives.
    pub campaigns: i64,
    /// It is the one that answers.
    pub is_self: bool,
}

impl ContainerOut {
    /// The container, as seen from `this` one.
    #[must_use]
    pub fn of(driving: Driving, this: &str) -> Self {
        Self {
            is_self: driving.container.id == this,
            id: driving.container.id,
            version: driving.container.version,
            started_at: driving.container.started_at,
            seen_at: driving.container.seen_at,
            campaigns: driving.campaigns,
        }
    }
}

/// What a tick did.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TickOut {
    /// When.
    pub timestamp: DateTime<Utc>,
    /// Scheduled campaigns started here.
    pub started: usize,
    /// Campaigns adopted from containers that died or let go.
    pub adopted: usize,
    /// Calls that the carrier was asked after.
    pub asked: usize,
    /// Calls whose end was learned.
    pub ended: usize,
    /// Dials taken back because they never reached the carrier.
    pub withdrawn: usize,
    /// Calls given up as uncertain.
    pub given_up: usize,
}
