//! Why calls end: Plivo's table of hangup causes.

use serde::Serialize;

/// One row of the table: code, Plivo's name, `FreeSWITCH`'s name, the usual source, and the `CallStatus` of a call that
/// ended so without having been answered.
type Row = (u16, &'static str, &'static str, &'static str, &'static str);

/// The full list of Plivo's "hangup causes" page, with 5030 of its India page. The `FreeSWITCH` names and the sources that
/// no capture shows are inferred.
#[rustfmt::skip]
const CAUSES: &[Row] = &[
    (0, "Unknown", "NORMAL_CLEARING", "Unknown", "failed"),
    (1000, "Canceled", "ORIGINATOR_CANCEL", "API Request", "cancel"),
    (1010, "Canceled (Out Of Credits)", "ORIGINATOR_CANCEL", "Plivo", "failed"),
    (1020, "Canceled (Simultaneous dial limit reached)", "ORIGINATOR_CANCEL", "Plivo", "failed"),
    (2000, "Invalid Destination Address", "INVALID_NUMBER_FORMAT", "Carrier", "failed"),
    (2010, "Destination Out Of Service", "DESTINATION_OUT_OF_ORDER", "Carrier", "failed"),
    (2020, "Endpoint Not Registered", "USER_NOT_REGISTERED", "Plivo", "failed"),
    (2030, "Destination Country Barred", "OUTGOING_CALL_BARRED", "Plivo", "failed"),
    (2040, "Destination Number Barred", "OUTGOING_CALL_BARRED", "Plivo", "failed"),
    (2050, "Destination Prefix Barred", "OUTGOING_CALL_BARRED", "Plivo", "failed"),
    (2060, "Loop Detected", "EXCHANGE_ROUTING_ERROR", "Plivo", "failed"),
    (2070, "Violates Media Anchoring", "OUTGOING_CALL_BARRED", "Plivo", "failed"),
    (3000, "No Answer", "NO_ANSWER", "Carrier", "no-answer"),
    (3010, "Busy Line", "USER_BUSY", "Carrier", "busy"),
    (3020, "Rejected", "CALL_REJECTED", "Carrier", "failed"),
    (3030, "Unknown Caller ID", "CALL_REJECTED", "Carrier", "failed"),
    (3040, "Forbidden", "CALL_REJECTED", "Carrier", "failed"),
    (3050, "Unallocated number", "UNALLOCATED_NUMBER", "Carrier", "failed"),
    (3070, "Request timeout", "RECOVERY_ON_TIMER_EXPIRE", "Carrier", "failed"),
    (3080, "Internal server error from carrier", "NORMAL_TEMPORARY_FAILURE", "Carrier", "failed"),
    (3090, "Network congestion from carrier", "NORMAL_CIRCUIT_CONGESTION", "Carrier", "failed"),
    (3100, "Busy everywhere", "USER_BUSY", "Carrier", "busy"),
    (3110, "Declined", "CALL_REJECTED", "Carrier", "failed"),
    (3120, "User does not exist anywhere", "UNALLOCATED_NUMBER", "Carrier", "failed"),
    (3130, "Spam block", "CALL_REJECTED", "Carrier", "failed"),
    (3140, "DNO Caller ID", "CALL_REJECTED", "Carrier", "failed"),
    (4000, "Normal Hangup", "NORMAL_CLEARING", "Callee", "completed"),
    (4010, "End Of XML Instructions", "NORMAL_CLEARING", "Plivo", "completed"),
    (4020, "Multiparty Call Ended", "NORMAL_CLEARING", "Plivo", "completed"),
    (4030, "Kicked Out Of Multiparty Call", "NORMAL_CLEARING", "Plivo", "completed"),
    (5000, "Network Error", "NORMAL_TEMPORARY_FAILURE", "Plivo", "failed"),
    (5010, "Internal Error", "NORMAL_TEMPORARY_FAILURE", "Plivo", "failed"),
    (5020, "Routing Error", "NO_ROUTE_DESTINATION", "Plivo", "failed"),
    (5030, "Concurrency Limit Breached", "CALL_REJECTED", "Plivo", "failed"),
    (6000, "Scheduled Hangup", "ALLOTTED_TIMEOUT", "Plivo", "timeout"),
    (6010, "Ring Timeout Reached", "NO_ANSWER", "Plivo", "timeout"),
    (6020, "Media Timeout", "MEDIA_TIMEOUT", "Plivo", "failed"),
    (7011, "Error Reaching Answer URL", "NORMAL_CLEARING", "Error", "failed"),
    (7012, "Error Reaching Action URL", "NORMAL_CLEARING", "Error", "failed"),
    (7013, "Error Reaching Transfer URL", "NORMAL_CLEARING", "Error", "failed"),
    (7014, "Error Reaching Redirect URL", "NORMAL_CLEARING", "Error", "failed"),
    (7022, "Invalid Action URL", "NORMAL_CLEARING", "Error", "failed"),
    (7023, "Invalid Transfer URL", "NORMAL_CLEARING", "Error", "failed"),
    (7024, "Invalid Redirect URL", "NORMAL_CLEARING", "Error", "failed"),
    (7032, "Invalid Method For Action URL", "NORMAL_CLEARING", "Error", "failed"),
    (7033, "Invalid Method For Transfer URL", "NORMAL_CLEARING", "Error", "failed"),
    (7034, "Invalid Method For Redirect URL", "NORMAL_CLEARING", "Error", "failed"),
    (8011, "Invalid Answer XML", "NORMAL_CLEARING", "Error", "failed"),
    (8012, "Invalid Action XML", "NORMAL_CLEARING", "Error", "failed"),
    (8013, "Invalid Transfer XML", "NORMAL_CLEARING", "Error", "failed"),
    (8014, "Invalid Redirect XML", "NORMAL_CLEARING", "Error", "failed"),
    (9000, "Lost Race", "LOSE_RACE", "Plivo", "cancel"),
    (9100, "Machine Detected", "NORMAL_CLEARING", "Plivo", "completed"),
    (9110, "Confirm Key Challenge Failed", "NORMAL_CLEARING", "Plivo", "failed"),
];

