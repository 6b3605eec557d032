//! The webhooks: which parameters each event carries, in Plivo's exact and inconsistent form.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::calls::{Call, account_zone};
use super::dial::{Callback, MachineDetection};
use super::hangup::Hangup;
use super::options::SimulatorOptions;

/// `ComplianceApplicationId` of every answer webhook.
const COMPLIANCE_APPLICATION: &str = "1c773e5e-fc3e-4bc7-9b3e-8f472cff1374";

/// What a webhook tells or asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum EventKind {
    /// The callee's phone rings.
    Ring,
    /// The callee answered: asks for the answer document.
    Answer,
    /// The answer URL could not be reached: asks the fallback URL.
    Fallback,
    /// A machine answered.
    Machine,
    /// A transferred call asks for its new document.
    Transfer,
    /// A Redirect element asks for its document.
    Redirect,
    /// The call is over.
    Hangup,
}

impl EventKind {
    /// The causes of a call whose document cannot be fetched, and whose document is not valid.
    pub(super) fn document_failures(self) -> (u16, u16) {
        match self {
            Self::Transfer => (7013, 8013),
            Self::Redirect => (7014, 8014),
            Self::Ring | Self::Answer | Self::Fallback | Self::Machine | Self::Hangup => {
                (7011, 8011)
            }
        }
    }
}

/// One webhook, ready to be sent any number of times.
#[derive(Clone)]
pub(super) struct Webhook {
    pub(super) kind: EventKind,
    pub(super) uuid: Arc<str>,
    pub(super) callback: Callback,
    /// Sorted by bytes, as Plivo sends them.
    pub(super) params: Vec<(String, String)>,
}

impl Webhook {
    pub(super) fn new(
        kind: EventKind,
        call: &Call,
        callback: Callback,
        options: &SimulatorOptions,
        now: DateTime<Utc>,
    ) -> Self {
        Self {
            kind,
            uuid: Arc::clone(&call.uuid),
            callback,
            params: params(kind, call, options, now),
        }
    }

    /// Where Plivo sends an event of a call, if the caller asked for it.
    pub(super) fn target(kind: EventKind, call: &Call) -> Option<Callback> {
        let request = &call.request;
        match kind {
            EventKind::Ring => request.ring.clone(),
            EventKind::Answer => Some(request.answer.clone()),
            EventKind::Fallback => request.fallback.clone(),
            EventKind::Machine => request.machine.clone(),
            EventKind::Hangup => Some(request.hangup.clone()),
            EventKind::Transfer | EventKind::Redirect => None,
        }
    }
}

fn params(
    kind: EventKind,
    call: &Call,
    options: &SimulatorOptions,
    now: DateTime<Utc>,
) -> Vec<(String, String)> {
    let request = &call.request;
    let status = match kind {
        EventKind::Ring => "ringing",
        EventKind::Hangup => call.status(),
        EventKind::Answer
        | EventKind::Fallback
        | EventKind::Machine
        | EventKind::Transfer
        | EventKind::Redirect => "in-progress",
    };
    let answered_event = kind != EventKind::Ring && (kind != EventKind::Hangup || call.answered());
    // The caller id has its `+` until the call is answered and loses it then.
    let from = if answered_event {
        request.from.digits().to_owned()
    } else {
        request.from.with_plus()
    };
    let mut params = List(Vec::with_capacity(28));
    params.add("CallStatus", status);
    params.add("CallUUID", &*call.uuid);
    params.add("Direction", "outbound");
    params.add("Event", event_name(kind));
    params.add("From", from);
    params.add("ParentAuthID", options.auth_id.as_str());
    params.add("RequestUUID", &*call.uuid);
    params.add(
        "SessionStart",
        session_start(kind, call, now)
            .format("%Y-%m-%d %H:%M:%S%.6f")
            .to_string(),
    );
    params.add("To", request.to.digits());
    if answered_event {
        params.add("ALegRequestUUID", &*call.uuid);
        params.add("ALegUUID", &*call.uuid);
    }
    if call.machine && kind != EventKind::Ring {
        params.add("Machine", "true");
    }
    match kind {
        EventKind::Ring => params.add("CallerName", request.caller_name.as_str()),
        EventKind::Machine => params.add(
            "IfMachine",
            if request.machine_detection == Some(MachineDetection::Hangup) {
                "hangup"
            } else {
                "continue"
            },
        ),
        EventKind::Answer | EventKind::Fallback | EventKind::Transfer | EventKind::Redirect => {
            add_tariff(&mut params, options);
            params.add("ComplianceApplicationId", COMPLIANCE_APPLICATION);
            params.add("ComplianceStatus", "accepted");
            params.add("CountryCode", options.country_code.as_str());
            params.add("RouteType", "Domestic_Anchored");
        }
        EventKind::Hangup => {
            add_tariff(&mut params, options);
            add_ending(&mut params, call, options, now);
        }
    }
    params.0.extend(request.sip_headers.iter().cloned());
    params.0.sort_unstable();
    params.0
}

/// Captures show a different session start in each event of one call: each event has its own here.
fn session_start(kind: EventKind, call: &Call, now: DateTime<Utc>) -> DateTime<Utc> {
    match kind {
        EventKind::Ring => call.rang_at.unwrap_or(now),
        EventKind::Hangup => call.start(),
        EventKind::Answer
        | EventKind::Fallback
        | EventKind::Machine
        | EventKind::Transfer
        | EventKind::Redirect => call.answered_at.unwrap_or(now),
    }
}

fn event_name(kind: EventKind) -> &'static str {
    match kind {
        EventKind::Ring => "Ring",
        EventKind::Answer | EventKind::Fallback => "StartApp",
        EventKind::Machine => "MachineDetection",
        EventKind::Transfer | EventKind::Redirect => "Redirect",
        EventKind::Hangup => "Hangup",
    }
}

fn add_tariff(params: &mut List, options: &SimulatorOptions) {
    params.add("BillRate", options.bill_rate.to_string());
    params.add("STIRAttestation", "Not Applicable");
    params.add("STIRVerification", "Not Applicable");
}

/// What only the hangup tells. Times are in the account's zone and do not say so; an unanswered call has an empty
/// `AnswerTime`.
fn add_ending(params: &mut List, call: &Call, options: &SimulatorOptions, now: DateTime<Utc>) {
    let zone = account_zone(options);
    let local = |time: DateTime<Utc>| {
        time.with_timezone(&zone)
            .format("%Y-%m-%d %H:%M:%S")
            .to_string()
    };
    let hangup = call.hangup.unwrap_or_else(|| Hangup::of(0));
    params.add(
        "AnswerTime",
        call.answered_at.map(local).unwrap_or_default(),
    );
    params.add("BillDuration", call.billed_seconds(now).to_string());
    params.add("Duration", call.duration_seconds(now).to_string());
    params.add("EndTime", local(call.ended_at.unwrap_or(now)));
    params.add("HangupCause", hangup.cause);
    params.add("HangupCauseCode", hangup.code.to_string());
    params.add("HangupCauseName", hangup.name);
    params.add("HangupSource", hangup.source);
    params.add("StartTime", local(call.start()));
    params.add("TotalCost", call.total_cost(options, now));
}

struct List(Vec<(String, String)>);

impl List {
    fn add(&mut self, name: &str, value: impl Into<String>) {
        self.0.push((name.to_owned(), value.into()));
    }
}
