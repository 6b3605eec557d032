//! The faults: what can be done to the system, in words and in kinds.

use std::fmt;
use std::time::Duration;

use super::proxy::Way;

/// One fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Event {
    /// When it begins, from the start of the run.
    pub(super) at: Duration,
    pub(super) action: Action,
}

/// A connection between a container and somebody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Peer {
    Database,
    Carrier,
}

/// What the carrier does wrong about dial requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DialFault {
    Throttle,
    ErrorBefore,
    ErrorAfter,
    TimeoutAfter,
    ResetBefore,
    ResetAfter,
    Slow,
    Ghost,
}

/// What the carrier does wrong about webhooks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WebhookFault {
    Lost,
    Doubled,
    Delayed,
    Reordered,
}

/// What is done. Durations are in ms; `pick` chooses among what there is at that time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Action {
    /// kill -9, and a new life after `down_ms`.
    Kill { container: usize, down_ms: u64 },
    /// SIGTERM, and a new life after `down_ms`.
    Terminate { container: usize, down_ms: u64 },
    /// SIGSTOP, then SIGCONT after `for_ms`, which is longer than the orphan threshold.
    Freeze { container: usize, for_ms: u64 },
    /// kill -9 of the database's primary, which comes back after `down_ms`.
    KillPrimary { down_ms: u64 },
    /// The primary gives up its office.
    StepDown,
    /// The disk of all members is full for `for_ms`; then there is room again, and members that gave up are started again.
    FullDisk { for_ms: u64 },
    /// All connections with one member, the other members' too.
    Member {
        member: usize,
        way: Way,
        for_ms: u64,
    },
    /// All connections of one container with the database or the carrier.
    Link {
        container: usize,
        peer: Peer,
        way: Way,
        for_ms: u64,
    },
    /// One container's next dial is held up between its last look at the campaign and its guard, and the campaign is paused
    /// meanwhile.
    HeldDial { container: usize, for_ms: u64 },
    /// The next `times` dial requests go wrong.
    Dials { fault: DialFault, times: u32 },
    /// `percent` of the webhooks go wrong; `late_ms` is the longest delay.
    Webhooks {
        fault: WebhookFault,
        percent: u8,
        late_ms: u64,
        for_ms: u64,
    },
    /// The carrier answers no look-up, or slowly.
    LookUps { slow: bool, for_ms: u64 },
    /// An operator pauses a campaign and resumes it later; two operators do, at different containers, where `twice`.
    Pause {
        pick: u32,
        twice: bool,
        resume_after_ms: u64,
    },
    /// Pause and resume are asked for at the same moment at different containers.
    Quarrel { pick: u32 },
    /// An operator cancels a campaign.
    Cancel { pick: u32, twice: bool },
    /// A client's limit of live calls changes.
    ClientLimit { pick: u32, calls: u32 },
    /// A client's limit of live calls with one caller ID changes.
    CallerIdLimit { pick: u32, calls: u32 },
}

impl Action {
    /// The kind of fault, for counting.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Kill { .. } => "container killed",
            Self::Terminate { .. } => "container stopped",
            Self::Freeze { .. } => "container frozen",
            Self::KillPrimary { .. } => "primary killed",
            Self::StepDown => "primary stepped down",
            Self::FullDisk { .. } => "database's disk full",
            Self::Member { .. } => "database member cut off",
            Self::Link {
                peer: Peer::Database,
                ..
            } => "container cut off from database",
            Self::Link {
                peer: Peer::Carrier,
                ..
            } => "container cut off from carrier",
            Self::HeldDial { .. } => "dial held up while pausing",
            Self::Dials { fault, .. } => match fault {
                DialFault::Throttle => "dial: 429",
                DialFault::ErrorBefore => "dial: 5xx before",
                DialFault::ErrorAfter => "dial: 5xx after accepting",
                DialFault::TimeoutAfter => "dial: time-out after accepting",
                DialFault::ResetBefore => "dial: reset before",
                DialFault::ResetAfter => "dial: reset after accepting",
                DialFault::Slow => "dial: slow",
                DialFault::Ghost => "dial: taken up far too late",
            },
            Self::Webhooks { fault, .. } => match fault {
                WebhookFault::Lost => "webhooks lost",
                WebhookFault::Doubled => "webhooks doubled",
                WebhookFault::Delayed => "webhooks delayed",
                WebhookFault::Reordered => "webhooks out of order",
            },
            Self::LookUps { slow: true, .. } => "look-ups slow",
            Self::LookUps { slow: false, .. } => "look-ups refused",
            Self::Pause { .. } => "operator pauses and resumes",
            Self::Quarrel { .. } => "operators pause and resume at once",
            Self::Cancel { .. } => "operator cancels",
            Self::ClientLimit { .. } => "client's limit changed",
            Self::CallerIdLimit { .. } => "caller ID's limit changed",
        }
    }
}

/// The target and the measure, behind the kind.
impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<36}", self.kind())?;
        match self {
            Self::Kill { container, down_ms } | Self::Terminate { container, down_ms } => {
                write!(f, "container {}, down {down_ms} ms", container + 1)
            }
            Self::Freeze { container, for_ms } | Self::HeldDial { container, for_ms } => {
                write!(f, "container {}, {for_ms} ms", container + 1)
            }
            Self::KillPrimary { down_ms } => write!(f, "down {down_ms} ms"),
            Self::StepDown => Ok(()),
            Self::Member {
                member,
                way,
                for_ms,
            } => write!(f, "member {}: {way}, {for_ms} ms", member + 1),
            Self::Link {
                container,
                way,
                for_ms,
                ..
            } => write!(f, "container {}: {way}, {for_ms} ms", container + 1),
            Self::Dials { times, .. } => write!(f, "the next {times}"),
            Self::Webhooks {
                fault: WebhookFault::Delayed,
                percent,
                late_ms,
                for_ms,
            } => write!(f, "{percent} % by up to {late_ms} ms, {for_ms} ms"),
            Self::Webhooks {
                percent, for_ms, ..
            } => write!(f, "{percent} %, {for_ms} ms"),
            Self::LookUps { for_ms, .. } | Self::FullDisk { for_ms } => write!(f, "{for_ms} ms"),
            Self::Pause {
                pick,
                twice,
                resume_after_ms,
            } => write!(f, "campaign #{pick}{}, {resume_after_ms} ms", times(*twice)),
            Self::Quarrel { pick } => write!(f, "campaign #{pick}"),
            Self::Cancel { pick, twice } => write!(f, "campaign #{pick}{}", times(*twice)),
            Self::ClientLimit { pick, calls } | Self::CallerIdLimit { pick, calls } => {
                write!(f, "client #{pick}: {calls}")
            }
        }
    }
}

fn times(twice: bool) -> &'static str {
    if twice { ", twice at once" } else { "" }
}