/// Why and by whom a call was ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Hangup {
    /// Plivo's numeric cause, `HangupCauseCode`.
    pub code: u16,
    /// Plivo's name of it, `HangupCauseName`.
    pub name: &'static str,
    /// `FreeSWITCH`'s name, `HangupCause`.
    pub cause: &'static str,
    /// Who ended it, `HangupSource`.
    pub source: &'static str,
    #[serde(skip)]
    unanswered_status: &'static str,
}

impl Hangup {
    /// The row of a code, if Plivo has such a code.
    pub(super) fn known(code: u16) -> Option<Self> {
        CAUSES.iter().find(|row| row.0 == code).map(
            |&(code, name, cause, source, unanswered_status)| Self {
                code,
                name,
                cause,
                source,
                unanswered_status,
            },
        )
    }

    /// The row of a code; an unknown code is Plivo's code 0.
    pub(crate) fn of(code: u16) -> Self {
        Self::known(code).unwrap_or(Self {
            code: 0,
            name: "Unknown",
            cause: "NORMAL_CLEARING",
            source: "Unknown",
            unanswered_status: "failed",
        })
    }

    /// The same cause, brought about by somebody else.
    pub(crate) fn by(self, source: &'static str) -> Self {
        Self { source, ..self }
    }

    /// The final `CallStatus`.
    pub(super) fn call_status(self, answered: bool) -> &'static str {
        if answered {
            "completed"
        } else {
            self.unanswered_status
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_appears_once() {
        for pair in CAUSES.windows(2) {
            assert!(pair[0].0 < pair[1].0, "{} and {}", pair[0].0, pair[1].0);
        }
    }

    #[test]
    fn a_call_that_was_answered_is_completed_whatever_ended_it() {
        assert_eq!(Hangup::of(8011).call_status(true), "completed");
        assert_eq!(Hangup::of(3010).call_status(false), "busy");
        assert_eq!(Hangup::of(1000).call_status(false), "cancel");
    }

    #[test]
    fn an_unknown_code_is_code_zero() {
        assert_eq!(Hangup::known(1234), None);
        assert_eq!(Hangup::of(1234), Hangup::of(0));
    }
}
